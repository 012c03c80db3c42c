"""Time to first token of a random-weight Llama on a GPU, through cuda_ipc.

    python tests/bench/gpu_ttft_bench.py --semshared PATH [--json FILE] [--tokens 5000,16000]
        [--attention sdpa] [--runs N]

A broker with `--backend=cuda` and this worker share one GPU. The worker is Transformers with a
random-weight model of Llama-3.1-8B's shape in bfloat16: what a prefill costs depends on the shape
alone, so no weights are needed. For each length a prompt is stored, and another asked that has the
same document behind another system prompt: every row of it moves.

Verified before anything is timed, against the model's own full prefill of the target: the match is
a hit that came by cuda_ipc, all rows are finite, the rows of layer 0 (which depend on a token and
its position alone, so that realigned rows must be the engine's own) agree with the full prefill's,
and the KL of the first token is what it should be. Random weights tell nothing about quality
otherwise: docs/fidelity.md does that with a real model.

Timed are runs in turns, from ids in hand to first logits, look-up and transfer inside. The limit is
the same model's full prefill, logits of the last token only, in its best form; targets are 6.25x at
5,000 tokens and 12x at 16,000. Exit status 1 if one is missed, 77 without a GPU: 'not run'.

`--shape tiny --device cpu` is the same program on a small model, a CPU broker and shared memory: it
shows that the program works, and its speed-ups mean nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch loads its OpenMP: threads that spin for long while they wait would take the broker's
# core; ones that do not spin at all sleep at each of a prefill's thousands of barriers.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from command import append_line
from transformers import LlamaConfig, LlamaForCausalLM

from semshare.client import BrokerError, Client
from semshare.eval.measure import MeasureOptions, Pair, Preset, time_rounds
from semshare.eval.prefill import FullPrefill
from semshare.hf import CachedModel
from semshare.hf.divergence import kl_divergence
from semshare.quickstart.daemon import Daemon, DaemonError

NOT_RUN = 77
SYSTEM_TOKENS, OTHER_SYSTEM_TOKENS, QUESTION_TOKENS = 96, 128, 24
# A speed-up of at least this much is the aim, by length.
TARGETS = {5000: 6.25, 16000: 12.0}
# Layer 0 against the engine's own rows: a realigned element is rounded twice, and a matrix product
# of another shape may round once more, each by at most 2^-8 of the row's size in bfloat16.
ROW_ERROR = {torch.bfloat16: 3 * 2.0**-8, torch.float32: 1e-4}
KL_LIMIT = 0.05


class NotVerifiedError(Exception):
    """What came back is not what it should be: nothing is timed."""


@dataclass(frozen=True)
class Shape:
    """A model's configuration and the type of its weights and KV."""

    config: dict[str, Any]
    dtype: torch.dtype

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of all layers."""
        width = self.config["hidden_size"] // self.config["num_attention_heads"]
        heads = self.config["num_key_value_heads"]
        return int(self.config["num_hidden_layers"] * 2 * heads * width * self.dtype.itemsize)


SHAPES = {
    "llama-3.1-8b": Shape(
        {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        },
        torch.bfloat16,
    ),
    "tiny": Shape(
        {
            "vocab_size": 4096,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        torch.float32,
    ),
}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; exits with status 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--semshared", required=True, type=Path)
    add("--json", type=Path, help="append a line for each figure")
    add("--tokens", default="5000,16000", help="lengths of the target, separated by commas")
    add("--runs", type=int, default=5, help="timed runs of each (default 5)")
    add("--shape", default="llama-3.1-8b", choices=SHAPES)
    add("--device", default="cuda", choices=("cuda", "cpu"))
    add("--attention", default="sdpa", help="sdpa or flash_attention_2, where it is installed")
    add("--broker", action="append", default=[], metavar="FLAG", help="a flag of the broker")
    parsed = parser.parse_args(arguments)
    parsed.tokens = [int(each) for each in parsed.tokens.split(",")]
    shortest = SYSTEM_TOKENS + OTHER_SYSTEM_TOKENS + QUESTION_TOKENS
    if min(parsed.tokens) < 2 * shortest:
        parser.error(f"--tokens: at least {2 * shortest}")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 0 if it is verified and every target is reached."""
    options = parse_arguments(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu_ttft_bench: not run: torch finds no CUDA device")
        return NOT_RUN
    try:
        return run(options)
    except (NotVerifiedError, DaemonError, BrokerError, OSError) as error:
        print(f"gpu_ttft_bench: {error}", file=sys.stderr)
        return 1


def run(options: argparse.Namespace) -> int:
    """All lengths on one broker and one model."""
    shape = SHAPES[options.shape]
    model = make_model(shape, options)
    where = torch.cuda.get_device_name() if options.device == "cuda" else "CPU, a small model"
    print(
        f"{where}, {options.shape}, {model.dtype}, {options.attention}, torch {torch.__version__}"
    )
    device_bytes = 2 * shape.kv_bytes_per_token * sum(options.tokens) + (256 << 20)
    flags = [f"--backend={options.device}", f"--device_memory_bytes={device_bytes}"]
    flags += options.broker
    passed = True
    with (
        tempfile.TemporaryDirectory(prefix="semshare-bench-") as folder,
        Daemon(options.semshared, Path(folder) / "data", *flags) as daemon,
        Client(daemon.address, timeout_s=60.0) as client,
    ):
        cached = CachedModel(model, client, name=options.shape)
        try:
            for tokens in options.tokens:
                passed = measure(cached, tokens, options) and passed
        finally:
            cached.close()
    return 0 if passed else 1


def make_model(shape: Shape, options: argparse.Namespace) -> Any:
    """The model with random weights, made where it runs.

    Embeddings have size one: as in trained models the residual stream is then mostly the token's
    own, so that a row depends little on what stands far in front of it. With the customary 0.02 it
    is an average over the prompt instead, and the broker's gate, as delivered, refuses the reuse.
    """
    torch.manual_seed(7)
    config = LlamaConfig(**shape.config, attn_implementation=options.attention)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(shape.dtype)
    try:
        with torch.device(options.device):
            model = LlamaForCausalLM(config)
            torch.nn.init.normal_(model.get_input_embeddings().weight)
    finally:
        torch.set_default_dtype(previous)
    return model.eval()


def prompts(tokens: int, vocab: int) -> Pair:
    """A target of `tokens` tokens, and the stored prompt with another system prompt."""
    random = torch.Generator().manual_seed(tokens)

    def part(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocab, (count,), generator=random).tolist())

    document = part(tokens - OTHER_SYSTEM_TOKENS - QUESTION_TOKENS)
    question = part(QUESTION_TOKENS)
    reference = part(SYSTEM_TOKENS) + document + question
    return Pair(f"{tokens}", (reference,), part(OTHER_SYSTEM_TOKENS) + document + question)


def measure(cached: CachedModel, tokens: int, options: argparse.Namespace) -> bool:
    """Stores, verifies, times and prints one length; whether its target is reached."""
    pair = prompts(tokens, cached.description.spec.vocab_size)
    stored = cached.store(pair.references[0], durable=False)
    if stored.error:
        raise NotVerifiedError(f"the reference was not stored: {stored.error}")
    full = FullPrefill(cached.model)
    # A prompt of the same length that nothing is stored of: the worker learns, and tells the
    # broker, what a full prefill costs, which is what decides whether reuse is worth it.
    cached.prefill(tuple(reversed(pair.target)))
    _, truth, cache = full.run(list(pair.target))
    verify(cached, pair, truth, cache, options)
    del cache
    presets = [Preset("auto")]
    full_seconds, timed = time_rounds(
        full, cached, pair, presets, truth, MeasureOptions(runs=options.runs)
    )
    runs = timed[presets[0]]
    kinds = {str(report.kind) for report in runs.reports}
    if kinds & {"miss", "fallback"}:
        raise NotVerifiedError(f"{tokens} tokens: a timed run was no reuse: {sorted(kinds)}")
    whole, reuse = statistics.median(full_seconds), statistics.median(runs.seconds)
    target = TARGETS.get(tokens)
    good = target is None or whole / reuse >= target
    counts = options.device == "cuda" and options.shape == "llama-3.1-8b"
    verdict = "no target" if target is None or not counts else "pass" if good else "FAIL"
    print(
        f"{tokens:6} tokens  full {whole * 1e3:8.1f} ms  reuse {reuse * 1e3:8.1f} ms  "
        f"{whole / reuse:5.1f}x  (target {target or '-'}: {verdict})  "
        f"waiting {statistics.median(each.wait_s for each in runs.reports) * 1e3:.1f} ms, "
        f"KL {max(runs.kl_first):.2g}, {runs.reports[0].transport}"
    )
    append_line(
        options.json,
        {
            "bench": "gpu_ttft",
            "case": f"{options.shape}/{tokens}",
            "value": whole / reuse,
            "unit": "x",
            "limit": "full prefill, s",
            "limit_value": whole,
            "ratio": reuse / whole,
            "runs": options.runs,
        },
    )
    return good or not counts


def verify(
    cached: CachedModel, pair: Pair, truth: torch.Tensor, own: Any, options: argparse.Namespace
) -> None:
    """Raises `NotVerifiedError` unless the reuse is a hit whose rows are the engine's own."""
    result = cached.prefill(pair.target)
    report = result.report
    wanted = "cuda_ipc" if options.device == "cuda" else "shared_memory"
    if report.kind in ("miss", "fallback") or report.transport != wanted:
        raise NotVerifiedError(
            f"{pair.name} tokens: {report.kind} ({report.fallback_reason or report.preset}) by "
            f"'{report.transport}' ({report.inline_reason}), not a hit by {wanted}"
        )
    for layer in result.cache.layers:
        if not bool(torch.isfinite(layer.keys).all() & torch.isfinite(layer.values).all()):
            raise NotVerifiedError(f"{pair.name} tokens: rows that are not finite")
    first, expected = result.cache.layers[0], own.layers[0]
    for name, found, right in (
        ("keys", first.keys, expected.keys),
        ("values", first.values, expected.values),
    ):
        size = right.float().abs().amax(dim=-1, keepdim=True)
        error = float(((found.float() - right.float()).abs() / size).max())
        if error > ROW_ERROR[cached.model.dtype]:
            raise NotVerifiedError(f"{pair.name} tokens: {name} of layer 0 are off by {error:.2g}")
    kl = float(kl_divergence(truth, result.logits))
    if not kl <= KL_LIMIT:
        raise NotVerifiedError(f"{pair.name} tokens: KL {kl:.2g} is more than {KL_LIMIT}")


if __name__ == "__main__":
    sys.exit(main())
