"""What each command of ``%xpander`` does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from xpander_magics import cell, config, errors
from xpander_magics.commands import Command
from xpander_magics.errors import AuthError, ConfigError, NotFoundError, XpanderError
from xpander_magics.kept import Kept
from xpander_magics.magics.analyses import Analyses
from xpander_magics.magics.pages import Page, help_about
from xpander_magics.outcomes import Runs
from xpander_magics.safety import plain
from xpander_magics.service.targets import KINDS
from xpander_magics.session import Session

if TYPE_CHECKING:
    from xpander_magics.results import Run
    from xpander_magics.sending.sweeps import Watch
    from xpander_magics.store import Store

# A sweep of more runs is shown by its first; runs.board() shows all of any.
_ON_A_BOARD = 1_000


class Actions:
    """The commands of one notebook.

    Args:
        variables: the notebook's.
        send: writes text to the cell's output, as it is.
        rich: whether outputs go to a notebook.
        widgets: whether it may show widgets.
    """

    def __init__(
        self,
        session: Session,
        variables: dict[str, Any],
        send: Callable[[str], object],
        *,
        rich: bool,
        widgets: bool = False,
    ) -> None:
        self.session = session
        self._variables = variables
        self._send = send
        self._rich = rich
        self._widgets = rich and widgets

    def do(self, command: Command) -> Any:
        """Does it; returns what the cell shows."""
        return getattr(self, f"do_{command.name}")(command)

    def _write(self, text: str) -> None:
        """Writes what may quote a service, a model or a file."""
        self._send(plain(text))

    def bind(self, name: str | None, value: Any) -> None:
        """Gives it a name in the notebook, if there is one."""
        name = cell.checked_name(name)
        if name is not None:
            self._variables[name] = value

    def send_sweep(self, options: cell.Options, body: str, variables: Mapping[str, Any], view: str) -> None:
        """``%%xpander`` with several models, rows, repeats: a progress bar, then the runs."""
        grid = self.session.grid(options, body, variables)
        with self._bound(options.out, grid.sweep_id):
            with self._watching(view) as watch:
                runs = self.session.sweep(grid, watch)
            self._finish(options.out, runs, view)

    def do_resume(self, command: Command) -> None:
        view = cell.one_of("--view", command.view, cell.VIEWS) or "auto"
        name = cell.checked_name(command.out)
        ref = command.words[0] if command.words else None
        held = self._variables.get(ref) if ref is not None else None
        ref = held.sweep_id if isinstance(held, Runs) else ref
        # Runs may be sent that somebody has forgotten: say which, before any is.
        kept = self.session.store.sweeps.find(ref, self.session.client.base_url)
        if view != "none":
            begun = f", begun {kept.added_at:%Y-%m-%d %H:%M} UTC" if kept.added_at else ""
            self._write(f"Going on with sweep {kept.sweep_id[:8]} of {kept.size:,} runs{begun}.\n")
        with self._bound(name, kept.sweep_id):
            with self._watching(view) as watch:
                if isinstance(held, Runs):
                    self.session.go_on(held, watch)
                    runs = held
                else:
                    runs = self.session.resume(kept.sweep_id, watch)
            self._finish(name, runs, view)

    def _watching(self, view: str) -> AbstractContextManager[Watch]:
        """A progress bar, while a sweep goes."""
        from xpander_magics.progress import bar

        return bar(view != "none", rich=self._rich)

    @contextlib.contextmanager
    def _bound(self, name: str | None, sweep_id: str) -> Iterator[None]:
        """Binds what was done of a sweep whatever stops it: an error, or one interrupt more at its end."""
        try:
            yield
        except BaseException:
            runs = self.session.swept.get(sweep_id)
            if runs is not None:
                self.bind(name, runs)
                with contextlib.suppress(XpanderError):  # what stopped it is the news
                    self._carry(runs)
            raise

    def _finish(self, name: str | None, runs: Runs, view: str) -> None:
        from xpander_magics.showing.tables import show_runs

        self.bind(name, runs)
        if view != "none":
            as_board = self._widgets and view == "auto" and len(runs) <= _ON_A_BOARD
            show_runs(runs, name, self._send, rich=self._rich, board=runs.board() if as_board else None)
            self._write(runs.said)
        else:
            self._carry(runs)

    @staticmethod
    def _carry(runs: Runs) -> None:
        """Lets a notebook keep runs that it doesn't show."""
        from xpander_magics.showing.display import put_out_unseen
        from xpander_magics.showing.tables import carried_runs

        put_out_unseen(carried_runs(runs))

    def do_help(self, command: Command) -> Page | None:
        text, page = help_about(command.words)
        self._write(text if page is None or self._rich else text + page.text)
        return page if self._rich else None

    def do_status(self, command: Command) -> None:
        session = self.session
        where = " (the embedded local server)" if session.local else ""
        lines: dict[str, Callable[[], str]] = {
            "service": lambda: f"{config.base_url_from(session.base_url)}{where}",
            "key": lambda: "its own, for as long as it runs" if session.local else session.client.key_shown,
            "defaults": lambda: _chosen(session) or "none: %xpander use",
            "runs": lambda: _location(session.store),
        }
        for name, ask in lines.items():
            try:
                told = ask()
            except AuthError:
                told = "none: set XPANDER_API_KEY, or %xpander login; without one: %xpander local"
            except XpanderError as error:  # the other lines may say why
                told = " ".join(str(error).split())
            self._write(f"{name:8} {told}\n")

    def do_login(self, command: Command) -> None:
        try:
            key = config.asked_key()
        except KeyboardInterrupt:
            raise errors.Interrupted("No key was given; nothing has changed.") from None
        url, kept, untried = self.session.log_in(key)
        if untried is not None:
            self._write(f"The key could not be tried: {untried}\n")
        self._write(f"Logged in at {url}; the key is kept {'in the keyring' if kept else 'for this kernel'}.\n")

    def do_logout(self, command: Command) -> None:
        self._write("The key is forgotten.\n" if self.session.log_out() else "There was no key from login.\n")
        if config.has_environment_key():
            self._write("XPANDER_API_KEY is still set in this kernel's environment.\n")

    def do_local(self, command: Command) -> None:
        if command.words and command.words[0] != "stop":
            hint = errors.did_you_mean(command.words[0], ["stop"])
            raise ConfigError(f"%xpander local takes stop or nothing, not {command.words[0]!r}. {hint}".rstrip())
        if command.words:
            ended = self.session.stop_local()
            self._write("The local server has ended.\n" if ended else "No local server was running.\n")
            return
        local = self.session.start_local(command.file, command.gguf)
        directory = self.session.client.directory
        names = ", ".join(str(target.name) for kind in KINDS for target in directory.entries(kind))
        self._write(f"The local server runs at {local.base_url} and ends with this kernel. It has: {names}.\n")

    def do_use(self, command: Command) -> None:
        from xpander_magics.plans.terms import check_choices, provider_and_model

        given = command.options or cell.Options()
        check_choices(given)
        cell.parse_set(given.set)
        for model in given.models:
            if not cell.is_template(model):
                self.session.client.directory.check_model(*provider_and_model(model))
        if given.target is not None and not cell.is_template(given.target):
            self.session.client.directory.resolve(given.target)
        self.session.defaults = given.over_defaults(cell.Options() if command.clear else self.session.defaults)
        self._write(f"Defaults: {_chosen(self.session) or 'none'}.\n")

    def do_agents(self, command: Command) -> Any:
        from xpander_magics.showing.display import table

        return table(self.session.client.agents(), "agents")

    def do_workflows(self, command: Command) -> Any:
        from xpander_magics.showing.display import table

        return table(self.session.client.workflows(), "workflows")

    def do_providers(self, command: Command) -> Any:
        from xpander_magics.showing.display import table

        return table(self.session.client.providers(), "providers")

    def do_models(self, command: Command) -> Any:
        from xpander_magics.showing.display import table

        client = self.session.client
        known = client.directory.provider_ids()
        chosen = list(command.words) or known
        if command.words and command.words[0] not in known:
            hint = errors.did_you_mean(command.words[0], known, otherwise=f"There are: {', '.join(known)}.")
            raise NotFoundError(f"There is no provider {command.words[0]!r}. {hint}")
        return table([model for provider in chosen for model in _models_of(client, provider)], "models")

    def do_panel(self, command: Command) -> Any:
        from xpander_magics.widgets.panel import Panel

        return Panel(self.session)

    def do_runs(self, command: Command) -> Any:
        from xpander_magics.store.columns import STATUSES

        name = cell.checked_name(command.out)
        frame = self.session.store.frame(
            experiment=command.experiment,
            tag=command.tag,
            status=command.status,
            target=command.target,
            limit=command.last,
        )
        if frame.empty:  # the service may have statuses of its own, but then a run has one
            cell.one_of("--status", command.status, STATUSES)
        self.bind(name, frame)
        return None if name else frame

    def do_show(self, command: Command) -> Any:
        from xpander_magics.showing.display import Stream

        view = cell.one_of("--view", command.view, cell.VIEWS)
        run = self._run_named(command)
        self._kept.refresh(run)
        if view is None:
            return run
        Stream(self._send, rich=self._rich, view=view).finish(run)
        return None

    def do_stop(self, command: Command) -> None:
        word = command.words[0] if command.words else None
        if word not in (None, "all"):
            self._stop(self._run_named(command))
            return
        runs = self._kept.under_way()
        if not runs:
            self._write("No run is under way.\n")
        failure: XpanderError | None = None
        for run in runs:
            unheard = run.task_id is None
            try:
                self._stop(run)
            except errors.StoreError:
                raise
            except (errors.ServiceError, ConfigError) as error:  # the others are to be stopped all the same
                if unheard and isinstance(error, (ConfigError, NotFoundError)):
                    self._write(f"Run {run.run_id[:8]} has no task at the service; perhaps it never got there.\n")
                    continue
                self._write(f"Run {run.run_id[:8]} could not be stopped.\n")
                failure = failure or error
            if word is None:
                break
        if failure is not None:
            raise failure

    def _stop(self, run: Run) -> None:
        self._kept.stop(run)
        self._write(f"Run {run.run_id[:8]} is {run.status}.\n")

    def do_usage(self, command: Command) -> Any:
        from xpander_magics.store.frames import frame_of

        held = self._variables.get(command.words[0]) if command.words else None
        if isinstance(held, Runs):
            runs = self._kept.read_missing_usage(self._write, among=held)
        elif command.words:
            runs = [self._run_named(command)]
            self._kept.read_usage(runs[0])
        else:
            runs = self._kept.read_missing_usage(self._write)
        columns = ["run_id", "model", "prompt_tokens", "completion_tokens", "total_tokens", "actions", "cost_usd"]
        return frame_of(runs)[[*columns, "is_byok"]]

    def do_thread(self, command: Command) -> Any:
        from xpander_magics.plans.terms import check_service
        from xpander_magics.showing.display import table

        run = self._run_named(command)
        if run.task_id is None:
            raise ConfigError(f"Run {run.run_id[:8]} has no conversation: it started no task.")
        check_service(run, self.session.client)
        redact = self.session.redactor()  # of what was sent all the same, and so is in the conversation
        if not command.full:
            told = self.session.client.thread(run.task_id)
        else:
            parts = self.session.client.full_thread(run.task_id)
            told = [_within(message, part) for part, messages in parts.items() for message in messages]
        return table([type(message)(redact(message.raw)) for message in told], "thread")

    def do_tag(self, command: Command) -> None:
        if len(command.words) < 2:
            raise ConfigError("%xpander tag takes a run and at least one tag.")
        ref, *tags = command.words
        run = self._kept.find(ref)
        self._kept.tag(run, tags, remove=command.remove)
        self._write(f"Run {run.run_id[:8]} has the tags: {', '.join(run.tags) or 'none'}.\n")

    def do_vote(self, command: Command) -> Any:
        return self._analyses.vote(command, widgets=self._widgets)

    def do_compare(self, command: Command) -> Any:
        name = cell.checked_name(command.out)
        compared = self._analyses.compare(command)
        self.bind(name, compared)
        return compared

    def do_diff(self, command: Command) -> Any:
        return self._analyses.diff(command)

    def do_score(self, command: Command) -> Any:
        return self._analyses.score(command)

    def do_noise(self, command: Command) -> Any:
        name = cell.checked_name(command.out)
        with self._watching("auto") as watch:
            noise = self._analyses.noise(command, watch)
        self.bind(name, noise)
        return noise

    def do_plot(self, command: Command) -> Any:
        return self._analyses.plot(command)

    def do_report(self, command: Command) -> None:
        self._analyses.report(command)

    def do_export(self, command: Command) -> None:
        self._analyses.export(command)

    @property
    def _analyses(self) -> Analyses:
        return Analyses(self.session, self._variables, self._write)

    @property
    def _kept(self) -> Kept:
        return Kept(self.session, self._variables)

    def _run_named(self, command: Command) -> Run:
        if not command.words:
            raise ConfigError(
                f"%xpander {command.name} takes a run: its id, or a variable that holds it. %xpander runs"
            )
        return self._kept.find(command.words[0])


def _models_of(client: Any, provider: str) -> list[Any]:
    return [_within(model, provider, "provider") for model in client.models(provider)]


def _within(record: Any, part: str, column: str = "conversation") -> Any:
    return type(record)({column: part, **record.raw})


def _chosen(session: Session) -> str:
    """What later cells have by default."""
    return ", ".join(f"{name}={value!r}" for name, value in session.defaults.without_secrets().said().items())


def _location(store: Store) -> str:
    """Where the runs are kept; raises StoreError where they can't be."""
    store.select(limit=1)
    return store.location
