"""Which keys a query may attend to, by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers.cache_utils import get_layer_types_and_kwargs

from semshare.hf.errors import NotSupportedError

FULL, SLIDING, CHUNKED = "full", "sliding", "chunked"

_NAMES = {
    "full_attention": FULL,
    "sliding_attention": SLIDING,
    "chunked_attention": CHUNKED,
}


@dataclass(frozen=True, slots=True)
class AttentionKind:
    """`full`: keys <= query. `sliding`: also query - key < window. `chunked`: also the same chunk
    of `window` tokens."""

    name: str
    window: int = 0

    def __str__(self) -> str:
        return self.name if not self.window else f"{self.name}:{self.window}"


def attention_kinds(config: Any) -> list[AttentionKind]:
    """The kind of every decoder layer, from the config.

    Raises `NotSupportedError` for layers that are not causal attention over a KV cache.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise NotSupportedError("encoder-decoder models have cross attention")
    text = config.get_text_config(decoder=True)
    if getattr(text, "use_bidirectional_attention", False):
        raise NotSupportedError("bidirectional attention: rows depend on later tokens")
    types, options = get_layer_types_and_kwargs(text)
    kinds = []
    for layer, (name, extra) in enumerate(zip(types, options, strict=True)):
        if name not in _NAMES:
            raise NotSupportedError(f"layer {layer} is of type '{name}', not causal attention")
        kinds.append(AttentionKind(_NAMES[name], int(extra.get("sliding_window") or 0)))
    return kinds
