"""The corpus of attacks through every rendering: what comes of it has our elements, our styles, and nothing else."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from html.parser import HTMLParser

import ipywidgets as w
import pytest
from fault_server import FaultServer, reply
from hostile.payloads import HOST, LARGE, PAYLOADS, Payload
from test_outcomes import runs_of
from test_plots import study

from xpander_magics.analysis.comparison import compare
from xpander_magics.analysis.diffs.difference import diff
from xpander_magics.analysis.reports import page
from xpander_magics.analysis.reports.report import report_html
from xpander_magics.cell import Options
from xpander_magics.contract import Agent, Event, Model
from xpander_magics.errors import XpanderError
from xpander_magics.progress import _bar_html, line
from xpander_magics.results import STREAMED, Run
from xpander_magics.safety import Redactor, plain
from xpander_magics.session import Session
from xpander_magics.showing.display import as_html
from xpander_magics.showing.markup import LONGEST_MARKDOWN, safe_html
from xpander_magics.showing.tables import runs_shown, standing_bundle
from xpander_magics.store.frames import frame_of
from xpander_magics.store.votes import Vote
from xpander_magics.tally import Tally
from xpander_magics.voting.pairs import Contest
from xpander_magics.widgets.board import opened
from xpander_magics.widgets.celltext import standing_in
from xpander_magics.widgets.choices import Variable, runs_html, targets_from, variables_html
from xpander_magics.widgets.controls import Controls

_MARKDOWN = {
    *("p", "br", "hr", "em", "strong", "s", "blockquote", "code", "pre", "a", "ul", "ol", "li", "span"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}
_OURS = _MARKDOWN | {"div", "details", "summary", "caption", "section", "del", "ins", "progress"}
_PAGE = _OURS | {"html", "head", "meta", "title", "style", "body", "main", "header", "dl", "dt", "dd"}
_PAGE |= {"figure", "figcaption", "img", "h4"}
_VOID = {"br", "hr", "meta", "img"}
# Of these the values are words; of all others they are ours, the same whatever was written.
_WORDS = {"aria-label", "alt"}
_LINK = re.compile(r"https?://[^/?#\\\s]")
_VIEWS = ("auto", "text", "markdown", "json", "table")
_STEPS = ("think", "analyze", "tool_call_request", "tool_call_result", "auth_event", "sub_agent_trigger")
_AT = datetime(2026, 3, 1, tzinfo=timezone.utc)

# HTML of each rendering, by the rendering's name.
Renderings = Iterator[tuple[str, str]]


class Shape(HTMLParser):
    """What HTML is made of, and what of it is no business of an answer's.

    Attributes:
        faults: such elements, attributes and addresses.
        constants: names and values of attributes that no text is meant to change.
    """

    def __init__(self, html: str, tags: set[str] = _OURS) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.constants: set[tuple[str, str, str | None]] = set()
        self._tags = tags
        self._open: list[str] = []
        self.feed(html)
        self.close()
        if self._open:
            self.faults.append(f"left open: {self._open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in self._tags:
            self.faults.append(f"<{tag}>")
        if len(given) != len(attrs):
            self.faults.append(f"twice: {attrs}")
        if tag not in _VOID:
            self._open.append(tag)
        for name, value in attrs:
            if tag == "a" and name == "href":
                if not _LINK.match(value or "") or given.get("rel") != "noopener noreferrer":
                    self.faults.append(f"link: {attrs}")
            elif tag == "img" and name == "src":
                if not re.fullmatch("data:image/svg[+]xml;base64,[A-Za-z0-9+/=]+", value or ""):
                    self.faults.append(f"image: {value}")
            elif (tag, name) == ("ol", "start"):
                if not (value or "").isdigit():
                    self.faults.append(f"start: {value}")
            elif name not in _WORDS:
                self.constants.add((tag, name, value))

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID or not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> that closes nothing of its own")

    def handle_comment(self, data: str) -> None:
        self.faults.append(f"comment: {data}")

    def unknown_decl(self, data: str) -> None:
        self.faults.append(f"declaration: {data}")

    handle_pi = unknown_decl


def check(renderings: Renderings, known: set[tuple[str, str, str | None]], what: str, tags: set[str] = _OURS) -> None:
    """Fails on whatever isn't ours."""
    for name, html in renderings:
        shape = Shape(html, tags)
        assert not shape.faults, (name, what, shape.faults)
        assert shape.constants <= known, (name, what, shape.constants - known)
        assert plain(html) == html, (name, what)


def constants(renderings: Renderings, tags: set[str] = _OURS) -> set[tuple[str, str, str | None]]:
    """The attributes that renderings of harmless texts have."""
    shapes = [Shape(html, tags) for _, html in renderings]
    assert not any(shape.faults for shape in shapes)
    return set().union(*(shape.constants for shape in shapes))


def run_of(text: str, **given: object) -> Run:
    """A run all of whose texts are one."""
    data = {"tool_name": text, "parameters": {text: [text]}, "auth_url": text}
    events = [Event(kind, None, None, text if kind == "think" else data, {}) for kind in _STEPS]
    texts = (
        "target",
        "provider",
        "model",
        "effort",
        "think_mode",
        "title",
        "note",
        "prompt",
        "template",
        "agent_version",
    )
    more = ("requested_provider", "requested_model", "requested_effort", "experiment", "target_id", "thread_id")
    return Run(
        **{
            **dict.fromkeys((*texts, *more), text),
            **{"status": "completed", "result": text, "events": events, "variables": {text: [text]}, "tags": [text]},
            **{"scores": {text: 1.0}, "tools_used": [text], "latency_s": 1.0, "created_at": _AT, "error_type": None},
            **given,
        }
    )


def of_one(text: str) -> Renderings:
    """Everything that shows one run, or one text."""
    waits = {"pending_eca_request": {"auth_url": text, "connector_name": text}, STREAMED: text}
    failed = run_of(text, status="failed", result=f"not {text}", error=text, error_type=text, metadata=waits)
    paused = run_of(text, status="paused", metadata={**waits, "hitl_request": {"title": text}})
    table, deep = run_of(text, output=[{text: text}, {"b": [text]}]), run_of(text, output={text: {text: [text]}})
    for kind, run in {"failed": failed, "paused": paused, "table": table, "deep": deep}.items():
        for view in _VIEWS if run is not paused else ("auto",):
            yield f"{kind} as {view}", as_html(run, view)
    yield "opened", opened(failed)["html"]
    yield "diff", diff(failed, deep)._repr_mimebundle_()["text/html"]
    yield "diff with another", diff(run_of("other words", output=None), run_of(text))._repr_mimebundle_()["text/html"]
    yield "last runs", runs_html([failed, table])
    yield "variables", variables_html([Variable(text, text, text), Variable(text, None, text)])
    options = Options(target=text, models=(text,), title=text, note=text)
    yield "panel", standing_in(options, [text], text, "", Redactor([]))["text/html"]
    tally = Tally(3, 1, note=text)
    yield "bar", _bar_html(tally, line(tally))


def of_several(session: Session, texts: list[str]) -> Renderings:
    """Everything that shows several runs: each has one of the texts for a model's name, and another for its answer."""
    runs = [
        run_of(result, model=model, requested_model=model, effort=None, requested_effort=None, variables={key: value})
        for (model, result), (key, value) in itertools.product(
            zip(texts, texts[1:] + texts[:1], strict=True), [(texts[0], texts[1]), (texts[0], texts[-1])]
        )
    ]
    for number, run in enumerate(runs):
        run.scores = {"exact": float(number % 3 > 0)}
    yield "runs", runs_shown(runs_of(session, *runs))["text/html"]
    contest = Contest(runs)
    votes = [Vote(runs[0].run_id, runs[2].run_id, "left", texts[0]), Vote(runs[2].run_id, runs[4].run_id, "skip", "x")]
    yield "standing", standing_bundle(contest, votes)["text/html"]
    yield "no votes", standing_bundle(contest, [])["text/html"]
    frame = frame_of(runs)
    yield "comparison", compare(frame, by="model", score="exact")._repr_mimebundle_()["text/html"]


def of_page(text: str) -> Renderings:
    """A report's page, each of its parts with the text."""
    parts = [
        *(page.section(text, page.paragraph(text), page.items([text])), page.panel(text, [page.paragraph(text)])),
        *(page.facts([(text, text)]), page.picture(b"<svg/>", text, text, text), page.preformatted(text)),
        page.table(text, [text, text], [[text, text], [text, f"+ {text}"]], ["", "number"]),
        *(page.changes([f"-{text}", f"+{text}"]), page.cards([(text, text, text)])),
    ]
    yield "page", page.whole_page(text, parts)


def harmless(text: str) -> Iterator[str]:
    """Words that make all shapes that a text can: of letters, of digits."""
    yield from (text, "7", f"1. {text}\n2. {text}\n\n`{text}` $1", f"[{text}](https://a.example) {text} {text}")


def test_the_corpus_is_one() -> None:
    assert len(PAYLOADS) >= 300
    assert len({payload.text for payload in PAYLOADS}) == len({payload.name for payload in PAYLOADS}) == len(PAYLOADS)
    armed = [payload for payload in PAYLOADS if "__tripped" in payload.text or HOST in payload.text]
    assert len(armed) > 0.6 * len(PAYLOADS), "most of them can be noticed"


def test_one_run() -> None:
    """Each payload in each text of a run, in each way that a run is shown, alone and beside another."""
    known = constants(itertools.chain.from_iterable(map(of_one, harmless("words"))))
    for payload in PAYLOADS:
        check(of_one(payload.text), known, payload.name)
        shape = Shape(safe_html(payload.text), _MARKDOWN)
        assert not shape.faults, payload.name
        assert {name for _, name, _ in shape.constants} <= {"rel", "class"}, payload.name


def test_several_runs(session: Session) -> None:
    """The corpus as names, variables and answers of tables, of the vote's standing and of comparisons."""
    known = constants(of_several(session, [f"words {number}" for number in range(20)]))
    known |= constants(of_several(session, [str(number) for number in range(20)]))
    texts = [payload.text for payload in PAYLOADS]
    for start in range(0, len(texts), 40):
        check(of_several(session, texts[start : start + 40]), known, f"from {PAYLOADS[start].name}")


def test_the_report() -> None:
    """Each payload in each part of a report's page; some of them as a study, on a whole one."""
    known = constants(itertools.chain.from_iterable(map(of_page, harmless("words"))), _PAGE)
    for payload in PAYLOADS:
        check(of_page(payload.text), known, payload.name, _PAGE)
    texts = [payload.text for payload in PAYLOADS[9::43]]
    shape: dict[str, set[tuple[str, str, str | None]]] = {}
    for kind, words in {"harmless": [f"words {n}" for n in range(len(texts))], "hostile": texts}.items():
        given = dict.fromkeys(("result", "target", "experiment", "note"), words[0])
        runs = study(
            words[:4], (None,), (f"{words[4]} {{{{ text }}}}", f"{words[5]}\n{{{{ text }}}}"), 3, failing=2, **given
        )
        for run, text in zip(runs, itertools.cycle(words), strict=False):
            run.variables["text"], run.error = text, text if run.status == "failed" else None
        found = Shape(report_html(compare(frame_of(runs)), title=words[6]), _PAGE)
        assert not found.faults, found.faults
        shape[kind] = {known for known in found.constants if known[0] != "meta"}
    assert shape["hostile"] <= shape["harmless"]


def test_the_panels_widgets() -> None:
    """Names of agents and models: ipywidgets takes the value of an HTML widget, and a description, for HTML."""
    controls = Controls(lambda: None, lambda _: None)

    def every(widget: w.Widget) -> Iterator[w.Widget]:
        yield widget
        for child in getattr(widget, "children", ()):
            yield from every(child)

    def shown(text: str) -> Renderings:
        about = {"description": text, "model_provider": text, "model_name": text, "status": text}
        targets = targets_from(
            [Agent({"id": text, "name": text, **about}, "agent"), Agent({"id": "a", "name": "a"}, "agent")]
        )
        controls.offer_providers([text])
        controls.offer_models(text, [Model({"model_id": text, "display_name": text, "description": text})])
        controls.target.offer(targets)
        for value in (targets[0].value, targets[-1].value, text):
            controls.show(Options(target=value, models=(text, f"{text}/{text}")))
            for part in controls.children:
                for one in every(part):
                    assert not getattr(one, "description_allow_html", False)
                    if isinstance(one, (w.HTML, w.HTMLMath, w.Label)):
                        assert type(one) is w.HTML
                        yield "panel", one.value

    known = constants(shown("words"))
    for payload in PAYLOADS:
        check(shown(payload.text), known, payload.name)


def test_an_error_page(session: Session, service: FaultServer) -> None:
    """What a gateway answers in HTML is told as text."""
    known = constants(of_one("words"))
    for payload in PAYLOADS[::40]:
        written = f"<html><body>{payload.text}</body></html>".encode(errors="replace")
        service.on("POST */invoke", reply(400, written, content_type="text/html"))
        with pytest.raises(XpanderError) as raised:
            session.run(Options(target="writer", mode="sync"), "hello", {})
        check(iter([("error", as_html(run_of("words", error=str(raised.value))))]), known, payload.name)
    kept = session.store.select()
    assert len(kept) == len(PAYLOADS[::40])
    check(((run.status, as_html(run)) for run in kept), known, "kept")


@pytest.mark.parametrize("payload", LARGE, ids=lambda payload: payload.name)
def test_large_texts_are_shown(payload: Payload) -> None:
    """What is long or deep costs time in proportion, and no more room than that; nothing is raised."""
    html = safe_html(payload.text)
    assert len(html) < 40 * len(payload.text) + 2_000_000
    assert not Shape(html).faults
    output = json.loads(payload.text) if payload.text.startswith(("[[", '{"a"')) and payload.text[-1] in "]}" else None
    for run in (Run(result=payload.text, output=output), Run(error=payload.text, result=None)):
        for view in ("markdown", "json", "table"):
            assert as_html(run, view)


def test_a_long_text_is_no_markdown() -> None:
    """Rendering takes seconds a megabyte, and a reference may stand for much more than it is long."""
    long = f"[a]: https://{HOST}/{'b' * (LONGEST_MARKDOWN // 2)}\n\n{'[a]' * (LONGEST_MARKDOWN // 7)}"
    assert len(long) < LONGEST_MARKDOWN
    assert safe_html(long).count("<a href") < 20
    assert len(safe_html(long)) < 20 * LONGEST_MARKDOWN
    shown = safe_html(f"# Title\n{'x' * LONGEST_MARKDOWN}")
    assert "<h1>" not in shown
    assert "# Title" in shown


def test_links_lead_to_other_hosts_alone() -> None:
    """A link without a host, or with one that the page's own address gives, would lead into Jupyter."""
    for address in ("/lab?reset", "//a.example", "a.ipynb", "#a", "?a", "https:a.example", "http:/lab", "https:///a"):
        assert "href" not in safe_html(f"[x]({address})"), address
    for address in ("https://a.example", "HTTP://a.example/b?c#d", "https://[::1]:8888/x"):
        assert f'href="{address}"' in safe_html(f"[x]({address})"), address


@pytest.mark.parametrize(
    "command", ["def", "gdef", "let", "renewcommand", "href", "cssId", "style", "require", "label"]
)
def test_no_formula_reaches_beyond_itself(command: str) -> None:
    """Front ends keep a formula's definitions for all others of the page, and make links and ids of some."""
    broken = f'<span class="tex2jax_ignore mathjax_ignore">\\</span>{command}'
    for formula in (f"$\\{command}{{x}}$", f"$$\n\\{command} x\n$$", f"$x &#92;&#{ord(command[0])};{command[1:]}$"):
        assert broken in safe_html(formula), formula
    assert "span" not in safe_html(r"$\delta \leq \stylus \definite \frac{a}{b} \text{x} \newline y$")


def test_entities_bring_nothing_back() -> None:
    """What is made harmless as a character isn't to come back as an entity."""
    assert safe_html("a&#x202e;b&#8234;c&#x200b;d") == "<p>a\ufffdb\ufffdc\ufffdd</p>\n"


def test_a_pictures_words_are_shown() -> None:
    assert safe_html("![A *red* cat](https://a.example/cat.png)") == "<p>A red cat</p>\n"
