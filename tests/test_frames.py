"""The frame: each column with a value of its own, what is missing, and values that nobody expects."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from xpander_magics.results import Run
from xpander_magics.store import Store
from xpander_magics.store.columns import COLUMNS, KEPT, STATUSES, pack, unpack
from xpander_magics.store.frames import frame_of

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)

# One line a column of the interface's table: its name, its dtype there, a value that no other line has.
EXPECTED: list[tuple[str, str, Any]] = [
    ("run_id", "string", "aa01"),
    ("sweep_id", "string", "a sweep"),
    ("experiment", "string", "an experiment"),
    ("task_id", "string", "a task"),
    ("thread_id", "string", "a thread"),
    ("created_at", "datetime64[us, UTC]", NOON),
    ("started_at", "datetime64[us, UTC]", NOON + timedelta(seconds=1)),
    ("finished_at", "datetime64[us, UTC]", NOON + timedelta(seconds=2)),
    ("target_kind", "category", "workflow"),
    ("status", "category", "paused"),
    ("target_id", "string", "a target's id"),
    ("target", "string", "a target"),
    ("agent_version", "string", "7"),
    ("provider", "category", "anthropic"),
    ("model", "category", "a model"),
    ("effort", "category", "xhigh"),
    ("think_mode", "category", "harder"),
    ("requested_provider", "category", "openai"),
    ("requested_model", "category", "another model"),
    ("requested_effort", "category", "low"),
    ("mode", "category", "async"),
    ("prompt", "string", "a prompt"),
    ("template", "string", "a template"),
    ("result", "string", "a result"),
    ("error", "string", "an error"),
    ("error_type", "string", "AnError"),
    ("output", "object", {"an": ["output", None, 1.5]}),
    ("variables", "object", {"a": "variable"}),
    ("tags", "object", ["a tag"]),
    ("tools_used", "object", ["a tool", {"another": 1}]),
    ("metadata", "object", {"some": "metadata"}),
    ("repeat", "Int64", 1),
    ("attempts", "Int64", 2),
    ("prompt_tokens", "Int64", 3),
    ("completion_tokens", "Int64", 4),
    ("total_tokens", "Int64", 5),
    ("actions", "Int64", 6),
    ("cost_usd", "Float64", 0.25),
    ("is_byok", "boolean", True),
    ("latency_s", "Float64", 1.25),
    ("ttft_s", "Float64", 2.25),
    ("queue_s", "Float64", 3.25),
    ("server_s", "Float64", 4.25),
    ("title", "string", "a title"),
    ("note", "string", "a note"),
]
DTYPES = {name: dtype for name, dtype, _ in EXPECTED}


def full_run() -> Run:
    """A run with a value of its own in each column."""
    return Run(**{name: value for name, _, value in EXPECTED}, scores={"exact": 0.5})


def dtypes_of(frame: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"sqlite:///{tmp_path / 'runs.db'}")


def test_the_columns_are_the_interfaces() -> None:
    assert [(column.name, column.dtype) for column in COLUMNS] == [(name, dtype) for name, dtype, _ in EXPECTED]


@pytest.mark.parametrize(("name", "dtype", "value"), EXPECTED, ids=[name for name, _, _ in EXPECTED])
@pytest.mark.parametrize("way", ["runs", "store"])
def test_each_column(name: str, dtype: str, value: Any, way: str, store: Store) -> None:
    if way == "store":
        store.add([full_run()])
    frame = store.frame() if way == "store" else frame_of([full_run()])
    assert str(frame[name].dtype) == dtype
    assert frame[name].iloc[0] == value


@pytest.mark.parametrize("count", [0, 1])
def test_dtypes_without_values(count: int, store: Store) -> None:
    runs = [Run(status="planned") for _ in range(count)]
    store.add(runs)
    for frame in (frame_of(runs), store.frame()):
        assert dtypes_of(frame) == DTYPES
        assert list(frame.index) == list(range(count))


def test_what_is_missing_is_na() -> None:
    row = frame_of([Run()]).iloc[0]
    given = {"run_id", "status", "variables", "tags", "tools_used", "metadata"}
    assert {name for name, value in row.items() if pd.api.types.is_scalar(value) and pd.isna(value)} == {
        name for name, _, _ in EXPECTED if name not in given
    }
    assert row["prompt"] is pd.NA
    assert row["created_at"] is pd.NaT
    assert row["output"] is None


def test_both_ways_give_the_same(store: Store) -> None:
    odd = Run(
        status="new at the service", effort="max", prompt="\ud800\0\x1a", cost_usd=math.inf, scores={"b": 1, "a": 0}
    )
    runs = [full_run(), Run(), odd, *(Run(model=f"m{n % 7}", repeat=n, template="t", output=n) for n in range(5000))]
    store.add(runs)
    assert_frame_equal(store.frame(), frame_of(runs))
    assert_frame_equal(store.frame(limit=3), frame_of(runs[-3:]))
    assert_frame_equal(frame_of(store.select()), frame_of(runs))


def test_scores_come_last_by_name() -> None:
    frame = frame_of([Run(scores={"b": 1}), Run(scores={"a": 0.5, "b": math.nan}), Run()])
    assert list(frame.columns[-3:]) == ["note", "score_a", "score_b"]
    assert frame["score_a"].tolist() == [pd.NA, 0.5, pd.NA]
    assert frame["score_b"].tolist() == [1.0, pd.NA, pd.NA]
    assert str(frame["score_b"].dtype) == "Float64"


def test_efforts_sort_from_low_to_xhigh_and_unknown_ones_are_kept() -> None:
    frame = frame_of([Run(effort=effort) for effort in ("xhigh", "max", "low", None, "high", "medium")])
    assert frame["effort"].sort_values().tolist()[:5] == ["low", "medium", "high", "xhigh", "max"]
    assert list(frame["effort"].cat.categories) == ["low", "medium", "high", "xhigh", "max"]
    assert list(frame_of([])["status"].cat.categories) == list(STATUSES)


def test_frames_concat_to_the_same_dtypes() -> None:
    one, other = frame_of([Run(effort="low", model="a")]), frame_of([Run(effort="high", model="a")])
    both = pd.concat([one, other], ignore_index=True)
    assert dtypes_of(both) == DTYPES
    assert both["effort"].tolist() == ["low", "high"]


def test_what_ran_compares_with_what_was_asked() -> None:
    frame = frame_of([Run(model="a", requested_model="a", provider="p"), Run(model="b", requested_model="c")])
    assert (frame["model"] == frame["requested_model"]).tolist() == [True, False]
    assert (frame["provider"] == frame["requested_provider"]).tolist() == [False, False]


def test_the_frame_shares_nothing_with_the_runs_or_between_rows() -> None:
    runs = [Run(tags=[]), Run(tags=[])]
    frame = frame_of(runs)
    frame["tags"].tolist()[0].append("new")
    assert frame["tags"].tolist() == [["new"], []]
    assert [run.tags for run in runs] == [[], []]


class Hostile:
    def isoformat(self) -> str:
        raise RuntimeError("no")

    def __str__(self) -> str:
        raise RuntimeError("no")


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (2**70, 2**70),
        (-math.inf, -math.inf),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.array([1, 2]), [1, 2]),
        (pd.Timestamp("2026-03-01T12:00:00Z"), "2026-03-01T12:00:00+00:00"),
        (pd.NaT, None),
        (pd.NA, None),
        ({1}, [1]),
        ((1, 2), [1, 2]),
        ({(1, 2): {3: Hostile}}, {"(1, 2)": {"3": "<type>"}}),
        (b"bytes", "b'bytes'"),
        (Hostile(), "<Hostile>"),
        (10**5000, hex(10**5000)),
        (circle(), ["<list>"]),
        ("\ud800\0\x1a", "\ud800\0\x1a"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_json_takes_what_a_notebook_holds(value: Any, kept: Any, store: Store) -> None:
    run = Run(variables={"it": value}, output=value)
    store.add([run, Run()])
    assert store.find(run.run_id).variables == {"it": kept}
    assert store.frame()["variables"].tolist() == [{"it": kept}, {}]
    assert store.frame()["output"].tolist() == [kept, None]


@pytest.mark.parametrize("levels", [100, 900, 100_000])
def test_json_nested_deeply_loses_no_row(levels: int, store: Store) -> None:
    store.add([Run(metadata={"it": deep(levels)}, tags=["a"]), Run(tags=["b"])])
    assert store.frame()["tags"].tolist() == [["a"], ["b"]]
    assert [run.tags for run in store.select()] == [["a"], ["b"]]


WRONG: list[tuple[str, Any, Any]] = [
    ("prompt_tokens", 2**63, pd.NA),
    ("prompt_tokens", 2**63 - 1, 2**63 - 1),
    ("prompt_tokens", -(2**63) + 1, -(2**63) + 1),
    ("prompt_tokens", 7.0, 7),
    ("prompt_tokens", 7.5, pd.NA),
    ("prompt_tokens", math.inf, pd.NA),
    ("prompt_tokens", np.int64(2**62 + 1), 2**62 + 1),
    ("prompt_tokens", "many", pd.NA),
    ("prompt_tokens", True, pd.NA),
    ("cost_usd", math.nan, pd.NA),
    ("cost_usd", math.inf, math.inf),
    ("cost_usd", 3, 3.0),
    ("cost_usd", 10**400, pd.NA),
    ("cost_usd", "free", pd.NA),
    ("is_byok", "yes", pd.NA),
    ("is_byok", False, False),
    ("created_at", "yesterday", pd.NaT),
    ("created_at", pd.NaT, pd.NaT),
    ("created_at", NOON.replace(tzinfo=None), NOON),
    ("created_at", pd.Timestamp(NOON).tz_convert("Asia/Tokyo"), NOON),
    ("created_at", datetime(1, 1, 1, tzinfo=timezone.utc), datetime(1, 1, 1, tzinfo=timezone.utc)),
    ("created_at", datetime.max.replace(tzinfo=timezone.utc), datetime.max.replace(tzinfo=timezone.utc)),
    ("title", {"not": "text"}, '{"not":"text"}'),
    ("model", ["a"], '["a"]'),
    ("status", "", ""),
    ("tags", None, []),
    ("tags", "one", ["one"]),
    ("tags", [1, 'a"b\\c,d', "\ud800é😀"], ["1", 'a"b\\c,d', "\ud800é😀"]),
    ("tags", 5, ["5"]),
    ("variables", None, {}),
    ("output", False, False),
    ("output", "", ""),
]


@pytest.mark.parametrize(("name", "value", "kept"), WRONG, ids=[f"{n}-{type(v).__name__}" for n, v, _ in WRONG])
def test_odd_values_cost_no_row(name: str, value: Any, kept: Any, store: Store) -> None:
    run = Run(**{name: value})
    store.add([run])
    for frame in (frame_of([run]), store.frame()):
        found = frame[name].iloc[0]
        assert found is kept if kept is pd.NA or kept is pd.NaT else found == kept
        assert dtypes_of(frame) == DTYPES


def test_odd_scores_cost_no_row() -> None:
    frame = frame_of([Run(scores={"a": True, "b": "high", "c": 10**400, "é\0": math.inf}), Run(scores=None)])  # type: ignore[arg-type,dict-item]
    assert list(frame.columns[-2:]) == ["score_a", "score_é\0"]
    assert frame["score_a"].tolist() == [1.0, pd.NA]


def test_a_run_is_unpacked_as_it_was_packed() -> None:
    run = full_run()
    again = unpack(pack(run).values())
    assert [getattr(again, column.name) for column in KEPT] == [getattr(run, column.name) for column in KEPT]


def test_importing_imports_no_heavy_package() -> None:
    heavy = "{'pandas', 'numpy', 'sqlalchemy', 'sqlite3', 'platformdirs'}"
    # What measures coverage has some of it already.
    code = f"import sys; had = set(sys.modules); import xpander_magics.store; print({heavy} & set(sys.modules) - had)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
