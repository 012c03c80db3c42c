"""Texts that every Debian machine holds, and one that was written for this package.

`python-types` is a chapter of Python's reference in the words that `help("TYPES")` prints; it comes
with Python's library and differs a little between its versions.

The licence texts belong to Debian's essential package `base-files` and are kept even by the
slimmest images, which drop /usr/share/doc. Their hard-wrapped lines are joined, so that a
paragraph is one line and an edit does not depend on where a line happened to end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

_LICENSES = Path("/usr/share/common-licenses")

# Name -> file, title, and two questions that the text answers.
_CATALOG: dict[str, tuple[str, str, tuple[str, str]]] = {
    "tide_station": (
        "tide_station.txt",
        "The Skerrow Tide Station: Keeper's Handbook",
        (
            "What is the purpose of the station?",
            "What was the highest water ever measured, and when?",
        ),
    ),
    "gpl-3": (
        "GPL-3",
        "GNU General Public License, version 3",
        (
            "What does this license guarantee to the users of a program?",
            "What does it say about warranty and patents?",
        ),
    ),
    "gfdl-1.3": (
        "GFDL-1.3",
        "GNU Free Documentation License, version 1.3",
        (
            "What is an invariant section?",
            "When may a modified version be distributed?",
        ),
    ),
    "lgpl-2.1": (
        "LGPL-2.1",
        "GNU Lesser General Public License, version 2.1",
        (
            "Why is it called the Lesser license?",
            "May a program that uses the library be sold?",
        ),
    ),
    "mpl-2.0": (
        "MPL-2.0",
        "Mozilla Public License, version 2.0",
        (
            "What is a larger work?",
            "Which patents does a contributor license?",
        ),
    ),
    "apache-2.0": (
        "Apache-2.0",
        "Apache License, version 2.0",
        (
            "What must a redistribution contain?",
            "What happens to the patent license of someone who sues?",
        ),
    ),
    "mpl-1.1": (
        "MPL-1.1",
        "Mozilla Public License, version 1.1",
        (
            "Who is the initial developer?",
            "What must a contributor describe in a file called LEGAL?",
        ),
    ),
    "python-types": (
        "help:types",
        "The standard type hierarchy of Python",
        (
            "What is the value None used for?",
            "Which types of sequences are immutable?",
        ),
    ),
}

_ANY_QUESTIONS = ("What is this document about?", "What does its last part say?")


class DocumentError(Exception):
    """A document is unknown, missing on this machine, or too short for what was asked."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text in paragraphs, separated by one empty line, and two questions about it."""

    name: str
    title: str
    text: str
    questions: tuple[str, str]


def document_names() -> list[str]:
    """Every name that `document` knows."""
    return list(_CATALOG)


def document(name: str) -> Document:
    """Loads a document by name.

    Raises `DocumentError` if the name is unknown or the machine lacks the file.
    """
    if name not in _CATALOG:
        raise DocumentError(f"no document '{name}'; there are {', '.join(_CATALOG)}")
    file, title, questions = _CATALOG[name]
    try:
        if file.endswith(".txt"):
            raw = (resources.files(__package__) / "data" / file).read_text(encoding="utf-8")
        elif file.startswith("help:"):
            raw = _python_help(file.removeprefix("help:"))
        else:
            raw = (_LICENSES / file).read_text(encoding="utf-8")
    except OSError as error:
        raise DocumentError(f"cannot read the document '{name}': {error}") from error
    return Document(name, title, _join_lines(raw), questions)


def document_license(name: str) -> str:
    """Under what terms a document of `document_names` may be used here, and where it comes from."""
    if name not in _CATALOG:
        raise DocumentError(f"no document '{name}'; there are {', '.join(_CATALOG)}")
    file = _CATALOG[name][0]
    if file.endswith(".txt"):
        return "Apache-2.0 (this package)"
    if file.startswith("help:"):
        return "PSF-2.0 (Python's library)"
    return "verbatim copies allowed (Debian's base-files)"


def read_document(path: Path) -> Document:
    """A text file as a document, named after the file, with questions that any text answers.

    Raises `DocumentError` if it cannot be read, is not UTF-8 or is empty.
    """
    try:
        text = _join_lines(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        raise DocumentError(f"cannot read the document '{path}': {error}") from error
    if not text:
        raise DocumentError(f"the document '{path}' is empty")
    return Document(path.name, path.name, text, _ANY_QUESTIONS)


def fit(source: Document, max_tokens: int, count: Callable[[str], int]) -> Document:
    """The longest whole-paragraph beginning of a document that is at most `max_tokens` long.

    `count` gives the tokens of a text. Raises `DocumentError` if not one paragraph fits.
    """
    paragraphs = source.text.split("\n\n")
    low, high = 0, len(paragraphs)
    while low < high:
        middle = (low + high + 1) // 2
        if count("\n\n".join(paragraphs[:middle])) <= max_tokens:
            low = middle
        else:
            high = middle - 1
    if low == 0:
        raise DocumentError(f"no paragraph of '{source.name}' fits into {max_tokens} tokens")
    return replace(source, text="\n\n".join(paragraphs[:low]))


def _python_help(topic: str) -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise OSError(f"Python's help is not installed: {error}") from error
    return str(topics[topic])


def _join_lines(raw: str) -> str:
    """One line per paragraph, single spaces, one empty line between paragraphs, no rules."""
    raw = re.sub(r"(?m)^\s*[-=*]{3,}\s*$", "", raw.replace("\f", "\n"))
    blocks = re.split(r"\n\s*\n", raw)
    return "\n\n".join(" ".join(block.split()) for block in blocks if block.strip())
