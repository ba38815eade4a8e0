"""Runs pages and writes what they print into their output blocks: ``python fill_outputs.py PAGE...``

A block with an ellipsis is left as it is. Look at the difference before you commit it.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from command_server import served
from markdown_blocks import blocks_of
from page_session import ELLIPSIS, PageSession, environment_of


def fill(path: Path, session: PageSession) -> None:
    """Runs one page and rewrites its output blocks."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    changes: list[tuple[int, int, str]] = []
    printed: str | None = None
    for block in blocks_of(path):
        if block.language in ("python", "bash"):
            printed = None if block.not_run else session.run(block)
        elif block.language == "text" and printed is not None and not block.not_run:
            if ELLIPSIS not in block.code:
                end = block.line + block.code.count("\n")
                text = "".join(
                    line.rstrip() + "\n"
                    for line in re.sub(r"\A(?:\s*\n)+", "", printed.rstrip()).splitlines()
                )
                changes.append((block.line, end, text))
            printed = None
    for start, end, text in reversed(changes):
        lines[start:end] = [text]
    path.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as scripts:
        workspace = Path(folder, "workspace")
        workspace.mkdir()
        for name in sys.argv[1:]:
            fill(Path(name).resolve(), PageSession(workspace, environment_of(scripts)))
            print(f"filled {name}", flush=True)
