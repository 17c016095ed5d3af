"""README.md and the pages of ``xpander_magics/docs``: blocks are run, names exist, links lead somewhere.

A block without a language, or of Python, is a cell of one notebook a page, which talks to a service on loopback. A
``text`` block after a cell is what the cell shows, ``…`` standing for anything; a cell whose error isn't shown so has
to succeed. ``sh`` blocks are commands: ours and papermill's are run; what others name has to be there. A comment
``<!-- setup … -->`` is Python that is run before: ``service`` is the service, ``answers`` what it says to prompts.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fault_server
import pandas as pd
import pytest
from fault_server import FaultServer, Request, Service
from IPython.core.interactiveshell import InteractiveShell
from markdown_it import MarkdownIt
from markdown_it.token import Token
from notebook_shell import Notebook

import xpander_magics as xp
from xpander_magics import cell, commands, errors
from xpander_magics.errors import ConfigError
from xpander_magics.local.catalog import load
from xpander_magics.magics.magic import XpanderMagics
from xpander_magics.magics.pages import listed, page_about, pages
from xpander_magics.scoring.scorers import SCORERS
from xpander_magics.service.client import Client
from xpander_magics.store.frames import frame_of

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "xpander_magics" / "docs"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
FILES = [ROOT / "README.md", FOLDER / "README.md", *PAGES]
MARKDOWN = MarkdownIt("commonmark").enable("table")
EMPTY = frame_of([])
SOURCE = "\n".join(path.read_text("utf-8") for path in (ROOT / "xpander_magics").rglob("*.py"))

every_file = pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
every_page = pytest.mark.parametrize("path", PAGES, ids=[path.stem for path in PAGES])


class Answering(Service):
    """A service that answers by what a prompt holds, and else repeats it."""

    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__(chunks=[])
        self.answers = answers

    def start(self, request: Request) -> dict[str, Any]:
        return {"llm_model_provider": "openai", "llm_model_name": "gpt-5-mini"} | super().start(request)

    def finish(self, task: dict[str, Any]) -> dict[str, Any]:
        prompt = task["input"]["text"]
        said = next((answer for part, answer in self.answers.items() if part in prompt), prompt)
        said = said(task) if callable(said) else said
        ended = said if isinstance(said, dict) and "status" in said else {"result": said}
        if not isinstance(ended["result"], str):
            ended["result"] = json.dumps(ended["result"])
        task.update(
            {"status": "completed", **ended, "started_at": fault_server.now(), "finished_at": fault_server.now()}
        )
        return task


class Reader:
    """One file's blocks, run from the first to the last."""

    def __init__(self, shell: InteractiveShell, service: FaultServer, folder: Path) -> None:
        self.notebook = Notebook(shell, Client(service.key, service.url))
        self.service, self.folder = service, folder
        self.answers: dict[str, Any] = {}
        service.service = Answering(self.answers)
        self.shown: str | None = None
        self.error: BaseException | None = None

    def file(self, path: Path) -> None:
        for token in MARKDOWN.parse(path.read_text("utf-8")):
            where = f"{path.name}:{(token.map or [0])[0] + 1}"
            if token.type == "html_block" and token.content.startswith("<!-- setup"):
                self._settle()
                self._set_up(token.content)
            elif token.type == "fence":
                self._block(token, where)
        self._settle()

    def _set_up(self, comment: str) -> None:
        code = comment.removeprefix("<!-- setup").partition("-->")[0]
        told = {"service": self.service, "answers": self.answers, "cell": self.notebook.run, "ns": self.notebook.ns}
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code.strip(), {**vars(fault_server), **told})

    def _block(self, token: Token, where: str) -> None:
        kind, source = token.info.strip(), token.content
        if kind == "text":
            self._told(source, where)
            return
        self._settle()
        if kind in ("", "python"):
            self._cell(source, where)
        elif kind == "sh":
            self._shell(source)
        elif kind == "yaml":
            (self.folder / "agents.yaml").write_text(source, "utf-8")
            load(self.folder / "agents.yaml")
        else:
            pytest.fail(f"{where}: a block of {kind!r}")

    def _cell(self, source: str, where: str) -> None:
        if "tcp://scheduler" in source:  # another machine, which isn't there
            compile(source, where, "exec")
            return
        with contextlib.redirect_stdout(io.StringIO()) as out:
            outcome = self.notebook.shell.run_cell(source)
        self.shown = re.sub(r"^Out\[\d+\]:\s*", "", out.getvalue(), flags=re.M)
        self.error = outcome.error_before_exec or outcome.error_in_exec
        self.where = where

    def _told(self, wanted: str, where: str) -> None:
        assert self.shown is not None, f"{where} says what is shown, but no cell stands before it"
        parts = (re.escape(" ".join(part.split())) for part in wanted.split("…"))
        shown = " ".join(self.shown.split())
        assert re.fullmatch(r"\s*.*?\s*".join(parts), shown, re.S), f"{where}\n{self.shown}"
        self.shown = self.error = None

    def _settle(self) -> None:
        """What the last cell raised, if no block has shown it."""
        error, self.error, self.shown = self.error, None, None
        if error is not None:
            raise AssertionError(f"{self.where} raises: {type(error).__name__}: {error}") from error

    def _shell(self, source: str) -> None:
        for line in source.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s&&\s", line):
                words = shlex.split(part, comments=True)
                if words:
                    self._command(words)

    def _command(self, words: list[str]) -> None:
        program = Path(words[0]).name.removesuffix("3")
        if words[1:3] == ["-m", "pip"]:
            words, program = words[2:], "pip"
        if program == "export":
            name = words[1].partition("=")[0]
            assert name in SOURCE or name in OTHERS_VARIABLES, name
        elif program == "pip":
            described = (ROOT / "pyproject.toml").read_text("utf-8")
            extras = [
                extra for word in words for found in re.findall(r"\[([\w,]+)\]", word) for extra in found.split(",")
            ]
            assert all(f"\n{extra} = [" in described for extra in extras), words
        elif words[1:3] == ["-m", "xpander_magics"]:
            self._ours(words[3:])
        elif program == "papermill":
            self._finish([sys.executable, "-m", *words])
        else:
            assert program in ("jupyter", "git", "cd") or words[1:3] in (["-m", "venv"], ["-m", "pytest"]), words
            assert all((ROOT / word).exists() for word in words if word.startswith("notebooks/")), words

    def _ours(self, words: list[str]) -> None:
        command = [sys.executable, "-m", "xpander_magics", *words]
        if words[0] == "demo":  # tests/test_main.py runs it
            command.append("--help")
        if words[0] != "local":
            self._finish(command)
            return
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=self.folder, env=os.environ) as serving:
            try:
                assert serving.stdout is not None
                assert "http://127.0.0.1" in serving.stdout.readline()
            finally:
                serving.terminate()

    def _finish(self, command: list[str]) -> None:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


# Of requests, pip and the system; each is described by whom it belongs to.
OTHERS_VARIABLES = ("HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "OPENAI_API_KEY")


@pytest.fixture
def reader(shell: InteractiveShell, environment: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Reader]:
    """Who types all blocks of a page into one notebook, one after the other."""
    folder = tmp_path / "reader"
    folder.mkdir()
    environment.chdir(folder)
    with FaultServer() as service:
        environment.setenv("XPANDER_API_KEY", service.key)
        environment.setenv("XPANDER_BASE_URL", service.url)
        yield Reader(shell, service, folder)


@every_page
def test_every_block_runs(path: Path, reader: Reader) -> None:
    reader.file(path)


def test_the_readmes_blocks_run(reader: Reader) -> None:
    tickets = {"text": ["The app crashes.", "I was charged twice."], "label": ["bug", "billing"]}
    reader.notebook.ns.update(topic="rain", tickets=pd.DataFrame(tickets))
    reader.answers.update({"crashes": "bug", "charged": "billing"})
    reader.file(ROOT / "README.md")


def headings(text: str) -> set[str]:
    """The anchors of a file's headings, as GitHub makes them."""
    found = [token.content for token, next_ in pairwise_inline(text) if next_ == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def pairwise_inline(text: str) -> Iterator[tuple[Token, str]]:
    """Each text of a file, with what kind of block it stands in."""
    tokens = MARKDOWN.parse(text)
    for before, token in itertools.pairwise(tokens):
        if token.type == "inline":
            yield token, before.type


@every_file
def test_every_link_leads_somewhere(path: Path) -> None:
    for token, _ in pairwise_inline(path.read_text("utf-8")):
        for child in token.children or ():
            address = str(child.attrs.get("href") or child.attrs.get("src") or "")
            if not address or address.startswith("https://"):
                continue
            name, _, anchor = address.partition("#")
            there = (path.parent / name).resolve() if name else path
            assert there.exists(), address
            assert not anchor or anchor in headings(there.read_text("utf-8")), address


def test_the_index_has_every_page_by_its_question() -> None:
    listed_there = re.findall(r"^- \[(.+)\]\((.+)\.md\)$", (FOLDER / "README.md").read_text("utf-8"), re.M)
    assert sorted(listed_there) == sorted((title(path), path.stem) for path in PAGES)


def title(path: Path) -> str:
    return path.read_text("utf-8").partition("\n")[0].removeprefix("# ")


@every_page
def test_a_page_is_a_question_and_begins_with_its_answer(path: Path) -> None:
    text = path.read_text("utf-8")
    kinds = [token.type for token in MARKDOWN.parse(text)]
    assert title(path).endswith("?")
    assert kinds[:6] == [f"{kind}_{end}" if end else "inline" for kind in ("heading", "paragraph") for end in ENDS]
    assert len(text.split("\n")[2]) <= 420
    assert len(text.splitlines()) <= 120


ENDS = ("open", "", "close")


def words_of(path: Path) -> str:
    """What a file says in code, in its texts and in its cells."""
    tokens = MARKDOWN.parse(path.read_text("utf-8"))
    code = [child.content for token in tokens for child in token.children or () if child.type == "code_inline"]
    return "\n".join([*code, *(token.content for token in tokens if token.type == "fence" and token.info in CELLS)])


CELLS = ("", "python")


@every_file
def test_every_name_exists(path: Path) -> None:
    said = words_of(path)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", said)) <= {*OPTIONS, *OTHERS_OPTIONS}
    assert set(re.findall(r"(?<!%)%xpander (\w+)", said)) - {"COMMAND"} <= set(commands.COMMAND_NAMES)
    assert all(name in SOURCE for name in re.findall(r"XPANDER_\w+", said))
    assert set(re.findall(r"XpanderMagics\.(\w+)", said)) <= SETTINGS
    assert set(re.findall(r"\bxp\.(\w+)", said)) <= set(xp.__all__)
    assert set(re.findall(r"\b([A-Z]\w+Error|ConnectionFailed|Timeout|TaskFailed)\b", said)) <= set(vars(errors))


OPTIONS = {
    option
    for parser in (cell.cell_parser(), *map(commands.command_parser, commands.COMMAND_NAMES))
    for action in parser._actions
    for option in action.option_strings
}
OTHERS_OPTIONS = ("--clear", "--port")  # of %xpander use, and of python -m xpander_magics local
SETTINGS = set(XpanderMagics.class_own_traits(config=True))


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("settings", {*(f"`{name}`" for name in SETTINGS), *set(re.findall(r"\bXPANDER_[A-Z_]+\b", SOURCE))}),
        ("errors", {f"| `{name}`" for name in xp.__all__ if name[0].isupper() and hasattr(getattr(xp, name), "args")}),
        ("scorers", {f"| `{word}" for word in SCORERS}),
        ("dataframe", {f"`{column}`" for column in EMPTY.columns}),
    ],
)
def test_a_page_that_lists_lists_all(page: str, names: set[str]) -> None:
    text = (FOLDER / f"{page}.md").read_text("utf-8")
    assert {name for name in names if name not in text} <= {"| `XpanderError`"}


@pytest.mark.parametrize(
    ("question", "page"),
    [
        ("how do I start without an account", "start"),
        ("where do I put my API key", "key"),
        ("why is a name undefined", "prompt"),
        ("braces and latex", "prompt"),
        ("json schema", "schema"),
        ("SchemaError", "schema"),
        ("pydantic", "schema"),
        ("run over a dataframe", "sweep"),
        ("what will it cost?", "cost"),
        ("kernel died", "interrupted"),
        ("my kernel dies", "interrupted"),
        ("why unknown", "unknown"),
        ("429", "limits"),
        ("rate limit", "limits"),
        ("sent twice", "twice"),
        ("compare two models", "compare"),
        ("only noise", "noise"),
        ("can't tell", "noise"),
        ("own scorer", "scorers"),
        ("judge", "judges"),
        ("blind", "votes"),
        ("conversation", "conversation"),
        ("read_notebook", "share"),
        ("postgresql", "store"),
        ("delete runs", "store"),
        ("SecretError", "secrets"),
        ("papermill", "automation"),
        ("widgets don't show in vs code", "widgets"),
        ("proxy", "network"),
        ("ollama", "local"),
        ("without jupyter", "python"),
        ("dask", "cluster"),
        ("slow", "speed"),
        ("what does this error mean", "errors"),
        ("TaskFailed", "errors"),
        ("settings", "settings"),
        ("not tried", "limitations"),
    ],
)
def test_words_find_their_page(question: str, page: str) -> None:
    found = page_about(question.split())
    assert found is not None
    assert found.name == page


def test_help_lists_the_pages_and_shows_them(reader: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    reader.notebook.run("%xpander help")
    assert listed() in capsys.readouterr().out
    assert len(listed().splitlines()) == 1 + len(PAGES)
    reader.notebook.run("%xpander help what's an unknown run")
    assert capsys.readouterr().out.startswith("# Why is a run `unknown`?\n")
    reader.notebook.run("%xpander help resume")
    told = capsys.readouterr().out
    assert told.startswith("  %xpander resume")
    assert "  interrupted " in told
    reader.notebook.run("%xpander help compare")
    told = capsys.readouterr().out
    assert told.startswith("  %xpander compare")
    assert "\n\n# How do I compare models" in told
    with pytest.raises(ConfigError, match="Did you mean compare"):
        reader.notebook.run("%xpander help comapre")
    with pytest.raises(ConfigError, match=r"No command and no page has 'qwertz asdf'\. %xpander help lists all"):
        reader.notebook.run("%xpander help qwertz asdf")


def test_a_page_in_a_notebook_is_safe_html_without_what_the_tests_set_up() -> None:
    for page in pages():
        shown = page._repr_mimebundle_()
        assert set(shown) == {"text/plain", "text/html"}
        assert shown["text/html"].startswith("<h1>")
        assert not re.search("<!--|&lt;!--", shown["text/plain"] + shown["text/html"])
