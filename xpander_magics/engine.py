"""One run, from the store through the service and back. No IPython.

The order keeps what was paid for: a run is in the store before it is sent, its task's id as soon as
that is known, and its outcome before anybody is told of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from xpander_magics import errors
from xpander_magics.client import Client
from xpander_magics.contract import Event, Task
from xpander_magics.plan import Plan
from xpander_magics.results import Run, utc_now
from xpander_magics.safety import StreamRedactor
from xpander_magics.schemas import check, parse_json
from xpander_magics.store import Store
from xpander_magics.transport import Deadline

Listener = Callable[[Run, Event, str], None]
"""Called with each event: the run as it then stands, the event, and the answer's new text."""

# An interrupted kernel should answer within two seconds; a timed-out run may take a little longer.
_STOP_WHEN_INTERRUPTED = 1.5
_STOP_WHEN_TIMED_OUT = 10.0


class Engine:
    """Sends planned runs with one client, and keeps them in one store.

    Args:
        pause_wait: seconds to wait for a person where a task is paused; then the run is returned as
            it stands, ``paused``.
    """

    def __init__(self, client: Client, store: Store, *, pause_wait: float = 30.0) -> None:
        self._client = client
        self._store = store
        self._pause_wait = pause_wait

    def run(self, plan: Plan, listen: Listener | None = None) -> Run:
        """Sends a plan and waits for its end.

        Returns:
            The run: ``completed``, or ``paused`` where it waits for a person.

        Raises:
            TaskFailed: the task ended in another way.
            SchemaError: the answer breaks its schema.
            ServiceError: the service, or the way to it, said no; Timeout when it took too long.
            StoreError: the run can't be kept (nothing was sent), or its outcome can't.
            Interrupted: the kernel was interrupted.
            All but the first StoreError carry the ``run``.
        """
        self._store.add([plan.run])
        return _Execution(self._client, self._store, plan, listen, self._pause_wait).run()

    def refresh(self, run: Run, redact: Callable[[Any], Any], *, usage: bool = True) -> Run:
        """Asks how the task of a run stands and what it used, and keeps that."""
        if run.task_id is None:
            return run
        run.apply_task(Task(redact(self._client.task(run.task_id).raw)))
        if run.ended:
            _read_output(run)
            if usage:
                self.read_usage(run)
        self._store.update(run)
        return run

    def read_usage(self, run: Run) -> None:
        """Asks what a run used and cost; the caller keeps it."""
        if run.task_id is not None:
            run.apply_usage(self._client.usage(run.task_id))

    def stop(self, run: Run, redact: Callable[[Any], Any]) -> Run:
        """Asks the service to stop a run's task, and keeps what it answers."""
        if run.task_id is None:
            raise errors.ConfigError(f"Run {run.run_id[:8]} has no task to stop: it is {run.status}.")
        run.apply_task(Task(redact(self._client.stop(run.task_id).raw)))
        self._store.update(run)
        return run


class _Execution:
    """The sending of one plan: its clocks, its answer so far, and what went wrong."""

    def __init__(self, client: Client, store: Store, plan: Plan, listen: Listener | None, pause_wait: float) -> None:
        self._client = client
        self._store = store
        self._plan = plan
        self._run = plan.run
        self._listen = listen
        self._pause_wait = pause_wait
        self._answer: list[str] = []
        self._masked = StreamRedactor(plan.redact)
        self._begun = time.monotonic()
        self._store_error: errors.StoreError | None = None

    def run(self) -> Run:
        """Sends, follows, keeps; returns the run or raises with it."""
        run = self._run
        # The deadline starts here: what came before (names, checks) is not the run's.
        deadline = self._client.deadline(self._plan.timeout)
        problem: errors.XpanderError | errors.Interrupted | None
        try:
            self._follow(deadline)
            problem = self._outcome()
        except errors.ServiceError as error:
            problem = self._service_failed(error, deadline)
        except KeyboardInterrupt:
            problem = self._interrupted()
        self._keep()
        problem = self._store_error or problem
        if problem is not None:
            problem.run = run
            raise problem
        return run

    def _follow(self, deadline: Deadline) -> None:
        run, plan = self._run, self._plan
        run.sent_at = utc_now()
        for event in self._client.events(plan.call, deadline, plan.mode):
            self._take(event)
            if run.status == "paused":
                deadline.shorten(self._pause_wait)
        run.latency_s = time.monotonic() - self._begun

    def _take(self, event: Event) -> None:
        """One event changes the run; the listener is told."""
        run, known, status = self._run, self._run.task_id, self._run.status
        ours = event.task_id is None or known is None or event.task_id == known
        if event.type == "chunk" and isinstance(event.data, str) and ours:
            # A secret may be cut in two by the chunks: mask across them.
            event = replace(event, data=self._masked.feed(event.data), raw={})
            self._tell(event, event.data)
            return
        event = replace(event, data=self._plan.redact(event.data), raw=self._plan.redact(event.raw))
        if ours and event.type.startswith("task_") and isinstance(event.data, dict):
            run.apply_task(Task(event.data))
        elif known is None and event.task_id:
            run.task_id = run.thread_id = event.task_id
        if run.task_id != known or (run.status != status and not run.ended):
            self._keep()
        self._tell(event)

    def _tell(self, event: Event, piece: str = "") -> None:
        """Keeps an event and the answer's new text, and passes them on."""
        run = self._run
        run.events.append(event)
        if piece:
            self._answer.append(piece)
            run.ttft_s = run.ttft_s or time.monotonic() - self._begun
        if self._listen is not None:
            self._listen(run, event, piece)

    def _settle_answer(self) -> None:
        """What streamed in is the answer where the task itself names none."""
        rest = self._masked.flush()
        if rest:
            self._tell(Event("chunk", self._run.task_id, None, rest, {}), rest)
        if self._run.result is None and self._answer:
            self._run.result = "".join(self._answer)

    def _outcome(self) -> errors.XpanderError | None:
        """What an ended task means; the run gets its error, its output and its usage."""
        run = self._run
        self._settle_answer()
        if self._plan.usage:
            self._read_usage()
        if run.status != "completed":
            return self._failed(errors.TaskFailed(_why(run)))
        try:
            _read_output(run, self._plan.schema, asked=self._plan.wants_json)
        except errors.SchemaError as error:
            return self._failed(errors.SchemaError(f"{error}\nThe answer is kept as it is: the run's result."))
        return None

    def _read_usage(self) -> None:
        # The answer is at hand; that its price isn't must not cost the answer. The column stays missing.
        if self._run.task_id is not None:
            try:
                usage = self._client.usage(self._run.task_id, deadline=Deadline(_STOP_WHEN_TIMED_OUT))
            except errors.ServiceError:
                return
            self._run.apply_usage(usage)

    def _service_failed(self, error: errors.ServiceError, deadline: Deadline) -> errors.XpanderError | None:
        run = self._run
        run.latency_s = time.monotonic() - self._begun
        if run.status == "paused" and deadline.left() <= 0:
            return None
        self._settle_answer()
        if isinstance(error, errors.Timeout) and deadline.left() <= 0:
            return self._timed_out(error)
        if run.task_id is None:
            run.status = "unknown" if error.maybe_sent else "failed"
        elif not run.ended:
            run.status = "unknown"
        return self._failed(self._with_way_on(error))

    def _with_way_on(self, error: errors.ServiceError) -> errors.ServiceError:
        if self._run.status == "unknown":
            way = (
                "refresh() asks again."
                if self._run.task_id
                else "Look for its task at xpander.ai before you send it again."
            )
            error.args = (f"{error}\nWhether the task has run is not known. {way}",)
        return error

    def _timed_out(self, error: errors.Timeout) -> errors.XpanderError:
        stopped = self._stop(Deadline(_STOP_WHEN_TIMED_OUT))
        if self._run.task_id is None:
            self._run.status = "unknown" if error.maybe_sent else "failed"
        what = "its task was stopped" if stopped else "its task could not be stopped"
        message = f"The run took longer than {self._plan.timeout:g} s; {what}. Allow more with --timeout."
        return self._failed(errors.Timeout(message, maybe_sent=error.maybe_sent))

    def _interrupted(self) -> errors.Interrupted:
        run = self._run
        run.latency_s = time.monotonic() - self._begun
        self._settle_answer()
        if self._plan.on_interrupt == "detach":
            done = "Its task runs on; refresh() collects it."
        elif self._stop(Deadline(_STOP_WHEN_INTERRUPTED)):
            done = "Its task was stopped."
        else:
            done = "Whether its task runs on is not known; %xpander show tells."
        if run.task_id is None and run.status == "planned":
            run.status = "unknown" if self._plan.call.attempts else "failed"
        run.error, run.error_type = f"Interrupted. {done}", "Interrupted"
        return errors.Interrupted(f"Run {run.run_id[:8]} was interrupted. {done}")

    def _stop(self, deadline: Deadline) -> bool:
        """Stops the task if there is one; True when it surely doesn't run on."""
        run, call = self._run, self._plan.call
        try:
            if run.task_id is None and call.attempts:
                found = self._client.find(call, deadline)
                if found is not None:
                    run.apply_task(Task(self._plan.redact(found.raw)))
            if run.task_id is not None and not run.ended:
                run.apply_task(Task(self._plan.redact(self._client.stop(run.task_id, deadline=deadline).raw)))
        except errors.ServiceError:
            return False
        return run.ended or not call.attempts

    def _failed(self, error: errors.XpanderError) -> errors.XpanderError:
        error.args = (self._plan.redact(str(error)),)
        self._run.error, self._run.error_type = str(error), type(error).__name__
        return error

    def _keep(self) -> None:
        """Writes the run; a store that fails now must not cost the answer, so its error waits."""
        self._run.attempts = self._plan.call.attempts
        try:
            self._store.update(self._run)
        except errors.StoreError as error:
            self._store_error = self._store_error or error


def _read_output(run: Run, schema: dict[str, Any] | None = None, *, asked: bool = False) -> None:
    """Fills ``output`` from a JSON answer.

    Raises:
        SchemaError: JSON was asked for, and the answer is none or breaks its schema.
    """
    is_json = asked or schema is not None or run.metadata.get("output_format") == "json"
    if not is_json or run.status != "completed":
        return
    try:
        run.output = parse_json(run.result)
        if schema is not None:
            check(run.output, schema)
    except errors.SchemaError:
        if asked or schema is not None:
            raise


def _why(run: Run) -> str:
    """Why a run isn't completed, in a line."""
    said = (run.result or "").strip()
    told = f": {said[:300]}" if said else "."
    if run.status == "stopped":
        return f"The task of run {run.run_id[:8]} was stopped before it ended{told if said else '.'}"
    return f"The task of run {run.run_id[:8]} ended as {run.status}{told}"
