"""How fast this kernel may send: evenly spaced requests, over all threads."""

from __future__ import annotations

import threading
import time


class Pacer:
    """Keeps requests at least so far apart; ``wait`` is called before each is sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gap = 0.0
        self._next = 0.0

    def set_rate(self, per_minute: float | None) -> None:
        """At most so many requests a minute, evenly spaced; None for no limit."""
        with self._lock:
            self._gap = 60.0 / per_minute if per_minute else 0.0

    def wait(self, longest: float) -> None:
        """Sleeps until this request's turn, or for ``longest`` seconds if that comes first."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap
        if turn > now:
            time.sleep(min(turn - now, max(longest, 0.0)))
