"""The tables as the statements name them; ``migrations`` makes them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from xpander_magics.store.columns import KEPT

if TYPE_CHECKING:
    from sqlalchemy import Column, Table


def _once(make: Callable[[], Table]) -> Callable[[], Table]:
    """Makes it when it is first asked for. Threads that ask at once get the same: two would be strangers in a query."""
    lock = threading.Lock()
    made: list[Table] = []

    def get() -> Table:
        if not made:
            with lock:
                if not made:
                    made.append(make())
        return made[0]

    return get


@_once
def runs_table() -> Table:
    from sqlalchemy import BigInteger, Boolean, Column, Double, MetaData, Table, Text

    types = {"Int64": BigInteger, "datetime64[us, UTC]": BigInteger, "Float64": Double, "boolean": Boolean}
    columns: list[Column[Any]] = [Column(column.name, types.get(column.dtype, Text)) for column in KEPT]
    return Table(
        "runs", MetaData(), Column("seq", BigInteger, primary_key=True), Column("added_at", BigInteger), *columns
    )


@_once
def sweeps_table() -> Table:
    from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, Table, Text

    integers = (Column(name, BigInteger) for name in ("added_at", "size", "ended_at"))
    texts = (Column(name, Text) for name in ("sweep_id", "base_url", "experiment"))
    plan = Column("plan", LargeBinary)
    return Table("sweeps", MetaData(), Column("seq", BigInteger, primary_key=True), *integers, *texts, plan)


@_once
def paces_table() -> Table:
    from sqlalchemy import Column, Double, MetaData, Table, Text

    doubles = (Column(name, Double) for name in ("next_at", "gap"))
    return Table("paces", MetaData(), Column("service", Text, primary_key=True), *doubles)


@_once
def votes_table() -> Table:
    from sqlalchemy import BigInteger, Column, MetaData, Table, Text

    integers = (Column(name, BigInteger) for name in ("added_at", "undone_at", "seed"))
    texts = (Column(name, Text) for name in ("vote_id", "sweep_id", "left_run", "right_run", "choice", "voter"))
    return Table("votes", MetaData(), Column("seq", BigInteger, primary_key=True), *integers, *texts)


@_once
def scores_table() -> Table:
    from sqlalchemy import BigInteger, Column, Double, MetaData, Table, Text

    texts = (Column(name, Text) for name in ("run_id", "name", "scorer", "scored_by", "detail"))
    numbers = (Column("added_at", BigInteger), Column("value", Double))
    return Table("scores", MetaData(), Column("seq", BigInteger, primary_key=True), *numbers, *texts)
