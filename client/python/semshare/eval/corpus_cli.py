"""The command line of the fidelity report: `corpus`, `run` and `fidelity`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from semshare.client import BrokerError
from semshare.eval.corpus import CORPUS_FILE, corpus_digest, read_corpus, write_corpus
from semshare.eval.fidelity import Report
from semshare.eval.fidelity_doc import write_document
from semshare.eval.machine import describe_machine
from semshare.eval.oracle import oracle_folder
from semshare.eval.pairs import PairsError, tokenize_with
from semshare.eval.progress import Progress
from semshare.eval.results import Results, ResultsError
from semshare.eval.run import CorpusRun, RunOptions
from semshare.eval.store import StoreError
from semshare.eval.variants import (
    ABLATION_VARIANTS,
    DEFAULT_VARIANTS,
    TIMED_VARIANTS,
    Variant,
)
from semshare.hf import load_model
from semshare.quickstart.daemon import DaemonError, sigterm_interrupts
from semshare.texts import CORPUS_CLASSES, DocumentError, build_corpus

__all__ = ["COMMANDS", "main"]

DEFAULT_SEED = 7

_PATHS = {
    "--corpus": "CORPUS",
    "--semshared": "build/release/server/semshared",
    "--out": "RESULTS",
    "--oracle": "ORACLE",
}


def main(arguments: Sequence[str]) -> int:
    """Runs one of `COMMANDS`; 0, 1 (it failed, or time ran out before the end), 2 (bad input)."""
    options = _parser().parse_args(arguments)
    options.shown = shown_command(arguments)
    progress = Progress()
    try:
        with sigterm_interrupts():
            status: int = COMMANDS[options.command](options, progress)
    except (PairsError, ResultsError, DocumentError) as error:
        return _fail(progress, error, 2)
    except (StoreError, DaemonError, BrokerError, OSError) as error:
        return _fail(progress, error, 1)
    except KeyboardInterrupt:
        return _fail(progress, "interrupted; the same command goes on", 130)
    return status


def shown_command(arguments: Sequence[str]) -> str:
    """The command for a reader: paths are his own."""
    shown = ["python -m semshare.eval"]
    for before, argument in zip(["", *arguments], arguments, strict=False):
        shown.append(_PATHS.get(before, argument))
    return " ".join(shown)


def _fail(progress: Progress, error: Any, status: int) -> int:
    progress.done()
    print(f"semshare.eval: {error}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m semshare.eval", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    corpus = commands.add_parser("corpus", help="write the corpus from installed packages")
    corpus.add_argument("--out", required=True, type=Path, help=f"folder for {CORPUS_FILE}")
    corpus.add_argument("--model", default="smollm2", help="whose tokens the lengths are in")
    corpus.add_argument("--seed", type=int, default=DEFAULT_SEED, help="of every edit")
    _add_run(commands.add_parser("run", help="measure what the results lack"))
    fidelity = commands.add_parser("fidelity", help="write the report from the results")
    fidelity.add_argument("--results", required=True, type=Path, help="what `run` has written")
    fidelity.add_argument(
        "--out", required=True, type=Path, help="the Markdown file; plots go beside"
    )
    fidelity.add_argument("--note", default="", help="what a reader should know of these results")
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--corpus", required=True, type=Path, help=f"the folder with {CORPUS_FILE}")
    add("--semshared", required=True, type=Path, help="the broker's binary")
    add("--out", required=True, type=Path, help="JSON lines, appended")
    add("--model", default="smollm2", help="smollm2, a folder, a GGUF file, or a name")
    add(
        "--variants",
        help=f"default {DEFAULT_VARIANTS}; with --timings {TIMED_VARIANTS}; "
        f"'ablation': {ABLATION_VARIANTS}",
    )
    add("--timings", type=int, default=0, help="timed rounds of each pair instead of fidelity")
    add("--classes", default=",".join(CORPUS_CLASSES), help="classes, separated by commas")
    add("--lengths", help="nominal lengths, separated by commas (default: all)")
    add("--first", type=int, help="only so many pairs of each class and length")
    add("--seconds", type=float, default=float("inf"), help="begin no pair after this time")
    add("--threads", type=int, help="CPU threads of the model (default: torch's own)")
    add("--seed", type=int, default=DEFAULT_SEED, help="of the random rows")
    add("--broker", action="append", default=[], metavar="FLAG", help="a flag of the broker")
    add("--oracle", type=Path, default=oracle_folder(), help="where truths are kept")


def _corpus(options: argparse.Namespace, progress: Progress) -> int:
    tokenize = tokenize_with(_tokenizer(options.model))
    path = options.out / CORPUS_FILE
    with progress.step(f"writing {path}"):
        pairs = build_corpus(options.seed, lambda text: len(tokenize(text)))
        count = write_corpus(path, pairs)
    progress.done()
    print(f"{path}: {count} pairs, seed {options.seed}, sha256 {corpus_digest(path)}")
    return 0


def _tokenizer(name: str) -> Any:
    if Path(name).is_dir():
        return AutoTokenizer.from_pretrained(name)
    return load_model(name)[1]


def _run(options: argparse.Namespace, progress: Progress) -> int:
    try:
        default = TIMED_VARIANTS if options.timings else DEFAULT_VARIANTS
        names = (options.variants or default).replace("ablation", ABLATION_VARIANTS).split(",")
        variants = tuple(dict.fromkeys(map(Variant.parse, names)))
    except ValueError as error:
        raise PairsError(f"--variants: {error}") from error
    if options.timings and any(each.control for each in variants):
        raise PairsError("--timings: controls are not timed")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    path = options.corpus / CORPUS_FILE
    results = Results(options.out)
    digest = corpus_digest(path)
    results.require_corpus(digest)
    if not progress.live:
        disable_progress_bar()
    with progress.step(f"loading {options.model}"):
        model, tokenizer = load_model(options.model)
    config = model.config.get_text_config()
    with progress.step("reading the corpus"):
        items = read_corpus(
            path,
            tokenize_with(tokenizer),
            vocab_size=config.vocab_size,
            max_positions=config.max_position_embeddings,
        )
    chosen = _choose(items, options)
    results.add(
        {
            "row": "run",
            "corpus": digest,
            "corpus_pairs": len(items),
            "model": options.model,
            "seed": options.seed,
            "timings": options.timings,
            "variants": ",".join(each.name for each in variants),
            "command": options.shown,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            **describe_machine(model),
        }
    )
    print(f"seed {options.seed}, {len(chosen)} pairs, corpus {digest[:12]}", file=sys.stderr)
    run_options = RunOptions(
        semshared=options.semshared,
        model_name=options.model,
        variants=variants,
        seed=options.seed,
        oracle=options.oracle,
        timings=options.timings,
        threads=options.threads,
        seconds=options.seconds,
        flags=tuple(options.broker),
    )
    left = CorpusRun(model, tokenizer, chosen, results, run_options, progress).measure()
    progress.done()
    print(f"{options.out}: {len(chosen) - left} of {len(chosen)} pairs are measured")
    return 0 if left == 0 else 1


def _choose(items: Sequence[Any], options: argparse.Namespace) -> list[Any]:
    kinds = options.classes.split(",")
    unknown = [kind for kind in kinds if kind not in CORPUS_CLASSES]
    if unknown:
        raise PairsError(f"no class '{unknown[0]}'; there are {', '.join(CORPUS_CLASSES)}")
    lengths = None if options.lengths is None else set(map(int, options.lengths.split(",")))
    chosen: list[Any] = []
    for item in items:
        if item.kind not in kinds or (lengths is not None and item.length not in lengths):
            continue
        before = sum((each.kind, each.length) == (item.kind, item.length) for each in chosen)
        if options.first is None or before < options.first:
            chosen.append(item)
    return chosen


def _fidelity(options: argparse.Namespace, progress: Progress) -> int:
    report = Report(Results(options.results).rows)
    written = write_document(report, options.out, options.note)
    print("\n".join(map(str, written)))
    return 0


COMMANDS = {"corpus": _corpus, "run": _run, "fidelity": _fidelity}
