"""The JSONL file that gets every rollout as its pool finishes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from eglr_selectors import RolloutPool
from lm_eval.api.instance import Instance

from lm_eval_eglr.response import PoolRequest


class RolloutFile:
    """Appends one line per rollout; a pool's lines are written together and flushed.

    Args:
        path: The file. With several processes, all but the first write to ``NAME.rankN.SUFFIX`` beside it.

    Raises:
        ValueError: If the file cannot be written, or already holds something.
    """

    def __init__(self, path: Path) -> None:
        rank = int(os.environ.get("RANK", 0))
        self.path = path.with_suffix(f".rank{rank}{path.suffix}") if rank else path
        try:
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise ValueError(f"rollouts={str(path)!r}: cannot be written ({error.strerror})") from error
        if self.path.stat().st_size:
            raise ValueError(
                f"rollouts={str(path)!r}: the file already holds rollouts; name another, or move it away"
            )

    def append(self, request: Instance, pool: RolloutPool) -> None:
        """Writes the rollouts of one request."""
        head = {
            "task": request.task_name,
            "doc_id": request.doc_id,
            "prompt_sha256": hashlib.sha256(pool.prompt.encode()).hexdigest(),
            "reference": request.reference if isinstance(request, PoolRequest) else None,
        }
        lines = [json.dumps({**head, **record}, ensure_ascii=False) for record in pool.to_records()]
        self._file.write("\n".join(lines) + "\n")
        self._file.flush()
