"""FindMatch over RPC, alignment and plan inside, among many references.

    python tests/bench/find_bench.py --semshared PATH --cpp_peer PATH [--json FILE]
        [--references N] [--queries N]

A broker is started on an empty folder and given 1,000 references of 4,000 random tokens behind one
preamble of 200 that all share, of a model whose KV is small. Every query is one of them behind
other 100 tokens, and one caller asks at a time; that each finds its own reference is verified
first. Printed are the median and the 99th percentile in milliseconds, each beside the same of an
empty call (GetModel) in the same run:

    cpp_find      by the C++ client
    python_find   by the Python client
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from broker_process import broker
from command import append_line, bench_parser
from peers import CppPeer, closing
from synthetic import Shape, SyntheticModel

from semshare.client import Client
from semshare.frames import WriteFrame
from semshare.v1 import cache_broker_pb2 as pb

TOKENS = 4000
PREAMBLE = 200
HEADER = 100
SHAPE = Shape("small rows", layers=1, heads=1, width=8, tokens=TOKENS, vocab=49152)


class Bench:
    """References in a broker, and prompts that ask for them."""

    def __init__(self, address: Path, references: int, queries: int) -> None:
        self.model = SyntheticModel(SHAPE)
        self.client = Client.from_address_file(address, timeout_s=60)
        self.client.register_model(self.model.spec, self.model.table, None, self.model.probes())
        random = np.random.default_rng(3)
        preamble = random.integers(0, SHAPE.vocab, PREAMBLE)
        self.documents = [
            np.concatenate([preamble, random.integers(0, SHAPE.vocab, TOKENS - PREAMBLE)])
            for _ in range(references)
        ]
        self.references = [self._put(document) for document in self.documents]
        self.asked = [int(each) for each in random.integers(0, references, queries)]
        header = random.integers(0, SHAPE.vocab, HEADER)
        self.prompts = [np.concatenate([header, self.documents[each]]) for each in self.asked]

    def _put(self, ids: np.ndarray) -> bytes:
        request = pb.BeginPutRequest(
            model=self.model.spec.fingerprint,
            token_ids=ids.tolist(),
            durability=pb.DURABILITY_MEMORY,
        )
        upload = self.client.begin_put(request)
        rows = np.zeros((TOKENS, SHAPE.row_bytes), np.uint8)

        def frames() -> Iterator[WriteFrame]:
            for plane in (0, 1):
                for part in upload.missing:
                    count = part.end - part.begin
                    data = rows[:count].reshape(-1).data
                    yield WriteFrame(0, plane, part.begin, count, data)

        self.client.write_kv(upload.upload_id, frames())
        return bytes(upload.reference_id)

    def find(self, prompt: np.ndarray) -> Any:
        request = pb.FindMatchRequest(
            model=self.model.spec.fingerprint,
            token_ids=prompt.tolist(),
            preset=pb.PRESET_FAST,
            question_tokens=1,
        )
        return self.client.find_match(request).match

    def verify(self) -> None:
        for prompt, asked in zip(self.prompts, self.asked, strict=True):
            match = self.find(prompt)
            found = [bytes(each.reference_id) for each in match.references]
            if found != [self.references[asked]] or match.matched_tokens < TOKENS - 1:
                raise SystemExit(f"reference {asked}: {match.matched_tokens} tokens matched")
            self.client.release(match.lease_id)

    def python_find(self) -> list[float]:
        """Seconds of each prompt's call, the building of the request included."""
        seconds = []
        for prompt in self.prompts:
            began = time.perf_counter()
            match = self.find(prompt)
            seconds.append(time.perf_counter() - began)
            self.client.release(match.lease_id)
        return seconds

    def python_empty(self) -> list[float]:
        seconds = []
        for _ in self.prompts:
            began = time.perf_counter()
            self.client.get_model(self.model.spec.fingerprint)
            seconds.append(time.perf_counter() - began)
        return seconds


def measure(bench: Bench, cpp_peer: Path, folder: Path) -> dict[str, list[float]]:
    """Seconds of every call, by case; the second of two rounds."""
    np.concatenate(bench.prompts).astype("<u4").tofile(folder / "prompts")
    cpp = CppPeer(
        cpp_peer,
        address=bench.client.address,
        model=bench.model.spec.fingerprint.hex(),
        prompts=folder / "prompts",
        tokens=HEADER + TOKENS,
    )
    seconds: dict[str, list[float]] = {}
    with closing(cpp):
        for _ in range(2):
            seconds = {
                "cpp_find": [float(word) for word in cpp.ask("find")],
                "cpp_empty": [float(word) for word in cpp.ask(f"empty {len(bench.prompts)}")],
                "python_find": bench.python_find(),
                "python_empty": bench.python_empty(),
            }
    return seconds


def figures(seconds: dict[str, list[float]], case: str) -> Iterator[dict[str, Any]]:
    for name in ("cpp_find", "python_find"):
        limit = name.replace("find", "empty")
        for label, share in (("p50", 50), ("p99", 99)):
            value = float(np.percentile(seconds[name], share)) * 1e3
            beside = float(np.percentile(seconds[limit], share)) * 1e3
            yield {
                "bench": f"find/{name} {label}",
                "case": case,
                "value": round(value, 3),
                "unit": "ms",
                "limit": f"{limit} {label}",
                "limit_value": round(beside, 3),
                "ratio": round(beside / value, 3),
                "runs": len(seconds[name]),
            }


def main() -> int:
    parser = bench_parser(__doc__)
    parser.add_argument("--references", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=500)
    options = parser.parse_args()
    with broker(options.semshared, f"--device_memory_bytes={1 << 30}") as running:
        bench = Bench(running.address_file, options.references, options.queries)
        bench.verify()
        seconds = measure(bench, options.cpp_peer, running.folder)
    case = f"{options.references} references, {TOKENS + HEADER} tokens"
    print(f"{case}, {options.queries} calls one after another")
    for line in figures(seconds, case):
        print(
            f"  {line['bench'].partition('/')[2]:16} {line['value']:7.3f} ms  "
            f"{line['limit']} {line['limit_value']:.3f} ms"
        )
        append_line(options.json, line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
