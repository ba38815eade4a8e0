"""The filter ``eglr_select``: reduces each document's responses to the text of the selected rollout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from eglr_selectors import ParsedPool, RolloutPool, Rules, Selection, get_selector, parse_documents
from eglr_selectors.estimators import figure_at_k
from eglr_selectors.grading import DEFAULT
from lm_eval.api.filter import Filter

from lm_eval_eglr.harness.instances import PoolResponse


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
    """

    def __init__(
        self, reference_key: str = "answer", rules: Rules = DEFAULT, fallbacks: Sequence[str] = ()
    ) -> None:
        self.reference_key = reference_key
        self.rules = rules
        self.fallbacks = tuple(fallbacks)
        self._read: tuple[list[Any], list[ParsedPool]] | None = None

    def parsed(self, resps: Sequence[Sequence[str]], docs: Sequence[dict[str, Any]]) -> list[ParsedPool]:
        """Returns one parsed pool per document, read anew only if the responses are others than before."""
        if self._read is not None and len(self._read[0]) == len(resps):
            before, known = self._read
            if all(old is new for old, new in zip(before, resps, strict=True)):
                return known
        references = [_as_text(doc.get(self.reference_key)) for doc in docs]
        pools = [joined_pool(list(responses)) for responses in resps]
        problems = [str(doc.get("problem", pool.prompt)) for doc, pool in zip(docs, pools, strict=True)]
        rules = [self.rules_of(doc) for doc in docs]
        fallbacks = [self.fallbacks] * len(pools)
        parsed = parse_documents(pools, references, rules, fallbacks, problems=problems)
        self._read = (list(resps), parsed)
        return parsed

    def rules_of(self, doc: dict[str, Any]) -> Rules:
        """The benchmark's rules, with the absolute ``tolerance`` that a document may have of its own."""
        tolerance = doc.get("tolerance")
        if not tolerance:
            return self.rules
        # A hair more, so that an answer on the edge is inside in floating point too.
        relative = tolerance / abs(float(doc[self.reference_key])) * (1 + 1e-9)
        return replace(self.rules, relative_tolerance=relative)


def _as_text(reference: Any) -> str | None:
    return None if reference is None else str(reference)


class SelectFilter(Filter):
    """Applies one selector to every document.

    Args:
        selector: A registered selector's name, with options if it has any.
        reader: Shared with the other filters of a task; made from the other arguments if not given.
        reference_key: The document's column with the reference answer, for oracles.
        rules: Name of the grading rules; see ``eglr_selectors.Rules``.
        fallbacks: Where to look for an answer when there is no box.

    Raises:
        ValueError: For an unknown selector, rule or fallback.
    """

    def __init__(
        self,
        selector: str = "majority",
        reader: PoolReader | None = None,
        reference_key: str = "answer",
        rules: str | None = None,
        fallbacks: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.selector = get_selector(selector)
        self.reader = reader or PoolReader(
            reference_key, DEFAULT if rules is None else Rules.named(rules), fallbacks
        )

    def apply(self, resps: Iterable[Any], docs: list[dict[str, Any]]) -> list[SelectedText]:
        """Returns the selected text of each document; the empty text where nothing was selected."""
        return [self._select(parsed) for parsed in self.reader.parsed(list(resps), docs)]

    def _select(self, parsed: ParsedPool) -> SelectedText:
        selection = self.selector(parsed)
        text = SelectedText("" if selection.index is None else parsed[selection.index].text)
        text.selection, text.parsed = selection, parsed
        return text


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
