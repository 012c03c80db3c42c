"""A torch tensor on a GPU that a broker on the same GPU writes to, or takes rows from, by itself.

`CudaTensorRegion` registers the tensor's storage with the broker's socket (the message is
`CudaHello` of `proto/shm_wire.h`); `semshare.shm.plane_view` and `kv_view` describe the cache in
it, paged or not, whatever the order of its strides:

    region = CudaTensorRegion(kv)                     # [layers, 2, blocks, tokens, heads, width]
    handle = region.register(client.shm_socket())
    planes = [plane_view(kv[layer, plane], region) for layer in ... for plane in (0, 1)]
    region.record()                                   # what comes before it, the broker waits for
    stream = client.read_kv(
        lease, target=kv_view(handle, planes, slots), transport=region.transport
    )

Kernels that are launched after a frame of the stream see the rows that the frame names.

CUDA shares only what `cudaMalloc` made. `CudaIpcError` says so where memory is of another kind.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from typing import Any

from semshare.shm import Registration, ShmError
from semshare.v1 import cache_broker_pb2 as pb

_MAGIC = b"SEMCUD01"
_HELLO = struct.Struct("=8s16s64s64sQQ")
_HANDLE_BYTES = 64
_IS_LEGACY_CUDA_IPC_CAPABLE = 10  # CU_POINTER_ATTRIBUTE_..., cuda.h


class CudaIpcError(ShmError):
    """The memory cannot be shared, or CUDA refused."""


class CudaDriver:
    """The calls of CUDA's driver API that torch does not wrap. Thread-safe; the device's context
    must be current. `library` stands in for `libcuda.so.1` in tests. Raises `CudaIpcError`."""

    def __init__(self, library: Any = None) -> None:
        if library is None:
            try:
                library = ctypes.CDLL("libcuda.so.1")
            except OSError as error:
                raise CudaIpcError(f"no CUDA driver: {error}") from error
        self._library = library

    def _call(self, name: str, *arguments: Any) -> None:
        result = getattr(self._library, name)(*arguments)
        if result != 0:
            raise CudaIpcError(f"{name}: CUDA driver error {result}")

    def is_shareable(self, address: int) -> bool:
        """Whether the memory there is of an allocation that has a handle for other processes."""
        value = ctypes.c_uint64(0)  # The driver writes a boolean, of whatever width.
        self._call(
            "cuPointerGetAttribute",
            ctypes.byref(value),
            ctypes.c_int(_IS_LEGACY_CUDA_IPC_CAPABLE),
            ctypes.c_uint64(address),
        )
        return value.value != 0

    def allocation(self, address: int) -> tuple[int, int]:
        """Where the allocation around `address` begins, and its bytes."""
        base, nbytes = ctypes.c_uint64(0), ctypes.c_size_t(0)
        self._call(
            "cuMemGetAddressRange_v2",
            ctypes.byref(base),
            ctypes.byref(nbytes),
            ctypes.c_uint64(address),
        )
        return base.value, nbytes.value

    def memory_handle(self, base: int) -> bytes:
        """`cudaIpcMemHandle_t` of the allocation that begins at `base`."""
        handle = ctypes.create_string_buffer(_HANDLE_BYTES)
        self._call("cuIpcGetMemHandle", handle, ctypes.c_uint64(base))
        return handle.raw


class CudaTensorRegion:
    """The whole storage of a CUDA tensor. Thread-safe but for the content.

    The tensor stays alive until the broker has let go of it: freeing memory that another process
    has open is undefined in CUDA. `close` tells when that is; what is not closed is let go in the
    background.

    One event orders the GPU's work: `record` comes before every call that names the region. Work
    on several streams needs a stream that waits for all of them, or a region for each.

    `driver` and `cuda` stand in for the driver and for `torch.cuda` in tests.
    """

    transport = pb.TRANSPORT_CUDA_IPC

    def __init__(self, tensor: Any, *, driver: CudaDriver | None = None, cuda: Any = None) -> None:
        if not tensor.is_cuda:
            raise CudaIpcError("the tensor is not on a GPU")
        if cuda is None:
            import torch

            cuda = torch.cuda
        driver = driver or CudaDriver()
        storage = tensor.untyped_storage()
        self.address: int = storage.data_ptr()
        self.nbytes: int = storage.nbytes()
        self.retired = False
        """Set where the broker may still use the memory: it must not be written any more."""
        self._cuda = cuda
        self._device = tensor.device
        self._registration = Registration()
        try:
            with cuda.device(tensor.device):
                event = cuda.Event(interprocess=True)
                # Work of the runtime, so that the driver finds the device's context current below.
                event.record(cuda.current_stream(tensor.device))
                self._hello = self._describe(driver, event, tensor.device)
        except RuntimeError as error:  # What torch raises for errors of CUDA.
            raise CudaIpcError(f"torch: {error}") from error
        self._event = event
        self._lock = threading.Lock()
        self._held: Any = (tensor, event)  # Guarded by _lock; None once it is closed.

    def __del__(self) -> None:
        if getattr(self, "_held", None) is not None:
            self._let_go()

    def _describe(self, driver: CudaDriver, event: Any, device: Any) -> bytes:
        if self.nbytes == 0:
            raise CudaIpcError("the tensor is empty")
        if not driver.is_shareable(self.address):
            raise CudaIpcError(
                "the memory is not cudaMalloc's, so other processes cannot open it: torch takes "
                "cuMemCreate with PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True, and engines "
                "do for a sleep mode"
            )
        base, nbytes = driver.allocation(self.address)
        offset = self.address - base
        if offset < 0 or offset + self.nbytes > nbytes:
            raise CudaIpcError("the storage spans several allocations")
        uuid = bytes(self._cuda.get_device_properties(device).uuid.bytes)
        return _HELLO.pack(
            _MAGIC, uuid, driver.memory_handle(base), event.ipc_handle(), offset, self.nbytes
        )

    def register(self, path: str) -> bytes:
        """The handle of the region at the broker that listens on `path`, which is asked only once
        for as long as it lives. Raises `ShmError`."""
        with self._lock:
            if self._held is None:
                raise ShmError("the region is closed")
            if self._registration.is_elsewhere(path):
                raise ShmError("the region is another broker's; close it first")
            return self._registration.register(path, self._hello)

    def record(self, stream: Any = None) -> None:
        """What `stream` (None: the current one) has been given so far comes before the broker's
        work of calls that follow."""
        self._event.record(stream or self._cuda.current_stream(self._device))

    def close(self, timeout_s: float = 5.0) -> bool:
        """Takes the region back, and waits for the broker to let go: True once it has, or if it
        never knew the region. The memory stays alive until then in any case. Idempotent."""
        thread = self._let_go()
        if thread is None:
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def retire(self) -> None:
        """Says that a transfer did not end in order, so the broker may still be at work on it."""
        self.retired = True
        self._let_go()

    def _let_go(self) -> threading.Thread | None:
        with self._lock:
            held, self._held = self._held, None
            connection = self._registration.detach()
        if connection is None:
            return None
        thread = threading.Thread(
            target=_await_end, args=(connection, held), name="semshare-cuda-ipc", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # The interpreter ends, and the process with it.
            connection.close()
            return None
        return thread


def _await_end(connection: socket.socket, held: Any) -> None:
    """Keeps `held` alive until the broker hangs up: it does so when it uses none of it."""
    with connection:
        try:
            connection.shutdown(socket.SHUT_WR)
            connection.setblocking(True)
            while connection.recv(1):
                pass
        except OSError:  # The broker is gone, and its mappings with it.
            pass
    del held
