"""How long comparing 100,000 runs takes, with intervals, and how much memory.

Run it as a script: ``python tests/benchmarks/bench_compare.py [--inputs N] [--rounds N] [--json]``; 1,000 inputs when
omitted, by 20 configurations and 5 repeats. The floor, in turns with it in the same process over the same frame, is
pandas' ``groupby`` mean of the scores, which knows no intervals, pairs or inputs; out of an SQLite store, it is the
reading of the frame alone. Each figure comes from a process of its own. Aims: 3 seconds, and 1 GB more than the process
holds before, frame and all.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_frame import TEMPLATE, apart, realistic_run, resident, text_of
from reporting import Aim, Figure, in_turns, report

from xpander_magics.analysis.comparison import Comparison, compare
from xpander_magics.store import Store

REPEATS = 5
TIME_AIM, MEMORY_AIM = Aim("own", 3.0), Aim("own", 1024.0)
MODELS = tuple(("openai", f"gpt-5-{size}") for size in ("nano", "mini", "small", "medium", "large"))
EFFORTS = ("low", "medium", "high", "xhigh")
LABELS = ("bug", "billing", "praise")


def fill(path: Path, inputs: int) -> None:
    """A store with a sweep over so many inputs; better models are right more often, some inputs are hard."""
    chance = random.Random(1)
    store = Store(f"sqlite:///{path}")
    runs = []
    for number in range(inputs):
        text, label, easy = text_of(chance, 120), chance.choice(LABELS), chance.random()
        for place, (provider, model) in enumerate(MODELS):
            for effort in EFFORTS:
                for repeat in range(REPEATS):
                    run = realistic_run(len(runs), chance)
                    run.run_id = f"{number:016x}{len(runs):016x}"
                    run.provider, run.model, run.effort = provider, model, effort
                    run.requested_provider, run.requested_model, run.requested_effort = provider, model, effort
                    run.variables = {"text": f"{text} {number}", "label": label}
                    run.prompt, run.repeat = TEMPLATE.replace("{{ text }}", f"{text} {number}"), repeat
                    run.result = label if chance.random() < 0.3 + 0.1 * place + 0.2 * easy else chance.choice(LABELS)
                    run.scores = {"exact": float(run.result == label)}
                    runs.append(run)
        if len(runs) > 5_000 or number == inputs - 1:
            store.add(runs)
            runs = []
    store.close()


def frame_of(path: Path) -> Any:
    """All runs of the store."""
    return Store(f"sqlite:///{path}").frame()


def grouped(frame: Any) -> Any:
    """What pandas does by itself."""
    return frame.groupby(["model", "effort"], observed=True)["score_exact"].mean()


def with_scores(frame: Any) -> Comparison:
    """The runs have been scored."""
    return compare(frame, ["model", "effort"])


def scored_now(frame: Any) -> Comparison:
    """They are scored first."""
    return compare(frame, ["model", "effort"], "exact", "label")


def from_store(path: Path) -> Comparison:
    """They are read first."""
    return compare(frame_of(path), ["model", "effort"])


def times(
    name: str, floor: Callable[[Any], Any], function: Callable[[Any], Any], path: Path, reads: bool, rounds: int
) -> Figure:
    """Seconds of the function and of the floor, in this process."""
    given = path if reads else frame_of(path)
    told = in_turns(rounds, lambda: function(given), lambda: floor(given), 1.0)
    return Figure(name, **told, unit="s", aim=TIME_AIM)


def memory(function: Callable[[Any], Any], path: Path) -> Figure:
    """MiB that the process holds more at the peak, for the frame and the comparison, beside the frame's own."""
    compare(Store(f"sqlite:///{path}").frame(limit=400), ["model", "effort"])  # what is imported isn't the frame's
    before, peak, done = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    found = function(path)
    done.set()
    watcher.join()
    held = max(peak, resident()) - before
    assert len(found.table) == len(MODELS) * len(EFFORTS)
    own = int(frame_of(path).memory_usage(deep=True).sum())
    return Figure("its memory at the peak", [held / 2**20], [own / 2**20], unit="MiB", aim=MEMORY_AIM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    options = parser.parse_args()
    cases: tuple[tuple[str, Callable[[Any], Any], Callable[[Any], Any], bool], ...] = (
        ("comparing runs with scores", grouped, with_scores, False),
        ("scoring and comparing them", grouped, scored_now, False),
        ("reading and comparing them", frame_of, from_store, True),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        fill(path, options.inputs)
        figures = [
            apart(times, name, floor, function, path, reads, options.rounds) for name, floor, function, reads in cases
        ]
        report([*figures, apart(memory, from_store, path)], options.json)


if __name__ == "__main__":
    main()
