"""What stands on a page beside its figures: what a reader must know first, and the settings of the run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from eglr_selectors import Rollout
from eglr_selectors.depth_axis import baseline_depth

from lm_eval_eglr.calibration import measured_gate_rate
from lm_eval_eglr.reports.baseline_runs import TemperatureRun, cells_of, depth_axis, is_grid
from lm_eval_eglr.store import Document, Store
from lm_eval_eglr.store.folder import pool_paths

Setting = tuple[str, str]
"""A name and its value."""


def settings_of(store: Store) -> list[Setting]:
    """Returns what decided the run's rollouts, the software that made them, and when the last was written."""
    fingerprint = dict(store.manifest.fingerprint)
    cells = [str(cell) for cell in fingerprint.pop("cells", None) or ()]
    found = [("store", str(store.folder))]
    if cells:
        found.append(("grid", f"{len(cells)} cells, {cells[0]} to {cells[-1]}"))
    found += [(name, _shown(value)) for name, value in fingerprint.items() if value is not None]
    written = [entry.path.stat().st_mtime for entry in pool_paths(store.folder)]
    if written:
        last = datetime.fromtimestamp(max(written), tz=timezone.utc)
        found.append(("last pool written", f"{last:%Y-%m-%d %H:%M} UTC"))
    found += [(f"version of {name}", version) for name, version in store.manifest.versions.items()]
    return found


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_shown(each)}" for key, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def page_notes(
    store: Store, task: str, documents: Sequence[Document], temperature: TemperatureRun | None
) -> list[str]:
    """Returns the sentences that a reader should see before any figure.

    Args:
        store: The run.
        task: One of its tasks.
        documents: The task's documents.
        temperature: The run of plain samples that it is compared with, if there is one.
    """
    rollouts = [rollout for document in documents for rollout in document.parsed]
    cut = sum(rollout.truncated for rollout in rollouts)
    silent = len(rollouts) - sum(len(document.parsed.answered) for document in documents)
    ungraded = sum(
        document.parsed.correct[i] is None for document in documents for i in document.parsed.answered
    )
    notes = [
        f"{len(documents)} problems, {len(rollouts)} rollouts: {cut} were cut off by the token limit, "
        f"{silent} have no answer, {ungraded} answers could not be graded."
    ]
    if any(document.parsed.pool.uses_reference for document in documents):
        notes.append(
            "The reference answer decided which problems got more rollouts (budget=labels), so every figure "
            "here uses the reference and none is a fair strategy."
        )
    known = [rollout.telemetry for rollout in rollouts if rollout.telemetry is not None]
    pools = [document.parsed for document in documents]
    axis, baseline = depth_axis(pools), baseline_depth(cells_of(pools))
    gated = sum(each.gated_tokens for each in known)
    if axis.symbol == "R":
        notes += _iterations(rollouts)
    elif gated and all(each.changed_tokens is not None for each in known):
        changed = sum(each.changed_tokens or 0 for each in known)
        rate = measured_gate_rate(parsed.pool for parsed in pools)
        notes.append(
            f"The gate was open at {rate:.0%} of the tokens of spans above 0. Recursion changed {changed} of "
            f"the {gated} tokens that were recursed."
        )
    ties, tied = sum(each.ties for each in known), sum(each.ties > 0 for each in known)
    if ties:
        notes.append(
            f"{ties} tokens in {tied} rollouts are near-ties: another machine or batch size may draw others "
            "there."
        )
    missing = sum(place[0] == task for place in store.missing)
    sizes = sorted({len(document.parsed) for document in documents})
    if len(sizes) > 1:
        notes.append(
            f"Problems have {sizes[0]} to {sizes[-1]} rollouts; pass@k and maj@k end at k = {sizes[0]}."
        )
    if missing:
        notes.append(f"Incomplete: {missing} pools are missing, and the quicker problems came first.")
    if temperature is not None:
        notes.append(
            f"Plain samples come from {temperature.name}, for {len(temperature.places)} of {len(documents)} "
            "problems, with the same prompts."
        )
    elif is_grid(pools):
        notes.append(
            f"The grid's own rollouts of {axis.name(baseline)} stand for plain samples. Add a store of the "
            f"same model with {axis.levels}={baseline} to compare as many plain samples as the grid has "
            "rollouts, and their cost."
        )
    return notes


def _iterations(rollouts: Sequence[Rollout]) -> list[str]:
    """What a recurrent-depth model made of its recurrences, where an exit rule may end them early."""
    known = [(rollout, rollout.telemetry) for rollout in rollouts if rollout.telemetry is not None]
    tokens = sum(len(rollout.tokens) for rollout, _ in known)
    allowed = sum(rollout.cell.depth * len(rollout.tokens) for rollout, _ in known)
    made = sum(telemetry.recursions for _, telemetry in known)
    if not tokens or not made:
        return []
    if made == allowed:
        return ["Every token was iterated on as often as its recurrences say: none exited early."]
    return [
        f"A token took {made / tokens:.1f} iterations in the mean, of {allowed / tokens:.1f} that it was "
        "allowed: the exit rule ended the others."
    ]
