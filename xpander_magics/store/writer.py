"""Many threads' writes in few transactions.

A commit waits for the disk. What hundreds of threads want written at about the same time goes into one
transaction: a claim waits for it, for a run must be claimed before it is sent; what has become of a run is
written soon, and of several states of one run only the newest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from xpander_magics.errors import StoreError
from xpander_magics.results import Run
from xpander_magics.store.scores import Score
from xpander_magics.store.store import Store
from xpander_magics.store.sweeps import Claim, claim_in, claim_time, row_of, update_in

# So many seconds a state may wait for others. A kernel that dies meanwhile finds it again at the service.
_SOON = 0.05


class _Asked:
    """A claim that is to be made."""

    def __init__(self, run: Run) -> None:
        self.run_id, self.known = run.run_id, run.sent_at
        self.decided = threading.Event()
        self.at: datetime | None = None

    def claim(self) -> Claim:
        return Claim(self.run_id, self.known, claim_time(self.known))


class Writer:
    """Writes to a store for many threads, until it is closed.

    Attributes:
        failure: why nothing can be written any more; None while all is well.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: list[_Asked] = []
        self._wake = threading.Condition()
        self._rows: dict[str, dict[str, Any]] = {}
        self._scores: list[Score] = []
        self._busy = self._hurried = self._over = False
        self.failure: StoreError | None = None
        # Begins with the first that has something to write: those are no threads that an interrupt reaches, so whoever
        # is interrupted between making this and closing it leaves no thread behind.
        self._thread = threading.Thread(target=self._work, name="xpander-writer", daemon=True)

    def claim(self, run: Run) -> bool:
        """Claims a run and sets its ``sent_at``; False where another process has it.

        Raises:
            StoreError: nothing can be written; the run must not be sent.
        """
        asked = _Asked(run)
        with self._wake:
            self._check()
            if self._over:
                raise StoreError("Nothing is claimed any more: the writing to the run store has ended.")
            self._asked.append(asked)
            self._wake_up()
        asked.decided.wait()
        if asked.at is None:
            self._check()
            return False
        run.sent_at = asked.at
        return True

    def update(self, run: Run) -> None:
        """Writes what has become of a run, soon."""
        with self._wake:
            if not self._over:
                # Read here: of two threads that write one run, what the later has read must be what stays.
                self._rows[run.run_id] = row_of(run)
                if len(self._rows) == 1:
                    self._wake_up()
                return
        self._store.sweeps.update([run])  # a latecomer's, such as a task's that was stopped at the end

    def score(self, scores: Iterable[Score]) -> None:
        """Keeps scores, soon."""
        with self._wake:
            if not self._over:
                self._scores += scores
                self._wake_up()
                return
        self._store.scores.add(scores)

    def release(self, run: Run) -> None:
        """Takes a claim back: the run surely wasn't sent."""
        if run.sent_at is not None:
            self._store.sweeps.release(run)

    def flush(self, longest: float | None = None) -> None:
        """Waits until all is written, ``longest`` seconds at most."""
        with self._wake:
            self._hurried = True
            self._wake.notify_all()
            self._wake.wait_for(lambda: self.failure or not (self._unwritten or self._busy), longest)

    def close(self) -> None:
        """Writes what is left and ends. Raises StoreError where that wasn't possible."""
        with self._wake:
            self._over = True
            self._wake.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        self._check()

    def _wake_up(self) -> None:
        if self._thread.ident is None:
            self._thread.start()
        self._wake.notify_all()

    def _check(self) -> None:
        if self.failure is not None:
            raise StoreError(str(self.failure)) from self.failure

    @property
    def _unwritten(self) -> bool:
        return bool(self._rows or self._scores)

    def _work(self) -> None:
        due = 0.0
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._asked or self._over or (self._unwritten and not self.failure))
                self._wake.wait_for(lambda: self._asked or self._over or self._hurried, max(due - time.monotonic(), 0))
                asked, self._asked = self._asked, []
                rows: dict[str, dict[str, Any]] = {}
                scores: list[Score] = []
                last = self._over
                if last or (not self.failure and (self._hurried or time.monotonic() >= due)):
                    rows, self._rows, self._hurried = self._rows, {}, False
                    scores, self._scores = self._scores, []
                    due = time.monotonic() + _SOON
                if last and not (asked or rows or scores):
                    return
                self._busy = True
            try:
                if self.failure is None or last:  # at the end, once more: what was paid for is worth a try
                    self._write(asked if self.failure is None else [], list(rows.values()), scores)
            except Exception as error:
                self._fail(error)
                if not last:
                    with self._wake:
                        self._rows, self._scores = {**rows, **self._rows}, [*scores, *self._scores]
            finally:
                for one in asked:
                    one.decided.set()
                with self._wake:
                    self._busy = False
                    self._wake.notify_all()

    def _write(self, asked: list[_Asked], rows: list[dict[str, Any]], scores: list[Score]) -> None:
        claims = [one.claim() for one in asked]
        won: set[str] = set()
        if claims or rows:
            with self._store.writing() as connection:
                won = claim_in(connection, claims) if claims else won
                if rows:
                    update_in(connection, rows)
        for one, claim in zip(asked, claims, strict=True):  # now that it is committed
            if one.run_id in won:
                won.discard(one.run_id)  # of two for one run, the first has it
                one.at = claim.at
        # Afterwards, in a transaction of its own: somebody who scores the same runs locks them in another order.
        self._store.scores.add(scores)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, StoreError):  # a fault of our own; whoever waits must hear of it
            cause, error = error, StoreError(f"The run store can't be written: {type(error).__name__}.")
            error.__cause__ = cause
        self.failure = self.failure or error
