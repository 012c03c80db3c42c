"""The fidelity report as Markdown, with plots beside it: all of it comes from the results."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from semshare.eval.controls import CONTROLS
from semshare.eval.fidelity import (
    BUCKETS,
    LONG,
    PAPER,
    PRESETS,
    SIGMA_LIMIT,
    Judged,
    Report,
    Summary,
)
from semshare.eval.fidelity_cells import kl, short, table, times
from semshare.eval.fidelity_failures import failures
from semshare.eval.fidelity_plot import kl_plot, speed_plot
from semshare.eval.report import format_kl
from semshare.eval.results import Row
from semshare.eval.targets import (
    ANSWER_PAIRS,
    AUTO_KL_TARGET,
    GATE_SPEARMAN,
    MEAN_FACTOR,
    PAPER_FACTOR,
    TARGETS,
)
from semshare.eval.variants import WHOLE
from semshare.texts import CORPUS_CLASSES

__all__ = ["render", "write_document"]


def write_document(report: Report, out: Path, note: str = "") -> list[Path]:
    """Writes the Markdown file and its plots `NAME-kl.svg`, `NAME-speed.svg`; what was written."""
    plots = {"kl": kl_plot(report), "speed": speed_plot(report)}
    written = []
    names = []
    for name, content in plots.items():
        path = out.with_name(f"{out.stem}-{name}.svg")
        if content is None:
            path.unlink(missing_ok=True)
            continue
        path.write_text(content, encoding="utf-8")
        written.append(path)
        names.append(path.name)
    out.write_text(render(report, names, note), encoding="utf-8")
    return [out, *written]


def render(report: Report, plots: Sequence[str], note: str = "") -> str:
    """The document. `plots` are the names of the files beside it."""
    parts = [
        "# Fidelity",
        *_head(report),
        *([note] if note else []),
        *(f"![{name.rsplit('-', 1)[-1].removesuffix('.svg')} by class]({name})" for name in plots),
        *_targets(report),
        *_by_class(report),
        *_speeds(report),
        *_presets(report),
        *_choices(report),
        *_controls(report),
        *_paper(report),
        *_ablation(report),
        *_gate(report),
        *_answers(report),
        *_costs(report),
        *failures(report),
        *_method(report),
    ]
    return "\n\n".join(parts) + "\n"


def _head(report: Report) -> list[str]:
    run = report.runs[-1]
    pairs = {row["pair"] for row in report.fidelity}
    text = (
        f"{len(pairs)} of the corpus's {run['corpus_pairs']} pairs of prompts, of "
        f"{len(report.kinds())} classes, measured on "
        f"{run['date']} with `{run['model']}` ({run['dtype']}), {run['cpu']}, "
        f"{run['cores']} cores, {run['threads']} threads, torch {run['torch']}, "
        f"transformers {run['transformers']}. "
        "KL is KL(P_full || P_reuse) in nats against the model's own full prefill of the same "
        "prompt, of the first token and as the mean over 32 tokens forced along its greedy "
        "answer; agreement is the share of those tokens that both would choose. Tables give "
        "medians over pairs, in brackets 95 % bootstrap intervals, which for fewer than six pairs "
        "are about their range; a class with one pair has none, and its figures are that pair's."
    )
    return [text, _timing_note(report)]


def _timing_note(report: Report) -> str:
    busiest = report.busiest()
    if busiest is None:
        return "Nothing was timed in these results: no speed-up is given."
    rounds = sorted({len(row["seconds"]) for row in report.timing})
    pairs = {row["pair"] for row in report.timing}
    text = (
        f"{len(pairs)} of the pairs were timed, in {'-'.join(map(str, rounds))} interleaved rounds "
        "of one full prefill and one prefill per variant, from ids in hand to first logits with "
        "look-up and transfer inside; fallbacks count with their full time."
    )
    # The load was read before a pair began: what ran then was somebody else.
    cores = int(report.runs[-1]["cores"])
    if busiest > cores * 0.5 + 2:
        text += (
            f" **The machine was busy** (load average up to {busiest:.1f} on {cores} cores): "
            "speed-ups are provisional."
        )
    return text


def _targets(report: Report) -> list[str]:
    rows = [_target_row(report.judge(target)) for target in TARGETS]
    note = (
        f"Medians at {LONG} tokens. The mean KL may be {MEAN_FACTOR:g} times the target of the "
        "first token. *Floor* is the share of the KL that taking the reference's KV whole has (a "
        "quarter at most where a target is given)."
    )
    header = ["class", "variant", "pairs", "speed-up", "target", "KL first", "target", "KL mean"]
    return ["## Targets", note, table([*header, "floor", "verdict"], rows)]


def _target_row(judged: Judged) -> list[str]:
    target, found = judged.target, judged.summary
    share = "-" if judged.floor_share is None else f"{judged.floor_share:.2f}"
    measured = ["0", "-", "-", "-"]
    if found is not None:
        measured = [
            str(found.pairs),
            "-" if found.speed_up is None else times(found.speed_up),
            kl(found.kl_first),
            kl(found.kl_mean),
        ]
    return [
        CORPUS_CLASSES[target.kind],
        f"`{target.variant}`",
        measured[0],
        measured[1],
        f">= {target.speed_up:g}x",
        measured[2],
        f"<= {format_kl(target.kl_first)}",
        measured[3],
        share,
        judged.verdict if found is not None else "not measured",
    ]


def _by_class(report: Report) -> list[str]:
    rows = []
    for kind in report.kinds():
        for bucket in BUCKETS:
            found = report.summary(kind, bucket, "auto")
            if found is not None:
                rows.append([CORPUS_CLASSES[kind], bucket, *_summary_cells(found)])
    header = ["class", "tokens", "pairs", "matched", "computed", "KL first", "KL mean", "agreement"]
    header += ["speed-up", "TTFT of hits", "TTFT of all", "full", "misses", "fallbacks"]
    return ["## By class and length, preset `auto`", table(header, rows)]


def _summary_cells(found: Summary) -> list[str]:
    def seconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f} s"

    return [
        str(found.pairs),
        f"{found.matched:.1%}",
        f"{found.computed:.1%}",
        kl(found.kl_first),
        kl(found.kl_mean),
        f"{found.agreement:.2f}",
        "-" if found.speed_up is None else times(found.speed_up),
        seconds(found.ttft_hit_s),
        seconds(found.ttft_s),
        seconds(found.full_s),
        str(found.misses),
        str(found.fallbacks),
    ]


def _speeds(report: Report) -> list[str]:
    variants = list(dict.fromkeys(row["variant"] for row in report.timing))
    rows = []
    for kind in report.kinds():
        found = [report.speed(kind, LONG, variant) for variant in variants]
        if any(found):
            cells = ["-" if each is None else times(each) for each in found]
            rows.append([CORPUS_CLASSES[kind], *cells])
    if not rows:
        return []
    note = (
        f"Over the full prefill of the same rounds, {LONG} tokens. `exact_prefix` is what reuse of "
        "exact prefixes alone gives."
    )
    return ["## Speed-up", note, table(["class", *(f"`{v}`" for v in variants)], rows)]


def _presets(report: Report) -> list[str]:
    names = [*PRESETS, "auto@0.002"]
    return [
        "## Presets",
        f"KL of the first token / mean over 32 tokens, and the share computed; {LONG} tokens.",
        _grid(report, names, lambda s: f"{short(s)} at {s.computed:.1%}"),
    ]


def _choices(report: Report) -> list[str]:
    rows = []
    for each in report.choices(AUTO_KL_TARGET):
        best = ["none", "-", "-", "-"]
        if each.best is not None:
            best = [f"`{each.best_name}`", *_choice_cells(each.best)]
        cells = [str(each.auto.pairs), *best, *_choice_cells(each.auto)]
        rows.append([CORPUS_CLASSES[each.kind], *cells])
    if not rows:
        return []
    note = (
        "Beside the preset that computes least among those whose median KL of the first token "
        f"keeps the target of {AUTO_KL_TARGET:g}, which is known only afterwards; {LONG} tokens, "
        "pairs that were run with every preset."
    )
    header = ["class", "pairs", "cheapest that keeps it", "computed", "KL first", "speed-up"]
    header += ["`auto` computed", "KL first", "speed-up"]
    return ["## Does `auto` choose well", note, table(header, rows)]


def _choice_cells(found: Summary) -> list[str]:
    speed = "-" if found.speed_up is None else times(found.speed_up)
    return [f"{found.computed:.1%}", format_kl(found.kl_first.median), speed]


def _controls(report: Report) -> list[str]:
    words = "; ".join(f"*{name}*: {what}" for name, what in CONTROLS.items())
    note = (
        "The same plan as `fast`, with wrong rows in place of the loaded ones and the gate off "
        f"({words}), and *{WHOLE}*: the reference's KV taken whole with the target's question, as "
        "a semantic response cache would. Full prefill and exact prefix reuse have a KL of 0 by "
        "construction: every row is the engine's own. KL first / mean."
    )
    return ["## Controls", note, _grid(report, ["fast", *CONTROLS, WHOLE], short)]


def _grid(report: Report, variants: Sequence[str], cell: Callable[[Summary], str]) -> str:
    rows = []
    for kind in report.kinds():
        found = [report.summary(kind, LONG, variant) for variant in variants]
        if any(found):
            cells = ["-" if each is None else cell(each) for each in found]
            rows.append([CORPUS_CLASSES[kind], *cells])
    return table(["class", *(f"`{name}`" for name in variants)], rows)


def _paper(report: Report) -> list[str]:
    words = {True: "met", False: "**not met**", None: "-"}
    rows = [
        [
            CORPUS_CLASSES[each.kind],
            str(each.pairs),
            format_kl(each.paper),
            format_kl(each.ours),
            f"{each.ratio:.3g}",
            words[each.met],
        ]
        for each in report.paper_ratios()
    ]
    note = (
        f"`{PAPER}` against the preset that recomputes most among those that recompute no more "
        f"than it, pair by pair; {LONG} tokens. Target where there is one: {PAPER_FACTOR:g} times "
        "lower."
    )
    header = ["class", "pairs", f"KL of `{PAPER}`", "KL of ours", "ratio", "verdict"]
    return ["## SemShareKV as published, at equal recompute", note, table(header, rows)]


def _ablation(report: Report) -> list[str]:
    variants = report.paper_variants()
    full = _full_kv_bytes_per_token(report)
    if not variants or full is None:
        return []

    def cell(found: Summary) -> str:
        return f"{short(found)} at {found.computed:.1%}, KV {found.kv_bytes_per_token / full:.0%}"

    note = (
        "The paper's mode with its own numbers (40 % high-deviation tokens, attention recovery "
        "0.55, hot and cold weights 0.5 and 0.1, 16 % computed and 58 % retained on average), and "
        "with one of them changed at a time: KL first / mean, the share computed, and the KV that "
        f"is left of a full prefill's; {LONG} tokens."
    )
    return ["## SemShareKV: what each part does", note, _grid(report, variants, cell)]


def _gate(report: Report) -> list[str]:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    rows = [
        [
            each.name,
            str(each.runs),
            number(each.first),
            number(each.mean),
            f"{each.sigma.median:.3f} [{each.sigma.low:.3f}, {each.sigma.high:.3f}]",
            f"{each.above} of {each.runs}",
        ]
        for each in report.gates()
    ]
    if not rows:
        return []
    note = (
        "Before it goes on, a worker compares 32 sentinel tokens that it has computed itself with "
        "the rows that the broker gave it for them. Spearman's rank correlation of their mean "
        f"*sigma* with the KL that follows (target: {GATE_SPEARMAN:g}), and the runs that the "
        f"delivered limit ({SIGMA_LIMIT:g}) sends back to a full prefill: of sound reuse it should "
        "be none, of wrong rows (the controls, measured with the gate off) all."
    )
    header = ["runs of", "runs", "with KL first", "with KL mean", "sigma", "refused"]
    return ["## Does the gate see it", note, table(header, rows)]


def _answers(report: Report) -> list[str]:
    found = report.answers()
    if not found:
        return []
    rows = []
    for kind in dict.fromkeys(row["class"] for row in found):
        for variant in dict.fromkeys(row["variant"] for row in found):
            mine = [r for r in found if (r["class"], r["variant"]) == (kind, variant)]
            if mine:
                rows.append([CORPUS_CLASSES[kind], f"`{variant}`", *_answer_cells(mine)])
    auto = [row for row in found if row["variant"] == "auto"]
    equal = sum(row["answer"] == row["answer_full"] for row in auto)
    good = len(auto) >= ANSWER_PAIRS and equal == len(auto)
    verdict = (
        f"`auto` is right exactly where full prefill is on {equal} of {len(auto)} pairs (target: "
        f"all of at least {ANSWER_PAIRS}): {'met' if good else '**not met**'}."
    )
    header = ["class", "variant", "pairs", "full prefill right", "reuse right", "same verdict"]
    note = (
        "A code of four digits is put into a text, or changed there, and asked for; right is an "
        "answer of at most 24 tokens that holds it. *Same words*: the whole answers are equal."
    )
    return ["## Facts and numbers", note, table([*header, "same words"], rows), verdict]


def _answer_cells(rows: Sequence[Row]) -> list[str]:
    count = len(rows)
    return [
        str(count),
        str(sum(row["answer_full"] for row in rows)),
        str(sum(row["answer"] for row in rows)),
        str(sum(row["answer"] == row["answer_full"] for row in rows)),
        str(sum(row["same_answer"] for row in rows)),
    ]


def _full_kv_bytes_per_token(report: Report) -> float | None:
    """Of every variant but the paper's, which evicts; None if there is no other."""
    found = [
        row["kv_bytes"] / row["tokens"]
        for row in report.fidelity
        if not row["variant"].startswith(PAPER)
    ]
    return statistics.median(found) if found else None


def _costs(report: Report) -> list[str]:
    per_token = _full_kv_bytes_per_token(report) or 0.0
    parts = [
        f"KV memory of a request: {per_token / 1024:.1f} KiB per token, "
        f"{per_token * 4096 / 2**20:.0f} MiB for 4,096 tokens, under every preset the same as the "
        f"full prefill's. `{PAPER}` alone evicts."
    ]
    shares = report.miss_shares()
    if shares:
        parts.append(
            "Cost of a miss (look-up and the adapter's overhead, for a prompt that nothing stored "
            "resembles, over the median full prefill of its length): median "
            f"{statistics.median(shares):.2%}, largest {max(shares):.2%}, of {len(shares)}."
        )
    else:
        parts.append("Cost of a miss: no miss was timed in these results.")
    return ["## Memory, and the cost of a miss", *parts]


def _method(report: Report) -> list[str]:
    commands = [str(run["command"]) for run in report.runs]
    shown = "\n".join(dict.fromkeys(commands))
    run = report.runs[-1]
    note = (
        f"The corpus is rebuilt from packages (`deploy/setup.sh report`), seed {run['seed']}; its "
        f"file has the SHA-256 `{run['corpus']}`. References are stored by another process into a "
        "broker on an empty folder for each group of pairs; no target is ever stored. For fidelity "
        "the broker runs with `--minimum_gain=0`, so that the clock decides nothing; timed runs "
        "have every gate as delivered. The results were measured by"
    )
    build = "\n".join(
        [
            "deploy/setup.sh report",
            f"python -m semshare.eval corpus --out CORPUS --seed {run['seed']}",
            shown,
            "python -m semshare.eval fidelity --results RESULTS --out docs/fidelity.md",
        ]
    )
    return ["## How it was measured", note, f"```sh\n{build}\n```"]
