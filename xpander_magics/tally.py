"""How a sweep stands at one moment, in numbers; and how numbers of things are written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Tally:
    """How a sweep stands, at one moment.

    Attributes:
        total: the runs of the sweep.
        done: those that ended in whatever way, reused ones among them.
        failed, stopped, unknown, paused: of those done; the rest of them are completed.
        under_way: those sent whose end is awaited.
        reused: of those completed, by ``--cached``; nothing was sent for them.
        seconds: since it began.
        left: seconds until the end, estimated; None while unknown.
        note: what it waits for, say; a few words.
        slowed: why fewer are under way than could be.
    """

    total: int
    done: int = 0
    failed: int = 0
    under_way: int = 0
    reused: int = 0
    tokens: int | None = None
    cost_usd: float | None = None
    seconds: float = 0.0
    left: float | None = None
    note: str = ""
    slowed: str = ""
    stopped: int = 0
    unknown: int = 0
    paused: int = 0

    @property
    def completed(self) -> int:
        """Those that ended well."""
        return max(self.done - self.failed - self.stopped - self.unknown - self.paused, 0)

    @property
    def not_sent(self) -> int:
        """Those that have not begun."""
        return max(self.total - self.done - self.under_way, 0)


def time_left(done: int, total: int, seconds: float, before: int = 0) -> float | None:
    """Seconds until the end at the pace so far; None until two that were sent have ended.

    Args:
        before: so many of those done had ended before it began, or were reused.
    """
    if done >= total:
        return 0.0
    return seconds / (done - before) * (total - done) if done - before >= 2 else None


def counted(count: int, noun: str) -> str:
    """So many of something, in words: ``1 run``, ``2,000 runs``."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def listed(words: Iterable[object]) -> str:
    """Several things in words: ``a, b and c``."""
    *others, last = [str(word) for word in words] or ["nothing"]
    return f"{', '.join(others)} and {last}" if others else last
