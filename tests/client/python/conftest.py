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
    from real_broker import RealBroker

    # Models here are so small that reuse never pays, and their random weights carry no meaning, so
    # that every move looks like a wrong row: both gates are off. test_real_model.py has them on.
    with RealBroker(tmp_path, "--minimum_gain=0", "--sigma_limit=0") as server:
        with server.client(timeout_s=5.0) as client:
            yield client
        assert server.stop() == 0, server.log()[-2000:]


def start_server(binary: str, folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A broker as `broker` has it, for tests that end it themselves; its address file."""
    from real_broker import BINARY, RealBroker

    assert binary == BINARY
    server = RealBroker(folder, "--minimum_gain=0", "--sigma_limit=0")
    server.start()
    assert server.process is not None
    return server.process, server.address_file
