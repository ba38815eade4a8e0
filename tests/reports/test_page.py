"""The page in a browser: it opens from a file, filters, drills down, and runs nothing that a model wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from page_stores import HOSTILE, write_grid
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app


def make_page(folder: Path, *stores: Path) -> Path:
    page = folder / "report.html"
    result = CliRunner().invoke(app, ["report", *map(str, stores), "-o", str(page)])
    assert result.exit_code == 0, result.output
    return page


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    first = write_grid(folder / "first", 12, 24)
    second = write_grid(folder / "second", 4, 8, traced=False, model=f"evil {HOSTILE}")
    return make_page(folder, first, second)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    opened = context.new_page()
    problems: list[str] = []
    opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda request: problems.append(request.url) if "http" in request.url[:5] else None)
    opened.goto(page_file.as_uri(), wait_until="commit")
    opened.wait_for_selector("[data-ready]", state="attached")
    yield opened
    assert opened.evaluate("window.broken") is None
    assert problems == []
    context.close()


def test_the_file_asks_for_nothing_and_holds_no_foreign_markup(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?http", text)
    assert HOSTILE not in text
    assert "window.broken = 1</script>" not in text


def test_all_figures_are_drawn(page: Any) -> None:
    page.wait_for_selector(".run:not([hidden]) figure:last-child .main-svg")
    assert page.locator(".run:not([hidden]) .plot .main-svg").count() >= 6
    assert page.locator(".run:not([hidden]) .headline li").count() == 5


def test_search_filter_and_sort(page: Any) -> None:
    rows = page.locator("#problems tr")
    assert rows.count() == 12
    page.fill("#search", "problem 7:")
    assert rows.count() == 1
    page.fill("#search", "")
    page.select_option("[data-facet=subject]", "geometry")
    assert rows.count() == 4
    page.select_option("[data-facet=subject]", "")
    page.select_option("#majority", "false")
    assert rows.count() == page.locator("#problems .wrong").count()
    page.select_option("#majority", "")
    page.get_by_role("button", name="Correct").click()
    page.get_by_role("button", name="Correct").click()
    counts = [int(text.split()[0]) for text in page.locator("#problems td:nth-child(4)").all_inner_texts()]
    assert counts == sorted(counts, reverse=True)
    assert page.locator("#shown").inner_text() == "12 of 12 problems"


def test_drill_down_by_keyboard(page: Any) -> None:
    page.get_by_role("button", name="Open the pool of problem 3").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#pool details")
    assert page.locator("#pool details").count() == 16
    page.locator("#pool summary").nth(4).focus()
    page.keyboard.press("Enter")
    tokens = page.locator("#pool details").nth(4).locator(".token")
    tokens.first.wait_for()
    assert tokens.count() == 24
    assert page.locator("#pool details").nth(4).locator(".recursed").count() > 0
    assert page.locator("#pool .parted.token").count() == 1
    page.keyboard.press("Escape")
    assert not page.locator("#pool").is_visible()
    assert page.evaluate("document.activeElement.textContent") == "3"


def test_a_hostile_text_stays_text(page: Any) -> None:
    page.get_by_role("button", name="Open the pool of problem 1", exact=True).click()
    page.wait_for_selector("#pool details")
    assert "window.broken" in page.locator("#pool-body > pre").inner_text()
    page.keyboard.press("Escape")
    page.select_option("#run", "1")
    assert "window.broken" in page.locator(".run:not([hidden]) h2").inner_text()
    page.get_by_role("button", name="Open the pool of problem 1", exact=True).click()
    page.wait_for_selector("#pool details")
    page.get_by_text("Open all rollouts").click()
    page.locator("#pool span.parted").nth(1).wait_for()
    assert "window.broken" in page.locator("#pool details pre").first.inner_text()
    assert page.locator("#pool span.parted").count() > 1


@pytest.mark.parametrize("width", [390, 1280])
def test_screenshots_fit_their_width_in_both_themes(page: Any, width: int, tmp_path: Path) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    for _ in range(2):
        page.click("#theme")
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert len(page.screenshot(path=str(tmp_path / f"{width}.png"), full_page=True)) > 20_000


@pytest.mark.slow
def test_a_large_page_is_small_and_quick(browser: Any, tmp_path: Path) -> None:
    page_file = make_page(tmp_path, write_grid(tmp_path / "store", 500, 500, repeats=4, traced=False))
    assert page_file.stat().st_size < 30e6
    opened = browser.new_page()
    opened.goto(page_file.as_uri(), wait_until="commit")
    opened.wait_for_selector("[data-ready]", state="attached")
    assert int(opened.evaluate("document.documentElement.dataset.ready")) < 3000
    assert opened.locator("#problems tr").count() == 500
