"""What is compared: what holds runs becomes a DataFrame, beside what was asked of each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from xpander_magics.asked import SETTINGS, asked_of
from xpander_magics.contract import WAITING
from xpander_magics.errors import ConfigError
from xpander_magics.outcomes import HELD, Runs
from xpander_magics.results import LOST, Run
from xpander_magics.scoring.keeping import runs_in
from xpander_magics.store.frames import frame_of
from xpander_magics.store.sweeps import VERDICTS
from xpander_magics.store.values import from_json

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

SCORE = "score_"
"""What the columns of scores begin with."""

_TAKES = "What is compared is Runs, a list of Run, a DataFrame of runs or a notebook's path"
_ANSWERS = ("result", "output", "status")
UNENDED = ("planned", *WAITING)
"""The statuses of runs of which more will come."""


class Subject(NamedTuple):
    """Runs as a frame, and what was asked of them, row by row.

    Attributes:
        frame: one row a run, with all columns of ``store.columns.COLUMNS``.
        asked: the settings of ``asked.SETTINGS`` that were asked for, by these names, and ``thread``, the conversation
            that a run went on with; object, None where nothing was asked, or where it isn't known.
        runs: the runs themselves, where they are at hand.
    """

    frame: pd.DataFrame
    asked: pd.DataFrame
    runs: Runs | list[Run] | None


def subject_of(runs: Any) -> Subject:
    """Anything that holds runs: ``Runs``, a list of ``Run`` or ``Runs``, a DataFrame, a notebook's path, or None.

    None is every kept run, but for what judges said. A DataFrame is left as it is: columns that it lacks are missing
    in the copy that is returned, and settings are read from its columns alone.

    Raises:
        ConfigError: it holds no runs, or is something else.
    """
    import pandas as pd

    found: Runs | list[Run] | None = None
    if runs is None:
        from xpander_magics.session import default_session

        frame = default_session().store.frame()
        judges = frame["experiment"].eq(VERDICTS).fillna(False).to_numpy(dtype="bool")
        frame = frame[~judges].reset_index(drop=True) if judges.any() else frame
    elif isinstance(runs, pd.DataFrame):
        frame = _completed(runs)
    elif isinstance(runs, (str, os.PathLike)):
        from xpander_magics.showing.carried import read_notebook

        frame = _completed(read_notebook(runs))
    elif isinstance(runs, Runs):
        found, frame = runs, runs.df
    else:
        found = runs_in(runs, _TAKES)
        frame = frame_of(found)
    if not len(frame):
        raise ConfigError("There are no runs.")
    # A large sweep's requests stay in the store: they are as large as its answers.
    asked = _asked_by_runs(found) if found is not None and len(found) <= HELD else _asked_by_columns(frame)
    return Subject(frame, asked, found)


def _completed(given: pd.DataFrame) -> pd.DataFrame:
    """A copy with all columns; a file may have made text of the variables."""
    import pandas as pd

    if not any(name in _ANSWERS or str(name).startswith(SCORE) for name in given.columns):
        raise ConfigError(
            "This DataFrame holds no runs: it has no column result, output, status or score_NAME."
            " xp.runs() and runs.df have them all."
        )
    frame: pd.DataFrame = given.reset_index(drop=True)
    empty = frame_of([])
    lacking: dict[str, Any] = {
        name: empty[name].reindex(frame.index) for name in empty.columns if name not in frame.columns
    }
    if "status" in lacking:
        lacking["status"] = "completed"
    frame = frame.assign(**lacking) if lacking else frame
    variables = [value if type(value) is dict else _variables(value) for value in frame["variables"]]
    completed: pd.DataFrame = frame.assign(variables=pd.Series(variables, dtype="object"))
    return completed


def _variables(value: Any) -> dict[str, Any]:
    read = from_json(value) if isinstance(value, str) else value
    return dict(read) if isinstance(read, Mapping) else {}


def _asked_by_runs(runs: Iterable[Run]) -> pd.DataFrame:
    import pandas as pd

    same: dict[str | None, str | None] = {}
    rows = [(*one.settings, one.thread) for one in (asked_of(run, same) for run in runs)]
    asked: pd.DataFrame = pd.DataFrame(rows, columns=[*SETTINGS, "thread"], dtype="object")
    return asked


def _asked_by_columns(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, Any] = {
        "model": models_of(frame, "requested_provider", "requested_model"),
        "effort": objects(frame["requested_effort"]),
        "think": objects(frame["think_mode"]),
        "target": first_of(objects(frame["target"]), objects(frame["target_id"])),
        "version": [None] * len(frame),
        "prompt": objects(frame["template"]),
        "thread": [None] * len(frame),
    }
    asked: pd.DataFrame = pd.DataFrame(columns, dtype="object")
    return asked


def objects(series: pd.Series[Any]) -> list[Any]:
    """A column's values; None for what is missing."""
    values: list[Any] = series.astype("object").where(series.notna(), None).tolist()
    return values


def first_of(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    """Of each row the first value, or the second where it is missing."""
    return [value if value is not None else other for value, other in zip(first, second, strict=True)]


def models_of(frame: pd.DataFrame, provider: str, model: str) -> list[str | None]:
    """The models as ``PROVIDER/MODEL``, by the names of the two columns."""
    pairs = zip(objects(frame[provider]), objects(frame[model]), strict=True)
    return [f"{first}/{second}" if first and second else second for first, second in pairs]


class Gone(NamedTuple):
    """What is left out of a comparison: how many runs have each status that is no end; how many rows repeat a run."""

    unended: dict[str, int]
    repeated: int


def ended(subject: Subject) -> tuple[Subject, Gone]:
    """The runs that have ended, each once; and what that leaves out.

    Raises:
        ConfigError: none has ended.
    """
    frame = subject.frame
    repeated = frame["run_id"].duplicated() & frame["run_id"].notna()
    waits = frame["status"].isin(UNENDED) & ~repeated
    counts = frame.loc[waits, "status"].astype("object").value_counts().to_dict()
    gone = Gone({str(status): int(count) for status, count in counts.items()}, int(repeated.sum()))
    left = ~(repeated | waits).to_numpy(dtype="bool")
    if not left.any():
        raise ConfigError(f"None of the {len(frame):,} runs has ended: there is nothing to compare yet.")
    if left.all():
        return subject, gone
    kept, asked = (part[left].reset_index(drop=True) for part in (frame, subject.asked))
    return Subject(kept, asked, None), gone


def has_failed(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Of each row whether it ended without an answer that can be used, as ``results.has_failed`` has it."""
    lost = frame["status"].isin(LOST)
    return (lost | frame["error_type"].notna()).to_numpy(dtype="bool")
