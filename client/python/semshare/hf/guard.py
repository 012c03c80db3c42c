"""Tokens that must be equal where others may be similar (method B.2 and B.5).

Embeddings put 1974 beside 1983, and "now" beside "not": what a prompt says hangs on such words, so
a fuzzy match never stands for one of them. Only the worker has the text to tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from semshare.hf.errors import MalformedAnswer
from semshare.v1 import cache_broker_pb2 as pb

__all__ = ["TokenGuard"]

_NEGATIONS = frozenset(
    (
        *("no", "not", "non", "never", "none", "nor", "neither", "nothing", "nobody", "nowhere"),
        *("without", "cannot", "except", "unless", "hardly", "scarcely", "barely"),
        *("n't", "'t", "nt", "t"),
    )
)
# Words that say when without a figure or a capital.
_TIMES = frozenset(
    (
        *("today", "tomorrow", "yesterday", "noon", "midnight"),
        *("before", "after", "until", "since"),
    )
)
_WORD = re.compile(r"\S+")
# Digits and upper case anywhere (names, and camelCase), what identifiers, paths and formulas are
# written with, and bytes that are no character by themselves.
_TELLING = re.compile(r"[\d_/\\@#$%&=<>{}\[\]()*^~|`+\ufffd]|::|->|\w\.\w")
_EDGES = ".,;:!?\"'()[]"


class TokenGuard:
    """Says which tokens are never taken from a similar one: numbers, dates, names, negations, and
    identifiers of code. Judges words of languages that write like English, and takes capitals for
    names: it errs on the side of computing. Thread-safe."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer`: the model's own; only `decode` of single tokens is used."""
        self._tokenizer = tokenizer
        self._texts: dict[int, str] = {}

    def guarded(self, ids: Sequence[int]) -> np.ndarray:
        """`[tokens]` bool: every token of a word that tells, given what stands around it."""
        texts = [self._text(each) for each in ids]
        ends = np.cumsum([len(text) for text in texts])
        marks = np.zeros(len(texts), dtype=bool)
        for word in _WORD.finditer("".join(texts)):
            if _tells(word.group()):
                first = int(np.searchsorted(ends, word.start(), side="right"))
                last = int(np.searchsorted(ends, word.end() - 1, side="right"))
                marks[first : last + 1] = True
        return marks

    def tells(self, token_id: int) -> bool:
        """Whether a token tells by itself."""
        return _tells(self._text(token_id).strip())

    def must_compute(self, ids: Sequence[int], match: Any) -> np.ndarray:
        """`[tokens]` bool: tokens of the target that a fuzzy segment of `match` serves, and that
        tell, or whose source does. Raises `MalformedAnswer` for a segment without its source."""
        fuzzy = [each for each in match.segments if each.kind == pb.SEGMENT_KIND_FUZZY]
        marks = np.zeros(len(ids), dtype=bool)
        if not fuzzy:
            return marks
        guarded = self.guarded(ids)
        for segment in fuzzy:
            if len(segment.source_ids) != segment.tokens:
                raise MalformedAnswer("segments: a fuzzy one does not name its source's tokens")
            for place, source in enumerate(segment.source_ids, start=segment.target_begin):
                marks[place] = guarded[place] or self.tells(source)
        return marks

    def _text(self, token_id: int) -> str:
        text = self._texts.get(token_id)
        if text is None:
            text = str(self._tokenizer.decode([token_id]))
            self._texts[token_id] = text
        return text


def _tells(word: str) -> bool:
    if _TELLING.search(word) or any(letter.isupper() for letter in word):
        return True
    # Letters without case, as of Chinese or Arabic, say nothing that this could read.
    if any(letter.isalpha() and not letter.islower() for letter in word):
        return True
    bare = word.strip(_EDGES)
    return bare in _NEGATIONS or bare in _TIMES or bare.endswith("n't")
