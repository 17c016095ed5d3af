"""What one kernel works with, and what a run can ask of it."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path

import pytest
from notebook_shell import Notebook

from xpander_magics.cell import Options
from xpander_magics.config import Settings
from xpander_magics.errors import ConfigError, NotFoundError, TaskFailed
from xpander_magics.results import Run
from xpander_magics.session import Session, default_session


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
    # The service now tells of the second turn under that id; the first one's answer stays its own.
    assert kept.refresh().result == "one"


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


def test_an_earlier_turn_is_not_overwritten_by_a_later_one(notebook: Notebook) -> None:
    """Within a conversation every task has the conversation's id, and the service tells of the newest alone."""
    first = notebook.ask("echo --no-usage", "first prompt")
    second = first.reply("a longer second prompt")
    assert second.task_id == first.task_id
    before = (first.result, first.total_tokens, first.cost_usd)
    first.refresh()
    first.stop()
    with pytest.raises(ConfigError, match="has gone on"):
        notebook.run(f"%xpander usage {first.run_id}")
    assert (first.result, first.total_tokens, first.cost_usd) == before
    kept = default_session().store.find(first.run_id)
    assert (kept.result, kept.total_tokens, kept.cost_usd) == before
    assert second.refresh().result == "a longer second prompt"


def test_a_turn_that_went_on_before_it_was_collected(notebook: Notebook) -> None:
    first = notebook.ask("echo", "first prompt")
    first.reply("second prompt")
    first.status, first.result = "executing", None
    with pytest.raises(ConfigError, match="has gone on"):
        first.refresh()
    with pytest.raises(ConfigError, match="has gone on"):
        first.stop()


def test_a_run_is_asked_for_where_it_was_sent(notebook: Notebook) -> None:
    run = notebook.ask("echo", "one")
    before = notebook.newest_tasks()
    run.base_url = "https://elsewhere.example"
    notebook.ns["run"] = run
    for act in (
        run.refresh,
        lambda: run.reply("two"),
        lambda: notebook.run("%%xpander echo --thread run\ntwo"),
        lambda: notebook.run("%xpander thread run"),
    ):
        with pytest.raises(ConfigError, match=r"was sent to https://elsewhere\.example"):
            act()
    run.status = "executing"
    with pytest.raises(ConfigError, match=r"was sent to https://elsewhere\.example"):
        run.stop()
    assert notebook.newest_tasks() == before


def test_after_the_local_server_has_died_nothing_goes_elsewhere(notebook: Notebook) -> None:
    """The environment holds a key for another service; re-running a failed cell is what everyone does."""
    session = default_session()
    before = notebook.newest_tasks()
    local = session.start_local()
    local.stop()
    for _ in range(3):
        with pytest.raises(ConfigError, match="local server has ended"):
            notebook.run("%%xpander echo\nhello")
    assert notebook.newest_tasks() == before
    notebook.run("%xpander local stop")
    assert notebook.ask("echo").result == "hello"


def test_a_run_says_when_it_left_before_it_left(notebook: Notebook) -> None:
    """A kernel that dies while a request is on its way leaves a run that can be looked for."""
    session = default_session()
    seen: list[object] = []
    plan = session.plan(Options(target="echo", mode="sync"), "hello", {})
    session.engine.run(plan, lambda run, event, piece: seen.append(session.store.find(run.run_id).sent_at))
    assert seen
    assert all(seen)


def test_runs_can_be_copied_and_pickled(notebook: Notebook) -> None:
    run = notebook.ask("echo", "one")
    for copied in (pickle.loads(pickle.dumps(run)), copy.deepcopy(run)):
        assert (copied.run_id, copied.result, copied.session) == (run.run_id, "one", None)
        assert copied.reply("two").result == "two"
    assert dataclasses.asdict(run)["result"] == "one"


def test_a_reused_run_says_so(notebook: Notebook) -> None:
    assert not notebook.ask("echo --cached", "the same").reused
    assert notebook.ask("echo --cached", "the same").reused


def test_a_collected_run_sheds_the_error_of_its_way(notebook: Notebook) -> None:
    run = notebook.ask("echo", "one")
    run.status, run.error, run.error_type = "executing", "Interrupted.", "Interrupted"
    run.stop()
    assert (run.status, run.error, run.error_type) == ("completed", None, None)


def test_a_listed_agent_is_a_target(notebook: Notebook) -> None:
    echo = next(agent for agent in notebook.client.agents() if agent.name == "echo")
    twice = next(workflow for workflow in notebook.client.workflows() if workflow.name == "echo-twice")
    assert notebook.client.invoke(echo, "x").result == "x"
    assert notebook.client.invoke(twice, "x").agent_id == twice.id
    with pytest.raises(ConfigError, match="not a int"):
        notebook.client.invoke(5, "x")  # type: ignore[arg-type]


def test_what_a_failed_task_had_written_is_kept_and_shown(notebook: Notebook) -> None:
    notebook.ns["broken"] = {"script": {"fail": "It fell over.", "chunks": ["Once upon ", "a time"]}}
    with pytest.raises(TaskFailed, match="It fell over") as caught:
        notebook.run("%%xpander echo --payload broken\nhello")
    run = caught.value.run
    assert run is not None
    assert run.result == "It fell over."
    kept = default_session().store.find(run.run_id)
    assert kept.metadata["streamed_text"] == "Once upon a time"
    assert "Once upon a time" in kept._repr_mimebundle_()["text/html"]
    assert "Once upon a time" in kept._repr_mimebundle_()["text/plain"]
