"""Reading pairs: what is taken, and how each bad line is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from semshare.eval import PairsError, read_pairs


def tokenize(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def read(tmp_path: Path, *lines: Any) -> Any:
    path = tmp_path / "pairs.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts), encoding="utf-8")
    return read_pairs(path, tokenize, vocab_size=256, max_positions=20)


GOOD = {"name": "good", "reference": "abc", "target": "abd"}


def test_texts_and_ids_are_taken(tmp_path: Path) -> None:
    pairs = read(
        tmp_path,
        {**GOOD, "answer": "yes"},
        "",
        {"name": "several", "reference": ["ab", "cd"], "target": "ef"},
        {"name": "ids", "reference_ids": [1, 2], "target_ids": [3, 4]},
        {"name": "lists", "reference_ids": [[1, 2], [5, 6]], "target_ids": [7, 8]},
    )
    assert [pair.name for pair in pairs] == ["good", "several", "ids", "lists"]
    assert pairs[0].references == ((97, 98, 99),)
    assert pairs[0].target == (97, 98, 100)
    assert [pair.answer for pair in pairs] == ["yes", None, None, None]
    assert pairs[1].references == ((97, 98), (99, 100))
    assert (pairs[2].references, pairs[2].target) == (((1, 2),), (3, 4))
    assert pairs[3].references == ((1, 2), (5, 6))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ({"reference": "ab", "target": "cd"}, "'name'"),
        ({**GOOD, "name": ""}, "'name'"),
        ({**GOOD, "name": 7}, "'name'"),
        ({**GOOD, "answer": " "}, "'answer'"),
        ({**GOOD, "tragte": "x"}, "unknown field 'tragte'"),
        ({"name": "x", "target": "ab"}, "'reference'"),
        ({"name": "x", "reference": "ab"}, "'target'"),
        ({**GOOD, "target_ids": [1, 2]}, "exactly one"),
        ({**GOOD, "reference": []}, "'reference'"),
        ({**GOOD, "reference": ["ab", 3]}, "'reference'"),
        ({**GOOD, "target": ["ab", "cd"]}, "one target"),
        ({**GOOD, "target": "a"}, "at least 2"),
        ({**GOOD, "target": "a" * 21}, "20 positions"),
        ({**GOOD, "target": "a\u1234"}, "at position 1"),
        ({"name": "x", "reference_ids": [1, 2], "target_ids": []}, "'target_ids'"),
        ({"name": "x", "reference_ids": [1, 2], "target_ids": "12"}, "'target_ids'"),
        (
            {"name": "x", "reference_ids": [1, 256], "target_ids": [1, 2]},
            "256 at position 1",
        ),
        (
            {"name": "x", "reference_ids": [1, -1], "target_ids": [1, 2]},
            "-1 at position 1",
        ),
        ({"name": "x", "reference_ids": [1, True], "target_ids": [1, 2]}, "True"),
        ({"name": "x", "reference_ids": [1, 2.0], "target_ids": [1, 2]}, "2.0"),
        (
            {"name": "x", "reference_ids": [[1, 2], 3], "target_ids": [1, 2]},
            "'reference_ids'",
        ),
        (GOOD, "taken by line 1"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(PairsError, match=r"pairs\.jsonl:2: .*") as error:
        read(tmp_path, GOOD, line)
    assert message in str(error.value)


def test_a_target_that_would_be_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PairsError, match=r":1: the target is stored whole .* line 2 \('b'\)"):
        read(
            tmp_path,
            {"name": "a", "reference": "xyz", "target": "abc"},
            {"name": "b", "reference": "abcdef", "target": "uvw"},
        )


def test_no_file_and_no_pair(tmp_path: Path) -> None:
    with pytest.raises(PairsError, match="cannot read"):
        read_pairs(tmp_path / "none", tokenize, vocab_size=9, max_positions=9)
    with pytest.raises(PairsError, match="holds no pair"):
        read(tmp_path, "", " ")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(PairsError, match="cannot read"):
        read_pairs(tmp_path / "binary", tokenize, vocab_size=9, max_positions=9)
