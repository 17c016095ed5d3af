"""Sweeps whose runs are attended by other processes: real executors, a real service and real stores."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from distributed import Client as DaskClient
from distributed import LocalCluster
from fault_server import KEY, FaultServer, Request, drop, reply
from postgres_server import PostgresServer

from xpander_magics import errors
from xpander_magics.cell import Options
from xpander_magics.config import Settings
from xpander_magics.limits import Deadline
from xpander_magics.outcomes import Runs
from xpander_magics.plans.grid import Grid
from xpander_magics.sending.elsewhere import Elsewhere
from xpander_magics.sending.workers import Order, Outcome, SharedPace, attend
from xpander_magics.service.calls import MARK
from xpander_magics.service.client import Client
from xpander_magics.session import Session
from xpander_magics.store import Store
from xpander_magics.tally import Tally

SETTLE = 3.0
SPAWN = multiprocessing.get_context("spawn")

# ---- what the tests share


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Three worker processes of dask's."""
    settings: dict[str, Any] = {
        "dashboard_address": "127.0.0.1:0",
        "host": "127.0.0.1",
        "silence_logs": logging.WARNING,
    }
    with LocalCluster(n_workers=3, threads_per_worker=2, processes=True, **settings) as started:
        yield started


@pytest.fixture
def dask(cluster: LocalCluster) -> Iterator[DaskClient]:
    with DaskClient(cluster) as client:
        client.wait_for_workers(3)  # one may have been killed by the test before
        yield client


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Three processes that share nothing with this one."""
    with ProcessPoolExecutor(3, mp_context=SPAWN) as started:
        yield started


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The address of a new store."""
    return f"sqlite:///{tmp_path / 'runs.db'}"


@pytest.fixture
def session(environment: pytest.MonkeyPatch, service: FaultServer, url: str) -> Iterator[Session]:
    environment.setenv("XPANDER_API_KEY", KEY)
    made = Session(Settings(base_url=service.url, store=url, settle=SETTLE))
    yield made
    made.close()


def grid_of(session: Session, count: int, **options: Any) -> Grid:
    """A sweep of so many runs; each is one POST, unless a mode is given."""
    over = [{"t": number} for number in range(count)]
    return session.grid(Options(target="writer", over=over, **options), "say {{ t }}", {})


def unwatched(tally: Tally) -> None:
    """For a sweep that nobody watches."""


def once(when: Callable[[Tally], bool], act: Callable[[], object]) -> Callable[[Tally], None]:
    """Watches a sweep, and acts when something first is so."""
    done = threading.Event()

    def watch(tally: Tally) -> None:
        if not done.is_set() and when(tally):
            done.set()
            act()

    return watch


def interrupt() -> None:
    raise KeyboardInterrupt


def starts(service: FaultServer) -> Counter[str]:
    """How many tasks each mark has started."""
    with service.service.lock:
        return Counter(task["payload_extension"][MARK] for task in service.service.tasks.values())


def check_all_ended(service: FaultServer, runs: Runs, count: int) -> None:
    """All completed, each started once and kept as it is shown, in the order of the inputs."""
    frame, kept = runs.df, runs.session.store.frame(sweep_id=runs.sweep_id)
    assert list(frame["prompt"]) == [f"say {number}" for number in range(count)]
    assert set(frame["status"]) == {"completed"}
    assert set(frame["result"]) == {"hi"}
    assert frame["error"].isna().all()
    assert starts(service) == Counter(list(frame["run_id"]))
    assert set(zip(kept["run_id"], kept["task_id"], kept["status"], strict=True)) == set(
        zip(frame["run_id"], frame["task_id"], frame["status"], strict=True)
    )


def finish_tasks(service: FaultServer) -> None:
    """No task takes any longer."""
    with service.service.lock:
        service.service.states = []
        for task in service.service.tasks.values():
            task["left"] = []


def endless(service: FaultServer) -> None:
    """Tasks go on until they are stopped."""
    service.service.states = [{"status": "executing"}] * 10_000


# ---- all is sent, once


@contextlib.contextmanager
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


@contextlib.contextmanager
def forked() -> Iterator[Executor]:
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork")) as executor:
        yield executor


@pytest.mark.parametrize(
    "executor",
    [
        threads,
        pytest.param(
            forked,
            marks=[
                pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
                pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
            ],
        ),
    ],
)
def test_every_run_is_sent_once_by_any_executor(executor: Any, session: Session, service: FaultServer) -> None:
    with executor() as opened:
        for mode in ("stream", "async"):
            service.service.tasks.clear()
            check_all_ended(service, session.sweep(grid_of(session, 20, mode=mode), unwatched, opened), 20)


def faults(service: FaultServer) -> None:
    """What happens to services, at some of the requests."""
    slow_down = reply(503, {"detail": "later"}, {"Retry-After": "0.1"})
    lost, refused, fine = drop(work=True), reply(429, {"detail": "slower"}, {"Retry-After": "0.1"}), reply()
    service.on("POST */invoke*", fine, lost, fine, fine, slow_down, drop(work=True, by="reset"), refused, times=3)
    service.on("GET /v1/tasks/*", fine, reply(502, "<html>"), drop(), fine, fine, times=5)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_every_run_is_sent_once_by_dask_whatever_the_service_does(
    mode: str, session: Session, service: FaultServer, dask: DaskClient
) -> None:
    faults(service)
    runs = session.sweep(grid_of(session, 60, mode=mode), unwatched, dask.get_executor())
    check_all_ended(service, runs, 60)


@pytest.mark.postgres
def test_every_run_is_sent_once_with_a_store_in_postgresql(
    environment: pytest.MonkeyPatch, service: FaultServer, dask: DaskClient, postgres: PostgresServer
) -> None:
    environment.setenv("XPANDER_API_KEY", KEY)
    name = postgres.new_database()
    session = Session(Settings(base_url=service.url, store=postgres.url(name), settle=SETTLE))
    faults(service)
    runs = session.sweep(grid_of(session, 60, mode="async", rpm=6000.0), unwatched, dask.get_executor())
    check_all_ended(service, runs, 60)
    assert postgres.password not in repr(runs[0])
    session.close()
    postgres.drop_database(name)


def test_a_store_given_by_a_relative_path_is_the_same_for_all(
    environment: pytest.MonkeyPatch, service: FaultServer, dask: DaskClient, tmp_path: Path
) -> None:
    environment.setenv("XPANDER_API_KEY", KEY)
    environment.chdir(tmp_path)
    session = Session(Settings(base_url=service.url, store="sqlite:///mine.db"))
    check_all_ended(service, session.sweep(grid_of(session, 6), unwatched, dask.get_executor()), 6)
    session.close()
    assert (tmp_path / "mine.db").exists()


def order_for(session: Session, number: int = 0) -> Order:
    """What a worker is told to do, with the run kept as a sweep keeps it."""
    grid = grid_of(session, number + 1)
    plan = grid.plan(number, session.client)
    session.store.sweeps.plan([plan.run])
    with ThreadPoolExecutor() as executor:
        elsewhere = Elsewhere(executor, session.client, session.store, grid, 1.0, SETTLE)
        return elsewhere.attended(plan, lambda: False)._order


def test_a_call_that_is_run_again_finds_what_came_of_it(session: Session, service: FaultServer) -> None:
    order = order_for(session)
    with ThreadPoolExecutor(8) as executor:  # all at once, as where a worker only seemed to have died
        outcomes = list(executor.map(attend, [order] * 8))
        outcomes += list(executor.map(attend, [order] * 8))
    assert len(service.requests("POST */invoke*")) == 1
    assert {outcome.run.status for outcome in outcomes[8:] if outcome.run} == {"completed"}


# ---- workers that die


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_dask_worker_that_is_killed_costs_nothing(session: Session, service: FaultServer, dask: DaskClient) -> None:
    service.service.states = [{"status": "executing"}] * 2
    pid = next(iter(dask.run(os.getpid).values()))
    watch = once(lambda tally: tally.done >= 6, lambda: os.kill(pid, signal.SIGKILL))
    runs = session.sweep(grid_of(session, 40, mode="async"), watch, dask.get_executor())
    check_all_ended(service, runs, 40)
    assert pid not in dask.run(os.getpid).values()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_pool_that_a_killed_worker_broke_is_an_error_that_says_how_to_go_on(
    session: Session, service: FaultServer
) -> None:
    service.service.states = [{"status": "executing"}] * 2
    before = set(multiprocessing.active_children())

    def kill() -> None:
        child = next(child for child in multiprocessing.active_children() if child not in before)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)

    with ProcessPoolExecutor(2, mp_context=SPAWN) as executor:
        grid = grid_of(session, 40, mode="async", jobs=8)
        with pytest.raises(errors.XpanderError, match=r"(?s)BrokenProcessPool.*%xpander resume \w{8} ") as caught:
            session.sweep(grid, once(lambda tally: tally.done >= 6, kill), executor)
    left = caught.value.runs
    assert left is not None
    assert len(left) == 40
    assert left.statuses()["completed"] >= 6
    assert left.statuses()["planned"] >= 1
    check_all_ended(service, left.resume(), 40)
    check_all_ended(service, session.resume(grid.sweep_id, unwatched), 40)


def test_an_executor_that_was_shut_down_is_an_error_and_nothing_is_sent(session: Session, service: FaultServer) -> None:
    executor = ThreadPoolExecutor()
    executor.shutdown()
    with pytest.raises(errors.XpanderError, match="can't go on: RuntimeError: cannot schedule") as caught:
        session.sweep(grid_of(session, 5), unwatched, executor)
    assert caught.value.runs is not None
    assert caught.value.runs.statuses() == {"planned": 5}
    assert not starts(service)


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_an_interrupt_that_reaches_the_workers_breaks_nothing(session: Session, service: FaultServer) -> None:
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        pid = pool.submit(os.getpid).result()
        for mode in ("stream", "sync"):
            service.service.tasks.clear()
            watch = once(lambda tally: tally.done >= 3, lambda: os.kill(pid, signal.SIGINT))
            check_all_ended(service, session.sweep(grid_of(session, 20, mode=mode), watch, pool), 20)
        assert pool.submit(os.getpid).result() == pid


# ---- an interrupt in the kernel


@pytest.mark.parametrize("on_interrupt", ["stop", "detach"])
def test_an_interrupt_stops_or_leaves_what_the_workers_have_sent(
    on_interrupt: str, session: Session, service: FaultServer, dask: DaskClient
) -> None:
    endless(service)
    watch = once(lambda _: len(service.service.tasks) >= 5, interrupt)
    grid = grid_of(session, 30, mode="async", jobs=10, on_interrupt=on_interrupt)
    runs = session.sweep(grid, watch, dask.get_executor())
    until = time.monotonic() + 30
    while any(dask.processing().values()) and time.monotonic() < until:
        time.sleep(0.05)  # a call under way may still take its claim back
    sent = starts(service)
    kept = session.store.frame(sweep_id=grid.sweep_id)
    assert list(kept["status"]).count("planned") == 30 - len(sent)
    assert set(runs.df[runs.df["status"] == "planned"]["run_id"]).isdisjoint(sent)
    with service.service.lock:
        ends = {task["status"] for task in service.service.tasks.values()}
    assert ends <= ({"stopped"} if on_interrupt == "stop" else {"pending", "executing"})
    time.sleep(1.5)
    assert starts(service) == sent
    finish_tasks(service)
    again = session.resume(grid.sweep_id, unwatched, dask.get_executor())
    assert again.statuses()["completed"] >= 30 - len(sent)
    assert starts(service) == Counter(list(again.df["run_id"]))
    assert set(again.statuses()) <= ({"completed", "stopped"} if on_interrupt == "stop" else {"completed"})


def test_what_still_waits_for_its_turn_is_not_sent_after_an_interrupt(
    session: Session, service: FaultServer, pool: ProcessPoolExecutor
) -> None:
    watch = once(lambda _: len(service.service.tasks) >= 2, interrupt)
    runs = session.sweep(grid_of(session, 20, rpm=60.0, jobs=6), watch, pool)
    sent = starts(service)
    pool.submit(os.getpid).result()  # all that were called have ended
    time.sleep(2.5)
    assert starts(service) == sent
    assert runs.statuses()["planned"] == 20 - len(sent)


# ---- the rate


def times(service: FaultServer) -> list[float]:
    return sorted(request.at for request in service.requests("* *"))


def test_the_rate_holds_over_all_processes(session: Session, service: FaultServer, pool: ProcessPoolExecutor) -> None:
    grid = grid_of(session, 30, rpm=600.0)
    service.log.clear()
    check_all_ended(service, session.sweep(grid, unwatched, pool), 30)
    sent = times(service)
    assert len(sent) >= 30  # one that took too long to leave is sent anew
    assert sent[-1] - sent[0] > 0.75 * 29 * 0.1  # a busy machine may delay the first
    assert all(later - sooner > 0.3 for sooner, later in zip(sent, sent[15:], strict=False))


@pytest.mark.parametrize("rpm", [None, 1200.0])
def test_a_refusal_that_one_worker_hears_holds_all_of_them_back(
    rpm: float | None, session: Session, service: FaultServer, pool: ProcessPoolExecutor
) -> None:
    refused: list[float] = []

    def refuse(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        refused.append(time.monotonic())
        return reply(429, {"detail": "slower"}, {"Retry-After": "2.5"})(server, connection, request)

    def next_one() -> None:
        service.on("POST */invoke*", refuse)

    watch = once(lambda tally: tally.done >= 10, next_one)
    grid = grid_of(session, 150 if rpm is None else 60, rpm=rpm, jobs=9)
    runs = session.sweep(grid, watch, pool)
    assert runs.statuses() == {"completed": len(grid)}
    meanwhile = [at for at in times(service) if refused[0] + 1.0 < at < refused[0] + 2.4]
    assert meanwhile == []
    assert max(times(service)) > refused[0] + 2.4


def test_a_wait_for_a_turn_ends_when_it_is_cancelled(session: Session) -> None:
    paces = [SharedPace(Client(KEY, "https://x.test").pacer, session.store, "x", 1000.0) for _ in range(2)]
    assert paces[0].wait() < 100
    deadline = Deadline(1000.0, cancellable=True)
    waiting = [threading.Thread(target=pace.wait, args=(500.0, deadline)) for pace in paces * 5]
    for thread in waiting:
        thread.start()
    deadline.cancel()
    for thread in waiting:
        thread.join(timeout=100)
        assert not thread.is_alive()
    assert paces[1].wait(longest=0.01) < 100


# ---- what ends all of it, and what is refused


def test_a_key_that_a_worker_finds_refused_ends_the_sweep(
    session: Session, service: FaultServer, dask: DaskClient
) -> None:
    service.on("POST */invoke*", reply(401, {"detail": "Invalid API key"}), times=100)
    with pytest.raises(errors.AuthError) as caught:
        session.sweep(grid_of(session, 60, jobs=6), unwatched, dask.get_executor())
    assert caught.value.status_code == 401
    assert caught.value.runs is not None
    assert caught.value.runs.statuses()["planned"] >= 40
    assert not starts(service)


def test_a_worker_that_has_another_store_sends_nothing(session: Session, service: FaultServer, tmp_path: Path) -> None:
    order = order_for(session)
    elsewhere = Store(f"sqlite:///{tmp_path / 'other.db'}")
    moved = Order(
        *(type(order.way)(**{**vars(order.way), "store": elsewhere.url}), order.job, "x", 1.0, SETTLE, ())  # type: ignore[arg-type]
    )
    with ThreadPoolExecutor() as executor:
        outcome = executor.submit(attend, moved).result()
    assert isinstance(outcome.problem, errors.StoreError)
    assert "must reach the same store" in str(outcome.problem)
    assert not service.requests("POST */invoke*")
    elsewhere.close()


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (errors.AuthError("No.", status_code=401, maybe_sent=False), {"status_code": 401, "maybe_sent": False}),
        (errors.RateLimitError("Later.", status_code=429, retry_after=2.5), {"status_code": 429, "retry_after": 2.5}),
        (errors.Timeout("Slow.", maybe_sent=True), {"maybe_sent": True}),
        (errors.StoreError("Full."), {}),
    ],
)
def test_errors_keep_all_they_know_on_their_way(error: errors.XpanderError, attributes: dict[str, Any]) -> None:
    problem = pickle.loads(pickle.dumps(Outcome(None, error))).problem
    assert type(problem) is type(error)
    assert str(problem) == str(error)
    assert {name: getattr(problem, name) for name in attributes} == attributes


def test_a_dask_client_is_no_executor_and_is_told_so(session: Session, service: FaultServer, dask: DaskClient) -> None:
    with pytest.raises(errors.ConfigError, match=r"not a value of type Client\. .*\.get_executor\(\)"):
        session.sweep(grid_of(session, 3), unwatched, dask)  # type: ignore[arg-type]
    with pytest.raises(errors.ConfigError, match="not a value of type int"):
        session.sweep(grid_of(session, 3), unwatched, 3)  # type: ignore[arg-type]
    assert session.store.select() == []
    assert not starts(service)


@pytest.mark.parametrize(
    "address", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:shared?mode=memory&cache=shared&uri=true"]
)
def test_a_store_in_memory_is_refused_before_anything_is_sent(
    address: str, environment: pytest.MonkeyPatch, service: FaultServer, pool: ProcessPoolExecutor
) -> None:
    environment.setenv("XPANDER_API_KEY", KEY)
    session = Session(Settings(base_url=service.url, store=address))
    with pytest.raises(errors.ConfigError, match=r"(?s)memory.*nothing was sent.*XPANDER_STORE"):
        session.sweep(grid_of(session, 3), unwatched, pool)
    assert session.store.select() == []
    assert not starts(service)
    session.close()


# ---- secrets


def test_the_key_is_in_no_repr_no_name_and_no_log(
    session: Session, service: FaultServer, cluster: LocalCluster
) -> None:
    order = order_for(session)
    told = [repr(order), repr(order.way), repr(order.job), repr(Outcome(session.store.find(order.job.run_id), None))]
    names: set[str] = set()

    def watch(tally: Tally) -> None:
        for key, task in list(cluster.scheduler.tasks.items()):
            names.add(f"{key} {task!r} {task.group_key} {task.prefix.name}")

    with DaskClient(cluster) as client:
        session.sweep(grid_of(session, 20, rpm=1200.0), watch, client.get_executor())
        service.on("POST */invoke*", reply(401, {"detail": f"Invalid API key {KEY}"}), times=100)
        with pytest.raises(errors.AuthError) as caught:
            session.sweep(grid_of(session, 20), watch, client.get_executor())
        logs = [str(client.get_worker_logs()), str(client.get_scheduler_logs())]
    assert names
    for text in (*told, *names, *logs, str(caught.value)):
        assert KEY not in text
        assert "say " not in text


def test_what_a_model_repeats_of_the_kernels_secrets_is_masked_by_workers_too(
    session: Session, service: FaultServer, dask: DaskClient, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("SOME_TOKEN", "the-kernels-own-secret")  # which no worker has
    service.service.final = {"status": "completed", "result": "You said the-kernels-own-secret!"}
    options = Options(target="writer", over=[{"t": 1}, {"t": 2}], allow_secrets=True, mode="async")
    grid = session.grid(options, "the-kernels-own-secret {{ t }}", {})
    runs = session.sweep(grid, unwatched, dask.get_executor())
    assert [run.result for run in runs] == ["You said ***!"] * 2
    assert [run.prompt for run in session.store.select()] == ["*** 1", "*** 2"]
