"""The truth of a prompt, computed once: the full prefill's logits and what follows it greedily.

Kept on disk, so that another preset or another broker is compared without another full prefill.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path

import torch

from semshare.eval.prefill import Decoded, FullPrefill, greedy

__all__ = ["Oracle", "oracle_folder"]


def oracle_folder() -> Path:
    """Where truths are kept unless told otherwise; about 6 MB each for SmolLM2."""
    return Path.home() / ".cache" / "semshare" / "oracle"


class Oracle:
    """Truths of one model. `identity` is what tells its weights from others (the fingerprint)."""

    def __init__(self, full: FullPrefill, identity: bytes, folder: Path, tokens: int) -> None:
        self._full = full
        self._identity = identity
        self._folder = folder
        self._tokens = tokens
        self.computed = 0

    def truth(self, ids: Sequence[int]) -> Decoded:
        """Greedy tokens after `ids` and the logits that chose them, `tokens` of each."""
        path = self._folder / f"{self._key(ids)}.pt"
        try:
            kept = torch.load(path, weights_only=True)
            return Decoded(kept["tokens"], kept["logits"])
        except FileNotFoundError:
            pass
        self.computed += 1
        _, logits, cache = self._full.run(list(ids))
        decoded = greedy(self._full.model, logits, cache, self._tokens)
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        torch.save({"tokens": decoded.tokens, "logits": decoded.logits.clone()}, partial)
        partial.replace(path)
        return decoded

    def _key(self, ids: Sequence[int]) -> str:
        digest = hashlib.sha256(b"semshare.oracle.v1\0" + self._identity)
        digest.update(struct.pack("<I", self._tokens))
        digest.update(torch.__version__.encode())
        digest.update(struct.pack(f"<{len(ids)}I", *ids))
        return digest.hexdigest()[:32]
