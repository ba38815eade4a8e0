"""Verifiers by name, and the one way in which selectors ask them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from eglr_selectors.factories import Entry, Registry
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.pool import Rollout
from eglr_selectors.specification import parse_specification

_REGISTRY = Registry("verifier", group="eglr_verifiers", builtin="eglr_selectors.verifiers.builtin")
_MADE: dict[tuple[Callable[..., Any], str], Verifier] = {}

VerifierInfo = Entry
"""What :func:`available_verifiers` says of one: options, description, origin."""


@runtime_checkable
class Verifier(Protocol):
    """Scores the rollouts of a problem."""

    def score(self, problem: str, rollouts: Sequence[Rollout]) -> Sequence[float]:
        """Returns one score per rollout, higher is better, NaN where it cannot tell.

        Args:
            problem: The problem as stated.
            rollouts: Its rollouts; selectors give the parsed pool, which is a sequence of them.
        """


ScoreFunction: TypeAlias = Callable[[str, Sequence[Rollout]], Sequence[float]]
VerifierLike: TypeAlias = "str | Verifier | ScoreFunction"
"""A registered name with its options, a verifier, or a plain function of a problem and its rollouts."""

Factory = TypeVar("Factory", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class FunctionVerifier:
    """A plain function as a verifier.

    Attributes:
        function: From a problem and its rollouts to one score per rollout.
    """

    function: ScoreFunction

    def score(self, problem: str, rollouts: Sequence[Rollout]) -> Sequence[float]:
        """Returns what the function returns."""
        return self.function(problem, rollouts)


def register_verifier(name: str) -> Callable[[Factory], Factory]:
    """Registers a factory of verifiers (or of plain functions); its keyword-only parameters are the options.

    Raises:
        ValueError: If the name is taken or the factory has other parameters.
    """

    def register(factory: Factory) -> Factory:
        _REGISTRY.register(name, factory)
        return factory

    return register


def get_verifier(verifier: VerifierLike, **options: Any) -> Verifier:
    """Makes a verifier, or returns the one that the same text made before: a model is loaded once.

    Args:
        verifier: A registered name, with options if there are any: ``"learned(path='v.skops')"``;
            or a verifier; or a function of a problem and its rollouts.
        **options: The options of a registered one.

    Raises:
        ValueError: If the name or an option is unknown or out of range.
        TypeError: If it is nothing of the kind.
    """
    if isinstance(verifier, str):
        specification = parse_specification(verifier)
        entry = _REGISTRY.entry(specification.name)
        merged = _REGISTRY.options_of(entry, specification, options)
        key = (entry.factory, repr(merged))
        if key not in _MADE:
            _MADE[key] = get_verifier(entry.factory(**merged))
        return _MADE[key]
    if options:
        raise ValueError(f"{next(iter(options))}: only a verifier given by name takes options here")
    if isinstance(verifier, Verifier):
        return verifier
    if callable(verifier):
        return FunctionVerifier(verifier)
    raise TypeError(f"verifier={verifier!r}: expected a name, a verifier or a function")


def available_verifiers() -> dict[str, VerifierInfo]:
    """Returns every verifier by name: ours, those registered here, those of installed packages."""
    return _REGISTRY.entries()


def scores_of(verifier: Verifier, parsed: ParsedPool) -> Sequence[float]:
    """Returns a verifier's scores of a pool, asked for once however many selectors want them.

    Raises:
        ValueError: If the verifier does not give one number per rollout.
    """

    asked: list[tuple[Verifier, list[float]]] = parsed.remember("scores", list)
    for known, scores in asked:
        if known == verifier:
            return scores
    scores = [float(score) for score in verifier.score(parsed.problem, parsed)]  # type: ignore[arg-type]
    if len(scores) != len(parsed):
        raise ValueError(f"{verifier}: {len(scores)} scores for {len(parsed)} rollouts")
    asked.append((verifier, scores))
    return scores
