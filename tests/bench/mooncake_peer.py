"""Mooncake's transfer engine over TCP, on the bytes that semshare moves: a rival for
`transport_bench.py`.

Needs PyPI's mooncake-transfer-engine-non-cuda and Debian's libibverbs1 (tests/bench/peers.sh). The
owner of the memory is a process of its own, as the broker is; one side reads and writes the
other's memory, which is registered before anything is timed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from typing import Any

import numpy as np
from mooncake.engine import TransferEngine


class MooncakePeer:
    """A process that holds as many bytes as `source` has."""

    def __init__(self, source: np.ndarray) -> None:
        self._pipe, there = multiprocessing.Pipe()
        # A fork would inherit gRPC's threads half-way.
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_hold, args=(len(source), there), daemon=True)
        self._process.start()
        self._nbytes = len(source)
        self._target, self._held, self._taken = self._pipe.recv()
        self._engine = _start_engine()
        self._registered: set[int] = set()

    def close(self) -> None:
        self._process.kill()
        self._process.join()

    def get(self, into: np.ndarray) -> None:
        address = self._address(into)
        _check(
            self._engine.transfer_sync_read(self._target, address, self._held, self._nbytes), "read"
        )

    def put(self, source: np.ndarray) -> None:
        address = self._address(source)
        _check(
            self._engine.transfer_sync_write(self._target, address, self._taken, self._nbytes),
            "write",
        )

    def _address(self, array: np.ndarray) -> int:
        address = int(array.ctypes.data)
        if address not in self._registered:
            _check(self._engine.register_memory(address, len(array)), "register")
            self._registered.add(address)
        return address


def _hold(nbytes: int, ready: Any) -> None:
    engine = _start_engine()
    held, taken = np.ones(nbytes, np.uint8), np.zeros(nbytes, np.uint8)
    for array in (held, taken):
        _check(engine.register_memory(int(array.ctypes.data), nbytes), "register")
    target = f"127.0.0.1:{engine.get_rpc_port()}"
    ready.send((target, int(held.ctypes.data), int(taken.ctypes.data)))
    with contextlib.suppress(EOFError):
        ready.recv()  # The engine's threads serve until the other side goes away.


def _start_engine() -> Any:
    engine = TransferEngine()
    _check(engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", ""), "start")
    return engine


def _check(status: int, what: str) -> None:
    if status != 0:
        raise SystemExit(f"mooncake: can't {what}: {status}")
