"""What ``%load_ext xpander_magics`` adds to the start of a bare IPython shell.

Run it as a script: ``python tests/benchmarks/bench_load.py [--rounds N] [--json]``. Each round is a process of its own,
which tells both: the floor is IPython's own start, from its import to a shell; the figure is that and ``%load_ext``.
Aim: at most 30 ms more.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from reporting import Aim, Figure, report

AIM = Aim("more", 30.0)
START = """
import time
start = time.perf_counter()
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
config = Config()
config.HistoryManager.enabled = False
shell = InteractiveShell.instance(config=config)
begun = time.perf_counter()
shell.run_line_magic("load_ext", {extension!r})
loaded = time.perf_counter()
print(begun - start, loaded - start)
"""


def one_start(python: str, extension: str, folder: str, environment: Mapping[str, str]) -> tuple[float, float]:
    """Milliseconds of IPython's start, and of that with the extension's loading."""
    own = {"IPYTHONDIR": folder, **environment}
    everything = {**os.environ, **own}
    everything.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its .pyc files
    command = [python, "-c", START.format(extension=extension)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder, env=everything).stdout
    bare, loaded = (float(word) * 1e3 for word in told.splitlines()[-1].split())
    return bare, loaded


class Starts:
    """The starts of one extension, counted after one that writes its .pyc files and its profile.

    Args:
        name: what the figure is called.
        python: that has the extension.
        environment: variables that it runs with, over those of this process.
    """

    def __init__(
        self, name: str, python: str, extension: str, environment: Mapping[str, str] = {}, aim: Aim | None = None
    ) -> None:
        self._name, self._aim, self._what = name, aim, (python, extension)
        self._environment = dict(environment)
        self._folder = tempfile.TemporaryDirectory()
        self._told: list[tuple[float, float]] = []
        self._start()

    def again(self) -> None:
        """One round more."""
        self._told.append(self._start())

    def _start(self) -> tuple[float, float]:
        return one_start(*self._what, self._folder.name, self._environment)

    def figure(self) -> Figure:
        self._folder.cleanup()
        bare, loaded = zip(*self._told, strict=True)
        return Figure(self._name, loaded, bare, aim=self._aim)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    options = parser.parse_args()
    starts = Starts("%load_ext xpander_magics", sys.executable, "xpander_magics", aim=AIM)
    for _ in range(options.rounds):
        starts.again()
    report([starts.figure()], options.json)


if __name__ == "__main__":
    main()
