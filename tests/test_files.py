"""Files and clocks as unlucky people have them: full disks, folders that can't be written, damage, clocks that jump."""

from __future__ import annotations

import email.utils
import io
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fault_server import FaultServer, Request, drop, reply
from IPython.core.interactiveshell import InteractiveShell
from sqlalchemy import URL, make_url
from traitlets.config import Config

from xpander_magics.analysis.comparison import compare
from xpander_magics.analysis.exports.exports import export
from xpander_magics.analysis.pictures.plots import plot
from xpander_magics.analysis.reports.report import report
from xpander_magics.cell import parse_cell
from xpander_magics.config import Settings
from xpander_magics.doctor import doctor
from xpander_magics.errors import ConfigError, StoreError, XpanderError
from xpander_magics.results import Run, utc_now
from xpander_magics.session import Session, default_session
from xpander_magics.store import Store
from xpander_magics.store.scores import Score
from xpander_magics.store.votes import Vote
from xpander_magics.store.writer import Writer
from xpander_magics.tally import Tally

SPAWN = multiprocessing.get_context("spawn")
NOTHING = {"items": [], "total": 0, "page": 1, "per_page": 50, "total_pages": 1}
Make = Callable[..., Session]


@pytest.fixture
def make(service: FaultServer, environment: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Make]:
    """Sessions that share a store, as kernels do."""
    environment.setenv("XPANDER_API_KEY", service.key)
    made: list[Session] = []

    def session(settle: float = 0.5) -> Session:
        store = f"sqlite:///{tmp_path / 'runs.db'}"
        made.append(Session(Settings(base_url=service.url, store=store, settle=settle, retries=0)))
        made[-1].client.search_pauses = (0.0,)
        return made[-1]

    yield session
    for one in made:
        one.close()


def sweep(session: Session, line: str = "--repeat 2") -> Any:
    return session.sweep(session.grid(parse_cell(f"writer --mode sync {line}"), "hi", {}), patient)


def patient(tally: Tally) -> None:
    """A watch that doesn't wait for ever."""
    if tally.seconds > 60:
        raise KeyboardInterrupt


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def sends(service: FaultServer) -> int:
    return len(service.requests("POST */invoke*"))


# ---- what is made is its owner's alone, and whole


def compared() -> Any:
    asked = [{"run_id": f"r{n}", "requested_model": f"m{n % 2}", "prompt": f"p{n // 2}"} for n in range(8)]
    runs = [Run(**row, status="completed", result="x", scores={"s": n / 8}) for n, row in enumerate(asked)]  # type: ignore[arg-type]
    return compare(runs, score="s")


ENDINGS = ("csv", "jsonl", "parquet", "sqlite", "html", "png")


def write_all(found: Any, folder: Path) -> None:
    for ending in ENDINGS:
        write(found, folder / f"out.{ending}")


def write(found: Any, path: Path) -> None:
    if path.suffix == ".html":
        report(found, path)
    elif path.suffix == ".png":
        plot(found, "scores", file=path)
    else:
        export(found, path)


def test_whatever_the_umask_is_files_are_their_owners_alone(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "out.csv").write_text("old")
    (folder / "out.csv").chmod(0o644)
    (tmp_path / "elsewhere.jsonl").write_text("somebody's")
    (folder / "out.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    found = compared()
    before = os.umask(0)
    try:
        write_all(found, folder)
    finally:
        os.umask(before)
    assert {file.name: mode_of(file) for file in folder.iterdir()} == {f"out.{ending}": 0o600 for ending in ENDINGS}
    assert mode_of(folder) == 0o777  # a folder that was there stays as it was
    assert (tmp_path / "elsewhere.jsonl").read_text() == "somebody's"  # a link is replaced, and not followed


KILLED = """
import sys, time
from pathlib import Path
from xpander_magics.analysis.files import whole_file
with whole_file(Path(sys.argv[1])) as beside:
    beside.write_text("half")
    print(beside, flush=True)
    time.sleep(60)
"""


def test_a_kernel_that_is_killed_while_it_writes_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        beside = Path(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
    assert path.read_text() == "old"
    assert set(tmp_path.iterdir()) == {path, beside}
    assert beside.name.startswith(".out-")
    assert mode_of(beside) == 0o600


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
def test_what_can_not_be_read_is_not_replaced(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.sqlite"
    path.symlink_to("/proc/self/mem")  # nobody can read its beginning, not even root
    with pytest.raises(ConfigError, match=r"out\.sqlite is there and can't be read \(.*\): it isn't replaced"):
        export([Run()], path)
    assert path.is_symlink()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "sqlite"])
def test_a_column_may_have_any_name(ending: str, tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"run_id": ["r"], "result": ["x"], "half \ud800": ["x"], 1: ["y"]})
    path = Path(export(frame, tmp_path / f"out.{ending}"))
    assert path.stat().st_size
    with pytest.raises(ConfigError, match="Two columns are named '1'"):
        export(frame.assign(**{"1": "z"}), path)


# ---- a full disk


def fill_the_disk() -> None:
    """What is written beyond 8 kB of a file fails from here on, in this process."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def free_the_disk() -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


class Cells:
    """A shell whose cells are typed, and what it says."""

    def __init__(self) -> None:
        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "nocolor"
        default_session().close()  # others may have used it in this process
        self.shell = InteractiveShell(config=config)
        self.ns: dict[str, Any] = self.shell.user_ns
        self.said("%load_ext xpander_magics")

    def said(self, source: str) -> str:
        out = io.StringIO()
        with redirect_stdout(out):
            self.shell.run_cell(source)
        return out.getvalue()


def live_with_a_full_disk(folder: Path) -> None:
    """Ends with 0 where nothing of it was lost."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with FaultServer() as service:
        os.environ |= {"XPANDER_API_KEY": service.key, "XPANDER_BASE_URL": service.url}
        cells, store = Cells(), Store()
        store.select()
        fill_the_disk()
        said = cells.said("%%xpander writer -o answer\nhi " + "x" * 20_000)
        assert "StoreError" in said, said
        assert "Nothing was sent." in said, said
        assert ("answer" in cells.ns, sends(service)) == (False, 0)
        free_the_disk()

        answer, left = service.service.answer, [1]

        def full_meanwhile(request: Request) -> tuple[int, Any]:
            told = answer(request)
            if request.method == "POST":
                left[0] -= 1
                if not left[0]:
                    fill_the_disk()
            return told

        service.service.answer = full_meanwhile  # type: ignore[method-assign]
        service.service.final = {"status": "completed", "result": "y" * 20_000}
        said = cells.said("%%xpander writer -o answer --mode sync\nhi")
        free_the_disk()
        run = cells.ns["answer"]
        assert (run.status, run.result) == ("completed", "y" * 20_000)
        assert f"%xpander show {run.run_id[:8]} then keeps it" in said, said
        assert store.find(run.run_id).result is None
        cells.said(f"%xpander show {run.run_id[:8]}")
        assert store.find(run.run_id).result == run.result

        left[0] = 5
        said = cells.said("%%xpander writer -o runs --repeat 20 -j 4 --mode sync\nhi")
        free_the_disk()
        runs = cells.ns["runs"]
        assert 0 < sum(run.status == "completed" for run in runs) < 20
        assert "What is done is in this kernel; then %xpander resume" in said, said
        cells.said("%xpander resume runs")
        kept = store.select(sweep_id=runs.sweep_id)
        assert [(run.status, run.result) for run in kept] == [("completed", "y" * 20_000)] * 20
        assert len(service.service.tasks) == 21

    out = folder / "out"
    out.mkdir()
    for ending in ENDINGS[:4]:
        (out / f"out.{ending}").write_text("old")
    found = [Run(prompt=os.urandom(9_000).hex()) for _ in range(4)]
    fill_the_disk()
    for ending in ENDINGS[:4]:
        with pytest.raises(ConfigError, match=r"can't (be written|hold these runs)"):
            export(found, out / f"out.{ending}")
    assert {file.name: file.read_text() for file in out.iterdir()} == {f"out.{end}": "old" for end in ENDINGS[:4]}


def test_on_a_full_disk_nothing_that_was_paid_for_is_lost(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    process = SPAWN.Process(target=live_with_a_full_disk, args=(tmp_path,))
    process.start()
    process.join(300)
    assert process.exitcode == 0


# ---- a home that can't be written


def test_a_home_that_can_not_be_written_costs_nothing(
    service: FaultServer, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "XPANDER_CACHE"):
        environment.setenv(name, str(tmp_path / "file" / "home"))  # nobody can write there, not even root
    environment.delenv("XPANDER_STORE")
    environment.setenv("XPANDER_API_KEY", service.key)
    environment.setenv("XPANDER_BASE_URL", service.url)
    cells = Cells()
    for line in ("%%xpander writer\nhi", "%%xpander writer --repeat 2\nhi", "%xpander runs"):
        said = cells.said(line)
        assert "StoreError: The run store" in said, said
        assert "XPANDER_STORE" in said
    assert "can't be used" in cells.said("%xpander status")
    assert "Set XPANDER_CACHE" in cells.said("%xpander local")
    assert sends(service) == 0
    told: list[str] = []
    assert not doctor(told.append)
    wrong = [line for line in told if line.startswith("!!")]
    assert [line.split()[1] for line in wrong] == ["runs:", "weights:"]
    environment.setenv("XPANDER_STORE", "sqlite://")  # as it advises: kept until the kernel ends
    assert "completed" in cells.said("%%xpander writer\nhi")
    cells.said("%unload_ext xpander_magics")


def test_a_home_may_have_any_name(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.delenv("XPANDER_STORE")
    environment.delenv("XDG_DATA_HOME", raising=False)
    # An address of SQLAlchemy's holds no question mark before 2.1.
    asked = make_url(URL.create("sqlite", database="q?x").render_as_string()).database or ""
    for name in ("a b", "ü", asked, "h#y", "p%41", "at@x", "co:lon"):
        environment.setenv("HOME", str(tmp_path / name))
        stores = [Store(), Store(Store().url), Store("sqlite:///~/other.db")]
        for store in stores:
            store.add([Run()])
            store.close()
        assert [len(Store().select()), len(stores[2].select())] == [2, 1]
        assert {path.name for path in (tmp_path / name).rglob("*.db")} == {"runs.db", "other.db"}


def test_a_relative_store_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = Store("sqlite:///runs.db")
    store.add([Run()])
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.add([Run()])
    assert len(store.select()) == 2
    assert [path.parent for path in tmp_path.rglob("runs.db")] == [tmp_path]


# ---- damage


DAMAGE = {
    "created_at = 9223372036854775807": "created_at",
    "started_at = 'soon'": "started_at",
    "total_tokens = 'many'": "total_tokens",
    "cost_usd = x'00'": "cost_usd",
    "is_byok = 'maybe'": "is_byok",
    "prompt = cast(x'41ff42' as text)": "prompt",
    "result = x'41ff42', status = x'ff'": "status, result",
}


def damaged(path: Path, change: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    connection.close()


@pytest.mark.parametrize("change", DAMAGE)
def test_a_damaged_row_does_not_hide_the_others(change: str, tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'runs.db'}")
    runs = [Run(prompt=f"p{number}", is_byok=True, total_tokens=number) for number in range(5)]
    store.add(runs)
    damaged(tmp_path / "runs.db", f"UPDATE runs SET {change}, scores = '[1]', metadata = '{{broken' WHERE seq = 3")
    others = [run.prompt for run in runs if run is not runs[2]]
    named = rf"{runs[2].run_id[:12]} \({DAMAGE[change]}\)"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found, frame = store.select(), store.frame()
        bad = store.find(runs[2].run_id)
    assert [run.prompt for run in found if run.run_id != bad.run_id] == others
    assert [prompt for prompt in frame["prompt"] if prompt in others] == others
    assert len(found) == len(frame) == 5
    assert bad.prompt == ("A\ufffdB" if "prompt" in change else "p2")
    with pytest.warns(UserWarning, match=named):
        store.select(run_ids=[runs[2].run_id])
    assert told


def test_a_damaged_claim_is_never_guessed(make: Make, service: FaultServer, tmp_path: Path) -> None:
    runs = sweep(make())
    sent = sends(service)
    damaged(tmp_path / "runs.db", "UPDATE runs SET sent_at = 'soon', status = 'planned', task_id = NULL")
    session = make()
    with pytest.raises(StoreError, match=r"damaged.*none is sent"):
        session.resume(runs.sweep_id, patient)
    damaged(tmp_path / "runs.db", "UPDATE runs SET sent_at = NULL, task_id = cast(x'736563726574ff' as text)")
    with pytest.raises(StoreError, match="Could not decode") as caught:
        session.resume(runs.sweep_id, patient)
    assert "secret" not in str(caught.value)
    assert sends(service) == sent


def test_whatever_bytes_are_damaged_it_is_said(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'whole.db'}")
    runs = [Run(prompt="x" * 300, sweep_id="s", number=number, status="completed") for number in range(60)]
    store.add(runs)
    store.scores.add([Score(run.run_id, "s", 1.0, "exact", "ada") for run in runs])
    store.votes.add(*(Vote(runs[0].run_id, run.run_id, "left", "ada") for run in runs[1:]))
    store.close()
    content = (tmp_path / "whole.db").read_bytes()
    chance = random.Random(6)
    said = 0
    for number in range(40):
        data = bytearray(content)
        if number % 4 == 0:
            data = data[: chance.randrange(len(data))]
        for _ in range(0 if number % 4 == 0 else 20):
            data[chance.randrange(len(data))] = chance.randrange(256)
        (path := tmp_path / f"{number}.db").write_bytes(data)
        broken = Store(f"sqlite:///{path}")
        ids = [run.run_id for run in runs]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for use in (
                broken.select,
                broken.frame,
                lambda: broken.find(ids[5]),  # noqa: B023
                lambda: broken.sweeps.states("s"),  # noqa: B023
                lambda: broken.scores.select(ids),  # noqa: B023
                lambda: broken.votes.select(ids),  # noqa: B023
                lambda: broken.add([Run()]),  # noqa: B023
            ):
                try:
                    use()
                except XpanderError:
                    said += 1
        broken.close()
    assert said


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "places.db"
    for tables in (["places(x)"], ["schema_version(version)"], ["runs(x)"]):
        path.unlink(missing_ok=True)
        connection = sqlite3.connect(path)
        for table in tables:
            connection.execute(f"CREATE TABLE {table}")
        connection.close()
        before = path.read_bytes()
        with pytest.raises(StoreError, match=r"places\.db is another program's database\. Set XPANDER_STORE"):
            Store(f"sqlite:///{path}").add([Run()])
        assert path.read_bytes() == before


def test_in_a_newer_store_nothing_is_written(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'runs.db'}")
    store.add([Run()])
    store.close()
    damaged(tmp_path / "runs.db", "INSERT INTO schema_version VALUES (99, 0)")
    before = (tmp_path / "runs.db").read_bytes()
    for use in (store.select, lambda: store.add([Run()])):
        with pytest.raises(StoreError, match="newer xpander_magics"):
            use()
    assert (tmp_path / "runs.db").read_bytes() == before


MIGRATING = """
import sys, time
from sqlalchemy import create_engine, text
from xpander_magics.store.database import _sqlite_engine, address
from xpander_magics.store.migrations import MIGRATIONS, migrate
def slow(connection):
    MIGRATIONS[1](connection)
    connection.execute(text("UPDATE runs SET prompt = 'half'"))
    print("ready", flush=True)
    time.sleep(60)
migrate(_sqlite_engine(address(sys.argv[1])).execution_options(writes=True), [MIGRATIONS[0], slow])
"""


def test_a_kernel_that_is_killed_while_it_migrates_leaves_the_version_before(tmp_path: Path) -> None:
    from sqlalchemy import create_engine

    from xpander_magics.store.migrations import MIGRATIONS, migrate

    url = f"sqlite:///{tmp_path / 'runs.db'}"
    migrate(create_engine(url), MIGRATIONS[:1])
    damaged(tmp_path / "runs.db", "INSERT INTO runs (run_id, prompt) VALUES ('old1', 'hi')")
    with subprocess.Popen([sys.executable, "-c", MIGRATING, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
    assert Store(url).find("old1").prompt == "hi"


# ---- a store that goes away, or is held


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_nothing_is_written_to_a_store_that_is_gone(how: str, make: Make, service: FaultServer, tmp_path: Path) -> None:
    session = make()
    options = parse_cell("writer --mode sync")
    first = session.run(options, "first", {})
    path = tmp_path / "runs.db"
    if how == "replaced":
        shutil.copy(path, tmp_path / "copy.db")
        os.replace(tmp_path / "copy.db", path)
    elif how == "moved":
        path.rename(tmp_path / "moved.db")
    else:
        path.unlink()
    with pytest.raises(StoreError, match=r"(?s)was deleted, moved or replaced while.*Nothing was sent\."):
        session.run(options, "second", {})
    assert sends(service) == 1
    third = session.run(options, "third", {})
    kept = [run.run_id for run in Store(f"sqlite:///{path}").select()]
    assert kept[-1] == third.run_id
    assert mode_of(path) & 0o600 == 0o600
    assert how == "replaced" or (mode_of(path) == 0o600 and first.run_id not in kept)


def test_what_ended_while_the_store_was_held_is_kept_at_the_end(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'runs.db'}?timeout=0.1")
    run, other = Run(sweep_id="s", number=0), Run(sweep_id="s", number=1)
    store.sweeps.plan([run, other])
    writer = Writer(store)
    assert writer.claim(run)
    backup = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    backup.execute("BEGIN IMMEDIATE")
    run.status, run.result = "completed", "paid for"
    writer.update(run)
    writer.flush()
    assert writer.failure is not None
    with pytest.raises(StoreError, match="locked"):
        writer.claim(other)
    backup.close()
    with pytest.raises(StoreError, match="locked"):
        writer.close()
    assert store.find(run.run_id).result == "paid for"
    assert store.find(other.run_id).sent_at is None


def test_an_update_that_failed_once_is_no_error_where_the_next_is_kept(
    make: Make, service: FaultServer, tmp_path: Path
) -> None:
    session = make()
    session.store.select()
    held: list[sqlite3.Connection] = []

    def listen(run: Run, event: Any, piece: str) -> None:
        if event.type == "task_finished":
            held[0].close()

    session.configure(Settings(base_url=service.url, store=f"sqlite:///{tmp_path / 'runs.db'}?timeout=0.1"))
    session.store.select()

    def begun(request: Request) -> tuple[int, Any]:
        if request.method == "POST":
            held.append(sqlite3.connect(tmp_path / "runs.db", isolation_level=None, check_same_thread=False))
            held[0].execute("BEGIN IMMEDIATE")
        return answer(request)

    answer, service.service.answer = service.service.answer, begun  # type: ignore[method-assign]
    run = session.run(parse_cell("writer --mode stream"), "hi", {}, listen)
    assert (run.status, run.unkept) == ("completed", False)
    assert session.store.find(run.run_id).result == "hi"


# ---- clocks that jump


class Wrong(datetime):
    """A clock that is off by ``by``."""

    by = timedelta(0)

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return datetime.now(tz) + cls.by


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Wrong]]:
    """The clock of this computer, which can be set."""
    for module in ("results", "service.marks", "service.client"):
        monkeypatch.setattr(f"xpander_magics.{module}.datetime", Wrong)
    yield Wrong
    Wrong.by = timedelta(0)


def lost_then(act: Callable[[], None], *, late: float | None) -> Any:
    """Loses the answer; then the clock is set; then, after ``late`` seconds, the service does the work after all."""

    def lose(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        act()
        connection.shutdown(socket.SHUT_RDWR)
        if late is not None:
            server.rest(late)
            server.service.answer(request)
        return False

    return lose


@pytest.mark.parametrize("days", [1, -1])
@pytest.mark.parametrize("late", [0.3, None])
def test_a_clock_that_is_set_neither_sends_twice_nor_waits_for_a_day(
    days: int, late: float | None, make: Make, service: FaultServer, clock: type[Wrong]
) -> None:
    session = make(settle=2.0)

    def set_clock() -> None:
        clock.by = timedelta(days=days)

    service.on("POST */invoke", lost_then(set_clock, late=late))
    runs = sweep(session, "--repeat 1 --timeout 50")
    assert [run.status for run in runs] == ["completed"]
    assert len(service.service.tasks) == 1
    assert sends(service) == (1 if late else 2)


@pytest.mark.parametrize("sent", ["by a clock that was ahead", "where the clock is ahead"])
def test_a_task_is_found_whatever_the_clock_said(sent: str, make: Make, service: FaultServer, tmp_path: Path) -> None:
    """The kernel died after it had sent it; the next must not send it again."""
    service.on("POST */invoke", drop(work=True))
    service.on("GET /v1/tasks", reply(200, NOTHING), times=99)
    if "where" in sent:
        service.service.clock = -86_400.0
    session = make(settle=60.0)
    grid = session.grid(parse_cell("writer --mode sync --repeat 1"), "hi", {})

    def dies(tally: Tally) -> None:
        if service.service.tasks and service.requests("GET /v1/tasks"):
            raise KeyboardInterrupt

    session.sweep(grid, dies)
    service.forget()
    if "by" in sent.split():
        ahead = int((utc_now() + timedelta(days=1)).timestamp() * 1e6)
        damaged(tmp_path / "runs.db", f"UPDATE runs SET sent_at = {ahead}, status = 'planned', error_type = NULL")
    else:
        # So long ago that the first look decides.
        damaged(tmp_path / "runs.db", "UPDATE runs SET sent_at = sent_at - 600000000, status = 'planned'")
        late = email.utils.formatdate(time.time() - 86_400, usegmt=True)
        service.on("GET /v1/tasks", reply(headers={"Date": late}), times=9)
    sent_before = sends(service)
    runs = make(settle=0.5).resume(grid.sweep_id, patient)
    assert [run.status for run in runs] == ["completed"]
    assert sends(service) == sent_before == 1


def test_doctor_says_that_the_clock_is_wrong(service: FaultServer, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("XPANDER_API_KEY", service.key)
    environment.setenv("XPANDER_BASE_URL", service.url)
    late = email.utils.formatdate(time.time() - 7_200, usegmt=True)
    service.on("GET *", reply(headers={"Date": late}), times=9)
    told: list[str] = []
    assert not doctor(told.append)
    assert [line.split(":")[0] for line in told if line.startswith("!!")] == ["!!   clock"]


def test_turns_are_not_waited_for_where_the_clock_was_put_back(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'runs.db'}")
    store.sweeps.turn("service", 0.06)
    damaged(tmp_path / "runs.db", "UPDATE paces SET next_at = next_at + 7200")
    assert store.sweeps.turn("service", 0.06) < 60
