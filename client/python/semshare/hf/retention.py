"""Keeping a part of a prompt's KV: a cache with other rows at every layer.

Decoding over it is the model's own: a row was rotated to its position when it was computed, and one
query sees all keys of its layer, so nothing needs to know which tokens are gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from semshare.hf.cache import KvCache
from semshare.hf.errors import NotSupportedError

__all__ = ["RetainedCache"]


class _RetainedLayer(DynamicLayer):
    """Rows of some tokens; `evicted` others count in the sequence's length alone."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, evicted: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._evicted = evicted

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if key_states.shape[-2] != 1:
            raise NotSupportedError(
                "a cache with evicted rows takes one token at a time: its layers hold other "
                "tokens, and the model makes one mask for all of them"
            )
        return super().update(key_states, value_states, *args, **kwargs)

    def get_seq_length(self) -> int:
        return super().get_seq_length() + self._evicted

    def crop(self, tokens_to_remove: int) -> None:
        raise NotSupportedError("a cache with evicted rows cannot be cut")


class RetainedCache(DynamicCache):
    """The model's own kind of cache over some rows of a prompt, others at every layer.

    Rows are copied: what `source` holds can go. Never exact, and never a reference. Decoding takes
    one token at a time; more raise `NotSupportedError`. Not thread-safe.
    """

    exact = False

    def __init__(
        self, source: KvCache, kept: Sequence[torch.Tensor], *, ids: tuple[int, ...]
    ) -> None:
        """`kept[layer]`: the sorted indices of the tokens that stay. For models whose layers all
        have full attention."""
        super().__init__()
        self.ids = ids
        for planes, rows in zip(source.planes, kept, strict=True):
            keys, values = (
                plane.index_select(0, rows).transpose(0, 1).unsqueeze(0) for plane in planes
            )
            self.layers.append(_RetainedLayer(keys, values, source.tokens - len(rows)))
