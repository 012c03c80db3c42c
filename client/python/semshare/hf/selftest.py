"""Proof, at construction, that a model's tokens can be computed selectively."""

from __future__ import annotations

import torch

from semshare.hf.cache import KvCache, LayerShapes
from semshare.hf.errors import NotSupportedError
from semshare.hf.layers import LayerDriver

_TOKENS = 24
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def check_selective(driver: LayerDriver, shapes: LayerShapes) -> None:
    """Raises `NotSupportedError` unless computing some tokens over the exact rows of the others
    gives the logits of the model's own forward."""
    vocab = driver.model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocab, (_TOKENS,), generator=generator).to(driver.device)
    cache = KvCache(shapes, _TOKENS, driver.dtype, driver.device)
    expected = driver.full(ids, cache)
    every = torch.arange(_TOKENS, device=driver.device)
    for rows, name in ((every, "all"), (every[2::3], "some")):
        try:
            found = driver.run(ids, rows, cache)
        except NotSupportedError:
            raise
        except Exception as error:
            raise NotSupportedError(
                f"{type(driver.model).__name__} cannot compute selected tokens: {error}"
            ) from error
        scale = float(expected.abs().max())
        assert found is not None
        worst = float((found - expected).abs().max())
        if not worst <= _TOLERANCE[driver.dtype] * scale:
            raise NotSupportedError(
                f"{type(driver.model).__name__}: computing {name} tokens over the others' rows "
                f"is off by {worst:.2g} of {scale:.2g}"
            )
