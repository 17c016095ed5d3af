"""Runs with the scores that they are compared by: those that they have, or those that are made now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xpander_magics.analysis.subjects import SCORE, Subject, objects, subject_of
from xpander_magics.errors import ConfigError
from xpander_magics.scoring.framed import score_frame
from xpander_magics.scoring.keeping import expected_list, score, scorers_named, unknown_name
from xpander_magics.store.sweeps import VERDICTS

if TYPE_CHECKING:
    from xpander_magics.results import Run

SUCCESS = "success"
"""The score where there is no other: 1 for a run that completed without an error, else 0."""


def scored(subject: Subject, wanted: Any, expected: Any, *, keep: bool = False) -> tuple[Subject, list[str], list[str]]:
    """The runs with the scores that are wanted.

    Scores of runs are kept, those of a DataFrame are only computed. See ``scoring.keeping.score``.

    Args:
        wanted: scorers; None is every score that the runs have, or else whether they succeeded. The name of a score
            that they have is that score, unless ``expected`` is given.
        expected: a variable's or a column's name, or a list as long as the runs.
        keep: whether the runs are the store's.

    Returns:
        The runs, the names of the scores, and what went wrong, in sentences.

    Raises:
        ConfigError: see ``scoring.keeping.score``.
    """
    import pandas as pd

    frame = subject.frame
    if wanted is None:
        if expected is not None:
            raise ConfigError('expected says what answers are scored by: add score="exact", say.')
        columns = [str(name) for name in frame.columns if str(name).startswith(SCORE) and frame[name].notna().any()]
        return subject, [name.removeprefix(SCORE) for name in columns] or [SUCCESS], []
    several = list(wanted) if isinstance(wanted, (list, tuple)) else [wanted]
    values = None if expected is None else _expected(subject, expected)
    names: list[str] = []
    missing = []
    for one in several:
        has = isinstance(one, str) and f"{SCORE}{one}" in frame.columns and frame[f"{SCORE}{one}"].notna().any()
        if values is None and (has or one == SUCCESS):
            names.append(one)
        else:
            missing.append(one)
    if not missing:
        return subject, names, []
    scorers = scorers_named(missing, {}, values is not None)
    told: list[str] = []
    if subject.runs is None and not keep:
        frame, said = score_frame(frame, scorers, values)
        told.append(said)
        subject = subject._replace(frame=frame)
    else:
        runs = subject.runs if subject.runs is not None else _kept_runs()
        score(runs, scorers, values, tell=lambda text: told.append(str(text)))
        subject = subject_of(runs)
    unscored = [one.name for one in scorers if f"{SCORE}{one.name}" not in subject.frame.columns]
    if unscored:
        nothing = {f"{SCORE}{name}": pd.array([None] * len(subject.frame), dtype="Float64") for name in unscored}
        subject = subject._replace(frame=subject.frame.assign(**nothing))
    return subject, [*names, *(one.name for one in scorers)], [text for text in told if "trouble" in text]


def _kept_runs() -> list[Run]:
    from xpander_magics.session import default_session

    return [run for run in default_session().store.select() if run.experiment != VERDICTS]


def _expected(subject: Subject, expected: Any) -> list[Any]:
    """What is expected of each run."""
    if not isinstance(expected, str):
        return expected_list(expected, len(subject.frame))
    variables: list[Mapping[str, Any]] = subject.frame["variables"].tolist()
    if any(expected in some for some in variables):
        return [some.get(expected) for some in variables]
    if expected in subject.frame.columns:
        return objects(subject.frame[expected])
    raise unknown_name(expected, {str(name) for some in variables for name in some})
