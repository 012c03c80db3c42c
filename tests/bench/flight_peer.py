"""Arrow Flight over the bytes that semshare moves: a rival for `transport_bench.py`.

Needs pyarrow (tests/bench/peers.sh). The server is a process of its own, as the broker is.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import flight

_BATCH_BYTES = 2 << 20
_SCHEMA = pa.schema([("rows", pa.uint8())])


class _Server(flight.FlightServerBase):  # type: ignore[misc]
    """Serves one range of bytes, and keeps what is put."""

    def __init__(self, nbytes: int) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._stored = np.ones(nbytes, np.uint8)
        self._taken = np.zeros(nbytes, np.uint8)

    def do_get(self, _: Any, __: Any) -> Any:
        return flight.GeneratorStream(_SCHEMA, _batches(self._stored))

    def do_put(self, _: Any, __: Any, reader: Any, ___: Any) -> None:
        at = 0
        for chunk in reader:
            rows = chunk.data.column(0).to_numpy(zero_copy_only=True)
            self._taken[at : at + len(rows)] = rows
            at += len(rows)


def _batches(array: np.ndarray) -> Any:
    for begin in range(0, len(array), _BATCH_BYTES):
        yield pa.record_batch([pa.array(array[begin : begin + _BATCH_BYTES])], schema=_SCHEMA)


def _serve(nbytes: int, ready: Any) -> None:
    server = _Server(nbytes)
    ready.send(server.port)
    server.serve()


class FlightPeer:
    """One connection to a Flight server that holds as many bytes as `source` has."""

    def __init__(self, source: np.ndarray) -> None:
        here, there = multiprocessing.Pipe()
        # A fork would inherit gRPC's threads half-way.
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve, args=(len(source), there), daemon=True)
        self._process.start()
        self._client = flight.connect(f"grpc://127.0.0.1:{here.recv()}")

    def get(self, into: np.ndarray) -> None:
        """DoGet, copied into place."""
        at = 0
        for chunk in self._client.do_get(flight.Ticket(b"")):
            rows = chunk.data.column(0).to_numpy(zero_copy_only=True)
            into[at : at + len(rows)] = rows
            at += len(rows)

    def put(self, source: np.ndarray) -> None:
        """DoPut; the server copies into place."""
        descriptor = flight.FlightDescriptor.for_path("rows")
        writer, _ = self._client.do_put(descriptor, _SCHEMA)
        for batch in _batches(source):
            writer.write_batch(batch)
        writer.close()
