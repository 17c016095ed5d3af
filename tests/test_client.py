"""``Client`` against a service that misbehaves: one call is one task, whatever happens on the way."""

from __future__ import annotations

import contextlib
import email.utils
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from fault_server import (
    KEY,
    Action,
    FaultServer,
    agent,
    created,
    drop,
    event,
    finished,
    hang,
    keep_alives,
    reply,
    stream,
)

from xpander_magics import errors
from xpander_magics.contract import INVOKE_FIELDS, MODES, Event
from xpander_magics.limits import Deadline
from xpander_magics.service.calls import MARK
from xpander_magics.service.client import Client
from xpander_magics.service.targets import Target

CONTRACT = yaml.safe_load((Path(__file__).parent / "contract/openapi.yaml").read_text())
AGENT = Target("agent", "00000000-0000-4000-8000-000000000001", "writer")
WORKFLOW = Target("workflow", "00000000-0000-4000-8000-000000000003", "pipeline")
INVOKE = {"sync": "POST */invoke", "async": "POST */invoke/async", "stream": "POST */invoke/stream"}


@pytest.fixture
def client(service: FaultServer) -> Iterator[Client]:
    with Client(service.key, service.url, retries=2, read_timeout=0.6, timeout=20) as client:
        yield client


def breaks(body: Any) -> str | None:
    """How an invoke body breaks the contract."""
    schema = {"$ref": "#/components/schemas/InvokeRequest", "components": CONTRACT["components"]}
    error = next(jsonschema.Draft202012Validator(schema).iter_errors(body), None)
    return error and error.message


def kinds(events: Iterator[Event]) -> list[str]:
    return [event.type for event in events]


def invokes(service: FaultServer) -> int:
    return len(service.requests("POST */invoke*"))


# ---- what is sent


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", [AGENT, WORKFLOW], ids=["agent", "workflow"])
def test_each_mode(service: FaultServer, client: Client, mode: str, target: Target) -> None:
    task = client.invoke(target, "hello", mode=mode)
    assert (task.status, task.result, task.agent_id) == ("completed", "hi", target.id)
    sent = service.log[0]
    assert sent.path == f"/v1/{target.kind}s/{target.id}/invoke" + ("" if mode == "sync" else f"/{mode}")
    assert sent.query == {}
    assert set(sent.json) == {"input", "payload_extension"}
    assert sent.json["input"] == {"text": "hello"}
    assert set(sent.json["payload_extension"]) == {MARK}
    assert sent.headers["content-type"] == "application/json"
    assert invokes(service) == 1


def test_by_name_and_version(service: FaultServer, client: Client) -> None:
    client.invoke("workflow:pipeline", "x", version="draft")
    assert service.log[-1].query == {"version": "draft"}


EVERY_FIELD: dict[str, Any] = {
    "files": ["https://a.example/x.pdf"],
    "user": {"id": "u", "email": "a@b.example", "additional_attributes": {"k": 1}},
    "id": "thread-1",
    "llm_model_provider": "openai",
    "llm_model_name": "gpt-5",
    "llm_reasoning_effort": "xhigh",
    "think_mode": "harder",
    "output_format": "json",
    "output_schema": {"type": "object"},
    "instructions_override": "Be brief.",
    "additional_context": "It rains.",
    "expected_output": "One word.",
    "title": "Tïtle",
    "payload_extension": {"ticket": 7},
    "mcp_servers": [{"name": "m", "config": {"token": "t"}}],
    "source": "nb",
    "parent_execution_id": "p",
    "triggering_agent_id": "g",
    "worker_id": "w",
    "run_locally": False,
    "events_streaming": True,
    "disable_attachment_injection": False,
    "return_metrics": True,
    "user_tokens": {"github": "gh"},
    "user_oidc_token": "oidc",
    "test_run_node_id": "n",
}


def test_every_field_is_sent_as_it_is(service: FaultServer, client: Client) -> None:
    client.invoke(AGENT, "x", **EVERY_FIELD)
    body = service.log[0].json
    assert breaks(body) is None
    mark = body["payload_extension"].pop(MARK)
    assert mark
    assert body.pop("input") == {"text": "x", "files": EVERY_FIELD["files"], "user": EVERY_FIELD["user"]}
    assert body == {name: value for name, value in EVERY_FIELD.items() if name not in ("files", "user")}
    assert set(body) | {"input"} == set(CONTRACT["components"]["schemas"]["InvokeRequest"]["properties"])


@pytest.mark.parametrize("name", EVERY_FIELD)
def test_only_what_was_set_is_sent(client: Client, name: str) -> None:
    call = client.prepare(AGENT, "x", **{name: EVERY_FIELD[name], "title" if name != "title" else "source": None})
    body = call.body
    if name in ("files", "user"):
        assert set(body["input"]) == {"text", name}
    else:
        assert set(body) == {"input", "payload_extension", name}
    assert breaks(body) is None


def test_what_is_newer_than_this_package_can_be_sent(service: FaultServer, client: Client) -> None:
    client.invoke(AGENT, "x", brand_new_zzz=[1], input={"audio_zzz": "y", "text": "not this"})
    body = service.log[0].json
    assert (body["brand_new_zzz"], body["input"]) == ([1], {"audio_zzz": "y", "text": "x"})


def test_each_call_has_a_mark_of_its_own(service: FaultServer, client: Client) -> None:
    payload = {"ticket": 7}
    for _ in range(2):
        client.invoke(AGENT, "x", payload_extension=payload)
    first, second = (r.json["payload_extension"] for r in service.log)
    assert first[MARK] != second[MARK]
    assert first["ticket"] == 7
    assert payload == {"ticket": 7}  # the user's own is left alone


@pytest.mark.parametrize("name", [*INVOKE_FIELDS, "files", "user"])
def test_a_value_of_a_wrong_type_is_not_sent(service: FaultServer, client: Client, name: str) -> None:
    for wrong in (5, object(), {1, 2}, 1.5):
        with pytest.raises(errors.ConfigError, match=name):
            client.invoke(AGENT, "x", **dict[str, Any]({name: wrong}))
    assert not service.log


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"titel": "x"}, "Did you mean title"),
        ({"llm_model": "x"}, "Did you mean llm_model"),
        ({"file": ["x"]}, "Did you mean files"),
        ({"payload_extension": {"a": float("nan")}}, "can't be sent as JSON"),
        ({"payload_extension": {"a": {1}}}, "can't be sent as JSON"),
        ({"mode": "fast"}, "Choose one of stream, sync, async"),
        ({"timeout": 0}, "timeout takes seconds"),
        ({"timeout": "5"}, "timeout takes seconds"),
        ({"timeout": float("inf")}, "timeout takes seconds"),
        ({"timeout": float("nan")}, "timeout takes seconds"),
    ],
)
def test_bad_arguments(service: FaultServer, client: Client, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.ConfigError, match=said):
        client.invoke(AGENT, "x", **fields)
    assert not service.log


@pytest.mark.parametrize("text", [None, 5, b"bytes", ["x"]])
def test_a_prompt_is_text(service: FaultServer, client: Client, text: Any) -> None:
    with pytest.raises(errors.ConfigError, match="The prompt is a string"):
        client.invoke(AGENT, text)
    assert not service.log


@pytest.mark.parametrize("text", ["", "\ud800", "a\0b", "é日\U0001f44b", '"\\', "x" * 1_000_000])
def test_any_text_arrives(service: FaultServer, client: Client, text: str) -> None:
    client.invoke(AGENT, text)
    assert service.log[0].json["input"]["text"] == text


@pytest.mark.parametrize(
    "settings",
    [
        *(
            {name: value}
            for name in ("timeout", "connect_timeout", "read_timeout")
            for value in (0, -1, "1", None, True)
        ),
        *({"retries": value} for value in (-1, 1.5, "1", None)),
        *({"connections": value} for value in (0, "1", None)),
        {"base_url": "http://example.org"},
    ],
)
def test_bad_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigError):
        Client(KEY, **{"base_url": "http://127.0.0.1:1", **settings})


# ---- a call whose answer is lost

LOST: dict[str, Action] = {
    "closed": drop(work=True),
    "reset": drop(work=True, by="reset"),
    "500": reply(500, {"detail": "x"}, work=True),
    "502": reply(502, "<html></html>", work=True),
    "504": reply(504, b"", work=True),
    "hang": hang(work=True),
    "cut": reply(cut=10),
    "cut chunks": reply(cut=10, framing="chunked", end="reset"),
    "cut without a length": reply(cut=10, framing="close"),
    "html": reply(200, "<html>proxy</html>", work=True),
    "no id": reply(200, {"status": "pending"}, work=True),
    "no object": reply(200, [], work=True),
}


# ``sync`` waits for a hanging answer as long as the run may take; test_engine has that.
LOST_IN = [(mode, lost) for mode in MODES for lost in LOST if (mode, lost) != ("sync", "hang")]


@pytest.mark.parametrize(("mode", "lost"), LOST_IN)
def test_a_task_whose_start_got_no_answer_is_found_by_its_mark(
    service: FaultServer, client: Client, mode: str, lost: str
) -> None:
    other = client.invoke(AGENT, "another's", mode="async", wait=False)
    service.service.states = [{"status": "executing"}]
    service.on(INVOKE[mode], LOST[lost])
    task = client.invoke(AGENT, "x", mode=mode)
    assert (task.status, task.result) == ("completed", "hi")
    assert task.id != other.id
    assert invokes(service) == 2  # the other, and this once


@pytest.mark.parametrize("mode", ["async", "stream"])
def test_within_a_thread_its_task_tells(service: FaultServer, client: Client, mode: str) -> None:
    client.invoke(AGENT, "first", id="thread-1")
    service.on(INVOKE[mode], drop(work=True))
    task = client.invoke(AGENT, "second", mode=mode, id="thread-1")
    assert (task.id, task.input["text"]) == ("thread-1", "second")
    assert not service.requests("GET /v1/tasks")


@pytest.mark.parametrize("mode", MODES)
def test_a_task_that_does_not_show_up(service: FaultServer, client: Client, mode: str) -> None:
    client.invoke(AGENT, "another's")
    service.on(INVOKE[mode], drop())
    with pytest.raises(errors.ConnectionFailed, match="without an answer") as caught:
        client.invoke(AGENT, "x", mode=mode, timeout=1.2)
    assert caught.value.maybe_sent
    assert invokes(service) == 2
    assert len(service.requests("GET /v1/tasks/*")) == 1  # the other is looked at once


def test_a_task_that_shows_up_late(service: FaultServer, client: Client) -> None:
    service.on(INVOKE["async"], drop(work=True))
    service.on("GET /v1/tasks", reply(200, {"items": [], "total": 0, "page": 1, "per_page": 50, "total_pages": 0}))
    assert client.invoke(AGENT, "x", mode="async").status == "completed"


@pytest.mark.parametrize("mode", MODES)
def test_a_refused_start_is_not_looked_for(service: FaultServer, client: Client, mode: str) -> None:
    service.on(INVOKE[mode], reply(422, {"detail": "no"}))
    with pytest.raises(errors.InvalidRequestError):
        client.invoke(AGENT, "x", mode=mode)
    assert len(service.log) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("status", [429, 503])
def test_a_start_that_was_put_off_is_sent_again(service: FaultServer, client: Client, mode: str, status: int) -> None:
    service.on(INVOKE[mode], reply(status, b"", {"Retry-After": "0"}))
    assert client.invoke(AGENT, "x", mode=mode).status == "completed"
    assert len(service.service.tasks) == 1
    marks = {r.json["payload_extension"][MARK] for r in service.requests(INVOKE[mode])}
    assert len(marks) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("work", [True, False])
def test_a_start_behind_a_gateway_that_lost_it_is_looked_for(
    service: FaultServer, client: Client, mode: str, work: bool
) -> None:
    """A bare 503 may come of a connection that the gateway had, and lost: the task may run all the same."""
    service.on(INVOKE[mode], reply(503, b"", work=work))
    if work:
        assert client.invoke(AGENT, "x", mode=mode).status == "completed"
    else:
        with pytest.raises(errors.ServerError) as caught:
            client.invoke(AGENT, "x", mode=mode, timeout=3)
        assert caught.value.maybe_sent
    assert len(service.service.tasks) == work
    assert len(service.requests(INVOKE[mode])) == 1


def test_a_lost_start_is_found_where_the_clock_of_the_service_is_late(service: FaultServer, client: Client) -> None:
    late = email.utils.formatdate(time.time() - 1200, usegmt=True)
    service.on("GET /v1/agents", reply(headers={"Date": late}), times=9)
    service.service.clock = -1200.0
    service.on(INVOKE["sync"], drop(work=True))
    client.agents()
    assert client.invoke("writer", "x", mode="sync").status == "completed"


def test_a_connection_reset_before_anything_was_read(service: FaultServer, client: Client) -> None:
    """Whether the request has arrived can't be known, so it isn't sent again."""
    service.drop_connections(1)
    with pytest.raises(errors.ServiceError) as caught:
        client.invoke(AGENT, "x", mode="async", timeout=1.2)
    assert caught.value.maybe_sent
    assert invokes(service) == 0


def test_polls_and_stop_are_repeated(service: FaultServer, client: Client) -> None:
    task = client.invoke(AGENT, "x", mode="async", wait=False)
    assert task.status == "pending"
    service.on("POST */stop", drop(), reply(502, b""))
    assert client.stop(task.id).status == "stopped"
    service.on("GET /v1/tasks/*", drop(by="reset"), reply(500, b""))
    assert client.task(task.id).is_manually_stopped


# ---- streams


def test_a_stream_as_it_should_be(service: FaultServer, client: Client) -> None:
    events = [*client.stream(AGENT, "x")]
    assert [e.type for e in events] == ["task_created", "chunk", "chunk", "task_finished"]
    assert {e.task_id for e in events} == {events[0].data["id"]}
    assert events[-1].data["result"] == "hi"
    assert not service.requests("GET *")


def test_the_example_of_the_contract_at_any_split(service: FaultServer, client: Client) -> None:
    data = (Path(__file__).parent / "contract/examples/stream-completed.sse").read_bytes()
    for split in (1, 7, 1000):
        service.on(INVOKE["stream"], reply(200, data, content_type="text/event-stream", framing="chunked", split=split))
        events = [*client.stream(AGENT, "x")]
        assert "".join(e.data for e in events if e.type == "chunk") == "Hello!"
        assert [e.type for e in events][:3] == ["task_created", "task_updated", "think"]
        assert events[-1].data["status"] == "completed"


def test_unknown_events_and_both_spellings_are_kept(service: FaultServer, client: Client) -> None:
    sent = [
        b": hello\r\n\r\n",
        event("connected", task_id=None),
        b'event: named\r\nid: 5\r\ndata: {"data": 1, "extra": 2}\r\n\r\n',
        event("brand_new", {"x": 1}, spelling="event", identity={"who": "me"}),
        b"data: no json\n\n",
        b"data: [DONE]\n\n",
        b"data: 7\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        event("task_updated", {"id": "TASK", "status": "dreaming"}),
        finished(status="completed", new_field=[1]),
    ]
    service.on(INVOKE["stream"], stream(*sent, work=True))
    events = [*client.stream(AGENT, "x")]
    assert [e.type for e in events] == [
        *("connected", "named", "brand_new", "message", "message", "message", "message"),
        *("task_updated", "task_finished"),
    ]
    assert events[1].raw == {"data": 1, "extra": 2}
    assert events[2].raw["identity"] == {"who": "me"}
    assert [e.data for e in events[3:6]] == ["no json", "[DONE]", "7"]
    assert events[-2].data["status"] == "dreaming"
    assert events[-1].data["new_field"] == [1]


WHOLE = [created(), event("chunk", "hel"), event("chunk", "lo")]


@pytest.mark.parametrize(
    ("framing", "end"), [("chunked", "close"), ("chunked", "reset"), ("chunked", "end"), ("close", "close")]
)
@pytest.mark.parametrize("cut", [0, 1, 30, len(WHOLE[0]), len(WHOLE[0]) + 20, len(b"".join(WHOLE))])
def test_a_cut_stream_goes_on_by_get_task(
    service: FaultServer, client: Client, cut: int, end: str, framing: str
) -> None:
    """Before ``task_created``, in the middle of it, after it, and in the middle of a chunk's bytes."""
    service.service.states = [{"status": "executing"}]
    service.on(INVOKE["stream"], stream(b"".join(WHOLE)[:cut], work=True, end=end, framing=framing))
    events = [*client.stream(AGENT, "x")]
    assert events[0].type == "task_created"
    assert events[-1].type == "task_finished"
    assert [e.type for e in events].count("task_finished") == 1
    assert [e.type for e in events].count("task_created") == 1
    assert events[-1].data["result"] == "hi"
    assert invokes(service) == 1


def test_a_silent_stream_goes_on_by_get_task(service: FaultServer, client: Client) -> None:
    service.on(INVOKE["stream"], stream(created(), work=True, end="hang"))
    began = time.monotonic()
    assert kinds(client.stream(AGENT, "x")) == ["task_created", "task_finished"]
    assert time.monotonic() - began < 20


def test_keep_alives_do_not_extend_the_total(service: FaultServer, client: Client) -> None:
    service.on(INVOKE["stream"], stream(created(), *keep_alives(20), work=True))
    began = time.monotonic()
    with pytest.raises(errors.Timeout, match=r"0\.8 s"):
        [*client.stream(AGENT, "x", timeout=0.8)]
    assert time.monotonic() - began < 20


def test_keep_alives_keep_a_slow_stream(service: FaultServer, client: Client) -> None:
    service.on(INVOKE["stream"], stream(created(), *keep_alives(1), event("chunk", "late"), finished(), work=True))
    assert kinds(client.stream(AGENT, "x")) == ["task_created", "chunk", "task_finished"]
    assert not service.requests("GET *")


def test_the_end_of_a_sub_agent_is_not_the_end(service: FaultServer, client: Client) -> None:
    sub = {"id": "sub-1", "status": "completed", "result": "sub's"}
    sent = [
        created(),
        event("task_created", {"id": "sub-1", "status": "paused"}, "sub-1"),
        event("chunk", "sub's", "sub-1"),
        event("task_finished", sub, "sub-1"),
        event("task_finished", sub, None),
        event("chunk", "ours"),
        finished("ours"),
    ]
    for _ in range(2):
        service.on(INVOKE["stream"], stream(*sent, work=True))
    events = [*client.stream(AGENT, "x")]
    assert len(events) == len(sent)
    task = client.invoke(AGENT, "x", mode="stream")
    assert (task.result, task.status) == ("ours", "completed")
    assert task.id in service.service.tasks


@pytest.mark.parametrize(
    "last",
    [
        event("task_finished", None),
        event("task_finished", "text"),
        event("task_finished", {"id": "TASK"}),
        event("task_finished", {"id": "TASK", "status": "executing"}),
        event("task_finished", {"id": "TASK", "status": None}, None),
        event("task_finished", None, None),
    ],
    ids=range(6),
)
def test_a_last_event_that_does_not_say_how_it_ended(service: FaultServer, client: Client, last: bytes) -> None:
    service.on(INVOKE["stream"], stream(created(), last, work=True))
    events = [*client.stream(AGENT, "x")]
    assert [e.type for e in events].count("task_finished") == 1
    assert (events[-1].data["status"], events[-1].data["result"]) == ("completed", "hi")


def test_an_end_that_is_new_to_us(service: FaultServer, client: Client) -> None:
    service.on(INVOKE["stream"], stream(created(), finished(status="cancelled"), work=True))
    assert client.invoke(AGENT, "x", mode="stream").status == "cancelled"


@pytest.mark.parametrize("states", [[], [{"status": "executing"}]])
def test_a_stream_answered_with_json(service: FaultServer, client: Client, states: list[Any]) -> None:
    service.service.states = states

    def answer(server: FaultServer, connection: Any, request: Any) -> bool:
        task = server.service.shown(server.service.start(request))
        return reply(200, task, content_type="application/json; charset=utf-8")(server, connection, request)

    service.on(INVOKE["stream"], answer)
    assert kinds(client.stream(AGENT, "x"))[-1] == "task_finished"
    assert invokes(service) == 1


def test_a_stream_answered_with_something_else(service: FaultServer, client: Client) -> None:
    service.on(INVOKE["stream"], reply(200, "<html>hotel</html>", content_type="text/html"))
    with pytest.raises(errors.ConnectionFailed) as caught:
        [*client.stream(AGENT, "x", timeout=1.2)]
    assert caught.value.maybe_sent


def test_a_stream_that_is_left_early_is_closed(service: FaultServer, client: Client) -> None:
    service.on(INVOKE["stream"], stream(*WHOLE, work=True, end="hang"))
    events = client.stream(AGENT, "x")
    assert next(events).type == "task_created"
    events.close()
    assert client.invoke(AGENT, "x").status == "completed"


# ---- polling


def test_polling_shows_each_status_once(service: FaultServer, client: Client) -> None:
    service.service.states = [{"status": "executing"}] * 2 + [{"status": "dreaming"}]
    events = [*client.events(client.prepare(AGENT, "x"), client.deadline(), "async")]
    assert [e.type for e in events] == ["task_created", *["task_updated"] * 3, "task_finished"]
    assert [e.data["status"] for e in events] == ["pending", "pending", "executing", "dreaming", "completed"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "why", [{"hitl_request": {"title": "ok?"}}, {"pending_eca_request": {"auth_url": "https://a"}}]
)
def test_a_paused_task_is_returned_as_it_is(
    service: FaultServer, client: Client, mode: str, why: dict[str, Any]
) -> None:
    paused = {"status": "paused", "paused_at": "2026-01-01T00:00:00Z", **why}
    service.service.states = [paused] * 100
    service.on(INVOKE["stream"], stream(created(), event("task_updated", {"id": "TASK", **paused}), 30, work=True))
    task = client.invoke(AGENT, "x", mode=mode)
    assert task.status == "paused"
    assert {name: getattr(task, name) for name in why} == why


@pytest.mark.parametrize("mode", MODES)
def test_the_total_is_kept(service: FaultServer, client: Client, mode: str) -> None:
    service.service.states = [{"status": "executing"}] * 100
    service.on(INVOKE["stream"], stream(created(), 30, work=True))
    began = time.monotonic()
    with pytest.raises(errors.Timeout):
        client.invoke(AGENT, "x", mode=mode, timeout=0.7)
    assert time.monotonic() - began < 20


# ---- following a task through trouble


TROUBLE = [drop(), reply(429, b""), reply(502, b"<html></html>"), drop(by="reset")]


@pytest.mark.parametrize("mode", ["async", "stream"])
def test_trouble_on_the_way_does_not_end_the_following(service: FaultServer, mode: str) -> None:
    """Whatever the number of retries: the task runs, and costs."""
    service.on(INVOKE["stream"], stream(*WHOLE, work=True, end="reset"))
    service.on("GET /v1/tasks/*", *(TROUBLE[:3] if mode == "async" else TROUBLE[3:] + TROUBLE[:2]))
    with Client(service.key, service.url, retries=0, timeout=60) as client:
        task = client.invoke(AGENT, "x", mode=mode)
    assert (task.status, task.result) == ("completed", "hi")
    assert len(service.requests("GET /v1/tasks/*")) == 4
    assert invokes(service) == 1


def test_the_following_ends_at_the_deadline(service: FaultServer, client: Client) -> None:
    service.on("GET /v1/tasks/*", drop(), times=1000)
    with pytest.raises(errors.Timeout, match="2 s"):
        client.invoke(AGENT, "x", mode="async", timeout=2)
    assert 1 < len(service.requests("GET /v1/tasks/*")) < 20


def test_a_poll_that_is_put_off_waits_as_long_as_it_is_told(service: FaultServer, client: Client) -> None:
    service.on("GET /v1/tasks/*", reply(429, b"", {"Retry-After": "2"}))
    assert client.invoke(AGENT, "x", mode="async").status == "completed"
    first, second = service.requests("GET /v1/tasks/*")
    assert second.at - first.at >= 1.9


@pytest.mark.parametrize("mode", ["async", "stream"])
@pytest.mark.parametrize(
    ("status", "kind"), [(401, errors.AuthError), (404, errors.NotFoundError), (422, errors.InvalidRequestError)]
)
def test_other_refusals_end_the_following(
    service: FaultServer, client: Client, mode: str, status: int, kind: type[errors.ServiceError]
) -> None:
    service.on(INVOKE["stream"], stream(*WHOLE, work=True, end="reset"))
    service.on("GET /v1/tasks/*", reply(status, {"detail": "no"}))
    with pytest.raises(kind):
        client.invoke(AGENT, "x", mode=mode)
    assert len(service.requests("GET /v1/tasks/*")) == 1


# ---- the rate


def test_stopping_and_looking_for_a_lost_task_do_not_wait_for_their_turn(service: FaultServer, client: Client) -> None:
    client.pace(0.1)
    service.on(INVOKE["sync"], drop(work=True))
    task = client.invoke(AGENT, "x")  # its POST has the turn; the next is in ten minutes
    assert task.result == "hi"
    assert client.stop(task.id, deadline=Deadline(1.5)).status == "completed"
    call = client.prepare(AGENT, "y", id="thread-1")
    assert client.find(call, Deadline(1.5), once=True) is None
    assert service.log[-1].path == "/v1/tasks/thread-1"


@pytest.mark.parametrize("mode", MODES)
def test_a_call_whose_turn_was_waited_for_is_sent_at_once(client: Client, mode: str) -> None:
    client.pace(0.1)
    call, deadline = client.prepare(AGENT, "x"), client.deadline()
    client.wait_turn(call, deadline)
    began = time.monotonic()
    assert next(client.events(call, deadline, mode)).type == "task_created"
    assert time.monotonic() - began < 60
    assert call.attempts == 1


def test_waiting_for_a_calls_turn_puts_off_its_deadline(service: FaultServer, client: Client) -> None:
    client.pace(30)
    client.providers()
    call, deadline = client.prepare(AGENT, "x"), client.deadline(1.8)
    client.wait_turn(call, deadline)
    assert kinds(client.events(call, deadline, "sync"))[-1] == "task_finished"
    first, second = service.log
    assert second.at - first.at >= 1.9


def test_a_call_that_is_sent_again_waits_for_another_turn(service: FaultServer, client: Client) -> None:
    client.pace(30)
    service.on(INVOKE["sync"], reply(503, b"", {"Retry-After": "0"}))
    call, deadline = client.prepare(AGENT, "x"), client.deadline(1.8)
    client.wait_turn(call, deadline)
    assert kinds(client.events(call, deadline, "sync"))[-1] == "task_finished"
    first, second = service.log
    assert second.at - first.at >= 1.9
    assert call.attempts == 2


def test_usage_can_be_had_at_a_slow_rate(service: FaultServer, client: Client) -> None:
    client.pace(30)
    task = client.invoke(AGENT, "x")
    assert client.usage(task.id, deadline=Deadline(1.8)).cost == 0.01
    assert service.log[1].at - service.log[0].at >= 1.9


def test_polling_at_a_slow_rate_ends_at_the_deadline(service: FaultServer, client: Client) -> None:
    """The task runs while a poll waits for its turn, so that does count."""
    client.pace(0.1)
    began = time.monotonic()
    with pytest.raises(errors.Timeout):
        client.invoke(AGENT, "x", mode="async", timeout=1)
    assert time.monotonic() - began < 30
    assert len(service.log) == 1


# ---- the rest of the contract


def test_lists_beyond_a_page(service: FaultServer, client: Client) -> None:
    for _ in range(120):
        client.invoke(AGENT, "x", mode="async", wait=False)
    newest = [*service.service.tasks][::-1]
    assert [task.id for task in client.tasks()] == newest
    pages = service.requests("GET /v1/tasks")
    assert [(r.query["page"], r.query["per_page"]) for r in pages] == [("1", "50"), ("2", "50"), ("3", "50")]
    assert [task.id for task in client.tasks(limit=51)] == newest[:51]
    assert client.tasks(status="completed") == []
    assert client.tasks(agent_id=WORKFLOW.id) == []


@pytest.mark.parametrize("count", [{}, {"total_pages": None}, {"total": None, "page": None}])
def test_a_list_without_a_count(service: FaultServer, client: Client, count: dict[str, Any]) -> None:
    full = [agent(f"a{n}", n) for n in range(50)]
    service.on("GET /v1/agents", reply(200, {"items": full, **count}), reply(200, {"items": full[:3], **count}))
    assert len(client.agents()) == 53
    service.on("GET /v1/workflows", reply(200, {"items": None, **count}))
    assert client.workflows() == []


def test_filters_are_sent(service: FaultServer, client: Client) -> None:
    day = datetime(2026, 1, 2, tzinfo=timezone.utc)
    client.tasks(parent_task_id="p", triggering_agent_id="t", user_id="u", from_date=day, to_date="2027-01-01")
    query = service.log[0].query
    assert query == {
        **{"parent_task_id": "p", "triggering_agent_id": "t", "user_id": "u", "page": "1", "per_page": "50"},
        **{"from_date": "2026-01-02T00:00:00+00:00", "to_date": "2027-01-01"},
    }


def test_usage_threads_and_details(client: Client) -> None:
    task = client.invoke(AGENT, "hello")
    assert client.usage(task.id).cost == 0.01
    assert [m.role for m in client.thread(task.id)] == ["user", "assistant"]
    assert set(client.full_thread(task.id)) == {"root", "sub"}
    assert client.agent(AGENT.id).name == "writer"
    assert client.workflow(WORKFLOW.id).kind == "workflow"
    assert [p.internal_identifier for p in client.providers()] == ["openai", "anthropic"]
    assert [m.model_id for m in client.models("openai")] == ["gpt-5", "gpt-5-mini"]
    assert client.stop(task.id).status == "completed"


@pytest.mark.parametrize("id_", ["a/b", "a?b=c", "a#b", "%2e", "é", "x\r\ny", " a"])
def test_ids_are_quoted(service: FaultServer, client: Client, id_: str) -> None:
    with pytest.raises(errors.NotFoundError):
        client.task(id_)
    assert service.log[0].path.startswith("/v1/tasks/")
    assert service.log[0].path.count("/") == 3
    assert service.log[0].query == {}


@pytest.mark.parametrize("id_", ["", ".", "..", " ", "x" * 256])
def test_what_is_no_id_means_no_other_endpoint(service: FaultServer, client: Client, id_: str) -> None:
    for ask in (client.task, client.stop, client.usage, client.agent, client.models, client.thread):
        with pytest.raises(errors.ConfigError, match="is no id"):
            ask(id_)
    assert not service.log


@pytest.mark.parametrize("answer", [[], {}, None, 5, "x", {"items": {}}, {"items": [5]}])
def test_answers_that_are_not_the_contracts(service: FaultServer, client: Client, answer: Any) -> None:
    service.on("GET *", reply(200, json.dumps(answer)), times=12)
    asks: list[Callable[[], Any]] = [
        client.tasks,
        *(partial(f, "t") for f in (client.task, client.usage, client.thread)),
    ]
    for ask in asks:
        with contextlib.suppress(errors.ServerError):  # any other error would be a traceback in a cell
            ask()


# ---- connections


@pytest.mark.parametrize(
    ("mode", "framing"), [("sync", "length"), ("sync", "chunked"), ("async", "length"), ("stream", "chunked")]
)
def test_connections_are_reused(service: FaultServer, client: Client, mode: str, framing: str) -> None:
    kind = "text/event-stream" if mode == "stream" else "application/json"
    service.on(INVOKE[mode], reply(content_type=kind, framing=framing), times=20)
    for _ in range(20):
        assert client.invoke(AGENT, "x", mode=mode).status == "completed"
    assert invokes(service) == 20
    assert service.accepted == 1


def test_a_connection_that_the_service_has_closed_meanwhile(service: FaultServer, client: Client) -> None:
    for _ in range(3):
        service.on(INVOKE["sync"], reply(headers={"Connection": "keep-alive"}, cut=10_000))
        assert client.invoke(AGENT, "x").status == "completed"
        time.sleep(0.05)
    assert invokes(service) == 3


def test_many_threads_at_once(service: FaultServer, client: Client) -> None:
    found: list[str] = []

    def work() -> None:
        for mode in (*MODES, *MODES):
            found.append(client.invoke(AGENT, "x", mode=mode).id)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 48
    assert service.accepted <= 8
