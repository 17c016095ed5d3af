"""How long comparing 100,000 runs takes, with intervals, and how much memory.

Run it as a script: ``python tests/benchmarks/bench_compare.py [INPUTS]``; 1,000 inputs when omitted, by 20
configurations and 5 repeats. The floor, taken in the same process over the same frame, is pandas' ``groupby`` mean of
the scores, which knows no intervals, pairs or inputs; out of an SQLite store, it is the reading of the frame alone.
Each figure comes from a process of its own; times are the best of three, the first reading not counted. Aims: 3
seconds, and 1 GB more than the process holds before, frame and all.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bench_frame import TEMPLATE, realistic_run, resident, text_of

from xpander_magics.analysis.comparison import Comparison, compare
from xpander_magics.store import Store

ROUNDS, REPEATS = 3, 5
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


def best(function: Callable[[Any], Any], given: Any) -> float:
    """Seconds of the best round, the first not counted."""
    function(given)
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function(given)
        taken.append(time.perf_counter() - start)
    return min(taken)


def times(floor: Callable[[Any], Any], function: Callable[[Any], Any], path: Path, reads: bool) -> tuple[float, float]:
    """Seconds of the floor and of the function, in this process."""
    given = path if reads else frame_of(path)
    return best(floor, given), best(function, given)


def memory(function: Callable[[Any], Any], path: Path, reads: bool) -> int:
    """Bytes that the process holds more at the peak: the frame's and the comparison's."""
    compare(Store(f"sqlite:///{path}").frame(limit=400), ["model", "effort"])  # what is imported isn't the frame's
    before, peak, done = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    found = function(path if reads else frame_of(path))
    done.set()
    watcher.join()
    assert len(found.table) == len(MODELS) * len(EFFORTS)
    return max(peak, resident()) - before


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result from a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    """Prints the table."""
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        fill(path, inputs)
        print(f"{inputs * len(MODELS) * len(EFFORTS) * REPEATS:,} runs")
        print(f"{'':18}{'floor, s':>10}{'ours, s':>10}{'ratio':>8}{'aim, s':>8}{'peak, MiB':>11}{'aim':>7}")
        for name, floor, function, reads in (
            ("with scores", grouped, with_scores, False),
            ("scored now", grouped, scored_now, False),
            ("from the store", frame_of, from_store, True),
        ):
            floor_s, ours_s = apart(times, floor, function, path, reads)
            peak = apart(memory, function, path, reads) / 2**20
            print(f"{name:18}{floor_s:10.4f}{ours_s:10.2f}{ours_s / floor_s:8.1f}{3.0:8.1f}{peak:11.0f}{1024:7}")


if __name__ == "__main__":
    main()
