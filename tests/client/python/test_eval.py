"""The evaluation end to end, on a tiny model and the broker fixture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_checkpoint import make_checkpoint

from semshare.eval import FullPrefill, MeasureOptions, Pair, Preset, cli, measure_pair
from semshare.eval.prefill import forced_logits, greedy
from semshare.eval.store import StoreError, store_here
from semshare.hf import CachedModel, load_model
from semshare.texts import CLASSES, PairMaker, document, fit
from semshare.texts import __main__ as texts_main

FIELDS = {
    "pair",
    "preset",
    "kind",
    "target_tokens",
    "matched_tokens",
    "recomputed_share",
    "kl_first",
    "kl_mean",
    "agreement",
    "ttft_s",
    "ttft_full_s",
    "lookup_s",
    "transfer_s",
    "wait_s",
    "compute_s",
    "fallback_reason",
    "runs",
    "ttft_spread_s",
}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def no_cost_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model this small is never worth a look-up by the clock: the broker is not told of it."""
    monkeypatch.setattr("semshare.hf.costs.PrefillCosts.message", lambda self: None)


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> tuple[Any, Any]:
    return load_model(tiny_folder)


NAMES = ("system", "deleted", "unrelated")


def write_pairs(path: Path, names: Sequence[str] = NAMES, **more: Any) -> Path:
    """Pairs of some hundred tokens; `more` goes to every line."""
    source = fit(document("tide_station"), 500, lambda text: len(text.split()))
    other = fit(document("apache-2.0"), 500, lambda text: len(text.split()))
    maker = PairMaker(source, other, 3)
    with path.open("w", encoding="utf-8") as out:
        for name in names:
            pair = maker.make(name)
            line = {
                "name": name,
                "reference": pair.reference,
                "target": pair.target,
                **more,
            }
            out.write(json.dumps(line) + "\n")
    return path


def run_here(
    monkeypatch: pytest.MonkeyPatch, broker: Any, tiny: tuple[Any, Any], *arguments: str
) -> int:
    """`cli.main` in this process, over the broker fixture and a model that is loaded already."""

    class Here:
        def __init__(self, address: str) -> None:
            assert address == "here"

        def __enter__(self) -> Any:
            return broker

        def __exit__(self, *_: Any) -> None:
            pass

    if not hasattr(broker, "server_info"):
        monkeypatch.setattr(broker, "server_info", lambda: None, raising=False)
    monkeypatch.setattr(cli, "Client", Here)
    monkeypatch.setattr(cli, "load_model", lambda name: tiny)
    return cli.main(["--address", "here", "--model", "tiny", "--store", "here", *arguments])


def test_end_to_end(
    tmp_path: Path,
    broker: Any,
    tiny: tuple[Any, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    out = tmp_path / "results.jsonl"
    arguments = ["--pairs", str(pairs), "--out", str(out), "--presets", "fast,faithful"]
    assert run_here(monkeypatch, broker, tiny, *arguments, "--runs", "2") == 0
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(line["pair"], line["preset"]) for line in lines] == [
        (pair, preset) for pair in NAMES for preset in ("fast", "faithful")
    ]
    for line in lines:
        assert set(line) >= FIELDS
        assert line["runs"] == 2
        assert line["ttft_s"] > 0 and line["ttft_full_s"] > 0
        if line["pair"] == "unrelated":
            assert (line["kind"], line["matched_tokens"]) == ("miss", 0)
            assert line["recomputed_share"] == 1.0
            assert line["kl_mean"] < 1e-9 and line["agreement"] == 1.0
        else:
            assert line["kind"] in ("shifted", "edited")
            assert 0 < line["matched_tokens"] <= line["target_tokens"]
            assert line["recomputed_share"] < 1.0
            # Random weights attend weakly: a wrong position or a wrong row would show as more.
            assert 0 <= line["kl_first"] < 1e-3
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    table = capsys.readouterr().out
    assert "speed-up" in table and table.count("\n") >= 8


def test_answers_are_compared(
    tmp_path: Path, broker: Any, tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = tiny
    pairs = write_pairs(
        tmp_path / "pairs.jsonl", ["system"], answer="not in any answer of this model"
    )
    out = tmp_path / "results.jsonl"
    arguments = ["--pairs", str(pairs), "--out", str(out), "--runs", "1"]
    assert run_here(monkeypatch, broker, tiny, *arguments) == 0
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {(line["answer_full"], line["answer_reuse"]) for line in lines} == {(False, False)}
    # What the model does say counts, however it is spaced and capitalised.
    target = json.loads(pairs.read_text(encoding="utf-8").splitlines()[0])["target"]
    ids = tokenizer(target, add_special_tokens=False).input_ids
    _, logits, cache = FullPrefill(model).run(ids)
    said = tokenizer.decode(greedy(model, logits, cache, 8).tokens, skip_special_tokens=True)
    write_pairs(pairs, ["system"], answer=f" {said.strip().upper()}\n")
    assert run_here(monkeypatch, broker, tiny, *arguments) == 0
    line = json.loads(out.read_text(encoding="utf-8").splitlines()[0])
    assert line["answer_full"] is True


def test_forced_logits_of_an_equal_cache_are_those_of_single_steps(tiny: tuple[Any, Any]) -> None:
    model, _ = tiny
    ids = list(range(3, 90))
    full = FullPrefill(model)
    _, logits, cache = full.run(ids)
    decoded = greedy(model, logits, cache, 6)
    assert len(decoded.tokens) == 6 and decoded.logits.shape == (
        6,
        model.config.vocab_size,
    )
    assert decoded.logits.argmax(dim=-1).tolist() == decoded.tokens
    _, logits, cache = full.run(ids)
    forced = forced_logits(model, logits, cache, decoded.tokens)
    torch.testing.assert_close(forced, decoded.logits, rtol=1e-4, atol=1e-4)
    assert torch.equal(forced[0], decoded.logits[0]), "the prefill's own logits are not touched"
    assert cache.get_seq_length() == len(ids) + len(decoded.tokens) - 1
    _, logits, cache = full.run(ids)
    assert torch.equal(forced_logits(model, logits, cache, decoded.tokens[:1]), logits[None])
    # And they are what the model says of the whole text at once.
    with torch.inference_mode():
        whole = model(torch.tensor([ids + decoded.tokens])).logits[0, len(ids) - 1 : -1]
    torch.testing.assert_close(whole, decoded.logits, rtol=1e-4, atol=1e-4)


def test_runs_take_turns_and_fallbacks_count(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    calls: list[str] = []

    class Recorder(FullPrefill):
        def run(self, ids: list[int]) -> Any:
            calls.append("full")
            return super().run(ids)

    full = Recorder(model)

    class FallsBackInTurn:
        """A reuser that computes everything, and says in its second timed run that it had to."""

        def prefill(self, ids: Any, preset: str = "auto", **options: Any) -> Any:
            assert options == {"kl_target": 0.5, "mode": "exact"}
            calls.append(preset)
            _, logits, cache = FullPrefill(model).run(ids)
            fell = calls.count(preset) == 3
            report = SimpleNamespace(
                kind="fallback" if fell else "edited",
                matched_tokens=0 if fell else 5,
                recomputed_share=1.25 if fell else 0.25,
                lookup_s=0.001,
                transfer_s=0.002,
                wait_s=0.0,
                compute_s=0.003,
                overhead_s=0.004,
                fallback_reason="sigma" if fell else "",
            )
            return SimpleNamespace(logits=logits, cache=cache, report=report)

    presets = [Preset("fast", "exact"), Preset("heads", "exact")]
    options = MeasureOptions(runs=2, forced_tokens=4, prefill_options={"kl_target": 0.5})
    pair = Pair("pair", ((1, 2),), tuple(range(3, 40)))
    found = measure_pair(full, FallsBackInTurn(), pair, presets, options, tokenizer.decode)
    assert calls == [
        "full",
        "fast",
        "heads",
        "full",
        "fast",
        "heads",
        "full",
        "heads",
        "fast",
    ]
    for each in found:
        assert (each.kind, each.fallbacks, each.fallback_reason) == (
            "fallback",
            1,
            "sigma",
        )
        assert each.recomputed_share == pytest.approx(0.75)
        assert (each.kl_first, each.agreement, each.lookup_s) == (0.0, 1.0, 0.001)
        assert each.ttft_spread_s[0] <= each.ttft_s <= each.ttft_spread_s[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--presets", "fast,,"], "PRESET"),
        (["--runs", "0"], "--runs"),
        (["--threads", "0"], "--threads"),
        (["--store", "elsewhere"], "--store"),
    ],
)
def test_bad_command_lines(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--address", "x", "--model", "x", "--pairs", "x", "--out", "x"]
    with pytest.raises(SystemExit) as exited:
        cli.main(common + arguments)
    assert exited.value.code == 2
    assert message in capsys.readouterr().err


def test_out_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--address", "x", "--model", "x", "--pairs", "x"])
    assert "--out" in capsys.readouterr().err


def test_a_missing_file_is_told_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    arguments = [
        "--address",
        "127.0.0.1:1",
        "--model",
        "no such",
        "--pairs",
        "/none",
        "--out",
        out,
    ]
    assert cli.main(arguments) == 2
    assert "/none" in capsys.readouterr().err


def test_a_broker_that_is_away_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    out = str(tmp_path / "out")
    # Port 1 of the loopback refuses at once.
    arguments = [
        "--address",
        "127.0.0.1:1",
        "--model",
        "none",
        "--pairs",
        str(pairs),
        "--out",
        out,
    ]
    assert cli.main(arguments) == 1
    assert "no broker answers at 127.0.0.1:1" in capsys.readouterr().err


def test_a_bad_line_is_told(
    tmp_path: Path,
    broker: Any,
    tiny: tuple[Any, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    with pairs.open("a", encoding="utf-8") as more:
        more.write('{"name": "broken"}\n')
    arguments = ["--pairs", str(pairs), "--out", str(tmp_path / "out")]
    assert run_here(monkeypatch, broker, tiny, *arguments) == 2
    assert "pairs.jsonl:4:" in capsys.readouterr().err


def test_a_reference_that_is_refused_stops_the_evaluation() -> None:
    refused = SimpleNamespace(store=lambda ids: SimpleNamespace(error="FULL: no room"))
    with pytest.raises(StoreError, match=r"reference 1 of 2 .* FULL: no room"):
        store_here(refused, [(1, 2), (3, 4)], lambda _: None)


def test_pairs_file_of_the_texts_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pairs.jsonl"
    assert texts_main.main(["--out", str(path), "--document", "gpl-3", "--seed", "9"]) == 0
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["name"] for line in lines] == list(CLASSES)
    assert "seed 9" in capsys.readouterr().out
    assert texts_main.main(["--out", str(tmp_path / "none" / "x")]) == 1


def test_the_report_accounts_for_a_miss(tiny: tuple[Any, Any], broker: Any) -> None:
    model, _ = tiny
    cached = CachedModel(model, broker)
    report = cached.prefill(list(range(3, 300))).report
    assert report.kind == "miss"
    assert report.ttft_s >= report.compute_s + report.overhead_s * 0.5
    cached.close()


@pytest.mark.skipif("SEMSHARE_SEMSHARED" not in os.environ, reason="needs the real broker")
def test_references_are_stored_by_another_process(
    tmp_path: Path, broker: Any, tiny_folder: Path
) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    out = tmp_path / "results.jsonl"
    command = [sys.executable, "-m", "semshare.eval", "--address", broker.address]
    command += ["--model", str(tiny_folder), "--pairs", str(pairs), "--out", str(out)]
    root = str(Path(cli.__file__).parents[2])
    done = subprocess.run(
        [*command, "--runs", "1", "--threads", "1"],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "storing reference 1 of 1" in done.stderr
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["kind"] == "miss" for line in lines] == [False, False, True]
