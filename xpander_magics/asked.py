"""What was asked of runs, and how: which settings vary, and which runs were asked the same. No I/O, no pandas.

The board and comparisons lay runs out by these rules, so both have the same inputs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from xpander_magics.contract import model_in_full
from xpander_magics.errors import ConfigError, did_you_mean
from xpander_magics.results import Run
from xpander_magics.safety import plain
from xpander_magics.store.values import to_json

SETTINGS = ("model", "effort", "think", "target", "version", "prompt")
"""The settings of a run, in this order; a prompt's is its template."""

_LONGEST_NAME = 60

InputKey = tuple[str, str, str]
"""Equal for what was asked alike: the variables' values, the conversation, the prompt."""


class Asked(NamedTuple):
    """What was asked of a run, and how: equal for repeats.

    Attributes:
        settings: the values of ``SETTINGS``; None where none was asked for.
        thread: the conversation that it went on with.
        variables: as ``sorted_json`` has them.
    """

    settings: tuple[str | None, ...]
    thread: str | None
    variables: str
    prompt: str


class Layout(NamedTuple):
    """How runs are laid out.

    Attributes:
        vary: the settings that vary, by their numbers; templates only where they compete.
        told: the variables that say no more than a setting does.
        threads: whether conversations tell inputs apart.
        inputs: the input of each that was asked.
    """

    vary: list[int]
    told: set[str]
    threads: bool
    inputs: list[InputKey]


def asked_of(run: Run, same: dict[str | None, str | None]) -> Asked:
    """What was asked of a run. Settings are those that were asked for: what the service chose is known of those alone
    that were sent.

    Args:
        same: a text that thousands of runs have is kept once, here.
    """
    model = None
    if run.requested_model:
        model = model_in_full(run.requested_provider, run.requested_model)
    settings = (
        model,
        run.requested_effort,
        run.request.get("think_mode"),
        run.target or run.target_id,
        run.version,
        run.template,
    )
    thread = run.request.get("id")
    texts = (sorted_json(run.variables), run.prompt or "")
    variables, prompt = (same.setdefault(text, text) or "" for text in texts)
    return Asked(
        tuple(same.setdefault(value, value) for value in settings),
        thread if isinstance(thread, str) else None,
        variables,
        prompt,
    )


def laid_out(
    asked: Collection[Asked], variables: Mapping[str, Mapping[str, Any]], also: Collection[str] = ()
) -> Layout:
    """Which settings vary among these, and which of them are one input.

    Args:
        variables: the variables by their ``sorted_json``.
        also: variables that make configurations, and so no inputs.
    """
    compete = _templates_compete(asked)
    vary = [
        number
        for number, values in enumerate(zip(*(one.settings for one in asked), strict=True))
        if len(set(values)) > 1 and (SETTINGS[number] != "prompt" or compete)
    ]
    told = {*_told(asked, variables, vary), *also}
    left = {
        text: sorted_json({name: value for name, value in some.items() if name not in told}) if told else text
        for text, some in variables.items()
    }
    threads = _threads_tell(asked, vary)
    inputs = [(left[one.variables], (threads and one.thread) or "", _text(one, told, compete)) for one in asked]
    return Layout(vary, told, threads, inputs)


def _threads_tell(asked: Collection[Asked], vary: Sequence[int]) -> bool:
    """Whether conversations tell inputs apart.

    Not where they were had with different settings, each with one, as when all of a sweep is replied to: then the
    variables say what a conversation is about, and two models' talks about the same are one input.
    """
    if len({one.thread for one in asked}) < 2:
        return False
    had: dict[str, set[tuple[str | None, ...]]] = {}
    for one in asked:
        if one.thread is None or one.variables == "{}":
            return True
        had.setdefault(one.thread, set()).add(tuple(one.settings[number] for number in vary))
    return any(len(settings) > 1 for settings in had.values()) or len(set().union(*had.values())) == 1


def _text(one: Asked, told: Collection[str], compete: bool) -> str:
    """What the prompt adds to the variables in telling inputs apart."""
    if one.variables == "{}":
        return one.prompt
    if compete:
        return ""
    # A prompt may name what makes configurations; its template doesn't.
    return one.settings[-1] or one.prompt if told else one.prompt


def sorted_json(variables: Mapping[Any, Any]) -> str:
    """The variables as JSON; equal whatever their order."""
    return to_json(dict(sorted(variables.items(), key=lambda item: str(item[0]))))


def _templates_compete(asked: Iterable[Asked]) -> bool:
    """Whether different templates made different prompts of the same variables."""
    first: dict[str, Asked] = {}
    for one in asked:
        other = first.setdefault(one.variables, one)
        if one.variables != "{}" and one.settings[-1] != other.settings[-1] and one.prompt != other.prompt:
            return True
    return False


def _told(asked: Iterable[Asked], variables: Mapping[str, Mapping[str, Any]], vary: Sequence[int]) -> set[str]:
    """The variables that say no more than a setting does, such as a column of --over that holds the model's name."""
    told = {name for some in variables.values() for name in some} if vary else set()
    for one in asked:
        if not told:
            break
        said = [value for number in vary if (value := one.settings[number]) is not None]
        said += [value.partition("/")[2] for value in said]
        told -= {name for name in told if variables[one.variables].get(name) not in said}
    return told


def short_models(models: Iterable[str | None]) -> dict[str | None, str]:
    """The models without their providers, if they are told apart without them."""
    short = {model: model.partition("/")[2] or model for model in models if model}
    known: dict[str | None, str] = {}
    known.update(short if len(set(short.values())) == len(short) else {model: model for model in short})
    return known


def configuration_names(settings: Sequence[str], configurations: Iterable[Sequence[str | None]]) -> list[str]:
    """A short name for each configuration, harmless anywhere but in HTML; no two are alike."""
    names: dict[str, None] = {}
    for values in configurations:
        told = zip(settings, values, strict=True)
        name = " · ".join(_short(value or f"default {setting}") for setting, value in told) or "runs"
        alike = (name, *(f"{name} #{number}" for number in range(2, len(names) + 2)))
        names[next(one for one in alike if one not in names)] = None
    return list(names)


def configuration_named(wanted: str, names: Sequence[str]) -> int:
    """The number of the configuration that is meant."""
    if wanted in names:
        return names.index(wanted)
    low = str(wanted).casefold().strip()
    words = re.split(r"[\s,·]+", low)
    parts = [[part.strip() for part in name.casefold().split("·")] for name in names]
    for fits in (
        [n for n, name in enumerate(names) if name.casefold() == low],
        [n for n, own in enumerate(parts) if low in own or set(words) <= set(own)],
        [n for n, name in enumerate(names) if all(word in name.casefold() for word in words)],
    ):
        if len(fits) == 1:
            return fits[0]
        if fits:
            several = ", ".join(names[n] for n in fits[:5])
            raise ConfigError(f"Several configurations are called {wanted!r}: {several}. Write more of the name.")
    hint = did_you_mean(str(wanted), names, otherwise=f"There are: {', '.join(names[:10])}.")
    raise ConfigError(f"There is no configuration {wanted!r}. {hint}")


def _short(text: str) -> str:
    line = " ".join(plain(text).split())
    return line if len(line) <= _LONGEST_NAME else f"{line[: _LONGEST_NAME - 1]}…"
