"""Sweeps from their beginning to their ``Runs``: begun, gone on with, tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING

from xpander_magics.contract import ENDED
from xpander_magics.errors import AuthError, ConfigError, StoreError, XpanderError
from xpander_magics.outcomes import Entry, Runs, Sweeping
from xpander_magics.plans.grid import Grid
from xpander_magics.plans.plan import Plan
from xpander_magics.results import Run, has_failed
from xpander_magics.sending.attendance import Attendance
from xpander_magics.sending.execution import Listener
from xpander_magics.sending.scheduler import Attended, Scheduler, count
from xpander_magics.service.client import Client
from xpander_magics.store import Store
from xpander_magics.store.filters import chunks
from xpander_magics.store.sweeps import State
from xpander_magics.store.writer import Writer
from xpander_magics.tally import Tally

if TYPE_CHECKING:
    from concurrent.futures import Executor

Watch = Callable[[Tally], object]
"""Told about ten times a second how a sweep stands."""

_BATCH = 500


class Sweeps:
    """Sends the sweeps of one session.

    Args:
        session: what the ``Runs`` will act through.
        pause_wait, settle: seconds; see ``Engine`` and ``Attendance``.
        executor: runs each call in another process or on another machine, in place of this one.
    """

    def __init__(
        self,
        session: Sweeping,
        client: Client,
        store: Store,
        *,
        pause_wait: float,
        settle: float,
        executor: Executor | None = None,
    ) -> None:
        self._session = session
        self._client = client
        self._store = store
        self._pause_wait = pause_wait
        self._settle = settle
        self._executor = executor
        if executor is not None:
            from xpander_magics.sending.elsewhere import check_executor

            check_executor(executor, store)

    def begin(self, grid: Grid, watch: Watch, listen: Listener | None = None) -> Runs:
        """Sends all of a grid.

        Args:
            listen: hears each event of each run, in the thread that attends it; nothing of what an executor runs.

        Returns:
            Its runs; after an interrupt, too.

        Raises:
            AuthError: the key is refused. StoreError: nothing can be kept. What was done is the error's ``runs``.
        """
        if grid.cached:
            grid.reuse = reusable(grid, self._client, self._store)
        self._store.sweeps.add(grid.sweep_id, self._client.base_url, grid.experiment, len(grid), grid.record())
        runs = Runs(self._session, grid.sweep_id, _entries(grid), {}, grid)
        self._session.begun(runs)
        tally = Tally(total=len(grid))
        for run in self._store.select(run_ids=set(grid.reuse.values())):
            run.reused = True
            runs.held[run.run_id] = run
        tally.done = tally.reused = len(grid.reuse)
        self._catch_up(grid, [(number, runs.held[run_id]) for number, run_id in grid.reuse.items()])
        fresh = [number for number in grid.order() if number not in grid.reuse]
        self._send(grid, fresh, {}, runs, tally, watch, listen)
        self._judge(grid, runs, watch)
        return runs

    def resume(self, sweep_id: str, grid: Grid, runs: Runs | None, watch: Watch) -> Runs:
        """Goes on with a sweep: finished runs are kept, those under way are collected, the others are sent."""
        newest = newest_of(self._store.sweeps.states(sweep_id))
        unkept = _unkept(newest.values(), runs)
        if unkept:  # the store couldn't be written when they ended
            self._store.sweeps.update(unkept)
            newest = newest_of(self._store.sweeps.states(sweep_id))
        grid.ids = {number: state.run_id for number, state in newest.items()}
        whole = _entries(grid)
        if runs is None:
            runs = Runs(self._session, sweep_id, whole, {}, grid)
            self._session.begun(runs)
        elif len(runs) == len(grid):
            runs.entries = whole
        runs.grid = grid
        over = {number for number, state in newest.items() if state.status in ENDED} | grid.reuse.keys()
        begun_ids = [s.run_id for n, s in newest.items() if n not in over and (s.sent_at or s.task_id)]
        begun = {run.number: run for run in self._store.select(run_ids=begun_ids) if run.number is not None}
        for number in over - grid.reuse.keys():  # what ended elsewhere is read anew
            runs.forget_unended(newest[number].run_id)
        runs.held.update({run.run_id: run for run in begun.values()})
        fresh = [number for number in grid.order() if number not in over and number not in begun]
        tally = Tally(total=len(grid), done=len(grid.reuse), reused=len(grid.reuse))
        for number in over - grid.reuse.keys():
            count(tally, newest[number].status, newest[number].error_type)
        if grid.withheld:
            tally.total -= len(fresh)
        if grid.scoring is not None:  # what landed while nobody was there to score it
            landed = {state.run_id: number for number, state in newest.items() if state.status == "completed"}
            for ids in chunks(list(landed)):
                found = [runs.held.get(run.run_id, run) for run in self._store.select(run_ids=ids)]
                self._catch_up(grid, [(landed[run.run_id], run) for run in found if grid.scoring.lacks(run)])
        self._send(grid, [*begun, *([] if grid.withheld else fresh)], begun, runs, tally, watch)
        self._judge(grid, runs, watch)
        unsent = [*fresh, *(number for number, run in begun.items() if run.status == "planned")]
        if grid.withheld and unsent:
            raise ConfigError(
                f"{len(unsent)} runs of sweep {sweep_id[:8]} were never sent, and can't be sent from here: "
                "they hold secrets, which are never kept.\n"
                "Run the cell again with --cached: what has completed is reused, and only the others are sent."
            )
        return runs

    def retry(self, grid: Grid, runs: Runs, watch: Watch) -> None:
        """Sends those of the runs that failed again; each takes its old run's place once it is in.

        What may still be under way is gone on with instead: sent again, it could be billed twice.
        """
        failed = [
            (entry.number, run)
            for entry, run in zip(runs.entries, runs, strict=True)
            if has_failed(run) and entry.number is not None
        ]
        if not failed:
            return
        if grid.withheld:
            raise ConfigError(
                "These runs can't be sent again from here: they hold secrets, which are never kept. "
                "Run the cell again with --cached, which reuses what has completed."
            )
        begun = {number: run for number, run in failed if not run.ended and (run.sent_at or run.task_id)}
        # Two that try one run again, in two kernels or after one has died, give it one id, and so send it once.
        again = replace(grid, ids={n: grid.again(run.run_id) if run.ended else run.run_id for n, run in failed})
        try:
            self._send(again, list(again.ids), begun, runs, Tally(total=len(failed)), watch)
        finally:
            for number, run in failed:
                if _is_in(runs.held.get(again.ids[number])):
                    runs.replace(run.run_id, again.ids[number])
        self._judge(again, runs, watch)

    def _catch_up(self, grid: Grid, landed: Iterable[tuple[int, Run]]) -> None:
        """Scores runs that have ended before, by their numbers here."""
        if grid.scoring is not None:
            scored = [grid.scoring.landed(run, grid.job(number).variables) for number, run in landed]
            self._store.scores.add(chain.from_iterable(scored))

    def _judge(self, grid: Grid, runs: Runs, watch: Watch) -> None:
        """Has the judges score what has landed, once all has; puts into the runs what scoring has to say."""
        if grid.scoring is not None:
            waits = grid.scoring.judges and self._unfinished(grid)
            runs.said = grid.scoring.end(runs, self._session, watch, waits=bool(waits))

    def _send(
        self,
        grid: Grid,
        numbers: list[int],
        begun: dict[int, Run],
        runs: Runs,
        tally: Tally,
        watch: Watch,
        listen: Listener | None = None,
    ) -> None:
        writer = Writer(self._store)
        attended: Callable[[Plan, Callable[[], bool]], Attended]
        if self._executor is None:

            def attended(plan: Plan, halted: Callable[[], bool]) -> Attended:
                return Attendance(
                    self._client,
                    writer,
                    plan,
                    self._pause_wait,
                    settle=self._settle,
                    halted=halted,
                    withheld=grid.withheld,
                    listen=listen,
                )
        else:
            from xpander_magics.sending.elsewhere import Elsewhere

            elsewhere = Elsewhere(self._executor, self._client, self._store, grid, self._pause_wait, self._settle)
            attended = elsewhere.attended
        scheduler = Scheduler(
            self._client,
            self._store,
            grid,
            numbers,
            begun=begun,
            attended=attended,
            held=runs.held,
            tally=tally,
            landed=lambda run: writer.score(grid.scoring.landed(run)) if grid.scoring is not None else None,
        )
        try:
            with self._client.paced(grid.rpm):
                scheduler.run(watch, writer.close)
        finally:
            writer.flush(0.5)
            if scheduler.failure is None or not isinstance(scheduler.failure, XpanderError):
                self._store.sweeps.end(grid.sweep_id, ended=not self._unfinished(grid))
        if scheduler.failure is not None:
            if isinstance(scheduler.failure, XpanderError):
                scheduler.failure.runs = runs
                done = {AuthError: "is kept", StoreError: "is in this kernel"}.get(type(scheduler.failure))
                if done is not None:
                    way = f"What is done {done}; then %xpander resume {grid.sweep_id[:8]} goes on."
                    scheduler.failure.args = (f"{scheduler.failure}\n{way}",)
            raise scheduler.failure

    def _unfinished(self, grid: Grid) -> int:
        return self._store.sweeps.unfinished(grid.sweep_id, len(grid) - len(grid.reuse))


def reusable(grid: Grid, client: Client, store: Store) -> dict[int, str]:
    """The kept runs that asked the same as the runs of a grid, by number."""
    found: dict[int, str] = {}
    numbers = iter(range(len(grid)))
    while chunk := list(islice(numbers, _BATCH)):
        keys = {number: grid.plan(number, client).run.cache_key or "" for number in chunk}
        kept = store.sweeps.cached(list(set(keys.values())))
        found.update({number: kept[key] for number, key in keys.items() if key in kept})
    return found


def _entries(grid: Grid) -> list[Entry]:
    return [
        Entry(None, grid.reuse[number]) if number in grid.reuse else Entry(number, grid.run_id(number))
        for number in range(len(grid))
    ]


def newest_of(states: Sequence[State]) -> dict[int, State]:
    """For each number the run that counts: the newest that has ended or was sent, else the first."""
    newest: dict[int, State] = {}
    for state in states:
        if state.number not in newest or state.status in ENDED or state.sent_at or state.task_id:
            newest[state.number] = state
    return newest


def _unkept(states: Iterable[State], runs: Runs | None) -> list[Run]:
    """The runs that have ended in this kernel, and not in the store."""
    held = runs.held if runs is not None else {}
    found = [held.get(state.run_id) for state in states if state.status not in ENDED]
    return [run for run in found if run is not None and run.ended]


def _is_in(run: Run | None) -> bool:
    return run is not None and (run.ended or run.status == "paused")
