"""Fixtures. `broker` is in-process unless SEMSHARE_SEMSHARED names a semshared binary."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before torch loads its OpenMP: threads that spin while they wait are slow beside a busy server.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[3] / "client" / "python"))

# Most models here are tiny: a second thread costs more than it brings.
torch.set_num_threads(1)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Any]:
    """Something with `semshare.Client`'s methods: the real server or the oracle."""
    binary = os.environ.get("SEMSHARE_SEMSHARED")
    if not binary:
        from local_broker import LocalBroker

        yield LocalBroker()
        return
    from semshare import Client

    process, address_file = start_server(binary, tmp_path)
    try:
        with Client.from_address_file(address_file) as client:
            yield client
    finally:
        process.terminate()
        process.wait(timeout=20)


def start_server(binary: str, folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Starts `semshared` and returns once it has told its address.

    The server says that it listens by writing the address file, atomically; its exit or the file
    is what is waited for.
    """
    address_file = folder / "address.json"
    log = (folder / "semshared.log").open("wb")
    process = subprocess.Popen(
        [
            binary,
            "--listen=127.0.0.1:0",
            "--metrics_listen=127.0.0.1:0",
            f"--data_dir={folder / 'data'}",
            f"--device_memory_bytes={1 << 28}",
            f"--address_file={address_file}",
            # Models here are so small that reuse never pays; it must still be right.
            "--minimum_gain=0",
            # Random weights carry no meaning, so every move looks like a wrong row.
            "--sigma_limit=0",
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    while not address_file.exists():
        try:
            process.wait(timeout=0.02)
        except subprocess.TimeoutExpired:
            continue
        text = (folder / "semshared.log").read_text(errors="replace")
        raise RuntimeError(f"semshared ended with {process.returncode}: {text[-2000:]}")
    return process, address_file
