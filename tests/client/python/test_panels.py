"""Attention of selected queries by panels, against an explicit softmax in float64."""

from __future__ import annotations

import pytest
import torch

from semshare.hf import panels

TOKENS = 700


def _rows(name: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return {
        "all": torch.arange(TOKENS),
        "first": torch.tensor([0]),
        "last": torch.tensor([TOKENS - 1]),
        "question": torch.arange(TOKENS - 20, TOKENS),
        "leaf": torch.arange(100, 164),
        "more_than_a_leaf": torch.arange(100, 165),
        "scattered": torch.randperm(TOKENS, generator=generator)[:300].sort().values,
    }[name]


ROWS = ["all", "first", "last", "question", "leaf", "more_than_a_leaf", "scattered"]


@pytest.mark.parametrize("name", ROWS)
def test_panels_hold_every_causal_pair_once(name: str) -> None:
    rows = _rows(name)
    share = 3
    pairs = torch.zeros(len(rows), TOKENS, dtype=torch.int32)
    seen = torch.zeros(len(rows), dtype=torch.bool)
    for panel in panels.make_panels(rows, share):
        assert bool(seen[panel.begin : panel.end].any()) != panel.first
        seen[panel.begin : panel.end] = True
        allowed = torch.ones(panel.end - panel.begin, panel.key_end - panel.key_begin)
        if panel.mask is not None:
            masks = panel.mask.unflatten(0, (-1, share))
            assert bool((masks == masks[:, :1]).all())
            allowed = (masks[:, 0] == 0).float()
            assert bool(allowed.any(dim=1).all())  # A row of nothing but -inf has no softmax.
        pairs[panel.begin : panel.end, panel.key_begin : panel.key_end] += allowed.int()
    assert torch.equal(pairs, (torch.arange(TOKENS)[None, :] <= rows[:, None]).int())


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(("heads", "groups"), [(6, 2), (4, 4), (4, 1)])
def test_attention_is_that_of_one_softmax(name: str, heads: int, groups: int) -> None:
    rows = _rows(name)
    generator = torch.Generator().manual_seed(7)
    # As they come: queries by token, keys and values as views of [token][head][width].
    query = torch.randn(1, len(rows), heads, 16, generator=generator).transpose(1, 2) * 4
    key, value = (
        torch.randn(TOKENS, groups, 16, generator=generator).transpose(0, 1)[None] for _ in range(2)
    )
    assert panels.applies(query, key, value)
    share = heads // groups
    found = panels.attend(query, key, value, panels.make_panels(rows, share), 0.25)

    keys, values = (x.double().repeat_interleave(share, dim=1) for x in (key, value))
    scores = torch.matmul(query.double(), keys.transpose(2, 3)) * 0.25
    scores.masked_fill_(torch.arange(TOKENS)[None, :] > rows[:, None], float("-inf"))
    want = torch.matmul(torch.softmax(scores, dim=-1), values).transpose(1, 2)
    torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=1e-5)


def test_what_the_kernel_can_not_merge_is_left_to_blocks() -> None:
    whole = torch.zeros(1, 2, 4, 16)
    assert panels.applies(whole, whole, whole)
    half = whole.bfloat16()
    assert not panels.applies(half, half, half)  # A panel would be rounded before it is merged.
    assert not panels.applies(whole, whole, whole[..., :8])
    assert not panels.applies(whole, whole.transpose(2, 3).contiguous().transpose(2, 3), whole)
