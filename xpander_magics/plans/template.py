"""Prompts are Jinja2 templates, rendered in Jinja's sandbox, strictly."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
import jinja2.exceptions
import jinja2.meta
import jinja2.nodes

from xpander_magics.cell import is_template
from xpander_magics.errors import TemplateError, did_you_mean
from xpander_magics.plans.sandbox import Sandbox, TooMuch, budget

# What is kept of a variable beside the run; the prompt itself is kept whole.
_LONGEST_VALUE = 20_000
_PLAIN = (int, float, bool)


@dataclass(frozen=True)
class Rendered:
    """A rendered text, and the variables that its template named, as JSON values."""

    text: str
    variables: dict[str, Any]


@functools.lru_cache(maxsize=1)
def _environment() -> Sandbox:
    return Sandbox()


def own_names() -> set[str]:
    """What every template has without a variable of that name, such as ``range``."""
    return set(_environment().globals)


class Template:
    """A text with its templates, compiled once to be rendered for many rows.

    Args:
        what: what the text is, to begin an error with.

    Raises:
        TemplateError: wrong syntax.
    """

    def __init__(self, text: str, *, what: str = "The prompt") -> None:
        self._what = what
        self._plain = None if is_template(text) else text
        try:
            with budget():
                parsed = _environment().parse(text)
                self.names = sorted(jinja2.meta.find_undeclared_variables(parsed))
                own = any(name.name == "self" for name in parsed.find_all(jinja2.nodes.Name))
                self._compiled = _environment().from_string(_environment().bounded(parsed))
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"{what} is no valid template: {str(error.message).rstrip('.')} (line {error.lineno}).\n"
                "To send braces as they are, use --raw, or {% raw %}…{% endraw %} around them."
            ) from None
        except Exception as error:  # as one whose parts are nested too deep
            raise TemplateError(_broken(what, error)) from None

        if own:
            raise TemplateError(f"{what} names {{{{ self }}}}, which is Jinja's own. Give the variable another name.")

    def used(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the variables that the template names."""
        return {name: variables[name] for name in self.names if name in variables}

    def render(self, used: Mapping[str, Any], known: Iterable[str] = (), where: str = "") -> str:
        """The text with its variables filled in.

        Args:
            used: what ``used`` has picked, for one row.
            known: all names, for a hint where one is undefined.
            where: which row it is, for an error.

        Raises:
            TemplateError: an undefined name (with the nearest), something that the sandbox forbids, or an
                error of a value's own.
        """
        if self._plain is not None:  # Jinja would make one of all ways to end a line
            return self._plain
        try:
            with budget():
                return "".join(self._compiled.generate(used))
        except jinja2.UndefinedError as error:
            raise TemplateError(f"{self._what}{where}: {_undefined(error, known)}") from None
        except jinja2.exceptions.SecurityError as error:
            told = str(error).rstrip(".")
            raise TemplateError(
                f"{self._what}{where} asks for what a template may not do: {told}.\n"
                "Do it in a cell above, and name what comes of it."
            ) from None
        except TooMuch as much:
            raise TemplateError(
                f"{self._what}{where} can't be rendered: {much}.\nMake it in a cell above, and name what comes of it."
            ) from None
        except Exception as error:  # the values are the user's own, and so are their errors
            raise TemplateError(_broken(f"{self._what}{where}", error)) from None


def render(template: str, variables: Mapping[str, Any], *, what: str = "The prompt") -> Rendered:
    """Renders a template over the notebook's variables.

    Args:
        variables: all there are; only those that the template names are looked at.
        what: what the template is, to begin an error with.

    Raises:
        TemplateError: as ``Template``.
    """
    compiled = Template(template, what=what)
    used = compiled.used(variables)
    return Rendered(compiled.render(used, variables), {name: as_json(value) for name, value in used.items()})


def _broken(what: str, error: Exception) -> str:
    told = str(error).rstrip(".")
    return f"{what} can't be rendered: {type(error).__name__}{f': {told}' if told else ''}."


def _undefined(error: jinja2.UndefinedError, variables: Iterable[str]) -> str:
    message = str(error.message or error).rstrip(".")
    name = re.match(r"'(\w+)' is undefined", message)
    if name is None:
        return f"{message}."
    known = [known for known in variables if not known.startswith("_")]
    hint = did_you_mean(name[1], known, otherwise="Define it in a cell above, or send it as typed with --raw.")
    return f"{name[1]!r} is not defined. {hint}"


def _plainer(value: Any) -> Any:
    """A number or an array of numpy's or pandas' as Python's own; text of what else JSON lacks."""
    plainer = getattr(value, "tolist", None)
    return plainer() if callable(plainer) else str(value)


def as_json(value: Any) -> Any:
    """The value as JSON can hold it: what JSON lacks becomes text, what is huge is cut."""
    if value is None or type(value) in _PLAIN or (type(value) is str and len(value) <= _LONGEST_VALUE // 6):
        return value  # most are, and a table has many
    try:
        text = json.dumps(value, default=_plainer)
        if len(text) <= _LONGEST_VALUE:
            return json.loads(text)
    except Exception:  # keys that JSON lacks, circles, or an error of the value's own
        pass
    try:
        shown = str(value)
    except Exception:
        shown = f"<{type(value).__name__}>"
    return shown if len(shown) <= _LONGEST_VALUE else shown[:_LONGEST_VALUE] + "…"
