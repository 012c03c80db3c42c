"""Full-length KV of one prompt, as a Transformers cache.

The stock caches append, and those of sliding layers forget. This one has a row for every token of
the prompt at every layer; `update()` scatters the rows that a forward pass computed and returns
the whole. Rows are kept as `[token][head][width]`, the order in which they travel, so that
receiving is a plain copy; attention sees the transposed view.

Planes: 0 is what the engine calls keys, 1 what it calls values (for MLA: the latent and the
rotated key part, in the engine's order).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from semshare.cuda_ipc import CudaTensorRegion
from semshare.hf.errors import NotSupportedError
from semshare.hf.pool import KvPool
from semshare.shm import SharedBuffer, kv_view, plane_views
from semshare.v1 import cache_broker_pb2 as pb

_ALIGN = 64


@dataclass(frozen=True, slots=True)
class PlaneShape:
    """Heads and elements per head of one plane of one layer."""

    heads: int
    width: int


LayerShapes = list[tuple[PlaneShape, PlaneShape]]


class KvCache(Cache):
    """KV of `tokens` tokens at every layer. Not thread-safe, but for one other thread filling
    layers that `wait_layer` has not let through yet.

    `planes[layer][plane]` is `[tokens, heads, width]`, all in one storage; `buffer` is what they
    lie in where a broker of this host can reach it, else None. `rows` tells `update()` which tokens
    the running forward computes: a sorted index tensor, or None for all of them in order. With
    `read_only` set, `update()` writes nothing. `token_layers` counts computed (token, layer) pairs.
    """

    def __init__(
        self,
        shapes: LayerShapes,
        tokens: int,
        dtype: torch.dtype,
        device: torch.device,
        pool: KvPool | None = None,
    ) -> None:
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self.tokens = tokens
        self.device = device
        self.buffer: SharedBuffer | CudaTensorRegion | None
        self.planes, self.buffer = _allocate(shapes, tokens, dtype, device, pool)
        # Of layers that lie alike; else 0.
        self._layer_stride = 0
        if len(shapes) > 1 and all(planes == shapes[0] for planes in shapes):
            self._layer_stride = self.planes[1][0].data_ptr() - self.planes[0][0].data_ptr()
        self.rows: torch.Tensor | None = None
        self.read_only = False
        self.token_layers = 0
        self.wait_layer: Callable[[int], None] | None = None
        self.watch: Callable[[int, torch.Tensor, torch.Tensor], None] | None = None

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes `[1, heads, n, width]` rows, returns `[1, heads, tokens, width]`."""
        self.token_layers += key_states.shape[-2]
        if self.wait_layer is not None:
            self.wait_layer(layer_idx)
        if self.watch is not None:
            self.watch(layer_idx, key_states, value_states)
        keys, values = self.planes[layer_idx]
        if self.rows is None:
            keys.copy_(key_states[0].transpose(0, 1))
            values.copy_(value_states[0].transpose(0, 1))
            return key_states, value_states
        if not self.read_only:
            keys.index_copy_(0, self.rows, key_states[0].transpose(0, 1))
            values.index_copy_(0, self.rows, value_states[0].transpose(0, 1))
        return keys.transpose(0, 1).unsqueeze(0), values.transpose(0, 1).unsqueeze(0)

    # What mask building and position counting in Transformers ask for. A forward over this cache
    # always starts at position 0 or brings its own positions and masks.

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return query_length, 0

    @property
    def is_sliding(self) -> list[bool]:
        return [False] * len(self.planes)

    def view(self, handle: bytes) -> pb.KvView:
        """Where the planes lie in `buffer`, which the broker knows as `handle`."""
        assert self.buffer is not None
        stride = self._layer_stride
        layers = self.planes[:1] if stride > 0 else self.planes
        views = plane_views((plane for planes in layers for plane in planes), self.buffer)
        return kv_view(handle, views, layer_stride=stride)

    def copy_rows_from(self, other: KvCache | PromptCache, count: int) -> None:
        """Takes the first `count` rows of another cache of the same model."""
        for layer, planes in enumerate(self.planes):
            for plane, rows in enumerate(planes):
                rows[:count].copy_(plane_rows(other, layer, plane)[:count])


class PromptCache(DynamicCache):
    """The model's own kind of cache over a prompt's rows, and what is known of them.

    `exact` tells whether every row is what the engine itself computes for `ids`; decoding keeps
    it. `ids` are the prompt's; tokens decoded later are the caller's to know.
    """

    def __init__(self, source: KvCache, config: Any, *, ids: tuple[int, ...], exact: bool) -> None:
        super().__init__(config=config)
        self.ids = ids
        self.exact = exact
        # Sliding layers keep only their window; the full rows stay reachable for `store`.
        self.source = source
        for index, planes in enumerate(source.planes):
            keys, values = (plane.transpose(0, 1).unsqueeze(0) for plane in planes)
            layer = self.layers[index]
            layer.lazy_initialization(keys, values)
            window = getattr(layer, "sliding_window", None)
            if window is not None:
                keys, values = keys[:, :, -window + 1 :], values[:, :, -window + 1 :]
                layer.cumulative_length = source.tokens
            layer.keys, layer.values = keys, values


def plane_rows(cache: KvCache | PromptCache, layer: int, plane: int) -> torch.Tensor:
    """`[tokens, heads, width]` rows of one plane, decoded tokens included.

    Raises `NotSupportedError` where a sliding layer has dropped decoded rows' predecessors.
    """
    if isinstance(cache, KvCache):
        return cache.planes[layer][plane]
    own = cache.layers[layer]
    if cache.get_seq_length(layer) == cache.source.tokens:
        return cache.source.planes[layer][plane]
    if getattr(own, "sliding_window", None) is not None:
        raise NotSupportedError(f"layer {layer} is sliding and has dropped rows while decoding")
    tensor: torch.Tensor = own.keys if plane == 0 else own.values
    return tensor[0].transpose(0, 1)


def _allocate(
    shapes: LayerShapes,
    tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    pool: KvPool | None,
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], SharedBuffer | None]:
    sizes = [
        [tokens * shape.heads * shape.width * dtype.itemsize for shape in planes]
        for planes in shapes
    ]
    total = sum(-(-size // _ALIGN) * _ALIGN for planes in sizes for size in planes)
    buffer = None
    if pool is not None and device.type == "cpu":
        memory = pool.take(total)
        slab, buffer = memory.tensor, memory.buffer
    else:
        slab = torch.empty(total, dtype=torch.uint8, device=device)
    out: list[tuple[torch.Tensor, torch.Tensor]] = []
    offset = 0
    for planes, plane_sizes in zip(shapes, sizes, strict=True):
        tensors = []
        for shape, size in zip(planes, plane_sizes, strict=True):
            rows = slab[offset : offset + size].view(dtype)
            tensors.append(rows.view(tokens, shape.heads, shape.width))
            offset += -(-size // _ALIGN) * _ALIGN
        out.append((tensors[0], tensors[1]))
    return out, buffer
