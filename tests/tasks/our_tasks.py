"""lm_eval's task manager over this project's tasks."""

from __future__ import annotations

from typing import Any


def task_manager(**metadata: Any) -> Any:
    """lm_eval's task manager over our tasks only; its own twelve thousand take ten seconds to scan."""
    from lm_eval.tasks import TaskManager

    from lm_eval_eglr.paths import tasks_folder

    return TaskManager(include_path=str(tasks_folder()), include_defaults=False, metadata=metadata)
