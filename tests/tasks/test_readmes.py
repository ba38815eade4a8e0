"""Each task folder has a page that says what lm_eval asks for and names every repaired row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lm_eval_eglr.paths import tasks_folder

FOLDERS = sorted(path.parent for path in tasks_folder().glob("*/*.yaml"))


@pytest.mark.parametrize("folder", dict.fromkeys(FOLDERS), ids=lambda folder: folder.name)
def test_the_page_is_complete(folder: Path) -> None:
    page = (folder / "README.md").read_text(encoding="utf-8")
    for heading in ("## Citation", "## Known faults", "## Changelog"):
        assert heading in page
    assert "- 1.0: " in page.partition("## Changelog")[2]
    repairs = folder / "repairs.jsonl"
    if repairs.is_file():
        rows = [json.loads(line)["id"] for line in repairs.read_text(encoding="utf-8").splitlines()]
        assert len(rows) == len(set(rows))
        assert [row for row in rows if row not in page.partition("## Known faults")[2]] == []


def test_every_version_in_a_yaml_is_the_last_of_its_changelog() -> None:
    for path in tasks_folder().glob("*/*.yaml"):
        (version,) = (line.split()[1] for line in path.read_text().splitlines() if "version:" in line)
        changes = (path.parent / "README.md").read_text(encoding="utf-8").partition("## Changelog")[2]
        assert changes.split("- ")[1].startswith(f"{version}:"), path
