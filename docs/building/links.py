"""Links of the repository as links of the site, where every page has its place."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def pages() -> dict[str, str]:
    """Every page that is not under docs/: its path in the repository to its place on the site."""
    found = {
        "README.md": "index.md",
        "CHANGELOG.md": "changelog.md",
        "CONTRIBUTING.md": "contributing.md",
        "SECURITY.md": "security.md",
        "selectors/README.md": "grading.md",
        "tasks/README.md": "tasks/index.md",
        "examples/demo_model/README.md": "demo_model.md",
        "examples/recurrent_model/README.md": "recurrent_model.md",
    }
    for path in sorted(ROOT.glob("tasks/*/README.md")):
        found[path.relative_to(ROOT).as_posix()] = f"tasks/{path.parent.name}.md"
    return {origin: place for origin, place in found.items() if (ROOT / origin).is_file()}


def with_site_links(text: str, origin: str, place: str) -> str:
    """A page whose links go to places of the site.

    A link to a file that is no page becomes plain text; code is left alone.

    Args:
        text: The page.
        origin: Its path in the repository.
        place: Its place on the site.

    Raises:
        FileNotFoundError: If a link leads to no file of the repository.
    """

    def turned(match: re.Match[str]) -> str:
        image, label, target = match.groups()
        if "://" in target or target.startswith(("#", "mailto:")):
            return match[0]
        reached = _place_of(origin, target)
        if reached is None:
            return label
        path, _, anchor = reached.partition("#")
        relative = os.path.relpath(path, PurePosixPath(place).parent)
        return f"{image}[{label}]({relative}{'#' if anchor else ''}{anchor})"

    parts = FENCED.split(text)
    return "".join(part if number % 2 else LINK.sub(turned, part) for number, part in enumerate(parts))


def _place_of(origin: str, target: str) -> str | None:
    """Where on the site a link of the repository leads; None if it leads to no page."""
    path, _, anchor = target.partition("#")
    wanted = os.path.normpath(PurePosixPath(origin).parent / path)
    if not (ROOT / wanted).exists():
        raise FileNotFoundError(f"{origin} links to {target}, which is not in the repository")
    if (ROOT / wanted / "README.md").is_file():
        wanted = f"{wanted}/README.md"
    place = "tutorials/notebook.md" if wanted == "examples/rollouts.ipynb" else pages().get(wanted)
    if place is None and wanted.startswith("docs/") and (ROOT / wanted).is_file():
        place = wanted.removeprefix("docs/")
    return place if place is None or not anchor else f"{place}#{anchor}"
