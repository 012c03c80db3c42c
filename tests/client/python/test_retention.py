"""Caches with evicted rows, and the part of the paper's mode that decides what stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from semshare.hf import ApproximateCacheError, CachedModel, NotSupportedError
from semshare.hf.cache import KvCache, PromptCache
from semshare.hf.layers import LayerDriver
from semshare.hf.plan import SemShareKvPlan
from semshare.hf.retention import RetainedCache
from semshare.hf.spec import describe
from semshare.v1 import cache_broker_pb2 as pb

GENERATOR = torch.Generator().manual_seed(5)
PROMPT = torch.randint(0, tiny_models.VOCAB, (90,), generator=GENERATOR)
FOLLOWING = torch.randint(0, tiny_models.VOCAB, (4,), generator=GENERATOR).tolist()
# Random tokens have no meaning that 256 bits could find alike.
ANY_REFERENCE = pb.SemShareKvOptions(similarity_trigger=0)


def _prefilled(model: Any) -> KvCache:
    driver = LayerDriver(model)
    cache = KvCache(describe(driver, name="x").shapes, len(PROMPT), torch.float32, model.device)
    driver.full(PROMPT, cache)
    return cache


def _decode(model: Any, cache: Any) -> torch.Tensor:
    rows = []
    with torch.inference_mode():
        for token in FOLLOWING:
            out = model(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True)
            rows.append(out.logits[0, -1])
    return torch.stack(rows)


def _keep(layers: int) -> list[torch.Tensor]:
    """Other tokens at every layer, and other numbers of them."""
    chosen = []
    for layer in range(layers):
        order = torch.randperm(len(PROMPT), generator=GENERATOR)
        chosen.append(order[: 60 - 10 * layer].sort().values)
    return chosen


@pytest.mark.parametrize("name", ["llama", "yarn", "neox_partial", "qwen3", "deepseek3_mla"])
def test_decoding_sees_the_rows_that_stay_and_no_others(name: str) -> None:
    """The oracle keeps every row and masks, layer by layer, those that the other has not."""
    model = tiny_models.make(name)
    whole = _prefilled(model)
    kept = _keep(len(whole.planes))
    found = _decode(model, RetainedCache(whole, kept, ids=tuple(PROMPT.tolist())))

    def masked(
        module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any
    ) -> tuple[torch.Tensor, None]:
        groups = query.shape[1] // key.shape[1]
        key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
        scores = query @ key.transpose(2, 3) * scaling
        gone = torch.ones(key.shape[2], dtype=torch.bool)
        gone[kept[module.layer_idx]] = False
        gone[len(PROMPT) :] = False
        weights = scores.masked_fill(gone, float("-inf")).softmax(dim=-1)
        return (weights @ value).transpose(1, 2), None

    ALL_ATTENTION_FUNCTIONS.register("retention_oracle", masked)
    model.config._attn_implementation_internal = "retention_oracle"
    want = _decode(model, PromptCache(whole, model.config, ids=tuple(PROMPT.tolist()), exact=True))
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))


def test_evicting_nothing_changes_nothing() -> None:
    model = tiny_models.make("llama")
    whole = _prefilled(model)
    ids = tuple(PROMPT.tolist())
    every = [torch.arange(len(PROMPT))] * len(whole.planes)
    retained = RetainedCache(whole, every, ids=ids)
    exact = PromptCache(whole, model.config, ids=ids, exact=True)
    assert torch.equal(_decode(model, retained), _decode(model, exact))


def test_what_a_retained_cache_refuses() -> None:
    model = tiny_models.make("llama")
    whole = _prefilled(model)
    retained = RetainedCache(whole, _keep(len(whole.planes)), ids=tuple(PROMPT.tolist()))
    assert retained.get_seq_length() == len(PROMPT)
    with pytest.raises(NotSupportedError, match="one token at a time"):
        model(input_ids=torch.tensor([FOLLOWING]), past_key_values=retained, use_cache=True)
    with pytest.raises(NotSupportedError, match="cannot be cut"):
        retained.crop(-1)


def _plan(tokens: int, layers: int, **schedule: float) -> SemShareKvPlan:
    plan = pb.RecomputePlan(question_tokens=2)
    plan.mandatory.add(begin=tokens - 2, end=tokens)
    plan.semsharekv.recompute_tokens.extend([tokens] + [6] * (layers - 1))
    plan.semsharekv.attention_recovery = schedule.get("attention_recovery", 0.55)
    plan.semsharekv.hot_weight, plan.semsharekv.cold_weight = 0.5, 0.1
    plan.semsharekv.alpha_retain = schedule.get("alpha_retain", 0.5)
    plan.semsharekv.least_retained = schedule.get("least_retained", 0.8)
    matched = np.ones(tokens, dtype=bool)
    matched[-1] = False
    return SemShareKvPlan(plan, matched, layers)


def test_hot_tokens_are_the_fewest_with_the_share_of_attention() -> None:
    plan = _plan(10, 2)
    attention = plan.collect(torch.device("cpu"))
    assert attention is not None
    # Half of the mass is token 3's, .3 token 5's: the two are more than .55, one is not.
    attention[0] = torch.tensor([0.04, 0.02, 0.02, 0.5, 0.02, 0.3, 0.02, 0.02, 0.03, 0.03])
    assert plan.weights().tolist() == [0.1, 0.1, 0.1, 0.5, 0.1, 0.5, 0.1, 0.1, 0.1, 0.1]
    # A hot token goes on before one that deviates three times as much.
    sigma = np.array([0.4, 0.39, 0.3, 0.1, 0.29, 0.09, 0.2, 0.0, 0.0, 0.0])
    running = np.ones(10, dtype=bool)
    assert np.flatnonzero(plan.tokens_at(1, running, {0: sigma})).tolist() == [0, 1, 3, 5, 8, 9]


def test_layers_keep_their_most_attended_tokens_and_the_question() -> None:
    plan = _plan(10, 3)
    attention = plan.collect(torch.device("cpu"))
    assert attention is not None
    attention[0] = torch.arange(10, 0, -1)
    attention[1] = torch.arange(10)
    attention[2] = torch.tensor([0, 0, 9, 0, 8, 0, 0, 0, 0, 0])
    kept = plan.retained()
    assert kept is not None
    assert [each.tolist() for each in kept] == [
        [0, 1, 2, 3, 4, 5, 8, 9],  # .8 of 10
        [6, 7, 8, 9],  # .8 x .5
        [8, 9],  # .8 x .5 x .5
    ]
    kept_all = _plan(10, 3, alpha_retain=0)
    assert kept_all.retained() is None
    attention = kept_all.collect(torch.device("cpu"))
    assert attention is not None
    assert attention.shape == (1, 10)  # the hot tokens' layer


def _stored(name: str, broker: Any) -> tuple[CachedModel, list[int]]:
    """A model that has stored a document, and a prompt that lacks some of it."""
    cached = CachedModel(tiny_models.make(name), broker)
    document = torch.randint(0, tiny_models.VOCAB, (400,), generator=GENERATOR).tolist()
    assert cached.store(document).error == ""
    return cached, document[:200] + document[230:]


def test_the_papers_mode_evicts_and_decodes_on(broker: Any) -> None:
    cached, target = _stored("llama", broker)
    result = cached.prefill(target, preset="semsharekv", semsharekv=ANY_REFERENCE)
    assert result.report.kind == "semsharekv"
    assert isinstance(result.cache, RetainedCache)
    assert not result.cache.exact
    rows = [layer.keys.shape[-2] for layer in result.cache.layers]
    assert rows == [round(0.8 * 0.977**layer * len(target)) for layer in range(3)]
    with pytest.raises(ApproximateCacheError):
        cached.store(target, result.cache)
    generated = cached.generate(target, 6, preset="semsharekv", semsharekv=ANY_REFERENCE)
    assert len(generated.new_ids) == 6

    options = pb.SemShareKvOptions(similarity_trigger=0, retain=False)
    assert isinstance(cached.prefill(target, "semsharekv", semsharekv=options).cache, PromptCache)
    with pytest.raises(ValueError, match="no use for SemShareKvOptions"):
        cached.prefill(target, "fast", semsharekv=options)
    cached.close()


def test_models_with_sliding_layers_keep_everything(broker: Any) -> None:
    cached, target = _stored("gemma3", broker)
    result = cached.prefill(target, preset="semsharekv", semsharekv=ANY_REFERENCE)
    assert result.report.kind == "semsharekv"
    assert isinstance(result.cache, PromptCache)
    cached.close()
