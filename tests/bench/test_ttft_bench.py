"""The benchmark's command line and verdict; the benchmark itself is not run here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path[:0] = [
    str(Path(__file__).parent),
    str(Path(__file__).parents[2] / "client" / "python"),
]

import ttft_bench  # noqa: E402  (it is a script, found by the path above)

COMMAND = ["--semshared", "x"]


def names(*arguments: str) -> list[str]:
    return [each.name for each in ttft_bench.parse_arguments([*COMMAND, *arguments]).documents]


def test_documents_are_names_and_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("A text.", encoding="utf-8")
    two.write_text("Another text.", encoding="utf-8")
    assert names() == ["tide_station", "gpl-3"]
    assert names("--documents", "python-types,mpl-1.1") == ["python-types", "mpl-1.1"]
    assert names("--texts", f"{one},{two}") == ["one.txt", "two.txt"]
    assert names("--documents", "gpl-3", "--texts", str(one)) == ["gpl-3", "one.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--documents", "gpl-3"], "two different documents"),
        (["--documents", "gpl-3,gpl-3"], "two different documents"),
        (["--documents", "gpl-3,gpl-9"], "no document 'gpl-9'"),
        (["--texts", "/nowhere,/no"], "cannot read the document"),
        (["--classes", "words,none"], "no class 'none'"),
    ],
)
def test_wrong_arguments_are_told(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        ttft_bench.parse_arguments([*COMMAND, *arguments])
    assert exited.value.code == 2
    assert message in capsys.readouterr().err


def measured(**changed: Any) -> Any:
    fields: dict[str, Any] = {
        "pair": "unrelated",
        "preset": "auto",
        "kind": "miss",
        "target_tokens": 4000,
        "matched_tokens": 0,
        "overhead_s": 0.1,
        "ttft_s": 10.25,
        "ttft_full_s": 10.0,
        "kl_first": 0.0,
        "speed_up": 0.98,
    }
    return SimpleNamespace(**{**fields, **changed})


def test_a_miss_is_judged_by_its_overhead() -> None:
    cells, good = ttft_bench.judge(measured())
    assert good
    assert "miss, 1.00% (+0.25 s)" in cells
    assert not ttft_bench.judge(measured(overhead_s=0.31))[1]
    assert not ttft_bench.judge(measured(kind="fallback"))[1]
