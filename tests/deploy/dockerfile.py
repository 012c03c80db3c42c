"""Reads a Dockerfile as far as the tests of the deployment need it."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Copy", "Stage", "read_stages"]


@dataclass(frozen=True)
class Copy:
    """A COPY: from the context, or from another stage."""

    sources: tuple[str, ...]
    destination: str
    stage: str = ""


@dataclass
class Stage:
    """A build stage and what its instructions say."""

    name: str
    base: str
    copies: list[Copy] = field(default_factory=list)
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def last(self, word: str) -> str:
        """The text of the last instruction of this name; empty if there is none."""
        found = [text for name, text in self.instructions if name == word]
        return found[-1] if found else ""

    def words(self, word: str) -> list[str]:
        """The last instruction of this name in its JSON form, as a list."""
        text = self.last(word)
        return list(json.loads(text)) if text else []

    def provides(self, path: str) -> bool:
        """Whether a COPY puts a file at this path."""
        return any(copy.destination == path for copy in self.copies)


def read_stages(path: Path) -> dict[str, Stage]:
    """The stages by name, in order."""
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for word, text in _instructions(path.read_text(encoding="utf-8")):
        if word == "FROM":
            base, _, name = text.partition(" AS ")
            current = stages.setdefault(name, Stage(name=name, base=base))
            continue
        assert current is not None, "an instruction before the first FROM"
        current.instructions.append((word, text))
        if word == "COPY":
            current.copies.append(_read_copy(text))
    return stages


def _instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (word, rest.strip()) for word, _, rest in (x.partition(" ") for x in joined.split("\n"))
    ]


def _read_copy(text: str) -> Copy:
    words = shlex.split(text)
    options = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
    paths = [word for word in words if not word.startswith("--")]
    return Copy(tuple(paths[:-1]), paths[-1], options.get("from", ""))
