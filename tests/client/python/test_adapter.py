"""`CachedModel` on tiny models of every architecture, over the broker fixture."""

from __future__ import annotations

import time
from typing import Any

import pytest
import tiny_models
import torch
from local_broker import LocalBroker
from transformers import DynamicCache

from semshare.hf import ApproximateCacheError, CachedModel, cached_model
from semshare.hf.cache import KvCache, PromptCache

GENERATOR = torch.Generator().manual_seed(11)
DOCUMENT = torch.randint(0, tiny_models.VOCAB, (300,), generator=GENERATOR).tolist()
HEADER = torch.randint(0, tiny_models.VOCAB, (40,), generator=GENERATOR).tolist()
QUESTION = torch.randint(0, tiny_models.VOCAB, (25,), generator=GENERATOR).tolist()


def _full(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        options = {} if model.config.model_type == "gptj" else {"logits_to_keep": 1}
        return model(torch.tensor([ids]), **options).logits[0, -1]


def _close(found: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


@pytest.mark.parametrize("name", list(tiny_models.MODELS))
def test_every_architecture_stores_and_reuses(name: str, broker: Any) -> None:
    model = tiny_models.make(name)
    cached = CachedModel(model, broker, name=name)
    stored = cached.store(DOCUMENT + QUESTION)
    assert (stored.error, stored.tokens, stored.visible) == ("", 325, True)

    prefix = cached.prefill(DOCUMENT + QUESTION[::-1])
    assert prefix.report.kind == "exact_prefix"
    assert prefix.report.matched_tokens >= 256
    assert prefix.cache.exact
    _close(prefix.logits, _full(model, DOCUMENT + QUESTION[::-1]))

    moved = HEADER + DOCUMENT + QUESTION
    result = cached.prefill(moved, preset="fast")
    assert result.report.kind in ("shifted", "edited")
    assert 0 < result.report.recomputed_share < 0.6
    assert not result.cache.exact
    assert result.cache.get_seq_length() == len(moved)
    assert bool(torch.isfinite(result.logits).all())
    cached.close()
    assert not any(key.startswith(("fallback", "register", "store")) for key in cached.counters)


@pytest.mark.parametrize("preset", ["fast", "heads", "balanced", "faithful", "auto"])
def test_presets_recompute_what_they_say(preset: str, broker: Any) -> None:
    cached = CachedModel(tiny_models.make("llama"), broker)
    cached.store(DOCUMENT + QUESTION)
    target = HEADER + DOCUMENT[150:] + DOCUMENT[:150] + QUESTION
    result = cached.prefill(target, preset=preset)
    assert result.report.kind == "edited"
    if preset != "auto":
        assert result.report.preset == preset
    mandatory = (len(HEADER) + 20) / len(target)
    assert mandatory - 0.02 <= result.report.recomputed_share <= 0.75
    cached.close()


def test_semsharekv_preset_sets_mode_and_plan(broker: Any) -> None:
    cached = CachedModel(tiny_models.make("llama"), broker)
    cached.store(DOCUMENT + QUESTION)
    result = cached.prefill(HEADER + DOCUMENT + QUESTION, preset="semsharekv")
    assert result.report.kind in ("semsharekv", "miss")
    cached.close()


def test_a_miss_is_the_models_own_prefill(broker: Any) -> None:
    model = tiny_models.make("llama")
    cached = CachedModel(model, broker)
    result = cached.prefill(DOCUMENT)
    assert (result.report.kind, result.report.recomputed_share) == ("miss", 1.0)
    assert result.report.fallback_reason
    assert torch.equal(result.logits, _full(model, DOCUMENT))
    assert result.cache.exact
    cached.close()


def test_a_miss_counts_all_that_is_not_the_models_forward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The look-up, the adapter's copies within the forward, and the result's cache after it."""
    slow = {"copies": 0.0, "result": 0.0, "lookup": 0.0}

    def slowed(name: str, call: Any) -> Any:
        def run(*arguments: Any, **options: Any) -> Any:
            time.sleep(slow[name])
            return call(*arguments, **options)

        return run

    broker = LocalBroker()
    cached = CachedModel(tiny_models.make("llama"), broker)
    monkeypatch.setattr(KvCache, "update", slowed("copies", KvCache.update))
    monkeypatch.setattr(cached_model, "PromptCache", slowed("result", PromptCache))
    monkeypatch.setattr(broker, "find_match", slowed("lookup", broker.find_match))
    cached.prefill(DOCUMENT)
    for name, times in (("copies", 3), ("result", 1), ("lookup", 1)):
        slow[name] = 0.2
        began = time.perf_counter()
        report = cached.prefill(DOCUMENT).report
        total = time.perf_counter() - began
        slow[name] = 0.0
        assert report.kind == "miss"
        assert report.overhead_s >= 0.2 * times, name
        assert total - 0.1 <= report.overhead_s + report.compute_s <= total, name
    cached.close()


def test_only_exact_caches_are_stored(broker: Any) -> None:
    model = tiny_models.make("llama")
    cached = CachedModel(model, broker)
    first = cached.prefill(DOCUMENT + QUESTION)
    assert cached.store(DOCUMENT + QUESTION, first.cache).error == ""
    moved = HEADER + DOCUMENT + QUESTION
    approximate = cached.prefill(moved, preset="fast")
    assert not approximate.cache.exact
    with pytest.raises(ApproximateCacheError, match="not exact"):
        cached.store(moved, approximate.cache)
    with pytest.raises(ApproximateCacheError, match="does not tell"):
        cached.store(moved, DynamicCache())
    with pytest.raises(ValueError, match="other tokens"):
        cached.store(QUESTION, first.cache)
    cached.close()


@pytest.mark.parametrize("name", ["llama", "deepseek3_mla"])
def test_a_chat_turn_is_stored_with_its_answer(name: str, broker: Any) -> None:
    model = tiny_models.make(name)
    cached = CachedModel(model, broker)
    cached.store(DOCUMENT)
    turn = cached.generate(DOCUMENT + QUESTION, 10)
    assert turn.report.kind == "exact_prefix"
    want = model.generate(torch.tensor([DOCUMENT + QUESTION]), max_new_tokens=10, do_sample=False)[
        0
    ].tolist()
    assert turn.ids == want
    stored = cached.store(turn.ids, turn.cache)
    assert (stored.error, stored.tokens) == ("", len(turn.ids))
    following = cached.prefill(turn.ids + HEADER[:20])
    assert following.report.kind == "exact_prefix"
    _close(following.logits, _full(model, turn.ids + HEADER[:20]))
    cached.close()


def test_equal_ids_are_uploaded_once(broker: Any) -> None:
    cached = CachedModel(tiny_models.make("llama"), broker)
    assert cached.store(DOCUMENT).uploaded_tokens == len(DOCUMENT)
    again = cached.store(DOCUMENT)
    assert (again.uploaded_tokens, again.visible, again.error) == (0, True, "")
    cached.close()


@pytest.mark.parametrize("ids", [[], [[1, 2], [3, 4]], [-1], [tiny_models.VOCAB]])
def test_ids_that_are_no_prompt_are_refused(ids: Any, broker: Any) -> None:
    cached = CachedModel(tiny_models.make("llama"), broker)
    with pytest.raises(ValueError, match="ids"):
        cached.prefill(ids)
    with pytest.raises(ValueError, match="preset"):
        cached.prefill([1], preset="best")
    cached.close()


def test_a_kept_result_survives_later_requests(broker: Any) -> None:
    cached = CachedModel(tiny_models.make("llama"), broker)
    cached.store(DOCUMENT + QUESTION)
    kept = cached.prefill(HEADER + DOCUMENT + QUESTION, preset="fast").cache
    before = [layer.keys.clone() for layer in kept.layers]
    for shift in range(4):
        cached.prefill(HEADER[shift:] + DOCUMENT + QUESTION, preset="fast")
    for layer, old in zip(kept.layers, before, strict=True):
        assert torch.equal(layer.keys, old)
    cached.close()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype, broker: Any) -> None:
    model = tiny_models.make("llama", dtype)
    cached = CachedModel(model, broker)
    cached.store(DOCUMENT + QUESTION)
    result = cached.prefill(DOCUMENT + QUESTION[::-1])
    assert result.report.kind == "exact_prefix"
    want = _full(model, DOCUMENT + QUESTION[::-1]).float()
    assert float((result.logits - want).abs().max()) <= 0.1 * float(want.abs().max())
    assert cached.prefill(HEADER + DOCUMENT + QUESTION).report.kind in ("shifted", "edited")
    cached.close()
