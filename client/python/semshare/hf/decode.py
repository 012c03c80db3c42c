"""The model's own greedy decoding over a prompt's cache."""

from __future__ import annotations

from typing import Any

import torch

from semshare.hf.report import PrefillResult


@torch.inference_mode()
def continue_greedily(model: Any, first: PrefillResult, max_new_tokens: int) -> torch.Tensor:
    """`[1, tokens + new]`: the prompt and at most `max_new_tokens` new tokens, at least one. The
    prefill's cache grows with them."""
    following = first.next_ids
    if max_new_tokens <= 1 or int(following[0, -1]) in _stop_tokens(model):
        return following
    tokens: torch.Tensor = model.generate(
        following,
        attention_mask=torch.ones_like(following),
        past_key_values=first.cache,
        max_new_tokens=max_new_tokens - 1,
        do_sample=False,
    )
    return tokens


def _stop_tokens(model: Any) -> set[int]:
    stop = getattr(model.generation_config, "eos_token_id", None)
    if stop is None:
        return set()
    return set(stop) if isinstance(stop, list) else {int(stop)}
