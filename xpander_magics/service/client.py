"""``Client``, the REST API by itself: calls that start tasks, in each of the three modes.

A call that starts a task carries a mark of ours in ``payload_extension``. Whatever happens to the
connection, the task is then found again by its id or by that mark, and never started twice.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timezone
from typing import Any

from xpander_magics import errors
from xpander_magics.contract import MODES, TASK_EVENTS, WAITING, Agent, Event, Task, id_from, sendable
from xpander_magics.limits import Deadline
from xpander_magics.results import new_run_id
from xpander_magics.service.bodies import MayLeave
from xpander_magics.service.calls import INPUT_FIELDS, MARK, Call, check_field
from xpander_magics.service.marks import LOOKS, Marks
from xpander_magics.service.resources import Resources, given, seconds
from xpander_magics.service.sse import ServerEvent, SSEDecoder
from xpander_magics.service.targets import Target
from xpander_magics.service.transport import may_pass

# The longest pause between two looks at a running task: where they go well, and where they fail.
_POLL_PAUSE, _TROUBLED_PAUSE = 5.0, 15.0


class Client(Resources):
    """The REST API by itself: no store, no DataFrame. Safe to use from many threads.

    Args:
        api_key: else ``XPANDER_API_KEY``, else the system's keyring.
        base_url: else ``XPANDER_BASE_URL``, else the public service.
        connect_timeout: seconds to connect.
        read_timeout: seconds between two pieces of an answer.
        timeout: seconds that one run may take, when a call names none.
        retries: how often a request is sent again at the most, where that is safe. A call that the
            service puts off (429, 503 with ``Retry-After``) is sent again until its deadline, unless
            this is 0.
        connections: how many connections are kept for reuse.
        rate_limit: requests a minute that the service allows; 100 when omitted, none on loopback; 0
            for none.

    Raises:
        AuthError: there is no key.
        ConfigError: the base URL can't be used, or a number is none of its kind.

    Example:
        >>> with xp.Client() as client:
        ...     [agent.name for agent in client.agents()]
        ...     client.invoke("writer", "Say hi to Ada.", llm_reasoning_effort="low").result
        ['writer', 'judge']
        'Hi Ada!'
    """

    search_pauses: Sequence[float] = LOOKS
    """Seconds before each look for a task whose start got no answer."""

    @functools.cached_property
    def marks(self) -> Marks:
        """Which task is whose."""
        return Marks(self, self.search_pauses)

    @errors.without_variables
    def prepare(
        self,
        target: str | Agent | Target,
        text: str,
        *,
        version: str | None = None,
        mark: str | None = None,
        **fields: Any,
    ) -> Call:
        """Checks and builds a call without sending it (names are looked up, which may ask the service).

        Args:
            target, text, version, fields: as for ``invoke``.
            mark: what the task is found again by; a new one when omitted.

        Raises:
            ConfigError, NotFoundError, InvalidRequestError: as ``invoke``.
        """
        resolved = self.directory.resolve(target)
        mark = mark or new_run_id()
        if not isinstance(text, str):
            raise errors.ConfigError(f"The prompt is a string, not a {type(text).__name__}.")
        body: dict[str, Any] = {"input": {}}
        for name, value in given(**fields).items():
            check_field(name, value)
            if name in INPUT_FIELDS or name == "input":
                body["input"].update(value if name == "input" else {name: value})
            else:
                body[name] = value
        body["input"]["text"] = text
        body["payload_extension"] = {**body.get("payload_extension", {}), MARK: mark}
        sendable("A field", body)
        return Call(resolved, body, version, mark)

    @errors.without_variables
    def invoke(
        self,
        target: str | Agent | Target,
        text: str,
        *,
        mode: str = "sync",
        wait: bool = True,
        version: str | None = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> Task:
        """Runs an agent or a workflow, and waits for its end.

        Args:
            target: an agent's or workflow's name, unique name or id, as in a cell; or one that was
                listed.
            text: the prompt, sent as it is.
            mode: ``sync`` (one request that lasts as long as the task), ``async`` (start, then poll) or
                ``stream``.
            wait: with False and ``async``, returns the pending task at once.
            version: a version, ``latest`` or ``draft``; as the service thinks best when omitted.
            timeout: seconds that it all may take; the client's own when omitted.
            fields: fields of the invoke body by their own names, such as ``llm_model_name``; ``files``
                and ``user`` go into ``input``. Those that are None are not sent.

        Returns:
            The task, ended or paused; look at its ``status``.

        Raises:
            ConfigError: a field has a value of the wrong type, or a name close to a known one.
            NotFoundError, InvalidRequestError: no such target, or it isn't ACTIVE.
            ServiceError: another of its kinds. With ``maybe_sent`` the task may be running all the same.

        Example:
            >>> task = client.invoke("writer", "Say hi to Ada.", mode="async", timeout=60)
            >>> task.result
            'Hi Ada!'
        """
        call = self.prepare(target, text, version=version, **fields)
        deadline = self.deadline(timeout)
        if mode == "async" and not wait:
            return self._start(call, deadline, mode)
        task: Task | None = None
        with closing(self.events(call, deadline, mode)) as events:
            for event in events:
                # A sub-agent's task has events of its own in the stream.
                if event.type in TASK_EVENTS and isinstance(event.data, dict) and (not task or event.about == task.id):
                    task = Task({"id": event.about, **(task.raw if task else {}), **event.data})
                    if task.status == "paused":
                        break
        assert task is not None, "every stream of events ends with a task"
        return task

    @errors.without_variables
    def stream(
        self,
        target: str | Agent | Target,
        text: str,
        *,
        version: str | None = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> Generator[Event]:
        """Runs an agent or a workflow and yields its events as they come.

        The last event is ``task_finished``. Where the connection is cut, the task is followed by Get
        Task instead, and that event is made from its answer.

        Args:
            target, text, version, timeout, fields: as for ``invoke``.

        Returns:
            An iterator of events with ``type``, ``task_id``, ``time``, ``data`` and ``raw``.

        Raises:
            ConfigError, NotFoundError, InvalidRequestError: as ``invoke``, at once.
            ServiceError: another of its kinds, while it is iterated.

        Example:
            >>> for event in client.stream("writer", "Say hi to Ada."):
            ...     if event.type == "chunk":
            ...         print(event.data, end="")
            Hi Ada!
        """
        call = self.prepare(target, text, version=version, **fields)
        return errors.forgetful(self.events(call, self.deadline(timeout)))

    def deadline(self, timeout: float | None = None) -> Deadline:
        """The end of a call that starts now and may take ``timeout`` seconds; else the client's own."""
        return Deadline(self.timeout if timeout is None else seconds("timeout", timeout))

    def wait_turn(self, call: Call, deadline: Deadline) -> None:
        """Waits until a call may be sent, where ``pace`` has set a rate; that puts off its deadline.

        Sending a call does this, too. Whoever measures how long the call takes does it before.
        """
        if not call.has_turn:
            deadline.extend(self._http.pacer.wait(deadline=deadline))
            deadline.check()
            call.has_turn = True

    def events(self, call: Call, deadline: Deadline, mode: str = "stream") -> Generator[Event]:
        """Sends a call in any mode and yields its events, to ``task_finished``.

        What the service doesn't stream is made from its answers: ``task_created``, ``task_updated``
        whenever the status changes, and ``task_finished``.
        """
        if mode not in MODES:
            raise errors.ConfigError(f"There is no mode {mode!r}. Choose one of {', '.join(MODES)}.")
        if mode == "stream":
            return self._streamed(call, deadline)
        return self._followed(lambda: self._start(call, deadline, mode), deadline)

    def _leave(self, call: Call, deadline: Deadline) -> MayLeave | None:
        """Called before each time that a call is sent."""
        self.wait_turn(call, deadline)
        call.has_turn = False
        if call.on_leave is not None:
            call.on_leave()
        call.attempts += 1
        call.sent_at = call.sent_at or datetime.now(timezone.utc)
        return call.may_leave

    def _start(self, call: Call, deadline: Deadline, mode: str) -> Task:
        """Sends a call with ``sync`` or ``async``; a start without an answer is looked for by its mark."""
        try:
            return self.task_from(
                self._http.json(
                    "POST",
                    f"{call.target.path}/invoke" + ("/async" if mode == "async" else ""),
                    params=given(version=call.version),
                    body=call.body,
                    deadline=deadline,
                    on_attempt=functools.partial(self._leave, call, deadline),
                    patient=mode == "sync",
                    paced=False,
                )
            )
        except errors.ServiceError as error:
            return self._recover(call, deadline, error)

    def _streamed(self, call: Call, deadline: Deadline) -> Generator[Event]:
        task_id: str | None = None
        begin: Callable[[], Task] | None = None
        lost: errors.ServiceError = errors.ConnectionFailed("The stream ended before it named a task.", maybe_sent=True)
        try:
            response = self._http.open(
                f"{call.target.path}/invoke/stream",
                params=given(version=call.version),
                body=call.body,
                deadline=deadline,
                on_attempt=functools.partial(self._leave, call, deadline),
            )
            with closing(response):
                if "json" in response.headers.get("Content-Type", ""):
                    # A server that doesn't stream this one answers with the task itself.
                    task = self.task_from(self._http.parsed(response, deadline))
                    begin = functools.partial(_same, task)
                for event in () if begin else self._sent(response, deadline):
                    task_id = task_id or event.about
                    if event.type == "task_finished" and event.about in (None, task_id):
                        if not _tells_end(event):
                            break  # Get Task makes it whole
                        yield event
                        self._http.finish(response)
                        return
                    yield event
        except errors.ServiceError as error:
            lost = error
        if begin is None and task_id is not None:
            yield from self.follow(task_id, deadline)
        else:
            yield from self._followed(begin or functools.partial(self._recover, call, deadline, lost), deadline)

    def _sent(self, response: Any, deadline: Deadline) -> Iterator[Event]:
        """The events that a response holds, until it ends or is cut."""
        decoder = SSEDecoder()
        for piece in self._http.pieces(response, deadline):
            yield from map(_event, decoder.feed(piece))

    def _followed(self, begin: Callable[[], Task], deadline: Deadline, *, known: bool = False) -> Generator[Event]:
        """The events of a task that is polled, from its first answer to its end."""
        task = begin()
        if not known:
            yield _as_event("task_created", task)
        pauses, status = poll_pauses(), None
        while not task.ended:
            if task.status != status:
                status = task.status
                yield _as_event("task_updated", task)
            task = self._poll(task.id, deadline, next(pauses) * random.uniform(0.8, 1.2))
        yield _as_event("task_finished", task)

    def _poll(self, task_id: str, deadline: Deadline, pause: float = 0.0) -> Task:
        """A task after a pause. It runs and costs, so trouble that may pass ends the looking only at the deadline."""
        growing = 0.25
        while True:
            deadline.check(maybe_sent=True)
            deadline.sleep(pause)
            # The task runs meanwhile, so waiting for the turn doesn't put off its time limit.
            self._http.pacer.wait(deadline.left(), deadline)
            try:
                return self.task(task_id, deadline=deadline, paced=False, retries=0)
            except errors.ServiceError as error:
                if not may_pass(error):
                    raise
                growing = min(growing * 2, _TROUBLED_PAUSE)
                pause = max(growing, error.retry_after or 0.0) * random.uniform(1.0, 1.2)

    def _recover(self, call: Call, deadline: Deadline, error: errors.ServiceError) -> Task:
        """The task of a call whose answer was lost; raises ``error`` again where there is none."""
        if not error.maybe_sent:
            raise error
        task = self.find(call, deadline)
        if task is None:
            raise error
        return task

    def follow(self, task_id: str, deadline: Deadline, found: Task | None = None) -> Generator[Event]:
        """The events of a task that was started before, made from what Get Task answers.

        Args:
            found: the task as it was just now; asked for when omitted.
        """
        begin = functools.partial(self._poll, task_id, deadline) if found is None else functools.partial(_same, found)
        return self._followed(begin, deadline, known=True)

    def find(self, call: Call, deadline: Deadline, *, once: bool = False) -> Task | None:
        """Looks for the task that a call started, by its mark; None where it doesn't show up.

        No request of this waits for its turn: a kernel that was interrupted leaves it a second.

        Args:
            once: looks once, for a call that was sent a while ago.
        """
        return self.marks.find(call, deadline, once=once)


def poll_pauses() -> Iterator[float]:
    """Seconds between two looks at a running task: short ones soon, then longer ones."""
    pause = 0.15
    while True:
        yield pause
        pause = min(pause * 1.5, _POLL_PAUSE)


def _event(sent: ServerEvent) -> Event:
    """An event of the contract, its type under either spelling; text that is no JSON object is kept as data."""
    try:
        raw = json.loads(sent.data)
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict):
        return Event(sent.event, None, None, sent.data, {"event": sent.event, "data": sent.data})
    kind = raw.get("type") or raw.get("event") or sent.event
    return Event(str(kind), id_from(raw.get("task_id")), raw.get("time"), raw.get("data"), raw)


def _tells_end(event: Event) -> bool:
    """Whether a last event says how its task ended."""
    status = event.data.get("status") if isinstance(event.data, dict) else None
    return bool(status) and status not in (*WAITING,)


def _as_event(kind: str, task: Task) -> Event:
    """An event that the stream should have sent, from what Get Task answers."""
    raw = {"type": kind, "task_id": task.id, "time": task.finished_at, "data": task.raw}
    return Event(kind, task.id, task.finished_at, task.raw, raw)


def _same(task: Task) -> Task:
    return task
