"""Runs as a DataFrame.

There is one way into a frame, from stored values: ``frame_of`` packs its runs and goes that way too,
so a frame from ``Runs`` and one from the store can't come to differ, and neither shares a list or a
dict with a run. Values are gathered column by column in batches of some thousand rows, so that what
the database driver made is freed as it is read.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from xpander_magics.results import Run
from xpander_magics.store.columns import COLUMNS, FRAME_ROW, REAL, UNFRAMED
from xpander_magics.store.values import to_real

if TYPE_CHECKING:
    import pandas as pd

BATCH = 4096
"""Rows read at once: enough that the work per batch doesn't count, few enough to stay small."""


def frame_of(runs: Iterable[Run]) -> pd.DataFrame:
    """The runs as a DataFrame, one row each, in their order.

    Returns:
        The columns of ``COLUMNS`` with their dtypes, even without a run; then ``score_NAME``
        (Float64) for each scorer, by name. It shares nothing with the runs.
    """
    columns = (*COLUMNS, UNFRAMED[0])
    rows = (tuple(column.kind.pack(getattr(run, column.name)) for column in columns) for run in runs)
    return build(iter(lambda: list(itertools.islice(rows, BATCH)), []))


def build(batches: Iterable[Sequence[Sequence[Any]]]) -> pd.DataFrame:
    """A DataFrame of stored rows that come in batches, each row as ``FRAME_ROW`` has it."""
    import pandas as pd

    parts: dict[str, list[Any]] = {name: [] for name in FRAME_ROW}
    memos: dict[str, dict[Any, Any]] = {}
    columns = [(c, parts[c.name], memos.setdefault(c.kind.shared or c.name, {})) for c in (*COLUMNS, UNFRAMED[0])]
    with without_gc():
        for batch in batches:
            for (column, into, memo), stored in zip(columns, zip(*batch, strict=True), strict=True):
                into.append(column.kind.gather(stored, memo))
        scores = parts.pop("scores")
        arrays = {}
        for column, _, memo in columns[:-1]:  # a column's parts are freed before the next is joined
            arrays[column.name] = column.kind.join(parts.pop(column.name), memo)
        frame: pd.DataFrame = pd.DataFrame({**arrays, **_score_columns(scores)}, copy=False)
    return frame


def _score_columns(parts: list[list[Any]]) -> dict[str, Any]:
    import numpy as np

    rows: list[Any] = list(itertools.chain.from_iterable(parts))
    names = sorted({name for scores in rows if isinstance(scores, dict) for name in scores})
    columns = {}
    for name in names:
        values = [to_real(scores.get(name)) if isinstance(scores, dict) else None for scores in rows]
        array = np.array(values, dtype="float64")  # None becomes NaN, which no packed score is
        # pyarrow's strings, which pandas takes for names where it is installed, hold no half of a surrogate pair.
        head = f"score_{name}".encode("utf-8", "backslashreplace").decode()
        columns[head] = REAL.finish(array, np.isnan(array))
    return columns


@contextlib.contextmanager
def without_gc() -> Iterator[None]:
    """Half a million new dicts would make the collector look at all of them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
