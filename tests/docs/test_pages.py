"""Every code block of README and docs runs and prints what the page says, or says why it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from command_check import check_block
from markdown_blocks import ROOT, Block, blocks_of, pages
from page_session import PageSession, matches

RUN = ("python", "bash")
DATA = {"json": json.loads, "yaml": yaml.safe_load}
PAGES = {path.relative_to(ROOT).as_posix(): blocks_of(path) for path in pages()}
SLOW = ("docs/tutorials/several_processes.md",)  # four processes, each with imports of its own
# What two pages decode with one command, the later one finds in a copy, which its command then completes.
SAME_RUNS = {"demo_runs/grid": "runs/demo", "demo_runs/plain": "runs/plain"}
NEEDS = {"docs/tutorials/grpo.md": "trl.trainer"}  # not "trl": a folder of tests has that name
WITH_CODE = [
    pytest.param(page, marks=pytest.mark.slow if page in SLOW else ())
    for page, blocks in PAGES.items()
    if any(block.language in RUN and not block.not_run for block in blocks)
]
ALL = [block for blocks in PAGES.values() for block in blocks]
NOT_RUN = [block for block in ALL if block.not_run and block.language in RUN]


@pytest.mark.parametrize("page", WITH_CODE)
def test_a_reader_who_follows_the_page_gets_what_it_prints(
    page: str, environment: dict[str, str], workspace: Path, own_registrations: None
) -> None:
    if page in NEEDS:
        pytest.importorskip(NEEDS[page], reason="the extra of this page is not installed")
    shown = "".join(block.code for block in PAGES[page])
    for folder, same in SAME_RUNS.items():
        if f"rollouts={folder}" in shown and (workspace / same).is_dir():
            shutil.copytree(workspace / same, workspace / folder)
    session = PageSession(workspace, environment)
    printed: str | None = None
    for block in PAGES[page]:
        if block.language in RUN:
            printed = None if block.not_run else session.run(block)
        elif block.language == "text" and printed is not None and not block.not_run:
            assert matches(block.code, printed, block.any_figures), (
                f"{block} is not what was printed:\n{printed}"
            )
            printed = None


@pytest.mark.parametrize("block", NOT_RUN, ids=str)
def test_a_block_that_cannot_run_is_checked_as_far_as_possible(block: Block) -> None:
    if block.language == "python":
        compile(block.code, block.page, "exec")
    else:
        assert check_block(block)


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    for block in ALL:
        assert not block.indented, f"{block}: fence it and say what it is"
        kinds = (*RUN, *DATA, "text", "toml", "bibtex", "math")
        reference = block.language == "{eval-rst}" and block.page.startswith("docs/reference/")
        assert block.language in kinds or reference, f"{block}: {block.language!r}"
        if block.language in DATA:
            assert DATA[block.language](block.code)


def test_no_command_hides_in_a_block_that_is_only_text() -> None:
    for page, blocks in PAGES.items():
        before = ""
        for block in blocks:
            first = (block.code.split() or [""])[0]
            if block.language == "text" and before not in RUN:
                assert first not in ("lm_eval", "eglr", "make", "pip", "python", "$"), f"{page}:{block.line}"
            before = block.language
