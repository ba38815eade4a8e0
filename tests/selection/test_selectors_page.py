"""docs/selectors.md: its tables say what the registries say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from eglr_selectors import available_selectors
from eglr_selectors.factories import REQUIRED, Entry
from eglr_selectors.verifiers import available_verifiers

PAGE = (Path(__file__).parents[2] / "docs" / "selectors.md").read_text(encoding="utf-8")


def _table(after: str) -> dict[str, str]:
    """The first table after a heading: its first two columns."""
    rows = re.findall(
        r"^\| `(\w+)` \| (.*?) ?\| ", PAGE[PAGE.index(after) :].split("\n\n## ")[0], re.MULTILINE
    )
    return dict(rows)


def _written(entry: Entry) -> str:
    options = (
        f"`{name}`" if default is REQUIRED else f"`{name}={default!r}`"
        for name, default in entry.options.items()
    )
    return ", ".join(options)


@pytest.mark.parametrize(
    ("heading", "available"),
    [("## The selectors", available_selectors), ("## Verifiers", available_verifiers)],
)
def test_tables_list_what_there_is_with_its_options(heading: str, available) -> None:
    ours = {name: entry for name, entry in available().items() if entry.origin.startswith("eglr_selectors.")}
    assert _table(heading) == {name: _written(entry) for name, entry in ours.items()}


def test_oracles_are_marked() -> None:
    for name, entry in available_selectors().items():
        if entry.origin.startswith("eglr_selectors."):
            row = re.search(rf"^\| `{name}` .*$", PAGE, re.MULTILINE)
            assert row is not None
            assert ("**uses the reference**" in row[0]) == entry.uses_reference
