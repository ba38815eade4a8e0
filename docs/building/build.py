"""Builds the site: ``python docs/building/build.py OUTPUT``. Any warning is an error; no network is used.

Its pages are those of ``docs/`` and the Markdown files that stand elsewhere in the repository, where a
reader of the repository looks for them. They are gathered in one folder, their links turned, for Sphinx.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from example_notebook import write_page
from formulas import with_formulas
from links import ROOT, pages, with_site_links
from tables import filled

DOCS = ROOT / "docs"
SECTIONS = {
    "Tutorials": (
        "tutorials/evaluate",
        "tutorials/your_benchmark",
        "tutorials/read_results",
        "tutorials/notebook",
        "tutorials/choose_options",
        "tutorials/write_a_selector",
        "tutorials/write_a_verifier",
        "tutorials/other_backends",
        "tutorials/several_processes",
        "tutorials/recurrent_depth",
        "tutorials/grpo",
    ),
    "How it works": (
        "method",
        "strategies",
        "selectors",
        "grading",
        "store",
        "reliability",
        "tasks/index",
        "demo_model",
        "recurrent_model",
    ),
    "Results": ("results",),
    "Reference": (
        "reference/arguments",
        "reference/commands",
        "reference/decoding",
        "reference/eglr_selectors",
        "reference/estimators",
        "reference/store",
        "reference/plots",
        "reference/trl",
    ),
    "More": ("faq", "contributing", "security", "changelog"),
}

# Where the navigation wants fewer words than the page's own title.
TITLES = {"grading": "Grading", "store": "Rollouts on disk", "reference/estimators": "Verifiers, estimators"}


def build(output: Path) -> int:
    """Builds the site into a folder; returns Sphinx's exit code."""
    from sphinx.cmd.build import build_main

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        gather(source)
        return build_main(
            ["-W", "--keep-going", "-q", "-b", "html", "-d", f"{folder}/state", str(source), str(output)]
        )


def gather(source: Path) -> None:
    """Writes every page and picture into a folder, as Sphinx wants them."""
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("building", "__pycache__"))
    shutil.copy(DOCS / "building" / "conf.py", source)
    shutil.copytree(DOCS / "building" / "static", source / "static")
    for path in DOCS.rglob("*.md"):
        place = path.relative_to(DOCS).as_posix()
        write(source, f"docs/{place}", place)
    for origin, place in pages().items():
        write(source, origin, place)
    write_page(source)
    with (source / "index.md").open("a", encoding="utf-8") as index:
        for caption, names in SECTIONS.items():
            there = [name for name in names if (source / f"{name}.md").is_file()]
            index.write(
                toctree(caption, [f"{TITLES[name]} <{name}>" if name in TITLES else name for name in there])
            )
    with (source / "tasks/index.md").open("a", encoding="utf-8") as index:
        names = sorted(path.stem for path in (source / "tasks").glob("*.md") if path.stem != "index")
        index.write(toctree("", names))


def write(source: Path, origin: str, place: str) -> None:
    """Writes one page."""
    path = source / place
    path.parent.mkdir(parents=True, exist_ok=True)
    text = filled((ROOT / origin).read_text(encoding="utf-8"))
    path.write_text(with_formulas(with_site_links(text, origin, place)), encoding="utf-8")


def toctree(caption: str, names: list[str]) -> str:
    """A part of the navigation."""
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["\n```{toctree}", *options, "", *names, "```", ""])


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1])))
