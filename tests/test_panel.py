"""The panel without a browser: what is chosen in it, what it says, what it sends."""

from __future__ import annotations

import contextlib
import functools
import re
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from fault_server import Action, FaultServer, Request, hang, reply
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from notebook_shell import Notebook
from test_kernel import Kernel, running_kernel, until

import xpander_magics as xp
from xpander_magics.cell import EFFORTS, FORMATS, MODES, ON_INTERRUPT, THINK_MODES, VIEWS, Options, parse_cell
from xpander_magics.contract import Agent, Model
from xpander_magics.errors import ConfigError
from xpander_magics.local.launch import LocalServer
from xpander_magics.safety import Redactor
from xpander_magics.service.client import Client
from xpander_magics.service.targets import written
from xpander_magics.session import Session, default_session
from xpander_magics.widgets.choices import (
    cell_line,
    cell_text,
    matching,
    models_from,
    runs_html,
    targets_from,
    variables_html,
    variables_in,
)
from xpander_magics.widgets.panel import Panel

# What a line can hold: no line breaks, something but spaces and commas, no spaces around it.
texts = st.text(min_size=1, max_size=20).filter(
    lambda text: text.strip(" ,") and len(text.splitlines()) == 1 and text == text.splitlines()[0]
)
words = texts.map(str.strip).filter(lambda text: "," not in text and text.strip(" ,"))
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
amounts = st.floats(min_value=1e-6, max_value=1e9)
counts = st.integers(min_value=1, max_value=10**9)
several = st.lists(words | st.just("{{ a, b }}"), max_size=3).map(tuple)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


all_options = st.builds(
    Options,
    target=maybe(texts.filter(lambda text: not text.startswith("-"))),
    models=several,
    efforts=st.lists(st.sampled_from(EFFORTS)).map(tuple),
    thinks=st.lists(st.sampled_from(THINK_MODES)).map(tuple),
    repeat=maybe(counts),
    over=maybe(names),
    **dict.fromkeys(
        ("version", "instructions", "context", "expected_output", "title", "note", "experiment"), maybe(texts)
    ),
    **dict.fromkeys(("schema", "user", "payload", "mcp", "thread", "out"), maybe(names)),
    format=maybe(st.sampled_from(FORMATS)),
    files=st.lists(texts, max_size=2).map(tuple),
    tags=st.lists(texts, max_size=2).map(tuple),
    set=st.lists(texts, max_size=2).map(tuple),
    mode=maybe(st.sampled_from(MODES)),
    on_interrupt=maybe(st.sampled_from(ON_INTERRUPT)),
    view=maybe(st.sampled_from(VIEWS)),
    jobs=maybe(counts),
    rpm=maybe(amounts),
    timeout=maybe(amounts),
    usage=maybe(st.booleans()),
    **dict.fromkeys(("cached", "dry_run", "quiet", "raw", "allow_secrets"), maybe(st.just(True))),
)


@settings(max_examples=400, deadline=None)
@given(all_options)
def test_the_line_of_a_cell_reads_back_as_the_same_options(options: Options) -> None:
    assert parse_cell(cell_line(options)) == options


def test_a_cell_as_a_person_would_write_it() -> None:
    options = Options("writer", ("openai/gpt-5", "openai/gpt-5-mini"), ("low",), repeat=3, over="tickets", out="runs")
    assert cell_text(options, "Hi {{ x }}\n") == (
        "%%xpander writer -m openai/gpt-5,openai/gpt-5-mini -e low -n 3 --over tickets -o runs\nHi {{ x }}\n"
    )
    assert cell_text(Options(), "Hi") == "%%xpander\nHi"
    assert cell_line(Options(context="it's", usage=False, rpm=30.0)) == "--context 'it'\"'\"'s' --rpm 30 --no-usage"
    assert shlex.split(cell_line(Options(title="-x"))) == ["--title=-x"]


@pytest.mark.parametrize("value", ["a\nb", "a\r\nb", "a\u2028b", "a\n", "a\x0bb"])
def test_what_no_line_can_hold(value: str) -> None:
    with pytest.raises(ConfigError, match="stand in one line"):
        cell_line(Options(context=value))
    with pytest.raises(ConfigError, match="hyphen"):
        cell_line(Options(target="-x"))


def agent(name: str, kind: str = "agent", **more: Any) -> Agent:
    return Agent({"id": f"id-{name}-{kind}", "name": name, "status": "ACTIVE", **more}, kind)


def test_targets_are_named_so_that_a_cell_means_no_other() -> None:
    entries = [agent("b"), agent("A"), agent("both"), agent("Both", "workflow"), agent("-x")]
    entries += [agent("{{ x }}", id="braces"), agent("{{ y }}")]  # the id of the second is a template, too
    entries += [agent("agent:b"), agent("", id="nameless"), agent("old", status="INACTIVE")]
    entries += [agent("turned\u202e", id="turned"), agent("half\ud800", id="half")]
    assert list(written(entries)) == [
        *("b", "A", "agent:id-both-agent", "workflow:id-Both-workflow", "agent:id--x-agent"),
        *("agent:braces", "agent:id-agent:b-agent", "agent:nameless", "old", "agent:turned", "agent:half"),
    ]
    listed = targets_from([agent("b", description="Says\u202e b"), agent("a"), agent("0", status="INACTIVE")])
    assert [choice.value for choice in listed] == ["a", "b", "0"]
    assert listed[1].label == "b · agent · ACTIVE"
    assert listed[1].about == "Says\ufffd b"
    assert listed[2].label == "0 · agent · INACTIVE: can't be run"
    assert listed[2].refused is not None
    assert "only an ACTIVE one" in listed[2].refused
    assert [choice.value for choice in matching(listed, "AGENT says")] == ["b"]
    assert matching(listed, "b") == listed  # it is one of them: all are offered again


def test_models_by_tier() -> None:
    models = [
        Model({"model_id": "m3", "display_name": "Third", "tier": 2}),
        Model({"model_id": "m0", "tier": None, "description": "no tier"}),
        Model({"model_id": "m2", "display_name": "second", "tier": 1}),
        Model({"model_id": "m1", "display_name": "First", "tier": 1}),
        Model({"model_id": "m9", "tier": "odd"}),
    ]
    found = [(choice.value, choice.label) for choice in models_from("p", models)]
    assert found == [
        *(("p/m1", "tier 1 · First"), ("p/m2", "tier 1 · second"), ("p/m3", "tier 2 · Third")),
        *(("p/m0", "m0"), ("p/m9", "m9")),
    ]


class Loud:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_variables_of_a_prompt() -> None:
    secret = "hunter2-hunter2"
    table = pd.DataFrame({"text": ["one", "two"], "n": [1, 2]})
    variables = {
        **{"name": "Ada", "api_key": "k", "long": "x" * 999, "held": [f"so {secret}"], "module": shlex, "loud": Loud()},
        **{"function": shlex.split, "kind": Options, "table": table, "many": list(range(10**6)), "n": 5},
    }
    names = [*variables, "text", "nam"]
    prompt = " ".join(f"{{{{ {name} }}}}" for name in names) + "{{ range(3) }}"
    options = Options(over="table", title="{{ titled }}")
    found = {one.name: one for one in variables_in(prompt, options, variables, Redactor([secret]))}
    assert set(found) == {*names, "titled"}
    values = {name: one.value for name, one in found.items()}
    assert values["name"] == "'Ada'"
    assert values["api_key"] == "***"
    assert values["held"] == "['so ***']"
    assert len(values["long"]) <= 120
    assert values["long"].endswith("…")
    assert values["module"] == "module shlex"
    assert values["function"] == "function split"
    assert values["kind"] == "class Options"
    assert values["loud"] == "<Loud>"
    assert values["table"] == "DataFrame of 2 × 2"
    assert values["many"].startswith("[0, 1,")
    assert (values["text"], found["text"].note) == ("'one'", "first row of table")
    assert values["n"] == "1"
    assert (values["nam"], found["nam"].note) == (None, "not defined. Did you mean name or n?")
    assert values["titled"] is None
    assert "<strong>not defined. Did you mean name or n?</strong>" in variables_html(list(found.values()))
    assert variables_in(prompt, replace(options, raw=True), variables, Redactor([])) == []


def test_tables_hold_no_markup_of_others() -> None:
    bad = "<img src=x onerror=alert(1)>"
    run = xp.Run(result=bad, target=bad, model=bad, status="completed")
    shown = runs_html([run]) + variables_html(variables_in("{{ x }}", Options(), {"x": bad}, Redactor([])))
    assert "<img" not in shown
    assert "&lt;img" in shown


def together(count: int, work: Callable[[], Any]) -> list[Any]:
    """What several threads that begin at one moment return."""
    barrier, found = threading.Barrier(count), []

    def one() -> None:
        barrier.wait()
        found.append(work())

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_threads_share_one_client_and_one_store(connected: LocalServer) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            with contextlib.closing(Session()) as session:
                assert len(set(map(id, together(8, functools.partial(getattr, session, "client"))))) == 1
                assert len(set(map(id, together(8, functools.partial(getattr, session, "store"))))) == 1
    finally:
        sys.setswitchinterval(before)


def test_the_lowest_rate_of_several_holds(service: FaultServer) -> None:
    with Client(service.key, service.url) as client:
        gaps: list[float] = []
        client.pace(40)
        # A client that was made since shares the service's rate, and doesn't take away what another holds to.
        with client.paced(60), Client(service.key, service.url) as other, other.paced(30), client.paced(None):
            gaps.append(client._pacer._gap)
            other.close()
            gaps.append(client._pacer._gap)
        gaps.append(client._pacer._gap)
        client.pace(None)
        gaps.append(client._pacer._gap)
    assert gaps == [2.0, 2.0, 1.5, 0.0]


def test_what_was_made_for_one_service_goes_to_no_other(environment: pytest.MonkeyPatch, service: FaultServer) -> None:
    environment.setenv("XPANDER_API_KEY", service.key)
    with FaultServer() as costly, contextlib.closing(Session()) as session:
        environment.setenv("XPANDER_BASE_URL", service.url)
        grid = session.grid(Options("writer"), "hello", {})
        environment.setenv("XPANDER_BASE_URL", costly.url)
        session.disconnect()
        with pytest.raises(ConfigError, match="It was made for"):
            session.sweep(grid, lambda tally: None)
        assert not costly.requests("POST *")


def test_a_change_of_service_never_shows_another_meanwhile(
    environment: pytest.MonkeyPatch, service: FaultServer, server: LocalServer
) -> None:
    environment.setenv("XPANDER_API_KEY", service.key)
    environment.setenv("XPANDER_BASE_URL", service.url)
    with contextlib.closing(Session()) as session:
        session.start_local()
        seen, over = set(), threading.Event()

        def look() -> None:
            while not over.is_set():
                with contextlib.suppress(ConfigError):
                    seen.add(session.client.base_url)

        looking = threading.Thread(target=look)
        looking.start()
        session.start_local()
        over.set()
        looking.join()
    assert service.url not in seen


def test_a_sweep_tells_a_listener_of_its_events(notebook: Notebook) -> None:
    session = default_session()
    heard: list[str] = []
    grid = session.grid(Options("echo"), "hello", {})
    runs = session.sweep(grid, lambda tally: None, listen=lambda run, event, piece: heard.append(piece))
    assert runs[0].result == "".join(heard) == "hello"


@pytest.fixture
def panels(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Panel]]:
    """Opens panels in the notebook."""
    monkeypatch.setattr(InteractiveShell, "_instance", notebook.shell)
    opened: list[Panel] = []

    def opens() -> Panel:
        opened.append(xp.panel())
        return opened[-1]

    yield opens
    for panel in opened:
        panel.close()


@pytest.fixture
def panel(panels: Callable[[], Panel]) -> Panel:
    """One, with its lists."""
    opened = panels()
    until(lambda: opened._lists.ready and opened._controls.target.choices)
    return opened


def choose(panel: Panel, prompt: str = "hello", **chosen: Any) -> None:
    for name, value in {"target": "echo", **chosen}.items():
        control = getattr(panel._controls, name)
        getattr(control, "text", control).value = value
    panel._controls.prompt.value = prompt


def ran(panel: Panel) -> xp.Runs:
    before = panel.runs
    panel._pressed = -10.0  # no double click
    panel._press()
    until(lambda: not panel._sending)
    assert panel.runs is not None
    assert panel.runs is not before
    return panel.runs


def test_what_is_chosen_is_the_default_of_later_cells(notebook: Notebook, panel: Panel) -> None:
    notebook.run("%xpander use --context facts --tag kept")
    assert panel._copy.text == "%%xpander --context facts --tag kept\n"  # it hears of what a cell has chosen
    choose(panel, model="scripted/think", out="answer", over="rows")
    panel._controls._efforts["low"].value = True
    session = default_session()
    assert session.defaults == Options(
        "echo", ("scripted/think",), ("low",), context="facts", tags=("kept",)
    )  # neither the name nor the table of this one prompt
    assert "Defaults of later cells: echo -m scripted/think -e low --context facts --tag kept" in panel._defaults.value
    run = notebook.ask("")
    assert (run.target, run.model, run.effort, run.tags) == ("echo", "think", "low", ["kept"])
    notebook.run("%xpander use --clear")
    assert panel._controls.target.value is None
    assert not panel._controls._efforts["low"].value


def test_what_a_cell_chose_while_it_runs_stays(notebook: Notebook, panel: Panel) -> None:
    notebook.run("%xpander use echo")
    default_session().defaults = replace(default_session().defaults, target="slow-writer", context="facts")
    panel._controls._efforts["low"].value = True  # the cell is under way; the panel hasn't heard of what it chose
    assert default_session().defaults == Options("slow-writer", context="facts", efforts=("low",))
    panel._cell_ran()
    assert (panel._controls.target.value, panel._controls._efforts["low"].value) == ("slow-writer", True)


def test_what_makes_a_sweep_stays_in_the_panel(notebook: Notebook, panel: Panel) -> None:
    """Three repeats that were tried in the panel made each later cell three runs, without a word."""
    choose(panel, target="echo", repeat=3)
    for effort in ("low", "medium"):
        panel._controls._efforts[effort].value = True
    assert default_session().defaults == Options("echo", efforts=("low",))
    assert panel._controls.options(default_session().defaults).repeat == 3
    assert panel._controls.options(default_session().defaults).efforts == ("low", "medium")
    notebook.ask("")
    assert panel._controls.repeat.value == 3


def test_a_secret_is_refused_and_not_repeated(
    notebook: Notebook, panel: Panel, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("SOME_TOKEN", "hunter2-hunter2")
    before = notebook.newest_tasks()
    notebook.ns["said"] = "so hunter2-hunter2"
    choose(panel, "{{ said }}")
    panel._press()
    until(lambda: not panel._sending)
    assert "SOME_TOKEN" in panel._problem.value
    assert notebook.newest_tasks() == before
    until(lambda: "***" in panel._variables.value)
    states = str([one.get_state() for one in (panel, *parts_of(panel))])
    assert "hunter2" not in states
    assert default_session().client.key.reveal() not in states


def parts_of(widget: Any) -> list[Any]:
    parts = [part for child in getattr(widget, "children", ()) for part in (child, *parts_of(child))]
    return [*parts, *(getattr(widget, name) for name in ("layout", "style") if hasattr(widget, name))]


def test_half_a_name_is_no_default(panel: Panel) -> None:
    choose(panel)
    for typed in ("ech", "retired-writer", "-"):
        panel._controls.target.text.value = typed
        assert default_session().defaults.target == "echo"
        assert panel._controls.problem
    panel._controls.provider.value = "scripted"
    until(lambda: panel._lists.ready and panel._controls.model.choices)
    panel._controls.model.text.value = "scripted/nope"
    assert default_session().defaults.models == ()
    panel._press()
    assert "is INACTIVE" not in panel._problem.value
    assert "There is no" in panel._problem.value
    assert panel.runs is None


def test_an_inactive_target_is_refused_with_the_reason(panel: Panel) -> None:
    choose(panel, target="retired-writer")
    panel._press()
    assert "only an ACTIVE one can be invoked" in panel._problem.value
    assert panel.runs is None


def test_a_single_run(notebook: Notebook, panel: Panel) -> None:
    notebook.ns["name"] = "Ada"
    choose(panel, "hello {{ name }}", out="answer")
    runs = ran(panel)
    assert notebook.ns["answer"] is runs[0]
    assert (runs[0].result, runs[0].total_tokens) == ("hello Ada", 4)
    assert runs[0].cost_usd is not None  # a single run asks for its usage
    until(lambda: "hello Ada" in panel._last.value)
    assert "4 tokens" in until(lambda: re.search("About .* tokens", panel._quote.value))[0]


def test_a_comparison(notebook: Notebook, panel: Panel) -> None:
    notebook.ns["rows"] = [{"text": "a"}, {"text": "b"}]
    choose(panel, "{{ text }}", over="rows", out="found", model="scripted/echo")
    panel._controls._compare.click()
    panel._controls.model.text.value = "scripted/think"
    until(lambda: "4 runs, 4 requests" in panel._quote.value)
    assert panel._copy.text == "%%xpander echo -m scripted/echo,scripted/think --over rows -o found\n{{ text }}"
    runs = ran(panel)
    assert notebook.ns["found"] is runs
    assert [(run.model, run.result) for run in runs] == [
        *(("echo", "a"), ("think", "a"), ("echo", "b"), ("think", "b")),
    ]
    notebook.run(f"{panel._copy.text.replace('-o found', '-o again')}")
    again = notebook.ns["again"]
    assert [(run.request, run.prompt) for run in again] == [
        ({**run.request, "payload_extension": other.request["payload_extension"]}, run.prompt)
        for run, other in zip(runs, again, strict=True)
    ]
    panel._controls._others.children[0].click()
    assert default_session().defaults.models == ("scripted/think",)


def test_two_presses_send_once(notebook: Notebook, panel: Panel) -> None:
    choose(panel, "only once")
    before = notebook.newest_tasks()
    together(8, panel._run.click)
    until(lambda: not panel._sending and panel.runs)
    panel._pressed = time.monotonic()
    panel._run.click()  # the second click of a double one, where the run was quick
    assert not panel._sending
    assert len(set(notebook.newest_tasks()) - set(before)) == 1


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"prompt": "{{ nope }}"}, "'nope' is not defined"),
        ({"prompt": "{{ nope"}, "is no valid template"),
        ({"prompt": " "}, "The prompt is empty"),
        ({"out": "1a"}, "--out takes a variable&#x27;s name"),
        ({"over": "nope"}, "there is no variable &#x27;nope&#x27;"),
        ({"prompt": "{{ 1 // 0 }}"}, "ZeroDivisionError"),
    ],
)
def test_errors_are_a_line_and_nothing_is_sent(
    notebook: Notebook, panel: Panel, chosen: dict[str, str], says: str
) -> None:
    before = notebook.newest_tasks()
    choose(panel, **chosen)
    panel._press()
    until(lambda: not panel._sending)
    assert says.replace("'", "&#x27;").replace("&#x27;&#x27;", "&#x27;") in panel._problem.value
    assert notebook.newest_tasks() == before
    assert panel.runs is None


@pytest.mark.parametrize("repeat", [1, 3])
def test_stop(notebook: Notebook, panel: Panel, repeat: int) -> None:
    notebook.ns["s"] = {"script": {"chunks": 200, "rate": 2, "result": "x" * 200}}
    notebook.run("%xpander use --payload s --on-interrupt detach")
    choose(panel, repeat=repeat)
    panel._press()
    until(lambda: (under_way := default_session().store.select(status="executing")) and len(under_way) == repeat)
    panel._live._stop()  # what its button does
    until(lambda: not panel._sending)
    assert panel.runs is not None
    assert [run.status for run in panel.runs] == ["stopped"] * repeat
    assert {notebook.task(run)["status"] for run in panel.runs} == {"stopped"}
    assert panel._run.disabled is False


def test_a_cell_and_the_panel_at_once(notebook: Notebook, panel: Panel) -> None:
    notebook.ns["s"] = {"script": {"chunks": 10, "rate": 20}}
    notebook.run("%xpander use --payload s")
    choose(panel, "in the panel")
    panel._press()
    run = notebook.ask("echo", "in the cell")
    until(lambda: not panel._sending)
    assert panel.runs is not None
    assert (run.result, panel.runs[0].result) == ("in the cell", "in the panel")


def test_lists_that_fail_say_so_and_names_can_be_typed(
    environment: pytest.MonkeyPatch, service: FaultServer, shell: InteractiveShell
) -> None:
    environment.setenv("XPANDER_BASE_URL", service.url)
    environment.setenv("XPANDER_API_KEY", service.key)
    environment.setattr(InteractiveShell, "_instance", shell)
    shell.run_line_magic("config", "XpanderMagics.retries = 0")
    service.on("GET /v1/agents*", reply(500, {"detail": "<b>broken</b>"}))
    service.on("GET /v1/misc/*", reply(403, {"detail": "not yours"}), times=2)
    panel = xp.panel()
    until(lambda: not panel._lists._loading)
    said = panel._lists._told.value
    assert "agents and workflows can&#x27;t be listed" in said
    assert "&lt;b&gt;broken" in said
    assert "Names can be typed" in said
    assert panel._lists._again.layout.display is None
    choose(panel, target="writer", model="openai/gpt-5")
    assert panel._copy.text == "%%xpander writer -m openai/gpt-5\nhello"
    panel._lists._again.click()
    until(lambda: not panel._lists._loading)
    assert "writer" in {choice.value for choice in panel._controls.target.choices or ()}
    panel._lists._again.click()
    until(lambda: panel._lists.ready)
    assert panel._lists._told.value == ""
    assert panel._lists._again.layout.display == "none"
    assert panel._controls.provider.value == "openai"
    until(lambda: "1 run, 2 requests, to writer" in panel._quote.value)
    panel.close()


def after(event: threading.Event, action: Action) -> Action:
    """An answer that waits for the test's word."""

    def act(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        event.wait(20)
        return action(server, connection, request)

    return act


def test_lists_that_come_late_are_of_the_service_that_is_chosen_now(
    environment: pytest.MonkeyPatch, service: FaultServer, shell: InteractiveShell
) -> None:
    environment.setenv("XPANDER_BASE_URL", service.url)
    environment.setenv("XPANDER_API_KEY", service.key)
    environment.setattr(InteractiveShell, "_instance", shell)
    go_on = threading.Event()
    service.on("GET /v1/agents*", after(go_on, reply()), times=1)
    panel = xp.panel()
    until(lambda: service.requests("GET /v1/agents*"))
    with FaultServer() as other:
        shell.run_line_magic("config", f"XpanderMagics.base_url = {other.url!r}")
        panel._cell_ran()
        go_on.set()
        until(lambda: panel._lists.ready and panel._controls.target.choices)
        assert other.requests("GET /v1/agents*")
        panel.close()


def test_nonsense_of_a_front_end(panel: Panel) -> None:
    for content in ("text", None, 7, [], {"kind": []}, {"kind": "shown"}, {"kind": "shown", "view": "x" * 10_000}):
        for one in (panel._copy, panel._live):
            one._handle_custom_msg(content, [])
    assert not panel._copy.is_seen
    assert not panel._sending


def test_without_a_key(environment: pytest.MonkeyPatch, shell: InteractiveShell) -> None:
    environment.setattr(InteractiveShell, "_instance", shell)
    panel = xp.panel()
    until(lambda: not panel._lists._loading)
    assert "There is no API key" in panel._lists._told.value
    choose(panel)
    panel._press()
    until(lambda: not panel._sending)
    assert "There is no API key" in panel._problem.value
    assert "models can't be listed: There is no API key" in panel.static()["text/plain"]
    panel.close()


def test_what_stands_in_for_it(panel: Panel, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SOME_TOKEN", "hunter2-hunter2")
    choose(panel, "say <b>hunter2-hunter2</b>")
    static = panel.static()
    assert static["text/plain"].endswith("\n\n%%xpander echo\nsay <b>***</b>")
    assert "echo-twice" in static["text/plain"]
    assert "retired-writer" not in static["text/plain"]
    assert "say &lt;b&gt;***" in static["text/html"]
    assert "hunter2" not in "".join(static.values())


def test_a_closed_panel_hears_nothing_more(notebook: Notebook, panels: Callable[[], Panel]) -> None:
    count = len(notebook.shell.events.callbacks["post_run_cell"])
    panel = panels()
    assert len(notebook.shell.events.callbacks["post_run_cell"]) == count + 1
    parts = parts_of(panel)
    panel.close()
    panel.close()
    assert all(part.comm is None for part in parts)
    panel._refresh_soon()
    assert not any(isinstance(t, threading.Timer) and t is panel._due and t.is_alive() for t in threading.enumerate())
    assert len(notebook.shell.events.callbacks["post_run_cell"]) == count


def test_in_a_terminal(notebook: Notebook, panel: Panel, capsys: pytest.CaptureFixture[str]) -> None:
    panel._ipython_display_()
    assert "The cell that does the same:" in capsys.readouterr().out


@pytest.fixture
def hanging(environment: pytest.MonkeyPatch, service: FaultServer) -> Iterator[Kernel]:
    """A kernel whose service says nothing."""
    environment.setenv("XPANDER_BASE_URL", service.url)
    environment.setenv("XPANDER_API_KEY", service.key)
    service.on("*", hang(), times=100)
    with running_kernel() as running:
        yield running


def test_a_panel_opens_while_the_service_hangs(hanging: Kernel, service: FaultServer) -> None:
    _, outputs = hanging.run("%xpander panel")
    shown = [out["content"]["data"] for out in outputs if out["msg_type"] == "display_data"]
    assert list(shown[0]) == ["application/vnd.jupyter.widget-view+json", "text/plain"]
    assert "not listed yet" in shown[1]["text/html"]
    until(lambda: len(service.requests("*")) >= 2)
    assert hanging.text("print(1 + 1)") == "2\n"
    assert hanging.text("import xpander_magics as xp; p = xp.panel(); print(p._lists._loading)").startswith("['agents")
