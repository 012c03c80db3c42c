"""Words that are taken whole or not at all (method B.2 and B.5).

What a prompt says hangs on its numbers, names and negations. Embeddings put 1974 beside 1983, and
"now" beside "not", so a similar token never stands for one of them. And where such a word has
changed, the digits that are still the same were computed behind others: 21 is not made of 12. Only
the worker has the text to tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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
# A word is not looked for farther than so many tokens from where it may be broken.
_WORD_TOKENS = 12
_EDGES = ".,;:!?\"'()[]"


class TokenGuard:
    """Says which reused tokens are computed all the same: those of numbers, dates, names,
    negations and identifiers of code that have changed. Judges words of languages that write like
    English, and takes capitals for names: it errs on the side of computing. Thread-safe."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer`: the model's own; only `decode` of single tokens is used."""
        self._tokenizer = tokenizer
        self._texts: dict[int, str] = {}

    def words(self, ids: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Half-open token ranges of the words that tell, as they stand in the text; two words may
        share a token."""
        texts = [self._text(each) for each in ids]
        ends = np.cumsum([len(text) for text in texts])
        for word in _WORD.finditer("".join(texts)):
            if _tells(word.group()):
                first = int(np.searchsorted(ends, word.start(), side="right"))
                last = int(np.searchsorted(ends, word.end() - 1, side="right"))
                yield first, last + 1

    def tells(self, token_id: int) -> bool:
        """Whether a token tells by itself."""
        return _tells(self._text(token_id).strip())

    def must_compute(self, ids: Sequence[int], match: Any) -> np.ndarray:
        """`[tokens]` bool: tokens of words that tell and do not lie whole in one run of a source,
        and tokens whose similar source tells.

        Raises `MalformedAnswer` for a fuzzy segment that does not name its source's tokens.
        """
        tokens = len(ids)
        marks = np.zeros(tokens, dtype=bool)
        # Tokens of one run have one number; what is unmatched or fuzzy is in no run.
        runs = np.full(tokens, -1, dtype=np.int64)
        continues = (-1, -1, -1)  # reference, source and target that would continue the last run
        number = -1
        for segment in match.segments:
            begin, end = segment.target_begin, segment.target_begin + segment.tokens
            if segment.kind == pb.SEGMENT_KIND_FUZZY:
                if len(segment.source_ids) != segment.tokens:
                    raise MalformedAnswer("segments: a fuzzy one does not name its source's tokens")
                marks[begin:end] = [self.tells(source) for source in segment.source_ids]
                continue
            number += (segment.reference, segment.source_begin, begin) != continues
            runs[begin:end] = number
            continues = (segment.reference, segment.source_begin + segment.tokens, end)
        for begin, end in _around(np.flatnonzero((runs[1:] != runs[:-1]) | (runs[1:] < 0)), tokens):
            for first, last in self.words(ids[begin:end]):
                word = runs[begin + first : begin + last]
                if word[0] < 0 or (word != word[0]).any():
                    marks[begin + first : begin + last] = True
        return marks

    def _text(self, token_id: int) -> str:
        text = self._texts.get(token_id)
        if text is None:
            text = str(self._tokenizer.decode([token_id]))
            self._texts[token_id] = text
        return text


def _around(breaks: np.ndarray, tokens: int) -> Iterator[tuple[int, int]]:
    """Token ranges that hold every word at a break (between tokens `break` and `break + 1`), and
    nothing of the long runs between them."""
    if len(breaks) == 0:
        return
    gaps = np.flatnonzero(np.diff(breaks) > 2 * _WORD_TOKENS) + 1
    for part in np.split(breaks, gaps):
        yield max(0, int(part[0]) - _WORD_TOKENS), min(tokens, int(part[-1]) + 1 + _WORD_TOKENS)


def _tells(word: str) -> bool:
    if _TELLING.search(word) or any(letter.isupper() for letter in word):
        return True
    # Letters without case, as of Chinese or Arabic, say nothing that this could read.
    if any(letter.isalpha() and not letter.islower() for letter in word):
        return True
    bare = word.strip(_EDGES)
    return bare in _NEGATIONS or bare in _TIMES or bare.endswith("n't")
