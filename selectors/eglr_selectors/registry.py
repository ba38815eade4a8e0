"""Selectors by name: registering one, looking one up, listing them all, and ``select``, which runs one."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from eglr_selectors.factories import REQUIRED, Entry, Registry
from eglr_selectors.grading import DEFAULT, Rules
from eglr_selectors.parsed import ParsedPool, parse_pool
from eglr_selectors.pool import RolloutPool
from eglr_selectors.selection import Selection
from eglr_selectors.specification import Specification, parse_specification
from eglr_selectors.voting import choose, undefined

SelectFn = Callable[[ParsedPool], Selection | int | None]
"""A selector: a parsed pool in, a selection or the index of the chosen rollout out; ``None`` is undefined."""

SelectorInfo = Entry
"""What :func:`available_selectors` says of one: uses_reference, options, description, origin."""

RAISED = "raised "
"""How the reason begins why a selection is undefined whose selector raised."""

logger = logging.getLogger(__name__)

_REGISTRY = Registry("selector", group="eglr_selectors", builtin="eglr_selectors.builtin")

Factory = TypeVar("Factory", bound=Callable[..., SelectFn])


@dataclass(frozen=True, slots=True)
class Selector:
    """A selector with its options, ready to be called on pools.

    Attributes:
        name: Its registered name, or the callable's own.
        choice: The callable.
        uses_reference: Whether it is shown the reference; the others get the pool without it.
        options: The options it was made with.
        label: What it was asked for as, for tables.
    """

    name: str
    choice: SelectFn
    uses_reference: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    def __call__(self, parsed: ParsedPool) -> Selection:
        """Selects from one pool.

        Raises:
            ValueError: If the callable returns an index that is not in the pool.
            TypeError: If it returns anything but a selection, an index or ``None``.
        """
        chosen = self.choice(parsed if self.uses_reference else parsed.blind)
        if chosen is None:
            return undefined(parsed, f"{self.name} made no choice")
        if not isinstance(chosen, Selection):
            chosen = choose(parsed, self._index(chosen, len(parsed)))
        if self.uses_reference or parsed.pool.uses_reference:
            return replace(chosen, uses_reference=True)
        return chosen

    def attempt(self, parsed: ParsedPool, document: Any = "") -> Selection:
        """As a call, but undefined where the selector raises: it is anyone's code, and one row of many.

        Args:
            parsed: The pool.
            document: What the reason calls the problem.
        """
        try:
            return self(parsed)
        except Exception as error:
            logger.debug("selector %s raised", self.label, exc_info=error)
            where = "" if document == "" else f" on document {document}"
            return undefined(parsed, f"{RAISED}{type(error).__name__}{where}: {error}")

    def _index(self, chosen: Any, size: int) -> int:
        try:
            if isinstance(chosen, bool):
                raise TypeError
            index = operator.index(chosen)
        except TypeError as error:
            expected = "a Selection, the index of a rollout or None"
            raise TypeError(f"selector {self.name} returned {chosen!r}: expected {expected}") from error
        if not 0 <= index < size:
            raise ValueError(f"selector {self.name} returned index {index}: the pool has {size} rollouts")
        return index


def register_selector(name: str, uses_reference: bool = False) -> Callable[[Factory], Factory]:
    """Registers a factory of selectors; its keyword-only parameters are the selector's options.

    Args:
        name: What users call it: letters, digits and underscores.
        uses_reference: Whether it looks at the reference answer, and so is an oracle.

    Raises:
        ValueError: If the name is taken or the factory has other parameters.
    """

    def register(factory: Factory) -> Factory:
        _REGISTRY.register(name, factory, uses_reference)
        return factory

    return register


def get_selector(name: str, **options: Any) -> Selector:
    """Makes a registered selector.

    Args:
        name: Its name, with options if there are any: ``"entropy_weighted(beta=2)"``.
        **options: Its options, too.

    Raises:
        ValueError: If the name or an option is unknown, or an option is out of range.
    """
    specification = parse_specification(name)
    if specification.k is not None:
        raise ValueError(f"{name!r}: a mean over subsets of rollouts, from which nothing can be selected")
    entry = _REGISTRY.entry(specification.name)
    merged = _REGISTRY.options_of(entry, specification, options)
    label = str(Specification(entry.name, specification.positional, {**specification.options, **options}))
    return Selector(entry.name, entry.factory(**merged), entry.uses_reference, merged, label)


def available_selectors() -> dict[str, SelectorInfo]:
    """Returns every selector by name: ours, those registered here, those of installed packages."""
    return _REGISTRY.entries()


def default_selectors() -> list[str]:
    """Returns the names of all selectors that need no option: the rows of a table when none are named."""
    return [
        name
        for name, info in available_selectors().items()
        if not any(default is REQUIRED for default in info.options.values())
    ]


def bind(selector: str | SelectFn, **options: Any) -> Selector:
    """Makes a selector of a name or of any callable.

    Raises:
        ValueError: If a callable is given options: it has its own.
    """
    if isinstance(selector, str):
        return get_selector(selector, **options)
    if options:
        raise ValueError(f"{next(iter(options))}: a callable selector takes no options here")
    if isinstance(selector, Selector):
        return selector
    name = getattr(selector, "__name__", type(selector).__name__)
    return Selector(name, selector, label=name)


def select(
    pool: RolloutPool | ParsedPool,
    selector: str | SelectFn = "majority",
    reference: str | None = None,
    *,
    rules: Rules = DEFAULT,
    fallbacks: Sequence[str] = (),
    **options: Any,
) -> Selection:
    """Reduces a pool to one answer.

    Args:
        pool: The pool; a parsed one is not read again.
        selector: A registered selector's name, with options if it has any
            (``"entropy_weighted(beta=2)"``), or any callable of a parsed pool.
        reference: The reference answer, which only oracles use.
        rules: When two answers are equal; a parsed pool brings its own.
        fallbacks: Where else to look for an answer; a parsed pool has looked.
        **options: The selector's options.

    Raises:
        ValueError: If the selector or an option is unknown or out of range, or if a parsed pool is
            given with another reference, or with rules or fallbacks, which come too late.
    """
    bound = bind(selector, **options)
    if not isinstance(pool, ParsedPool):
        pool = parse_pool(pool, reference, rules, fallbacks)
    elif rules is not DEFAULT or fallbacks:
        raise ValueError("rules, fallbacks: the pool has been parsed already; give them to parse_pool")
    elif reference is not None and reference != pool.reference:
        raise ValueError(
            f"reference={reference!r}: the pool was parsed with {pool.reference!r}; give it to parse_pool"
        )
    return bound(pool)
