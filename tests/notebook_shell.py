"""A notebook without a front end, for tests that type cells."""

from __future__ import annotations

from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from xpander_magics.results import Run
from xpander_magics.service.client import Client


class Notebook:
    """A fresh IPython with the extension loaded.

    Attributes:
        ns: the notebook's variables.
        client: a client of the same server, to see what has reached it.
    """

    def __init__(self, shell: InteractiveShell, client: Client) -> None:
        self.shell = shell
        self.ns: dict[str, Any] = shell.user_ns
        self.client = client

    def run(self, source: str) -> Any:
        """Runs a cell; returns its value, and raises its error after IPython has shown it."""
        outcome = self.shell.run_cell(source)
        outcome.raise_error()
        return outcome.result

    def ask(self, line: str, body: str = "hello") -> Run:
        """Runs a ``%%xpander`` cell; returns what it has bound."""
        self.run(f"%%xpander {line} -o answer\n{body}")
        run = self.ns["answer"]
        assert isinstance(run, Run)
        return run

    def task(self, run: Run) -> dict[str, Any]:
        """The task of a run as the server has it."""
        assert run.task_id is not None
        return self.client.task(run.task_id).raw

    def newest_tasks(self) -> list[tuple[Any, ...]]:
        """What changes whenever something is sent."""
        return [(task.id, task.created_at) for task in self.client.tasks(limit=3)]
