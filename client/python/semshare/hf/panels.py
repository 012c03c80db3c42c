"""Causal attention of selected queries on a CPU, without the work that causality makes useless.

Selected queries lie scattered over a prompt, so a block of them under one mask either spans few
keys in vain (a small block, slow) or fills the matrix units (a large block, mostly masked). Here
the sorted queries are halved again and again: all queries of a part see every key before the
part's first position, a *panel* that needs no mask; parts of at most `_LEAF` queries finish under
a mask. A query's panels have distinct keys, and their results are merged by the log-sum-exp of
their scores, as FlashAttention does between its tiles (Dao et al., arXiv 2205.14135, section 3.1).

In float32 only: a panel's result is rounded before it is merged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Queries under one mask. The kernel is a tenth slower on fewer.
_LEAF = 64

# The one CPU kernel of SDPA that also returns the log-sum-exp; merging needs it.
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@dataclass(frozen=True, slots=True)
class Panel:
    """Queries `[begin, end)` of a run see keys `[key_begin, key_end)`: all of them, or under
    `mask`, additive, `[(end - begin) * share, key_end - key_begin]`, each query's row `share`
    times. `first`: the queries have seen no key before."""

    begin: int
    end: int
    key_begin: int
    key_end: int
    first: bool
    mask: torch.Tensor | None = None


def applies(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether `attend` takes these: float32 on a CPU, one width, elements of a row adjacent."""
    return (
        query.device.type == "cpu"
        and query.dtype == torch.float32
        and query.shape[-1] == key.shape[-1] == value.shape[-1]
        and key.stride(-1) == value.stride(-1) == 1
    )


def make_panels(rows: torch.Tensor, share: int) -> list[Panel]:
    """Panels for queries at the sorted, distinct positions `rows`; `share` query heads share a
    KV head. In an order in which a query's `first` comes first."""
    positions = rows.tolist()
    panels: list[Panel] = []

    def leaf(begin: int, end: int, seen: int) -> None:
        keys = torch.arange(seen, positions[end - 1] + 1)
        banned = keys[None, :] > rows[begin:end, None].cpu()
        mask = torch.zeros(banned.shape).masked_fill_(banned, float("-inf"))
        mask = mask.repeat_interleave(share, dim=0)
        panels.append(Panel(begin, end, seen, seen + len(keys), seen == 0, mask))

    def part(begin: int, end: int, seen: int) -> None:
        if positions[begin] > seen:
            panels.append(Panel(begin, end, seen, positions[begin], seen == 0))
            seen = positions[begin]
        if end - begin <= _LEAF:
            leaf(begin, end, seen)
            return
        middle = (begin + end) // 2
        part(begin, middle, seen)
        part(middle, end, seen)

    if positions:
        part(0, len(positions), 0)
    return panels


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    panels: list[Panel],
    scale: float,
) -> torch.Tensor:
    """`[1, n, heads, width]`, for query `[1, heads, n, width]`, key and value
    `[1, groups, tokens, width]`, and the panels of these n queries."""
    heads, count, width = query.shape[1:]
    groups = key.shape[1]
    share = heads // groups
    # The heads of a group side by side: together they fill the kernel's rows, and keys are not
    # repeated for each.
    folded = query[0].unflatten(0, (groups, share)).transpose(1, 2)
    folded = folded.reshape(1, groups, count * share, width)
    out = torch.empty_like(folded)
    weight = query.new_empty(1, groups, count * share)  # Log-sum-exp of the scores so far.
    for panel in panels:
        rows = slice(panel.begin * share, panel.end * share)
        keys = slice(panel.key_begin, panel.key_end)
        part, added = _FLASH(
            folded[:, :, rows],
            key[:, :, keys],
            value[:, :, keys],
            attn_mask=panel.mask,
            scale=scale,
        )
        if panel.first:
            out[:, :, rows] = part
            weight[:, :, rows] = added
        else:
            sofar = weight[:, :, rows]
            out[:, :, rows].lerp_(part, torch.sigmoid(added - sofar).unsqueeze(-1))
            torch.logaddexp(sofar, added, out=sofar)
    return out.view(groups, count, share, width).transpose(0, 1).reshape(1, count, heads, width)
