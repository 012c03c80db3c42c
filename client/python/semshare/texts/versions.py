"""Source files in two versions, from packages that `deploy/setup.sh report` puts into a folder.

The folder holds one package per version, as `uv pip install --target` lays it out:
`click-8.1.7/click/parser.py`. Nothing of it is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from semshare.texts.documents import Document, DocumentError

__all__ = ["VERSIONS_LICENSE", "VersionPair", "sources_folder", "version_pair"]

VERSIONS_LICENSE = "BSD-3-Clause (click on PyPI)"


@dataclass(frozen=True, slots=True)
class VersionPair:
    """One file before and after, blank lines between its paragraphs."""

    old: Document
    new: Document


def sources_folder() -> Path:
    """Where `deploy/setup.sh report` puts the packages."""
    return Path.home() / ".cache" / "semshare" / "corpus"


def version_pair(file: str, old: str, new: str, folder: Path | None = None) -> VersionPair:
    """`file` of click in two versions. Raises `DocumentError` if either is not there."""
    root = sources_folder() if folder is None else folder
    return VersionPair(_read(root, file, old), _read(root, file, new))


def _read(root: Path, file: str, version: str) -> Document:
    path = root / f"click-{version}" / "click" / file
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise DocumentError(
            f"cannot read {path}: {error}; deploy/setup.sh report installs it"
        ) from error
    questions = (
        "Which class or function does this file define first?",
        "What does this file import?",
    )
    return Document(f"click-{version}/{file}", f"click {version}, {file}", text, questions)
