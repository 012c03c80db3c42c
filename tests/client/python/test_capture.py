"""Prefills that are stored from the background: which ones, and that nobody waits for them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import tiny_models
import torch
from local_broker import LocalBroker

from semshare import BrokerError
from semshare.hf import CachedModel, CapturePolicy

GENERATOR = torch.Generator().manual_seed(8)
DOCUMENT = torch.randint(0, tiny_models.VOCAB, (300,), generator=GENERATOR).tolist()
HEADER = torch.randint(0, tiny_models.VOCAB, (40,), generator=GENERATOR).tolist()
OTHER = torch.randint(0, tiny_models.VOCAB, (300,), generator=GENERATOR).tolist()

ALL = CapturePolicy(min_tokens=1)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_models.make("llama")


class SlowBroker(LocalBroker):
    """Uploads stand still until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.fail = False

    def begin_put(self, request: Any, *, timeout_s: float | None = None) -> Any:
        assert self.go.wait(30)
        if self.fail:
            raise BrokerError("RESOURCE_EXHAUSTED", "full")
        return super().begin_put(request, timeout_s=timeout_s)

    def held(self, cached: CachedModel) -> int:
        return len(self.references[cached.fingerprint])


def test_what_was_computed_is_found_later(model: Any, broker: Any) -> None:
    cached = CachedModel(model, broker, capture=ALL)
    assert cached.prefill(DOCUMENT).report.kind == "miss"
    cached.close()
    assert cached.counters["capture:stored"] == 1
    again = CachedModel(model, broker)
    assert again.prefill(HEADER + DOCUMENT, preset="fast").report.kind == "shifted"
    assert again.prefill(DOCUMENT).report.kind == "exact_prefix"
    again.close()


def test_the_answer_does_not_wait_for_the_upload(model: Any) -> None:
    broker = SlowBroker()
    cached = CachedModel(model, broker, capture=ALL)
    # The upload cannot go on before both answers are here.
    answers = [cached.generate(ids, 3) for ids in (DOCUMENT, OTHER)]
    assert [len(each.new_ids) for each in answers] == [3, 3]
    assert broker.held(cached) == 0
    broker.go.set()
    cached.close()
    assert broker.held(cached) == 2


def test_decoding_leaves_the_rows_as_they_were(model: Any) -> None:
    broker = SlowBroker()
    cached = CachedModel(model, broker, capture=ALL)
    cached.generate(DOCUMENT, 8)
    broker.go.set()
    cached.close()
    (reference,) = broker.references[cached.fingerprint].values()
    with torch.inference_mode():
        want = model(torch.tensor([DOCUMENT]), use_cache=True).past_key_values
    for layer, planes in zip(want.layers, reference.planes, strict=True):
        for rows, stored in zip((layer.keys, layer.values), planes, strict=True):
            assert torch.equal(rows[0].transpose(0, 1), torch.from_numpy(stored.copy()))


def test_what_does_not_fit_is_dropped(model: Any) -> None:
    broker = SlowBroker()
    cached = CachedModel(model, broker, capture=CapturePolicy(min_tokens=1, max_pending=1))
    cached.prefill(DOCUMENT)
    cached.prefill(OTHER)
    assert cached.counters["capture:dropped"] == 1
    broker.go.set()
    cached.close()
    assert broker.held(cached) == 1
    cached.prefill(OTHER)  # Closed: answers, but stores nothing.
    assert cached.counters["capture:dropped"] == 2
    assert broker.held(cached) == 1


def test_a_refused_upload_is_counted(model: Any) -> None:
    broker = SlowBroker()
    broker.fail = True
    broker.go.set()
    cached = CachedModel(model, broker, capture=ALL)
    assert cached.prefill(DOCUMENT).report.kind == "miss"
    cached.close()
    assert cached.counters["capture:failed"] == 1
    assert cached.counters["store:RESOURCE_EXHAUSTED"] == 1


def test_only_what_the_policy_wants(model: Any) -> None:
    broker = SlowBroker()
    broker.go.set()
    cached = CachedModel(model, broker, capture=CapturePolicy(min_tokens=len(DOCUMENT)))
    cached.prefill(DOCUMENT[:-1])
    assert broker.held(cached) == 0
    cached.store(DOCUMENT)
    # Its rows are approximate; then most of it is held already.
    assert cached.prefill(HEADER + DOCUMENT, preset="fast").report.kind == "shifted"
    assert cached.prefill(DOCUMENT + HEADER[:5]).report.kind == "exact_prefix"
    cached.close()
    assert broker.held(cached) == 1
    assert not [name for name in cached.counters if name.startswith("capture")]


def test_the_sample_depends_on_the_tokens_alone(model: Any) -> None:
    cached = CachedModel(model, LocalBroker())
    results = [cached.prefill(DOCUMENT[begin : begin + 10]) for begin in range(200)]
    cached.close()
    half = CapturePolicy(min_tokens=1, sample=0.5)
    chosen = [half.wants(result) for result in results]
    assert 60 < sum(chosen) < 140  # 100 are expected; beyond 5 sigma something is wrong.
    assert chosen == [half.wants(result) for result in results]
    more = CapturePolicy(min_tokens=1, sample=0.9)
    assert all(more.wants(r) for r, taken in zip(results, chosen, strict=True) if taken)


@pytest.mark.parametrize(
    "wrong", [{"min_tokens": 0}, {"max_pending": 0}, {"sample": 0.0}, {"max_matched": 1.5}]
)
def test_a_policy_that_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CapturePolicy(**wrong)
