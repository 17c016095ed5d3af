"""The votes of a store: who found which of two answers better, and when. Nothing is ever deleted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from xpander_magics.results import new_run_id, utc_now
from xpander_magics.store.columns import TEXT
from xpander_magics.store.filters import chunks
from xpander_magics.store.tables import votes_table
from xpander_magics.store.values import from_microseconds, to_microseconds

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from xpander_magics.store.store import Store

CHOICES = ("left", "right", "both_good", "both_bad", "skip")
JUDGE = "judge "
"""How the names of judges begin among the voters, and those of people don't."""


@dataclass(frozen=True)
class Vote:
    """A person's, or a judge's, judgement of two answers.

    Attributes:
        left_run, right_run: the ids of the runs, by the sides on which their answers were shown.
        choice: one of ``CHOICES``.
        voter: who judged.
        sweep_id: of the sweep that both runs are of, or None.
        seed: what the order of the pairs and their sides were shuffled with; None for a vote by command.
        added_at: when it was cast.
        undone_at: when it was taken back, or None.
    """

    left_run: str
    right_run: str
    choice: str
    voter: str
    sweep_id: str | None = None
    seed: int | None = None
    vote_id: str = field(default_factory=new_run_id)
    added_at: datetime = field(default_factory=utc_now)
    undone_at: datetime | None = None

    @property
    def by_judge(self) -> bool:
        """Whether a judge cast it, and no person."""
        return self.voter.startswith(JUDGE)


class Votes:
    """The votes in a store; raises StoreError as the store does."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, *votes: Vote) -> None:
        """Keeps votes, all or none; what the same voter has said before of the same two runs is undone by it."""
        with self._store.writing() as connection:
            for vote in votes:
                self._add(connection, vote)

    def _add(self, connection: Connection, vote: Vote) -> None:
        from sqlalchemy import or_, update

        c = votes_table().c
        left, right = vote.left_run, vote.right_run
        same = or_((c.left_run == left) & (c.right_run == right), (c.left_run == right) & (c.right_run == left))
        earlier = update(votes_table()).where(same, c.voter == TEXT.pack(vote.voter), c.undone_at.is_(None))
        row = {
            "vote_id": vote.vote_id,
            "added_at": to_microseconds(vote.added_at),
            "undone_at": to_microseconds(vote.undone_at),
            "seed": vote.seed,
            "sweep_id": vote.sweep_id,
            "left_run": left,
            "right_run": right,
            "choice": vote.choice,
            "voter": TEXT.pack(vote.voter),
        }
        connection.execute(earlier.values(undone_at=row["added_at"]))
        connection.execute(votes_table().insert().inline(), [row])

    def undo(self, vote_id: str) -> bool:
        """Takes a vote back; it stays, with when that was. False where it had been, or there is none."""
        from sqlalchemy import update

        c = votes_table().c
        undone = update(votes_table()).where(c.vote_id == vote_id, c.undone_at.is_(None))
        with self._store.writing() as connection:
            return bool(connection.execute(undone.values(undone_at=to_microseconds(utc_now()))).rowcount)

    def select(self, run_ids: Iterable[str], *, undone: bool = False) -> list[Vote]:
        """The votes of which both runs are among these, oldest first.

        Args:
            undone: those that were taken back, too.
        """
        from sqlalchemy import select

        table = votes_table()
        ids = dict.fromkeys(map(TEXT.pack, run_ids))
        query = select(table) if undone else select(table).where(table.c.undone_at.is_(None))
        with self._store.reading() as connection:
            found = (connection.execute(query.where(table.c.left_run.in_(some))) for some in chunks(list(ids)))
            rows = [row for result in found for row in result if row.right_run in ids]
        return [
            Vote(
                left_run=row.left_run,
                right_run=row.right_run,
                choice=row.choice,
                voter=TEXT.unpack(row.voter),
                sweep_id=row.sweep_id,
                seed=row.seed,
                vote_id=row.vote_id,
                added_at=from_microseconds(row.added_at),  # type: ignore[arg-type]
                undone_at=from_microseconds(row.undone_at),
            )
            for row in sorted(rows, key=lambda row: row.seq)
        ]
