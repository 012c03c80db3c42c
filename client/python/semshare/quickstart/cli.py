"""The quickstart's command line and its course."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from semshare.client import BrokerError, Client
from semshare.eval.prefill import FullPrefill
from semshare.eval.progress import Progress
from semshare.eval.report import format_kl, format_table
from semshare.hf import CachedModel, TokenGuard, load_model
from semshare.quickstart.daemon import Daemon, DaemonError, remove_store, sigterm_interrupts
from semshare.quickstart.scenario import (
    SEED,
    SUMMARY_HEADER,
    Answered,
    ask,
    describe,
    make_pairs,
    summary_row,
)
from semshare.texts import DocumentError

__all__ = ["main"]

_WARM_UP_TOKENS = 64
_CTL_S = 20.0
_ALWAYS_REUSED = ("question", "system")


class QuickstartError(Exception):
    """The scenario did not show what it should; the message says what."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; exits with status 2 if it is wrong or a binary is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m semshare.quickstart",
        description="Stores a document, asks a model related prompts, restarts the broker.",
    )
    add = parser.add_argument
    add("--semshared", type=Path, help="the broker's binary: one is started, and stopped again")
    add("--data_dir", type=Path, help="where that broker keeps what is stored")
    add("--fresh", action="store_true", help="empty that folder's store first")
    add("--address", help="use a broker that runs already, HOST:PORT; it is not restarted")
    add("--semsharectl", type=Path, help="the command line tool, to show what is stored")
    add("--model", default="smollm2", help="smollm2, a folder, a GGUF file, or a name")
    add("--threads", type=int, help="CPU threads of the model (default: torch's own)")
    parsed = parser.parse_args(arguments)
    if parsed.address is not None:
        if parsed.semshared is not None or parsed.data_dir is not None or parsed.fresh:
            parser.error("--address goes without --semshared, --data_dir and --fresh")
    elif parsed.semshared is None or parsed.data_dir is None:
        parser.error("--semshared and --data_dir are required, or --address")
    for binary in (parsed.semshared, parsed.semsharectl):
        if binary is not None and not os.access(binary, os.X_OK):
            parser.error(f"{binary} is not there or cannot be run; build it first (README.md)")
    if parsed.threads is not None and parsed.threads < 1:
        parser.error("--threads must be at least 1")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the quickstart; returns the exit status."""
    options = parse_arguments(arguments)
    progress = Progress()
    try:
        with sigterm_interrupts():
            _run(options, progress)
    except (QuickstartError, DaemonError, DocumentError, BrokerError, OSError) as error:
        progress.done()
        print(f"\nsemshare.quickstart: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress.done()
        print("\nsemshare.quickstart: interrupted, the broker is stopped", file=sys.stderr)
        return 130
    return 0


def _run(options: argparse.Namespace, progress: Progress) -> None:
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.address is not None:
        _say(f"Using the broker at {options.address}.")
        full, tokenizer = _load(options, progress)
        with Client(options.address) as client:
            client.server_info()
            _ask_all(client, full, tokenizer, progress)
        _show_list(options.semsharectl, options.address)
        return
    if options.fresh:
        remove_store(options.data_dir)
    with Daemon(options.semshared, options.data_dir) as daemon:
        _say(f"The broker runs at {daemon.address}, its data is in {options.data_dir}.")
        full, tokenizer = _load(options, progress)
        with Client(daemon.address) as client:
            answered = _ask_all(client, full, tokenizer, progress)
        _say("Restarting the broker on the same data.", heading=True)
        with progress.step("restarting"):
            daemon.stop()
            daemon.start()
        with Client(daemon.address) as client:
            _ask_again(client, full, tokenizer, answered[0], progress)
        _show_list(options.semsharectl, daemon.address)
    _say("What to try next", heading=True)
    print(_next_steps(options))


def _load(options: argparse.Namespace, progress: Progress) -> tuple[FullPrefill, Any]:
    """The model, warmed up, and its tokenizer."""
    if not progress.live:
        disable_progress_bar()  # Transformers' own, which is for terminals too.

    with progress.step(f"loading {options.model} (the first time takes longest)"):
        model, tokenizer = load_model(options.model)
    full = FullPrefill(model)
    warm_up = tokenizer("Nothing unusual. " * _WARM_UP_TOKENS, add_special_tokens=False)
    full.run(list(warm_up.input_ids[:_WARM_UP_TOKENS]))
    return full, tokenizer


def _ask_all(
    client: Client, full: FullPrefill, tokenizer: Any, progress: Progress
) -> list[Answered]:
    """Stores the document and asks every prompt; prints each, then all in a table."""
    pairs = make_pairs(tokenizer)
    reference = list(tokenizer(pairs[0].reference, add_special_tokens=False).input_ids)
    cached = CachedModel(full.model, client, guard=TokenGuard(tokenizer))
    _say(f"Storing one document prompt of {len(reference):,} tokens.", heading=True)
    with progress.layers(full.model, "prefill, and its upload"):
        stored = cached.store(reference)
    if stored.error or not stored.visible:
        raise QuickstartError(f"the broker did not take the document: {stored.error}")
    new = f"{stored.uploaded_tokens:,} tokens were new"
    _say(f"    stored{' on disk' if stored.durable else ''}; {new}")
    answered = []
    for number, pair in enumerate(pairs, start=1):
        _say(f"{number} of {len(pairs)}: {pair.title}", heading=True)
        answered.append(ask(cached, full, tokenizer, pair, progress))
        print(describe(answered[-1]), flush=True)
    cores, dtype = os.cpu_count(), str(full.model.dtype).removeprefix("torch.")
    _say(
        f"Time to first token, with and without semshare ({torch.get_num_threads()} threads on "
        f"{cores} cores, {dtype}, seed {SEED})",
        heading=True,
    )
    print(format_table(SUMMARY_HEADER, [summary_row(each) for each in answered], left=2))
    print(
        "\nKL is the distance of the first token's distribution from that of the model's own full\n"
        "prefill, in nats. The unrelated prompt is a miss: the model answers as if semshare were\n"
        "not there."
    )
    _check(answered)
    return answered


def _check(answered: list[Answered]) -> None:
    """Raises `QuickstartError` if reuse does not work at all.

    An edited prompt may fall back where the broker finds its rows too far off; a moved document
    and another question may not, and the unrelated prompt must be a miss.
    """
    wrong = [
        f"'{each.pair.title}' was a {each.kind} ({each.reason or 'no reason given'})"
        for each in answered
        if (each.pair.name == "unrelated" and each.kind != "miss")
        or (each.pair.name in _ALWAYS_REUSED and each.kind in ("miss", "fallback"))
    ]
    if wrong:
        raise QuickstartError("unexpected: " + "; ".join(wrong))


def _ask_again(
    client: Client, full: FullPrefill, tokenizer: Any, before: Answered, progress: Progress
) -> None:
    """Asks one prompt of a restarted broker; raises `QuickstartError` if it has forgotten."""
    cached = CachedModel(full.model, client, guard=TokenGuard(tokenizer))
    ids = list(tokenizer(before.pair.target, add_special_tokens=False).input_ids)
    with progress.step(f"asking again: {before.pair.title}"):
        result = cached.prefill(ids)
    report = result.report
    if report.matched_tokens == 0:
        raise QuickstartError(
            f"after the restart the document was not found: {report.fallback_reason or report.kind}"
        )
    same = torch.equal(result.logits, before.logits)
    difference = float((result.logits - before.logits).abs().max())
    matched = f"{report.matched_tokens:,} of {len(ids):,} tokens matched"
    print(
        f"    found again: {report.kind}, {matched}, "
        f"first token after {report.ttft_s:.2f} s\n"
        f"    logits are {'the same bit for bit' if same else f'within {format_kl(difference)}'}"
    )


def _show_list(semsharectl: Path | None, address: str) -> None:
    """What `semsharectl list` prints; the tool is an extra here and may fail."""
    if semsharectl is None:
        return
    command = [str(semsharectl), f"--address={address}", "list"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CTL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"    semsharectl list: {error}", file=sys.stderr)
        return
    print("\n    $ semsharectl list")
    for line in (done.stdout or done.stderr).rstrip().splitlines():
        print(f"    {line}")


def _next_steps(options: argparse.Namespace) -> str:
    # With its default flags the broker listens on 127.0.0.1:7700, and the tool looks there.
    empties = "\n    (the next quickstart empties that store, once this is stopped)"
    kept = empties if options.fresh else ""
    return f"""\
    . deploy/env.sh
    semshared --data_dir={options.data_dir} &{kept}
    semsharectl list
    semsharectl stats
    python -m semshare.texts --document gpl-3 --out pairs.jsonl
    python -m semshare.eval --address 127.0.0.1:7700 --model {options.model} \\
        --pairs pairs.jsonl --presets auto,fast,balanced --out results.jsonl

README.md shows how to use it from Python; docs/quickstart.md explains what was printed here."""


def _say(text: str, heading: bool = False) -> None:
    """One line on stdout; headings stand out where there is a terminal."""
    if heading:
        bold = sys.stdout.isatty()
        text = f"\n\x1b[1m{text}\x1b[0m" if bold else f"\n{text}"
    print(text, flush=True)
