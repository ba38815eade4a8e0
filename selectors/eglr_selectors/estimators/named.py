"""Figures over k by name: ``pass@4``, ``maj@16``, and any selector: ``best_of_n@8``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from eglr_selectors.estimators.at_k import pass_at_k, selector_at_k
from eglr_selectors.estimators.estimates import Estimates
from eglr_selectors.estimators.majority_at_k import maj_at_k
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.registry import get_selector
from eglr_selectors.specification import parse_specification

COUNTED = {"pass": pass_at_k, "maj": maj_at_k}
"""Figures that are counted exactly and are no selector."""


@dataclass(frozen=True, slots=True)
class FigureAtK:
    """What k rollouts of each problem would give, by name; made by :func:`figure_at_k`.

    Attributes:
        name: ``pass``, ``maj`` or a selector with its options.
        k: Size of the subsets.
        uses_reference: Whether it is a ceiling: ``pass@k``, or a selector that looks at the reference.
    """

    name: str
    k: int
    uses_reference: bool

    def __str__(self) -> str:
        return f"{self.name}@{self.k}"

    def __call__(self, pools: Sequence[ParsedPool], *, seed: int = 0) -> Estimates:
        """Returns the mean over subsets of k rollouts, one per problem.

        Args:
            pools: The pools.
            seed: Of the subsets, where they are too many to be counted.
        """
        if self.name == "pass":
            return pass_at_k(pools, self.k)
        if self.name == "maj":
            return maj_at_k(pools, self.k, seed=seed)
        return selector_at_k(pools, get_selector(self.name), self.k, seed=seed)


def figure_at_k(text: str) -> FigureAtK | None:
    """Reads ``pass@4``; ``None`` if the text has no ``@``.

    Raises:
        ValueError: If the selector before the ``@`` is unknown, or no number stands behind it.
    """
    specification = parse_specification(text)
    if specification.k is None:
        return None
    if specification.k == "k":
        raise ValueError(f"{text!r}: expected a number of rollouts behind @, such as {specification.name}@4")
    alone = str(replace(specification, k=None))
    if alone in COUNTED:
        return FigureAtK(alone, specification.k, alone == "pass")
    return FigureAtK(alone, specification.k, get_selector(alone).uses_reference)


def names_at(names: Iterable[str], ks: Sequence[int]) -> list[str]:
    """Names every figure at every k: ``majority`` and ``pass@k`` become ``majority@1``, ``pass@1``, ...

    Args:
        names: Selectors and figures; those with a number behind the ``@`` stay as they are.
        ks: The sizes.

    Raises:
        ValueError: If there is a ``pass@k`` and no size.
    """
    written = [(parse_specification(name), name) for name in names]
    found: dict[str, None] = {}
    for specification, name in written:
        if isinstance(specification.k, int) or (specification.k is None and not ks):
            found[name] = None
        elif not ks:
            raise ValueError(f"{name!r}: expected --k with the numbers of rollouts, or one behind the @")
        else:
            found |= dict.fromkeys(str(replace(specification, k=k)) for k in ks)
    return list(found)
