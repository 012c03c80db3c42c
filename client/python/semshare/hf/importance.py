"""How much a question attends to every token of a prompt (method B.4, *importance*)."""

from __future__ import annotations

import torch

from semshare.hf.cache import KvCache
from semshare.hf.layers import LayerDriver


def question_importance(
    driver: LayerDriver,
    ids: torch.Tensor,
    cache: KvCache,
    question_tokens: int,
    hidden: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention mass that the last `question_tokens` of `[tokens]` ids give to every token, summed
    over layers and heads: `[tokens]` float32.

    Only the question's tokens run. Where `hidden` (`[tokens]` bool: rows that hold nothing yet) is
    given, the question's own rows are written into `cache`; without it `cache` must be complete
    and stays as it is.
    """
    tokens = len(ids)
    first = max(0, tokens - question_tokens)
    rows = torch.arange(first, tokens, device=ids.device)
    importance = torch.zeros(tokens, dtype=torch.float32, device=ids.device)
    if hidden is not None:
        hidden = hidden.clone()
        hidden[first:] = False
    cache.read_only = hidden is None
    try:
        driver.run(ids, rows, cache, hidden=hidden, importance=importance, want_logits=False)
    finally:
        cache.read_only = False
    return importance
