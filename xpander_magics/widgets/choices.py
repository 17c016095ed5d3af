"""What is chosen in a panel, without its widgets: what there is to choose, and how a cell says what was chosen."""

from __future__ import annotations

import reprlib
import shlex
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xpander_magics.cell import Options, cell_parser, is_template
from xpander_magics.contract import Agent, Model, model_in_full
from xpander_magics.errors import ConfigError, XpanderError, did_you_mean
from xpander_magics.plans.grid import rows_of
from xpander_magics.plans.template import Template, own_names
from xpander_magics.results import Run
from xpander_magics.safety import MASK, as_shown, is_secret_name, plain
from xpander_magics.service.targets import why_not, written
from xpander_magics.showing.markup import escape

EFFORT_WORDS = {
    "low": "soonest, least thinking",
    "medium": "some thinking first",
    "high": "much thinking, slower, more tokens",
    "xhigh": "most thinking, slowest, most tokens",
}
THINK_WORDS = {
    "default": "thinks as it usually does",
    "harder": "goes over its answer again, slower, more tokens",
}
_LONGEST_VALUE = 120
_LONGEST_ANSWER = 80


@dataclass(frozen=True)
class Choice:
    """One of those listed.

    Attributes:
        value: as a cell names it.
        label: as the list shows it.
        about: a line on it.
        refused: why it can't be taken; None where it can.
    """

    value: str
    label: str
    about: str = ""
    refused: str | None = None


def targets_from(entries: Iterable[Agent]) -> list[Choice]:
    """Agents and workflows: those that can be run first, by name."""
    found = []
    for value, entry in written(entries).items():
        refused = why_not(entry)
        state = f"{entry.status}: can't be run" if refused else str(entry.status or "")
        label = " · ".join(part for part in (str(entry.name or entry.id), entry.kind, state) if part)
        model = model_in_full(entry.model_provider, entry.model_name)
        about = " ".join(part for part in (str(entry.description or ""), f"(runs on {model})" if model else "") if part)
        found.append(Choice(value, plain(label), plain(about), refused))
    return sorted(found, key=lambda choice: (choice.refused is not None, choice.label.casefold()))


def models_from(provider: str, models: Iterable[Model]) -> list[Choice]:
    """A provider's models by tier; those without a tier come last."""
    found = []
    for model in models:
        name, tier = str(model.display_name or model.model_id), model.tier
        known = isinstance(tier, (int, float))
        label = f"tier {tier} · {name}" if known else name
        order = (not known, tier if known else 0, name.casefold())
        found.append((order, Choice(f"{provider}/{model.model_id}", plain(label), plain(str(model.description or "")))))
    return [choice for _, choice in sorted(found, key=lambda pair: pair[0])]


def matching(choices: Sequence[Choice], typed: str) -> list[Choice]:
    """Those that hold each word that was typed; all of them where one is meant already."""
    if named(choices, typed) is not None:
        return list(choices)
    words = typed.casefold().split()
    return [c for c in choices if all(word in f"{c.value} {c.label} {c.about}".casefold() for word in words)]


def named(choices: Iterable[Choice], typed: str) -> Choice | None:
    """The one that is meant by what was typed."""
    return next((choice for choice in choices if choice.value == typed.strip()), None)


_MAKE_SEVERAL = ("models", "efforts", "thinks")


def defaults_from(options: Options, before: Options) -> Options:
    """The defaults of later cells: all but what belongs to the prompt that was written here.

    Repeats, and several models, efforts or think modes, stay the panel's own: by them a cell of one run would become a
    sweep, and cost as much, without a word in it.
    """
    single = {n: getattr(options if len(getattr(options, n)) <= 1 else before, n) for n in _MAKE_SEVERAL}
    repeat = before.repeat if (options.repeat or 1) > 1 else options.repeat
    over = options.over if options.over == before.over else None
    return replace(options, out=None, over=over, repeat=repeat, **single)


def cell_line(options: Options) -> str:
    """The options as they stand behind ``%%xpander``; ``cell.parse_cell`` reads the same from it, but for secrets.

    Raises:
        ConfigError: one of them can't be written in one line.
    """
    said = options.without_secrets().said()
    words = [said["target"]] if "target" in said else []
    if words and words[0].startswith("-"):
        raise ConfigError(f"A target that begins with a hyphen is named with its kind: agent:{words[0]}.")
    for action in cell_parser()._actions:
        value = said.get(action.dest)
        if value is None:
            continue
        if action.nargs == 0:
            words.append(action.option_strings[0 if value else -1])
            continue
        values = value if isinstance(value, tuple) else (value,)
        if action.dest in ("models", "efforts", "thinks") and not any(map(is_template, values)):
            values = (",".join(values),)
        for one in values:
            words += _option(action.option_strings, one)
    for word in words:
        if word.splitlines() != [word]:
            raise ConfigError(
                f"A cell's options stand in one line, and this holds a line break: {word[:40]!r}…\n"
                "Put it into a variable, and write the variable: --context '{{ facts }}'"
            )
    return shlex.join(words)


def _option(names: Sequence[str], value: Any) -> list[str]:
    text = repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
    # What begins with a hyphen would be taken for an option.
    return [f"{names[-1]}={text}"] if text.startswith("-") else [names[0], text]


def cell_text(options: Options, prompt: str) -> str:
    """The cell that does the same; raises as ``cell_line``."""
    return f"{f'%%xpander {cell_line(options)}'.rstrip()}\n{prompt}"


@dataclass(frozen=True)
class Variable:
    """A variable of a template; ``value`` None where there is none, and then ``note`` says so."""

    name: str
    value: str | None
    note: str = ""


def variables_in(
    prompt: str, options: Options, variables: Mapping[str, Any], redact: Callable[[Any], Any]
) -> list[Variable]:
    """The variables that the prompt and the options name, as they stand.

    Raises:
        TemplateError: what was typed is no template.
    """
    if options.raw:
        return []
    texts = [text for value in options.said().values() for text in (value if isinstance(value, tuple) else (value,))]
    names = {name for text in (prompt, *filter(is_template, texts)) for name in Template(text).names}
    row = _first_row(options.over, variables)
    shown = _Shown(redact)
    known = [name for name in (*row, *variables) if not name.startswith("_")]
    found = []
    for name in sorted(names):
        if name in row or name in variables:
            value = MASK if is_secret_name(name) else shown.value(row[name] if name in row else variables[name])
            found.append(Variable(name, value, f"first row of {options.over}" if name in row else ""))
        elif name not in own_names():
            found.append(Variable(name, None, f"not defined. {did_you_mean(name, known)}".strip()))
    return found


def _first_row(over: str | None, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The first row alone: a table may be large, and this is asked for as one types."""
    value: Any = variables.get(over) if over is not None else None
    if isinstance(value, Mapping):
        value = {name: list(several)[:1] for name, several in value.items() if hasattr(several, "__len__")}
    elif hasattr(value, "head"):
        value = value.head(1)
    elif isinstance(value, list):
        value = value[:1]
    try:
        return rows_of(value, {})[0]
    except XpanderError:  # the quote says what is wrong with it
        return {}


def tables_among(variables: Mapping[str, Any]) -> list[str]:
    """The names of what a prompt may be run over."""

    def fits(value: Any) -> bool:
        if isinstance(value, Mapping):
            return bool(value) and all(isinstance(several, (list, tuple, range)) for several in value.values())
        if isinstance(value, list):
            return bool(value) and all(isinstance(row, Mapping) for row in value[:10])
        # Of its type: a value of another library may begin to compute where it is asked itself.
        kind = type(value)
        return hasattr(kind, "columns") and (hasattr(kind, "to_dicts") or hasattr(kind, "to_dict"))

    return [name for name, value in variables.items() if not name.startswith("_") and fits(value)]


class _Shown(reprlib.Repr):
    """Values in a few words, their secrets masked before anything is cut."""

    def __init__(self, redact: Callable[[Any], Any]) -> None:
        super().__init__()
        self._redact = redact

    def value(self, value: Any) -> str:
        try:
            return self._in_words(value)
        except Exception:  # the value's own
            return f"<{type(value).__name__}>"

    def _in_words(self, value: Any) -> str:
        if isinstance(value, types.ModuleType):
            return f"module {value.__name__}"
        if callable(value):
            kind = "class" if isinstance(value, type) else "function" if hasattr(value, "__name__") else "callable"
            return f"{kind} {getattr(value, '__name__', type(value).__name__)}"
        shape = getattr(value, "shape", None)
        if isinstance(shape, tuple) and shape:
            return f"{type(value).__name__} of {' × '.join(map(str, shape))}"
        text = " ".join(plain(self.repr(value)).split())
        return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"

    def repr_str(self, value: str, level: int) -> str:
        masked = str(self._redact(value[:20_000]))
        return repr(masked if len(masked) <= _LONGEST_VALUE else f"{masked[:_LONGEST_VALUE]}…")

    def repr_instance(self, value: Any, level: int) -> str:
        return str(self._redact(repr(value)))


def variables_html(found: Sequence[Variable]) -> str:
    """The variables as a table; those that are missing are said so in words."""
    rows = [
        f'<th scope="row">{escape(one.name)}</th><td>'
        + (f"<strong>{escape(one.note)}</strong>" if one.value is None else escape(one.value))
        + (f" ({escape(one.note)})" if one.value is not None and one.note else "")
        + "</td>"
        for one in found
    ]
    return _table("Variables of the prompt", ("name", "value"), rows)


def runs_html(runs: Sequence[Run]) -> str:
    """The last runs as a table, the newest first."""
    rows = []
    for run in runs:
        model = model_in_full(run.provider, run.model)
        seconds = None if run.latency_s is None else f"{run.latency_s:.1f}"
        answer = plain(run.result or run.error or "").replace("\n", " ")
        answer = answer if len(answer) <= _LONGEST_ANSWER else f"{answer[:_LONGEST_ANSWER]}…"
        at = run.sent_at or run.created_at
        time = f"{at.astimezone():%H:%M:%S}" if at else ""
        cells = [time, run.target, model, run.effort, run.status, seconds, run.total_tokens, answer]
        rows.append("".join(f"<td>{escape(as_shown(cell))}</td>" for cell in cells))
    head = ("time", "target", "model", "effort", "status", "seconds", "tokens", "answer")
    return _table("Last runs", head, rows)


def _table(caption: str, names: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    table = f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    # A wide table scrolls in its place, by the keyboard, too.
    return f'<div class="xp-scrolls" role="region" tabindex="0" aria-label="{caption}">{table}</div>'
