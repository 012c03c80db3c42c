"""`kill -9` of `semshared` in the middle of a put: what was durable stays, what was not leaves
nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from real_broker import RealBroker, needs_semshared

from semshare import BrokerError, Client
from semshare.frames import WriteFrame
from semshare.hf.layers import LayerDriver
from semshare.hf.spec import ModelDescription, describe
from semshare.v1 import cache_broker_pb2 as pb

pytestmark = needs_semshared

TOKENS = 1000
FRAME_TOKENS = 100
_RANDOM = np.random.default_rng(41)
FIRST, SECOND = _RANDOM.integers(0, tiny_models.VOCAB, (2, TOKENS)).tolist()
QUESTION = _RANDOM.integers(0, tiny_models.VOCAB, 30).tolist()

Planes = list[list[np.ndarray]]


@pytest.fixture(scope="module")
def description() -> ModelDescription:
    return describe(LayerDriver(tiny_models.make("llama")), name="llama")


def _rows(description: ModelDescription, seed: int) -> Planes:
    """Any numbers: the broker keeps what it is given. `[layer][plane]` is `[tokens, heads,
    width]`."""
    random = np.random.default_rng(seed)
    return [
        [
            random.standard_normal((TOKENS, shape.heads, shape.width), dtype=np.float32)
            for shape in planes
        ]
        for planes in description.shapes
    ]


def _frames(planes: Planes, ranges: Any) -> Iterator[WriteFrame]:
    for layer, tensors in enumerate(planes):
        for plane, rows in enumerate(tensors):
            for part in ranges:
                for at in range(part.begin, part.end, FRAME_TOKENS):
                    end = min(part.end, at + FRAME_TOKENS)
                    data = memoryview(rows[at:end].copy()).cast("B")
                    yield WriteFrame(layer, plane, at, end - at, data)


def _begin(client: Client, description: ModelDescription, ids: list[int]) -> Any:
    return client.begin_put(pb.BeginPutRequest(model=description.spec.fingerprint, token_ids=ids))


def _put(client: Client, description: ModelDescription, ids: list[int], planes: Planes) -> None:
    answer = _begin(client, description, ids)
    assert answer.upload_id
    done = client.write_kv(answer.upload_id, _frames(planes, answer.missing))
    assert done.visible
    assert done.durable


def _find(client: Client, description: ModelDescription, ids: list[int]) -> Any:
    """The match of a prompt that begins with `ids`, all of them, at offset 0; None for a miss."""
    request = pb.FindMatchRequest(
        model=description.spec.fingerprint,
        token_ids=ids + QUESTION,
        mode=pb.MATCH_MODE_EXACT_PREFIX,
        preset=pb.PRESET_FAST,
    )
    answer = client.find_match(request)
    return answer.match if answer.WhichOneof("result") == "match" else None


def _expect_rows(client: Client, match: Any, planes: Planes) -> None:
    """Every row as it was uploaded, bit for bit."""
    (segment,) = match.segments
    assert (segment.target_begin, segment.source_begin) == (0, 0)
    assert match.matched_tokens == TOKENS
    received: dict[tuple[int, int], bytes] = {}
    for frame in client.read_kv(match.lease_id):
        at = (frame.layer, frame.plane)
        received[at] = received.get(at, b"") + bytes(frame.payload)
    client.release(match.lease_id)
    for layer, tensors in enumerate(planes):
        for plane, rows in enumerate(tensors):
            assert received[layer, plane] == rows.tobytes(), (layer, plane)


class _Upload:
    """A `WriteKv` on its own thread that stands still after `count` frames.

    With `commit` the last message is the committing one, and the call is then on its way: nobody
    waits for its answer.
    """

    def __init__(
        self, client: Client, upload_id: bytes, frames: list[WriteFrame], count: int, commit: bool
    ) -> None:
        self.paused = threading.Event()
        self.error: BrokerError | None = None
        self._go_on = threading.Event()
        self._frames = frames
        self._count = count
        self._commit = commit
        self._arguments = (client, upload_id)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _messages(self) -> Iterator[WriteFrame]:
        yield from self._frames[: self._count]
        self.paused.set()
        if not self._commit:
            self._go_on.wait()

    def _run(self) -> None:
        client, upload_id = self._arguments
        try:
            client.write_kv(upload_id, self._messages(), timeout_s=60)
        except BrokerError as error:
            self.error = error

    def finish(self) -> None:
        """Called when the process is dead."""
        self._go_on.set()
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()


@pytest.fixture
def server(tmp_path: Path, description: ModelDescription) -> Iterator[RealBroker]:
    """A broker that has the model and, durable, FIRST."""
    with RealBroker(tmp_path) as running:
        with running.client() as client:
            table = description.embedding_table()
            client.register_model(description.spec, table, None, description.probes)
            _put(client, description, FIRST, _rows(description, 1))
        yield running


# Frames of one upload: layers x planes x TOKENS / FRAME_TOKENS.
ALL = 3 * 2 * TOKENS // FRAME_TOKENS


@pytest.mark.parametrize(
    ("count", "commit"),
    [(0, False), (1, False), (17, False), (ALL - 1, False), (ALL, False), (ALL, True)],
)
def test_killed_during_a_put(
    count: int, commit: bool, server: RealBroker, description: ModelDescription
) -> None:
    second = _rows(description, 2)
    with server.client() as client:
        answer = _begin(client, description, SECOND)
        frames = list(_frames(second, answer.missing))
        assert len(frames) == ALL
        upload = _Upload(client, answer.upload_id, frames, count, commit)
        assert upload.paused.wait(timeout=30)
        server.kill()
        upload.finish()
        # Only the answer to a commit may have been faster than the signal.
        assert commit or upload.error is not None
    _expect_recovered(server, description, second, must_have=commit and upload.error is None)


def _expect_recovered(
    server: RealBroker, description: ModelDescription, second: Planes, *, must_have: bool
) -> None:
    server.start()
    assert server.stats().uploads == 0
    with server.client() as client:
        kept = _find(client, description, FIRST)
        assert kept is not None
        _expect_rows(client, kept, _rows(description, 1))
        found = _find(client, description, SECOND)
        references = server.stats().references
        assert references == (1 if found is None else 2)
        if found is None:
            assert not must_have
            # Nothing is left of it: all of it is asked for again, and taken.
            again = _begin(client, description, SECOND)
            assert [(part.begin, part.end) for part in again.missing] == [(0, TOKENS)]
            client.write_kv(again.upload_id, _frames(second, again.missing))
            found = _find(client, description, SECOND)
        _expect_rows(client, found, second)
    stats = server.stats()
    assert (stats.uploads, stats.leases, stats.references) == (0, 0, 2)
    assert stats.quarantined_chunks == 0
    assert server.stop() == 0


@pytest.mark.parametrize("delay_ms", [0, 1, 2, 4, 8, 16])
def test_killed_right_after_the_commit_was_sent(
    delay_ms: int, server: RealBroker, description: ModelDescription
) -> None:
    """The commit is on the wire: the kill lands before, within or after the disk's part of it."""
    second = _rows(description, 2)
    with server.client() as client:
        answer = _begin(client, description, SECOND)
        frames = list(_frames(second, answer.missing))
        upload = _Upload(client, answer.upload_id, frames, ALL, commit=True)
        assert upload.paused.wait(timeout=30)
        # Not a wait for something to happen: where in the commit the signal lands is the point.
        threading.Event().wait(delay_ms / 1000)
        server.kill()
        upload.finish()
    _expect_recovered(server, description, second, must_have=upload.error is None)
