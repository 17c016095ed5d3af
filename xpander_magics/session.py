"""What one kernel works with: settings, client, store, defaults, local server; each opened when first needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from xpander_magics import config
from xpander_magics.cell import Options
from xpander_magics.config import Settings
from xpander_magics.errors import AuthError, ConfigError, NotFoundError, ServiceError
from xpander_magics.safety import Redactor, secret_variables, secrets_of_url

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from xpander_magics.local.launch import LocalServer
    from xpander_magics.outcomes import Runs
    from xpander_magics.plans.grid import Grid
    from xpander_magics.plans.plan import Plan
    from xpander_magics.results import Run
    from xpander_magics.sending.engine import Engine
    from xpander_magics.sending.execution import Listener
    from xpander_magics.sending.sweeps import Sweeps, Watch
    from xpander_magics.service.client import Client
    from xpander_magics.service.targets import Directory
    from xpander_magics.store import Store
    from xpander_magics.store.sweeps import Kept as KeptSweep
    from xpander_magics.voting.votes import Voting


class Session:
    """What one kernel works with. A panel asks it from other threads than the cells do.

    Attributes:
        connections: how often the service, the key or a setting has changed: what was listed before is out of date.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.defaults = Options()
        self.local: LocalServer | None = None
        self.connections = 0
        self._login: tuple[str, str] | None = None  # a service's address and its key, which no other may see
        self._sent: set[str] = set()  # the secrets that runs were sent with
        self._client: Client | None = None
        self._impatient: Client | None = None
        self._store: Store | None = None
        self._opening = threading.RLock()  # two threads that are the first open one client, one store
        self._grids: dict[str, Grid] = {}  # of the newest sweeps: their records lack what is secret
        self.voting: Voting | None = None  # of pairs that are shown as text, between two commands
        # The runs of sweeps by their ids, as long as somebody in this kernel holds them.
        self.swept: WeakValueDictionary[str, Runs] = WeakValueDictionary()

    def configure(self, settings: Settings) -> None:
        """Takes over changed settings; what was opened with the old ones is closed."""
        with self._opening:
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
        with self._opening:
            if self.local is not None and not self.local.alive:
                # It stays the choice: the next try must not go to a service that costs money.
                raise ConfigError(
                    "The local server has ended. %xpander local starts it again; "
                    "%xpander local stop goes back to the configured service."
                )
            if self._client is None:
                names = ("connect_timeout", "read_timeout", "timeout", "retries")
                self._client = self._connect(**{name: getattr(self.settings, name) for name in names})
            return self._client

    def _connect(self, **settings: Any) -> Client:
        from xpander_magics.service.client import Client

        settings["rate_limit"] = self.settings.rate_limit
        if self.local is not None:
            client = Client(self.local.key, self.local.base_url, **settings)
        else:
            url = config.base_url_from(self.settings.base_url)
            client = Client(self._login[1] if self._login and self._login[0] == url else None, url, **settings)
        stored, login = secrets_of_url(self.settings.store or ""), (self._login or ())[1:]
        found = {"the run store's password": stored, "the key of a login": login}
        client.private = {whose: words[0] for whose, words in found.items() if words}
        return client

    @property
    def directory(self) -> Directory:
        """The service's lists for one who won't wait: the completion."""
        from xpander_magics.limits import Impatient

        with self._opening:
            if self._impatient is None:
                self._impatient = self._connect(connect_timeout=1.0, read_timeout=2.0, retries=0)
                self._impatient.pacer = Impatient(self._impatient.pacer, 2.0)
            return self._impatient.directory

    def log_in(self, key: str) -> tuple[str, bool, ServiceError | None]:
        """Tries a key at the configured service, and goes over to both; a key that is refused changes nothing.

        Returns:
            The service's address; whether the keyring keeps the key; why the key couldn't be tried, if so.

        Raises:
            AuthError: the key is refused, or is none.
        """
        from xpander_magics.service.client import Client

        url, untried = config.base_url_from(self.settings.base_url), None
        limits: dict[str, Any] = {name: getattr(self.settings, name) for name in ("connect_timeout", "rate_limit")}
        with Client(key, url, retries=1, **limits) as client:
            try:
                client.providers()
            except AuthError:
                raise
            except ServiceError as error:
                untried = error
        self.stop_local()
        self._login = url, key
        self.disconnect()
        return url, config.remember_key(url, key), untried

    def log_out(self) -> bool:
        """Forgets the key that ``log_in`` was given; False where there was none."""
        had, self._login = self._login is not None, None
        self.disconnect()
        return config.forget_key(config.base_url_from(self.settings.base_url)) or had

    @property
    def store(self) -> Store:
        """The run store."""
        from xpander_magics.store import Store

        with self._opening:
            self._store = self._store or Store(self.settings.store)
            return self._store

    @property
    def engine(self) -> Engine:
        """Client and store at work."""
        from xpander_magics.sending.engine import Engine

        return Engine(self.client, self.store, pause_wait=self.settings.pause_wait)

    def disconnect(self) -> None:
        """Drops the client; the next call makes one anew."""
        with self._opening:
            self.connections += 1
            for client in (self._client, self._impatient):
                if client is not None:
                    client.close()
            self._client = self._impatient = None

    def start_local(self, agents_file: str | None = None, gguf: Iterable[str] = ()) -> LocalServer:
        """Starts the embedded local server, in place of one already running, and goes over to it."""
        from xpander_magics.local.launch import LocalServer

        # The old one stays until the new one runs: a wrong file must not cost it and its threads.
        local = LocalServer.start(agents_file=agents_file, gguf=tuple(gguf))
        self._go_over_to(local)
        return local

    def stop_local(self) -> bool:
        """Ends the local server and goes back to the configured service; False where none ran."""
        return self._go_over_to(None)

    def _go_over_to(self, local: LocalServer | None) -> bool:
        """Changes the service; True where a local server ran."""
        with self._opening:  # or a panel's thread would meanwhile take the configured service, which costs money
            left, self.local = self.local, local
            if left is not local:
                self.disconnect()
        if left is not None:
            left.stop()
        return left is not None

    def close(self) -> None:
        """Ends and closes all of it, and forgets what was chosen."""
        self.defaults = Options()
        self._login = self.voting = None
        self.stop_local()
        self.disconnect()
        self._close_store()

    def _close_store(self) -> None:
        with self._opening:
            if self._store is not None:
                self._store.close()
            self._store = None

    def plan(self, options: Options, template: str, variables: Mapping[str, Any]) -> Plan:
        """Options and a prompt made ready to be sent; see ``plan.make_plan``.

        Whoever takes the options from a person puts them over ``defaults`` first.
        """
        from xpander_magics.plans.plan import make_plan
        from xpander_magics.scoring.landing import scored_plan

        plan = make_plan(self._targeted(options), template, variables, self.client, self._kept)
        self._sent.update(plan.redact.secrets)
        return scored_plan(plan, options, variables)

    def _targeted(self, options: Options) -> Options:
        """The options with their target, and without the scores, which no part of a run says anything of."""
        target = options.target or self.settings.target or os.environ.get("XPANDER_AGENT_ID") or None
        return replace(options, target=target, scores=(), expected=None)

    def run(
        self,
        options: Options,
        template: str,
        variables: Mapping[str, Any],
        listen: Listener | None = None,
        begun: Callable[[Run], object] = lambda run: None,
    ) -> Run:
        """Sends one prompt; takes its arguments as ``plan`` does, returns and raises as ``Engine.run``.

        Args:
            begun: told of the run right before it is sent; not where a kept one is reused.
        """
        plan = self.plan(options, template, variables)
        plan.run.session = self
        if options.cached:
            kept = self.store.cached(plan.run.cache_key or "")
            if kept is not None:
                kept.session, kept.reused = self, True
                plan.landed(kept, self)
                return kept
        begun(plan.run)
        try:
            with self.client.paced(options.rpm):
                return self.engine.run(plan, listen)
        finally:
            plan.landed(plan.run, self)

    def grid(self, options: Options, template: str, variables: Mapping[str, Any]) -> Grid:
        """Options and a prompt made ready to be sent as a sweep; takes its arguments as ``plan`` does."""
        from xpander_magics.plans.grid import make_grid
        from xpander_magics.scoring.landing import scored_grid

        grid = make_grid(self._targeted(options), template, variables, self.client, self._kept)
        return scored_grid(grid, options, variables)

    def sweep(
        self, grid: Grid, watch: Watch | None = None, executor: Executor | None = None, listen: Listener | None = None
    ) -> Runs:
        """Sends all of a grid; takes ``listen``, returns and raises as ``Sweeps.begin``."""
        self._grids[grid.sweep_id] = grid
        self._sent.update(grid.redact.secrets)
        if len(self._grids) > _GRIDS_HELD:
            self._grids.pop(next(iter(self._grids)), None)
        with _watched(watch) as told:
            return self._sweeps(grid, executor).begin(grid, told, listen)

    def begun(self, runs: Runs) -> None:
        """Hears of the runs of a sweep before any of it is sent: whatever ends it, they are found again."""
        self.swept[runs.sweep_id] = runs

    def resume(self, ref: str | None, watch: Watch | None = None, executor: Executor | None = None) -> Runs:
        """Goes on with a sweep: the one of this id or its beginning, else the newest that hasn't ended.

        Raises:
            NotFoundError, ConfigError: there is no such sweep, or it is another service's.
        """
        kept = self.store.sweeps.find(ref, self.client.base_url)
        return self._resume(kept, self.swept.get(kept.sweep_id), watch, executor)

    def go_on(self, runs: Runs, watch: Watch | None = None) -> None:
        """Goes on with the sweep that these runs are of, and makes them all of it."""
        self._resume(self.store.sweeps.find(runs.sweep_id, self.client.base_url), runs, watch, None)

    def _resume(self, kept: KeptSweep, runs: Runs | None, watch: Watch | None, executor: Executor | None) -> Runs:
        grid = self._grid_of(kept)
        with _watched(watch) as told:
            return self._sweeps(grid, executor).resume(grid.sweep_id, grid, runs, told)

    def retry(self, runs: Runs, watch: Watch | None = None) -> None:
        """Sends those of the runs that failed again; raises as ``Sweeps.retry``."""
        grid = self._grid_of(self.store.sweeps.find(runs.sweep_id, self.client.base_url), runs.grid)
        with _watched(watch) as told:
            self._sweeps(grid, None).retry(grid, runs, told)

    def planned(self, grid: Grid, number: int) -> Run:
        """A run as it would be sent."""
        return grid.plan(number, self.client).run

    def reply_all(self, runs: Iterable[Run], text: str, watch: Watch | None = None) -> Runs:
        """Goes on with each of several conversations, with each run's own settings and variables."""
        from xpander_magics.plans.grid import Asking, grid_of
        from xpander_magics.plans.terms import reply_options

        asked = [Asking(text, reply_options(run, text, self.client), run.variables) for run in runs]
        return self.sweep(grid_of(asked, self.client, self._kept), watch)

    def _grid_of(self, kept: KeptSweep, grid: Grid | None = None) -> Grid:
        """The grid of a kept sweep, which masks today's secrets, too."""
        from xpander_magics.plans.grid import Grid
        from xpander_magics.scoring.landing import restored_scoring

        if kept.base_url != self.client.base_url:
            raise ConfigError(
                f"Sweep {kept.sweep_id[:8]} was sent to {kept.base_url}; this kernel now talks to "
                f"{self.client.base_url}.\n%xpander status shows where requests go."
            )
        grid = grid or self._grids.get(kept.sweep_id) or Grid.restore(kept.plan, self.client)
        grid.redact = grid.redact.joined(self.redactor())
        grid.scoring = grid.scoring or restored_scoring(grid)
        return grid

    def _sweeps(self, grid: Grid, executor: Executor | None) -> Sweeps:
        from xpander_magics.sending.sweeps import Sweeps

        settings, client = self.settings, self.client
        if grid.base_url != client.base_url:  # a cell may have changed it while a panel's thread made the grid
            raise ConfigError(
                f"It was made for {grid.base_url}; this kernel now talks to {client.base_url}. Try again."
            )
        return Sweeps(
            self, client, self.store, pause_wait=settings.pause_wait, settle=settings.settle, executor=executor
        )

    def dry_run(self, planned: Plan | Grid, options: Options) -> str:
        """What would be sent, and the quote."""
        from xpander_magics.sending import quote

        return quote.told(planned, options, self.client, self.store)

    def find(self, ref: str, variables: Mapping[str, Any] | None = None) -> Run:
        """The run that is meant by a variable's name, a run's id or its beginning, or a task's id.

        Raises:
            NotFoundError, ConfigError: there is none, or several.
        """
        from xpander_magics.results import Run

        held = (variables or {}).get(ref)
        run = held if isinstance(held, Run) else self.store.find(ref)
        run.session = run.session or self
        return run

    def _kept(self, ref: str) -> Run | None:
        """The kept run of this reference, or None: it may name a conversation that this store has never seen."""
        try:
            return self.store.find(ref)
        except NotFoundError:
            return None

    def reply(self, run: Run, text: str) -> Run:
        """Goes on with a run's conversation, with the same target, settings and variables."""
        from xpander_magics.plans.terms import reply_options

        options = reply_options(run, text, self.client)
        # The text isn't made of them, but the conversation is about the same.
        return self.run(options, text, {}, begun=lambda sent: vars(sent).update(variables=run.variables))

    def stop(self, run: Run) -> Run:
        """Stops a run's task."""
        return self.engine.stop(run, self.redactor())

    def refresh(self, run: Run) -> Run:
        """Asks how a run's task stands."""
        return self.engine.refresh(run, self.redactor())

    def redactor(self) -> Redactor:
        """What masks the key, the secrets of the environment, and those that runs were sent with from here."""
        return Redactor([*self.client.secrets().values(), *secret_variables().values(), *self._sent])


def _watched(watch: Watch | None) -> AbstractContextManager[Watch]:
    """The watch that was given, else a progress bar."""
    from xpander_magics.progress import bar

    return bar() if watch is None else nullcontext(watch)


_GRIDS_HELD = 8
_default: Session | None = None


def default_session() -> Session:
    """The session that the magics and the functions of the package share."""
    global _default  # noqa: PLW0603  # one kernel, one session
    if _default is None:
        _default = Session()
    return _default
