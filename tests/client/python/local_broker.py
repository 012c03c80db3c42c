"""A broker inside the test process: `semshare.Client`'s methods over numpy arrays.

It is an oracle, not a cache: it keeps everything, matches against every reference, and realigns
with the formula of method section B.3 written down once more, in float64.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from alignment import Piece, exact_runs, fill_tokens, merge, seam_prior, seams

from semshare.client import BrokerError
from semshare.frames import KvFrame, WriteFrame, encode_write_frame
from semshare.v1 import cache_broker_pb2 as pb
from semshare.v1 import model_pb2

FRAME_BYTES = 2 << 20
_ELEMENT = {
    model_pb2.DTYPE_FLOAT32: np.dtype("<f4"),
    model_pb2.DTYPE_FLOAT16: np.dtype("<f2"),
    model_pb2.DTYPE_BFLOAT16: np.dtype("<u2"),
}


def to_float(rows: np.ndarray, dtype: int) -> np.ndarray:
    """Stored elements as float32."""
    if dtype == model_pb2.DTYPE_BFLOAT16:
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows.astype(np.float32)


def from_float(rows: np.ndarray, dtype: int) -> np.ndarray:
    """Float32 as stored elements, rounded to nearest even."""
    if dtype == model_pb2.DTYPE_BFLOAT16:
        bits = np.ascontiguousarray(rows, dtype=np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rows.astype(_ELEMENT[dtype])


def realign(
    rows: np.ndarray, rotary: Any, source: np.ndarray, target: np.ndarray, dtype: int
) -> np.ndarray:
    """`[rows, heads, width]` stored elements moved from source to target positions."""
    freq = np.asarray(rotary.inv_freq, dtype=np.float64)
    if rotary.angle_precision == model_pb2.ANGLE_PRECISION_FLOAT32:
        single = freq.astype(np.float32)
        at_target = (target.astype(np.float32)[:, None] * single).astype(np.float64)
        at_source = (source.astype(np.float32)[:, None] * single).astype(np.float64)
        phi = at_target - at_source
    else:
        phi = (target - source)[:, None] * freq
    cos = np.cos(phi).astype(np.float32)[:, None, :]
    sin = np.sin(phi).astype(np.float32)[:, None, :]
    values = to_float(rows, dtype)
    out = values.copy()
    pairs = rotary.width // 2
    if rotary.pairing == model_pb2.ROTARY_PAIRING_HALF_SPLIT:
        first = slice(rotary.begin, rotary.begin + pairs)
        second = slice(rotary.begin + pairs, rotary.begin + 2 * pairs)
    else:
        first = slice(rotary.begin, rotary.begin + 2 * pairs, 2)
        second = slice(rotary.begin + 1, rotary.begin + 2 * pairs, 2)
    x, y = values[..., first], values[..., second]
    out[..., first] = x * cos - y * sin
    out[..., second] = x * sin + y * cos
    moved = from_float(out, dtype)
    still = source == target
    moved[still] = rows[still]
    return moved


@dataclass
class Reference:
    ids: list[int]
    importance: np.ndarray | None
    planes: list[list[np.ndarray]] = field(default_factory=list)


@dataclass
class Lease:
    model: bytes
    references: list[Reference]
    pieces: list[Piece]


class LocalBroker:
    """`policy` may replace `auto_policy`. Not thread-safe, but for `read_kv` streams and `release`,
    which change no shared state."""

    def __init__(self) -> None:
        self.policy = auto_policy
        self.models: dict[bytes, model_pb2.ModelSpec] = {}
        self.references: dict[bytes, dict[bytes, Reference]] = {}
        self.uploads: dict[bytes, tuple[bytes, bytes, Reference]] = {}
        self.leases: dict[bytes, Lease] = {}
        self.outcomes: list[Any] = []
        self.checks: list[Any] = []
        self._ids = itertools.count(1)

    def get_model(self, fingerprint: bytes, *, timeout_s: float | None = None) -> bool:
        return fingerprint in self.models

    def register_model(
        self,
        spec: Any,
        table: np.ndarray | None,
        token_weights: np.ndarray | None = None,
        probes: Iterable[Any] = (),
        *,
        timeout_s: float = 0,
    ) -> Any:
        created = spec.fingerprint not in self.models
        self.models[spec.fingerprint] = spec
        self.references.setdefault(spec.fingerprint, {})
        error = max(probe_errors(spec, list(probes)), default=0.0)
        return pb.RegisterModelResponse(created=created, probe_error=error)

    def begin_put(self, request: Any, *, timeout_s: float | None = None) -> Any:
        ids = list(request.token_ids)
        name = hashlib.sha256(np.asarray(ids, dtype="<u4").tobytes()).digest()[:16]
        if request.model not in self.models:
            raise BrokerError("NOT_FOUND", "model")
        if name in self.references[request.model]:
            return pb.BeginPutResponse(reference_id=name, visible=True, durable=True)
        upload = next(self._ids).to_bytes(16, "little")
        importance = (
            np.asarray(request.importance, dtype=np.float32) if request.importance else None
        )
        self.uploads[upload] = (request.model, name, Reference(ids, importance))
        answer = pb.BeginPutResponse(upload_id=upload, reference_id=name, timeout_ms=30000)
        answer.missing.add(begin=0, end=len(ids))
        return answer

    def write_kv(
        self, upload_id: bytes, frames: Iterable[WriteFrame], *, timeout_s: float = 0
    ) -> Any:
        model, name, reference = self.uploads.pop(upload_id)
        spec = self.models[model]
        shapes = plane_specs(spec)
        data = [[bytearray() for _ in planes] for planes in shapes]
        for frame in frames:
            pb.WriteKvFrame.FromString(encode_write_frame(frame))  # The wire form is well-formed.
            data[frame.layer][frame.plane] += frame.payload
        element = _ELEMENT[spec.dtype]
        reference.planes = [
            [
                np.frombuffer(raw, dtype=element).reshape(len(reference.ids), p.heads, p.width)
                for raw, p in zip(raws, planes, strict=True)
            ]
            for raws, planes in zip(data, shapes, strict=True)
        ]
        self.references[model][name] = reference
        return pb.WriteKvResponse(reference_id=name, visible=True, durable=True)

    def find_match(self, request: Any, *, timeout_s: float | None = None) -> Any:
        if request.model not in self.models:
            raise BrokerError("NOT_FOUND", "model")
        target = list(request.token_ids)
        held = list(self.references[request.model].values())
        if request.mode == pb.MATCH_MODE_EXACT_PREFIX:
            pieces = _prefix(target, held)
        else:
            runs = exact_runs(target, [reference.ids for reference in held])
            fill = request.mode != pb.MATCH_MODE_EXACT
            pieces = merge(fill_tokens(target, [r.ids for r in held], runs) if fill else runs)
            pieces = _only_prefix(pieces, len(target)) or pieces
        used = sorted({piece.reference for piece in pieces})
        covered = sum(piece.tokens for piece in pieces)
        if covered < 0.3 * len(target):
            reason = pb.NO_MATCH_REASON_LOW_COVERAGE if covered else pb.NO_MATCH_REASON_NO_CANDIDATE
            return pb.FindMatchResponse(no_match=pb.NoMatch(reason=reason))
        lease = next(self._ids).to_bytes(16, "little")
        self.leases[lease] = Lease(request.model, held, pieces)
        match = pb.Match(lease_id=lease, lease_timeout_ms=30000, matched_tokens=covered)
        for index in used:
            match.references.add(reference_id=b"r" * 16, tokens=len(held[index].ids))
        for piece in pieces:
            match.segments.add(
                target_begin=piece.target,
                reference=used.index(piece.reference),
                source_begin=piece.source,
                tokens=piece.tokens,
                kind=1 if piece.kind == "exact" else 2,
            )
        make_plan(match, request, pieces, held, self)
        return pb.FindMatchResponse(match=match)

    def read_kv(self, lease_id: bytes, *, timeout_s: float = 0, **_: Any) -> LocalStream:
        if lease_id not in self.leases:
            raise BrokerError("NOT_FOUND", "lease")
        lease = self.leases[lease_id]
        return LocalStream(read_frames(self.models[lease.model], lease))

    def release(
        self, lease_id: bytes, outcome: Any = None, *, timeout_s: float | None = None
    ) -> None:
        self.leases.pop(lease_id, None)
        self.outcomes.append(outcome)

    def report_shadow_check(self, request: Any, *, timeout_s: float | None = None) -> Any:
        self.checks.append(request)
        return False


class LocalStream:
    """Frames of a lease; `cancel` ends them."""

    def __init__(self, frames: Iterator[KvFrame]) -> None:
        self._frames = frames
        self.cancelled = False

    def __iter__(self) -> LocalStream:
        return self

    def __next__(self) -> KvFrame:
        if self.cancelled:
            raise BrokerError("CANCELLED", "cancelled")
        return next(self._frames)

    def cancel(self) -> None:
        self.cancelled = True


def plane_specs(spec: Any) -> list[list[Any]]:
    """Planes by layer."""
    out: list[list[Any]] = [[] for _ in range(spec.layers)]
    for group in spec.layer_groups:
        for layer in group.layers:
            out[layer] = list(group.planes)
    return out


def read_frames(spec: Any, lease: Lease) -> Iterator[KvFrame]:
    source = np.concatenate([np.arange(p.source, p.source + p.tokens) for p in lease.pieces])
    target = np.concatenate([np.arange(p.target, p.end) for p in lease.pieces])
    for layer, planes in enumerate(plane_specs(spec)):
        for index, plane in enumerate(planes):
            stored = np.concatenate(
                [
                    lease.references[p.reference].planes[layer][index][
                        p.source : p.source + p.tokens
                    ]
                    for p in lease.pieces
                ]
            )
            if plane.HasField("rotary"):
                stored = realign(stored, plane.rotary, source, target, spec.dtype)
            step = max(1, FRAME_BYTES // stored[0].nbytes)
            for at in range(0, len(stored), step):
                part = np.ascontiguousarray(stored[at : at + step])
                yield KvFrame(layer, index, at, len(part), memoryview(part).cast("B"))


def probe_errors(spec: Any, probes: list[Any]) -> Iterator[float]:
    """Relative row error of every probe against the same token's rows at position 0, realigned."""
    planes = plane_specs(spec)
    origin = {p.token_id: split_probe(spec, p.rows) for p in probes if p.position == 0}
    for probe in probes:
        rows = split_probe(spec, probe.rows)
        for layer, specs in enumerate(planes):
            for index, plane in enumerate(specs):
                moved = origin[probe.token_id][layer][index][None]
                if plane.HasField("rotary"):
                    at = np.array([probe.position])
                    moved = realign(moved, plane.rotary, np.array([0]), at, spec.dtype)
                want = to_float(rows[layer][index], spec.dtype).astype(np.float64)
                found = to_float(moved[0], spec.dtype).astype(np.float64)
                yield float(np.linalg.norm(found - want) / max(np.linalg.norm(want), 1e-30))


def split_probe(spec: Any, raw: bytes) -> list[list[np.ndarray]]:
    """`[layer][plane]` arrays `[heads, width]` of a probe's rows."""
    element = _ELEMENT[spec.dtype]
    out, at = [], 0
    for planes in plane_specs(spec):
        layer = []
        for plane in planes:
            count = plane.heads * plane.width
            rows = np.frombuffer(raw, dtype=element, count=count, offset=at)
            layer.append(rows.reshape(plane.heads, plane.width))
            at += count * element.itemsize
        out.append(layer)
    return out


def _prefix(target: list[int], held: list[Reference]) -> list[Piece]:
    best = Piece(0, 0, 0, 0, "exact")
    for index, reference in enumerate(held):
        pairs = zip(target, reference.ids, strict=False)
        count = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        if count > best.tokens:
            best = Piece(0, index, 0, count, "exact")
    return [best] if best.tokens else []


def _only_prefix(pieces: list[Piece], tokens: int) -> list[Piece]:
    """The common prefix alone where hardly anything else matches: its rows are exact, and a result
    that stays exact is worth more than a few fills."""
    first = pieces[0] if pieces else None
    if first is None or first.target or first.source or first.kind != "exact":
        return []
    return [first] if first.tokens >= 0.9 * tokens else []


def _ranges(marks: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], marks.astype(np.int8), [0]))))
    return [(low, high) for low, high in edges.reshape(-1, 2).tolist()]


def _add_ranges(field_: Any, marks: np.ndarray) -> None:
    for low, high in _ranges(marks):
        field_.add(begin=low, end=high)


def make_plan(
    match: Any, request: Any, pieces: list[Piece], held: list[Reference], broker: LocalBroker
) -> None:
    """Method section B.4."""
    tokens = len(request.token_ids)
    question = min(request.question_tokens or 20, tokens)
    plan = match.plan
    plan.question_tokens = question
    mandatory = np.ones(tokens, dtype=bool)
    for piece in pieces:
        mandatory[piece.target : piece.end] = False
    moved = seams(pieces)
    pure_prefix = len(pieces) == 1 and not moved and pieces[0].kind == "exact"
    # Exact rows of a common prefix need no recomputation; the question's rows are exact as well
    # where the prefix reaches into it.
    mandatory[-1 if pure_prefix else -question :] = True
    preset = request.preset or pb.PRESET_AUTO
    share, asked = 0.0, False
    if pure_prefix:
        match.kind = pb.RESULT_KIND_EXACT_PREFIX
        preset = pb.PRESET_FAST
    else:
        match.kind = classify(pieces, tokens)
    if preset == pb.PRESET_AUTO:
        preset, share, asked = broker.policy(pieces, tokens)
    elif preset in (pb.PRESET_BALANCED, pb.PRESET_FAITHFUL):
        share = 0.1 if preset == pb.PRESET_BALANCED else 0.2
        asked = displaced_share(pieces) > 0.05
    plan.preset = preset
    if preset == pb.PRESET_SEMSHAREKV:
        match.kind = pb.RESULT_KIND_SEMSHAREKV
        layers = broker.models[request.model].layers
        share = [min(0.4, 0.825**n) for n in range(1, layers)]
        plan.semsharekv.recompute_tokens.append(tokens)
        plan.semsharekv.recompute_tokens.extend(max(question, int(tokens * each)) for each in share)
        plan.semsharekv.attention_recovery = 0.55
        plan.semsharekv.hot_weight, plan.semsharekv.cold_weight = 0.5, 0.1
        if request.semsharekv.retain or not request.semsharekv.HasField("retain"):
            plan.semsharekv.alpha_retain, plan.semsharekv.least_retained = 0.977, 0.8
        _add_ranges(plan.mandatory, mandatory)
        return
    prior = seam_prior(pieces, tokens)
    if preset == pb.PRESET_HEADS:
        for begin in moved:
            mandatory[begin : begin + 16] = True
    _add_ranges(plan.mandatory, mandatory)
    count = int(share * tokens)
    if asked and count:
        plan.asked.tokens = count
        for low, high, weight in _steps(prior):
            plan.asked.prior.add(range=pb.TokenRange(begin=low, end=high), weight=weight)
    elif count:
        _add_ranges(plan.selected, _by_stored(pieces, held, prior, mandatory, count))
    if not pure_prefix:
        kept = np.flatnonzero(~mandatory)
        at = np.linspace(0, len(kept) - 1, min(32, len(kept))).astype(int)
        plan.sentinels.extend(kept[at].tolist())
        plan.sentinel_layer = 2


def _by_stored(
    pieces: list[Piece],
    held: list[Reference],
    prior: np.ndarray,
    mandatory: np.ndarray,
    count: int,
) -> np.ndarray:
    importance = np.zeros(len(prior), dtype=np.float32)
    for piece in pieces:
        stored = held[piece.reference].importance
        if stored is not None:
            importance[piece.target : piece.end] = stored[
                piece.source : piece.source + piece.tokens
            ]
    score = importance * prior
    score[mandatory] = 0
    best = np.argsort(-score)[:count]
    chosen = np.zeros(len(prior), dtype=bool)
    chosen[best[score[best] > 0]] = True
    return chosen


def _steps(prior: np.ndarray) -> Iterator[tuple[int, int, float]]:
    edges = [0, *(np.flatnonzero(np.diff(prior)) + 1).tolist(), len(prior)]
    for low, high in itertools.pairwise(edges):
        if prior[low] > 0:
            yield low, high, float(prior[low])


def classify(pieces: list[Piece], tokens: int) -> int:
    """`shifted`: one run makes up nearly all that is matched; else `edited`."""
    longest = max(piece.tokens for piece in pieces)
    matched = sum(piece.tokens for piece in pieces)
    return pb.RESULT_KIND_SHIFTED if longest >= 0.95 * matched else pb.RESULT_KIND_EDITED


def displaced_share(pieces: list[Piece]) -> float:
    """Share of matched tokens outside the heaviest set of pieces in source order."""
    weight: list[int] = []
    for index, piece in enumerate(pieces):
        before = [
            weight[other]
            for other in range(index)
            if pieces[other].reference == piece.reference
            and pieces[other].source + pieces[other].tokens <= piece.source
        ]
        weight.append(piece.tokens + max(before, default=0))
    return 1 - max(weight) / sum(piece.tokens for piece in pieces)


def auto_policy(pieces: list[Piece], tokens: int) -> tuple[int, float, bool]:
    """(preset, share of extra tokens, asked importance) from the shape of an alignment.

    Reordered passages need asked importance; few runs need little; many small edits more.
    """
    if displaced_share(pieces) > 0.05:
        return pb.PRESET_FAITHFUL, 0.09, True
    return pb.PRESET_BALANCED, 0.03 if len(pieces) <= 4 else 0.04, False
