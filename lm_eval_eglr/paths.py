"""Where the package keeps its task definitions and its demo model, and the model name ``demo``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

DEMO = "demo"
DEMO_FOLDER = Path(__file__).resolve().parent / "demo_model"

logger = logging.getLogger(__name__)


def tasks_folder() -> Path:
    """The folder of our task definitions: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "tasks", package.parent / "tasks"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"lm-eval-eglr: no task definitions beside {package}")


def resolve(name: Any) -> Any:
    """Returns what transformers loads for a name: the shipped folder for ``demo``, else the name itself.

    ``demo`` always means the shipped model, a demonstration and a test fixture. A folder of that name in the
    working directory is ``./demo``; that it is passed over is warned of.
    """
    if name != DEMO:
        return name
    if Path(DEMO).is_dir():
        logger.warning(
            "%s is the model that ships with lm-eval-eglr; the folder of that name here is ./%s", DEMO, DEMO
        )
    return str(DEMO_FOLDER)
