"""Claims, updates and turns in a store that many threads and processes share."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from postgres_server import PostgresServer

from xpander_magics.contract import ENDED
from xpander_magics.errors import ConfigError, NotFoundError, StoreError
from xpander_magics.results import Run, utc_now
from xpander_magics.store import Store
from xpander_magics.store.scores import Score
from xpander_magics.store.writer import Writer

SPAWN = multiprocessing.get_context("spawn")
SERVICE = "https://api.example"
Value = TypeVar("Value")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty store."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'runs.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        name = server.new_database()
        yield server.url(name)
        server.drop_database(name)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


@pytest.fixture
def writer(store: Store) -> Iterator[Writer]:
    writer = Writer(store)
    yield writer
    with contextlib.suppress(StoreError):
        writer.close()


def planned(store: Store, many: int = 1, sweep_id: str = "s") -> list[Run]:
    runs = [Run(sweep_id=sweep_id, number=number, prompt=f"hi {number}") for number in range(many)]
    store.sweeps.plan(runs)
    return runs


def kept(store: Store, run: Run) -> Run:
    """A run as another process finds it."""
    return store.find(run.run_id)


def at_once(work: Callable[[int], Value], many: int) -> list[Value]:
    """What ``work`` gives in each of so many threads that begin together."""
    gate = threading.Barrier(many)

    def begin(number: int) -> Value:
        gate.wait()
        return work(number)

    with ThreadPoolExecutor(many) as pool:
        return list(pool.map(begin, range(many)))


# ---- claims


def test_of_many_threads_one_wins_each_run(store: Store, writer: Writer) -> None:
    runs = planned(store, 20)
    copies = [[kept(store, run) for run in runs] for _ in range(16)]
    won = at_once(lambda thread: [writer.claim(copy) for copy in copies[thread]], 16)
    assert [sum(column) for column in zip(*won, strict=True)] == [1] * 20
    for mine, wins in zip(copies, won, strict=True):
        for run, win in zip(mine, wins, strict=True):
            assert (run.sent_at is not None) == win
            assert not win or kept(store, run).sent_at == run.sent_at


def test_of_many_writers_one_wins_each_run(store: Store, url: str) -> None:
    runs = planned(store, 20)
    stores = [Store(url) for _ in range(6)]
    writers = [Writer(one) for one in stores]
    copies = [[kept(one, run) for run in runs] for one in stores]
    won = at_once(lambda number: [writers[number].claim(copy) for copy in copies[number]], 6)
    assert [sum(column) for column in zip(*won, strict=True)] == [1] * 20
    for writer, one in zip(writers, stores, strict=True):
        writer.close()
        one.close()


def claim_all(url: str, run_ids: list[str], gate: Any, answers: Any) -> None:
    store = Store(url)
    runs = [store.find(run_id) for run_id in run_ids]
    gate.wait()
    answers.put([store.sweeps.claim(run, utc_now()) for run in runs])


def in_processes(work: Callable[..., None], many: int, *given: Any) -> list[Any]:
    """What ``work`` puts into a queue in each of so many processes that begin together."""
    gate, answers = SPAWN.Barrier(many), SPAWN.Queue()
    processes = [SPAWN.Process(target=work, args=(*given, gate, answers)) for _ in range(many)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    return found


def test_of_many_processes_one_wins_each_run(store: Store, url: str) -> None:
    run_ids = [run.run_id for run in planned(store, 40)]
    won = in_processes(claim_all, 4, url, run_ids)
    assert [sum(column) for column in zip(*won, strict=True)] == [1] * 40


def test_a_claim_can_be_taken_over_by_one_who_knows_it(store: Store, writer: Writer) -> None:
    (run,) = planned(store)
    assert writer.claim(run)
    first = run.sent_at
    other, another = kept(store, run), kept(store, run)
    assert writer.claim(other)
    assert other.sent_at is not None
    assert first is not None
    assert other.sent_at > first
    assert not writer.claim(another)
    assert another.sent_at == first
    assert not writer.claim(run)


def test_two_claims_in_one_moment_are_never_equal(store: Store, writer: Writer) -> None:
    (run,) = planned(store)
    ahead = utc_now().replace(year=2999)  # as by a clock that was put back since
    assert store.sweeps.claim(run, ahead)
    run.sent_at = ahead
    other = kept(store, run)
    assert writer.claim(other)
    assert other.sent_at is not None
    assert other.sent_at > ahead
    assert not writer.claim(run)


def test_what_has_ended_cannot_be_claimed(store: Store, writer: Writer) -> None:
    for status, run in zip(sorted(ENDED), planned(store, len(ENDED)), strict=True):
        assert writer.claim(run)
        run.status = status
        writer.update(run)
        writer.flush()
        assert not writer.claim(run)
        assert not writer.claim(kept(store, run))


def test_what_is_not_there_cannot_be_claimed(store: Store, writer: Writer) -> None:
    planned(store)
    assert not writer.claim(Run())


def test_one_process_has_a_claim_only_once_it_is_in_the_store(store: Store, writer: Writer) -> None:
    runs = planned(store, 50)

    def claimed(number: int) -> bool:
        assert writer.claim(runs[number])
        return kept(store, runs[number]).sent_at == runs[number].sent_at

    assert all(at_once(claimed, 50))


# ---- updates


def test_of_several_states_the_newest_is_kept(store: Store, writer: Writer) -> None:
    (run,) = planned(store)
    assert writer.claim(run)
    for number in range(200):
        run.task_id, run.status = f"t{number}", "executing"
        writer.update(run)
    run.task_id = "changed later, and not handed over"
    writer.flush()
    assert (kept(store, run).task_id, kept(store, run).status) == ("t199", "executing")


def test_many_threads_lose_no_update(store: Store, writer: Writer) -> None:
    runs = planned(store, 32)

    def brought_to_its_end(number: int) -> None:
        run = runs[number]
        assert writer.claim(run)
        for status in ("pending", "executing", "completed"):
            run.status, run.result = status, f"{status} {number}"
            writer.update(run)

    at_once(brought_to_its_end, 32)
    writer.close()
    assert [run.result for run in store.select(sweep_id="s")] == [f"completed {number}" for number in range(32)]


def test_an_update_over_anothers_claim_does_not_count(store: Store, writer: Writer) -> None:
    (run,) = planned(store)
    assert writer.claim(run)
    other = kept(store, run)
    assert writer.claim(other)
    other.task_id, other.status = "the other's", "executing"
    writer.update(other)
    writer.flush()
    for status in ("executing", "completed"):
        run.task_id, run.status = "mine", status
        writer.update(run)
        writer.flush()
        assert (kept(store, run).task_id, kept(store, run).status) == ("the other's", "executing")


def test_an_update_of_what_was_never_claimed_does_not_count(store: Store, writer: Writer) -> None:
    (run,) = planned(store)
    other = kept(store, run)
    assert writer.claim(other)
    run.status = "failed"
    writer.update(run)
    writer.update(Run(status="failed"))
    writer.flush()
    assert kept(store, run).status == "planned"
    assert len(store.select()) == 1


@pytest.mark.parametrize("end", sorted(ENDED))
def test_an_end_is_never_overwritten_by_what_came_before_it(store: Store, writer: Writer, end: str) -> None:
    (run,) = planned(store)
    assert writer.claim(run)
    run.status, run.result = end, "the end"
    writer.update(run)
    writer.flush()
    for status in ("planned", "pending", "executing", "paused", "unknown"):
        late = kept(store, run)
        late.status, late.result, late.finished_at = status, "late", None
        writer.update(late)
        writer.flush()
        assert (kept(store, run).status, kept(store, run).result) == (end, "the end")


def test_an_end_may_be_told_better(store: Store, writer: Writer) -> None:
    (run,) = planned(store)
    assert writer.claim(run)
    run.status = "completed"
    writer.update(run)
    writer.flush()
    run.total_tokens = 7  # as the usage that is asked for afterwards
    writer.update(run)
    writer.close()
    assert kept(store, run).total_tokens == 7


def test_what_a_person_has_said_stays(store: Store, writer: Writer) -> None:
    (run,) = planned(store)
    assert writer.claim(run)
    store.tag([run.run_id], ["good"])
    store.set_note(run.run_id, "look")
    writer.score([Score(run.run_id, "exact", 1.0, "exact", "ada")])
    run.status = "completed"
    writer.update(run)
    writer.close()
    found = kept(store, run)
    assert (found.tags, found.note, found.scores, found.status) == (["good"], "look", {"exact": 1.0}, "completed")


# ---- release


def test_a_released_run_is_as_if_it_had_never_been_claimed(store: Store, writer: Writer) -> None:
    (run,) = planned(store)
    assert writer.claim(run)
    writer.release(run)
    assert kept(store, run).sent_at is None
    assert writer.claim(kept(store, run))


def test_anothers_claim_is_not_released(store: Store, writer: Writer) -> None:
    (run,) = planned(store)
    assert writer.claim(run)
    other = kept(store, run)
    assert writer.claim(other)
    writer.release(run)
    assert kept(store, run).sent_at == other.sent_at
    other.status = "completed"
    writer.update(other)
    writer.flush()
    writer.release(other)
    assert kept(store, run).sent_at == other.sent_at


def test_releasing_what_was_never_claimed_does_nothing(store: Store, writer: Writer) -> None:
    (run,) = planned(store)
    other = kept(store, run)
    assert writer.claim(other)
    writer.release(run)
    assert kept(store, run).sent_at == other.sent_at


# ---- a store that can't be written


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[tuple[Store, list[Run]]]:
    """A store with some runs that another program keeps from being written."""
    path = tmp_path / "runs.db"
    store = Store(f"sqlite:///{path}?timeout=0.05")
    runs = planned(store, 8)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield store, runs
    store.close()


def test_a_store_that_is_locked_makes_every_claim_an_error(broken: tuple[Store, list[Run]]) -> None:
    store, runs = broken
    writer = Writer(store)

    def said(number: int) -> str:
        with pytest.raises(StoreError) as caught:
            writer.claim(runs[number])
        return str(caught.value)

    assert all("locked" in told for told in at_once(said, len(runs)))
    assert [run.sent_at for run in runs] == [None] * len(runs)
    with pytest.raises(StoreError):  # and goes on to be one
        writer.claim(runs[0])
    writer.flush()
    with pytest.raises(StoreError, match="locked"):
        writer.close()


def test_an_update_that_cannot_be_written_is_told_at_the_end(broken: tuple[Store, list[Run]]) -> None:
    store, runs = broken
    writer = Writer(store)
    writer.update(runs[0])
    writer.flush()
    assert isinstance(writer.failure, StoreError)
    with pytest.raises(StoreError):
        writer.close()


def test_a_store_that_is_gone_makes_claims_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    store = Store(f"sqlite:///{folder / 'runs.db'}")
    (run,) = planned(store)
    store.close()
    shutil.rmtree(folder)
    folder.write_text("no folder")
    writer = Writer(store)
    with pytest.raises(StoreError, match=r"The run store .* can't be used"):
        writer.claim(run)
    with pytest.raises(StoreError):
        writer.close()


def test_a_table_that_is_gone_makes_claims_an_error(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'runs.db'}")
    (run,) = planned(store)
    with contextlib.closing(sqlite3.connect(tmp_path / "runs.db")) as other:
        other.execute("DROP TABLE runs")
        other.commit()
    writer = Writer(store)
    with pytest.raises(StoreError):
        writer.claim(run)
    with pytest.raises(StoreError):
        writer.close()


def test_a_fault_of_our_own_leaves_nobody_waiting(store: Store) -> None:
    runs = planned(store, 2)
    writer = Writer(store)
    runs[0].sent_at = datetime(2024, 5, 6)  # without a zone, which no run of ours has
    for run in runs:
        with pytest.raises(StoreError, match="can't be written: TypeError"):
            writer.claim(run)
    with pytest.raises(StoreError):
        writer.close()


def test_after_the_end_nothing_is_claimed_and_latecomers_are_kept(store: Store) -> None:
    writer = Writer(store)
    run, other = planned(store, 2)
    assert writer.claim(run)
    writer.close()
    with pytest.raises(StoreError, match="has ended"):
        writer.claim(other)
    assert kept(store, other).sent_at is None
    run.status = "stopped"
    writer.update(run)
    assert kept(store, run).status == "stopped"
    writer.flush()
    writer.close()


def test_a_writer_that_was_given_nothing_ends(store: Store) -> None:
    writer = Writer(store)
    writer.flush()
    writer.close()


# ---- planned runs and their states


def test_planned_runs_are_kept_once(store: Store) -> None:
    runs = planned(store, 5)
    runs[0].prompt = "changed"
    store.sweeps.plan([*runs, Run(sweep_id="s", number=5)])
    assert [run.number for run in store.select(sweep_id="s")] == [0, 1, 2, 3, 4, 5]
    assert kept(store, runs[0]).prompt == "hi 0"
    store.sweeps.plan([])


def test_many_threads_plan_the_same_runs(store: Store, url: str) -> None:
    runs = [Run(sweep_id="s", number=number) for number in range(600)]
    stores = [Store(url) for _ in range(4)]
    at_once(lambda number: stores[number].sweeps.plan(runs), 4)
    assert sorted(run.number or 0 for run in store.select(sweep_id="s")) == list(range(600))
    for one in stores:
        one.close()


def test_states_tell_how_each_run_stands(store: Store, writer: Writer) -> None:
    first, second, third = planned(store, 3)
    planned(store, 2, sweep_id="another")
    store.add([Run(sweep_id="s"), Run()])  # not of its plan
    for run, status, kind in ((first, "completed", None), (second, "failed", "ServerError")):
        assert writer.claim(run)
        run.status, run.error_type, run.task_id = status, kind, f"task {run.number}"
        writer.update(run)
    writer.flush()
    again = Run(sweep_id="s", number=1)
    store.sweeps.plan([again])
    assert [tuple(state) for state in store.sweeps.states("s")] == [
        (0, first.run_id, "completed", first.sent_at, "task 0", None),
        (1, second.run_id, "failed", second.sent_at, "task 1", "ServerError"),
        (2, third.run_id, "planned", None, None, None),
        (1, again.run_id, "planned", None, None, None),
    ]
    assert store.sweeps.states("nothing") == []
    assert store.sweeps.unfinished("s", 3) == 1
    assert store.sweeps.unfinished("s", 2) == 0
    assert store.sweeps.unfinished("nothing", 5) == 5


def test_cached_gives_the_newest_good_run_of_each_key(store: Store) -> None:
    good = [Run(cache_key="a", status="completed"), Run(cache_key="a", status="completed")]
    bad = [
        Run(cache_key="a", status="failed"),
        Run(cache_key="a", status="completed", error_type="SchemaError"),
        Run(cache_key="b", status="stopped"),
    ]
    store.add([*good, *bad])
    assert store.sweeps.cached(["a", "b", *(f"none {n}" for n in range(1200))]) == {"a": good[1].run_id}
    assert store.sweeps.cached([]) == {}


# ---- sweeps


def test_a_sweep_is_found_by_its_id_and_by_its_beginning(store: Store) -> None:
    store.sweeps.add("abcd1" * 6, SERVICE, "e", 7, b"\x00plan\xff")
    store.sweeps.add("abcd2" * 6, SERVICE, None, 1, b"")
    for ref in ("abcd1" * 6, "abcd1"):
        found = store.sweeps.find(ref, "https://elsewhere.example")
        assert (found.sweep_id, found.base_url, found.size, found.plan) == ("abcd1" * 6, SERVICE, 7, b"\x00plan\xff")
        assert found.added_at is not None
        assert found.ended_at is None
    with pytest.raises(ConfigError, match="Several sweeps begin with 'abcd'"):
        store.sweeps.find("abcd", SERVICE)
    for ref in ("nope", "abcd_", "%", "abcd1" * 6 + "x", "\ud800"):
        with pytest.raises(NotFoundError, match="There is no sweep"):
            store.sweeps.find(ref, SERVICE)


def test_without_an_id_the_newest_of_the_service_that_has_not_ended_is_found(store: Store) -> None:
    with pytest.raises(NotFoundError, match=f"No sweep of {SERVICE} is unfinished"):
        store.sweeps.find(None, SERVICE)
    for name in ("one", "two", "three"):
        store.sweeps.add(name, SERVICE, None, 1, b"")
    store.sweeps.add("four", "https://elsewhere.example", None, 1, b"")
    assert store.sweeps.find(None, SERVICE).sweep_id == "three"
    store.sweeps.end("three", ended=True)
    assert store.sweeps.find(None, SERVICE).sweep_id == "two"
    assert store.sweeps.find("three", SERVICE).ended_at is not None
    store.sweeps.end("three", ended=False)
    assert store.sweeps.find(None, SERVICE).sweep_id == "three"
    store.sweeps.end("nothing", ended=True)


# ---- turns


GAP = 1000.0  # so long that the time which the test takes is nothing beside it


def places(waits: list[float], gap: float = GAP) -> list[int]:
    """Which turn each has got, from 0: its wait is that many gaps, less the time since the first was taken."""
    return sorted(math.ceil(wait / gap) for wait in waits)


def test_turns_are_a_gap_apart(store: Store) -> None:
    waits = [store.sweeps.turn(SERVICE, GAP) for _ in range(5)]
    assert waits[0] == 0.0
    assert places(waits) == [0, 1, 2, 3, 4]


def test_services_have_turns_of_their_own(store: Store) -> None:
    assert [store.sweeps.turn(f"{SERVICE}/{n}", GAP) for n in range(3)] == [0.0] * 3


def test_many_threads_get_each_a_turn_of_its_own(store: Store) -> None:
    assert places(at_once(lambda _: store.sweeps.turn(SERVICE, GAP), 24)) == list(range(24))


def take_turns(url: str, many: int, gate: Any, answers: Any) -> None:
    store = Store(url)
    gate.wait()
    answers.put([store.sweeps.turn(SERVICE, GAP) for _ in range(many)])


def test_many_processes_get_each_a_turn_of_its_own(store: Store, url: str) -> None:
    store.select(limit=1)
    waits = in_processes(take_turns, 4, url, 10)
    assert places([wait for some in waits for wait in some]) == list(range(40))


def test_a_turn_that_is_put_off_is_put_off_for_all(store: Store, url: str) -> None:
    assert store.sweeps.turn(SERVICE, 1.0) == 0.0
    assert store.sweeps.turn(SERVICE, 1.0, put_off=5 * GAP) == 5 * GAP
    assert store.sweeps.turn(SERVICE, 1.0, put_off=2 * GAP) == 2 * GAP  # takes nothing back
    other = Store(url)
    assert places([other.sweeps.turn(SERVICE, GAP), store.sweeps.turn(SERVICE, GAP)]) == [5, 6]
    other.close()


def test_a_queue_that_no_clock_can_be_right_about_is_begun_anew(store: Store) -> None:
    store.sweeps.turn(SERVICE, 10.0**7)  # the next is due in four months
    assert store.sweeps.turn(SERVICE, 1.0) == 0.0


def test_turns_of_a_store_that_cannot_be_written_are_an_error(broken: tuple[Store, list[Run]]) -> None:
    with pytest.raises(StoreError):
        broken[0].sweeps.turn(SERVICE, 1.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_takes_turns_too(store: Store, tmp_path: Path) -> None:
    assert store.sweeps.turn(SERVICE, GAP) == 0.0
    told = tmp_path / "told"
    child = os.fork()
    if not child:
        told.write_text(str(store.sweeps.turn(SERVICE, GAP)))
        os._exit(0)
    os.waitpid(child, 0)
    assert places([float(told.read_text()), store.sweeps.turn(SERVICE, GAP)]) == [1, 2]
