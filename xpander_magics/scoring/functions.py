"""Any Python function as a scorer: what it is called with, and what it may return."""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import numbers
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

from xpander_magics.errors import ConfigError
from xpander_magics.scoring.measures import Answer, Measure, Unscored, plain_value


class Adapted(NamedTuple):
    """What a ``Scorer`` is made of."""

    name: str
    spec: str
    measure: Measure
    needs_expected: bool


def adapted(function: Callable[..., Any], named: str) -> Adapted:
    """A function as a scorer has it.

    It is called with the answer's text, and with the expected value where it takes two; parameters named ``run``,
    ``output`` (the answer's JSON) and ``expected`` get these, wherever they stand. It returns a number, True or
    False, or None where it can't say.

    Args:
        named: what it is called where it has no name of its own.

    Raises:
        ConfigError: it can't be called so.
    """
    bare = function
    while isinstance(bare, functools.partial):
        bare = bare.func
    own = getattr(bare, "__name__", None) or type(bare).__name__
    name = own if own.isidentifier() else named
    if inspect.iscoroutinefunction(bare):
        raise ConfigError(f"The scorer {name} is an async function; a scorer is a plain one.")
    given = _parameters(function, name)
    optional = {parameter for parameter, (what, has_default) in given.items() if what == "expected" and has_default}

    def measure(answer: Answer, expected: Any) -> float:
        args, kwargs = [], {}
        for parameter, (what, _) in given.items():
            if expected is None and parameter in optional:
                continue
            value = expected if what == "expected" else _seen(answer, what)
            if parameter.isidentifier():
                kwargs[parameter] = value
            else:
                args.append(value)
        return _number(function(*args, **kwargs))

    needs = any(what == "expected" for parameter, (what, _) in given.items() if parameter not in optional)
    return Adapted(name, f"function {name}{_fingerprint(bare)}", measure, needs)


def _parameters(function: Callable[..., Any], name: str) -> dict[str, tuple[str, bool]]:
    """What each parameter of a scorer's function gets, and whether it has a default; those by position as numbers."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions don't tell
        return {"0": ("answer", False)}
    found: dict[str, tuple[str, bool]] = {}
    places = ["answer", "expected"]
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        has_default = parameter.default is not parameter.empty
        by_position = parameter.kind is parameter.POSITIONAL_ONLY
        if parameter.name in ("run", "output", "expected") and not by_position:
            what = parameter.name
        elif has_default and len(places) < 2:
            continue
        elif not places:
            raise ConfigError(
                f"The scorer {name} wants more than (answer, expected): {parameter.name!r} is one too many.\n"
                "Besides these, run, output and expected are given by name."
            )
        else:
            what = places.pop(0)
        found[str(len(found)) if by_position else parameter.name] = what, has_default
    if not found:
        raise ConfigError(
            f"The scorer {name} takes no answer: write def {name}(answer) or def {name}(answer, expected)."
        )
    return found


def _seen(answer: Answer, what: str) -> Any:
    if what == "run":
        return answer.run()
    return answer.output if what == "output" else answer.text


def _number(value: Any) -> float:
    """What a function has returned, as a score."""
    value = plain_value(value)
    if value is None:
        raise Unscored("the scorer returned nothing")
    if not isinstance(value, numbers.Real):
        raise Unscored(f"it returned a value of type {type(value).__name__}, no number", is_error=True)
    if not math.isfinite(value):
        raise Unscored("it returned infinity", is_error=True)
    return float(value)


def _fingerprint(function: Any) -> str:
    """Tells one version of a function from the next, where its text can be had."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError, IndentationError):
        return ""
    return f" ({hashlib.sha256(source.encode('utf-8', 'replace')).hexdigest()[:8]})"
