"""Exports, read back by the tools that they are for."""

from __future__ import annotations

import csv
import json
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from notebook_shell import Notebook
from pandas.testing import assert_frame_equal

import xpander_magics as xp
from xpander_magics.analysis.comparison import compare
from xpander_magics.analysis.exports.exports import export, exported
from xpander_magics.errors import ConfigError
from xpander_magics.outcomes import Runs
from xpander_magics.results import Run, parse_time
from xpander_magics.session import Session, default_session
from xpander_magics.store.columns import COLUMNS, Time
from xpander_magics.store.frames import frame_of
from xpander_magics.store.scores import Score
from xpander_magics.store.votes import Vote

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)
ODD = ("=1+1", "+x", "-x", "@x", "\tx", "\rx", 'a,"b"\n\'c', "\x00\ud800é🙂", "", "'x")


def some_runs(count: int = 12) -> list[Run]:
    """Runs with whatever a column can hold."""
    return [
        Run(
            run_id=f"{number:032x}",
            status="completed" if number % 3 else "failed",
            error_type=None if number % 3 else "TaskFailed",
            created_at=NOW + timedelta(seconds=number, microseconds=-number),
            target="writer",
            target_kind="agent",
            requested_provider="openai" if number % 2 else None,
            requested_model="gpt-5" if number % 2 else None,
            model="gpt-5",
            prompt=ODD[number % len(ODD)],
            result=ODD[(number + 3) % len(ODD)],
            output=[None, 1, -5, "text", [1, {"a": None}], {"ä": "=1"}][number % 6],
            variables={"n": number, "text": ODD[number % len(ODD)]},
            tags=["a", "b,c"] if number % 2 else [],
            total_tokens=number if number % 4 else None,
            cost_usd=number / 7 if number % 5 else None,
            is_byok=[True, False, None][number % 3],
            latency_s=-0.5 if number == 1 else 1e-7 * number,
            scores={"exact": number / 3} if number % 2 else {},
        )
        for number in range(count)
    ]


@pytest.fixture
def runs() -> list[Run]:
    return some_runs()


@pytest.fixture
def session(environment: pytest.MonkeyPatch) -> Iterator[Session]:
    found = default_session()
    found.close()  # what other tests have opened
    yield found
    found.close()


def back_from_json(lines: str) -> pd.DataFrame:
    """The frame of what was written: a row becomes a run again."""
    times = {column.name for column in COLUMNS if isinstance(column.kind, Time)}
    found = []
    for line in lines.splitlines():
        row = json.loads(line)
        scores = {name[len("score_") :]: row.pop(name) for name in list(row) if name.startswith("score_")}
        run = Run(**{name: parse_time(value) if name in times else value for name, value in row.items()})
        run.scores = {name: value for name, value in scores.items() if value is not None}
        found.append(run)
    return frame_of(found)


def test_json_lines_lose_nothing(runs: list[Run], tmp_path: Path) -> None:
    for name in ("runs.jsonl", "runs.ndjson"):
        path = export(runs, tmp_path / name)
        assert path == tmp_path / name
        assert_frame_equal(back_from_json(path.read_text(encoding="ascii")), frame_of(runs))


def test_json_lines_are_json_to_every_reader(tmp_path: Path) -> None:
    odd = Run(
        result="x", variables={"a": float("nan"), "b": [float("inf"), {"c": float("-inf")}]}, cost_usd=float("inf")
    )

    def refuse(name: str) -> Any:
        raise AssertionError(name)

    path = Path(export([odd], tmp_path / "runs.jsonl"))
    row = json.loads(path.read_text(), parse_constant=refuse)
    assert row["variables"] == {"a": None, "b": [None, {"c": None}]}
    assert row["cost_usd"] is None
    runs = some_runs(5000)
    for run in runs:
        run.prompt = run.result = run.variables["text"] = "é🙂"  # DuckDB takes no halves of surrogate pairs
    export(runs, path)
    found = duckdb.sql(f"select count(*), sum(total_tokens), max(prompt) from read_json_auto('{path}')").fetchall()
    assert found == [(5000, sum(run.total_tokens or 0 for run in runs), "é🙂")]


def test_no_cell_of_a_csv_becomes_a_formula(runs: list[Run], tmp_path: Path) -> None:
    path = Path(export(runs, tmp_path / "runs.csv"))
    with open(path, encoding="utf-8", newline="") as file:
        names, *rows = list(csv.reader(file))
    assert names == list(frame_of(runs).columns)
    told = [dict(zip(names, row, strict=True)) for row in rows]
    assert [row["prompt"][:2] for row in told[:6]] == ["'=", "'+", "'-", "'@", "'\t", "'\r"]
    texts = [cell for row in told for name, cell in row.items() if name not in ("latency_s", "output")]
    assert not [cell for cell in texts if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert told[7]["prompt"] == r"\x00\ud800é🙂"
    assert [row["latency_s"] for row in told[:3]] == ["0.0", "-0.5", "2e-07"]  # a number is one
    assert told[2]["output"] == "-5"
    assert told[6]["prompt"] == ODD[6]
    assert told[1]["created_at"] == "2026-03-01T12:00:01.123455Z"
    assert told[0]["total_tokens"] == ""
    assert [row["is_byok"] for row in told[:3]] == ["true", "false", ""]
    assert json.loads(told[1]["tags"]) == ["a", "b,c"]
    read = pd.read_csv(path)
    assert read["latency_s"].tolist() == [run.latency_s for run in runs]
    assert pd.to_datetime(read["created_at"]).tolist() == [run.created_at for run in runs]


@pytest.mark.parametrize(
    "text", [" =1+1", "\u00a0+1", "\n=1", "\ufeff=1", "\u200b@x", "\uff1d1", "\uff0b1", "\uff0d1", "\uff20x"]
)
def test_hidden_formulas_are_none_either(tmp_path: Path, text: str) -> None:
    path = Path(export([Run(result=text)], tmp_path / "runs.csv"))
    with open(path, encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["result"] == f"'{text}"


@pytest.mark.parametrize("name", ["", "\x00"])
def test_a_name_that_sqlite_has_not_says_so(tmp_path: Path, name: str) -> None:
    frame = frame_of([Run(result="x")]).assign(**{name: [1]})
    with pytest.raises(ConfigError, match="SQLite can't hold these runs"):
        export(frame, tmp_path / "runs.sqlite")
    assert list(tmp_path.glob("*runs*")) == []


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet", ".sqlite"])
def test_two_columns_of_one_name_are_not_mixed_up(tmp_path: Path, ending: str) -> None:
    frame = frame_of([Run(result="x", prompt="y")]).rename(columns={"prompt": "result"})
    with pytest.raises(ConfigError, match="Two columns are named 'result'"):
        export(frame, tmp_path / f"runs{ending}")


def test_names_are_no_formulas_either(tmp_path: Path) -> None:
    frame = frame_of([Run(result="x")]).assign(**{"=cmd": ["-1"]})
    path = Path(export(frame, tmp_path / "runs.csv"))
    assert path.read_text().splitlines()[0].endswith(",'=cmd")
    assert path.read_text().splitlines()[1].endswith(",'-1")


def test_parquet_keeps_the_types(runs: list[Run], tmp_path: Path) -> None:
    path = Path(export(runs, tmp_path / "runs.parquet"))
    read, frame = pd.read_parquet(path), frame_of(runs)
    assert list(read.columns) == list(frame.columns)
    for name in ("created_at", "total_tokens", "cost_usd", "is_byok", "score_exact"):
        pd.testing.assert_series_equal(read[name], frame[name])
    assert read["status"].astype("object").tolist() == frame["status"].astype("object").tolist()
    assert json.loads(read["variables"].iloc[0]) == runs[0].variables
    assert duckdb.sql(f"select sum(cost_usd) from '{path}'").fetchall()[0] == (pytest.approx(frame["cost_usd"].sum()),)
    many = some_runs(9000)  # several batches
    assert pd.read_parquet(export(many, path))["run_id"].tolist() == [run.run_id for run in many]


def test_sqlite_has_typed_columns(runs: list[Run], tmp_path: Path, session: Session) -> None:
    for name in ("out.sqlite", "out.db"):
        path = Path(export(runs, tmp_path / name))
        with closing(sqlite3.connect(path)) as database:
            types = {row[1]: row[2] for row in database.execute("PRAGMA table_info(runs)")}
            read = pd.read_sql("select * from runs", database)
            tables = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
        assert tables == ["runs"]
        assert (types["prompt"], types["total_tokens"], types["cost_usd"]) == ("TEXT", "INTEGER", "REAL")
        assert (types["created_at"], types["is_byok"], types["output"]) == ("TEXT", "INTEGER", "TEXT")
        assert read["created_at"].iloc[1] == "2026-03-01T12:00:01.123455Z"
        assert read["is_byok"].tolist()[:2] == [1, 0]
        assert read["prompt"].tolist()[:7] == list(ODD[:7])  # a database has no formulas
        assert json.loads(read["variables"].iloc[0]) == {"n": 0, "text": "=1+1"}
        assert not list(tmp_path.glob("*-journal"))


def test_sqlite_has_what_the_store_knows_of_the_runs(runs: list[Run], tmp_path: Path, session: Session) -> None:
    store = session.store
    store.add(runs)
    ids = [run.run_id for run in runs]
    store.votes.add(Vote(ids[0], ids[1], "left", "Ada"))
    for value in (0.25, 0.75):
        store.scores.add([Score(ids[0], "mine", value, "exact", "Ada", {"expected": "x"})])
    told = exported(None, tmp_path / "all.db")
    assert told.words.startswith("12 runs, 1 vote, 2 scores written to ")
    with closing(sqlite3.connect(told.path)) as database:
        votes = pd.read_sql("select * from votes", database)
        scores = pd.read_sql("select * from scores order by added_at", database)
    assert votes[["left_run", "choice", "voter", "undone_at"]].values.tolist() == [[ids[0], "left", "Ada", None]]
    assert scores["value"].tolist() == [0.25, 0.75]
    assert json.loads(scores["detail"][0]) == {"expected": "x"}


# ---- files


def test_files_are_whole_and_their_owners_alone(runs: list[Run], tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("old")
    path.chmod(0o644)
    export(runs, str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    clash = frame_of(runs).assign(PROMPT="x")
    with pytest.raises(ConfigError, match="SQLite can't hold these runs: duplicate column name"):
        export(clash, tmp_path / "runs.db")
    assert [one.name for one in tmp_path.iterdir()] == ["runs.csv"]  # neither a part nor what it was made in
    assert path.read_bytes() == before


def test_a_database_that_is_somebodys_is_not_replaced(runs: list[Run], tmp_path: Path, session: Session) -> None:
    session.store.add(runs)
    store = tmp_path / "runs.db"  # the run store itself
    with pytest.raises(ConfigError, match="no export of runs"):
        export(runs, store)
    assert len(session.store.frame()) == 12
    export(runs, tmp_path / "mine.db")
    export(runs[:3], tmp_path / "mine.db")  # an export is
    with closing(sqlite3.connect(tmp_path / "mine.db")) as database:
        assert database.execute("select count(*) from runs").fetchone() == (3,)


def test_the_first_mistakes(runs: list[Run], tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for path, says in (
        ("runs.xlsx", r"\.csv, \.jsonl, \.ndjson, \.parquet, \.sqlite or \.db"),
        ("runs", r"must end in"),
        ("folder.csv", "is a folder"),
        ("nowhere/runs.csv", "there is no folder"),
    ):
        with pytest.raises(ConfigError, match=says):
            export(runs, tmp_path / path)
    with pytest.raises(ConfigError, match="comparison"):
        export(runs, tmp_path / "x.csv", what="comparisons")
    with pytest.raises(ConfigError, match="not a value of type int"):
        export(runs, 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not a value of type int"):
        export(3, tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()


def test_a_frame_of_the_users_stays_as_it_is(runs: list[Run], tmp_path: Path) -> None:
    frame = frame_of(runs).assign(own=[{"a": 1}] * len(runs))
    before = frame.copy(deep=True)
    for ending in ("csv", "jsonl", "parquet", "db"):
        export(frame, tmp_path / f"out.{ending}")
    assert_frame_equal(frame, before)
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["own"] == {"a": 1}


# ---- a comparison, preferences


def compared_runs() -> list[Run]:
    return [
        Run(
            status="completed",
            requested_provider="openai",
            requested_model=model,
            prompt=f"p{number}",
            result=f"{model} {number}",
            variables={"n": number},
            target="writer",
            experiment="e",
            latency_s=1.0,
            total_tokens=10,
            scores={"exact": float(number % 2 if model == "gpt-5" else 1)},
        )
        for number in range(6)
        for model in ("gpt-5", "gpt-5-mini")
    ]


def test_the_table_of_a_comparison(tmp_path: Path) -> None:
    found = compare(compared_runs())
    path = Path(export(found, tmp_path / "cmp.csv", what="comparison"))
    read = pd.read_csv(path)
    assert read["configuration"].tolist() == found.names
    assert read["exact"].tolist() == [0.5, 1.0]
    assert Path(export(compared_runs(), tmp_path / "b.csv", what="comparison")).read_text() == path.read_text()
    with closing(sqlite3.connect(Path(export(found, tmp_path / "cmp.db", what="comparison")))) as database:
        assert pd.read_sql("select * from differences", database)["configuration"].tolist() == found.names[1:]
    assert len(pd.read_csv(export(found, tmp_path / "runs.csv"))) == 12


def test_preferences_are_what_people_voted_for(tmp_path: Path, session: Session) -> None:
    runs = compared_runs()
    session.store.add(runs)
    ids = [run.run_id for run in runs]
    other = Run(prompt="another", result="x", status="completed")
    lost = Run(prompt="p4", status="failed")
    session.store.add([other, lost])
    votes = [
        Vote(ids[0], ids[1], "left", "Ada"),
        Vote(ids[2], ids[3], "right", "Ada"),
        Vote(ids[2], ids[3], "left", "Bo"),
        Vote(ids[4], ids[5], "both_good", "Ada"),
        Vote(ids[6], ids[7], "both_bad", "Ada"),
        Vote(ids[8], ids[9], "skip", "Ada"),
        Vote(ids[10], ids[11], "left", "Ada"),  # taken back
        Vote(ids[4], ids[5], "right", "judge writer"),
        Vote(ids[0], other.run_id, "left", "Ada"),
        Vote(ids[8], lost.run_id, "left", "Ada"),
    ]
    for vote in votes:
        session.store.votes.add(vote)
    session.store.votes.undo(votes[6].vote_id)
    told = exported(None, tmp_path / "pairs.jsonl", what="preferences")
    rows = [json.loads(line) for line in Path(told.path).read_text().splitlines()]
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in rows] == [
        ("p0", "gpt-5 0", "gpt-5-mini 0"),
        ("p1", "gpt-5-mini 1", "gpt-5 1"),
        ("p1", "gpt-5 1", "gpt-5-mini 1"),
    ]
    assert rows[1] | {"voted_at": ""} == {
        "prompt": "p1",
        "chosen": "gpt-5-mini 1",
        "rejected": "gpt-5 1",
        "chosen_model": "openai/gpt-5-mini",
        "rejected_model": "openai/gpt-5",
        "chosen_effort": None,
        "rejected_effort": None,
        "chosen_run": ids[3],
        "rejected_run": ids[2],
        "experiment": "e",
        "vote_id": votes[1].vote_id,
        "voter": "Ada",
        "voted_at": "",
    }
    assert parse_time(rows[1]["voted_at"]) == votes[1].added_at
    for part in ("3 preferences", "2 ties", "1 skipped", "1 by judges", "1 with two different", "1 without an answer"):
        assert part in told.words
    export(runs, tmp_path / "judged.jsonl", what="preferences", judges=True)
    assert len((tmp_path / "judged.jsonl").read_text().splitlines()) == 4
    with pytest.raises(ConfigError, match=r"no votes.*1 skipped"):
        export(runs[8:10], tmp_path / "none.jsonl", what="preferences")
    assert not (tmp_path / "none.jsonl").exists()


# ---- MLflow


@pytest.fixture
def tracking(environment: pytest.MonkeyPatch, tmp_path: Path) -> MlflowClient:
    environment.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    environment.setenv("MLFLOW_TRACKING_URI", (tmp_path / "tracking").as_uri())
    return MlflowClient()


def test_mlflow_has_a_run_a_configuration(tracking: MlflowClient, session: Session, tmp_path: Path) -> None:
    runs = compared_runs()
    assert export(runs, "mlflow:tickets") == "mlflow:tickets"
    assert export(compare(runs), "tickets", what="mlflow") == "mlflow:tickets"  # the same experiment
    experiment = tracking.get_experiment_by_name("tickets")
    assert experiment is not None
    found = tracking.search_runs([experiment.experiment_id], order_by=["start_time"])
    assert sorted(run.info.run_name for run in found) == ["gpt-5", "gpt-5", "gpt-5-mini", "gpt-5-mini"]
    assert {run.info.status for run in found} == {"FINISHED"}
    mini = next(run for run in found if run.info.run_name == "gpt-5-mini")
    assert mini.data.params == {"model": "gpt-5-mini"}
    assert (mini.data.metrics["exact"], mini.data.metrics["runs"], mini.data.metrics["tokens"]) == (1.0, 6, 10)
    assert mini.data.tags["xpander.experiment"] == "e"
    table = json.loads(Path(tracking.download_artifacts(mini.info.run_id, "runs.json", str(tmp_path))).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["result"] for row in rows] == [f"gpt-5-mini {number}" for number in range(6)]
    assert json.loads(rows[0]["variables"]) == {"n": 0}


def test_mlflow_takes_any_setting_as_a_parameter(tracking: MlflowClient) -> None:
    export(compare(compared_runs(), by=["n", "model"]), "mlflow:by n")
    experiment = tracking.get_experiment_by_name("by n")
    assert experiment is not None
    found = tracking.search_runs([experiment.experiment_id])
    assert sorted(run.data.params["n"] for run in found) == sorted("001122334455")
    assert not any("n" in run.data.metrics for run in found)


def test_mlflow_takes_hostile_names(tracking: MlflowClient) -> None:
    runs = compared_runs()
    for run in runs:
        run.target, run.requested_model = "a\x1b[1m\ud800", f"\x00\u202e\ud800{run.requested_model}"
    export(compare(runs, by=["model"]), "mlflow:a\x1b\nb")
    experiment = tracking.get_experiment_by_name("a\ufffd b")
    assert experiment is not None
    found = tracking.search_runs([experiment.experiment_id])
    assert {run.info.status for run in found} == {"FINISHED"}
    assert all(
        "\ufffd\ufffd\ufffd" in run.info.run_name and run.data.tags["xpander.target"] == "a\ufffd[1m\ufffd"
        for run in found
    )


def test_mlflow_that_can_not_be_had_says_so(tracking: MlflowClient, environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="Name the MLflow experiment"):
        export(compared_runs(), "mlflow:")
    environment.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    environment.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for uri in ("http://127.0.0.1:9", "http://me:p4ssw0rd-of-mine@127.0.0.1:9", "http://tok@127.0.0.1:9"):
        environment.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI") as caught:
            export(compared_runs(), "mlflow:x")
        assert not any(secret in str(caught.value) for secret in ("p4ssw0rd", "tok@"))


# ---- from a sweep


def test_the_runs_of_a_sweep(notebook: Notebook, tmp_path: Path) -> None:
    notebook.run("%%xpander echo -m scripted/echo -n 2 -o runs -q\nhello")
    runs = notebook.ns["runs"]
    assert isinstance(runs, Runs)
    path = Path(xp.export(runs, tmp_path / "runs.jsonl"))
    assert_frame_equal(back_from_json(path.read_text()), runs.df)
