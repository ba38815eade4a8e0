"""Measures the report page at 500 problems × 64 rollouts × 500 tokens, every token traced.

    python benchmarks/page.py [--problems 500] [--repeats 4] [--tokens 500] [--openings 6]

Prints the page's size, the seconds that making it took, and, where Chromium is installed, how long each of
several openings took to first use, to all figures, to an opened pool and to its rollouts. Pools are the
synthetic ones of the tests: words from a Zipf distribution, entropies from a gamma distribution, half of each
rollout in common with the plain model's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lm_eval_eglr.cli.report import report


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("problems", 500), ("repeats", 4), ("tokens", 500), ("openings", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "reports"))
    from browser import chromium
    from page_stores import write_grid

    with tempfile.TemporaryDirectory() as folder:
        store = write_grid(Path(folder) / "store", options.problems, options.tokens, options.repeats)
        page = Path(folder) / "report.html"
        start = time.perf_counter()
        report([store], output=page, selector=None, figures=None, max_size=30.0, picture="svg")
        print(f"{page.stat().st_size / 1e6:.1f} MB, made in {time.perf_counter() - start:.0f} s")
        with chromium() as browser:
            for _ in range(options.openings):
                print(*opening(browser, page), sep="; ", flush=True)


def opening(browser: Any, page: Path) -> list[str]:
    """Opens the page as a reader would who has not seen it, and says how long each step took."""
    context = browser.new_context()
    opened = context.new_page()
    opened.set_default_timeout(0)  # a busy machine is measured, too
    steps = []
    start = time.perf_counter()

    def step(name: str) -> None:
        nonlocal start
        steps.append(f"{name} {time.perf_counter() - start:.2f} s")
        start = time.perf_counter()

    opened.goto(page.as_uri(), wait_until="commit")
    opened.wait_for_selector("[data-ready]", state="attached")
    steps.append(f"{opened.evaluate('document.documentElement.dataset.ready')} ms to first use")
    opened.wait_for_selector(".run:not([hidden]) figure:last-child .main-svg")
    step("all figures after")
    opened.locator("#problems button").nth(1).click()
    opened.wait_for_selector("#pool details")
    step("a pool opened in")
    opened.get_by_text("Open all rollouts").click()
    opened.locator("#pool details pre").last.wait_for()
    step("its rollouts in")
    context.close()
    return steps


if __name__ == "__main__":
    main()
