"""A model that is only a shape: KV rows of the right size, right under rotation, without weights.

The benchmarks of the data plane need a broker that has registered a model of a given shape, and
rows whose realigned values are known. Row `t` of K is a fixed row turned to position `t`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from semshare.v1 import model_pb2

EMBEDDING = 64
POSITIONS = 8192
_THETA = 1e5


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounds float32 to nearest even, as uint16."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """uint16 to float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True)
class Shape:
    """A decoder's KV: `layers` of K and V, `[heads, width]` a row, bfloat16."""

    name: str
    layers: int
    heads: int
    width: int
    tokens: int
    vocab: int = 512

    @property
    def row_bytes(self) -> int:
        return self.heads * self.width * 2

    def kv_bytes(self, tokens: int) -> int:
        """Of all layers and both planes."""
        return self.layers * 2 * tokens * self.row_bytes


SHAPES = {
    shape.name: shape
    for shape in (Shape("smollm2", 30, 3, 64, 5000), Shape("llama-8b", 32, 8, 128, 4096))
}


class SyntheticModel:
    """Rows and registration of one shape."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        random = np.random.default_rng(11)
        self._rows = random.standard_normal((2, shape.heads, shape.width))
        half = shape.width // 2
        self._inv_freq = np.float32(_THETA ** -(np.arange(half) / half)).astype(np.float64)
        self.table = random.standard_normal((shape.vocab, EMBEDDING)).astype(np.float32)
        self.spec = self._make_spec()

    def row(self, plane: int, position: int) -> np.ndarray:
        """`[heads, width]` float64 of any token at any layer."""
        base = self._rows[plane]
        if plane == 1:
            return base
        angle = np.float32(np.float32(position) * self._inv_freq.astype(np.float32))
        cosine, sine = np.cos(angle.astype(np.float64)), np.sin(angle.astype(np.float64))
        x, y = np.split(base, 2, axis=1)
        return np.concatenate([x * cosine - y * sine, x * sine + y * cosine], axis=1)

    def rows(self, plane: int, tokens: int) -> np.ndarray:
        """`[tokens, heads, width]` bfloat16 as uint16."""
        return to_bfloat16(np.stack([self.row(plane, t) for t in range(tokens)]))

    def probes(self) -> Iterator[model_pb2.ProbeSample]:
        for token in range(4):
            for position in (0, 1, POSITIONS - 1):
                layer = [to_bfloat16(self.row(plane, position)).tobytes() for plane in (0, 1)]
                yield model_pb2.ProbeSample(
                    token_id=token,
                    position=position,
                    rows=b"".join(layer) * self.shape.layers,
                )

    def _make_spec(self) -> model_pb2.ModelSpec:
        shape = self.shape
        rotary = model_pb2.RotarySpec(
            width=shape.width,
            pairing=model_pb2.ROTARY_PAIRING_HALF_SPLIT,
            angle_precision=model_pb2.ANGLE_PRECISION_FLOAT32,
            inv_freq=self._inv_freq.tolist(),
            magnitude=1.0,
        )
        planes = [
            model_pb2.PlaneSpec(name="k", heads=shape.heads, width=shape.width, rotary=rotary),
            model_pb2.PlaneSpec(name="v", heads=shape.heads, width=shape.width),
        ]
        spec = model_pb2.ModelSpec(
            name=f"synthetic {shape.name}",
            layers=shape.layers,
            dtype=model_pb2.DTYPE_BFLOAT16,
            layer_groups=[model_pb2.LayerGroup(layers=range(shape.layers), planes=planes)],
            vocab_size=shape.vocab,
            embedding_width=EMBEDDING,
            max_positions=POSITIONS,
            weights_digest=hashlib.sha256(shape.name.encode()).digest(),
            embedding_digest=hashlib.sha256(self.table.tobytes()).digest(),
            weight_quantization="none",
            attention_variant="full",
            signature_version=1,
        )
        serialised = spec.SerializeToString(deterministic=True)
        spec.fingerprint = hashlib.sha256(b"semshare.ModelSpec.v1\0" + serialised).digest()
        return spec
