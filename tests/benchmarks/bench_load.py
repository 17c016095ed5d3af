"""What ``%load_ext xpander_magics`` adds to the start of a bare IPython shell.

Run it as a script: ``python tests/benchmarks/bench_load.py [ROUNDS]``. Each figure comes from a process of its
own; both kinds take turns, so that a machine that grows slower is slower for both. Aim: at most 30 ms more
than bare IPython. For comparison, on the same machine: ``%load_ext sql`` adds 400 ms.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

BARE = """
import time
start = time.perf_counter()
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
config = Config()
config.HistoryManager.enabled = False
shell = InteractiveShell.instance(config=config)
begun = time.perf_counter()
"""
LOADED = BARE + 'shell.run_line_magic("load_ext", "xpander_magics")\n'
TELL = "print(time.perf_counter() - start, time.perf_counter() - begun)"


def one_start(code: str, folder: str) -> tuple[float, float, float]:
    """Milliseconds of a process as a whole, of IPython with what came after, and of what came after."""
    start = time.perf_counter()
    environment = {**os.environ, "IPYTHONDIR": folder, "PYTHONPYCACHEPREFIX": folder}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its .pyc files
    told = subprocess.run(
        [sys.executable, "-c", code + TELL], check=True, capture_output=True, text=True, env=environment
    ).stdout
    whole = time.perf_counter() - start
    shell, extension = map(float, told.split())
    return whole * 1e3, shell * 1e3, extension * 1e3


def main(rounds: int) -> None:
    """Prints a table."""
    bare, loaded = [], []
    with tempfile.TemporaryDirectory() as folder:
        one_start(LOADED, folder)  # writes the .pyc files and the profile
        for _ in range(rounds):
            bare.append(one_start(BARE, folder))
            loaded.append(one_start(LOADED, folder))
    print(f"{rounds} starts of each kind, ms (median, best)")
    for name, column in (("process", 0), ("IPython and extension", 1)):
        floor, ours = ([row[column] for row in rows] for rows in (bare, loaded))
        middle, best = (function(ours) - function(floor) for function in (statistics.median, min))
        ratio = statistics.median(ours) / statistics.median(floor)
        print(
            f"{name:22} bare {statistics.median(floor):6.1f} {min(floor):6.1f}   with us {statistics.median(ours):6.1f}"
            f" {min(ours):6.1f}   ratio {ratio:.3f}   more {middle:5.1f} {best:5.1f}"
        )
    load = [row[2] for row in loaded]
    print(f"{'%load_ext alone':22} {statistics.median(load):.1f} {min(load):.1f}   (aim: at most 30)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
