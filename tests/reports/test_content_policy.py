"""The page's Content-Security-Policy in a browser: what is not the page's own is neither run nor fetched."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from page_stores import write_grid
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app

PATIENCE = 300_000  # milliseconds
# As if escaping had failed somewhere; {port} is of a server on this machine that counts who asks.
INJECTIONS = {
    "inline script": "<script>window.owned = 1</script>",
    "handler": "<img src=x onerror='window.owned = 1'>",
    "link": "<a id=bait href='javascript:window.owned = 1'>x</a>",
    "remote script": "<script src='http://127.0.0.1:{port}/x.js'></script>",
    "image": "<img src='http://127.0.0.1:{port}/x.png'>",
    "frame": "<iframe src='http://127.0.0.1:{port}/'></iframe>",
    "frame of script": "<iframe srcdoc='<script>parent.owned = 1</script>'></iframe>",
    "style": "<style>@import 'http://127.0.0.1:{port}/x.css';</style>",
    "background": "<div style='background: url(http://127.0.0.1:{port}/y)'>x</div>",
    "object": "<object data='http://127.0.0.1:{port}/x'></object>",
    "base": "<base href='http://127.0.0.1:{port}/'>",
    "preload": "<link rel=preload as=script href='http://127.0.0.1:{port}/x.js'>",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a store whose texts, prompts, fields and model are markup with scripts."""
    folder = tmp_path_factory.mktemp("policy")
    text = "</script><script>window.owned = 1</script><img src=x onerror='window.owned = 1'>"
    store = write_grid(folder / "store", 3, 20, model=text)
    result = CliRunner().invoke(app, ["report", str(store), "-o", str(folder / "page.html")])
    assert result.exit_code == 0, result.output
    return (folder / "page.html").read_text(encoding="utf-8")


@pytest.fixture
def server() -> Iterator[tuple[int, list[bytes]]]:
    """A port, and the first line of everything that was asked of it."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(2)  # browsers connect ahead and may ask nothing
                    asked.append(connection.recv(1000).split(b"\r\n")[0])
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\nwindow.owned = 1")

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], asked
        listener.shutdown(socket.SHUT_RDWR)


def opened(browser: Any, file: Path) -> Any:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(file.as_uri(), wait_until="load")
    return page


def test_without_the_policy_the_injections_would_work(
    browser: Any, server: tuple[int, list[bytes]], tmp_path: Path
) -> None:
    port, asked = server
    injected = "".join(INJECTIONS.values()).format(port=port)
    (tmp_path / "bare.html").write_text(f"<html><body>{injected}</body></html>")
    page = opened(browser, tmp_path / "bare.html")
    assert page.evaluate("window.owned") == 1
    assert len(asked) >= 4
    page.context.close()


@pytest.mark.parametrize("where", ["</head>", "</body>"])
def test_nothing_that_is_put_into_the_page_is_run_or_fetched(
    where: str, browser: Any, server: tuple[int, list[bytes]], hostile: str, tmp_path: Path
) -> None:
    port, asked = server
    assert hostile.count(where) == 1
    injected = "".join(INJECTIONS.values()).format(port=port)
    (tmp_path / "page.html").write_text(hostile.replace(where, injected + where), encoding="utf-8")
    page = opened(browser, tmp_path / "page.html")
    page.wait_for_selector("[data-ready]", state="attached")  # the page's own scripts run all the same
    page.locator("#bait").first.evaluate("link => link.click()")
    page.get_by_role("link", name="Open the pool of problem 1", exact=True).click()
    page.wait_for_selector("#pool details")
    assert page.evaluate("window.owned") is None
    assert asked == []
    page.context.close()
