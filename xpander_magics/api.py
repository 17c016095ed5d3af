"""``xp.run``, ``xp.sweep`` and ``xp.runs``: what the magics do, from Python."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from xpander_magics.cell import Options, as_set
from xpander_magics.errors import ConfigError, without_variables
from xpander_magics.progress import bar
from xpander_magics.results import Run
from xpander_magics.safety import plain
from xpander_magics.session import default_session

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import pandas as pd

    from xpander_magics.outcomes import Runs

_Sent = TypeVar("_Sent", bound="Run | Runs")


@without_variables
def run(
    prompt: str,
    *,
    target: str | None = None,
    model: str | None = None,
    effort: str | None = None,
    think: str | None = None,
    variables: Mapping[str, Any] | None = None,
    version: str | None = None,
    instructions: str | None = None,
    context: str | None = None,
    expected_output: str | None = None,
    title: str | None = None,
    format: str | None = None,
    schema: Any = None,
    files: Iterable[str] = (),
    user: Mapping[str, Any] | None = None,
    payload: Mapping[str, Any] | None = None,
    mcp: Any = None,
    thread: Run | str | None = None,
    fields: Mapping[str, Any] | None = None,
    mode: str | None = None,
    rpm: float | None = None,
    timeout: float | None = None,
    usage: bool | None = None,
    on_interrupt: str | None = None,
    cached: bool = False,
    experiment: str | None = None,
    tags: Iterable[str] = (),
    note: str | None = None,
    score: Any = None,
    expected: str | None = None,
    raw: bool = False,
    allow_secrets: bool = False,
) -> Run:
    """Sends one prompt to an agent or a workflow; what ``%%xpander`` does, from Python.

    Args:
        prompt: a Jinja2 template over ``variables``; sent as it is with ``raw``.
        target: a name, unique name or id; else what ``%xpander use`` chose, else ``XPANDER_AGENT_ID``.
        model: ``PROVIDER/MODEL``.
        schema: a JSON Schema as a dict, a path to a .json file, or a pydantic model class.
        mcp: an MCP server's ``{name, config}``, or a list of them.
        fields: further fields of the invoke body by their own names, as ``--set`` gives them.
        timeout: seconds that the run may take.
        score: a scorer, or a list of them, as in ``xp.score``; the run is scored as it lands.
        expected: the variable that says what the answer should be.

    Returns:
        The run, ``completed``; or ``paused`` where it waits for a person.

    Raises:
        XpanderError: one of its kinds; ``run`` holds what was kept. See ``xpander_magics.errors``.
    """
    given = dict(locals())
    options = _options(given, models=_one("model", model), efforts=_one("effort", effort), thinks=_one("think", think))
    session = default_session()
    return _told(session.run(options.over_defaults(session.defaults), prompt, variables or {}))


@without_variables
def sweep(
    prompt: str,
    *,
    target: str | None = None,
    models: Iterable[str] = (),
    efforts: Iterable[str] = (),
    thinks: Iterable[str] = (),
    over: Any = None,
    repeat: int | None = None,
    variables: Mapping[str, Any] | None = None,
    version: str | None = None,
    instructions: str | None = None,
    context: str | None = None,
    expected_output: str | None = None,
    title: str | None = None,
    format: str | None = None,
    schema: Any = None,
    files: Iterable[str] = (),
    user: Mapping[str, Any] | None = None,
    payload: Mapping[str, Any] | None = None,
    mcp: Any = None,
    thread: Any = None,
    fields: Mapping[str, Any] | None = None,
    mode: str | None = None,
    jobs: int | None = None,
    rpm: float | None = None,
    timeout: float | None = None,
    usage: bool | None = None,
    on_interrupt: str | None = None,
    cached: bool = False,
    experiment: str | None = None,
    tags: Iterable[str] = (),
    note: str | None = None,
    score: Any = None,
    expected: str | None = None,
    raw: bool = False,
    allow_secrets: bool = False,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> Runs:
    """Sends one prompt for each combination of input, model, effort, think mode and repeat.

    All is rendered and checked before the first is sent. An interrupt sends no more, stops what is under
    way (or leaves it, with ``on_interrupt="detach"``) and returns what there is.

    Args:
        prompt: a Jinja2 template over ``variables`` and the row; sent as it is with ``raw``.
        models: each ``PROVIDER/MODEL``. What isn't listed here or in ``%xpander use`` is as the target has it.
        over: the inputs: a DataFrame, a list of dicts, or a dict of lists (every combination). The names of
            its columns are variables of the template, and of every other text.
        repeat: how often each combination is sent.
        thread: a run whose conversation is gone on with, or several; within one, turns go one by one.
        jobs: how many are under way at once at the most; 20 when omitted.
        rpm: the most requests a minute, evenly spaced. The service's own limit is held besides.
        timeout: seconds that each run may take.
        usage: whether each run asks what it used and cost, one more request each.
        cached: reuse completed runs that asked the same.
        executor: any ``concurrent.futures.Executor``, to run the calls in other processes or on other
            machines; they need this package, and a store that all of them reach.
        progress: whether a progress bar is shown; when omitted, in notebooks and terminals.
        The other arguments are those of ``run``.

    Returns:
        The runs, in the order of inputs, models, efforts, think modes and repeats. A failed run is one of
        them; ``raise_for_failures()`` raises for it.

    Raises:
        XpanderError: nothing was sent; or what stopped all of it, such as a key that is refused. Then
            ``runs`` of the error has what was done.
    """
    given = dict(locals())
    _count("repeat", repeat)
    _count("jobs", jobs)
    if over is None and isinstance(variables, Mapping) and "over" in variables:
        raise ConfigError("over is an argument of its own, not one of the variables.")
    options = _options(
        given,
        models=_several("models", models),
        efforts=_several("efforts", efforts),
        thinks=_several("thinks", thinks),
        over=over,
        repeat=repeat,
        jobs=jobs,
    )
    session = default_session()
    grid = session.grid(options.over_defaults(session.defaults), prompt, variables or {})
    with bar(progress) as shown:
        runs = session.sweep(grid, shown, executor)
    return _told(runs)


def _options(given: Mapping[str, Any], **several: Any) -> Options:
    """The arguments of ``run`` and ``sweep`` as options, checked."""
    prompt, fields = given["prompt"], given["fields"]
    if not isinstance(prompt, str):
        raise _wrong("prompt", "a text", prompt)
    if not prompt.strip():
        raise ConfigError("prompt is empty; nothing was sent.")
    _texts(**{name: given[name] for name in _TEXTS})
    _switches(**{name: given[name] for name in ("usage", "cached", "raw", "allow_secrets")})
    _amount("rpm", given["rpm"], "a number of requests a minute")
    _amount("timeout", given["timeout"], "a number of seconds")
    for name in ("variables", "fields"):
        if given[name] is not None and not isinstance(given[name], Mapping):
            raise _wrong(name, "a dict", given[name])
    same: tuple[str, ...] = ("schema", "user", "payload", "mcp", "thread", "rpm", "timeout", "usage")
    told: dict[str, Any] = {name: given[name] for name in (*_TEXTS, *same)}
    told.update({name: given[name] or None for name in ("cached", "raw", "allow_secrets")})
    return Options(
        **several,
        **told,
        files=_several("files", given["files"]),
        tags=_several("tags", given["tags"]),
        scores=_scores(given["score"]),
        set=as_set(fields or {}),
    )


def _scores(given: Any) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, (list, tuple)) else () if given is None else (given,)


def _told(runs: _Sent) -> _Sent:
    """The run or runs, once what their scoring has to say was said."""
    if runs.said:
        print(plain(runs.said), end="", flush=True)
    return runs


_TEXTS = (
    *("target", "version", "instructions", "context", "expected_output", "title", "format", "mode"),
    *("on_interrupt", "experiment", "note", "expected"),
)


def _one(name: str, value: Any) -> tuple[str, ...]:
    _texts(**{name: value})
    return (value,) if value else ()


def _several(name: str, values: Any) -> tuple[str, ...]:
    """The values; one that was given without a list around it counts as one."""
    several = values if isinstance(values, Iterable) and not isinstance(values, (str, Mapping)) else [values]
    found = tuple(several)
    for value in found:
        if not isinstance(value, str):
            raise _wrong(name, "a list of texts", value if several is values else values)
    return found


def _texts(**given: object) -> None:
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise _wrong(name, "a text", value)


def _switches(**given: object) -> None:
    for name, value in given.items():
        if value is not None and not isinstance(value, bool):
            raise _wrong(name, "True or False", value)


def _amount(name: str, value: Any, takes: str) -> None:
    # Whether it is above 0 is checked with the options.
    if value is not None and (isinstance(value, bool) or not isinstance(value, numbers.Real)):
        raise _wrong(name, f"{takes} above 0", value)


def _count(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise _wrong(name, "a whole number above 0", value)
    if int(value) < 1:
        raise ConfigError(f"{name} takes a whole number above 0, not {value}.")


def _wrong(name: str, takes: str, value: object) -> ConfigError:
    # The type alone: the value may be long, or nobody's business.
    return ConfigError(f"{name} takes {takes}, not a value of type {type(value).__name__}.")


def runs(
    *,
    experiment: str | None = None,
    status: str | None = None,
    target: str | None = None,
    tag: str | None = None,
    last: int | None = None,
) -> pd.DataFrame:
    """Every kept run, or those that fit, newest last.

    Args:
        last: no more than so many, the newest.

    Returns:
        A DataFrame of one row a run, always with the same columns and dtypes.

    Raises:
        ConfigError: an argument is of another type, or the store can't be read.
    """
    _texts(experiment=experiment, status=status, target=target, tag=tag)
    _count("last", last)
    return default_session().store.frame(experiment=experiment, status=status, target=target, tag=tag, limit=last)
