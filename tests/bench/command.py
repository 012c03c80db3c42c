"""What the command lines of the benchmarks over RPC have in common."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def bench_parser(description: str | None) -> argparse.ArgumentParser:
    """`--semshared`, `--cpp_peer` and `--json`; a benchmark adds its own."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--semshared", required=True, type=Path)
    parser.add_argument("--cpp_peer", required=True, type=Path)
    parser.add_argument("--json", type=Path, help="append a line for each figure")
    return parser


def append_line(path: Path | None, line: dict[str, Any]) -> None:
    """Adds a figure to the file of `--json`, if there is one."""
    if path is not None:
        with path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
