"""SHA-256 over every parameter of a model, remembered between processes.

Hashing hundreds of MB takes seconds, so the digest is kept beside the checkpoint (or under
`~/.cache/semshare/digests`). The key of the memory is itself computed from the weights in memory:
names, shapes, dtypes and the integer sum and alternating sum of every parameter's bits, so weights
that were changed after loading (merged adapters, fine-tuning) get a digest of their own.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch

_LOG = logging.getLogger(__name__)
_SMALL_BYTES = 64 << 20
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def weights_digest(model: Any) -> bytes:
    """32 bytes over every parameter's name, shape, dtype and bytes, in name order."""
    parameters = sorted(model.named_parameters())
    if sum(p.numel() * p.element_size() for _, p in parameters) <= _SMALL_BYTES:
        return _digest(parameters)
    key = _key(parameters)
    places = [Path.home() / ".cache" / "semshare" / "digests"]
    checkpoint = Path(str(getattr(model, "name_or_path", "") or ""))
    if checkpoint.is_dir() and str(checkpoint) != ".":
        places.insert(0, checkpoint)
    for place in places:
        found = _load(place / f"semshare-digest-{key[:16]}.json", key)
        if found is not None:
            return found
    digest = _digest(parameters)
    _save(places, key, digest)
    return digest


def _head(name: str, parameter: torch.Tensor) -> bytes:
    return f"{name}\0{tuple(parameter.shape)}\0{parameter.dtype}\0".encode()


def _bits(parameter: torch.Tensor) -> torch.Tensor:
    flat = parameter.detach().contiguous().flatten()
    return flat.view(_BITS[parameter.element_size()])


def _digest(parameters: list[tuple[str, torch.Tensor]]) -> bytes:
    digest = hashlib.sha256()
    for name, parameter in parameters:
        digest.update(_head(name, parameter))
        digest.update(_bits(parameter).cpu().numpy().data)
    return digest.digest()


def _key(parameters: list[tuple[str, torch.Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, parameter in parameters:
        bits = _bits(parameter)
        digest.update(_head(name, parameter))
        digest.update(f"{int(bits.sum())},{int(bits[::2].sum())};".encode())
    return digest.hexdigest()


def _load(path: Path, key: str) -> bytes | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["key"] == key:
            return bytes.fromhex(content["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def _save(places: list[Path], key: str, digest: bytes) -> None:
    content = json.dumps({"key": key, "sha256": digest.hex()})
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            path = place / f"semshare-digest-{key[:16]}.json"
            partial = path.with_suffix(".partial")
            partial.write_text(content, encoding="utf-8")
            partial.replace(path)
            return
        except OSError as error:
            _LOG.info("cannot keep the weights digest in %s: %s", place, error)
