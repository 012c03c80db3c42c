"""Reads and puts of a whole prompt's KV through each transport, beside the machine's limits.

    python tests/bench/transport_bench.py --semshared PATH --cpp_peer PATH [--json FILE]
        [--shape NAME] [--runs N] [--busy]

A broker is started on an empty folder with a model that is only a shape (synthetic.py): 5,000
tokens of SmolLM2 (115 MB in bfloat16) or 4,096 tokens of an 8B Llama (512 MiB). One reference is
stored; each read asks for it behind 100 other tokens, so every K row is turned. Rows are compared
with fp64 before anything is timed. Then everything takes turns, and medians are printed:

    memcpy       the same bytes, one thread, pages touched: the limit of shared memory
    tcp_get      the same bytes over one loopback connection, received into a buffer and copied into
                 place: the limit of inline reads
    tcp_put      the other way
    NAME_get     another system's read, copied into place, and NAME_put its write: Arrow Flight,
    NAME_put     Mooncake's transfer engine (TCP) and Redis, where tests/bench/peers.sh put them
    shm_get      ReadKv into this process's memory, until the last layer is said to be there
    shm_first    until the first layer is
    shm_put      BeginPut and WriteKv, until visible (memory durability)
    shm_durable  the same until durable
    cpp_get      the C++ client: ReadKv in frames, copied into place
    cpp_put      and its put
    inline_get   the Python client: ReadKv in frames, copied into place
    inline_put   and its put

`--busy` keeps every core busy with other processes meanwhile; memcpy is measured before that too,
as memcpy_idle. Expect a minute or two; other work on the machine shows.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from broker_process import broker
from command import append_line, bench_parser
from peers import CppPeer, TcpPeer, closing, other_systems
from synthetic import SHAPES, Shape, SyntheticModel, from_bfloat16

from semshare.client import Client
from semshare.frames import MAX_PAYLOAD_BYTES, WriteFrame
from semshare.shm import SharedBuffer, kv_view, plane_views
from semshare.v1 import cache_admin_pb2 as admin
from semshare.v1 import cache_admin_pb2_grpc as admin_grpc
from semshare.v1 import cache_broker_pb2 as pb

SHIFT = 100
# What each is divided by, where it was measured.
LIMITS = {
    "tcp_get": ["memcpy"],
    "tcp_put": ["memcpy"],
    "flight_get": ["tcp_get", "memcpy"],
    "flight_put": ["tcp_put", "memcpy"],
    "mooncake_get": ["tcp_get", "memcpy"],
    "mooncake_put": ["tcp_put", "memcpy"],
    "redis_get": ["tcp_get", "memcpy"],
    "redis_put": ["tcp_put", "memcpy"],
    "shm_get": ["memcpy", "memcpy_idle"],
    "shm_put": ["memcpy", "memcpy_idle"],
    "shm_durable": ["memcpy"],
    "cpp_get": ["tcp_get", "flight_get"],
    "cpp_put": ["tcp_put", "flight_put"],
    "inline_get": ["cpp_get", "tcp_get", "flight_get"],
    "inline_put": ["cpp_put", "tcp_put", "flight_put"],
}
BFLOAT16_ERROR = 2.0**-7


@dataclass
class Bench:
    """Everything that is timed works on these."""

    shape: Shape
    model: SyntheticModel
    client: Client
    admin: admin_grpc.CacheAdminStub
    document: list[int]
    source: SharedBuffer  # [layer, plane, token, head, width] of the document
    target: SharedBuffer  # where reads go
    spare: np.ndarray
    seed: int = 1000

    def planes(self, buffer: SharedBuffer, tokens: int) -> np.ndarray:
        """`[layer, plane, token, head, width]` uint16."""
        shape = self.shape
        dims = (shape.layers, 2, tokens, shape.heads, shape.width)
        return buffer.array[: shape.kv_bytes(tokens)].view(np.uint16).reshape(dims)

    def view(self, buffer: SharedBuffer, tokens: int) -> pb.KvView:
        planes = self.planes(buffer, tokens)
        handle = buffer.register(self.client.shm_socket())
        return kv_view(handle, plane_views(planes[0], buffer), layer_stride=planes.strides[0])

    def find(self) -> Any:
        request = pb.FindMatchRequest(
            model=self.model.spec.fingerprint,
            token_ids=self.header() + self.document,
            preset=pb.PRESET_FAST,
            question_tokens=1,
        )
        return self.client.find_match(request, timeout_s=60).match

    def header(self) -> list[int]:
        return np.random.default_rng(99).integers(0, self.shape.vocab, SHIFT).tolist()

    # What is timed.

    def memcpy(self) -> None:
        nbytes = self.shape.kv_bytes(self.shape.tokens)
        np.copyto(self.target.array[:nbytes], self.source.array[:nbytes])

    def shm_get(self, match: Any, first: list[float]) -> None:
        began = time.perf_counter()
        view = self.view(self.target, self.shape.tokens + SHIFT)
        for frame in self.client.read_kv(match.lease_id, target=view):
            if len(first) == 0 or frame.layer == 0:
                first[:] = [time.perf_counter() - began]

    def inline_get(self, match: Any) -> None:
        rows = self.planes(self.target, self.shape.tokens + SHIFT)
        begin = match.segments[0].target_begin
        for frame in self.client.read_kv(match.lease_id):
            plane = rows[frame.layer, frame.plane].reshape(len(rows[0, 0]), -1).view(np.uint8)
            at = begin + frame.first_row
            payload = np.frombuffer(frame.payload, np.uint8).reshape(frame.rows, -1)
            plane[at : at + frame.rows] = payload

    def begin_put(self, durability: int) -> Any:
        """A prompt that nobody has seen; its rows are the document's."""
        self.seed += 1
        ids = np.random.default_rng(self.seed).integers(0, self.shape.vocab, self.shape.tokens)
        request = pb.BeginPutRequest(
            model=self.model.spec.fingerprint, token_ids=ids.tolist(), durability=durability
        )
        return self.client.begin_put(request, timeout_s=60)

    def shm_put(self, durability: int) -> bytes:
        upload = self.begin_put(durability)
        view = self.view(self.source, self.shape.tokens)
        done = self.client.write_kv_from(upload.upload_id, view, self.shape.layers)
        assert done.visible and done.durable == (durability == pb.DURABILITY_DISK)
        return done.reference_id

    def inline_put(self) -> bytes:
        upload = self.begin_put(pb.DURABILITY_MEMORY)
        return self.client.write_kv(upload.upload_id, self.frames()).reference_id

    def frames(self) -> Iterator[WriteFrame]:
        rows = self.planes(self.source, self.shape.tokens)
        step = MAX_PAYLOAD_BYTES // self.shape.row_bytes
        for layer in range(self.shape.layers):
            for plane in (0, 1):
                for at in range(0, self.shape.tokens, step):
                    part = rows[layer, plane, at : at + step]
                    yield WriteFrame(layer, plane, at, len(part), part.reshape(-1).data.cast("B"))

    def delete(self, reference: bytes) -> None:
        name = admin.ReferenceName(model=self.model.spec.fingerprint, reference_id=reference)
        self.admin.Delete(admin.DeleteRequest(reference=name))

    def verify(self, match: Any) -> None:
        """Looks at rows of every layer, wherever they came by."""
        rows = self.planes(self.target, self.shape.tokens + SHIFT)
        for segment in match.segments:
            for token in range(segment.target_begin, segment.target_begin + segment.tokens, 397):
                for plane in (0, 1):
                    expected = self.model.row(plane, token)
                    found = from_bfloat16(rows[:, plane, token])
                    error = np.abs(found - expected).max() / np.abs(expected).max()
                    if not error <= BFLOAT16_ERROR:
                        raise SystemExit(f"wrong rows: token {token} plane {plane}: {error}")


def prepare(shape: Shape, address: Path) -> Bench:
    """Registers the shape, stores the document, and takes all memory."""
    model = SyntheticModel(shape)
    client = Client.from_address_file(address, timeout_s=30)
    client.register_model(model.spec, model.table, None, model.probes())
    document = np.random.default_rng(5).integers(0, shape.vocab, shape.tokens).tolist()
    channel = grpc.insecure_channel(client.address)
    room = shape.kv_bytes(shape.tokens + SHIFT)
    bench = Bench(
        shape,
        model,
        client,
        admin_grpc.CacheAdminStub(channel),
        document,
        SharedBuffer(shape.kv_bytes(shape.tokens)),
        SharedBuffer(room),
        np.zeros(room, np.uint8),
    )
    rows = bench.planes(bench.source, shape.tokens)
    for plane in (0, 1):
        rows[:, plane] = model.rows(plane, shape.tokens)
    request = pb.BeginPutRequest(model=model.spec.fingerprint, token_ids=document)
    upload = client.begin_put(request, timeout_s=60)
    client.write_kv(upload.upload_id, bench.frames())
    return bench


def start_cpp_peer(bench: Bench, program: Path, prompts: Path) -> CppPeer:
    """The C++ client on the same memory."""
    np.asarray(bench.header() + bench.document, "<u4").tofile(prompts)
    return CppPeer(
        program,
        address=bench.client.address,
        model=bench.model.spec.fingerprint.hex(),
        prompts=prompts,
        tokens=SHIFT + len(bench.document),
        target=bench.target.path,
        source=bench.source.path,
        layers=bench.shape.layers,
        row_bytes=bench.shape.row_bytes,
        first_row=SHIFT,
        vocab=bench.shape.vocab,
    )


def verify(bench: Bench, cpp: CppPeer) -> None:
    """Every way of reading brings the right rows."""
    match = bench.find()
    if match.matched_tokens < bench.shape.tokens - 1:
        raise SystemExit(f"matched {match.matched_tokens} of {bench.shape.tokens} tokens")
    ways: list[Callable[[], Any]] = [
        lambda: bench.shm_get(match, []),
        lambda: bench.inline_get(match),
        lambda: cpp.ask("get"),
    ]
    for read in ways:
        bench.target.array[:] = 0
        read()
        bench.verify(match)
    bench.client.release(match.lease_id)


class Clock:
    """Seconds by case."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def add(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)

    def time(self, name: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        answer = call()
        self.add(name, time.perf_counter() - began)
        return answer


def measure(bench: Bench, cpp: CppPeer, peers: dict[str, Any], runs: int) -> dict[str, list[float]]:
    """Seconds by case; everything takes turns."""
    nbytes = bench.shape.kv_bytes(bench.shape.tokens)
    source = bench.source.array[:nbytes]
    clock = Clock()
    for run in range(runs + 1):
        if run == 1:
            clock = Clock()  # The first round was the warm-up.
        clock.time("memcpy", bench.memcpy)
        for name, peer in peers.items():
            clock.time(f"{name}_get", lambda peer=peer: peer.get(bench.spare))
            clock.time(f"{name}_put", lambda peer=peer: peer.put(source))
        for name, durability in (
            ("shm_put", pb.DURABILITY_MEMORY),
            ("shm_durable", pb.DURABILITY_DISK),
        ):
            bench.delete(clock.time(name, lambda durability=durability: bench.shm_put(durability)))
        bench.delete(clock.time("inline_put", bench.inline_put))
        seconds, reference = cpp.ask(f"put {run}")
        bench.delete(bytes.fromhex(reference))
        clock.add("cpp_put", float(seconds))
        match = bench.find()
        first: list[float] = []
        clock.time("shm_get", lambda match=match, first=first: bench.shm_get(match, first))
        clock.add("shm_first", first[0])
        clock.time("inline_get", lambda match=match: bench.inline_get(match))
        bench.client.release(match.lease_id)
        clock.add("cpp_get", float(cpp.ask("get")[0]))
    return clock.seconds


def measure_all(bench: Bench, options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    nbytes = bench.shape.kv_bytes(bench.shape.tokens)
    cpp = start_cpp_peer(bench, options.cpp_peer, folder / "prompts")
    peers = {"tcp": TcpPeer(nbytes), **other_systems(bench.source.array[:nbytes])}
    with closing(cpp, *peers.values()):
        verify(bench, cpp)
        idle = Clock()
        for _ in range(options.runs if options.busy else 0):
            idle.time("memcpy_idle", bench.memcpy)
        with load(options.busy):
            return measure(bench, cpp, peers, options.runs) | idle.seconds


@contextlib.contextmanager
def load(busy: bool) -> Iterator[None]:
    """One process that computes on each core."""
    code = "while True: pass"
    processes = [
        subprocess.Popen([sys.executable, "-c", code]) for _ in range(os.cpu_count() or 1) if busy
    ]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def figures(bench: Bench, seconds: dict[str, list[float]], case: str) -> Iterator[dict[str, Any]]:
    nbytes = bench.shape.kv_bytes(bench.shape.tokens)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    for name, value in median.items():
        if name == "shm_first":
            yield {
                "bench": f"transport/{name}",
                "case": case,
                "value": round(value * 1e3, 3),
                "unit": "ms",
                "runs": len(seconds[name]),
            }
            continue
        line = {
            "bench": f"transport/{name}",
            "case": case,
            "value": round(nbytes / value / 1e9, 3),
            "unit": "GB/s",
        }
        limits = [limit for limit in LIMITS.get(name, []) if limit in median]
        for limit in limits or [""]:
            beside = {}
            if limit:
                beside = {
                    "limit": limit,
                    "limit_value": round(nbytes / median[limit] / 1e9, 3),
                    "ratio": round(median[limit] / value, 3),
                }
            yield line | beside | {"runs": len(seconds[name])}


def main() -> int:
    parser = bench_parser(__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="smollm2")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--busy", action="store_true")
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    with broker(options.semshared, f"--device_memory_bytes={5 << 29}") as running:
        bench = prepare(shape, running.address_file)
        seconds = measure_all(bench, options, running.folder)
    case = f"{shape.name} {shape.tokens} tokens" + (", cores busy" if options.busy else "")
    print(f"{case}, {shape.kv_bytes(shape.tokens) / 1e6:.0f} MB, median of {options.runs}")
    shown = ""
    for line in figures(bench, seconds, case):
        name = line["bench"].partition("/")[2]
        beside = f"  {line['ratio']:5.2f} of {line['limit']}" if "ratio" in line else ""
        if name != shown:
            shown = name
            print(f"\n  {name:12} {line['value']:8.2f} {line['unit']:4}", end="")
        print(beside, end="", flush=True)
        append_line(options.json, line)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
