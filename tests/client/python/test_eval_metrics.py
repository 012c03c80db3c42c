"""KL, agreement, tables and plots against values made by hand."""

import dataclasses
import io
import json
import math
from pathlib import Path

import pytest
import torch

from semshare.eval import Measurement, Preset, agreement, kl_divergence
from semshare.eval.correlation import spearman
from semshare.eval.plot import draw
from semshare.eval.progress import Progress
from semshare.eval.report import format_kl, format_table, json_line, results_table


def test_spearman_is_of_ranks() -> None:
    assert spearman([1.0, 2.0, 3.0], [1.0, 10.0, 100.0]) == pytest.approx(1.0)
    assert spearman([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1.0)
    # Ranks 0 1.5 1.5 3 against 0 1 2 3.
    assert spearman([1, 2, 2, 5], [1, 2, 3, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert spearman([1.0, 1.0], [1.0, 2.0]) == 0.0
    with pytest.raises(ValueError, match="no correlation"):
        spearman([1.0], [1.0])


MEASUREMENT = Measurement(
    pair="moved",
    preset="auto",
    kind="shifted",
    target_tokens=4000,
    matched_tokens=3900,
    recomputed_share=0.03,
    kl_first=0.002,
    kl_mean=0.004,
    agreement=0.96875,
    ttft_s=0.8,
    ttft_full_s=8.0,
    ttft_spread_s=(0.7, 0.9),
    ttft_full_spread_s=(7.5, 8.5),
    lookup_s=0.01,
    transfer_s=0.2,
    wait_s=0.01,
    compute_s=0.5,
    overhead_s=0.3,
    runs=5,
    fallbacks=0,
    fallback_reason=None,
)


def logits_of(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_kl_is_what_the_definition_gives() -> None:
    p, q = logits_of(0.5, 0.5), logits_of(0.25, 0.75)
    assert float(kl_divergence(p, q)) == pytest.approx(0.5 * math.log(4 / 3), rel=1e-12)
    # Not symmetric: 0.25 ln(1/2) + 0.75 ln(3/2).
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert float(kl_divergence(q, p)) == pytest.approx(expected, rel=1e-12)


def test_kl_ignores_a_constant_and_the_dtype_of_logits() -> None:
    p = torch.tensor([1.0, 2.0, 3.0])
    assert float(kl_divergence(p, p + 7)) == pytest.approx(0.0, abs=1e-15)
    assert float(kl_divergence(p.bfloat16(), p.double())) == 0.0
    assert kl_divergence(p, p).dtype == torch.float64


def test_kl_is_per_row() -> None:
    rows = torch.stack([logits_of(0.5, 0.5), logits_of(0.1, 0.9)])
    other = torch.stack([logits_of(0.25, 0.75), logits_of(0.1, 0.9)])
    kl = kl_divergence(rows, other)
    assert kl.shape == (2,)
    assert kl.tolist() == pytest.approx([0.5 * math.log(4 / 3), 0.0], abs=1e-12)


def test_kl_keeps_tiny_distances() -> None:
    # KL of a shift by e in one of many logits is about p (1 - p) e^2 / 2; fp32 would lose it.
    p = torch.zeros(1000, dtype=torch.float64)
    q = p.clone()
    q[0] += 1e-4
    assert float(kl_divergence(p, q)) == pytest.approx(0.001 * 0.999 * 1e-8 / 2, rel=1e-3)


def test_kl_of_impossible_tokens() -> None:
    p = torch.tensor([0.0, 0.0, -torch.inf])
    assert float(kl_divergence(p, p)) == 0.0
    assert float(kl_divergence(torch.zeros(3), p)) == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_logits_are_no_perfect_match(bad: float) -> None:
    p = torch.tensor([0.0, bad])
    with pytest.raises(ValueError, match="reuse"):
        kl_divergence(torch.zeros(2), p)
    with pytest.raises(ValueError, match="full"):
        agreement(p[None], torch.zeros(1, 2))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\[2\] and \[3\]"):
        kl_divergence(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="rows"):
        agreement(torch.zeros(2), torch.zeros(2))


def test_agreement_counts_equal_argmax() -> None:
    full = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    reuse = torch.tensor([[9.0, 0.0], [0.0, 0.1], [0.0, 1.0], [0.0, 1.0]])
    assert agreement(full, reuse) == 0.75


@pytest.mark.parametrize("text", ["auto", "fast:fuzzy", " heads ", "auto@0.002", "fast:exact@0.1"])
def test_presets_parse_and_print(text: str) -> None:
    assert str(Preset.parse(text)) == text.strip()


@pytest.mark.parametrize("text", ["", ":exact", "fast:", " "])
def test_bad_presets_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="PRESET"):
        Preset.parse(text)


@pytest.mark.parametrize("text", ["auto@", "auto@x", "auto@0", "auto@-1", "auto@nan", "auto@inf"])
def test_bad_kl_targets_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Preset.parse(text)


def test_tables_align() -> None:
    lines = format_table(["a", "number"], [["long name", "1"], ["b", "1000000"]], left=1).split(
        "\n"
    )
    assert lines == [
        "a           number",
        "---------  -------",
        "long name        1",
        "b          1000000",
    ]


def test_kl_is_readable() -> None:
    values = [0.0, 3.21e-7, 0.00012, 0.5]
    assert [format_kl(each) for each in values] == ["0", "3e-07", "0.0001", "0.5000"]


def test_results_tell_speed_and_reasons() -> None:
    missed = dataclasses.replace(
        MEASUREMENT, pair="other", kind="fallback", fallbacks=2, fallback_reason="sigma"
    )
    table = results_table([MEASUREMENT, missed])
    assert "10.0x" in table and "97.5%" in table and "0.0020" in table
    assert "answer" not in table
    assert table.endswith("other, auto: fallback in 2 of 5 runs, sigma")
    answered = dataclasses.replace(MEASUREMENT, answer_full=True, answer_reuse=False)
    assert "yes/no" in results_table([answered])


def test_json_lines_hold_every_field() -> None:
    line = json.loads(json_line(MEASUREMENT, threads=2))
    names = {field.name for field in dataclasses.fields(Measurement)}
    assert set(line) == names - {"answer_full", "answer_reuse"} | {"threads"}
    assert line["ttft_spread_s"] == [0.7, 0.9]
    answered = dataclasses.replace(MEASUREMENT, answer_full=True, answer_reuse=False)
    assert json.loads(json_line(answered))["answer_reuse"] is False
    with pytest.raises(ValueError):
        json_line(dataclasses.replace(MEASUREMENT, kl_first=math.nan))


def test_plot_is_a_png(tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    missed = dataclasses.replace(MEASUREMENT, pair="other", kind="miss", kl_first=0.0)
    fast = dataclasses.replace(MEASUREMENT, preset="fast", kl_first=0.3, ttft_s=0.4)
    draw([MEASUREMENT, fast, missed], path, "a title")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) > 10_000


def test_progress_without_a_terminal_is_plain_lines() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    with progress.step("working"):
        progress("half way")
    progress.done()
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["working ...", "half way"]
    assert lines[2].startswith("  done in ")
    assert "\x1b" not in stream.getvalue() and "\r" not in stream.getvalue()


def test_progress_on_a_terminal_overwrites_its_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = Progress(stream)
    with progress.step("working"):
        progress("x" * 500)
    assert stream.getvalue().count("\n") == 1
    assert "working ... " in stream.getvalue().splitlines()[-1]
    assert "x" * 500 not in stream.getvalue()
