"""Rows of selectors that are defined on no document: nobody asked for them, and they would only say NaN."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval.api.instance import Instance

from lm_eval_eglr.harness.filters import SelectedText
from lm_eval_eglr.harness.processes import gather


def drop_undefined_rows(instances: Sequence[Instance], several_processes: bool) -> None:
    """Drops what the filters made whose selector is defined on no document.

    Args:
        instances: Of one task, filtered.
        several_processes: Whether other processes have more documents of the task; all must call this.
    """
    defined: dict[str, bool] = {}
    for instance in instances:
        for name, filtered in instance.filtered_resps.items():
            is_defined = not isinstance(filtered, SelectedText) or filtered.selection.defined
            defined[name] = defined.get(name, False) or is_defined
    everywhere = list(defined.items())
    if several_processes:
        everywhere = gather(everywhere)
    kept = {name for name, is_defined in everywhere if is_defined}
    for instance in instances:
        for name in set(instance.filtered_resps) - kept:
            del instance.filtered_resps[name]
