"""One run, from the store through the service and back. No IPython.

The order keeps what was paid for: a run is in the store before it is sent, its task's id as soon as
that is known, and its outcome before anybody is told of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpander_magics import errors
from xpander_magics.contract import Task
from xpander_magics.plans.plan import Plan
from xpander_magics.plans.terms import check_service
from xpander_magics.results import Run, utc_now
from xpander_magics.sending.execution import Execution, Listener, judge
from xpander_magics.service.calls import Call, mark_of
from xpander_magics.service.client import Client
from xpander_magics.service.targets import Target
from xpander_magics.store import Store


class _GoneOn(errors.ConfigError):
    """The conversation has a newer turn, and the service no longer tells of this one."""


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
        # Set before it is so: a kernel that dies from here on leaves a run that may have been sent.
        plan.run.sent_at = utc_now()
        try:
            self._store.add([plan.run])
        except errors.StoreError as error:
            error.args = (f"{error}\nNothing was sent.",)
            raise
        return Execution(self._client, self._store.update, plan, listen, self._pause_wait).run()

    def keep(self, run: Run) -> None:
        """Keeps what couldn't be kept when it came."""
        if run.unkept:
            self._write(run)

    def refresh(self, run: Run, redact: Callable[[Any], Any]) -> Run:
        """Asks how the task of a run stands and what it used, and keeps that.

        Raises:
            ConfigError: the run is another service's; or its conversation has gone on before it had ended
                here (one that had stays as it is).
        """
        try:
            task = self._task_of(run)
        except _GoneOn:
            if run.ended:
                return run
            raise
        if task is None:
            return run
        self._collect(run, task, redact)
        if run.ended:
            self._keep_usage(run, task)
        return run

    def read_usage(self, run: Run) -> None:
        """Asks what a run used and cost, and keeps that. Raises as ``refresh``."""
        task = self._task_of(run)
        if task is not None:
            self._keep_usage(run, task)

    def _keep_usage(self, run: Run, task: Task) -> None:
        run.apply_usage(self._client.usage(task.id))
        self._write(run)

    def _write(self, run: Run) -> None:
        if run.sweep_id is not None:  # others may have it in hand, too
            self._store.sweeps.update([run])
        else:
            self._store.update(run)
        run.unkept = False

    def stop(self, run: Run, redact: Callable[[Any], Any]) -> Run:
        """Asks the service to stop a run's task, and keeps what it answers; an ended run stays as it is.

        Raises:
            ConfigError: as for ``refresh``, or there is no task.
        """
        if run.ended and run.task_id:
            return run
        task = self._task_of(run)
        if task is None:
            raise errors.ConfigError(f"Run {run.run_id[:8]} has no task to stop: it is {run.status}.")
        self._collect(run, self._client.stop(task.id), redact)
        return run

    def _task_of(self, run: Run) -> Task | None:
        """The task of a run as it stands; None where it has none that can be found."""
        check_service(run, self._client)
        if run.task_id is None:
            return self._find(run)
        task = self._client.task(run.task_id)
        # Within a conversation the task's id is the conversation's, and tells of its newest turn alone.
        if mark_of(task) not in (None, run.run_id):
            raise _GoneOn(
                f"The conversation of run {run.run_id[:8]} has gone on; the service tells of its newest turn alone.\n"
                f"The run is kept as it was ({run.status}); %xpander thread {run.run_id[:8]} shows the conversation."
            )
        return task

    def _find(self, run: Run) -> Task | None:
        """The task of a run that never heard of it: sent by a killed kernel, or its answer lost."""
        if run.status not in ("planned", "unknown") or run.target_id is None or run.sent_at is None:
            return None
        body = {"id": run.thread_id} if run.thread_id else {}
        target = Target(run.target_kind or "agent", run.target_id, run.target or run.target_id)
        call = Call(target, body, run.version, run.run_id, sent_at=run.sent_at)
        return self._client.find(call, self._client.deadline(), once=True)

    def _collect(self, run: Run, task: Task, redact: Callable[[Any], Any]) -> None:
        """Takes over and keeps how a task stands."""
        run.apply_task(Task(redact(task.raw)))
        if run.ended:
            # What went wrong on the way no longer counts.
            run.error = run.error_type = None
            problem = judge(run, run.request.get("output_schema"), redact)
            if problem is not None:
                run.error, run.error_type = redact(str(problem)), type(problem).__name__
        self._write(run)
