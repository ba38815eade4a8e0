"""Prints the oldest releases that pyproject.toml allows, one requirement a line: ``torch==2.6`` and so on."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def floors() -> list[str]:
    """The dependencies with ``>=`` made ``==``. Read without tomllib, which Python 3.10 lacks."""
    text = PROJECT.read_text(encoding="utf-8")
    (block,) = re.findall(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    return [
        f"{name}=={version}" for name, version in re.findall(r'^ *"([\w.-]+)>=([\w.]+)', block, re.MULTILINE)
    ]


if __name__ == "__main__":
    print("\n".join(floors()))
