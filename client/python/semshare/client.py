"""Plain methods over the RPCs of `semshare.v1.CacheBroker`.

One exception type leaves this module for anything that goes wrong between here and the broker:
`BrokerError`, with the name of the gRPC status code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc
import numpy as np
from grpc.experimental import ChannelOptions

from semshare.frames import (
    MAX_PAYLOAD_BYTES,
    FrameError,
    KvFrame,
    WriteFrame,
    encode_write_frame,
    parse_read_frame,
)
from semshare.v1 import cache_broker_pb2 as pb
from semshare.v1 import cache_broker_pb2_grpc as pb_grpc
from semshare.v1 import model_pb2

__all__ = ["BrokerError", "Client", "KvFrame", "KvStream", "WriteFrame"]

_SERVICE = "/semshare.v1.CacheBroker/"
_REGISTER_CHUNK_BYTES = 1 << 20
T = TypeVar("T")


class BrokerError(Exception):
    """A call to the broker failed.

    `code` is the name of a gRPC status code (`"UNAVAILABLE"`, `"DEADLINE_EXCEEDED"`, ...), or
    `"MALFORMED"` where the broker's answer is not what the contract says.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def _translate(error: grpc.RpcError) -> BrokerError:
    code = error.code() if callable(getattr(error, "code", None)) else None
    details = error.details() if callable(getattr(error, "details", None)) else str(error)
    return BrokerError(code.name if code is not None else "UNKNOWN", details or "")


class KvStream(Iterator[KvFrame]):
    """Frames of one `ReadKv`, in (layer, plane) order. Used by one thread, cancelled from any."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> KvStream:
        return self

    def __next__(self) -> KvFrame:
        try:
            return parse_read_frame(next(self._call))
        except grpc.RpcError as error:
            raise _translate(error) from error
        except FrameError as error:
            self.cancel()
            raise BrokerError("MALFORMED", str(error)) from error

    def cancel(self) -> None:
        """Ends the stream early; the broker frees its lane."""
        self._call.cancel()


class Client:
    """Connection to one broker. Thread-safe; `close` ends calls in flight.

    `timeout_s` is the deadline of each unary call unless the method is given another. Nothing is
    sent before the first call, and a dead broker fails each call at once: retries are the
    caller's decision.
    """

    def __init__(self, address: str, *, timeout_s: float = 5.0) -> None:
        self.address = address
        self.timeout_s = timeout_s
        # Frames obey the contract's 4 MiB limit, so gRPC's defaults stay as they are. A short
        # back-off lets a restarted broker be found again soon.
        options = [
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.enable_http_proxy", 0),
            # Whoever reads a stream takes its frames from gRPC itself; no thread stands between.
            (ChannelOptions.SingleThreadedUnaryStream, 1),
        ]
        self._channel = grpc.insecure_channel(address, options=options)
        self._shm_socket: str | None = None  # None: not asked yet.
        self._transports: frozenset[int] = frozenset()
        self._stub = pb_grpc.CacheBrokerStub(self._channel)
        self._read_kv = self._channel.unary_stream(
            _SERVICE + "ReadKv",
            request_serializer=pb.ReadKvRequest.SerializeToString,
            response_deserializer=None,
        )
        self._write_kv = self._channel.stream_unary(
            _SERVICE + "WriteKv",
            request_serializer=None,
            response_deserializer=pb.WriteKvResponse.FromString,
        )

    @classmethod
    def from_address_file(cls, path: str | Path, *, timeout_s: float = 5.0) -> Client:
        """Connects to the broker that wrote `path` (`semshared --address_file`).

        Raises `OSError` if there is no such file and `ValueError` if it names no address.
        """
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not isinstance(content.get("grpc"), str):
            raise ValueError(f"{path} has no 'grpc' address")
        return cls(content["grpc"], timeout_s=timeout_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. Idempotent."""
        self._channel.close()

    def _unary(self, method: Callable[..., T], request: Any, timeout_s: float | None) -> T:
        try:
            return method(request, timeout=self.timeout_s if timeout_s is None else timeout_s)
        except grpc.RpcError as error:
            raise _translate(error) from error
        except ValueError as error:  # grpc: the channel was closed
            raise BrokerError("CANCELLED", str(error)) from error

    def server_info(self, *, timeout_s: float | None = None) -> pb.GetServerInfoResponse:
        """What the broker is, its limits and addresses."""
        return self._unary(self._stub.GetServerInfo, pb.GetServerInfoRequest(), timeout_s)

    def shm_socket(self) -> str:
        """Path of the broker's shared-memory socket where this host has it, else `""`.

        The broker is asked once; a failure counts as none for this time.
        """
        if self._shm_socket is None:
            try:
                info = self.server_info()
            except BrokerError:
                return ""
            self._transports = frozenset(info.transports)
            self._shm_socket = info.shm_socket
        return self._shm_socket if Path(self._shm_socket).is_socket() else ""

    def offers_cuda_ipc(self) -> bool:
        """Whether memory of the broker's GPU can be registered with `shm_socket`."""
        return self.shm_socket() != "" and pb.TRANSPORT_CUDA_IPC in self._transports

    def get_model(self, fingerprint: bytes, *, timeout_s: float | None = None) -> bool:
        """Whether this fingerprint (32 bytes) is registered for the caller's tenant."""
        request = pb.GetModelRequest(fingerprint=fingerprint)
        return self._unary(self._stub.GetModel, request, timeout_s).known

    def register_model(
        self,
        spec: model_pb2.ModelSpec,
        table: np.ndarray | None,
        token_weights: np.ndarray | None = None,
        probes: Iterable[model_pb2.ProbeSample] = (),
        *,
        timeout_s: float = 120.0,
    ) -> pb.RegisterModelResponse:
        """Registers a model.

        `table` is `[vocab, width]` float32, or None for a model that the broker knows already;
        `token_weights` is `[vocab]` float32 or None (the broker makes them).
        """

        def frames() -> Iterator[pb.RegisterModelFrame]:
            yield pb.RegisterModelFrame(spec=spec)
            for name, array in (("embedding_table", table), ("token_weights", token_weights)):
                if array is None:
                    continue
                data = np.ascontiguousarray(array, dtype="<f4").tobytes()
                for begin in range(0, len(data), _REGISTER_CHUNK_BYTES):
                    frame = pb.RegisterModelFrame()
                    setattr(frame, name, data[begin : begin + _REGISTER_CHUNK_BYTES])
                    yield frame
            for probe in probes:
                yield pb.RegisterModelFrame(probe=probe)

        return self._unary(self._stub.RegisterModel, frames(), timeout_s)

    def begin_put(
        self, request: pb.BeginPutRequest, *, timeout_s: float | None = None
    ) -> pb.BeginPutResponse:
        """Opens an upload; the answer names the token ranges that the broker lacks."""
        return self._unary(self._stub.BeginPut, request, timeout_s)

    def write_kv(
        self, upload_id: bytes, frames: Iterable[WriteFrame], *, timeout_s: float = 120.0
    ) -> pb.WriteKvResponse:
        """Sends exact rows in the order layer, plane, range, token, and commits.

        The caller's word that every row is exact (design: reference) travels in the first frame.
        If `frames` raises, the upload is undone.
        """

        def messages() -> Iterator[bytes]:
            first = True
            for frame in frames:
                if first:
                    yield encode_write_frame(frame, upload_id=upload_id, exact=True)
                    first = False
                else:
                    yield encode_write_frame(frame)
            if first:
                yield encode_write_frame(None, upload_id=upload_id, exact=True, commit=True)
            else:
                yield encode_write_frame(None, commit=True)

        return self._unary(self._write_kv, messages(), timeout_s)

    def write_kv_from(
        self, upload_id: bytes, source: pb.KvView, layers: int, *, timeout_s: float = 120.0
    ) -> pb.WriteKvResponse:
        """Lets the broker take the missing rows of all `layers` layers from a region, and commits.
        The call is the caller's word that every row is exact.

        After a failure the broker may still be reading: the rows must stay as they are
        (`SharedBuffer.retire`, `CudaTensorRegion.retire`).
        """
        message = pb.WriteKvFrame(
            upload_id=upload_id, exact=True, source=source, layers=layers, commit=True
        )
        messages = iter([message.SerializeToString()])
        return self._unary(self._write_kv, messages, timeout_s)

    def find_match(
        self, request: pb.FindMatchRequest, *, timeout_s: float | None = None
    ) -> pb.FindMatchResponse:
        """Finds what can be reused for a prompt. A miss is an answer."""
        return self._unary(self._stub.FindMatch, request, timeout_s)

    def read_kv(
        self,
        lease_id: bytes,
        *,
        layer_begin: int = 0,
        layer_end: int = 0,
        target: pb.KvView | None = None,
        transport: pb.Transport = pb.TRANSPORT_SHARED_MEMORY,
        timeout_s: float = 60.0,
    ) -> KvStream:
        """Opens the stream of realigned rows. `timeout_s` bounds the whole stream.

        With `target` the broker writes the rows there, and frames without payload tell how far it
        is: all layers up to `layer`. `transport` says what the target's region is (the region's
        `transport`). A stream that is cancelled or fails may still be written to the target for a
        while (`SharedBuffer.retire`, `CudaTensorRegion.retire`).
        """
        inline = target is None
        request = pb.ReadKvRequest(
            lease_id=lease_id,
            layer_begin=layer_begin,
            layer_end=layer_end,
            transport=pb.TRANSPORT_INLINE if inline else transport,
            max_frame_payload_bytes=MAX_PAYLOAD_BYTES if inline else 0,
            target=target,
        )
        try:
            return KvStream(self._read_kv(request, timeout=timeout_s))
        except ValueError as error:  # grpc: the channel was closed
            raise BrokerError("CANCELLED", str(error)) from error

    def release(
        self,
        lease_id: bytes,
        outcome: pb.MatchOutcome | None = None,
        *,
        timeout_s: float | None = None,
    ) -> None:
        """Gives a lease back, with what became of it. Idempotent."""
        request = pb.ReleaseMatchRequest(lease_id=lease_id, outcome=outcome)
        self._unary(self._stub.ReleaseMatch, request, timeout_s)

    def report_shadow_check(
        self, request: pb.ReportShadowCheckRequest, *, timeout_s: float | None = None
    ) -> bool:
        """Tells how a reuse compared with a full prefill of the same prompt; whether the broker
        now keeps from offering this kind of match."""
        return self._unary(self._stub.ReportShadowCheck, request, timeout_s).disabled
