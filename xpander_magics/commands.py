"""A ``%xpander`` line becomes a ``Command``. One table feeds the parser, the help and the completion."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass
from typing import Any

from xpander_magics.cell import HELP, Options, Parser, option_of, parse_cell, split, whole, words_left
from xpander_magics.errors import ConfigError, nearest


@dataclass(frozen=True)
class CommandSpec:
    """A command of ``%xpander``: its arguments in the notation of a usage line, and what it does."""

    name: str
    arguments: str
    help: str


_COMPARED = (
    "[--experiment NAME] [--by NAMES] [--score SCORER] [--expected NAME] [--baseline NAME] [--failures zero|drop|N] "
    "[--noise RUNS]"
)

COMMANDS = tuple(
    CommandSpec(*row)
    for row in (
        ("status", "", "where requests go, with which key, what is chosen, where runs are kept"),
        ("login", "", "ask for the API key, without echo; kept in the system's keyring if there is one"),
        ("logout", "", "forget the key that login was given"),
        ("local", "[stop] [--file YAML] [--gguf FILE]", "start the embedded local server and use it, or stop it"),
        ("use", "[TARGET] [options | --clear]", "options of %%xpander that later cells have by default"),
        ("agents", "", "the agents, as a DataFrame"),
        ("workflows", "", "the workflows, as a DataFrame"),
        ("providers", "", "the providers of models, as a DataFrame"),
        ("models", "[PROVIDER]", "the models of one provider or of all, as a DataFrame"),
        ("panel", "", "choose a target, a model and an effort, write a prompt, run it: all by clicks and keys"),
        (
            "runs",
            "[--experiment NAME] [--tag T] [--status S] [--target NAME] [--last N] [-o NAME]",
            "the kept runs, as a DataFrame, newest last",
        ),
        ("show", "RUN [--view V]", "one run as it stands now: what is under way is asked for again"),
        ("stop", "[RUN|all]", "stop a task; the newest one under way when none is named"),
        (
            "resume",
            "[SWEEP] [-o NAME] [--view V]",
            "go on with a sweep: collect what is under way, send the rest; the newest unfinished one if none is named",
        ),
        ("usage", "[RUN|RUNS]", "ask what runs used and cost; all of the last 1000 that lack it when none is named"),
        ("thread", "RUN [--full]", "the conversation that a run belongs to, as a DataFrame"),
        (
            "compare",
            f"[RUNS] {_COMPARED} [--correction NAME] [-o NAME]",
            "by model, effort or any column: scores with intervals, failures, seconds, tokens, cost; what differs, and "
            "whether it is more than noise",
        ),
        ("diff", "RUN RUN", "two runs: answers, prompts and settings by their words, what each did on the way"),
        (
            "score",
            "[RUNS] [SCORER ...] [--score SCORER] [--expected NAME] [--pairs] [--dry-run]",
            "score answers, and keep the scores; with --pairs a judge compares two answers at a time",
        ),
        (
            "noise",
            "[RUNS] [--baseline NAME] [--score SCORER] [--expected NAME] [-o NAME] [--dry-run]",
            "send one setup twice, the first or the one named, to learn which differences are only noise",
        ),
        (
            "plot",
            f"[RUNS] [KIND] {_COMPARED} [--x NAME] [--file FILE]",
            "a comparison as a picture: tradeoff, scores, differences, distribution or prompts",
        ),
        (
            "report",
            f"FILE [RUNS] {_COMPARED} [--title TEXT]",
            "a comparison as one page of HTML, for people without Python",
        ),
        (
            "export",
            "FILE [RUNS] [--experiment NAME] [--what runs|comparison|preferences|mlflow]",
            "runs as .csv, .jsonl, .parquet or .sqlite; a comparison; preference pairs from votes",
        ),
        (
            "vote",
            "[RUNS | [RUN RUN] left|right|both-good|both-bad|skip|undo] [--voter NAME] [--seed N]",
            "judge two answers to the same input, blind; of the newest sweep if no runs are named",
        ),
        ("tag", "RUN TAG [TAG ...] [--remove]", "add tags to a run, or take them away"),
        ("help", "[COMMAND | WORDS]", "this help, a command's, or the page that answers best: help why unknown"),
    )
)
COMMAND_NAMES = tuple(spec.name for spec in COMMANDS)


@dataclass(frozen=True)
class Command:
    """What a ``%xpander`` line says; only what its command takes is set."""

    name: str
    words: tuple[str, ...] = ()
    options: Options | None = None
    experiment: str | None = None
    tag: str | None = None
    status: str | None = None
    target: str | None = None
    last: int | None = None
    out: str | None = None
    view: str | None = None
    file: str | None = None
    gguf: tuple[str, ...] = ()
    full: bool = False
    remove: bool = False
    clear: bool = False
    voter: str | None = None
    seed: int | None = None
    by: str | None = None
    score: tuple[str, ...] = ()
    expected: str | None = None
    baseline: str | None = None
    failures: str | None = None
    correction: str | None = None
    noise: str | None = None
    x: str | None = None
    title: str | None = None
    what: str | None = None
    pairs: bool = False
    dry_run: bool = False


_COMMAND_FLAGS = ("full", "remove", "clear", "pairs", "dry-run")
_COMMAND_VALUES = (
    *("experiment", "tag", "status", "target", "view", "file", "voter"),
    *("by", "expected", "baseline", "failures", "correction", "noise", "x", "title", "what"),
)
_COMMAND_LISTS = ("gguf", "score")
# How many words a command takes at the most; the others take none.
_MOST_WORDS = {
    **dict.fromkeys(("local", "models", "show", "stop", "usage", "thread", "resume", "help", "compare", "noise"), 1),
    **{"diff": 2, "plot": 2, "report": 2, "export": 2, "vote": 3, "score": 20, "tag": 100},
}
# As a default the first would keep every cell from being sent, the second let each overwrite the one before.
_FOR_ONE_CELL = ("dry_run", "out")


def most_words(name: str) -> int:
    """How many words a command takes besides its options."""
    return _MOST_WORDS.get(name, 0)


def command_parser(name: str) -> argparse.ArgumentParser:
    """The parser of one command's options; its words are what it leaves over."""
    p = Parser(prog=f"%xpander {name}")
    usage = next(spec.arguments for spec in COMMANDS if spec.name == name)
    for flag in _COMMAND_FLAGS:
        if f"--{flag}" in usage:
            p.add_argument(f"--{flag}", action="store_true")
    for option in _COMMAND_VALUES:
        if f"--{option} " in usage:
            p.add_argument(f"--{option}")
    for option in ("last", "seed"):
        if f"--{option} " in usage:
            p.add_argument(f"--{option}", type=whole)
    if "-o " in usage:
        p.add_argument("-o", "--out")
    for option in _COMMAND_LISTS:
        if f"--{option} " in usage:
            p.add_argument(f"--{option}", action="append")
    return p


def parse_command(line: str) -> Command:
    """The command of a ``%xpander`` line; ``help`` for an empty one.

    Raises:
        ConfigError: an unknown command (with the nearest), or arguments that it doesn't take.
    """
    name, rest = (*line.split(None, 1), "", "")[:2]
    name = "help" if name in HELP else name or "help"
    if name not in COMMAND_NAMES:
        raise _no_command(name)
    if rest.strip() in HELP:
        return Command("help", words=(name,))
    if name == "login" and rest.strip():
        raise ConfigError(
            "%xpander login takes nothing: it asks for the key. One that was typed into a cell stays in the notebook "
            "and in its history: replace it."
        )
    if name == "use":
        words = split(rest)
        clear = "--clear" in words
        options = parse_cell(shlex.join(w for w in words if w != "--clear"))
        for once in _FOR_ONE_CELL:
            if once in options.said():
                raise ConfigError(f"{option_of(once)} is for one cell alone; as a default it makes no sense.")
        return Command(name, options=options, clear=clear)
    if name == "help":  # a question may have any signs
        return Command(name, words=tuple(rest.split()))
    parser = command_parser(name)
    given, left = parser.parse_known_args(split(rest))
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in vars(given).items()}
    values.update({option: values[option] or () for option in _COMMAND_LISTS if option in values})
    return Command(name, words=tuple(words_left(parser, left, most=most_words(name))), **values)


def _no_command(name: str) -> ConfigError:
    told = f"There is no command {name!r}."
    if near := nearest(name, COMMAND_NAMES, most=1, alike=0.7):
        return ConfigError(f"{told} Did you mean {near[0]}?")
    # It may as well be a target's name: a percent sign is soon forgotten.
    hint = "" if name.startswith("-") else f"\nTwo percent signs send a prompt: %%xpander {name}, and the prompt below."
    return ConfigError(f"{told} %xpander help lists them.{hint}")


_WORDS = (
    "RUN is a run's id or the beginning of one, a task's id, a variable that holds a Run, or results[0] of several.\n"
    "RUNS is a variable that holds Runs, or a sweep's id; the newest sweep when omitted. compare, plot, report and\n"
    "export also take a DataFrame or a list of runs, a comparison, or a saved notebook's file."
)


def command_help(name: str | None = None) -> str:
    """What ``%xpander help`` shows.

    Raises:
        ConfigError: there is no such command.
    """
    if name is not None and name not in COMMAND_NAMES:
        raise _no_command(name)
    rows = [spec for spec in COMMANDS if name in (None, spec.name)]
    lines = [f"  %xpander {f'{spec.name} {spec.arguments}'.rstrip()}\n      {spec.help}" for spec in rows]
    tail = "" if name else f"\n{_WORDS}\n"
    return "\n".join(lines) + "\n" + tail
