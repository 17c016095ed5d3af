"""Makes the page of benchmarks, README.md beside this script: our figures beside other tools', on the same work.

Run it as a script: ``python tests/benchmarks/page.py``. It takes a quarter of an hour or more, where the machine has
nothing else to do. First it installs every tool of ``peers.py``, this package among them, into environments of their
own: several GB in a folder that is removed after. ``--folder FOLDER`` keeps them for the next time, when this package
alone is installed anew. It needs Linux, the package indexes of Python and npm, and npm itself. Whatever can't be
installed or measured is said in its place.

Each figure is the median of rounds that take turns with those of the other tools and of the floors.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import bench_load
from bench_sweep import KEY, Figures, ask, measured, server_process
from peers import INSPECT, JUPYSQL, JUPYTER_AI, InPython, Inspect, Ours, Promptfoo, Tool, Unusable
from reporting import Figure, figures_of, table

PAGE = Path(__file__).parent / "README.md"
TOOLS = ("xpander_magics", "promptfoo", "Inspect", "jupyter-ai-magics", "JupySQL")
US, PROMPTFOO_, INSPECT_, JUPYTER_AI_, JUPYSQL_ = TOOLS
CPU = ": CPU a call"
NO_EXTENSION = "it has no IPython extension"


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        starts: rounds of loading.
        cells: rounds of cells.
        calls: of a sweep, with so many at once.
        sweeps: rounds of sweeps.
        runs: that a frame is made of.
        frames: rounds of frames.
    """

    starts: int = 11
    cells: int = 200
    calls: int = 400
    jobs: int = 20
    sweeps: int = 3
    runs: int = 100_000
    frames: int = 5


FULL = Sizes()
SMALL = Sizes(starts=2, cells=10, calls=40, sweeps=1, runs=2_000, frames=1)


@dataclass(frozen=True)
class Work:
    """A part of the page.

    Attributes:
        title: its heading.
        about: what is measured, and how each tool does it.
        measure: makes its figures, for the tools that it is given.
        without: the tools that don't do this, and why.
        of_tools: whether its rows are the tools.
    """

    title: str
    about: str
    measure: Callable[[dict[str, Tool], Sizes, Path], Sequence[Figure]]
    without: Mapping[str, str]
    of_tools: bool = True


def loading(tools: dict[str, Tool], sizes: Sizes, folder: Path) -> Sequence[Figure]:
    extensions = {US: "xpander_magics", JUPYTER_AI_: "jupyter_ai_magics", JUPYSQL_: "sql"}
    starts = {}
    for name, tool in list(tools.items()):
        assert isinstance(tool, InPython)
        with leaving_out(name, tools):
            aim = bench_load.AIM if name == US else None
            starts[name] = bench_load.Starts(name, str(tool.python), extensions[name], tool.environment, aim)
    for _ in range(sizes.starts):
        for one in starts.values():
            one.again()
    return [one.figure() for one in starts.values()]


def cells(tools: dict[str, Tool], sizes: Sizes, folder: Path) -> Sequence[Figure]:
    names = {US: "cell_of_ours", INSPECT_: "cell_of_inspect", JUPYTER_AI_: "cell_of_jupyter_ai"}
    names |= {JUPYSQL_: "cell_of_jupysql", PROMPTFOO_: "evaluate"}
    told: dict[str, dict[str, list[float]]] = {name: {"own": [], "floor": []} for name in tools}
    with server_process(0.0) as url:
        for turn in range(4):
            for name, tool in list(tools.items()):
                # A whole evaluation a call: a tenth of the rounds are enough, and take as long.
                rounds = sizes.cells // (40 if name in (INSPECT_, PROMPTFOO_) else 4) + 1
                work = made(folder / f"cells-{name}-{turn}")
                ours = {"XPANDER_BASE_URL": url, "XPANDER_API_KEY": KEY, "XPANDER_STORE": f"sqlite:///{work}/runs.db"}
                with leaving_out(name, tools):
                    for kind, values in tool.inside(names[name], url, rounds, work, **ours).items():
                        told[name][kind] += values
    return [Figure(name, **told[name]) for name in tools]


def sweeps(tools: dict[str, Tool], sizes: Sizes, folder: Path) -> Sequence[Figure]:
    rounds: dict[str, list[tuple[Figures, Figures]]] = {name: [] for name in tools}
    python = own_python(tools)
    with server_process(0.5) as url:
        for number in range(sizes.sweeps + 1):
            # The first makes what is made once: databases, compiled files.
            calls = sizes.calls if number else sizes.jobs
            floor = measured("floor", url, calls, sizes.jobs, "sync", None, python)
            for name, tool in list(tools.items()):
                with leaving_out(name, tools):
                    if isinstance(tool, (Inspect, Promptfoo)):
                        told = evaluated(tool, url, made(folder / name), calls, sizes.jobs)
                    else:
                        told = measured("ours", url, calls, sizes.jobs, "sync", None, python)
                    if number:
                        rounds[name].append((told, floor))
    figures = []
    for what, key, unit, factor in (("", "span", "s", 1.0), (CPU, "cpu", "ms", 1e3)):
        for name, both in ((name, rounds[name]) for name in tools):
            own, floor_of = ([one[place][key] * factor for one in both] for place in (0, 1))
            figures.append(Figure(f"{name}{what}", own, floor_of, unit=unit))
    return figures


def evaluated(tool: Inspect | Promptfoo, url: str, work: Path, calls: int, jobs: int) -> Figures:
    """An evaluation by a tool's command: what the server saw of it, and a call's CPU time of all its processes."""
    used = []
    for count in (1, calls):
        ask(url, "/reset")
        used.append(tool.run(tool.command(url, work, count, jobs), work))
        seen = ask(url, "/figures")
        if seen["invokes"] != count:
            raise Unusable(f"it sent {seen['invokes']} calls of {count}")
        tool.check(work, count)
    return {"span": seen["last"] - seen["first"], "cpu": (used[1] - used[0]) / (calls - 1)}


def frames(tools: dict[str, Tool], sizes: Sizes, folder: Path) -> Sequence[Figure]:
    database = made(folder / "frames") / "runs.db"
    rounds = str(sizes.frames)
    ours = tools[US]
    assert isinstance(ours, Ours)
    options = ("--runs", str(sizes.runs), "--rounds", rounds, "--database", str(database))
    figures = [replace(figures_of(ours.reported("bench_frame.py", *options))[0], name=US)]
    with server_process(0.0) as url:
        for name, what, given in ((INSPECT_, "frame_of_inspect", url), (JUPYSQL_, "frame_of_jupysql", str(database))):
            if name in tools:
                with leaving_out(name, tools):
                    told = tools[name].inside(what, given, sizes.frames, made(folder / name))
                    figures.append(Figure(name, **told, unit="s"))
    return figures


def alone(tools: dict[str, Tool], sizes: Sizes, folder: Path) -> Sequence[Figure]:
    ours = tools[US]
    assert isinstance(ours, Ours)
    small = sizes is SMALL
    scripts = {
        "bench_call.py": ("--calls", "20") if small else (),
        "bench_sweep.py": ("--calls", "40", "--rounds", "1") if small else (),
        "bench_compare.py": ("--inputs", "20", "--rounds", "1") if small else (),
        "bench_live.py": ("--chunks", "100") if small else (),
    }
    return [figure for script, options in scripts.items() for figure in figures_of(ours.reported(script, *options))]


WORKS = (
    Work(
        "Loading the extension",
        """
`%load_ext` in a new process, on top of the start of a bare IPython, which is the floor, in the same process.
""",
        loading,
        {PROMPTFOO_: NO_EXTENSION, INSPECT_: NO_EXTENSION},
    ),
    Work(
        "One call",
        """
A call that is answered at once. Ours is a `%%xpander` cell in `sync` mode, which waits for the disk twice: its run is
kept before it is sent, and when it has ended. jupyter-ai-magics' is a `%%ai` cell with its provider for OpenAI, which
keeps nothing; Inspect's is `eval()` of one sample, with its log; promptfoo's is `evaluate()` of one test in a Node.js
that runs already, which keeps nothing. The floor is the same request by a bare `requests.Session`; for promptfoo, by
`fetch()`. JupySQL calls no service: its figure is a `%%sql` cell that makes a DataFrame of one row, and its floor is
`sqlite3` and a DataFrame of what that answers.
""",
        cells,
        {},
    ),
    Work(
        "A sweep",
        """
{calls} calls that take half a second each, {jobs} at once, from the first request to the last answer as the server saw
them, so no tool's start is in it. Then the CPU time of a call; of Inspect and promptfoo, what a process with a single
call uses is taken off first. Ours is `xp.sweep`; Inspect's is `inspect eval` without its log in real time; promptfoo's
is `promptfoo eval` with its HTTP provider. All three keep their results. The floor is `requests` in as many threads.
""",
        sweeps,
        {JUPYTER_AI_: "a cell makes one call", JUPYSQL_: "it calls no service"},
    ),
    Work(
        "Results in a DataFrame",
        """
Ours is the frame of {runs} runs in the store; JupySQL's is `SELECT *` of the same table, with `autopandas`. The floor
of both is `pandas.read_sql_query("SELECT * FROM runs")`, which parses no JSON and knows no dtypes. Inspect's is
`samples_df` of a log of 1,000 samples, as it takes minutes to write larger ones; its floor is `json.loads` of the log's
summaries, and a DataFrame of them.
""",
        frames,
        {PROMPTFOO_: "it makes no DataFrame; it writes JSON, CSV and HTML", JUPYTER_AI_: "it keeps no results"},
    ),
    Work(
        "Ours alone",
        """
What has an aim of its own, by `bench_call.py` (a call without the cell around it), `bench_sweep.py`, `bench_compare.py`
(100,000 runs; the floor is pandas' mean by group, or the reading) and `bench_live.py` (the floor is a display update a
chunk). `bench_board.py` and `bench_panel.py` need Chromium, and are run by themselves.
""",
        alone,
        {},
        of_tools=False,
    ),
)
INTRODUCTION = """
# Benchmarks

Made by `python tests/benchmarks/page.py`, not written by hand. Every figure is a median, and every ratio is that of a
tool's median to its floor's: the same work without the tool, measured in turns with it in the same run. *More* is what
the tool adds to its floor. *Middle half* is between which ratios the middle half of the rounds lies: where it is wide,
the machine had other things to do. Ratios can be compared from machine to machine; seconds can't. All calls go to one
server on this machine, no tool may take an answer from a cache, and each has done the same once before it is measured.
"""


def own_python(tools: Mapping[str, Tool]) -> Path:
    ours = tools[US]
    assert isinstance(ours, Ours)
    return ours.python


@contextlib.contextmanager
def leaving_out(name: str, tools: dict[str, Tool]) -> Iterator[None]:
    """Goes on without a tool that fails; not without ours."""
    try:
        yield
    except (Unusable, subprocess.CalledProcessError) as why:
        if name == US:
            raise
        print(f"{name}: {why}", file=sys.stderr, flush=True)
        del tools[name]


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def rows_of(
    work: Work, tools: Mapping[str, Tool], missing: Mapping[str, str], sizes: Sizes, folder: Path
) -> list[Figure]:
    """The figures of a work in the order of the tools, with why there is none where there isn't."""
    why = {**missing, **work.without}
    used = {name: tool for name, tool in tools.items() if name not in why}
    figures = list(work.measure(used, sizes, folder))
    if not work.of_tools:
        return figures
    found = {figure.name: figure for figure in figures}
    first = [
        found.pop(name) if name in found else Figure(name, without=why.get(name, "it could not be measured here"))
        for name in TOOLS
    ]
    return [*first, *found.values()]


def verdict(figures: Sequence[Figure]) -> str:
    """Who has the lowest ratios, and where an aim is missed: said of the figures, whatever they are."""
    said = []
    for part in ("", CPU):
        found = {one.name: one for one in figures if not one.without and one.name in {name + part for name in TOOLS}}
        ranked = [name.removesuffix(part) for name in sorted(found, key=lambda name: found[name].ratio)]
        if len(ranked) > 1:
            before = ", ".join(ranked[: ranked.index(US)]) or "none"
            said.append(f"With a lower ratio than ours{part and ' for CPU'}: {before}.")
    missed = [one.name for one in figures if one.held is False]
    return " ".join([*said, *([f"Its aim is missed by: {', '.join(missed)}."] if missed else [])])


def page(parts: Sequence[tuple[Work, Sequence[Figure]]], versions: Mapping[str, str], sizes: Sizes) -> str:
    """The page as Markdown."""
    lines = [
        INTRODUCTION,
        *(["**A small run, to see whether it works: its figures say little.**", ""] if sizes is SMALL else []),
        f"- {machine()}; its load in the last 15 minutes of the run was {os.getloadavg()[2]:.1f}",
        f"- {datetime.now(timezone.utc):%Y-%m-%d}; Python {platform.python_version()} for all that is in Python",
        *(f"- {name} {version}" for name, version in versions.items()),
    ]
    for work, figures in parts:
        about = work.about.format(calls=sizes.calls, jobs=sizes.jobs, runs=f"{sizes.runs:,}")
        lines += ["", f"## {work.title}", about, table(figures)]
        if told := verdict(figures):
            lines += ["", told]
    return "\n".join(lines).lstrip() + "\n"


def machine() -> str:
    """The processor, its cores, the memory and the kind of system; nothing that names the machine."""
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    models = {line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    processor = ", ".join(sorted(models)) or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"


def installed(tools: Mapping[str, Tool]) -> tuple[dict[str, str], dict[str, str]]:
    """The tools' versions, once they are there; and why those aren't that can't be had."""
    began = time.monotonic()
    versions, missing = {}, {}
    with ThreadPoolExecutor(2) as threads:
        installing = {name: threads.submit(tool.install) for name, tool in tools.items()}
    for name, tool in tools.items():
        try:
            installing[name].result()
            versions[name] = tool.version()
        except Unusable as why:
            if name == US:
                raise SystemExit(str(why)) from None
            versions[name] = missing[name] = "could not be installed here"
            print(f"{name}: {why}", file=sys.stderr)
    print(f"installed ({time.monotonic() - began:.0f} s): {versions}", file=sys.stderr, flush=True)
    return versions, missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, help="where the tools are, or go to; else a folder that is removed after"
    )
    parser.add_argument("--small", action="store_true", help="little of everything, to see whether it works")
    parser.add_argument("--output", type=Path, default=PAGE, help="the page (README.md beside this script)")
    options = parser.parse_args()
    sizes = SMALL if options.small else FULL
    with tempfile.TemporaryDirectory() as scratch:
        kept = (options.folder or Path(scratch) / "tools").resolve()
        quiet = {"PLOOMBER_STATS_ENABLED": "false"}  # JupySQL would send statistics
        tools: dict[str, Tool] = {
            US: Ours(kept / "ours"),
            PROMPTFOO_: Promptfoo(kept / "promptfoo"),
            INSPECT_: Inspect(kept / "inspect", requirements=INSPECT),
            JUPYTER_AI_: InPython(kept / "jupyter-ai", requirements=JUPYTER_AI),
            JUPYSQL_: InPython(kept / "jupysql", quiet, JUPYSQL),
        }
        versions, missing = installed(tools)
        parts = []
        for number, work in enumerate(WORKS):
            began = time.monotonic()
            figures = rows_of(work, tools, missing, sizes, Path(scratch) / str(number))
            parts.append((work, figures))
            print(f"\n{work.title} ({time.monotonic() - began:.0f} s)\n{table(figures)}", file=sys.stderr, flush=True)
    options.output.write_text(page(parts, versions, sizes), encoding="utf-8")


if __name__ == "__main__":
    main()
