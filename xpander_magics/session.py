"""What one kernel works with: settings, client, store, defaults, local server. And ``xp.run``, ``xp.runs``.

Everything is opened when it is first needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xpander_magics.cell import Options
from xpander_magics.errors import ConfigError, NotFoundError
from xpander_magics.results import Run
from xpander_magics.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from xpander_magics.client import Client
    from xpander_magics.engine import Engine, Listener
    from xpander_magics.local.launch import LocalServer
    from xpander_magics.plan import Plan


@dataclass(frozen=True)
class Settings:
    """What ``%config XpanderMagics`` sets; None leaves it to the environment.

    Attributes:
        connect_timeout, read_timeout, timeout, pause_wait: seconds; see ``Client`` and ``Engine``.
        retries: how often a request is sent again at the most.
    """

    base_url: str | None = None
    target: str | None = None
    store: str | None = None
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    timeout: float = 600.0
    retries: int = 5
    pause_wait: float = 30.0


class Session:
    """What one kernel works with."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.defaults = Options()
        self.local: LocalServer | None = None
        self.login_key: str | None = None
        self._client: Client | None = None
        self._store: Store | None = None

    def configure(self, settings: Settings) -> None:
        """Takes over changed settings; what was opened with the old ones is closed."""
        if settings.store != self.settings.store:
            self._close_store()
        self.settings = settings
        self.disconnect()

    @property
    def base_url(self) -> str | None:
        """The address that was chosen in this kernel, if one was."""
        return self.local.base_url if self.local is not None else self.settings.base_url

    @property
    def client(self) -> Client:
        """The client of the chosen service; raises AuthError or ConfigError where there can be none."""
        if self.local is not None and not self.local.alive:
            self.local = None
            self.disconnect()
            raise ConfigError("The local server has ended. %xpander local starts it again.")
        if self._client is None:
            from xpander_magics.client import Client

            settings = self.settings
            self._client = Client(
                api_key=self.local.key if self.local is not None else self.login_key,
                base_url=self.base_url,
                connect_timeout=settings.connect_timeout,
                read_timeout=settings.read_timeout,
                timeout=settings.timeout,
                retries=settings.retries,
            )
        return self._client

    @property
    def store(self) -> Store:
        """The run store."""
        if self._store is None:
            self._store = Store(self.settings.store)
        return self._store

    @property
    def engine(self) -> Engine:
        """Client and store at work."""
        from xpander_magics.engine import Engine

        return Engine(self.client, self.store, pause_wait=self.settings.pause_wait)

    def disconnect(self) -> None:
        """Drops the client; the next call makes one anew."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def start_local(self, agents_file: str | None = None, gguf: Iterable[str] = ()) -> LocalServer:
        """Starts the embedded local server, in place of one already running, and goes over to it."""
        from xpander_magics.local.launch import LocalServer

        self.stop_local()
        self.local = LocalServer.start(agents_file=agents_file, gguf=tuple(gguf))
        self.disconnect()
        return self.local

    def stop_local(self) -> bool:
        """Ends the local server and goes back to the configured service; False where none ran."""
        local, self.local = self.local, None
        if local is None:
            return False
        local.stop()
        self.disconnect()
        return True

    def close(self) -> None:
        """Ends and closes all of it."""
        self.stop_local()
        self.disconnect()
        self._close_store()

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store = None

    def plan(self, options: Options, template: str, variables: Mapping[str, Any]) -> Plan:
        """Options over the defaults, and a prompt, made ready to be sent; see ``plan.make_plan``."""
        from xpander_magics.plan import make_plan

        options = options.over_defaults(self.defaults)
        chosen = options.target or self.settings.target or os.environ.get("XPANDER_AGENT_ID") or None
        thread = self._thread(options.thread, variables)
        return make_plan(replace(options, target=chosen, thread=thread), template, variables, self.client)

    def run(
        self,
        options: Options,
        template: str,
        variables: Mapping[str, Any],
        listen: Listener | None = None,
    ) -> Run:
        """Sends one prompt; returns and raises as ``Engine.run`` and ``make_plan`` do."""
        options = options.over_defaults(self.defaults)
        self.client.pace(options.rpm)
        plan = self.plan(options, template, variables)
        plan.run.session = self
        if options.cached:
            kept = self.store.cached(plan.run.cache_key or "")
            if kept is not None:
                kept.session = self
                return kept
        return self.engine.run(plan, listen)

    def find(self, ref: str, variables: Mapping[str, Any] | None = None) -> Run:
        """The run that is meant by a variable's name, a run's id or its beginning, or a task's id.

        Raises:
            NotFoundError, ConfigError: there is none, or several.
        """
        held = (variables or {}).get(ref)
        run = held if isinstance(held, Run) else self.store.find(ref)
        run.session = run.session or self
        return run

    def _thread(self, given: Any, variables: Mapping[str, Any]) -> Any:
        """A conversation as ``plan`` takes it: a run's reference becomes its thread's id."""
        if not isinstance(given, str) or isinstance(variables.get(given), Run):
            return given
        try:
            return self.store.find(given)
        except NotFoundError:
            return given  # a conversation that this store has never seen

    def reply(self, run: Run, text: str) -> Run:
        """Goes on with a run's conversation, with the same target and settings."""
        if run.thread_id is None:
            raise ConfigError(f"Run {run.run_id[:8]} has no conversation to go on with: it started no task.")
        model = f"{run.requested_provider}/{run.requested_model}" if run.requested_model else None
        request = run.request
        options = Options(
            target=f"{run.target_kind}:{run.target_id}",
            models=(model,) if model else (),
            efforts=(run.requested_effort,) if run.requested_effort else (),
            thinks=(request["think_mode"],) if request.get("think_mode") else (),
            version=run.version,
            instructions=request.get("instructions_override"),
            context=request.get("additional_context"),
            expected_output=request.get("expected_output"),
            format=request.get("output_format"),
            schema=request.get("output_schema"),
            user=request.get("input", {}).get("user"),
            mode=run.mode,
            thread=run,
            experiment=run.experiment,
            tags=tuple(run.tags),
            raw=True,
        )
        return self.run(options, text, {})

    def stop(self, run: Run) -> Run:
        """Stops a run's task."""
        return self.engine.stop(run, self._redactor())

    def refresh(self, run: Run) -> Run:
        """Asks how a run's task stands."""
        return self.engine.refresh(run, self._redactor())

    def _redactor(self) -> Any:
        from xpander_magics.safety import Redactor, secret_variables

        return Redactor([*self.client.secrets(), *secret_variables().values()])


_default: Session | None = None


def default_session() -> Session:
    """The session that the magics and the functions of the package share."""
    global _default  # noqa: PLW0603  # one kernel, one session
    if _default is None:
        _default = Session()
    return _default


def run(
    prompt: str,
    *,
    target: str | None = None,
    model: str | None = None,
    effort: str | None = None,
    think: str | None = None,
    variables: Mapping[str, Any] | None = None,
    version: str | None = None,
    instructions: str | None = None,
    context: str | None = None,
    expected_output: str | None = None,
    title: str | None = None,
    format: str | None = None,
    schema: Any = None,
    files: Iterable[str] = (),
    user: Mapping[str, Any] | None = None,
    payload: Mapping[str, Any] | None = None,
    mcp: Any = None,
    thread: Run | str | None = None,
    fields: Mapping[str, Any] | None = None,
    mode: str | None = None,
    rpm: float | None = None,
    timeout: float | None = None,
    usage: bool | None = None,
    on_interrupt: str | None = None,
    cached: bool = False,
    experiment: str | None = None,
    tags: Iterable[str] = (),
    note: str | None = None,
    raw: bool = False,
    allow_secrets: bool = False,
) -> Run:
    """Sends one prompt to an agent or a workflow; what ``%%xpander`` does, from Python.

    Args:
        prompt: a Jinja2 template over ``variables``; sent as it is with ``raw``.
        target: a name, unique name or id; else what ``%xpander use`` chose, else ``XPANDER_AGENT_ID``.
        model: ``PROVIDER/MODEL``.
        schema: a JSON Schema as a dict, a path to a .json file, or a pydantic model class.
        mcp: an MCP server's ``{name, config}``, or a list of them.
        fields: further fields of the invoke body by their own names, as ``--set`` gives them.
        timeout: seconds that the run may take.

    Returns:
        The run, ``completed``; or ``paused`` where it waits for a person.

    Raises:
        XpanderError: one of its kinds; ``run`` holds what was kept. See ``xpander_magics.errors``.
    """
    import json

    options = Options(
        target=target,
        models=(model,) if model else (),
        efforts=(effort,) if effort else (),
        thinks=(think,) if think else (),
        version=version,
        instructions=instructions,
        context=context,
        expected_output=expected_output,
        title=title,
        format=format,
        schema=schema,
        files=_several(files),
        user=user,
        payload=payload,
        mcp=mcp,
        thread=thread,
        set=tuple(f"{name}={json.dumps(value)}" for name, value in (fields or {}).items()),
        mode=mode,
        rpm=rpm,
        timeout=timeout,
        usage=usage,
        on_interrupt=on_interrupt,
        cached=cached or None,
        experiment=experiment,
        tags=_several(tags),
        note=note,
        raw=raw or None,
        allow_secrets=allow_secrets or None,
    )
    return default_session().run(options, prompt, variables or {})


def _several(values: Iterable[str]) -> tuple[str, ...]:
    """The values; one that was given without a list around it counts as one."""
    return (values,) if isinstance(values, str) else tuple(values)


def runs(
    *,
    experiment: str | None = None,
    status: str | None = None,
    target: str | None = None,
    tag: str | None = None,
    last: int | None = None,
) -> pd.DataFrame:
    """Every kept run, or those that fit, newest last.

    Args:
        last: no more than so many, the newest.

    Returns:
        A DataFrame of one row a run, always with the same columns and dtypes.
    """
    return default_session().store.frame(experiment=experiment, status=status, target=target, tag=tag, limit=last)
