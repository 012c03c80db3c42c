"""Reading `--pairs`: one JSON object a line, checked before a model is run.

    {"name": "moved", "reference": "text", "target": "text", "answer": "optional"}

`reference` may be a list of texts. `reference_ids` (a list of ids, or a list of such lists) and
`target_ids` stand in for texts. Special-token strings in a text become their tokens; nothing is
added, so that the file alone determines the ids.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from semshare.eval.measure import Pair

__all__ = ["PairsError", "Tokenize", "parse_pair", "read_pairs", "tokenize_with"]

Tokenize = Callable[[str], list[int]]

_KEYS = {"name", "reference", "target", "reference_ids", "target_ids", "answer"}


class PairsError(Exception):
    """A line of the input cannot be used; the message names the file, the line and the field."""


def tokenize_with(tokenizer: Any) -> Tokenize:
    """Text to ids with special-token strings parsed and none added."""

    def tokenize(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    return tokenize


def read_pairs(
    path: Path, tokenize: Tokenize, *, vocab_size: int, max_positions: int
) -> list[Pair]:
    """Reads every pair of a file; empty lines are skipped.

    Raises `PairsError` for an unreadable or empty file, a line that is no object of the form
    above, ids outside the vocabulary, prompts beyond the model's positions, two pairs of one name,
    and a target whose ids a reference of the file begins with: that would store the target.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PairsError(f"cannot read {path}: {error}") from error
    pairs: list[Pair] = []
    where: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            pair = parse_pair(_load(line), tokenize, vocab_size, max_positions)
        except ValueError as error:
            raise PairsError(f"{path}:{number}: {error}") from error
        if pair.name in where:
            raise PairsError(
                f"{path}:{number}: name '{pair.name}' is taken by line {where[pair.name]}"
            )
        where[pair.name] = number
        pairs.append(pair)
    if not pairs:
        raise PairsError(f"{path} holds no pair")
    _refuse_stored_targets(path, pairs, where)
    return pairs


def _load(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(entry, dict):
        raise ValueError("not a JSON object")
    return entry


def parse_pair(
    entry: dict[str, Any], tokenize: Tokenize, vocab_size: int, max_positions: int
) -> Pair:
    """One line as a pair. Raises `ValueError`, naming the field."""
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise ValueError(f"unknown field '{unknown[0]}'; known are {', '.join(sorted(_KEYS))}")
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("'name' must be a non-empty string")
    answer = entry.get("answer")
    if answer is not None and (not isinstance(answer, str) or not answer.strip()):
        raise ValueError("'answer' must be a non-empty string")
    references = _prompts(entry, "reference", tokenize)
    targets = _prompts(entry, "target", tokenize)
    if len(targets) != 1:
        raise ValueError("there must be one target")
    for field, prompts in (("reference", references), ("target", targets)):
        for prompt in prompts:
            _check_ids(field, prompt, vocab_size, max_positions)
    return Pair(name, tuple(map(tuple, references)), tuple(targets[0]), answer)


def _prompts(entry: dict[str, Any], field: str, tokenize: Tokenize) -> list[list[int]]:
    """The ids of `field` or `field_ids`: one prompt, or several."""
    text, ids = entry.get(field), entry.get(f"{field}_ids")
    if (text is None) == (ids is None):
        raise ValueError(f"exactly one of '{field}' and '{field}_ids' is needed")
    if text is not None:
        texts = text if isinstance(text, list) else [text]
        if not texts or not all(isinstance(each, str) and each for each in texts):
            raise ValueError(f"'{field}' must be a non-empty text, or a list of such")
        return [tokenize(each) for each in texts]
    if not isinstance(ids, list) or not ids:
        raise ValueError(f"'{field}_ids' must be a non-empty list")
    if not any(isinstance(each, list) for each in ids):
        return [ids]
    if not all(isinstance(each, list) for each in ids):
        raise ValueError(f"'{field}_ids' mixes ids and lists of ids")
    return ids


def _check_ids(field: str, ids: list[Any], vocab_size: int, max_positions: int) -> None:
    if len(ids) < 2:
        raise ValueError(f"'{field}' has {len(ids)} tokens; at least 2 are needed")
    if len(ids) > max_positions:
        raise ValueError(
            f"'{field}' has {len(ids)} tokens; the model supports {max_positions} positions"
        )
    for position, token in enumerate(ids):
        # bool is an int to Python, and no token id.
        if type(token) is not int or not 0 <= token < vocab_size:
            raise ValueError(
                f"'{field}' has {token!r} at position {position}; ids are 0..{vocab_size - 1}"
            )


def _refuse_stored_targets(path: Path, pairs: list[Pair], where: dict[str, int]) -> None:
    """A target that is stored, or that begins a stored prompt, would measure nothing."""
    for pair in pairs:
        for owner in pairs:
            for reference in owner.references:
                if reference[: len(pair.target)] == pair.target:
                    raise PairsError(
                        f"{path}:{where[pair.name]}: the target is stored whole by a reference of "
                        f"line {where[owner.name]} ('{owner.name}')"
                    )
