"""``Runs``: a sequence, a frame, what failed, and how it is shown."""

from __future__ import annotations

import contextlib
import copy
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fault_server import FaultServer, reply
from notebook_shell import Notebook
from pandas.testing import assert_frame_equal

import xpander_magics as xp
from xpander_magics.cell import parse_cell
from xpander_magics.config import Settings
from xpander_magics.errors import TaskFailed
from xpander_magics.outcomes import HELD, Entry, Runs
from xpander_magics.plans.grid import Grid
from xpander_magics.results import Run, has_failed
from xpander_magics.safety import plain
from xpander_magics.session import Session
from xpander_magics.showing.tables import runs_bundle, show_runs
from xpander_magics.store.frames import frame_of

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202egnp.exe\x07<img src=x onerror=alert(1)>"


def swept(session: Session, line: str = "writer --over rows -e low,high --mode sync", many: int = 3) -> Runs:
    """A sweep of so many rows, sent."""
    rows = [{"a": n} for n in range(many)]
    return session.sweep(session.grid(parse_cell(line), "{{ a }}", {"rows": rows}), lambda tally: None)


def runs_of(session: Session, *runs: Run) -> Runs:
    """These runs as they would be after a sweep."""
    held = {run.run_id: run for run in runs}
    return Runs(session, "0123456789abcdef", [Entry(n, run.run_id) for n, run in enumerate(runs)], held)


# ---- a sequence


def test_runs_are_a_sequence(session: Session) -> None:
    runs = swept(session)
    assert len(runs) == 6
    listed = list(runs)
    assert [(run.prompt, run.requested_effort) for run in listed] == [(p, e) for p in "012" for e in ("low", "high")]
    assert (runs[0], runs[-1], runs[5]) == (listed[0], listed[5], listed[-1])
    assert list(reversed(runs)) == listed[::-1]
    assert listed[4] in runs
    assert Run() not in runs
    assert copy.copy(listed[0]) not in runs
    assert (runs.index(listed[3]), runs.count(listed[3])) == (3, 1)
    for wrong in (6, -7):
        with pytest.raises(IndexError):
            runs[wrong]
    with pytest.raises(TypeError):
        runs["0"]  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "some", [slice(None), slice(2, 4), slice(None, None, -1), slice(-2, None), slice(9, 20), slice(0, 6, 4)], ids=str
)
def test_a_slice_is_runs_of_the_same_sweep(session: Session, some: slice) -> None:
    runs = swept(session)
    part = runs[some]
    assert isinstance(part, Runs)
    assert part.sweep_id == runs.sweep_id
    assert list(part) == list(runs)[some]
    assert len(part.df) == len(part)


def test_each_run_is_one_object_wherever_it_is_taken_from(session: Session) -> None:
    runs = swept(session)
    assert runs[1] is runs[:3][1] is list(runs)[1] is runs[-5]
    assert runs != runs[:]
    assert runs == runs  # noqa: PLR0124
    assert len({runs, runs[:]}) == 2


def test_no_runs_at_all(session: Session) -> None:
    none = swept(session)[9:]
    assert (len(none), list(none), none.statuses(), bool(none)) == (0, [], {}, False)
    assert_frame_equal(none.df, frame_of([]))
    none.raise_for_failures()
    assert repr(none) == f"Runs({none.sweep_id[:8]!r}, 0 runs)"
    assert "0 runs" in none._repr_mimebundle_()["text/html"]


def test_a_run_acts_through_the_session_that_it_came_from(session: Session) -> None:
    runs = swept(session)
    assert {run.session for run in runs} == {session}
    runs[0].refresh()
    assert runs[0].reply("and then?").thread_id == runs[0].thread_id


def test_what_was_not_sent_is_planned(session: Session, service: FaultServer) -> None:
    service.on("POST *", reply(401, {"detail": "no"}))
    with pytest.raises(xp.AuthError) as caught:
        swept(session, "writer --over rows -j 1 --mode sync", many=20)
    runs = caught.value.runs
    assert isinstance(runs, Runs)
    assert len(runs) == 20
    assert runs.statuses()["planned"] >= 19 - 1
    assert [run.prompt for run in runs] == [str(n) for n in range(20)]
    assert len(runs.df) == 20


# ---- frame


def test_the_frame_has_the_order_of_the_runs_and_the_dtypes_of_the_stores(session: Session) -> None:
    runs = swept(session)
    frame, stored = runs.df, session.store.frame()
    assert list(frame["run_id"]) == [run.run_id for run in runs]
    assert dict(frame.dtypes) == dict(stored.dtypes)
    by_id = stored.set_index("run_id").loc[frame["run_id"]].reset_index()
    assert_frame_equal(frame, by_id[frame.columns], check_categorical=False)
    backwards = runs[::-1].df
    assert list(backwards["run_id"]) == list(frame["run_id"])[::-1]
    assert list(backwards.index) == list(range(6))


def test_a_frame_shares_nothing_with_the_runs(session: Session) -> None:
    runs = swept(session)
    runs.df["variables"].tolist()[0]["a"] = "changed"
    assert runs[0].variables == {"a": 0}


def test_xp_sweep_gives_the_frame_of_xp_runs(notebook: Notebook) -> None:
    runs = xp.sweep("{{ a }}", target="echo", over={"a": [1, 2]}, repeat=2, experiment="e", progress=False)
    frame = xp.runs(experiment="e")
    assert dict(runs.df.dtypes) == dict(frame.dtypes)
    assert sorted(runs.df["run_id"]) == sorted(frame["run_id"])
    assert list(runs.df["repeat"]) == [1, 2, 1, 2]


# ---- failures


BAD = [
    Run(status="failed", error="no\nmore", error_type="ServerError"),
    Run(status="error", error="broke"),
    Run(status="stopped"),
    Run(status="unknown", error_type="ConnectionFailed"),
    Run(status="completed", result="x", error_type="SchemaError", error="$.a: is missing"),
]
GOOD = [Run(status="completed", result="x"), Run(), Run(status="executing"), Run(status="paused")]


def test_the_failed_ones(session: Session) -> None:
    runs = runs_of(session, GOOD[0], *BAD, *GOOD[1:])
    assert list(runs.failed) == BAD
    assert [has_failed(run) for run in GOOD] == [False] * 4
    assert list(runs_of(session, *GOOD).failed) == []
    assert isinstance(runs.failed, Runs)
    assert runs.failed.sweep_id == runs.sweep_id


def test_raise_for_failures_says_how_many_and_which(session: Session) -> None:
    runs = runs_of(session, *GOOD, *BAD)
    with pytest.raises(TaskFailed) as caught:
        runs.raise_for_failures()
    assert str(caught.value) == (
        "5 of 9 runs failed: 1 ServerError, 1 error, 1 stopped, 1 ConnectionFailed, 1 SchemaError.\n"
        f"The first, run {BAD[0].run_id[:8]}: no"
    )
    assert caught.value.run is BAD[0]
    runs_of(session, *GOOD).raise_for_failures()


def test_raise_for_failures_of_one_without_a_reason(session: Session) -> None:
    for run, told in ((Run(status="stopped"), "stopped"), (Run(status="failed", error="x" * 5000), "x" * 300)):
        with pytest.raises(TaskFailed) as caught:
            runs_of(session, run).raise_for_failures()
        assert str(caught.value).endswith(f": {told}")


def test_statuses_are_counted_the_most_frequent_first(session: Session) -> None:
    runs = runs_of(session, *BAD, *GOOD, *(Run(status="failed") for _ in range(5)))
    assert next(iter(runs.statuses().items())) == ("failed", 6)
    assert sum(runs.statuses().values()) == 14
    assert runs.statuses()["completed"] == 2


def test_repr_tells_how_many_and_how_they_stand(session: Session) -> None:
    runs = runs_of(session, *(Run(status="completed") for _ in range(3)), Run(status="failed"))
    assert repr(runs) == "Runs('01234567', 4 runs: 3 completed, 1 failed)"


def test_failures_are_sent_again_in_their_places(session: Session, service: FaultServer) -> None:
    service.on("POST *", reply(422, {"detail": "no"}), reply(422, {"detail": "no"}))
    runs = swept(session, "writer --over rows -j 1 --mode sync", many=4)
    old = [run.run_id for run in runs]
    assert [has_failed(run) for run in runs] == [True, True, False, False]
    assert runs.retry() is runs
    assert runs.statuses() == {"completed": 4}
    assert [run.run_id for run in runs][2:] == old[2:]
    assert not set(old[:2]) & {run.run_id for run in runs}
    assert [run.prompt for run in runs] == ["0", "1", "2", "3"]
    assert len(session.store.select()) == 6
    assert [run.status for run in session.store.select(run_ids=old[:2])] == ["failed", "failed"]
    before = len(service.log)
    runs.retry()
    assert len(service.log) == before


# ---- names that are none


def test_what_there_is_not(session: Session) -> None:
    runs = runs_of(session)
    with pytest.raises(AttributeError, match=r"^'Runs' object has no attribute 'nope'$"):
        runs.nope  # noqa: B018
    assert not hasattr(runs, "__array__")


# ---- copies


def test_a_copy_is_runs_of_the_same_kernel(session: Session) -> None:
    runs = swept(session)
    same = copy.copy(runs)
    assert same is not runs
    assert list(same) == list(runs)
    assert same[0].session is session


@pytest.mark.parametrize("copied", [lambda runs: pickle.loads(pickle.dumps(runs)), copy.deepcopy])
def test_a_pickle_holds_the_runs_and_nothing_of_this_kernel(session: Session, copied: Callable[[Runs], Runs]) -> None:
    runs = swept(session)
    other = copied(runs)
    assert (other.sweep_id, len(other), other.grid) == (runs.sweep_id, 6, None)
    assert other.session is not session
    assert_frame_equal(other.df, runs.df)
    assert other[0] is not runs[0]
    assert other[:2][0] is other[0]


def test_a_pickle_holds_what_was_never_sent_and_no_secret(
    session: Session, service: FaultServer, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("SOME_TOKEN", "sk-a-secret-of-mine-0815")
    service.on("POST *", reply(401, {"detail": "no"}))
    line = 'writer --over rows -j 1 --mode sync --set \'user_tokens={"a": "another-secret-0815"}\''
    rows = [{"a": n, "b": "sk-a-secret-of-mine-0815"} for n in range(20)]
    grid = session.grid(parse_cell(line), "{{ a }}", {"rows": rows})
    with pytest.raises(xp.AuthError) as caught:
        session.sweep(grid, lambda tally: None)
    runs = caught.value.runs
    assert runs is not None
    assert len(list(runs)) == 20
    pickled = pickle.dumps(runs)
    assert b"secret-of-mine" not in pickled
    assert b"another-secret" not in pickled
    assert service.key.encode() not in pickled
    assert [run.prompt for run in pickle.loads(pickled)] == [str(n) for n in range(20)]


def test_a_pickle_opens_in_another_process_without_a_key(session: Session, tmp_path: Path) -> None:
    (tmp_path / "runs.pickle").write_bytes(pickle.dumps(swept(session)))
    code = (
        "import pickle, sys\n"
        "runs = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(repr(runs), [run.result for run in runs], runs.df.shape[0], runs._repr_mimebundle_().keys())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "runs.pickle")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "6 runs: 6 completed" in done.stdout
    assert "['hi', 'hi', 'hi', 'hi', 'hi', 'hi'] 6" in done.stdout


# ---- how they are shown


def hostile_runs(session: Session) -> Runs:
    run = Run(status=HOSTILE, prompt=HOSTILE, result=HOSTILE, target=HOSTILE, requested_model=HOSTILE)
    run.variables = {HOSTILE: HOSTILE, "a": [HOSTILE]}
    other = Run(status="failed", error=HOSTILE, error_type=HOSTILE, variables={"a": {HOSTILE: 1}}, target="writer")
    return runs_of(session, run, other)


def test_hostile_text_is_shown_as_text(session: Session) -> None:
    bundle = hostile_runs(session)._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    for text in bundle.values():
        assert plain(text) == text
    assert "&lt;script&gt;alert(1)" in bundle["text/html"]
    assert set(re.findall(r"<(/?\w+)", bundle["text/html"])) <= {
        *("div", "/div", "table", "/table", "thead", "/thead", "tbody", "/tbody"),
        *("tr", "/tr", "th", "/th", "td", "/td"),
    }
    assert "onerror=alert" not in re.sub(r"&lt;.*?&gt;", "", bundle["text/html"])


def test_hostile_text_in_a_terminal(session: Session) -> None:
    said: list[str] = []
    show_runs(hostile_runs(session), "results", said.append, rich=False)
    shown = "".join(said)
    assert plain(shown) == shown
    assert "1 failed; the first: <script>" in shown
    assert "results.failed has them, results.retry() sends them again." in shown


def test_the_table_has_what_varies(session: Session) -> None:
    text = swept(session)._repr_mimebundle_()["text/plain"].splitlines()
    assert text[0].split() == ["#", "a", "effort", "status", "result", "seconds", "tokens"]
    assert [line.split()[:5] for line in text[1:7]] == [
        [str(2 * n + place), str(n), effort, "completed", "hi"]
        for n in range(3)
        for place, effort in enumerate(("low", "high"))
    ]
    assert re.fullmatch(r"6 runs: 6 completed · sweep [0-9a-f]{8}", text[7])


def test_a_table_of_many_shows_the_first_and_says_so(session: Session) -> None:
    runs = runs_of(session, *(Run(status="completed", result=f"answer {n}") for n in range(1234)))
    bundle = runs._repr_mimebundle_()
    for text in bundle.values():
        assert "answer 59" in text
        assert "answer 60" not in text
        assert "… and 1,174 more: .df has all of them." in text
        assert "1,234 runs: 1,234 completed" in text


def test_long_and_odd_values_stay_short(session: Session) -> None:
    runs = runs_of(
        session, Run(status="completed", result="long " * 5000, variables={"a" * 3000: None, "b": [1] * 999})
    )
    for text in runs._repr_mimebundle_().values():
        assert len(text) < 5000


def test_what_is_left_is_told(session: Session) -> None:
    said: list[str] = []
    show_runs(runs_of(session, Run(), Run(status="unknown"), Run(status="executing")), None, said.append, rich=False)
    assert "3 of them are still to be sent or collected: %xpander resume 01234567" in "".join(said)


def test_a_sweep_in_a_notebook_is_shown_and_bound(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    notebook.run("%%xpander echo -n 2 -o results\nhello")
    shown = capsys.readouterr().out
    assert "2 runs: 2 completed · sweep" in shown
    results = notebook.ns["results"]
    assert isinstance(results, Runs)
    assert notebook.run("results") is results


# ---- more than are held in memory

MANY = HELD + 50


@pytest.fixture(scope="module")
def large_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with a sweep of more runs than are held; the last ten of them aren't in it."""
    url = f"sqlite:///{tmp_path_factory.mktemp('large') / 'runs.db'}"
    with FaultServer() as server, contextlib.closing(Session(Settings(base_url=server.url, store=url))) as session:
        session.log_in(server.key)
        grid = session.grid(parse_cell(LARGE), "{{ a }}", {"rows": [{"a": n} for n in range(MANY // 2)]})
        session.store.sweeps.add(grid.sweep_id, server.url, None, len(grid), grid.record())
        runs = [session.planned(grid, number) for number in range(MANY - 10)]
        for run in runs:
            run.status, run.result = ("failed" if run.number == 7 else "completed"), f"answer {run.number}"
        session.store.add(runs[::-1])  # the order of sending is another than that of the sweep
    return url


LARGE = "writer --over rows -m openai/gpt-5,openai/gpt-5-mini"


@pytest.fixture
def large(large_store: str, service: FaultServer, environment: pytest.MonkeyPatch) -> Iterator[Runs]:
    environment.setenv("XPANDER_API_KEY", service.key)
    session = Session(Settings(base_url=service.url, store=large_store))
    sweep_id = session.store.select(limit=1)[0].sweep_id
    assert sweep_id is not None
    grid = Grid.restore(session.store.sweeps.find(sweep_id, service.url).plan, session.client)
    yield Runs(session, sweep_id, [Entry(number, grid.run_id(number)) for number in range(MANY)], {}, grid)
    session.close()


def test_a_large_sweep_is_read_from_the_store(large: Runs) -> None:
    assert len(large) == MANY
    assert [run.result for run in large[5:8]] == ["answer 5", "answer 6", "answer 7"]
    assert (large[-11].result, large[-10].result, large[-1].status) == (f"answer {MANY - 11}", None, "planned")
    first = large[0]
    assert large[0] is first
    assert first in large
    assert [run.number for run in large] == list(range(MANY))
    assert large.statuses() == {"completed": MANY - 11, "planned": 10, "failed": 1}
    assert [run.number for run in large.failed] == [7]
    assert large.held == {}
    assert repr(large) == f"Runs({large.sweep_id[:8]!r}, {MANY} runs: {MANY - 11} completed, 10 planned, 1 failed)"
    with pytest.raises(TaskFailed, match=f"1 of {MANY} runs failed"):
        large.raise_for_failures()


def test_the_frame_of_a_large_sweep_is_like_every_other(large: Runs) -> None:
    frame = large.df
    assert list(frame["run_id"]) == [entry.run_id for entry in large.entries]
    # A run that isn't kept yet is made, and dated, whenever it is asked for.
    assert_frame_equal(frame.drop(columns="created_at"), frame_of(large).drop(columns="created_at"))
    assert list(frame["requested_model"][-2:]) == ["gpt-5", "gpt-5-mini"]
    assert list(frame["status"][-11:].unique()) == ["completed", "planned"]


def test_the_frame_of_a_large_sweep_that_reuses_a_run_has_it_each_time(large: Runs) -> None:
    again = large.entries[3]
    large.entries = [*large.entries, Entry(None, again.run_id)]
    assert list(large.df["run_id"]) == [entry.run_id for entry in large.entries]


def test_a_large_sweep_is_shown_by_its_first(large: Runs) -> None:
    text = large._repr_mimebundle_()["text/plain"]
    assert f"{MANY:,} runs" in text
    assert f"… and {MANY - 40:,} more" in text  # 20 inputs


def test_many_threads_read_the_same_runs(large: Runs) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda start: [run.number for run in large[start : start + 50]], range(0, 800, 100)))
    assert found == [list(range(start, start + 50)) for start in range(0, 800, 100)]


def test_a_run_of_another_sweep_has_its_place(session: Session) -> None:
    first = swept(session)
    again = swept(session, "writer --over rows -e low,high --mode sync --cached", many=4)
    assert [entry.number for entry in again.entries] == [None] * 6 + [6, 7]
    assert [run.run_id for run in again][:6] == [run.run_id for run in first]
    assert [run.reused for run in again] == [True] * 6 + [False] * 2


def test_a_table_marks_what_differs_from_the_first_configuration(session: Session) -> None:
    """What failed is another thing than another answer."""
    asked = {"variables": {"text": "t"}, "prompt": "t", "requested_provider": "p"}
    runs = runs_of(
        session,
        Run(status="completed", result="yes", requested_model="a", **asked),
        Run(status="completed", result="no", requested_model="b", **asked),
        Run(status="failed", error="broke", requested_model="c", **asked),
    )
    told = runs_bundle(runs)["text/plain"]
    assert "≠: another answer than a" in told
    assert [line.split()[2:6:3] for line in told.splitlines()[1:4]] == [["a"], ["b", "≠"], ["c"]]
