"""The runs of a sweep in other processes, or on other machines: any ``concurrent.futures.Executor`` brings them there.

What keeps one run from being sent twice is the store, which all of them share; so are the turns that the
rate limit gives. An executor may run the same call again after one of its workers has died.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from typing import Any

from xpander_magics import errors
from xpander_magics.attendance import Attendance, Taken
from xpander_magics.client import Client
from xpander_magics.config import Key
from xpander_magics.grid import Grid, Job
from xpander_magics.limits import Deadline
from xpander_magics.plan import Plan, redactor
from xpander_magics.results import Run, utc_now
from xpander_magics.store import Store

_LOOK = 0.1
# A turn that is so far away is asked for again later, in seconds: an interrupt must not leave many taken.
_LONGEST_REST = 1.0
_SEEN = 5.0


@dataclass(frozen=True)
class Way:
    """How a worker reaches the service and the store.

    Attributes:
        gap: seconds between two requests of all workers together; 0 for no limit.
    """

    key: Key
    base_url: str
    store: str | None = field(repr=False)  # its URL may hold a password
    settings: tuple[tuple[str, Any], ...]
    gap: float
    pause_wait: float
    settle: float


class SharedPace:
    """Turns that are taken in the store, one after the other over all processes."""

    def __init__(self, store: Store, service: str, gap: float) -> None:
        self._store = store
        self._service = service
        self._gap = gap
        self.refused_at = self.failed_at = -math.inf

    def wait(self, longest: float = math.inf, deadline: Deadline | None = None) -> float:
        """Sleeps until this request's turn; see ``limits.Pace``."""
        began = time.monotonic()
        if not self._gap:
            return 0.0
        rest = self._store.sweeps.turn(self._service, self._gap)
        (deadline or Deadline(math.inf)).rest(min(rest, longest)) if rest > 0 else None
        return time.monotonic() - began

    def told(self, status: int | None, retry_after: float | None = None) -> None:
        """Holds all of them back where the service refuses."""
        if status == 429 or (status == 503 and retry_after is not None):
            self.refused_at = time.monotonic()
            if self._gap:
                self._store.sweeps.turn(self._service, self._gap, put_off=min(retry_after or 1.0, 60.0))
        elif status is None or status >= 500:
            self.failed_at = time.monotonic()


class _Straight:
    """A ledger that writes at once: a worker process attends few runs."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def claim(self, run: Run) -> bool:
        at = utc_now()
        if not self._store.sweeps.claim(run, at):
            return False
        run.sent_at = at
        return True

    def release(self, run: Run) -> None:
        if run.sent_at is not None:
            self._store.sweeps.release(run)

    def update(self, run: Run) -> None:
        self._store.sweeps.update([run])


@functools.lru_cache(maxsize=4)
def _opened(way: Way) -> tuple[Client, Store]:
    """The client and the store of this process."""
    store = Store(way.store)
    client = Client(way.key.reveal(), way.base_url, **dict(way.settings), rate_limit=0)
    client.pacer = SharedPace(store, way.base_url, way.gap)
    client.reserve(64)  # an executor may run threads in this process
    return client, store


def attend(way: Way, job: Job, known: Run | None) -> Run:
    """Attends one run; called in a worker.

    Args:
        known: the run as it was last kept; None where it hasn't begun.

    Returns:
        The run, whatever became of it.

    Raises:
        AuthError, StoreError: what ends the whole sweep.
    """
    client, store = _opened(way)
    redact = redactor([job.terms], (), client, allow_secrets=True)
    plan = job.plan(client, redact, known)
    ledger = _Straight(store)
    try:
        run = Attendance(client, ledger, plan, way.pause_wait, settle=way.settle, halted=lambda: False).attend()
    except Taken:
        # Sent by a worker that has died since, perhaps: whatever it knew is in the store.
        return store.find(job.run_id)
    return run


class Elsewhere:
    """Makes the runs of a grid ready for an executor."""

    def __init__(
        self, executor: Executor, client: Client, store: Store, grid: Grid, pause_wait: float, settle: float
    ) -> None:
        self._executor = executor
        self._grid = grid
        self._client = client
        self._store = store
        self._way = Way(
            key=client.key,
            base_url=client.base_url,
            store=store.url,
            settings=tuple(client.settings.items()),
            gap=client.gap(grid.rpm),
            pause_wait=pause_wait,
            settle=settle,
        )

    def attended(self, plan: Plan, halted: Callable[[], bool]) -> _Remote:
        """One run, attended by the executor."""
        assert plan.run.number is not None
        return _Remote(self._executor, self._client, self._store, self._way, self._grid.job(plan.run.number), plan)


class _Remote:
    """One run in another process."""

    def __init__(self, executor: Executor, client: Client, store: Store, way: Way, job: Job, plan: Plan) -> None:
        self._executor, self._client, self._store, self._way = executor, client, store, way
        self._job = job
        self._plan = plan
        self._cancelled = False
        self._known = plan.run if plan.run.sent_at is not None else None

    @property
    def run_attended(self) -> Run:
        return self._plan.run

    @property
    def is_lost(self) -> bool:
        run = self.run_attended
        return run.sent_at is not None and not run.ended and run.status != "paused" and not self._cancelled

    @property
    def settles_in(self) -> float:
        run = self.run_attended
        if run.sent_at is None or run.task_id is not None:
            return 0.0
        return self._way.settle - (utc_now() - run.sent_at).total_seconds()

    def attend(self) -> Run:
        future = self._executor.submit(attend, self._way, self._job, self._known)
        while True:
            try:
                self._take(future.result(timeout=_LOOK))
                return self.run_attended
            except (NotYet, TimeoutError):
                if self._cancelled:
                    future.cancel()
                    self._reload()
                    return self.run_attended
            except (errors.AuthError, errors.StoreError):
                self._reload()
                raise
            except (Exception, CancelledError) as error:  # the worker has died, or the executor with it
                self._reload()
                if self.run_attended.sent_at is None:
                    told = f"{type(error).__name__}: {error}".strip(": ")
                    raise errors.StoreError(
                        f"The executor could not run it ({told[:300]}); nothing of it was sent.\n"
                        "%xpander resume goes on without the executor."
                    ) from error
                return self.run_attended

    def stop(self, deadline: Deadline) -> bool:
        self._reload()
        run = self.run_attended
        if run.task_id is None or run.ended:
            return run.ended
        from xpander_magics.contract import Task

        run.apply_task(Task(self._plan.redact(self._client.stop(run.task_id, deadline=deadline).raw)))
        self._store.sweeps.update([run])
        return run.ended

    def cancel(self) -> None:
        self._cancelled = True

    def _reload(self) -> None:
        self._take(self._store.find(self._job.run_id))

    def _take(self, run: Run) -> None:
        vars(self._plan.run).update({n: v for n, v in vars(run).items() if n not in ("session", "reused")})
