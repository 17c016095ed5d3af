"""What a sweep's workers do, in other processes or on other machines; ``elsewhere`` is their kernel's side.

Each call attends one run. Whatever has to hold for all processes together is in the store, which they share:

- which run has been claimed, so that none is sent twice. A worker begins with the run as the store has it: the
  call of a worker that has died may be run again (dask does that), and finds what came of it;
- the turns that the rate limit gives, and until when the service has asked everyone to wait;
- whether the sweep was interrupted. A call that has begun can't be cancelled from outside, so each worker looks.

No secret and no prompt is in the name, the repr or the error of a call: executors log all three.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xpander_magics import errors
from xpander_magics.config import Key
from xpander_magics.contract import secrets_in
from xpander_magics.limits import LONGEST_HOLD, UNTOLD, Deadline, Pace
from xpander_magics.plans.plan import Job, Plan
from xpander_magics.results import Run
from xpander_magics.safety import Redactor, secret_variables, secrets_of_url
from xpander_magics.sending.attendance import Attendance, Halted, Taken
from xpander_magics.service.client import Client
from xpander_magics.store import Store
from xpander_magics.store.sweeps import claim_time

# All in seconds. How often a worker looks whether its kernel was interrupted.
_LOOK = 1.0
# How long a worker believes what it has read of the service's refusals.
_FRESH = 0.25
_CONNECTIONS = 64  # an executor may have many threads in a process


@dataclass(frozen=True)
class Way:
    """How a worker reaches the service and the store.

    Attributes:
        store: the store's address, which may hold a password.
        settings: the other arguments of ``Client``.
        gap: seconds between two requests of all workers together; 0 for no limit.
    """

    key: Key
    base_url: str
    store: str = field(repr=False)
    settings: tuple[tuple[str, Any], ...]
    gap: float


@dataclass(frozen=True, repr=False)
class Order:
    """One run for a worker, with all that it needs.

    Attributes:
        sending: names the sweep's being sent from one kernel, which may be interrupted.
        pause_wait, settle: seconds; see ``Attendance``.
        secrets: those of the kernel's secrets that the job's texts hold, and the model so may repeat.
        token: differs with each order. dask would take equal calls for one, and answer from its memory.
    """

    way: Way
    job: Job
    sending: str
    pause_wait: float
    settle: float
    secrets: tuple[str, ...]
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __repr__(self) -> str:
        return f"Order({self.job.run_id[:8]!r})"

    def __dask_tokenize__(self) -> str:
        """What dask names the call by."""
        return self.token


class Outcome(NamedTuple):
    """What a worker sends back. Errors, too: executors log those that are raised, and some can't carry all of them.

    Attributes:
        run: as it stands; None where the worker couldn't even read it.
        problem: what the parent is to raise: ``Halted``, ``Taken``, or what ends the sweep.
        refused: whether the service refused a request meanwhile, for which fewer should be under way.
    """

    run: Run | None
    problem: Exception | None
    refused: bool = False

    def __repr__(self) -> str:
        return f"Outcome({self.run.run_id[:8] if self.run else None!r})"


class SharedPace:
    """The pace of all processes together, by the store, and of this process besides.

    Args:
        own: the pace of this process; it learns from refusals how fast to go.
        gap: seconds between two requests of all processes; 0 where only refusals hold them back.
    """

    def __init__(self, own: Pace, store: Store, service: str, gap: float) -> None:
        self._own = own
        self._sweeps = store.sweeps
        self._service = service
        self._gap = gap
        self._looked_at = self._held_until = -math.inf

    @property
    def refused_at(self) -> float:
        return self._own.refused_at

    @property
    def failed_at(self) -> float:
        return self._own.failed_at

    def wait(self, longest: float = math.inf, deadline: Deadline | None = None) -> float:
        """Sleeps until this request's turn; see ``limits.Pace``."""
        began = time.monotonic()
        until, cancel = began + longest, deadline or Deadline(math.inf)
        try:
            self._nap(self._held(), until, cancel)
            self._own.wait(max(until - time.monotonic(), 0.0), deadline)
            rest = self._turn()
            while rest > 0 and self._nap(rest, until, cancel):
                # The service may have refused somebody else meanwhile: then the turns begin anew.
                rest = self._turn() if self._held() > 0 else 0.0
        except errors.StoreError:
            # Nothing can be claimed now. But what is under way can be followed, if not too fast.
            self._nap(self._gap, until, cancel)
        return time.monotonic() - began

    def told(self, status: int | None, retry_after: float | None = None) -> None:
        """Hears how a request ended, and holds all of them back where the service refuses; see ``limits.Pace``."""
        self._own.told(status, retry_after)
        if status == 429 or (status == 503 and retry_after is not None):
            hold = UNTOLD if retry_after is None else min(retry_after, LONGEST_HOLD)
            with contextlib.suppress(errors.StoreError):
                for name in (self._service, self._refusals) if hold > 0 else ():
                    self._sweeps.turn(name, self._gap, put_off=hold)
            self._looked_at = -math.inf

    @property
    def _refusals(self) -> str:
        return f"{self._service} refuses"

    def _turn(self) -> float:
        """Seconds until the turn that is taken."""
        return self._sweeps.turn(self._service, self._gap) if self._gap else 0.0

    def _held(self) -> float:
        """Seconds that the service wants everyone to wait."""
        now = time.monotonic()
        if now - self._looked_at > _FRESH:
            held = min(self._sweeps.held(self._refusals), LONGEST_HOLD)  # more, and the clock was put back
            self._held_until, self._looked_at = now + held, now
        return self._held_until - now

    def _nap(self, seconds: float, until: float, cancel: Deadline) -> bool:
        """Rests; False where that was cut short, so that the caller is to give up."""
        left = until - time.monotonic()
        if seconds > 0:
            cancel.rest(min(seconds, max(left, 0.0)))
        return seconds <= left and not cancel.cancelled


class _Ledger:
    """Writes at once: a worker attends few runs.

    Attributes:
        failure: why the run as it now stands isn't kept; None where it is.
    """

    def __init__(self, store: Store, sending: str) -> None:
        self._sweeps = store.sweeps
        self._sending = sending
        self.failure: errors.StoreError | None = None

    def claim(self, run: Run) -> bool:
        """Claims a run, see ``attendance.Ledger``; raises Halted where nothing is to be sent any more."""
        at, halt = claim_time(run.sent_at), halted(self._sending)
        claimed = self._sweeps.claim(run, at, unless=halt)
        if claimed:
            run.sent_at = at
        # In this order: whoever halts the sweep reads afterwards which runs were claimed.
        if self._sweeps.held(halt):
            raise Halted  # and the claim is taken back
        return claimed

    def release(self, run: Run) -> None:
        """Takes a claim back: the run surely wasn't sent."""
        if run.sent_at is not None:
            self._sweeps.release(run)

    def update(self, run: Run) -> None:
        """Keeps what has become of a run."""
        try:
            self._sweeps.update([run])
        except errors.StoreError as error:
            self.failure = error
            raise
        self.failure = None


def halted(sending: str) -> str:
    """The name under which the store has that nothing more is to be sent."""
    return f"{sending} halted"


def left(sending: str) -> str:
    """The name under which the store has that nothing is to be followed any longer."""
    return f"{sending} left"


_opening = threading.Lock()


def _after_fork() -> None:
    global _opening  # noqa: PLW0603  # another thread of the parent may have held it
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# Of each process its own: locks and connections are no forked process's to use, nor to close.
@functools.cache
def _store_of(pid: int, url: str) -> Store:
    return Store(url)


@functools.cache
def _client_of(pid: int, way: Way) -> Client:
    client = Client(way.key.reveal(), way.base_url, **dict(way.settings))
    client.pacer = SharedPace(client.pacer, _store_of(pid, way.store), way.base_url.lower(), way.gap)
    client.reserve(_CONNECTIONS)
    return client


def _opened(way: Way) -> tuple[Client, Store]:
    """The client and the store of this process."""
    with _opening:
        return _client_of(os.getpid(), way), _store_of(os.getpid(), way.store)


def attend(order: Order) -> Outcome:
    """Attends one run, however far it has come; called in a worker, perhaps more than once."""
    if threading.current_thread() is threading.main_thread():
        # A terminal interrupts all processes, and so does Jupyter. What that means is the kernel's to say:
        # it stops the task, or leaves it. A worker that the interrupt kills would break the executor.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    run, began = None, time.monotonic()
    problem: Exception | None = None
    try:
        client, store = _opened(order.way)
        run = _kept(store, order.job.run_id)
        if not run.ended:
            ledger = _Ledger(store, order.sending)
            attendance = Attendance(
                client,
                ledger,
                _plan(order, client, run),
                order.pause_wait,
                settle=order.settle,
                halted=lambda: False,  # the ledger knows
            )
            with _cancellable(attendance, store, order.sending):
                attendance.attend()
            problem = ledger.failure
        return Outcome(run, problem, client.pacer.refused_at > began)
    except (Halted, Taken, errors.XpanderError) as error:
        return Outcome(run, error)


def _kept(store: Store, run_id: str) -> Run:
    """The run as the store has it."""
    try:
        run = store.find(run_id)
    except errors.NotFoundError:
        raise errors.StoreError(
            f"A worker's run store, {store.location}, doesn't have the run that it was to send. The kernel and all "
            "workers must reach the same store: on several machines, a PostgreSQL database."
        ) from None
    if not run.ended:
        run.error = run.error_type = None
    return run


def _plan(order: Order, client: Client, run: Run) -> Plan:
    """A run made ready to be sent, or to be gone on with."""
    known = [*client.secrets().values(), *secret_variables().values(), *secrets_in(order.job.terms.fields)]
    known += [*secrets_of_url(order.way.store), *order.secrets]
    described = dict(vars(run))
    plan = order.job.plan(client, Redactor(known), run)
    vars(run).update(described)  # by the kernel, which knows all its secrets
    return plan


@contextlib.contextmanager
def _cancellable(attendance: Attendance, store: Store, sending: str) -> Iterator[None]:
    """Ends the following of a run soon after the kernel was interrupted."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK):
            with contextlib.suppress(errors.StoreError):
                if store.sweeps.held(left(sending)):
                    attendance.cancel()
                    over.set()

    threading.Thread(target=look, name="xpander-look", daemon=True).start()
    try:
        yield
    finally:
        over.set()
