"""The corpus of attacks in a real browser: nothing of it runs, asks for anything, or becomes a part of the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbclassic
import pytest
from fault_server import FaultServer, agent
from front_ends import NotebookPage
from hostile.payloads import HOST, PAYLOADS
from nbconvert import HTMLExporter
from playwright.sync_api import Browser, Locator, Page, Request, Route, expect
from test_hostile import of_page

pytestmark = pytest.mark.browser

Opens = Callable[..., NotebookPage]
_AT_ONCE = 50
_END = "the end of the corpus"
# What attacks call; set before the page's own scripts, where those come with the attack.
_WIRE = "window.trips = []; window.__tripped = (number) => trips.push(`called: ${number}`);"
_CDN = "https://cdnjs.cloudflare.com/ajax/libs/"

# Runs with the corpus in all their texts: of two models, each answers with so many payloads in turn.
_RUNS = """\
import json
import xpander_magics as xp
from IPython.display import HTML, display
from xpander_magics.contract import Event
from xpander_magics.outcomes import Entry, Runs
from xpander_magics.session import default_session

with open(FILE, encoding="utf-8") as file:
    texts = json.load(file)
parts = ["\\n\\n".join(texts[start : start + AT_ONCE]) for start in range(0, len(texts), AT_ONCE)]

def made(text, number, model, score, **more):
    events = [Event(kind, None, None, {"tool_name": text, "a": text} if "tool" in kind else text, {})
              for kind in ("think", "tool_call_request", "tool_call_result")]
    return xp.Run(**{"status": "completed", "result": text, "events": events, "prompt": texts[number],
        "variables": {"text": texts[number], texts[number]: texts[number + 1]}, "provider": "p", "model": model,
        "template": texts[8], "note": text,
        "requested_provider": "p", "requested_model": model, "target": texts[10], "tags": [texts[number + 2]],
        "title": texts[9], "latency_s": 1.0, "scores": {"exact": score}, "effort": texts[3], **more})

runs = [made(text + end, 7 * n, model, float((n + len(end)) % 2))
        for n, text in enumerate(parts) for model, end in ((texts[0], ""), (texts[31], "!"))]
runs[1].status, runs[1].error, runs[1].error_type = "failed", parts[0], texts[40]
runs[3].output = {texts[3]: texts, texts[4]: {texts[5]: [texts[6]]}}
default_session().store.add(runs)
held = {run.run_id: run for run in runs}
runs = Runs(default_session(), "ab" * 16, [Entry(n, run_id) for n, run_id in enumerate(held)], held)
"""
_RENDERED = """\
display(HTML("".join(xp.Run(status="completed", result=text)._repr_mimebundle_()["text/html"] for text in texts)))
display(xp.Run(status="completed", result="$a \\\\le \\\\alpha$"))
for view in ("table", "json"):
    display(HTML(runs[3]._repr_mimebundle_()["text/html"]))
"""
_ANALYSES = """\
display(runs)
display(runs.compare(by="model", score="exact"))
display(xp.diff(runs[1], runs[4]))
display(runs.df)
"""
_UNSAFE = f"display(HTML('<script>__tripped(0)</script><img src=\"https://{HOST}/0\">'))"

# Whatever in a part of a page isn't of our making: elements, attributes, addresses. Ours, or Jupyter's, are formulas,
# the views' own styles, those of a DataFrame, the scripts by which nbconvert shows a widget.
_FOREIGN = r"""(root) => {
    const found = [];
    const tell = (what, one) => found.push(`${what}: ${one.outerHTML.slice(0, 300)}`);
    const elements = `script, style, iframe, frame, object, embed, form, link, meta, base, img, video, audio, picture,
        canvas, math, template, marquee, dialog, area, portal, applet`;
    const own = (one) => {
        const within = one.closest(".xpander, .widget-html, .xpander-run");
        if (one.localName === "style") return one.hasAttribute("scoped") || !within;
        if (one.localName !== "script") return false;
        return /^math|widget-view/.test(one.type) || /^\s*var element = \$\('#[0-9a-f-]{36}'\);\s*$/.test(one.text);
    };
    const may = /^https?:\/\//;
    const runs = /^on|^formaction$|^srcdoc$|^xlink:|^data-commandlinker|^contenteditable$|^autofocus$/i;
    const ids = /^(xpander-vote-|ui-|jp-|MathJax|mjx-|[0-9a-f-]{36})/;
    for (const one of root.querySelectorAll("*")) {
        if (one.closest("mjx-container, .MathJax, .MathJax_CHTML, .MathJax_PHTML, .MathJax_Preview, .mjx-chtml")) {
            if (one.matches("a, [href], [onclick]")) tell("formula", one);
            continue;
        }
        if (one.matches(elements) && !own(one)) tell("element", one);
        for (const { name, value } of one.attributes) {
            if (runs.test(name)) tell(name, one);
            const link = name === "href" && one.localName === "a" && may.test(value) && /noopener/.test(one.rel);
            if (["href", "src", "action", "background", "poster"].includes(name) && !link) tell(name, one);
            if (name === "style" && /url|expression|position: *fixed|@import/i.test(value)) tell(name, one);
            if (name === "id" && !ids.test(value)) tell(name, one);
        }
    }
    return found;
}"""


class Wire:
    """Notices whatever an attack may do to a page: scripts, dialogs, requests, frames, other pages.

    Args:
        own: addresses that begin so may be asked for.
    """

    def __init__(self, page: Page, *own: str) -> None:
        self._page = page
        self._own = ("data:", "blob:", *own)
        self.trips: list[str] = []
        page.on("dialog", self._dialog)
        page.on("request", self._request)
        page.on("frameattached", lambda frame: self.trips.append(f"frame: {frame.url}"))
        page.on("popup", lambda other: self.trips.append(f"popup: {other.url}"))
        page.on("download", lambda file: self.trips.append(f"download: {file.url}"))

    def _dialog(self, dialog: Any) -> None:
        self.trips.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Request) -> None:
        if not request.url.startswith(self._own):
            self.trips.append(f"asked: {request.url}")

    def all(self) -> list[str]:
        """What it has noticed."""
        return [*self.trips, *self._page.evaluate("window.trips ?? ['the wire itself is gone']")]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """The payloads in a file; the character that no JSON text in UTF-8 can hold is escaped there."""
    path = tmp_path / "corpus.json"
    path.write_text(json.dumps([payload.text for payload in PAYLOADS]))
    return path


def foreign(part: Locator) -> list[str]:
    found: list[str] = part.evaluate(_FOREIGN)
    return found


def test_in_a_notebook_and_its_page(
    open_notebook: Opens, chromium: Browser, service: FaultServer, corpus: Path, tmp_path: Path
) -> None:
    """Guards against each way from what others wrote into JupyterLab's page, and into nbconvert's."""
    runs = f"FILE, AT_ONCE = {str(corpus)!r}, {_AT_ONCE}\n{_RUNS}"
    live = (
        f"s = {{'script': {{'chunks': [part + '\\n' for part in parts] + [{_END!r}] + ['.'] * 50, 'rate': 10,"
        " 'think': parts[:3], 'tools': True, 'fail': parts[4]}}"
    )
    texts = [payload.text for payload in PAYLOADS]
    named = [text for text in texts if "\n" not in text and "\ud800" not in text and "\udfff" not in text][::14]
    service.service.agents = [agent(text, n, description=text, status="ACTIVE") for n, text in enumerate(named, 1)]
    service.service.workflows, service.service.models = [], {text: [text] for text in named[:3]}
    service.service.final = {"status": "completed", "result": "\n\n".join(named)}
    elsewhere = (
        f"import os; os.environ.update(XPANDER_BASE_URL={service.url!r}, XPANDER_API_KEY={service.key!r})\n"
        "%config XpanderMagics.retries = 0"
    )
    cells = [runs, live, "%%xpander echo --payload s\n{{ parts[0] }}", _RENDERED, "runs.board()"]
    cells += ["runs.vote(voter='ada', seed=7)", _ANALYSES, elsewhere, "%xpander panel", _UNSAFE]
    page = open_notebook(*cells)
    page.page.evaluate(f"() => {{ {_WIRE} }}")
    wire = Wire(page.page, page.server.url)

    def clean(number: int) -> None:
        assert wire.all() == [], cells[number - 1]
        assert foreign(page.outputs(number)) == [], cells[number - 1]

    page.run(1)
    page.run(2)
    page.start(3)
    view = page.outputs(3).locator(".xpander-live")
    expect(view).to_contain_text(_END)
    view.locator("details").evaluate("details => (details.open = true)")
    clean(3)
    page.wait(3)
    expect(page.outputs(3)).to_contain_text("failed · scripted/echo")
    clean(3)

    page.run(4)
    formula = page.outputs(4).locator("mjx-container").last
    expect(formula).to_contain_text("α")
    assert "hacked" not in formula.inner_text()
    clean(4)

    board = page.run(5).locator(".xpander-board")
    expect(board.get_by_role("gridcell").first).to_be_visible()
    board.get_by_role("gridcell").first.click()
    opened = board.get_by_role("region", name="Opened input")
    for number in range(1, len(texts) // _AT_ONCE + 1):
        expect(opened.locator(".xp-title")).to_contain_text(f"Input {number} of")
        expect(opened.locator(".xp-facts", has_text="on its way")).to_have_count(0)
        clean(5)
        if number % 4 == 3:
            opened.get_by_role("button", name="Mark differences").click()
            clean(5)
        opened.get_by_role("button", name="Next").click()

    vote = page.run(6).locator(".xpander-vote")
    for number in range(1, 5):
        clean(6)
        vote.get_by_role("button", name="A is better").click()
        expect(vote).to_contain_text(f"{number} of ")
    vote.get_by_role("button", name="Standing").click()
    expect(vote.get_by_role("table", name="Win rates")).to_be_visible()
    clean(6)

    page.run(7)
    expect(page.outputs(7)).to_contain_text("paired by input")
    clean(7)

    page.run(8)
    page.run(9)
    panel = page.cell(9).locator(".xpander-panel")
    expect(panel.get_by_label("Targets", exact=True).locator("option")).to_have_count(len(named))
    panel.get_by_label("Targets", exact=True).select_option(index=1)
    panel.get_by_label("Models", exact=True).select_option(index=0)
    for label in ("Target", "Model"):
        expect(panel.get_by_label(label, exact=True)).to_have_value(re.compile("."))
    panel.get_by_label("Prompt", exact=True).fill("{{ texts[0] }} {{ parts }}")
    expect(panel.get_by_role("table", name="Variables of the prompt")).to_be_visible()
    panel.get_by_role("button", name="Run").click()
    expect(panel.locator(".xpander-run, .xp-problem")).not_to_have_count(0)
    clean(9)

    page.save()
    converted(page, chromium, tmp_path)

    # The wire is one: what is not made safe trips it.
    assert page.page.evaluate("location.href").startswith(page.server.url)
    page.run(10)
    expect(page.outputs(10).locator("img")).to_have_count(1)
    assert {"called: 0", f"asked: https://{HOST}/0"} <= set(wire.all())
    page.foreign.clear()
    page.errors.clear()


def converted(page: NotebookPage, chromium: Browser, folder: Path) -> None:
    """Opens what nbconvert makes of the notebook; its own scripts are there as far as they are installed."""
    mathjax = f"{_CDN}mathjax/2.7.7/"
    exporter = HTMLExporter(mathjax_url=f"{mathjax}MathJax.js?config=TeX-AMS-MML_HTMLorMML-full,Safe")
    written, _ = exporter.from_filename(str(page.path))
    path = folder / "notebook.html"
    path.write_text(written, encoding="utf-8")
    components = Path(nbclassic.__file__).parent / "static/components/MathJax"

    def serve(route: Route) -> None:
        file = components / urlsplit(route.request.url).path.partition("/2.7.7/")[2]
        if route.request.url.startswith(mathjax) and file.is_file():
            route.fulfill(path=file)
        else:
            route.abort()

    context = chromium.new_context()
    context.add_init_script(_WIRE)
    context.route(re.compile("^https?:"), serve)
    shown = context.new_page()
    wire = Wire(shown, path.as_uri(), _CDN)
    shown.goto(path.as_uri())
    shown.wait_for_function("() => window.MathJax?.isReady")
    shown.evaluate("() => new Promise((done) => MathJax.Hub.Queue(done))")  # all is typeset
    assert shown.locator(".jp-OutputArea .MathJax, .jp-OutputArea .MathJax_CHTML, .jp-OutputArea .mjx-chtml").count()
    assert wire.all() == []
    outputs = shown.locator(".jp-OutputArea")
    assert outputs.count() >= 6
    for number in range(outputs.count()):
        assert foreign(outputs.nth(number)) == []
    context.close()


def test_in_a_report(chromium: Browser, tmp_path: Path) -> None:
    """Guards against words that are markup on a report's page: its policy is taken away, so that escaping is all."""
    (harmless,) = (html for _, html in of_page("words"))
    head, _ = harmless.split("<main>")
    bodies = [html.split("<main>")[1].split("</main>")[0] for payload in PAYLOADS for _, html in of_page(payload.text)]
    head = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", head)
    path = tmp_path / "report.html"
    path.write_text(f"{head}<main>{''.join(bodies)}</main>", encoding="utf-8")
    page = chromium.new_page()
    page.add_init_script(_WIRE)
    wire = Wire(page, path.as_uri())
    page.goto(path.as_uri(), wait_until="networkidle")
    assert page.locator("section").count() >= len(PAYLOADS)
    assert wire.all() == []
    assert [one for one in foreign(page.locator("main")) if "data:image/svg+xml" not in one] == []
    path.write_text(f"{head}<main>{PAYLOADS[0].text}<img src='https://{HOST}/0'></main>", encoding="utf-8")
    page.reload()
    assert wire.all(), "the wire is one"
    page.close()
