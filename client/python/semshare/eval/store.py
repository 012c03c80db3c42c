"""Storing the references from another process, so that nothing of them stays in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from semshare.eval.measure import Pair

__all__ = ["StoreError", "distinct_references", "store_here", "store_in_subprocess"]


class StoreError(Exception):
    """A reference did not reach the broker; the message says why."""


def distinct_references(pairs: Iterable[Pair]) -> list[tuple[int, ...]]:
    """Every reference of the pairs once, in order."""
    return list(dict.fromkeys(reference for pair in pairs for reference in pair.references))


def store_here(
    cached: Any, references: Sequence[tuple[int, ...]], progress: Callable[[str], None]
) -> None:
    """Stores references through a `CachedModel`.

    Raises `StoreError` if the broker does not take one, or takes it without making it visible.
    """
    for number, reference in enumerate(references, start=1):
        progress(f"storing reference {number} of {len(references)}, {len(reference)} tokens")
        result = cached.store(list(reference))
        if result.error or not result.visible:
            raise StoreError(
                f"reference {number} of {len(references)} was not stored: "
                f"{result.error or 'the broker does not show it'}"
            )


def store_in_subprocess(address: str, model: str, pairs: Path, threads: int | None) -> None:
    """Runs `python -m semshare.eval --store-only` on the same file. Its progress goes to stderr.

    Raises `StoreError` if it fails; it has said why by then.
    """
    command = [sys.executable, "-m", "semshare.eval", "--store-only"]
    command += ["--address", address, "--model", model, "--pairs", str(pairs)]
    if threads is not None:
        command += ["--threads", str(threads)]
    # The package may have been found through sys.path alone, which a child does not inherit.
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=environment, stdout=sys.stderr.fileno(), check=False)
    if done.returncode != 0:
        raise StoreError(f"the process that stores the references exited with {done.returncode}")
