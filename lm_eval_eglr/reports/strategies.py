"""What every strategy makes of the pools of a store: the rows of all tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from eglr_selectors import ParsedPool, Selection, Selector, available_selectors, get_selector
from eglr_selectors.estimators import bootstrap, cost_of, selector_at_k
from eglr_selectors.factories import REQUIRED

from lm_eval_eglr.store import Document
from lm_eval_eglr.tie_share import tie_share


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


def default_selectors() -> list[str]:
    """The selectors that need no option, which is what the live table shows."""
    return [
        name
        for name, info in available_selectors().items()
        if not any(default is REQUIRED for default in info.options.values())
    ]


def strategy_row(
    model: str, task: str, documents: Sequence[Document], selector: str, k: int | None = None, seed: int = 0
) -> StrategyRow:
    """Applies one selector to all documents of a task.

    Args:
        model: The model's name.
        task: The task's name.
        documents: Its documents.
        selector: A registered selector, with options if it has any.
        k: Size of the pools: the value is then the mean over all subsets of that size.
        seed: Of the bootstrap, and of the subsets where they are too many.
    """
    pools = [document.parsed for document in documents]
    bound = get_selector(selector)
    if k is None:
        selections = [bound(parsed) for parsed in pools]
        values = [correctness(*pair) for pair in zip(pools, selections, strict=True)]
        cost = cost_of(pools, selections)
        rollouts, tokens, flops = cost.rollouts, cost.tokens, cost.flops
    else:
        values = selector_at_k(pools, bound, k, seed=seed).values.tolist()
        rollouts, tokens, flops = float(k), math.nan, math.nan
    interval = bootstrap(values, seed=seed)
    return StrategyRow(
        model,
        task,
        bound.label,
        mean(values),
        mean_stderr(values),
        interval.low,
        interval.high,
        len(values),
        sum(map(math.isnan, values)),
        rollouts,
        tokens,
        flops,
        bound.uses_reference or any(parsed.pool.uses_reference for parsed in pools),
        {document.head.doc_id: value for document, value in zip(documents, values, strict=True)},
        {document.head.doc_id: _identity(document) for document in documents},
    )


def _identity(document: Document) -> Identity:
    reference = document.parsed.reference
    return Identity(target=None if reference is None else reference.strip())


def correctness(parsed: ParsedPool, selection: Selection) -> float:
    """1 or 0; NaN where the strategy is not defined on this pool, or there is no reference.

    An answer that could not be graded counts 0, as in the live table.
    """
    if parsed.reference is None or not selection.defined:
        return math.nan
    return float(selection.index is not None and parsed.correct[selection.index] is True)


def pool_shares(documents: Sequence[Document]) -> dict[str, float]:
    """What the live table says of whole pools: shares of rollouts, and the cost over plain sampling."""
    names = ("truncated", "no_answer", "ungraded", "cost_vs_plain", "ties")
    shares: dict[str, list[float]] = {name: [] for name in names}
    for document in documents:
        parsed, count = document.parsed, len(document.parsed)
        unknown = any(rollout.finish_reason == "unknown" for rollout in parsed)
        cut = sum(rollout.truncated for rollout in parsed) / count
        shares["truncated"].append(math.nan if unknown else cut)
        shares["no_answer"].append((count - len(parsed.answered)) / count)
        shares["ungraded"].append(sum(parsed.correct[i] is None for i in parsed.answered) / count)
        cost = parsed.pool.cost
        if cost is not None and cost.plain_flops:
            shares["cost_vs_plain"].append(cost.flops / cost.plain_flops)
            shares["ties"].append(tie_share(parsed.pool))
    return {name: mean(values) for name, values in shares.items() if values}


def restrict(
    documents: Iterable[Document], spans: Sequence[int] | None, temperatures: Sequence[float] | None
) -> list[Document]:
    """Returns the documents with only some columns and rows of their grids.

    Raises:
        ValueError: If a document has no rollout there.
    """
    kept = []
    for document in documents:
        parsed = document.parsed.subset(
            lambda rollout: (
                (spans is None or rollout.cell.span in spans)
                and (temperatures is None or rollout.cell.temperature in temperatures)
            )
        )
        if not len(parsed):
            raise ValueError(
                f"spans={spans}, temperatures={temperatures}: document {document.head.doc_id} has no such "
                "rollout"
            )
        kept.append(Document(document.head, parsed))
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


def bind_all(names: Iterable[str]) -> list[Selector]:
    """Makes selectors of names, so that a misspelt one is refused before anything is read."""
    return [get_selector(name) for name in names]
