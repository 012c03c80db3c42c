"""Whatever the broker does wrong costs a full prefill and a counted reason, never an exception."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
import tiny_models
import torch
from faulty_server import FaultyServicer, serve
from local_broker import LocalBroker

from semshare import BrokerError, Client, KvFrame
from semshare.hf import CachedModel
from semshare.v1 import cache_broker_pb2 as pb

GENERATOR = torch.Generator().manual_seed(5)
DOCUMENT = torch.randint(0, tiny_models.VOCAB, (300,), generator=GENERATOR).tolist()
HEADER = torch.randint(0, tiny_models.VOCAB, (40,), generator=GENERATOR).tolist()
TARGET = HEADER + DOCUMENT


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_models.make("llama")


@pytest.fixture
def servicer() -> FaultyServicer:
    return FaultyServicer()


@pytest.fixture
def client(servicer: FaultyServicer) -> Iterator[Client]:
    with serve(servicer) as address, Client(address) as connected:
        yield connected


def _expect_full(cached: CachedModel, reason: str, kind: str = "fallback") -> None:
    result = cached.prefill(TARGET, preset="fast")
    with torch.inference_mode():
        want = cached.model(torch.tensor([TARGET]), logits_to_keep=1).logits[0, -1]
    assert torch.equal(result.logits, want)
    assert (result.report.kind, result.report.fallback_reason) == (kind, reason)
    assert cached.counters[f"{kind}:{reason}"] == 1
    assert result.cache.exact
    cached.close()


def test_over_a_real_connection_all_is_well(model: Any, client: Client) -> None:
    cached = CachedModel(model, client)
    assert cached.store(DOCUMENT).error == ""
    result = cached.prefill(TARGET, preset="fast")
    assert result.report.kind == "shifted"
    assert result.report.transfer_bytes > 0
    cached.close()


def test_outcomes_reach_the_broker(model: Any, servicer: FaultyServicer, client: Client) -> None:
    cached = CachedModel(model, client)
    cached.store(DOCUMENT)
    cached.prefill(TARGET, preset="fast")
    cached.close()
    (outcome,) = servicer.local.outcomes
    assert outcome.kind == pb.RESULT_KIND_SHIFTED
    assert 0 < outcome.recomputed_token_layers < len(TARGET) * 3
    assert servicer.local.leases == {}


def _dead_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_dead_port(model: Any) -> None:
    with Client(_dead_port()) as client:
        cached = CachedModel(model, client)
        stored = cached.store(DOCUMENT)
        assert stored.error.startswith("UNAVAILABLE")
        assert cached.counters["store:UNAVAILABLE"] == 1
        _expect_full(cached, "not_registered")


def test_a_broker_that_dies(model: Any, servicer: FaultyServicer) -> None:
    with serve(servicer) as address:
        client = Client(address)
        cached = CachedModel(model, client)
        cached.store(DOCUMENT)
    _expect_full(cached, "UNAVAILABLE")
    client.close()


def test_a_closed_client(model: Any, client: Client) -> None:
    cached = CachedModel(model, client)
    client.close()
    _expect_full(cached, "CANCELLED")


@pytest.mark.parametrize(
    ("rpc", "limits"),
    [("FindMatch", {"lookup_timeout_s": 0.2}), ("ReadKv", {"transfer_timeout_s": 0.2})],
)
def test_a_deadline(
    rpc: str, limits: dict[str, float], model: Any, servicer: FaultyServicer, client: Client
) -> None:
    cached = CachedModel(model, client)
    cached.store(DOCUMENT)
    for name, value in limits.items():
        setattr(cached, name, value)
    done = threading.Event()
    servicer.spoil_call = lambda name, _: done.wait() if name == rpc else None  # type: ignore
    try:
        _expect_full(cached, "DEADLINE_EXCEEDED")
    finally:
        done.set()


def test_a_stalled_transfer_costs_no_more_than_a_prefill(
    model: Any, servicer: FaultyServicer, client: Client
) -> None:
    """With the default limit, 30 s: what was observed bounds the wait. The floor is 2 s."""
    cached = CachedModel(model, client)
    cached.store(DOCUMENT)
    done = threading.Event()
    servicer.spoil_call = lambda name, _: done.wait() if name == "ReadKv" else None  # type: ignore
    began = time.monotonic()
    try:
        _expect_full(cached, "DEADLINE_EXCEEDED")
    finally:
        done.set()
    assert 1.9 <= time.monotonic() - began < 10


def test_limits_of_a_transfer_follow_the_prefill(model: Any) -> None:
    cached = CachedModel(model, LocalBroker(), transfer_timeout_s=20.0)
    assert cached._transfer_limit_s(1000) == 20.0
    cached._costs.saw_prefill(1000, 5.0)
    assert cached._transfer_limit_s(1000) == 5.0
    assert cached._transfer_limit_s(100) == 2.0
    assert cached._transfer_limit_s(10_000) == 20.0
    cached.transfer_timeout_s = 1.0
    assert cached._transfer_limit_s(100) == 1.0
    cached.close()


def test_a_match_after_close(model: Any, servicer: FaultyServicer, client: Client) -> None:
    cached = CachedModel(model, client)
    cached.store(DOCUMENT)
    cached.close()
    result = cached.prefill(TARGET, preset="fast")
    assert result.report.kind == "shifted"
    assert servicer.local.leases == {}
    assert len(servicer.local.outcomes) == 1
    servicer.local.models.clear()
    assert cached.prefill(TARGET).report.fallback_reason == "NOT_FOUND"
    assert cached.prefill(TARGET).report.fallback_reason == "not_registered"
    cached.close()


@pytest.mark.parametrize("rpc", ["FindMatch", "ReadKv"])
def test_an_error_status(rpc: str, model: Any, servicer: FaultyServicer, client: Client) -> None:
    def abort(name: str, context: Any) -> None:
        if name == rpc:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no lane")

    cached = CachedModel(model, client)
    cached.store(DOCUMENT)
    servicer.spoil_call = abort
    _expect_full(cached, "RESOURCE_EXHAUSTED")


def test_a_broker_that_forgot_the_model(
    model: Any, servicer: FaultyServicer, client: Client
) -> None:
    cached = CachedModel(model, client)
    servicer.local.models.clear()
    result = cached.prefill(TARGET)
    assert (result.report.kind, result.report.fallback_reason) == ("fallback", "NOT_FOUND")
    assert cached.store(DOCUMENT).error == ""
    assert cached.prefill(TARGET, preset="fast").report.kind == "shifted"
    cached.close()


def _matches(change: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda answer: change(answer.match)


MATCHES: dict[str, Callable[[Any], None]] = {
    "empty answer": lambda answer: answer.Clear(),
    "no segments": _matches(lambda m: m.ClearField("segments")),
    "beyond the prompt": _matches(lambda m: setattr(m.segments[-1], "tokens", 10_000)),
    "empty segment": _matches(lambda m: setattr(m.segments[-1], "tokens", 0)),
    "overlap": _matches(lambda m: m.segments.append(m.segments[0])),
    "wrong sum": _matches(lambda m: setattr(m, "matched_tokens", 3)),
    "unknown reference": _matches(lambda m: setattr(m.segments[0], "reference", 9)),
    "beyond the source": _matches(lambda m: setattr(m.segments[0], "source_begin", 290)),
    "no plan": _matches(lambda m: m.ClearField("plan")),
    "bad range": _matches(lambda m: m.plan.mandatory.add(begin=5, end=2)),
    "bad sentinel": _matches(lambda m: m.plan.sentinels.append(10_000)),
    "bad sentinel layer": _matches(lambda m: setattr(m.plan, "sentinel_layer", 99)),
    "bad schedule": _matches(lambda m: m.plan.semsharekv.recompute_tokens.append(1)),
    "bad share": _matches(lambda m: setattr(m.plan.semsharekv, "alpha_retain", 2.0)),
    "bad prior": _matches(
        lambda m: m.plan.asked.MergeFrom(
            pb.AskedRanking(
                tokens=4,
                prior=[pb.PriorRange(range=pb.TokenRange(begin=0, end=9), weight=float("nan"))],
            )
        )
    ),
}


@pytest.mark.parametrize("fault", list(MATCHES))
def test_a_malformed_match(
    fault: str, model: Any, servicer: FaultyServicer, client: Client
) -> None:
    cached = CachedModel(model, client)
    cached.store(DOCUMENT)
    servicer.spoil_match = MATCHES[fault]
    _expect_full(cached, "MALFORMED")


def _each(change: Callable[[int, KvFrame], list[KvFrame]]) -> Callable[..., Iterator[KvFrame]]:
    def spoil(frames: Iterator[KvFrame]) -> Iterator[KvFrame]:
        for number, frame in enumerate(frames):
            yield from change(number, frame)

    return spoil


def _nan(frame: KvFrame) -> KvFrame:
    return replace(frame, payload=memoryview(b"\xff" * len(frame.payload)))


STREAMS: dict[str, Callable[..., Iterator[KvFrame]]] = {
    "ends early": _each(lambda n, f: [f] if n < 3 else []),
    "is empty": _each(lambda n, f: []),
    "skips a plane": _each(lambda n, f: [f] if n != 1 else []),
    "repeats": _each(lambda n, f: [f, f]),
    "is short of bytes": _each(lambda n, f: [replace(f, payload=f.payload[:-4])]),
    "has too many rows": _each(lambda n, f: [replace(f, rows=f.rows + 1)]),
    "has no rows": _each(lambda n, f: [replace(f, rows=0, payload=f.payload[:0])]),
    "starts elsewhere": _each(lambda n, f: [replace(f, first_row=1)]),
    "names no layer": _each(lambda n, f: [replace(f, layer=77)]),
    "is not finite": _each(lambda n, f: [_nan(f)]),
}


@pytest.mark.parametrize("fault", list(STREAMS))
def test_a_malformed_stream(
    fault: str, model: Any, servicer: FaultyServicer, client: Client
) -> None:
    cached = CachedModel(model, client)
    cached.store(DOCUMENT)
    servicer.spoil_frames = STREAMS[fault]
    _expect_full(cached, "MALFORMED")


def test_what_follows_the_last_row_is_ignored(
    model: Any, servicer: FaultyServicer, client: Client
) -> None:
    cached = CachedModel(model, client)
    cached.store(DOCUMENT)
    servicer.spoil_frames = _each(lambda n, f: [f, f] if n == 5 else [f])
    assert cached.prefill(TARGET, preset="fast").report.kind == "shifted"
    cached.close()


def test_a_stream_that_breaks_off(model: Any, servicer: FaultyServicer, client: Client) -> None:
    def spoil(frames: Iterator[KvFrame]) -> Iterator[KvFrame]:
        yield next(frames)
        raise RuntimeError("the broker broke")

    cached = CachedModel(model, client)
    cached.store(DOCUMENT)
    servicer.spoil_frames = spoil
    _expect_full(cached, "UNKNOWN")


def test_too_much_deviation_falls_back(
    model: Any, servicer: FaultyServicer, client: Client
) -> None:
    cached = CachedModel(model, client)
    cached.store(DOCUMENT)
    servicer.spoil_match = _matches(lambda m: setattr(m.plan, "sigma_limit", 1e-9))
    result = cached.prefill(TARGET, preset="fast")
    assert (result.report.kind, result.report.fallback_reason) == ("fallback", "sigma")
    assert result.report.recomputed_share > 1
    cached.close()
    assert servicer.local.outcomes[-1].kind == pb.RESULT_KIND_FALLBACK
    assert servicer.local.outcomes[-1].fallback_reason == "sigma"


@pytest.mark.parametrize("rpc", ["BeginPut", "WriteKv"])
def test_a_failed_store_is_told(
    rpc: str, model: Any, servicer: FaultyServicer, client: Client
) -> None:
    def abort(name: str, context: Any) -> None:
        if name == rpc:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "arena full")

    cached = CachedModel(model, client)
    servicer.spoil_call = abort
    stored = cached.store(DOCUMENT)
    assert stored.error.startswith("RESOURCE_EXHAUSTED")
    assert not stored.visible
    assert cached.counters["store:RESOURCE_EXHAUSTED"] == 1
    cached.close()


def test_the_client_raises_one_type() -> None:
    with Client(_dead_port(), timeout_s=2) as client:
        for call in (
            client.server_info,
            lambda: client.get_model(b""),
            lambda: client.begin_put(pb.BeginPutRequest()),
            lambda: client.find_match(pb.FindMatchRequest()),
            lambda: client.write_kv(b"u", []),
            lambda: next(client.read_kv(b"l")),
            lambda: client.release(b"l"),
        ):
            with pytest.raises(BrokerError) as caught:
                call()
            assert caught.value.code == "UNAVAILABLE"


def test_address_files(tmp_path: Any) -> None:
    path = tmp_path / "address.json"
    path.write_text('{"grpc": "127.0.0.1:5", "metrics": "127.0.0.1:6"}')
    with Client.from_address_file(path) as client:
        assert client.address == "127.0.0.1:5"
    path.write_text('{"metrics": "127.0.0.1:6"}')
    with pytest.raises(ValueError, match="grpc"):
        Client.from_address_file(path)
