"""One run from the store through the service and back: what is kept when, and what every end looks like."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_server import (
    KEY,
    FaultServer,
    Piece,
    Request,
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
from xpander_magics.contract import MODES, Event
from xpander_magics.plans.plan import Plan
from xpander_magics.results import Run, utc_now
from xpander_magics.safety import MASK, Redactor
from xpander_magics.sending.engine import Engine
from xpander_magics.service.client import Client
from xpander_magics.service.targets import Target
from xpander_magics.store import Store

AGENT = Target("agent", "00000000-0000-4000-8000-000000000001", "writer")
INVOKE = {"sync": "POST */invoke", "async": "POST */invoke/async", "stream": "POST */invoke/stream"}
SECRET = "user-token-0123456789"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


class Bench:
    """An engine with its service and its store."""

    def __init__(self, service: FaultServer, folder: Path) -> None:
        self.service = service
        self.path = folder / "runs.db"
        self.store = Store(f"sqlite:///{self.path}")
        self.client = Client(service.key, service.url, retries=1, read_timeout=0.6, timeout=20)
        self.engine = Engine(self.client, self.store, pause_wait=0.25)

    def plan(self, mode: str = "sync", text: str = "hello", **more: Any) -> Plan:
        fields = more.pop("fields", {})
        run = Run(target_kind="agent", target_id=AGENT.id, target="writer", mode=mode, prompt=text)
        call = self.client.prepare(AGENT, text, mark=run.run_id, **fields)
        run.request, run.thread_id = call.body, fields.get("id")
        asked = {"timeout": 20, "usage": False, "on_interrupt": "stop", "redact": Redactor([KEY, SECRET]), **more}
        return Plan(run=run, call=call, mode=mode, **asked)

    def run(self, *args: Any, **more: Any) -> Run:
        return self.engine.run(self.plan(*args, **more))

    def fails(self, kind: type[errors.XpanderError], *args: Any, **more: Any) -> Run:
        """Runs, expects this error, and gives its run."""
        with pytest.raises(kind) as caught:
            self.run(*args, **more)
        run = caught.value.run
        assert run is not None
        assert self.kept(run) == (run.status, run.task_id, run.result, run.error_type)
        return run

    def kept(self, run: Run) -> tuple[Any, ...]:
        """What the store has of a run, read past our own code."""
        with sqlite3.connect(self.path) as connection:
            query = "SELECT status, task_id, result, error_type FROM runs WHERE run_id = ?"
            row: tuple[Any, ...] = connection.execute(query, [run.run_id]).fetchone()
        return row

    def everything(self) -> bytes:
        """The store's bytes."""
        self.store.close()
        return b"".join(path.read_bytes() for path in self.path.parent.glob("runs.db*"))


@pytest.fixture
def bench(service: FaultServer, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(service, tmp_path)
    yield bench
    bench.client.close()
    bench.store.close()


# ---- as it should be


@pytest.mark.parametrize("mode", MODES)
def test_each_mode(bench: Bench, mode: str) -> None:
    run = bench.run(mode, usage=True)
    assert (run.status, run.result, run.error, run.error_type) == ("completed", "hi", None, None)
    assert (run.prompt_tokens, run.completion_tokens, run.total_tokens, run.cost_usd) == (4, 5, 9, 0.01)
    assert run.attempts == 1
    assert run.sent_at is not None
    assert run.latency_s is not None
    assert (run.ttft_s is not None) == (mode == "stream")
    assert bench.kept(run) == ("completed", run.task_id, "hi", None)
    assert bench.store.find(run.run_id).latency_s == run.latency_s


@pytest.mark.parametrize("mode", MODES)
def test_a_run_is_kept_before_it_is_sent_and_its_task_as_soon_as_it_is_known(bench: Bench, mode: str) -> None:
    seen: list[tuple[Any, ...]] = []

    def look(server: FaultServer, connection: Any, request: Request) -> bool:
        seen.append(bench.kept(plan.run))
        kind = "text/event-stream" if mode == "stream" else "application/json"
        return reply(content_type=kind)(server, connection, request)

    plan = bench.plan(mode, usage=True)
    bench.service.on(INVOKE[mode], look)
    bench.service.on("GET */llm_usage", look)
    bench.engine.run(plan)
    before, after = seen
    assert before == ("planned", None, None, None)
    assert after[1] == plan.run.task_id


def test_the_listener_sees_the_run_grow(bench: Bench) -> None:
    seen: list[tuple[str, str, str | None, str]] = []

    def listen(run: Run, event: Event, piece: str) -> None:
        seen.append((event.type, run.status, run.task_id, piece))

    run = bench.engine.run(bench.plan("stream"), listen)
    task = run.task_id
    assert seen == [
        ("task_created", "pending", task, ""),
        ("chunk", "pending", task, "h"),
        ("chunk", "pending", task, "i"),
        ("task_finished", "completed", task, ""),
    ]
    assert [e.type for e in run.events] == [kind for kind, *_ in seen]
    assert run.events[1].raw["type"] == "chunk"


def test_what_streamed_in_is_the_answer_where_the_task_names_none(bench: Bench) -> None:
    bench.service.on(
        INVOKE["stream"], stream(created(), event("chunk", "a"), event("chunk", "b"), finished(None), work=True)
    )
    assert bench.run("stream").result == "ab"


def test_sub_agents_do_not_mix_in(bench: Bench) -> None:
    sub = {"id": "sub", "status": "failed", "result": "no", "agent_id": "other", "llm_model_name": "sub-model"}
    sent = [
        *(created(), event("task_created", sub, "sub"), event("chunk", "sub's", "sub"), event("chunk", "ours")),
        *(event("task_finished", sub, "sub"), event("task_updated", sub, None)),
        *(event("task_compactization", {"id": "x", "status": "compacting", "result": "no"}), finished(None)),
    ]
    bench.service.on(INVOKE["stream"], stream(*sent, work=True))
    run = bench.run("stream")
    assert (run.status, run.result, run.target_id, run.model) == ("completed", "ours", AGENT.id, None)
    assert len(run.events) == len(sent)


def test_a_conversation_goes_on(bench: Bench) -> None:
    run = bench.run("stream", fields={"id": "thread-1"})
    assert (run.task_id, run.thread_id) == ("thread-1", "thread-1")


# ---- ends that are no success


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("status", ["failed", "error", "stopped"])
def test_a_task_that_ends_otherwise(bench: Bench, mode: str, status: str) -> None:
    bench.service.service.final = {"status": status, "result": "boom \x1b[31m"}
    run = bench.fails(errors.TaskFailed, mode)
    assert (run.status, run.error_type) == (status, "TaskFailed")
    # What a stopped task has said so far is its answer, and no reason.
    assert ("boom" in (run.error or "")) == (status != "stopped")
    assert "boom" in (run.result or "")


def test_an_end_that_is_new_to_us(bench: Bench) -> None:
    bench.service.service.final = {"status": "cancelled", "result": None}
    for mode in MODES:
        assert bench.fails(errors.TaskFailed, mode).status == "cancelled"


@pytest.mark.parametrize("mode", MODES)
def test_surely_no_task(bench: Bench, mode: str) -> None:
    bench.service.on(INVOKE[mode], reply(422, {"detail": "no such field"}))
    run = bench.fails(errors.InvalidRequestError, mode)
    assert (run.status, run.task_id, run.attempts) == ("failed", None, 1)
    assert "no such field" in (run.error or "")


@pytest.mark.parametrize("mode", MODES)
def test_a_task_whose_start_got_no_answer(bench: Bench, mode: str) -> None:
    bench.service.on(INVOKE[mode], drop(work=True))
    run = bench.run(mode)
    assert (run.status, run.result, run.attempts) == ("completed", "hi", 1)


@pytest.mark.parametrize("mode", MODES)
def test_a_start_without_an_answer_or_a_task(bench: Bench, mode: str) -> None:
    bench.service.on(INVOKE[mode], drop(by="reset"))
    run = bench.fails(errors.ConnectionFailed, mode, timeout=1.2)
    assert (run.status, run.task_id) == ("unknown", None)
    assert "not known" in (run.error or "")


def test_the_way_is_lost_in_the_middle(bench: Bench) -> None:
    bench.service.on(INVOKE["stream"], stream(created(), event("chunk", "half"), work=True, end="reset"))
    bench.service.on("GET /v1/tasks/*", drop(), reply(403, {"detail": "no"}))
    run = bench.fails(errors.AuthError, "stream")
    assert (run.status, run.result) == ("unknown", "half")
    bench.service._scripts.clear()
    bench.engine.refresh(run, Redactor([]))
    assert (run.status, run.result, run.error, run.error_type) == ("completed", "hi", None, None)
    assert bench.kept(run) == ("completed", run.task_id, "hi", None)


@pytest.mark.parametrize("mode", MODES)
def test_too_long(bench: Bench, mode: str) -> None:
    """The task is stopped, also where its start was never answered."""
    bench.service.service.states = [{"status": "executing"}] * 100
    if mode == "sync":
        bench.service.on(INVOKE[mode], hang(work=True))
    elif mode == "stream":
        bench.service.on(INVOKE[mode], stream(created(), *keep_alives(10), work=True))
    began = time.monotonic()
    run = bench.fails(errors.Timeout, mode, timeout=0.6)
    assert time.monotonic() - began < 20
    assert (run.status, run.error_type) == ("stopped", "Timeout")
    assert "longer than 0.6 s; its task was stopped" in (run.error or "")
    assert len(bench.service.requests("POST */stop")) == 1


def test_too_long_before_the_stream_names_its_task(bench: Bench) -> None:
    bench.service.service.states = [{"status": "executing"}] * 100
    bench.service.on(INVOKE["stream"], stream(*keep_alives(10), work=True))
    run = bench.fails(errors.Timeout, "stream", timeout=0.6)
    assert (run.status, run.error_type) == ("stopped", "Timeout")


def test_too_long_but_done_when_it_is_stopped(bench: Bench) -> None:
    bench.service.service.states = [{"status": "executing"}] * 100

    def done(server: FaultServer, connection: Any, request: Request) -> bool:
        for task in server.service.tasks.values():
            server.service.finish(task)
        return reply()(server, connection, request)

    bench.service.on("POST */stop", done)
    run = bench.run("async", timeout=0.5)
    assert (run.status, run.result, run.error) == ("completed", "hi", None)


def test_too_long_and_it_cannot_be_stopped(bench: Bench) -> None:
    bench.service.service.states = [{"status": "executing"}] * 100
    bench.service.on("POST */stop", reply(403, {"detail": "no"}))
    run = bench.fails(errors.Timeout, "async", timeout=0.5)
    assert (run.status, run.error_type) == ("unknown", "Timeout")
    assert "could not be stopped" in (run.error or "")


# ---- paused

HITL = {"hitl_request": {"title": "Approve?", "operation_id": "op"}}
AUTH = {"pending_eca_request": {"connector_name": "github", "auth_url": "https://auth.example/x"}}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("why", [HITL, AUTH], ids=["hitl", "auth"])
def test_paused_is_returned_after_a_while(bench: Bench, mode: str, why: dict[str, Any]) -> None:
    paused = {"status": "paused", **why}
    bench.service.service.states = [paused] * 100
    sent: list[Piece] = [created(), event("chunk", "so far"), event("task_updated", {"id": "TASK", **paused}), 30]
    bench.service.on(INVOKE["stream"], stream(*sent, work=True))
    began = time.monotonic()
    run = bench.run(mode)
    assert time.monotonic() - began < 20
    assert (run.status, run.error) == ("paused", None)
    assert run.metadata[next(iter(why))] == next(iter(why.values()))
    assert bench.kept(run)[0] == "paused"
    assert not bench.service.requests("POST */stop")


def test_approved_in_time_it_goes_on_as_long_as_it_may(bench: Bench) -> None:
    """The short wait for a person ends with the pause, not with the run."""
    sent: list[Piece] = [created(), event("task_updated", {"id": "TASK", "status": "paused"}), 0.1]
    sent += [event("task_updated", {"id": "TASK", "status": "executing"}), 0.5, finished()]
    bench.service.on(INVOKE["stream"], stream(*sent, work=True))
    run = bench.run("stream")
    assert (run.status, run.result) == ("completed", "hi")


# ---- secrets

PIECES = [SECRET[:1], SECRET[1:9], SECRET[9:-1], SECRET[-1:]]


def test_a_secret_that_the_service_repeats_is_masked(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """In the run, its events, the store and the listener; also cut across chunks, in any event and any task."""
    heard: list[Any] = []
    sent = [
        created(payload_extension={"echo": SECRET}, title=SECRET),
        *(event("think", piece) for piece in PIECES),
        *(event("chunk", piece) for piece in ["said: ", *PIECES, "."]),
        *(event("chunk", piece, "sub") for piece in PIECES),
        event("tool_call_request", {"tool": "x", "parameters": {SECRET: [f"a{SECRET}", KEY]}}, extra=SECRET),
        f"data: not json {SECRET}\n\n".encode(),
        finished(f"it was {SECRET} and {KEY}", used_tools=[SECRET]),
    ]
    bench.service.on(INVOKE["stream"], stream(*sent, work=True))

    def listen(run: Run, event: Event, piece: str) -> None:
        heard.extend([event, event.raw, piece])

    plan = bench.plan("stream")
    run = bench.engine.run(plan, listen)
    assert run.result == f"it was {MASK} and {MASK}"
    for kind, task in (("think", run.task_id), ("chunk", run.task_id), ("chunk", "sub")):
        text = "".join(e.data for e in run.events if (e.type, e.task_id) == (kind, task))
        assert SECRET not in text
        assert MASK in text
    everything = repr([vars(run), heard, [e.raw for e in run.events]]) + caplog.text
    stored = bench.everything()
    for secret in (SECRET, KEY):
        assert secret not in everything
        assert secret.encode() not in stored


def test_what_only_began_like_a_secret_is_not_lost(bench: Bench) -> None:
    sent = [created(), event("chunk", f"x{SECRET[:5]}"), event("think", SECRET[:4]), finished(None)]
    bench.service.on(INVOKE["stream"], stream(*sent, work=True))
    run = bench.run("stream")
    assert run.result == f"x{SECRET[:5]}"
    assert "".join(e.data for e in run.events if e.type == "think") == SECRET[:4]


@pytest.mark.parametrize("mode", MODES)
def test_a_secret_in_a_failure_is_masked(bench: Bench, mode: str) -> None:
    bench.service.service.final = {"status": "failed", "result": f"token {SECRET} is wrong"}
    run = bench.fails(errors.TaskFailed, mode)
    bench.service.on(INVOKE[mode], reply(400, {"detail": f"token {SECRET}, key {KEY}"}))
    other = bench.fails(errors.InvalidRequestError, mode)
    assert SECRET not in repr([vars(run), vars(other)])
    assert KEY not in repr(vars(other))
    assert MASK in (other.error or "")
    assert SECRET.encode() not in bench.everything()


def test_a_secret_in_the_escapes_of_json(bench: Bench) -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in SECRET)
    bench.service.service.final = {"status": "completed", "result": f'{{"n": "{escaped}"}}'}
    assert bench.run("sync", wants_json=True).output == {"n": MASK}


def test_the_key_is_in_no_error_of_a_run(bench: Bench) -> None:
    bench.service.on(INVOKE["sync"], reply(401, {"detail": f"bad {KEY}"}))
    run = bench.fails(errors.AuthError)
    assert KEY not in repr(vars(run))


# ---- structured answers


@pytest.mark.parametrize("mode", MODES)
def test_an_answer_that_keeps_to_its_schema(bench: Bench, mode: str) -> None:
    bench.service.service.final = {"status": "completed", "result": '{"n": 1}'}
    assert bench.run(mode, schema=SCHEMA, wants_json=True).output == {"n": 1}


@pytest.mark.parametrize("result", ['{"n": "x"}', "no json", "", None, "NaN", "[" * 50_000])
def test_an_answer_that_breaks_its_schema_is_kept(bench: Bench, result: str | None) -> None:
    bench.service.service.final = {"status": "completed", "result": result}
    run = bench.fails(errors.SchemaError, schema=SCHEMA, wants_json=True, usage=True)
    assert (run.status, run.result, run.error_type) == ("completed", result, "SchemaError")
    assert run.cost_usd == 0.01


def test_json_that_was_asked_for_and_is_none(bench: Bench) -> None:
    assert bench.fails(errors.SchemaError, wants_json=True).error_type == "SchemaError"
    bench.service.service.final = {"status": "completed", "result": "hi", "output_format": "json"}
    assert bench.run("sync").output is None  # the agent's own format, not asked for by the user


def test_a_schema_that_would_have_to_be_fetched(bench: Bench) -> None:
    bench.service.service.final = {"status": "completed", "result": "{}"}
    accepted = bench.service.accepted
    run = bench.fails(errors.SchemaError, schema={"$ref": f"{bench.service.url}/x.json"}, wants_json=True)
    assert "doesn't hold" in (run.error or "")
    assert bench.service.accepted == accepted + 1


# ---- usage


@pytest.mark.parametrize("action", [reply(500, b""), reply(404, b""), drop(), hang(), reply(200, "x"), reply(200, [])])
def test_an_unknown_price_does_not_cost_the_answer(bench: Bench, action: Any) -> None:
    bench.service.on("GET */llm_usage", action, times=4)
    run = bench.run("sync", usage=True)
    assert (run.status, run.result, run.cost_usd, run.error) == ("completed", "hi", None, None)


def test_the_cost_of_own_keys_is_missing(bench: Bench) -> None:
    bench.service.service.usage = {"tokens": 5, "is_byok": True, "cost": 0}
    run = bench.run("sync", usage=True)
    assert (run.is_byok, run.cost_usd, run.total_tokens) == (True, None, 5)


# ---- the store fails


def test_a_store_that_cannot_be_opened_sends_nothing(bench: Bench, tmp_path: Path) -> None:
    engine = Engine(bench.client, Store(f"sqlite:///{tmp_path}/no/such/folder/runs.db"))
    (tmp_path / "no").write_text("a file")
    with pytest.raises(errors.StoreError):
        engine.run(bench.plan())
    assert not bench.service.log


@pytest.mark.parametrize("mode", MODES)
def test_a_store_that_fails_in_the_middle_still_gives_the_answer(bench: Bench, mode: str) -> None:
    def spoil(server: FaultServer, connection: Any, request: Request) -> bool:
        bench.store.close()
        for path in bench.path.parent.glob("runs.db*"):
            path.unlink()
        bench.path.write_bytes(b"no database" * 1000)
        kind = "text/event-stream" if mode == "stream" else "application/json"
        return reply(content_type=kind)(server, connection, request)

    bench.service.on(INVOKE[mode], spoil)
    with pytest.raises(errors.StoreError) as caught:
        bench.run(mode)
    run = caught.value.run
    assert run is not None
    assert (run.status, run.result) == ("completed", "hi")


def test_a_listener_that_breaks_loses_nothing(bench: Bench) -> None:
    def listen(run: Run, event: Event, piece: str) -> None:
        raise RuntimeError("display")

    plan = bench.plan("stream")
    with pytest.raises(RuntimeError, match="display"):
        bench.engine.run(plan, listen)
    assert bench.kept(plan.run)[1] == plan.run.task_id is not None


# ---- refresh and stop


def test_a_run_of_a_killed_kernel_is_found(bench: Bench) -> None:
    """It was kept as planned, and sent; its task's id was never heard of."""
    plan = bench.plan("async")
    plan.run.sent_at = utc_now()
    bench.store.add([plan.run])
    bench.client.events(plan.call, bench.client.deadline(), "async").send(None)
    run = bench.store.find(plan.run.run_id)
    assert (run.status, run.task_id) == ("planned", None)
    bench.engine.refresh(run, Redactor([]))
    assert (run.status, run.result, run.cost_usd) == ("completed", "hi", 0.01)
    assert bench.kept(run)[0] == "completed"


def test_a_run_that_never_left_stays_as_it_is(bench: Bench) -> None:
    run = bench.plan().run
    bench.store.add([run])
    assert bench.engine.refresh(run, Redactor([])).status == "planned"
    with pytest.raises(errors.ConfigError, match="has no task to stop"):
        bench.engine.stop(run, Redactor([]))


def test_refresh_judges_the_answer(bench: Bench) -> None:
    bench.service.service.states = [{"status": "paused"}] * 100
    run = bench.run("async", fields={"output_schema": SCHEMA, "output_format": "json"}, schema=SCHEMA, wants_json=True)
    assert run.status == "paused"
    bench.service.service.final = {"status": "completed", "result": '{"n": "x"}'}
    bench.service.service.tasks[run.task_id or ""]["left"].clear()
    bench.engine.refresh(run, Redactor([]))
    assert (run.status, run.error_type, bench.kept(run)[3]) == ("completed", "SchemaError", "SchemaError")


def test_stop(bench: Bench) -> None:
    bench.service.service.states = [{"status": "paused"}] * 100
    run = bench.run("async")
    assert bench.engine.stop(run, Redactor([])).status == "stopped"
    assert bench.kept(run)[0] == "stopped"


# ---- interrupts

CHILD = """
    import os, sys
    from pathlib import Path
    from xpander_magics import errors
    import test_engine as t

    mode, on_interrupt, url, folder = sys.argv[1:]
    class Service: key, url = t.KEY, url
    bench = t.Bench(Service, Path(folder))
    try:
        run = bench.run(mode, on_interrupt=on_interrupt)
    except errors.Interrupted as interrupted:
        print(interrupted, interrupted.run.status, interrupted.run.run_id, sep="|")
"""


def interrupted(
    service: FaultServer, folder: Path, mode: str, on_interrupt: str, when: Callable[[], bool]
) -> list[str]:
    """Runs in a process of its own and sends it SIGINT; what it prints of the error."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), mode, on_interrupt, service.url, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    killer = threading.Timer(30, child.kill)
    killer.start()
    while not when() and child.poll() is None:
        time.sleep(0.02)
    time.sleep(0.3)  # let the answer arrive, so that the child waits for the next
    child.send_signal(signal.SIGINT)
    began = time.monotonic()
    said, _ = child.communicate()
    killer.cancel()
    assert time.monotonic() - began < 20
    assert child.returncode == 0
    return said.strip().split("|")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("on_interrupt", ["stop", "detach"])
def test_interrupted(service: FaultServer, tmp_path: Path, mode: str, on_interrupt: str) -> None:
    service.service.states = [{"status": "executing"}] * 1000
    if mode == "sync":
        service.on(INVOKE[mode], hang(work=True))
    elif mode == "stream":
        service.on(INVOKE[mode], stream(created(), event("chunk", "half"), work=True, end="hang"))
    said, status, run_id = interrupted(service, tmp_path, mode, on_interrupt, lambda: bool(service.service.tasks))
    task = next(iter(service.service.tasks.values()))
    kept = Store(f"sqlite:///{tmp_path / 'runs.db'}").find(run_id)
    assert kept.status == status
    assert kept.error_type == "Interrupted"
    if on_interrupt == "stop":
        assert "Its task was stopped" in said
        assert task["status"] == status == "stopped"
    else:
        assert "left running" in said
        assert task["status"] != "stopped"
    if mode == "stream":
        assert kept.result == "half"
    if mode != "sync" or on_interrupt == "stop":
        assert kept.task_id == task["id"]


def test_interrupted_after_the_end(service: FaultServer, tmp_path: Path) -> None:
    """While its price is asked for: the answer stays, and nothing is stopped."""
    bench = Bench(service, tmp_path)

    def interrupt(server: FaultServer, connection: Any, request: Request) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return hang()(server, connection, request)

    service.on("GET */llm_usage", interrupt)
    with pytest.raises(errors.Interrupted, match="had ended as completed") as caught:
        bench.run("sync", usage=True)
    run = caught.value.run
    assert run is not None
    assert (run.status, run.result, run.error) == ("completed", "hi", None)
    assert bench.kept(run)[0] == "completed"
    assert not service.requests("POST */stop")


def test_the_request_as_kept_is_json(bench: Bench) -> None:
    run = bench.run("sync", text='quotes " and \\ and é')
    assert json.loads(json.dumps(bench.store.find(run.run_id).request)) == run.request


def test_a_rate_is_neither_latency_nor_the_runs_time(bench: Bench) -> None:
    bench.client.pace(12)  # a turn each five seconds
    bench.run("sync")
    run = bench.run("sync", timeout=4)
    assert run.status == "completed"
    assert run.latency_s is not None
    assert run.latency_s < 4
