"""How long something may take, and how fast this kernel may send."""

from __future__ import annotations

import math
import threading
import time

from xpander_magics import errors

# A waiting thread looks so often whether the rate has changed, in seconds.
_LOOK = 1.0


class Deadline:
    """The moment when something must be over, on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._sooner = math.inf

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
        """Seconds until then; 0 or less when it has passed."""
        return min(self._end, self._sooner) - time.monotonic()

    def check(self, *, maybe_sent: bool = False) -> float:
        """The seconds left.

        Raises:
            Timeout: none are.
        """
        left = self.left()
        if left <= 0:
            raise errors.Timeout(f"It took longer than {self.seconds:g} s.", maybe_sent=maybe_sent)
        return left


class Pacer:
    """Keeps requests at least so far apart, over all threads; ``wait`` is called before each is sent.

    No turn is reserved: whoever is awake when one is due takes it. So a wait that is cut short, by a
    deadline or an interrupt, has nothing to give back, and a new rate holds at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gap = 0.0
        self._last = -math.inf

    def set_rate(self, per_minute: float | None) -> None:
        """At most so many requests a minute, evenly spaced; None for no limit."""
        with self._lock:
            self._gap = 60.0 / per_minute if per_minute else 0.0

    def wait(self, longest: float = math.inf) -> float:
        """Sleeps until this request's turn, or for ``longest`` seconds if that comes first.

        Returns:
            The seconds that it took.
        """
        began = time.monotonic()
        while True:
            with self._lock:
                now = time.monotonic()
                if not self._gap:
                    return now - began
                rest = self._last + self._gap - now
                if rest <= 0:
                    self._last = now
                    return now - began
            left = began + longest - now
            if left <= 0:
                return now - began
            # Not a lock's own wait, which Ctrl-C doesn't end on Windows.
            time.sleep(min(rest, left, _LOOK))
