"""The sweeps of a store: what each was to send, which of it has been claimed, and the turns that processes share.

A run is sent by whoever has claimed it: ``claim`` moves its ``sent_at`` from what the claimer knew to
now, or fails. A database does one such change after the other, so of any number of threads, kernels
and machines one wins.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from xpander_magics.contract import ENDED
from xpander_magics.errors import ConfigError, NotFoundError, StoreError
from xpander_magics.results import Run, utc_now
from xpander_magics.store.columns import TEXT, pack
from xpander_magics.store.filters import chunks
from xpander_magics.store.store import PERSONS, Store
from xpander_magics.store.tables import paces_table, runs_table, sweeps_table
from xpander_magics.store.values import from_microseconds, to_microseconds

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Select, Update


VERDICTS = "judge-verdicts"
"""The experiment of the runs that a judge's verdicts are: found by name, but not meant by "the newest sweep"."""

# So many wait for a turn at the most, and so many seconds nobody is sent.
_LONGEST_QUEUE, _LONGEST_HOLD = 1_000, 60.0


@dataclass(frozen=True)
class Kept:
    """A sweep as it is kept.

    Attributes:
        size: how many runs it has.
        plan: what ``Grid.record`` wrote; empty where it wasn't asked for.
        ended_at: when its last run ended; None while some haven't.
    """

    sweep_id: str
    base_url: str
    size: int
    added_at: datetime | None
    ended_at: datetime | None
    plan: bytes = b""


class State(NamedTuple):
    """How a run of a sweep stands."""

    number: int
    run_id: str
    status: str
    sent_at: datetime | None
    task_id: str | None
    error_type: str | None


class Sweeps:
    """The sweeps in a store; raises StoreError as the store does."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._paced: set[str] = set()

    def add(self, sweep_id: str, base_url: str, experiment: str | None, size: int, plan: bytes) -> None:
        """Keeps a new sweep."""
        row = {"sweep_id": sweep_id, "base_url": base_url, "experiment": TEXT.pack(experiment), "size": size}
        with self._store.writing() as connection:
            connection.execute(sweeps_table().insert().inline(), [{**row, "plan": plan, "added_at": _now()}])

    def find(self, ref: str | None, base_url: str | None) -> Kept:
        """The sweep of this id or its beginning; without one, the newest of this service that hasn't ended, or without
        a service the newest of all but the judges' own.

        Raises:
            NotFoundError: there is none.
            ConfigError: several ids begin so.
        """
        from sqlalchemy import or_, select

        table = sweeps_table()
        query = select(table).order_by(table.c.seq.desc()).limit(2)
        if ref is None and base_url is None:
            of_judges = table.c.experiment == TEXT.pack(VERDICTS)
            query = query.where(or_(table.c.experiment.is_(None), ~of_judges)).limit(1)
        elif ref is None:
            query = query.where(table.c.base_url == base_url, table.c.ended_at.is_(None)).limit(1)
        else:
            query = query.where(table.c.sweep_id.startswith(TEXT.pack(ref), autoescape=True))
        with self._store.reading() as connection:
            found = [row._asdict() for row in connection.execute(query)]
        if not found and ref is None and base_url is None:
            raise NotFoundError("No sweep is kept here: several models, efforts, repeats or --over make one.")
        if not found and ref is None:
            raise NotFoundError(f"No sweep of {base_url} is unfinished; there is nothing to go on with.")
        if not found:
            raise NotFoundError(f"There is no sweep {ref!r}. The column sweep_id of %xpander runs has their ids.")
        if len(found) > 1:
            raise ConfigError(f"Several sweeps begin with {ref!r}: write more of the id.")
        row = found[0]
        times = (from_microseconds(row["added_at"]), from_microseconds(row["ended_at"]))
        plan = row["plan"] if isinstance(row["plan"], (bytes, memoryview)) else b""  # no plan, as its reader says
        return Kept(row["sweep_id"], row["base_url"], row["size"], *times, plan=bytes(plan))

    def end(self, sweep_id: str, ended: bool) -> None:
        """Keeps whether all runs of a sweep have ended."""
        from sqlalchemy import update

        changed = update(sweeps_table()).where(sweeps_table().c.sweep_id == sweep_id)
        with self._store.writing() as connection:
            connection.execute(changed.values(ended_at=_now() if ended else None))

    def unfinished(self, sweep_id: str, size: int) -> int:
        """How many of a sweep's ``size`` runs have not ended."""
        from sqlalchemy import func, select

        c = runs_table().c
        query = select(func.count(c.number.distinct())).where(c.sweep_id == sweep_id, c.status.in_(ENDED))
        with self._store.reading() as connection:
            return max(size - (connection.execute(query).scalar() or 0), 0)

    def states(self, sweep_id: str) -> list[State]:
        """How the runs of a sweep stand, oldest first; a number that was tried again is there again."""
        from sqlalchemy import select

        c = runs_table().c
        asked = (c.number, c.run_id, c.status, c.sent_at, c.task_id, c.error_type)
        query = select(*asked).where(c.sweep_id == sweep_id, c.number.is_not(None)).order_by(c.seq)
        with self._store.reading() as connection:
            rows = connection.execute(query).all()
        try:
            return [
                State(number, id_, status, from_microseconds(sent), TEXT.unpack(task), TEXT.unpack(kind))
                for number, id_, status, sent, task, kind in rows
            ]
        except (TypeError, OverflowError) as error:  # never guessed: what was sent must not be sent again
            raise StoreError(
                f"The run store is damaged: how the runs of sweep {sweep_id[:8]} stand can't be read, so none is sent."
                "\nxpander_magics.runs() reads what can be read of them."
            ) from error

    def plan(self, runs: Iterable[Run]) -> None:
        """Keeps planned runs, but for those that are kept already."""
        from sqlalchemy import select
        from sqlalchemy.exc import IntegrityError

        planned = {run.run_id: run for run in runs}
        column = runs_table().c.run_id
        for last in (False, True):
            with self._store.reading() as connection:
                for chunk in chunks(list(planned)):
                    for run_id in connection.execute(select(column).where(column.in_(chunk))).scalars():
                        del planned[run_id]
            try:
                return self._store.add(planned.values())
            except StoreError as error:  # another kernel has kept one of them just now
                if last or not isinstance(error.__cause__, IntegrityError):
                    raise
        return None

    def cached(self, keys: list[str]) -> dict[str, str]:
        """The newest run of each of these cache keys that completed without an error, where there is one."""
        from sqlalchemy import select

        c = runs_table().c
        good = (c.status == "completed", c.error_type.is_(None))
        query = select(c.cache_key, c.run_id).where(*good).order_by(c.seq)
        with self._store.reading() as connection:
            return {
                key: run_id
                for chunk in chunks(keys)
                for key, run_id in connection.execute(query.where(c.cache_key.in_(chunk)))
            }

    def turn(self, service: str, gap: float, put_off: float = 0.0) -> float:
        """Takes the next turn to send a request to a service, ``gap`` seconds after the last one that was taken.

        Args:
            put_off: seconds from now before which nobody is to send; no turn is taken then.

        Returns:
            The seconds until the turn.
        """
        from sqlalchemy import func, insert, select, update

        table = paces_table()
        mine = table.c.service == service
        if service not in self._paced:
            with contextlib.suppress(StoreError), self._store.writing() as connection:  # most likely it is there
                connection.execute(insert(table), [{"service": service, "next_at": 0.0, "gap": gap}])
            self._paced.add(service)
        with self._store.writing() as connection:
            if put_off:
                now = _clock(connection)
                later = func.coalesce(table.c.next_at, 0.0)
                connection.execute(update(table).where(mine, later < now + put_off).values(next_at=now + put_off))
                return put_off
            found = connection.execute(select(table.c.next_at).where(mine).with_for_update()).scalar() or 0.0
            now = _clock(connection)  # not before the row is ours: others' turns may have been waited for
            # A clock that was put back must not hold all of them up.
            due = max(found, now) if found < now + _LONGEST_HOLD + _LONGEST_QUEUE * gap else now
            connection.execute(update(table).where(mine).values(next_at=due + gap, gap=gap))
            return due - now

    def held(self, service: str) -> float:
        """Seconds until nobody is put off any more; 0 where nobody is. Takes no turn."""
        with self._store.reading() as connection:
            return _held_in(connection, service)

    def claim(self, run: Run, at: datetime, unless: str | None = None) -> bool:
        """Claims a run for this process; see ``claim_in``.

        Args:
            unless: what claims nothing while it is held, as ``held`` tells. PostgreSQL may hear of it a moment later.
        """
        with self._store.writing() as connection:
            if unless is not None and _held_in(connection, unless):
                return False
            return bool(claim_in(connection, [Claim(run.run_id, run.sent_at, at)]))

    def release(self, run: Run) -> None:
        """Takes back a claim: the run surely wasn't sent, and is as it was planned."""
        planned = {"sent_at": None, "status": "planned", "error": None, "error_type": None, "attempts": None}
        with self._store.writing() as connection:
            connection.execute(_claimed(), {"of_run": run.run_id, "known": _guard(run.sent_at), **planned})

    def update(self, runs: Iterable[Run]) -> None:
        """Keeps what has become of runs that this process has claimed; see ``update_in``."""
        with self._store.writing() as connection:
            update_in(connection, [row_of(run) for run in runs])


def _held_in(connection: Connection, service: str) -> float:
    from sqlalchemy import select

    query = select(paces_table().c.next_at).where(paces_table().c.service == service)
    found = connection.execute(query).scalar()
    return max(found - _clock(connection), 0.0) if found else 0.0


def claim_time(known: datetime | None) -> datetime:
    """When a claim is made: now, and later than what it replaces even where the clock was put back. Equal claims
    would both hold."""
    return utc_now() if known is None else max(utc_now(), known + timedelta(microseconds=1))


class Claim(NamedTuple):
    """A run's ``sent_at`` is to be moved from what is known of it to ``at``."""

    run_id: str
    known: datetime | None
    at: datetime


def claim_in(connection: Connection, claims: Sequence[Claim]) -> set[str]:
    """Makes claims; a run whose ``sent_at`` isn't what was known any more, or that has ended, can't be claimed.

    Returns:
        The ids of those that are claimed, once this is committed.
    """
    from sqlalchemy import select

    c = runs_table().c
    # Locked, in one order, until the commit; SQLite has locked all of it.
    query = select(c.run_id, c.sent_at, c.status).order_by(c.run_id).with_for_update()
    stands = {
        run_id: (sent_at or 0, status)
        for ids in chunks([claim.run_id for claim in claims])
        for run_id, sent_at, status in connection.execute(query.where(c.run_id.in_(ids)))
    }
    won: dict[str, Claim] = {}  # of two for one run, the first
    for claim in claims:
        sent_at, status = stands.get(claim.run_id, (None, None))
        if claim.run_id not in won and sent_at == _guard(claim.known) and status not in ENDED:
            won[claim.run_id] = claim
    changes = [
        {"of_run": run_id, "known": _guard(claim.known), "sent_at": to_microseconds(claim.at)}
        for run_id, claim in won.items()
    ]
    if changes:
        connection.execute(_claimed(), changes)
    return set(won)


def row_of(run: Run) -> dict[str, Any]:
    """What ``update_in`` takes, as the run stands now."""
    row = {name: value for name, value in pack(run).items() if name not in PERSONS}
    facts = {"is_over": int(run.ended), "has_task": int(run.task_id is not None)}
    return {**row, "of_run": run.run_id, "known": _guard(run.sent_at), **facts}


def update_in(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Writes runs that were claimed: not over another's claim, never an end by what came before it, and never a
    run whose task is known by one whose task isn't."""
    # In one order, or two processes would wait for each other's rows.
    connection.execute(_updated(), sorted(rows, key=lambda row: str(row["of_run"])))


def _guard(sent_at: datetime | None) -> int:
    return to_microseconds(sent_at) or 0


def _clock(connection: Connection) -> float:
    """Seconds since 1970, by one clock for all who use the store: a server's own."""
    from sqlalchemy import literal_column, select

    if connection.dialect.name != "postgresql":
        return time.time()
    clock: Select[Any] = select(literal_column("extract(epoch from clock_timestamp())"))
    return float(connection.execute(clock).scalar() or 0.0)


def _now() -> int:
    return time.time_ns() // 1000


@functools.cache
def _claimed() -> Update:
    from sqlalchemy import bindparam

    return runs_table().update().where(runs_table().c.run_id == bindparam("of_run"), _is_known(), _goes_on())


@functools.cache
def _updated() -> Update:
    from sqlalchemy import bindparam, or_

    c = runs_table().c
    may_end = or_(_goes_on(), bindparam("is_over") == 1)
    may_forget = or_(c.task_id.is_(None), bindparam("has_task") == 1)
    return runs_table().update().where(c.run_id == bindparam("of_run"), _is_known(), may_end, may_forget)


def _is_known() -> ColumnElement[bool]:
    from sqlalchemy import bindparam, func

    return func.coalesce(runs_table().c.sent_at, 0) == bindparam("known")


def _goes_on() -> ColumnElement[bool]:
    """That a run has not ended; spelled out, for many updates at once take no list."""
    from sqlalchemy import and_

    return and_(*(runs_table().c.status != status for status in sorted(ENDED)))
