"""The board of 10,000 runs in JupyterLab: how soon its grid is painted, and how smoothly it scrolls.

Run it as a script: ``python tests/benchmarks/bench_board.py [INPUTS CONFIGURATIONS [ROUNDS]]``; 2,500 inputs and 4
configurations when omitted. The runs are read from a store, by a kernel that has seen none of them. Floors, in the same
browser and the same run: the frame of the same runs as pandas' own HTML table, with all its rows, whose time and frames
are a browser's own; and an empty ``display``. Time is from the press of the key that executes the cell to the frame
after the first row is in the page.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "browser"), str(TESTS)]

from fault_server import FaultServer  # noqa: E402
from front_ends import LOAD, JupyterServer, NotebookPage, running_chromium  # noqa: E402

from xpander_magics.cell import parse_cell  # noqa: E402
from xpander_magics.config import Settings  # noqa: E402
from xpander_magics.session import Session  # noqa: E402

MODELS = ("openai/gpt-5", "openai/gpt-5-mini")
EFFORTS = ("low", "high", "medium", "xhigh")
WORDS = (
    "the",
    "ticket",
    "says",
    "that",
    "an",
    "invoice",
    "can't",
    "be",
    "paid",
    "once",
    "a",
    "customer",
    "opens",
    "it",
)

RUNS = """
from xpander_magics.session import default_session
from xpander_magics.outcomes import Entry, Runs
session = default_session()
kept = session.store.sweeps.states({sweep!r})
runs = Runs(session, {sweep!r}, [Entry(state.number, state.run_id) for state in kept], {{}})
"""
TABLE = """
import pandas as pd
from IPython.display import HTML
frame = runs.df
HTML('<div class="floor" style="max-height: 500px; overflow: auto">'
     + frame[["model", "effort", "prompt", "result", "latency_s", "total_tokens", "cost_usd"]].to_html() + "</div>")
"""
# Told by the page itself: from the key that starts the cell to the frame in which something is there.
WATCH = """(selector) => {
  window.painted = new Promise((done) => {
    let begun = null;
    addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      begun ??= performance.now();
      const look = () => document.querySelector(selector)
        ? requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun), 0))
        : requestAnimationFrame(look);
      look();
    }, { capture: true });
  });
}"""
SCROLL = """async ([selector, screens]) => {
  const node = document.querySelector(selector);
  const last = node.scrollHeight - node.clientHeight;
  const steps = Math.min(screens, Math.ceil(last / 100));
  const frames = [];
  let before = await new Promise(requestAnimationFrame);
  for (let step = 1; step <= steps; step++) {
    node.scrollTop = (last * step) / steps;
    const now = await new Promise(requestAnimationFrame);
    frames.push(now - before);
    before = now;
  }
  return { frames, rows: document.querySelectorAll(selector + " [role=row], " + selector + " tr").length };
}"""


def filled(url: str, base_url: str, key: str, inputs: int, configurations: int) -> str:
    """Keeps a sweep of so many runs that have ended; returns its id."""
    session = Session(Settings(base_url=base_url, store=url))
    session.log_in(key)
    some = random.Random(1)
    models, efforts = (MODELS, EFFORTS[: configurations // 2]) if configurations > 1 else (MODELS[:1], EFFORTS[:1])
    line = f"writer --over rows -m {','.join(models)} -e {','.join(efforts)}"
    rows = [{"text": " ".join(some.choices(WORDS, k=30))} for _ in range(inputs)]
    grid = session.grid(parse_cell(line), "Classify: {{ text }}", {"rows": rows})
    session.store.sweeps.add(grid.sweep_id, base_url, None, len(grid), grid.record())
    runs = [session.planned(grid, number) for number in range(len(grid))]
    for run in runs:
        run.status, run.result = "completed", " ".join(some.choices(WORDS, k=60))
        run.latency_s, run.total_tokens, run.cost_usd = some.random() * 9, some.randrange(900), some.random() / 1000
    session.store.add(runs)
    session.close()
    return grid.sweep_id


def measured(page: NotebookPage, cell: int, selector: str, scrolled: str) -> tuple[float, list[float], int]:
    """Milliseconds to the first paint; the frames of a scroll from top to bottom; how many rows the page then holds."""
    page.select(cell)
    page.page.evaluate(WATCH, selector)
    page.start(cell)
    page.wait(cell, 120)
    page.page.wait_for_selector(selector)
    painted = page.page.evaluate("() => window.painted")
    page.page.wait_for_timeout(1500)
    told = page.page.evaluate(SCROLL, [scrolled, 400])
    return painted, told["frames"], told["rows"]


def main(inputs: int, configurations: int, rounds: int) -> None:
    """Prints a table."""
    found: dict[str, list[tuple[float, list[float], int]]] = {"board": [], "pandas table": [], "empty display": []}
    with tempfile.TemporaryDirectory() as folder, FaultServer() as service, running_chromium() as browser:
        url = f"sqlite:///{folder}/runs.db"
        sweep = filled(url, service.url, service.key, inputs, configurations)
        environment = {"XPANDER_STORE": url, "XPANDER_BASE_URL": service.url, "XPANDER_API_KEY": service.key}
        server = JupyterServer(Path(folder) / "jupyter", environment)
        empty = 'from IPython.display import HTML\nHTML("<div class=empty>-</div>")'
        kinds: dict[str, tuple[str, str, str]] = {
            "board": ("runs.board()", ".xpander-board [role=gridcell]", ".xpander-board .xp-grid"),
            "pandas table": (TABLE, ".floor td", ".floor"),
            "empty display": (empty, ".empty", ".jp-WindowedPanel-outer"),
        }
        try:
            for _ in range(rounds):
                for name, (source, selector, scrolled) in kinds.items():
                    page = NotebookPage(server, browser, (LOAD, RUNS.format(sweep=sweep), source), "lab", "light", 1280)
                    page.page.wait_for_timeout(2000)  # what a page does as it opens is no part of this
                    page.run(0)
                    page.run(1)
                    found[name].append(measured(page, 2, selector, scrolled))
                    page.close()
        finally:
            server.stop()
    print(f"{inputs:,} inputs, {configurations} configurations, {rounds} rounds")
    print(f"{'':14} {'first paint, ms':>16} {'frames':>7} {'over 50 ms':>11} {'median':>7} {'longest':>8} {'rows':>7}")
    for name, all_rounds in found.items():
        frames: list[Any] = [frame for one in all_rounds for frame in one[1]] or [0.0]
        print(
            f"{name:14} {statistics.median(one[0] for one in all_rounds):16,.0f} {len(frames):7}"
            f" {sum(frame > 50 for frame in frames):11} {statistics.median(frames):7.1f} {max(frames):8.1f}"
            f" {max(one[2] for one in all_rounds):7,}"
        )


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*(given[:2] or (2500, 4)), given[2] if len(given) > 2 else 3)
