"""One text in two wordings: public-domain translations from Debian's SWORD packages.

`sword-text-web` (World English Bible) and `sword-text-kjv` (King James Version) are read by
`mod2imp` of `libsword-utils`; `deploy/setup.sh report` installs all three. A verse is the unit that
is reworded: the two translations say the same there, in other words.
"""

from __future__ import annotations

import html
import random
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from semshare.texts.documents import DocumentError

__all__ = ["TRANSLATIONS_LICENSE", "Verse", "fit_verses", "reword", "verses"]

TRANSLATIONS_LICENSE = "public domain (sword-text-web, sword-text-kjv)"

_MODERN, _OLD = "engWEB2015eb", "engKJV2006eb"
_TIMEOUT_S = 60.0
_ENTRY = re.compile(r"^\$\$\$(?P<book>.+) (?P<chapter>\d+):(?P<verse>\d+)$")
_NOTE = re.compile(r"<note\b.*?</note>|<title\b.*?</title>", re.DOTALL)
_WORD_TAG = re.compile(r"</?(?:w|q|transChange|seg|divineName)\b[^>]*>")
_TAG = re.compile(r"<[^>]*>")
_BEFORE_MARK = re.compile(r"\s+([,.;:!?])")
_VERSES_PER_PARAGRAPH = 4


@dataclass(frozen=True, slots=True)
class Verse:
    """A verse in both translations."""

    chapter: int
    modern: str
    old: str


def verses(book: str) -> list[Verse]:
    """The verses of a book that both translations have, in order.

    Raises `DocumentError` if the packages are not installed or hold no such book.
    """
    modern, old = _book(_MODERN, book), _book(_OLD, book)
    common = [place for place in modern if place in old]
    if not common:
        raise DocumentError(f"the translations have no book '{book}'")
    return [Verse(place[0], modern[place], old[place]) for place in common]


def reword(source: list[Verse], share: float, seed: int) -> str:
    """The modern text with `share` of its verses in the old wording, in paragraphs.

    Sets for one seed are nested: what is reworded at 10 % is so at 30 %. Raises `ValueError`
    unless 0 <= share <= 1.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must be within 0..1, not {share}")
    order = list(range(len(source)))
    random.Random(seed).shuffle(order)
    changed = set(order[: round(share * len(source))])
    paragraphs: list[str] = []
    chapter = 0
    held: list[str] = []
    for index, verse in enumerate(source):
        if held and (verse.chapter != chapter or len(held) == _VERSES_PER_PARAGRAPH):
            paragraphs.append(" ".join(held))
            held = []
        if verse.chapter != chapter:
            chapter = verse.chapter
            paragraphs.append(f"Chapter {chapter}")
        held.append(verse.old if index in changed else verse.modern)
    return "\n\n".join([*paragraphs, " ".join(held)] if held else paragraphs)


def fit_verses(source: list[Verse], max_tokens: int, count: Callable[[str], int]) -> list[Verse]:
    """The longest beginning whose modern text has at most `max_tokens`.

    Raises `DocumentError` if not one verse fits.
    """
    low, high = 0, len(source)
    while low < high:
        middle = (low + high + 1) // 2
        if count(reword(source[:middle], 0.0, 0)) <= max_tokens:
            low = middle
        else:
            high = middle - 1
    if low == 0:
        raise DocumentError(f"no verse fits into {max_tokens} tokens")
    return source[:low]


def _book(module: str, book: str) -> dict[tuple[int, int], str]:
    found: dict[tuple[int, int], str] = {}
    for place, markup in _entries(module):
        text = plain_text(markup) if place[0] == book else ""
        if text:
            found[place[1:]] = text
    return found


@lru_cache(maxsize=2)
def _entries(module: str) -> list[tuple[tuple[str, int, int], str]]:
    try:
        done = subprocess.run(
            ["mod2imp", module], capture_output=True, check=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise DocumentError(
            f"cannot read the translation {module}: {error}; deploy/setup.sh report installs it"
        ) from error
    return parse_imp(done.stdout.decode("utf-8", errors="replace"))


def parse_imp(dump: str) -> list[tuple[tuple[str, int, int], str]]:
    """What `mod2imp` prints, as markup by (book, chapter, verse); introductions left out."""
    entries: list[tuple[tuple[str, int, int], str]] = []
    place: tuple[str, int, int] | None = None
    lines: list[str] = []
    for line in [*dump.splitlines(), "$$$"]:
        if not line.startswith("$$$"):
            lines.append(line)
            continue
        if place is not None and place[2] > 0:
            entries.append((place, "\n".join(lines)))
        match = _ENTRY.match(line)
        place = (match["book"], int(match["chapter"]), int(match["verse"])) if match else None
        lines = []
    return entries


def plain_text(markup: str) -> str:
    """A verse without notes and tags. Notes and lines of verse part words, tags around words do
    not."""
    text = _TAG.sub(" ", _WORD_TAG.sub("", _NOTE.sub(" ", markup)))
    text = html.unescape(text).replace("\u00b6", " ")
    return _BEFORE_MARK.sub(r"\1", " ".join(text.split()))
