"""A broker for a benchmark: one process on an empty folder."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunningBroker:
    """What `Client.from_address_file` takes, and where there is room for files beside it."""

    address_file: Path
    folder: Path
    pid: int


@contextlib.contextmanager
def broker(semshared: Path, *flags: str) -> Iterator[RunningBroker]:
    """A broker that listens, with a folder of its own; both end with the context."""
    with tempfile.TemporaryDirectory(prefix="semshare-bench-") as folder:
        yield from _run(semshared, Path(folder), *flags)


def _run(semshared: Path, folder: Path, *flags: str) -> Iterator[RunningBroker]:
    address = folder / "address.json"
    process = subprocess.Popen(
        [
            semshared,
            "--listen=127.0.0.1:0",
            "--metrics_listen=127.0.0.1:0",
            f"--data_dir={folder / 'data'}",
            f"--address_file={address}",
            *flags,
        ],
        stdout=(folder / "semshared.log").open("wb"),
        stderr=subprocess.STDOUT,
    )
    try:
        while not address.exists():
            if process.poll() is not None:
                raise SystemExit((folder / "semshared.log").read_text(encoding="utf-8"))
            time.sleep(0.02)
        yield RunningBroker(address, folder, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=60)
