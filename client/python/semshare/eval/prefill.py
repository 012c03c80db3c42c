"""The rival of reuse: the model's own full prefill in its best form, and decoding after it.

The best form is the engine's own forward, logits of the last token only, its own attention kernel,
dtype and threads, in the process that is measured.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from semshare.hf.retention import RetainedCache

__all__ = ["Decoded", "FullPrefill", "forced_logits", "greedy", "synchronize"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Greedy tokens after a prompt: `tokens` of length n, and the logits `[n, vocab]` that chose
    each of them, the first being those of the prompt's last token."""

    tokens: list[int]
    logits: torch.Tensor


class FullPrefill:
    """Full prefills of one model. Not thread-safe."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def run(self, ids: list[int]) -> tuple[float, torch.Tensor, Any]:
        """Prefills `ids`: seconds from ids in hand to first logits, logits `[vocab]`, the cache."""
        gc.collect()
        synchronize(self.model)
        begin = time.perf_counter()
        with torch.inference_mode():
            cache = DynamicCache(config=self.model.config)
            batch = torch.tensor([ids], device=self.model.device)
            out = self.model(
                input_ids=batch, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            logits = out.logits[0, -1]
        synchronize(self.model)
        return time.perf_counter() - begin, logits, cache


def greedy(model: Any, logits: torch.Tensor, cache: Any, count: int) -> Decoded:
    """Decodes `count` tokens greedily, past the end of the answer too.

    `logits` `[vocab]` and `cache` are a prefill's; the cache grows by `count - 1` tokens.
    """
    rows = [logits]
    tokens = [int(logits.argmax())]
    while len(tokens) < count:
        rows.append(_step(model, cache, tokens[-1]))
        tokens.append(int(rows[-1].argmax()))
    return Decoded(tokens, torch.stack(rows))


def forced_logits(model: Any, logits: torch.Tensor, cache: Any, tokens: list[int]) -> torch.Tensor:
    """Logits `[n, vocab]` along given tokens: row i is the distribution that token i comes from.

    `logits` `[vocab]` and `cache` are a prefill's. The tokens go through the model at once: that is
    what makes 32 of them cheap, and differs from `greedy`'s single steps by rounding alone (a KL of
    about 1e-10). A `RetainedCache` takes single steps. The cache grows by `n - 1` tokens.
    """
    if len(tokens) == 1:
        return logits[None]
    if isinstance(cache, RetainedCache):
        return torch.stack([logits, *(_step(model, cache, token) for token in tokens[:-1])])
    with torch.inference_mode():
        steps = torch.tensor([tokens[:-1]], device=model.device)
        out = model(input_ids=steps, past_key_values=cache, use_cache=True)
    return torch.cat([logits[None], out.logits[0]])


def _step(model: Any, cache: Any, token: int) -> torch.Tensor:
    """`[vocab]` logits after one more token."""
    with torch.inference_mode():
        step = torch.tensor([[token]], device=model.device)
        out = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits: torch.Tensor = out.logits[0, -1]
    return logits


def synchronize(model: Any) -> None:
    """Waits for the accelerator, so that a clock read after it is true. Nothing on a CPU."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
