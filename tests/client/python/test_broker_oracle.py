"""What a broker answers, against the method written down once more in `local_broker`.

With SEMSHARE_SEMSHARED set this checks the server's alignment and realignment; without it, the
oracle's own plumbing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from local_broker import from_float, plane_specs, realign, to_float

from semshare.hf import CachedModel
from semshare.hf.cache import plane_rows
from semshare.v1 import cache_broker_pb2 as pb
from semshare.v1 import model_pb2

GENERATOR = torch.Generator().manual_seed(23)
DOCUMENT = torch.randint(0, tiny_models.VOCAB, (500,), generator=GENERATOR).tolist()
HEADER = torch.randint(0, tiny_models.VOCAB, (70,), generator=GENERATOR).tolist()
TARGET = HEADER + DOCUMENT[250:480] + HEADER[:9] + DOCUMENT[:240] + HEADER[9:30]

# One rounding of the stored type after float32 arithmetic, relative to a row.
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
ELEMENT = {torch.float32: "<f4", torch.float16: "<f2", torch.bfloat16: "<u2"}


def _find(cached: CachedModel, broker: Any, mode: int) -> Any:
    request = pb.FindMatchRequest(
        model=cached.fingerprint, token_ids=TARGET, mode=mode, preset=pb.PRESET_FAST
    )
    answer = broker.find_match(request)
    assert answer.WhichOneof("result") == "match", answer
    return answer.match


def _stored(cached: CachedModel, cache: Any, layer: int, plane: int) -> np.ndarray:
    rows = plane_rows(cache, layer, plane).contiguous()
    shape = rows.shape
    raw = rows.view(torch.uint8).numpy().tobytes()
    return np.frombuffer(raw, dtype=ELEMENT[cached.model.dtype]).reshape(shape)


@pytest.mark.parametrize("mode", [pb.MATCH_MODE_EXACT, pb.MATCH_MODE_TOKEN])
def test_segments_name_equal_tokens(mode: int, broker: Any) -> None:
    cached = CachedModel(tiny_models.make("llama"), broker)
    assert cached.store(DOCUMENT).error == ""
    match = _find(cached, broker, mode)
    end = 0
    for segment in match.segments:
        assert segment.target_begin >= end
        end = segment.target_begin + segment.tokens
        source = DOCUMENT[segment.source_begin : segment.source_begin + segment.tokens]
        assert TARGET[segment.target_begin : end] == source
    assert match.matched_tokens == sum(segment.tokens for segment in match.segments)
    assert match.matched_tokens >= 470
    assert match.kind == pb.RESULT_KIND_EDITED
    broker.release(match.lease_id)
    cached.close()


@pytest.mark.parametrize("name", ["llama", "neox_partial", "gptj", "gemma3", "deepseek3_mla"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_the_stored_ones_at_their_new_places(
    name: str, dtype: torch.dtype, broker: Any
) -> None:
    cached = CachedModel(tiny_models.make(name, dtype), broker)
    cache = cached.prefill(DOCUMENT).cache
    assert cached.store(DOCUMENT, cache).error == ""
    match = _find(cached, broker, pb.MATCH_MODE_TOKEN)
    parts = [(s.source_begin, s.target_begin, s.tokens) for s in match.segments]
    source = np.concatenate([np.arange(s, s + n) for s, _, n in parts])
    target = np.concatenate([np.arange(t, t + n) for _, t, n in parts])
    spec = cached.description.spec
    received: dict[tuple[int, int], bytes] = {}
    for frame in broker.read_kv(match.lease_id):
        at = (frame.layer, frame.plane)
        received[at] = received.get(at, b"") + bytes(frame.payload)
    broker.release(match.lease_id)
    for layer, planes in enumerate(plane_specs(spec)):
        for index, plane in enumerate(planes):
            want = _stored(cached, cache, layer, index)[source]
            found = np.frombuffer(received[layer, index], dtype=want.dtype).reshape(want.shape)
            if not plane.HasField("rotary"):
                assert np.array_equal(found, want)
                continue
            want = realign(want, plane.rotary, source, target, spec.dtype)
            error = to_float(found, spec.dtype) - to_float(want, spec.dtype)
            scale = np.linalg.norm(to_float(want, spec.dtype), axis=(1, 2))
            assert (np.linalg.norm(error, axis=(1, 2)) <= TOLERANCE[dtype] * scale).all()
    cached.close()


def test_bfloat16_rounding_is_to_nearest_even() -> None:
    values = torch.randn(1000, generator=GENERATOR)
    values = torch.cat((values, torch.tensor([1.00390625, 1.01171875, -1.00390625, 0.0])))
    want = values.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(from_float(values.numpy(), model_pb2.DTYPE_BFLOAT16), want)
