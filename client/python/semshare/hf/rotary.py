"""The rotary position embeddings of a model, as the model itself holds them.

Frequencies are taken from the engine's buffers, never from theta, so that every scaling (linear,
Llama-3, YaRN) is data. Which elements of a cached row are rotated, and how they are paired, is not
read from the architecture's name: one-token prompts decide (method B.3; a one-token prompt attends
only to itself, so its rows depend on the token and the position alone).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from semshare.hf.errors import NotSupportedError

HALF_SPLIT, INTERLEAVED = 1, 2
"""Values of `RotaryPairing`."""

_LENGTH_DEPENDENT = {"dynamic": "dynamic NTK", "longrope": "LongRoPE"}


@dataclass(frozen=True)
class RotaryTable:
    """Frequencies of one rotary module. `inv_freq` is `[pairs]` float64, in radians per
    position; `layer_type` is the type of layer it serves, or empty for all."""

    inv_freq: np.ndarray
    magnitude: float
    layer_type: str = ""


@dataclass(frozen=True)
class RotaryRange:
    """Elements `[begin, begin + 2 * pairs)` of a row rotate by `table`, paired by `pairing`."""

    table: RotaryTable
    begin: int
    pairing: int


def rotary_tables(model: nn.Module) -> list[RotaryTable]:
    """Every table of the model's decoder.

    Raises `NotSupportedError` for frequencies that depend on the sequence's length, and for models
    without rotary embeddings (ALiBi, learned positions).
    """
    tables: list[RotaryTable] = []
    for module in model.modules():
        _refuse_length_dependent(module)
        tables.extend(_module_tables(module))
    unique: list[RotaryTable] = []
    for table in tables:
        if not any(_same(table, other) for other in unique):
            unique.append(table)
    if not unique:
        raise NotSupportedError("no rotary position embedding (ALiBi or learned positions?)")
    return unique


def _refuse_length_dependent(module: nn.Module) -> None:
    kinds = getattr(module, "rope_type", None)
    if kinds is None:
        return
    for kind in kinds.values() if isinstance(kinds, dict) else [kinds]:
        for name, readable in _LENGTH_DEPENDENT.items():
            if name in str(kind):
                raise NotSupportedError(
                    f"{readable} rotary embedding: its frequencies depend on the length"
                )


def _module_tables(module: nn.Module) -> list[RotaryTable]:
    tables = []
    for name, buffer in module.named_buffers(recurse=False):
        if name == "embed_positions" and buffer.ndim == 2:
            tables.append(_from_sinusoids(buffer))
        if not name.endswith("inv_freq") or "original" in name or buffer.ndim != 1:
            continue
        prefix = name.removesuffix("inv_freq")
        magnitude = getattr(module, prefix + "attention_scaling", 1.0)
        inv_freq = buffer.detach().float().cpu().numpy().astype(np.float64)
        tables.append(RotaryTable(inv_freq, float(magnitude), prefix.removesuffix("_")))
    return tables


def _from_sinusoids(buffer: torch.Tensor) -> RotaryTable:
    """GPT-J keeps sines and cosines `[positions, sin | cos]` instead of frequencies."""
    width = buffer.shape[1]
    inv_freq = 1.0 / (10000 ** (torch.arange(0, width, 2, dtype=torch.int64) / width))
    positions = torch.arange(min(256, buffer.shape[0]), dtype=torch.int64).float()
    angles = positions[:, None] * inv_freq
    expected = torch.cat((torch.sin(angles), torch.cos(angles)), dim=1)
    found = buffer[: len(positions)].detach().cpu().float()
    if not torch.allclose(found, expected.to(buffer.dtype).float(), atol=1e-6, rtol=0):
        raise NotSupportedError("sinusoidal position table that is not GPT-J's")
    return RotaryTable(inv_freq.double().numpy(), 1.0)


def _same(one: RotaryTable, other: RotaryTable) -> bool:
    return (
        one.magnitude == other.magnitude
        and one.layer_type == other.layer_type
        and np.array_equal(one.inv_freq, other.inv_freq)
    )


def rotate_rows(rows: np.ndarray, turn: RotaryRange, source: int, target: int) -> np.ndarray:
    """`[..., width]` float64 rows moved from one position to another, by the engine's angles.

    The engine multiplies position and frequency in float32 (method B.3), so
    `phi = fl32(target * f) - fl32(source * f)`.
    """
    freq = turn.table.inv_freq.astype(np.float32)
    phi = np.float64(np.float32(target) * freq) - np.float64(np.float32(source) * freq)
    cos, sin = np.cos(phi), np.sin(phi)
    first, second = _pair_indices(turn)
    out = rows.copy()
    x, y = rows[..., first], rows[..., second]
    out[..., first] = x * cos - y * sin
    out[..., second] = x * sin + y * cos
    return out


def _pair_indices(turn: RotaryRange) -> tuple[np.ndarray, np.ndarray]:
    pairs = len(turn.table.inv_freq)
    index = np.arange(pairs)
    if turn.pairing == HALF_SPLIT:
        return turn.begin + index, turn.begin + pairs + index
    return turn.begin + 2 * index, turn.begin + 2 * index + 1


def find_rotation(
    at_source: np.ndarray,
    at_target: np.ndarray,
    positions: tuple[int, int],
    tables: list[RotaryTable],
    tolerance: float,
) -> RotaryRange | None:
    """The range that turns one set of rows into the other; None if they are equal as they are.

    `at_source` and `at_target` are `[tokens, heads, width]` float64 rows of the same one-token
    prompts at two positions. Raises `NotSupportedError` if no known rotation explains them.
    """
    scale = np.linalg.norm(at_target)
    if np.linalg.norm(at_source - at_target) <= tolerance * scale:
        return None
    width = at_source.shape[-1]
    best: tuple[float, RotaryRange | None] = (np.inf, None)
    for table in tables:
        turned = 2 * len(table.inv_freq)
        for begin in sorted({0, width - turned}):
            if begin < 0:
                continue
            for pairing in (HALF_SPLIT, INTERLEAVED):
                turn = RotaryRange(table, begin, pairing)
                moved = rotate_rows(at_source, turn, *positions)
                error = float(np.linalg.norm(moved - at_target) / scale)
                if error < best[0]:
                    best = (error, turn)
    if best[0] > tolerance:
        raise NotSupportedError(
            f"no rotation explains how keys depend on the position (best error {best[0]:.1e})"
        )
    return best[1]


def layer_tables(tables: list[RotaryTable], layer_type: Any) -> list[RotaryTable]:
    """The tables that can serve a layer of this type."""
    named = [table for table in tables if table.layer_type and table.layer_type == layer_type]
    return named or [table for table in tables if not table.layer_type] or tables
