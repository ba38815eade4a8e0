"""A page's figures are those of the version at hand, give or take what another processor draws."""

from __future__ import annotations

import pytest
from page_session import matches

TABLE = """
strategy      % correct   rollouts
──────────────────────────────────
majority   62.5 [48–78]         16
greedy     60.0 [45–75]          1
cost_vs_shared_plain 1.03, run 2026-11-28, difference −1.7 points
"""


def test_another_processor_may_give_other_figures_and_another_order() -> None:
    other = TABLE.replace("62.5 [48–78]", "57.5 [42–72]").replace("−1.7", "+1.9")
    lines = other.splitlines()
    lines[3], lines[4] = lines[4], lines[3]
    assert matches(TABLE, "\n".join(lines), any_figures=True)
    assert not matches(TABLE, other)
    assert matches("x 0.6500 ... tokens", "x 0.7000 gates 12 tokens", any_figures=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1.03", "0.23"),
        ("62.5", "92.5"),
        ("majority", "plurality"),
        ("         16", "          4 | 1"),
        ("[48–78]", "[48–98]"),
    ],
)
def test_figures_of_an_older_version_are_not_passed(old: str, new: str) -> None:
    assert not matches(TABLE, TABLE.replace(old, new), any_figures=True)
    assert not matches("x 0.6500 ... tokens", "x 0.2298 gates 12 tokens", any_figures=True)
