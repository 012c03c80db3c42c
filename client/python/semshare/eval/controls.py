"""Controls: what the same reuse is worth when the rows that it loads are wrong.

A `TamperedBroker` stands between a `CachedModel` and its broker. The plan stays the broker's own:
the same tokens are recomputed; only the rows of the others are changed on their way in. The gate is
off, since it exists to refuse such rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from semshare.frames import KvFrame
from semshare.hf.rotary import HALF_SPLIT, RotaryRange
from semshare.hf.spec import ModelDescription

__all__ = ["CONTROLS", "TamperedBroker", "tampered"]

CONTROLS = {
    "zero": "rows of zeros",
    "random": "random rows of the same scale",
    "unrotated": "the reference's rows without rotation to their new positions",
}


@contextmanager
def tampered(cached: Any, control: str, seed: int) -> Iterator[None]:
    """Lets a `CachedModel` load wrong rows for a while; `control` is a key of `CONTROLS`."""
    honest = cached.client
    cached.client = TamperedBroker(honest, cached.description, cached.model.dtype, control, seed)
    try:
        yield
    finally:
        cached.client = honest


class TamperedBroker:
    """A broker whose rows are wrong in one known way. Everything else is the real one's.

    Not thread-safe: `read_kv` belongs to the `find_match` before it.
    """

    def __init__(
        self,
        broker: Any,
        description: ModelDescription,
        dtype: torch.dtype,
        control: str,
        seed: int,
    ) -> None:
        if control not in CONTROLS:
            raise ValueError(f"no control '{control}'; there are {', '.join(CONTROLS)}")
        self._broker = broker
        self._description = description
        self._dtype = dtype
        self._control = control
        self._seed = seed
        self._positions: tuple[np.ndarray, np.ndarray] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def shm_socket(self) -> str:
        """None: rows that the broker writes by itself could not be changed."""
        return ""

    def find_match(self, request: Any, **options: Any) -> Any:
        """The broker's answer with the gate off."""
        answer = self._broker.find_match(request, **options)
        if answer.WhichOneof("result") == "match":
            answer.match.plan.sigma_limit = 0.0
            self._positions = _positions(answer.match)
        return answer

    def read_kv(self, lease_id: bytes, **options: Any) -> Any:
        """The broker's frames, changed."""
        return _TamperedFrames(self._broker.read_kv(lease_id, **options), self._change)

    def _change(self, frame: KvFrame) -> KvFrame:
        shape = self._description.shapes[frame.layer][frame.plane]
        rows = torch.frombuffer(bytearray(frame.payload), dtype=self._dtype)
        rows = rows.view(frame.rows, shape.heads, shape.width)
        if self._control == "zero":
            rows = torch.zeros_like(rows)
        elif self._control == "random":
            rows = self._random_like(rows, frame)
        else:
            rows = self._turned_back(rows, frame)
        payload = memoryview(rows.contiguous().view(torch.uint8).numpy().tobytes())
        return KvFrame(frame.layer, frame.plane, frame.first_row, frame.rows, payload)

    def _random_like(self, rows: torch.Tensor, frame: KvFrame) -> torch.Tensor:
        place = f"{self._seed} {frame.layer} {frame.plane} {frame.first_row}".encode()
        seed = int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "little") >> 1
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(rows.shape, generator=generator)
        wide = rows.float()
        return (noise * wide.std() + wide.mean()).to(rows.dtype)

    def _turned_back(self, rows: torch.Tensor, frame: KvFrame) -> torch.Tensor:
        turn = self._description.rotations[frame.layer][frame.plane]
        if turn is None or self._positions is None:
            return rows
        part = slice(frame.first_row, frame.first_row + frame.rows)
        source, target = (positions[part] for positions in self._positions)
        return turn_rows(rows, turn, target, source)


class _TamperedFrames:
    """A `FrameSource` over another one."""

    def __init__(self, frames: Any, change: Any) -> None:
        self._frames = frames
        self._change = change

    def __iter__(self) -> _TamperedFrames:
        return self

    def __next__(self) -> KvFrame:
        changed: KvFrame = self._change(next(self._frames))
        return changed

    def cancel(self) -> None:
        self._frames.cancel()


def turn_rows(
    rows: torch.Tensor, turn: RotaryRange, before: np.ndarray, after: np.ndarray
) -> torch.Tensor:
    """`[rows, heads, width]` at the positions `before` `[rows]`, moved to `after`, by the engine's
    angles (`semshare.hf.rotary.rotate_rows`, for a position per row)."""
    freq = turn.table.inv_freq.astype(np.float32)
    moved = [
        np.float64(positions.astype(np.float32)[:, None] * freq) for positions in (after, before)
    ]
    phi = torch.from_numpy(moved[0] - moved[1])[:, None, :]
    cos, sin = phi.cos(), phi.sin()
    pairs = len(freq)
    index = torch.arange(pairs)
    if turn.pairing == HALF_SPLIT:
        first, second = turn.begin + index, turn.begin + pairs + index
    else:
        first, second = turn.begin + 2 * index, turn.begin + 2 * index + 1
    wide = rows.double()
    x, y = wide[..., first], wide[..., second]
    out = wide.clone()
    out[..., first] = x * cos - y * sin
    out[..., second] = x * sin + y * cos
    return out.to(rows.dtype)


def _positions(match: Any) -> tuple[np.ndarray, np.ndarray]:
    """Source and target position of every row of a match, `[rows]` each."""
    source, target = [], []
    for segment in match.segments:
        step = np.arange(segment.tokens, dtype=np.int64)
        source.append(segment.source_begin + step)
        target.append(segment.target_begin + step)
    return np.concatenate(source), np.concatenate(target)
