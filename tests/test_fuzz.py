"""Whatever comes in: lines, templates, streams, tasks, runs, tables. Each part keeps its promise for all of it."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import math
import re
import shlex
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fault_server import FaultServer, stream
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule
from test_panel import all_options
from test_store import JSON, RUNS, WORD, shown

from xpander_magics.analysis.comparison import Comparison, compare
from xpander_magics.analysis.exports.exports import exported
from xpander_magics.cell import Options, cell_parser, checked_name, parse_cell, parse_set
from xpander_magics.commands import COMMAND_NAMES, Command, command_parser, most_words, parse_command
from xpander_magics.contract import ENDED, Task, Usage
from xpander_magics.errors import ConfigError, NotFoundError, StoreError, TemplateError, XpanderError
from xpander_magics.plans.template import render
from xpander_magics.results import STREAMED, Run, new_run_id
from xpander_magics.service.client import _event
from xpander_magics.service.sse import ServerEvent, SSEDecoder
from xpander_magics.session import Session
from xpander_magics.showing.carried import MIME, packed, read_notebook
from xpander_magics.store import Store
from xpander_magics.store.columns import COLUMNS, KEPT
from xpander_magics.store.frames import frame_of
from xpander_magics.store.scores import Score
from xpander_magics.store.votes import Vote
from xpander_magics.widgets.choices import cell_line


@contextlib.contextmanager
def ours(*kinds: type[XpanderError]) -> Iterator[None]:
    """Lets errors of ours pass that are told in a line or three; nothing is printed beside them."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            yield
        except kinds as error:
            told = str(error)
            assert 0 < len(told.splitlines()) <= 3, told
            assert told.strip(), "it says nothing"
    assert out.getvalue() == ""


# ---- lines

OPTIONS = sorted({option for action in cell_parser()._actions for option in action.option_strings})
PIECES = st.one_of(
    st.sampled_from(
        [
            *OPTIONS,
            *"'\"\\=,-#;{}[]$% \t\n",
            "--",
            "{{",
            "}}",
            "{{ a, b }}",
            "-",
            "=x",
            "openai/gpt-5",
            "3",
            "-1",
            "1e3",
        ]
    ),
    st.sampled_from([*"\0\x1b\u202e\u2028\ud800\ufeff²", "٣", "é", "日本", "\U0001f600"]),
    st.text(max_size=6),
)
LINES = st.lists(PIECES, max_size=14).flatmap(lambda pieces: st.sampled_from(["", " "]).map(lambda by: by.join(pieces)))


@given(LINES)
@example("''")
@example("-o " + "a" * 100_000)
@example("--" + "x" * 100_000)
@example("'" * 99_999)
@example("-t" * 20_000)
@example("--tag x " * 2_000)
@example("a " * 20_000)
def test_any_line_of_a_cell_is_options_or_one_error(line: str) -> None:
    with ours(ConfigError):
        options = parse_cell(line)
        for name, value in options.said().items():
            values = value if isinstance(value, tuple) else (value,)
            assert values, name
            assert all(one.strip(" ,") for one in values if isinstance(one, str)), name
        parse_set(options.set)


@given(st.sampled_from(["", "compar", *COMMAND_NAMES]), LINES)
def test_any_line_of_a_command_is_a_command_or_one_error(name: str, rest: str) -> None:
    with ours(ConfigError):
        command = parse_command(f"{name} {rest}")
        assert isinstance(command, Command)
        # A question may have any words, and is read as it stands.
        assert command.name == "help" or len(command.words) <= most_words(command.name)


ARGUMENTS = st.text(min_size=1, max_size=8).filter(lambda text: text.strip(" ,") and not text.startswith("-"))


@given(st.sampled_from([name for name in COMMAND_NAMES if name not in ("use", "help")]), st.data())
def test_what_is_quoted_reaches_a_command_as_it_is(name: str, data: st.DataObject) -> None:
    words = data.draw(st.lists(ARGUMENTS, max_size=most_words(name)))
    actions = [a for a in command_parser(name)._actions if a.type is None and a.nargs is None]
    given_values = {a.dest: data.draw(ARGUMENTS) for a in actions if data.draw(st.booleans())}
    spelled = [f"{a.option_strings[-1]}={given_values[a.dest]}" for a in actions if a.dest in given_values]
    command = parse_command(f"{name} {shlex.join([*words, *spelled])}")
    assert command.words == tuple(words)
    for dest, value in given_values.items():
        assert getattr(command, dest) in (value, (value,))


@given(all_options)
def test_defaults_are_read_as_a_cell_is(options: Options) -> None:
    line = cell_line(options)
    if options.out is None and options.dry_run is None:
        assert parse_command(f"use {line}").options == parse_cell(line)
    else:
        with pytest.raises(ConfigError, match="for one cell alone"):
            parse_command(f"use {line}")


@given(st.text(max_size=12) | st.sampled_from(["__debug__", "None", "print", "match", "ﬁ", "ª", "µ", "_", "x²"]))
@example("ﬁ")
@example("__debug__")
def test_a_name_that_out_takes_is_one_that_a_cell_can_use(name: str) -> None:
    with ours(ConfigError):
        taken = checked_name(name)
        assert taken is not None
        variables: dict[str, Any] = {taken: 1}
        exec(f"found = {name}", variables)
        assert variables["found"] == 1
        exec(f"{name} = 2", variables)
        assert variables[taken] == 2


# ---- templates

MARKS = ("{{", "{%", "{#")
ODD = st.text() | st.lists(st.sampled_from([*"{}%#$\\\r\n\0\x1a -", "\ud800", "}}", "%}", "#}", "é"])).map("".join)


@given(ODD, ODD, ODD)
@example("{{ secret }}", "{% raw %}", "{# #}")
def test_values_are_put_in_as_they_are(first: str, second: str, name: str) -> None:
    variables = {"a": first, "rows": [second, first], "d": {"k": second}, "secret": "never"}
    made = render("<{{ a }}|{% for row in rows %}{{ row }};{% endfor %}{{ d.k }}>", variables)
    assert made.text == f"<{first}|{second};{first};{second}>"
    assert render("{{ rows[0] ~ a }}", variables).text == f"{second}{first}"


WORDS = """{{ {% {# }} %} #} -}} {{- a b rows d .k [0] ['k'] |upper |length () for in endfor if else endif set = == + -
/ % ~ ( ) 1 0 'x' , |join(',') |tojson |first is defined raw endraw macro import self __class__ |attr('x') |map('upper')
|sort é block include super() loop.index"""
SNIPPETS = st.lists(st.sampled_from(WORDS.split()), max_size=16).map(" ".join)


@given(SNIPPETS)
def test_any_template_is_rendered_or_one_error(template: str) -> None:
    with ours(TemplateError):
        made = render(template, {"a": "A", "b": 2, "rows": ["x", "y"], "d": {"k": "v"}})
        json.dumps(made.variables, allow_nan=False)


# ---- server-sent events


def by_the_standard(sent: bytes) -> list[tuple[str, str]]:
    """The events of a stream as the WHATWG's HTML standard has them, 9.2.5 and 9.2.6, read all at once."""
    text = sent.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
    events, kind, data = [], "", ""
    *lines, _unfinished = re.split(r"\r\n|\r|\n", text)
    for line in lines:
        if line == "":
            if data != "":
                events.append((kind or "message", data.removesuffix("\n")))
            kind, data = "", ""
        elif not line.startswith(":"):
            field, colon, value = line.partition(":")
            value = value.removeprefix(" ") if colon else ""
            if field == "event":
                kind = value
            elif field == "data":
                data += value + "\n"
    return events


STREAM = st.lists(
    st.sampled_from(
        [b"data", b"event", b"id", b"retry", b":", b": ", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n"]
    )
    | st.sampled_from(
        [codecs.BOM_UTF8, b"\xef\xbb", b"\xff", b"\xf0\x9f\x98", "😀".encode(), b"\0", b"\xe2\x80\xa8", b"x"]
    )
    | st.sampled_from(
        [b"data: a\n", b"data\n", b"data:\r", b"event: e\r\n", b":c\n", b"id: 1\n", b"Data: b\n", b" data: c\n"]
    )
    | st.binary(max_size=4),
    max_size=24,
).map(b"".join)


@given(STREAM, st.lists(st.integers(0, 80), max_size=6))
@example(b"data: " + b"x" * 100_000 + b"\r\n\r\n", list(range(0, 100_000, 997)))
@example(codecs.BOM_UTF8 * 2 + b"data: a\n\n", [1, 2, 3, 4])
def test_a_stream_is_read_as_the_standard_says_however_it_is_cut(sent: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    for pieces in ([sent], [sent[a:b] for a, b in pairwise(places)], [bytes([byte]) for byte in sent]):
        decoder = SSEDecoder()
        events = [(event.event, event.data) for piece in pieces for event in decoder.feed(piece)]
        assert events == by_the_standard(sent)


EVENT_JSON = st.dictionaries(st.sampled_from(["type", "event", "task_id", "time", "data", "x"]), JSON)


@given(st.text(max_size=8), st.text() | JSON.map(json.dumps) | EVENT_JSON.map(json.dumps))
@example("message", "[" * 100_000)
@example("message", '{"a": ' * 100_000)
@example("message", '{"data": ' + "1" * 5_000 + "}")
@example("message", '{"data": NaN, "time": 1e999}')
def test_any_event_has_a_type_and_perhaps_a_task(event: str, data: str) -> None:
    found = _event(ServerEvent(event, data))
    assert isinstance(found.type, str)
    assert isinstance(found.task_id, (str, type(None)))
    assert isinstance(found.about, (str, type(None)))
    assert isinstance(found.raw, dict)


# ---- tasks

TIMES = st.sampled_from(
    ["2026-02-07T06:18:47Z", "2026-02-07T06:18:47.438043+01:00", "0001-01-01T00:00:00", "9999-12-31T23:59:59-01:00"]
)
FIELDS = st.dictionaries(
    st.sampled_from([*Task.FIELDS, "new"]),
    JSON
    | TIMES
    | st.sampled_from([*ENDED, "executing", "paused", "cancelled", 2**70, -5, 1e308, math.nan, math.inf])
    | st.fixed_dictionaries({"prompt_tokens": JSON, "completion_tokens": st.sampled_from([-1, 2**53, math.nan, True])}),
    max_size=8,
)
USED = st.dictionaries(
    st.sampled_from(Usage.FIELDS),
    JSON | st.sampled_from([-1, -0.5, math.nan, math.inf, -math.inf, 2**60, 10**400, 0.1]),
)


def sound(run: Run) -> None:
    """What holds of every run, whatever was said of it."""
    for name in ("prompt_tokens", "completion_tokens", "total_tokens", "actions"):
        value = getattr(run, name)
        assert value is None or (type(value) is int and 0 <= value < 2**53), (name, value)
    assert run.cost_usd is None or (math.isfinite(run.cost_usd) and run.cost_usd >= 0)
    for column in COLUMNS:
        value = getattr(run, column.name)
        if column.dtype in ("string", "category"):
            assert value is None or isinstance(value, str), column.name
        if column.dtype.startswith("datetime"):
            assert value is None or value.utcoffset() == timedelta(0), column.name
    row = frame_of([run]).iloc[0]
    for name in ("total_tokens", "actions", "cost_usd"):
        assert pd.isna(row[name]) or row[name] >= 0


@given(st.lists(FIELDS | USED.map(Usage), max_size=5))
@example([{"created_at": "9999-12-31T23:59:59-01:00", "started_at": "0001-01-01T00:00:00"}])
def test_whatever_a_service_says_leaves_a_sound_run(said: list[dict[str, Any] | Usage]) -> None:
    run = Run()
    for one in said:
        if isinstance(one, Usage):
            run.apply_usage(one)
        else:
            run.apply_task(Task(one))
    sound(run)
    repr(run), run._repr_mimebundle_()


def said(kind: str, data: Any = None, about: str | None = "TASK", spelling: str = "type") -> bytes:
    return b"data: " + json.dumps({spelling: kind, "task_id": about, "data": data}).encode() + b"\n\n"


TEXTS = st.text(max_size=8).filter(lambda text: "TASK" not in text)
UNDER_WAY = st.one_of(
    TEXTS.map(lambda text: ("chunk", text, said("chunk", text))),
    TEXTS.map(lambda text: ("chunk", text, said("chunk", text, None, "event"))),
    TEXTS.map(lambda text: ("other", "", said("chunk", text, "another"))),
    TEXTS.map(lambda text: ("other", "", said("think", text))),
    JSON.map(lambda data: ("other", "", said("chunk", [data]))),
    FIELDS.map(lambda fields: ("other", "", said("task_updated", {**fields, "result": None}))),
    FIELDS.map(lambda fields: ("other", "", said("task_created", {**fields, "result": None}))),
    FIELDS.map(lambda fields: ("other", "", said("task_finished", {**fields, "status": "completed"}, "another"))),
    st.tuples(st.text(max_size=5), JSON).map(lambda told: ("other", "", said(f"x{told[0]}", told[1]))),
    st.binary(max_size=8).map(lambda noise: ("other", "", b": " + re.sub(rb"[\r\n]", b"", noise) + b"\n\n")),
    JSON.map(lambda data: ("other", "", b"data: " + json.dumps([data]).encode() + b"\n\n")),
)
FINISH = st.sampled_from(
    [
        {"status": "completed", "result": "R"},
        {"status": "completed", "result": None},
        {"status": "failed", "result": "R"},
    ]
)


@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    items=st.lists(UNDER_WAY, max_size=6),
    finish=FINISH,
    after=st.lists(UNDER_WAY, max_size=2),
    cut=st.none() | st.tuples(st.integers(0, 8), st.floats(0, 0.99)),
    end=st.sampled_from(["end", "close", "reset"]),
)
@example(
    [("other", "", said("task_updated", {"id": "elsewhere"}))],
    {"status": "completed", "result": "R"},
    [],
    (2, 0),
    "end",
)
def test_whatever_a_stream_says_on_the_way_the_run_is_what_became_of_its_task(
    session: Session,
    service: FaultServer,
    items: list[tuple[str, str, bytes]],
    finish: dict[str, Any],
    after: list[tuple[str, str, bytes]],
    cut: tuple[int, float] | None,
    end: str,
) -> None:
    session.client.search_pauses = (0.0, 0.02)
    begin = said("task_created", {"id": "TASK", "status": "pending"})
    told = [("other", "", begin), *items, ("other", "", said("task_finished", {"id": "TASK", **finish}))]
    told += after
    streamed = [text for kind, text, _ in items if kind == "chunk"]
    if cut is not None:
        at = min(cut[0], len(items) + 1)
        told = [*told[:at], ("cut", "", told[at][2][: int(len(told[at][2]) * cut[1])])]
        streamed = [text for kind, text, _ in told if kind == "chunk"]
    service.service.final = finish
    service.on("POST */invoke/stream", stream(*(piece for _, _, piece in told), end=end, work=True))
    run = None
    with ours(XpanderError):
        try:
            run = session.run(Options(target="writer", usage=False), "say", {})
        except XpanderError as error:
            run = error.run
            raise
    assert run is not None
    assert run.status == finish["status"]
    text = "".join(streamed)
    assert run.result == (finish["result"] or text or None)
    if finish["status"] == "failed" and text not in ("", "R"):
        assert run.metadata[STREAMED] == text
    sound(run)
    kept = session.store.find(run.run_id)
    assert (kept.status, kept.result, kept.task_id, kept.error) == (run.status, run.result, run.task_id, run.error)
    assert run.task_id in service.service.tasks


# ---- frames and files

EDGES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.none() | WORD | st.just(""),
    "category": st.none() | WORD | st.sampled_from(["low", "completed", "agent", "", "nan", "None"]),
    "Int64": st.none() | st.integers() | st.sampled_from([2**63 - 1, -(2**63), 2**63, 0]),
    "Float64": st.none() | st.floats(),
    "boolean": st.none() | st.booleans(),
    "datetime64[us, UTC]": st.none() | st.datetimes(timezones=st.just(timezone.utc)),
}
ROWS = st.lists(
    st.builds(
        Run,
        **{column.name: EDGES[column.dtype] for column in COLUMNS if column.dtype in EDGES and column.name != "run_id"},
        output=JSON,
        variables=st.dictionaries(WORD, JSON, max_size=2),
        tags=st.lists(WORD, max_size=2),
        tools_used=st.lists(JSON, max_size=2),
        metadata=st.dictionaries(WORD, JSON, max_size=2),
        scores=st.dictionaries(st.sampled_from(["exact", "a b", "é", "\ud800"]), st.floats(), max_size=2),
    ),
    max_size=3,
)
DTYPES = {column.name: column.dtype for column in COLUMNS}


def same(value: Any, wanted: Any, dtype: str) -> bool:
    """Whether a frame has a run's value; what a column can't hold is missing there."""
    if dtype == "Int64" and wanted is not None and not -(2**63) < wanted < 2**63:
        wanted = None
    if wanted is None or (isinstance(wanted, float) and math.isnan(wanted)):
        return value is None or value is pd.NA or value is pd.NaT or math.isnan(value)
    if dtype.startswith("datetime"):
        return bool(value == pd.Timestamp(wanted).as_unit("us"))
    return bool(value == wanted)


@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
@given(ROWS)
@example([Run(model="\ud800", scores={"\ud800": 0.5})])
def test_any_runs_make_a_frame_of_the_same_columns_and_values(runs: list[Run]) -> None:
    frame = frame_of(runs)
    scores = {
        f"score_{shown(name)}": name for run in runs for name, score in run.scores.items() if not math.isnan(score)
    }
    assert list(frame.columns) == [*DTYPES, *sorted(scores, key=scores.__getitem__)]
    twice = pd.concat([frame, frame], ignore_index=True)
    for one in (frame, twice):
        assert {name: str(dtype) for name, dtype in one.dtypes.items()} == {
            **DTYPES,
            **dict.fromkeys(scores, "Float64"),
        }
    assert len(twice) == 2 * len(runs)
    for name, dtype in DTYPES.items():
        for value, run in zip(frame[name], runs, strict=True):
            assert same(value, framed(run, name), dtype), name
    for column, name in scores.items():
        for value, run in zip(frame[column], runs, strict=True):
            assert same(value, run.scores.get(name), "Float64"), name


def framed(run: Run, name: str) -> Any:
    """A run's value as a frame has it."""
    value = getattr(run, name)
    return shown(value) if DTYPES[name] == "category" and value is not None else value


@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
@given(ROWS.filter(bool))
@example([Run(model="\ud800", scores={"\ud800": 0.5})])
def test_any_runs_are_exported_and_read_back(tmp_path: Path, runs: list[Run]) -> None:
    frame = frame_of(runs)
    for ending in ("csv", "jsonl", "parquet", "sqlite"):
        exported(frame, tmp_path / f"runs.{ending}")
    lines = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text("ascii").splitlines()]
    read = pd.read_parquet(tmp_path / "runs.parquet")
    cells = pd.read_csv(tmp_path / "runs.csv", dtype="object", keep_default_na=False)
    assert len(lines) == len(read) == len(cells) == len(runs)
    assert list(read.columns) == [shown(name) for name in frame.columns]
    for line, (_, row), (_, cell), run in zip(lines, read.iterrows(), cells.iterrows(), runs, strict=True):
        for name in ("run_id", "prompt", "result", "status", "model"):
            text = framed(run, name)
            assert line[name] == text, name
            assert same(row[name], text if text is None else shown(text), "string"), name
            assert cell[name].endswith(shown(text or "").replace("\0", "\\x00")), name
        for name in ("total_tokens", "cost_usd", "is_byok", "created_at"):
            assert same(row[name], getattr(run, name), DTYPES[name]), name
        assert line["output"] == json.loads(json.dumps(run.output).replace("Infinity", "null").replace("-null", "null"))


@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
@given(ROWS)
def test_any_runs_come_back_from_a_notebook(tmp_path: Path, runs: list[Run]) -> None:
    for run in runs:
        run.scores = {name: value for name, value in run.scores.items() if name == "exact"}
    carries = json.loads(json.dumps(packed(runs)))
    cell = {"cell_type": "code", "source": "", "outputs": [{"output_type": "display_data", "data": {MIME: carries}}]}
    (tmp_path / "n.ipynb").write_text(json.dumps({"nbformat": 4, "cells": [cell]}))
    pd.testing.assert_frame_equal(read_notebook(tmp_path / "n.ipynb"), frame_of(runs))


# ---- the store


def begun(run: Run, status: str) -> Run:
    run.status, run.finished_at = status, None
    return run


ANY = st.builds(begun, RUNS, st.sampled_from([*sorted(ENDED), "planned", "executing", "unknown"]))


class Kept(RuleBasedStateMachine):
    """A store with two doors, and what should be in it: a plain dict, by the order in which runs were added."""

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        url = f"sqlite:///{Path(self._folder.name) / 'runs.db'}"
        self._doors = [Store(url), Store(url)]
        self._model: dict[str, dict[str, Any]] = {}
        self._voted: dict[str, Vote] = {}
        self._steps = 0

    def teardown(self) -> None:
        for door in self._doors:
            door.close()
        self._folder.cleanup()

    @property
    def _store(self) -> Store:
        self._steps += 1
        return self._doors[self._steps % 2]

    @rule(target=runs, made=st.lists(ANY, max_size=2), sweep=st.sampled_from(["s1", "s2", None]))
    def add(self, made: list[Run], sweep: str | None) -> Any:
        for run in made:
            run.run_id, run.sweep_id = new_run_id(), sweep
        self._store.add(made)
        self._model.update({run.run_id: stored(run) for run in made})
        return multiple(*(run.run_id for run in made))

    @rule(known=runs, made=ANY)
    def add_again(self, known: str, made: Run) -> None:
        """All or none: neither the one that is there already, nor the other."""
        made.run_id = new_run_id()
        with pytest.raises(StoreError, match="kept already"):
            self._store.add([made, Run(run_id=known)])

    @rule(target=runs, known=st.none() | runs, made=ANY)
    def update(self, known: str | None, made: Run) -> Any:
        made.run_id = known or new_run_id()
        self._store.update(made)
        before = self._model.get(made.run_id)
        mine = {name: before[name] for name in ("tags", "note", "scores")} if before else {}
        self._model[made.run_id] = {**stored(made), **mine}
        return multiple() if known else made.run_id

    @rule(known=runs, right=st.booleans(), later=st.integers(1, 10**9))
    def claim(self, known: str, right: bool, later: int) -> None:
        """One compare-and-set of ``sent_at``, which no ended run takes."""
        row = self._model[known]
        seen = row["sent_at"] if right else datetime(1999, 1, 1, tzinfo=timezone.utc)
        at = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=later)
        claimed = self._store.sweeps.claim(Run(run_id=known, sent_at=seen), at)
        assert claimed == (seen == row["sent_at"] and row["status"] not in ENDED)
        if claimed:
            row["sent_at"] = at

    @rule(known=runs, right=st.booleans())
    def release(self, known: str, right: bool) -> None:
        row = self._model[known]
        seen = row["sent_at"] if right else datetime(1999, 1, 1, tzinfo=timezone.utc)
        self._store.sweeps.release(Run(run_id=known, sent_at=seen))
        if seen == row["sent_at"] and row["status"] not in ENDED:
            row.update(sent_at=None, status="planned", error=None, error_type=None, attempts=None)

    @rule(known=runs, made=ANY, right=st.booleans())
    def tell(self, known: str, made: Run, right: bool) -> None:
        """News of a claimed run: by its claim alone, never an end by what came before it, never without its task."""
        row = self._model[known]
        made.run_id = known
        made.sent_at = row["sent_at"] if right else datetime(1999, 1, 1, tzinfo=timezone.utc)
        self._store.sweeps.update([made])
        counts = made.sent_at == row["sent_at"] and (row["status"] not in ENDED or made.ended)
        if counts and (row["task_id"] is None or made.task_id is not None):
            self._model[known] = {**stored(made), **{name: row[name] for name in ("tags", "note", "scores")}}

    @rule(known=st.lists(runs, min_size=1, max_size=3), tags=st.lists(WORD, max_size=2), remove=st.booleans())
    def tag(self, known: list[str], tags: list[str], remove: bool) -> None:
        self._store.tag(known, tags, remove=remove)
        for run_id in known:
            had = self._model[run_id]["tags"]
            wanted = [tag for tag in had if tag not in tags] if remove else list(dict.fromkeys([*had, *tags]))
            self._model[run_id]["tags"] = wanted

    @rule(known=runs, note=st.none() | WORD)
    def note(self, known: str, note: str | None) -> None:
        self._store.set_note(known, note)
        self._model[known]["note"] = note

    @rule(known=runs)
    def change_one_that_is_not_there(self, known: str) -> None:
        with pytest.raises(NotFoundError):
            self._store.tag([known, "nobody"], ["t"])

    @rule(
        known=st.lists(runs, min_size=1, max_size=2),
        name=st.sampled_from(["exact", "é"]),
        value=st.none() | st.floats(),
    )
    def score(self, known: list[str], name: str, value: float | None) -> None:
        told = [Score(run_id, name, value, "exact", "me") for run_id in [*known, "nobody"]]
        assert self._store.scores.add(told) == {"nobody"}
        number = None if value is None or math.isnan(value) else value
        for run_id in known:
            scores = self._model[run_id]["scores"]
            self._model[run_id]["scores"] = {n: v for n, v in {**scores, name: number}.items() if v is not None}

    @rule(left=runs, right=runs, voter=st.sampled_from(["me", "judge x"]), choice=st.sampled_from(["left", "skip"]))
    def vote(self, left: str, right: str, voter: str, choice: str) -> None:
        vote = Vote(left, right, choice, voter)
        self._store.votes.add(vote)
        same = {frozenset((left, right)), voter}
        self._voted = {i: v for i, v in self._voted.items() if {frozenset((v.left_run, v.right_run)), v.voter} != same}
        self._voted[vote.vote_id] = vote

    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        vote_id = data.draw(st.sampled_from([*self._voted, "none"]))
        assert self._store.votes.undo(vote_id) == (vote_id in self._voted)
        self._voted.pop(vote_id, None)

    @rule(data=st.data(), limit=st.none() | st.integers(-1, 3))
    def find(self, data: st.DataObject, limit: int | None) -> None:
        values = {
            name: data.draw(st.none() | st.sampled_from([*{row[name] for row in self._model.values()}, "nothing"]))
            for name in ("experiment", "sweep_id", "status", "target")
            if data.draw(st.booleans())
        }
        tags = [tag for row in self._model.values() for tag in row["tags"]]
        tag = data.draw(st.none() | st.sampled_from([*tags, "nothing"]))
        ids = data.draw(st.none() | st.lists(st.sampled_from([*self._model, "nobody"]), max_size=3))
        wanted = [
            run_id
            for run_id, row in self._model.items()
            if all(
                value is None or value in {row[n], row["target_id"] if n == "target" else row[n]}
                for n, value in values.items()
            )
            and (tag is None or tag in row["tags"])
            and (ids is None or run_id in ids)
        ]
        wanted = wanted if limit is None else wanted[len(wanted) - min(max(limit, 0), len(wanted)) :]
        chosen: dict[str, Any] = {**values, "tag": tag, "run_ids": ids, "limit": limit}
        assert [run.run_id for run in self._store.select(**chosen)] == wanted
        assert self._store.frame(**chosen)["run_id"].tolist() == wanted

    @rule(known=runs)
    def find_by_its_beginning(self, known: str) -> None:
        assert stored(self._store.find(known[:31])) == self._model[known]

    @rule()
    def open_again(self) -> None:
        self._store.close()

    @invariant()
    def both_doors_show_the_same(self) -> None:
        for door in self._doors:
            assert [stored(run) for run in door.select()] == list(self._model.values())
        assert {vote.vote_id: vote for vote in self._store.votes.select([*self._model])} == self._voted


def stored(run: Run) -> dict[str, Any]:
    """All that is kept of a run."""
    return {column.name: getattr(run, column.name) for column in KEPT}


TestKept = Kept.TestCase
TestKept.settings = settings(
    max_examples=6, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


# ---- comparisons

COMPARED = st.fixed_dictionaries(
    {},
    optional={
        "result": st.none() | WORD,
        "output": JSON,
        "status": st.sampled_from(["completed", "failed", "planned", "paused", "unknown", "new", None]),
        "error_type": st.none() | st.sampled_from(["SchemaError", ""]),
        "requested_model": st.none() | st.sampled_from(["m", "n", "", "\ud800"]),
        "model": st.none() | st.sampled_from(["m", "n"]),
        "requested_effort": st.none() | st.sampled_from(["low", "high", "new"]),
        "variables": st.none() | st.dictionaries(st.sampled_from(["text", "label", "model"]), JSON, max_size=2) | WORD,
        "prompt": st.none() | st.sampled_from(["p", "q"]),
        "template": st.none() | st.sampled_from(["t", "u"]),
        "repeat": st.none() | st.integers(0, 2),
        "latency_s": st.none() | st.floats(),
        "total_tokens": st.none() | st.integers(0, 2**62),
        "cost_usd": st.none() | st.floats(),
        "score_exact": st.none() | st.floats(),
        "score_odd": st.none() | st.booleans() | st.integers() | WORD,
        "run_id": WORD,
        "more": JSON,
    },
)


@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    rows=st.lists(COMPARED, max_size=8),
    by=st.sampled_from([None, "model", "effort", "more", "label", "model,effort", "prompt", "status", "nothing", []]),
    score=st.sampled_from([None, "exact", "odd", "numeric:5%", "contains", "nothing", "length", ["exact", "regex:x"]]),
    expected=st.sampled_from([None, "label", "more", "prompt", "nothing"]),
    failures=st.sampled_from(["zero", "drop", 0.5]),
)
def test_any_frame_is_compared_or_one_error(
    rows: list[dict[str, Any]], by: Any, score: Any, expected: str | None, failures: Any
) -> None:
    frame = pd.DataFrame(rows, dtype="object")
    before = frame.copy(deep=True)
    with ours(XpanderError):
        found = compare(frame, by, score, expected, failures=failures)
        assert isinstance(found, Comparison)
        assert len(found.table) == len(found.names) == len(set(found.names))
        for name in found.scores:
            values = found.values(name)
            assert len(values) == len(found.frame) <= len(rows)
        assert set(found._repr_mimebundle_()) >= {"text/plain", "text/html"}
    pd.testing.assert_frame_equal(frame, before)
