"""What the transports are measured beside: the plain loop that is the limit of a network
transport, other systems that move the same bytes, and the broker's own C++ client.

Each peer's `get` fills an array that exists already, and `put` takes one that stays. Servers are
processes of their own, as the broker is. Those that need a package are left out without it
(tests/bench/peers.sh installs them), and `other_systems` says so.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

_CHUNK_BYTES = 1 << 20
_VALUE_BYTES = 2 << 20


class TcpPeer:
    """One loopback connection and the same copies as a transport has that owns its buffers: the
    kernel's into a buffer of 1 MiB, and one into place."""

    def __init__(self, nbytes: int) -> None:
        here, there = multiprocessing.Pipe()
        # A fork would inherit gRPC's threads half-way, and the pipes to other peers.
        context = multiprocessing.get_context("spawn")
        context.Process(target=_serve_bytes, args=(nbytes, there), daemon=True).start()
        self._nbytes = nbytes
        self._connection = socket.create_connection(("127.0.0.1", here.recv()))
        self._buffer = np.zeros(_CHUNK_BYTES, np.uint8)

    def get(self, into: np.ndarray) -> None:
        self._connection.sendall(b"g")
        _receive(self._connection, into[: self._nbytes], self._buffer)

    def put(self, source: np.ndarray) -> None:
        """Until the other side says that all is in place."""
        self._connection.sendall(b"p")
        self._connection.sendall(source[: self._nbytes].data)
        assert self._connection.recv(1) == b"d"


def _serve_bytes(nbytes: int, ready: Any) -> None:
    held, buffer = np.ones(nbytes, np.uint8), np.zeros(_CHUNK_BYTES, np.uint8)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready.send(listener.getsockname()[1])
        connection, _ = listener.accept()
        with connection:
            while command := connection.recv(1):
                if command == b"g":
                    connection.sendall(held.data)
                else:
                    _receive(connection, held, buffer)
                    connection.sendall(b"d")


def _receive(connection: socket.socket, into: np.ndarray, buffer: np.ndarray) -> None:
    at = 0
    while at < len(into):
        count = connection.recv_into(buffer.data, min(len(buffer), len(into) - at))
        if count == 0:
            raise ConnectionError("the other side went away")
        into[at : at + count] = buffer[:count]
        at += count


class RedisPeer:
    """Values of 2 MiB in a Redis server of its own that writes nothing to disk."""

    def __init__(self, source: np.ndarray) -> None:
        import redis

        program = shutil.which("redis-server")
        if program is None:
            raise ImportError("redis-server")
        self._folder = tempfile.TemporaryDirectory(prefix="semshare-redis-")
        port = _free_port()
        options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        options["dir"] = self._folder.name
        command = [program]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._client = redis.Redis(host="127.0.0.1", port=port)
        while True:
            with contextlib.suppress(redis.exceptions.ConnectionError):
                self._client.ping()
                break
            time.sleep(0.02)
        self._keys = [f"stored {at}" for at in range(0, len(source), _VALUE_BYTES)]
        self._store("stored", source)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def get(self, into: np.ndarray) -> None:
        at = 0
        for key in self._keys:
            value = self._client.get(key)
            into[at : at + len(value)] = np.frombuffer(value, np.uint8)
            at += len(value)

    def put(self, source: np.ndarray) -> None:
        self._store("put", source)

    def _store(self, name: str, source: np.ndarray) -> None:
        for at in range(0, len(source), _VALUE_BYTES):
            self._client.set(f"{name} {at}", source[at : at + _VALUE_BYTES].data)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def other_systems(source: np.ndarray) -> dict[str, Any]:
    """By name, each holding the bytes of `source`; prints which are not installed."""
    peers: dict[str, Any] = {}
    for name, make in (("flight", _flight), ("mooncake", _mooncake), ("redis", RedisPeer)):
        try:
            peers[name] = make(source)
        except ImportError as error:
            print(f"not installed (tests/bench/peers.sh): {error.name or error}", flush=True)
    return peers


def _flight(source: np.ndarray) -> Any:
    from flight_peer import FlightPeer

    return FlightPeer(source)


def _mooncake(source: np.ndarray) -> Any:
    from mooncake_peer import MooncakePeer

    return MooncakePeer(source)


class CppPeer:
    """The C++ client, driven by lines (cpp_peer.cc). Its answers are its own seconds."""

    def __init__(self, program: Path, **flags: Any) -> None:
        command = [program, *(f"--{name}={value}" for name, value in flags.items())]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, line: str) -> list[str]:
        """The answer's words."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"cpp_peer ended while it was asked to {line}")
        return answer.split()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


@contextlib.contextmanager
def closing(*peers: Any) -> Iterator[None]:
    """Ends the processes of those that have some."""
    try:
        yield
    finally:
        for peer in peers:
            close: Callable[[], None] | None = getattr(peer, "close", None)
            if close is not None:
                close()
