"""``Run``: one prompt sent once, and all that is known of it. No I/O.

The fields of ``Run`` are the DataFrame's columns. What the service says changes a run in two ways
only: ``apply_task`` and ``apply_usage``.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol

from xpander_magics.contract import SECRET_FIELDS, Event, Task, Usage, has_ended, id_from, model_in_full
from xpander_magics.errors import without_variables
from xpander_magics.safety import plain, without_user

if TYPE_CHECKING:
    from xpander_magics.store.sweeps import State

# Fields of the task that have a column of their own; the rest is ``metadata``.
_IN_COLUMNS = frozenset(
    {
        *("id", "status", "agent_id", "agent_version", "created_at", "started_at", "finished_at", "result"),
        *("llm_model_provider", "llm_model_name", "llm_reasoning_effort", "think_mode", "used_tools", "title"),
    }
)

# Counts of that size fit every database; no service counts further.
_LARGEST = 2**53
_LONGEST_STATUS = 100  # it is a part of an index


STREAMED = "streamed_text"
"""The key in ``metadata`` of what a task had written before it failed, where its result says something else."""


def new_run_id() -> str:
    """An id that no other run has: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def utc_now() -> datetime:
    """The time now, aware, in UTC."""
    return datetime.now(timezone.utc)


def parse_time(text: Any) -> datetime | None:
    """An ISO 8601 time of the service as an aware datetime in UTC; None for what is no time."""
    if not isinstance(text, str):
        return None
    try:
        # Python 3.10 reads neither a "Z" nor other than three or six digits of a second.
        whole, _, rest = text.replace("Z", "+00:00").partition(".")
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        fraction = f".{digits[:6]:0<6}" if digits else ""
        when = datetime.fromisoformat(whole + fraction + rest[len(digits) :])
        return when.replace(tzinfo=timezone.utc) if when.tzinfo is None else when.astimezone(timezone.utc)
    except (ValueError, OverflowError):  # the latter in the years 1 and 9999
        return None


class Actions(Protocol):
    """What a run can ask of the session that it came from."""

    def reply(self, run: Run, text: str) -> Run: ...
    def stop(self, run: Run) -> Run: ...
    def refresh(self, run: Run) -> Run: ...


@dataclass(eq=False, repr=False)
class Run:
    """One prompt sent once to an agent or a workflow, with its settings and its outcome.

    ``xp.run`` and ``%%xpander -o NAME`` give one, ``runs[0]`` is one of several. The attributes are
    the columns of the DataFrame, in their order. What isn't known is None.

    Attributes:
        run_id, sweep_id, task_id, thread_id: ids; ``thread_id`` is the conversation's.
        experiment, tags, note: as they were given.
        created_at, started_at, finished_at: by the service's clock, aware datetimes in UTC.
        target_kind, target_id, target, agent_version: what it was sent to; the kind is ``agent`` or
            ``workflow``.
        status: the task's own; before that ``planned``; ``failed`` for a run that surely started no
            task; ``unknown`` where the outcome could not be learnt.
        provider, model, effort, think_mode: what ran, where the answer says so, else what was asked.
        requested_provider, requested_model, requested_effort: what was asked.
        mode: ``stream``, ``sync`` or ``async``.
        prompt, template: the text that was sent, and what it was rendered from.
        result, output: the answer as text, and as parsed JSON if it is any.
        error, error_type: what went wrong, and the name of the error's kind.
        variables: what the template was rendered with.
        tools_used, metadata: the tools that the service names; the rest of the task as answered.
        repeat, attempts: which repeat it is, from 1; how often it was sent.
        prompt_tokens, completion_tokens, total_tokens, actions: counts.
        cost_usd, is_byok: US dollars, missing where the customer's own keys were used; whether so.
        latency_s, ttft_s: seconds by this machine's clock from sending to the end, to the first chunk.
        queue_s, server_s: seconds by the service's clock from created to started, to finished.
        title: the task's name.
        scores: a score by the name of its scorer; ``score_NAME`` in the frame. From here on the
            frame leaves the attributes out.
        request: the invoke body as sent, without its secrets.
        version: the agent's or workflow's version that was asked for.
        base_url: the service that it was sent to.
        cache_key: equal for runs that asked the same of the same target.
        sent_at: when the request left, or None while it surely hasn't.
        number: its place in its sweep's plan, from 0; None for a run of its own.
        events: the events of its stream, in this kernel only; of a sweep's run, those that tell what
            it did on the way: thoughts, tools, sub-agents.
        session: what it acts through; in this kernel only.
        reused: whether ``--cached`` gave it out again; in this kernel only.
        said: what its scoring has to say, in this kernel only: which score is missing, and why.
        stopping: whether its stop was asked for, so that an interrupt stops it, too, and doesn't
            leave it; in this kernel only.
        unkept: whether the store couldn't be written when it last changed; in this kernel only.

    Example:
        >>> run = xp.run("Say hi to {{ name }}.", target="writer", variables={"name": "Ada"})
        >>> run
        Run('...', target='writer', status='completed', result='Hi Ada!')
        >>> run.reply("And to Grace.").result
        'Hi Grace!'
    """

    run_id: str = field(default_factory=new_run_id)
    sweep_id: str | None = None
    experiment: str | None = None
    task_id: str | None = None
    thread_id: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    target_kind: str | None = None
    status: str = "planned"
    target_id: str | None = None
    target: str | None = None
    agent_version: str | None = None
    provider: str | None = None
    model: str | None = None
    effort: str | None = None
    think_mode: str | None = None
    requested_provider: str | None = None
    requested_model: str | None = None
    requested_effort: str | None = None
    mode: str | None = None
    prompt: str | None = None
    template: str | None = None
    result: str | None = None
    error: str | None = None
    error_type: str | None = None
    output: Any = None
    variables: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    tools_used: list[Any] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    repeat: int | None = None
    attempts: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    actions: int | None = None
    cost_usd: float | None = None
    is_byok: bool | None = None
    latency_s: float | None = None
    ttft_s: float | None = None
    queue_s: float | None = None
    server_s: float | None = None
    title: str | None = None
    note: str | None = None

    scores: dict[str, float] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    version: str | None = None
    base_url: str | None = None
    cache_key: str | None = None
    sent_at: datetime | None = None
    number: int | None = None
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        # No fields: a copy of a run, in another process perhaps, has none of this kernel's connections.
        self.session: Actions | None = None
        self.reused = False
        self.said = ""
        self.stopping = False
        self.unkept = False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "session": None}

    def __repr__(self) -> str:
        model = model_in_full(self.provider, self.model)
        shown = {"target": self.target, "model": model, "effort": self.effort, "status": self.status}
        facts = "".join(f", {name}={value!r}" for name, value in shown.items() if value is not None)
        result = self.result if self.result is None or len(self.result) <= 60 else f"{self.result[:59]}…"
        return plain(f"Run({self.run_id[:8]!r}{facts}, result={result!r})")

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it. A ``paused`` run hasn't ended: it waits for a person."""
        return has_ended(self.status, self.finished_at)

    def apply_task(self, task: Task) -> None:
        """Takes over what the service says of the task; what it leaves out stays as it was."""
        raw = task.raw
        self.status = (_text(raw.get("status")) or self.status)[:_LONGEST_STATUS]
        self.task_id = self.task_id or id_from(raw.get("id"))  # a run has one task, whatever a later answer says
        self.thread_id = self.thread_id or self.task_id
        self.target_id = _text(raw.get("agent_id")) or self.target_id
        self.agent_version = _text(raw.get("agent_version")) or self.agent_version
        self.created_at = parse_time(raw.get("created_at")) or self.created_at
        self.started_at = parse_time(raw.get("started_at")) or self.started_at
        self.finished_at = parse_time(raw.get("finished_at")) or self.finished_at
        self.queue_s = _seconds(raw.get("created_at"), raw.get("started_at"), self.queue_s)
        self.server_s = _seconds(raw.get("started_at"), raw.get("finished_at"), self.server_s)
        self.provider = _text(raw.get("llm_model_provider")) or self.provider
        self.model = _text(raw.get("llm_model_name")) or self.model
        self.effort = _text(raw.get("llm_reasoning_effort")) or self.effort
        self.think_mode = _text(raw.get("think_mode")) or self.think_mode
        self.title = _text(raw.get("title")) or self.title
        self.result = _text(raw["result"]) if raw.get("result") is not None else self.result
        tools = raw.get("used_tools")
        self.tools_used = list(tools) if tools and isinstance(tools, list) else self.tools_used
        tokens = raw.get("tokens")
        if isinstance(tokens, dict):
            self._count(tokens, "prompt_tokens", "completion_tokens", "total_tokens")
        rest = {key: value for key, value in raw.items() if key not in _IN_COLUMNS}
        self.metadata = {**self.metadata, **without_secret_fields(rest)}

    def apply_usage(self, usage: Usage) -> None:
        """Takes over what the service says was used, and what it cost."""
        self._count(usage.raw, "input_tokens", "output_tokens", "tokens")
        actions, cost = _number(usage.actions), _number(usage.cost)
        self.actions = self.actions if actions is None else int(actions)
        self.is_byok = usage.is_byok if isinstance(usage.is_byok, bool) else self.is_byok
        # With the customer's own keys a cost of 0 says nothing of what was paid.
        self.cost_usd = None if self.is_byok and not cost else cost

    def _count(self, counts: dict[str, Any], prompt: str, completion: str, total: str) -> None:
        for name, key in (("prompt_tokens", prompt), ("completion_tokens", completion), ("total_tokens", total)):
            value = _number(counts.get(key))
            if value is not None:
                setattr(self, name, int(value))

    @without_variables
    def reply(self, text: str) -> Run:
        """Goes on with this conversation: ``text`` is sent in its thread, with the same settings.

        Args:
            text: sent as it is, not as a template.

        Returns:
            The new run, ended.

        Raises:
            XpanderError: as ``xp.run``; ConfigError where this run has no conversation.

        Example:
            >>> run.reply("And to Grace.").result
            'Hi Grace!'
        """
        return self._session().reply(self, text)

    @without_variables
    def stop(self) -> Run:
        """Asks the service to stop the task; a finished one stays as it is.

        Returns:
            This run, as it stands then.

        Raises:
            ConfigError: it has no task, was sent to another service, or its conversation has gone on.
            ServiceError: the service can't be asked.
        """
        return self._session().stop(self)

    @without_variables
    def refresh(self) -> Run:
        """Asks the service how the task stands, and what it used.

        Returns:
            This run, as it stands now; kept so in the store.

        Raises:
            ConfigError: it was sent to another service, or its conversation went on before it had ended.
            ServiceError: the service can't be asked.

        Example:
            >>> run.refresh().cost_usd
            0.01
        """
        return self._session().refresh(self)

    def _session(self) -> Actions:
        if self.session is None:
            from xpander_magics.session import default_session

            self.session = default_session()
        return self.session

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from xpander_magics.showing.display import run_bundle

        return run_bundle(self)


LOST = ("failed", "error", "stopped", "unknown")
"""The statuses of runs that ended without an answer."""


def has_failed(run: Run | State) -> bool:
    """Whether a run ended without an answer that can be used."""
    return run.status in LOST or run.error_type is not None


def without_secret_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """The same fields with the values of those that hold secrets replaced; MCP servers keep their names."""
    kept = dict(fields)
    given = kept.get("input")
    if isinstance(given, dict) and isinstance(given.get("files"), list):
        kept["input"] = {**given, "files": [without_user(f) if isinstance(f, str) else f for f in given["files"]]}
    for name in SECRET_FIELDS:
        value = kept.get(name)
        if name == "mcp_servers" and isinstance(value, list):
            kept[name] = [{"name": s.get("name"), "config": "***"} if isinstance(s, dict) else "***" for s in value]
        elif value:
            kept[name] = "***"
    return kept


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _number(value: Any) -> float | None:
    """A count or an amount of the service's; None for what is none."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < _LARGEST else None


def _seconds(start: Any, end: Any, otherwise: float | None) -> float | None:
    first, last = parse_time(start), parse_time(end)
    return (last - first).total_seconds() if first and last else otherwise
