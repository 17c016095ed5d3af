"""The magics in a shell: commands, defaults, settings, errors, loading and unloading."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from notebook_shell import Notebook

from xpander_magics.cell import Options
from xpander_magics.commands import COMMAND_NAMES
from xpander_magics.errors import (
    AuthError,
    ConfigError,
    InvalidRequestError,
    NotFoundError,
    SchemaError,
    StoreError,
    TaskFailed,
    XpanderError,
)
from xpander_magics.local.launch import LocalServer
from xpander_magics.magics.magic import XpanderMagics
from xpander_magics.results import Run
from xpander_magics.service.client import Client
from xpander_magics.session import default_session
from xpander_magics.store.columns import COLUMNS

COMMANDS = "status login logout local use agents workflows providers models runs show stop resume usage thread tag help"


def wrong(notebook: Notebook, source: str, kind: type[XpanderError], capsys: pytest.CaptureFixture[str]) -> str:
    """What a cell shows whose command is wrong: three lines at the most, no traceback; nothing is sent."""
    before = notebook.newest_tasks()
    capsys.readouterr()
    with pytest.raises(kind) as caught:
        notebook.run(source)
    shown = capsys.readouterr().out
    assert shown == f"{kind.__name__}: {caught.value}\n"
    assert len(shown.splitlines()) <= 3
    assert notebook.newest_tasks() == before
    return shown


# ---- one run


def test_a_run_is_shown_bound_and_kept(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    run = notebook.ask("echo", "hello there")
    shown = capsys.readouterr().out
    assert re.fullmatch(
        r"hello there\ncompleted · scripted/echo · \d+\.\d s · first token \d+\.\d s · "
        r"4 tokens \(2 in, 2 out\) · \$0\.00000 · run [0-9a-f]{8}\n",
        shown,
    )
    assert (
        repr(run)
        == f"Run({run.run_id[:8]!r}, target='echo', model='scripted/echo', status='completed', result='hello there')"
    )
    frame = notebook.run("%xpander runs")
    assert list(frame.columns) == [column.name for column in COLUMNS]
    assert frame["result"].tolist() == ["hello there"]


@pytest.mark.parametrize("mode", ["stream", "sync", "async"])
def test_a_failed_task_is_bound_shown_kept_and_raised(
    notebook: Notebook, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.ns["script"] = {"script": {"fail": "out of paper", "result": "so far"}}
    with pytest.raises(TaskFailed, match="ended as failed: out of paper") as caught:
        notebook.ask(f"echo --payload script --mode {mode}")
    run = notebook.ns["answer"]
    assert caught.value.run is run
    assert (run.status, run.error_type) == ("failed", "TaskFailed")
    shown = capsys.readouterr().out
    assert shown.count("out of paper") == 1
    assert "failed · scripted/echo" in shown
    assert shown.endswith(f"TaskFailed: {caught.value}\n")
    assert "Traceback" not in shown
    row = notebook.run("%xpander runs").iloc[-1]
    assert (row["status"], row["error_type"]) == ("failed", "TaskFailed")


def test_a_failed_cell_stops_a_script(notebook: Notebook) -> None:
    notebook.ns["script"] = {"script": {"fail": "no"}}
    assert notebook.shell.run_cell("%%xpander echo --payload script\nhello").error_in_exec is not None
    assert notebook.shell.run_cell("%xpander nope").error_in_exec is not None


def test_an_answer_that_breaks_its_schema_is_kept(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.ns.update(schema={"type": "object", "required": ["b"]}, script={"script": {"result": '{"a": 1}'}})
    with pytest.raises(SchemaError, match="'b' is a required property"):
        notebook.ask("echo --schema schema --payload script")
    run = notebook.ns["answer"]
    assert (run.status, run.result, run.output, run.error_type) == ("completed", '{"a": 1}', {"a": 1}, "SchemaError")
    assert '"a": 1' in capsys.readouterr().out


def test_json_that_is_none(notebook: Notebook) -> None:
    with pytest.raises(SchemaError, match="The answer is not JSON: it begins with 'hello'"):
        notebook.ask("echo --format json")
    assert (notebook.ns["answer"].status, notebook.ns["answer"].error_type) == ("completed", "SchemaError")


def test_the_result_is_bound_before_the_error(notebook: Notebook) -> None:
    with pytest.raises(TaskFailed):
        notebook.run("%%xpander echo -m scripted/fail -o kept\nx")
    assert isinstance(notebook.ns["kept"], Run)


@pytest.mark.parametrize("line", ["-q", "--view none"])
def test_quiet(notebook: Notebook, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert notebook.ask(f"echo {line}").result == "hello"
    assert capsys.readouterr().out == ""


def test_quiet_still_shows_errors(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TaskFailed):
        notebook.run("%%xpander echo -q -m scripted/fail\nx")
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_paused_runs_say_what_they_wait_for(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.run("%config XpanderMagics.pause_wait = 0.2")
    run = notebook.ask("echo -m scripted/pause-auth")
    assert run.status == "paused"
    shown = capsys.readouterr().out
    assert shown.count("Paused: sign in to calendar at http://127.0.0.1/sign-in") == 1
    assert f"Then: %xpander show {run.run_id[:8]}" in shown
    run = notebook.ask("echo -m scripted/pause-hitl --mode async")
    assert "Paused: a person must approve: Send it?" in capsys.readouterr().out
    notebook.run("%xpander stop all")
    assert "is stopped" in capsys.readouterr().out
    assert notebook.run(f"%xpander show {run.run_id}").status == "stopped"


@pytest.mark.parametrize("mode", ["stream", "async"])
def test_the_answer_after_a_pause_is_shown(notebook: Notebook, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.ns["script"] = {"script": {"pause": "hitl", "resume": 0.4, "result": "the answer"}}
    assert notebook.ask(f"echo --payload script --mode {mode}").status == "completed"
    shown = capsys.readouterr().out
    assert "Paused: a person must approve" in shown
    assert shown.count("the answer") == 1


@contextlib.contextmanager
def interrupted_once(happened: Callable[[], bool]) -> Iterator[None]:
    """Presses Ctrl-C once something has happened, unless the block has ended before."""
    over = threading.Event()

    def wait() -> None:
        while not over.wait(0.05):
            if happened():
                os.kill(os.getpid(), 2)
                return

    waiting = threading.Thread(target=wait)
    waiting.start()
    try:
        yield
    finally:
        over.set()
        waiting.join()


def test_an_interrupt_stops_the_task(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.ns["script"] = {"script": {"delay": 30, "chunks": 1}}
    before = notebook.newest_tasks()
    with interrupted_once(lambda: notebook.newest_tasks() != before), pytest.raises(KeyboardInterrupt):
        notebook.ask("echo --payload script")
    run = notebook.ns["answer"]
    assert notebook.task(run)["status"] == run.status == "stopped"
    shown = capsys.readouterr().out
    assert shown.endswith(f"Interrupted: Run {run.run_id[:8]} was interrupted. Its task was stopped.\n")
    assert notebook.run("%xpander runs")["error_type"].tolist() == ["Interrupted"]


def test_an_interrupt_can_leave_the_task_running(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.ns["script"] = {"script": {"delay": 3.0}}
    store = default_session().store
    with (
        interrupted_once(lambda: any(run.task_id for run in store.select(limit=1))),
        pytest.raises(KeyboardInterrupt),
    ):
        notebook.ask("echo --payload script --on-interrupt detach")
    run = notebook.ns["answer"]
    assert "Its task was left running" in str(run.error)
    while notebook.task(run)["status"] == "executing":
        time.sleep(0.1)
    assert notebook.run(f"%xpander show {run.run_id[:8]}").result == "hello"


# ---- defaults and settings


def test_use_gives_later_cells_their_defaults(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.run("%xpander use echo -m scripted/think --title t --tag a --no-usage")
    assert "target='echo'" in capsys.readouterr().out
    run = notebook.ask("")
    assert (run.target, run.model, run.title, run.tags, run.actions) == ("echo", "think", "t", ["a"], None)
    run = notebook.ask("echo-twice -m scripted/echo --title u --usage")
    assert (run.target, run.requested_model, run.title, run.tags) == ("echo-twice", "echo", "u", ["a"])
    assert run.actions == 0
    notebook.run("%xpander use -e low")
    assert notebook.ask("").effort == "low"
    notebook.run("%xpander use agent:echo --clear")
    assert notebook.ask("").title is None
    notebook.run("%xpander use --clear")
    with pytest.raises(ConfigError, match="There is no target"):
        notebook.ask("")


@pytest.mark.parametrize(
    ("line", "kind", "says"),
    [
        ("ecco", NotFoundError, "Did you mean echo?"),
        ("retired-writer", InvalidRequestError, "INACTIVE"),
        ("-m gpt-5", ConfigError, "--model takes PROVIDER/MODEL"),
        ("-m scripted/ecco", NotFoundError, "scripted lists no model"),
        ("-m scripted/echo,scripted/ecco", NotFoundError, "scripted lists no model"),
        ("-e low,hihg", ConfigError, "--effort takes"),
        ("--over ''", ConfigError, "--over has an empty value"),
        ("-n 0", ConfigError, "'0' is no whole number above 0"),
        ("--dry-run", ConfigError, "--dry-run is for one cell alone"),
        ("-e lo", ConfigError, "--effort takes"),
        ("--think hard", ConfigError, "--think takes"),
        ("--format xml", ConfigError, "--format takes"),
        ("--mode fast", ConfigError, "--mode takes"),
        ("--view picture", ConfigError, "--view takes"),
        ("--on-interrupt wait", ConfigError, "--on-interrupt takes"),
        ("-o answer", ConfigError, "--out is for one cell alone"),
        ("--set voice", ConfigError, "--set takes"),
        ("--clear --titel x", ConfigError, "no option '--titel'"),
        ("--clear ecco", NotFoundError, "Did you mean echo?"),
        ("echo other", ConfigError, "at most 1 word"),
    ],
)
def test_a_wrong_use_changes_nothing(
    notebook: Notebook, line: str, kind: type[XpanderError], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.run("%xpander use echo --title kept")
    assert says in wrong(notebook, f"%xpander use {line}", kind, capsys)
    assert default_session().defaults == Options(target="echo", title="kept")


@pytest.mark.parametrize(
    ("line", "many"),
    [("-m scripted/echo,scripted/think", 2), ("--think default,harder", 2), ("--over rows", 3), ("-n 3", 3)],
)
def test_use_makes_sweeps_of_later_cells(notebook: Notebook, line: str, many: int) -> None:
    notebook.run(f"%xpander use echo {line}")
    notebook.ns["rows"] = [{"a": n} for n in range(3)]
    notebook.run("%%xpander -o results -q\nhello")
    assert notebook.ns["results"].statuses() == {"completed": many}
    assert len(notebook.run("%xpander runs")) == many


@pytest.mark.parametrize("line", ["-m gpt-5,openai/gpt-5", "-e low,lo", "--think default,hard", "-n x", "-n 0"])
def test_use_refuses_what_a_cell_would(notebook: Notebook, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = wrong(notebook, f"%xpander use echo {line}", ConfigError, capsys)
    assert told == wrong(notebook, f"%%xpander echo {line}\nhello", ConfigError, capsys)


def test_the_target_comes_from_the_environment(notebook: Notebook, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("XPANDER_AGENT_ID", notebook.client.agents()[0].id)
    assert notebook.ask("--mode sync -m scripted/echo").target == notebook.client.agents()[0].name
    notebook.run("%config XpanderMagics.target = 'echo-twice'")
    assert notebook.ask("").target == "echo-twice"
    notebook.run("%xpander use echo")
    assert notebook.ask("").target == "echo"


def test_config_takes_effect(
    notebook: Notebook, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    notebook.run("%config XpanderMagics")
    listed = capsys.readouterr().out
    for name in ("base_url", "target", "store", "timeout", "retries", "pause_wait", "view", "traceback"):
        assert f"XpanderMagics.{name}" in listed
    notebook.run(f"%config XpanderMagics.store = 'sqlite:///{tmp_path / 'other.db'}'")
    notebook.ask("echo")
    assert (tmp_path / "other.db").exists()
    assert not (tmp_path / "runs.db").exists()
    notebook.run("%config XpanderMagics.timeout = 0.3")
    with pytest.raises(XpanderError, match=r"longer than 0\.3 s"):
        notebook.ask("echo -m scripted/slow")
    notebook.run("%config XpanderMagics.timeout = 60")
    notebook.run("%config XpanderMagics.view = 'none'")
    capsys.readouterr()
    notebook.ask("echo")
    assert capsys.readouterr().out == ""
    notebook.run("%config XpanderMagics.view = 'picture'")
    assert "'view' trait" in caplog.text
    notebook.ask("echo")
    assert capsys.readouterr().out == ""
    notebook.run("%config XpanderMagics.base_url = 'http://127.0.0.1:9'")
    notebook.run("%config XpanderMagics.retries = 0")
    with pytest.raises(XpanderError, match=r"127\.0\.0\.1:9 can't be reached"):
        notebook.ask("echo")


def test_tracebacks_can_be_asked_for(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.run("%config XpanderMagics.traceback = True")
    with pytest.raises(ConfigError):
        notebook.run("%xpander nope")
    assert "Traceback (most recent call last)" in capsys.readouterr().out
    notebook.run("%config XpanderMagics.traceback = False")
    with pytest.raises(ConfigError):
        notebook.run("%xpander nope")
    assert "Traceback" not in capsys.readouterr().out


# ---- commands


def test_status(notebook: Notebook, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = os.environ["XPANDER_API_KEY"]
    notebook.run("%xpander use echo")
    capsys.readouterr()
    notebook.run("%xpander status")
    shown = capsys.readouterr().out
    assert os.environ["XPANDER_BASE_URL"] in shown
    assert f"…{key[-4:]} (XPANDER_API_KEY)" in shown
    assert key not in shown
    assert "target='echo'" in shown
    assert str(tmp_path / "runs.db") in shown


def test_status_without_a_key(
    notebook: Notebook, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.delenv("XPANDER_API_KEY")
    notebook.run("%xpander status")
    assert "none: set XPANDER_API_KEY, or %xpander login" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("XPANDER_BASE_URL", "ftp://x", "service  The base URL is no http(s) address"),
        ("XPANDER_STORE", "nonsense", "runs     "),
        (
            "XPANDER_STORE",
            "sqlite:////proc/nowhere/runs.db",
            "runs     The run store /proc/nowhere/runs.db can't be used",
        ),
    ],
)
def test_status_shows_each_problem_in_its_line(
    notebook: Notebook,
    name: str,
    value: str,
    says: str,
    capsys: pytest.CaptureFixture[str],
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv(name, value)
    notebook.run("%xpander status")
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == ["service", "key", "defaults", "runs"]
    assert any(line.startswith(says) for line in shown)


def test_what_a_command_says_cannot_steer_the_terminal(
    shell: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text('agents: [{name: "a\\x1b[2J\\u202eb", model: scripted/echo}]')
    shell.run_cell(f"%xpander local --file {tmp_path / 'mine.yaml'}").raise_error()
    assert "a\ufffd[2J\ufffdb" in capsys.readouterr().out


def test_lists_are_frames(notebook: Notebook) -> None:
    agents = notebook.run("%xpander agents")
    assert {"id", "name", "status", "model_provider", "model_name"} <= set(agents.columns)
    assert list(agents.columns[:2]) == list(notebook.run("%xpander workflows").columns[:2]) == ["name", "status"]
    assert "echo" in set(agents["name"])
    assert "echo-twice" in set(notebook.run("%xpander workflows")["name"])
    assert "scripted" in set(notebook.run("%xpander providers")["internal_identifier"])
    every, one = notebook.run("%xpander models"), notebook.run("%xpander models scripted")
    assert set(one["provider"]) == {"scripted"}
    assert {"scripted", "local"} <= set(every["provider"])
    assert set(one["model_id"]) < set(every["model_id"])
    for frame in (agents, every, one):
        assert isinstance(frame, pd.DataFrame)


def test_runs_are_found_again(notebook: Notebook) -> None:
    one = notebook.ask("echo --experiment a --tag x", "one")
    two = notebook.ask("echo-twice --experiment b --tag x --tag y", "two")
    with pytest.raises(TaskFailed):
        notebook.ask("echo -m scripted/fail", "three")
    three = notebook.ns["answer"]

    def found(line: str) -> list[str]:
        return list(notebook.run(f"%xpander runs {line}")["run_id"])

    ids = [one.run_id, two.run_id, three.run_id]
    assert found("") == ids
    assert found("--last 2") == ids[1:]
    assert found("--experiment a") == found("--target echo --status completed") == ids[:1]
    assert found("--tag x") == ids[:2]
    assert found("--status failed") == ids[2:]
    assert found("--experiment zzz") == []
    assert notebook.run("%xpander runs --last 1 -o df") is None
    assert list(notebook.ns["df"]["run_id"]) == ids[2:]


def test_show_by_variable_id_beginning_and_task(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    run = notebook.ask("echo")
    assert notebook.run("%xpander show answer") is run
    for ref in (run.run_id, run.run_id[:6], run.task_id):
        again = notebook.run(f"%xpander show {ref}")
        assert (again.run_id, again.result) == (run.run_id, "hello")
    capsys.readouterr()
    assert notebook.run("%xpander show answer --view text") is None
    assert capsys.readouterr().out.startswith("hello\ncompleted")


def test_show_asks_again_for_what_is_under_way(notebook: Notebook) -> None:
    notebook.run("%config XpanderMagics.pause_wait = 0.0")
    notebook.ns["script"] = {"script": {"pause": "hitl", "resume": 0.5}}
    run = notebook.ask("echo --payload script")
    assert run.status == "paused"
    while notebook.task(run)["status"] != "completed":
        time.sleep(0.1)
    shown = notebook.run(f"%xpander show {run.run_id}")
    assert (shown.status, shown.result, shown.total_tokens) == ("completed", "hello", 2)
    assert notebook.run("%xpander runs")["status"].tolist() == ["completed"]


def test_stop(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.run("%config XpanderMagics.pause_wait = 0.0")
    first, second, third = (notebook.ask("echo -m scripted/pause-hitl") for _ in range(3))
    notebook.run(f"%xpander stop {second.run_id[:8]}")
    assert [notebook.task(run)["status"] for run in (first, second, third)] == ["paused", "stopped", "paused"]
    notebook.run("%xpander stop")
    assert [notebook.task(run)["status"] for run in (first, third)] == ["paused", "stopped"]
    notebook.run("%xpander stop all")
    assert notebook.task(first)["status"] == "stopped"
    capsys.readouterr()
    notebook.run("%xpander stop")
    assert capsys.readouterr().out == "No run is under way.\n"


def test_stop_all_goes_on_where_one_cannot_be_stopped(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.run("%config XpanderMagics.pause_wait = 0.0")
    lost = notebook.ask("echo -m scripted/pause-hitl")
    lost.task_id = "gone"
    default_session().store.update(lost)
    there = notebook.ask("echo -m scripted/pause-hitl")
    with pytest.raises(NotFoundError):
        notebook.run("%xpander stop all")
    assert notebook.task(there)["status"] == "stopped"
    assert f"Run {lost.run_id[:8]} could not be stopped." in capsys.readouterr().out


def test_usage(notebook: Notebook) -> None:
    one, two = notebook.ask("echo --no-usage", "one two"), notebook.ask("echo --no-usage", "three")
    assert one.actions is two.actions is None
    frame = notebook.run(f"%xpander usage {one.run_id[:8]}")
    assert frame[["run_id", "total_tokens", "actions"]].values.tolist() == [[one.run_id, 4, 0]]
    frame = notebook.run("%xpander usage")
    assert list(frame["run_id"]) == [two.run_id]
    assert notebook.run("%xpander usage").empty
    assert notebook.run("%xpander runs")["actions"].tolist() == [0, 0]


def test_thread(notebook: Notebook) -> None:
    run = notebook.ask("echo", "one")
    reply = run.reply("two")
    assert (reply.thread_id, reply.target, reply.result) == (run.thread_id, "echo", "two")
    frame = notebook.run("%xpander thread answer")
    assert frame["content"].tolist() == ["one", "one", "two", "two"]
    assert str(frame["created_at"].dtype).endswith("UTC]")
    full = notebook.run("%xpander thread answer --full")
    assert set(full["conversation"]) == {"root"}


def test_tag(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    run = notebook.ask("echo --tag a")
    notebook.run("%xpander tag answer b 'c d'")
    assert run.tags == ["a", "b", "c d"]
    notebook.run(f"%xpander tag {run.run_id[:8]} a b --remove")
    capsys.readouterr()
    assert notebook.run("%xpander runs")["tags"].tolist() == [["c d"]]


@pytest.mark.parametrize(
    ("line", "kind", "says"),
    [
        ("sttaus", ConfigError, "There is no command 'sttaus'. Did you mean status"),
        ("comapre answer", ConfigError, "There is no command 'comapre'. Did you mean compare"),
        ("status now", ConfigError, "takes no further words"),
        ("login now", ConfigError, "takes nothing: it asks for the key"),
        ("logout now", ConfigError, "takes no further words"),
        ("local start", ConfigError, "%xpander local takes stop or nothing, not 'start'"),
        ("local stpo", ConfigError, "Did you mean stop?"),
        ("local --file nothere.yaml", ConfigError, "nothere.yaml"),
        ("local --gguf nothere.gguf", ConfigError, "nothere.gguf"),
        ("agents writer", ConfigError, "takes no further words"),
        ("workflows x", ConfigError, "takes no further words"),
        ("providers x", ConfigError, "takes no further words"),
        ("models scriptde", NotFoundError, "There is no provider 'scriptde'. Did you mean scripted?"),
        ("runs --last none", ConfigError, "--last: 'none' is no whole number above 0"),
        ("runs --status compleded", ConfigError, "--status takes planned"),
        ("runs -o a.b", ConfigError, "--out takes a variable's name, not 'a.b'"),
        ("show", ConfigError, "%xpander show takes a run"),
        ("show nothere", NotFoundError, "No run or task 'nothere'"),
        ("show answer --view picture", ConfigError, "--view takes"),
        ("stop nothere", NotFoundError, "No run or task 'nothere'"),
        ("stop lost", ConfigError, "has no task to stop"),
        ("usage nothere", NotFoundError, "No run or task 'nothere'"),
        ("thread", ConfigError, "%xpander thread takes a run"),
        ("thread nothere", NotFoundError, "No run or task 'nothere'"),
        ("thread lost", ConfigError, "it started no task"),
        ("tag", ConfigError, "%xpander tag takes a run and at least one tag"),
        ("tag answer", ConfigError, "%xpander tag takes a run and at least one tag"),
        ("tag nothere x", NotFoundError, "No run or task 'nothere'"),
        ("diff answer", ConfigError, "%xpander diff takes two runs"),
        ("report", ConfigError, "%xpander report takes a file"),
        ("export", ConfigError, "%xpander export takes a file"),
        ("score", ConfigError, "%xpander score takes a scorer"),
        ("score exact", NotFoundError, "No sweep"),
        ("plot scores pictures", ConfigError, "There is no plot 'pictures'"),
        ("compare --experiment nothere", ConfigError, "No kept run is of the experiment 'nothere'"),
        ("help shwo", ConfigError, "No command and no page has 'shwo'. Did you mean show"),
    ],
)
def test_a_wrong_command(
    notebook: Notebook, line: str, kind: type[XpanderError], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.ask("echo")
    notebook.ns["lost"] = Run(status="failed")
    assert says in wrong(notebook, f"%xpander {line}", kind, capsys)


def test_help_comes_from_the_parser(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.run("%xpander help")
    shown = capsys.readouterr().out
    notebook.run("%xpander")
    assert capsys.readouterr().out == shown
    for name in COMMANDS.split():
        assert f"%xpander {name}" in shown
    for option in ("--model", "--over", "--no-usage", "--allow-secrets", "--dry-run", "--on-interrupt"):
        assert option in shown
    notebook.run("%xpander help runs")
    assert capsys.readouterr().out.startswith("  %xpander runs [--experiment NAME]")
    assert set(COMMANDS.split()) <= set(COMMAND_NAMES)


@pytest.mark.parametrize("source", ["%%xpander?", "%xpander?"])
def test_question_mark(notebook: Notebook, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.run(source)
    shown = capsys.readouterr().out
    assert "usage: %%xpander [TARGET] [options]" in shown
    assert "--expected-output TEXT" in shown
    assert "%xpander thread RUN [--full]" in shown


# ---- the key


def test_login_where_nobody_can_be_asked(environment: pytest.MonkeyPatch, connected: LocalServer) -> None:
    script = """
        import sys
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell()
        shell.run_line_magic("load_ext", "xpander_magics")
        sys.exit(type(shell.run_cell("%xpander login").error_in_exec).__name__)
    """
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        start_new_session=True,
        check=False,
    )
    assert ended.stderr.strip().endswith("ConfigError")
    assert "Nobody can be asked for the key here. Set XPANDER_API_KEY" in ended.stdout
    assert "Traceback" not in ended.stdout


def typed(environment: pytest.MonkeyPatch, text: str) -> None:
    """What is typed at the next prompts for a secret."""
    answers = io.StringIO(text)
    environment.setattr("getpass.getpass", lambda prompt="": answers.readline())


def test_login_and_logout(
    notebook: Notebook, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = os.environ["XPANDER_API_KEY"]
    environment.delenv("XPANDER_API_KEY")
    typed(environment, f"wrong-key-wrong-key\n\nnot a key\n {key} \n")
    for kind, says in (
        (AuthError, "refuses the key (401)"),
        (ConfigError, "No key was given; nothing has changed"),
        (AuthError, "characters that no key has"),
    ):
        assert says in wrong(notebook, "%xpander login", kind, capsys)
        with pytest.raises(AuthError, match="There is no API key"):
            notebook.ask("echo")
    capsys.readouterr()
    notebook.run("%xpander login")
    assert "Logged in at" in capsys.readouterr().out
    assert notebook.ask("echo").result == "hello"
    notebook.run("%xpander status")
    assert key not in capsys.readouterr().out
    notebook.run("%xpander logout")
    assert capsys.readouterr().out == "The key is forgotten.\n"
    with pytest.raises(AuthError, match="There is no API key"):
        notebook.ask("echo")
    capsys.readouterr()
    notebook.run("%xpander logout")
    assert capsys.readouterr().out == "There was no key from login.\n"


def test_an_interrupt_at_the_prompt_for_the_key(
    notebook: Notebook, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(prompt: str = "") -> str:
        raise KeyboardInterrupt

    environment.setattr("getpass.getpass", interrupted)
    with pytest.raises(KeyboardInterrupt):
        notebook.run("%xpander login")
    assert capsys.readouterr().out == "Interrupted: No key was given; nothing has changed.\n"


def test_a_key_from_login_is_for_its_service_alone(notebook: Notebook, environment: pytest.MonkeyPatch) -> None:
    key = os.environ["XPANDER_API_KEY"]
    environment.delenv("XPANDER_API_KEY")
    typed(environment, key)
    notebook.run("%xpander login")
    notebook.run("%config XpanderMagics.base_url = 'http://127.0.0.1:9'")
    with pytest.raises(AuthError, match="There is no API key"):
        notebook.ask("echo")


def test_login_to_a_service_that_cannot_be_reached(
    notebook: Notebook, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("XPANDER_BASE_URL", "http://127.0.0.1:9")
    typed(environment, "some-key-some-key")
    notebook.run("%xpander login")
    shown = capsys.readouterr().out
    assert "The key could not be tried" in shown
    assert "some-key-some-key" not in shown


# ---- the local server


def test_local(shell: InteractiveShell, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(source: str) -> str:
        capsys.readouterr()
        outcome = shell.run_cell(source)
        outcome.raise_error()
        return capsys.readouterr().out

    assert "It has:" in run("%xpander local")
    session = default_session()
    first = session.local
    assert first is not None
    assert "(the embedded local server)" in run("%xpander status")
    run("%%xpander echo -o one\nhello")
    with pytest.raises(ConfigError):
        run("%xpander local --file nothere.yaml")
    assert session.local is first
    assert first.alive
    typed(environment, "not a key\n")
    with pytest.raises(AuthError):
        run("%xpander login")
    assert session.local is first
    run("%xpander local")
    assert session.local is not first
    assert not first.alive
    assert session.local is not None
    session.local.stop()
    with pytest.raises(ConfigError, match=r"The local server has ended\. %xpander local starts it again"):
        run("%%xpander echo\nhello")
    run("%xpander local")
    second = session.local
    assert run("%xpander local stop") == "The local server has ended.\n"
    assert second is not None
    assert not second.alive
    assert run("%xpander local stop") == "No local server was running.\n"
    with pytest.raises(AuthError):
        run("%%xpander echo\nhello")


@pytest.mark.model
def test_a_real_model(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_cell("%xpander local").raise_error()
    shell.run_cell("%%xpander writer -o answer\nSay hello to Ada in one short sentence.").raise_error()
    run = shell.user_ns["answer"]
    assert (run.provider, run.model, run.status) == ("local", "smollm2-135m-instruct", "completed")
    assert run.result
    assert run.completion_tokens > 0
    assert run.ttft_s > 0
    assert run.result.strip() in capsys.readouterr().out


# ---- the store


def test_an_unusable_store_sends_nothing(
    notebook: Notebook, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.db").write_bytes(b"this is no database" * 100)
    notebook.run(f"%config XpanderMagics.store = 'sqlite:///{tmp_path / 'bad.db'}'")
    assert "bad.db" in wrong(notebook, "%%xpander echo\nhello", StoreError, capsys)
    notebook.run(f"%config XpanderMagics.store = 'sqlite:///{tmp_path / 'runs.db'}'")
    assert notebook.ask("echo").result == "hello"


# ---- load, unload


def test_unload_leaves_nothing_and_load_works_again(notebook: Notebook) -> None:
    shell = notebook.shell
    notebook.run("%xpander use echo --title t")

    def ours() -> list[int]:
        magics = [c for c in shell.configurables if isinstance(c, XpanderMagics)]
        matchers = [m for m in shell.Completer.custom_matchers if hasattr(m, "xpander_completer")]
        registered = [kind for kind in ("line", "cell") if "xpander" in shell.magics_manager.magics[kind]]
        return [len(magics), len(matchers), len(registered), int("XpanderMagics" in shell.magics_manager.registry)]

    assert ours() == [1, 1, 2, 1]
    notebook.run("%reload_ext xpander_magics")
    assert ours() == [1, 1, 2, 1]
    notebook.run("%unload_ext xpander_magics")
    assert ours() == [0, 0, 0, 0]
    with pytest.raises(UsageError, match="`%xpander` not found"):
        notebook.run("%xpander status")
    notebook.run("%load_ext xpander_magics")
    assert ours() == [1, 1, 2, 1]
    assert default_session().defaults == Options()
    assert notebook.ask("echo").result == "hello"


def test_unload_ends_the_local_server(shell: InteractiveShell) -> None:
    shell.run_cell("%xpander local").raise_error()
    local = default_session().local
    assert local is not None
    shell.run_cell("%unload_ext xpander_magics").raise_error()
    assert not local.alive
    shell.run_cell("%load_ext xpander_magics").raise_error()


def test_the_client_sees_the_marks_of_runs(notebook: Notebook) -> None:
    run = notebook.ask("echo")
    assert isinstance(notebook.client, Client)
    assert notebook.task(run)["payload_extension"] == {"xpander_magics_run": run.run_id}
