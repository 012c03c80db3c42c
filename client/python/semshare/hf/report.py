"""What a prefill and a store tell their caller."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from semshare.hf.cache import PromptCache
from semshare.hf.retention import RetainedCache


@dataclass
class PrefillReport:
    """`kind`: exact_prefix, shifted, edited, fuzzy, semsharekv, miss or fallback.

    Seconds: `ttft_s` from ids in hand to logits, `lookup_s` in `FindMatch`, `transfer_s` while the
    stream of rows was open (it overlaps `compute_s`), `compute_s` in the model, `wait_s` while the
    model stood waiting for rows, `overhead_s` everything in the request but the model's own work,
    the result's cache included (for a miss or a fallback: but its full forward).

    `transport` is what the rows of a reuse came by: `shared_memory`, `cuda_ipc`, or `inline`, and
    then `inline_reason` says what kept the broker from the cache's own memory.
    `recomputed_share` is computed (token, layer) pairs / all of them, abandoned work included.
    `fallback_reason` also gives the reason of a miss.
    """

    kind: str
    tokens: int
    preset: str = ""
    matched_tokens: int = 0
    recomputed_share: float = 1.0
    lookup_s: float = 0.0
    transfer_s: float = 0.0
    transfer_bytes: int = 0
    compute_s: float = 0.0
    wait_s: float = 0.0
    ttft_s: float = 0.0
    overhead_s: float = 0.0
    fallback_reason: str = ""
    transport: str = ""
    inline_reason: str = ""
    segments: int = 0
    sentinel_sigma: float = float("nan")


@dataclass
class PrefillResult:
    """`logits` `[vocab]` float32 of the last token; `cache` holds a row for every token of `ids`,
    unless it is a `RetainedCache`."""

    ids: tuple[int, ...]
    logits: torch.Tensor
    cache: PromptCache | RetainedCache
    report: PrefillReport

    @property
    def next_ids(self) -> torch.Tensor:
        """`[1, tokens + 1]`: the prompt and its greedy next token, what `model.generate` takes
        together with `past_key_values=cache`."""
        following = int(self.logits.argmax())
        return torch.tensor([[*self.ids, following]], device=self.logits.device)


@dataclass
class GenerateResult:
    """`ids` are prompt and answer, `new_ids` the answer; `cache` lacks only the last token's
    row."""

    ids: list[int]
    new_ids: list[int]
    cache: PromptCache | RetainedCache
    report: PrefillReport


@dataclass
class StoreResult:
    """`error` is empty where the broker has the reference; `visible`: `FindMatch` finds it;
    `durable`: it survives a crash."""

    reference_id: bytes = b""
    tokens: int = 0
    uploaded_tokens: int = 0
    visible: bool = False
    durable: bool = False
    error: str = ""
    seconds: float = field(default=0.0)
