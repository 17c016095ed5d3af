"""What ``help()`` and ``?`` show: every example in a docstring is run, and everything public is told in full."""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import pydoc
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fault_server import FaultServer, Request, Service, agent, event
from IPython.core.interactiveshell import InteractiveShell

import xpander_magics as xp
from xpander_magics import errors
from xpander_magics.analysis.comparison import Comparison
from xpander_magics.analysis.diffs.difference import Diff
from xpander_magics.cell import cell_parser
from xpander_magics.commands import COMMANDS
from xpander_magics.contract import Agent, Message, Model, Provider, Usage
from xpander_magics.local import catalog
from xpander_magics.magics.magic import XpanderMagics
from xpander_magics.scoring.verdicts import Verdicts
from xpander_magics.showing import carried
from xpander_magics.widgets.board import Board
from xpander_magics.widgets.panel import Panel
from xpander_magics.widgets.vote import VoteView

PACKAGE = Path(xp.__file__).parent
WIDEST = 100
TICKETS = [
    {"text": "It crashes.", "label": "bug"},
    {"text": "Please refund me.", "label": "billing"},
]
Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings() -> Iterator[tuple[str, str]]:
    """Every docstring of the package, by the name of what it is of."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        parts: list[tuple[str, ast.AST]] = [(module, tree)]
        for name, node in parts:
            if isinstance(node, Documented) and (text := ast.get_docstring(node)):
                yield name, text
            own = [n for n in ast.iter_child_nodes(node) if isinstance(n, Documented)]
            parts += [(f"{name}.{n.name}", n) for n in own if not isinstance(n, ast.Module)]


DOCSTRINGS = dict(docstrings())
EXAMPLES = {name: text for name, text in DOCSTRINGS.items() if ">>>" in text}


class Answering(Service):
    """A service whose agents answer the examples; ``low`` effort takes every ticket for a bug."""

    def __init__(self) -> None:
        super().__init__(agents=[agent("writer", 1), agent("judge", 2)], workflows=[])

    def finish(self, task: dict[str, Any]) -> dict[str, Any]:
        low = task.get("llm_reasoning_effort") == "low"
        self.final = {"status": "completed", "result": answer_to(task["input"]["text"], task.get("output_schema"), low)}
        return super().finish(task)

    def _invoke(self, request: Request, parts: list[str]) -> tuple[int, Any]:
        if parts[-1] != "stream":
            return super()._invoke(request, parts)
        task = self.start(request)
        said = [event("task_created", self.shown(task), task["id"])]
        self.finish(task)
        said += [event("chunk", task["result"], task["id"]), event("task_finished", self.shown(task), task["id"])]
        return 200, b"".join(said)


def answer_to(text: str, schema: dict[str, Any] | None, low: bool) -> str:
    if schema is not None:
        shown = dict(re.findall(r"BEGINNING OF THE ([A-Z ]+) ===\n(.*?)\n=== ", text, re.DOTALL))
        if "score" in schema["properties"]:
            verdict: Any = 5 if shown["ANSWER"] == shown["EXPECTED ANSWER"] else 1
            return json.dumps({"reason": "The label.", "score": verdict})
        left, right, wanted = (shown[name] for name in ("LEFT ANSWER", "RIGHT ANSWER", "EXPECTED ANSWER"))
        return json.dumps({"reason": "The label.", "verdict": {left: "left", right: "right"}.get(wanted, "both_bad")})
    if greeted := re.search(r"hi to (\w+)|And to (\w+)", text):
        return f"Hi {greeted[1] or greeted[2]}!"
    return "billing" if "refund" in text and not low else "bug"


@pytest.fixture(scope="module")
def answering() -> Iterator[FaultServer]:
    with FaultServer() as server:
        server.service = Answering()
        yield server


@pytest.fixture
def names(
    answering: FaultServer, environment: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[str], dict[str, Any]]]:
    """What an example may take for granted, as far as it names it."""
    environment.setenv("XPANDER_BASE_URL", answering.url)
    environment.setenv("XPANDER_API_KEY", answering.key)
    environment.chdir(tmp_path)
    with ExitStack() as opened:

        def made(example: str) -> dict[str, Any]:
            said = set(re.findall(r"\w+", example))
            found: dict[str, Any] = {"xp": xp, "pd": pd, "tickets": TICKETS}
            if said & {"runs", "comparison"}:
                found["runs"] = xp.sweep(
                    "Bug, billing or praise? {{ text }}",
                    target="writer",
                    efforts=["low", "high"],
                    over=TICKETS,
                    experiment="tickets",
                )
            if said & {"run", "study"}:
                found["run"] = xp.run("Say hi to Ada.", target="writer")
            if "comparison" in said:
                found["comparison"] = found["runs"].compare("effort", "exact", "label")
            if "study" in said:
                outputs = [{"output_type": "display_data", "data": {carried.MIME: carried.packed([found["run"]])}}]
                cell = {"cell_type": "code", "execution_count": 1, "source": "", "outputs": outputs}
                Path("study.ipynb").write_text(json.dumps({"nbformat": 4, "cells": [cell]}))
            if "client" in said:
                found["client"] = opened.enter_context(xp.Client())
            return found

        yield made


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_does_what_it_says(name: str, names: Callable[[str], dict[str, Any]]) -> None:
    parsed = doctest.DocTestParser().get_doctest(EXAMPLES[name], {}, name, name, 0)
    parsed.globs = names("".join(example.source for example in parsed.examples))
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(parsed, out=told.append)
    assert not runner.failures, "".join(told)
    assert runner.tries


def block_of(text: str, number: int = 0) -> str:
    """The lines that stand indented after a ``::``."""
    return re.findall(r"::\n\n((?:    .*\n|\n)+)", f"{inspect.cleandoc(text)}\n")[number]


def test_the_packages_own_example(names: Callable[[str], dict[str, Any]], shell: InteractiveShell) -> None:
    assert xp.__doc__ is not None
    shell.user_ns.update(names("runs"))
    cell, python = (inspect.cleandoc(block_of(xp.__doc__, number)) for number in (0, 1))
    for source in (cell, python):
        shell.run_cell(source).raise_error()
    assert len(shell.user_ns["results"]) == 4
    assert shell.user_ns["run"].result == "Hi Ada!"
    assert len(shell.user_ns["df"]) == 13
    assert shell.user_ns["found"].scores == ("exact",)


def test_the_magics_own_example(names: Callable[[str], dict[str, Any]], shell: InteractiveShell) -> None:
    shell.user_ns.update(names(""))
    example = (XpanderMagics.xpander.__doc__ or "").partition("\nExample:\n")[2]
    for cell in inspect.cleandoc(example).split("\n\n"):
        shell.run_cell(cell).raise_error()
    assert shell.user_ns["results"].statuses() == {"completed": 8}


def test_the_tree_of_errors_is_the_one_there_is() -> None:
    tree, parents = [], []
    for line in block_of(errors.__doc__ or "").splitlines():
        found = re.search(r"[A-Z]\w+", line)
        if found is None:
            continue
        level = found.start() // 4
        parents[level - 1 :] = [found[0]]
        tree.append((found[0], parents[level - 2] if level > 1 else None))
    for name, parent in tree:
        kind = getattr(errors, name)
        assert parent in (None, kind.__mro__[1].__name__), name
    known = {n for n, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, xp.XpanderError)}
    assert {name for name, _ in tree} == known


def test_the_file_of_agents_can_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "agents.yaml").write_text(inspect.cleandoc(block_of(catalog.__doc__ or "")))
    (tmp_path / "mine.gguf").write_bytes(b"GGUF")
    loaded = catalog.load(tmp_path / "agents.yaml")
    assert [one.name for one in loaded.agents] == ["writer", "editor"]
    assert [one.name for one in loaded.workflows] == ["draft-edit"]


def test_what_an_output_carries_is_as_described() -> None:
    described = set(re.findall(r'"(\w+)":', block_of(carried.__doc__ or "")))
    assert described == {*carried.packed([xp.Run(run_id="a")]), "columns"}


def test_the_local_servers_files_are_those_it_lists() -> None:
    listed = re.findall(r"^ +(\w+\.py) ", block_of(DOCSTRINGS["local.__init__"]), re.M)
    assert sorted(listed) == sorted(path.name for path in (PACKAGE / "local").glob("[a-z]*.py"))


def test_no_block_is_left_out() -> None:
    assert {name for name, text in DOCSTRINGS.items() if re.search(r"::$", text, re.M)} == {
        *("__init__", "errors", "local.__init__", "local.catalog", "showing.carried"),
    }
    assert {name for name, text in DOCSTRINGS.items() if "Example:" in text} == set(EXAMPLES)


RETURNED = (Comparison, Diff, Verdicts, Agent, Provider, Model, Usage, Message, Board, VoteView, Panel)
MADE_BY_USERS = (xp.Client, xp.Judge)


def public() -> Iterator[tuple[str, Any]]:
    """Functions, classes, and what these have of their own, by name."""
    kinds = [value for name in xp.__all__ if not name.startswith("_") for value in [getattr(xp, name)]]
    for one in (*kinds, *RETURNED):
        yield one.__name__, one
        for base in one.__mro__ if inspect.isclass(one) else ():
            if base.__module__.startswith("xpander_magics"):
                for name, member in vars(base).items():
                    member = member.fget if isinstance(member, property) else member  # noqa: PLW2901
                    if name[0] != "_" and inspect.isfunction(member):
                        yield f"{one.__name__}.{name}", member


PUBLIC = dict(public())
# What every widget has, what a run's own machinery calls, and what makes a judge's prompt: no user has to.
INTERNAL = re.compile(
    r"\w+\.(open|static|put_out|renew_static|close|apply_\w+)|Runs\.(replace|forget_unended)|Judge\.(row|ask|quoted)"
    r"|Client\.(wait_turn|events|follow|find|reserve|gap|pages|task_from|deadline|paced)"
)
DESCRIBED = {name: value for name, value in PUBLIC.items() if not INTERNAL.fullmatch(name)}


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_is_told(name: str) -> None:
    text = inspect.getdoc(PUBLIC[name])
    assert text
    first, *rest = text.splitlines()
    assert first.endswith((".", "?")), first
    assert not rest or not rest[0], "after what it is for comes an empty line"
    assert max(map(len, text.splitlines())) <= WIDEST


def arguments_of(text: str) -> list[str]:
    """The names in the section on arguments."""
    section = re.search(r"^Args:\n((?:    .*\n)+)", text, re.M)
    entries = re.split(r"^    (?=\S)", section[1], flags=re.M) if section else []
    return [name for entry in entries for name in re.findall(r"\w+", entry.partition(":")[0])]


@pytest.mark.parametrize("name", DESCRIBED)
def test_every_argument_and_error_is_told(name: str) -> None:
    value = DESCRIBED[name]
    text = inspect.getdoc(value) or ""
    if inspect.isclass(value) and value not in MADE_BY_USERS:
        return  # the package makes them
    function = value.__init__ if inspect.isclass(value) else value
    described = arguments_of(text)
    for parameter in inspect.signature(function).parameters:
        # Of what takes one word or two, a sentence may tell.
        assert parameter == "self" or parameter in (described or re.findall(r"\w+", text)), parameter
    raised = {
        node.exc.func.id if isinstance(node.exc.func, ast.Name) else getattr(node.exc.func, "attr", "")
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
    }
    for error in raised:
        assert error in text, f"{name} raises {error}"


@pytest.mark.parametrize("name", [name for name in xp.__all__ if name.islower() and not name.startswith("_")])
def test_what_a_function_returns_and_raises_is_told_with_an_example(name: str) -> None:
    text = inspect.getdoc(getattr(xp, name)) or ""
    assert "\nReturns:\n" in text
    assert "\nExample:\n" in text
    assert "\nRaises:\n" in text or name == "panel"


@pytest.mark.parametrize("name", DESCRIBED)
def test_signatures_are_readable(name: str) -> None:
    value = DESCRIBED[name]
    if inspect.isfunction(value) or value in MADE_BY_USERS:
        told = str(inspect.signature(value))
        assert " at 0x" not in told
        assert not re.search(r"(?<!\w)_\w", told), "a private name"


@pytest.mark.parametrize("name", ["xp.sweep", "xp.compare", "xp.Run", "xp.Client.invoke", "runs.retry"])
def test_question_marks_show_it(
    name: str, names: Callable[[str], dict[str, Any]], shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.user_ns.update(names(name))
    shell.run_cell(f"{name}?").raise_error()
    shown = capsys.readouterr().out
    text = inspect.getdoc(shell.ev(name)) or ""
    assert text.splitlines()[-1] in shown
    told = [line for line in shown.splitlines() if not line.startswith("File:")]
    assert max(map(len, told)) <= WIDEST + len("Docstring:     ")


def test_help_begins_with_an_introduction() -> None:
    shown = pydoc.plain(pydoc.render_doc(xp)).splitlines()
    assert "a cell goes to an agent" in shown[3]
    introduction = shown[: shown.index("PACKAGE CONTENTS")]
    assert len(introduction) < 40
    assert max(map(len, introduction)) <= WIDEST + len("    xpander_magics - ")
    assert list((PACKAGE / "docs").glob("*.md")), "it names the folder"


def test_the_magics_tell_options_commands_and_settings(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("%%xpander?").raise_error()
    shown = capsys.readouterr().out
    for action in cell_parser()._actions:
        assert action.help
        assert all(option in shown for option in action.option_strings[:1])
    for command in COMMANDS:
        assert f"%xpander {command.name}" in shown
        assert command.help
    for name, trait in XpanderMagics.class_traits(config=True).items():
        assert trait.help, name
    shell.run_cell("%config XpanderMagics").raise_error()
    settings = capsys.readouterr().out
    assert all(name in settings for name in XpanderMagics.class_traits(config=True) if name != "config")


def test_every_module_says_what_it_is_for() -> None:
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        assert DOCSTRINGS.get(module), module
