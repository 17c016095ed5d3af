"""What a sweep is made of: its rows, its order, its record, and what is refused before anything is sent."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fault_server import FaultServer
from notebook_shell import Notebook

import xpander_magics as xp
from xpander_magics.cell import Options, parse_cell
from xpander_magics.config import Settings
from xpander_magics.errors import (
    ConfigError,
    InvalidRequestError,
    NotFoundError,
    SchemaError,
    SecretError,
    TemplateError,
    XpanderError,
)
from xpander_magics.plans import grid as grids
from xpander_magics.plans.grid import Grid, make_grid, rows_of
from xpander_magics.results import Run
from xpander_magics.service.client import Client
from xpander_magics.session import Session

SECRET = "sk-a-secret-of-mine-0815"


@pytest.fixture
def client(service: FaultServer) -> Iterator[Client]:
    with Client(service.key, service.url, retries=0) as client:
        yield client


Make = Callable[..., Grid]


@pytest.fixture
def make(client: Client, environment: pytest.MonkeyPatch) -> Make:
    """Makes the grid of a cell's line, a template and the notebook's variables."""

    def made(line: str | Options, template: str = "hi", **variables: Any) -> Grid:
        options = parse_cell(line) if isinstance(line, str) else line
        return make_grid(options, template, variables, client, lambda ref: None)

    return made


def prompts(grid: Grid) -> list[str]:
    return [grid.job(number).prompt for number in range(len(grid))]


def nothing_started(service: FaultServer) -> bool:
    return not service.requests("POST *")


# ---- rows


def test_rows_of_a_frame_have_the_values_of_python() -> None:
    frame = pd.DataFrame(
        {
            "whole": [1, 2],
            "part": [0.5, float("nan")],
            "when": [pd.Timestamp("2024-05-06"), pd.NaT],
            "yes": [True, False],
            "kind": pd.Categorical(["bug", None]),
            "maybe": pd.array([7, None], dtype="Int64"),
            "text": ["a", "ü"],
            "list": [[1], {"a": 1}],
        }
    )
    first, second = rows_of("frame", {"frame": frame})
    assert first == {
        **{"whole": 1, "part": 0.5, "when": pd.Timestamp("2024-05-06"), "yes": True, "kind": "bug", "maybe": 7},
        **{"text": "a", "list": [1]},
    }
    assert [type(first[name]) for name in ("whole", "part", "yes", "maybe")] == [int, float, bool, int]
    assert (second["whole"], second["yes"], second["text"], second["list"]) == (2, False, "ü", {"a": 1})
    assert all(pd.isna(second[name]) for name in ("part", "when", "kind", "maybe"))


def test_column_names_become_text() -> None:
    assert rows_of(pd.DataFrame([[1, 2]], columns=[0, "b"]), {}) == [{"0": 1, "b": 2}]
    assert rows_of([{1: "a"}], {}) == [{"1": "a"}]
    assert rows_of({5: ["a"]}, {}) == [{"5": "a"}]


def test_the_index_of_a_frame_does_not_matter() -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=["x", "x"])
    assert rows_of(frame, {}) == [{"a": 1}, {"a": 2}]


class LikePolars:
    """What polars' DataFrame has that pandas' has, too, in another way."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows
        self.columns = list(rows[0])

    def to_dict(self, *, as_series: bool = True) -> dict[str, Any]:
        return {name: [row[name] for row in self._rows] for name in self.columns}

    def to_dicts(self) -> list[dict[str, Any]]:
        return self._rows


def test_rows_of_a_frame_of_polars() -> None:
    assert rows_of(LikePolars([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]), {}) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


def test_rows_of_a_list_may_be_ragged() -> None:
    rows = [{"a": 1}, {"a": 2, "b": 3}, {}]
    assert rows_of("rows", {"rows": rows}) == rows
    assert rows_of(tuple(rows), {}) == rows


@pytest.mark.parametrize(
    "second",
    [[1, 2], (1, 2), np.array([1, 2]), pd.Series([1, 2]), pd.Index([1, 2]), range(1, 3), frozenset({1, 2})],
    ids=lambda value: type(value).__name__,
)
def test_a_dict_of_lists_gives_every_combination(second: Any) -> None:
    rows = rows_of({"a": ["x", "y"], "b": second}, {})
    assert rows == [{"a": a, "b": b} for a in ("x", "y") for b in (1, 2)]
    assert {type(row["b"]) for row in rows} == {int}


@pytest.mark.parametrize(
    ("over", "says"),
    [
        (5, "--over takes a DataFrame, [{'a': 1}, ...] or {'a': [1, 2]}; 'over' is of type int."),
        ("text", "'over' is of type str."),
        ([1, 2], "'over' is of type list."),
        ([{"a": 1}, 2], "'over' is of type list."),
        (pd.Series([1]), "'over' is of type Series."),
        (({"a": n} for n in range(2)), "'over' is of type generator."),
        ({"a": 5}, "--over: a dict has a list for each name; 'a' has a int."),
        ({"a": "xyz"}, "--over: a dict has a list for each name; 'a' has a str."),
        ({"a": {"b": 1}}, "--over: a dict has a list for each name; 'a' has a dict."),
        ({"a": range(2000), "b": range(2000)}, "--over: that makes 4,000,000 rows; a sweep has 1,000,000 runs"),
        (pd.DataFrame({"a": []}), "--over: 'over' has no rows, so there is nothing to send."),
        (pd.DataFrame(), "'over' has no rows"),
        ([], "'over' has no rows"),
        ({}, "'over' has no rows"),
        ({"a": [1], "b": []}, "'over' has no rows"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "--over: 'over' has two columns of one name; rename one."),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), "--over: 'over' has two columns of one name; rename one."),
    ],
)
def test_what_rows_are_not_made_of(over: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rows_of("over", {"over": over})
    assert says in str(caught.value)


def test_a_misspelt_table_is_named() -> None:
    with pytest.raises(ConfigError, match=r"there is no variable 'tikets' in the notebook. Did you mean tickets\?"):
        rows_of("tikets", {"tickets": []})
    with pytest.raises(ConfigError, match="it is of type int"):
        rows_of(5, {})


# ---- order


def big(make: Make) -> Grid:
    return make("writer --over rows -e low,medium,high -n 4", "{{ a }}", rows=[{"a": n} for n in range(7)])


def test_the_order_has_every_number_once(make: Make) -> None:
    grid = big(make)
    assert len(grid) == 7 * 3 * 4
    assert sorted(grid.order()) == list(range(len(grid)))


def test_an_input_has_all_its_settings_before_the_next_begins(make: Make) -> None:
    grid = big(make)
    jobs = [grid.job(number) for number in grid.order()]
    for start in range(0, len(jobs), 3):
        assert len({job.prompt for job in jobs[start : start + 3]}) == 1
        efforts = [job.setting["llm_reasoning_effort"] for job in jobs[start : start + 3]]
        assert sorted(efforts) == ["high", "low", "medium"]


def test_no_setting_is_always_first(make: Make) -> None:
    grid = big(make)
    jobs = [grid.job(number) for number in grid.order()]
    first = [job.setting["llm_reasoning_effort"] for job in jobs[:21:3]]
    assert first == ["low", "medium", "high", "low", "medium", "high", "low"]


def test_everything_is_sent_once_before_anything_is_repeated(make: Make) -> None:
    grid = big(make)
    assert [grid.job(number).repeat for number in grid.order()] == [r for r in (1, 2, 3, 4) for _ in range(21)]


def test_the_numbers_follow_inputs_settings_and_repeats(make: Make) -> None:
    grid = make("writer --over rows -m openai/gpt-5,openai/gpt-5-mini -n 2", "{{ a }}", rows=[{"a": 1}, {"a": 2}])
    jobs = [grid.job(number) for number in range(len(grid))]
    assert [(job.prompt, job.setting["llm_model_name"], job.repeat) for job in jobs] == [
        (prompt, model, repeat) for prompt in "12" for model in ("gpt-5", "gpt-5-mini") for repeat in (1, 2)
    ]


def test_a_value_given_twice_counts_once(make: Make) -> None:
    assert len(make("writer -e low,low -e low --think harder,harder")) == 1


def test_ids_are_stable_and_each_its_own(make: Make) -> None:
    grid, other = big(make), big(make)
    ids = [grid.run_id(number) for number in range(len(grid))]
    assert len(set(ids)) == len(ids)
    assert ids == [grid.run_id(number) for number in range(len(grid))]
    assert not set(ids) & {other.run_id(number) for number in range(len(other))}
    grid.ids[3] = "another"
    assert grid.run_id(3) == grid.job(3).run_id == "another"


# ---- prompts and variables


def test_every_column_is_kept_with_the_run(make: Make, client: Client) -> None:
    rows = [{"text": "so good", "label": "praise", "n": 1}, {"text": "broken", "label": "bug", "n": 2}]
    grid = make("writer --over rows", "{{ greeting }}: {{ text }}", rows=rows, greeting="Hi", unused=5)
    assert prompts(grid) == ["Hi: so good", "Hi: broken"]
    run = grid.plan(1, client).run
    assert run.variables == {"greeting": "Hi", "text": "broken", "label": "bug", "n": 2}
    assert (run.template, run.number, run.repeat) == ("{{ greeting }}: {{ text }}", 1, 1)


def test_a_column_stands_before_a_variable_of_its_name(make: Make) -> None:
    assert prompts(make("writer --over rows", "{{ a }}", rows=[{"a": "row"}, {}], a="notebook")) == ["row", "notebook"]


def test_a_plan_of_a_job_can_be_made_again(make: Make, client: Client) -> None:
    grid = make("writer -e low,high", "hi")
    one, other = grid.plan(1, client), grid.plan(1, client)
    assert one.call.body == other.call.body
    assert one.run.cache_key == other.run.cache_key != grid.plan(0, client).run.cache_key


def test_options_are_rendered_for_each_row(make: Make, client: Client) -> None:
    rows = [
        {"a": "one", "who": "writer", "model": "openai/gpt-5", "mine": {"k": 1}},
        {"a": "two", "who": "Ticket Sorter", "model": "anthropic/claude-sonnet-4-6", "mine": {"k": 2}},
    ]
    grid = make(
        "'{{ who }}' --over rows --title 'On {{ a }}' --instructions 'Be {{ a }} {{ all }}' -m '{{ model }}' "
        "--tag '{{ a }}' --tag t --context c --payload mine --experiment e-{{a}}",
        "go",
        rows=rows,
        all="!",
    )
    first, second = (grid.plan(number, client) for number in range(2))
    assert (first.run.target, second.run.target) == ("writer", "Ticket Sorter")
    assert (first.run.title, second.run.title) == ("On one", "On two")
    assert first.call.body["instructions_override"] == "Be one !"
    assert (first.run.tags, second.run.tags) == (["one", "t"], ["two", "t"])
    assert (first.run.requested_model, second.run.requested_model) == ("gpt-5", "claude-sonnet-4-6")
    assert second.call.body["payload_extension"]["k"] == 2
    assert (second.run.experiment, grid.experiment) == ("e-two", None)


def test_raw_renders_nothing(make: Make, client: Client) -> None:
    grid = make("writer --over rows --raw --title '{{ a }}'", "{{ a }} {{ nothing }}", rows=[{"a": 1}, {"a": 2}])
    assert prompts(grid) == ["{{ a }} {{ nothing }}"] * 2
    assert [grid.plan(number, client).run.title for number in range(2)] == ["{{ a }}"] * 2
    assert [grid.job(number).variables for number in range(2)] == [{"a": 1}, {"a": 2}]


def test_an_even_sweep_shares_its_terms(make: Make) -> None:
    assert len(make("writer --over rows --title t", "{{ a }}", rows=[{"a": n} for n in range(50)]).terms) == 1


# ---- what is refused


@pytest.mark.parametrize(
    ("line", "template", "kind", "says"),
    [
        ("writer", "{{ a }} {{ seldom }}", TemplateError, "The prompt (row 700 of 1,000): 'seldom' is not defined."),
        ("writer", "{{ 1 / n }}", TemplateError, "The prompt (row 700 of 1,000) can't be rendered: ZeroDivisionError"),
        ("writer", "{{ a.__class__.__mro__ }}", TemplateError, "(row 1 of 1,000) asks for what a template may not do"),
        ("writer", "{{ may_be_empty }}", ConfigError, "The prompt (row 700 of 1,000) is empty once it is rendered"),
        ("writer --title '{{ seldom }}'", "hi", TemplateError, "That is row 700 of 1000; nothing was sent."),
        ("writer --title '{{ may_be_empty }}'", "hi", ConfigError, "That is row 700 of 1000"),
        ("writer -m '{{ model }}'", "hi", NotFoundError, "That is row 700 of 1000"),
        ("writer -e '{{ effort }}'", "hi", ConfigError, "not 'lo'. Did you mean low?\nThat is row 700 of 1000"),
        (
            "'{{ target }}'",
            "hi",
            NotFoundError,
            "named 'wrter'. Did you mean writer or writer-u?\nThat is row 700 of 1000",
        ),
        ("writer --schema schema", "hi", SchemaError, "That is row 700 of 1000"),
        ("writer --payload payload", "hi", ConfigError, "--payload takes a dict, and 'payload' is a int.\nThat is row"),
        ("writer -m '{{ model }}' -m '{{ other }}'", "hi", NotFoundError, "That is row 700"),
    ],
)
def test_one_wrong_row_sends_nothing(
    make: Make, service: FaultServer, line: str, template: str, kind: type[XpanderError], says: str
) -> None:
    good = {
        **{"a": "x", "n": 1, "seldom": "y", "may_be_empty": "z", "model": "openai/gpt-5", "effort": "low"},
        **{"target": "writer", "schema": {"type": "object"}, "payload": {"a": 1}, "other": "openai/gpt-5-mini"},
    }
    bad = {
        **{"a": "x", "n": 0, "may_be_empty": " ", "model": "openai/gpt-55", "effort": "lo", "target": "wrter"},
        **{"schema": {"type": "nonsense"}, "payload": 5, "other": "openai/gpt-5-mini"},
    }
    rows = [good] * 699 + [bad] + [good] * 300
    with pytest.raises(kind) as caught:
        make(f"{line} --over rows", template, rows=rows)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
    assert nothing_started(service)


@pytest.mark.parametrize(
    ("line", "kind", "says"),
    [
        ("writer -m openai/gpt-5,openai/gtp-5", NotFoundError, "Did you mean gpt-5"),
        ("writer -m openai/gpt-5 -m gpt-5", ConfigError, "--model takes PROVIDER/MODEL"),
        ("writer -e low,hihg", ConfigError, "--effort takes low, medium, high, xhigh; not 'hihg'."),
        ("writer --think default,hard", ConfigError, "--think takes default, harder"),
        ("wrter -n 3", NotFoundError, "Did you mean writer or writer-u?"),
        ("-n 3", ConfigError, "There is no target"),
        ("writer -n 3 --timeout 1e9 --set 'titel=\"x\"'", ConfigError, "Did you mean title"),
        ("writer -n 1000001", ConfigError, "That makes 1,000,001 runs; a sweep has 1,000,000 at the most."),
        ("writer -n 200000 -e low,medium,high,xhigh --think default,harder", ConfigError, "makes 1,600,000 runs"),
    ],
)
def test_a_wrong_setting_sends_nothing(
    make: Make, service: FaultServer, line: str, kind: type[XpanderError], says: str
) -> None:
    with pytest.raises(kind) as caught:
        make(line)
    assert says in str(caught.value)
    assert nothing_started(service)


def test_an_inactive_target_of_one_row_sends_nothing(make: Make, service: FaultServer) -> None:
    service.service.agents[1]["status"] = "INACTIVE"
    with pytest.raises(InvalidRequestError, match="That is row 2 of 2"):
        make("'{{ who }}' --over rows", rows=[{"who": "writer"}, {"who": "Ticket Sorter"}])
    assert nothing_started(service)


def test_every_row_has_as_many_combinations(make: Make) -> None:
    rows = [{"a": "openai/gpt-5", "b": "openai/gpt-5-mini"}, {"a": "openai/gpt-5", "b": "openai/gpt-5"}]
    for given, says in ((rows, "row 1 has 2, row 2 has 1"), (rows[::-1], "row 1 has 1, row 2 has 2")):
        with pytest.raises(ConfigError, match=f"as many combinations of model, effort and think mode: {says}"):
            make("writer --over rows -m '{{ a }}' -m '{{ b }}'", rows=given)
    assert len(make("writer --over rows -m '{{ a }}' -m '{{ b }}'", rows=rows[:1])) == 2


# ---- conversations


def conversations(many: int) -> list[Run]:
    return [Run(thread_id=f"thread-{number}", task_id=f"thread-{number}", status="completed") for number in range(many)]


def bodies(grid: Grid, client: Client) -> list[tuple[str | None, str]]:
    """The conversation and the prompt of each run."""
    calls = [grid.plan(number, client).call for number in range(len(grid))]
    assert [grid.thread(number) for number in range(len(grid))] == [call.body.get("id") for call in calls]
    return [(call.body.get("id"), call.body["input"]["text"]) for call in calls]


def test_several_conversations_go_on(make: Make, client: Client) -> None:
    grid = make("writer --thread held -e low,high", "more", held=conversations(2))
    assert bodies(grid, client) == [(f"thread-{n}", "more") for n in (0, 0, 1, 1)]


def test_one_conversation_and_many_rows(make: Make, client: Client) -> None:
    grid = make("writer --thread held --over rows", "{{ a }}", held=conversations(1)[0], rows=[{"a": 1}, {"a": 2}])
    assert bodies(grid, client) == [("thread-0", "1"), ("thread-0", "2")]


def test_conversations_and_rows_are_combined(make: Make, client: Client) -> None:
    grid = make("writer --thread held --over rows", "{{ a }}", held=conversations(2), rows=[{"a": 1}, {"a": 2}])
    assert bodies(grid, client) == [(f"thread-{n}", a) for a in "12" for n in (0, 1)]


def test_a_column_of_runs(make: Make, client: Client) -> None:
    frame = pd.DataFrame({"before": conversations(2), "a": ["x", "y"]})
    assert bodies(make("writer --thread before --over frame", "{{ a }}", frame=frame), client) == [
        ("thread-0", "x"),
        ("thread-1", "y"),
    ]


@pytest.mark.parametrize("written", ["thread_id", "'{{ thread_id }}'"])
def test_a_column_of_ids(make: Make, client: Client, written: str) -> None:
    ids = [client.invoke("writer", text).id for text in ("a", "b")]
    grid = make(f"writer --thread {written} --over rows", "go on", rows=[{"thread_id": id_} for id_ in ids])
    assert bodies(grid, client) == [(id_, "go on") for id_ in ids]


def test_a_list_of_ids_from_python(make: Make, client: Client) -> None:
    ids = [client.invoke("writer", text).id for text in ("a", "b")]
    assert bodies(make(Options(target="writer", thread=ids), "go on"), client) == [(id_, "go on") for id_ in ids]


def test_conversations_that_are_none(make: Make, service: FaultServer) -> None:
    with pytest.raises(ConfigError, match="--thread: 1 of the 3 runs have no conversation"):
        make("writer --thread held", held=[*conversations(2), Run()])
    with pytest.raises(ConfigError, match="--thread: there are no runs to go on with"):
        make("writer --thread held", held=[])
    with pytest.raises(NotFoundError, match=r"there is no variable, run or task 'nope'[\s\S]*That is row 2 of 2"):
        make("writer --thread t --over rows", rows=[{"t": conversations(1)[0]}, {"t": "nope"}])
    with pytest.raises(ConfigError, match="as many conversations: row 1 has 2, row 2 has 1"):
        make("writer --thread t --over rows", rows=[{"t": conversations(2)}, {"t": conversations(1)}])
    assert nothing_started(service)


# ---- record and restore


def told(grid: Grid) -> str:
    return zlib.decompress(grid.record()).decode()


def same(one: Grid, other: Grid, client: Client) -> bool:
    """Whether two grids make the same runs."""

    def made(grid: Grid) -> list[Any]:
        plans = [grid.plan(number, client) for number in range(len(grid))]
        return [
            (p.run.run_id, p.call.body, p.run.cache_key, p.mode, p.timeout, p.usage, p.on_interrupt, p.run.variables)
            for p in plans
        ]

    settings = ("template", "repeat", "jobs", "rpm", "timeout", "usage", "cached", "reuse", "sweep_id", "withheld")
    return all(getattr(one, name) == getattr(other, name) for name in settings) and made(one) == made(other)


RICH = (
    "'{{ who }}' --over rows -e low,high -n 2 --think harder -j 3 --rpm 600 --timeout 9 --usage --mode async "
    "--tag '{{ a }}' --on-interrupt detach --schema schema --experiment e --cached --note 'of {{ a }}' "
    "--set 'source=\"x\"'"
)


def rich(make: Make) -> Grid:
    rows = [
        {"a": "ü\ud800\x00", "who": "writer", "when": pd.Timestamp("2024-05-06"), "n": float("inf")},
        {"a": "b", "who": "workflow:pipeline", "when": None, "n": 2},
    ]
    grid = make(RICH, "{{ a }}\n", rows=rows, schema={"type": "object"})
    grid.reuse = {1: "0" * 32}
    return grid


def test_a_record_makes_the_same_runs(make: Make, client: Client) -> None:
    grid = rich(make)
    restored = Grid.restore(grid.record(), client)
    assert same(grid, restored, client)
    assert same(grid, Grid.restore(restored.record(), client), client)
    assert not restored.withheld
    assert (grid.experiment, list(grid.order())) == (restored.experiment, list(restored.order()))


IN_ANOTHER_PROCESS = """
import json, sys
from xpander_magics.service.client import Client
from xpander_magics.plans.grid import Grid

grid = Grid.restore(sys.stdin.buffer.read(), Client(*sys.argv[1:]))
jobs = [grid.job(number) for number in range(len(grid))]
print(json.dumps([list(grid.order()), [[job.run_id, job.prompt, job.setting, job.variables] for job in jobs]]))
"""


def test_a_record_makes_the_same_runs_in_another_process(make: Make, service: FaultServer) -> None:
    grid = rich(make)
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, service.key, service.url]
    done = subprocess.run(command, input=grid.record(), capture_output=True, check=True, timeout=120)
    jobs = [grid.job(number) for number in range(len(grid))]
    expected = [list(grid.order()), [[job.run_id, job.prompt, job.setting, job.variables] for job in jobs]]
    assert json.loads(done.stdout) == expected


def test_a_record_of_a_newer_version_says_so(make: Make, client: Client) -> None:
    newer = zlib.compress(json.dumps({**json.loads(told(make("writer -n 2"))), "version": 99}).encode())
    with pytest.raises(ConfigError, match="A newer xpander_magics began this sweep"):
        Grid.restore(newer, client)


def test_a_secret_in_a_column_is_refused(make: Make, service: FaultServer, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SOME_TOKEN", SECRET)
    with pytest.raises(SecretError, match=r"The prompt of input 2 holds the value of \$SOME_TOKEN. Nothing was sent"):
        make("writer --over rows", "{{ a }}", rows=[{"a": "fine"}, {"a": f"x {SECRET}"}])
    assert nothing_started(service)


WITHHELD: dict[str, tuple[str, Mapping[str, Any]]] = {
    "a column that is sent": ("--over rows --allow-secrets", {"rows": [{"a": f"x {SECRET}"}, {"a": 1}]}),
    "a column that isn't": ("--over rows", {"rows": [{"a": 1, "b": [{"c": SECRET}]}, {"a": 2, "b": 0}]}),
    "a variable": ("-n 2 --allow-secrets", {"a": SECRET}),
    "an option": ("-n 2 --allow-secrets --title '{{ a }}'", {"a": SECRET}),
    "an MCP server": ("-n 2 --mcp servers", {"a": 1, "servers": {"name": "m", "config": {"token": SECRET}}}),
    "an MCP server of a row": (
        "--over rows --mcp servers",
        {"rows": [{"a": n, "servers": {"name": "m", "config": {"headers": {"x": SECRET}}}} for n in range(2)]},
    ),
    "a user's tokens": ('-n 2 --set \'user_tokens={"github": "SECRET"}\'', {"a": 1}),
    "an OIDC token": ("-n 2 --set 'user_oidc_token=\"SECRET\"'", {"a": 1}),
}


@pytest.mark.parametrize("case", WITHHELD)
def test_a_record_holds_no_secret(make: Make, client: Client, environment: pytest.MonkeyPatch, case: str) -> None:
    environment.setenv("SOME_TOKEN", SECRET)
    line, variables = WITHHELD[case]
    grid = make("writer " + line.replace("SECRET", SECRET), "{{ a }}", **variables)
    assert SECRET not in told(grid)
    assert SECRET not in repr(grid)
    assert SECRET not in repr([vars(grid.plan(number, client).run) for number in range(len(grid))])
    restored = Grid.restore(grid.record(), client)
    assert restored.withheld == (case != "a column that isn't")
    assert not grid.withheld
    for number in range(len(grid)):  # what is under way is collected all the same
        assert restored.plan(number, client).run.run_id == grid.run_id(number)
    assert SECRET not in told(restored)


def test_the_key_itself_is_in_no_record(make: Make, client: Client, service: FaultServer) -> None:
    grid = make("writer --over rows", "{{ a }}", rows=[{"a": 1, "b": service.key}])
    assert service.key not in told(grid)
    assert not Grid.restore(grid.record(), client).withheld  # it wasn't to be sent


def test_a_secret_that_is_a_name_in_a_record(make: Make, client: Client, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SOME_TOKEN", "settings")
    grid = make("writer --over rows", "{{ a }}", rows=[{"a": 1, "b": "settings"}])
    restored = Grid.restore(grid.record(), client)
    assert [one.variables for one in restored.inputs] == [{"a": 1, "b": "***"}]


def test_a_collected_run_keeps_what_it_asked(make: Make, client: Client) -> None:
    grid = make('writer -n 2 --set \'user_tokens={"github": "abcdefghijkl"}\'', "hi")
    run = grid.plan(0, client).run
    asked = dict(run.request), run.cache_key
    collected = Grid.restore(grid.record(), client).plan(0, client, run).run
    assert collected is run
    assert (run.request, run.cache_key) == asked


def test_a_record_of_many_rows_is_small(make: Make) -> None:
    rows = [{"text": f"Ticket {number}: the door is stuck"} for number in range(2000)]
    assert len(make("writer --over rows", "Sort this: {{ text }}", rows=rows).record()) < 100_000


# ---- from the notebook, and from Python


def test_a_sweep_in_a_notebook(notebook: Notebook) -> None:
    notebook.ns["tickets"] = pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]})
    notebook.run("%%xpander echo -e low,high --over tickets -o results -q\nOn {{ text }}")
    results = notebook.ns["results"]
    assert [run.prompt for run in results] == ["On a", "On a", "On b", "On b"]
    assert {run.status for run in results} == {"completed"}
    assert results[3].variables == {"text": "b", "label": "y"}


def test_a_reply_to_each_of_a_sweep(notebook: Notebook) -> None:
    notebook.run("%%xpander echo -n 3 -o first -q\nhello")
    notebook.run("%%xpander echo --thread first -o second -q\nagain")
    first, second = notebook.ns["first"], notebook.ns["second"]
    assert [run.thread_id for run in second] == [run.thread_id for run in first]
    third = second.reply("and {{ again }}")
    assert [run.prompt for run in third] == ["and {{ again }}"] * 3
    assert [run.thread_id for run in third] == [run.thread_id for run in first]


def test_replies_to_a_sweep_are_about_the_same_and_can_be_compared_by_model(notebook: Notebook) -> None:
    notebook.ns["cities"] = {"city": ["Oslo", "Rome"]}
    notebook.run("%%xpander echo -e low,high --over cities -o first -q\nOn {{ city }}")
    first = notebook.ns["first"]
    second = first.reply("again")
    assert (
        [run.variables for run in second]
        == [run.variables for run in first]
        == [run.reply("more").variables for run in second]
    )
    compared = second.compare(score="contains", expected="city")
    assert len(compared.table) == 2
    assert compared.differences["inputs"].tolist() == [2]


def test_too_many_runs_send_nothing(service: FaultServer, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("XPANDER_API_KEY", service.key)
    environment.setenv("XPANDER_BASE_URL", service.url)
    for given, says in (
        ({"repeat": 1_000_001}, "That makes 1,000,001 runs"),
        ({"over": {"a": range(1001), "b": range(1000)}}, "that makes 1,001,000 rows"),
    ):
        with pytest.raises(ConfigError, match=says):
            xp.sweep("hi", target="writer", progress=False, **given)
    assert nothing_started(service)


def test_a_grid_of_replies_renders_nothing(client: Client) -> None:
    writer = Options(target="writer")
    asked = [
        grids.Asking("{{ a }}", writer),
        grids.Asking("b", writer),
        grids.Asking("c", Options(target="writer", title="T")),
    ]
    made = grids.grid_of(asked, client, lambda r: None)
    assert prompts(made) == ["{{ a }}", "b", "c"]
    assert [made.job(number).terms.fields for number in range(3)] == [{}, {}, {"title": "T"}]
    assert len(made.terms) == 2  # a thousand alike are kept once
    with pytest.raises(ConfigError, match="is empty"):
        grids.grid_of([grids.Asking(" ", writer)], client, lambda ref: None)


def test_planned_runs_ask_nothing_of_the_service(service: FaultServer, tmp_path: Path) -> None:
    session = Session(Settings(base_url=service.url, store=f"sqlite:///{tmp_path / 'runs.db'}"))
    session.log_in(service.key)
    grid = session.grid(parse_cell("writer -n 5"), "hi", {})
    before = len(service.log)
    assert [session.planned(grid, number).status for number in range(5)] == ["planned"] * 5
    assert len(service.log) == before
    session.close()
