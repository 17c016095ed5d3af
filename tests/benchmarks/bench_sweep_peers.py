"""The same calls by promptfoo and by Inspect, beside bare ``requests`` in threads and ours.

Run it as a script: ``python tests/benchmarks/bench_sweep_peers.py --install``. That puts promptfoo (npm, about
2 GB) and Inspect (PyPI) into a temporary folder; with ``--folder FOLDER`` they stay there, and the next time
goes without ``--install``. promptfoo needs npm; where the installed Node.js is too old for it, npm gets a newer
one into the same folder. It needs Linux, as ``bench_sweep.py`` does, whose server and whose floor it uses.

promptfoo sends the invokes by its HTTP provider, without its cache. Inspect asks for chat completions by its
provider for OpenAI's API, without a scorer. Both keep their results as they do by default. Each round runs a
tool twice: with one call, which is its start-up, and with all of them. ``first to last`` is what the server saw,
so no start-up is in it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench_sweep import INVOKE, KEY, Figures, ask, both, measured, server_process, tickets

NODE_NEEDED = (22, 22)
NODE_PACKAGE = "node@22"
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
        """Puts it into its folder; Unusable where that fails."""
        raise NotImplementedError

    def version(self) -> str:
        """Its version; Unusable where it isn't there."""
        raise NotImplementedError

    def command(self, url: str, work: Path, calls: int, jobs: int) -> Sequence[str]:
        """Makes its files in a folder, and tells the command that sends the calls."""
        raise NotImplementedError

    def check(self, work: Path, calls: int) -> None:
        """Looks whether every call went well, as far as the tool tells by more than its exit status."""

    def told(self, command: Sequence[str | Path]) -> str:
        """What a command prints; Unusable where it fails."""
        environment = {**os.environ, **self.environment}
        try:
            done = subprocess.run(
                command, check=False, cwd=self.folder, env=environment, capture_output=True, text=True
            )
        except OSError as error:
            raise Unusable(f"{command[0]}: {error.strerror}") from None
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-5:]
            raise Unusable("\n    ".join([f"{' '.join(map(str, command))} has failed:", *last]))
        return done.stdout.strip()


class Promptfoo(Tool):
    """promptfoo, on a Node.js that is new enough for it."""

    @property
    def _programs(self) -> Path:
        return self.folder / "node_modules/.bin"

    def install(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "package.json").write_text('{"private": true}', encoding="utf-8")
        self._prefer_own_node()
        install = ["npm", "install", "--no-audit", "--no-fund"]
        try:
            found = tuple(int(part) for part in self.told(["node", "--version"]).lstrip("v").split(".")[:2])
        except Unusable:
            found = (0, 0)
        if found < NODE_NEEDED:
            self.told([*install, NODE_PACKAGE])
        # The scripts of its optional packages download browsers and the like from elsewhere.
        self.told([*install, "--omit=dev", "--ignore-scripts", "promptfoo"])

    def version(self) -> str:
        if not (self._programs / "promptfoo").exists():
            raise Unusable("it isn't installed; --install does that")
        self._prefer_own_node()
        return f"{self.told([self._programs / 'promptfoo', '--version'])} on Node {self.told(['node', '--version'])}"

    def _prefer_own_node(self) -> None:
        self.environment["PATH"] = f"{self._programs}{os.pathsep}{os.environ.get('PATH', '')}"

    def command(self, url: str, work: Path, calls: int, jobs: int) -> Sequence[str]:
        self.environment |= {
            "PROMPTFOO_CONFIG_DIR": str(work),
            "PROMPTFOO_DISABLE_TELEMETRY": "1",
            "PROMPTFOO_DISABLE_UPDATE": "1",
            "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
            "PROMPTFOO_DISABLE_SHARING": "1",
        }
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
        stats = json.loads((work / "results.json").read_text(encoding="utf-8"))["results"]["stats"]
        assert stats["successes"] == calls, stats


class Inspect(Tool):
    """Inspect, in a virtual environment."""

    @property
    def _python(self) -> Path:
        return self.folder / "venv/bin/python"

    def install(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.told([sys.executable, "-m", "venv", "venv"])
        self.told([self._python, "-m", "pip", "install", "--quiet", "inspect-ai", "openai"])

    def version(self) -> str:
        if not self._python.exists():
            raise Unusable("it isn't installed; --install does that")
        tell = "import platform; from importlib.metadata import version as of; print(of('inspect-ai'), 'on Python', "
        return self.told([self._python, "-c", f"{tell}platform.python_version())"])

    def command(self, url: str, work: Path, calls: int, jobs: int) -> Sequence[str]:
        self.environment |= {"BENCH_BASE_URL": f"{url}/v1", "BENCH_API_KEY": KEY, "INSPECT_LOG_DIR": str(work)}
        (work / "sweep_task.py").write_text(INSPECT_TASK, encoding="utf-8")
        model = ("--model", "openai-api/bench/writer", "--max-connections", str(jobs))
        what = ("sweep_task.py", "-T", f"count={calls}", "--display", "none")
        return [str(self._python), "-m", "inspect_ai", "eval", *what, *model]


def run(tool: Tool, work: Path, calls: int, jobs: int, seconds: float) -> Figures:
    """One run of a tool: its whole process and those that it starts, and what the server saw."""
    with server_process(seconds) as url, (work / "output.txt").open("w", encoding="utf-8") as output:
        command = tool.command(url, work, calls, jobs)
        environment = {**os.environ, **tool.environment, "HOME": str(work)}
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=work, env=environment, stdout=output, stderr=subprocess.STDOUT)
        # Unlike Popen's own wait, this tells what the process has used.
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        seen = ask(url, "/figures")
    if process.returncode or seen["invokes"] != calls:
        last = (work / "output.txt").read_text(encoding="utf-8").strip().splitlines()[-5:]
        problem = f"it ended with {process.returncode} after {seen['invokes']} calls of {calls}:"
        raise Unusable("\n    ".join([problem, *last]))
    tool.check(work, calls)
    return {
        "wall": wall,
        "cpu": used.ru_utime + used.ru_stime,
        "span": seen["last"] - seen["first"],
        "peak_mb": used.ru_maxrss / 1024,
        "most_open": seen["most_open"],
    }


def measure(tool: Tool, options: argparse.Namespace) -> tuple[list[Figures], list[Figures]]:
    """The runs with one call, and those with all."""
    alone: list[Figures] = []
    full: list[Figures] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run(tool, work, 1, options.jobs, options.seconds)  # makes what is made once: databases, compiled files
        for _ in range(options.rounds):
            alone.append(run(tool, work, 1, options.jobs, options.seconds))
            full.append(run(tool, work, options.calls, options.jobs, options.seconds))
    return alone, full


def tell(name: str, alone: list[Figures], full: list[Figures], calls: int, ideal: float, seconds: float) -> None:
    """Prints the best and the median of a tool."""
    start = [one["wall"] - seconds for one in alone]
    whole = [one["cpu"] / calls for one in full]
    started = min(one["cpu"] for one in alone)
    rest = [(one["cpu"] - started) / (calls - 1) for one in full]
    span = [one["span"] for one in full]
    wall = both([one["wall"] for one in full], 2)
    print(
        f"{name}\n  wall {wall} s, of it start-up and end {both(start, 2)} s"
        f"   first to last {both(span, 2)} s, {min(span) / ideal:.3f} of the ideal"
        f"\n  CPU a call {both(whole, 2, 1e3)} ms, without start-up {both(rest, 2, 1e3)} ms"
        f"   memory at the most {max(one['peak_mb'] for one in full):.0f} MB   connections {full[-1]['most_open']}",
        flush=True,
    )


def tell_own(kind: str, name: str, options: argparse.Namespace, ideal: float) -> None:
    """Measures and prints the floor, or ours: processes whose figures hold no start-up."""
    rounds = []
    with server_process(options.seconds) as url:
        for _ in range(options.rounds):
            rounds.append(measured(kind, url, options.calls, options.jobs, "sync", None))
    wall, span, cpu = ([one[key] for one in rounds] for key in ("wall", "span", "cpu"))
    print(
        f"{name}\n  wall {both(wall, 2)} s, started before   first to last {both(span, 2)} s, "
        f"{min(span) / ideal:.3f} of the ideal\n  CPU a call, without start-up {both(cpu, 2, 1e3)} ms"
        f"   memory at the most {max(one['peak_mb'] for one in rounds):.0f} MB   connections {rounds[-1]['most_open']}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="install the tools first")
    parser.add_argument("--folder", type=Path, help="where they are, or go to; else a folder that is removed after")
    parser.add_argument("--only", choices=("promptfoo", "inspect"), help="measure this tool alone")
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=20, help="calls at once (20)")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long a call takes (0.5)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (3)")
    options = parser.parse_args()
    if options.calls < 2:
        parser.error("--calls takes 2 or more")
    ideal = math.ceil(options.calls / options.jobs) * options.seconds
    print(f"{options.calls} calls of {options.seconds:g} s, {options.jobs} at once: ideal {ideal:g} s")
    print(f"of each the best and the median of {options.rounds}", flush=True)
    tell_own("floor", "requests in threads", options, ideal)
    tell_own("ours", "xp.sweep", options, ideal)
    folder = options.folder.resolve() if options.folder else Path(tempfile.mkdtemp())
    tools = {"promptfoo": Promptfoo(folder / "promptfoo"), "inspect": Inspect(folder / "inspect")}
    try:
        for name, tool in tools.items():
            if options.only not in (None, name):
                continue
            try:
                if options.install:
                    tool.install()
                title = f"{name} {tool.version()}"
                alone, full = measure(tool, options)
            except Unusable as why:
                print(f"{name} is left out: {why}", flush=True)
                continue
            tell(title, alone, full, options.calls, ideal, options.seconds)
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
