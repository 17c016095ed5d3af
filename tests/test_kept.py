"""Commands about kept runs: what the notebook's variables hold follows; one run's failure is not the others'."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from fault_server import FaultServer, reply
from IPython.core.interactiveshell import InteractiveShell
from notebook_shell import Notebook

from xpander_magics.errors import AuthError, ConfigError, NotFoundError, RateLimitError
from xpander_magics.results import Run, utc_now
from xpander_magics.service.client import Client
from xpander_magics.session import default_session


@pytest.fixture
def faulty(environment: pytest.MonkeyPatch, shell: InteractiveShell) -> Iterator[tuple[Notebook, FaultServer]]:
    """A notebook, and the service that it talks to, which misbehaves as told."""
    with FaultServer() as server, Client(server.key, server.url) as client:
        environment.setenv("XPANDER_BASE_URL", server.url)
        environment.setenv("XPANDER_API_KEY", server.key)
        shell.run_cell("%config XpanderMagics.retries = 0").raise_error()
        yield Notebook(shell, client), server


def paused(notebook: Notebook, name: str) -> Run:
    """A run that waits for a person, in a variable of this name."""
    notebook.run("%config XpanderMagics.pause_wait = 0.0")
    notebook.ns[name] = notebook.ask("echo -m scripted/pause-hitl")
    del notebook.ns["answer"]
    run: Run = notebook.ns[name]
    return run


# ---- variables


def test_runs_that_arent_there_are_told_by_what_is(notebook: Notebook) -> None:
    notebook.run("%%xpander echo -n 2 -o results -q\nhello")
    notebook.ns["several"] = [*notebook.ns["results"]]
    with pytest.raises(NotFoundError, match=r"no sweep or variable .reslts.\. Did you mean results\?"):
        notebook.run("%xpander noise reslts --dry-run")
    with pytest.raises(NotFoundError, match=r"the variable is of type list\. This takes Runs"):
        notebook.run("%xpander noise several --dry-run")


def test_a_run_is_meant_by_its_place(notebook: Notebook) -> None:
    notebook.run("%%xpander echo -n 2 -o results -q\nhello")
    runs = notebook.ns["results"]
    notebook.ns["several"] = [*runs]
    assert notebook.run("%xpander show results[1]") is runs[1]
    assert notebook.run("%xpander show several[-1]").run_id == runs[1].run_id
    assert "Answer: the same" in str(notebook.run("%xpander diff results[0] results[1]"))
    with pytest.raises(ConfigError, match=r"results has 2 runs; the first is results\[0\]"):
        notebook.run("%xpander show results[2]")
    with pytest.raises(NotFoundError, match="No run or task"):
        notebook.run("%xpander show nothing[0]")


def test_stop_all_tells_the_variables(notebook: Notebook) -> None:
    one, two = paused(notebook, "one"), paused(notebook, "two")
    copy = notebook.ns["copy"] = default_session().store.find(two.run_id)
    notebook.run("%xpander stop all")
    assert [run.status for run in (one, two, copy)] == ["stopped"] * 3


def test_show_acts_on_the_variable(notebook: Notebook) -> None:
    run = paused(notebook, "one")
    notebook.client.stop(run.task_id or "")
    assert notebook.run(f"%xpander show {run.run_id[:8]}") is run
    assert run.status == "stopped"
    notebook.run(f"%xpander tag {run.run_id[:8]} a")
    assert run.tags == ["a"]


# ---- what was never heard of


def lost(run: Run, status: str = "unknown", **changed: object) -> Run:
    """As if the answer that told the task's id had been lost."""
    run.status, run.task_id, run.result, run.finished_at = status, None, None, None
    for name, value in changed.items():
        setattr(run, name, value)
    default_session().store.update(run)
    return run


@pytest.mark.parametrize("status", ["planned", "unknown"])
def test_show_asks_for_what_was_never_heard_of(notebook: Notebook, status: str) -> None:
    run = notebook.ask("echo")
    task_id = run.task_id
    shown = notebook.run(f"%xpander show {lost(run, status).run_id}")
    assert (shown.status, shown.task_id, shown.result) == ("completed", task_id, "hello")


def test_show_does_not_ask_for_what_was_never_sent(notebook: Notebook, environment: pytest.MonkeyPatch) -> None:
    run = lost(notebook.ask("echo"), "planned", sent_at=None)
    environment.setenv("XPANDER_BASE_URL", "http://127.0.0.1:9")
    notebook.run("%config XpanderMagics.retries = 0")
    assert notebook.run(f"%xpander show {run.run_id}").status == "planned"


def test_stop_finds_tasks_that_were_never_heard_of(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    there = paused(notebook, "there")
    task_id = there.task_id
    lost(there)
    gone = lost(notebook.ask("echo"), run_id="f" * 32)  # no task has this mark
    old = lost(notebook.ask("echo"), run_id="e" * 32, sent_at=utc_now() - timedelta(days=2))
    capsys.readouterr()
    notebook.run("%xpander stop")
    shown = capsys.readouterr().out
    assert f"Run {gone.run_id[:8]} has no task at the service" in shown
    assert f"Run {there.run_id[:8]} is stopped." in shown
    assert old.run_id[:8] not in shown
    assert (there.status, there.task_id) == ("stopped", task_id)
    notebook.run("%xpander stop all")
    assert capsys.readouterr().out.startswith(f"Run {gone.run_id[:8]} has no task")


# ---- usage


def without_usage(notebook: Notebook, count: int) -> list[Run]:
    return [notebook.ask("writer --no-usage") for _ in range(count)]


def test_one_failure_does_not_end_usage(
    faulty: tuple[Notebook, FaultServer], capsys: pytest.CaptureFixture[str]
) -> None:
    notebook, server = faulty
    runs = without_usage(notebook, 3)
    capsys.readouterr()
    server.on(f"GET *{runs[1].task_id}*", reply(404, {"detail": "gone"}))
    frame = notebook.run("%xpander usage")
    assert list(frame["run_id"]) == [runs[0].run_id, runs[2].run_id]
    assert "The usage of 1 of 3 runs could not be read. " in capsys.readouterr().out
    assert list(notebook.run("%xpander usage")["run_id"]) == [runs[1].run_id]


def test_usage_ends_where_every_request_would_fail(
    faulty: tuple[Notebook, FaultServer], capsys: pytest.CaptureFixture[str]
) -> None:
    notebook, server = faulty
    runs = without_usage(notebook, 4)
    capsys.readouterr()
    server.on(f"GET *{runs[1].task_id}*", reply(429, {"detail": "slow down"}))
    assert list(notebook.run("%xpander usage")["run_id"]) == [runs[0].run_id]
    assert "1 of 4 runs could not be read; 2 more left, not asked for. " in capsys.readouterr().out
    for status, kind in ((429, RateLimitError), (401, AuthError)):
        server.on(f"GET *{runs[1].task_id}*", reply(status, {"detail": "no"}))
        with pytest.raises(kind):
            notebook.run("%xpander usage")
        assert "2 more left" in capsys.readouterr().out


# ---- cached


def test_a_cached_run_says_that_it_is_one(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    first = notebook.ask("echo --experiment a --tag x")
    capsys.readouterr()
    assert notebook.ask("echo --cached --experiment b --tag x").run_id == first.run_id
    shown = capsys.readouterr().out
    assert "reused: nothing was sent; run of 20" in shown
    assert shown.endswith("It keeps its own: experiment 'a'.\n")
    notebook.ask("echo --cached --tag x")
    assert "It keeps its own" not in capsys.readouterr().out
    notebook.run("%%xpander echo --cached --dry-run\nhello")
    shown = capsys.readouterr().out
    assert "Nothing was sent. 1 run, 0 requests, to echo." in shown
    assert f"--cached reuses 1 kept run, such as {first.run_id[:8]}." in shown
    notebook.run("%%xpander echo --cached --dry-run --rpm 1\nother")
    shown = capsys.readouterr().out
    assert "1 run, 2 requests" in shown
    assert "At least 1 minute, as the rate limit allows." in shown
    notebook.ask("echo --cached -q --experiment b")
    assert capsys.readouterr().out == ""
