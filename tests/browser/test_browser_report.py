"""The report in a real browser: it runs nothing, asks for nothing, and can be read by all."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from front_ends import serious_faults
from playwright.sync_api import Browser, Page, expect
from test_plots import HOSTILE, study

from xpander_magics.analysis.comparison import compare
from xpander_magics.analysis.reports.report import report
from xpander_magics.store.frames import frame_of

pytestmark = pytest.mark.browser

Opens = Callable[..., Page]
TEMPLATES = ("Classify:\n{{ text }}", "Classify:\nIn one word.\n{{ text }}")
FINE = {"models": ("small-model", "large-model"), "efforts": ("low", "high"), "templates": TEMPLATES, "failing": 4}


def attack(address: str) -> str:
    """What runs or asks for something at an address, if any of it is taken for HTML, CSS or a link."""
    return (
        f"</pre></style></title><script>window.hacked = 1; fetch('{address}/script')</script>"
        f"<img src='{address}/image' onerror='window.hacked = 1'><link rel=stylesheet href='{address}/style'>"
        f"<iframe src='{address}/frame'></iframe><style>@import '{address}/import';</style>"
        f"![]({address}/markdown) [x](javascript:window.hacked=1) <svg onload='window.hacked = 1'></svg>"
    )


class Server(ThreadingHTTPServer):
    """A folder at an address of its own, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
        self.address = f"http://127.0.0.1:{self.server_port}"


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def opened(served: Server, chromium: Browser, tmp_path: Path) -> Iterator[Opens]:
    """Opens the report of a study: ``opened(theme, width, file, **study)``.

    At the test's end its console must be empty, and nothing but the page may have been asked for.
    """
    told: list[str] = []
    with contextlib.ExitStack() as contexts:

        def opens(theme: str = "light", width: int = 1280, file: bool = False, **given: Any) -> Page:
            comparison = compare(frame_of(study(**{**FINE, **given})))
            path = report(comparison, tmp_path / "report.html", title=given.get("target"))
            context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]
            contexts.callback(context.close)
            page = context.new_page()
            address = path.as_uri() if file else f"{served.address}/report.html"
            page.on("console", lambda message: told.append(f"console: {message.text}"))
            page.on("pageerror", lambda error: told.append(f"uncaught: {error}"))
            page.on("dialog", lambda dialog: told.append(f"dialog: {dialog.message}"))
            page.on(
                "request",
                lambda asked: None if asked.url.startswith(("data:", address)) else told.append(f"asked: {asked.url}"),
            )
            page.goto(address, wait_until="networkidle")
            return page

        yield opens
    assert told == []
    # A browser asks for the icon of any site by itself.
    assert set(served.asked) <= {"/report.html", "/favicon.ico"}


def screenshot(page: Page, name: str) -> None:
    folder = os.environ.get("XPANDER_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 420), ("dark", 420)])
def test_it_can_be_read_by_all(opened: Opens, theme: str, width: int) -> None:
    """Guards against what axe-core finds, pictures that don't load, and a page that is wider than the screen."""
    page = opened(theme, width)
    screenshot(page, f"report-{theme}-{width}")
    assert page.evaluate("document.images.length") == 7
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 100)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 24, 26)"}[theme]
    assert serious_faults(page, "html") == []


def test_it_opens_as_a_file(opened: Opens) -> None:
    """Guards against a page that only works where it is served."""
    page = opened(file=True)
    expect(page.get_by_role("heading", level=1)).to_have_text("Comparison by model, effort and prompt")
    expect(page.get_by_role("region", name="In short")).to_contain_text("8 configurations ran on 12 inputs, 192 runs.")
    assert page.evaluate("document.images[0].naturalWidth") > 100


def test_it_prints_whole_and_light(opened: Opens) -> None:
    """Guards against dark paper, and tables that are cut at the paper's edge."""
    page = opened("dark", 718)  # A4 without its margins
    page.emulate_media(media="print")
    screenshot(page, "report-print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_hostile_words_run_nothing(opened: Opens, served: Server) -> None:
    """Guards against what models, services and people wrote running, or asking for anything, in the page."""
    words = attack(served.address)
    page = opened(
        models=(*HOSTILE[:3], words),
        efforts=(None,),
        templates=(f"{words} {{{{ text }}}}", f"{words}\n{{{{ text }}}}"),
        inputs=4,
        result=words,
        target=words,
        experiment=words,
        note=words,
        score=f"<img src={served.address}/score>",
    )
    assert page.evaluate("window.hacked") is None
    assert page.locator("script, iframe, link, style:not(head style), a, [onerror], [onload]").count() == 0
    expect(page.get_by_role("heading", level=1)).to_contain_text("<script>window.hacked = 1")
    expect(page.get_by_role("heading", name="Method")).to_be_visible()


def test_its_policy_forbids_what_escaping_might_miss(served: Server, chromium: Browser, tmp_path: Path) -> None:
    """Guards against the escaping being all that keeps scripts and requests out."""
    path = report(compare(frame_of(study(inputs=2))), tmp_path / "report.html")
    written = path.read_text(encoding="utf-8")
    path.write_text(written.replace("<main>", f"<main>{attack(served.address)}<p id=probe style='color: red'>"))
    page = chromium.new_page()
    page.goto(f"{served.address}/report.html", wait_until="networkidle")
    assert page.locator("iframe, img[onerror], main script").count() >= 3, "the words are elements now"
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("getComputedStyle(document.getElementById('probe')).color") != "rgb(255, 0, 0)"
    page.close()
    assert set(served.asked) <= {"/report.html", "/favicon.ico"}
