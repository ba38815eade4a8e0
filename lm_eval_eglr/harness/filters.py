"""The filter ``eglr_select``: reduces each document's responses to the text of the selected rollout."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from eglr_selectors import (
    ParsedPool,
    RolloutPool,
    Rules,
    Selection,
    extract,
    get_selector,
    parse_documents,
)
from eglr_selectors.estimators import figure_at_k
from eglr_selectors.grading import DEFAULT
from eglr_selectors.options import check_name
from eglr_selectors.registry import RAISED
from lm_eval.api.filter import Filter
from lm_eval.api.instance import Instance

from lm_eval_eglr.harness.instances import FALLBACKS, PoolResponse
from lm_eval_eglr.harness.processes import gather
from lm_eval_eglr.problems.tolerance import rules_of

logger = logging.getLogger(__name__)

RETURNS = ("answer", "text")


class FilteredText(str):
    """What a filter leaves of a pool, as text, with the parsed pool.

    Attributes:
        parsed: The pool.
    """

    parsed: ParsedPool

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        # Processes exchange what was filtered for every selector; the pool would travel each time.
        return (str, (str(self),))


class SelectedText(FilteredText):
    """The selected rollout's text, with how it was selected.

    Attributes:
        selection: What the selector said.
    """

    selection: Selection


def joined_pool(responses: Sequence[str]) -> RolloutPool:
    """The pool of one document: that of its one response, those of several joined, or their plain texts."""
    pools = [response.pool for response in responses if isinstance(response, PoolResponse) and response.pool]
    if len(pools) != len(responses):
        return RolloutPool.from_texts(responses)
    return RolloutPool.join(pools)


class PoolReader:
    """Reads the answers of all documents once, for all the selectors of a task.

    Args:
        reference_key: The document's column with the reference answer.
        rules: When two answers are equal.
        fallbacks: Where to look for an answer when there is no box.
        reference_of: Gives a document's reference answer where it is in no column.
    """

    def __init__(
        self,
        reference_key: str = "answer",
        rules: Rules = DEFAULT,
        fallbacks: Sequence[str] = (),
        reference_of: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        self.reference_key = reference_key
        self.rules = rules
        self.fallbacks = tuple(fallbacks)
        self._reference_of = reference_of
        self._read: tuple[list[Any], list[ParsedPool]] | None = None

    def reference(self, doc: dict[str, Any]) -> str | None:
        """The document's reference answer, ``None`` where it has none."""
        found = doc.get(self.reference_key) if self._reference_of is None else self._reference_of(doc)
        return None if found is None else str(found)

    def parsed(self, resps: Sequence[Sequence[str]], docs: Sequence[dict[str, Any]]) -> list[ParsedPool]:
        """Returns one parsed pool per document, read anew only if the responses are others than before."""
        if self._read is not None and len(self._read[0]) == len(resps):
            before, known = self._read
            if all(old is new for old, new in zip(before, resps, strict=True)):
                return known
        references = [self.reference(doc) for doc in docs]
        pools = [joined_pool(list(responses)) for responses in resps]
        problems = [str(doc.get("problem", pool.prompt)) for doc, pool in zip(docs, pools, strict=True)]
        rules = [self.rules_of(doc) for doc in docs]
        fallbacks = [self.fallbacks] * len(pools)
        parsed = parse_documents(pools, references, rules, fallbacks, problems=problems)
        self._read = (list(resps), parsed)
        return parsed

    def rules_of(self, doc: dict[str, Any]) -> Rules:
        """The benchmark's rules, with the absolute ``tolerance`` that a document may have of its own."""
        return rules_of(doc, self.rules, self.reference(doc))


class SelectFilter(Filter):
    """Applies one selector to every document.

    In a task of one's own the pipeline gives the selected answer, spelt as the reference is where both are
    equal. So a metric that compares strings, such as lm_eval's ``exact_match``, counts equal answers.

    Args:
        selector: A registered selector's name, with options if it has any.
        reader: Shared with the other filters of a task; made from the other arguments if not given.
        reference_key: The document's column with the reference answer; by default the task's target.
        rules: Name of the grading rules; see ``eglr_selectors.Rules``.
        fallbacks: Where to look for an answer when there is no box; by default everywhere.
        returns: ``answer``, or ``text`` for the whole text of the selected rollout.
        by_default: Whether nobody has asked for this selector, so that it may be undefined in silence.

    Raises:
        ValueError: For an unknown selector, rule, fallback or form.
    """

    def __init__(
        self,
        selector: str = "majority",
        reader: PoolReader | None = None,
        reference_key: str | None = None,
        rules: str | None = None,
        fallbacks: Sequence[str] | str | None = None,
        returns: str = "answer",
        by_default: bool = False,
    ) -> None:
        super().__init__()
        self._by_default = by_default
        self.selector = get_selector(selector)
        check_name("returns", returns, RETURNS)
        self.reader = reader or pool_reader(reference_key, rules, fallbacks)
        self._returns = returns

    def apply(self, resps: Iterable[Any], docs: list[dict[str, Any]]) -> list[SelectedText]:
        """Returns what was selected of each document; the empty text where nothing was."""
        selected: list[SelectedText] = []
        for parsed, doc in zip(self.reader.parsed(list(resps), docs), docs, strict=True):
            selection = self.selector.attempt(parsed, doc.get("id", len(selected)))
            selected.append(self._text(parsed, selection))
        self._say_undefined(
            [each.selection.reason for each in selected if not each.selection.defined], len(docs)
        )
        return selected

    def _say_undefined(self, reasons: Sequence[str], count: int) -> None:
        """Says why lm_eval's table has no figure of this selector."""
        raised = [reason for reason in reasons if reason.startswith(RAISED)]
        if reasons:
            logger.log(
                logging.INFO if self._by_default and not raised else logging.WARNING,
                "selector %s is undefined on %d of %d documents (%s)",
                self.selector.label,
                len(reasons),
                count,
                [*raised, *reasons][0],
            )

    def _text(self, parsed: ParsedPool, selection: Selection) -> SelectedText:
        index = selection.index
        if index is None:
            text = ""
        elif self._returns == "text":
            text = parsed[index].text
        elif parsed.reference is not None and parsed.correct[index]:
            text = parsed.reference
        else:
            text = selection.answer or ""
        selected = SelectedText(text)
        selected.selection, selected.parsed = selection, parsed
        return selected


def pool_reader(
    reference_key: str | None = None,
    rules: str | None = None,
    fallbacks: Sequence[str] | str | None = None,
    reference_of: Callable[[dict[str, Any]], Any] | None = None,
) -> PoolReader:
    """Makes a reader from the options of the filter ``eglr_select``.

    Raises:
        ValueError: For an unknown rule or fallback.
    """
    names = FALLBACKS if fallbacks is None else (fallbacks,) if isinstance(fallbacks, str) else fallbacks
    extract("", fallbacks=names)  # refuses an unknown name now, not after the model has run
    named = DEFAULT if rules is None else Rules.named(rules)
    return PoolReader(reference_key or "answer", named, names, None if reference_key else reference_of)


def drop_repeated(instances: Iterable[Instance]) -> None:
    """Drops the responses that lm_eval has asked for only to even out its processes."""
    for instance in instances:
        del instance.resps[instance.repeats :]


def keep_all_texts(instances: Sequence[Instance], reader: PoolReader) -> None:
    """Gives logged samples the texts of all rollouts, as of a backend that is asked N times."""
    parsed = reader.parsed([each.resps for each in instances], [each.doc for each in instances])
    for instance, pool in zip(instances, parsed, strict=True):
        instance.resps = [rollout.text for rollout in pool]


class FigureText(FilteredText):
    """What a figure such as ``pass@4`` says of a document.

    Attributes:
        value: The mean over all subsets of the document's rollouts; NaN if it is undefined.
    """

    value: float


class FigureFilter(Filter):
    """Computes a figure such as ``pass@4`` or ``maj@16`` of every document.

    Args:
        name: The figure, see :func:`eglr_selectors.estimators.figure_at_k`.
        reader: Shared with the other filters of a task.
    """

    def __init__(self, name: str, reader: PoolReader) -> None:
        super().__init__()
        figure = figure_at_k(name)
        if figure is None:
            raise ValueError(f"{name!r}: expected a figure such as pass@4")
        self.figure = figure
        self.reader = reader

    def apply(self, resps: Iterable[Any], docs: list[dict[str, Any]]) -> list[FigureText]:
        """Returns the figure of each document as text, with its value."""
        pools = self.reader.parsed(list(resps), docs)
        filtered = []
        for parsed, value in zip(pools, self.figure(pools).values, strict=True):
            text = FigureText(f"{value:.4f}")
            text.parsed, text.value = parsed, float(value)
            filtered.append(text)
        return filtered


class WholePool(Filter):
    """Keeps the pool itself, for what is counted over all rollouts."""

    def __init__(self, reader: PoolReader) -> None:
        super().__init__()
        self.reader = reader

    def apply(self, resps: Iterable[Any], docs: list[dict[str, Any]]) -> list[FilteredText]:
        """Returns a text that names the pool's size and carries it."""
        filtered = []
        for parsed in self.reader.parsed(list(resps), docs):
            text = FilteredText(f"{len(parsed)} rollouts")
            text.parsed = parsed
            filtered.append(text)
        return filtered


def drop_undefined_rows(instances: Sequence[Instance], several_processes: bool) -> None:
    """Drops rows of selectors that are defined on no document: nobody asked, and they would only say NaN.

    Args:
        instances: Of one task, filtered.
        several_processes: Whether other processes have more documents of the task; all must call this.
    """
    defined: dict[str, bool] = {}
    for instance in instances:
        for name, filtered in instance.filtered_resps.items():
            is_defined = not isinstance(filtered, SelectedText) or filtered.selection.defined
            defined[name] = defined.get(name, False) or is_defined
    everywhere = list(defined.items())
    if several_processes:
        everywhere = gather(everywhere)
    kept = {name for name, is_defined in everywhere if is_defined}
    for instance in instances:
        for name in set(instance.filtered_resps) - kept:
            del instance.filtered_resps[name]
