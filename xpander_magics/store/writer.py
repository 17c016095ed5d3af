"""Many threads' writes in few transactions.

A commit waits for the disk. What hundreds of threads want written at the same time goes into one
transaction: a claim waits for it, for a run must be claimed before it is sent; what has become of a run
doesn't, and of several states of one run only the newest is written.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from typing import Any

from xpander_magics.errors import StoreError
from xpander_magics.results import Run, utc_now
from xpander_magics.store.store import Store
from xpander_magics.store.sweeps import Claim, claim_in, row_of, update_in


class _Claim:
    def __init__(self, run: Run) -> None:
        self.run_id, self.known = run.run_id, run.sent_at
        self.at: datetime | None = None
        self.decided = threading.Event()


class Writer:
    """Writes to a store from a thread of its own, until it is closed.

    Attributes:
        failure: why nothing can be written any more; None while all is well.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wake = threading.Condition()
        self._claims: list[_Claim] = []
        self._rows: dict[str, dict[str, Any]] = {}
        self._busy = self._closed = self._over = False
        self.failure: StoreError | None = None
        self._thread = threading.Thread(target=self._work, name="xpander-writer", daemon=True)
        self._thread.start()

    def claim(self, run: Run) -> bool:
        """Claims a run and sets its ``sent_at``; False where another process has it.

        Raises:
            StoreError: nothing can be written; the run must not be sent.
        """
        claim = _Claim(run)
        with self._wake:
            self._check()
            if self._over:
                raise StoreError("Nothing is claimed any more: the writing to the run store has ended.")
            self._claims.append(claim)
            self._wake.notify_all()
        claim.decided.wait()
        if self.failure is not None and claim.at is None:
            self._check()
        if claim.at is None:
            return False
        run.sent_at = claim.at
        return True

    def update(self, run: Run) -> None:
        """Writes what has become of a run, soon."""
        row = row_of(run)
        with self._wake:
            if not self._over:
                self._rows[run.run_id] = row
                self._wake.notify_all()
                return
        self._store.sweeps.update([run])  # a latecomer's, such as a task's that was stopped at the end

    def release(self, run: Run) -> None:
        """Takes a claim back: the run surely wasn't sent."""
        if run.sent_at is not None:
            self._store.sweeps.release(run)

    def flush(self, longest: float | None = None) -> None:
        """Waits until all is written, ``longest`` seconds at most."""
        with self._wake:
            self._wake.wait_for(lambda: self.failure or not (self._rows or self._claims or self._busy), longest)

    def close(self) -> None:
        """Writes what is left and ends. Raises StoreError where that wasn't possible."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join()
        self._check()

    def _check(self) -> None:
        if self.failure is not None:
            raise StoreError(str(self.failure)) from self.failure

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._claims or self._rows or self._closed)
                claims, self._claims = self._claims, []
                rows, self._rows = self._rows, {}
                if not claims and not rows:
                    self._over = True
                    return
                self._busy = True
            try:
                if self.failure is None:
                    self._write(claims, list(rows.values()))
            except StoreError as error:
                self.failure = error
            except Exception as error:  # a fault of our own; whoever waits for a claim must hear of it
                self.failure = StoreError(f"The run store can't be written: {type(error).__name__}.")
                self.failure.__cause__ = error
            finally:
                for claim in claims:
                    claim.decided.set()
                with self._wake:
                    self._busy = False
                    self._wake.notify_all()

    def _write(self, claims: list[_Claim], rows: list[dict[str, Any]]) -> None:
        # Later than what it replaces, even where the clock was put back: equal claims would both hold.
        asked = {
            claim.run_id: Claim(
                claim.run_id, claim.known, max(utc_now(), (claim.known or _LONG_AGO) + timedelta(microseconds=1))
            )
            for claim in claims
        }
        with self._store.writing() as connection:
            if rows:
                update_in(connection, rows)
            won = claim_in(connection, list(asked.values())) if asked else set()
        for claim in claims:  # now that it is committed; of two for one run the first has it
            if claim.run_id in won:
                won.discard(claim.run_id)
                claim.at = asked[claim.run_id].at


_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)
