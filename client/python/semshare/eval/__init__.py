"""Fidelity and speed of reuse, against the same model's own full prefill.

    python -m semshare.eval --address HOST:PORT --model smollm2 --pairs pairs.jsonl \\
        --presets auto,fast --out results.jsonl

Each pair's references are stored by another process, then its target is prefilled in interleaved
runs: in full, and through the broker with each preset. KL is KL(P_full || P_reuse) in nats over
the whole vocabulary.

The fidelity report is made of a corpus, in three steps, of which the second may be interrupted:

    python -m semshare.eval corpus --out CORPUS
    python -m semshare.eval run --corpus CORPUS --semshared BINARY --out RESULTS [--timings 5]
    python -m semshare.eval fidelity --results RESULTS --out docs/fidelity.md
"""

from semshare.eval.measure import Measurement, MeasureOptions, Pair, Preset, measure_pair
from semshare.eval.pairs import PairsError, read_pairs
from semshare.eval.prefill import FullPrefill
from semshare.hf.divergence import agreement, kl_divergence

__all__ = [
    "FullPrefill",
    "MeasureOptions",
    "Measurement",
    "Pair",
    "PairsError",
    "Preset",
    "agreement",
    "kl_divergence",
    "measure_pair",
    "read_pairs",
]
