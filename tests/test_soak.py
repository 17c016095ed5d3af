"""Nothing of a working day is left: no thread, socket, process, file or object, and no row is lost or kept twice.

``benchmarks/soak.py`` has the long run of the same rounds.
"""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from pathlib import Path

import pytest
from benchmarks import soak

from xpander_magics.cell import Options
from xpander_magics.outcomes import Runs
from xpander_magics.session import Session
from xpander_magics.store.writer import Writer
from xpander_magics.widgets.board import Board


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_rounds_of_sweeps_with_faults_leave_nothing(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with soak.soaking(tmp_path, rows=6) as rounds:
        readings = [rounds.round(number) for number in range(soak.WARM + 2)]
    assert list(soak.leaks(readings)) == []


def test_an_older_board_lets_go_of_its_runs_and_still_answers(session: Session) -> None:
    """ipywidgets holds every widget that was ever shown, and would hold all answers with it."""

    def swept() -> Runs:
        return session.sweep(session.grid(Options(target="writer", repeat=2), "hello", {}), lambda tally: None)

    runs = swept()
    board, alive = runs.board(), weakref.ref(runs)
    opened = board._open({"runs": [0, 1], "input": 0})
    assert opened["runs"][0]["text"] == "hi"
    others = [other.board() for other in [swept()] for _ in range(8)]
    del runs
    gc.collect()
    assert alive() is None
    assert board._open({"runs": [0, 1], "input": 0}) == opened
    for one in (board, *others):
        one.close()
    assert Board._holding == []


def test_an_interrupt_while_a_sweep_starts_its_threads_leaves_none(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer's thread waited for ever for those that had never begun."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if thread.name == "xpander-2":
            raise KeyboardInterrupt
        start(thread)

    grid = session.grid(Options(target="writer", repeat=8, jobs=8), "hello", {})
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        runs = session.sweep(grid, lambda tally: None)
    left = [thread for thread in threading.enumerate() if thread.name.startswith("xpander-")]
    for thread in left:
        thread.join(30)
    assert [thread.name for thread in left if thread.is_alive()] == []
    runs.resume()
    assert runs.statuses() == {"completed": 8}


def test_a_writer_that_nobody_has_used_leaves_no_thread(session: Session) -> None:
    """An interrupt between its making and the sweep's beginning would have left it for good."""
    writer = Writer(session.store)
    assert "xpander-writer" not in {thread.name for thread in threading.enumerate()}
    writer.close()
