"""IPython in a real terminal: the stream as plain text, the facts, errors of a line, and Tab."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import pexpect
import pytest

from xpander_magics.local.launch import LocalServer


class Terminal:
    """IPython in a pseudo-terminal."""

    def __init__(self, child: Any) -> None:
        self.child = child
        self.number = 0
        self.prompt()

    def prompt(self) -> str:
        """Waits for the next prompt; returns what came before it, without colours and the like."""
        self.number += 1
        self.child.expect(rf"In \[{self.number}\]:")
        return without_codes(self.child.before)

    def type(self, *lines: str) -> None:
        """Types a cell; two empty lines end one of several lines."""
        for line in (*lines, "", "") if len(lines) > 1 else lines:
            self.child.sendline(line)

    def run(self, *lines: str) -> str:
        """Types a cell, and returns what it shows."""
        self.type(*lines)
        return self.prompt()


def without_codes(text: str) -> str:
    return re.sub(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[=>])", "", text).replace("\r", "")


@contextlib.contextmanager
def running_terminal() -> Iterator[Terminal]:
    """A terminal IPython with the extension loaded."""
    options = ["--no-banner", "--no-confirm-exit", "--colors=NoColor", "--HistoryManager.enabled=False"]
    simple = ["--TerminalInteractiveShell.term_title=False"]
    child = pexpect.spawn(
        sys.executable,
        ["-m", "IPython", *options, *simple],
        env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        encoding="utf-8",
        timeout=120,
        dimensions=(40, 160),
        use_poll=True,  # select() knows no more than 1,024 files
    )
    try:
        started = Terminal(child)
        started.run("%load_ext xpander_magics")
        yield started
    finally:
        child.close(force=True)


@pytest.fixture
def terminal(connected: LocalServer) -> Iterator[Terminal]:
    with running_terminal() as started:
        yield started


def test_a_stream_in_a_terminal(terminal: Terminal) -> None:
    terminal.run("s = {'script': {'result': 'one *two* three', 'chunks': 3, 'rate': 20}}")
    shown = terminal.run("%%xpander echo --payload s -o run", "hello")
    assert "one *two* three\n" in shown
    assert shown.count("*two*") == 1
    assert re.search(r"completed · scripted/echo · \d+\.\d s · first token \d+\.\d s · 4 tokens", shown)
    assert "<" not in shown.partition("one *two*")[2]
    shown = terminal.run("run")
    assert "one *two* three" in shown
    assert "completed · scripted/echo" in shown


def test_an_error_in_a_terminal(terminal: Terminal) -> None:
    shown = terminal.run("%%xpander ecco", "hello")
    assert "NotFoundError: There is no agent or workflow named 'ecco'. Did you mean echo?" in shown
    assert "Traceback" not in shown
    assert "---->" not in shown


def test_hostile_answers_do_not_steer_the_terminal(terminal: Terminal) -> None:
    terminal.run("s = {'script': {'result': 'a\\x1b]0;EVIL\\x07b\\x9b2Jc'}}")
    terminal.type("%%xpander echo --payload s", "hello")
    terminal.child.expect("completed")
    assert "\ufffd]0;EVIL\ufffdb\ufffd2Jc" in terminal.child.before
    assert "\x1b]0;EVIL" not in terminal.child.before
    terminal.prompt()
    assert "\ufffd]0;EVIL\ufffdb" in terminal.run("__import__('xpander_magics').runs()[['result']]")


def test_tab_completes_a_command(terminal: Terminal) -> None:
    terminal.child.send("%xpander stat\t")
    terminal.child.expect("stat.*us")
    terminal.child.sendline("")
    terminal.child.expect("defaults none")


def test_an_interrupt_in_a_terminal(terminal: Terminal) -> None:
    terminal.run("s = {'script': {'chunks': ['begun '] + ['x'] * 100, 'rate': 2}}")
    terminal.type("%%xpander echo --payload s -o run", "hello")
    terminal.child.expect("begun")
    terminal.child.sendintr()
    terminal.child.expect(r"Interrupted: Run [0-9a-f]{8} was interrupted\. Its task was stopped\.")
    terminal.prompt()
    assert "'stopped'" in terminal.run("run.status")
