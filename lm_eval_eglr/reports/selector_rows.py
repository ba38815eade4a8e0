"""One row per selector over the pools of a store: what all tables are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from eglr_selectors import ParsedPool, Selector, correctness, get_selector, pool_metrics
from eglr_selectors.depth_axis import axis_of
from eglr_selectors.estimators import FigureAtK, bootstrap, cost_of, figure_at_k
from eglr_selectors.metrics import POOL_METRICS

from lm_eval_eglr.store import Document


@dataclass(frozen=True, slots=True)
class Identity:
    """Which problem an outcome is of, as far as its source says.

    Attributes:
        digest: lm_eval's hash of the document.
        target: The reference answer.
    """

    digest: str | None = None
    target: str | None = None

    def matches(self, other: Identity) -> bool:
        """Whether the two are of one problem, by the surest thing that both know; ``False`` if by none."""
        if self.digest is not None and other.digest is not None:
            return self.digest == other.digest
        return self.target is not None and self.target == other.target


@dataclass(frozen=True, slots=True)
class StrategyRow:
    """One strategy of one model on one benchmark.

    Attributes:
        model: The model's name.
        task: The benchmark.
        strategy: The strategy as it was asked for.
        value: Mean correctness, as the harness's table has it; NaN if it is undefined on some problem.
        stderr: Its standard error, as the harness has it.
        low: Lower end of the 95 % bootstrap interval over problems.
        high: Upper end.
        problems: Number of problems.
        undefined: On how many of them the strategy is not defined; the interval leaves them out.
        rollouts: Mean number of rollouts looked at; NaN if not known.
        tokens: Mean number of their tokens.
        flops: Mean floating-point operations of decoding them.
        uses_reference: Whether it is an oracle.
        outcomes: Correctness by document, for paired tests; empty if only the mean is known.
        identities: Which problem each of these documents is.
        store: What the row was read from: a store or a results file.
        reason: Why the strategy is undefined on the first problem where it is.
    """

    model: str
    task: str
    strategy: str
    value: float
    stderr: float = math.nan
    low: float = math.nan
    high: float = math.nan
    problems: int = 0
    undefined: int = 0
    rollouts: float = math.nan
    tokens: float = math.nan
    flops: float = math.nan
    uses_reference: bool = False
    outcomes: dict[int, float] = field(default_factory=dict)
    identities: dict[int, Identity] = field(default_factory=dict)
    store: str = ""
    reason: str = ""

    @property
    def undefined_everywhere(self) -> bool:
        """Whether the strategy could not be applied to any problem."""
        return self.problems > 0 and self.undefined == self.problems


def strategy_row(
    model: str,
    task: str,
    documents: Sequence[Document],
    selector: str,
    k: int | None = None,
    seed: int = 0,
    store: str = "",
) -> StrategyRow:
    """Applies one selector to all documents of a task.

    Args:
        model: The model's name.
        task: The task's name.
        documents: Its documents.
        selector: A registered selector, with options if it has any, or a figure such as ``pass@4``.
        k: Size of the pools, as ``@k`` behind the selector gives it: the value is then the mean over all
            subsets of that size.
        seed: Of the bootstrap, and of the subsets where they are too many.
        store: What the documents were read from.

    Raises:
        ValueError: If the selector is unknown, or no pool has k rollouts.
    """
    pools = [document.parsed for document in documents]
    figure = figure_at_k(selector if k is None else f"{selector}@{k}")
    reasons: Sequence[str]
    if figure is not None:
        check_size(figure.k, pools, store or task)
        estimates = figure(pools, seed=seed)
        values, reasons = estimates.values.tolist(), estimates.reasons
        label, uses_reference = str(figure), figure.uses_reference
        # Of a subset of k rollouts the mean of the tokens is known, and what they cost together is not.
        lengths = [(parsed.tokens_of(range(len(parsed))), len(parsed)) for parsed in pools]
        tokens = mean([figure.k * (math.nan if all_of is None else all_of / n) for all_of, n in lengths])
        rollouts, flops = float(figure.k), math.nan
    else:
        bound = get_selector(selector)
        selections = [bound.attempt(document.parsed, document.key.doc_id) for document in documents]
        values = [correctness(*pair) for pair in zip(pools, selections, strict=True)]
        reasons = [selection.reason for selection in selections]
        label, uses_reference = bound.label, bound.uses_reference
        cost = cost_of(pools, selections)
        rollouts, tokens, flops = cost.rollouts, cost.tokens, cost.flops
    interval = bootstrap(values, seed=seed)
    return StrategyRow(
        model,
        task,
        label,
        mean(values),
        mean_stderr(values),
        interval.low,
        interval.high,
        len(values),
        sum(map(math.isnan, values)),
        rollouts,
        tokens,
        flops,
        uses_reference or any(parsed.pool.uses_reference for parsed in pools),
        {document.key.doc_id: value for document, value in zip(documents, values, strict=True)},
        {document.key.doc_id: _identity(document) for document in documents},
        store,
        next((why for value, why in zip(values, reasons, strict=True) if math.isnan(value) and why), ""),
    )


def check_size(k: int, pools: Sequence[ParsedPool], where: str) -> None:
    """Refuses a k that no pool has.

    Raises:
        ValueError: If every pool is smaller.
    """
    largest = max(map(len, pools), default=0)
    if k > largest:
        raise ValueError(f"k={k}: the pools of {where} have {largest} rollouts; expected k <= {largest}")


def _identity(document: Document) -> Identity:
    reference = document.parsed.reference
    return Identity(target=None if reference is None else reference.strip())


def pool_shares(documents: Sequence[Document]) -> dict[str, float]:
    """Means of :func:`eglr_selectors.pool_metrics` over documents, as the live table has them."""
    measured = [pool_metrics(document.parsed) for document in documents]
    columns = {name: [each[name] for each in measured if name in each] for name in POOL_METRICS}
    return {name: mean(values) for name, values in columns.items() if values}


def restrict(
    documents: Iterable[Document], depths: Sequence[float] | None, temperatures: Sequence[float] | None
) -> list[Document]:
    """Returns the documents with only some columns and rows of their grids.

    Raises:
        ValueError: If no document has one of the depths or temperatures, or a document has no rollout there.
    """
    documents = list(documents)
    cells = [rollout.cell for document in documents for rollout in document.parsed.pool]
    levels = axis_of(cells).levels
    for name, wanted, known in (
        (levels, depths, {cell.depth for cell in cells}),
        ("temperatures", temperatures, {cell.temperature for cell in cells if cell.temperature is not None}),
    ):
        if missing := [each for each in wanted or () if each not in known]:
            there = ", ".join(f"{each:g}" for each in sorted(known)) or "none are known"
            raise ValueError(f"{name}: {missing[0]:g} is not among those of the rollouts, {there}")
    kept = []
    for document in documents:
        parsed = document.parsed.subset(
            lambda rollout: (
                (depths is None or rollout.cell.depth in depths)
                and (temperatures is None or rollout.cell.temperature in temperatures)
            )
        )
        if not len(parsed):
            raise ValueError(
                f"{levels}={depths}, temperatures={temperatures}: document "
                f"{document.key.doc_id} has no such rollout"
            )
        kept.append(Document(document.key, parsed))
    return kept


def mean(values: Sequence[float]) -> float:
    """The harness's mean: a plain sum over a count, so that both tables agree to the last digit."""
    return sum(values) / len(values) if values else math.nan


def mean_stderr(values: Sequence[float]) -> float:
    """The harness's standard error of a mean; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    centre = mean(values)
    variance = sum((value - centre) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(variance) / math.sqrt(len(values))


def bind_all(names: Iterable[str]) -> list[Selector | FigureAtK]:
    """Makes selectors and figures of names, so that a misspelt one is refused before anything is read."""
    return [figure_at_k(name) or get_selector(name) for name in names]
