"""How long something may take, how fast this kernel may send, and how much may be under way."""

from __future__ import annotations

import bisect
import contextlib
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol
from urllib.parse import urlsplit

from xpander_magics import errors
from xpander_magics.config import is_loopback

# All in seconds. A waiting thread looks so often whether the rate has changed, and whether it was cancelled.
_LOOK, _STEP = 1.0, 0.1
# What a refusal that names no time, and one that names a very long one, holds requests back for.
UNTOLD, LONGEST_HOLD = 1.0, 60.0
# The gap that refusals teach: how small it may begin, how large it may get, when it is gone.
_LEAST_SPACING, _MOST_SPACING, _LONGEST_GAP, _NO_GAP = 0.02, 1.0, 5.0, 0.01
# A burst of refusals is one event.
_ONE_BURST, _ONE_ROUND = 1.0, 2.0
# After trouble of the service, no more is put under way for so long.
_CALM = 5.0
# What each answer that is no refusal leaves of the learned gap; the mean spacing is that of so many requests.
_EASING, _RECENT = 0.95, 20
# Requests take unequal time to arrive. So much longer is the window than the service's, as a part of it.
_SLACK = 1 / 60


class Deadline:
    """The moment when something must be over, on the monotonic clock.

    Args:
        cancellable: for work in a thread that another will cancel: a sleep then takes no time of the processor
            and ends at once. Not for the main thread: on Windows, Ctrl-C doesn't end such a sleep.
    """

    def __init__(self, seconds: float, *, cancellable: bool = False) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._sooner = math.inf
        self._cancelled = False
        self._cancel = threading.Event() if cancellable else None

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Ends it now, for good; from any thread."""
        self._cancelled = True
        if self._cancel is not None:
            self._cancel.set()

    def shorten(self, seconds: float) -> None:
        """Brings the moment forward, to so many seconds from now at the latest; ``restore`` takes it back."""
        self._sooner = min(self._sooner, time.monotonic() + seconds)

    def restore(self) -> None:
        """Puts the moment back to where it was."""
        self._sooner = math.inf

    def extend(self, seconds: float) -> None:
        """Puts the moment off, by time that doesn't count."""
        self._end += seconds
        self._sooner += seconds

    def left(self) -> float:
        """Seconds until then; 0 or less when it has passed, or was cancelled."""
        return 0.0 if self._cancelled else min(self._end, self._sooner) - time.monotonic()

    def check(self, *, maybe_sent: bool = False) -> float:
        """The seconds left.

        Raises:
            Timeout: none are.
        """
        left = self.left()
        if left <= 0:
            raise self.passed(maybe_sent=maybe_sent)
        return left

    def passed(self, *, maybe_sent: bool = False) -> errors.Timeout:
        """The error that says so."""
        why = "It was cancelled." if self._cancelled else f"It took longer than {self.seconds:g} s."
        return errors.Timeout(why, maybe_sent=maybe_sent)

    def sleep(self, seconds: float) -> None:
        """Sleeps so long, or until the moment comes, or until it is cancelled."""
        until = time.monotonic() + seconds
        while (rest := min(until - time.monotonic(), self.left())) > 0:
            self.rest(min(rest, _LOOK))  # the moment may be brought forward meanwhile

    def rest(self, seconds: float) -> None:
        """Sleeps so long, or until it is cancelled; beyond the moment, too."""
        if self._cancel is not None:
            self._cancel.wait(seconds)
            return
        until = time.monotonic() + seconds
        while not self._cancelled and (rest := until - time.monotonic()) > 0:
            time.sleep(min(rest, _STEP))


class Pace(Protocol):
    """Who says when a request may be sent, and hears how it went; used from many threads."""

    @property
    def refused_at(self) -> float:
        """When the service last answered 429, on the monotonic clock; ``-inf`` before."""

    @property
    def failed_at(self) -> float:
        """When it last answered 5xx, or not at all; as ``refused_at``."""

    def wait(self, longest: float = math.inf, deadline: Deadline | None = None) -> float:
        """Sleeps until a request may be sent, or for ``longest`` seconds if that comes first.

        Args:
            deadline: ends the wait when it is cancelled, but not when it passes. The caller checks it.

        Returns:
            The seconds that it took.
        """

    def told(self, status: int | None, retry_after: float | None = None) -> None:
        """Hears how a request ended.

        Args:
            status: the answer's; None where there was no answer.
            retry_after: the seconds that the service asked to wait, if it did.
        """


class Pacer:
    """Says when the requests of this process may be sent; ``wait`` is called before each.

    A rate keeps them apart, a window counts them, and a refusal (429, or 503 with ``Retry-After``) holds
    them all back and slows them for a while. The strictest of these holds.

    No turn is reserved: whoever is awake when one is due takes it. So a wait that is cut short, by a
    deadline or an interrupt, has nothing to give back, and a new rate holds at once.

    Args:
        period: the seconds of the window.
        clock: for tests.
    """

    def __init__(self, *, period: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.refused_at = self.failed_at = -math.inf
        self._clock = clock
        self._period = period
        self._most = 0
        self._rate: float | None = None
        self._rates: list[float | None] = []  # of those who hold to one for a while
        self._gap = self._learned = 0.0
        self._held_until = self._slowed_at = self._paced_at = -math.inf
        self._sent: deque[float] = deque(maxlen=_RECENT)
        self._limited = False
        self._tickets = 0
        self._begin_anew()
        _pacers.add(self)

    def _begin_anew(self) -> None:
        """What a forked process must not take over: a lock that another thread held, and those who waited."""
        self._lock = threading.Lock()
        self._waiting: list[int] = []

    def set_rate(self, per_minute: float | None) -> None:
        """At most so many requests a minute, evenly spaced; None for no limit."""
        with self._lock:
            self._rate = per_minute
            self._decide()

    @contextlib.contextmanager
    def paced(self, per_minute: float | None) -> Iterator[None]:
        """Holds to a rate for a while; of several at once, and of ``set_rate``'s, the lowest counts."""
        with self._lock:
            self._rates.append(per_minute)
            self._decide()
        try:
            yield
        finally:
            with self._lock:
                self._rates.remove(per_minute)
                self._decide()

    def set_window(self, most: int | None) -> None:
        """At most so many requests in any 60 seconds (``period``); None for no limit.

        Half of them may go at once, the others are evenly spaced.
        """
        with self._lock:
            self._most = most or 0
            self._sent = deque(self._sent, maxlen=max(self._most, _RECENT))
            self._decide()

    def wait(self, longest: float = math.inf, deadline: Deadline | None = None) -> float:
        """Sleeps until this request's turn; see ``Pace``."""
        if not self._limited:
            self._sent.append(self._clock())
            return 0.0
        began, ticket = self._clock(), 0
        sleep = time.sleep if deadline is None else deadline.rest
        try:
            while deadline is None or not deadline.cancelled:
                with self._lock:
                    now = self._clock()
                    rest = self._due() - now
                    if rest <= 0:
                        self._sent.append(now)
                        if self._gap:
                            self._paced_at = now
                        break
                    if not ticket:
                        self._tickets = ticket = self._tickets + 1
                        self._waiting.append(ticket)
                    # Who came later needn't wake up for the turns of those before.
                    rest += bisect.bisect_left(self._waiting, ticket) * self._spacing()
                left = began + longest - now
                if left <= 0:
                    break
                # Not a lock's own wait, which Ctrl-C doesn't end on Windows.
                sleep(min(rest, left, _LOOK))
        finally:
            if ticket:
                with self._lock, contextlib.suppress(ValueError):
                    self._waiting.remove(ticket)
        return self._clock() - began

    def told(self, status: int | None, retry_after: float | None = None) -> None:
        """Hears how a request ended; see ``Pace``."""
        if status is None or status >= 500:
            self.failed_at = self._clock()
        if status == 429:
            self.refused_at = self._clock()
        if status == 429 or (status == 503 and retry_after is not None):
            self._slow_down(UNTOLD if retry_after is None else min(retry_after, LONGEST_HOLD))
        elif self._learned and status is not None and status < 500:
            with self._lock:
                # What comes back while all are held was sent before the refusal, and says nothing of the pace.
                if self._clock() >= self._held_until:
                    eased = self._learned * _EASING
                    self._learned = eased if eased >= _NO_GAP else 0.0
                    self._decide()

    def _slow_down(self, hold: float) -> None:
        with self._lock:
            now = self._clock()
            self._held_until = max(self._held_until, now + hold)
            if now - self._slowed_at < _ONE_BURST:
                return
            self._slowed_at = now
            spacing = _LEAST_SPACING
            if (recent := min(len(self._sent), _RECENT)) > 1:
                mean = (self._sent[-1] - self._sent[-recent]) / (recent - 1)
                spacing = min(max(mean, _LEAST_SPACING), _MOST_SPACING)
            self._learned = min(2 * max(spacing, self._learned), _LONGEST_GAP)
            self._decide()

    def _decide(self) -> None:
        """The gap between two requests, and whether anyone has to wait: a hold implies a learned gap."""
        lowest = min(filter(None, (self._rate, *self._rates)), default=None)
        self._gap = 60.0 / lowest if lowest else 0.0
        self._limited = bool(self._gap or self._most or self._learned)

    def _spacing(self) -> float:
        """How far apart the next requests will be."""
        return max(self._gap, self._learned, self._period / self._most if self._most else 0.0)

    def _due(self) -> float:
        """When the next request may go."""
        due, sent = max(self._held_until, self._paced_at + self._gap), self._sent
        if sent and self._learned:
            due = max(due, sent[-1] + self._learned)
        if not self._most:
            return due
        window, half = self._period * (1 + _SLACK), max(self._most // 2, 1)
        if len(sent) >= half:
            due = max(due, min(sent[-half] + window, sent[-1] + self._period / self._most))
        if len(sent) >= self._most:
            due = max(due, sent[-self._most] + window)
        return due


class Impatient:
    """A pace for one who would rather do without than wait: the completion.

    Args:
        pace: whose turns it takes.
        longest: how many seconds it waits for one.
    """

    def __init__(self, pace: Pace, longest: float) -> None:
        self._pace = pace
        self._longest = longest
        self.told = pace.told

    @property
    def refused_at(self) -> float:
        return self._pace.refused_at

    @property
    def failed_at(self) -> float:
        return self._pace.failed_at

    def wait(self, longest: float = math.inf, deadline: Deadline | None = None) -> float:
        """Waits as ``Pace`` says; raises RateLimitError when it gives up."""
        took = self._pace.wait(min(longest, self._longest), deadline)
        if took >= self._longest:
            raise errors.RateLimitError("Other requests take all that the service allows just now.")
        return took


# Each pacer there is; and one a service, by its address.
_pacers: weakref.WeakSet[Pacer] = weakref.WeakSet()
_shared: weakref.WeakValueDictionary[str, Pacer] = weakref.WeakValueDictionary()
_kept: set[Pacer] = set()
_shared_lock = threading.Lock()


def shared_pacer(base_url: str) -> Pacer:
    """The pacer that all who use this service from this process share."""
    service = base_url.rstrip("/").lower()
    with _shared_lock:
        pacer = _shared.get(service)
        if pacer is None:
            pacer = _shared[service] = Pacer()
            # A port of this machine may soon be another server's: with its last user, its pacer goes.
            if not is_loopback(urlsplit(base_url).hostname or ""):
                _kept.add(pacer)
        return pacer


def _after_fork() -> None:
    global _shared_lock  # noqa: PLW0603  # another thread of the parent may have held it
    _shared_lock = threading.Lock()
    for pacer in _pacers:
        pacer._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Throttle:
    """How many runs may be under way at once: fewer after a refusal, then slowly more again.

    It neither waits nor locks: whoever shares it holds a lock.

    Args:
        most: the limit that it begins with, and never exceeds.
        pace: knows when the service last refused or failed.
        clock: for tests.

    Attributes:
        limit: how many may be under way now, 1 at the least.
    """

    def __init__(self, most: int, pace: Pace, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = self._most = most
        self._pace = pace
        self._clock = clock
        self._seen = pace.refused_at
        self._cut_at = -math.inf
        self._ended = self._grown = 0

    def room(self, under_way: int) -> bool:
        """Whether one more may start."""
        self._look()
        return under_way < self.limit

    def done(self, ok: bool) -> None:
        """Hears that a run has ended; ``limit`` that ended well make room for one more."""
        self._look()
        self._ended += 1
        if not ok or self.limit >= self._most or self._clock() - self._pace.failed_at < _CALM:
            return
        self._grown += 1
        if self._grown >= self.limit:
            self.limit, self._grown = self.limit + 1, 0

    def _look(self) -> None:
        """Halves the limit where the service has refused something since."""
        refused = self._pace.refused_at
        if refused <= self._seen:
            return
        self._seen = refused
        # What was under way at the last cut may be refused, too, and must not cut again.
        if refused - self._cut_at < _ONE_ROUND and self._ended < self.limit:
            return
        self.limit, self._cut_at = max(self.limit // 2, 1), self._clock()
        self._ended = self._grown = 0
