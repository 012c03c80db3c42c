"""Computing some tokens over the rows of the others, for every architecture."""

from __future__ import annotations

import pytest
import tiny_models
import torch

from semshare.hf.attention import make_blocks
from semshare.hf.cache import KvCache, PromptCache
from semshare.hf.importance import question_importance
from semshare.hf.kinds import AttentionKind
from semshare.hf.layers import LayerDriver
from semshare.hf.pool import KvPool
from semshare.hf.spec import one_token_rows

TOKENS = 90  # More than a block of queries, and several sliding windows of 16.


def _setup(name: str) -> tuple[LayerDriver, torch.Tensor, KvCache, torch.Tensor]:
    driver = LayerDriver(tiny_models.make(name))
    shapes = one_token_rows(driver, 1, 0).shapes
    ids = torch.randint(0, tiny_models.VOCAB, (TOKENS,), generator=torch.Generator().manual_seed(3))
    cache = KvCache(shapes, TOKENS, driver.dtype, driver.device)
    with torch.inference_mode():
        options = {"logits_to_keep": 1} if driver._keeps_last else {}
        stock = driver.model(input_ids=ids[None], **options).logits[0, -1]
    assert torch.equal(driver.full(ids, cache), stock)
    return driver, ids, cache, stock


def _close(found: torch.Tensor | None, want: torch.Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


@pytest.mark.parametrize("name", list(tiny_models.MODELS))
def test_all_rows_selected_equal_the_full_forward(name: str) -> None:
    driver, ids, cache, stock = _setup(name)
    exact = [[plane.clone() for plane in planes] for planes in cache.planes]
    for planes in cache.planes:
        for plane in planes:
            plane.fill_(3.0)
    before = cache.token_layers
    _close(driver.run(ids, torch.arange(TOKENS), cache), stock)
    assert cache.token_layers - before == TOKENS * len(cache.planes)
    for found, want in zip(cache.planes, exact, strict=True):
        for one, other in zip(found, want, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", list(tiny_models.MODELS))
def test_narrowing_over_exact_rows_changes_nothing(name: str) -> None:
    driver, ids, cache, stock = _setup(name)
    sets = {1: torch.arange(1, TOKENS, 2), 2: torch.tensor([5, 31, TOKENS - 1])}
    asked = []

    def narrow(layer: int, rows: torch.Tensor) -> torch.Tensor:
        asked.append((layer, len(rows)))
        return sets[layer]

    before = cache.token_layers
    found = driver.run(ids, torch.arange(TOKENS), cache, narrow=narrow, narrow_layers=[1, 2])
    _close(found, stock)
    assert asked == [(1, TOKENS), (2, TOKENS // 2)]
    assert cache.token_layers - before == TOKENS + TOKENS // 2 + 3
    assert driver.config._attn_implementation != "semshare"
    assert not any(layer._forward_pre_hooks for layer in driver.layers)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gptj", "mistral_sliding", "deepseek3_mla"])
def test_importance_is_the_attention_that_eager_reports(name: str) -> None:
    driver, ids, cache, _ = _setup(name)
    before = [[plane.clone() for plane in planes] for planes in cache.planes]
    found = question_importance(driver, ids, cache, 7)
    driver.model.set_attn_implementation("eager")
    with torch.inference_mode():
        attentions = driver.model(input_ids=ids[None], output_attentions=True).attentions
    want = sum(weights[0, :, -7:].float().sum(dim=(0, 1)) for weights in attentions)
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-4)
    for planes, old in zip(cache.planes, before, strict=True):
        for one, other in zip(planes, old, strict=True):
            assert torch.equal(one, other)


def test_masks_by_layer_kind() -> None:
    rows = torch.tensor([3, 40, 41])
    hidden = torch.zeros(50, dtype=torch.bool)
    hidden[[2, 40]] = True
    kinds = [AttentionKind("full"), AttentionKind("sliding", 8), AttentionKind("chunked", 16)]
    for kind in kinds:
        (block,) = make_blocks(rows, kind, torch.float32, hidden)
        seen = torch.zeros(3, 50, dtype=torch.bool)
        seen[:, block.key_begin : block.key_end] = block.mask == 0
        for index, query in enumerate(rows.tolist()):
            for key in range(50):
                allowed = key <= query and (key == query or not hidden[key])
                if kind.name == "sliding":
                    allowed = allowed and query - key < 8
                if kind.name == "chunked":
                    allowed = allowed and query // 16 == key // 16
                assert bool(seen[index, key]) == allowed, (kind, query, key)


@pytest.mark.parametrize("name", ["llama", "gemma3", "mistral_sliding", "deepseek3_mla", "gptj"])
def test_the_prompt_cache_continues_as_the_models_own(name: str) -> None:
    driver, ids, cache, stock = _setup(name)
    prompt = PromptCache(cache, driver.model.config, ids=tuple(ids.tolist()), exact=True)
    following = torch.cat((ids, stock.argmax()[None]))[None]
    ones = torch.ones_like(following)
    options = {"max_new_tokens": 12, "do_sample": False, "attention_mask": ones}
    found = driver.model.generate(following, past_key_values=prompt, **options)
    want = driver.model.generate(following, **options)
    assert torch.equal(found, want)


def test_the_pool_reuses_memory_only_when_nobody_looks_at_it() -> None:
    pool = KvPool()
    first = pool.take(1000).tensor
    first.fill_(7)
    address = first.data_ptr()
    view = first[10:20].view(torch.int16)
    del first
    second = pool.take(1000).tensor
    assert second.data_ptr() != address
    assert view.tolist() == [0x0707] * 5
    del view
    third = pool.take(2000).tensor
    assert third.data_ptr() == address
