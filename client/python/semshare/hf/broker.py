"""What the adapter needs of a broker: `semshare.Client` has it, and so may a stand-in in tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from semshare.client import BrokerError
from semshare.frames import WriteFrame
from semshare.hf.transfer import FrameSource
from semshare.v1 import cache_broker_pb2 as pb
from semshare.v1 import model_pb2

MODES = {
    "exact_prefix": pb.MATCH_MODE_EXACT_PREFIX,
    "exact": pb.MATCH_MODE_EXACT,
    "token": pb.MATCH_MODE_TOKEN,
    "fuzzy": pb.MATCH_MODE_FUZZY,
    "semsharekv": pb.MATCH_MODE_SEMSHAREKV,
}
PRESETS = {
    "auto": pb.PRESET_AUTO,
    "fast": pb.PRESET_FAST,
    "heads": pb.PRESET_HEADS,
    "balanced": pb.PRESET_BALANCED,
    "faithful": pb.PRESET_FAITHFUL,
    "semsharekv": pb.PRESET_SEMSHAREKV,
}
KINDS = {
    pb.RESULT_KIND_EXACT_PREFIX: "exact_prefix",
    pb.RESULT_KIND_SHIFTED: "shifted",
    pb.RESULT_KIND_EDITED: "edited",
    pb.RESULT_KIND_FUZZY: "fuzzy",
    pb.RESULT_KIND_SEMSHAREKV: "semsharekv",
}
KIND_VALUES = {name: value for value, name in KINDS.items()} | {
    "miss": pb.RESULT_KIND_MISS,
    "fallback": pb.RESULT_KIND_FALLBACK,
}


class Broker(Protocol):
    """The methods of `semshare.Client` that the adapter calls. Thread-safe."""

    def get_model(self, fingerprint: bytes, *, timeout_s: float | None = None) -> bool: ...

    def register_model(
        self,
        spec: model_pb2.ModelSpec,
        table: np.ndarray | None,
        token_weights: np.ndarray | None = None,
        probes: Iterable[model_pb2.ProbeSample] = (),
        *,
        timeout_s: float = 120.0,
    ) -> Any: ...

    def begin_put(self, request: Any, *, timeout_s: float | None = None) -> Any: ...

    def write_kv(
        self, upload_id: bytes, frames: Iterable[WriteFrame], *, timeout_s: float = 120.0
    ) -> Any: ...

    def find_match(self, request: Any, *, timeout_s: float | None = None) -> Any: ...

    def read_kv(self, lease_id: bytes, *, timeout_s: float = 60.0) -> FrameSource: ...

    def release(
        self, lease_id: bytes, outcome: Any = None, *, timeout_s: float | None = None
    ) -> None: ...

    def report_shadow_check(self, request: Any, *, timeout_s: float | None = None) -> Any: ...


class SharingBroker(Broker, Protocol):
    """A broker that may be on this host: the methods of shared memory and CUDA IPC, see
    `semshare.Client`."""

    def shm_socket(self) -> str: ...

    def offers_cuda_ipc(self) -> bool: ...

    def write_kv_from(
        self, upload_id: bytes, source: Any, layers: int, *, timeout_s: float = 120.0
    ) -> Any: ...

    def read_kv(
        self,
        lease_id: bytes,
        *,
        target: Any = None,
        transport: pb.Transport = pb.TRANSPORT_SHARED_MEMORY,
        timeout_s: float = 60.0,
    ) -> FrameSource: ...


__all__ = ["KINDS", "KIND_VALUES", "MODES", "PRESETS", "Broker", "BrokerError", "SharingBroker"]
