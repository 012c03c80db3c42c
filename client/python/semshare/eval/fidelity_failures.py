"""Where reuse fails, as a section of the fidelity report."""

from __future__ import annotations

from semshare.eval.fidelity import LONG, PRESETS, Judged, Report
from semshare.eval.fidelity_cells import short, table
from semshare.eval.report import format_kl
from semshare.eval.targets import TARGETS
from semshare.eval.variants import EXACT_PREFIX
from semshare.texts import CORPUS_CLASSES

__all__ = ["failures"]

_WORST = 12


def failures(report: Report) -> list[str]:
    """The section: the worst pairs, missed targets, refused pairs, wrong answers."""
    rows = [
        [
            row["pair"],
            str(row["tokens"]),
            row["kind"],
            f"`{row['preset']}`",
            f"{row['matched'] / row['tokens']:.1%}",
            f"{row['computed']:.1%}",
            format_kl(row["kl_first"]),
            format_kl(row["kl_mean"]),
            f"{row['agreement']:.2f}",
        ]
        for row in report.worst("auto", _WORST)
    ]
    header = ["pair", "tokens", "kind", "chosen", "matched", "computed", "KL first", "KL mean"]
    parts = [
        "## Where it fails",
        f"The {len(rows)} pairs with the largest KL of the first token under `auto`:",
        table([*header, "agreement"], rows),
    ]
    missed = [each for each in map(report.judge, TARGETS) if False in each.met.values()]
    if missed:
        lines = [
            f"- {CORPUS_CLASSES[each.target.kind]}, `{each.target.variant}`: "
            + ", ".join(name for name, good in each.met.items() if good is False)
            + _remedy(report, each)
            for each in missed
        ]
        parts += ["Targets that are missed:", "\n".join(lines)]
    parts += _refused(report)
    wrong = [
        f"- {row['pair']}: full prefill {_right(row['answer_full'])}, reuse {_right(row['answer'])}"
        for row in report.answers()
        if row["variant"] == "auto" and row["answer"] != row["answer_full"]
    ]
    if wrong:
        parts += ["Answers under `auto` that differ from full prefill's:", "\n".join(wrong)]
    return parts


def _remedy(report: Report, judged: Judged) -> str:
    """Which preset would keep the KL that `auto` misses, and what it computes."""
    if judged.met["KL first"] is not False:
        return ""
    for preset in PRESETS[1:]:
        found = report.summary(judged.target.kind, LONG, preset)
        if found is not None and found.kl_first.median <= judged.target.kl_first:
            return f" (`{preset}` keeps the KL: {short(found)} at {found.computed:.1%} computed)"
    return " (and no preset keeps the KL)"


def _refused(report: Report) -> list[str]:
    lines = [
        f"- {row['pair']}, `{row['variant']}`: {row['kind']}, {row['reason']}"
        for row in report.fidelity
        if row["kind"] in ("miss", "fallback") and row["class"] != "unrelated"
    ]
    lines += [
        f"- {row['pair']}, `{row['variant']}`, timed: {', '.join(row['kinds'])} "
        f"({', '.join(row['reasons'])})"
        for row in report.timing
        # Exact prefixes alone miss wherever the beginning has changed: that is what they show.
        if row["class"] != "unrelated"
        and row["variant"] != EXACT_PREFIX
        and {"miss", "fallback"} & set(row["kinds"])
    ]
    if not lines:
        return []
    return ["Pairs that were not reused, or fell back to a full prefill:", "\n".join(lines)]


def _right(right: bool) -> str:
    return "right" if right else "wrong"
