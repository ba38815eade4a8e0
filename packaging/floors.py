"""Prints the oldest releases that pyproject.toml allows, one requirement a line: ``torch==2.6`` and so on."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def floors() -> list[str]:
    """The dependencies with ``>=`` made ``==``."""
    dependencies: list[str] = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    return [requirement.partition(",")[0].replace(">=", "==") for requirement in dependencies]


if __name__ == "__main__":
    print("\n".join(floors()))
