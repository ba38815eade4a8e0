"""The one model name that is ours: ``demo``, a small student of arithmetic that ships with the package."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

DEMO = "demo"
DEMO_FOLDER = Path(__file__).resolve().parent / "demo_model"

logger = logging.getLogger(__name__)


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
