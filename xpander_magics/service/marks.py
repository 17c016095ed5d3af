"""Tasks found by their marks: what became of a call whose answer never came.

List Tasks tells neither marks nor prompts, so every task that may be the one has to be asked for by
itself. Whose a task is never changes: what was learnt once isn't asked for again, so that many lost
calls of a sweep don't each look at all of its tasks.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from xpander_magics import errors
from xpander_magics.contract import Record, Task
from xpander_magics.limits import Deadline
from xpander_magics.service.calls import Call, mark_of

if TYPE_CHECKING:
    from xpander_magics.service.resources import Resources

# The pauses before each look for a task whose start got no answer; a slow start may still surface.
LOOKS = (0.0, 0.5, 1.5, 4.0, 8.0)
# How far the clocks of service and client may be apart, and how many tasks one look asks for.
_CLOCK_SKEW = timedelta(minutes=5)
_MOST_CANDIDATES = 200
_SEARCH_SECONDS = 45.0
_REMEMBERED = 100_000


class Marks:
    """Which task has which mark, as far as is known; safe to use from many threads.

    Args:
        service: asks for tasks.
        pauses: seconds before each look of a search.
    """

    def __init__(self, service: Resources, pauses: Sequence[float] = LOOKS) -> None:
        self._service = service
        self._pauses = tuple(pauses)
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}

    def learn(self, task_id: str, mark: Any) -> None:
        """Remembers whose a task is."""
        with self._lock:
            self._known[task_id] = mark
            if len(self._known) > _REMEMBERED:
                del self._known[next(iter(self._known))]

    def find(self, call: Call, deadline: Deadline, *, once: bool = False) -> Task | None:
        """Looks for the task that a call started, as often as there are pauses; None where it doesn't show up."""
        search = Deadline(min(deadline.left(), _SEARCH_SECONDS))
        for pause in self._pauses[:1] if once else self._pauses:
            if pause >= min(search.left(), deadline.left()):
                return None
            deadline.sleep(pause)
            try:
                found, _ = self.look(call, search)
            except errors.ServiceError:
                continue  # the service that lost the answer may be slow to come back
            if found is not None:
                return found
        return None

    def look(self, call: Call, deadline: Deadline, *, most: int = _MOST_CANDIDATES) -> tuple[Task | None, bool]:
        """Looks once for the task that a call started.

        Returns:
            The task, or None; and whether every task was looked at that might be it.

        Raises:
            ServiceError: the service can't be asked.
        """
        thread = call.body.get("id")
        if thread:
            # Within a thread the task's id is the thread's, so one request tells; of its newest turn alone.
            task = self._service.task(thread, deadline=deadline, paced=False)
            return (task, True) if mark_of(task) == call.mark else (None, False)
        behind = self._service.clock_behind
        found = self._look_since(_earliest(call, behind), call, deadline, most)
        if found[0] is None and self._service.clock_behind - behind > _CLOCK_SKEW.total_seconds():
            # Its clock is further behind than was known, as it has just told: some were left out.
            found = self._look_since(_earliest(call, self._service.clock_behind), call, deadline, most)
        return found

    def _look_since(
        self, since: datetime | None, call: Call, deadline: Deadline, most: int
    ) -> tuple[Task | None, bool]:
        filters = {"agent_id": call.target.id}
        if since is not None:
            filters["from_date"] = since.isoformat().replace("+00:00", "Z")
        asked = 0
        for summary in self._service.pages("/v1/tasks", Record, deadline, paced=False, **filters):
            if summary.id in self._known and self._known[summary.id] != call.mark:
                continue
            if asked >= most:
                return None, False
            asked += 1
            task = self._service.task(summary.id, deadline=deadline, paced=False)
            self.learn(summary.id, mark_of(task))
            if mark_of(task) == call.mark:
                return task, True
        return None, True


def _earliest(call: Call, behind: float) -> datetime | None:
    """When the service may have had a call at the earliest, by its own clock; None where that can't be told."""
    now = datetime.now(timezone.utc)
    sent_at = call.sent_at or now
    if sent_at > now + _CLOCK_SKEW:
        return None  # by a clock that was put back since: nobody knows how far ahead it was
    return sent_at - _CLOCK_SKEW - timedelta(seconds=behind)
