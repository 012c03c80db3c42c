"""Sharing memory of a GPU, as far as that goes without one: the driver, torch.cuda and the broker's
socket are stand-ins, but for the refusal of a real broker without a GPU."""

from __future__ import annotations

import ctypes
import gc
import socket
import struct
import threading
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from real_broker import RealBroker, needs_semshared

from semshare import cuda_ipc
from semshare.cuda_ipc import CudaDriver, CudaIpcError, CudaTensorRegion
from semshare.hf import sharing
from semshare.hf.cache import KvCache, PlaneShape
from semshare.hf.pool import KvPool
from semshare.hf.sharing import share
from semshare.shm import ShmError, plane_view
from semshare.v1 import cache_broker_pb2 as pb

ANSWER = struct.Struct("=8sII16s160s")
HELLO = struct.Struct("=8s16s64s64sQQ")
BASE, ALLOCATION_BYTES = 0x7F0000000000, 1 << 21
UUID = bytes(range(16))


class FakeLibrary:
    """libcuda.so.1 with one allocation; results go through the pointers that ctypes made."""

    def __init__(self, shareable: bool = True) -> None:
        self.shareable = shareable
        self.failing = ""

    def _result(self, name: str) -> int:
        return 201 if name == self.failing else 0

    def cuPointerGetAttribute(self, data: Any, attribute: Any, pointer: Any) -> int:
        assert attribute.value == 10  # IS_LEGACY_CUDA_IPC_CAPABLE of cuda.h
        data._obj.value = int(self.shareable)
        return self._result("cuPointerGetAttribute")

    def cuMemGetAddressRange_v2(self, base: Any, size: Any, pointer: Any) -> int:
        assert BASE <= pointer.value < BASE + ALLOCATION_BYTES
        base._obj.value, size._obj.value = BASE, ALLOCATION_BYTES
        return self._result("cuMemGetAddressRange_v2")

    def cuIpcGetMemHandle(self, handle: Any, pointer: Any) -> int:
        assert pointer.value == BASE
        ctypes.memmove(handle, b"\0memory" + b"m" * 57, 64)
        return self._result("cuIpcGetMemHandle")


class FakeEvent:
    def __init__(self, interprocess: bool) -> None:
        assert interprocess
        self.recorded: list[Any] = []

    def record(self, stream: Any) -> None:
        self.recorded.append(stream)

    def ipc_handle(self) -> bytes:
        return b"e" * 64


class FakeTensor:
    """`nbytes` bytes at `offset` of the allocation, on a GPU."""

    def __init__(self, offset: int = 4096, nbytes: int = 1 << 20) -> None:
        self.is_cuda = True
        self.device = "cuda:0"
        self._storage = SimpleNamespace(data_ptr=lambda: BASE + offset, nbytes=lambda: nbytes)

    def untyped_storage(self) -> Any:
        return self._storage


def fake_cuda() -> Any:
    return SimpleNamespace(
        Event=FakeEvent,
        device=lambda device: nullcontext(),
        current_stream=lambda device: "current",
        get_device_properties=lambda device: SimpleNamespace(
            uuid=SimpleNamespace(bytes=list(UUID))
        ),
    )


def make_region(tensor: Any = None, library: Any = None) -> CudaTensorRegion:
    return CudaTensorRegion(
        tensor or FakeTensor(), driver=CudaDriver(library or FakeLibrary()), cuda=fake_cuda()
    )


class FakeSocket:
    """The broker's socket: answers each message, and hangs up when `let_go` is set."""

    def __init__(self, path: Path, code: int = 0, text: bytes = b"") -> None:
        self.path = str(path)
        self.messages: list[bytes] = []
        self.let_go = threading.Event()
        self.ended = threading.Event()
        self._answer = ANSWER.pack(b"SEMSHM01", code, 0, b"h" * 16, text)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            while message := connection.recv(512):
                self.messages.append(message)
                connection.send(self._answer)
            self.ended.set()
            self.let_go.wait()

    def close(self) -> None:
        self.let_go.set()
        self._listener.close()


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[FakeSocket]:
    fake = FakeSocket(tmp_path / "shm.sock")
    yield fake
    fake.close()


def test_the_message_names_the_storage_in_its_allocation(listening: FakeSocket) -> None:
    region = make_region()
    assert region.register(listening.path) == b"h" * 16
    assert region.register(listening.path) == b"h" * 16
    (message,) = listening.messages  # Asked once.
    assert HELLO.unpack(message) == (
        b"SEMCUD01",
        UUID,
        b"\0memory" + b"m" * 57,
        b"e" * 64,
        4096,
        1 << 20,
    )
    assert (region.address, region.nbytes) == (BASE + 4096, 1 << 20)
    assert region.transport == pb.TRANSPORT_CUDA_IPC
    listening.let_go.set()
    assert region.close()


def test_record_takes_the_current_stream_unless_told() -> None:
    region = make_region()
    region.record()
    region.record("another")
    assert region._event.recorded == ["current", "current", "another"]  # The first by __init__.


def test_memory_of_another_kind_is_refused_before_anything() -> None:
    with pytest.raises(CudaIpcError, match="expandable_segments"):
        make_region(library=FakeLibrary(shareable=False))
    with pytest.raises(CudaIpcError, match="not on a GPU"):
        CudaTensorRegion(torch.zeros(4))
    with pytest.raises(CudaIpcError, match="empty"):
        make_region(FakeTensor(nbytes=0))
    make_region(FakeTensor(offset=0, nbytes=ALLOCATION_BYTES))
    for offset, nbytes in ((0, ALLOCATION_BYTES + 1), (1, ALLOCATION_BYTES)):
        with pytest.raises(CudaIpcError, match="several allocations"):
            make_region(FakeTensor(offset, nbytes))


@pytest.mark.parametrize(
    "name", ["cuPointerGetAttribute", "cuMemGetAddressRange_v2", "cuIpcGetMemHandle"]
)
def test_errors_of_the_driver_name_the_call(name: str) -> None:
    library = FakeLibrary()
    library.failing = name
    with pytest.raises(CudaIpcError, match=f"{name}: CUDA driver error 201"):
        make_region(library=library)


def test_errors_of_torch_are_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(event: FakeEvent) -> bytes:
        raise RuntimeError("CUDA error: operation not supported")

    monkeypatch.setattr(FakeEvent, "ipc_handle", fail)
    with pytest.raises(CudaIpcError, match="torch: CUDA error: operation not supported"):
        make_region()


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(cuda_ipc.ctypes, "CDLL", missing)
    with pytest.raises(CudaIpcError, match=r"no CUDA driver: libcuda\.so\.1"):
        CudaDriver()


def test_a_refusal_of_the_broker_is_its_words(tmp_path: Path) -> None:
    fake = FakeSocket(tmp_path / "shm.sock", 9, b"region: the memory is on GPU-1")
    with pytest.raises(ShmError, match="the memory is on GPU-1"):
        make_region().register(fake.path)
    fake.close()


def test_the_tensor_lives_until_the_broker_lets_go(listening: FakeSocket) -> None:
    tensor = FakeTensor()
    gone = weakref.ref(tensor)
    region = make_region(tensor)
    del tensor
    region.register(listening.path)
    assert not region.close(timeout_s=0.0)
    assert listening.ended.wait(10)
    gc.collect()
    assert gone() is not None
    with pytest.raises(ShmError, match="closed"):
        region.register(listening.path)
    thread = next(t for t in threading.enumerate() if t.name == "semshare-cuda-ipc")
    listening.let_go.set()
    thread.join()
    assert gone() is None
    assert region.close()


def test_a_region_that_is_dropped_or_retired_lets_go_too(listening: FakeSocket) -> None:
    tensor = FakeTensor()
    gone = weakref.ref(tensor)
    region = make_region(tensor)
    region.register(listening.path)
    region.retire()
    assert region.retired
    del region, tensor
    assert listening.ended.wait(10)
    gc.collect()
    assert gone() is not None
    thread = next(t for t in threading.enumerate() if t.name == "semshare-cuda-ipc")
    listening.let_go.set()
    thread.join()
    assert gone() is None


def test_one_broker_at_a_time(listening: FakeSocket, tmp_path: Path) -> None:
    region = make_region()
    region.register(listening.path)
    with pytest.raises(ShmError, match="another broker"):
        region.register(str(tmp_path / "other.sock"))
    listening.let_go.set()
    assert region.close()


def test_views_of_a_paged_tensor() -> None:
    """[block, head, token, element] as an engine has it, at an offset of the region."""
    pages = torch.zeros(2, 8, 4, 16, 32, dtype=torch.bfloat16)
    region = SimpleNamespace(address=pages.data_ptr() - 256, nbytes=pages.nbytes + 256)
    view = plane_view(pages[1].transpose(1, 2), region)
    assert (view.offset, view.bytes) == (256 + pages[0].nbytes, pages[1].nbytes)
    assert (view.block_tokens, view.block_stride, view.token_stride) == (16, 4096, 64)
    assert (view.head_stride, view.element_stride) == (1024, 2)


class FakeBroker:
    def __init__(self, path: str, offers: bool) -> None:
        self._path, self._offers = path, offers

    def shm_socket(self) -> str:
        return self._path

    def offers_cuda_ipc(self) -> bool:
        return self._offers


def cuda_cache() -> KvCache:
    """A cache that says it is on a GPU, which is all that the adapter's choice looks at."""
    cache = KvCache([(PlaneShape(1, 4),) * 2], 3, torch.float32, torch.device("cpu"))
    cache.device = torch.device("cuda:0")
    return cache


def test_the_adapter_takes_cuda_ipc_where_it_can(listening: FakeSocket) -> None:
    cache = cuda_cache()
    cache.buffer = make_region()
    result = share(FakeBroker(listening.path, offers=True), cache)  # type: ignore[arg-type]
    assert (result.transport, result.handle, result.reason) == ("cuda_ipc", b"h" * 16, "")
    assert cache.buffer._event.recorded == ["current", "current"]  # Before the broker is asked.
    listening.let_go.set()
    assert cache.buffer.close()


def test_the_adapter_says_why_rows_of_a_gpu_go_inline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reason(path: str, offers: bool) -> str:
        result = share(FakeBroker(path, offers), cuda_cache())  # type: ignore[arg-type]
        assert (result.transport, result.handle) == ("inline", b"")
        return result.reason

    assert reason("", True) == "the broker's socket is not on this host"
    assert reason(str(tmp_path / "shm.sock"), False) == "the broker does not offer cuda_ipc"

    def refuse(tensor: torch.Tensor) -> Any:
        raise CudaIpcError("the memory is not cudaMalloc's")

    monkeypatch.setattr(sharing, "CudaTensorRegion", refuse)
    assert "not cudaMalloc's" in reason(str(tmp_path / "shm.sock"), True)


def test_a_cache_that_no_broker_can_reach_says_so(tmp_path: Path) -> None:
    cache = KvCache([(PlaneShape(1, 4),) * 2], 3, torch.float32, torch.device("cpu"))
    broker = FakeBroker(str(tmp_path / "shm.sock"), True)
    assert share(broker, cache).reason == "memory of cpu cannot be shared"  # type: ignore[arg-type]


@needs_semshared
def test_a_broker_without_a_gpu_refuses(tmp_path: Path) -> None:
    with RealBroker(tmp_path, "--backend=cpu") as server, server.client() as client:
        assert not client.offers_cuda_ipc()
        assert pb.TRANSPORT_CUDA_IPC not in client.server_info().transports
        region = make_region()
        with pytest.raises(ShmError, match="needs --backend=cuda"):
            region.register(client.shm_socket())
        cache = cuda_cache()
        assert share(client, cache).reason == "the broker does not offer cuda_ipc"
        on_cpu = KvCache([(PlaneShape(1, 4),) * 2], 3, torch.float32, torch.device("cpu"), KvPool())
        assert share(client, on_cpu).transport == "shared_memory"
