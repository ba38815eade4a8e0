"""Our own ``eglr export --format jsonl``: the same pools again, with their cost."""

from __future__ import annotations

from pathlib import Path

from lm_eval_eglr.importing.imported import ImportOptions, Pools, Source
from lm_eval_eglr.importing.json_lines import check_regular, first_record
from lm_eval_eglr.store.jsonl import NEEDED, read_jsonl


def recognises(path: Path) -> bool:
    """Whether a file's first line is an exported rollout."""
    return path.is_file() and first_record(path).keys() >= NEEDED


def read(path: Path, options: ImportOptions) -> Source:
    """Reads exported rollouts; the file does not say which model made them.

    Raises:
        ValueError: If a line is something else.
    """
    check_regular(path)
    return Source(None, Pools(lambda: read_jsonl(path)))
