"""Which runs are meant, and the statements that read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from xpander_magics.store.columns import TAGS, TEXT
from xpander_magics.store.tables import runs_table
from xpander_magics.store.values import to_microseconds

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Select

_CHUNK = 500  # values in one IN: far below every database's limit


@dataclass(frozen=True)
class Filter:
    """The runs for which all that is given holds; all where nothing is given.

    Attributes:
        experiment: of this experiment.
        sweep_id: of this sweep.
        status: with this status.
        target: sent to the target of this name or id.
        tag: with this tag, among others perhaps.
        run_ids: one of these; ids that aren't there are passed over.
        since: added then or later; a time without a zone is local.
        sent_since: sent, or claimed to be, then or later.
        limit: the newest so many of them.
    """

    experiment: str | None = None
    sweep_id: str | None = None
    status: str | None = None
    target: str | None = None
    tag: str | None = None
    run_ids: Iterable[str] | None = None
    since: datetime | None = None
    sent_since: datetime | None = None
    limit: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """All but ``run_ids`` and ``limit``."""
        from sqlalchemy import func, literal_column, or_

        table = runs_table()
        found: list[ColumnElement[bool]] = []
        for name in ("experiment", "sweep_id", "status"):
            value = getattr(self, name)
            if value is not None:
                found.append(table.c[name] == TEXT.pack(value))
        if self.experiment is not None:  # as PostgreSQL's index has it
            found.append(literal_column("substr(experiment, 1, 500)") == TEXT.pack(self.experiment)[:500])
        if self.target is not None:
            found.append(or_(table.c.target == TEXT.pack(self.target), table.c.target_id == TEXT.pack(self.target)))
        if self.tag is not None:  # LIKE would take A for a, in SQLite
            found.append(func.replace(table.c.tags, TAGS.needle(self.tag), "") != table.c.tags)
        if self.sent_since is not None:
            found.append(table.c.sent_at >= to_microseconds(self.sent_since.astimezone()))
        if self.since is not None:
            found.append(table.c.added_at >= to_microseconds(self.since.astimezone()))
        return found


def queries(connection: Connection, names: Iterable[str], which: Filter) -> Iterator[Select[Any]]:
    """Statements that read these columns of the runs found, and together give them oldest first."""
    from sqlalchemy import select

    seq, conditions = runs_table().c.seq, which.conditions()
    query = select(*(runs_table().c[name] for name in names)).order_by(seq)
    if which.run_ids is not None:
        ids = [TEXT.pack(run_id) for run_id in dict.fromkeys(which.run_ids)]
        in_ids = (select(seq).where(*conditions, runs_table().c.run_id.in_(chunk)) for chunk in chunks(ids))
        found = sorted(number for numbers in in_ids for number in connection.execute(numbers).scalars())
        newest = found if which.limit is None else found[max(len(found) - max(which.limit, 0), 0) :]
        yield from (query.where(seq.in_(chunk)) for chunk in chunks(newest))
    elif which.limit is not None:
        newest_seqs = select(seq).where(*conditions).order_by(seq.desc()).limit(max(which.limit, 0))
        yield query.where(seq.in_(newest_seqs))
    else:
        yield query.where(*conditions)


def chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))
