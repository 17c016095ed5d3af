"""What went wrong with sweeps once, each by the shortest way there."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_server import Action, FaultServer, Request, created, drop, hang, reply, stream

from xpander_magics.analysis.noise import noise
from xpander_magics.cell import parse_cell
from xpander_magics.config import Settings
from xpander_magics.errors import AuthError, ConfigError, TemplateError
from xpander_magics.results import Run, utc_now
from xpander_magics.sending import scheduler
from xpander_magics.service.calls import MARK
from xpander_magics.session import Session
from xpander_magics.store import Store
from xpander_magics.tally import Tally

NOTHING = {"items": [], "total": 0, "page": 1, "per_page": 50, "total_pages": 1}
SECRET = "s3cr3t-value-of-a-token"
Make = Callable[..., Session]


@pytest.fixture
def make(service: FaultServer, environment: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Make]:
    """Sessions that share a store, as kernels do."""
    environment.setenv("XPANDER_API_KEY", service.key)
    made: list[Session] = []

    def session(url: str = service.url, settle: float = 0.4) -> Session:
        settings = Settings(base_url=url, store=f"sqlite:///{tmp_path / 'runs.db'}", settle=settle, retries=0)
        made.append(Session(settings))
        made[-1].client.search_pauses = (0.0,)
        return made[-1]

    yield session
    for one in made:
        one.close()


def grid(session: Session, line: str, prompt: str = "{{ a }}", mode: str = "sync", **variables: Any) -> Any:
    return session.grid(parse_cell(f"writer --mode {mode} {line}"), prompt, variables)


def interrupt_when(holds: Callable[[Tally], bool]) -> Callable[[Tally], None]:
    """A watch that interrupts once."""
    left = [1]

    def watch(tally: Tally) -> None:
        if left and holds(tally):
            left.clear()
            raise KeyboardInterrupt

    return watch


def unwatched(tally: Tally) -> None:
    pass


def marks(service: FaultServer) -> Counter[str]:
    return Counter(task["payload_extension"][MARK] for task in service.service.tasks.values())


def test_a_lost_task_that_was_found_is_not_sent_again_after_a_401(service: FaultServer, make: Make) -> None:
    service.service.states = [{"status": "executing"}] * 2
    service.on("POST */invoke", drop(work=True))
    service.on("GET /v1/tasks", reply(200, NOTHING))
    service.on("GET /v1/tasks/*", reply(), reply(401, {"detail": "revoked"}))
    session = make()
    with pytest.raises(AuthError) as caught:
        session.sweep(grid(session, "-n 1 --over rows", rows=[{"a": 1}]), unwatched)
    assert caught.value.runs is not None
    assert caught.value.runs[0].task_id is not None
    (run,) = session.resume(None, unwatched)
    assert run.status == "completed"
    assert list(marks(service).values()) == [1]
    assert len(service.requests("POST */invoke")) == 1


def test_what_lacks_its_secrets_is_not_sent_by_another_kernel(
    service: FaultServer, make: Make, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("SOME_TOKEN", SECRET)
    service.on("POST */invoke", hang())
    first = make()
    sent = interrupt_when(lambda tally: bool(service.requests("POST */invoke")))
    runs = first.sweep(grid(first, "-n 2 -j 1 --allow-secrets", a=f"use {SECRET}"), sent)
    assert len(runs) == 2
    with pytest.raises(ConfigError, match=r"2 runs of sweep .* hold secrets"):
        make().resume(runs.sweep_id, unwatched)
    assert len(service.requests("POST */invoke")) == 1
    assert {run.status for run in make().store.select()} == {"planned"}


def test_what_can_be_read_but_once_is_refused_for_several_rows(service: FaultServer, make: Make) -> None:
    rows = [{"a": 1}, {"a": 2}]
    for line in ("--over rows", "--over rows --context '{{ many | join }}'"):
        prompt = "{{ many | join }}" if "context" not in line else "{{ a }}"
        with pytest.raises(ConfigError, match=r"'many' is a generator, .* list\(many\)"):
            grid(make(), line, prompt, rows=rows, many=(n for n in range(3)))
    assert not service.requests("POST *")


def test_a_variable_called_self(make: Make) -> None:
    with pytest.raises(TemplateError, match=r"names \{\{ self \}\}, which is Jinja's own"):
        grid(make(), "--over rows", "{{ self }}", rows=[{"self": 1}, {"self": 2}])


def test_what_came_of_a_template_is_never_rendered_again(service: FaultServer, make: Make) -> None:
    """By resume and retry in other kernels, by replies, and by what measures the noise."""
    odd = "{{ 7 * 7 }} {{ key }} {% if %} {# no #}"
    line = "-n 2 -j 1 --over rows --context '{{ said }}' --title '{{ said }}' --tag '{{ said }}'"
    service.on("POST */invoke", reply(422, {"detail": "no"}))
    first = make()
    asked = grid(first, line, "{{ a }}", rows=[{"a": odd}, {"a": odd}], said=odd, key="k")
    runs = first.sweep(asked, interrupt_when(lambda tally: tally.done > 0))
    runs = make().resume(runs.sweep_id, unwatched).retry()
    assert runs.statuses() == {"completed": 4}
    runs[:2].reply(odd)
    runs[0].reply(odd)
    noise(runs[:1], watch=unwatched, tell=str)
    bodies = [json.loads(request.body) for request in service.requests("POST */invoke")]
    assert len(bodies) >= 8
    assert {body["input"]["text"] for body in bodies} == {odd}
    assert {body["additional_context"] for body in bodies} == {odd}
    assert {body.get("title", odd) for body in bodies} == {odd}
    assert {tag for run in runs for tag in run.tags} == {odd}


def test_a_retry_goes_to_no_other_service(service: FaultServer, make: Make) -> None:
    service.on("POST */invoke", reply(422, {"detail": "no"}))
    first = make()
    runs = first.sweep(grid(first, "-n 2", a=1), unwatched)
    with FaultServer() as other:
        elsewhere = make(other.url)
        runs.session = elsewhere
        with pytest.raises(ConfigError, match="was sent to"):
            runs.retry()
        assert not other.requests("POST *")


def test_what_a_part_has_retried_the_whole_has(service: FaultServer, make: Make) -> None:
    service.on("POST */invoke", reply(422, {"detail": "no"}), times=4)
    session = make()
    runs = session.sweep(grid(session, "-n 4 -j 1", a=1), unwatched)
    part = runs[1:3]
    part.retry()
    assert [run.status for run in part] == ["completed"] * 2
    assert [run.status for run in runs] == ["failed", "completed", "completed", "failed"]
    runs.failed.retry()
    assert {run.status for run in runs} == {"completed"}
    assert len(service.requests("POST */invoke")) == 8


def test_an_interrupt_stops_what_is_lost(service: FaultServer, make: Make, environment: pytest.MonkeyPatch) -> None:
    environment.setattr(scheduler, "_FAILS_SECONDS", 0.0)  # told of before what it makes sure of
    service.service.states = [{"status": "executing"}] * 50
    service.on("POST */invoke", drop(work=True), times=2)
    service.on("GET /v1/tasks", reply(200, NOTHING), times=2)
    session = make(settle=60.0)
    waits = interrupt_when(lambda tally: tally.slowed.startswith("making sure of 2"))
    runs = session.sweep(grid(session, "-n 2", a=1), waits)
    assert [run.status for run in runs] == ["stopped"] * 2
    assert {task["status"] for task in service.service.tasks.values()} == {"stopped"}


def until_stopped(server: FaultServer, connection: socket.socket, request: Request) -> bool:
    """Says no more until the task is stopped, then ends the connection."""
    while not server.requests("POST */stop"):
        server.rest(0.01)
    return False


@pytest.mark.parametrize(
    ("mode", "answer"),
    [("stream", stream(created(), until_stopped, work=True)), ("async", reply())],
    ids=["stream", "async"],
)
def test_a_start_is_stopped_whose_answer_comes_after_the_interrupt(
    mode: str, answer: Action, service: FaultServer, make: Make, environment: pytest.MonkeyPatch
) -> None:
    def late(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        while not server.requests("GET /v1/tasks"):  # it is interrupted, and looked for in vain
            server.rest(0.01)
        return answer(server, connection, request)

    environment.setattr(scheduler, "_STOP_SECONDS", 20.0)
    service.service.states = [{"status": "executing"}] * 1000
    service.on("GET /v1/tasks", reply(200, NOTHING), times=1000)  # only its answer tells of it
    service.on("POST */invoke*", late)
    session = make(settle=60.0)
    sent = interrupt_when(lambda tally: bool(service.requests("POST */invoke*")))
    (run, unsent) = session.sweep(grid(session, "-n 2 -j 1", mode=mode, a=1), sent)
    assert (run.status, unsent.status) == ("stopped", "planned")
    assert {task["status"] for task in service.service.tasks.values()} == {"stopped"}
    assert session.store.find(run.run_id).status == "stopped"


def test_a_start_is_stopped_that_shows_up_after_the_interrupt(
    service: FaultServer, make: Make, environment: pytest.MonkeyPatch
) -> None:
    def work(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        server.service.answer(request)
        return until_stopped(server, connection, request)

    environment.setattr(scheduler, "_STOP_SECONDS", 20.0)
    service.service.states = [{"status": "executing"}] * 1000
    service.on("GET /v1/tasks", reply(200, NOTHING), times=3)
    service.on("POST */invoke", work)
    session = make(settle=60.0)
    sent = interrupt_when(lambda tally: bool(service.service.tasks))
    (run, _) = session.sweep(grid(session, "-n 2 -j 1", a=1), sent)
    assert run.status == "stopped"
    assert {task["status"] for task in service.service.tasks.values()} == {"stopped"}


def test_what_cannot_be_stopped_is_told_and_collected(service: FaultServer, make: Make) -> None:
    def listed(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        return (reply() if up.is_set() else reply(503, {"detail": "no"}))(server, connection, request)

    up = threading.Event()
    service.on("GET /v1/tasks", listed, times=1000)
    service.on("POST */invoke", hang(work=True))
    session, told = make(settle=60.0), Tally(total=0)

    def sent(tally: Tally) -> bool:
        nonlocal told
        told = tally
        return bool(service.service.tasks)

    runs = session.sweep(grid(session, "-n 2 -j 1", a=1), interrupt_when(sent))
    assert runs.statuses() == {"unknown": 1, "planned": 1}
    assert (told.unknown + told.under_way, told.not_sent) == (1, 1)
    up.set()
    assert make(settle=60.0).resume(runs.sweep_id, unwatched).statuses() == {"completed": 2}
    assert set(marks(service).values()) == {1}


def test_a_claim_under_way_is_not_sent_after_an_interrupt(service: FaultServer, make: Make, tmp_path: Path) -> None:
    held = sqlite3.connect(tmp_path / "runs.db", isolation_level=None, check_same_thread=False, timeout=30)

    def hold(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        held.execute("BEGIN IMMEDIATE")  # the next run's claim waits for it
        return reply()(server, connection, request)

    def waits(tally: Tally) -> bool:
        if (tally.done, tally.under_way) != (1, 1):
            return False
        threading.Timer(0.3, held.rollback).start()  # once it is interrupted
        return True

    service.on("POST */invoke", hold)
    session = make(settle=60.0)
    runs = session.sweep(grid(session, "-n 2 -j 1", a=1), interrupt_when(waits))
    held.close()
    assert len(service.requests("POST */invoke")) == 1
    assert runs.statuses() == {"completed": 1, "planned": 1}
    assert [run.sent_at for run in runs if run.status == "planned"] == [None]
    assert session.resume(None, unwatched).statuses() == {"completed": 2}
    assert set(marks(service).values()) == {1}


def test_a_key_that_is_new_is_masked_in_a_resumed_sweep(
    service: FaultServer, make: Make, environment: pytest.MonkeyPatch
) -> None:
    service.service.final["result"] = f"the key is {SECRET}"
    service.on("POST */invoke", reply(401, {"detail": "expired"}))
    session = make()
    with pytest.raises(AuthError):
        session.sweep(grid(session, "-n 2 -j 1", a=1), unwatched)
    environment.setenv("NEW_TOKEN", SECRET)
    runs = session.resume(None, unwatched)
    assert [run.result for run in runs] == ["the key is ***"] * 2


def test_the_runs_of_a_sweep_that_a_401_has_ended_are_those_that_go_on(service: FaultServer, make: Make) -> None:
    service.on("POST */invoke", reply(401, {"detail": "expired"}))
    session = make()
    with pytest.raises(AuthError) as caught:
        session.sweep(grid(session, "-n 2 -j 1", a=1), unwatched)
    first = caught.value.runs
    assert first is not None
    assert first.statuses() == {"planned": 2}
    assert session.resume(None, unwatched) is first
    assert first.statuses() == {"completed": 2}


def test_who_knows_no_task_does_not_write_over_one_that_is_known(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'runs.db'}")
    run = Run(sweep_id="s", number=0)
    store.add([run])
    assert store.sweeps.claim(run, utc_now())
    run = store.find(run.run_id)
    run.task_id, run.status = "task-1", "executing"
    store.sweeps.update([run])
    run.task_id, run.status = None, "unknown"
    store.sweeps.update([run])
    kept = store.find(run.run_id)
    assert (kept.task_id, kept.status) == ("task-1", "executing")
