"""Tasks and threads, kept in memory. No model is called here.

A thread is named by the id of its tasks: a task that continues one has the same id, and takes the place of
the turn before it, as the service does. The turns stay in the thread.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from xpander_magics.contract import ENDED
from xpander_magics.local.agents import ORGANIZATION, Agent, Workflow
from xpander_magics.local.body import Invoke
from xpander_magics.local.effort import Tokens

MOST_TASKS = 20_000
MOST_UNDER_WAY = 10_000
MOST_BYTES = 400_000_000
"""Of what was sent and answered, all tasks together."""
MOST_UNREAD = 100_000
"""Events that a stream's reader may leave unread."""

_MOST_TURNS = 1_000

Events = asyncio.Queue[dict[str, Any] | None]


@dataclass(frozen=True)
class Choice:
    """The model that a task runs, and how hard."""

    provider: str
    model: str
    effort: str | None


@dataclass(eq=False)
class Task:
    """One execution.

    Attributes:
        history: the earlier turns that its model is shown: what was asked, what was answered.
        sent: the prompt with its attachments, as the model read it.
        speaks_for_parent: the last node of a workflow: its answer streams as the workflow's.
        settled: set when it ended, or waits for a person: when a synchronous call answers.
        job: what runs it.
        size: bytes of its request, and, once it ended, of what was read and written for it.
    """

    target: Agent | Workflow
    body: Invoke
    choice: Choice | None
    parent: Task | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "pending"
    internal_status: str | None = None
    last_node: str | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    started_at: datetime | None = None
    paused_at: datetime | None = None
    finished_at: datetime | None = None
    updated_at: datetime | None = None
    result: str | None = None
    history: list[tuple[str, str]] = field(default_factory=list)
    sent: str = ""
    children: list[Task] = field(default_factory=list)
    stopped: bool = False
    waits: dict[str, Any] = field(default_factory=dict)
    tokens: Tokens = field(default_factory=Tokens)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    speaks_for_parent: bool = False
    byok: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    job: asyncio.Task[None] | None = None
    size: int = 0
    _listeners: list[Events] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in ENDED

    @property
    def parent_id(self) -> str | None:
        """The task that it belongs to: of a workflow of ours, or as the caller said."""
        return self.parent.id if self.parent else self.body.parent_execution_id

    @property
    def output_format(self) -> str:
        """What the call asks for, else the agent; a schema by itself asks for JSON."""
        return self.body.output_format or ("json" if self.body.output_schema is not None else self.target.output_format)

    @property
    def output_schema(self) -> dict[str, Any] | None:
        """What the call asks for, else the agent."""
        if self.body.output_schema is not None or self.output_format != "json":
            return self.body.output_schema
        return self.target.output_schema if isinstance(self.target, Agent) else None

    @property
    def think_mode(self) -> str:
        """What the call asks for, else the agent."""
        return self.body.think_mode or self.target.think_mode

    def move(self, status: str) -> None:
        """Goes to a status that isn't an end."""
        now = datetime.now(timezone.utc)
        self.status, self.updated_at = status, now
        if status == "executing":
            self.started_at = self.started_at or now
            self.waits = {}
            self.settled.clear()
        if status == "paused":
            self.paused_at = now
            self.settled.set()
        self.tell("task_updated", self.as_json())

    def finish(self, status: str, result: str | None) -> None:
        """Ends it, unless it has ended."""
        if self.ended:
            return
        self.status, self.result, self.internal_status, self.waits = status, result, None, {}
        self.finished_at = self.updated_at = datetime.now(timezone.utc)
        self.tell("task_finished", self.as_json())
        self.settled.set()

    def tell(self, kind: str, data: Any) -> None:
        """Sends an event to those who listen to this task, or to the task that it is part of."""
        top = self
        while top.parent:
            top = top.parent
            kind = kind.replace("task_", "sub_task_", 1) if kind.startswith("task_") else kind
        event = {"type": kind, "task_id": self.id, "organization_id": ORGANIZATION, "time": iso(utc_now())}
        event["data"] = data
        for queue in tuple(top._listeners):
            if queue.qsize() < MOST_UNREAD:
                queue.put_nowait(event)
            else:
                top.unlisten(queue)
                queue.put_nowait(None)

    def listen(self) -> Events:
        """A queue of its events from now on; None ends it early, where too many were left unread."""
        queue: Events = asyncio.Queue()
        self._listeners.append(queue)
        return queue

    def unlisten(self, queue: Events) -> None:
        """Sends nothing more to a queue."""
        if queue in self._listeners:
            self._listeners.remove(queue)

    def as_json(self) -> dict[str, Any]:
        """The service's task object."""
        body = self.body
        return {
            "id": self.id,
            "agent_id": self.target.id,
            "organization_id": ORGANIZATION,
            "input": {"files": [], "user": None, **body.input.model_dump(exclude_unset=True)},
            "status": self.status,
            "internal_status": self.internal_status,
            "last_executed_node_id": self.last_node,
            "agent_version": str(self.target.version),
            "created_at": iso(self.created_at),
            "started_at": iso(self.started_at),
            "paused_at": iso(self.paused_at),
            "finished_at": iso(self.finished_at),
            "result": self.result,
            "parent_execution": self.parent_id,
            "sub_executions": [child.id for child in self.children],
            "finished_sub_executions": [child.id for child in self.children if child.ended],
            "is_manually_stopped": self.stopped,
            "payload_extension": body.payload_extension,
            "hitl_request": self.waits.get("hitl_request"),
            "pending_eca_request": self.waits.get("pending_eca_request"),
            "source": body.source or "api",
            "worker_id": body.worker_id,
            "additional_context": body.additional_context,
            "instructions_override": body.instructions_override,
            "expected_output": body.expected_output,
            "output_format": self.output_format,
            "output_schema": self.output_schema,
            "voice_id": None,
            "events_streaming": bool(body.events_streaming),
            "used_mutating_tools": False,
            "is_continuous": False,
            "is_orchestration": isinstance(self.target, Workflow),
            "mcp_servers": body.mcp_servers or [],
            "triggering_agent_id": body.triggering_agent_id,
            "title": body.title,
            "think_mode": self.think_mode,
            "disable_attachment_injection": bool(body.disable_attachment_injection),
            "deep_planning": None,
            "execution_attempts": 1,
            "return_metrics": bool(body.return_metrics),
            "tokens": self.tokens.as_json(),
            "used_tools": sorted({call["tool_name"] for call in self.tool_calls}),
            "duration": self._duration(),
            "llm_model_provider": self.choice.provider if self.choice else None,
            "llm_model_name": self.choice.model if self.choice else None,
            "llm_reasoning_effort": self.choice.effort if self.choice else None,
        }

    def summary(self) -> dict[str, Any]:
        """Its line in a list of tasks."""
        user = self.body.input.user
        return {
            "id": self.id,
            "agent_id": self.target.id,
            "user_id": user.id if user else None,
            "parent_task_id": self.parent_id,
            "triggering_agent_id": self.body.triggering_agent_id,
            "organization_id": ORGANIZATION,
            "status": self.status,
            "internal_status": self.internal_status,
            "created_at": iso(self.created_at),
            "updated_at": iso(self.updated_at or self.created_at),
            "source_node_type": self.body.source or "api",
            "result": self.result,
            "title": self.body.title,
        }

    def usage(self) -> dict[str, Any]:
        """What it used. Local models cost nothing; what a key of the user's cost isn't known: 0, as the service."""
        counts = self.tokens.as_json() or {}
        return {
            "task_id": self.id,
            "tokens": counts.get("total_tokens", 0),
            "input_tokens": counts.get("prompt_tokens", 0),
            "output_tokens": counts.get("completion_tokens", 0),
            "actions": len(self.tool_calls),
            "is_byok": self.byok,
            "cost": 0.0,
        }

    def _duration(self) -> float | None:
        if not self.started_at or not self.finished_at:
            return None
        return (self.finished_at - self.started_at).total_seconds()


class Tasks:
    """All tasks, newest last, and the turns of their threads.

    Args:
        most: tasks that are kept.
        most_bytes: of what was sent and answered.
    """

    def __init__(self, most: int = MOST_TASKS, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._under_way = 0
        self._tasks: dict[str, Task] = {}
        self._threads: dict[str, list[Task]] = {}

    def has_room(self, size: int) -> bool:
        """Whether one more may begin, once the oldest ended ones are forgotten where they take its place."""
        if self._bytes + size > self._most_bytes:
            self._forget(self._most, self._most_bytes * 9 // 10 - size)
        return self._under_way < MOST_UNDER_WAY and self._bytes + size <= self._most_bytes

    def add(self, task: Task) -> None:
        """Keeps a task that is under way; forgets the oldest ended ones beyond the bound."""
        self._tasks.pop(task.id, None)
        self._tasks[task.id] = task
        turns = self._threads.setdefault(task.id, [])
        turns.append(task)
        self._under_way += 1
        self._bytes += task.size - sum(turn.size for turn in turns[:-_MOST_TURNS])
        del turns[:-_MOST_TURNS]
        if len(self._tasks) > self._most:
            self._forget(self._most - max(1, self._most // 10), self._most_bytes)

    def ended(self, task: Task) -> None:
        """Counts what an ended task has come to; to be called once."""
        self._under_way -= 1
        if task in self.turns(task.id):
            came_to = len(task.sent) + len(task.result or "")
            task.size += came_to
            self._bytes += came_to

    def _forget(self, most: int, most_bytes: int) -> None:
        """Forgets the oldest ended tasks until no more are left: many at once, as looking for them takes time."""
        for key, kept in tuple(self._tasks.items()):
            if len(self._tasks) <= most and self._bytes <= most_bytes:
                return
            if kept.ended:
                self._bytes -= sum(turn.size for turn in self._threads.pop(key))
                del self._tasks[key]

    def get(self, task_id: str) -> Task | None:
        """The newest turn by that id."""
        return self._tasks.get(task_id)

    def newest(self) -> Iterator[Task]:
        """All of them, newest first."""
        return reversed(self._tasks.values())

    def turns(self, task_id: str) -> list[Task]:
        """The turns of a thread, oldest first."""
        return self._threads.get(task_id, [])

    def messages(self, task_id: str, *, full: bool = False) -> list[dict[str, Any]]:
        """A thread as the service answers it; ``full`` has the tool calls."""
        return [m for number, turn in enumerate(self.turns(task_id), 1) for m in _messages(turn, number, full)]


def _messages(turn: Task, number: int, full: bool) -> Iterator[dict[str, Any]]:
    created = int(turn.created_at.timestamp())
    yield {"id": f"{turn.id}_user_{number}", "role": "user", "content": turn.body.input.text, "created_at": created}
    if turn.status != "completed":
        return
    usage = turn.usage()
    answer = {
        "id": f"{turn.id}_agent_{number}",
        "role": "assistant",
        "content": turn.result,
        "created_at": int(turn.finished_at.timestamp()) if turn.finished_at else created,
        "metrics": {
            "input_tokens": usage["input_tokens"],
            "output_tokens": usage["output_tokens"],
            "total_tokens": usage["tokens"],
        },
    }
    yield {**answer, "tool_calls": list(turn.tool_calls)} if full else answer


def utc_now() -> datetime:
    """The time now, aware, in UTC."""
    return datetime.now(timezone.utc)


def iso(when: datetime | None) -> Any:
    """A time as the service writes it: UTC, with microseconds."""
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z") if when else None
