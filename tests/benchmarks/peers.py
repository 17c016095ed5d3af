"""The tools that the page compares with: how each is installed, and what is asked of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_sweep import INVOKE, KEY, tickets

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# The newest that could be had on 2026-11-22.
PROMPTFOO, NODE_PACKAGE = "promptfoo@0.123.1", "node@22.23.3"
NODE_NEEDED = (22, 22)
INSPECT = ("inspect-ai==0.3.285", "openai", "pandas", "pyarrow", "requests")
JUPYTER_AI = ("jupyter-ai-magics==2.31.7", "langchain-openai", "requests")
JUPYSQL = ("jupysql==0.11.1", "ipython", "pandas", "requests")
INSPECT_TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.solver import generate


@task
def tickets(count: int):
    samples = [Sample(input=f"Classify ticket {number}") for number in range(count)]
    return Task(dataset=MemoryDataset(samples), solver=generate())
"""


class Unusable(Exception):
    """Why a tool can't be measured here."""


@dataclass
class Tool:
    """How a tool is installed and run.

    Attributes:
        folder: where it is installed.
        environment: variables that it runs with, over those of this process.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def install(self) -> None:
        """Puts it into its folder, unless it is there; Unusable where that fails."""
        raise NotImplementedError

    def version(self) -> str:
        """Its version."""
        raise NotImplementedError

    def inside(self, what: str, given: str, rounds: int, folder: Path, **environment: str) -> dict[str, list[float]]:
        """Measures something within the tool's own process.

        Args:
            given: a URL or a path, as ``what`` takes it.
            folder: that it may write to.

        Returns:
            The values of each round, as a Figure takes them.
        """
        raise NotImplementedError

    def told(self, command: Sequence[str | Path], folder: Path | None = None, **environment: str) -> str:
        """What a command prints; Unusable where it fails."""
        everything = {**around(), **self.environment, **environment}
        try:
            done = subprocess.run(
                command, check=False, cwd=folder or self.folder, env=everything, capture_output=True, text=True
            )
        except OSError as error:
            raise Unusable(f"{command[0]}: {error.strerror}") from None
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-5:]
            raise Unusable("\n    ".join([f"{' '.join(map(str, command))} has failed:", *last]))
        return done.stdout.strip()

    def run(self, command: Sequence[str], work: Path) -> float:
        """Runs a command in a folder; returns the seconds of CPU that it and all it started have used."""
        with (work / "output.txt").open("w", encoding="utf-8") as output:
            environment = {**around(), **self.environment, "HOME": str(work)}
            process = subprocess.Popen(command, cwd=work, env=environment, stdout=output, stderr=subprocess.STDOUT)
            # Unlike Popen's own wait, this tells what the process has used.
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            last = (work / "output.txt").read_text(encoding="utf-8").strip().splitlines()[-5:]
            raise Unusable("\n    ".join([f"it ended with {process.returncode}:", *last]))
        return used.ru_utime + used.ru_stime


@dataclass
class InPython(Tool):
    """A tool of the package index, in a virtual environment with this process's Python.

    Attributes:
        requirements: for pip; the first is the tool.
    """

    requirements: Sequence[str] = ()

    @property
    def python(self) -> Path:
        return self.folder / "venv/bin/python"

    def install(self) -> None:
        if not (self.folder / "installed").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.told([sys.executable, "-m", "venv", "venv"])
            self.told([self.python, "-m", "pip", "install", "--quiet", *self.requirements])
            (self.folder / "installed").touch()

    def version(self) -> str:
        return self.versions_of(self.requirements[0].partition("==")[0])[0]

    def versions_of(self, *packages: str) -> list[str]:
        """The versions of some of what is installed."""
        tell = f"from importlib.metadata import version; print(*map(version, {packages!r}))"
        return self.told([self.python, "-c", tell]).split()

    def inside(self, what: str, given: str, rounds: int, folder: Path, **environment: str) -> dict[str, list[float]]:
        environment |= {"HOME": str(folder), "IPYTHONDIR": str(folder)}
        return last_line(self.told([self.python, HERE / "inside.py", what, given, str(rounds)], folder, **environment))


class Ours(InPython):
    """This package, installed as any other."""

    def install(self) -> None:
        copy = self.folder / "source"  # for building leaves files beside the sources
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(ROOT / "xpander_magics", copy / "xpander_magics")
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, copy)
        (self.folder / "installed").unlink(missing_ok=True)  # it has changed since
        self.requirements = (f"{copy}[local,stats]", "ipykernel")
        super().install()

    def version(self) -> str:
        return self.versions_of("xpander-magics")[0]

    def reported(self, script: str, *options: str) -> str:
        """What one of the scripts here prints as JSON."""
        return self.told([self.python, HERE / script, "--json", *options])


class Inspect(InPython):
    """Inspect."""

    def command(self, url: str, work: Path, calls: int, jobs: int) -> Sequence[str]:
        """Makes its files in a folder, and tells the command that sends the calls."""
        self.environment |= {"BENCH_BASE_URL": f"{url}/v1", "BENCH_API_KEY": KEY, "INSPECT_LOG_DIR": str(work)}
        (work / "sweep_task.py").write_text(INSPECT_TASK, encoding="utf-8")
        model = ("--model", "openai-api/bench/writer", "--max-connections", str(jobs))
        what = ("sweep_task.py", "-T", f"count={calls}", "--display", "none", "--no-log-realtime")
        return [str(self.python), "-m", "inspect_ai", "eval", *what, *model]

    def check(self, work: Path, calls: int) -> None:
        """Its exit status tells whether every call went well."""


class Promptfoo(Tool):
    """promptfoo, on a Node.js that is new enough for it."""

    @property
    def _programs(self) -> Path:
        return self.folder / "node_modules/.bin"

    def install(self) -> None:
        self.environment |= {
            "PATH": f"{self._programs}{os.pathsep}{os.environ.get('PATH', '')}",
            "PROMPTFOO_DISABLE_TELEMETRY": "1",
            "PROMPTFOO_DISABLE_UPDATE": "1",
            "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
            "PROMPTFOO_DISABLE_SHARING": "1",
            "BENCH_API_KEY": KEY,
        }
        if (self.folder / "installed").exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "package.json").write_text('{"private": true}', encoding="utf-8")
        install = ["npm", "install", "--no-audit", "--no-fund"]
        try:
            found = tuple(int(part) for part in self._node_version().split(".")[:2])
        except Unusable:
            found = (0, 0)
        if found < NODE_NEEDED:
            self.told([*install, NODE_PACKAGE])
        # The scripts of its optional packages download browsers and the like from elsewhere.
        self.told([*install, "--omit=dev", "--ignore-scripts", PROMPTFOO])
        (self.folder / "installed").touch()

    def _node_version(self) -> str:
        return self.told(["node", "--version"]).removeprefix("v")

    def version(self) -> str:
        return f"{self.told([self._programs / 'promptfoo', '--version'])} on Node.js {self._node_version()}"

    def inside(self, what: str, given: str, rounds: int, folder: Path, **environment: str) -> dict[str, list[float]]:
        command = ["node", HERE / "inside.mjs", self.folder, given + INVOKE, str(rounds)]
        environment |= {"HOME": str(folder), "PROMPTFOO_CONFIG_DIR": str(folder)}
        return last_line(self.told(command, folder, **environment))

    def command(self, url: str, work: Path, calls: int, jobs: int) -> Sequence[str]:
        """Makes its files in a folder, and tells the command that sends the calls."""
        self.environment["PROMPTFOO_CONFIG_DIR"] = str(work)
        provider = {
            "method": "POST",
            "headers": {"Content-Type": "application/json", "x-api-key": KEY},
            "body": {"input": {"text": "{{prompt}}"}},
            "transformResponse": "json.result",
        }
        config = {
            "prompts": ["Classify {{text}}"],
            "providers": [{"id": url + INVOKE, "config": provider}],
            "tests": [{"vars": row} for row in tickets(calls)],
        }
        (work / "sweep.json").write_text(json.dumps(config), encoding="utf-8")
        quiet = ("--no-cache", "--no-progress-bar", "--no-table", "--no-share")
        files = ("-c", str(work / "sweep.json"), "-o", str(work / "results.json"))
        return [str(self._programs / "promptfoo"), "eval", *files, "--max-concurrency", str(jobs), *quiet]

    def check(self, work: Path, calls: int) -> None:
        """Looks whether every call went well."""
        stats = json.loads((work / "results.json").read_text(encoding="utf-8"))["results"]["stats"]
        assert stats["successes"] == calls, stats


def around() -> dict[str, str]:
    """This process's environment, without what would change what is measured."""
    # An installed package has its .pyc files.
    left_out = ("XPANDER_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)}


def last_line(printed: str) -> Any:
    """The figures among what was printed: a tool may say good-bye."""
    return json.loads(next(line for line in reversed(printed.splitlines()) if line.startswith("{")))
