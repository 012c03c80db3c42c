"""The corpus as a file: `python -m semshare.eval corpus --out FOLDER` writes it, others read it.

`corpus.jsonl` holds one pair a line with everything that `--pairs` takes and what the report needs:
class, length, group, the text's source and licence, the seed, and the tails (questions) of both
prompts. It is rebuilt, never committed: the same packages and seed give the same file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semshare.eval.measure import Pair
from semshare.eval.pairs import PairsError, Tokenize, parse_pair
from semshare.texts import CORPUS_CLASSES, CorpusPair

__all__ = ["CORPUS_FILE", "CorpusItem", "corpus_digest", "read_corpus", "write_corpus"]

CORPUS_FILE = "corpus.jsonl"


@dataclass(frozen=True, slots=True)
class CorpusItem:
    """A pair of the corpus as token ids.

    `whole` is the first reference with the target's question in place of its own: what a semantic
    response cache would answer from. None where the target itself is that.
    """

    pair: Pair
    kind: str
    length: int
    group: str
    whole: tuple[int, ...] | None
    line: str

    @property
    def name(self) -> str:
        """The pair's name."""
        return self.pair.name


def write_corpus(path: Path, pairs: Iterable[CorpusPair]) -> int:
    """Writes the pairs and returns their number. The file appears whole or not at all."""
    lines = [json.dumps(_entry(pair)) for pair in pairs]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    partial.replace(path)
    return len(lines)


def corpus_digest(path: Path) -> str:
    """SHA-256 of the file: results belong to one corpus."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_corpus(
    path: Path, tokenize: Tokenize, *, vocab_size: int, max_positions: int
) -> list[CorpusItem]:
    """Every pair of a corpus file.

    Raises `PairsError` as `read_pairs`, and for a line whose tails do not end its prompts.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PairsError(f"cannot read {path}: {error}") from error
    items: list[CorpusItem] = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            pair = parse_pair(_plain(entry), tokenize, vocab_size, max_positions)
            items.append(_item(entry, pair, tokenize, line))
        except (ValueError, KeyError, TypeError) as error:
            raise PairsError(f"{path}:{number}: {error}") from error
    _check(path, items)
    return items


def group_lines(items: Sequence[CorpusItem]) -> str:
    """The lines of some pairs in the form that `--pairs` takes, for the process that stores."""
    return "".join(json.dumps(_plain(json.loads(item.line))) + "\n" for item in items)


def _entry(pair: CorpusPair) -> dict[str, Any]:
    entry = {
        "name": pair.name,
        "class": pair.kind,
        "length": pair.length,
        "group": pair.group,
        "text": pair.text,
        "license": pair.license,
        "seed": pair.seed,
        "reference": list(pair.reference),
        "target": pair.target,
        "reference_tail": pair.reference_tail,
        "tail": pair.tail,
    }
    return entry if pair.answer is None else {**entry, "answer": pair.answer}


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("name", "reference", "target", "answer") if key in entry}


def _item(entry: dict[str, Any], pair: Pair, tokenize: Tokenize, line: str) -> CorpusItem:
    kind = entry["class"]
    if kind not in CORPUS_CLASSES:
        raise ValueError(f"no class '{kind}'")
    own = tuple(tokenize(entry["reference_tail"]))
    tail = tuple(tokenize(entry["tail"]))
    reference = pair.references[0]
    if reference[-len(own) :] != own or pair.target[-len(tail) :] != tail:
        raise ValueError("a prompt does not end in its tail")
    # A further turn follows on all of the reference.
    kept = reference if kind == "chat" else reference[: -len(own)]
    whole = (*kept, *tail)
    return CorpusItem(
        pair=pair,
        kind=kind,
        length=int(entry["length"]),
        group=str(entry["group"]),
        whole=None if whole == pair.target else whole,
        line=line,
    )


def _check(path: Path, items: Sequence[CorpusItem]) -> None:
    names = [item.name for item in items]
    if not names:
        raise PairsError(f"{path} holds no pair")
    if len(set(names)) < len(names):
        raise PairsError(f"{path}: two pairs of one name")
    for item in items:
        for other in items:
            if other.group != item.group:
                continue
            for reference in other.pair.references:
                if reference[: len(item.pair.target)] == item.pair.target:
                    raise PairsError(f"{path}: the target of '{item.name}' is stored whole")
