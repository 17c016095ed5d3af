"""The rows of a DataFrame scored, and the history of scores as one. Nothing is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from xpander_magics.errors import ConfigError
from xpander_magics.results import Run
from xpander_magics.scoring.keeping import NO_ANSWER, Misses, expected_list, scorers_named, unknown_name
from xpander_magics.scoring.measures import Answer, Unscored, plain_value
from xpander_magics.scoring.scorers import Scorer, checked_name
from xpander_magics.store.frames import without_gc
from xpander_magics.store.scores import Score

if TYPE_CHECKING:
    import pandas as pd


def score_frame(
    frame: pd.DataFrame, scorer: Any, expected: Any = None, *, variables: Mapping[str, Any] | None = None
) -> tuple[pd.DataFrame, str]:
    """A copy of a DataFrame of runs with a column ``score_NAME`` (Float64) for each scorer; nothing is kept.

    Args:
        frame: with ``status`` and ``result``, and for some scorers ``output``. The other arguments are those of
            ``score``.

    Returns:
        The copy; and how many rows have no score, and why, as text.

    Raises:
        ConfigError: as ``score``; and for a judge, which scores runs alone.
    """
    import numpy as np
    import pandas as pd

    scorers = scorers_named(scorer, variables or {}, expected is not None)
    values = _expected_of_rows(frame, expected)
    answers = _answers(frame)
    places = [place for place, answer in enumerate(answers) if answer is not None]
    usable = [answer for answer in answers if answer is not None]
    misses, scored = Misses(), frame.copy(deep=False)
    for one in scorers:
        if not isinstance(one, Scorer):
            raise ConfigError(f"A judge scores Runs, and not a DataFrame: runs.score({one.name}) first.")
        outcomes = one.prepared(values).outcomes(usable, [values[place] for place in places])
        numbers = np.full(len(frame), np.nan)
        numbers[places] = [np.nan if isinstance(outcome, Unscored) else outcome for outcome in outcomes]
        misses.add(one.name, zip((answer.run_id for answer in usable), outcomes, strict=True))
        misses.add(one.name, (("", Unscored(NO_ANSWER)) for _ in range(len(frame) - len(usable))))
        scored[f"score_{checked_name(one.name)}"] = pd.arrays.FloatingArray(numbers, np.isnan(numbers))
    return scored, misses.told()


def _column(frame: pd.DataFrame, name: str) -> list[Any]:
    """A column's values, None where they are missing, and where there is no such column."""
    if name not in frame.columns:
        return [None] * len(frame)
    values = frame[name].astype(object)
    found: list[Any] = values.where(frame[name].notna(), None).tolist()
    return found


def _answers(frame: pd.DataFrame) -> list[Answer | None]:
    """What a scorer looks at of each row; None where it has no answer that can be used."""
    found: list[Answer | None] = []
    names = ("run_id", "status", "result", "output")
    columns = [_column(frame, name) for name in names]
    with without_gc():
        for place, (run_id, status, result, output) in enumerate(zip(*columns, strict=True)):
            if status != "completed" or (result is None and output is None):
                found.append(None)
            else:
                text = json.dumps(output, ensure_ascii=False) if result is None else str(result)
                found.append(Answer(run_id or f"of row {place}", text, output, partial(_run_of, frame, place)))
    return found


def _run_of(frame: pd.DataFrame, place: int) -> Run:
    """A row as a run, for those functions that look at one."""
    row = frame.iloc[place]
    known = {field.name for field in fields(Run)}
    values = {name: plain_value(row[name]) for name in frame.columns if name in known}
    return Run(**{name: value for name, value in values.items() if value is not None})


def _expected_of_rows(frame: pd.DataFrame, expected: Any) -> list[Any]:
    """The expected value of each row: by a variable's name, else by a column's, or as they are given."""
    if expected is None:
        return [None] * len(frame)
    if not isinstance(expected, str):
        return expected_list(expected, len(frame))
    variables = [value if isinstance(value, dict) else {} for value in _column(frame, "variables")]
    if any(expected in row for row in variables):
        return [row.get(expected) for row in variables]
    if expected in frame.columns:
        return _column(frame, expected)
    raise unknown_name(expected, {*(name for row in variables for name in row), *map(str, frame.columns)})


HISTORY = {
    "run_id": "string",
    "name": "string",
    "value": "Float64",
    "scorer": "string",
    "scored_by": "string",
    "created_at": "datetime64[us, UTC]",
    "detail": "object",
}
"""The columns of a history of scores, with their dtypes."""


def history_frame(scores: Iterable[Score]) -> pd.DataFrame:
    """Scores as a DataFrame, one row each, oldest first; ``value`` is missing where a score was taken away.

    The columns are those of ``HISTORY``: ``scorer`` says how a score was made, ``detail`` is a dict.
    """
    import pandas as pd

    rows = [(s.run_id, s.name, s.value, s.scorer, s.scored_by, s.added_at, s.detail) for s in scores]
    columns = zip(*rows, strict=True) if rows else [[] for _ in HISTORY]
    made = {
        name: pd.Series(list(values), dtype=dtype)
        for (name, dtype), values in zip(HISTORY.items(), columns, strict=True)
    }
    frame: pd.DataFrame = pd.DataFrame(made)
    return frame
