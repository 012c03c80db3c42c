"""A broker that answers wrongly: a real gRPC server in front of the oracle's answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from local_broker import LocalBroker

from semshare.client import BrokerError
from semshare.frames import KvFrame, WriteFrame
from semshare.v1 import cache_broker_pb2 as pb
from semshare.v1 import cache_broker_pb2_grpc as pb_grpc
from semshare.v1 import model_pb2

Frames = Iterator[KvFrame]


class FaultyServicer(pb_grpc.CacheBrokerServicer):
    """The oracle behind the contract; `spoil_match`, `spoil_frames` and `spoil_call` bend what it
    says. `spoil_call(name, context)` may abort or wait."""

    def __init__(self) -> None:
        self.local = LocalBroker()
        self.spoil_match: Callable[[Any], None] = lambda answer: None
        self.spoil_frames: Callable[[Frames], Frames] = lambda frames: frames
        self.spoil_call: Callable[[str, Any], None] = lambda name, context: None

    def _guard(self, name: str, context: Any, call: Callable[[], Any]) -> Any:
        self.spoil_call(name, context)
        try:
            return call()
        except BrokerError as error:
            return context.abort(grpc.StatusCode[error.code], error.message)

    def GetModel(self, request: Any, context: Any) -> Any:
        known = self._guard("GetModel", context, lambda: self.local.get_model(request.fingerprint))
        return pb.GetModelResponse(known=known)

    def RegisterModel(self, frames: Any, context: Any) -> Any:
        spec, probes = model_pb2.ModelSpec(), []
        for frame in frames:
            if frame.WhichOneof("part") == "spec":
                spec = frame.spec
            elif frame.WhichOneof("part") == "probe":
                probes.append(frame.probe)
        call = lambda: self.local.register_model(spec, None, None, probes)  # noqa: E731
        return self._guard("RegisterModel", context, call)

    def BeginPut(self, request: Any, context: Any) -> Any:
        return self._guard("BeginPut", context, lambda: self.local.begin_put(request))

    def WriteKv(self, frames: Any, context: Any) -> Any:
        upload = b""
        rows = []
        for frame in frames:
            upload = frame.upload_id or upload
            payload = memoryview(frame.payload)
            if len(payload):
                at = (frame.layer, frame.plane, frame.token_begin, frame.tokens)
                rows.append(WriteFrame(*at, payload))
        return self._guard("WriteKv", context, lambda: self.local.write_kv(upload, rows))

    def FindMatch(self, request: Any, context: Any) -> Any:
        answer = self._guard("FindMatch", context, lambda: self.local.find_match(request))
        self.spoil_match(answer)
        return answer

    def ReadKv(self, request: Any, context: Any) -> Any:
        self.spoil_call("ReadKv", context)
        for frame in self.spoil_frames(iter(self.local.read_kv(request.lease_id))):
            yield pb.ReadKvFrame(
                layer=frame.layer,
                plane=frame.plane,
                first_row=frame.first_row,
                rows=frame.rows,
                payload=bytes(frame.payload),
            )

    def ReleaseMatch(self, request: Any, context: Any) -> Any:
        outcome = request.outcome
        self._guard("ReleaseMatch", context, lambda: self.local.release(request.lease_id, outcome))
        return pb.ReleaseMatchResponse()


@contextmanager
def serve(servicer: FaultyServicer) -> Iterator[str]:
    """Runs the server; its address."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    pb_grpc.add_CacheBrokerServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
