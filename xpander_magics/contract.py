"""The service's objects as it sends them, and the fields that it takes. No I/O.

Answers are read as they are: a field that is missing or null reads as None, one that this package
has never heard of is kept in ``raw`` and is an attribute like the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from xpander_magics.errors import ConfigError
from xpander_magics.safety import Secret, is_secret_name, plain, secrets_of_url, strings_in

ENDED = frozenset({"completed", "failed", "error", "stopped"})
"""The statuses that end a task. ``paused`` waits for a person: neither an end nor progress."""

WAITING = frozenset({"pending", "executing", "paused"})
"""The statuses of a task that may still change."""

TASK_EVENTS = frozenset({"task_created", "task_updated", "task_finished"})
"""The events whose data is a task."""

EFFORTS = ("low", "medium", "high", "xhigh")
THINK_MODES = ("default", "harder")
FORMATS = ("text", "markdown", "json", "voice")
MODES = ("stream", "sync", "async")

INVOKE_FIELDS: dict[str, type] = {
    "input": dict,
    "id": str,
    "llm_model_provider": str,
    "llm_model_name": str,
    "llm_reasoning_effort": str,
    "think_mode": str,
    "output_format": str,
    "output_schema": dict,
    "instructions_override": str,
    "additional_context": str,
    "expected_output": str,
    "title": str,
    "payload_extension": dict,
    "mcp_servers": list,
    "source": str,
    "parent_execution_id": str,
    "triggering_agent_id": str,
    "worker_id": str,
    "run_locally": bool,
    "events_streaming": bool,
    "disable_attachment_injection": bool,
    "return_metrics": bool,
    "user_tokens": dict,
    "user_oidc_token": str,
    "test_run_node_id": str,
}
"""Each field of the invoke body with the Python type of its JSON value."""

_LONGEST_ID = 255  # no index of a database takes much more

SECRET_FIELDS = ("user_tokens", "user_oidc_token", "mcp_servers")
"""Fields whose values are for the service alone: never kept, never shown."""


class Record:
    """One JSON object of the service: its fields as attributes, the whole as ``raw``.

    Attributes:
        raw: the whole, as it was answered.
    """

    FIELDS: ClassVar[tuple[str, ...]] = ()
    raw: dict[str, Any]

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = dict(raw)

    def __getattr__(self, name: str) -> Any:
        raw: dict[str, Any] = self.__dict__.get("raw", {})
        if name in raw or name in self.FIELDS:
            return raw.get(name)
        raise AttributeError(f"{type(self).__name__} has no field {name!r}")

    def __getitem__(self, name: str) -> Any:
        return self.raw[name]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Record) and other.raw == self.raw

    __hash__ = None  # type: ignore[assignment]  # raw is a dict, and may change

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.FIELDS, *self.raw]

    def __repr__(self) -> str:
        shown = {name: self.raw.get(name) for name in self.FIELDS[:3]}
        return plain(f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})")


def has_ended(status: Any, finished_at: Any) -> bool:
    """Whether nothing more will come of a task; one with a status that is new to us has ended once it has an end."""
    return status in (*ENDED,) or (bool(finished_at) and status not in (*WAITING, None))


def model_in_full(provider: Any, model: Any) -> str | None:
    """``PROVIDER/MODEL``, as far as either is known; None where neither is."""
    return "/".join(str(part) for part in (provider, model) if part) or None


def id_from(value: Any) -> str | None:
    """A task's id as text; None for what can't be one: as a part of a path it would name another endpoint."""
    text = "" if value is None else str(value)
    return text if text.strip(". ") and len(text) <= _LONGEST_ID else None


class Task(Record):
    """One execution of an agent or a workflow, as every invoke, Get Task and Stop answer it.

    Its attributes are the fields of the service's contract, ``dir(task)`` lists them: ``id``,
    ``status``, ``result``, ``agent_id``, … One that is missing is None. Times are ISO 8601 strings
    in UTC, ``duration`` is in seconds, ``tokens`` holds ``prompt_tokens``, ``completion_tokens`` and
    ``total_tokens``.

    Attributes:
        raw: the whole, as it was answered.

    Example:
        >>> task = client.invoke("writer", "Say hi to Ada.")
        >>> task.status, task.result, task.ended
        ('completed', 'Hi Ada!', True)
    """

    FIELDS = (
        *("id", "status", "agent_id", "organization_id", "input", "internal_status"),
        *("last_executed_node_id", "agent_version", "created_at", "started_at", "paused_at", "finished_at"),
        *("result", "parent_execution", "sub_executions", "finished_sub_executions"),
        *("is_manually_stopped", "payload_extension", "hitl_request", "pending_eca_request", "source"),
        *("worker_id", "additional_context", "instructions_override", "expected_output", "output_format"),
        *("output_schema", "voice_id", "events_streaming", "used_mutating_tools", "is_continuous"),
        *("is_orchestration", "mcp_servers", "triggering_agent_id", "title", "think_mode"),
        *("disable_attachment_injection", "deep_planning", "execution_attempts", "return_metrics"),
        *("tokens", "used_tools", "duration", "llm_model_provider", "llm_model_name", "llm_reasoning_effort"),
    )

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it; ``paused`` is no end."""
        return has_ended(self.raw.get("status"), self.raw.get("finished_at"))


class Agent(Record):
    """An agent or a workflow, as ``client.agents()`` and ``client.workflows()`` list them.

    Attributes:
        kind: ``agent`` or ``workflow``.
        raw: the whole, as it was answered.
    """

    FIELDS = (
        *("id", "name", "status", "unique_name", "description", "icon", "type", "organization_id"),
        *("deployment_type", "created_at", "model_provider", "model_name", "llm_reasoning_effort"),
        *("framework", "output_format", "version"),
    )

    def __init__(self, raw: Mapping[str, Any], kind: str = "agent") -> None:
        super().__init__(raw)
        self.kind = kind


class Provider(Record):
    """A provider of models; ``internal_identifier`` is the name to write before the slash."""

    FIELDS = ("internal_identifier", "name", "description", "id", "logo")


class Model(Record):
    """A model of a provider; ``model_id`` is the name to write after the slash."""

    FIELDS = ("model_id", "display_name", "tier", "description")


class Usage(Record):
    """What a task used. ``cost`` is in US dollars, without the executions on the customer's own keys."""

    FIELDS = ("task_id", "tokens", "cost", "input_tokens", "output_tokens", "actions", "is_byok")


class Message(Record):
    """One message of a conversation; ``created_at`` is in seconds since the epoch."""

    FIELDS = ("role", "content", "id", "created_at", "metrics", "tool_calls")


@dataclass(frozen=True, repr=False)
class Event:
    """One event of a stream, as ``client.stream`` yields it.

    Attributes:
        type: such as ``chunk``, ``think`` or ``task_finished``; kept as sent, known or not.
        task_id: the task that it tells of, perhaps a sub-task; None where the event names none.
        time: ISO 8601, as sent; None where the event names none.
        data: text for ``chunk`` and ``think``, a task's fields for ``task_*``, else as sent.
        raw: the whole event.

    Example:
        >>> events = list(client.stream("writer", "Say hi to Ada."))
        >>> "".join(event.data for event in events if event.type == "chunk")
        'Hi Ada!'
    """

    type: str
    task_id: str | None
    time: str | None
    data: Any
    raw: dict[str, Any]

    def __repr__(self) -> str:
        return plain(f"Event(type={self.type!r}, task_id={self.task_id!r}, time={self.time!r}, data={self.data!r})")

    @property
    def about(self) -> str | None:
        """The id of the task that it tells of, wherever it stands."""
        told = self.data.get("id") if self.type in TASK_EVENTS and isinstance(self.data, dict) else None
        return self.task_id or id_from(told)


def sendable(what: str, value: Any) -> str:
    """The value as the JSON that is sent; ``what`` it is, for the error.

    Raises:
        ConfigError: JSON can't hold it.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{what} can't be sent as JSON: {str(error).rstrip('.')}.") from None


def secrets_in(fields: Mapping[str, Any]) -> list[str]:
    """The secret values in those fields of an invoke body that are for the service alone, and in files' addresses.

    Args:
        fields: those of ``input`` may stand beside the others.
    """
    tokens = [*strings_in(list((fields.get("user_tokens") or {}).values())), fields.get("user_oidc_token") or ""]
    given = fields.get("input")
    files = strings_in([fields.get("files"), given.get("files") if isinstance(given, Mapping) else None])
    urls = [secret for url in files for secret in secrets_of_url(url)]
    return [*map(Secret, (*tokens, *_secret_settings(fields.get("mcp_servers")))), *urls]


def _secret_settings(value: Any, *, all_of_it: bool = False) -> list[str]:
    """The values in an MCP server's configuration that are secret by their names, or within an address."""
    if isinstance(value, Mapping):
        found = []
        for name, inner in value.items():
            secret = all_of_it or name in ("headers", "env") or is_secret_name(str(name))
            found += _secret_settings(inner, all_of_it=secret)
        return found
    if isinstance(value, list):
        found, secret = [], all_of_it
        for inner in value:
            found += _secret_settings(inner, all_of_it=secret)
            named = isinstance(inner, str) and inner.startswith("-") and "=" not in inner and is_secret_name(inner)
            secret = all_of_it or named  # as on a command line: --api-key VALUE
        return found
    if not isinstance(value, str):
        return []
    option, equals, given = value.partition("=")
    found = secrets_of_url(value)
    if all_of_it:
        found += [value, value.partition(" ")[2]] if value.lower().startswith(("bearer ", "basic ")) else [value]
    elif equals and option.startswith("-") and is_secret_name(option):
        found.append(given)
    return found
