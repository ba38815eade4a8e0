"""The site builds without a warning, needs no network, and its tables are those of the code."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_blocks import ROOT

BUILDING = ROOT / "docs" / "building"
# What a browser fetches by itself; links that a reader may follow are another thing.
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Fetched(HTMLParser):
    """Collects what a page makes a browser fetch, and its links."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in FETCHED and (target := values.get(FETCHED[tag])) and target != "#":
            self.fetched.append(target)
        if tag == "a" and values.get("href"):
            self.links.append(str(values["href"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, str(BUILDING / "build.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_a_browser_fetches_nothing_from_elsewhere_and_finds_what_it_fetches(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        parser = Fetched()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.fetched
        for target in parser.fetched:
            parts = urlsplit(target)
            assert not parts.scheme + parts.netloc, f"{page.name} fetches {target}"
            assert (page.parent / unquote(parts.path)).is_file(), f"{page.name} fetches {target}"
        for target in parser.links:
            parts = urlsplit(target)
            if not parts.scheme and parts.path:
                assert (page.parent / unquote(parts.path)).exists(), f"{page.name} links to {target}"


def test_styles_fetch_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert "@import" not in text, path
        assert "url(http" not in text.replace('"', "").replace("'", ""), path


def test_what_is_public_has_its_place_in_the_reference(site: Path) -> None:
    import eglr_selectors
    import eglr_selectors.estimators
    import eglr_selectors.verifiers

    import lm_eval_eglr.decoding
    import lm_eval_eglr.store

    reference = "".join(path.read_text(encoding="utf-8") for path in site.glob("reference/*.html"))
    for module in (
        eglr_selectors,
        eglr_selectors.estimators,
        eglr_selectors.verifiers,
        lm_eval_eglr.decoding,
        lm_eval_eglr.store,
    ):
        for name in module.__all__:
            # An alias of a type has no entry of its own.
            if getattr(getattr(module, name), "__name__", "") == name:
                assert f'id="{module.__name__}.{name}"' in reference, name


def test_the_page_of_arguments_has_the_tables_that_the_code_gives() -> None:
    pytest.importorskip("griffe", reason="the extra `docs` is not installed")
    sys.path.insert(0, str(BUILDING))
    try:
        import tables
    finally:
        sys.path.remove(str(BUILDING))
    text = tables.ARGUMENTS.read_text(encoding="utf-8")
    assert "<!-- table: arguments -->" in text
    assert tables.filled(text, ["arguments"]) == text, "python docs/building/tables.py writes it"


def test_every_argument_of_the_model_is_in_a_table() -> None:
    from lm_eval_eglr.harness.model_arguments import OWN_OPTIONS

    pages = (ROOT / "docs" / "reference" / "arguments.md", ROOT / "docs" / "strategies.md")
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert [name for name in OWN_OPTIONS if f"| `{name}` |" not in text] == []
