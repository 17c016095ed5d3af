"""Runs laid out: each row gets a configuration and an input.

A *configuration* is one combination of the values of the ``by`` columns. An *input* is what was asked, by the board's
rules (``asked``). Settings are what was asked for, else what ran.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xpander_magics.analysis.subjects import Subject, first_of, models_of, objects
from xpander_magics.asked import SETTINGS, Asked, configuration_names, laid_out, short_models, sorted_json
from xpander_magics.errors import ConfigError, did_you_mean
from xpander_magics.safety import as_shown, plain

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

_ALIASES = {"think": "think_mode", "version": "agent_version", "template": "prompt"}
_COMPARED = ("model", "effort", "think_mode", "target", "agent_version", "prompt")
"""What is compared by itself where it varies: ``asked.SETTINGS`` by the names of the frame's columns."""


@dataclass(frozen=True, eq=False)
class Laid:
    """Runs laid out: which configuration, and which input, each row is of.

    Attributes:
        by: what makes configurations.
        configurations: a column for each of ``by``, one row a configuration.
        names: of the configurations; no two are alike.
        configuration, input: int64, of each row, from 0.
        setup: int64, of each row, from 0; the configuration and all settings that vary, those that ``by`` leaves out
            among them. Only runs of one setup are repeats.
        prompts: the templates by their short names, where they make configurations.
    """

    by: tuple[str, ...]
    configurations: pd.DataFrame
    names: list[str]
    configuration: NDArray[np.int64]
    input: NDArray[np.int64]
    setup: NDArray[np.int64]
    prompts: dict[str, str]


def lay_out(subject: Subject, by: Any = None) -> Laid:
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
    varying = _varying(settings, subject, "prompt" in vary)
    if wanted is None:
        columns = varying
    prompts: dict[str, str] = {}
    if "prompt" in columns:
        texts = list(dict.fromkeys(columns["prompt"]))
        short = {text: f"prompt {number}" for number, text in enumerate(texts, 1)}
        prompts = {name: text or "" for text, name in short.items()}
        columns["prompt"] = [short[text] for text in columns["prompt"]]
    configuration = combined([numbered(values) for values in columns.values()], len(frame))
    others = [numbered(values) for name, values in varying.items() if name not in columns]
    setup = combined([configuration, *others], len(frame))
    first = pd.Series(configuration).drop_duplicates().index  # in the order of their numbers
    rows = [tuple(values[row] for values in columns.values()) for row in first]
    told = [name.replace("_", " ").replace("agent ", "") for name in columns]
    shown = [[_shown(name, value) for name, value in zip(columns, row, strict=True)] for row in rows]
    table = pd.DataFrame(rows, columns=list(columns), dtype="object", index=range(len(rows)))
    of_text = [name for name in table if {type(value) for value in table[name]} in ({str}, {str, type(None)})]
    # pyarrow's strings, where it is installed, hold no half of a surrogate pair.
    table = table.astype(dict.fromkeys(of_text, pd.StringDtype("python"))).convert_dtypes()
    return Laid(tuple(columns), table, configuration_names(told, shown), configuration, inputs, setup, prompts)


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
        return first_of(objects(frame["requested_provider"]), objects(frame["provider"]))
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
    model = _filled(asked["model"], models_of(frame, "provider", "model"), target)
    short = short_models(model)
    version = first_of(objects(frame["agent_version"]), asked["version"])
    nothing = [None] * len(frame)
    return {
        "model": [short.get(one) for one in model],
        "effort": _filled(asked["effort"], objects(frame["effort"]), target),
        # Of a frame alone it isn't known which of them was asked for.
        "think_mode": _filled(nothing, _filled(asked["think"], objects(frame["think_mode"]), target), target),
        "target": target,
        # Asked for is a version's number, or "draft"; only what ran is known of every frame.
        "agent_version": _filled(nothing, version, target),
        "prompt": first_of(asked["prompt"], objects(frame["prompt"])),
    }


def _filled(asked: list[Any], ran: list[Any], target: list[Any]) -> list[Any]:
    """What was asked for, else what ran.

    Of a run that failed early nobody said what ran: it stands with its target's other runs that asked for nothing,
    where these are of one kind. Else failures would make a configuration of their own.
    """
    values = first_of(asked, ran)
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
        others = [numbered(values) for other, values in vary.items() if other != name]
        if name in vary and others and name != "prompt" and subject.asked[wanted].isna().all():
            without = combined(others, len(subject.frame))
            if combined([without, numbered(vary[name])], len(subject.frame)).max() == without.max():
                del vary[name]
    return vary


def _inputs(subject: Subject, variables: list[Any], by: set[str]) -> tuple[set[str], NDArray[np.int64]]:
    """The settings that vary, by ``asked.SETTINGS``, and the number of each row's input."""
    import numpy as np
    import pandas as pd

    texts = _texts(variables)
    prompts = [prompt or "" for prompt in objects(subject.frame["prompt"])]
    columns = [subject.asked[name].tolist() for name in (*SETTINGS, "thread")]
    # Repeats are asked the same: each is looked at once.
    group = combined([numbered(column) for column in (*columns, texts, prompts)], len(texts))
    rows = pd.Series(group).drop_duplicates().index
    asked = [Asked(tuple(c[row] for c in columns[:-1]), columns[-1][row], texts[row], prompts[row]) for row in rows]
    layout = laid_out(asked, {texts[row]: variables[row] for row in rows}, by)
    number: dict[Any, int] = {}
    of_group = np.array([number.setdefault(key, len(number)) for key in layout.inputs], dtype="int64")
    return {SETTINGS[place] for place in layout.vary}, of_group[group]


def _texts(variables: Iterable[Mapping[str, Any]]) -> list[str]:
    """The variables as ``sorted_json`` has them; of repeats it is made once."""
    known: dict[Any, str] = {}
    found = []
    for some in variables:
        try:
            key = (*some, *some.values(), *map(type, some.values()))  # 1 is equal to True, but not alike
            text = known.get(key)
            if text is None:
                text = known[key] = sorted_json(some)
        except TypeError:  # lists and dicts
            text = sorted_json(some)
        found.append(text)
    return found


def numbered(values: Iterable[Any]) -> NDArray[np.int64]:
    """A number for each value, from 0, in the order in which they come; all that is missing has one.

    pandas 2 can't tell texts apart that differ behind half a surrogate pair, so it isn't its ``factorize``.
    """
    import numpy as np
    import pandas as pd

    number: dict[Any, int] = {}
    known = objects(pd.Series(list(values), dtype="object"))
    try:
        found = [number.setdefault(value, len(number)) for value in known]
    except TypeError:  # lists and dicts
        return numbered(as_shown(value) for value in known)
    return np.array(found, dtype="int64")


def combined(several: Sequence[NDArray[np.int64]], rows: int) -> NDArray[np.int64]:
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
