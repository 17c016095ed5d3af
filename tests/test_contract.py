"""Every answer that the contract shows is read: as it is, with more, with less, with nulls and with nonsense."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from xpander_magics.contract import INVOKE_FIELDS, Agent, Event, Message, Model, Provider, Task, Usage
from xpander_magics.results import Run, parse_time
from xpander_magics.service.sse import SSEDecoder

FOLDER = Path(__file__).parent / "contract"
EXAMPLES = {path.name: json.loads(path.read_text()) for path in sorted((FOLDER / "examples").glob("*.json"))}
SCHEMAS = yaml.safe_load((FOLDER / "openapi.yaml").read_text())["components"]["schemas"]


def tasks() -> dict[str, dict[str, Any]]:
    """Every task that the examples hold, those of the stream and of the list among them."""
    shown = {name: example for name, example in EXAMPLES.items() if isinstance(example, dict) and "status" in example}
    shown |= {f"list-{i}": item for i, item in enumerate(EXAMPLES["tasks-page.json"]["items"])}
    sent = SSEDecoder().feed((FOLDER / "examples/stream-completed.sse").read_bytes())
    for i, event in enumerate(sent):
        data = json.loads(event.data)["data"]
        if isinstance(data, dict):
            shown[f"stream-{i}"] = data
    return shown


TASKS = tasks()


def variants(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An object as it is, with more, and with each field missing or null in turn."""
    yield fields
    yield {**fields, "a_field_of_next_year": {"deep": [1, None]}, "raw": 1, "FIELDS": 2}
    yield dict.fromkeys(fields)
    for name in fields:
        yield {key: value for key, value in fields.items() if key != name}
        yield {**fields, name: None}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_read(name: str) -> None:
    for fields in variants(TASKS[name]):
        task, run = Task(copy.deepcopy(fields)), Run()
        run.apply_task(task)
        assert task.raw == fields
        for field in (*Task.FIELDS, *fields):
            assert field in ("raw", "FIELDS") or getattr(task, field) == fields.get(field)
        assert run.status == (fields.get("status") or "planned")
        assert run.result == fields.get("result")
        assert run.task_id == fields.get("id")
        repr(task), repr(run), pickle.loads(pickle.dumps(task))


def test_nothing_known_is_forgotten() -> None:
    """A later answer that leaves a field out, or sends null, doesn't take away what was known."""
    run = Run()
    run.apply_task(Task(TASKS["task-with-snapshot.json"]))
    before = copy.copy(vars(run))
    run.apply_task(Task(dict.fromkeys(TASKS["task-with-snapshot.json"])))
    run.apply_task(Task({}))
    after = vars(run)
    assert {k: v for k, v in after.items() if k != "metadata"} == {k: v for k, v in before.items() if k != "metadata"}


def test_where_a_task_lands_in_a_run() -> None:
    run = Run()
    run.apply_task(Task(TASKS["task-with-snapshot.json"]))
    assert (run.provider, run.model, run.effort, run.think_mode) == ("openai", "gpt-5", "high", "default")
    assert (run.prompt_tokens, run.completion_tokens, run.total_tokens) == (1830, 412, 2242)
    assert run.created_at == datetime(2026, 2, 7, 6, 18, 47, 438043, tzinfo=timezone.utc)
    assert run.queue_s == pytest.approx(0.763844)
    assert run.server_s == pytest.approx(7.582868)
    assert run.metadata["a_field_added_next_year"] == {"nested": [1, 2, 3]}
    assert run.thread_id == run.task_id == "04dbe342-27ef-4fcb-bc16-f19457e892b3"
    # Every field is in a column or in the metadata.
    assert set(run.metadata) | set(vars(run)) >= set(TASKS["task-with-snapshot.json"]) - {
        *("id", "agent_id", "used_tools", "llm_model_provider", "llm_model_name", "llm_reasoning_effort")
    }


NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(Task.FIELDS), NONSENSE))
def test_no_task_breaks_a_run(fields: dict[str, Any]) -> None:
    run = Run()
    run.apply_task(Task(fields))
    assert run.ended in (True, False)
    for name in ("status", "task_id", "result", "provider", "model", "effort", "think_mode", "title", "agent_version"):
        assert isinstance(getattr(run, name), (str, type(None)))
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert isinstance(getattr(run, name), (int, type(None)))
    repr(run)


@given(st.dictionaries(st.sampled_from(Usage.FIELDS), NONSENSE))
def test_no_usage_breaks_a_run(fields: dict[str, Any]) -> None:
    run = Run()
    run.apply_usage(Usage(fields))
    assert run.cost_usd is None or math.isfinite(run.cost_usd)


@pytest.mark.parametrize("cost", [None, 0, 0.0, 0.01284])
@pytest.mark.parametrize("is_byok", [None, False, True])
def test_the_cost_of_own_keys_is_missing_not_zero(is_byok: bool | None, cost: float | None) -> None:
    run = Run()
    run.apply_usage(Usage({"task_id": "t", "is_byok": is_byok, "cost": cost, "actions": 2}))
    assert run.cost_usd == (None if is_byok and not cost else cost)
    assert (run.is_byok, run.actions) == (is_byok, 2)


def test_usage_lands_in_a_run() -> None:
    run = Run()
    run.apply_usage(Usage(EXAMPLES["llm-usage.json"]))
    assert (run.prompt_tokens, run.completion_tokens, run.total_tokens, run.actions) == (1520, 2322, 3842, 4)
    assert (run.cost_usd, run.is_byok) == (0.01284, False)


@pytest.mark.parametrize(
    ("kind", "items"),
    [
        (Agent, EXAMPLES["agents-page.json"]["items"]),
        (Provider, EXAMPLES["llm-providers.json"]),
        (Model, EXAMPLES["llm-models-openai.json"]),
        (Message, EXAMPLES["thread.json"]),
        (Usage, [EXAMPLES["llm-usage.json"]]),
    ],
)
def test_the_other_objects_are_read(kind: Any, items: list[dict[str, Any]]) -> None:
    for item in items:
        for fields in variants(item):
            record = kind(fields)
            assert all(getattr(record, name) == fields.get(name) for name in kind.FIELDS)
            assert set(kind.FIELDS) <= set(dir(record))
            repr(record)


def test_a_record_says_which_field_it_lacks() -> None:
    with pytest.raises(AttributeError, match="Task has no field 'reslt'"):
        _ = Task({"id": "t"}).reslt
    assert Task({"id": "t"}) == Task({"id": "t"}) != Task({"id": "u"})
    assert Task({"new": 1})["new"] == 1


def test_the_invoke_fields_are_the_contracts() -> None:
    kinds = {"string": str, "object": dict, "array": list, "boolean": bool}
    for name, schema in SCHEMAS["InvokeRequest"]["properties"].items():
        types = schema.get("type", ["string"] if "anyOf" in schema else None)
        if name != "input":
            assert INVOKE_FIELDS[name] is kinds[types[0]], name
    assert set(INVOKE_FIELDS) == set(SCHEMAS["InvokeRequest"]["properties"])
    assert set(SCHEMAS["Task"]["properties"]) <= set(Task.FIELDS)
    assert set(SCHEMAS["Usage"]["properties"]) == set(Usage.FIELDS)
    assert set(SCHEMAS["Agent"]["properties"]) == set(Agent.FIELDS)


@pytest.mark.parametrize("status", ["completed", "failed", "error", "stopped"])
def test_ended(status: str) -> None:
    assert Task({"status": status}).ended
    assert not Task({"status": "paused", "finished_at": None}).ended
    assert not Task({"status": "executing", "finished_at": "2026-01-01T00:00:00Z"}).ended


def test_a_status_that_is_new_to_us_has_ended_once_it_has_an_end() -> None:
    assert not Task({"status": "cancelling"}).ended
    assert Task({"status": "cancelled", "finished_at": "2026-01-01T00:00:00Z"}).ended


def test_about() -> None:
    assert Event("chunk", "t", None, "x", {}).about == "t"
    assert Event("task_created", None, None, {"id": "t"}, {}).about == "t"
    assert Event("task_compactization", None, None, {"id": "no-task"}, {}).about is None


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2026-02-07T06:18:47.438043Z", 438043),
        ("2026-02-07T06:18:47.438Z", 438000),
        ("2026-02-07T06:18:47.4380431234Z", 438043),
        ("2026-02-07T06:18:47Z", 0),
        ("2026-02-07T06:18:47", 0),
        ("2026-02-07T07:18:47.5+01:00", 500000),
    ],
)
def test_times(text: str, microsecond: int) -> None:
    assert parse_time(text) == datetime(2026, 2, 7, 6, 18, 47, microsecond, tzinfo=timezone.utc)


@pytest.mark.parametrize("text", [None, 5, "", "soon", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00"])
def test_no_times(text: Any) -> None:
    assert parse_time(text) is None
