"""What the adapter reads of a model's rotary embedding, for every variant: the descriptor, with the
formula of `local_broker`, gives the engine's own rows. test_realign.py asks the server the same."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tiny_models
import torch
from local_broker import plane_specs, probe_errors, realign, to_float

from semshare.hf import NotSupportedError
from semshare.hf.layers import LayerDriver
from semshare.hf.spec import describe, fingerprint, one_token_rows
from semshare.v1 import model_pb2

PLACES = [(0, 4001), (17, 4001), (4001, 17), (8190, 0)]
TOKENS = [3, 150]


def _stored(rows: torch.Tensor) -> np.ndarray:
    """`[1, heads, width]` elements as the broker keeps them."""
    if rows.dtype == torch.bfloat16:
        return rows.view(torch.int16).numpy().view(np.uint16)[None]
    return rows.numpy()[None]


@pytest.mark.parametrize("name", list(tiny_models.MODELS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_realigned_rows_equal_the_engines(name: str, dtype: torch.dtype) -> None:
    model = tiny_models.make(name, dtype)
    driver = LayerDriver(model)
    spec = describe(driver, name=name).spec
    exact = LayerDriver(copy.deepcopy(model).double())
    exact.config._experts_implementation = "eager"  # The grouped kernel has no float64.
    worst = 0.0
    for token in TOKENS:
        places = {place for pair in PLACES for place in pair}
        engine = {place: one_token_rows(driver, token, place) for place in places}
        truth = {place: one_token_rows(exact, token, place) for place in places}
        for source, target in PLACES:
            at, true = (engine[source], engine[target]), (truth[source], truth[target])
            for layer, planes in enumerate(plane_specs(spec)):
                for index, plane in enumerate(planes):
                    moved = _stored(at[0].rows[layer][index])
                    if plane.HasField("rotary"):
                        where = np.array([source]), np.array([target])
                        moved = realign(moved, plane.rotary, *where, spec.dtype)
                    found = to_float(moved[0], spec.dtype).astype(np.float64)
                    if dtype == torch.float32:
                        want = at[1].plane(layer, index)
                        worst = max(worst, _error(found, want) / 1e-6)
                        continue
                    own = [
                        _error(now.plane(layer, index), fine.plane(layer, index))
                        for now, fine in zip(at, true, strict=True)
                    ]
                    limit = 1.6 * np.hypot(*own)
                    worst = max(worst, _error(found, true[1].plane(layer, index)) / limit)
    assert worst <= 1.0


def _error(found: np.ndarray, want: np.ndarray) -> float:
    return float(np.linalg.norm(found - want) / np.linalg.norm(want))


@pytest.mark.parametrize("name", list(tiny_models.MODELS))
def test_probe_agrees_with_descriptor(name: str) -> None:
    description = describe(LayerDriver(tiny_models.make(name)), name=name)
    assert len(description.probes) == 12
    assert max(probe_errors(description.spec, description.probes)) <= 2e-6
    assert any(plane.HasField("rotary") for p in plane_specs(description.spec) for plane in p)


def test_descriptors_say_what_the_architecture_does() -> None:
    def planes(name: str, layer: int = 0) -> list[model_pb2.PlaneSpec]:
        return plane_specs(describe(LayerDriver(tiny_models.make(name)), name=name).spec)[layer]

    keys, values = planes("neox_partial")
    assert (keys.width, keys.rotary.width, keys.rotary.pairing) == (16, 4, 1)
    assert not values.HasField("rotary")
    assert planes("gptj")[0].rotary.pairing == model_pb2.ROTARY_PAIRING_INTERLEAVED
    latent, rope = planes("deepseek3_mla")
    assert (latent.name, latent.width, latent.HasField("rotary")) == ("latent", 24, False)
    assert (rope.name, rope.heads, rope.width) == ("rope_key", 1, 8)
    assert rope.rotary.pairing == model_pb2.ROTARY_PAIRING_HALF_SPLIT
    assert planes("deepseek2_mla")[1].rotary.pairing == model_pb2.ROTARY_PAIRING_INTERLEAVED
    assert planes("yarn")[0].rotary.magnitude > 1
    local, whole = planes("gemma3", 0)[0], planes("gemma3", 2)[0]
    assert local.rotary.inv_freq[1] > whole.rotary.inv_freq[1]


def test_fingerprint_covers_weights_and_everything_else() -> None:
    spec = describe(LayerDriver(tiny_models.make("llama")), name="m").spec
    same = describe(LayerDriver(tiny_models.make("llama")), name="m").spec
    other = describe(LayerDriver(tiny_models.make("llama", seed=8)), name="m").spec
    assert spec.fingerprint == same.fingerprint == fingerprint(spec)
    assert spec.fingerprint != other.fingerprint
    assert spec.weights_digest != other.weights_digest
    changed = model_pb2.ModelSpec()
    changed.CopyFrom(spec)
    changed.adapter = "lora"
    assert fingerprint(changed) != spec.fingerprint


@pytest.mark.parametrize(
    ("rope", "says"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "dynamic NTK"),
        (
            {
                "rope_type": "longrope",
                "short_factor": [1.0] * 8,
                "long_factor": [2.0] * 8,
                "factor": 4.0,
                "original_max_position_embeddings": 2048,
            },
            "LongRoPE",
        ),
    ],
)
def test_length_dependent_frequencies_are_refused(rope: dict[str, object], says: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(NotSupportedError, match=says):
        describe(LayerDriver(tiny_models._llama(**rope).eval()), name="m")


def test_models_without_rotary_or_with_recurrence_are_refused() -> None:
    from transformers import (
        BloomConfig,
        BloomForCausalLM,
        GPT2Config,
        GPT2LMHeadModel,
        MambaConfig,
        MambaForCausalLM,
        T5Config,
        T5ForConditionalGeneration,
    )

    models = [
        BloomForCausalLM(BloomConfig(vocab_size=99, hidden_size=32, n_layer=2, n_head=2)),
        GPT2LMHeadModel(GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=2)),
        MambaForCausalLM(MambaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2)),
        T5ForConditionalGeneration(
            T5Config(vocab_size=99, d_model=32, d_ff=32, num_layers=2, num_heads=2, d_kv=16)
        ),
    ]
    for model in models:
        with pytest.raises(NotSupportedError):
            describe(LayerDriver(model.eval()), name="m")
