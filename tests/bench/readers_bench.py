"""Many reads at once: nobody starves, and each costs the broker little memory.

    python tests/bench/readers_bench.py --semshared PATH --cpp_peer PATH [--json FILE]
        [--readers N] [--runs N]

A broker with room for so many streams holds 5,000 tokens of SmolLM2's KV (115 MB, synthetic.py). 64
threads of the C++ client read all of it inline at the same moment, every row turned. Printed are,
over all runs:

    slowest      the slowest read's seconds over the fastest's: 1 is fair
    together     bytes of all reads a second, beside one read alone
    memory       what the broker grew by while they ran, plus the staging that a stream borrows, for
                 each stream, beside the aim of 16 MiB
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from broker_process import RunningBroker, broker
from command import append_line, bench_parser
from peers import closing
from synthetic import SHAPES
from transport_bench import prepare, start_cpp_peer

STAGING_MIB = 3 * 2  # server/transport/staging.h: buffers of a stream
AIM_MIB = 16


def peak_mib(pid: int) -> float:
    """The most memory that the process has held since `reset_peak`."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="utf-8")


def measure(options: argparse.Namespace, running: RunningBroker) -> list[dict[str, Any]]:
    shape = SHAPES["smollm2"]
    bench = prepare(shape, running.address_file)
    cpp = start_cpp_peer(bench, options.cpp_peer, running.folder / "prompts")
    ratios, alone, together = [], [], []
    with closing(cpp):
        cpp.ask("get")  # The warm-up.
        reset_peak(running.pid)
        before = peak_mib(running.pid)
        for _ in range(options.runs):
            alone.append(float(cpp.ask("get")[0]))
            seconds = [float(word) for word in cpp.ask(f"readers {options.readers}")]
            ratios.append(max(seconds) / min(seconds))
            together.append(max(seconds))
        grown = peak_mib(running.pid) - before
    nbytes = shape.kv_bytes(shape.tokens)
    rate = options.readers * nbytes / statistics.median(together) / 1e9
    one = nbytes / statistics.median(alone) / 1e9
    memory = grown / options.readers + STAGING_MIB
    return [
        {"bench": "readers/slowest", "value": round(max(ratios), 3), "unit": "of the fastest"},
        {
            "bench": "readers/together",
            "value": round(rate, 3),
            "unit": "GB/s",
            "limit": "one read",
            "limit_value": round(one, 3),
            "ratio": round(rate / one, 3),
        },
        {
            "bench": "readers/memory",
            "value": round(memory, 2),
            "unit": "MiB a stream",
            "limit": "aim",
            "limit_value": AIM_MIB,
            "ratio": round(memory / AIM_MIB, 3),
        },
    ]


def main() -> int:
    parser = bench_parser(__doc__)
    parser.add_argument("--readers", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    flags = (f"--device_memory_bytes={1 << 30}", f"--streams={options.readers}")
    with broker(options.semshared, *flags) as running:
        lines = measure(options, running)
    case = f"{options.readers} readers of smollm2 5000 tokens"
    print(case)
    for line in lines:
        beside = f"  {line['limit']} {line['limit_value']}" if "limit" in line else ""
        print(f"  {line['bench'].partition('/')[2]:10} {line['value']:8.2f} {line['unit']}{beside}")
        append_line(options.json, {"case": case, "runs": options.runs, **line})
    return 0


if __name__ == "__main__":
    sys.exit(main())
