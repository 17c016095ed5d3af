"""The events of a stream, their order, and stopping."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn

from xpander_magics.local.catalog import load
from xpander_magics.local.server import create_app


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """The types in their order, repeats once."""
    names = [event["type"] for event in events]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def text_of(events: list[dict[str, Any]], task_id: str) -> str:
    return "".join(e["data"] for e in events if e["type"] == "chunk" and e["task_id"] == task_id)


def test_the_order_of_a_plain_stream(api: Any) -> None:
    events = list(api.stream("echo", "one two three", script={"chunks": ["one ", "two ", "three"]}))
    assert [e["type"] for e in events] == [
        *("connected", "task_created", "task_updated", "chunk", "chunk", "chunk", "task_finished")
    ]
    assert {frozenset(e) for e in events} == {frozenset(("type", "task_id", "organization_id", "time", "data"))}
    created, updated, finished = (events[i]["data"] for i in (1, 2, -1))
    assert (created["status"], updated["status"], finished["status"]) == ("pending", "executing", "completed")
    assert text_of(events, created["id"]) == finished["result"] == "one two three"
    assert {e["task_id"] for e in events} == {created["id"]}
    assert api.task(created["id"]) == finished


def test_all_that_a_script_can_say(api: Any) -> None:
    script = {"think": ["a", "b"], "tools": True, "chunks": 3, "result": "xyz", "rate": 1000, "delay": 0.01}
    script["tokens"] = {"prompt_tokens": 7, "completion_tokens": 5}
    events = list(api.stream("echo", "q", script=script))
    assert kinds(events) == [
        *("connected", "task_created", "task_updated", "think", "tool_call_request", "tool_call_result"),
        *("chunk", "task_finished"),
    ]
    task = events[-1]["data"]
    assert task["result"] == "xyz"
    assert task["used_tools"] == ["lookup"]
    assert task["tokens"] == {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    usage = api.get(f"/v1/tasks/{task['id']}/llm_usage").json()
    assert (usage["input_tokens"], usage["output_tokens"], usage["tokens"], usage["actions"]) == (7, 5, 12, 1)
    assert (usage["is_byok"], usage["cost"]) == (False, 0.0)
    full = api.get(f"/v1/tasks/{task['id']}/thread/full").json()
    assert full["root"][1]["tool_calls"][0]["tool_name"] == "lookup"


@pytest.mark.parametrize("model", ["echo", "slow", "think", "tools", "fail"])
def test_each_behaviour_by_its_name(api: Any, model: str) -> None:
    events = list(api.stream("echo", "q q q", llm_model_name=model, script={"delay": 0, "rate": 1000}))
    assert events[-1]["data"]["status"] == ("failed" if model == "fail" else "completed")
    assert events[-1]["data"]["llm_model_name"] == model


def test_a_failure_keeps_its_message(api: Any) -> None:
    task = api.invoke("echo", "x", script={"fail": "No more paper"})
    assert (task["status"], task["result"]) == ("failed", "No more paper")


def test_stop_while_streaming(api: Any) -> None:
    events = []
    for event in api.stream("echo", "x" * 100, script={"chunks": 100, "rate": 20}):
        events.append(event)
        if event["type"] == "chunk" and kinds(events)[-1] == "chunk" and len(events) == 5:
            stopped = api.post(f"/v1/tasks/{event['task_id']}/stop").json()
            assert (stopped["status"], stopped["is_manually_stopped"]) == ("stopped", True)
    assert events[-1]["type"] == "task_finished"
    assert events[-1]["data"] == stopped
    assert len(events) < 20
    assert api.post(f"/v1/tasks/{stopped['id']}/stop").json() == stopped


def test_a_finished_task_is_not_stopped(api: Any) -> None:
    task = api.invoke("echo", "x")
    assert api.post(f"/v1/tasks/{task['id']}/stop").json() == task
    assert api.post("/v1/tasks/nowhere/stop").status_code == 404


def test_who_leaves_does_not_stop_the_task(api: Any) -> None:
    stream = api.stream("echo", "abcdef", script={"chunks": 6, "rate": 20})
    task_id = next(stream)["task_id"]
    stream.close()
    assert api.ended(task_id)["result"] == "abcdef"


@pytest.mark.parametrize(
    ("kind", "field", "event"), [("hitl", "hitl_request", None), ("auth", "pending_eca_request", "auth_event")]
)
def test_a_pause_waits_for_a_person(api: Any, kind: str, field: str, event: str | None) -> None:
    task = api.invoke("echo", "x", script={"pause": kind})
    assert task["status"] == "paused"
    assert task[field]
    assert task["paused_at"]
    assert task["finished_at"] is None
    assert api.post(f"/v1/tasks/{task['id']}/stop").json()["status"] == "stopped"
    events = list(api.stream("echo", "x", script={"pause": kind, "resume": 0.05}))
    states = [e["data"]["status"] for e in events if e["type"] == "task_updated"]
    assert states == ["executing", "paused", "executing"]
    assert events[-1]["data"]["status"] == "completed"
    if event:
        assert next(e for e in events if e["type"] == event)["data"]["auth_url"]


def test_a_workflow_hands_on_and_streams_its_last_node(api: Any) -> None:
    events = list(api.stream("echo-twice", "hello", script={"chunks": ["he", "llo"]}))
    root = events[-1]["data"]
    assert kinds(events) == [
        *("connected", "task_created", "task_updated", "sub_task_created", "sub_task_updated", "chunk"),
        *("sub_task_finished", "sub_task_created", "sub_task_updated", "chunk", "sub_task_finished", "task_finished"),
    ]
    assert text_of(events, root["id"]) == root["result"] == "hello"
    assert root["last_executed_node_id"] == "second"
    assert root["sub_executions"] == root["finished_sub_executions"]
    assert len(root["sub_executions"]) == 2
    assert root["llm_model_provider"] == "scripted"
    children = [api.task(child) for child in root["sub_executions"]]
    assert {child["parent_execution"] for child in children} == {root["id"]}
    assert root["tokens"]["total_tokens"] == sum(child["tokens"]["total_tokens"] for child in children)
    full = api.get(f"/v1/tasks/{root['id']}/thread/full").json()
    assert set(full) == {"root", *root["sub_executions"]}
    found = api.get(f"/v1/tasks?parent_task_id={root['id']}").json()["items"]
    assert [item["id"] for item in found] == root["sub_executions"][::-1]


def test_one_node_of_a_workflow(api: Any) -> None:
    task = api.invoke("echo-twice", "x", test_run_node_id="second")
    assert len(task["sub_executions"]) == 1
    assert task["last_executed_node_id"] == "second"
    assert api.try_invoke("echo-twice", "x", test_run_node_id="third").status_code == 422


def test_a_workflow_fails_with_its_node_and_stops_with_all(api: Any) -> None:
    task = api.invoke("echo-twice", "x", script={"fail": "broken"})
    assert (task["status"], task["result"]) == ("failed", "Node first: broken")
    assert len(task["sub_executions"]) == 1
    for event in api.stream("echo-twice", "x", script={"delay": 600}):
        if event["type"] == "sub_task_updated":
            root = next(t for t in api.get("/v1/tasks?status=executing").json()["items"] if not t["parent_task_id"])
            api.post(f"/v1/tasks/{root['id']}/stop")
    assert event["data"]["status"] == "stopped"
    assert [api.task(child)["status"] for child in event["data"]["sub_executions"]] == ["stopped"]


@pytest.fixture
def quick() -> Iterator[tuple[str, dict[str, str]]]:
    """A server in this process that sends its comments often."""
    app = create_app(load(), "key", keep_alive=0.05)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", {"x-api-key": "key"}
    server.should_exit = True
    thread.join()


def test_a_silent_stream_is_kept_alive(quick: tuple[str, dict[str, str]]) -> None:
    base, headers = quick
    agents = requests.get(f"{base}/v1/agents", headers=headers, timeout=30).json()["items"]
    echo = next(a["id"] for a in agents if a["name"] == "echo")
    body = {"input": {"text": "x"}, "payload_extension": {"script": {"delay": 0.4}}}
    answer = requests.post(f"{base}/v1/agents/{echo}/invoke/stream", json=body, headers=headers, timeout=30)
    blocks = answer.text.split("\n\n")
    assert ": keep-alive" in blocks
    assert '"task_finished"' in blocks[-2]


def test_the_documented_stream_is_like_ours(api: Any) -> None:
    documented = (Path(__file__).parents[1] / "contract/examples/stream-completed.sse").read_text()
    ours = {event["type"] for event in api.stream("echo", "x", llm_model_name="think")}
    assert all(f'"type": "{kind}"' in documented for kind in ours - {"connected"})
