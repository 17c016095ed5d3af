"""A ``%%xpander`` line becomes ``Options``. One parser feeds the magic, its help and the completion.

Nothing here looks at the notebook: values are kept as they were typed, and ``plan`` gives them their
meaning.
"""

from __future__ import annotations

import argparse
import json
import keyword
import shlex
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NoReturn

from xpander_magics.contract import EFFORTS, FORMATS, MODES, SECRET_FIELDS, THINK_MODES, sendable
from xpander_magics.errors import ConfigError, did_you_mean
from xpander_magics.safety import MASK, shown_url

VIEWS = ("auto", "text", "markdown", "json", "table", "none")
ON_INTERRUPT = ("stop", "detach")
HELP = ("-h", "--help")


@dataclass(frozen=True)
class Options:
    """What a ``%%xpander`` line says; None and () where it says nothing.

    The values are text as typed, templates included, but for what can only be a number or a switch.
    From Python, ``schema``, ``user``, ``payload``, ``mcp`` and ``thread`` may be the things themselves
    in place of their names, and ``scores`` scorers, functions and judges.
    """

    target: str | None = None
    models: tuple[str, ...] = ()
    efforts: tuple[str, ...] = ()
    thinks: tuple[str, ...] = ()
    repeat: int | None = None
    over: Any = None
    version: str | None = None
    instructions: str | None = None
    context: str | None = None
    expected_output: str | None = None
    title: str | None = None
    format: str | None = None
    schema: Any = None
    files: tuple[str, ...] = field(default=(), repr=False)
    user: Any = None
    payload: Any = None
    mcp: Any = field(default=None, repr=False)
    thread: Any = None
    set: tuple[str, ...] = field(default=(), repr=False)
    mode: str | None = None
    jobs: int | None = None
    rpm: float | None = None
    timeout: float | None = None
    usage: bool | None = None
    on_interrupt: str | None = None
    cached: bool | None = None
    dry_run: bool | None = None
    out: str | None = None
    experiment: str | None = None
    tags: tuple[str, ...] = ()
    note: str | None = None
    scores: tuple[Any, ...] = ()
    expected: str | None = None
    view: str | None = None
    quiet: bool | None = None
    raw: bool | None = None
    allow_secrets: bool | None = None

    def over_defaults(self, defaults: Options) -> Options:
        """These options, with ``defaults`` where they say nothing."""
        said = self.said()
        return replace(self, **{f.name: getattr(defaults, f.name) for f in fields(self) if f.name not in said})

    def without_secrets(self) -> Options:
        """These options as they may be shown: what is for the service alone masked; it isn't JSON any more, either."""
        return replace(
            self,
            set=tuple(map(_shown_field, self.set)),
            mcp=self.mcp if self.mcp is None or isinstance(self.mcp, str) else MASK,
            files=tuple(map(shown_url, self.files)),
        )

    def said(self) -> dict[str, Any]:
        """The options that say something, by their names."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        # No ``==`` here: from Python a value may be an array, which compares by its elements.
        return {n: v for n, v in values.items() if v is not None and not (isinstance(v, tuple) and not v)}


class Parser(argparse.ArgumentParser):
    """Raises where argparse would end the process."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(add_help=False, allow_abbrev=False, **kwargs)
        self.register("action", None, _Once)
        self.register("action", "append", _Several)

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ").rstrip(".")
        raise ConfigError(f"{message[:1].upper()}{message[1:]}. {_where_told(self)}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise ConfigError(message or _where_told(self))


def _where_told(parser: argparse.ArgumentParser) -> str:
    """Where all options are told: IPython's ``?`` knows the magic, but not its commands."""
    magic, _, command = parser.prog.partition(" ")
    return f"{f'{magic} help {command}' if command else f'{magic}?'} shows every option."


class _Once(argparse.Action):
    """Keeps one value, where argparse would silently let the last of several win."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string} is given twice")
        setattr(namespace, self.dest, _said(parser, option_string, values))


class _Several(argparse.Action):
    """Keeps every value."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        kept = getattr(namespace, self.dest) or []
        setattr(namespace, self.dest, [*kept, _said(parser, option_string, values)])


def _said(parser: Any, option: str | None, value: Any) -> Any:
    """The value; an empty text would say nothing, and most likely is a variable that was meant to be filled."""
    if isinstance(value, str) and not value.strip(" ,"):
        parser.error(f"{option} has an empty value; give it one, or leave {option} out")
    return value


def whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 10**9):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not is_amount(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def is_amount(value: float) -> bool:
    """Whether it is a number that seconds or requests can be counted in; NaN and infinity aren't."""
    return 0 < value <= 1e9


_SEVERAL = "several, by commas or by repeating the option, make a sweep"
_OVER = "a DataFrame, list of dicts or dict of lists in the notebook: one run a row, its columns as variables"


def cell_parser() -> argparse.ArgumentParser:
    """The parser of ``%%xpander``."""
    p = Parser(prog="%%xpander", usage="%%%%xpander [TARGET] [options]")
    p.description = (
        "Sends the cell to an agent or a workflow. TARGET is its name, unique name or id, with agent: or workflow: "
        "before it where the bare name is ambiguous. The cell is a Jinja2 template over the notebook's variables: "
        "{{ name }}. Option values are templates too."
    )
    what = p.add_argument_group("what is asked")
    what.add_argument("-m", "--model", dest="models", action="append", metavar="PROVIDER/MODEL", help=_SEVERAL)
    what.add_argument(
        "-e",
        "--effort",
        dest="efforts",
        action="append",
        metavar="|".join(EFFORTS),
        help=_SEVERAL,
    )
    what.add_argument(
        "--think",
        dest="thinks",
        action="append",
        metavar="|".join(THINK_MODES),
        help=_SEVERAL,
    )
    what.add_argument("--version", metavar="V", help="agent or workflow version; draft for the unpublished one")
    what.add_argument("--instructions", metavar="TEXT", help="added to the system prompt for this run")
    what.add_argument("--context", metavar="TEXT", help="facts added for this run")
    what.add_argument("--expected-output", metavar="TEXT", help="the output that is wanted, in words")
    what.add_argument("--title", metavar="TEXT", help="a name for the task")
    what.add_argument("--format", metavar="|".join(FORMATS[:3]), help="output format")
    what.add_argument(
        "--schema", metavar="NAME", help="JSON Schema: a dict, a .json file, or a pydantic class; the answer is checked"
    )
    what.add_argument("--file", dest="files", action="append", metavar="URL", help="for the agent to read; repeatable")
    what.add_argument("--user", metavar="NAME", help="a dict in the notebook: id, email, first_name, …")
    what.add_argument("--payload", metavar="NAME", help="a dict in the notebook, kept with the task")
    what.add_argument("--mcp", metavar="NAME", help="a dict, or a list of them, in the notebook: MCP servers")
    what.add_argument("--thread", metavar="RUN_OR_ID", help="continue that conversation")
    what.add_argument(
        "--set", action="append", metavar="FIELD=JSON", help="any field of the invoke body, as JSON; repeatable"
    )
    what.add_argument("--raw", action="store_const", const=True, help="no templates: all is sent as typed")
    what.add_argument("--allow-secrets", action="store_const", const=True, help="send a prompt that holds a secret")
    how = p.add_argument_group("how it is run")
    how.add_argument("--mode", metavar="|".join(MODES), help="how the call is made; stream when omitted")
    how.add_argument("-n", "--repeat", type=whole, metavar="N", help="each combination N times")
    how.add_argument("--over", metavar="NAME", help=_OVER)
    how.add_argument("-j", "--jobs", type=whole, metavar="N", help="most calls under way at once")
    how.add_argument("--rpm", type=_number, metavar="N", help="most requests a minute, evenly spaced")
    how.add_argument("--timeout", type=_number, metavar="SECONDS", help="most seconds the run may take")
    how.add_argument("--usage", action=argparse.BooleanOptionalAction, help="ask what the run used and cost")
    how.add_argument("--on-interrupt", metavar="|".join(ON_INTERRUPT), help="what happens to the task; stop if omitted")
    how.add_argument("--cached", action="store_const", const=True, help="reuse a completed run that asked the same")
    how.add_argument("--dry-run", action="store_const", const=True, help="send nothing; show the prompt and the quote")
    kept = p.add_argument_group("how it is kept and shown")
    kept.add_argument("-o", "--out", metavar="NAME", help="bind the run to this name")
    kept.add_argument("--experiment", metavar="NAME", help="kept with the run")
    kept.add_argument("--tag", dest="tags", action="append", metavar="T", help="kept with the run; repeatable")
    kept.add_argument("--note", metavar="TEXT", help="kept with the run")
    kept.add_argument(
        "--score",
        dest="scores",
        action="append",
        metavar="SCORER",
        help="[NAME=]SCORER[:ARGUMENT]: exact, numeric:5%%, judge:TARGET, a function, …; as the runs land; repeatable",
    )
    kept.add_argument("--expected", metavar="COLUMN", help="the variable that has what each answer should be")
    kept.add_argument("--view", metavar="|".join(VIEWS), help="how the answer is shown")
    kept.add_argument("-q", "--quiet", action="store_const", const=True, help="show nothing but errors")
    return p


def parse_cell(line: str) -> Options:
    """The options of a ``%%xpander`` line.

    Raises:
        ConfigError: an unknown option (with the nearest), a missing or wrong value, a quote left open.
    """
    words = split(line)
    parser = cell_parser()
    _refuse_one_hyphen(parser, words)
    given, rest = parser.parse_known_args(words)
    target = words_left(parser, rest, most=1)
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in vars(given).items()}
    for name in ("models", "efforts", "thinks"):
        values[name] = tuple(part.strip() for item in values[name] or () for part in _commas(item))
    for name in ("files", "tags", "set", "scores"):
        values[name] = values[name] or ()
    return Options(target=_said(parser, "TARGET", target[0]) if target else None, **values)


def split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        raise ConfigError(
            'A quotation mark is left open. Put values with spaces or quotation marks into quotes: --title "It\'s new".'
        ) from None


def _refuse_one_hyphen(parser: argparse.ArgumentParser, words: Iterable[str]) -> None:
    """Says no to ``-model``, which would be read as ``-m odel``."""
    for word in words:
        option = f"-{word.partition('=')[0]}"
        if word.startswith("-") and option in _options_of(parser):
            raise ConfigError(f"There is no option {option[1:]!r}. Did you mean {option}?")


def _options_of(parser: argparse.ArgumentParser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings]


def _commas(item: str) -> list[str]:
    """The values that commas part; a template is left whole."""
    return [item] if is_template(item) else [part for part in item.split(",") if part.strip()]


def is_template(value: Any) -> bool:
    """Whether a value is yet to be rendered."""
    return isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#"))


def words_left(parser: argparse.ArgumentParser, rest: Sequence[str], *, most: int) -> list[str]:
    for word in rest:
        if word in HELP:
            raise ConfigError(_where_told(parser))
        if word.startswith("-") and word != "-":
            option = word.partition("=")[0]
            known = _options_of(parser)
            hint = did_you_mean(option, known, otherwise=_where_told(parser))
            raise ConfigError(f"There is no option {option!r}. {hint}")
    if len(rest) > most:
        what = "no further words" if most == 0 else f"at most {most} word{'s' * (most > 1)} besides its options"
        hint = " Put a value with spaces into quotes, and no space after a comma." if most else ""
        raise ConfigError(f"{parser.prog} takes {what}, not {shlex.join(rest).rstrip('.')}.{hint}")
    return list(rest)


def parse_set(items: Iterable[str]) -> dict[str, Any]:
    """The fields that ``--set FIELD=JSON`` gives.

    Raises:
        ConfigError: what isn't FIELD=JSON, with how to quote it; a field given twice.
    """
    found: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            shown = _shown_field(item)
            raise ConfigError(f"--set takes FIELD=JSON, such as --set 'output_format=\"voice\"', not {shown!r}.")
        if name in found:
            raise ConfigError(f"--set gives {name} twice.")
        try:
            found[name] = json.loads(text)
        except ValueError:
            if name in SECRET_FIELDS:
                raise ConfigError(f"--set {name}: its value isn't JSON. In quotes: --set '{name}=…'") from None
            quoted = f"--set {shlex.quote(f'{name}={json.dumps(text)}')}"
            raise ConfigError(f"--set {name}: {text!r} isn't JSON. For a string, write {quoted}.") from None
    return found


def _shown_field(item: str) -> str:
    """What ``--set`` gives, without the values of the fields that are for the service alone."""
    secret = next((name for name in SECRET_FIELDS if item.lstrip().startswith(name)), None)
    return item if secret is None else f"{secret}={MASK}"


def makes_several(options: Options, variables: Mapping[str, Any]) -> bool:
    """Whether these options make a sweep: several runs, or as many as there are rows."""
    thread = variables.get(options.thread) if isinstance(options.thread, str) else options.thread
    threads = isinstance(thread, Sequence) and not isinstance(thread, str)
    many = max(len(options.models), len(options.efforts), len(options.thinks), options.repeat or 1) > 1
    return many or threads or options.over is not None


def as_set(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Fields as ``--set`` takes them."""
    return tuple(f"{name}={sendable('fields', value)}" for name, value in fields.items())


def one_of(option: str, value: str | None, known: Sequence[str]) -> str | None:
    """The value, if it is one of those known.

    Raises ConfigError where it isn't; the known ones are given.
    """
    if value is None or value in known:
        return value
    raise ConfigError(f"{option} takes {', '.join(known)}; not {value!r}. {did_you_mean(value, known)}".rstrip())


def checked_name(name: str | None) -> str | None:
    """What ``--out`` names, as Python spells it, if that is a variable's name; ConfigError where it isn't."""
    if name is None:
        return None
    if not name.isidentifier() or keyword.iskeyword(name) or name == "__debug__":
        raise ConfigError(f"--out takes a variable's name, not {name!r}.")
    return unicodedata.normalize("NFKC", name)


def option_of(field_name: str) -> str:
    """The option that sets a field of ``Options``, as it is written."""
    return next(a.option_strings[-1] for a in cell_parser()._actions if a.dest == field_name)


def cell_help() -> str:
    """What ``%%xpander?`` shows."""
    return cell_parser().format_help().replace("%%%%", "%%")
