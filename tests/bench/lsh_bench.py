"""The scan of prompt codes beside FAISS: time of one query on one thread, at equal recall.

    tests/bench/run.sh index

index_bench makes random codes and queries (codes with 0 to 80 of 256 bits flipped), measures the
broker's own scan and leaves both in a folder; here FAISS searches the same codes, with its settings
swept. Recall is the share of queries whose nearest code is the one that they were made from. The
table ends with the least time of each index of FAISS at our recall or better.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from command import append_line

_BITS = 256
_NEIGHBOURS = 8


@dataclass(frozen=True)
class Point:
    """An index with one choice of settings."""

    family: str
    name: str
    recall: float
    median_ms: float
    p99_ms: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index_bench", required=True, type=Path)
    parser.add_argument("--codes", type=int, default=1000000)
    parser.add_argument("--json", type=Path, help="append a line for each figure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="semshare-lsh-") as name:
        folder = Path(name)
        ours = _measure_ours(options.index_bench, options.codes, folder)
        _print(ours)
        data = _Data(folder)
        points = _measure_faiss(data)
    _print_least(ours, points)
    for point in [ours, *points]:
        _append(options.json, options.codes, point, ours)


class _Data:
    def __init__(self, folder: Path) -> None:
        self.codes = self._read(folder / "codes.bin").view(np.uint8).reshape(-1, _BITS // 8)
        self.queries = self._read(folder / "queries.bin").view(np.uint8).reshape(-1, _BITS // 8)
        self.owners = self._read(folder / "owners.bin")

    @staticmethod
    def _read(path: Path) -> np.ndarray:
        return np.fromfile(path, np.uint64)


def _measure_ours(program: Path, codes: int, folder: Path) -> Point:
    figures = folder / "figures.json"
    subprocess.run(
        [program, f"--codes={codes}", f"--dump={folder}", f"--json={figures}"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    of = {line["case"]: line["value"] for line in map(json.loads, figures.open())}
    return Point("semshare", "semshare", of["recall"], of["scan p50"], of["scan p99"])


def _measure_faiss(data: _Data) -> list[Point]:
    try:
        import faiss
    except ImportError:
        print("not installed (tests/bench/peers.sh): faiss", flush=True)
        return []
    faiss.omp_set_num_threads(1)
    points = []

    def measure(family: str, name: str, index: Any, set_to: Callable[[], None]) -> None:
        set_to()
        points.append(_search(family, name, index, data))
        _print(points[-1])

    flat = faiss.IndexBinaryFlat(_BITS)
    flat.add(data.codes)
    measure("Flat", "Flat", flat, lambda: None)
    for hashes, bits in ((4, 16), (8, 20), (16, 16)):
        multi = faiss.IndexBinaryMultiHash(_BITS, hashes, bits)
        multi.add(data.codes)
        for flips in range(4):
            name = f"MultiHash {hashes} x {bits}, {flips} flips"
            measure("MultiHash", name, multi, lambda v=flips, i=multi: setattr(i, "nflip", v))
    faiss.omp_set_num_threads(2)  # to build: it takes minutes
    graph = faiss.IndexBinaryHNSW(_BITS, 32)
    graph.add(data.codes)
    faiss.omp_set_num_threads(1)
    for width in (16, 64, 256, 1024, 4096):
        name = f"HNSW 32, efSearch {width}"
        measure("HNSW", name, graph, lambda v=width: setattr(graph.hnsw, "efSearch", v))
    return points


def _search(family: str, name: str, index: Any, data: _Data) -> Point:
    """One query after another, as requests come."""
    found, times = 0, []
    end = time.perf_counter() + 30
    for at, owner in enumerate(data.owners):
        begin = time.perf_counter()
        _, nearest = index.search(data.queries[at : at + 1], _NEIGHBOURS)
        times.append((time.perf_counter() - begin) * 1e3)
        found += int(nearest[0, 0] == int(owner))
        if time.perf_counter() > end and len(times) >= 100:
            break
    median, p99 = np.percentile(times, [50, 99])
    return Point(family, name, found / len(times), float(median), float(p99))


def _print(point: Point) -> None:
    print(
        f"{point.name:28} recall {point.recall:5.3f}   "
        f"median {point.median_ms:8.3f} ms   p99 {point.p99_ms:8.3f} ms",
        flush=True,
    )


def _print_least(ours: Point, points: list[Point]) -> None:
    for family in dict.fromkeys(point.family for point in points):
        equal = [p for p in points if p.family == family and p.recall >= ours.recall]
        if not equal:
            print(f"{family}: none of its settings has a recall of {ours.recall:.3f}")
            continue
        least = min(equal, key=lambda point: point.median_ms)
        ratio = ours.median_ms / least.median_ms
        print(f"{family}: {least.median_ms:.3f} ms ({least.name}); ours is {ratio:.2f} of it")


def _append(path: Path | None, codes: int, point: Point, ours: Point) -> None:
    line = {
        "bench": "lsh",
        "case": f"{point.name}, {codes} codes, recall {point.recall:.3f}",
        "value": point.median_ms,
        "unit": "ms",
        "limit": "semshare",
        "limit_value": ours.median_ms,
        "ratio": point.median_ms / ours.median_ms,
        "runs": 1,
    }
    append_line(path, line)


if __name__ == "__main__":
    main()
