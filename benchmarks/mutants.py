"""Changes one thing at a time in the recursion, the estimators and the votes; the tests should notice each.

    python benchmarks/mutants.py recursion|selection

mutmut makes the changes, in a copy of the packages under build/, and runs the tests that reach the changed
function. Prints mutmut's counts and what each survivor changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Part:
    """What is changed, and the tests that should notice: quick ones, because each change runs them."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


PARTS = {
    "recursion": Part(
        ("lm_eval_eglr/decoding/recursion.py", "lm_eval_eglr/decoding/depth.py"),
        ("tests/decoding/test_recursion.py",),
    ),
    "selection": Part(
        ("eglr_selectors/voting.py", "eglr_selectors/estimators/*"),
        (
            "tests/selection/test_estimators.py",
            "tests/selection/test_first_selectors.py",
            "tests/selection/test_confidence_selectors.py",
            "tests/selection/test_selector_laws.py",
            "tests/selection/test_worked_examples.py",
            "tests/selection/test_comparisons.py",
            "tests/selection/test_resampling.py",
            "tests/selection/test_votes.py",
            "tests/selection/test_parsed.py",
        ),
    ),
}


def lay_out(folder: Path, part: Part) -> None:
    """Copies both packages side by side, with what they and their tests read, and says what to change."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("lm_eval_eglr", "selectors/eglr_selectors", "tests", "tasks"):
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / Path(name).name, ignore=skipped)
    options = {
        "source_paths": ("lm_eval_eglr", "eglr_selectors"),
        "only_mutate": part.files,
        "also_copy": ("tasks",),
        "pytest_add_cli_args_test_selection": part.tests,
        "pytest_add_cli_args": ("-m", "not slow"),
    }
    lines = [f"{key} =\n" + "".join(f"    {value}\n" for value in values) for key, values in options.items()]
    (folder / "setup.cfg").write_text("[mutmut]\n" + "".join(lines))


def main() -> int:
    """Runs mutmut on one part."""
    folder = ROOT / "build" / f"mutants-{sys.argv[1]}"
    lay_out(folder, PARTS[sys.argv[1]])
    mutmut = [sys.executable, "-m", "mutmut"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

    def run(*arguments: str) -> str:
        shown = subprocess.run(
            [*mutmut, *arguments], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, check=True
        )
        return shown.stdout

    print(run("run", "--max-children", "2").splitlines()[-1])
    for line in run("results").splitlines():
        name, _, fate = line.strip().partition(": ")
        print(f"\n{name}: {fate}\n{run('show', name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
