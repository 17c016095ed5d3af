"""The run store in PostgreSQL: what it does in SQLite, and what only a server can do to it. A real server."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pandas.testing import assert_frame_equal
from postgres_server import PostgresServer
from sqlalchemy import create_engine, inspect, make_url
from test_frames import full_run

# What holds for each store is checked here again, with this module's fixtures.
from test_scoring import (  # noqa: F401
    test_a_score_is_kept_with_who_and_when,
    test_a_score_that_is_taken_away,
    test_many_scores_at_once,
    test_runs_that_arent_there_are_told,
    test_scoring_again_keeps_the_old,
    test_what_says_the_same_isnt_written_again,
)
from test_store import (  # noqa: F401
    broken,
    finish,
    in_threads,
    kept,
    prompts,
    second,
    test_a_mistake_of_our_own_is_no_store_error,
    test_a_second_vote_on_two_runs_takes_the_place_of_ones_first,
    test_add_is_all_or_none,
    test_add_update_find,
    test_an_id_goes_before_a_task_and_a_task_before_a_beginning,
    test_an_undone_vote_keeps_its_row,
    test_cached,
    test_closed_and_used_again,
    test_errors_show_no_prompt,
    test_filters,
    test_find_by_beginning,
    test_find_by_task_takes_the_newest,
    test_find_in_an_empty_store,
    test_huge_text,
    test_many_run_ids_come_in_the_stores_order,
    test_notes,
    test_round_trip,
    test_tags,
    test_tags_are_found_where_they_are_and_only_there,
    test_update_adds_what_is_not_there,
    test_update_leaves_tags_note_and_scores,
    test_votes_are_kept_with_who_and_when,
    test_votes_of_many_runs_come_in_the_order_of_their_casting,
)

from xpander_magics.errors import StoreError
from xpander_magics.results import Run, new_run_id
from xpander_magics.store import Store
from xpander_magics.store.columns import KEPT
from xpander_magics.store.migrations import MIGRATIONS, migrate
from xpander_magics.store.scores import Score

pytestmark = pytest.mark.postgres

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The name of an empty database."""
    name = postgres.new_database()
    yield name
    postgres.drop_database(name)


@pytest.fixture
def url(postgres: PostgresServer, database: str) -> str:
    return postgres.url(database)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


@pytest.fixture(scope="module")
def shared_store(postgres: PostgresServer) -> Iterator[Store]:
    name = postgres.new_database()
    store = Store(postgres.url(name))
    yield store
    store.close()
    postgres.drop_database(name)


# ---- as in SQLite


def test_the_frame_is_the_same_as_sqlites(store: Store, tmp_path: Path) -> None:
    odd = Run(status="new at the service", prompt="\ud800\0\x1a", cost_usd=math.inf, latency_s=-math.inf, is_byok=False)
    big = Run(prompt_tokens=2**63 - 1, completion_tokens=-(2**63) + 1, total_tokens=2**63, cost_usd=math.nan)
    more = [Run(model=f"m{n % 7}", repeat=n, number=n, output=n, scores={"a": n / 3}) for n in range(3000)]
    runs = [full_run(), Run(), odd, big, *more]
    other = Store(f"sqlite:///{tmp_path / 'runs.db'}")
    for each in (store, other):
        each.add(runs)
    assert_frame_equal(store.frame(), other.frame())
    assert_frame_equal(store.frame(limit=10), other.frame(limit=10))
    assert [kept(run) for run in store.select()] == [kept(run) for run in other.select()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_writes_too(store: Store) -> None:
    store.add([Run(prompt="parent")])
    finish([multiprocessing.get_context("fork").Process(target=store.add, args=([Run(prompt="child")],))])
    store.add([Run(prompt="parent")])
    assert prompts(store.select()) == ["parent", "child", "parent"]


# ---- texts


def incompressible(size: int) -> str:
    return random.Random(1).randbytes(size // 2).hex()


@pytest.mark.parametrize("text", [incompressible(1_000_000), "é\U0001f600" * 200_000, "\0" * 100_000], ids=str.__len__)
def test_names_and_task_ids_of_any_length(text: str, store: Store) -> None:
    run = Run(experiment=text, task_id=text, thread_id=text, target=text, tags=[text])
    near = Run(experiment=f"{text}.", task_id=f"{text}.")
    store.add([run, near])
    assert kept(store.find(text)) == kept(run)
    for filters in ({"experiment": text}, {"target": text}, {"tag": text}):
        assert [found.run_id for found in store.select(**filters)] == [run.run_id]
    run.experiment = run.task_id = f"{text}!"
    store.update(run)
    assert kept(store.find(f"{text}!")) == kept(run)


def test_hostile_texts(store: Store) -> None:
    texts = ["'; DROP TABLE runs; --", "%s %(x)s :x", "\\", "$1", "\\u0000", "E'\\x00'", "\r\n", "\ufffe\uffff", "{}"]
    runs = [Run(prompt=text, experiment=text, task_id=text, tags=[text]) for text in texts]
    store.add(runs)
    for text, run in zip(texts, runs, strict=True):
        assert kept(store.find(text)) == kept(run)
        assert [kept(found) for found in store.select(experiment=text, tag=text)] == [kept(run)]


# ---- the indexes


@pytest.mark.parametrize(
    ("index", "look"),
    [
        ("runs_run_id", lambda store: store.find("0123456789abcdef")),
        ("runs_task_id", lambda store: store.find("0123456789abcdef")),
        ("runs_cache_key", lambda store: store.cached("k")),
        ("runs_experiment", lambda store: store.select(experiment=f"7{'e' * 5000}")),
        ("runs_sweep_id", lambda store: store.select(sweep_id="s")),
    ],
)
def test_each_index_is_used(
    index: str, look: Callable[[Store], object], store: Store, postgres: PostgresServer, database: str
) -> None:
    store.add(
        Run(task_id=new_run_id(), cache_key=f"k{n}", experiment=f"{n}{'e' * 5000}", sweep_id=f"s{n}")
        for n in range(5000)
    )
    store.add([Run(run_id="0123456789abcdef0123456789abcdef")])
    store.close()
    postgres.execute("VACUUM ANALYZE runs", database)
    look(store)
    store.close()  # a process of the server's tells what it has counted at its end at the latest
    query = f"SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = '{index}'"
    assert until(lambda: postgres.execute(query, database)[0][0] > 0)


def test_an_id_is_found_by_its_beginning_through_the_index(
    store: Store, postgres: PostgresServer, database: str
) -> None:
    store.add(Run() for _ in range(5000))
    store.add([Run(run_id="0123456789abcdef0123456789abcdef")])
    postgres.execute("VACUUM ANALYZE runs", database)
    store.close()
    scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'runs_run_id'"
    before = postgres.execute(scans, database)[0][0]
    assert store.find("01234567").run_id == "0123456789abcdef0123456789abcdef"
    store.close()
    # By the whole id, by its beginning, and by the id that was found.
    assert until(lambda: postgres.execute(scans, database)[0][0] >= before + 3)


def until(true: Callable[[], bool]) -> bool:
    """Whether it comes true before the time is up."""
    waiting = threading.Event()
    return any(true() or waiting.wait(0.1) for _ in range(300))


# ---- migrations


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
def test_a_store_of_each_version_is_brought_up_to_date(
    version: int, url: str, postgres: PostgresServer, database: str
) -> None:
    engine = create_engine(url)
    migrate(engine, MIGRATIONS[:version])
    engine.dispose()
    postgres.execute("INSERT INTO runs (run_id, status, prompt) VALUES ('old1', 'completed', 'hi')", database)
    store = Store(url)
    run = store.find("old1")
    assert (run.prompt, run.tags, run.metadata, run.number) == ("hi", [], {}, None)
    run.number, run.experiment = 0, incompressible(10_000)
    store.update(run)
    store.add([Run(prompt="new")])
    assert kept(store.find("old1")) == kept(run)
    assert prompts(store.select()) == ["hi", "new"]
    assert versions(postgres, database) == list(range(1, len(MIGRATIONS) + 1))


def versions(postgres: PostgresServer, database: str) -> list[int]:
    return [row[0] for row in postgres.execute("SELECT version FROM schema_version ORDER BY 1", database)]


def test_a_migration_that_breaks_leaves_the_version_before(
    store: Store, postgres: PostgresServer, database: str
) -> None:
    store.add([Run(prompt="kept")])
    with pytest.raises(Exception, match="nosuch"):
        migrate(store._engine(), [*MIGRATIONS, broken])
    assert versions(postgres, database) == list(range(1, len(MIGRATIONS) + 1))
    assert prompts(store.select()) == ["kept"]
    for _ in range(2):
        migrate(store._engine(), [*MIGRATIONS, second])
    assert versions(postgres, database) == list(range(1, len(MIGRATIONS) + 2))
    assert prompts(store.select()) == ["kept"]


def test_the_tables_have_what_is_kept(store: Store, url: str) -> None:
    store.select()
    engine = create_engine(url)
    found = inspect(engine)
    names = {table: {column["name"] for column in found.get_columns(table)} for table in found.get_table_names()}
    engine.dispose()
    assert names == {
        "schema_version": {"version", "migrated_at"},
        "runs": {"seq", "added_at", *(column.name for column in KEPT)},
        "sweeps": {"seq", "sweep_id", "added_at", "base_url", "experiment", "size", "ended_at", "plan"},
        "paces": {"service", "next_at", "gap"},
        "votes": {
            *("seq", "vote_id", "added_at", "undone_at", "seed", "sweep_id", "left_run", "right_run", "choice"),
            "voter",
        },
        "scores": {"seq", "run_id", "added_at", "value", "name", "scorer", "scored_by", "detail"},
    }


def open_when_told(url: str, gate: Any) -> None:
    gate.wait(60)
    store = Store(url)
    store.add([Run(experiment="first")])
    store.close()


def test_twelve_processes_migrate_an_empty_database_at_once(
    url: str, store: Store, postgres: PostgresServer, database: str
) -> None:
    gate = SPAWN.Barrier(12)
    finish([SPAWN.Process(target=open_when_told, args=(url, gate)) for _ in range(12)])
    assert len(store.select(experiment="first")) == 12
    assert versions(postgres, database) == list(range(1, len(MIGRATIONS) + 1))


def test_a_newer_store_is_refused(store: Store, url: str) -> None:
    store.add([Run()])
    migrate(store._engine(), [*MIGRATIONS, second])
    newer = Store(url)
    with pytest.raises(StoreError, match=rf"newer xpander_magics .*up to {len(MIGRATIONS)}\)\. Upgrade"):
        newer.select()


# ---- many at once


def write_runs(url: str, name: str, count: int) -> None:
    store = Store(url)
    for number in range(count):
        run = Run(prompt=f"{name}-{number}", experiment="shared", number=number)
        store.add([run])
        run.status, run.task_id = "executing", f"task-{name}-{number}"
        store.update(run)
        run.status, run.result = "completed", "x" * 500
        store.update(run)
        if number % 20 == 0:
            store.scores.add([Score("everyones", run.run_id, number, "exact", "ada")])
    store.close()


def test_many_processes_lose_nothing(store: Store, url: str) -> None:
    store.add([Run(run_id="everyones")])
    names = [f"p{number}" for number in range(8)]
    finish([SPAWN.Process(target=write_runs, args=(url, name, 200)) for name in names])
    runs = store.select(experiment="shared")
    assert {run.prompt for run in runs} == {f"{name}-{number}" for name in names for number in range(200)}
    assert {(run.status, run.task_id == f"task-{run.prompt}", run.result) for run in runs} == {
        ("completed", True, "x" * 500)
    }
    assert len(runs) == 8 * 200
    assert len(store.find("everyones").scores) == 8 * 10


def score_runs(url: str, name: str, ids: list[str]) -> None:
    store = Store(url)
    for number in range(10):
        store.scores.add(Score(run_id, name, number, "exact", "ada") for run_id in ids)
    store.close()


def test_processes_that_score_the_same_runs_wait_for_each_other(store: Store, url: str) -> None:
    ids = [new_run_id() for _ in range(60)]
    store.add(Run(run_id=run_id) for run_id in ids)
    names = ["first", "second", "third"]
    orders = [ids, ids[::-1], ids[30:] + ids[:30]]
    finish([SPAWN.Process(target=score_runs, args=(url, *one)) for one in zip(names, orders, strict=True)])
    assert all(run.scores == dict.fromkeys(names, 9.0) for run in store.select(run_ids=ids))
    assert len(store.scores.select(ids)) == 60 * 3 * 10


def test_hundreds_of_threads_share_a_few_connections(store: Store, postgres: PostgresServer, database: str) -> None:
    store.add([])
    most = [0]

    def write(number: int) -> None:
        for _ in range(5):
            run = Run(prompt=str(number))
            store.add([run])
            run.status = "completed"
            store.update(run)
        if number % 50 == 0:
            count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"
            most[0] = max(most[0], postgres.execute(count)[0][0])

    in_threads(300, write)
    assert sorted(prompts(store.select(status="completed")), key=str) == sorted([str(n) for n in range(300)] * 5)
    assert 0 < most[0] < 50  # those that were closed a moment ago are counted, too


def test_two_that_change_the_same_runs_in_other_orders_wait_for_each_other(store: Store, url: str) -> None:
    ids = [new_run_id() for _ in range(50)]
    store.add(Run(run_id=run_id) for run_id in ids)

    def tag(number: int) -> None:
        shuffled = random.Random(number).sample(ids, len(ids))
        for turn in range(10):
            store.tag(shuffled, [f"{number}-{turn}"])

    in_threads(8, tag)
    assert {len(run.tags) for run in store.select()} == {80}


def test_where_the_server_has_no_connection_left_one_is_waited_for(store: Store, postgres: PostgresServer) -> None:
    limited = postgres.new_database("CONNECTION LIMIT 1")
    postgres.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
    postgres.execute(f"ALTER DATABASE {limited} OWNER TO plain")
    url = postgres.url(limited, "plain", "plain")
    first = Store(url)
    first.add([Run()])
    closer = threading.Timer(0.5, first.close)
    closer.start()
    waiting = Store(url)
    waiting.add([Run()])
    closer.join()
    assert len(waiting.select()) == 2
    waiting.close()
    postgres.drop_database(limited)
    postgres.execute("DROP ROLE plain")


# ---- what goes wrong


def test_a_server_that_was_restarted(store: Store, postgres: PostgresServer) -> None:
    in_threads(5, lambda _: store.add([Run(prompt="before")]))
    postgres.stop()
    try:
        with pytest.raises(StoreError, match=r"Look whether the server is running"):
            store.add([Run(prompt="lost")])
    finally:
        postgres.start()
    in_threads(5, lambda _: store.add([Run(prompt="after")]))
    assert prompts(store.select()) == ["before"] * 5 + ["after"] * 5


def test_a_connection_that_the_server_cut(store: Store, postgres: PostgresServer, database: str) -> None:
    store.add([Run()])
    postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
    store.add([Run()])
    assert len(store.select()) == 2


def refused(url: str) -> str:
    """What is said where a store can't be used."""
    with pytest.raises(StoreError) as caught:
        Store(url).select()
    assert "\n" not in str(caught.value)
    assert "SELECT" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_password(postgres: PostgresServer, database: str) -> None:
    said = refused(postgres.url(database, password="hunter2"))
    assert "password authentication failed" in said
    assert said.endswith("Correct the user and the password in XPANDER_STORE.")
    assert "hunter2" not in said


def test_no_such_database(postgres: PostgresServer) -> None:
    said = refused(postgres.url("nosuch"))
    assert 'database "nosuch" does not exist. Create it on the server' in said
    assert postgres.password not in said


def test_no_server(postgres: PostgresServer) -> None:
    elsewhere = make_url(postgres.url("runs")).set(port=1)
    said = refused(elsewhere.render_as_string(hide_password=False))
    assert "Look whether the server is running and can be reached" in said
    assert postgres.password not in said


@pytest.mark.parametrize(
    ("right", "said"),
    [("CREATE", "permission denied for schema public"), ("ALL", "no schema has been selected to create in")],
)
def test_no_rights(right: str, said: str, postgres: PostgresServer, database: str) -> None:
    postgres.execute("CREATE ROLE guest LOGIN PASSWORD 'hunter2'")
    try:
        postgres.execute(f"REVOKE {right} ON SCHEMA public FROM public", database)
        told = refused(postgres.url(database, "guest", "hunter2"))
    finally:
        postgres.execute("DROP ROLE guest")
    assert f"{said}. Ask who runs it for the right to create" in told
    assert "hunter2" not in told


def test_an_unknown_setting(postgres: PostgresServer, database: str) -> None:
    assert "Correct that setting in XPANDER_STORE" in refused(postgres.url(database, nosuch="1"))


def test_a_database_that_is_read_only(store: Store, postgres: PostgresServer, database: str) -> None:
    store.add([Run(prompt="kept")])
    read_only = Store(postgres.url(database, options="-c default_transaction_read_only=on"))
    assert prompts(read_only.select()) == ["kept"]
    with pytest.raises(StoreError, match=r"read-only transaction.*one that can be written"):
        read_only.add([Run()])
    read_only.close()


def test_a_database_of_another_encoding_is_refused_before_anything_is_kept(postgres: PostgresServer) -> None:
    name = postgres.new_database("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    assert "has the encoding LATIN1" in refused(postgres.url(name))
    assert postgres.execute("SELECT * FROM pg_tables WHERE schemaname = 'public'", name) == []
    postgres.drop_database(name)


def test_a_statement_that_fails_shows_no_prompt(postgres: PostgresServer, database: str) -> None:
    hasty = Store(postgres.url(database))
    hasty.add([Run()])
    postgres.execute("ALTER TABLE runs ADD CONSTRAINT short CHECK (length(prompt) < 5)", database)
    with pytest.raises(StoreError, match="violates check constraint") as caught:
        hasty.add([Run(prompt="my secret prompt")])
    assert "secret" not in str(caught.value)
    hasty.close()


def test_no_password_is_shown(postgres: PostgresServer, database: str) -> None:
    url = make_url(postgres.url(database))
    as_a_setting = url.set(password=None).update_query_dict({"password": postgres.password})
    for address in (url, as_a_setting):
        store = Store(address.render_as_string(hide_password=False))
        store.add([Run()])
        assert postgres.password not in f"{store.location} {store!r}"
        assert database in store.location
        store.close()
