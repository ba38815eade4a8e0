"""Branches that the tests reached, by package: ``make coverage`` ends with it.

    python benchmarks/branch_coverage.py coverage.json

coverage.py's own percentages mix lines and branches. Left out are the two modules that run in the grader's
worker processes only, where the tracer is not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

PACKAGES = ("eglr_selectors", "lm_eval_eglr/decoding")
IN_WORKERS = ("grading/worker.py", "grading/math_verify_bridge.py")


def main() -> None:
    files = json.loads(Path(sys.argv[1]).read_text())["files"]
    for package in PACKAGES:
        reached = branches = 0
        for name, figures in files.items():
            if f"{package}/" in name and not name.endswith(IN_WORKERS):
                branches += figures["summary"]["num_branches"]
                reached += figures["summary"]["covered_branches"]
        print(f"{package}: {reached} of {branches} branches, {reached / branches:.1%}")


if __name__ == "__main__":
    main()
