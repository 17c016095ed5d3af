"""What is compared: what holds runs becomes a DataFrame, and each of its rows gets a configuration and an input.

A *configuration* is one combination of the values of the ``by`` columns. An *input* is what was asked, by the board's
rules (``asked``). Settings are what was asked for, else what ran.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from xpander_magics.asked import SETTINGS, Asked, asked_of, configuration_names, laid_out, short_models, sorted_json
from xpander_magics.contract import WAITING
from xpander_magics.errors import ConfigError, did_you_mean
from xpander_magics.outcomes import HELD, Runs
from xpander_magics.results import Run
from xpander_magics.safety import as_shown, plain
from xpander_magics.store.frames import frame_of
from xpander_magics.store.sweeps import VERDICTS
from xpander_magics.store.values import from_json

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

SCORE = "score_"
"""What the columns of scores begin with."""

_ALIASES = {"think": "think_mode", "version": "agent_version", "template": "prompt"}
_COMPARED = ("model", "effort", "think_mode", "target", "agent_version", "prompt")
"""What is compared by itself where it varies: ``asked.SETTINGS`` by the names of the frame's columns."""
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


@dataclass(frozen=True, eq=False)
class Laid:
    """Runs laid out: which configuration, and which input, each row is of.

    Attributes:
        by: what makes configurations.
        configurations: a column for each of ``by``, one row a configuration.
        names: of the configurations; no two are alike.
        configuration, input: int64, of each row, from 0.
        prompts: the templates by their short names, where they make configurations.
    """

    by: tuple[str, ...]
    configurations: pd.DataFrame
    names: list[str]
    configuration: NDArray[np.int64]
    input: NDArray[np.int64]
    prompts: dict[str, str]


def subject_of(runs: Any) -> Subject:
    """Anything that holds runs: ``Runs``, a list of ``Run`` or ``Runs``, a DataFrame, a notebook's path, or None.

    None is every kept run, but for what judges said. A DataFrame is left as it is: columns that it lacks are missing in the copy that is
    returned, and settings are read from its columns alone.

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
        from xpander_magics.carried import read_notebook

        frame = _completed(read_notebook(runs))
    elif isinstance(runs, Runs):
        found, frame = runs, runs.df
    else:
        found = _listed(runs)
        frame = frame_of(found)
    if not len(frame):
        raise ConfigError("There are no runs.")
    # A large sweep's requests stay in the store: they are as large as its answers.
    asked = _asked_by_runs(found) if found is not None and len(found) <= HELD else _asked_by_columns(frame)
    return Subject(frame, asked, found)


def _listed(runs: Any) -> list[Run]:
    several = [runs] if isinstance(runs, Run) else runs
    if not isinstance(several, Iterable) or isinstance(several, Mapping):
        raise ConfigError(_takes(runs))
    found: list[Run] = []
    for one in several:
        if not isinstance(one, (Run, Runs)):
            raise ConfigError(_takes(one))
        found += [one] if isinstance(one, Run) else one
    return found


def _takes(value: object) -> str:
    return (
        f"What is compared is Runs, a list of Run, a DataFrame of runs or a notebook's path,"
        f" not a value of type {type(value).__name__}."
    )


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
    frame = frame.assign(**lacking)
    frame["variables"] = pd.Series([_variables(value) for value in frame["variables"]], dtype="object")
    return frame


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
        "model": _models(frame, "requested_provider", "requested_model"),
        "effort": objects(frame["requested_effort"]),
        "think": objects(frame["think_mode"]),
        "target": _first(objects(frame["target"]), objects(frame["target_id"])),
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


def _first(*columns: Sequence[Any]) -> list[Any]:
    """Of each row the first value that isn't missing."""
    return [next((value for value in row if value is not None), None) for row in zip(*columns, strict=True)]


def _models(frame: pd.DataFrame, provider: str, model: str) -> list[str | None]:
    pairs = zip(objects(frame[provider]), objects(frame[model]), strict=True)
    return [f"{first}/{second}" if first and second else second for first, second in pairs]


def laid(subject: Subject, by: Any = None) -> Laid:
    """Lays runs out.

    Args:
        by: names of settings, columns or variables, as a list or with commas between them; None takes the settings
            that vary.

    Raises:
        ConfigError: there is no such column or variable.
    """
    import pandas as pd

    frame = subject.frame
    settings = _settings(subject)
    wanted = None if by is None else _names(by)
    variables = frame["variables"].tolist()
    known = dict.fromkeys(str(name) for some in variables for name in some) if wanted else {}
    columns = {name: _column(name, subject, settings, known) for name in wanted or ()}
    of_variables = {name for name in columns if name not in settings and name not in frame.columns}
    vary, inputs = _inputs(subject, variables, of_variables)
    if wanted is None:
        columns = _varying(settings, subject, "prompt" in vary)
    prompts: dict[str, str] = {}
    if "prompt" in columns:
        texts = list(dict.fromkeys(columns["prompt"]))
        short = {text: f"prompt {number}" for number, text in enumerate(texts, 1)}
        prompts = {name: text or "" for text, name in short.items()}
        columns["prompt"] = [short[text] for text in columns["prompt"]]
    configuration = _combined([_codes(values) for values in columns.values()], len(frame))
    first = pd.Series(configuration).drop_duplicates().index  # in the order of their numbers
    rows = [tuple(values[row] for values in columns.values()) for row in first]
    told = [name.replace("_", " ").replace("agent ", "") for name in columns]
    shown = [[_shown(name, value) for name, value in zip(columns, row, strict=True)] for row in rows]
    table = pd.DataFrame(rows, columns=list(columns), dtype="object", index=range(len(rows))).convert_dtypes()
    return Laid(tuple(columns), table, configuration_names(told, shown), configuration, inputs, prompts)


def _names(by: Any) -> list[str]:
    several: list[Any] = by.split(",") if isinstance(by, str) else list(by) if isinstance(by, Iterable) else [by]
    if not all(isinstance(name, str) for name in several):
        raise ConfigError('by takes names of columns or variables, such as ["model", "effort"] or "model,effort".')
    found = (name.strip() for name in several)
    return list(dict.fromkeys(_ALIASES.get(name, name) for name in found if name))


def _column(name: str, subject: Subject, settings: Mapping[str, list[Any]], variables: Iterable[str]) -> list[Any]:
    """The values that make configurations."""
    frame = subject.frame
    if name in settings:
        return settings[name]
    if name == "provider":
        return _first(objects(frame["requested_provider"]), objects(frame["provider"]))
    if name in frame.columns:
        return objects(frame[name])
    if name in variables:
        return [some.get(name) for some in frame["variables"]]
    known = [*settings, *_ALIASES, *map(str, frame.columns), *variables]
    hint = did_you_mean(name, known, otherwise="Settings, columns of the DataFrame and variables are known.")
    raise ConfigError(f"by: these runs have no column or variable {name!r}. {hint}")


def _settings(subject: Subject) -> dict[str, list[Any]]:
    """The settings by ``_COMPARED``: what was asked for, else what ran."""
    frame, asked = subject.frame, {name: subject.asked[name].tolist() for name in subject.asked}
    target = asked["target"]
    model = _filled(asked["model"], _models(frame, "provider", "model"), target)
    short = short_models(model)
    version = _first(objects(frame["agent_version"]), asked["version"])
    return {
        "model": [short.get(one) for one in model],
        "effort": _filled(asked["effort"], objects(frame["effort"]), target),
        "think_mode": _filled(asked["think"], objects(frame["think_mode"]), target),
        "target": target,
        # Asked for is a version's number, or "draft"; only what ran is known of every frame.
        "agent_version": _filled([None] * len(frame), version, target),
        "prompt": _first(asked["prompt"], objects(frame["prompt"])),
    }


def _filled(asked: list[Any], ran: list[Any], target: list[Any]) -> list[Any]:
    """What was asked for, else what ran.

    Of a run that failed early nobody said what ran: it stands with its target's other runs that asked for nothing,
    where these are of one kind. Else failures would make a configuration of their own.
    """
    values = _first(asked, ran)
    if None not in values:
        return values
    seen: dict[Any, set[Any]] = {}
    for wanted, found, at in zip(asked, ran, target, strict=True):
        if wanted is None and found is not None:
            seen.setdefault(at, set()).add(found)
    only = {at: next(iter(found)) for at, found in seen.items() if len(found) == 1}
    return [only.get(at) if value is None else value for value, at in zip(values, target, strict=True)]


def _varying(settings: Mapping[str, list[Any]], subject: Subject, compete: bool) -> dict[str, list[Any]]:
    """The settings that vary; not those that nobody asked for and that follow from the others."""
    vary = {name: values for name, values in settings.items() if len(set(values)) > 1}
    if not compete:
        vary.pop("prompt", None)
    for name, wanted in zip(_COMPARED, SETTINGS, strict=True):
        others = [_codes(values) for other, values in vary.items() if other != name]
        if name in vary and others and name != "prompt" and subject.asked[wanted].isna().all():
            without = _combined(others, len(subject.frame))
            if _combined([without, _codes(vary[name])], len(subject.frame)).max() == without.max():
                del vary[name]
    return vary


def _inputs(subject: Subject, variables: list[Any], by: set[str]) -> tuple[set[str], NDArray[np.int64]]:
    """The settings that vary, by ``asked.SETTINGS``, and the number of each row's input."""
    import numpy as np
    import pandas as pd

    texts = [sorted_json(some) for some in variables]
    prompts = [prompt or "" for prompt in objects(subject.frame["prompt"])]
    columns = [subject.asked[name].tolist() for name in (*SETTINGS, "thread")]
    # Repeats are asked the same: each is looked at once.
    group = _combined([_codes(column) for column in (*columns, texts, prompts)], len(texts))
    rows = pd.Series(group).drop_duplicates().index
    asked = [Asked(tuple(c[row] for c in columns[:-1]), columns[-1][row], texts[row], prompts[row]) for row in rows]
    layout = laid_out(asked, {texts[row]: variables[row] for row in rows}, by)
    number: dict[Any, int] = {}
    of_group = np.array([number.setdefault(key, len(number)) for key in layout.inputs], dtype="int64")
    return {SETTINGS[place] for place in layout.vary}, of_group[group]


def _codes(values: Sequence[Any]) -> NDArray[np.int64]:
    """A number for each value, from 0, in the order in which they come."""
    import numpy as np
    import pandas as pd

    array = np.empty(len(values), dtype="object")
    array[:] = values
    try:
        codes, _ = pd.factorize(array, use_na_sentinel=False)
    except TypeError:  # lists and dicts
        codes, _ = pd.factorize(np.array([as_shown(value) for value in values], dtype="object"))
    return codes.astype("int64")


def _combined(several: Sequence[NDArray[np.int64]], rows: int) -> NDArray[np.int64]:
    """A number for each combination of these, from 0, in the order in which they come."""
    import numpy as np
    import pandas as pd

    found = np.zeros(rows, dtype="int64")
    for codes in several:
        found, _ = pd.factorize(found * (codes.max(initial=0) + 1) + codes)
    return found.astype("int64")


def _shown(name: str, value: Any) -> str | None:
    """A value in a configuration's name; None for a setting's default."""
    if value is None:
        return None if name in _COMPARED else f"no {name}"
    return value if isinstance(value, str) else f"{name} {plain(as_shown(value))}"


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
    lost = frame["status"].isin(("failed", "error", "stopped", "unknown"))
    return (lost | frame["error_type"].notna()).to_numpy(dtype="bool")
