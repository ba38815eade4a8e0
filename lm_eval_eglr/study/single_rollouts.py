"""What depth does to single rollouts: accuracy, greedy texts won and lost, where the first token changes."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from eglr_selectors import ParsedPool, Rollout, Telemetry
from eglr_selectors.estimators import (
    FirstChange,
    accuracy,
    first_changes,
    holm,
    mcnemar,
    paired_bootstrap,
    pass_at_k,
)

from lm_eval_eglr.reports.tables import Table, Text
from lm_eval_eglr.study.figures_in_text import NONE, mean, p_value, percent, points
from lm_eval_eglr.study.matched import Matched

AGAIN = "decoded again in other batches"
EARLY = 0.25
"""A change in the first quarter of the plain text is an early one."""


def depths(studies: Sequence[Matched]) -> Table:
    """Returns single rollouts by depth: accuracy, difference to plain ones, iterations, lengths."""
    axis = studies[0].axis
    recurrent = axis.symbol == "R"
    rows = []
    for each in studies:
        base = _singles(each, each.baseline)
        for depth in sorted((each.baseline, *each.depths)):
            rollouts = [rollout for parsed in each.part(depth=depth) for rollout in parsed]
            other = depth != each.baseline
            sampled = each.part(depth=depth, greedy=False) if each.has_temperatures else []
            difference = paired_bootstrap(_singles(each, depth), base)
            shown = (
                each.title,
                str(depth),
                percent(mean(accuracy(each.part(depth=depth, greedy=True), "first").values)),
                percent(mean(pass_at_k(sampled, 1).values)) if sampled else NONE,
                points(difference) if other else NONE,
                *(_iterated(rollouts) if recurrent else _gated(rollouts, other)),
                percent(mean([float(rollout.truncated) for rollout in rollouts]), 0),
            )
            rows.append(tuple(map(Text, shown)))
    iterations = ("iterations", "exited, %") if recurrent else ("gated, %", "changed, %", "settled, %")
    header = (
        "task",
        axis.level,
        "T = 0",
        "T > 0",
        f"mean, less {'the deepest' if recurrent else 'span 0'}, points",
        *iterations,
        "cut off, %",
    )
    work = (
        "iterations are per token, exited is the share of tokens whose exit rule was met"
        if recurrent
        else "gated and changed are shares of the tokens, settled is the share of the gated ones whose "
        "recursion met the tolerance"
    )
    note = f"per cent correct of single rollouts; {work}, cut off that of rollouts at the limit"
    return Table(header, tuple(rows), 2, (note,))


def _gated(rollouts: Sequence[Rollout], recursed: bool) -> tuple[str, str, str]:
    """Shares of tokens that the gate opened at and that recursion changed, and of the former that settled."""
    tokens, known = _known(rollouts)
    gated, settled = sum(work.gated_tokens for work in known), sum(work.converged_tokens for work in known)
    changed = [work.changed_tokens for work in known]
    counted = tokens and recursed and None not in changed
    return (
        percent(gated / tokens) if tokens and recursed else NONE,
        percent(sum(count or 0 for count in changed) / tokens, 2) if counted else NONE,
        percent(settled / gated, 0) if gated else NONE,
    )


def _iterated(rollouts: Sequence[Rollout]) -> tuple[str, str]:
    """Iterations per token, and the share of tokens whose exit rule was met."""
    tokens, known = _known(rollouts)
    if not tokens:
        return NONE, NONE
    exited = sum(work.converged_tokens for work in known)
    return f"{sum(work.recursions for work in known) / tokens:.1f}", percent(exited / tokens, 0)


def _known(rollouts: Sequence[Rollout]) -> tuple[int, list[Telemetry]]:
    """Tokens of the rollouts that say how they were decoded, and what they say."""
    known = [(len(rollout.tokens), rollout.telemetry) for rollout in rollouts]
    return sum(n for n, work in known if work is not None), [work for _, work in known if work is not None]


def greedy(studies: Sequence[Matched]) -> Table:
    """Returns greedy rollouts of other depths against plain greedy ones, and plain ones decoded twice."""
    rows: list[tuple[Text, ...]] = []
    raw: list[float] = []
    sums: dict[str, list[np.ndarray]] = {}
    for each in studies:
        plain = each.part(depth=each.baseline, greedy=True)
        if not all(map(len, plain)):
            continue  # a grid without a greedy column
        base = accuracy(each.grid, "greedy").values
        axis = each.axis
        others = {axis.name(depth): each.part(depth=depth, greedy=True) for depth in each.depths}
        twin = _twin(each)
        if twin is not None:
            others[f"{axis.name(each.baseline)}, {AGAIN}"] = twin
        for name, pools in others.items():
            values = accuracy(pools, "first").values
            test = mcnemar(values, base)
            texts = mean([change is not None for change in first_changes(plain, pools)])
            if not name.endswith(AGAIN):
                raw.append(test.p_value)
                sums.setdefault(name, []).append(np.array([test.only_first, test.only_second]))
            rows.append(
                (
                    Text(each.title),
                    Text(name),
                    Text(percent(mean(base))),
                    Text(percent(mean(values))),
                    Text(percent(texts, 0)),
                    Text(f"{test.only_first}, {test.only_second}"),
                    Text(p_value(test.p_value)),
                )
            )
    for name, pairs in sums.items():
        if len(pairs) > 1:
            won, lost = np.sum(pairs, axis=0)
            tosses = np.repeat([1.0, 0.0], [won, lost])
            p = mcnemar(tosses, 1 - tosses).p_value if won + lost else 1.0
            rows.append(
                (
                    Text(f"{len(pairs)} runs together"),
                    Text(name),
                    *[Text(NONE)] * 3,
                    Text(f"{won}, {lost}"),
                    Text(p_value(p)),
                )
            )
    this = "the span's" if studies[0].axis.symbol == "L" else "this"
    smallest = min(holm(raw), default=float("nan"))
    header = ("task", "rollout at T = 0", "greedy, %", "this, %", "other text, %", "won, lost", "p")
    note = (
        f"problems that only {this} rollout solves, and only plain greedy, with McNemar's exact p; the "
        f"smallest p of the {len(raw)} single rows, corrected by Holm's method: {p_value(smallest)}"
    )
    return Table(header, tuple(rows), 2, (note,))


def changes(studies: Sequence[Matched]) -> Table:
    """Returns where greedy text of another depth first changes, by place and kind, and what came of it."""
    rows = []
    for each in studies:
        plain = each.part(depth=each.baseline, greedy=True)
        if not all(map(len, plain)):
            continue
        found: list[FirstChange] = []
        for depth in each.depths:
            found += filter(None, first_changes(plain, each.part(depth=depth, greedy=True)))
        vocabulary = each.vocabulary
        groups = {"all": found}
        groups["in the first quarter of the text"] = [c for c in found if c.share < EARLY]
        groups["later"] = [c for c in found if c.share >= EARLY]
        for kind in KINDS:
            groups[f"plain token: {kind}"] = [c for c in found if kind_of(c.plain, vocabulary) == kind]
        twin = _twin(each)
        if twin is not None:
            groups["for comparison: rounding alone"] = [c for c in first_changes(plain, twin) if c]
        for name, members in groups.items():
            if members:
                rows.append((Text(each.title), Text(name), *map(Text, _outcomes(members))))
    levels, spans = studies[0].axis.levels, studies[0].axis.symbol == "L"
    others = "all spans above 0" if spans else "all other recurrences"
    header = (
        "task",
        "first change",
        "texts",
        "median place, % of the text",
        "same answer, %",
        "wrong made right",
        "right made wrong",
        "p",
    )
    note = (
        f"{others} together; of texts that plain greedy decoding gets wrong, and right, how many the "
        f"{'span' if spans else 'depth'} makes the other; p is that of a coin, several {levels} of a problem "
        "taken as independent"
    )
    return Table(header, tuple(rows), 2, (note,))


KINDS = ("number", "mark or formula", "word", "end of the text")


def kind_of(token: int | None, vocabulary: Sequence[str]) -> str | None:
    """The kind of a token; ``None`` if its text is not known."""
    if token is None:
        return "end of the text"
    if token >= len(vocabulary):
        return None
    text = vocabulary[token].strip()
    if re.fullmatch(r"[\d.,]*\d[\d.,]*", text):
        return "number"
    return "word" if text[:1].isalpha() else "mark or formula"


def _outcomes(members: Sequence[FirstChange]) -> list[str]:
    won = sum(c.after and not c.before for c in members)
    lost = sum(c.before and not c.after for c in members)
    wrong = sum(not c.before for c in members)
    tosses = np.repeat([1.0, 0.0], [won, lost])
    return [
        str(len(members)),
        percent(float(np.median([c.share for c in members])), 0),
        percent(mean([c.same_answer for c in members]), 0),
        f"{won} of {wrong}",
        f"{lost} of {len(members) - wrong}",
        p_value(mcnemar(tosses, 1 - tosses).p_value) if won + lost else NONE,
    ]


def _twin(each: Matched) -> list[ParsedPool] | None:
    """Plain greedy rollouts of the plain run: the same computation, rounded in other batches."""
    baseline = each.baseline  # a plain run of more recurrences is no twin
    pools = [
        parsed.subset(lambda r: r.cell.depth == baseline and r.cell.temperature == 0) for parsed in each.plain
    ]
    return pools if pools and all(map(len, pools)) else None


def _singles(each: Matched, depth: int) -> np.ndarray:
    return pass_at_k(each.part(depth=depth), 1).values
