"""The command line of the evaluation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from semshare.client import BrokerError, Client
from semshare.eval import corpus_cli
from semshare.eval.measure import Measurement, MeasureOptions, Pair, Preset, measure_pair
from semshare.eval.pairs import PairsError, read_pairs, tokenize_with
from semshare.eval.prefill import FullPrefill
from semshare.eval.progress import Progress
from semshare.eval.report import json_line, results_table
from semshare.eval.store import (
    StoreError,
    distinct_references,
    store_here,
    store_in_subprocess,
)
from semshare.hf import CachedModel, TokenGuard, load_model

__all__ = ["evaluate", "main"]

_WARM_UP_TOKENS = 64


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; exits with status 2 and a usage line if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m semshare.eval",
        description="Fidelity and speed of reuse against the model's own full prefill.",
    )
    add = parser.add_argument
    add("--address", required=True, help="the broker, HOST:PORT")
    add("--model", required=True, help="smollm2, a folder, a GGUF file, or a Transformers name")
    add("--pairs", required=True, type=Path, help="JSON lines: name, reference, target [, answer]")
    add("--presets", default="auto", help="PRESET or PRESET:MODE, separated by commas")
    add("--out", type=Path, help="JSON lines of results; the plot goes beside it as .png")
    add("--runs", type=int, default=5, help="timed runs of each (default 5)")
    add("--kl-target", type=float, help="first-token KL to ask of the broker, nats")
    add("--question-tokens", type=int, help="tokens of the question at each prompt's end")
    add("--threads", type=int, help="CPU threads of the model (default: torch's own)")
    add(
        "--store",
        choices=("subprocess", "here", "none"),
        default="subprocess",
        help="who stores the references: another process (default), this one, or nobody",
    )
    add("--store-only", action="store_true", help="store the references and stop")
    parsed = parser.parse_args(arguments)
    if parsed.out is None and not parsed.store_only:
        parser.error("--out is required")
    if parsed.runs < 1:
        parser.error("--runs must be at least 1")
    if parsed.threads is not None and parsed.threads < 1:
        parser.error("--threads must be at least 1")
    try:
        parsed.presets = list(dict.fromkeys(map(Preset.parse, parsed.presets.split(","))))
    except ValueError as error:
        parser.error(f"--presets: {error}")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the evaluation; returns the exit status: 0, 1 (it failed), 2 (bad input)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in corpus_cli.COMMANDS:
        return corpus_cli.main(given)
    options = parse_arguments(arguments)
    progress = Progress()
    try:
        _run(options, progress)
    except PairsError as error:
        progress.done()
        print(f"semshare.eval: {error}", file=sys.stderr)
        return 2
    except (StoreError, BrokerError, OSError) as error:
        progress.done()
        print(f"semshare.eval: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress.done()
        print("semshare.eval: interrupted", file=sys.stderr)
        return 130
    return 0


def _run(options: argparse.Namespace, progress: Progress) -> None:
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    # Before the model: a wrong file or address should be told at once.
    if not options.pairs.is_file():
        raise PairsError(f"cannot read {options.pairs}: no such file")
    with Client(options.address) as client:
        try:
            client.server_info()
        except BrokerError as error:
            raise StoreError(f"no broker answers at {options.address}: {error}") from error
        if not progress.live:
            disable_progress_bar()  # Transformers' own, which is for terminals too.

        with progress.step(f"loading {options.model}"):
            model, tokenizer = load_model(options.model)
        pairs = read_pairs(
            options.pairs,
            tokenize_with(tokenizer),
            vocab_size=model.config.get_text_config().vocab_size,
            max_positions=model.config.get_text_config().max_position_embeddings,
        )
        if options.store == "subprocess" and not options.store_only:
            with progress.step("storing the references from another process"):
                store_in_subprocess(options.address, options.model, options.pairs, options.threads)
        cached = CachedModel(model, client, guard=TokenGuard(tokenizer))
        if options.store == "here" or options.store_only:
            store_here(cached, distinct_references(pairs), progress)
        if options.store_only:
            progress.done()
            return
        results = evaluate(cached, model, tokenizer, pairs, options, progress)
    progress.done()
    _draw(results, options, model, progress)
    print(results_table(results))


def evaluate(
    cached: Any,
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    options: argparse.Namespace,
    progress: Progress,
) -> list[Measurement]:
    """Measures every pair under every preset, and writes each line of `options.out` when it is
    known. The references are stored already."""
    prefill_options: dict[str, Any] = {}
    if options.kl_target is not None:
        prefill_options["kl_target"] = options.kl_target
    if options.question_tokens is not None:
        prefill_options["question_tokens"] = options.question_tokens
    measuring = MeasureOptions(runs=options.runs, prefill_options=prefill_options)
    full = FullPrefill(model)
    full.run(list(pairs[0].target[:_WARM_UP_TOKENS]))
    machine = {
        "model": options.model,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "threads": torch.get_num_threads(),
    }

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True))

    results: list[Measurement] = []
    with options.out.open("w", encoding="utf-8") as out:
        for pair in pairs:
            found = measure_pair(full, cached, pair, options.presets, measuring, decode, progress)
            for each in found:
                out.write(json_line(each, speed_up=each.speed_up, **machine) + "\n")
            out.flush()
            results += found
            progress.done()
            print(_one_line(found), file=sys.stderr)
    return results


def _one_line(found: Sequence[Measurement]) -> str:
    parts = [f"{each.preset} {each.kind} {each.speed_up:.1f}x" for each in found]
    return f"{found[0].pair}: {', '.join(parts)}"


def _draw(
    results: Sequence[Measurement], options: argparse.Namespace, model: Any, progress: Progress
) -> None:
    try:
        from semshare.eval.plot import draw
    except ImportError as error:
        print(f"semshare.eval: no plot, {error}; pip install matplotlib", file=sys.stderr)
        return
    path = options.out.with_suffix(".png")
    title = f"{options.model}, {torch.get_num_threads()} threads, {options.runs} runs"
    with progress.step(f"drawing {path}"):
        draw(results, path, title)
