"""The scores of a store: what each answer was found worth, by which rule, who said so and when. Nothing is deleted.

The table has all that ever were; ``runs.scores`` has the newest of each name, for the frame. Both change in one
transaction, in which the runs' rows are locked: of two that score the same runs at once, neither undoes the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from xpander_magics.results import utc_now
from xpander_magics.store.columns import SCORES, TEXT
from xpander_magics.store.filters import chunks
from xpander_magics.store.tables import runs_table, scores_table
from xpander_magics.store.values import from_json, from_microseconds, to_json, to_microseconds, to_real

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from xpander_magics.store.store import Store


@dataclass(frozen=True)
class Score:
    """What one scorer said of one run.

    Attributes:
        name: of the score; ``score_NAME`` in the frame.
        value: None takes it away.
        scorer: how it was made: a ``Scorer``'s ``spec``.
        scored_by: who had it made: a login name, or the judge.
        detail: what else there is to know, as JSON: what was expected; a judge's run and its reason.
    """

    run_id: str
    name: str
    value: float | None
    scorer: str
    scored_by: str
    detail: dict[str, Any] = field(default_factory=dict)
    added_at: datetime = field(default_factory=utc_now)


class Scores:
    """The scores in a store; raises StoreError as the store does."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, scores: Iterable[Score]) -> set[str]:
        """Keeps scores, all in one transaction; see ``add_in``."""
        given = list(scores)
        if not given:
            return set()
        with self._store.writing() as connection:
            return add_in(connection, given)

    def select(self, run_ids: Iterable[str], name: str | None = None) -> list[Score]:
        """All scores that these runs ever had, oldest first.

        Args:
            name: those of this name alone.
        """
        from sqlalchemy import select

        table = scores_table()
        query = select(table) if name is None else select(table).where(table.c.name == TEXT.pack(name))
        with self._store.reading() as connection:
            found = (connection.execute(query.where(table.c.run_id.in_(ids))) for ids in chunks(_packed(run_ids)))
            rows = [row for result in found for row in result]
        return [
            Score(
                run_id=TEXT.unpack(row.run_id),
                name=TEXT.unpack(row.name),
                value=row.value,
                scorer=TEXT.unpack(row.scorer),
                scored_by=TEXT.unpack(row.scored_by),
                detail=from_json(row.detail),
                added_at=from_microseconds(row.added_at),  # type: ignore[arg-type]
            )
            for row in sorted(rows, key=lambda row: row.seq)
        ]


def add_in(connection: Connection, scores: Sequence[Score]) -> set[str]:
    """Adds scores to the history, and to the runs as their newest.

    What says the same as the newest of its name (value, scorer and detail) isn't written again, and where there is
    none of that name, none is taken away.

    Returns:
        The ids of runs that aren't in the store: nothing is kept of these.
    """
    from sqlalchemy import bindparam, select, update

    runs, table = runs_table(), scores_table()
    # In one order, or two processes would wait for each other's rows; SQLite has locked all of it.
    wanted = sorted(_packed(score.run_id for score in scores))
    query = select(runs.c.run_id, runs.c.scores).order_by(runs.c.run_id).with_for_update()
    stored = {
        run_id: packed
        for ids in chunks(wanted)
        for run_id, packed in connection.execute(query.where(runs.c.run_id.in_(ids)))
    }
    newest: dict[tuple[str, str], tuple[float | None, str, str]] = {}
    history = select(table.c.run_id, table.c.name, table.c.value, table.c.scorer, table.c.detail).order_by(table.c.seq)
    for ids in chunks(list(stored)):
        for row in connection.execute(history.where(table.c.run_id.in_(ids))):
            newest[row.run_id, row.name] = row.value, row.scorer, row.detail
    rows, changed = [], dict[str, dict[str, Any]]()
    for score in scores:
        run_id, name = TEXT.pack(score.run_id), TEXT.pack(score.name)
        value, said = to_real(score.value), (TEXT.pack(score.scorer), to_json(score.detail))
        key = run_id, name
        if run_id not in stored or newest.get(key, (None, *said)) == (value, *said):
            continue
        newest[key] = (value, *said)
        rows.append(
            {
                "run_id": run_id,
                "name": name,
                "value": value,
                "scorer": said[0],
                "scored_by": TEXT.pack(score.scored_by),
                "detail": said[1],
                "added_at": to_microseconds(score.added_at),
            }
        )
        if run_id not in changed:
            changed[run_id] = SCORES.unpack(stored[run_id])
        changed[run_id][score.name] = value
    if rows:
        connection.execute(table.insert().inline(), rows)
        of_run = update(runs).where(runs.c.run_id == bindparam("of_run")).values(scores=bindparam("new"))
        packed = [{"of_run": run_id, "new": SCORES.pack(value)} for run_id, value in changed.items()]
        connection.execute(of_run, packed)
    return {TEXT.unpack(run_id) for run_id in wanted if run_id not in stored}


def _packed(run_ids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(map(TEXT.pack, run_ids)))
