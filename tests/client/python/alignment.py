"""Alignment and planning in plain Python, by method sections B.2 and B.4: an oracle for the server.

Straightforward rather than fast.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

MIN_RUN = 8
FILL_REACH = 32


@dataclass(frozen=True)
class Piece:
    """Target tokens `[target, target + tokens)` equal source tokens from `source` on."""

    target: int
    reference: int
    source: int
    tokens: int
    kind: str

    @property
    def end(self) -> int:
        return self.target + self.tokens


def exact_runs(target: Sequence[int], references: Sequence[Sequence[int]]) -> list[Piece]:
    """Maximal equal runs, longest first, at most one per target token."""
    grams: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
    for number, ids in enumerate(references):
        for at in range(len(ids) - MIN_RUN + 1):
            grams[tuple(ids[at : at + MIN_RUN])].append((number, at))
    open_runs: dict[tuple[int, int], tuple[int, int]] = {}
    found: list[Piece] = []
    for at in range(len(target) - MIN_RUN + 1):
        for number, source in grams.get(tuple(target[at : at + MIN_RUN]), [])[:64]:
            key = (number, source - at)
            begin, last = open_runs.get(key, (at, at))
            if last < at - 1:
                found.append(Piece(begin, number, begin + key[1], last + MIN_RUN - begin, "exact"))
                begin = at
            open_runs[key] = (begin, at)
    for (number, shift), (begin, last) in open_runs.items():
        found.append(Piece(begin, number, begin + shift, last + MIN_RUN - begin, "exact"))
    return _longest_first(found, len(target))


def _longest_first(found: list[Piece], tokens: int) -> list[Piece]:
    free = np.ones(tokens, dtype=bool)
    chosen: list[Piece] = []
    queue = sorted(found, key=lambda piece: (-piece.tokens, piece.target))
    while queue:
        piece = queue.pop(0)
        inside = free[piece.target : piece.end]
        if inside.all():
            free[piece.target : piece.end] = False
            chosen.append(piece)
            continue
        rest = _free_parts(piece, inside)
        queue = sorted([*queue, *rest], key=lambda part: (-part.tokens, part.target))
    return sorted(chosen, key=lambda piece: piece.target)


def _free_parts(piece: Piece, inside: np.ndarray) -> list[Piece]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], inside.astype(np.int8), [0]))))
    return [
        Piece(piece.target + low, piece.reference, piece.source + low, high - low, piece.kind)
        for low, high in edges.reshape(-1, 2).tolist()
        if high - low >= MIN_RUN
    ]


def fill_tokens(
    target: Sequence[int], references: Sequence[Sequence[int]], runs: list[Piece], minimum: int = 1
) -> list[Piece]:
    """Runs, and in the gaps between them equal tokens near the predicted place, in order."""
    out: list[Piece] = []
    position = 0
    for index in range(len(runs) + 1):
        left = runs[index - 1] if index else None
        right = runs[index] if index < len(runs) else None
        begin, end = position, right.target if right else len(target)
        if end > begin:
            out += _fill_gap(target, references, begin, end, left, right, minimum)
        if right:
            out.append(right)
            position = right.end
    return out


def _fill_gap(
    target: Sequence[int],
    references: Sequence[Sequence[int]],
    begin: int,
    end: int,
    left: Piece | None,
    right: Piece | None,
    minimum: int,
) -> list[Piece]:
    anchor = left or right
    if anchor is None:
        return []
    ids = references[anchor.reference]
    if left is not None:
        low = left.source + left.tokens
        high = low + (end - begin) + FILL_REACH
        if right is not None and right.reference == left.reference and right.source >= low:
            high = min(high, right.source)
    else:
        high = anchor.source
        low = max(0, high - (end - begin) - FILL_REACH)
    window = list(ids[low : min(high, len(ids))])
    matcher = SequenceMatcher(None, list(target[begin:end]), window, autojunk=False)
    pieces = []
    for block in matcher.get_matching_blocks():
        drift = abs((block.b - block.a) if left is not None else 0)
        if block.size >= minimum and drift <= FILL_REACH:
            pieces.append(
                Piece(begin + block.a, anchor.reference, low + block.b, block.size, "token")
            )
    return pieces


def merge(pieces: list[Piece]) -> list[Piece]:
    """Joins pieces that continue each other in target and source."""
    out: list[Piece] = []
    for piece in sorted(pieces, key=lambda part: part.target):
        last = out[-1] if out else None
        if (
            last is not None
            and last.end == piece.target
            and last.reference == piece.reference
            and last.source + last.tokens == piece.source
        ):
            kind = "exact" if last.kind == piece.kind == "exact" else "token"
            out[-1] = Piece(
                last.target, last.reference, last.source, last.tokens + piece.tokens, kind
            )
        else:
            out.append(piece)
    return out


def seams(pieces: list[Piece]) -> list[int]:
    """Target tokens where the source stops being contiguous: starts of pieces, but for one that
    begins both prompts."""
    return [piece.target for piece in pieces if piece.target or piece.source]


def seam_prior(pieces: list[Piece], tokens: int) -> np.ndarray:
    """`[tokens]`: 1 within 16 tokens after a seam, 0.5 within 64, 0.25 elsewhere, 0 where nothing
    before has changed; 0 for unmatched tokens."""
    prior = np.zeros(tokens, dtype=np.float32)
    changed = False
    for index, piece in enumerate(pieces):
        gap = piece.target > (pieces[index - 1].end if index else 0)
        changed = changed or gap or piece.target in seams([piece])
        if not changed:
            continue
        distance = np.arange(piece.tokens)
        weight = np.where(distance < 16, 1.0, np.where(distance < 64, 0.5, 0.25))
        prior[piece.target : piece.end] = weight
    return prior
