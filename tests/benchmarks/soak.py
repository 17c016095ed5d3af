"""A long working day in one kernel: sweeps with faults, interrupts, widgets, and what is left of them at rest.

Run it as a script: ``python tests/benchmarks/soak.py --minutes 60``; it needs Linux, for it reads ``/proc``.

A real kernel talks to ``SweepService``, which refuses, resets, cuts, hangs, answers 5xx and 429 and works late. A
round is a sweep with scores in one of the modes, interrupted now and then, gone on with and tried again until all
has ended; cells of one run, one of them interrupted; a panel, a board and a vote opened and closed; a comparison and
an export. Then all of it is dropped, and a ``Reading`` is taken: threads, file descriptors, child processes, files in
the folder for temporary ones, rows of the store, its log, memory, and the live objects of this package. An hour at
100 requests a minute is 6,000 calls; they go as fast as they go.

What must be as it was after the rounds that warm up: threads, descriptors, children and files. What must be as
the service has it: rows, none lost, none twice, and no bill without a row. What must not grow with the rounds: the
objects of this package, traced memory, the store's log. A script's run ends with what was wrong, and fails on it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from fault_server import KEY, created, event, finished, stream
from sweep_runner import billed_again, complaints
from sweep_service import SETTLE, SweepService
from test_kernel import Kernel, running_kernel

from xpander_magics.contract import MODES
from xpander_magics.store import Store

WARM = 1
"""Rounds until the readings can be compared."""

MOST_TRACED_PER_ROUND = 100_000
"""Bytes that a round may leave: the history of cells grows, and so do the caches of libraries."""

MOST_LOG = 16 << 20
"""Bytes of the store's write-ahead log."""

_SETUP = """
import collections, gc, json, sys, threading, time, tracemalloc
import xpander_magics as xp
from IPython.display import display
from ipywidgets.widgets.widget import _instances
from xpander_magics.session import default_session
from xpander_magics.widgets.board import Board
from xpander_magics.widgets.live import LiveText
from xpander_magics.widgets.running import LiveView

%config XpanderMagics.settle = {settle}
%config XpanderMagics.connect_timeout = 1.0
%config XpanderMagics.read_timeout = 0.5
%config XpanderMagics.retries = 3
rows = [{{"text": f"ticket {{n}}", "label": "bug"}} for n in range({rows})]

def look():
    runs.df, runs.failed, repr(runs), repr(runs[0]), xp.runs(experiment="none")
    for widget in (runs.board(), runs.vote(), xp.panel()):
        display(widget)
        widget.close()
    display(runs.compare(score="exact", expected="label"))
    xp.export(runs, {file!r})

def busy():
    # The kernel closes the sockets of threads that have ended by and by.
    sockets = getattr(get_ipython().kernel.iopub_thread, "_event_pipes", {{}})
    return any("xpander" in t.name for t in threading.enumerate()) or not all(t.is_alive() for t in list(sockets))

def at_rest():
    sys.last_value = sys.last_traceback = sys.last_exc = None
    # What cells have shown; the newest hold their runs, some of which have said more than others.
    for widget in [one for one in _instances.values() if isinstance(one, (Board, LiveText))]:
        widget.close()
    LiveView._shown.clear()
    until = time.monotonic() + 60
    while busy() and time.monotonic() < until:
        time.sleep(0.02)
    default_session().disconnect()
    default_session().store.close()
    for _ in range(3):
        gc.collect()
    kinds = collections.Counter(f"{{type(one).__module__}}.{{type(one).__qualname__}}" for one in gc.get_objects())
    return json.dumps({{
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "traced": tracemalloc.get_traced_memory()[0],
        "widgets": len(_instances),
        "objects": {{kind: count for kind, count in kinds.items() if kind.startswith("xpander_magics.")}},
    }})

get_ipython().kernel.iopub_thread._event_pipe_gc_seconds = 0.1
tracemalloc.start()
"""
_SWEEP = """%%xpander writer --over rows -m openai/gpt-5,openai/gpt-5-mini -j {jobs} --mode {mode} {more} -o runs
{{{{ text }}}}"""
_ONE = "%%xpander writer --mode stream -o one\nhello"
_WHAT = ("start", "look", "list", "stop")


@dataclass
class Reading:
    """What there is at rest, after a round.

    Attributes:
        calls: how many tasks the service has started so far.
        threads: the names of Python's; ``tasks`` counts the system's, too.
        files: what the file descriptors are, sockets and pipes by their kind alone.
        children: processes that the kernel has, and has not waited for.
        left: files in the folder for temporary ones.
        log: bytes of the store's write-ahead log, before the store was closed.
        rss, traced: bytes.
        objects: how many there are of each class of this package.
        wrong: what doesn't hold of the rows.
    """

    calls: int
    threads: list[str]
    tasks: int
    files: Counter[str]
    children: int
    left: list[str]
    log: int
    rss: int
    traced: int
    widgets: int
    objects: dict[str, int]
    wrong: list[str]

    def __str__(self) -> str:
        live = sum(self.objects.values())
        return (
            f"{self.calls:7,} calls  {self.tasks:3} threads  {self.files.total():3} files  {self.children} children"
            f"  {len(self.left)} left  {self.log / 1e6:5.1f} MB log  {self.rss / 1e6:6.1f} MB rss"
            f"  {self.traced / 1e6:6.2f} MB traced  {self.widgets:3} widgets  {live:6,} objects"
        )


class Soak:
    """Rounds in one kernel, with one service.

    Args:
        folder: for the store, and for what the kernel writes.
        rows: of a sweep, which has twice as many runs.
    """

    def __init__(self, kernel: Kernel, service: SweepService, folder: Path, rows: int) -> None:
        self._kernel, self._service, self._rows = kernel, service, rows
        self._folder = folder
        self._store = Store(f"sqlite:///{folder / 'runs.db'}")
        self._known: set[str] = set()  # the sweeps so far
        self._chance = random.Random("soak")
        (self._pid,) = json.loads(kernel.text("import os; print([os.getpid()])"))
        self._seen: set[str] = set()
        kernel.text(_SETUP.format(settle=SETTLE, rows=rows, file=str(folder / "runs.csv")))
        for _ in range(9):  # the newest grids, boards and live views are held
            kernel.text(_SWEEP.format(jobs=20, mode="sync", more="--score exact --expected label"))
            self._one(0.4, created(), finished())

    def round(self, number: int) -> Reading:
        """One round, and what is left of it."""
        wrong = list(self._sweep(number))
        self._one(created(), event("chunk", "so "), 0.4, finished())
        self._one(created(), event("chunk", "so "), 0.4, finished(status="failed"), fails=True)
        self._interrupted(_ONE, created(), 5.0)
        wrong += self._unbilled()
        log = self._folder / "runs.db-wal"
        size = log.stat().st_size if log.exists() else 0
        self._store.close()
        self._kernel.text("runs = one = None")
        inside = json.loads(self._kernel.text("print(at_rest())"))
        return Reading(
            calls=sum(self._service.service.bills.values()),
            tasks=len(list(Path(f"/proc/{self._pid}/task").iterdir())),
            files=self._files(),
            children=len(Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()),
            left=sorted(path.name for path in (self._folder / "tmp").iterdir()),
            log=size,
            rss=int(Path(f"/proc/{self._pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
            wrong=wrong,
            **inside,
        )

    def _sweep(self, number: int) -> Iterator[str]:
        """A sweep, brought to its end whatever happens; what then doesn't hold of its rows."""
        service, chance = self._service, self._chance
        service.service.ends = ("completed",) * 7 + ("failed", "error", "stopped")
        service.break_again(dict.fromkeys(_WHAT, chance.choice((0.05, 0.1, 0.2))))
        more = chance.choice(("", "--on-interrupt detach ")) + "--score exact --expected label"
        cell = _SWEEP.format(jobs=chance.choice((3, 8, 20)), mode=MODES[number % 3], more=more)
        interrupts = [chance.randint(1, self._rows) if chance.random() < 0.5 else None for _ in range(2)]
        self._run(cell, interrupts[0])
        kept = self._store.sweeps.find(None, None)
        if kept.sweep_id in self._known:
            return  # it was interrupted before any of it was kept
        self._known.add(kept.sweep_id)
        resume = f"%xpander resume {kept.sweep_id} -o runs"
        self._run(resume, interrupts[1])
        service.calm()
        service.service.ends = ("completed",)
        self._kernel.text(f"%config XpanderMagics.read_timeout = 20.0\n{resume}")
        yield from complaints(service.service, self._store.select(sweep_id=kept.sweep_id), 2 * self._rows, over=True)
        self._kernel.text("runs.retry()\nlook()\n%config XpanderMagics.read_timeout = 0.5")
        runs = self._store.select(sweep_id=kept.sweep_id)
        newest = list({run.number: run for run in runs}.values())
        yield from complaints(service.service, newest, 2 * self._rows, over=True)
        yield from billed_again(service.service, runs)
        yield from (f"{run.run_id} is {run.status}" for run in newest if run.status != "completed")
        yield from (f"{run.run_id} has no score" for run in newest if "exact" not in run.scores)
        scores = Counter((score.run_id, score.name) for score in self._store.scores.select(run.run_id for run in runs))
        yield from (f"{score} is kept {count} times" for score, count in scores.items() if count > 1)

    def _one(self, *said: bytes | float, fails: bool = False) -> None:
        """A cell of one run, long enough for its live view to be shown."""
        self._service.on("POST */invoke/stream", stream(*said, work=True))
        answer, _ = self._kernel.run(_ONE)
        assert answer.get("ename") == ("TaskFailed" if fails else None), answer

    def _interrupted(self, cell: str, *said: bytes | float) -> None:
        self._service.on("POST */invoke/stream", stream(*said, work=True))
        self._service.service.ends = ("completed",)
        self._run(cell, 1)

    def _run(self, cell: str, interrupted_at: int | None) -> None:
        """Runs a cell, and interrupts it as the service reads the n-th call from now on."""
        left = [interrupted_at or 0]

        def moment(kind: str, when: str, count: int) -> None:
            if (kind, when) == ("start", "done" if len(left) > 1 else "read"):
                left[0] -= 1
                if left[0] == 0:
                    # Not by its manager, which would make an event loop for this thread, and leave it open.
                    os.kill(self._pid, signal.SIGINT)

        self._service.moment = moment
        answer, _ = self._kernel.run(cell)
        self._service.moment = lambda kind, when, count: None
        assert answer["status"] == "ok" or answer["ename"] in ("Interrupted", "KeyboardInterrupt"), answer

    def _unbilled(self) -> Iterator[str]:
        """What was billed and isn't kept, or was billed twice; forgets the tasks of this round."""
        model = self._service.service
        with model.lock:
            new = {mark: count for mark, count in model.bills.items() if mark not in self._seen}
        kept = {run.run_id for run in self._store.select(run_ids=list(new))}
        yield from (f"{mark} was billed, and isn't kept" for mark in new if mark not in kept)
        yield from (f"{mark} was billed {count} times" for mark, count in new.items() if count > 1)
        self._seen |= new.keys()
        with model.lock:
            model.tasks.clear()
            model.started.clear()
        self._service.log.clear()

    def _files(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for link in Path(f"/proc/{self._pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found[os.readlink(link).partition("[")[0]] += 1
        return found


@contextlib.contextmanager
def soaking(folder: Path, rows: int) -> Iterator[Soak]:
    """A kernel of its own, with its service, and a store and temporary files in ``folder``."""
    (folder / "tmp").mkdir()
    with SweepService("soak", often=2, slow=1, lag=0.1) as service:
        own = {
            "XPANDER_API_KEY": KEY,
            "XPANDER_BASE_URL": service.url,
            "XPANDER_STORE": f"sqlite:///{folder / 'runs.db'}",
            "TMPDIR": str(folder / "tmp"),
            "IPYTHONDIR": str(folder / "ipython"),
        }
        before = dict(os.environ)
        os.environ.update(own)
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)  # what it gathers grows with each round
        try:
            with running_kernel() as kernel:
                yield Soak(kernel, service, folder, rows)
        finally:
            os.environ.clear()
            os.environ.update(before)


def leaks(readings: Sequence[Reading]) -> Iterator[str]:
    """What the readings show that must not be; the first ``WARM`` are for comparison alone."""
    base, *later = readings[WARM - 1 :]
    for number, reading in enumerate(readings):
        yield from (f"round {number}: {what}" for what in reading.wrong)
    for number, reading in enumerate(later, WARM):
        for name in ("threads", "tasks", "files", "children", "left"):
            had, has = getattr(base, name), getattr(reading, name)
            if had != has:
                yield f"round {number}: {name} were {had}, and are {has}"
        if reading.log > MOST_LOG:
            yield f"round {number}: the store's log has {reading.log:,} bytes"
    last = later[-1]
    for kind, count in last.objects.items():
        if count > base.objects.get(kind, 0):
            yield f"{count} of {kind}, and {base.objects.get(kind, 0)} at first"
    grown = (last.traced - base.traced) / len(later)
    if grown > MOST_TRACED_PER_ROUND:
        yield f"traced memory grows by {grown:,.0f} bytes a round"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (default 5)")
    parser.add_argument("--rows", type=int, default=60, help="rows of a sweep, which sends each twice (default 60)")
    chosen = parser.parse_args()
    readings: list[Reading] = []
    until = time.monotonic() + chosen.minutes * 60
    with tempfile.TemporaryDirectory() as folder, soaking(Path(folder), chosen.rows) as soak:
        while time.monotonic() < until or len(readings) < WARM + 2:
            readings.append(soak.round(len(readings)))
            print(readings[-1], *readings[-1].wrong, sep="\n  ", flush=True)
    found = list(leaks(readings))
    print("\n".join(found) or "nothing leaks")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
