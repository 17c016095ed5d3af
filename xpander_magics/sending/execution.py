"""The sending of one plan: from its first request to what is kept of its outcome. No IPython."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import Any

from xpander_magics import errors
from xpander_magics.contract import TASK_EVENTS, Event, Task, has_ended
from xpander_magics.limits import Deadline
from xpander_magics.plans.plan import Plan
from xpander_magics.plans.schemas import check, parse_json
from xpander_magics.results import STREAMED, Run, utc_now
from xpander_magics.safety import StreamRedactor
from xpander_magics.service.client import Client

Listener = Callable[[Run, Event, str], None]
"""Called with each event: the run as it then stands, the event, and the answer's new text."""

# An interrupted kernel should answer within two seconds; a timed-out run may take a little longer.
_STOP_WHEN_INTERRUPTED = 1.5
_STOP_WHEN_TIMED_OUT = 10.0
# Meanwhile a task that nothing has been heard of is looked for so often, at the service and in this process.
_LOOK_FOR_IT, _LOOK_AT_IT = 0.4, 0.05


class Execution:
    """The sending of one plan: its clocks, its answer so far, and what went wrong.

    Args:
        keep: writes the run as it stands.
        pause_wait: seconds to wait for a person where the task is paused.
    """

    def __init__(
        self, client: Client, keep: Callable[[Run], object], plan: Plan, listen: Listener | None, pause_wait: float
    ) -> None:
        self._client = client
        self._write = keep
        self._plan = plan
        self._run = plan.run
        self._listen = listen
        self._pause_wait = pause_wait
        self._answer: list[str] = []
        self._masked: dict[tuple[str, str | None], StreamRedactor] = {}
        self._begun: float | None = time.monotonic()
        self._told: Any = None
        self._told_safely: Any = None
        self._store_error: errors.StoreError | None = None
        self._sent_before = 0  # how often, by whoever attended this run before

    def run(self) -> Run:
        """Sends, follows, keeps; returns the run or raises with it."""
        run = self._run
        # The deadline starts here: what came before (names, checks) is not the run's.
        deadline = self._limit()
        problem: errors.XpanderError | errors.Interrupted | None
        try:
            self._follow(deadline)
            problem = self._outcome()
        except errors.ServiceError as error:
            problem = self._service_failed(error, deadline)
        except KeyboardInterrupt:
            problem = self._interrupted()
        except BaseException:
            self._keep()  # whatever broke, perhaps in the listener: what is known of the task is kept
            raise
        self._keep()
        if self._store_error is not None:
            short = run.run_id[:8]
            way = f"What has come of run {short} is in this kernel alone; %xpander show {short} then keeps it."
            problem = errors.StoreError(f"{self._store_error}\n{way}")
            problem.__cause__ = self._store_error
        if problem is not None:
            problem.run = run
            raise problem
        return run

    @property
    def _sent(self) -> int:
        """How often it was sent, as far as is known."""
        return self._sent_before + self._plan.call.attempts

    def _limit(self) -> Deadline:
        return self._client.deadline(self._plan.timeout)

    def _follow(self, deadline: Deadline) -> None:
        run = self._run
        with closing(self._events(deadline)) as events:
            for event in events:
                self._measure()
                self._take(event)
                if run.status == "paused":
                    deadline.shorten(self._pause_wait)
                else:
                    deadline.restore()

    def _events(self, deadline: Deadline) -> Generator[Event]:
        """Sends it."""
        plan = self._plan
        # What --rpm holds back is neither latency nor the run's time.
        self._client.wait_turn(plan.call, deadline)
        self._begun, plan.run.sent_at = time.monotonic(), utc_now()
        return self._client.events(plan.call, deadline, plan.mode)

    def _measure(self) -> None:
        if self._begun is not None:
            self._run.latency_s = time.monotonic() - self._begun

    def _take(self, event: Event) -> None:
        """One event changes the run; the listener is told."""
        run, known, status = self._run, self._run.task_id, self._run.status
        ours = known is None or event.about in (None, known)
        if isinstance(event.data, str):
            # A secret may be cut in two by the pieces of a text: mask across them.
            masked = self._masked.setdefault((event.type, event.about), StreamRedactor(self._plan.redact))
            data: Any = masked.feed(event.data)
        else:
            if event.data is not self._told:  # one answer may make several events
                self._told, self._told_safely = event.data, self._plan.redact(event.data)
            data = self._told_safely
        raw = {**self._plan.redact({**event.raw, "data": None}), "data": data}
        event = replace(event, data=data, raw=raw)
        if ours and event.type in TASK_EVENTS and isinstance(data, dict):
            # A task that was stopped from another thread may still be told of as it was before.
            if not run.ended or has_ended(data.get("status"), data.get("finished_at")):
                run.apply_task(Task(data))
        elif known is None and event.task_id:
            run.task_id = run.thread_id = event.task_id
        # An ended run is written in a moment anyhow, unless its price is asked for first.
        if (run.task_id != known or run.status != status) and (self._plan.usage or not run.ended):
            self._keep()
        self._tell(event, data if ours and event.type == "chunk" and isinstance(data, str) else "")

    def _tell(self, event: Event, piece: str = "") -> None:
        """Keeps an event and the answer's new text, and passes them on."""
        run = self._run
        run.events.append(event)
        if piece:
            self._answer.append(piece)
            if run.ttft_s is None and self._begun is not None:
                run.ttft_s = time.monotonic() - self._begun
        if self._listen is not None:
            self._listen(run, event, piece)

    def _settle_answer(self) -> None:
        """What streamed in is the answer where the task itself names none."""
        for (kind, task_id), masked in self._masked.items():
            rest = masked.flush()
            if rest:
                ours = kind == "chunk" and task_id in (None, self._run.task_id)
                self._tell(Event(kind, task_id, None, rest, {}), rest if ours else "")
        run, streamed = self._run, "".join(self._answer)
        if run.result is None and streamed:
            run.result = streamed
        elif streamed and run.status != "completed" and streamed != run.result:
            # A failed task says why in place of its answer; what it had written was paid for, too.
            run.metadata = {**run.metadata, STREAMED: streamed}

    def _outcome(self) -> errors.XpanderError | None:
        """What an ended task means; the run gets its error, its output and its usage."""
        self._settle_answer()
        problem = judge(self._run, self._plan.schema, self._plan.redact, asked=self._plan.wants_json)
        if problem is not None:
            problem = self._failed(problem)
        if self._plan.usage:
            self._read_usage()
        return problem

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
        self._measure()
        self._settle_answer()
        if deadline.left() <= 0 and isinstance(error, (errors.Timeout, errors.ConnectionFailed)):
            return None if run.status == "paused" else self._timed_out(error)
        status = self._status_after(error)
        problem = self._failed(self._with_way_on(error, status))
        # Last: another thread, which stops it, must not keep an end without its reason.
        run.status = status
        return problem

    def _status_after(self, error: errors.ServiceError) -> str:
        """The status of a run that no more is heard of."""
        run = self._run
        if run.task_id is None:
            return "unknown" if error.maybe_sent else "failed"
        return run.status if run.ended else "unknown"

    def _with_way_on(self, error: errors.ServiceError, status: str) -> errors.ServiceError:
        if status == "unknown":
            way = f"%xpander show {self._run.run_id[:8]} asks again, before you send it again."
            error.args = (f"{error}\nWhether the task has run is not known. {way}",)
        return error

    def _timed_out(self, error: errors.ServiceError) -> errors.XpanderError | None:
        run = self._run
        stopped = self._stop(Deadline(_STOP_WHEN_TIMED_OUT))
        if run.status == "completed":
            return self._outcome()  # it ended just before it could be stopped
        status = self._status_after(error)
        what = "its task was stopped" if stopped else "its task could not be stopped"
        if run.task_id is None:
            what = "whether it started a task is not known" if error.maybe_sent else "nothing was started"
        message = f"The run took longer than {self._plan.timeout:g} s; {what}. Allow more with --timeout."
        problem = self._failed(errors.Timeout(message, maybe_sent=error.maybe_sent))
        run.status = status
        return problem

    def _interrupted(self) -> errors.Interrupted:
        run = self._run
        if not run.ended:
            self._measure()
        self._settle_answer()
        if run.ended:
            return errors.Interrupted(f"Run {run.run_id[:8]} was interrupted; its task had ended as {run.status}.")
        if not self._plan.call.attempts:
            done = "Nothing was sent."
        elif self._plan.on_interrupt == "detach" and not run.stopping:
            # Where a kernel reads no messages while a cell runs, the word to stop it may only come after this.
            done = f"Its task was left running; %xpander show {run.run_id[:8]} tells what became of it."
        elif self._stop(Deadline(_STOP_WHEN_INTERRUPTED), insist=True):
            done = "Its task was stopped."
        else:
            done = "Whether its task runs on is not known; %xpander show tells."
        if run.task_id is None and run.status == "planned":
            run.status = "unknown" if self._plan.call.attempts else "failed"
        run.error, run.error_type = f"Interrupted. {done}", "Interrupted"
        return errors.Interrupted(f"Run {run.run_id[:8]} was interrupted. {done}")

    def _stop(self, deadline: Deadline, *, insist: bool = False) -> bool:
        """Stops the task if there is one; True when it surely doesn't run on.

        Args:
            insist: whether one that isn't known yet is waited for until the deadline: its request may be on its way.
        """
        run = self._run
        try:
            while run.task_id is None and not run.ended and self._sent:
                found = self._client.find(self._plan.call, deadline, once=insist)
                if found is not None:
                    run.apply_task(Task(self._plan.redact(found.raw)))
                elif insist and deadline.left() > 0:
                    self._await_answer(deadline)
                else:
                    break
            if run.task_id is not None and not run.ended:
                run.apply_task(Task(self._plan.redact(self._client.stop(run.task_id, deadline=deadline).raw)))
        except (errors.ServiceError, KeyboardInterrupt):
            return False
        return run.ended or not self._sent

    def _await_answer(self, deadline: Deadline) -> None:
        """Waits a moment for an answer that names the task, to another thread."""
        look = Deadline(min(_LOOK_FOR_IT, deadline.left()))
        while self._run.task_id is None and look.left() > 0:
            look.sleep(_LOOK_AT_IT)

    def _failed(self, error: errors.XpanderError) -> errors.XpanderError:
        error.args = (self._plan.redact(str(error)),)
        self._run.error, self._run.error_type = str(error), type(error).__name__
        return error

    def _keep(self) -> None:
        """Writes the run; a store that fails now must not cost the answer, so its error waits."""
        self._run.attempts = self._sent
        try:
            self._write(self._run)
            self._store_error = None
        except errors.StoreError as error:
            self._store_error = error
        self._run.unkept = self._store_error is not None


def judge(
    run: Run, schema: dict[str, Any] | None, redact: Callable[[Any], Any], *, asked: bool = False
) -> errors.XpanderError | None:
    """What an ended task means; fills ``output`` from a JSON answer.

    Returns:
        TaskFailed where it isn't ``completed``; SchemaError where JSON was asked for, and the answer is
        none or breaks its schema.
    """
    if run.status != "completed":
        return errors.TaskFailed(_why(run))
    asked = asked or schema is not None or run.request.get("output_format") == "json"
    if not asked and run.metadata.get("output_format") != "json":
        return None
    try:
        # Text that was masked may still hold a secret in JSON's escapes.
        run.output = redact(parse_json(run.result))
        if schema is not None:
            check(run.output, schema)
    except errors.SchemaError as error:
        return errors.SchemaError(f"{error}\nThe answer is kept as it is: the run's result.") if asked else None
    return None


def _why(run: Run) -> str:
    """Why a run isn't completed, in a line."""
    if run.status == "stopped":  # what it has said so far is no reason
        return f"The task of run {run.run_id[:8]} was stopped {'by its button' if run.stopping else 'before it ended'}."
    said = (run.result or "").strip()
    return f"The task of run {run.run_id[:8]} ended as {run.status}{f': {said[:300]}' if said else '.'}"
