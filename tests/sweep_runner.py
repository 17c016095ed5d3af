"""Sweeps against a service with faults, what must hold of them, and processes that are made fast and die hard.

By itself this file is a process that has everything imported, and forks a child for each job that it is told
over a socket. A schedule that failed runs alone with ``python tests/sweep_runner.py MODE JOBS SEED``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_server import KEY
from sweep_service import SETTLE, Model, SweepService

from xpander_magics.cell import Options
from xpander_magics.config import Settings
from xpander_magics.errors import NotFoundError, ServiceError, StoreError
from xpander_magics.outcomes import Runs
from xpander_magics.plans.grid import Grid
from xpander_magics.results import Run
from xpander_magics.session import Session
from xpander_magics.tally import Tally

ENDED = ("completed", "failed", "error", "stopped")
_AT_ONCE = 32

Watch = Callable[[Tally], None]


def session_for(url: str, store: str, *, patient: bool = False, timeout: float = 10.0) -> Session:
    """A session as a kernel has it; a ``patient`` one gives a service without faults all the time it needs."""
    os.environ["XPANDER_API_KEY"] = KEY
    limits = {"connect_timeout": 10.0, "read_timeout": 10.0, "timeout": 30.0} if patient else {}
    given = {"connect_timeout": 1.0, "read_timeout": 0.3, "timeout": timeout, **limits}
    session = Session(Settings(base_url=url, store=f"sqlite:///{store}", settle=SETTLE, retries=3, **given))
    session.client.search_pauses = (0.0, 0.02, 0.05)
    return session


@dataclass(frozen=True)
class Planned:
    """A sweep of 4 runs to ``most``, as its seed has it: another process makes the same of it."""

    seed: str
    mode: str
    jobs: int
    most: int = 12

    @property
    def sweep_id(self) -> str:
        return uuid.UUID(int=random.Random(f"{self.seed} id").getrandbits(128)).hex

    @property
    def size(self) -> int:
        return min(random.Random(f"{self.seed} size").choice((4, 4, 4, 6, 6, 12)), self.most)

    def grid(self, session: Session) -> Grid:
        chance = random.Random(f"{self.seed} options")
        several = chance.random() < 0.5
        options = Options(
            target="agent:00000000-0000-4000-8000-000000000001",
            models=("openai/gpt-5", "openai/gpt-5-mini") if several else ("openai/gpt-5",),
            repeat=1 if several else 2,
            over=[{"t": number} for number in range(self.size // 2)],
            jobs=self.jobs,
            mode=self.mode,
            on_interrupt=chance.choice(("stop", "detach")),
        )
        while True:
            try:
                return dataclasses.replace(session.grid(options, "say {{ t }}", {}), sweep_id=self.sweep_id)
            except ServiceError:  # it can't be asked for its models just now
                continue

    def begin(self, session: Session, watch: Watch) -> bool:
        """Sends it; whether that went through."""
        grid = self.grid(session)
        return tried(lambda: session.sweep(grid, watch))


def tried(act: Callable[[], object]) -> bool:
    """Whether it went through; a store that others write to may refuse, and nothing else may go wrong."""
    try:
        act()
    except (StoreError, NotFoundError):  # the latter where it was killed before it kept anything
        return False
    return True


def interrupting(after: int | None) -> Watch:
    """Watches a sweep, and interrupts it at its n-th look, as a kernel does: in the thread that waits for it."""
    left = [-1 if after is None else after]

    def watch(tally: Tally) -> None:
        left[0] -= 1
        if left[0] == -1:
            raise KeyboardInterrupt

    return watch


def perhaps(chance: random.Random) -> int | None:
    """At which look a sweep is interrupted, if it is."""
    return chance.randint(0, 8) if chance.random() < 0.3 else None


def unwatched(tally: Tally) -> None:
    """For a sweep that nobody watches."""


def complaints(model: Model, runs: list[Run], size: int, *, over: bool, once: bool = True) -> Iterator[str]:
    """What doesn't hold of a sweep's kept runs, as the service has them.

    Args:
        over: whether all has been done to bring each to its end.
        once: whether none was tried again.
    """
    with model.lock:
        bills, tasks = dict(model.bills), {task_id: dict(task) for task_id, task in model.tasks.items()}
    yield from (f"{mark} was billed twice: {model.started[mark]}" for mark, count in bills.items() if count > 1)
    for number, count in Counter(run.number for run in runs).items():
        if (count > 1 and once) or number is None or not 0 <= number < size:
            yield f"number {number} has {count} rows"
    if over and len(runs) != size:
        yield f"{len(runs)} rows for {size} runs"
    for run in runs:
        yield from (f"number {run.number}, {told(run)}: {what}" for what in _untrue(run, bills, tasks, over))


def _untrue(run: Run, bills: dict[str, int], tasks: dict[str, Any], over: bool) -> Iterator[str]:
    billed = bills.get(run.run_id, 0)
    task = tasks.get(run.task_id or "")
    if run.task_id is not None and (task is None or task["payload_extension"]["xpander_magics_run"] != run.run_id):
        yield "its task is another's"
    elif task is not None and run.status in ENDED:
        if task["status"] != run.status:
            yield f"its task is {task['status']}"
        elif task.get("result") is not None and task["result"] != run.result:
            yield f"its task's result is {task['result']!r}"
    elif run.status in ENDED and run.status != "failed":
        yield "it names no task"
    elif run.status == "failed" and billed:
        yield "it names no task, and has one"
    elif run.status == "failed" and not run.error:
        yield "it has no error"
    if run.task_id and not run.attempts:
        yield "it was never sent, and has a task"
    if over and run.status not in ENDED:
        yield f"it has not ended; billed {billed} times"


def billed_again(model: Model, runs: list[Run]) -> Iterator[str]:
    """The numbers that have several tasks, though one of those before the newest is no failure."""
    places: dict[int | None, list[Run]] = {}
    for run in runs:
        places.setdefault(run.number, []).append(run)
    for number, tries in places.items():
        statuses = [task["status"] for run in tries for task in model.of(run.run_id)]
        if any(status not in ("failed", "error", "stopped") for status in statuses[:-1]):
            yield f"number {number} has tasks that are {statuses}: {[told(run) for run in tries]}"


def told(run: Run) -> str:
    sent = run.sent_at.isoformat() if run.sent_at else None
    return f"{run.run_id[:8]} {run.status} task={run.task_id} sent={sent} attempts={run.attempts} {run.error!r}"


def same_everywhere(session: Session, runs: Runs) -> Iterator[str]:
    """Where the rows that the sweep's ``Runs`` and the store give are not the same."""
    shown, kept = runs.df, session.store.frame(sweep_id=runs.sweep_id)
    ordered = kept.set_index("run_id").reindex(shown["run_id"]).reset_index()
    # Not how long it took: a thread of an interrupted kernel, which still waits for an answer, may tell that later.
    names = ["run_id", "status", "task_id", "result", "error", "error_type", "attempts", "metadata"]
    for name in names:
        # Through JSON: what is missing is null then, whatever stands for it.
        if json.loads(shown[name].to_json(date_format="iso")) != json.loads(ordered[name].to_json(date_format="iso")):
            pairs = zip(shown["run_id"], shown["status"], shown[name], ordered[name], strict=True)
            other = [(i[:8], s, a, b) for i, s, a, b in pairs if repr(a) != repr(b)]
            yield f"{name} is shown and kept differently: {other}"


def schedule(seed: int, mode: str, jobs: int, folder: str) -> list[str]:
    """One sweep that a service with faults gets, gone on with while there are some, then without any.

    Returns:
        What didn't hold.
    """
    name = f"{mode} {jobs} {seed}"
    chance, store = random.Random(name), str(Path(folder) / f"{mode}-{jobs}-{seed}.db")
    wrong: list[str] = []
    with SweepService.of_seed(name) as service:
        timeout = chance.choice((1.0, 5.0, 10.0))
        first = session_for(service.url, store, timeout=timeout)
        planned = Planned(name, mode, jobs)
        sweep_id, size = planned.sweep_id, planned.size
        planned.begin(first, interrupting(perhaps(chance)))
        for _ in range(chance.choice((0, 1, 1, 2))):
            at_once = chance.choice((1, 2, 2))
            others = [session_for(service.url, store, timeout=timeout) for _ in range(at_once)]
            resuming = [
                threading.Thread(target=tried, args=(_resuming(other, sweep_id, interrupting(perhaps(chance))),))
                for other in others
            ]
            for thread in resuming:
                thread.start()
            for thread in resuming:
                thread.join()
        wrong += complaints(service.service, first.store.select(sweep_id=sweep_id), size, over=False)
        service.calm()
        wrong += ending(service, store, sweep_id, size, twice=seed % 4 == 0)
    return wrong


def _resuming(session: Session, sweep_id: str, watch: Watch) -> Callable[[], object]:
    return lambda: session.resume(sweep_id, watch)


def ending(service: SweepService, store: str, sweep_id: str, size: int, *, twice: bool = True) -> list[str]:
    """Goes on with a sweep, now that there are no faults; returns what then doesn't hold.

    Args:
        twice: whether another kernel goes on with it after that, and must find nothing to do.
    """
    last = session_for(service.url, store, patient=True)
    runs = last.resume(sweep_id)
    wrong = list(complaints(service.service, last.store.select(sweep_id=sweep_id), size, over=True))
    if not twice:
        last.close()
        return wrong
    fresh = session_for(service.url, store, patient=True)
    posts = sum(service.service.bills.values())
    again = fresh.resume(sweep_id)
    wrong += same_everywhere(fresh, again)
    wrong += [] if sum(service.service.bills.values()) == posts else ["a sweep that had ended was sent again"]
    wrong += [] if runs.df["run_id"].tolist() == again.df["run_id"].tolist() else ["another kernel has other runs"]
    last.close()
    fresh.close()
    return wrong


def schedules(seeds: range, mode: str, jobs: int) -> list[str]:
    """Many schedules at the same time, most of which wait; returns what didn't hold."""

    def one(seed: int) -> list[str]:
        try:
            wrong = schedule(seed, mode, jobs, folder)
        except Exception:
            wrong = [traceback.format_exc()]
        return [f"python tests/sweep_runner.py {mode} {jobs} {seed}: {what}" for what in wrong]

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, ThreadPoolExecutor(_AT_ONCE) as pool:
        return [what for found in pool.map(one, seeds) for what in found]


def do(job: dict[str, Any]) -> Any:
    """A child's work."""
    if job["do"] == "schedules":
        return schedules(range(*job["seeds"]), job["mode"], job["jobs"])
    session = session_for(job["url"], job["store"], timeout=10.0)
    if job["do"] == "begin":
        return Planned(**job["planned"]).begin(session, unwatched)
    return tried(lambda: session.resume(job["sweep_id"]))


class Child:
    """A process that does one job; its ``pid`` is known as soon as it runs."""

    def __init__(self, connection: socket.socket, job: dict[str, Any]) -> None:
        self._connection = connection
        self._reader = connection.makefile("r", encoding="utf-8")
        connection.sendall(json.dumps(job).encode() + b"\n")
        self.pid = int(self._reader.readline())
        self._sending = threading.Lock()
        self._over = False

    def result(self) -> Any:
        """What came of the job, once the process has ended; None where it was killed."""
        line = ""
        with contextlib.suppress(ConnectionResetError):  # it was killed before it had read what it was to do
            line = self._reader.readline()
        with self._sending:
            self._over = True
        self._connection.close()
        return json.loads(line) if line else None

    def signal(self, number: int) -> None:
        """Sends it a signal, unless it has ended."""
        with self._sending:
            if not self._over:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, number)


class Zygote:
    """A process that forks children which have everything imported; a context manager."""

    def __init__(self, folder: str) -> None:
        self._path = str(Path(folder) / "zygote")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self._path)
        self._listener.listen(64)
        command = [sys.executable, __file__, "zygote", str(self._listener.fileno())]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        environment.pop("COVERAGE_PROCESS_CONFIG", None)  # thousands of sweeps go through the same code: only slower
        self._process = subprocess.Popen(command, pass_fds=(self._listener.fileno(),), env=environment)

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.close()

    def child(self, **job: Any) -> Child:
        """A new process that does this."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        return Child(connection, job)


def _be_zygote(listener: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    listener.settimeout(1.0)
    parent = os.getppid()
    while os.getppid() == parent:  # else the tests were killed
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        connection.setblocking(True)
        if os.fork() == 0:
            listener.close()
            _be_child(connection)
        connection.close()


def _be_child(connection: socket.socket) -> None:
    try:
        connection.sendall(f"{os.getpid()}\n".encode())
        with connection.makefile("r", encoding="utf-8") as reader:
            job = json.loads(reader.readline())
        connection.sendall(json.dumps(do(job)).encode() + b"\n")
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "zygote":
        _be_zygote(socket.socket(fileno=int(sys.argv[2])))
    else:
        print("\n".join(schedules(range(int(sys.argv[3]), int(sys.argv[3]) + 1), sys.argv[1], int(sys.argv[2]))))
