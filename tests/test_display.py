"""What a person sees of a run, and that a hostile answer stays an answer."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from notebook_shell import Notebook

from xpander_magics.contract import Event
from xpander_magics.errors import StoreError, TaskFailed
from xpander_magics.results import Run
from xpander_magics.showing.display import Stream, as_html, as_text, facts, run_bundle, waiting_for
from xpander_magics.showing.markup import AS_IT_IS, safe_html

# Each is an attack, and what of it must not be in any shown form.
HOSTILE = [
    ("<script>alert(1)</script>", "<script"),
    ("<img src=x onerror=alert(1)>", "<img"),
    ("![x](https://evil.example/pixel.png)", "<img"),
    ("![x][1]\n\n[1]: https://evil.example/pixel.png", "<img"),
    ("[click](javascript:alert(1))", 'href="javascript'),
    ("[click](JaVaScRiPt:alert(1))", "href"),
    ("[click](data:text/html,<script>alert(1)</script>)", 'href="data'),
    ("[click](vbscript:x)", 'href="vbscript'),
    ("<javascript:alert(1)>", 'href="javascript'),
    ('<a href="javascript:alert(1)">x</a>', "<a href"),
    ('<div style="position:fixed;inset:0">x</div>', 'position:fixed;inset:0">'),
    ("<style>*{display:none}</style>", "<style"),
    ("<iframe src=https://evil.example></iframe>", "<iframe"),
    ("<svg/onload=alert(1)>", "<svg"),
    ("<form action=https://evil.example><input name=p></form>", "<form"),
    ("```html\n</code></pre><script>alert(1)</script>\n```", "<script"),
    ("</pre></div><script>alert(1)</script>", "<script"),
    ("<!-- --><script>alert(1)</script>", "<script"),
    ("<base href=https://evil.example>", "<base"),
    ("<meta http-equiv=refresh content=0>", "<meta"),
    ('[x](https://a "\\" onmouseover=\\"alert(1)")', '" onmouseover="'),
    ("| a |\n|---|\n| <script>alert(1)</script> |", "<script"),
    ("\x1b[2J\x1b]0;title\x07\x1b]8;;https://evil.example\x1b\\x\x1b]8;;\x1b\\", "\x1b"),
    ("\x9b31m red \x90 dcs \x9c", "\x9b"),
    ("safe\rEVIL", "\r"),
    ("back\x08\x08\x7fspace", "\x08"),
    ("user\u202egnp.exe \u2066isolate\u2069", "\u202e"),
    ("zero\u200bwidth\ufeff", "\u200b"),
]
_HARMLESS_TAGS = {
    *("div", "p", "br", "hr", "em", "strong", "s", "blockquote", "code", "pre", "a", "ul", "ol", "li"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"),
    "span",  # around a price's dollar sign
}


class _Strict(HTMLParser):
    """Fails on any tag, attribute or address that a shown run has no need of."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _HARMLESS_TAGS, tag
        assert tag != "span" or attrs == [("class", AS_IT_IS)], attrs
        for name, value in attrs:
            assert name in ("href", "title", "start", "rel", "style", "class", "role"), name
            if name == "href":
                assert (value or "").startswith(("http://", "https://"))
            if name == "style":
                assert "url" not in (value or "")
                assert "position" not in (value or "")


def strict(html: str) -> None:
    parser = _Strict()
    parser.feed(html)
    parser.close()


@pytest.mark.parametrize(("answer", "attack"), HOSTILE)
@pytest.mark.parametrize("view", ["auto", "text", "markdown", "json", "table"])
def test_hostile_answers(answer: str, attack: str, view: str) -> None:
    step = Event("think", None, None, answer, {})
    run = Run(status="failed", result=answer, error=answer, model=answer, title=answer, events=[step])
    run.metadata = {"pending_eca_request": {"auth_url": answer, "connector_name": answer}}
    held = Run(status="paused", result=answer, output={answer: [answer]}, metadata=run.metadata)
    for shown in (run, held, Run(status="completed", result=answer, output=[{answer: answer}, {"b": [answer]}])):
        bundle = run_bundle(shown, view)
        assert set(bundle) == {"text/plain", "text/html"}
        assert attack not in bundle["text/html"]
        strict(bundle["text/html"])
        if not attack.isprintable():
            assert attack not in bundle["text/plain"]
            assert attack not in facts(shown)


@given(st.text())
@example("from $0 to $1")
def test_any_text_is_safe(text: str) -> None:
    strict(safe_html(text))
    shown = as_text(Run(status="completed", result=text))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)


@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_json_is_shown(value: object) -> None:
    for view in ("auto", "json", "table"):
        strict(as_html(Run(status="completed", result="x", output=value), view))


def test_links_open_nothing_of_ours() -> None:
    shown = safe_html("[x](https://a.example)")
    assert 'href="https://a.example"' in shown
    assert 'rel="noopener noreferrer"' in shown


def test_markdown_is_rendered() -> None:
    shown = safe_html("# Head\n\n- *one*\n- `two`\n\n| a |\n|---|\n| 1 |\n\n```python\nx = 1\n```\n~~no~~\nline")
    for part in ("<h1>Head</h1>", "<em>one</em>", "<code>two</code>", "<td>1</td>", "<pre>", "<s>no</s>", "<br>"):
        assert part in shown


def test_views() -> None:
    run = Run(status="completed", result='[{"a": 1, "b": "x"}, {"a": null, "c": [2]}]')
    run.output = [{"a": 1, "b": "x"}, {"a": None, "c": [2]}]
    assert "<tr><th>a</th><th>b</th><th>c</th></tr>" in as_html(run, "table")
    assert "<tr><td>1</td><td>x</td><td></td></tr>" in as_html(run, "table")
    assert "  &quot;a&quot;: 1" in as_html(run)
    assert '    "a": 1' in as_text(run)
    assert as_text(run, "text").startswith('[{"a": 1')
    assert "<h1>" in as_html(Run(status="completed", result="# x"), "markdown")
    assert "# x" in as_html(Run(status="completed", result="# x"), "text")
    asked_for_text = Run(status="completed", result="# x", request={"output_format": "text"})
    assert "<h1>" not in as_html(asked_for_text)
    assert "<th>a</th><td>1</td>" in as_html(Run(status="completed", result="x", output={"a": 1}), "table")
    assert "<th>result</th><td>x</td>" in as_html(Run(status="completed", result="x"), "table")


def test_facts() -> None:
    run = Run(run_id="0123456789abcdef", status="completed", provider="openai", model="gpt-5", effort="low")
    run.think_mode, run.latency_s, run.ttft_s = "harder", 3.25, 0.5
    run.prompt_tokens, run.completion_tokens, run.total_tokens, run.cost_usd = 1000, 234, 1234, 0.00123
    assert facts(run) == (
        "completed · openai/gpt-5 · effort low · think harder · 3.2 s · first token 0.5 s · "
        "1,234 tokens (1,000 in, 234 out) · $0.00123 · run 01234567"
    )
    run.scores = {"exact": 1.0, "similarity": 0.66667}
    assert facts(run).endswith(" · score exact 1 · score similarity 0.667 · run 01234567")
    assert facts(Run(run_id="0123456789", is_byok=True)) == "planned · own keys · run 01234567"


@pytest.mark.parametrize("request_", [None, "text", 5, ["list"], {}, {"auth_url": 5}, {"title": {"a": 1}}])
def test_what_is_waited_for_may_have_any_shape(request_: object) -> None:
    for name in ("pending_eca_request", "hitl_request"):
        run = Run(status="paused", metadata={name: request_})
        assert (waiting_for(run) or "").startswith("Paused: ")
        strict(as_html(run))


def test_steps_are_folded() -> None:
    events = [
        Event("think", None, None, "first", {}),
        Event("tool_call_request", None, None, {"tool_name": "lookup"}, {}),
        Event("chunk", None, None, "not a step", {}),
    ]
    shown = as_html(Run(status="completed", result="x", events=events))
    assert "<summary>2 steps</summary>" in shown
    assert "thought: first" in shown
    assert "tool call: {&quot;tool_name&quot;: &quot;lookup&quot;}" in shown
    assert "not a step" not in shown


def test_a_thought_that_comes_in_pieces_is_one_step() -> None:
    said = [("think", "It is "), ("chunk", "x"), ("think", "late."), ("analyze", "Is it?"), ("think", "!")]
    shown = as_html(Run(status="completed", result="x", events=[Event(type_, None, None, s, {}) for type_, s in said]))
    steps = re.findall("<li[^>]*>([^<]*)", shown)
    assert steps == ["thought: It is late.", "analysis: Is it?", "thought: !"]
    assert "<summary>3 steps</summary>" in shown


def streamed(pieces: list[str], run: Run, view: str = "auto") -> str:
    """What a terminal gets of a run whose answer came in pieces."""
    said: list[str] = []
    stream = Stream(said.append, rich=False, view=view)
    for piece in pieces:
        stream(run, Event("chunk", None, None, piece, {}), piece)
    stream.finish(run)
    return "".join(said)


def test_a_stream_is_shown_once() -> None:
    run = Run(run_id="a" * 32, status="completed", result="one two")
    assert streamed(["one ", "two"], run) == "one two\ncompleted · run aaaaaaaa\n"
    assert streamed([], run) == "one two\ncompleted · run aaaaaaaa\n"


def test_a_stream_that_was_cut_shows_the_whole_answer_at_the_end() -> None:
    run = Run(run_id="a" * 32, status="completed", result="one two three")
    assert streamed(["one "], run) == "one \none two three\ncompleted · run aaaaaaaa\n"


def test_a_table_in_a_terminal() -> None:
    rows = [{"a": 1, "b": "x\ny"}, {"a": None, "c": [2]}]
    run = Run(run_id="a" * 32, status="completed", result=str(rows), output=rows)
    shown = "a   b   c\n1 x y    \n      [2]\n"
    assert as_text(run, "table") == f"{shown}completed · run aaaaaaaa"
    assert streamed([str(rows)], run, "table").endswith(f"\n{shown}completed · run aaaaaaaa\n")
    assert as_text(Run(status="completed", result="x", output={"a": 1}), "table").startswith("a 1\n")


def test_nothing_is_said_twice() -> None:
    run = Run(run_id="a" * 32, status="failed", result="no paper", error="It failed: no paper", error_type="TaskFailed")
    assert as_text(run) == "It failed: no paper\nfailed · run aaaaaaaa"
    assert as_html(run).count("no paper") == 1
    said: list[str] = []
    Stream(said.append, rich=False).finish(run, raised=TaskFailed("It failed: no paper"))
    assert said == ["failed · run aaaaaaaa\n"]
    said.clear()
    Stream(said.append, rich=False).finish(run, raised=StoreError("another"))
    assert said == ["It failed: no paper\nfailed · run aaaaaaaa\n"]


def test_a_pause_is_told_once() -> None:
    said: list[str] = []
    stream = Stream(said.append, rich=False)
    run = Run(status="paused", metadata={"hitl_request": {"title": "Send it?"}})
    stream(run, Event("task_updated", None, None, {}, {}), "")
    stream.finish(run)
    assert "".join(said).count("Send it?") == 1


def test_a_reused_run_says_so() -> None:
    run = Run(run_id="a" * 32, status="completed", created_at=datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc))
    run.reused = True
    assert facts(run) == "reused: nothing was sent; run of 2026-01-02 03:04 UTC · completed · run aaaaaaaa"


def test_progress_overwrites_itself() -> None:
    said: list[str] = []
    stream = Stream(said.append, rich=False)
    run = Run(status="executing", metadata={"internal_status": "loading\x1b[2J\nmodel"})
    stream(run, Event("task_updated", None, None, {}, {}), "")
    assert said == ["\rloading\ufffd[2J model"]
    stream(run, Event("chunk", None, None, "x", {}), "x")
    assert "".join(said[1:]).strip() == "x"


def test_hostile_streams(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    answer = "\x1b[2J\x1b]0;t\x07 \u202e <script>alert(1)</script> ![x](https://evil.example/p.png)"
    notebook.ns["script"] = {"script": {"result": answer, "think": [answer], "chunks": 20}}
    for mode in ("stream", "async"):
        run = notebook.ask(f"echo --payload script --mode {mode}")
        assert run.result == answer
        shown = capsys.readouterr().out
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown)
    strict(notebook.ns["answer"]._repr_mimebundle_()["text/html"])


def test_a_hostile_error(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.ns["script"] = {"script": {"fail": "\x1b[2J\u202e gone"}}
    with pytest.raises(Exception, match="gone"):
        notebook.ask("echo --payload script")
    shown = capsys.readouterr().out
    assert "gone" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_prices_are_no_formula() -> None:
    """Front ends typeset what stands between two dollar signs."""
    shown = safe_html("It costs $5 and $6, not $x^2$; `$7`.")
    assert re.findall(r'<span class="([^"]+)">\$</span>(\d)', shown) == [
        ("tex2jax_ignore mathjax_ignore", "5"),
        ("tex2jax_ignore mathjax_ignore", "6"),
    ]
    assert "$x^2$" in shown
    assert "<code>$7</code>" in shown
