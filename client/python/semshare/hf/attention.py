"""Attention of a few selected queries over a whole prompt's keys.

Registered with Transformers under `NAME`, and in force only while a run of this adapter is active
in the calling thread; for anybody else it is plain SDPA.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from semshare.hf import panels
from semshare.hf.errors import NotSupportedError
from semshare.hf.kinds import CHUNKED, FULL, SLIDING, AttentionKind

NAME = "semshare"

# Queries that share one range of keys. Causality makes half of a [queries, tokens] product
# useless; blocks of this size skip most of that half and still fill the matrix units.
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Block:
    """Queries `[begin, end)` of a run see keys `[key_begin, key_end)` under `mask`, additive,
    `[end - begin, key_end - key_begin]`."""

    begin: int
    end: int
    key_begin: int
    key_end: int
    mask: torch.Tensor


def make_blocks(
    rows: torch.Tensor,
    kind: AttentionKind,
    dtype: torch.dtype,
    hidden: torch.Tensor | None = None,
) -> list[Block]:
    """Blocks for queries at the sorted positions `rows`; keys where `hidden` is true are masked
    for every query but the key's own."""
    positions = rows.tolist()
    blocks = []
    for begin in range(0, len(positions), _BLOCK):
        end = min(len(positions), begin + _BLOCK)
        key_begin, key_end = 0, positions[end - 1] + 1
        if kind.name == SLIDING:
            key_begin = max(0, positions[begin] - kind.window + 1)
        elif kind.name == CHUNKED:
            key_begin = positions[begin] // kind.window * kind.window
        query = rows[begin:end, None]
        key = torch.arange(key_begin, key_end, device=rows.device)[None, :]
        banned = key > query
        if kind.name == SLIDING:
            banned |= query - key >= kind.window
        elif kind.name == CHUNKED:
            banned |= key // kind.window != query // kind.window
        if hidden is not None:
            banned |= hidden[None, key_begin:key_end] & (key != query)
        mask = torch.zeros(banned.shape, dtype=dtype, device=rows.device)
        mask.masked_fill_(banned, float("-inf"))
        blocks.append(Block(begin, end, key_begin, key_end, mask))
    return blocks


@dataclass(slots=True)
class Run:
    """State of one selective forward: the layer kinds, the queries in force, what to collect.

    `importance`, if set, is float32 and receives the attention mass that each key gets, summed over
    queries and heads: `[n, tokens]` for the first n layers, or `[tokens]`, summed over all layers.
    """

    kinds: list[AttentionKind]
    dtype: torch.dtype
    rows: torch.Tensor
    hidden: torch.Tensor | None = None
    importance: torch.Tensor | None = None
    _blocks: dict[AttentionKind, list[Block]] = field(default_factory=dict)
    _panels: dict[int, list[panels.Panel]] = field(default_factory=dict)

    def set_rows(self, rows: torch.Tensor) -> None:
        self.rows = rows
        self._blocks.clear()
        self._panels.clear()

    def importance_of(self, layer: int) -> torch.Tensor | None:
        """`[tokens]`: what collects the attention of `layer`; None: nothing does."""
        if self.importance is None or self.importance.ndim == 1:
            return self.importance
        return self.importance[layer] if layer < len(self.importance) else None

    def blocks(self, layer: int) -> list[Block]:
        kind = self.kinds[layer]
        found = self._blocks.get(kind)
        if found is None:
            found = make_blocks(self.rows, kind, self.dtype, self.hidden)
            self._blocks[kind] = found
        return found

    def is_causal(self, layer: int) -> bool:
        """Whether a query sees every key before it."""
        return self.hidden is None and self.kinds[layer].name == FULL

    def panels(self, share: int) -> list[panels.Panel]:
        """For layers that are causal, where `share` query heads share a KV head."""
        found = self._panels.get(share)
        if found is None:
            found = self._panels[share] = panels.make_panels(self.rows, share)
        return found


ACTIVE: ContextVar[Run | None] = ContextVar("semshare_run", default=None)


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block: Block,
    scale: float,
    softcap: float | None,
    importance: torch.Tensor | None,
) -> torch.Tensor:
    """`[1, heads, n, width]` of one block; an explicit softmax where SDPA cannot serve."""
    if softcap is None and importance is None:
        grouped = query.shape[1] != key.shape[1]
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=block.mask, scale=scale, enable_gqa=grouped
        )
    heads, groups = query.shape[1], key.shape[1]
    folded = query[0].reshape(groups, -1, query.shape[-1])
    scores = torch.matmul(folded, key[0].transpose(1, 2)).float() * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores.unflatten(1, (heads // groups, -1)).add_(block.mask)
    weights = torch.softmax(scores, dim=-1)
    if importance is not None:
        importance[block.key_begin : block.key_end] += weights.sum(dim=(0, 1))
    out = torch.matmul(weights.to(value.dtype), value[0])
    return out.view(1, heads, -1, value.shape[-1])


def attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' attention interface: query `[1, heads, n, width]`, key and value
    `[1, groups, tokens, width]` -> `[1, n, heads, width]`."""
    run = ACTIVE.get()
    if run is None:
        if softcap is not None:
            kwargs["softcap"] = softcap
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return result
    for name in ("s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise NotSupportedError(f"attention with '{name}'")
    layer: int = module.layer_idx  # type: ignore[assignment]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    importance = run.importance_of(layer)
    plain = softcap is None and importance is None and run.is_causal(layer)
    if plain and panels.applies(query, key, value):
        share = query.shape[1] // key.shape[1]
        return panels.attend(query, key, value, run.panels(share), scale), None
    out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[-1])
    for block in run.blocks(layer):
        keys = slice(block.key_begin, block.key_end)
        part = _attend(
            query[:, :, block.begin : block.end],
            key[:, :, keys],
            value[:, :, keys],
            block,
            scale,
            softcap,
            importance,
        )
        out[:, block.begin : block.end] = part.transpose(1, 2)
    return out, None


ALL_ATTENTION_FUNCTIONS.register(NAME, attention_forward)
