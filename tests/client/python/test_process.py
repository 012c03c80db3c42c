"""The process `semshared`: how it starts without flags, what it lists, how it stops."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tiny_models
from real_broker import BINARY, RealBroker, needs_semshared

from semshare import Client
from semshare.frames import WriteFrame
from semshare.hf.layers import LayerDriver
from semshare.hf.spec import describe
from semshare.v1 import cache_broker_pb2 as pb
from semshare.v1 import cache_broker_pb2_grpc as pb_grpc

pytestmark = needs_semshared

DEFAULTS = (7700, 7701)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _started(log: Path, process: subprocess.Popen[bytes]) -> re.Match[str]:
    """The line that tells the addresses, once it is there; fails if the process ends first."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        found = re.search(r"serving grpc=(\S+) metrics=(\S+) backend=(\S+)", text)
        if found:
            return found
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"ended with {process.returncode}: {text[-2000:]}")
    return pytest.fail("it does not say that it serves")


def test_it_runs_without_flags(tmp_path: Path) -> None:
    """Loopback, ./data, CPU. Where somebody has the default ports, other ones are named: that the
    defaults are these ports is what tests/server/ops and tests/deploy check."""
    ports_free = all(_free(port) for port in DEFAULTS)
    flags = [] if ports_free else ["--listen=127.0.0.1:0", "--metrics_listen=127.0.0.1:0"]
    log = tmp_path / "log"
    folder = tmp_path / "empty"
    folder.mkdir()
    with log.open("wb") as out:
        process = subprocess.Popen([BINARY, *flags], cwd=folder, stdout=out, stderr=out)
    try:
        found = _started(log, process)
        grpc_address, metrics_address, backend = found.groups()
        assert backend == "cpu"
        assert {grpc_address.split(":")[0], metrics_address.split(":")[0]} == {"127.0.0.1"}
        if ports_free:
            assert (grpc_address, metrics_address) == tuple(f"127.0.0.1:{p}" for p in DEFAULTS)
        with Client(grpc_address) as client:
            info = client.server_info()
        assert (info.grpc_address, info.metrics_address) == (grpc_address, metrics_address)
        assert [each.name for each in folder.iterdir()] == ["data"]
        process.terminate()
        assert process.wait(timeout=30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    """(number, content) of the length-delimited fields of a message; the others are left out."""
    found, at = [], 0

    def read() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = read()
        size = read()
        if tag & 7 == 2:
            found.append((tag >> 3, data[at : at + size]))
            at += size
    return found


def test_reflection_lists_the_services(tmp_path: Path) -> None:
    """By hand, for the Python package of reflection is no requirement: field 7 of the request,
    `list_services`, and field 6 of the answer, whose field 1 are services with a name."""
    with RealBroker(tmp_path) as server, grpc.insecure_channel(server.address) as channel:
        call = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            request_serializer=None,
            response_deserializer=None,
        )
        request = _varint(7 << 3 | 2) + _varint(0)
        (answer,) = list(call(iter([request]), timeout=10))
    (listed,) = [content for number, content in _fields(answer) if number == 6]
    services = {_fields(each)[0][1].decode() for _, each in _fields(listed)}
    assert {"semshare.v1.CacheBroker", "semshare.v1.CacheAdmin"} <= services
    assert {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= services


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_with_nothing_in_flight_it_stops_at_once(tmp_path: Path, number: int) -> None:
    with RealBroker(tmp_path) as server:
        with server.client() as client:
            client.server_info()
            assert server.process is not None
            os.kill(server.process.pid, number)
            began = time.monotonic()
            assert server.wait() == 0
        # Far below the grace that calls in flight are given (10 s).
        assert time.monotonic() - began < 5.0
        assert "stopped" in server.log()


def _store(client: Client, tokens: int) -> Any:
    """A reference of random rows, 1.5 KiB a token; the match of a prompt that begins with it, and
    the rows by (layer, plane)."""
    description = describe(LayerDriver(tiny_models.make("neox_partial")), name="neox")
    spec = description.spec
    client.register_model(spec, description.embedding_table(), None, description.probes)
    random = np.random.default_rng(3)
    ids = random.integers(0, tiny_models.VOCAB, tokens).tolist()
    answer = client.begin_put(pb.BeginPutRequest(model=spec.fingerprint, token_ids=ids))
    rows = {
        (layer, plane): random.standard_normal((tokens, shape.heads, shape.width), np.float32)
        for layer, planes in enumerate(description.shapes)
        for plane, shape in enumerate(planes)
    }

    def frames() -> Any:
        for (layer, plane), values in rows.items():
            for at in range(0, tokens, 1000):
                part = values[at : at + 1000]
                yield WriteFrame(layer, plane, at, len(part), memoryview(part.copy()).cast("B"))

    client.write_kv(answer.upload_id, frames())
    request = pb.FindMatchRequest(
        model=spec.fingerprint,
        token_ids=[*ids, 5, 6, 7],
        mode=pb.MATCH_MODE_EXACT_PREFIX,
        preset=pb.PRESET_FAST,
    )
    return client.find_match(request).match, rows


def test_a_stream_in_flight_is_finished(tmp_path: Path) -> None:
    """Asked to stop while a slow reader has taken one frame of many: the reader gets every row,
    then the process ends by itself, with status 0."""
    tokens = 8000
    with RealBroker(tmp_path) as server, server.client() as client:
        match, rows = _store(client, tokens)
        assert match.matched_tokens >= tokens - 64
        # A plain generated stub, and frames so small that most of them are still to be made.
        with grpc.insecure_channel(server.address) as channel:
            request = pb.ReadKvRequest(lease_id=match.lease_id, max_frame_payload_bytes=1 << 17)
            stream = pb_grpc.CacheBrokerStub(channel).ReadKv(request, timeout=60)
            received: dict[tuple[int, int], bytes] = {}
            for count, frame in enumerate(stream, start=1):
                at = (frame.layer, frame.plane)
                received[at] = received.get(at, b"") + frame.payload
                if count == 1:
                    server.terminate()
                    _wait_until_logged(server, "stopping on signal")
                # A slow reader, which is the point: not a wait for something to happen.
                time.sleep(0.01)
        assert server.wait() == 0
        assert count >= 90
    for at, values in rows.items():
        assert received[at] == values[: match.matched_tokens].tobytes(), at


def _wait_until_logged(server: RealBroker, text: str) -> None:
    deadline = time.monotonic() + 30
    while text not in server.log():
        assert time.monotonic() < deadline
        time.sleep(0.01)
