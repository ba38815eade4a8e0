"""Measures the report page at 500 problems × 64 rollouts × 500 tokens, every token traced.

    python benchmarks/page.py [--problems 500] [--repeats 4] [--tokens 500]

Prints the page's size, the seconds that making it took, and, where Chromium is installed, the milliseconds
from opening it to its first use. Pools are the synthetic ones of the tests: words from a Zipf distribution,
entropies from a gamma distribution, half of each rollout in common with the plain model's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from lm_eval_eglr.cli.report import report


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("problems", 500), ("repeats", 4), ("tokens", 500)):
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
            opened = browser.new_page()
            opened.goto(page.as_uri(), wait_until="commit")
            opened.wait_for_selector("[data-ready]", state="attached")
            print(f"{opened.evaluate('document.documentElement.dataset.ready')} ms to first use")


if __name__ == "__main__":
    main()
