"""Edits of a text, each determined by its seed.

All randomness comes from `random.Random(seed)`, never from hashing, so an edit is the same in
every process. A text is a sequence of paragraphs with an empty line between them; a paragraph
that begins with a section number and holds no sentence is a heading and is left alone.
"""

from __future__ import annotations

import random
import re

_WORD = re.compile(r"[A-Za-z]+")
_HEADING = re.compile(r"\d+\. \S")
# A sentence ends at its full stop, question or exclamation mark (and closing quote), where a
# capital, a quote or a bracket follows.
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\b[A-Z]\.)[\"')]?\s+(?=[A-Z\"(])")
_LONGEST_HEADING_WORDS = 12
# Words shorter than this carry grammar more than content, and are not replaced.
_SHORTEST_REPLACED_LETTERS = 4


def replace_words(text: str, share: float, seed: int) -> str:
    """Replaces `share` of all words by other words of the same text.

    Words of fewer than four letters stay, and so do numbers. The replacement keeps the first
    letter's case. Raises `ValueError` unless 0 <= share <= 1, or if the text has too few words.
    """
    _check_share(share)
    words = list(_WORD.finditer(text))
    long_words = [word for word in words if len(word.group()) >= _SHORTEST_REPLACED_LETTERS]
    wanted = round(share * len(words))
    vocabulary = sorted({word.group().lower() for word in long_words})
    if wanted > len(long_words) or (wanted > 0 and len(vocabulary) < 2):
        raise ValueError(f"cannot replace {wanted} of {len(long_words)} longer words")
    rng = random.Random(seed)
    chosen = sorted(rng.sample(range(len(long_words)), wanted))
    pieces = []
    end = 0
    for index in chosen:
        word = long_words[index]
        old = word.group()
        new = old.lower()
        while new == old.lower():
            new = rng.choice(vocabulary)
        pieces += [text[end : word.start()], new.capitalize() if old[0].isupper() else new]
        end = word.end()
    return "".join(pieces) + text[end:]


def delete_sentences(text: str, share: float, seed: int) -> str:
    """Deletes `share` of the sentences; headings stay, and an emptied paragraph goes.

    Raises `ValueError` unless 0 <= share <= 1.
    """
    _check_share(share)
    paragraphs = text.split("\n\n")
    places = [
        (row, column)
        for row, paragraph in enumerate(paragraphs)
        if not is_heading(paragraph)
        for column in range(len(sentences(paragraph)))
    ]
    rng = random.Random(seed)
    deleted = set(rng.sample(places, round(share * len(places))))
    kept = []
    for row, paragraph in enumerate(paragraphs):
        if is_heading(paragraph):
            kept.append(paragraph)
            continue
        left = [s for column, s in enumerate(sentences(paragraph)) if (row, column) not in deleted]
        if left:
            kept.append(" ".join(left))
    return "\n\n".join(kept)


def reorder_passages(text: str, seed: int, passages: int = 6) -> str:
    """Cuts a text into `passages` parts and puts them in another order.

    Cuts are made before headings where the text has enough of them. No part keeps its place, and
    none keeps its predecessor, so that every cut is a seam. What precedes the first heading (the
    title) stays in front. Raises `ValueError` if the text cannot be cut so often, or if
    `passages` is below 4 (fewer have no such order).
    """
    if passages < 4:
        raise ValueError("passages must be at least 4")
    front, parts = _passages(text, passages)
    rng = random.Random(seed)
    order = list(range(passages))
    while any(
        place == part or (place > 0 and order[place - 1] == part - 1)
        for place, part in enumerate(order)
    ):
        rng.shuffle(order)
    return "\n\n".join(front + [paragraph for part in order for paragraph in parts[part]])


def insert_passage(text: str, passage: str, seed: int) -> str:
    """Inserts a passage between two paragraphs, in the second or third quarter of the text.

    Raises `ValueError` if the text has fewer than 4 paragraphs.
    """
    paragraphs = text.split("\n\n")
    if len(paragraphs) < 4:
        raise ValueError(f"{len(paragraphs)} paragraphs are too few to insert between")
    place = random.Random(seed).randint(len(paragraphs) // 4, len(paragraphs) * 3 // 4)
    # Not between a heading and its text.
    while place > 0 and is_heading(paragraphs[place - 1]):
        place -= 1
    return "\n\n".join([*paragraphs[:place], passage, *paragraphs[place:]])


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph; joined by single spaces they give it again."""
    pieces = []
    begin = 0
    for end in _SENTENCE_END.finditer(paragraph):
        # The closing quote belongs to the sentence, the space to nobody.
        stop = end.start() + len(end.group().rstrip())
        pieces.append(paragraph[begin:stop])
        begin = end.end()
    return [*pieces, paragraph[begin:]] if paragraph else []


def is_heading(paragraph: str) -> bool:
    """Whether a paragraph is a numbered heading."""
    return bool(_HEADING.match(paragraph)) and len(paragraph.split()) <= _LONGEST_HEADING_WORDS


def _passages(text: str, count: int) -> tuple[list[str], list[list[str]]]:
    """What stays in front, and `count` parts of about equal length in paragraphs."""
    paragraphs = text.split("\n\n")
    headings = [row for row, paragraph in enumerate(paragraphs) if is_heading(paragraph)]
    places = headings if len(headings) >= count else list(range(1, len(paragraphs)))
    if len(places) < count:
        raise ValueError(f"a text of {len(paragraphs)} paragraphs has no {count} passages")
    # Even by place, which is even enough by length and never leaves a part empty.
    begins = [places[index * len(places) // count] for index in range(count)]
    ends = [*begins[1:], len(paragraphs)]
    parts = [paragraphs[begin:end] for begin, end in zip(begins, ends, strict=True)]
    return paragraphs[: begins[0]], parts


def _check_share(share: float) -> None:
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must be within 0..1, not {share}")
