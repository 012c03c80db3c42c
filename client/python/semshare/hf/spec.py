"""From a Transformers model to the broker's `ModelSpec`, embedding table and probe."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from semshare.hf.cache import KvCache, LayerShapes, PlaneShape
from semshare.hf.digest import weights_digest
from semshare.hf.errors import NotSupportedError
from semshare.hf.layers import LayerDriver
from semshare.hf.rotary import RotaryRange, find_rotation, layer_tables, rotary_tables
from semshare.v1 import model_pb2

_DTYPES = {
    torch.float32: model_pb2.DTYPE_FLOAT32,
    torch.float16: model_pb2.DTYPE_FLOAT16,
    torch.bfloat16: model_pb2.DTYPE_BFLOAT16,
}
# How far the engine's own rows may be from a rotation of each other: its rounding, far below what
# a wrong pairing or frequency does (of the order of 1).
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_PROBE_TOKENS = 4
_PROJECTION_SEED = 0x73656D7368617265
_SIGNATURE_VERSION = 1
_FINGERPRINT_PREFIX = b"semshare.ModelSpec.v1\0"


@dataclass
class ModelDescription:
    """What registration needs. `rotations[layer][plane]` is None where rows are copied."""

    spec: model_pb2.ModelSpec
    shapes: LayerShapes
    rotations: list[tuple[RotaryRange | None, RotaryRange | None]]
    probes: list[model_pb2.ProbeSample]
    _model: Any

    def embedding_table(self) -> np.ndarray:
        """`[vocab, width]` float32."""
        return _embedding(self._model)


def describe(driver: LayerDriver, *, name: str, adapter: str = "") -> ModelDescription:
    """Reads the model's shapes, rotary tables and weights; runs 12 one-token prompts.

    Raises `NotSupportedError`, naming what stands in the way.
    """
    model = driver.model
    if driver.dtype not in _DTYPES:
        raise NotSupportedError(f"dtype {driver.dtype}")
    if getattr(model, "_is_stateful", False):
        raise NotSupportedError("recurrent state")
    tables = rotary_tables(model)
    positions = int(driver.config.max_position_embeddings)
    samples = _probe(driver, positions)
    shapes = samples[0][2].shapes
    rotations = [_layer_rotations(driver, layer, samples, tables) for layer in range(len(shapes))]
    spec = model_pb2.ModelSpec(
        name=name,
        layers=len(shapes),
        dtype=_DTYPES[driver.dtype],
        layer_groups=_groups(shapes, rotations, bool(getattr(driver.config, "kv_lora_rank", 0))),
        max_positions=positions,
        weights_digest=weights_digest(model),
        weight_quantization=_quantization(model),
        adapter=adapter,
        attention_variant=_variant(driver),
        projection_seed=_PROJECTION_SEED,
        signature_version=_SIGNATURE_VERSION,
    )
    table = _embedding(model)
    spec.vocab_size, spec.embedding_width = table.shape
    spec.embedding_digest = hashlib.sha256(table.reshape(-1).data).digest()
    spec.fingerprint = fingerprint(spec)
    probes = [
        model_pb2.ProbeSample(token_id=token, position=position, rows=rows.wire())
        for token, position, rows in samples
    ]
    return ModelDescription(spec, shapes, rotations, probes, model)


def fingerprint(spec: model_pb2.ModelSpec) -> bytes:
    """SHA-256 over the deterministic serialisation with `fingerprint` cleared (model.proto)."""
    bare = model_pb2.ModelSpec()
    bare.CopyFrom(spec)
    bare.ClearField("fingerprint")
    return hashlib.sha256(_FINGERPRINT_PREFIX + bare.SerializeToString(deterministic=True)).digest()


@dataclass
class OneTokenRows:
    """KV of a one-token prompt: `rows[layer][plane]` is `[heads, width]` in the model's dtype."""

    rows: list[tuple[torch.Tensor, torch.Tensor]]

    @property
    def shapes(self) -> LayerShapes:
        first: LayerShapes = []
        for keys, values in self.rows:
            first.append((PlaneShape(*keys.shape), PlaneShape(*values.shape)))
        return first

    def plane(self, layer: int, plane: int) -> np.ndarray:
        """`[heads, width]` float64."""
        return self.rows[layer][plane].double().cpu().numpy()

    def wire(self) -> bytes:
        """`[layer][plane][head][width]` in the model's dtype, little endian."""
        return b"".join(
            plane.contiguous().cpu().view(torch.uint8).numpy().tobytes()
            for planes in self.rows
            for plane in planes
        )


class _Catcher(KvCache):
    """Takes the rows of a one-token prompt whose shapes are not known yet."""

    def __init__(self, layers: int) -> None:
        super().__init__([], 1, torch.float32, torch.device("cpu"))
        self.found: list[Any] = [None] * layers

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.found[layer_idx] = (key_states[0, :, 0].clone(), value_states[0, :, 0].clone())
        return key_states, value_states

    @property
    def is_sliding(self) -> list[bool]:
        return [False] * len(self.found)


def one_token_rows(driver: LayerDriver, token: int, position: int) -> OneTokenRows:
    """KV that the engine computes for the prompt `[token]` told to be at `position`."""
    cache = _Catcher(len(driver.layers))
    with torch.inference_mode():
        driver.model(
            input_ids=torch.tensor([[token]], device=driver.device),
            position_ids=torch.tensor([[position]], device=driver.device),
            past_key_values=cache,
            use_cache=True,
        )
    if any(rows is None for rows in cache.found):
        raise NotSupportedError(f"layer {cache.found.index(None)} does not use the KV cache")
    return OneTokenRows(cache.found)


def _probe(driver: LayerDriver, positions: int) -> list[tuple[int, int, OneTokenRows]]:
    vocab = driver.model.get_input_embeddings().weight.shape[0]
    tokens = [(index * vocab) // _PROBE_TOKENS + vocab // 9 for index in range(_PROBE_TOKENS)]
    return [
        (token, position, one_token_rows(driver, token, position))
        for token in tokens
        for position in (0, 1, positions - 1)
    ]


def _layer_rotations(
    driver: LayerDriver, layer: int, samples: list[tuple[int, int, OneTokenRows]], tables: list[Any]
) -> tuple[RotaryRange | None, RotaryRange | None]:
    types = getattr(driver.config, "layer_types", None)
    usable = layer_tables(tables, types[layer] if types else None)
    last = max(position for _, position, _ in samples)
    found: list[RotaryRange | None] = []
    for plane in (0, 1):
        at = {
            where: np.stack([r.plane(layer, plane) for _, p, r in samples if p == where])
            for where in (0, 1, last)
        }
        # Position 1 identifies every frequency; the largest position proves the table's accuracy.
        turn = find_rotation(at[0], at[1], (0, 1), usable, _TOLERANCE[driver.dtype])
        if turn is not None:
            again = [turn.table]
            turn = find_rotation(at[1], at[last], (1, last), again, _TOLERANCE[driver.dtype])
        found.append(turn)
    return found[0], found[1]


def _groups(shapes: LayerShapes, rotations: list[Any], latent: bool) -> list[model_pb2.LayerGroup]:
    groups: dict[bytes, model_pb2.LayerGroup] = {}
    for layer, (planes, turns) in enumerate(zip(shapes, rotations, strict=True)):
        group = model_pb2.LayerGroup()
        for index, (shape, turn) in enumerate(zip(planes, turns, strict=True)):
            name = ("latent", "rope_key")[index] if latent else "kv"[index]
            plane = group.planes.add(name=name, heads=shape.heads, width=shape.width)
            if turn is not None:
                plane.rotary.begin = turn.begin
                plane.rotary.width = 2 * len(turn.table.inv_freq)
                plane.rotary.pairing = turn.pairing
                plane.rotary.angle_precision = model_pb2.ANGLE_PRECISION_FLOAT32
                plane.rotary.inv_freq.extend(turn.table.inv_freq.tolist())
                plane.rotary.magnitude = turn.table.magnitude
        found = groups.setdefault(group.SerializeToString(deterministic=True), group)
        found.layers.append(layer)
    return list(groups.values())


def _embedding(model: Any) -> np.ndarray:
    weight = model.get_input_embeddings().weight.detach()
    return np.ascontiguousarray(weight.float().cpu().numpy(), dtype="<f4")


def _quantization(model: Any) -> str:
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is None or not getattr(model, "is_quantized", False):
        return "none"
    return str(quantizer.quantization_config.quant_method)[:64]


def _variant(driver: LayerDriver) -> str:
    kinds = [str(kind) for kind in driver.kinds]
    if len(set(kinds)) == 1:
        return kinds[0]
    digest = hashlib.sha256(",".join(kinds).encode()).hexdigest()[:16]
    return f"{'+'.join(sorted(set(kinds)))}/{digest}"[:256]
