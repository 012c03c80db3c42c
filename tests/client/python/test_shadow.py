"""Shadow checks: what is reported, who has the model meanwhile, and what the broker makes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from local_broker import LocalBroker
from real_broker import RealBroker, needs_semshared

from semshare import BrokerError
from semshare.hf import CachedModel, ShadowPolicy
from semshare.v1 import cache_broker_pb2 as pb

GENERATOR = torch.Generator().manual_seed(21)
DOCUMENT = torch.randint(0, tiny_models.VOCAB, (300,), generator=GENERATOR).tolist()
HEADER = torch.randint(0, tiny_models.VOCAB, (40,), generator=GENERATOR).tolist()
SHIFTED = HEADER + DOCUMENT

ALL = ShadowPolicy(share=1.0)


class Reports:
    """A broker whose `report_shadow_check` remembers, fails with the code `fail`, and stands still
    until `go` is set."""

    def __init__(self, broker: Any) -> None:
        self.broker = broker
        self.requests: list[Any] = []
        self.fail = ""
        self.inside = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)

    def report_shadow_check(self, request: Any, *, timeout_s: float | None = None) -> Any:
        self.requests.append(request)
        self.inside.set()
        assert self.go.wait(60)
        if self.fail:
            raise BrokerError(self.fail, "as the test wants it")
        return self.broker.report_shadow_check(request, timeout_s=timeout_s)


def _ended(cached: CachedModel) -> None:
    """Waits for the checks that are pending."""
    assert cached._shadow is not None
    cached._shadow.wait()


@contextmanager
def in_checks(module: Any, act: Callable[[], None]) -> Iterator[None]:
    """Calls `act` before `module` runs in a check."""

    def hook(*_: Any) -> None:
        if threading.current_thread().name.startswith("semshare-shadow"):
            act()

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


class Gate:
    """Stops the first check at a layer until a call wants the model; later ones pass."""

    def __init__(self, cached: CachedModel) -> None:
        self.inside = threading.Event()
        self._turns = cached._turns

    def __call__(self) -> None:
        if self.inside.is_set():
            return
        self.inside.set()
        with self._turns._changed:
            assert self._turns._changed.wait_for(
                lambda: self._turns._calls > 0 or self._turns._closed, timeout=60
            )


def _layers(model: Any) -> Any:
    return model.model.layers


@pytest.mark.parametrize("name", ["llama", "gptj", "gemma3", "deepseek3_mla"])
def test_a_check_reports_the_distance_to_the_models_own_prefill(name: str, broker: Any) -> None:
    model = tiny_models.make(name)
    reports = Reports(broker)
    cached = CachedModel(model, reports, name=name, shadow=ALL)
    cached.store(DOCUMENT)
    result = cached.prefill(SHIFTED, preset="fast")
    assert result.report.kind == "shifted"
    _ended(cached)
    cached.close()
    (request,) = reports.requests
    with torch.inference_mode():
        full = torch.log_softmax(model(torch.tensor([SHIFTED])).logits[0, -1].double(), dim=-1)
    reuse = torch.log_softmax(result.logits.double(), dim=-1)
    kl = float((full.exp() * (full - reuse)).sum())
    assert kl > 1e-4  # Random weights: reuse is far from exact, so 0 would be wrong.
    assert request.kl_first == pytest.approx(kl, rel=1e-3)
    assert request.same_token == bool(full.argmax() == reuse.argmax())
    assert request.model == cached.fingerprint
    assert (request.kind, request.preset) == (pb.RESULT_KIND_SHIFTED, pb.PRESET_FAST)
    assert cached.counters["shadow:checked"] == 1
    assert not any(key.startswith("fallback") for key in cached.counters)


def test_an_exact_reuse_is_at_no_distance(broker: Any) -> None:
    reports = Reports(broker)
    cached = CachedModel(tiny_models.make("llama"), reports, shadow=ALL)
    cached.store(DOCUMENT)
    assert cached.prefill(DOCUMENT).report.kind == "exact_prefix"
    _ended(cached)
    cached.close()
    (request,) = reports.requests
    assert 0 <= request.kl_first < 1e-6
    assert request.same_token
    assert request.kind == pb.RESULT_KIND_EXACT_PREFIX


def test_only_reuses_are_checked() -> None:
    broker = LocalBroker()
    cached = CachedModel(tiny_models.make("llama"), broker, shadow=ALL)
    assert cached.prefill(DOCUMENT).report.kind == "miss"
    broker.get_model = lambda *_, **__: False  # type: ignore[method-assign]
    cached._registered = False
    assert cached.prefill(DOCUMENT).report.kind == "fallback"
    cached.close()
    assert not [name for name in cached.counters if name.startswith("shadow")]
    assert not broker.checks


def test_a_waiting_call_interrupts_a_check_which_starts_over() -> None:
    model = tiny_models.make("llama")
    broker = LocalBroker()
    cached = CachedModel(model, broker, shadow=ALL)
    cached.store(DOCUMENT)
    gate = Gate(cached)
    ran: list[str] = []
    layers = _layers(model)
    with (
        in_checks(layers[1], gate),
        in_checks(layers[0].mlp, lambda: ran.append("first")),
        in_checks(layers[1].mlp, lambda: ran.append("second")),
    ):
        cached.prefill(SHIFTED, preset="fast")
        assert gate.inside.wait(60)
        # The check stands before its second layer until this call waits, and gives way there.
        cached.store(DOCUMENT[:100])
        _ended(cached)
        cached.close()
    assert ran == ["first", "first", "second"]
    assert cached.counters["shadow:interrupted"] == 1
    assert cached.counters["shadow:checked"] == 1
    assert [request.kind for request in broker.checks] == [pb.RESULT_KIND_SHIFTED]


def test_what_comes_while_a_check_is_pending_is_dropped() -> None:
    reports = Reports(LocalBroker())
    reports.go.clear()
    cached = CachedModel(tiny_models.make("llama"), reports, shadow=ALL)
    cached.store(DOCUMENT)
    cached.prefill(SHIFTED, preset="fast")
    assert reports.inside.wait(60)
    # Reporting needs no model: this call does not wait for it.
    assert cached.prefill(DOCUMENT).report.kind == "exact_prefix"
    assert cached.counters["shadow:dropped"] == 1
    reports.go.set()
    _ended(cached)
    cached.prefill(DOCUMENT)
    _ended(cached)
    cached.close()
    kinds = [request.kind for request in reports.requests]
    assert kinds == [pb.RESULT_KIND_SHIFTED, pb.RESULT_KIND_EXACT_PREFIX]
    assert cached.counters["shadow:checked"] == 2


def test_a_check_that_never_gets_time_is_dropped() -> None:
    model = tiny_models.make("llama")
    broker = LocalBroker()
    cached = CachedModel(model, broker, shadow=ShadowPolicy(share=1.0, attempts=1))
    cached.store(DOCUMENT)
    gate = Gate(cached)
    with in_checks(_layers(model)[1], gate):
        cached.prefill(SHIFTED, preset="fast")
        assert gate.inside.wait(60)
        cached.store(DOCUMENT[:100])
        _ended(cached)
        cached.close()
    assert cached.counters["shadow:interrupted"] == 1
    assert cached.counters["shadow:dropped"] == 1
    assert not broker.checks


def test_closing_ends_a_check_at_its_next_layer() -> None:
    model = tiny_models.make("llama")
    broker = LocalBroker()
    cached = CachedModel(model, broker, shadow=ALL)
    cached.store(DOCUMENT)
    gate = Gate(cached)
    ran: list[int] = []
    with in_checks(_layers(model)[1], gate), in_checks(_layers(model)[2], lambda: ran.append(2)):
        cached.prefill(SHIFTED, preset="fast")
        assert gate.inside.wait(60)
        cached.close()
    assert not ran
    assert not broker.checks
    assert cached.counters["shadow:interrupted"] == 1
    # Calls still work, and are checked no more.
    assert cached.prefill(SHIFTED, preset="fast").report.kind == "shifted"
    assert cached.counters["shadow:dropped"] == 2
    cached.close()


def test_no_check_begins_between_a_prefill_and_its_decoding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_models.make("llama")
    cached = CachedModel(model, LocalBroker(), shadow=ALL)
    assert cached._shadow is not None
    cached.store(DOCUMENT)
    held: list[int] = []
    begun: list[int] = []
    offer = cached._shadow.offer

    def watched(result: Any) -> None:
        held.append(cached._turns._calls)
        offer(result)

    monkeypatch.setattr(cached._shadow, "offer", watched)
    with in_checks(_layers(model)[0], lambda: begun.append(cached._turns._calls)):
        cached.prefill(SHIFTED, preset="fast")
        _ended(cached)
        answer = cached.generate(SHIFTED, 5, preset="fast")
        _ended(cached)
        cached.close()
    assert len(answer.new_ids) == 5
    assert held == [0, 1]  # The decoding call keeps its turn, so that a check has to wait.
    assert begun == [0, 0]


@pytest.mark.parametrize("code", ["UNAVAILABLE", "NOT_FOUND"])
def test_a_refused_report_is_counted(code: str) -> None:
    reports = Reports(LocalBroker())
    reports.fail = code
    cached = CachedModel(tiny_models.make("llama"), reports, shadow=ALL)
    cached.store(DOCUMENT)
    cached.prefill(SHIFTED, preset="fast")
    _ended(cached)
    cached.close()
    assert cached.counters[f"shadow:{code}"] == 1
    assert cached.counters["shadow:checked"] == 0
    assert cached._registered == (code != "NOT_FOUND")


def test_a_check_that_breaks_is_counted() -> None:
    model = tiny_models.make("llama")
    cached = CachedModel(model, LocalBroker(), shadow=ALL)
    cached.store(DOCUMENT)

    def fail() -> None:
        raise RuntimeError("as the test wants it")

    with in_checks(_layers(model)[0], fail):
        cached.prefill(SHIFTED, preset="fast")
        _ended(cached)
        cached.close()
    assert cached.counters["shadow:internal:RuntimeError"] == 1


def test_the_share_is_drawn_with_the_seed() -> None:
    def drawn(policy: ShadowPolicy) -> list[bool]:
        model = tiny_models.make("llama")
        cached = CachedModel(model, LocalBroker(), shadow=policy)
        cached.store(DOCUMENT)
        cached.close()  # What is drawn from here on is dropped, and counted.
        out = []
        for _ in range(24):
            before = cached.counters["shadow:dropped"]
            cached.prefill(DOCUMENT)
            out.append(cached.counters["shadow:dropped"] > before)
        return out

    half = drawn(ShadowPolicy(share=0.5, seed=3))
    assert 4 < sum(half) < 20
    assert half == drawn(ShadowPolicy(share=0.5, seed=3))
    assert half != drawn(ShadowPolicy(share=0.5, seed=4))


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.5}, {"share": 1, "attempts": 0}])
def test_a_policy_that_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=list(wrong)[-1]):
        ShadowPolicy(**wrong)


@needs_semshared
def test_a_kind_that_misses_its_target_is_offered_no_more(tmp_path: Path) -> None:
    flags = ("--minimum_gain=0", "--sigma_limit=0", "--shadow_minimum_checks=2")
    with RealBroker(tmp_path, *flags, "--shadow_kl_limit=0.0001") as server:
        with server.client() as client:
            cached = CachedModel(tiny_models.make("llama"), client, shadow=ALL)
            cached.store(DOCUMENT)
            for _ in range(2):
                assert cached.prefill(SHIFTED, preset="fast").report.kind == "shifted"
                _ended(cached)
            report = cached.prefill(SHIFTED, preset="fast").report
            assert (report.kind, report.fallback_reason) == ("miss", "disabled")
            # Exact rows are another kind, and are still taken.
            assert cached.prefill(DOCUMENT).report.kind == "exact_prefix"
            cached.close()
            assert cached.counters["miss:disabled"] == 1
        assert "RESULT_KIND_SHIFTED" in server.log()
        assert server.stop() == 0
