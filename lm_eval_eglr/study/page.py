"""The page of a study: what was asked, with which power, the verdict, and every table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lm_eval_eglr.reports.tables import Table, render

PACKAGES = ("lm-eval-eglr", "lm_eval", "transformers", "torch")


def versions() -> str:
    """Names the versions that a study was made with."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} of unknown version")
    return ", ".join(found)


def write_study(
    folder: Path,
    *,
    title: str,
    command: str,
    power: Sequence[str],
    verdict: Iterable[str],
    tables: Mapping[str, Table],
    titles: Mapping[str, str],
) -> list[Path]:
    """Writes ``study.md`` and ``tables/NAME.csv``, and returns the files.

    Args:
        folder: Where to.
        title: Names model and tasks.
        command: Makes the study again.
        power: What the study could show, as it was said before it began.
        verdict: What it showed.
        tables: All tables by name.
        titles: Their titles.
    """
    parts = [
        f"# {title}",
        "\n".join(f"- {line}" for line in verdict),
        f"```bash\n{command}\n```",
        versions() + ".",
        "## Power, stated before the first rollout",
        "\n".join(f"- {line}" for line in power),
    ]
    written = [folder / "study.md"]
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        parts += [f"## {titles[name]}", render(table, "markdown").rstrip()]
        written.append(folder / "tables" / f"{name}.csv")
        written[-1].write_text(render(table, "csv"), encoding="utf-8")
    written[0].write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return written
