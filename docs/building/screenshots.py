"""Makes the pictures of the documentation: ``python docs/building/screenshots.py``.

It needs Chromium and the extra ``test``. The pool is decoded anew, as the README does,
unless ``--store`` names one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).resolve().parents[1] / "images"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PROBLEM, OPENED = 36, (0, 4)  # the README's problem; its greedy rollouts of spans 0 and 1
WIDTH, HEIGHT = 1160, 900  # CSS pixels
RUN = """
lm_eval --model hf-eglr --model_args pretrained=demo,trace=True,rollouts={store} --tasks demo_eglr
    --limit 40 --apply_chat_template --batch_size 256 --metadata selectors=majority
"""


def main() -> None:
    """Makes the pool and the page, then the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="a folder given as rollouts=DIR, with trace=True")
    store = parser.parse_args().store
    scripts = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory() as folder:
        if store is None:
            store = Path(folder, "store")
            subprocess.run(RUN.format(store=store).split(), check=True, env=environment)
        page = Path(folder, "report.html")
        subprocess.run(["eglr", "report", str(store), "-o", str(page)], check=True, env=environment)
        take(page)


def take(page: Path) -> None:
    """Opens the page in a light Chromium and writes the pictures."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        raise SystemExit("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        tab = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", device_scale_factor=1.5
        )
        tab.set_default_timeout(0)  # a busy machine draws slowly
        tab.goto(page.as_uri())
        tab.wait_for_selector(".plot .main-svg")
        tab.screenshot(path=IMAGES / "report_top.png")
        shoot_figures(tab)
        tab.get_by_role("link", name=f"Open the pool of problem {PROBLEM}", exact=True).click()
        tab.wait_for_selector("#pool-body details")
        for cell in OPENED:
            tab.locator("#pool-body details").nth(cell).locator("summary").click()
        tab.wait_for_timeout(500)
        tab.screenshot(path=IMAGES / "report_pool.png")
        browser.close()


def shoot_figures(tab: Any) -> None:
    """The first two figures, side by side as the page has them."""
    boxes = [tab.locator("figure").nth(number).bounding_box() for number in (0, 1)]
    left = min(box["x"] for box in boxes) - 8
    top = min(box["y"] for box in boxes) - 8
    right = max(box["x"] + box["width"] for box in boxes) + 8
    bottom = max(box["y"] + box["height"] for box in boxes) + 8
    tab.screenshot(
        path=IMAGES / "report_figures.png",
        full_page=True,
        clip={"x": left, "y": top, "width": right - left, "height": bottom - top},
    )


if __name__ == "__main__":
    main()
