"""The difference of two runs: words, values, settings, outcomes, steps; as text and as HTML."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from notebook_shell import Notebook

import xpander_magics as xp
from xpander_magics.analysis.diffs.alignment import Piece, aligned, words_between
from xpander_magics.analysis.diffs.changes import MISSING, changes
from xpander_magics.analysis.diffs.difference import diff
from xpander_magics.contract import Event
from xpander_magics.errors import ConfigError, NotFoundError
from xpander_magics.outcomes import Runs
from xpander_magics.results import Run
from xpander_magics.store.frames import frame_of

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> \x1b[2J\u202e </ins></del>"


# ---- words


@given(st.text("ab \n.", max_size=40), st.text("ab \n.", max_size=40))
def test_the_pieces_hold_both_texts(before: str, after: str) -> None:
    pieces = words_between(before, after)
    for text, marks in ((before, "=-"), (after, "=+")):
        assert " ".join(piece.text for piece in pieces if piece.mark in marks).split() == text.split()


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_an_alignment_is_the_longest(a: list[int], b: list[int]) -> None:
    pairs, is_shortest = aligned(a, b)
    assert is_shortest
    assert [first for first, _ in pairs if first is not None] == list(range(len(a)))
    assert [second for _, second in pairs if second is not None] == list(range(len(b)))
    both = [(first, second) for first, second in pairs if first is not None and second is not None]
    assert all(a[first] == b[second] for first, second in both)
    longest = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for x, left in enumerate(a):
        for y, right in enumerate(b):
            same = longest[x][y] + 1 if left == right else 0
            longest[x + 1][y + 1] = max(same, longest[x][y + 1], longest[x + 1][y])
    assert len(both) == longest[-1][-1]


def test_words_that_changed() -> None:
    assert words_between("The cat  sat.", "The dog sat.\n") == [
        Piece("=", "The "),
        Piece("-", "cat  "),
        Piece("+", "dog "),
        Piece("=", "sat.\n"),
    ]
    assert words_between("a  b", " a\nb ") == [Piece("=", " a\nb ")]
    assert words_between("", "") == []


def test_a_long_answer_is_told_apart_within_its_sentences() -> None:
    draw = random.Random(1)
    lines = [
        " ".join(f"w{draw.randrange(30_000)}" for _ in range(12)) + draw.choice([".\n", ". "]) for _ in range(3_000)
    ]
    other = [line.replace("1", "x") if draw.random() < 0.1 else line for line in lines]
    pieces = words_between("".join(lines), "".join(other))
    assert "".join(piece.text for piece in pieces if piece.mark != "-") == "".join(other)
    kept = sum(len(piece.text) for piece in pieces if piece.mark == "=")
    assert 0.85 < kept / len("".join(lines)) < 0.97  # of each sentence that differs, some words are left


def test_texts_without_anything_in_common_take_no_quadratic_time() -> None:
    # Would take hours, were each word looked for everywhere.
    words = [f"w{number}" for number in range(200_000)]
    shuffled = random.Random(1).sample(words, len(words))
    pieces = words_between(" ".join(words), " ".join(shuffled))
    assert [piece.mark for piece in pieces] == ["-", "+"]
    around = words_between("the same " + " ".join(words) + " end", "the same " + " ".join(shuffled) + " end")
    assert [piece.mark for piece in around] == ["=", "-", "+", "="]


# ---- values


def test_json_is_compared_by_value_with_paths() -> None:
    before = {"a": [1, {"b": True}], "same": 2, "it's": None, "gone": "x"}
    after = {"same": 2.0, "a": [1, {"b": 1}, "new"], "it's": 0, "a b": []}
    assert changes(before, after) == [
        ("$.a[1].b", True, 1),
        ("$.a[2]", MISSING, "new"),
        ("$['it\\'s']", None, 0),
        ("$.gone", "x", MISSING),
        ("$['a b']", MISSING, []),
    ]
    assert changes({"a": None}, {}) == [("$.a", None, MISSING)]
    assert changes(1, "1") == [("$", 1, "1")]


def test_json_may_be_nested_deep() -> None:
    before: object = 1
    after: object = 2
    for _ in range(50_000):
        before, after = [before], [after]
    (change,) = changes(before, after)
    assert change[1:] == (1, 2)


def test_json_answers_are_told_by_value() -> None:
    a = Run(result='{"n": 1, "m": 2}', output={"n": 1, "m": 2})
    found = diff(a, Run(result='{"m":2,"n":1}', output={"m": 2, "n": 1}))
    assert (found.values, found.answer) == ([], [])
    assert "JSON with the same values" in repr(found)
    other = diff(a, Run(result='{"m":3}', output={"m": 3}))
    assert other.values == [("$.n", 1, MISSING), ("$.m", 2, 3)]
    assert "$.n: 1 → (none)" in repr(other)
    # Where one of them is no JSON, the words are all there is.
    assert diff(a, Run(result="no JSON")).values is None


# ---- two runs of a service


def test_what_was_asked_and_what_came_of_it(notebook: Notebook) -> None:
    template = "A {{ animal }} sits."
    asked = {"target": "echo", "model": "scripted/echo"}
    a = xp.run(template, **asked, effort="low", variables={"animal": "cat"})
    b = xp.run(template, **asked, effort="high", variables={"animal": "dog"}, instructions="Be kind.")
    found = diff(a, b)
    assert [(piece.mark, piece.text.strip()) for piece in found.answer] == [
        ("=", "A"),
        ("-", "cat"),
        ("+", "dog"),
        ("=", "sits."),
    ]
    assert found.prompt == found.answer
    assert found.variables == [("animal", "cat", "dog")]
    assert {piece.mark for piece in found.template} == {"="}
    settings = {change.name: (change.before, change.after) for change in found.settings}
    assert settings.pop("effort asked for") == ("low", "high")
    assert repr(settings.pop("instructions_override")[0]) == "(none)"
    assert settings.pop("effort", ("low", "high")) == ("low", "high")
    assert settings == {}
    assert found.equal_settings >= 4  # service, target, model, mode
    facts = {fact.name: fact for fact in found.outcome}
    assert facts["status"][1:] == ("completed", "completed", None)
    assert facts["tokens"].difference == b.total_tokens - a.total_tokens
    assert facts["seconds"].difference == pytest.approx(b.latency_s - a.latency_s)
    text = repr(found)
    assert "A [-cat-] {+dog+} sits." in text
    assert "effort asked for: low → high" in text
    # By its id, or the beginning of one; a row of a frame tells the same, but for what no column has.
    for first in (a.run_id, a.run_id[:10], frame_of([a]).iloc[0]):
        again = diff(first, b)
        assert (again.a.run_id, again.answer, again.variables) == (a.run_id, found.answer, found.variables)
        assert [fact[1:3] for fact in again.outcome] == [fact[1:3] for fact in found.outcome]
    # What a row can't know is no difference.
    row = diff(frame_of([a]).iloc[0], b)
    assert "instructions_override" not in {change.name for change in row.settings}
    assert ("effort asked for", "low", "high") in row.settings
    assert any("DataFrame's row" in note for note in row.notes)


def test_the_steps_of_both_side_by_side(notebook: Notebook) -> None:
    def ask(script: dict[str, object]) -> Run:
        notebook.ns["p"] = {"script": {"result": "Done.", **script}}
        return notebook.ask("echo -m scripted/echo --payload p")

    a = ask({"think": ["I ", "see."], "tools": True})
    b = ask({"think": ["I see ", "more."]})
    found = diff(a, b)
    assert [(step.mark, step.lane, step.name) for step in found.steps] == [
        ("~", "thought", "think"),
        ("-", "tool", "lookup"),
    ]
    assert found.notes == []
    same = diff(a, ask({"think": ["I see."], "tools": True}))
    assert [step.mark for step in same.steps] == ["=", "="]  # the pieces and the call's id are no difference
    assert "- tool: lookup" in repr(found)
    assert "I [-see.-] {+see more.+}" in repr(found)


def test_the_sub_agents_of_both(notebook: Notebook) -> None:
    a, b = (notebook.ask(target, "hello") for target in ("workflow:echo-twice", "echo"))
    found = diff(a, b)
    agents = [step for step in found.steps if step.lane == "agent"]
    assert [step.mark for step in agents] == ["-"] * 4  # two that began, and ended
    assert [step.ok_before for step in agents] == [None, True, None, True]
    again = diff(a, notebook.ask("workflow:echo-twice", "hello"))
    assert [step.mark for step in again.steps if step.lane == "agent"] == ["="] * 4


def test_what_has_no_events_is_compared_by_the_tools_that_the_service_names(notebook: Notebook) -> None:
    notebook.ns["p"] = {"script": {"tools": True, "think": ["Hm."]}}
    a = notebook.ask("echo -m scripted/echo --payload p")
    sync = notebook.ask("echo -m scripted/echo --payload p --mode sync")
    without = notebook.ask("echo -m scripted/echo")
    found = diff(a, sync)
    assert [(step.mark, step.lane, step.name) for step in found.steps] == [("=", "tool", "lookup")]
    (note,) = found.notes
    assert "not of the second run" in note
    assert note in repr(found)
    kept = frame_of([a]).iloc[0]
    assert [(step.mark, step.name) for step in diff(kept, without).steps] == [("-", "lookup")]
    assert any("not of the first run" in note for note in diff(kept, without).notes)
    assert any("not of both runs" in note for note in diff(kept, kept).notes)
    workflow = frame_of([notebook.ask("workflow:echo-twice", "hello")]).iloc[0]
    assert "The first run handed work to 2 sub-agents." in diff(workflow, without).notes


def test_a_run_of_a_sweep_is_found_with_its_events(notebook: Notebook) -> None:
    notebook.ns["p"] = {"script": {"think": ["Hm."]}}
    notebook.run("%%xpander echo -m scripted/echo --payload p -n 2 -o runs -q\nhello")
    runs = notebook.ns["runs"]
    assert isinstance(runs, Runs)
    ids = [run.run_id for run in runs]
    assert [step.lane for step in diff(*ids).steps] == ["thought"]


def test_the_first_mistakes(notebook: Notebook) -> None:
    run = notebook.ask("echo")
    with pytest.raises(NotFoundError, match="nosuchrun"):
        diff(run, "nosuchrun")
    with pytest.raises(ConfigError, match="not a value of type int"):
        diff(run, 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not a value of type Series"):
        diff(run, pd.Series([1]))


# ---- as it is shown


SAFE = {"div", "strong", "section", "table", "thead", "tbody", "tr", "th", "td", "del", "ins", "span"}


class Elements(HTMLParser):
    """The elements of a page, and their text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.feed(page)
        assert not self.open, "an element is left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def hostile(text: str) -> Run:
    call = {"tool_name": text, "parameters": {text: text}}
    kinds = {"think": text, "tool_call_request": call, "tool_call_result": {**call, "is_success": False}}
    return Run(
        result=f"one {text}",
        prompt=text,
        template=text,
        target=text,
        model=text,
        status=text,
        error_type=text,
        variables={text: text},
        scores={text: 1.0},
        request={text: text, "input": {"user": {text: text}}},
        error=text,
        events=[Event(kind, None, None, data, {}) for kind, data in kinds.items()],
    )


def test_nothing_that_was_written_breaks_out() -> None:
    for a, b in ((hostile(HOSTILE), Run(result="one")), (hostile(HOSTILE), hostile(HOSTILE + "x"))):
        for pair in ((a, b), (b, a)):
            bundle = diff(*pair)._repr_mimebundle_()
            assert set(bundle) == {"text/plain", "text/html"}
            page = Elements(bundle["text/html"])
            assert set(page.tags) <= SAFE
            assert page.attributes <= {"class", "style", "scope", "role", "aria-label"}
            for text in bundle.values():
                assert "\x1b" not in text
                assert "\u202e" not in text
    a = Run(result="a", output={HOSTILE: HOSTILE})
    page = Elements(diff(a, Run(result="b", output={"x": 1}))._repr_mimebundle_()["text/html"])
    assert "script" not in page.tags


def test_marks_need_no_colour() -> None:
    shown = diff(Run(result="an old text"), Run(result="a new text"))._repr_mimebundle_()
    assert "[-an old-] {+a new+} text" in shown["text/plain"]
    page = shown["text/html"]
    assert re.search(r"<del style=\"[^\"]*line-through[^>]*><span[^>]*>removed: </span>an old</del>", page)
    assert re.search(r"<ins style=\"[^\"]*underline[^>]*><span[^>]*>added: </span>a new</ins>", page)
    assert "#" not in re.sub(r"&#\w+;", "", page)  # no colour of its own, for any theme


def test_what_is_long_is_cut_where_it_is_shown() -> None:
    same, words = " ".join(f"same{n}" for n in range(5_000)), " ".join(f"word{n}" for n in range(30_000))
    found = diff(Run(result=f"{same} {words}"), Run(result=f"{same} other"))
    assert sum(len(piece.text) for piece in found.answer) > 250_000
    shown = found._repr_mimebundle_()
    assert all(len(text) < 20_000 for text in shown.values())
    assert "… (4,940 equal words) …" in shown["text/plain"]
    assert "more characters)" in shown["text/plain"]
    many = diff(Run(result="a", output=list(range(500))), Run(result="b", output=list(range(1, 501))))
    assert "… and 400 more" in many._repr_mimebundle_()["text/plain"]
    assert len(many.values or []) == 500


def test_two_equal_runs() -> None:
    run = Run(result="one", prompt="p", status="completed")
    text = repr(diff(run, run))
    assert "Answer: the same" in text
    assert "[-" not in text
    assert "Settings: all" in text
    assert json.dumps(diff(Run(), Run())._repr_mimebundle_())
