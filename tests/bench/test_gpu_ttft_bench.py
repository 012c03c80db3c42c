"""The GPU benchmark's program, on a small model and a CPU broker."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

sys.path[:0] = [
    str(Path(__file__).parent),
    str(Path(__file__).parents[2] / "client" / "python"),
]

import gpu_ttft_bench  # noqa: E402  (it is a script, found by the path above)

BINARY = os.environ.get("SEMSHARE_SEMSHARED")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_ttft_bench.main(["--semshared", "x"]) == gpu_ttft_bench.NOT_RUN
    assert "not run" in capsys.readouterr().out


def small(binary: str, json_file: Path) -> list[str]:
    return [
        *("--semshared", binary, "--json", str(json_file)),
        *("--shape", "tiny", "--device", "cpu", "--tokens", "1500", "--runs", "1"),
        "--broker=--minimum_gain=0",  # reuse need not pay on a model that small
    ]


@pytest.mark.skipif(not BINARY, reason="SEMSHARE_SEMSHARED names no semshared")
def test_the_program_verifies_and_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert BINARY is not None
    figures = tmp_path / "figures.jsonl"
    assert gpu_ttft_bench.main(small(BINARY, figures)) == 0
    printed = capsys.readouterr().out
    assert "shared_memory" in printed and "no target" in printed
    line = json.loads(figures.read_text())
    assert (line["bench"], line["case"], line["runs"]) == ("gpu_ttft", "tiny/1500", 1)
    assert line["value"] == pytest.approx(1 / line["ratio"])


@pytest.mark.skipif(not BINARY, reason="SEMSHARE_SEMSHARED names no semshared")
def test_wrong_rows_are_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check of layer 0 is what stands between wrong rows and a figure."""
    assert BINARY is not None
    monkeypatch.setattr(gpu_ttft_bench, "ROW_ERROR", {torch.float32: 1e-12})
    figures = tmp_path / "figures.jsonl"
    assert gpu_ttft_bench.main(small(BINARY, figures)) == 1
    assert "layer 0 are off by" in capsys.readouterr().err
    assert not figures.exists()
