"""README.md and the pages of ``xpander_magics/docs``: every block is run, every name exists, every link leads somewhere.

A block without a language, or of Python, is a cell of one notebook a page, which talks to a service on loopback. A
``text`` block after a cell is what the cell shows, ``…`` standing for anything; a cell whose error isn't shown so has
to succeed. ``sh`` blocks are commands: ours are run, and so are those that run a notebook. A comment
``<!-- setup … -->`` is Python that is run before: ``service`` is the service, ``answers`` what it says to prompts.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fault_server
import pytest
from fault_server import FaultServer, Request, Service
from IPython.core.interactiveshell import InteractiveShell
from markdown_it import MarkdownIt
from markdown_it.token import Token
from notebook_shell import Notebook

import xpander_magics as xp
from xpander_magics import cell, commands
from xpander_magics.errors import ConfigError
from xpander_magics.local.catalog import load
from xpander_magics.magics.magic import XpanderMagics
from xpander_magics.magics.pages import listed, page_about, pages

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "xpander_magics" / "docs"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
FILES = [ROOT / "README.md", FOLDER / "README.md", *PAGES]
MARKDOWN = MarkdownIt("commonmark").enable("table")
SOURCE = "\n".join(path.read_text("utf-8") for path in (ROOT / "xpander_magics").rglob("*.py"))

every_file = pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
every_page = pytest.mark.parametrize("path", PAGES, ids=[path.stem for path in PAGES])


@dataclass
class Answering(Service):
    """A service that answers by what a prompt holds, and else repeats it."""

    answers: dict[str, Any] = field(default_factory=dict)
    chunks: list[str] = field(default_factory=list)

    def start(self, request: Request) -> dict[str, Any]:
        return {"llm_model_provider": "openai", "llm_model_name": "gpt-5-mini"} | super().start(request)

    def finish(self, task: dict[str, Any]) -> dict[str, Any]:
        prompt = task["input"]["text"]
        said = next((answer for part, answer in self.answers.items() if part in prompt), prompt)
        said = said(task) if callable(said) else said
        ended = said if isinstance(said, dict) and "status" in said else {"result": said}
        if not isinstance(ended["result"], str):
            ended["result"] = json.dumps(ended["result"])
        task.update({"status": "completed", **ended, "started_at": fault_server.now(), "finished_at": fault_server.now()})
        return task


class Reader:
    """One file's blocks, run from the first to the last."""

    def __init__(self, shell: InteractiveShell, service: FaultServer, folder: Path) -> None:
        self.notebook, self.service, self.folder = Notebook(shell, None), service, folder  # type: ignore[arg-type]
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
        assert source.lstrip()[0] != "$", where
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
            extras = [extra for word in words for found in re.findall(r"\[([\w,]+)\]", word) for extra in found.split(",")]
            assert all(f"\n{extra} = [" in described for extra in extras), words
        elif words[1:3] == ["-m", "xpander_magics"]:
            self._ours(words[3:])
        elif program in ("papermill", "jupyter") and "lab" not in words:
            program_of = {"papermill": ["-m", "papermill"], "jupyter": ["-m", "jupyter"]}
            self._finish([sys.executable, *program_of[program], *words[1:]])
        else:
            assert program in ("jupyter", "git", "cd") or words[1:3] in (["-m", "venv"], ["-m", "pytest"]), words
            assert all((ROOT / word).exists() for word in words if word.endswith(".ipynb")), words

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
        service.service = Answering(models={"openai": ["gpt-5", "gpt-5-mini"], "anthropic": ["claude-sonnet-4-6"]})
        environment.setenv("XPANDER_API_KEY", service.key)
        environment.setenv("XPANDER_BASE_URL", service.url)
        yield Reader(shell, service, folder)


@every_page
def test_every_block_runs(path: Path, reader: Reader) -> None:
    reader.file(path)
