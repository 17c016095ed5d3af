"""Effort and think mode change what is done."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from xpander_magics.local.effort import normalised


def run(api: Any, **fields: Any) -> tuple[Counter[str], dict[str, Any], list[dict[str, Any]]]:
    events = list(api.stream("echo", "word", script={"chunks": 1}, **fields))
    return Counter(event["type"] for event in events), events[-1]["data"], events


@pytest.mark.parametrize(
    ("fields", "answers", "think", "analyze"),
    [
        ({}, 1, 0, 0),
        ({"llm_reasoning_effort": "low"}, 1, 0, 0),
        ({"llm_reasoning_effort": "medium"}, 2, 1, 0),
        ({"llm_reasoning_effort": "high"}, 6, 3, 1),
        ({"llm_reasoning_effort": "xhigh"}, 10, 5, 1),
        ({"think_mode": "harder"}, 3, 1, 1),
        ({"think_mode": "harder", "llm_reasoning_effort": "medium"}, 4, 2, 1),
        ({"think_mode": "harder", "llm_reasoning_effort": "high"}, 8, 4, 2),
    ],
)
def test_the_passes(api: Any, fields: dict[str, str], answers: int, think: int, analyze: int) -> None:
    counts, task, events = run(api, **fields)
    assert task["result"] == "word"
    assert (counts["think"], counts["analyze"]) == (think, analyze)
    assert "".join(e["data"] for e in events if e["type"] == "chunk") == "word"
    assert task["tokens"]["completion_tokens"] == answers, "one word each, all passes counted"
    assert task["llm_reasoning_effort"] == fields.get("llm_reasoning_effort")
    assert task["think_mode"] == fields.get("think_mode", "default")


def test_a_vote_is_told(api: Any) -> None:
    _, _, events = run(api, llm_reasoning_effort="high")
    assert next(e for e in events if e["type"] == "analyze")["data"] == "3 answers: 3 for 'word'"


def test_a_failing_pass_fails_the_task(api: Any) -> None:
    task = api.invoke("echo", "x", llm_reasoning_effort="high", script={"fail": "no"})
    assert (task["status"], task["result"]) == ("failed", "no")


def test_answers_are_compared_by_what_they_say() -> None:
    assert normalised(" Bug. ") == normalised("bug") != normalised("billing")
    assert normalised('{"a": 1, "b": "X"}') == normalised('{ "b":"x","a":1 }')
