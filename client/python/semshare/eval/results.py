"""Results of a run over the corpus: JSON lines that are appended, so that a run can go on.

Three kinds of rows: `run` (once for each start: command, machine, versions, seed, corpus),
`fidelity` (a pair under a variant, once) and `timing` (a pair under a variant, all its runs).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["Results", "ResultsError"]

Row = dict[str, Any]


class ResultsError(Exception):
    """The file of results cannot be used; the message says why."""


class Results:
    """One file of results. Not thread-safe; one writer at a time."""

    def __init__(self, path: Path) -> None:
        """Reads what is there. A last line that was cut off is dropped, any other bad one refused
        with `ResultsError`."""
        self.path = path
        self.rows: list[Row] = []
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = 0
        for number, line in enumerate(lines, start=1):
            try:
                if not line.endswith("\n"):
                    raise ValueError("it is cut off")
                row = json.loads(line)
                if row["row"] not in ("run", "fidelity", "timing"):
                    raise ValueError(f"it is of kind '{row['row']}'")
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines) and not line.endswith("\n"):
                    break
                raise ResultsError(f"{path}:{number}: no row of results: {error}") from error
            kept += len(line.encode("utf-8"))
            self.rows.append(row)
        if kept < path.stat().st_size:
            with path.open("r+b") as file:
                file.truncate(kept)

    def require_corpus(self, digest: str) -> None:
        """Raises `ResultsError` if the file has results of another corpus."""
        for row in self.rows:
            if row["row"] == "run" and row["corpus"] != digest:
                raise ResultsError(
                    f"{self.path} has results of another corpus: give another --out, or remove it"
                )

    def has(self, kind: str, pair: str, variant: str) -> bool:
        """Whether this has been measured."""
        return any(
            (row["row"], row.get("pair"), row.get("variant")) == (kind, pair, variant)
            for row in self.rows
        )

    def add(self, row: Row) -> None:
        """Appends a row; it is in the file when this returns. Never NaN or Infinity."""
        line = json.dumps(row, allow_nan=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as out:
            out.write(line + "\n")
        self.rows.append(row)
