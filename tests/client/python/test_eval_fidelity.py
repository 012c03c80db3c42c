"""Intervals, sums, verdicts and the document, from rows made by hand."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from semshare.eval.bootstrap import median_interval
from semshare.eval.fidelity import BUCKETS, LONG, Report
from semshare.eval.fidelity_doc import render, write_document
from semshare.eval.svg import LogAxis
from semshare.eval.targets import ANSWER_PAIRS, PAPER_FACTOR, TARGETS, FidelityTarget
from semshare.texts import CORPUS_CLASSES

RUN = {
    "row": "run",
    "corpus": "d1ge5t",
    "corpus_pairs": 171,
    "model": "smollm2",
    "seed": 7,
    "command": "python -m semshare.eval run --corpus CORPUS",
    "date": "2026-01-02",
    "cpu": "a CPU",
    "cores": 2,
    "threads": 2,
    "dtype": "float32",
    "torch": "2",
    "transformers": "5",
}


def fidelity(pair: str, variant: str, kl: float, **more: Any) -> dict[str, Any]:
    return {
        "row": "fidelity",
        "pair": pair,
        "class": pair.split("/")[0],
        "length": 4300,
        "tokens": 4000,
        "variant": variant,
        "kind": "edited",
        "preset": variant,
        "reason": "",
        "matched": 3900,
        "segments": 3,
        "computed": 0.05,
        "kl_first": kl,
        "kl_mean": 2 * kl,
        "agreement": 1.0,
        "kv_bytes": 4000 * 46080,
        **more,
    }


def timing(pair: str, variant: str, seconds: list[float], **more: Any) -> dict[str, Any]:
    return {
        "row": "timing",
        "pair": pair,
        "class": pair.split("/")[0],
        "length": 4300,
        "tokens": 4000,
        "variant": variant,
        "kinds": ["edited"] * len(seconds),
        "reasons": [],
        "seconds": seconds,
        "full_seconds": [10.0] * len(seconds),
        "kl_first": 0.1,
        "miss": {"kind": "miss", "overhead_s": 0.02},
        "load": 0.1,
        **more,
    }


def test_intervals_hold_their_median() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 100.0]
    found = median_interval(values)
    assert (found.count, found.median) == (5, 3.0)
    assert 1.0 <= found.low < 3.0 < found.high <= 100.0
    assert found == median_interval(values), "the same values give the same interval"
    many = median_interval([float(n) for n in range(200)])
    assert many.high - many.low < 60, "more values tell more"
    one = median_interval([5.0])
    assert (one.low, one.high) == (5.0, 5.0)
    with pytest.raises(ValueError):
        median_interval([])


def test_summaries_join_fidelity_and_timing() -> None:
    report = Report(
        [
            RUN,
            fidelity("words/a", "auto", 0.001),
            fidelity("words/b", "auto", 0.003),
            fidelity("words/c", "auto", 0.5, tokens=900),
            timing("words/a", "auto", [1.0, 3.0, 2.0]),
            timing("words/b", "auto", [10.0, 10.0], kinds=["miss", "edited"]),
        ]
    )
    assert report.kinds() == ["words"]
    found = report.summary("words", LONG, "auto")
    assert found is not None and found.speed_up is not None
    assert (found.pairs, found.kl_first.median) == (2, 0.002)
    assert found.kl_mean.median == pytest.approx(0.004)
    # 10 / 2 and 10 / 10.
    assert found.speed_up.median == pytest.approx(3.0)
    assert found.ttft_hit_s == pytest.approx(2.5), "the miss is no hit"
    assert found.ttft_s == pytest.approx(26 / 5) and found.full_s == pytest.approx(10.0)
    short = report.summary("words", next(iter(BUCKETS)), "auto")
    assert short is not None and short.speed_up is None and short.kl_first.median == 0.5
    assert report.summary("deleted", LONG, "auto") is None
    assert report.miss_shares() == pytest.approx([0.002, 0.002])


@pytest.mark.parametrize(
    ("kl", "seconds", "floor", "missed"),
    [
        (0.010, 0.5, 0.1, set()),
        (0.011, 0.5, 0.1, {"KL first"}),
        (0.010, 1.5, 0.1, {"speed-up"}),
        (0.010, 0.5, 0.039, {"floor"}),
    ],
)
def test_targets_are_judged(kl: float, seconds: float, floor: float, missed: set[str]) -> None:
    report = Report(
        [
            RUN,
            fidelity("words/a", "auto", kl),
            fidelity("words/a", "whole", floor),
            timing("words/a", "auto", [seconds]),
        ]
    )
    judged = report.judge(FidelityTarget("words", "auto", 8.0, 0.01, 0.25))
    assert {name for name, good in judged.met.items() if good is False} == missed
    assert (judged.verdict == "met") == (not missed)
    for name in missed:
        assert name in judged.verdict


def test_mean_kl_is_judged_and_what_is_unknown_is_said() -> None:
    report = Report([RUN, fidelity("words/a", "auto", 0.01, kl_mean=0.051)])
    judged = report.judge(FidelityTarget("words", "auto", 8.0, 0.01))
    assert judged.met == {"speed-up": None, "KL first": True, "KL mean": False}
    assert judged.verdict == "**not met**: KL mean"
    untimed = Report([RUN, fidelity("words/a", "auto", 0.01)])
    assert untimed.judge(FidelityTarget("words", "auto", 8, 0.01)).verdict.startswith(
        "not measured"
    )


def test_the_paper_is_compared_at_equal_recompute() -> None:
    rows = [
        fidelity("words/a", "semsharekv", 0.5, computed=0.16, kind="semsharekv"),
        fidelity("words/a", "fast", 0.01, computed=0.02),
        fidelity("words/a", "balanced", 0.002, computed=0.12),
        fidelity("words/a", "faithful", 0.0001, computed=0.22),
        fidelity("reordered/a", "semsharekv", 0.5, computed=0.16, kind="semsharekv"),
        fidelity("reordered/a", "balanced", 0.25, computed=0.12),
    ]
    words, reordered = Report([RUN, *rows]).paper_ratios()
    # Not faithful, which recomputes more; not fast, which recomputes least.
    assert (words.kind, words.ours, words.ratio) == ("words", 0.002, pytest.approx(250))
    assert words.ratio >= PAPER_FACTOR and words.met is True
    assert reordered.met is None, "no target"
    missed = [fidelity("words/b", "semsharekv", 0.5, kind="miss"), fidelity("words/b", "fast", 0.1)]
    assert Report([RUN, *missed]).paper_ratios() == []


def test_auto_is_put_beside_the_cheapest_preset_that_keeps_its_target() -> None:
    rows = [
        fidelity("words/a", "auto", 0.001, computed=0.10),
        fidelity("words/a", "fast", 0.02, computed=0.04),
        fidelity("words/a", "balanced", 0.008, computed=0.15),
        fidelity("words/a", "faithful", 0.002, computed=0.25),
        # Without every preset, a pair says nothing.
        fidelity("words/b", "auto", 0.5, computed=0.9),
        fidelity("reordered/a", "auto", 0.03, computed=0.08),
        fidelity("reordered/a", "faithful", 0.02, computed=0.2),
        fidelity("deleted/a", "auto", 0.001),
    ]
    words, reordered = Report([RUN, *rows]).choices(0.01)
    assert (words.kind, words.best_name, words.auto.pairs) == ("words", "balanced", 1)
    assert words.best is not None and words.best.computed == 0.15
    assert words.auto.computed == 0.10
    assert (reordered.kind, reordered.best_name, reordered.best) == ("reordered", "", None)
    text = render(Report([RUN, *rows]), [])
    assert "| 1 | `balanced` | 15.0% | 0.0080 | - | 10.0% | 0.0010 | - |" in text
    assert "| 1 | none | - | - | - | 8.0% | 0.0300 | - |" in text


def test_the_gate_counts_a_plan_once_and_controls_apart() -> None:
    rows = [RUN]
    for place, name in enumerate(("a", "b", "c", "d", "e")):
        kl = 0.001 * (place + 1)
        for variant in ("auto", "fast"):  # the same plan
            row = fidelity(f"words/{name}", variant, kl, computed=0.05)
            rows.append(row | {"sentinel_sigma": (place + 1) / 10})
        rows.append(fidelity(f"words/{name}", "zero", 8.0) | {"sentinel_sigma": 2.0})
    together, auto, fast, zero = Report(rows).gates()
    assert (together.name, together.runs) == ("all presets", 5)
    assert together.first == pytest.approx(1.0)
    assert (auto.runs, fast.runs) == (5, 5)
    assert together.above == 2, "0.4 and 0.5 are above the delivered 0.3; 0.3 itself is not"
    assert (zero.name, zero.above, zero.first) == ("`zero`", 5, 0.0)
    text = render(Report(rows), [])
    assert "| all presets | 5 | 1.00 |" in text
    assert "| `zero` | 5 | 0.00 | 0.00 | 2.000 [2.000, 2.000] | 5 of 5 |" in text


def test_the_ablation_shows_what_is_left_of_the_kv() -> None:
    assert "what each part does" not in render(Report([RUN, fidelity("words/a", "auto", 0.1)]), [])
    whole = fidelity("words/a", "auto", 0.1)
    half = fidelity("words/a", "semsharekv", 0.5, kind="semsharekv")
    half["kv_bytes"] = whole["kv_bytes"] // 2
    kept = fidelity("words/a", "semsharekv+retain=0", 0.4, kind="semsharekv")
    text = render(Report([RUN, whole, half, kept]), [])
    line = next(line for line in text.splitlines() if "KV 50%" in line)
    assert "KV 100%" in line


def answer_rows(count: int, wrong: int) -> list[dict[str, Any]]:
    return [
        fidelity(
            f"number/{n}", "auto", 0.0, answer_full=True, answer=n >= wrong, same_answer=n >= wrong
        )
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "wrong", "met"), [(ANSWER_PAIRS, 0, True), (ANSWER_PAIRS, 1, False), (49, 0, False)]
)
def test_answers_decide_by_their_number(count: int, wrong: int, met: bool) -> None:
    text = render(Report([RUN, *answer_rows(count, wrong)]), [])
    expected = f"on {count - wrong} of {count} pairs"
    assert expected in text
    line = next(line for line in text.splitlines() if expected in line)
    assert line.endswith("**not met**.") is not met
    assert ("number/0: full prefill right, reuse wrong" in text) is (wrong > 0)


def test_the_document_says_what_is_missed(tmp_path: Path) -> None:
    rows = [
        RUN,
        fidelity("words/a", "auto", 0.02),
        fidelity("words/a", "faithful", 0.001, computed=0.25),
        fidelity("deleted/a", "auto", 0.0001, kind="fallback", reason="sigma"),
        timing("words/a", "auto", [0.5], load=9.0),
        timing("words/a", "exact_prefix", [9.0], kinds=["miss"], reasons=["low_coverage"]),
        timing("deleted/a", "auto", [9.0], kinds=["miss"], reasons=["cost"]),
    ]
    out = tmp_path / "fidelity.md"
    written = write_document(Report(rows), out)
    assert [path.name for path in written] == [
        "fidelity.md",
        "fidelity-kl.svg",
        "fidelity-speed.svg",
    ]
    for path in written[1:]:
        ElementTree.fromstring(path.read_text())
        assert path.name in out.read_text()
    text = out.read_text()
    assert text.isascii() and max(map(len, text.splitlines())) > 0
    assert "The machine was busy" in text and "9.0 on 2 cores" in text
    words = next(line for line in text.splitlines() if line.startswith("- 5 % of the words"))
    assert "KL first" in words and "`faithful` keeps the KL" in words and "25.0%" in words
    assert "- deleted/a, `auto`: fallback, sigma" in text
    assert "- deleted/a, `auto`, timed: miss (cost)" in text
    assert "low_coverage" not in text, "exact prefixes alone are meant to miss"
    assert "| 20.0x | 1.1x |" in text
    for target in TARGETS:
        assert CORPUS_CLASSES[target.kind] in text
    assert RUN["command"] in text and "d1ge5t" in text
    assert text.splitlines()[2].startswith("2 of the corpus's 171 pairs")
    # Without timings there is no plot of speed, and an old one does not stay.
    write_document(Report(rows[:-3]), out)
    assert not (tmp_path / "fidelity-speed.svg").exists()
    assert "Nothing was timed" in out.read_text()


def test_idle_machines_are_not_called_busy() -> None:
    rows = [RUN, fidelity("words/a", "auto", 0.02), timing("words/a", "auto", [0.5])]
    assert "busy" not in render(Report(rows), [])


def test_axes_are_logarithmic() -> None:
    axis = LogAxis(1e-2, 1e2, 100.0, 500.0)
    assert [axis.at(value) for value in (1e-2, 1.0, 1e2)] == [100.0, 300.0, 500.0]
    assert (axis.at(0.0), axis.at(1e9)) == (100.0, 500.0)
    assert axis.decades() == pytest.approx([1e-2, 1e-1, 1.0, 10.0, 100.0])
