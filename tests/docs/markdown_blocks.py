"""The code blocks of a Markdown page, with what the page says of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A code block.

    Attributes:
        page: The page's path in the repository.
        line: Where it starts, from 1.
        language: First word of its info string; empty if it has none or is only indented.
        code: Its text.
        not_run: Why it is not run, where a comment before it says so: ``<!-- not run: REASON -->``.
        any_figures: Whether a comment before it says that its figures differ between machines:
            ``<!-- figures vary -->``.
        indented: Whether it is indented and not fenced.
    """

    page: str
    line: int
    language: str
    code: str
    not_run: str | None = None
    any_figures: bool = False
    indented: bool = False

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page that a reader may follow, the README first."""
    found = {ROOT / "README.md": None}
    for pattern in ("docs/tutorials/*.md", "*.md", "docs/**/*.md", "tasks/**/*.md", "selectors/*.md"):
        found |= dict.fromkeys(sorted(ROOT.glob(pattern)))
    return [*found, *sorted(ROOT.glob("examples/**/*.md"))]


def blocks_of(path: Path) -> list[Block]:
    """Reads a page's blocks, in order."""
    page = path.relative_to(ROOT).as_posix()
    found = []
    comment = ""
    for token in MarkdownIt("commonmark").parse(path.read_text(encoding="utf-8")):
        if token.type in ("fence", "code_block"):
            reason = NOT_RUN.search(comment)
            found.append(
                Block(
                    page,
                    line=(token.map or [0])[0] + 1,
                    language=(token.info.split() or [""])[0],
                    code=token.content,
                    not_run=reason[1] if reason else None,
                    any_figures="<!-- figures vary -->" in comment,
                    indented=token.type == "code_block",
                )
            )
        # A comment speaks of the block that follows it at once.
        comment = token.content if token.type == "html_block" else ""
    return found
