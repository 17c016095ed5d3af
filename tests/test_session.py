"""What one kernel works with, and what a run can ask of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from notebook_shell import Notebook

from xpander_magics.cell import Options
from xpander_magics.errors import ConfigError, NotFoundError, TaskFailed
from xpander_magics.results import Run
from xpander_magics.session import Session, Settings, default_session


def test_reply_keeps_target_and_settings(notebook: Notebook) -> None:
    notebook.ns.update(me={"id": "u1"}, script={"script": {"result": "always"}, "k": 1})
    run = notebook.ask(
        "echo -m scripted/echo -e low --think default --version 1 --instructions i --context c --expected-output e "
        "--format text --user me --payload script --set 'source=\"sdk\"' --mode sync --experiment x --tag t"
    )
    # Defaults that were chosen later are not those of the conversation.
    notebook.run("%xpander use echo-twice --title later -e high --no-usage")
    reply = run.reply("and {{ this }}?")
    before, after = (notebook.client.task(str(r.task_id)).raw for r in (run, reply))
    assert reply.run_id != run.run_id
    assert reply.thread_id == run.thread_id
    assert (reply.prompt, reply.result) == ("and {{ this }}?", "always")
    for name in ("instructions_override", "additional_context", "expected_output", "source", "llm_reasoning_effort"):
        assert before[name] == after[name]
    assert reply.request == {
        **run.request,
        "input": {**run.request["input"], "text": "and {{ this }}?"},
        "payload_extension": {**run.request["payload_extension"], "xpander_magics_run": reply.run_id},
        "id": run.thread_id,
    }
    assert (reply.experiment, reply.tags, reply.mode, reply.version) == ("x", ["t"], "sync", "1")


def test_reply_to_what_started_no_task(notebook: Notebook) -> None:
    with pytest.raises(ConfigError, match="has no conversation to go on with"):
        Run(status="failed").reply("x")


def test_stop_and_refresh(notebook: Notebook) -> None:
    notebook.run("%config XpanderMagics.pause_wait = 0.0")
    run = notebook.ask("echo -m scripted/pause-hitl")
    assert run.refresh() is run
    assert run.status == "paused"
    assert run.stop() is run
    assert run.status == "stopped"
    assert default_session().store.find(run.run_id).status == "stopped"
    assert run.stop().status == "stopped"
    with pytest.raises(ConfigError, match="has no task to stop"):
        Run(status="failed").stop()
    assert Run(status="failed").refresh().status == "failed"


def test_a_run_from_the_store_can_go_on(notebook: Notebook) -> None:
    run = notebook.ask("echo", "one")
    kept = default_session().store.find(run.run_id)
    assert kept.reply("two").thread_id == run.thread_id
    assert kept.refresh().result == "two"


def test_find(notebook: Notebook) -> None:
    session, run = default_session(), notebook.ask("echo")
    assert session.find("answer", notebook.ns) is run
    assert session.find(run.run_id[:8]).run_id == run.run_id
    notebook.ns["number"] = 7
    for ref in ("number", "nothere", ""):
        with pytest.raises(NotFoundError):
            session.find(ref, notebook.ns)
    with pytest.raises(NotFoundError):
        session.find("answer")


def test_rpm_spaces_the_requests_of_one_run_only(notebook: Notebook) -> None:
    assert notebook.ask("echo --rpm 600 --mode sync").latency_s is not None
    assert notebook.ask("echo").attempts == 1


def test_sessions_are_apart(notebook: Notebook, tmp_path: Path) -> None:
    session = Session(Settings(store=f"sqlite:///{tmp_path / 'other.db'}"))
    try:
        run = session.run(Options(target="echo"), "hi", {})
        assert session.find(run.run_id).result == "hi"
        assert default_session().store.select() == []
        with pytest.raises(TaskFailed) as caught:
            session.run(Options(target="echo", models=("scripted/fail",)), "hi", {})
        assert caught.value.run is not None
        assert len(session.store.select()) == 2
    finally:
        session.close()


def test_closed_sessions_open_again(notebook: Notebook) -> None:
    run = notebook.ask("echo")
    default_session().close()
    assert default_session().find(run.run_id).result == "hello"
    assert notebook.ask("echo").result == "hello"


def test_stopping_twice_is_fine(notebook: Notebook) -> None:
    session = default_session()
    assert session.stop_local() is False
    session.close()
    session.close()
