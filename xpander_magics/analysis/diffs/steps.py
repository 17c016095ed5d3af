"""What a run did on the way to its answer: thoughts, tool calls, work handed to sub-agents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xpander_magics.contract import ENDED, Event
from xpander_magics.safety import as_shown, plain

_LONGEST = 4_000
_LANES = {
    "think": "thought",
    "analyze": "thought",
    "tool_call_request": "tool",
    "tool_call_result": "tool",
    "sub_agent_trigger": "agent",
    "sub_task_created": "agent",
    "sub_task_finished": "agent",
}


def steps(events: Iterable[Event]) -> list[dict[str, Any]]:
    """What a run did on its way, in order: thoughts, tool calls with their results, work handed to sub-agents.

    Returns:
        For each step its ``lane`` (``thought``, ``tool``, ``agent``), ``name``, ``text``, and ``ok``: whether it
        went well, None where that isn't known.
    """
    found: list[dict[str, Any]] = []
    calls: dict[str, dict[str, Any]] = {}
    for event in events:
        lane = _LANES.get(event.type)
        data = event.data if isinstance(event.data, dict) else {}
        # A call's id is another one each time, and tells a person nothing.
        told = {name: value for name, value in data.items() if name != "tool_call_id"} or event.data
        text = plain(as_shown(told))[:_LONGEST]
        if lane is None:
            continue
        call = str(data.get("tool_call_id") or "")
        if event.type == "tool_call_result" and call in calls:
            calls[call]["text"] += f"\n{text}"
            calls[call]["ok"] = _succeeded(data)
        elif lane == "thought" and found and found[-1]["lane"] == "thought" and found[-1]["name"] == event.type:
            found[-1]["text"] += text  # thoughts, too, come in pieces
        else:
            step = {"lane": lane, "name": _step_name(event, data), "text": text, "ok": _succeeded(data)}
            found.append(step)
            if call:
                calls[call] = step
    return found


def _succeeded(data: dict[str, Any]) -> bool | None:
    told = data.get("is_success")
    if isinstance(told, bool):
        return told
    status = data.get("status")
    return status == "completed" if status in (*ENDED,) else None


def _step_name(event: Event, data: dict[str, Any]) -> str:
    if _LANES[event.type] == "thought":
        return event.type
    keys = ("tool_name", "name", "agent_name", "title", "agent_id", "id")
    name = next((str(data[key]) for key in keys if data.get(key)), "")
    verb = {"sub_task_created": "began", "sub_task_finished": "ended"}.get(event.type, "")
    return plain(f"{name or event.type} {verb}".strip())[:80]
