"""The page in a browser: it opens from a file, filters, drills down, and runs nothing that a model wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from browser import chromium
from eglr_selectors import Telemetry, correctness, get_selector
from page_stores import HOSTILE, SPANS, WORDS, write_branches, write_grid, write_recurrences, write_texts
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app
from lm_eval_eglr.cli.report import REST
from lm_eval_eglr.reports.page_budget import LEFT_OUT
from lm_eval_eglr.reports.pool_chunk import Detail, pool_chunk
from lm_eval_eglr.store import read_store

PATIENCE = 300_000
"""Milliseconds: a busy machine is slow, and that is no fault of the page."""


def make_page(folder: Path, *stores: Path, options: tuple[str, ...] = ()) -> Path:
    page = folder / "report.html"
    result = CliRunner().invoke(app, ["report", *map(str, stores), "-o", str(page), *options])
    assert result.exit_code == 0, result.output
    return page


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    first = write_grid(folder / "first", 12, 40)
    second = write_grid(folder / "second", 4, 40, traced=False, model=f"evil {HOSTILE}")
    return make_page(folder, first, second)


def text_of(page_file: Path, problem: int, rollout: int) -> str:
    """The tokens of a rollout of the first store, as the page shows them."""
    document = read_store(page_file.parent / "first").documents("toy_eglr")[problem]
    return "".join(WORDS[token] for token in document.parsed[rollout].tokens)


def telemetry_of(page_file: Path, problem: int, rollout: int) -> Telemetry:
    """How a rollout of the first store was decoded."""
    document = read_store(page_file.parent / "first").documents("toy_eglr")[problem]
    telemetry = document.parsed[rollout].telemetry
    assert telemetry is not None
    return telemetry


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    problems: list[str] = []
    opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda request: problems.append(request.url) if "http" in request.url[:5] else None)
    show(opened, page_file)
    yield opened
    assert opened.evaluate("window.broken") is None
    assert problems == []
    context.close()


def show(opened: Any, file: Path) -> None:
    """Opens a page and waits until it can be used."""
    opened.goto(file.as_uri(), wait_until="commit")
    opened.wait_for_selector("[data-ready]", state="attached")


def test_the_file_asks_for_nothing_and_holds_no_foreign_markup(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?http", text)
    assert HOSTILE not in text
    assert "window.broken = 1</script>" not in text


def test_ties_and_changes_are_summed_up(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    rollouts = [
        r for each in read_store(page_file.parent / "first").documents("toy_eglr") for r in each.parsed
    ]
    work = [rollout.telemetry for rollout in rollouts if rollout.telemetry is not None]
    gated, changed = sum(each.gated_tokens for each in work), sum(each.changed_tokens or 0 for each in work)
    tokens = sum(len(each.tokens) for each in rollouts if each.telemetry is not None and each.cell.span)
    assert f"The gate was open at {gated / tokens:.0%} of the tokens of spans above 0." in text
    assert f"Recursion changed {changed} of the {gated} tokens that were recursed." in text
    assert "16 tokens in 16 rollouts are near-ties" in text


def test_all_figures_are_drawn(page: Any) -> None:
    page.wait_for_selector(".run:not([hidden]) figure:last-child .main-svg")
    assert page.locator(".run:not([hidden]) .plot .main-svg").count() >= 6
    assert page.locator(".run:not([hidden]) .headline li").count() == 7
    names = page.locator(".run:not([hidden]) .plot").evaluate_all("all => all.map(each => each.ariaLabel)")
    assert all(re.search(r"[0-9]", name) for name in names), "each says its values"
    assert names[0].startswith("Accuracy over the grid. L = 0, T = 0: ")


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
    page.locator("#columns").get_by_role("button", name="Correct").click()
    page.locator("#columns").get_by_role("button", name="Correct").click()
    counts = [int(text.split()[0]) for text in page.locator("#problems td:nth-child(4)").all_inner_texts()]
    assert counts == sorted(counts, reverse=True)
    assert page.locator("#shown").inner_text() == "12 of 12 problems"


def test_drill_down_by_keyboard(page: Any, page_file: Path) -> None:
    page.get_by_role("link", name="Open the pool of problem 3").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#pool details")
    assert page.locator("#pool details").count() == 16
    page.locator("#pool summary").nth(4).focus()
    page.keyboard.press("Enter")
    tokens = page.locator("#pool details").nth(4).locator(".token")
    tokens.first.wait_for()
    assert tokens.count() == 40
    assert page.locator("#pool details").nth(4).locator("pre").inner_text() == text_of(page_file, 3, 4)
    assert page.locator("#pool details").nth(4).locator(".recursed").count() > 0
    work = telemetry_of(page_file, 3, 4)
    marked = page.locator("#pool details").nth(4).locator(".token.changed")
    assert marked.count() == work.changed_tokens == sum(work.token_changes) > 1
    facts = page.locator("#pool summary").nth(4).inner_text()
    assert f"{work.gated_tokens} recursed, {work.changed_tokens} of them changed" in facts
    assert page.locator("#pool .legend .changed").count() == 1
    page.keyboard.press("Escape")
    assert not page.locator("#pool").is_visible()
    assert page.evaluate("document.activeElement.textContent") == "3"


def test_a_hostile_text_stays_text(page: Any, page_file: Path) -> None:
    page.get_by_role("link", name="Open the pool of problem 1", exact=True).click()
    page.wait_for_selector("#pool details")
    assert "window.broken" in page.locator("#pool-body > pre").inner_text()
    page.keyboard.press("Escape")
    page.select_option("#run", "1")
    assert "window.broken" in page.locator(".run:not([hidden]) h2").inner_text()
    page.get_by_role("link", name="Open the pool of problem 1", exact=True).click()
    page.wait_for_selector("#pool details")
    page.get_by_text("Open all rollouts").click()
    page.locator("#pool details pre").nth(15).wait_for()
    assert "window.broken" in page.locator("#pool details pre").first.inner_text()
    second = read_store(page_file.parent / "second").documents("toy_eglr")[1]
    for number, shown in enumerate(page.locator("#pool details pre").all_inner_texts()):
        assert shown == second.parsed[number].text.replace("\x1b", "\ufffd")


def wait_for_title(page: Any, title: str) -> None:
    # Not by an expression: one that is not true at once is evaluated in the page, whose policy forbids it.
    page.locator("#pool-title", has_text=re.compile(f"^{title}$")).wait_for()


def test_a_pool_has_an_address_and_neighbours(page: Any, page_file: Path) -> None:
    page.goto(page_file.as_uri() + "#problem=5")
    page.wait_for_selector("#pool details")
    assert page.locator("#pool-title").inner_text() == "Problem 5"
    page.keyboard.press("ArrowRight")
    wait_for_title(page, "Problem 6")
    assert page.evaluate("location.hash") == "#problem=6"
    page.keyboard.press("ArrowLeft")
    page.click("#previous")
    wait_for_title(page, "Problem 4")
    page.click("#close")
    assert page.evaluate("location.hash") == ""
    page.locator("#problems tr").nth(2).locator("td").nth(3).click()  # a row, not its link
    wait_for_title(page, "Problem 2")


def test_an_opened_pool_is_the_grid_of_its_answers(page: Any, page_file: Path) -> None:
    parsed = read_store(page_file.parent / "first").documents("toy_eglr")[3].parsed
    page.goto(page_file.as_uri() + "#problem=3")
    page.wait_for_selector("#pool .matrix")
    assert page.locator("#pool .matrix tr").count() == 1 + len(SPANS)
    cells = page.locator("#pool .matrix button")
    answers = [text.split("\n")[0] for text in cells.all_inner_texts()]
    assert answers == [answer.text for answer in parsed.answers if answer is not None]
    assert page.locator("#pool .matrix button.right").count() == sum(map(bool, parsed.correct))
    # Half of each recursed rollout is that of span 0: there it leaves, and the mark says at which token.
    left = [
        next(
            i
            for i, pair in enumerate(zip(rollout.tokens, parsed[n % 4].tokens, strict=True))
            if len({*pair}) > 1
        )
        for n, rollout in enumerate(parsed)
        if rollout.cell.span
    ]
    assert page.locator("#pool .matrix small").all_inner_texts() == [f"≠ {token}" for token in left]
    cells.nth(5).click()
    assert page.locator("#pool details").nth(5).get_attribute("open") is not None
    marked = page.locator("#pool details").nth(5).locator(".token.leaves")
    assert marked.get_attribute("title").startswith(f"token {left[1]},")


def test_token_figures_are_there_for_keys_and_taps(page: Any, page_file: Path) -> None:
    page.goto(page_file.as_uri() + "#problem=3")
    page.locator("#pool summary").nth(4).click()
    tokens = page.locator("#pool details").nth(4)
    tokens.locator("pre").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert "token 2, entropy" in tokens.locator(".told").inner_text()
    assert page.locator("#pool-title").inner_text() == "Problem 3", "the keys moved inside the text only"
    tokens.locator(".token").nth(7).click()
    assert "token 7, entropy" in tokens.locator(".told").inner_text()
    assert tokens.locator(".token.at").count() == 1


def test_two_runs_are_set_side_by_side(browser: Any, tmp_path: Path) -> None:
    grid, alone = (
        write_grid(tmp_path / "grid", 6, 20),
        write_grid(tmp_path / "alone", 4, 20, spans=(0,), repeats=4),
    )
    there = [d.parsed for d in read_store(alone).documents("toy_eglr")]
    here = [d.parsed for d in read_store(grid).documents("toy_eglr")]
    majority = get_selector("majority")
    opened = browser.new_page()
    opened.set_default_timeout(PATIENCE)
    show(opened, make_page(tmp_path, grid, alone))
    opened.select_option("#other", "1")
    rows = opened.locator("#problems tr")
    pairs = [
        (correctness(a, majority(a)), correctness(b, majority(b))) for a, b in zip(here, there, strict=False)
    ]
    for value, wanted in (("true,false", (1, 0)), ("false,true", (0, 1)), ("true,true", (1, 1))):
        opened.select_option("#both", value)
        assert rows.count() == pairs.count(wanted)
    opened.select_option("#both", "")
    assert rows.count() == 6
    opened.goto(opened.url + "#problem=0")
    opened.wait_for_selector("#pool .sides section:nth-child(2) details")
    assert opened.locator("#pool .sides section").count() == 2
    opened.close()


def test_selectors_can_be_sorted_and_figures_saved(page: Any) -> None:
    table = page.locator(".run:not([hidden]) .strategies")
    table.get_by_role("button", name="rollouts").click()
    counts = [float(text) for text in table.locator("td:nth-child(3)").all_inner_texts() if text != "–"]
    assert counts == sorted(counts, reverse=True)
    page.wait_for_selector(".run:not([hidden]) [data-plot=grid] .main-svg")
    with page.expect_download() as saved:
        page.locator(".run:not([hidden]) figure").first.get_by_role("button", name="CSV").click()
    lines = Path(saved.value.path()).read_text(encoding="utf-8").splitlines()
    assert lines[0] == '"trace","label","x","y","value"'
    assert len(lines) == 1 + len(SPANS) * 2  # two temperatures


def test_the_theme_is_remembered(page: Any, page_file: Path) -> None:
    page.click("#theme")
    chosen = page.evaluate("document.documentElement.dataset.theme")
    page.goto("about:blank")
    show(page, page_file)
    assert page.evaluate("document.documentElement.dataset.theme") == chosen == "dark"


def test_settings_and_columns_are_explained(page: Any, page_file: Path) -> None:
    page.locator(".run:not([hidden])").get_by_text("Settings of the run").click()
    shown = page.locator(".run:not([hidden]) .settings").inner_text()
    assert str(page_file.parent / "first") in shown
    assert "seed" in shown
    assert "last pool written" in shown
    page.get_by_text("What the columns mean").click()
    assert page.locator("#meanings dt").all_inner_texts() == [
        text.rstrip(" ▴▾") for text in page.locator("#columns button").all_inner_texts()
    ]


@pytest.mark.parametrize("width", [390, 820, 1280])
def test_screenshots_fit_their_width_in_both_themes(page: Any, width: int, tmp_path: Path) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    for _ in range(2):
        page.click("#theme")
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert len(page.screenshot(path=str(tmp_path / f"{width}.png"), full_page=True)) > 20_000


def test_pools_that_are_no_grid_say_nothing_of_axes(page: Any, tmp_path: Path) -> None:
    stores = write_texts(tmp_path / "texts", 5), write_branches(tmp_path / "branches", 5)
    show(page, make_page(tmp_path, *stores))
    page.wait_for_selector(".run:not([hidden]) [data-plot=curves] .main-svg")
    assert page.locator(".run:not([hidden]) .plot").count() == 1
    assert page.locator(".run:not([hidden]) .headline span").all_text_contents() == [
        "One rollout, mean",
        "Majority of all rollouts",
        "Any rollout, oracle",
    ]
    assert not page.locator("#solved").is_visible()
    assert "Solved by" not in page.locator("#columns").inner_text()
    page.get_by_role("link", name="Open the pool of problem 2").click()
    page.wait_for_selector("#pool details")
    assert page.locator("#pool details").count() == 4
    assert page.locator("#pool .legend").inner_text() == "Reference: 1"
    assert page.locator("#pool .matrix").count() == 0
    assert "tokens" not in page.locator("#pool summary").first.inner_text()
    page.keyboard.press("Escape")
    page.select_option("#run", "1")
    page.wait_for_selector(".run:not([hidden]) [data-plot=entropy] .main-svg")
    assert "2 to 6 rollouts" in page.locator(".run:not([hidden])").inner_text()
    assert page.locator(".run:not([hidden]) [data-plot=grid]").count() == 0


def test_recurrences_have_their_own_headings_and_words(page: Any, tmp_path: Path) -> None:
    store = write_recurrences(tmp_path / "recurrences", 6)
    file = make_page(tmp_path, store)
    text = file.read_text(encoding="utf-8")
    assert "The grid&#39;s own rollouts of R12 stand for plain samples." in text
    assert "recurrences=12 to compare" in text
    assert "The gate was open" not in text
    assert "A token took 5.2 iterations in the mean, of 6.0 that it was allowed" in text
    show(page, file)
    page.wait_for_selector(".run:not([hidden]) [data-plot=recursion] .main-svg")
    assert "Recurrences only, oracle" in page.locator(".run:not([hidden]) .headline").text_content()
    names = page.locator(".run:not([hidden]) .plot").evaluate_all("all => all.map(each => each.ariaLabel)")
    assert names[0].startswith("Accuracy over the grid. R = 2, T = 0: ")
    assert "recurrence" in page.locator("#solved").text_content()
    assert "temperature (R12), recurrence (temperature 0)" in page.locator("#meanings").text_content()
    page.goto(file.as_uri() + "#problem=1")
    page.wait_for_selector("#pool .matrix")
    assert page.locator("#pool .matrix th[scope=row]").all_inner_texts() == ["R 2", "R 4", "R 12"]
    assert page.locator("#pool .matrix small").all_inner_texts() == ["≠ 2", "≠ 2"]
    legend = page.locator("#pool .legend").inner_text()
    assert "differs from the rollout of R12 in its column" in legend
    assert "token that took all its iterations" in legend
    assert "11.2 iterations per token" in page.locator("#pool summary").nth(4).inner_text()
    page.locator("#pool summary").nth(4).click()
    tokens = page.locator("#pool details").nth(4).locator(".token")
    assert tokens.nth(0).get_attribute("title") == "token 0, entropy 0.00 nats or more, 12 iterations"
    assert page.locator("#pool details").nth(4).locator(".token.recursed").count() == 1


def test_a_run_of_temperature_alone_is_compared_at_equal_flops(tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "grid", 6, 20)
    alone = write_grid(tmp_path / "alone", 4, 20, spans=(0,), repeats=3)
    text = make_page(tmp_path, grid, alone).read_text(encoding="utf-8")
    assert "Plain samples come from alone, for 4 of 6 problems, with the same prompts." in text
    assert text.count("at equal FLOPs, shared work counted once") == 2
    other = write_grid(tmp_path / "other", 4, 20, spans=(0,), model="another/model")
    text = make_page(tmp_path, grid, other).read_text(encoding="utf-8")
    assert "shared work counted once" not in text
    assert "The grid&#39;s own rollouts of span 0 stand for plain samples." in text


def test_a_page_that_would_be_too_large_says_less_of_tokens(page: Any, tmp_path: Path) -> None:
    store = write_grid(tmp_path / "store", 24, 120)
    documents = read_store(store).documents("toy_eglr")
    needed = {
        detail: sum(len(pool_chunk(each, WORDS, detail)) for each in documents) for detail in get_args(Detail)
    }
    assert list(needed.values()) == sorted(needed.values(), reverse=True)
    sizes = []
    for detail, bytes_for_pools in needed.items():
        megabytes, words = str((REST + 1.04 * bytes_for_pools) / 1e6), LEFT_OUT[detail]
        file = make_page(tmp_path, store, options=("--max-size", megabytes))
        text = file.read_text(encoding="utf-8")
        sizes.append(file.stat().st_size)
        assert ("--max-size" in text) == bool(words)
        assert words in text
        show(page, file)
        page.get_by_role("link", name="Open the pool of problem 3", exact=True).click()
        page.locator("#pool summary").nth(4).click()
        shown = page.locator("#pool details").nth(4).locator("pre").inner_text()
        assert shown.startswith("".join(WORDS[token] for token in documents[3].parsed[4].tokens))
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.slow
def test_a_large_page_is_small_and_quick(browser: Any, tmp_path: Path) -> None:
    """500 problems × 64 rollouts × 500 tokens, every token traced."""
    page_file = make_page(tmp_path, write_grid(tmp_path / "store", 500, 500, repeats=4))
    assert page_file.stat().st_size < 30e6
    opened = browser.new_page()
    opened.set_default_timeout(PATIENCE)
    show(opened, page_file)
    assert int(opened.evaluate("document.documentElement.dataset.ready")) < 3000
    assert opened.locator("#problems tr").count() == 100
    assert opened.locator("#range").inner_text() == "1 to 100 of 500"
