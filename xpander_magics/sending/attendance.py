"""A sweep's run brought to its end, however far it has come: claimed, sent once, found again, followed.

The states, and why no row is billed twice, stand in ARCHITECTURE.md ("Exactly once").
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from datetime import datetime
from typing import Protocol
from weakref import WeakKeyDictionary

from xpander_magics import errors
from xpander_magics.contract import TASK_EVENTS, Event, Task
from xpander_magics.limits import Deadline
from xpander_magics.plans.plan import Plan
from xpander_magics.results import Run, utc_now
from xpander_magics.sending.execution import Execution, Listener, judge
from xpander_magics.service.calls import mark_of
from xpander_magics.service.client import Client

_ALL = 10**9
# How far the clocks of machines that share a store may be apart, in seconds.
_CLOCK_SKEW = 300.0
# Each run's claim, and since when, on the monotonic clock, it is surely that old.
_claims: WeakKeyDictionary[Run, tuple[datetime, float]] = WeakKeyDictionary()


class Halted(Exception):
    """The sweep ended before this run was sent; it stays planned."""


class Taken(Exception):
    """Another process has claimed this run, or it has ended there."""


class Ledger(Protocol):
    """Where runs are claimed and kept."""

    def claim(self, run: Run) -> bool:
        """Sets ``sent_at`` where nobody else has; False where somebody has."""
        ...

    def release(self, run: Run) -> None:
        """Takes a claim back: the run surely wasn't sent."""
        ...

    def update(self, run: Run) -> None:
        """Keeps what has become of a run that was claimed."""
        ...


class Attendance(Execution):
    """One run of a sweep under way.

    Args:
        settle: seconds after which a call that no task shows up for has surely started none.
        halted: whether nothing more is to be sent.
        withheld: whether it lacks secrets, and must not be sent as it is.
        listen: hears each event.
    """

    def __init__(
        self,
        client: Client,
        ledger: Ledger,
        plan: Plan,
        pause_wait: float,
        *,
        settle: float,
        halted: Callable[[], bool],
        withheld: bool = False,
        listen: Listener | None = None,
    ) -> None:
        super().__init__(client, ledger.update, plan, listen, pause_wait)
        self._ledger = ledger
        self._settle = settle
        self._halted = halted
        self._withheld = withheld
        self._cancelled = False
        self._deadline = Deadline(plan.timeout, cancellable=True)
        if self._run.sent_at is not None:
            self._sent_before = self._run.attempts or 1

    @property
    def run_attended(self) -> Run:
        """The run as it stands."""
        return self._run

    @property
    def is_lost(self) -> bool:
        """Whether it may have been sent, and no task of it is known."""
        return self._run.task_id is None and self._run.sent_at is not None and not self._run.ended

    @property
    def settles_in(self) -> float:
        """Seconds until a lost one has surely started no task, if none shows up.

        They are counted by this process since it has known of the claim, for clocks are set, and machines' differ.
        The clock's word is taken only for a claim that is older than that can explain.
        """
        claim, since = _claims.get(self._run, (None, 0.0))
        if claim != self._run.sent_at:
            age = self._age
            since = time.monotonic() - (age if age > self._settle + _CLOCK_SKEW else 0.0)
            self._knows_claim(since)
        return since + self._settle - time.monotonic()

    @property
    def _age(self) -> float:
        """How old the claim is, as the clock says."""
        assert self._run.sent_at is not None
        return (utc_now() - self._run.sent_at).total_seconds()

    def _knows_claim(self, since: float) -> None:
        assert self._run.sent_at is not None
        _claims[self._run] = self._run.sent_at, since

    def attend(self) -> Run:
        """Does what is left to be done.

        Returns:
            The run, whatever became of it.

        Raises:
            Halted, Taken: it wasn't sent from here.
            AuthError: the key is refused (401), which ends the whole sweep.
            StoreError: nothing can be kept, so nothing was sent.
        """
        try:
            self.run()
        except Halted:
            self._release()
            raise
        except errors.AuthError as error:
            if error.status_code == 401:
                if self._run.task_id is None:
                    self._release()  # it is sent once there is a key
                raise
        except errors.XpanderError as error:
            if error.run is None:
                raise
        return self._run

    def _release(self) -> None:
        run = self._run
        self._ledger.release(run)
        self._sent_before = self._plan.call.attempts = 0
        run.sent_at, run.status, run.error, run.error_type, run.attempts = None, "planned", None, None, None

    def stop(self, deadline: Deadline) -> bool:
        """Stops the task if there is one, from another thread; True when it surely doesn't run on."""
        stopped = self._stop(deadline, insist=True)
        if self._run.ended:
            problem = judge(self._run, self._plan.schema, self._plan.redact, asked=self._plan.wants_json)
            if problem is not None:
                self._failed(problem)
        if self._sent:
            self._keep()
        return stopped

    def cancel(self) -> None:
        """Ends the following of it soon, from another thread; what is known of it stays."""
        self._cancelled = True
        self._deadline.cancel()
        if self.is_lost and self._run.status == "planned":
            self._run.status = "unknown"  # it has left, and its answer may be long in coming

    def _limit(self) -> Deadline:
        return self._deadline

    def _events(self, deadline: Deadline) -> Generator[Event]:
        run, call = self._run, self._plan.call
        if run.sent_at is not None:
            self._begun = None  # it was sent from elsewhere, or long ago: how long it took isn't known
            found = self._find(deadline) if run.task_id is None else None
            if run.task_id is not None:
                return self._followed(run.task_id, deadline, found)
            if self._withheld:
                raise Halted
        call.on_leave, call.may_leave = self._leave, self._check_claim
        self._client.wait_turn(call, deadline)
        return self._client.events(call, deadline, self._plan.mode)

    def _leave(self) -> None:
        """Called before each sending: it may be sent if nobody else has done so."""
        self._check_halted()
        if not self._ledger.claim(self._run):
            raise Taken
        self._knows_claim(time.monotonic())
        self._check_halted()  # a claim waits for the disk
        if not self._plan.call.attempts:
            self._begun = time.monotonic()
            self._plan.call.sent_at = self._run.sent_at

    def _check_halted(self) -> None:
        if self._halted() or self._cancelled:
            raise Halted

    def _check_claim(self) -> None:
        """Called as it leaves, the last moment not to: after this, whoever stops it knows that it was sent.

        Once its claim has settled, another may send it, so an old claim is none: the kernel may have been stopped
        since, or the computer may have slept: of that the monotonic clock may know nothing.
        """
        self._check_halted()
        if self._settle and max(self._age, self._settle - self.settles_in) > self._settle / 2:
            raise errors.Timeout("It took too long to be sent.", maybe_sent=False)

    def _find(self, deadline: Deadline) -> Task | None:
        """The task of a run that was claimed; None where it surely has none, an error where that isn't sure."""
        settled = self.settles_in <= 0
        try:
            task, surely = self._client.marks.look(self._plan.call, deadline, most=_ALL)
        except errors.ServiceError as error:
            raise errors.ConnectionFailed(f"Its task can't be looked for: {error}", maybe_sent=True) from None
        if task is not None:
            # From here on it has one, whatever is answered next.
            self._run.apply_task(Task(self._plan.redact(task.raw)))
            self._keep()
        elif not (surely and settled):
            raise errors.ConnectionFailed("Its answer was lost, and no task of it has shown up yet.", maybe_sent=True)
        return task

    def _followed(self, task_id: str, deadline: Deadline, found: Task | None) -> Generator[Event]:
        for event in self._client.follow(task_id, deadline, found):
            mark = mark_of(Task(event.data)) if isinstance(event.data, dict) else None
            if mark not in (None, self._run.run_id):
                raise errors.NotFoundError(
                    "Its conversation has gone on; the service tells of the newest turn alone.", maybe_sent=True
                )
            yield event

    def _tell(self, event: Event, piece: str = "") -> None:
        had = len(self._run.events)
        super()._tell(event, piece)
        if event.type == "chunk" or event.type in TASK_EVENTS:
            del self._run.events[had:]  # the run has it all; of many runs, each piece once more would fill the memory
        if event.task_id and event.task_id == self._run.task_id:
            self._client.marks.learn(event.task_id, self._run.run_id)

    def _service_failed(self, error: errors.ServiceError, deadline: Deadline) -> errors.XpanderError | None:
        if not self._cancelled:
            return super()._service_failed(error, deadline)
        if self._run.task_id is None and not error.maybe_sent:
            raise Halted
        self._settle_answer()
        if self._run.ended:
            return self._outcome()
        self._run.status = self._run.status if self._run.task_id else "unknown"
        self._run.error, self._run.error_type = "Interrupted. %xpander resume collects it.", "Interrupted"
        return None
