"""Memory that this process shares with a broker on the same host.

A `SharedBuffer` is a sealed memfd. Registered with the broker's socket (`GetServerInfo.shm_socket`;
the messages are those of `proto/shm_wire.h`), it can be the target of `Client.read_kv`
and the source of `Client.write_kv_from`: rows travel in one copy, and none in this process.

Views are made from arrays over the buffer, so any layout that strides can express will do.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from semshare.v1 import cache_broker_pb2 as pb

_MAGIC = b"SEMSHM01"
_HELLO = struct.Struct("=8sQ")
_ANSWER = struct.Struct("=8sII16s160s")
_TIMEOUT_S = 5.0
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class ShmError(Exception):
    """The broker refused a region, or its socket cannot be reached."""


class Region(Protocol):
    """Memory that a broker can reach: `nbytes` bytes from `address`."""

    address: int
    nbytes: int


class Registration:
    """A region at a broker's socket, while the connection lives. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None  # Guarded by _lock.
        self._path = ""  # Guarded by _lock.
        self._handle = b""  # Guarded by _lock.

    def register(self, path: str, message: bytes, files: Sequence[int] = ()) -> bytes:
        """The handle of the region at the broker that listens on `path`, which is asked only once
        for as long as it lives. Raises `ShmError`."""
        with self._lock:
            if self._socket is not None and self._path == path and _is_open(self._socket):
                return self._handle
            self._drop()
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                connection.settimeout(_TIMEOUT_S)
                connection.connect(path)
                socket.send_fds(connection, [message], files)
                answer = connection.recv(_ANSWER.size + 1)
                handle = _read_answer(answer)
                connection.setblocking(False)  # From here on only asked whether it is open.
            except OSError as error:
                connection.close()
                raise ShmError(f"{path}: {error}") from error
            except ShmError:
                connection.close()
                raise
            self._socket, self._path, self._handle = connection, path, handle
            return handle

    def is_elsewhere(self, path: str) -> bool:
        """Whether another broker than that of `path` knows the region."""
        with self._lock:
            return self._socket is not None and self._path != path and _is_open(self._socket)

    def detach(self) -> socket.socket | None:
        """The open connection, which is the caller's now."""
        with self._lock:
            connection, self._socket, self._handle = self._socket, None, b""
            return connection

    def drop(self) -> None:
        """Takes the region back. Idempotent."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self._handle = None, b""


class SharedBuffer:
    """`nbytes` bytes at `address`, all pages touched, as a uint8 `array`. Thread-safe but for the
    content.

    The memory lives as long as any array over it; the registration as long as this object.
    """

    transport = pb.TRANSPORT_SHARED_MEMORY

    def __init__(self, nbytes: int) -> None:
        if nbytes <= 0:
            raise ValueError("a shared buffer has at least one byte")
        self.nbytes = nbytes
        self._fd = os.memfd_create("semshare", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._fd, nbytes)
            # The broker takes no pages that it would have to allocate itself.
            os.posix_fallocate(self._fd, 0, nbytes)
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
            self._map = mmap.mmap(self._fd, nbytes, flags=flags)
        except OSError:
            os.close(self._fd)
            raise
        self.array: np.ndarray = np.frombuffer(self._map, dtype=np.uint8)
        self.address: int = self.array.ctypes.data
        self.retired = False
        """Set where the broker may still use the memory: it must not be written any more."""
        self._registration = Registration()

    def __del__(self) -> None:
        if hasattr(self, "_registration"):
            self.unregister()
        os.close(self._fd)

    @property
    def path(self) -> str:
        """Where another process of this user can open the memory, while this object lives."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def register(self, path: str) -> bytes:
        """The handle of the region at the broker that listens on `path`, which is asked only once
        for as long as it lives. Raises `ShmError`."""
        return self._registration.register(path, _HELLO.pack(_MAGIC, self.nbytes), [self._fd])

    def unregister(self) -> None:
        """Takes the region back; reads that go on still write to it. Idempotent."""
        self._registration.drop()

    def retire(self) -> None:
        """Says that a transfer did not end in order, so the broker may still be at work on it."""
        self.retired = True
        self.unregister()


def plane_view(array: Any, buffer: Region) -> pb.PlaneView:
    """The view of one plane: `array` lies in `buffer` and has the dimensions `[slot, head,
    element]` or, paged, `[block, token, head, element]`, in any order of memory.

    Takes NumPy arrays and tensors; `ValueError` if it is neither or lies elsewhere.
    """
    return plane_views([array], buffer)[0]


def plane_views(arrays: Iterable[Any], buffer: Region) -> list[pb.PlaneView]:
    """`plane_view` of each. Planes of one shape, as those of most models are, cost little."""
    views = []
    known: dict[Any, pb.PlaneView] = {}
    for array in arrays:
        if isinstance(array, np.ndarray):
            start = array.__array_interface__["data"][0]
            geometry = (array.shape, array.strides, array.itemsize)
        else:
            # Not every dtype of a tensor has a NumPy twin, so only its place is asked for.
            start = array.data_ptr()
            geometry = (array.shape, array.stride(), -array.element_size())
        model = known.get(geometry)
        if model is None:
            model = known[geometry] = _at_origin(*geometry)
        offset = start - buffer.address
        if offset < 0 or offset + model.bytes > buffer.nbytes:
            raise ValueError("the plane is not within the buffer")
        view = pb.PlaneView()
        view.CopyFrom(model)
        view.offset = offset
        views.append(view)
    return views


def _at_origin(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> pb.PlaneView:
    """The view of a plane at offset 0. `strides` are bytes, or elements of `-itemsize` bytes."""
    if itemsize < 0:
        itemsize = -itemsize
        strides = [stride * itemsize for stride in strides]
    if len(shape) not in (3, 4):
        raise ValueError(f"a plane has 3 or 4 dimensions, not {len(shape)}")
    if min(strides) < 0 or min(shape) < 1:
        raise ValueError("a plane has elements, and no negative strides")
    reach = sum(stride * (size - 1) for stride, size in zip(strides, shape, strict=True))
    paged = len(shape) == 4
    return pb.PlaneView(
        bytes=reach + itemsize,
        block_tokens=shape[1] if paged else 1,
        block_stride=strides[0],
        token_stride=strides[1] if paged else 0,
        head_stride=strides[-2],
        element_stride=strides[-1],
    )


def kv_view(
    handle: bytes,
    planes: Sequence[pb.PlaneView],
    slots: Sequence[int] | None = None,
    layer_stride: int = 0,
) -> pb.KvView:
    """`planes` in (layer, plane) order; `slots[t]` is token `t`'s slot, `None`: `t` itself.

    With `layer_stride`, `planes` are those of the first layer, and the next layers' lie that many
    bytes further each: a message of a few bytes, whatever the number of layers.
    """
    return pb.KvView(region=handle, planes=planes, slots=slots, layer_stride=layer_stride)


def _is_open(connection: socket.socket) -> bool:
    """Whether the broker at the other end still holds the connection."""
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _read_answer(answer: bytes) -> bytes:
    if len(answer) != _ANSWER.size:
        raise ShmError("the broker's answer is not one of this version")
    magic, code, _, handle, message = _ANSWER.unpack(answer)
    if magic != _MAGIC:
        raise ShmError("the broker's answer is not one of this version")
    if code != 0:
        text = message.rstrip(b"\0").decode("utf-8", "replace")
        raise ShmError(text or f"refused with code {code}")
    return bytes(handle)
