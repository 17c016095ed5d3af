"""``xp.export``: runs, comparisons and votes for other tools, each in the form that they expect.

- ``.csv``: a row a run; lists and dicts as JSON. Text that a spreadsheet would take for a formula, because it begins
  with ``=``, ``+``, ``-`` or ``@``, white space before it or not, or with a tab or a line's end, has an apostrophe
  before it. So what goes back into a program had better be another of these. Where the list separator is a semicolon,
  a spreadsheet that opens the file by a double click splits texts at theirs: import it as separated by commas.
- ``.jsonl``, ``.ndjson``: an object a run, with nothing lost: all columns, lists and dicts as they are.
- ``.parquet``: typed columns; lists and dicts as JSON.
- ``.sqlite``, ``.db``: a new SQLite database: the table ``runs``, and ``votes`` and ``scores`` as the store has them.

Times are ISO 8601 in UTC, in Parquet its own. Missing is an empty cell or null, as are NaN and infinities, which JSON
lacks. Files are written whole or not at all, for their owner alone; a file of that name is replaced.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xpander_magics.analysis.comparison import Comparison, compare
from xpander_magics.analysis.exports.formats import FORMATS, is_foreign_database
from xpander_magics.analysis.files import checked_path, whole_file
from xpander_magics.analysis.subjects import subject_of
from xpander_magics.cell import one_of
from xpander_magics.contract import model_in_full
from xpander_magics.errors import ConfigError
from xpander_magics.outcomes import Runs
from xpander_magics.safety import encodable
from xpander_magics.session import default_session
from xpander_magics.tally import counted

if TYPE_CHECKING:
    import pandas as pd

    from xpander_magics.store import Store
    from xpander_magics.store.votes import Vote

WHAT = ("runs", "comparison", "preferences", "mlflow")
"""What can be exported."""

MLFLOW = "mlflow:"
"""Begins the name of an MLflow experiment, where a path could stand."""


class Exported(NamedTuple):
    """What was written: where it is, and what it holds in words."""

    path: Path | str
    words: str


def export(runs: Any, path: str | os.PathLike[str], *, what: str = "runs", judges: bool = False) -> Path | str:
    """Writes runs, a comparison's table, or the preferences that people voted for.

    The forms are told by ``help("xpander_magics.analysis.exports.exports")``.

    Args:
        runs: ``Runs``, a list of ``Run``, a DataFrame of runs, a notebook's path, a ``Comparison``;
            None for every kept run.
        path: a file, whose ending says the form: .csv, .jsonl, .ndjson, .parquet, .sqlite or .db. Or
            ``mlflow:EXPERIMENT``: an MLflow run a configuration, at ``MLFLOW_TRACKING_URI``.
        what: ``runs``; ``comparison``, its table; ``preferences``, a pair of answers a vote, as
            preference training expects them (``prompt``, ``chosen``, ``rejected``), without ties,
            skips and votes that were taken back; ``mlflow``, where ``path`` is the experiment's name
            alone.
        judges: whether the votes of judges are among the preferences, too.

    Returns:
        The file's path; of MLflow, ``mlflow:EXPERIMENT``.

    Raises:
        ConfigError: another ending, a path that can't be written, a package that is missing, nothing
            to export.

    Example:
        >>> path = xp.export(runs, "runs.csv")
        >>> len(pd.read_csv(path))
        4
    """
    return exported(runs, path, what=what, judges=judges).path


def exported(runs: Any, path: str | os.PathLike[str], *, what: str = "runs", judges: bool = False) -> Exported:
    """The same as ``export``, which says what was written."""
    one_of("what", what, WHAT)
    named = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not named:
        raise ConfigError(f"export takes a file's path, not a value of type {type(path).__name__}.")
    if what == "mlflow" or named.startswith(MLFLOW):
        from xpander_magics.analysis.exports.tracking import to_mlflow

        experiment = named.removeprefix(MLFLOW)
        count = to_mlflow(runs if isinstance(runs, Comparison) else compare(runs), experiment)
        told = f"{counted(count, 'configuration')}, an MLflow run each, in the experiment {experiment}."
        return Exported(f"{MLFLOW}{experiment}", told)
    file = checked_path(named, tuple(FORMATS))
    _check_replaceable(file)
    tables, words = _TABLES[what](runs, file, judges)
    for frame in tables.values():
        twice = [name for name, count in Counter(map(str, frame.columns)).items() if count > 1]
        if twice:
            raise ConfigError(f"Two columns are named {twice[0]!r}: give one another name, then export.")
    with whole_file(file) as beside:
        FORMATS[file.suffix.lower()](tables, beside)
    return Exported(file, f"{words} written to {file}.")


def _check_replaceable(file: Path) -> None:
    """Says no to what isn't a file, and to a database that is somebody's: the run store itself, perhaps."""
    if file.exists() and not file.is_file():
        raise ConfigError(f"{file} is no file. Choose another name.")
    try:
        foreign = is_foreign_database(file)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{file} is there and can't be read ({error.strerror}): it isn't replaced.") from error
    if foreign:
        raise ConfigError(f"{file} is a database, and no export of runs: it isn't replaced. Choose another name.")


Tables = Mapping[str, "pd.DataFrame"]


def _runs(runs: Any, file: Path, judges: bool) -> tuple[Tables, str]:
    frame = _frame_in(runs)
    tables: dict[str, pd.DataFrame] = {"runs": frame}
    words = counted(len(frame), "run")
    if file.suffix.lower() in (".sqlite", ".db"):
        store = _store_of(runs)
        ids = [str(run_id) for run_id in frame["run_id"].dropna()]
        found: dict[str, list[Any]] = {
            "votes": store.votes.select(ids, undone=True),
            "scores": store.scores.select(ids),
        }
        tables |= {name: _frame_of(map(dataclasses.asdict, rows)) for name, rows in found.items() if rows}
        words += "".join(f", {counted(len(rows), name[:-1])}" for name, rows in found.items() if rows)
    return tables, words


def _frame_in(runs: Any) -> pd.DataFrame:
    found: pd.DataFrame = runs.frame if isinstance(runs, Comparison) else subject_of(runs).frame
    return found


def _frame_of(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Votes, scores or pairs, one a row."""
    import pandas as pd

    frame: pd.DataFrame = pd.DataFrame([{name: encodable(value) for name, value in row.items()} for row in rows])
    return frame


def _store_of(runs: Any) -> Store:
    return runs.session.store if isinstance(runs, Runs) else default_session().store


def _comparison(runs: Any, file: Path, judges: bool) -> tuple[Tables, str]:
    found = runs if isinstance(runs, Comparison) else compare(runs)
    tables = {"comparison": found.table}
    if file.suffix.lower() in (".sqlite", ".db"):
        tables["differences"] = found.differences
    return tables, counted(len(found.table), "configuration")


def _preferences(runs: Any, file: Path, judges: bool) -> tuple[Tables, str]:
    frame = _frame_in(runs)
    known = {str(row["run_id"]): row for row in frame[list(_WANTED)].to_dict("records")}
    left_out: Counter[str] = Counter()
    pairs = []
    for vote in _store_of(runs).votes.select(known):
        pair = _pair(vote, known, judges=judges)
        if isinstance(pair, str):
            left_out[pair] += 1
        else:
            pairs.append(pair)
    without = ", ".join(f"{count:,} {why}" for why, count in left_out.most_common())
    if not pairs:
        told = f" Left out: {without}." if without else " runs.vote() and %xpander vote ask for them."
        raise ConfigError(f"There are no votes for one answer over another on these runs.{told}")
    words = counted(len(pairs), "preference")
    return {"preferences": _frame_of(pairs)}, words + (f" (left out: {without})" if without else "")


_WANTED = (
    *("run_id", "prompt", "result", "status", "requested_provider", "requested_model", "provider", "model"),
    *("requested_effort", "experiment"),
)


def _pair(vote: Vote, runs: Mapping[str, Mapping[Any, Any]], *, judges: bool) -> dict[str, Any] | str:
    """A vote as a pair of answers; why it is none."""
    if vote.by_judge and not judges:
        return "by judges"
    if vote.choice not in ("left", "right"):
        return "skipped" if vote.choice == "skip" else "ties"
    left, right = runs[vote.left_run], runs[vote.right_run]
    chosen, rejected = (left, right) if vote.choice == "left" else (right, left)
    texts = {"prompt": chosen["prompt"], "chosen": chosen["result"], "rejected": rejected["result"]}
    if not all(isinstance(text, str) for text in texts.values()):
        return "without an answer"
    if chosen["prompt"] != rejected["prompt"]:
        return "with two different prompts"
    return {
        **texts,
        "chosen_model": _model_of(chosen),
        "rejected_model": _model_of(rejected),
        "chosen_effort": _text(chosen["requested_effort"]),
        "rejected_effort": _text(rejected["requested_effort"]),
        "chosen_run": chosen["run_id"],
        "rejected_run": rejected["run_id"],
        "experiment": _text(chosen["experiment"]),
        "vote_id": vote.vote_id,
        "voter": vote.voter,
        "voted_at": vote.added_at,
    }


def _model_of(run: Mapping[Any, Any]) -> str | None:
    """The model that was asked for, else the one that ran."""
    asked = "requested_" if _text(run["requested_model"]) else ""
    return model_in_full(*(_text(run[f"{asked}{name}"]) for name in ("provider", "model")))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


_TABLES: Mapping[str, Callable[[Any, Path, bool], tuple[Tables, str]]] = {
    "runs": _runs,
    "comparison": _comparison,
    "preferences": _preferences,
}
