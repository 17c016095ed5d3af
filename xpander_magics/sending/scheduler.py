"""Many runs in threads: who is next, how many at once, what becomes of those that are lost, how it ends.

Each thread attends one run at a time. All that they share is changed under one lock; nobody waits for
anything else while holding it.
"""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from xpander_magics.errors import AuthError, StoreError, XpanderError
from xpander_magics.limits import Deadline, Throttle
from xpander_magics.outcomes import HELD
from xpander_magics.plans.grid import Grid
from xpander_magics.plans.plan import Plan
from xpander_magics.results import Run
from xpander_magics.sending.attendance import Halted, Taken
from xpander_magics.sending.planned import Planned
from xpander_magics.service.client import Client
from xpander_magics.store import Store
from xpander_magics.tally import Tally, time_left

# An interrupted kernel answers within two seconds: so long is waited for stops, and so long for threads after that.
_STOP_SECONDS, _END_SECONDS = 1.3, 0.3
_MOST_STOPPERS = 64
# A run that another process has claimed is looked at so often, in seconds; a lost one at most so many times.
_LOOK_AGAIN, _MOST_LOOKS = 2.0, 4
_TICK = 0.1
# Trouble of the service is told of for so long, in seconds.
_FAILS_SECONDS = 20.0


class Attended(Protocol):
    """One run under way, here or in another process."""

    @property
    def run_attended(self) -> Run:
        """The run as it stands."""

    @property
    def is_lost(self) -> bool:
        """Whether it may have been sent, and no task of it is known."""

    @property
    def settles_in(self) -> float:
        """Seconds until a lost one has surely started no task, if none shows up."""

    def attend(self) -> Run:
        """Does what is left to be done."""

    def stop(self, deadline: Deadline) -> bool:
        """Stops its task."""

    def cancel(self) -> None:
        """Ends the following of it."""


class Scheduler:
    """The sending of a sweep, or of what is left of one.

    Args:
        numbers: what is to be done, in the order of sending.
        begun: the runs that have begun before, by number.
        attended: makes ready what ``plan`` says is to be sent.
        held: the runs of this kernel, by id; each is put there as it begins.
        landed: told of each run that has ended, by the thread that attended it.

    Attributes:
        tally: how it stands.
        failure: what has ended all of it; None where nothing did.
    """

    def __init__(
        self,
        client: Client,
        store: Store,
        grid: Grid,
        numbers: Iterable[int],
        *,
        begun: dict[int, Run],
        attended: Callable[[Plan, Callable[[], bool]], Attended],
        held: dict[str, Run],
        tally: Tally,
        landed: Callable[[Run], object] = lambda run: None,
    ) -> None:
        self._client = client
        self._store = store
        self._grid = grid
        self._begun = begun
        self._attended = attended
        self._held = held
        self.tally = tally
        self._landed = landed
        self.failure: BaseException | None = None
        self._lock = threading.Condition()
        self._throttle = Throttle(grid.jobs, client.pacer)
        self._kept = Planned(store, grid, client, numbers, begun, self.fail)
        self._under_way: dict[int, Attended | _Nothing] = {}
        self._later: list[tuple[float, int]] = []
        self._lost: dict[int, Attended] = {}  # what waits there
        self._looks: dict[int, int] = {}
        self._freed: deque[int] = deque()
        self._waiting: dict[str, deque[int]] = {}  # by the conversations that are busy
        self._halted = self._left = False
        self._at_work: set[int] = set()  # the numbers of threads
        self._ended = threading.Event()
        self._ended_at = -math.inf  # when the last run ended
        self._when_ended: Callable[[], None] = lambda: None

    def run(self, watch: Callable[[Tally], object], when_ended: Callable[[], None]) -> None:
        """Sends all of it, and waits for its end, or for an interrupt's.

        Args:
            watch: called about ten times a second, from this thread.
            when_ended: called once no thread of it works any more; after an interrupt that may be after
                this has returned.
        """
        began, tally, before = time.monotonic(), self.tally, self.tally.done
        self._when_ended = when_ended
        try:
            self._kept.begin()
            wanted = min(self._grid.jobs, tally.not_sent)
            self._client.reserve(wanted + 4)
            self._at_work.update(range(wanted))
            if not wanted:
                self._last_one_out()
            self._start_threads()
            watch(tally)
            while not self._ended.wait(_TICK):
                tally.seconds = time.monotonic() - began
                tally.left = time_left(tally.done, tally.total, tally.seconds, before)
                tally.slowed = self._slowed()
                watch(tally)
        except KeyboardInterrupt:
            try:
                self._interrupted(watch)
            except KeyboardInterrupt:  # the second gives up waiting
                self._cancel_all()
        except BaseException:
            self._cancel_all()
            raise
        finally:
            if not self._at_work and not self._ended.is_set():
                self._last_one_out()
            with self._lock:
                for lost in self._lost.values():
                    count(tally, lost.run_attended.status, lost.run_attended.error_type)
                self._lost.clear()
            tally.seconds, tally.left, tally.slowed = time.monotonic() - began, None, ""

    def _slowed(self) -> str:
        """What keeps it from going faster."""
        failed_at = self._client.pacer.failed_at
        if failed_at > self._ended_at and time.monotonic() - failed_at < _FAILS_SECONDS:
            return "the service fails, or doesn't answer; it is asked again"
        with self._lock:
            if self._later and not self._under_way:
                rest = max(self._later[0][0] - time.monotonic(), 0.0)
                return f"making sure of {len(self._later)} whose answer was lost, for {rest:.0f} s"
        if self._throttle.limit < self._grid.jobs:
            return f"slowed by the service (429): {self._throttle.limit} at once"
        return ""

    def _start_threads(self) -> None:
        threads = [
            threading.Thread(target=self._work, args=(number,), name=f"xpander-{number}", daemon=True)
            for number in sorted(self._at_work)
        ]
        try:
            for thread in threads:
                thread.start()
        except BaseException:  # an interrupt, perhaps: nobody must wait for those that will never begin
            with self._lock:
                self._halted = True
                self._at_work.difference_update(n for n, thread in enumerate(threads) if thread.ident is None)
                self._lock.notify_all()
            raise

    def _work(self, mine: int) -> None:
        try:
            while (number := self._next()) is not None:
                self._attend(number)
        except BaseException as error:
            self.fail(error)
        finally:
            with self._lock:
                self._at_work.discard(mine)
                last = not self._at_work
            if last:
                self._last_one_out()

    def _last_one_out(self) -> None:
        try:
            self._when_ended()
        except BaseException as error:
            self.failure = self.failure or error
        self._ended.set()

    def fail(self, error: BaseException) -> None:
        """Ends all of it: nothing more is sent, what is under way is followed to its end."""
        with self._lock:
            self.failure = self.failure or error
            self._halted = True
            self._lock.notify_all()

    def _next(self) -> int | None:
        """The number of the next run; waits for it. None where this thread isn't needed any more."""
        with self._lock:
            while not self._halted:
                if self._throttle.room(len(self._under_way)):
                    number = self._due()
                    if number is not None:
                        self._under_way[number] = _Nothing()  # its place is taken
                        self.tally.under_way = len(self._under_way)
                        return number
                    if not self._later:
                        return None  # what is under way brings its own sequel
                pause = self._later[0][0] - time.monotonic() if self._later else _TICK
                self._lock.wait(min(max(pause, 0.01), _TICK * 5))
            return None

    def _due(self) -> int | None:
        if self._later and self._later[0][0] <= time.monotonic():
            number = heapq.heappop(self._later)[1]
            self._lost.pop(number, None)
            return number
        if self._freed:
            return self._freed.popleft()
        for number in self._kept.numbers:
            thread = self._grid.thread(number)
            if thread is None:
                return number
            if thread not in self._waiting:
                self._waiting[thread] = deque()
                return number
            self._waiting[thread].append(number)
        return None

    def _attend(self, number: int) -> None:
        run: Run | None = None
        later: float | None = None
        try:
            plan = self._kept.plan(number)
            run = self._held[plan.run.run_id] = plan.run
            attended = self._attended(plan, lambda: self._halted)
            with self._lock:
                self._under_way[number] = attended
                if self._left:
                    attended.cancel()
            attended.attend()
            later = self._looked_for(number, attended)
        except Halted:
            pass
        except Taken:
            # Somebody else's: its outcome is read from the store, or it is followed as it is.
            run = self._store.find(self._grid.run_id(number))
            self._begun[number] = self._held[run.run_id] = run
            later = None if run.ended else _LOOK_AGAIN
        except (AuthError, StoreError) as error:
            self.fail(error)
        finally:
            try:
                if run is not None and run.ended and later is None:
                    self._landed(run)
            except StoreError as error:
                self.fail(error)
            finally:
                self._finish(number, run, later)

    def _looked_for(self, number: int, attended: Attended) -> float | None:
        """In how many seconds a lost run is to be looked for; None where it isn't."""
        looks = self._looks.get(number, 0)
        if not attended.is_lost or looks == _MOST_LOOKS:
            return None
        self._looks[number] = looks + 1
        self._lost[number] = attended
        self._begun[number] = attended.run_attended
        return max(attended.settles_in, _LOOK_AGAIN * looks) + 0.01

    def _finish(self, number: int, run: Run | None, later: float | None) -> None:
        with self._lock:
            if later is not None and not self._halted:
                self._count(number, None)
                heapq.heappush(self._later, (time.monotonic() + later, number))
                self._lock.notify_all()
                return
            self._count(number, run)
            if run is not None:
                self._ended_at = time.monotonic()
                if len(self._held) > HELD and run.ended:
                    self._held.pop(run.run_id, None)  # the store has it
                self._throttle.done(run.status == "completed")
            thread = self._grid.thread(number)
            if thread is not None and thread in self._waiting:
                if self._waiting[thread]:
                    self._freed.append(self._waiting[thread].popleft())
                else:
                    del self._waiting[thread]
            self._lock.notify()

    def _count(self, number: int, run: Run | None) -> None:
        """It isn't under way any more; where a run has come of it, the tally has it once."""
        attended, tally = self._under_way.pop(number, None), self.tally
        tally.under_way = len(self._under_way)
        if attended is None or run is None:
            return
        count(tally, run.status, run.error_type)
        if run.total_tokens is not None:
            tally.tokens = (tally.tokens or 0) + run.total_tokens
        if run.cost_usd is not None:
            tally.cost_usd = (tally.cost_usd or 0.0) + run.cost_usd

    def _interrupted(self, watch: Callable[[Tally], object]) -> None:
        """Sends no more, stops what is under way or leaves it, and waits a moment."""
        until = time.monotonic() + _STOP_SECONDS
        with self._lock:
            self._halted = True
            self._lock.notify_all()
            under_way = {n: one for n, one in self._under_way.items() if not isinstance(one, _Nothing)}
            under_way.update(self._lost)  # they may run all the same
            left = [one for n, one in under_way.items() if self._grid.job(n).terms.on_interrupt == "stop"]
            self.tally.note = f"interrupted: {len(left)} under way" if left else "interrupted"
        watch(self.tally)
        self._stop(left, until)
        self._ended.wait(max(until - time.monotonic(), 0.0) if left else _END_SECONDS)
        self._cancel_all()
        self._ended.wait(_END_SECONDS)
        with self._lock:  # a thread may still wait for the answer of a task that is known to have ended
            for number, one in list(self._under_way.items()):
                if not isinstance(one, _Nothing) and one.run_attended.ended:
                    self._count(number, one.run_attended)
            self.tally.note = ""

    def _stop(self, attended: list[Attended], until: float) -> None:
        left = deque(attended)

        def stop_some() -> None:
            while left and time.monotonic() < until:
                try:
                    left.popleft().stop(Deadline(max(until - time.monotonic(), 0.01)))
                except (IndexError, XpanderError):
                    continue

        stoppers = [threading.Thread(target=stop_some, daemon=True) for _ in range(min(len(attended), _MOST_STOPPERS))]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join(max(until - time.monotonic(), 0.0))

    def _cancel_all(self) -> None:
        with self._lock:
            self._halted = self._left = True
            self._lock.notify_all()
            left = list(self._under_way.values())
        for attended in left:
            attended.cancel()


class _Nothing:
    """In the place of a run that is about to begin."""

    def cancel(self) -> None:
        """Nothing is under way yet; that it is halted will be seen before it is sent."""


def count(tally: Tally, status: str, error_type: str | None) -> None:
    """Adds a run that is done to a tally; one that is still planned isn't."""
    if status == "planned":
        return
    tally.done += 1
    tally.failed += status in ("failed", "error") or (status == "completed" and error_type is not None)
    tally.stopped += status == "stopped"
    tally.unknown += status in ("unknown", "pending", "executing")
    tally.paused += status == "paused"
