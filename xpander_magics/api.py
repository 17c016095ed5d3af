"""``xp.run`` and ``xp.runs``: what the magics do, from Python."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from xpander_magics.cell import Options
from xpander_magics.errors import ConfigError
from xpander_magics.results import Run
from xpander_magics.session import as_set, default_session

if TYPE_CHECKING:
    import pandas as pd


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

    Returns:
        The run, ``completed``; or ``paused`` where it waits for a person.

    Raises:
        XpanderError: one of its kinds; ``run`` holds what was kept. See ``xpander_magics.errors``.
    """
    if not isinstance(prompt, str):
        raise _wrong("prompt", "a text", prompt)
    if not prompt.strip():
        raise ConfigError("prompt is empty; nothing was sent.")
    _texts(target=target, model=model, effort=effort, think=think, version=version, instructions=instructions)
    _texts(context=context, expected_output=expected_output, title=title, format=format, mode=mode)
    _texts(on_interrupt=on_interrupt, experiment=experiment, note=note)
    _switches(usage=usage, cached=cached, raw=raw, allow_secrets=allow_secrets)
    _amount("rpm", rpm, "a number of requests a minute")
    _amount("timeout", timeout, "a number of seconds")
    for name, value in (("variables", variables), ("fields", fields)):
        if value is not None and not isinstance(value, Mapping):
            raise _wrong(name, "a dict", value)
    options = Options(
        target=target,
        models=(model,) if model else (),
        efforts=(effort,) if effort else (),
        thinks=(think,) if think else (),
        version=version,
        instructions=instructions,
        context=context,
        expected_output=expected_output,
        title=title,
        format=format,
        schema=schema,
        files=_several("files", files),
        user=user,
        payload=payload,
        mcp=mcp,
        thread=thread,
        set=as_set(fields or {}),
        mode=mode,
        rpm=rpm,
        timeout=timeout,
        usage=usage,
        on_interrupt=on_interrupt,
        cached=cached or None,
        experiment=experiment,
        tags=_several("tags", tags),
        note=note,
        raw=raw or None,
        allow_secrets=allow_secrets or None,
    )
    session = default_session()
    return session.run(options.over_defaults(session.defaults), prompt, variables or {})


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
