"""The runs of a sweep in other processes, or on other machines: any ``concurrent.futures.Executor`` brings them there.

The scheduler's threads submit one call a run each, and wait for it; ``workers`` says what a call does. What
has come of a run whose worker has died is in the store.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Executor, Future
from urllib.parse import unquote

from xpander_magics import errors
from xpander_magics.limits import Deadline
from xpander_magics.plans.grid import Grid
from xpander_magics.plans.plan import Plan
from xpander_magics.results import Run
from xpander_magics.safety import plain, strings_in
from xpander_magics.sending.attendance import Attendance, Halted
from xpander_magics.sending.workers import Order, Outcome, Way, attend, halted, left
from xpander_magics.service.client import Client
from xpander_magics.store import Store
from xpander_magics.store.sweeps import row_of, update_in

_LOOK = 0.1
# An interrupt holds for longer than any call may take, in seconds.
_FOR_GOOD = 10_000_000.0


def check_executor(executor: object, store: Store) -> None:
    """Says no to what can't run calls, and to a store that other processes can't reach.

    Raises:
        ConfigError: either is so. Nothing was sent.
    """
    if not isinstance(executor, Executor):
        hint = " A dask client gives one: client.get_executor()." if hasattr(executor, "get_executor") else ""
        raise errors.ConfigError(
            f"executor takes a concurrent.futures.Executor, not a value of type {type(executor).__name__}.{hint}"
        )
    scheme, _, place = unquote(store.url).partition("://")
    if scheme.startswith("sqlite") and (not place.strip("/") or ":memory:" in place or "mode=memory" in place):
        raise errors.ConfigError(
            "The run store is in this process's memory, which no worker can reach; nothing was sent.\n"
            "Set XPANDER_STORE to a file, or for workers on other machines to a PostgreSQL database."
        )


class Elsewhere:
    """Makes the runs of a grid ready for an executor.

    Args:
        pause_wait, settle: seconds; see ``Attendance``.
    """

    def __init__(
        self, executor: Executor, client: Client, store: Store, grid: Grid, pause_wait: float, settle: float
    ) -> None:
        self.executor = executor
        self.client = client
        self.store = store
        self.pause_wait = pause_wait
        self.settle = settle
        self._grid = grid
        self._sending = uuid.uuid4().hex
        self._telling = threading.Lock()
        self._told: set[str] = set()
        self._way = Way(
            key=client.key,
            base_url=client.base_url,
            store=store.url,
            settings=tuple(client.settings.items()),
            gap=client.gap(grid.rpm),
        )

    def attended(self, plan: Plan, is_halted: Callable[[], bool]) -> Remote:
        """One run, attended by the executor."""
        assert plan.run.number is not None, "the runs of a sweep have numbers"
        job = self._grid.job(plan.run.number)
        texts = "\n".join([job.prompt, *strings_in({**job.terms.fields, **job.setting})])
        secrets = tuple(self._grid.redact.held_in(texts))
        return Remote(
            self, Order(self._way, job, self._sending, self.pause_wait, self.settle, secrets), plan, is_halted
        )

    def halt(self) -> None:
        """Tells all workers to send nothing more; what they do send was claimed before this returns."""
        self._tell(halted(self._sending))

    def leave(self) -> None:
        """Tells all workers to end the following of what they have sent."""
        self._tell(left(self._sending))

    def _tell(self, name: str) -> None:
        with self._telling, contextlib.suppress(errors.StoreError):  # without the store, nothing can be claimed
            if name not in self._told:
                self.store.sweeps.turn(name, 0.0, put_off=_FOR_GOOD)
                self._told.add(name)


class _Ends:
    """The ledger of a task that is stopped from here: all but its end is the worker's to keep, who knows more of it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def claim(self, run: Run) -> bool:
        """Nothing is sent from here."""
        return False

    def release(self, run: Run) -> None:
        """Nothing was claimed from here."""

    def update(self, run: Run) -> None:
        """Keeps the end of a run that has none yet."""
        if run.ended:
            with self._store.writing() as connection:
                update_in(connection, [{**row_of(run), "is_over": 0}])


class Remote:
    """One run under way elsewhere; see ``scheduler.Attended``."""

    def __init__(self, elsewhere: Elsewhere, order: Order, plan: Plan, is_halted: Callable[[], bool]) -> None:
        self._elsewhere = elsewhere
        self._order = order
        self._plan = plan
        self._is_halted = is_halted
        self._cancelled = threading.Event()
        self._news = threading.Event()  # that the call has ended, or isn't to be waited for
        self._future: Future[Outcome] | None = None

    @property
    def run_attended(self) -> Run:
        """The run as far as it is known here."""
        return self._plan.run

    @property
    def is_lost(self) -> bool:
        """Whether it may have been sent, and no task of it is known."""
        return not self._cancelled.is_set() and self._here.is_lost

    @property
    def settles_in(self) -> float:
        """Seconds until a lost one has surely started no task, if none shows up."""
        return self._here.settles_in

    def attend(self) -> Run:
        """Has a worker do what is left to be done.

        Raises:
            Halted, Taken: it wasn't sent.
            AuthError, StoreError: as ``Attendance.attend``.
            XpanderError: the executor is broken.
        """
        if self._cancelled.is_set() or self._is_halted():
            raise Halted
        began = time.monotonic()
        try:
            self._future = future = self._elsewhere.executor.submit(attend, self._order)
            future.add_done_callback(lambda _: self._news.set())
            while not future.done():
                self._news.wait(_LOOK)
                if self._is_halted():
                    self._elsewhere.halt()
                if self._cancelled.is_set():
                    return self._leave()
            outcome = future.result()
        except Halted:
            raise
        except BaseException as error:  # CancelledError is no Exception everywhere; and a worker may be interrupted
            if self._is_halted():
                return self._leave()
            self._reload("The executor failed")
            raise self._broken(error) from error
        pacer = self._elsewhere.client.pacer
        if outcome.refused and pacer.refused_at < began:  # else it was in this process
            pacer.told(429)
        return self._taken_over(outcome)

    def stop(self, deadline: Deadline) -> bool:
        """Stops its task if there is one, from another thread; True when it surely doesn't run on."""
        self._elsewhere.halt()
        self._reload()
        run = self.run_attended
        if run.sent_at is None and self._future is not None:
            self._future.cancel()
        return run.sent_at is None or run.ended or self._here.stop(deadline)

    def cancel(self) -> None:
        """Ends the following of it soon, from another thread; what is known of it stays."""
        self._cancelled.set()
        self._news.set()

    @property
    def _here(self) -> Attendance:
        """The run attended from this process."""
        self._plan.call.sent_at = self.run_attended.sent_at
        return Attendance(
            self._elsewhere.client,
            _Ends(self._elsewhere.store),
            self._plan,
            self._elsewhere.pause_wait,
            settle=self._elsewhere.settle,
            halted=self._is_halted,
        )

    def _taken_over(self, outcome: Outcome) -> Run:
        """What a worker has sent back, as if it had been done here."""
        if outcome.run is not None:
            self._take(outcome.run)
        run, problem = self.run_attended, outcome.problem
        if isinstance(problem, errors.StoreError) and run.sent_at is not None:
            # The worker couldn't keep it. Perhaps it can be kept from here.
            with contextlib.suppress(errors.StoreError):
                self._elsewhere.store.sweeps.update([run])
        if isinstance(problem, errors.XpanderError):
            problem.run = run if run.sent_at is not None else None
        if problem is not None:
            raise problem
        return run

    def _leave(self) -> Run:
        """Ends the following; raises Halted where nothing was sent."""
        self._elsewhere.halt()
        self._elsewhere.leave()
        if self._future is not None:
            self._future.cancel()
        self._reload("Interrupted")
        if self.run_attended.sent_at is None:
            raise Halted
        return self.run_attended

    def _reload(self, why: str = "") -> None:
        """Takes over what the store knows; ``why`` nothing more will be heard of it."""
        with contextlib.suppress(errors.StoreError):
            self._take(self._elsewhere.store.find(self._order.job.run_id))
        run = self.run_attended
        if why and run.sent_at is not None and not run.ended and run.status != "paused":
            run.status = run.status if run.task_id else "unknown"
            run.error, run.error_type = f"{why}. %xpander resume collects it.", "Interrupted"

    def _take(self, run: Run) -> None:
        if run.ended or not self.run_attended.ended:
            vars(self.run_attended).update({n: v for n, v in vars(run).items() if n not in ("session", "reused")})

    def _broken(self, error: BaseException) -> errors.XpanderError:
        told = plain(self._plan.redact(f"{type(error).__name__}: {error}".strip(": ")))[:300]
        return errors.XpanderError(
            f"The executor can't go on: {told}\n"
            f"What was sent is kept, and nothing is lost. %xpander resume {self._order.job.sweep_id[:8]} goes on "
            "without an executor; runs.resume() does, too."
        )
