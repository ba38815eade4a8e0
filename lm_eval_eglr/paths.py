"""Where the package keeps its task definitions and its demo models, and the names of these."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

DEMO = "demo"
DEMO_FOLDER = Path(__file__).resolve().parent / "demo_model"
DEMO_RECURRENT = "demo-recurrent"
SHIPPED = {DEMO: DEMO_FOLDER, DEMO_RECURRENT: DEMO_FOLDER.with_name("demo_recurrent")}
"""The models that ship with the package, by name."""

logger = logging.getLogger(__name__)


def tasks_folder() -> Path:
    """The folder of our task definitions: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "tasks", package.parent / "tasks"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"lm-eval-eglr: no task definitions beside {package}")


def resolve(name: Any) -> Any:
    """Returns what transformers loads for a name: the folder of a model that ships, else the name itself.

    These names always mean the shipped models, which are demonstrations and test fixtures. A folder of that
    name in the working directory is ``./demo``; that it is passed over is warned of.
    """
    folder = SHIPPED.get(name) if isinstance(name, str) else None
    if folder is None:
        return name
    if Path(name).is_dir():
        logger.warning(
            "%s is the model that ships with lm-eval-eglr; the folder of that name here is ./%s", name, name
        )
    return str(folder)
