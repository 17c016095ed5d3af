"""The run store: real files, real processes, real damage."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, inspect, text

from xpander_magics.errors import ConfigError, NotFoundError, StoreError
from xpander_magics.results import Run, new_run_id, utc_now
from xpander_magics.store import Store
from xpander_magics.store.columns import COLUMNS, KEPT
from xpander_magics.store.migrations import MIGRATIONS, migrate
from xpander_magics.store.scores import Score
from xpander_magics.store.votes import Vote

SPAWN = multiprocessing.get_context("spawn")


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'runs.db'}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(url_of(tmp_path))
    yield store
    store.close()


def kept(run: Run) -> dict[str, Any]:
    return {column.name: getattr(run, column.name) for column in KEPT}


def prompts(runs: list[Run]) -> list[str | None]:
    return [run.prompt for run in runs]


# ---- add, update, find


def test_add_update_find(store: Store) -> None:
    run = Run(prompt="hi", target="writer")
    store.add([run])
    assert kept(store.find(run.run_id)) == kept(run)
    run.status, run.task_id, run.result, run.metadata = "completed", "task-1", "hello", {"a": 1}
    store.update(run)
    assert kept(store.find("task-1")) == kept(run)


def test_update_adds_what_is_not_there(store: Store) -> None:
    run = Run(prompt="hi", tags=["a"])
    store.update(run)
    assert kept(store.find(run.run_id)) == kept(run)


def test_update_leaves_tags_note_and_scores(store: Store) -> None:
    run = Run()
    store.add([run])
    store.tag([run.run_id], ["seen"])
    store.set_note(run.run_id, "odd")
    store.scores.add([Score(run.run_id, "exact", 1, "exact", "ada")])
    store.update(run)
    again = store.find(run.run_id)
    assert (again.tags, again.note, again.scores) == (["seen"], "odd", {"exact": 1.0})


def test_add_is_all_or_none(store: Store) -> None:
    run = Run()
    with pytest.raises(StoreError, match=r"(UNIQUE|unique).*this id is kept"):
        store.add([run, Run(), run])
    assert store.select() == []
    store.add([])


def test_find_by_beginning(store: Store) -> None:
    store.add([Run(run_id="abcd1111", target="writer"), Run(run_id="abcd2222"), Run(run_id="50%_off")])
    assert store.find("abcd1").run_id == "abcd1111"
    assert store.find("50%_").run_id == "50%_off"
    with pytest.raises(ConfigError, match=r"abcd2222 \(no target, planned\), abcd1111 \(writer, planned\)"):
        store.find("abcd")
    for ref in ("abc", "", "%%%%", "____", "abcd3"):
        with pytest.raises(NotFoundError, match=r"among the 3 in \S*runs\S*\. The newest are 50%_off"):
            store.find(ref)


def test_find_in_an_empty_store(store: Store) -> None:
    with pytest.raises(NotFoundError, match="Nothing was run yet"):
        store.find("abcdef")


def test_find_by_task_takes_the_newest(store: Store) -> None:
    store.add([Run(task_id="t", prompt="old"), Run(task_id="t", prompt="new")])
    assert store.find("t").prompt == "new"


def test_an_id_goes_before_a_task_and_a_task_before_a_beginning(store: Store) -> None:
    store.add(
        [
            Run(run_id="same", prompt="id"),
            Run(task_id="same"),
            Run(run_id="task-12"),
            Run(task_id="task-1", prompt="task"),
        ]
    )
    assert store.find("same").prompt == "id"
    assert store.find("task-1").prompt == "task"


# ---- select and frame


def filled(store: Store) -> None:
    store.add(
        [
            Run(prompt="0", experiment="e", sweep_id="s", target="writer", target_id="id-1", tags=["a", "b"]),
            Run(prompt="1", experiment="e", status="failed", target_id="writer", tags=["A"]),
            Run(prompt="2", experiment="f", sweep_id="s", tags=["ab", 'say "a"', "x,", ",y"]),
        ]
    )


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "012"),
        ({"experiment": "e"}, "01"),
        ({"experiment": ""}, ""),
        ({"sweep_id": "s"}, "02"),
        ({"status": "failed"}, "1"),
        ({"target": "writer"}, "01"),
        ({"target": "id-1"}, "0"),
        ({"tag": "a"}, "0"),
        ({"tag": "A"}, "1"),
        ({"tag": 'say "a"'}, "2"),
        ({"tag": "x,"}, "2"),
        ({"tag": ","}, ""),
        ({"tag": "%"}, ""),
        ({"tag": ""}, ""),
        ({"limit": 2}, "12"),
        ({"limit": 0}, ""),
        ({"limit": -1}, ""),
        ({"experiment": "e", "limit": 1}, "1"),
        ({"experiment": "e", "sweep_id": "s"}, "0"),
        ({"run_ids": []}, ""),
        ({"since": datetime.now(timezone.utc) + timedelta(days=1)}, ""),
        ({"since": datetime.now(timezone.utc) - timedelta(days=1)}, "012"),
        ({"since": datetime.now() - timedelta(days=1)}, "012"),
        ({"since": datetime.now() + timedelta(days=1)}, ""),
    ],
)
def test_filters(filters: dict[str, Any], found: str, store: Store) -> None:
    filled(store)
    assert prompts(store.select(**filters)) == list(found)
    assert store.frame(**filters)["prompt"].tolist() == list(found)


def test_many_run_ids_come_in_the_stores_order(store: Store) -> None:
    runs = [Run(prompt=str(number), experiment="e" if number % 2 else None) for number in range(2500)]
    store.add(runs)
    ids = [run.run_id for run in reversed(runs)] + ["nobody", runs[0].run_id]
    assert prompts(store.select(run_ids=ids)) == prompts(runs)
    assert prompts(store.select(run_ids=ids, limit=3)) == ["2497", "2498", "2499"]
    assert prompts(store.select(run_ids=iter(ids), experiment="e", limit=2)) == ["2497", "2499"]
    assert store.frame(run_ids=ids)["prompt"].tolist() == prompts(runs)


def test_cached(store: Store) -> None:
    store.add(
        [
            Run(cache_key="k", status="completed", prompt="old"),
            Run(cache_key="k", status="completed", prompt="good"),
            Run(cache_key="k", status="completed", error_type="SchemaError"),
            Run(cache_key="k", status="failed"),
            Run(cache_key="other", status="failed"),
        ]
    )
    found = store.cached("k")
    assert found is not None
    assert found.prompt == "good"
    assert store.cached("other") is None
    assert store.cached("none") is None


# ---- what a person adds


def test_tags(store: Store) -> None:
    runs = [Run(tags=["a"]), Run()]
    store.add(runs)
    ids = [run.run_id for run in runs]
    store.tag(ids, ["b", "a", "b"])
    assert [run.tags for run in store.select()] == [["a", "b"], ["b", "a"]]
    store.tag(ids[0], ["a", "none"], remove=True)
    assert [run.tags for run in store.select()] == [["b"], ["b", "a"]]
    with pytest.raises(NotFoundError, match="'nobody'"):
        store.tag([ids[0], "nobody"], ["c"])
    assert store.find(ids[0]).tags == ["b"]


def test_notes(store: Store) -> None:
    run = Run()
    store.add([run])
    store.set_note(run.run_id, "odd\0")
    assert store.find(run.run_id).note == "odd\0"
    store.set_note(run.run_id, None)
    assert store.find(run.run_id).note is None
    with pytest.raises(NotFoundError, match="'nobody'"):
        store.set_note("nobody", "x")


# ---- whatever comes in comes out

# No two halves of a surrogate pair in a row: JSON itself reads them as the one character that they spell.
WORD = st.text(st.characters(codec="utf-8") | st.sampled_from("\0\x1a\x1f\"\\,'%_\ud800\u2028"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD, inner, max_size=3),
    max_leaves=6,
)
BY_DTYPE: dict[str, st.SearchStrategy[Any]] = {
    "string": st.none() | WORD,
    "category": st.none() | WORD,
    "Int64": st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
    "Float64": st.none() | st.floats(allow_nan=False),
    "boolean": st.none() | st.booleans(),
    "datetime64[us, UTC]": st.none() | st.datetimes(timezones=st.just(timezone.utc)),
}
BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "run_id": st.builds(new_run_id),  # hypothesis' own come twice, in one store
    "output": JSON,
    "variables": st.dictionaries(WORD, JSON, max_size=2),
    "metadata": st.dictionaries(WORD, JSON, max_size=2),
    "request": st.dictionaries(WORD, JSON, max_size=2),
    "tags": st.lists(WORD, max_size=2),
    "tools_used": st.lists(JSON, max_size=2),
    "scores": st.dictionaries(WORD, st.floats(allow_nan=False), max_size=2),
}
RUNS = st.builds(Run, **{column.name: BY_NAME.get(column.name, BY_DTYPE.get(column.dtype)) for column in KEPT})  # type: ignore[arg-type]


def shown(text: str) -> str:
    """A text as a category, a column's name and a file hold it: halves of surrogate pairs are spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


@pytest.fixture(scope="module")
def shared_store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(url_of(Path(folder)))
        yield store
        store.close()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(before=RUNS, after=RUNS)
@example(Run(scores={"\ud800": 0.5}), Run(model="\ud800"))
def test_round_trip(shared_store: Store, before: Run, after: Run) -> None:
    shared_store.add([before])
    assert kept(shared_store.find(before.run_id)) == kept(before)
    after.run_id = before.run_id
    after.tags, after.note, after.scores = before.tags, before.note, before.scores
    shared_store.update(after)
    assert kept(shared_store.find(before.run_id)) == kept(after)
    row = shared_store.frame(run_ids=[before.run_id]).iloc[0]
    assert row["variables"] == after.variables
    assert [row[f"score_{shown(name)}"] for name in after.scores] == list(after.scores.values())


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(tags=st.lists(WORD, max_size=4), tag=WORD)
def test_tags_are_found_where_they_are_and_only_there(shared_store: Store, tags: list[str], tag: str) -> None:
    run = Run(tags=tags)
    shared_store.add([run])
    for wanted in {*tags, tag}:
        assert bool(shared_store.select(tag=wanted, run_ids=[run.run_id])) == (wanted in tags)


def test_huge_text(store: Store) -> None:
    huge = "é" * 5_000_000 + "\0"
    run = Run(prompt=huge, result="x" * 10_000_000, variables={"text": huge})
    store.add([run])
    assert kept(store.find(run.run_id)) == kept(run)
    assert store.frame()["prompt"].iloc[0] == huge


# ---- where it is


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'new' / 'runs.db'}")
    old = os.umask(0)
    try:
        store.add([Run()])
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "new").iterdir()}
    assert modes == {"runs.db": 0o600, "runs.db-wal": 0o600, "runs.db-shm": 0o600}


def test_sqlite_is_set_up_to_survive_a_power_cut(store: Store) -> None:
    with store.writing() as connection:
        got = {name: connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")}
    assert got == {"journal_mode": "wal", "synchronous": 2}


def test_nothing_is_opened_before_the_first_use(tmp_path: Path) -> None:
    Store(url_of(tmp_path)).close()
    assert list(tmp_path.iterdir()) == []


def test_the_place_comes_from_the_environment_at_the_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    monkeypatch.setenv("XPANDER_STORE", url_of(tmp_path))
    store.add([Run()])
    assert (tmp_path / "runs.db").exists()


def test_without_a_setting_it_is_in_the_users_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XPANDER_STORE", raising=False)
    for name in ("HOME", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    store = Store()
    store.add([Run()])
    assert [path.parent.name for path in tmp_path.rglob("runs.db")] == ["xpander_magics"]


def test_in_memory_from_many_threads() -> None:
    store = Store("sqlite://")
    in_threads(8, lambda number: store.add([Run(prompt=str(number))]))
    assert sorted(prompts(store.select()), key=str) == [str(number) for number in range(8)]


def test_closed_and_used_again(store: Store) -> None:
    store.add([Run()])
    store.close()
    store.close()
    assert len(store.select()) == 1


# ---- many at once


def in_threads(count: int, function: Any) -> None:
    failed: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            function(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def write_runs(url: str, name: str, count: int) -> None:
    store = Store(url)
    for number in range(count):
        run = Run(prompt=f"{name}-{number}", run_id=f"{name}-{number}")
        store.add([run])
        run.status = "completed"
        store.update(run)
        store.tag([run.run_id], [name])
        store.scores.add([Score("everyones", f"{name}-{number}", number, "exact", "ada")])


def test_many_threads(store: Store, tmp_path: Path) -> None:
    store.add([Run(run_id="everyones")])
    in_threads(
        40, lambda number: write_runs(url_of(tmp_path), f"w{number}", 1) if number % 8 == 0 else store.add([Run()])
    )
    assert len(store.select()) == 41


def test_many_processes_begin_and_write_at_once(tmp_path: Path) -> None:
    url, names = url_of(tmp_path), [f"p{number}" for number in range(6)]
    openers = [SPAWN.Process(target=open_and_count, args=(url,)) for _ in names]  # all migrate the new file
    finish(openers)
    Store(url).add([Run(run_id="everyones")])
    finish([SPAWN.Process(target=write_runs, args=(url, name, 25)) for name in names])
    runs = Store(url).select()
    assert len(runs) == 1 + 6 * 25
    assert {(run.status, tuple(run.tags)) for run in runs[1:]} == {("completed", (name,)) for name in names}
    assert len(runs[0].scores) == 6 * 25


def open_and_count(url: str) -> None:
    assert Store(url).select(run_ids=["nobody"]) == []


def finish(processes: list[Any]) -> None:
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_reading_goes_on_while_another_writes(store: Store, tmp_path: Path) -> None:
    store.add([Run()])
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert len(store.select()) == 1
    other.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_writes_too(store: Store) -> None:
    store.add([Run(prompt="parent")])
    finish([multiprocessing.get_context("fork").Process(target=store.add, args=([Run(prompt="child")],))])
    store.add([Run(prompt="parent")])
    assert prompts(store.select()) == ["parent", "child", "parent"]


KILLED = """
import sys, time
from sqlalchemy import text
from xpander_magics.results import Run
from xpander_magics.store import Store
store = Store(sys.argv[1])
store.add([Run(run_id="killed", prompt="paid for")])
with store.writing() as connection:
    connection.execute(text("UPDATE runs SET result = 'half written'"))
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_killed_kernel_leaves_what_it_had_added(tmp_path: Path) -> None:
    url = url_of(tmp_path)
    with subprocess.Popen([sys.executable, "-c", KILLED, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
    store = Store(url)
    run = store.find("killed")
    assert (run.status, run.prompt, run.result) == ("planned", "paid for", None)
    run.status = "completed"
    store.update(run)
    assert store.find("killed").status == "completed"


# ---- what goes wrong is said, with what to do


def test_locked_too_long(store: Store, tmp_path: Path) -> None:
    store.add([Run()])
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"runs\.db can't be used: database is locked\. Another program"):
        Store(f"{url_of(tmp_path)}?timeout=0.2").add([Run()])
    other.close()


def test_not_a_database(tmp_path: Path) -> None:
    content = b"not a database at all" * 300
    (tmp_path / "runs.db").write_bytes(content)
    with pytest.raises(StoreError, match=r"runs\.db can't be used: file is not a database\. .*Move it away"):
        Store(url_of(tmp_path)).add([Run()])
    assert (tmp_path / "runs.db").read_bytes() == content


def test_a_damaged_file(store: Store, tmp_path: Path) -> None:
    store.add(Run(prompt="x" * 2000) for _ in range(200))
    store.close()
    path = tmp_path / "runs.db"
    content = path.read_bytes()
    path.write_bytes(content[:20_000] + b"\xff" * (len(content) - 20_000))
    for use in (store.select, store.frame, lambda: store.find("abcd")):
        with pytest.raises(StoreError, match=r"malformed.*recover"):
            use()


def test_a_folder_where_the_file_should_be(tmp_path: Path) -> None:
    (tmp_path / "runs.db").mkdir()
    with pytest.raises(StoreError, match=r"unable to open database file\. Look whether"):
        Store(url_of(tmp_path)).add([Run()])


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"The run store .*file/runs\.db can't be used: .*set XPANDER_STORE"):
        Store(f"sqlite:///{tmp_path / 'file' / 'runs.db'}").add([Run()])


def test_a_file_that_may_only_be_read(store: Store, tmp_path: Path) -> None:
    store.add([Run()])
    store.close()
    read_only = Store(f"sqlite:///file:{tmp_path / 'runs.db'}?mode=ro&uri=true")
    assert len(read_only.select()) == 1
    with pytest.raises(StoreError, match=r"readonly.*Make the file and its folder writable"):
        read_only.add([Run()])


def fill_a_small_disk(url: str) -> None:
    """Ends with 0 where the store said that the disk is full, and then went on."""
    store = Store(url)
    store.add([Run()])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with pytest.raises(StoreError, match=r"(full|disk I/O error)\..*(disk is full|Free some space)"):
        store.add([Run(prompt="x" * 1_000_000)])
    assert len(store.select()) == 1


def test_a_full_disk(tmp_path: Path) -> None:
    finish([SPAWN.Process(target=fill_a_small_disk, args=(url_of(tmp_path),))])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("runs.db", "no SQLAlchemy URL"),
        ("user:hunter2@host", "no SQLAlchemy URL"),
        ("nosuch://user:hunter2@host/db", r"nosuch://user:\*\*\*@host/db.*correct XPANDER_STORE"),
        ("postgresql+nosuch://user:hunter2@host/db", r"correct XPANDER_STORE"),
        ("sqlite://user:hunter2@host/db", r"Invalid SQLite URL"),
        ("sqlite+aiosqlite:///x.db", r"XPANDER_STORE"),
        ("sqlite:///x.db?timeout=soon", r"'soon'\. Correct XPANDER_STORE"),
        ("postgresql://user:hunter2@host:port/db", "no SQLAlchemy URL"),
    ],
)
def test_wrong_urls(url: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=said) as caught:
        Store(url).select()
    assert "hunter2" not in str(caught.value)


def test_a_missing_driver() -> None:
    with pytest.raises(StoreError, match=r"mysql://me:\*\*\*@host/db can't be used: No module.*Install that driver"):
        Store("mysql://me:hunter2@host/db").select()


def test_errors_show_no_prompt(store: Store) -> None:
    run = Run(prompt="my secret prompt")
    store.add([run])
    with pytest.raises(StoreError) as caught:
        store.add([run])
    assert "secret" not in f"{caught.value} {caught.value.__cause__}"


def test_a_mistake_of_our_own_is_no_store_error(store: Store) -> None:
    with pytest.raises(AttributeError):
        store.add(["no run"])  # type: ignore[list-item]


# ---- votes


def test_votes_are_kept_with_who_and_when(store: Store) -> None:
    before = utc_now()
    first = Vote("a", "b", "left", "ada", sweep_id="s1", seed=2**63 - 1)
    second = Vote("b", "c", "both_bad", "\0 Zo\u00eb \ud800" + "x" * 10_000)
    for vote in (first, second):
        store.votes.add(vote)
    assert store.votes.select(["a", "b", "c"]) == [first, second]
    assert before <= first.added_at <= utc_now()
    assert first.undone_at is None
    assert store.votes.select(["a", "b"]) == [first]
    assert store.votes.select(["a", "c"]) == store.votes.select([]) == []


def test_an_undone_vote_keeps_its_row(store: Store) -> None:
    vote = Vote("a", "b", "left", "ada")
    store.votes.add(vote)
    assert store.votes.undo(vote.vote_id)
    assert not store.votes.undo(vote.vote_id)
    assert not store.votes.undo("nosuch")
    assert store.votes.select(["a", "b"]) == []
    (kept_vote,) = store.votes.select(["a", "b"], undone=True)
    assert kept_vote.undone_at is not None
    assert vote.added_at <= kept_vote.undone_at <= utc_now()
    assert replace(kept_vote, undone_at=None) == vote


def test_a_second_vote_on_two_runs_takes_the_place_of_ones_first(store: Store) -> None:
    others = [Vote("a", "b", "left", "bob"), Vote("a", "c", "left", "ada")]
    first, second = Vote("a", "b", "left", "ada"), Vote("b", "a", "skip", "ada")
    for vote in (*others, first, second):
        store.votes.add(vote)
    assert store.votes.select(["a", "b", "c"]) == [*others, second]
    undone = [vote for vote in store.votes.select(["a", "b", "c"], undone=True) if vote.undone_at]
    assert [vote.vote_id for vote in undone] == [first.vote_id]


def test_votes_of_many_runs_come_in_the_order_of_their_casting(store: Store) -> None:
    ids = [f"{number:032x}" for number in range(1200)]
    votes = [Vote(ids[-number - 1], ids[number], "left", "ada") for number in range(600)]
    for vote in votes[::200]:
        store.votes.add(vote)
    assert store.votes.select(ids) == votes[::200]


# ---- migrations


def test_the_tables_have_what_is_kept(store: Store, tmp_path: Path) -> None:
    store.add([])
    store.select()
    found = inspect(create_engine(url_of(tmp_path)))
    assert {column["name"] for column in found.get_columns("runs")} == {"seq", "added_at", *(c.name for c in KEPT)}
    assert {index["name"] for index in found.get_indexes("runs")} >= {"runs_run_id", "runs_task_id", "runs_sweep_id"}
    assert {column["name"] for column in found.get_columns("sweeps")} == {
        *("seq", "sweep_id", "added_at", "base_url", "experiment", "size", "ended_at", "plan")
    }
    assert {column["name"] for column in found.get_columns("paces")} == {"service", "next_at", "gap"}
    assert {column["name"] for column in found.get_columns("votes")} == {
        *("seq", "vote_id", "added_at", "undone_at", "seed", "sweep_id", "left_run", "right_run", "choice", "voter")
    }
    assert {column["name"] for column in found.get_columns("scores")} == {
        *("seq", "run_id", "added_at", "value", "name", "scorer", "scored_by", "detail")
    }
    assert {index["name"] for index in found.get_indexes("scores")} == {"scores_run_id"}
    assert {index["name"] for index in found.get_indexes("votes")} == {"votes_vote_id", "votes_left_run"}
    assert len(COLUMNS) == 45


def second(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE runs ADD COLUMN colour TEXT"))


def broken(connection: Connection) -> None:
    second(connection)
    connection.execute(text("ALTER TABLE nosuch ADD COLUMN colour TEXT"))


def versions(path: Path) -> list[int]:
    with sqlite3.connect(path) as connection:
        return [row[0] for row in connection.execute("SELECT version FROM schema_version ORDER BY version")]


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
def test_a_file_of_each_version_is_brought_up_to_date(version: int, tmp_path: Path) -> None:
    migrate(create_engine(url_of(tmp_path)), MIGRATIONS[:version])
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        connection.execute("INSERT INTO runs (run_id, status, prompt) VALUES ('old1', 'completed', 'hi')")
    connection.close()
    run = Store(url_of(tmp_path)).find("old1")
    assert (run.prompt, run.tags, run.metadata) == ("hi", [], {})
    assert versions(tmp_path / "runs.db") == list(range(1, len(MIGRATIONS) + 1))


def test_a_later_migration_runs_once_and_keeps_the_rows(store: Store, tmp_path: Path) -> None:
    store.add([Run(prompt="kept")])
    for _ in range(2):
        migrate(store._engine().execution_options(writes=True), [*MIGRATIONS, second])
    assert prompts(store.select()) == ["kept"]
    assert versions(tmp_path / "runs.db") == [*range(1, len(MIGRATIONS) + 2)]


def test_a_migration_that_breaks_leaves_the_version_before(store: Store, tmp_path: Path) -> None:
    store.add([Run(prompt="kept")])
    with pytest.raises(Exception, match="nosuch"):
        migrate(store._engine().execution_options(writes=True), [*MIGRATIONS, broken])
    assert versions(tmp_path / "runs.db") == [*range(1, len(MIGRATIONS) + 1)]
    assert "colour" not in {column["name"] for column in inspect(store._engine()).get_columns("runs")}
    assert prompts(store.select()) == ["kept"]


def test_a_newer_store_is_refused(store: Store, tmp_path: Path) -> None:
    store.add([Run()])
    migrate(store._engine().execution_options(writes=True), [*MIGRATIONS, second])
    with pytest.raises(StoreError, match=r"newer xpander_magics \(its version is 5, .* up to 4\)\. Upgrade"):
        Store(url_of(tmp_path)).select()
