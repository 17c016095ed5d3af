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

    What isn't given is as ``%xpander use`` chose it, else as the target has it.

    Args:
        prompt: a Jinja2 template over ``variables``, as the other texts are; sent as it is with
            ``raw``.
        target: a name, unique name or id, after ``agent:`` or ``workflow:`` where it is ambiguous;
            else what ``%xpander use`` chose, else ``XPANDER_AGENT_ID``.
        model: ``PROVIDER/MODEL``.
        effort: the reasoning effort: ``low``, ``medium``, ``high`` or ``xhigh``.
        think: the think mode: ``default`` or ``harder``.
        variables: the values of the template's names.
        version: of the target; ``draft`` for the unpublished one.
        instructions: added to the system prompt for this run.
        context: facts added for this run.
        expected_output: the output that is wanted, in words.
        title: a name for the task.
        format: of the answer: ``text``, ``markdown`` or ``json``.
        schema: a JSON Schema as a dict, a path to a .json file, or a pydantic model class, by which
            the answer is checked.
        files: URLs for the agent to read.
        user: who asks: a dict of ``id``, ``email``, ``first_name``, …
        payload: a dict that is kept with the task.
        mcp: an MCP server's ``{name, config}``, or a list of them.
        thread: a ``Run``, or an id, whose conversation is gone on with.
        fields: further fields of the invoke body by their own names, as ``--set`` gives them.
        mode: how the call is made: ``stream`` when omitted, ``sync`` or ``async``.
        rpm: the most requests a minute, evenly spaced.
        timeout: seconds that the run may take; 600 when omitted.
        usage: whether to ask what the run used and cost, one more request; it is when omitted.
        on_interrupt: what becomes of the task if the kernel is interrupted: ``stop`` when omitted,
            or ``detach``, which leaves it running.
        cached: reuse a completed run that asked the same.
        experiment, tags, note: kept with the run.
        score: a scorer, or a list of them, as in ``xp.score``; the run is scored as it lands.
        expected: the variable that says what the answer should be.
        raw: no templates: all is sent as given.
        allow_secrets: send a prompt although it holds a secret.

    Returns:
        The run, ``completed``; or ``paused`` where it waits for a person.

    Raises:
        ConfigError, TemplateError, SecretError: an argument or the prompt is wrong; nothing was
            sent.
        TaskFailed: the task ended, and not as ``completed``.
        XpanderError: another of its kinds, see ``help("xpander_magics.errors")``. Where something
            was sent, the error's ``run`` has what is kept of it.

    Example:
        >>> run = xp.run("Say hi to {{ name }}.", target="writer", variables={"name": "Ada"})
        >>> run.status, run.result
        ('completed', 'Hi Ada!')
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

    All is rendered and checked before the first is sent. An interrupt sends no more, stops what is
    under way (or leaves it, with ``on_interrupt="detach"``) and returns what there is.

    Args:
        prompt: a Jinja2 template over ``variables`` and the row; sent as it is with ``raw``.
        models: each ``PROVIDER/MODEL``.
        efforts: each ``low``, ``medium``, ``high`` or ``xhigh``.
        thinks: each ``default`` or ``harder``.
        over: the inputs: a DataFrame, a list of dicts, or a dict of lists (every combination). The
            names of its columns are variables of the template, and of every other text.
        repeat: how often each combination is sent; once when omitted.
        thread: a run whose conversation is gone on with, or several; within one, turns go one by one.
        jobs: how many are under way at once at the most; 20 when omitted.
        rpm: the most requests a minute, evenly spaced. The service's own limit is held besides.
        timeout: seconds that each run may take; 600 when omitted.
        usage: whether each run asks what it used and cost, one more request each; none does when
            omitted, and ``%xpander usage`` asks later.
        cached: reuse completed runs that asked the same.
        executor: any ``concurrent.futures.Executor``, to run the calls in other processes or on
            other machines; they need this package, and a store that all of them reach.
        progress: whether a progress bar is shown; when omitted, in notebooks and terminals.
        target, variables, version, instructions, context, expected_output, title, format, schema,
            files, user, payload, mcp, fields, mode, on_interrupt, experiment, tags, note, score,
            expected, raw, allow_secrets: as in ``xp.run``; ``expected`` may be a column of ``over``.

    Returns:
        The runs, in the order of inputs, models, efforts, think modes and repeats. A failed run is
        one of them; ``raise_for_failures()`` raises for it.

    Raises:
        ConfigError, TemplateError, SecretError: an argument or a prompt is wrong; nothing was sent.
        XpanderError: another of its kinds: what stopped all of it, such as a key that is refused.
            The error's ``runs`` has what was done.

    Example:
        >>> tickets = [
        ...     {"text": "It crashes.", "label": "bug"},
        ...     {"text": "Please refund me.", "label": "billing"},
        ... ]
        >>> runs = xp.sweep(
        ...     "Bug, billing or praise? {{ text }}",
        ...     target="writer",
        ...     efforts=["low", "high"],
        ...     over=tickets,
        ... )
        >>> runs.statuses()
        {'completed': 4}
        >>> [run.result for run in runs]
        ['bug', 'bug', 'bug', 'billing']
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
        experiment: only runs of this experiment.
        status: only runs with this status: ``completed``, ``failed``, ``planned``, …
        target: only runs of the target of this name or id.
        tag: only runs with this tag.
        last: no more than so many, the newest.

    Returns:
        One row a run, always with the same columns and dtypes: times are datetime64[UTC], settings
        category, counts Int64, seconds (``latency_s``, ``ttft_s``, ``queue_s``, ``server_s``), US
        dollars (``cost_usd``) and scores Float64, ``output``, ``variables``, ``tags``,
        ``tools_used`` and ``metadata`` object. What isn't known is missing.

    Raises:
        ConfigError: an argument is of another type.
        StoreError: the store can't be read.

    Example:
        >>> df = xp.runs(experiment="tickets", status="completed")
        >>> df[["effort", "prompt", "result"]].shape
        (4, 3)
    """
    _texts(experiment=experiment, status=status, target=target, tag=tag)
    _count("last", last)
    return default_session().store.frame(experiment=experiment, status=status, target=target, tag=tag, limit=last)
