"""Receiving realigned rows into a `KvCache` while earlier layers are already computing."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch

from semshare.client import BrokerError
from semshare.frames import KvFrame
from semshare.hf.cache import KvCache
from semshare.hf.errors import MalformedAnswer

# Up to this many separate pieces of a frame, slices beat an indexed copy.
_MAX_SLICES = 16


class FrameSource(Protocol):
    """A stream of frames that another thread may cancel."""

    def __iter__(self) -> Any: ...
    def __next__(self) -> KvFrame: ...
    def cancel(self) -> None: ...


def check_segments(match: Any, tokens: int, references: int) -> np.ndarray:
    """Target token of every row of a match, `[rows]` int64.

    Raises `MalformedAnswer` unless segments ascend, are disjoint, lie inside the prompt and their
    references, and add up to `matched_tokens`.
    """
    parts = []
    end = 0
    for segment in match.segments:
        begin = segment.target_begin
        if begin < end or segment.tokens == 0 or begin + segment.tokens > tokens:
            raise MalformedAnswer(f"segments: bad target range at {begin}")
        if segment.reference >= references:
            raise MalformedAnswer(f"segments: reference {segment.reference} of {references}")
        held = match.references[segment.reference].tokens
        if segment.source_begin + segment.tokens > held:
            raise MalformedAnswer(f"segments: source range beyond the reference at {begin}")
        end = begin + segment.tokens
        parts.append(np.arange(begin, end, dtype=np.int64))
    targets = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    if len(targets) != match.matched_tokens or len(targets) == 0:
        raise MalformedAnswer("segments: their sum is not matched_tokens")
    return targets


class Receiver(ABC):
    """One `ReadKv` stream on its own thread.

    `wait(layer)` returns once every matched row of that layer is in the cache, and raises what
    ended the stream otherwise (`BrokerError`, `MalformedAnswer`). `stop` may be called by any
    thread, and returns when the receiving thread no longer touches the cache. What the broker
    sends after the last row is ignored.
    """

    def __init__(self, frames: FrameSource, cache: KvCache, targets: np.ndarray) -> None:
        self._frames = frames
        self._cache = cache
        self._targets = targets
        self._changed = threading.Condition()
        self._layers_ready = 0  # Guarded by _changed.
        self._error: Exception | None = None  # Guarded by _changed.
        self._began = time.perf_counter()
        self.seconds = 0.0
        self.waited_s = 0.0  # Written by the waiting thread alone.
        self.nbytes = 0
        self._thread = threading.Thread(target=self._receive, name="semshare-read", daemon=True)
        self._thread.start()

    def wait(self, layer: int) -> None:
        if self._layers_ready > layer:  # Never goes back: no lock needed to see it pass.
            return
        began = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._layers_ready > layer or self._error is not None)
            self.waited_s += time.perf_counter() - began
            if self._layers_ready <= layer and self._error is not None:
                raise self._error

    @abstractmethod
    def _take_all(self, frames: Iterable[KvFrame]) -> None:
        """Takes frames until the last layer is ready; calls `_ready` for each."""

    def stop(self) -> None:
        """Ends the stream; with every row in the cache, it may end by itself."""
        if self._layers_ready < len(self._cache.planes):
            self._frames.cancel()
            self._thread.join()

    def _ready(self, layers: int) -> None:
        self.seconds = time.perf_counter() - self._began
        with self._changed:
            self._layers_ready = layers
            self._changed.notify_all()

    def _receive(self) -> None:
        error: Exception | None = None
        try:
            self._take_all(self._frames)
        except (BrokerError, MalformedAnswer) as caught:
            error = caught
        except Exception as caught:  # The waiting thread must always wake up.
            error = MalformedAnswer(f"{type(caught).__name__}: {caught}")
        with self._changed:
            self._error = error
            self._changed.notify_all()
        if error is None:
            self._drain()

    def _drain(self) -> None:
        """Lets a complete stream end in its own status, and cancels one that goes on."""
        try:
            for _ in self._frames:
                self._frames.cancel()
        except BrokerError:
            return


class InlineReceiver(Receiver):
    """Rows come in the frames and are copied to their tokens here."""

    def __init__(self, frames: FrameSource, cache: KvCache, targets: np.ndarray) -> None:
        # Index in `targets` where a new run of consecutive tokens starts.
        self._breaks = np.flatnonzero(np.diff(targets) != 1) + 1
        super().__init__(frames, cache, targets)

    def _take_all(self, frames: Iterable[KvFrame]) -> None:
        layers = len(self._cache.planes)
        layer, plane, row = 0, 0, 0
        for frame in frames:
            if (frame.layer, frame.plane, frame.first_row) != (layer, plane, row):
                raise MalformedAnswer(
                    f"frame ({frame.layer}, {frame.plane}, {frame.first_row}) where "
                    f"({layer}, {plane}, {row}) is due"
                )
            row += self._place(frame)
            if row == len(self._targets):
                row, plane = 0, plane + 1
            if plane == len(self._cache.planes[layer]):
                plane, layer = 0, layer + 1
                self._ready(layer)
            if layer == layers:
                return
        raise MalformedAnswer(f"the stream ended in layer {layer} of {layers}")

    def _place(self, frame: KvFrame) -> int:
        """Copies one frame's rows to their tokens; their number."""
        plane = self._cache.planes[frame.layer][frame.plane]
        width = plane[0].numel() * plane.element_size()
        begin, end = frame.first_row, frame.first_row + frame.rows
        if frame.rows == 0 or end > len(self._targets):
            raise MalformedAnswer(f"frame with rows [{begin}, {end})")
        if len(frame.payload) != frame.rows * width:
            raise MalformedAnswer(f"{len(frame.payload)} bytes for {frame.rows} rows of {width}")
        _require_finite(torch.frombuffer(bytearray(frame.payload[:256]), dtype=plane.dtype))
        self.nbytes += len(frame.payload)
        source = np.frombuffer(frame.payload, dtype=np.uint8).reshape(frame.rows, width)
        if plane.device.type != "cpu":
            rows = torch.from_numpy(source.copy()).view(plane.dtype).view(-1, *plane.shape[1:])
            where = torch.from_numpy(self._targets[begin:end])
            plane[where.to(plane.device)] = rows.to(plane.device)
            return frame.rows
        out = plane.view(plane.shape[0], -1).view(torch.uint8).numpy()
        breaks = self._breaks
        inner = breaks[np.searchsorted(breaks, begin, "right") : np.searchsorted(breaks, end)]
        if len(inner) > _MAX_SLICES:
            # Whole rows as opaque items: one copy per row instead of one per byte.
            out.view(f"V{width}")[self._targets[begin:end]] = source.view(f"V{width}")
            return frame.rows
        for low, high in zip([begin, *inner], [*inner, end], strict=True):
            first = self._targets[low]
            out[first : first + high - low] = source[low - begin : high - begin]
        return frame.rows


class SharedReceiver(Receiver):
    """The broker writes the rows to the cache's own memory; frames tell how far it is.

    Unless the stream ends in order, the broker may still be writing, so the memory is retired.
    """

    def stop(self) -> None:
        super().stop()
        if self._layers_ready < len(self._cache.planes) and self._cache.buffer is not None:
            self._cache.buffer.retire()

    def _take_all(self, frames: Iterable[KvFrame]) -> None:
        with _own_stream(self._cache.device):
            self._watch(frames)

    def _watch(self, frames: Iterable[KvFrame]) -> None:
        layers = len(self._cache.planes)
        ready = 0
        for frame in frames:
            if not ready <= frame.layer < layers or len(frame.payload) > 0:
                raise MalformedAnswer(f"progress of layer {frame.layer} after {ready}")
            for layer in range(ready, frame.layer + 1):
                self._look_at(layer)
            ready = frame.layer + 1
            self._ready(ready)
            if ready == layers:
                return
        raise MalformedAnswer(f"the stream ended in layer {ready} of {layers}")

    def _look_at(self, layer: int) -> None:
        first = int(self._targets[0])
        for plane in self._cache.planes[layer]:
            _require_finite(plane[first].flatten()[:64])
            self.nbytes += len(self._targets) * plane[0].numel() * plane.element_size()


def _own_stream(device: torch.device) -> AbstractContextManager[Any]:
    """On a GPU, a stream of this thread's own: looking at rows must not wait for the model, whose
    work is on the one that all threads share."""
    if device.type != "cuda":
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))


def _require_finite(sample: torch.Tensor) -> None:
    """Looks at a few elements of the first row: enough to notice rows of another model or dtype,
    too few to cost anything."""
    if not bool(torch.isfinite(sample.float()).all()):
        raise MalformedAnswer("rows are not finite")
