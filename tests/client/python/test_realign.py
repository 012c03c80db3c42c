"""The broker's realigned rows against the engine's own at the new position, for every variant.

A one-token prompt attends only to itself, so its rows depend on the token and the position alone:
such rows, uploaded as one reference, come back at other positions, where the engine can be asked
for its own. Nothing here knows how to rotate.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from local_broker import to_float
from real_broker import RealBroker, needs_semshared

from semshare import Client
from semshare.frames import WriteFrame
from semshare.hf.layers import LayerDriver
from semshare.hf.spec import ModelDescription, OneTokenRows, describe, one_token_rows
from semshare.v1 import cache_broker_pb2 as pb

pytestmark = needs_semshared

_RANDOM = np.random.default_rng(29)
# Distinct, so that only one place of the reference can be meant. Without 0, which pads: Gemma's
# rows of it are all zeros and have no relative error.
IDS: list[int] = (1 + _RANDOM.permutation(tiny_models.VOCAB - 1)[:120]).tolist()
# What follows them in the reference, and stands between the runs in the target, for a broker reuses
# only what covers a prompt. Its ids are others, its rows are of no interest.
FILLER: list[int] = _RANDOM.choice(
    [token for token in range(tiny_models.VOCAB) if token not in IDS], 8060
).tolist()
# Runs of IDS and where they go.
RUNS = [((40, 80), 1003), ((80, 120), 3990), ((0, 40), 8110)]
ELEMENT = {torch.float32: "<f4", torch.float16: "<f2", torch.bfloat16: "<u2"}


def _target() -> list[int]:
    filler = iter(FILLER)
    ids: list[int] = []
    for (begin, end), place in RUNS:
        ids += itertools.islice(filler, place - len(ids))
        ids += IDS[begin:end]
    # The last tokens of a prompt, its question, are never reused.
    return [*ids, *filler]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealBroker]:
    with RealBroker(tmp_path, f"--device_memory_bytes={1 << 26}") as running:
        yield running


def _store(client: Client, description: ModelDescription, planes: Any) -> None:
    """Stores IDS with `planes[layer][plane]`, tensors `[tokens, heads, width]`, and FILLER."""
    ids = IDS + FILLER
    answer = client.begin_put(pb.BeginPutRequest(model=description.spec.fingerprint, token_ids=ids))
    assert answer.upload_id

    def frames() -> Iterator[WriteFrame]:
        for layer, tensors in enumerate(planes):
            for plane, rows in enumerate(tensors):
                blank = torch.zeros(len(FILLER), *rows.shape[1:], dtype=rows.dtype)
                parts = torch.cat((rows, blank)).split(1000)
                for at, part in zip(range(0, len(ids), 1000), parts, strict=True):
                    data = part.contiguous().view(torch.uint8).numpy().data.cast("B")
                    yield WriteFrame(layer, plane, at, len(part), data)

    assert client.write_kv(answer.upload_id, frames()).visible


def _stack(rows: list[OneTokenRows]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """`[layer][plane]` tensors `[tokens, heads, width]` of one-token prompts."""
    return [
        (torch.stack([each[0] for each in layer]), torch.stack([each[1] for each in layer]))
        for layer in zip(*(each.rows for each in rows), strict=True)
    ]


def _read(client: Client, description: ModelDescription, element: str) -> list[list[np.ndarray]]:
    """`[layer][plane]` rows of IDS at their new places, in the order of RUNS, as the broker sends
    them."""
    request = pb.FindMatchRequest(
        model=description.spec.fingerprint,
        token_ids=_target(),
        mode=pb.MATCH_MODE_EXACT,
        preset=pb.PRESET_FAST,
    )
    answer = client.find_match(request)
    assert answer.WhichOneof("result") == "match", answer
    moves = {
        segment.target_begin + at: segment.source_begin + at
        for segment in answer.match.segments
        for at in range(segment.tokens)
    }
    received: dict[tuple[int, int], bytes] = {}
    for frame in client.read_kv(answer.match.lease_id):
        at = (frame.layer, frame.plane)
        received[at] = received.get(at, b"") + bytes(frame.payload)
    client.release(answer.match.lease_id)
    rows = {target: row for row, target in enumerate(moves)}
    wanted = []
    for (begin, end), place in RUNS:
        for at in range(begin, end):
            target = place + at - begin
            assert moves[target] == at
            wanted.append(rows[target])
    return [
        [
            np.frombuffer(received[layer, plane], dtype=element).reshape(
                len(moves), shape.heads, shape.width
            )[wanted]
            for plane, shape in enumerate(planes)
        ]
        for layer, planes in enumerate(description.shapes)
    ]


@pytest.mark.parametrize("name", list(tiny_models.MODELS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_realigned_rows_are_the_engines(name: str, dtype: torch.dtype, server: RealBroker) -> None:
    driver = LayerDriver(tiny_models.make(name, dtype))
    description = describe(driver, name=name)
    stored = [one_token_rows(driver, token, at) for at, token in enumerate(IDS)]
    with server.client(timeout_s=30.0) as client:
        spec = description.spec
        client.register_model(spec, description.embedding_table(), None, description.probes)
        _store(client, description, _stack(stored))
        found = _read(client, description, ELEMENT[dtype])
    places = [(at, place + at - begin) for (begin, end), place in RUNS for at in range(begin, end)]
    source = _stack([stored[at] for at, _ in places])
    target = _stack([one_token_rows(driver, IDS[at], place) for at, place in places])
    if dtype == torch.float32:
        for layer, plane in _planes(description):
            moved = to_float(found[layer][plane], spec.dtype)
            error = _row_errors(moved, target[layer][plane])
            assert error.max() <= 1e-6, (layer, plane)
        return
    exact = LayerDriver(copy.deepcopy(driver.model).double())
    exact.config._experts_implementation = "eager"  # The grouped kernel has no float64.
    true_source = _stack([one_token_rows(exact, IDS[at], at) for at, _ in places])
    true_target = _stack([one_token_rows(exact, IDS[at], place) for at, place in places])
    for layer, plane in _planes(description):
        moved = to_float(found[layer][plane], spec.dtype)
        error = _row_errors(moved, true_target[layer][plane])
        own = np.hypot(
            _row_errors(source[layer][plane], true_source[layer][plane]),
            _row_errors(target[layer][plane], true_target[layer][plane]),
        )
        assert (error <= 1.6 * own).all(), (layer, plane)


def _planes(description: ModelDescription) -> Iterator[tuple[int, int]]:
    for layer, planes in enumerate(description.shapes):
        for plane in range(len(planes)):
            yield layer, plane


def _row_errors(found: Any, want: torch.Tensor) -> np.ndarray:
    """Relative error of every row `[heads, width]`."""
    exact = want.double().numpy()
    error = np.linalg.norm(torch.as_tensor(found).double().numpy() - exact, axis=(1, 2))
    return error / np.linalg.norm(exact, axis=(1, 2))
