"""Completion with Tab: commands, options and their values, targets, models, runs, and a template's names."""

from __future__ import annotations

import contextlib
import re
import shlex
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from types import FunctionType
from typing import Any

from xpander_magics import cell, contract
from xpander_magics.commands import COMMAND_NAMES, command_parser, most_words
from xpander_magics.errors import XpanderError
from xpander_magics.magics.pages import pages
from xpander_magics.outcomes import Runs
from xpander_magics.results import Run
from xpander_magics.scoring.scorers import SCORERS
from xpander_magics.service.targets import KINDS, Directory, can_be_typed
from xpander_magics.session import Session
from xpander_magics.store.columns import STATUSES
from xpander_magics.voting.votes import WORDS

_CHOICES = {
    "--effort": contract.EFFORTS,
    "--think": contract.THINK_MODES,
    "--format": contract.FORMATS,
    "--mode": contract.MODES,
    "--view": cell.VIEWS,
    "--on-interrupt": cell.ON_INTERRUPT,
    "--status": STATUSES,
    "--by": ("model", "effort", "think", "target", "version", "prompt"),
    "--failures": ("zero", "drop"),
    "--correction": ("holm", "bonferroni", "fdr_bh"),
    "--x": ("cost", "seconds", "tokens"),
    "--what": ("runs", "comparison", "preferences", "mlflow"),
}
_VARIABLES = ("--schema", "--user", "--payload", "--mcp", "--over")
_TAKES_RUN = ("show", "stop", "usage", "thread", "tag", "diff")
_TAKES_RUNS = ("resume", "vote", "compare", "score", "noise", "plot", "report", "export")
_TAKES_FRAMES = ("compare", "plot", "report", "export")
_FIXED_WORDS = {
    "stop": ("all",),
    "local": ("stop",),
    "vote": WORDS,
    "score": SCORERS,
    "plot": ("tradeoff", "scores", "differences", "distribution", "prompts"),
}
_RUNS_OFFERED = 50


class Completer:
    """Completes what follows ``%xpander`` and ``%%xpander``, from the parser and the session's lists."""

    def __init__(self, session: Session, variables: Mapping[str, Any]) -> None:
        self._session = session
        self._variables = variables

    def matches(self, text: str) -> tuple[str, list[str]] | None:
        """The word at the end of ``text`` and what it may become; None where this isn't a line of ours.

        Args:
            text: the cell up to the cursor.
        """
        if "\n" in text and text.lstrip().startswith("%%xpander"):
            return self._in_template(text)
        line = text.rpartition("\n")[2].lstrip()
        found = re.match(r"(?:\w+\s*=\s*)?(%%?)xpander(\s+)(.*)$", line, re.DOTALL)
        if found is None:
            return None
        words = found[3].split()
        word = "" if not words or line.endswith((" ", "\t")) else words.pop()
        option, equals, value = word.partition("=")
        if equals and option.startswith("--"):  # --view=json is --view json
            words, word = [*words, option], value
        offered = self._in_cell_line(words, word) if found[1] == "%%" else self._in_command(words, word)
        word = word.rpartition(",")[2]
        # A name with a space is offered in quotes, and found by its beginning all the same.
        return word, [o for o in dict.fromkeys(offered) if o.startswith((word, f'"{word}'))]

    def _in_cell_line(self, words: list[str], word: str) -> Iterable[str]:
        parser = cell.cell_parser()
        long = {short: action.option_strings[-1] for action in parser._actions for short in action.option_strings}
        option = long.get(words[-1], words[-1]) if words else ""
        if option in _CHOICES:
            return _CHOICES[option]
        if option == "--model":
            return self._listed(Directory.model_names)
        if option in _VARIABLES:
            return self._names()
        if option == "--thread":
            return self._runs()
        if option == "--score":
            return self._scorers()
        if option == "--set":
            return [f"{name}=" for name in contract.INVOKE_FIELDS]
        if option in _with_value(parser):
            return ()
        options = [o for action in parser._actions for o in action.option_strings if o.startswith("--")]
        if word.startswith("-"):
            return options
        return [*self._targets(word), *options]

    def _in_command(self, words: list[str], word: str) -> Iterable[str]:
        if not words:
            return COMMAND_NAMES
        if words[0] == "use":
            return [*self._in_cell_line(words[1:], word), "--clear"]
        if words[0] == "help":
            return [*COMMAND_NAMES, *(page.name for page in pages())]
        if words[0] == "models":
            return self._listed(Directory.provider_ids)
        if words[0] not in COMMAND_NAMES:
            return ()
        listed = {"--target": self._targets, "--score": self._scorers, "--noise": self._sweeps}
        if words[-1] in listed:
            return listed[words[-1]]()
        if words[-1] in _CHOICES:
            return _CHOICES[words[-1]]
        parser = command_parser(words[0])
        valued = _with_value(parser)
        if words[-1] in valued:  # a name of one's own, or a file, which IPython completes
            return ()
        options = [o for action in parser._actions for o in action.option_strings]
        given = sum(not w.startswith("-") and before not in valued for before, w in pairwise(words))
        if given >= most_words(words[0]) or word.startswith("-"):
            return options
        runs = self._runs() if words[0] in _TAKES_RUN and not (given and words[0] == "tag") else []
        if words[0] in _TAKES_RUNS:
            runs = self._sweeps() if words[0] not in _TAKES_FRAMES else [*self._sweeps(), *self._frames()]
        return [*runs, *_FIXED_WORDS.get(words[0], ()), *options]

    def _in_template(self, text: str) -> tuple[str, list[str]] | None:
        found = re.search(r"\{\{[^{}]*?(\w*)$", text)
        if found is None:
            return "", []
        return found[1], [name for name in self._names() if name.startswith(found[1])]

    def _names(self) -> list[str]:
        return sorted(name for name in self._variables if not name.startswith("_"))

    def _targets(self, word: str = "") -> list[str]:
        """The targets' names; with their kind before them where the word begins with one."""
        kind, colon, _ = word.lstrip('"').partition(":")
        if colon and kind in KINDS:
            return self._listed(
                lambda listed: [f"{kind}:{one.name}" for one in listed.entries(kind) if can_be_typed(one.name)]
            )
        return self._listed(Directory.target_names)

    def _runs(self) -> list[str]:
        """What may be written for a run: the variables that hold one, and the newest ids."""
        held = [name for name in self._names() if isinstance(self._variables[name], (Run, Runs))]
        try:
            return [*held, *(run.run_id[:8] for run in self._session.store.select(limit=_RUNS_OFFERED)[::-1])]
        except XpanderError:
            return held

    def _sweeps(self) -> list[str]:
        """The variables that hold the runs of a sweep."""
        return [name for name in self._names() if isinstance(self._variables[name], Runs)]

    def _frames(self) -> list[str]:
        """The variables that hold a DataFrame of runs, or a comparison of some."""
        held = ((name, self._variables[name]) for name in self._names())
        return [name for name, value in held if "run_id" in getattr(getattr(value, "frame", value), "columns", ())]

    def _scorers(self) -> list[str]:
        """The scorers that there are, and the notebook's own functions."""
        return [*SCORERS, *(name for name in self._names() if isinstance(self._variables[name], FunctionType))]

    def _listed(self, ask: Callable[[Directory], list[str]]) -> list[str]:
        """What the service offers; nothing where it can't be asked: Tab is no place for an error."""
        try:
            return [word for name in ask(self._session.directory) if (word := _as_word(name))]
        except XpanderError:
            return []


def _as_word(name: str) -> str:
    """A name as it stands in a line, in quotes where it needs some; nothing where these aren't enough."""
    for word in (name, f'"{name}"'):
        with contextlib.suppress(ValueError):
            if shlex.split(word) == [name]:
                return word
    return ""


def _with_value(parser: ArgumentParser) -> set[str]:
    """The options that a value follows."""
    return {option for action in parser._actions if action.nargs is None for option in action.option_strings}
