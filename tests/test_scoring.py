"""Scores kept: their history, scoring again, many at once, runs scored as they land, and the rows of a DataFrame."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fault_server import FaultServer, reply
from notebook_shell import Notebook
from test_judge import JudgingService

import xpander_magics as xp
from xpander_magics.cell import Options, parse_cell
from xpander_magics.errors import ConfigError, StoreError, TaskFailed
from xpander_magics.outcomes import Runs
from xpander_magics.plans.grid import Grid
from xpander_magics.results import Run
from xpander_magics.scoring import embeddings
from xpander_magics.scoring.framed import HISTORY, score_frame
from xpander_magics.scoring.keeping import score
from xpander_magics.session import Session, default_session
from xpander_magics.store import Store
from xpander_magics.store.frames import frame_of
from xpander_magics.store.scores import Score
from xpander_magics.voting.votes import login_name

ROWS = [
    {"said": "bug", "label": "bug"},
    {"said": "a bug", "label": "bug"},
    {"said": "billing", "label": "bug"},
    {"said": "praise", "label": None},
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path / 'runs.db'}")
    yield opened
    opened.close()


def one(run_id: str, value: float | None, name: str = "exact", **more: Any) -> Score:
    said: dict[str, Any] = {"scorer": "exact", "scored_by": "ada", **more}
    return Score(run_id, name, value, **said)


# ---- the store


def test_a_score_is_kept_with_who_and_when(store: Store) -> None:
    run = Run()
    store.add([run])
    given = one(run.run_id, 0.5, scorer="close=numeric:5%\0", detail={"expected": {"a": [1, "é\0"]}})
    assert store.scores.add([given]) == set()
    assert store.scores.select([run.run_id]) == [given]
    assert store.find(run.run_id).scores == {"exact": 0.5}
    assert store.frame()["score_exact"].tolist() == [0.5]


def test_scoring_again_keeps_the_old(store: Store) -> None:
    run = Run()
    store.add([run])
    for value in (0.0, 1.0, None, 1.0):
        store.scores.add([one(run.run_id, value)])
    store.scores.add([one(run.run_id, 0.25, "é")])
    kept = store.scores.select([run.run_id], "exact")
    assert [score.value for score in kept] == [0, 1, None, 1]
    assert [score.added_at for score in kept] == sorted(score.added_at for score in kept)
    assert store.find(run.run_id).scores == {"exact": 1.0, "é": 0.25}


@pytest.mark.parametrize("empty", [None, math.nan])
def test_a_score_that_is_taken_away(store: Store, empty: float | None) -> None:
    run = Run()
    store.add([run])
    store.scores.add([one(run.run_id, empty)])
    assert store.scores.select([run.run_id]) == []  # there was none
    store.scores.add([one(run.run_id, 1.0), one(run.run_id, 0.5, "other")])
    store.scores.add([one(run.run_id, empty)])
    assert store.find(run.run_id).scores == {"other": 0.5}
    assert [score.value for score in store.scores.select([run.run_id], "exact")] == [1.0, None]


def test_what_says_the_same_isnt_written_again(store: Store) -> None:
    run = Run()
    store.add([run])
    first = one(run.run_id, 1.0, detail={"expected": "bug"})
    store.scores.add([first, first])
    store.scores.add([one(run.run_id, 1.0, detail={"expected": "bug"}, scored_by="bob")])
    assert store.scores.select([run.run_id]) == [first]
    store.scores.add([one(run.run_id, 1.0, scorer="normalized", detail={"expected": "bug"})])
    store.scores.add([one(run.run_id, 1.0, scorer="normalized", detail={"expected": "Bug"})])
    assert len(store.scores.select([run.run_id])) == 3


def test_runs_that_arent_there_are_told(store: Store) -> None:
    run = Run()
    store.add([run])
    assert store.scores.add([one("nobody", 1.0), one(run.run_id, 1.0)]) == {"nobody"}
    assert store.scores.select(["nobody", run.run_id]) == store.scores.select([run.run_id])
    assert len(store.scores.select([run.run_id])) == 1


def test_many_scores_at_once(store: Store) -> None:
    runs = [Run() for _ in range(3000)]
    store.add(runs)
    store.scores.add(one(run.run_id, number / 3000) for number, run in enumerate(runs))
    found = store.select()
    assert [run.scores["exact"] for run in found] == [number / 3000 for number in range(3000)]
    assert len(store.scores.select(run.run_id for run in runs)) == 3000


def test_threads_that_score_the_same_runs_lose_nothing(store: Store, tmp_path: Path) -> None:
    runs = [Run() for _ in range(20)]
    store.add(runs)

    def work(name: str) -> None:
        other = Store(f"sqlite:///{tmp_path / 'runs.db'}")
        for number in range(10):
            other.scores.add(one(run.run_id, number, name) for run in runs)
        other.close()

    names = [f"by{number}" for number in range(6)]
    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(run.scores == dict.fromkeys(names, 9.0) for run in store.select())
    assert len(store.scores.select(run.run_id for run in runs)) == 20 * 6 * 10


# ---- runs that have landed


def swept(notebook: Notebook, line: str = "", rows: list[dict[str, Any]] | None = None) -> Runs:
    """A sweep in which each answer is what the row says."""
    notebook.ns["rows"] = ROWS if rows is None else rows
    notebook.run(f"%%xpander echo --over rows -o results {line}\n{{{{ said }}}}")
    runs = notebook.ns["results"]
    assert isinstance(runs, Runs)
    return runs


def scores(runs: Runs, name: str = "exact") -> list[float | None]:
    return [run.scores.get(name) for run in runs]


def test_runs_are_scored_and_kept(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    runs = swept(notebook)
    assert runs.score("exact", "label") is runs
    assert scores(runs) == [1, 0, 0, None]
    assert runs.df["score_exact"].tolist() == [1, 0, 0, pd.NA]
    told = capsys.readouterr().out
    assert "1 of 4 runs have no score exact: 1 no expected value." in told
    runs.score(["exact", "contains", "first=regex:^b"], expected="label")
    assert scores(runs, "contains") == [1, 1, 0, None]
    assert scores(runs, "first") == [1, 0, 1, 0]
    history = runs.score_history()
    assert history.dtypes.astype(str).to_dict() == HISTORY
    assert len(history) == 3 + 3 + 4  # exact said the same again
    assert set(history["scored_by"]) == {login_name()}
    assert history["detail"][0] == {"expected": "bug"}
    again = default_session().store.select(run_ids=[run.run_id for run in runs])
    assert [run.scores for run in again] == [run.scores for run in runs]


def test_expected_values_as_a_list_a_series_and_a_column(notebook: Notebook) -> None:
    runs = swept(notebook)
    assert scores(runs.score("a=exact", ["bug", "x", "billing", np.nan]), "a") == [1, 0, 1, None]
    assert scores(runs.score("b=exact", pd.Series(["bug", "x", "billing", None])), "b") == [1, 0, 1, None]
    assert scores(runs.score("c=exact", "prompt"), "c") == [1, 1, 1, 1]
    assert xp.score(runs[0], "d=exact", ["bug"]).scores["d"] == 1
    xp.score([runs[0], runs[1:]], "e=exact", expected="prompt")
    assert scores(runs, "e") == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("scorer", "expected", "problem"),
    [
        ("exact", "lable", "Did you mean label"),
        ("exact", "nothing", "They have label, said"),
        ("exact", ["bug"], "1 expected values for 4 runs"),
        ("exact", 3, "type int"),
        ("exact", None, "--expected COLUMN"),
        (["exact", "exact"], "label", "Two scores would be named exact"),
        ([], "label", "No scorer"),
        ("choice", ["bug"] * 4, "two or more"),
    ],
)
def test_what_cant_be_scored_is_said(notebook: Notebook, scorer: Any, expected: Any, problem: str) -> None:
    runs = swept(notebook)
    with pytest.raises(ConfigError, match=problem):
        runs.score(scorer, expected)
    assert runs.score_history().empty


def test_a_scorers_trouble_is_that_runs_alone(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    runs = swept(notebook)

    def fussy(answer: str) -> float:
        if "billing" in answer:
            raise ValueError("no \x1b[2Jbilling")
        return float(len(answer))

    runs.score(fussy)
    assert scores(runs, "fussy") == [3, 5, None, 6]
    told = capsys.readouterr().out
    assert "1 of 4 runs have no score fussy: 1 trouble in scoring." in told
    assert f"at run {runs[2].run_id[:8]}: it raised ValueError: no " in told
    assert "\x1b" not in told


def test_a_scorers_trouble_holds_no_secret(
    notebook: Notebook, capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch
) -> None:
    secret = "sk-live-0123456789abcdef"
    environment.setenv("OTHER_API_KEY", secret)
    runs = swept(notebook)

    def leaky(answer: str) -> float:
        raise ValueError(f"{'x' * 270} {secret}")

    runs.score(leaky)
    runs.score("contains", [secret] * len(runs))
    kept = runs.score_history()["detail"].tolist()
    assert not any("sk-live" in text for text in (capsys.readouterr().out, repr(kept)))
    assert {"expected": "***"} in kept


def test_scoring_again_takes_away_what_has_no_score_any_more(notebook: Notebook) -> None:
    runs = swept(notebook)
    runs.score("mine=exact", "label")
    runs.score("mine=numeric", [1, 2, 3, 4])
    runs.score("mine=exact", ["bug", None, "billing", None])
    assert scores(runs, "mine") == [1, None, 1, None]
    kept = default_session().store.scores.select(run.run_id for run in runs)
    values = [[one.value for one in kept if one.run_id == run.run_id] for run in runs]
    # A score that there isn't can't be taken away: "praise" had none at first.
    assert values == [[1, 0, 1], [0, 0, None], [0, 0, 1], [0, None]]


def test_choice_without_a_list_sees_all_labels(notebook: Notebook) -> None:
    rows = [{"said": "A Bug!", "label": "bug"}, {"said": "bug, or billing", "label": "billing"}]
    runs = swept(notebook, rows=rows)
    runs.score("choice", "label")
    assert scores(runs, "choice") == [1, 0]
    assert set(runs.score_history()["scorer"]) == {"choice:billing|bug"}


def test_runs_of_elsewhere_are_scored_and_said_not_to_be_kept(notebook: Notebook) -> None:
    run = Run(status="completed", result="bug", variables={"label": "bug"})
    told: list[str] = []
    score([run], "exact", "label", session=default_session(), tell=told.append)
    assert run.scores == {"exact": 1.0}
    assert told == ["1 of these runs aren't kept in this store, and so aren't their scores.\n"]


def test_no_runs_are_no_trouble(session: Session) -> None:
    assert xp.score([], "exact", "label") == []
    wrong: list[tuple[Any, str]] = [([3], "int"), (3, "int"), ("", "str"), ({}, "dict")]
    for given, kind in wrong:
        with pytest.raises(ConfigError, match=f"not a value of type {kind}"):
            xp.score(given, "exact", "label")


# ---- runs scored as they land


def test_a_cell_is_scored_as_it_lands(notebook: Notebook) -> None:
    notebook.ns["label"] = "hello"
    run = notebook.ask("echo --score exact --score long=regex:^.{9} --expected label")
    assert run.scores == {"exact": 1.0, "long": 0.0}
    assert run.variables["label"] == "hello"
    assert default_session().store.find(run.run_id).scores == run.scores
    (history,) = default_session().store.scores.select([run.run_id], "exact")
    assert (history.scorer, history.detail) == ("exact", {"expected": "hello"})


def test_a_function_of_the_notebook_scores(notebook: Notebook) -> None:
    notebook.run("def shouts(answer):\n    return answer.isupper()")
    assert notebook.ask("echo --score shouts", "HEY").scores == {"shouts": 1.0}


def test_a_sweep_is_scored_as_it_lands(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    runs = swept(
        notebook, "--score exact --score named=choice --expected label -n 2", [*ROWS, {"said": "x", "label": "y"}]
    )
    assert scores(runs) == [1, 1, 0, 0, 0, 0, None, None, 0, 0]
    shown = capsys.readouterr().out
    assert "score exact" in shown
    assert shown.endswith("2 of 10 runs have no score named: 2 no expected value.\n")
    assert runs.said.startswith("2 of 10 runs have no score exact: 2 no expected value.\n")
    assert scores(runs, "named")[:2] == [1, 1]
    kept = default_session().store.frame(sweep_id=runs.sweep_id)
    assert kept["score_exact"].notna().sum() == 8


def test_python_takes_scores_too(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    def starts(answer: str, expected: str) -> bool:
        return answer.startswith(expected)

    runs = xp.sweep("{{ said }}", target="echo", over=ROWS, score=["exact", starts], expected="label", progress=False)
    assert scores(runs, "starts") == [1, 0, 0, None]
    assert "1 of 4 runs have no score starts: 1 no expected value." in capsys.readouterr().out
    run = xp.run(
        "{{ said }}", target="echo", variables={"said": "bug", "label": "bug"}, score="exact", expected="label"
    )
    assert run.scores == {"exact": 1.0}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("--score exat --expected label", "Did you mean exact"),
        ("--score exact", "--expected COLUMN"),
        ("--score exact --expected lable", "Did you mean label"),
        ("--expected label", "add --score"),
        ("--score exact --score exact --expected label", "Two scores"),
        ("--score 'regex:[' --expected label", "can't be read"),
        ("--score choice:a --expected label", "two or more"),
        ("--score judge --expected label", "judge:TARGET"),
    ],
)
@pytest.mark.parametrize("over", ["--over rows", ""])
def test_what_is_wrong_is_said_before_anything_is_sent(notebook: Notebook, line: str, problem: str, over: str) -> None:
    notebook.ns["rows"] = ROWS
    before = notebook.newest_tasks()
    body = "{{ said }}" if over else "hi"
    if not over:
        notebook.ns["label"] = "bug"
        problem = problem.replace("Did you mean label", "'lable' in these runs")
    with pytest.raises(ConfigError, match=problem):
        notebook.run(f"%%xpander echo {over} {line}\n{body}")
    assert notebook.newest_tasks() == before


def test_a_scorer_that_fails_stops_nothing(notebook: Notebook) -> None:
    notebook.run("def broken(answer):\n    raise RuntimeError('oh')")
    runs = swept(notebook, "--score broken --score exact --expected label")
    assert [run.status for run in runs] == ["completed"] * 4
    assert scores(runs) == [1, 0, 0, None]
    assert "4 of 4 runs have no score broken: 4 trouble in scoring. The first trouble, at run" in runs.said
    assert "it raised RuntimeError: oh." in runs.said
    run = notebook.ask("echo --score broken")
    assert (run.status, run.scores) == ("completed", {})
    assert "it raised RuntimeError: oh." in run.said


def test_a_scorer_that_cannot_score_at_all_stops_nothing(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wordllama")
    embeddings._model.cache_clear()
    monkeypatch.setitem(sys.modules, "wordllama", None)  # its import fails
    runs = swept(notebook, "--score embedding --score exact --expected label")
    assert [run.status for run in runs] == ["completed"] * 4
    assert scores(runs) == [1, 0, 0, None]
    assert "4 of 4 runs have no score embedding: 3 trouble in scoring, 1 no expected value." in runs.said
    assert "it raised ModuleNotFoundError: " in runs.said


def test_failed_runs_have_no_score(notebook: Notebook) -> None:
    notebook.ns["script"] = {"script": {"fail": "out of paper", "result": "so far"}}
    with pytest.raises(TaskFailed):
        notebook.run("%%xpander echo --payload script --score long=regex:. -o failed\nhello")
    assert notebook.ns["failed"].scores == {}


def test_a_broken_schema_is_scored(notebook: Notebook) -> None:
    notebook.ns["Answer"] = {"type": "integer"}
    with pytest.raises(xp.SchemaError):
        notebook.run("%%xpander echo --schema Answer --score schema -o broken\nhello")
    assert notebook.ns["broken"].scores == {"schema": 0.0}


def test_reused_runs_are_scored_by_what_is_asked_now(notebook: Notebook) -> None:
    swept(notebook)
    rows = [{**row, "right": "a bug"} for row in ROWS]
    runs = swept(notebook, "--cached --score exact --expected right", rows)
    assert all(run.reused for run in runs)
    assert scores(runs) == [0, 1, 0, 0]
    notebook.ns["right"] = "bug"
    run = notebook.ask("echo --cached --score single=exact --expected right", "bug")
    again = notebook.ask("echo --cached --score single=exact --expected right", "bug")
    assert again.reused
    assert again.run_id == run.run_id
    assert again.scores["single"] == 1


def test_a_retry_is_scored(session: Session, service: FaultServer) -> None:
    rows = [{"a": "hi"}, {"a": "ho"}]
    options = parse_cell("writer --over rows --mode sync --score exact --expected a")
    grid = session.grid(options, "{{ a }}", {"rows": rows})
    service.on("POST */invoke*", reply(400, {"detail": "no"}))
    runs = session.sweep(grid, lambda tally: None)
    assert len(runs.failed) == 1
    before = sum(bool(run.scores) for run in runs)
    runs.retry()
    assert (before, [run.scores for run in runs]) == (1, [{"exact": 1.0}, {"exact": 0.0}])


def test_a_sweep_gone_on_with_in_another_kernel_is_scored(
    session: Session, service: FaultServer, tmp_path: Path
) -> None:
    def own(answer: str) -> float:
        return 1.0

    rows = [{"a": "hi"}, {"a": "ho"}, {"a": "hi"}]
    options = parse_cell("writer --over rows --mode sync -j 1 --score exact --score own --expected a")
    grid = session.grid(options, "{{ a }}", {"rows": rows, "own": own})
    service.on("POST */invoke*", reply(), reply(401, {"detail": "expired"}))
    with pytest.raises(xp.AuthError):
        session.sweep(grid, lambda tally: None)
    landed = [run for run in session.store.select(sweep_id=grid.sweep_id) if run.status == "completed"]
    # As if the kernel had died between an answer and its score.
    session.store.scores.add(Score(run.run_id, name, None, "", "") for run in landed for name in ("exact", "own"))
    with_another = Session(session.settings)
    runs = with_another.resume(grid.sweep_id, lambda tally: None)
    assert [run.scores for run in runs] == [{"exact": 1.0}, {"exact": 0.0}, {"exact": 1.0}]
    assert "'own' belongs to another kernel" in runs.said
    with_another.close()


def test_a_record_keeps_the_scorers_and_no_secrets(session: Session, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MY_TOKEN", "s3cr3t-value")
    options = parse_cell("writer --over rows --score regex:s3cr3t-value --score exact --expected a")
    grid = session.grid(options, "{{ a }}", {"rows": [{"a": "hi"}]})
    restored = Grid.restore(grid.record(), session.client)
    assert restored.expected == "a"
    assert len(restored.scores) == 2
    assert "s3cr3t-value" not in str(restored.scores)


def test_an_expected_value_is_masked_like_any_variable(session: Session, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MY_TOKEN", "s3cr3t-value")
    options = parse_cell("writer --mode sync --score exact --expected right")
    run = session.run(options, "hi", {"right": "s3cr3t-value"})
    assert "s3cr3t-value" not in str(run.variables)
    assert "s3cr3t-value" not in str(session.store.scores.select([run.run_id]))


def test_scores_that_cant_be_kept_cost_no_run(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Any) -> None:
        raise StoreError("The disk is full.")

    options = parse_cell("writer --mode sync --score exact --expected right")
    monkeypatch.setattr(session.store.scores, "add", full)
    run = session.run(options, "hi", {"right": "hi"})
    assert run.status == "completed"
    assert run.scores == {"exact": 1.0}
    assert run.said == "Its scores aren't kept. The disk is full.\n"


def test_an_executors_runs_are_scored_here(session: Session) -> None:
    ours = threading.get_ident()
    seen: list[int] = []

    def mine(answer: str) -> float:
        seen.append(threading.get_ident())
        return float(len(answer))

    options = parse_cell("writer --over rows --mode sync --score mine")
    grid = session.grid(options, "{{ a }}", {"rows": [{"a": n} for n in range(4)], "mine": mine})
    with ThreadPoolExecutor(2, thread_name_prefix="worker") as executor:
        runs = session.sweep(grid, lambda tally: None, executor)
    assert [run.scores for run in runs] == [{"mine": 2.0}] * 4
    assert len(seen) == 4
    assert ours not in seen
    kept = session.store.select(sweep_id=runs.sweep_id)
    assert [run.scores for run in kept] == [{"mine": 2.0}] * 4


def judging(service: FaultServer) -> JudgingService:
    """The service has a judge, which finds long answers good."""
    service.service = JudgingService()
    service.service.verdict = lambda texts: {"reason": "By length.", "score": min(len(texts["ANSWER"]), 5)}
    return service.service


def test_a_judge_scores_once_all_has_landed(session: Session, service: FaultServer) -> None:
    bench = judging(service)
    options = parse_cell("writer --over rows --mode sync --score exact --score fair=judge:judge --expected a")
    grid = session.grid(options, "{{ a }}", {"rows": [{"a": "x"}, {"a": "xxx"}]})
    runs = session.sweep(grid, lambda tally: None)
    assert [run.scores for run in runs] == [{"exact": 1.0, "fair": 0.0}, {"exact": 1.0, "fair": 0.5}]
    assert len(bench.asked) == 2
    kept = session.store.scores.select([run.run_id for run in runs], "fair")
    assert [(one.value, one.detail["reason"]) for one in kept] == [(0.0, "By length."), (0.5, "By length.")]
    assert "2 verdicts" in runs.said
    # The grid's record tells another kernel to judge, too.
    another = Session(session.settings)
    again = another.resume(runs.sweep_id, lambda tally: None)
    assert [run.scores for run in again] == [run.scores for run in runs]
    another.close()


def test_a_judge_that_fails_costs_no_run(session: Session, service: FaultServer) -> None:
    judging(service)
    options = parse_cell("writer --over rows --mode sync --score judge:nobody")
    runs = session.sweep(session.grid(options, "{{ a }}", {"rows": [{"a": "x"}]}), lambda tally: None)
    assert [run.status for run in runs] == ["completed"]
    assert runs.said.startswith("judge has given no scores: There is no agent")
    one = session.run(parse_cell("writer --mode sync --score judge:judge"), "xxxxx", {})
    assert one.scores == {"judge": 1.0}


# ---- a DataFrame


def framed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    runs = [Run(status="completed", result=row["said"], variables=row) for row in rows]
    return frame_of(runs)


def test_a_frame_is_scored_in_a_copy() -> None:
    frame = framed(ROWS)
    frame["truth"] = ["bug", "bug", None, "praise"]
    before = frame.copy()
    scored, told = score_frame(frame, ["exact", "t=normalized"], "label")
    pd.testing.assert_frame_equal(frame, before)
    assert scored["score_exact"].tolist() == [1, 0, 0, pd.NA]
    assert str(scored["score_t"].dtype) == "Float64"
    assert told.splitlines()[0] == "1 of 4 runs have no score exact: 1 no expected value."
    by_column, _ = score_frame(frame, "exact", "truth")
    assert by_column["score_exact"].tolist() == [1, 0, pd.NA, 1]
    assert "score_exact" not in frame


def test_a_frame_says_the_same_as_the_runs(notebook: Notebook) -> None:
    runs = swept(notebook, rows=[*ROWS, {"said": "3", "label": 3}])
    specs = ["exact", "normalized", "contains", "choice", "similarity", "any=regex:b"]
    runs.score(specs, "label")
    scored, _ = score_frame(runs.df[["run_id", "status", "result", "output", "variables"]], specs, "label")
    for name in ("exact", "normalized", "contains", "choice", "similarity", "any"):
        assert scored[f"score_{name}"].tolist() == runs.df[f"score_{name}"].tolist()


def test_frames_as_they_come() -> None:
    bare = pd.DataFrame({"result": ["3", None], "status": ["completed", "failed"], "label": [3, 4]}, index=[7, 7])
    scored, told = score_frame(bare, "exact", "label")
    assert scored["score_exact"].tolist() == [1, pd.NA]
    assert told == "1 of 2 runs have no score exact: 1 no answer that can be used.\n"
    assert scored.index.tolist() == [7, 7]
    with pytest.raises(ConfigError, match="Did you mean label"):
        score_frame(bare, "exact", "lable")

    def whole(run: Run, expected: int) -> bool:
        return run.result == str(expected)

    assert score_frame(bare, whole, [3, 4])[0]["score_whole"].tolist() == [1, pd.NA]


def test_options_know_functions() -> None:
    def mine(answer: str) -> float:
        return 1.0

    options = Options(scores=(mine,), expected="label")
    assert options.over_defaults(Options(scores=("exact",))).scores == (mine,)
    assert Options().over_defaults(options).scores == (mine,)
