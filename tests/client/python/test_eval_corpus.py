"""The corpus as a file, controls over wrong rows, truths on disk, and runs that go on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_checkpoint import make_checkpoint

from semshare.client import Client
from semshare.eval import FullPrefill, PairsError, cli
from semshare.eval.controls import CONTROLS, TamperedBroker, tampered, turn_rows
from semshare.eval.corpus import CORPUS_FILE, corpus_digest, read_corpus, write_corpus
from semshare.eval.corpus_cli import shown_command
from semshare.eval.oracle import Oracle
from semshare.eval.results import Results, ResultsError
from semshare.eval.variants import ABLATION_VARIANTS, Variant, applies
from semshare.hf import CachedModel, load_model
from semshare.hf.cache import plane_rows
from semshare.hf.rotary import HALF_SPLIT, INTERLEAVED, RotaryRange, RotaryTable, rotate_rows
from semshare.texts import ChatPrompt, CorpusPair, PairMaker, document, fit

BINARY = os.environ.get("SEMSHARE_SEMSHARED", "")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(folder: Path) -> tuple[Any, Any]:
    return load_model(folder)


@pytest.fixture
def no_cost_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model this small is never worth a look-up by the clock: the broker is not told of it."""
    monkeypatch.setattr("semshare.hf.costs.PrefillCosts.message", lambda self: None)


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def pair(name: str, before: str, after: str, **more: Any) -> CorpusPair:
    """A pair whose prompts end in `Q1` and `Q2`."""
    fields: dict[str, Any] = {
        "kind": "words",
        "length": 700,
        "group": "g",
        "text": "t",
        "license": "l",
        "seed": 1,
        **more,
    }
    return CorpusPair(
        name=name,
        reference=(before + "Q1",),
        target=after + "Q2",
        reference_tail="Q1",
        tail="Q2",
        **fields,
    )


def read(path: Path) -> Any:
    return read_corpus(path, letters, vocab_size=256, max_positions=40)


def test_corpus_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / CORPUS_FILE
    pairs = [
        pair("a", "abc", "abd", answer="d"),
        pair("b", "abc", "abc", kind="question"),
        pair("c", "xyz", "xyzQ1", kind="chat"),
    ]
    assert write_corpus(path, pairs) == 3
    first, same, chat = read(path)
    assert (first.name, first.kind, first.length, first.group) == ("a", "words", 700, "g")
    assert first.pair.references == (tuple(letters("abcQ1")),)
    assert (first.pair.target, first.pair.answer) == (tuple(letters("abdQ2")), "d")
    assert first.whole == tuple(letters("abcQ2")), "the reference with the target's question"
    assert same.whole is None and chat.whole is None, "the target itself is that"
    digest = corpus_digest(path)
    write_corpus(path, pairs)
    assert corpus_digest(path) == digest
    write_corpus(path, pairs[:2])
    assert corpus_digest(path) != digest


def test_bad_corpora_are_named(tmp_path: Path) -> None:
    path = tmp_path / CORPUS_FILE
    good = pair("a", "abc", "abd")

    def refused(*pairs: CorpusPair) -> str:
        write_corpus(path, pairs)
        with pytest.raises(PairsError) as error:
            read(path)
        return str(error.value)

    assert ":2: no class 'odd'" in refused(good, pair("b", "abc", "x", kind="odd"))
    assert "two pairs of one name" in refused(good, good)
    assert "holds no pair" in refused()
    assert "supports 40 positions" in refused(pair("b", "a" * 50, "b"))
    stored = pair("b", "abdQ2 and on ", "y")
    assert "target of 'a' is stored whole" in refused(good, stored)
    elsewhere = pair("b", "abdQ2 and on ", "y", group="h")
    write_corpus(path, [good, elsewhere])
    assert len(read(path)) == 2, "another group is another broker"
    write_corpus(path, [good])
    path.write_text(path.read_text().replace('"tail": "Q2"', '"tail": "Q3"'))
    with pytest.raises(PairsError, match=":1: a prompt does not end in its tail"):
        read(path)
    path.write_text("{\n")
    with pytest.raises(PairsError, match=":1:"):
        read(path)


@pytest.mark.parametrize("pairing", [HALF_SPLIT, INTERLEAVED])
def test_rows_turn_as_the_engine_turns_them(pairing: int) -> None:
    rng = np.random.default_rng(3)
    turn = RotaryRange(RotaryTable(np.array([1.0, 0.25, 0.01]), 1.0), 2, pairing)
    rows = torch.from_numpy(rng.standard_normal((4, 2, 10)))
    before, after = np.array([0, 5, 90, 7]), np.array([3, 5, 4000, 0])
    turned = turn_rows(rows, turn, before, after)
    for index in range(4):
        expected = rotate_rows(rows[index].numpy(), turn, int(before[index]), int(after[index]))
        np.testing.assert_allclose(turned[index].numpy(), expected, atol=1e-12)
    assert torch.equal(turned[1], rows[1])
    torch.testing.assert_close(turn_rows(turned, turn, after, before), rows)


def test_controls_change_the_rows_that_are_kept(
    broker: Any, tiny: tuple[Any, Any], no_cost_gate: None
) -> None:
    model, tokenizer = tiny
    source = fit(document("tide_station"), 300, lambda text: len(text.split()))
    maker = PairMaker(source, source, 3)
    reference = tokenizer(maker.reference().text()).input_ids
    target = tokenizer(maker.prompt("system").text()).input_ids
    cached = CachedModel(model, broker)
    assert not cached.store(reference).error
    _, _, own = FullPrefill(model).run(reference)
    offset = len(target) - len(reference)
    assert offset > 0
    # A token in the middle of the document, far from every seam.
    at = len(target) // 2

    def keys(control: str | None, seed: int = 1) -> torch.Tensor:
        if control is None:
            result = cached.prefill(target, preset="fast")
        else:
            with tampered(cached, control, seed):
                result = cached.prefill(target, preset="fast")
        assert result.report.kind in ("shifted", "edited")
        assert result.report.transport == "inline" or control is None
        return plane_rows(result.cache, 1, 0)[at].clone()

    honest = keys(None)
    assert keys("zero").abs().max() == 0
    unrotated = keys("unrotated")
    torch.testing.assert_close(unrotated, own.layers[1].keys[0, :, at - offset], atol=1e-5, rtol=0)
    assert (unrotated - honest).abs().max() > 1e-3
    noise = keys("random")
    assert torch.equal(noise, keys("random")) and not torch.equal(noise, keys("random", seed=2))
    assert (noise - honest).abs().max() > 1e-3
    torch.testing.assert_close(keys(None), honest, msg="the honest broker is back")
    cached.close()


def test_controls_switch_the_gate_off() -> None:
    match = SimpleNamespace(
        plan=SimpleNamespace(sigma_limit=0.5),
        segments=[SimpleNamespace(source_begin=3, target_begin=1, tokens=2)],
    )
    answer = SimpleNamespace(match=match, WhichOneof=lambda _: "match")
    real = SimpleNamespace(find_match=lambda request: answer, shm_socket=lambda: "/socket")
    broker = TamperedBroker(real, SimpleNamespace(), torch.float32, "zero", 1)  # type: ignore[arg-type]
    assert broker.find_match(None).match.plan.sigma_limit == 0.0
    assert broker.shm_socket() == ""
    with pytest.raises(ValueError, match="no control 'odd'"):
        TamperedBroker(real, SimpleNamespace(), torch.float32, "odd", 1)  # type: ignore[arg-type]


def test_truths_are_computed_once(tmp_path: Path, tiny: tuple[Any, Any]) -> None:
    full = FullPrefill(tiny[0])
    ids = list(range(3, 60))
    first = Oracle(full, b"model", tmp_path, 5)
    truth = first.truth(ids)
    assert len(truth.tokens) == 5 and truth.logits.argmax(dim=-1).tolist() == truth.tokens
    again = Oracle(full, b"model", tmp_path, 5)
    kept = again.truth(tuple(ids))
    assert (first.computed, again.computed) == (1, 0)
    assert kept.tokens == truth.tokens and torch.equal(kept.logits, truth.logits)
    for other in (Oracle(full, b"other", tmp_path, 5), Oracle(full, b"model", tmp_path, 6)):
        other.truth(ids)
        assert other.computed == 1
    again.truth([*ids, 60])
    assert again.computed == 1


def test_results_go_on_after_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.jsonl"
    results = Results(path)
    results.add({"row": "run", "corpus": "d1"})
    results.add({"row": "fidelity", "pair": "a", "variant": "auto", "kl_first": 0.5})
    with path.open("a") as out:
        out.write('{"row": "fidelity", "pair": "b", "vari')
    again = Results(path)
    assert again.rows == results.rows
    assert again.has("fidelity", "a", "auto")
    assert not again.has("timing", "a", "auto") and not again.has("fidelity", "b", "auto")
    again.require_corpus("d1")
    with pytest.raises(ResultsError, match="another corpus"):
        again.require_corpus("d2")
    again.add({"row": "timing", "pair": "a", "variant": "auto"})
    assert len(Results(path).rows) == 3
    with pytest.raises(ValueError):
        again.add({"row": "timing", "seconds": float("nan")})
    for bad in ('{"row": "odd"}\n', "[]\n", "{\n"):
        path.write_text(bad)
        with pytest.raises(ResultsError, match=":1:"):
            Results(path)


def test_variants_of_the_paper_name_their_numbers() -> None:
    name = "semsharekv+alpha_recompute=0.9+retain=0"
    variant = Variant.parse(name)
    assert variant.name == name
    assert variant.preset.paper == (("alpha_recompute", 0.9), ("retain", 0.0))
    for wrong in (
        "fast+retain=0",
        "semsharekv+nothing=1",
        "semsharekv+retain",
        "semsharekv+retain=x",
    ):
        with pytest.raises(ValueError):
            Variant.parse(wrong)
    assert [Variant.parse(each).name for each in ABLATION_VARIANTS.split(",")]


def test_variants_say_where_they_apply() -> None:
    names = ("auto", "fast:exact", "auto@0.002", "whole", "exact_prefix", *CONTROLS)
    found = {name: Variant.parse(name) for name in names}
    assert {name: each.name for name, each in found.items()} == {name: name for name in names}
    assert found["zero"].control == "zero" and found["auto"].control is None
    assert found["exact_prefix"].preset.mode == "exact_prefix"
    with pytest.raises(ValueError):
        Variant.parse("")
    assert applies(found["whole"], "words", True) and not applies(found["whole"], "chat", False)
    assert not applies(found["zero"], "unrelated", True)
    assert applies(found["auto"], "unrelated", True)
    assert applies(found["auto@0.002"], "rewritten-50", True)
    assert not applies(found["auto@0.002"], "words", True)
    assert applies(found["whole"], "number", True) and not applies(found["zero"], "number", True)


def test_shown_commands_have_no_paths() -> None:
    given = ["run", "--corpus", "/home/me/c", "--out", "/home/me/r", "--threads", "2"]
    shown = shown_command(given)
    assert shown == "python -m semshare.eval run --corpus CORPUS --out RESULTS --threads 2"


def small_corpus(folder: Path, count: Any) -> None:
    """Three pairs of one group, one with an answer."""
    source = fit(document("tide_station"), 700, count)
    maker = PairMaker(source, fit(document("apache-2.0"), 700, count), 3)
    before = maker.reference()

    def made(kind: str, after: ChatPrompt, answer: str | None = None) -> CorpusPair:
        return CorpusPair(
            name=f"{kind}/x",
            kind=kind,
            length=700,
            group="g",
            reference=(before.text(),),
            target=after.text(),
            reference_tail=before.tail(),
            tail=after.tail(),
            text="x",
            license="y",
            seed=3,
            answer=answer,
        )

    write_corpus(
        folder / CORPUS_FILE,
        [
            made("system", maker.prompt("system")),
            made("needle", maker.prompt("words"), "no such answer"),
            made("unrelated", maker.prompt("unrelated")),
        ],
    )


@pytest.mark.skipif(not BINARY, reason="needs the real broker")
def test_a_run_measures_what_lacks(
    tmp_path: Path,
    folder: Path,
    tiny: tuple[Any, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through a broker of its own; then the report from the results. That another process stores
    is test_eval.py's, here it would take most of the time."""
    stored: list[int] = []

    def store(address: str, model: str, pairs: Path, threads: int | None) -> None:
        lines = [json.loads(line) for line in pairs.read_text().splitlines()]
        assert set(lines[0]) == {"name", "reference", "target"} and threads == 1
        with Client(address) as client:
            cached = CachedModel(tiny[0], client)
            texts = {text for line in lines for text in line["reference"]}
            stored.append(len(texts))
            for text in texts:
                assert not cached.store(tiny[1](text).input_ids).error
            cached.close()

    monkeypatch.setattr("semshare.eval.run.store_in_subprocess", store)
    monkeypatch.setattr("semshare.eval.corpus_cli.load_model", lambda name: tiny)
    small_corpus(tmp_path, lambda text: len(tiny[1](text).input_ids))
    out = tmp_path / "results.jsonl"
    arguments = ["run", "--corpus", str(tmp_path), "--semshared", BINARY, "--out", str(out)]
    arguments += ["--model", str(folder), "--threads", "1", "--oracle", str(tmp_path / "oracle")]
    arguments += ["--broker=--sigma_limit=0", "--broker=--device_memory_bytes=268435456"]
    variants = ["--variants", "auto,fast,zero,whole"]
    assert cli.main([*arguments, *variants]) == 0
    assert stored == [1]
    rows = Results(out).rows
    found = [(row["pair"], row["variant"]) for row in rows if row["row"] == "fidelity"]
    assert found == [
        *(("system/x", variant) for variant in ("auto", "fast", "zero", "whole")),
        *(("needle/x", variant) for variant in ("auto", "fast", "whole")),
        *(("unrelated/x", variant) for variant in ("auto", "fast")),
    ]
    by_name = {(row["pair"], row["variant"]): row for row in rows if row["row"] == "fidelity"}
    assert by_name["system/x", "auto"]["kl_first"] < by_name["system/x", "zero"]["kl_first"]
    assert by_name["system/x", "whole"]["kind"] == "exact_prefix"
    assert by_name["unrelated/x", "auto"]["kind"] == "miss"
    needle = by_name["needle/x", "auto"]
    assert (needle["answer_full"], needle["answer"]) == (False, False)
    # Layers x planes x heads x width x bytes of float32.
    assert needle["kv_bytes"] == needle["tokens"] * 4 * 2 * 1 * 16 * 4
    # Nothing is measured twice, and a new variant is.
    assert cli.main([*arguments, *variants]) == 0
    assert stored == [1]
    assert cli.main([*arguments, "--variants", "heads", "--classes", "system"]) == 0
    after = [row for row in Results(out).rows if row["row"] == "fidelity"]
    assert len(after) == len(found) + 1
    timed = [*arguments, "--timings", "2", "--variants", "auto", "--classes", "system"]
    assert cli.main([*timed, "--broker=--minimum_gain=0"]) == 0
    timing = Results(out).rows[-1]
    assert timing["row"] == "timing" and len(timing["seconds"]) == len(timing["full_seconds"]) == 2
    assert timing["miss"]["kind"] == "miss" and timing["miss"]["overhead_s"] > 0
    report = tmp_path / "fidelity.md"
    assert cli.main(["fidelity", "--results", str(out), "--out", str(report)]) == 0
    assert "## Where it fails" in report.read_text()


def test_bad_runs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["run", "--corpus", str(tmp_path), "--semshared", "x", "--out", str(tmp_path / "r")]
    assert cli.main([*base, "--variants", "fast:"]) == 2
    assert cli.main([*base, "--timings", "1", "--variants", "zero"]) == 2
    assert cli.main(base) == 1
    errors = capsys.readouterr().err
    assert "--variants" in errors and "controls are not timed" in errors and CORPUS_FILE in errors
    (tmp_path / CORPUS_FILE).write_text("{}\n")
    (tmp_path / "r").write_text(json.dumps({"row": "run", "corpus": "another"}) + "\n")
    assert cli.main(base) == 2
    assert "another corpus" in capsys.readouterr().err
