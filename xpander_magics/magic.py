"""``%xpander`` and ``%%xpander``: a line is parsed, the session does the work, the result is shown.

Loading this imports neither requests, pandas, SQLAlchemy nor Jinja2; the first call does.
"""

from __future__ import annotations

import getpass
import keyword
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from traitlets import Bool, Enum, Float, Integer, Unicode

from xpander_magics import cell, config, errors
from xpander_magics.commands import Command, command_help, parse_command
from xpander_magics.errors import AuthError, ConfigError, NotFoundError, XpanderError
from xpander_magics.kept import Kept
from xpander_magics.safety import plain
from xpander_magics.session import Session, Settings, default_session

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from xpander_magics.results import Run
    from xpander_magics.store import Store


@magics_class
class XpanderMagics(Magics):
    """The magics; ``%config XpanderMagics`` lists their settings."""

    base_url = Unicode(None, allow_none=True, help="Where the service is; else XPANDER_BASE_URL.").tag(config=True)
    target = Unicode(None, allow_none=True, help="The target of cells that name none; else XPANDER_AGENT_ID.").tag(
        config=True
    )
    store = Unicode(None, allow_none=True, help="An SQLAlchemy URL for the runs; else XPANDER_STORE.").tag(config=True)
    connect_timeout = Float(10.0, min=0.001, help="Seconds to connect.").tag(config=True)
    read_timeout = Float(60.0, min=0.001, help="Seconds between two pieces of an answer.").tag(config=True)
    timeout = Float(600.0, min=0.001, help="Seconds that a run may take.").tag(config=True)
    pause_wait = Float(30.0, min=0.0, help="Seconds to wait for a person where a task is paused.").tag(config=True)
    retries = Integer(5, min=0, help="How often a request is sent again at the most.").tag(config=True)
    view = Enum(cell.VIEWS, "auto", help="How answers are shown when --view isn't given.").tag(config=True)
    traceback = Bool(False, help="Show the whole traceback of an error.").tag(config=True)

    shell: InteractiveShell

    def __init__(self, shell: InteractiveShell, session: Session) -> None:
        super().__init__(shell)
        self.session = session
        self._configure()
        self.observe(lambda _: self._configure(), names=[*vars(Settings()), "traceback"])

    def _configure(self) -> None:
        self.session.configure(Settings(**{name: getattr(self, name) for name in vars(Settings())}))
        errors.show_tracebacks(self.traceback)

    @no_var_expand
    @line_cell_magic
    def xpander(self, line: str, cell: str | None = None) -> Any:
        """Replaced below by what the parser says."""
        return self._command(line) if cell is None else self._run_cell(line, cell)

    def _run_cell(self, line: str, body: str) -> None:
        """``%%xpander``: one run, shown as it comes, bound to a name, kept in the store."""
        from xpander_magics.display import Stream

        options = cell.parse_cell(line).over_defaults(self.session.defaults)
        view = "none" if options.quiet else cell.one_of("--view", options.view or self.view, cell.VIEWS)
        name = _checked_name(options.out)
        if not body.strip():
            raise ConfigError("The prompt is empty. Write it below the %%xpander line.")
        if options.dry_run:
            self._dry_run(options, body)
            return
        # What it streams it makes safe itself; the carriage return of its progress is its own.
        stream = Stream(_send, rich=_is_rich(self.shell), view=view or "auto")
        try:
            run = self.session.run(options, body, self._variables(), stream)
        except (XpanderError, errors.Interrupted) as error:
            if error.run is not None:
                self._bind(name, error.run)
                stream.finish(error.run, raised=error)
            raise
        self._bind(name, run)
        stream.finish(run)
        if run.reused and view != "none":
            _write(_kept_instead(run, options))

    def _bind(self, name: str | None, value: Any) -> None:
        if name is not None:
            self.shell.user_ns[name] = value

    def _variables(self) -> dict[str, Any]:
        """The notebook's own variables, without ``open``, ``get_ipython`` and the like, which IPython adds."""
        hidden = self.shell.user_ns_hidden
        missing = object()
        return {n: v for n, v in self.shell.user_ns.items() if hidden.get(n, missing) is not v}

    def _dry_run(self, options: cell.Options, body: str) -> None:
        from xpander_magics import quote

        plan = self.session.plan(options, body, self._variables())
        store = self.session.store
        earlier = store.select(target=plan.run.target, status="completed", limit=quote.LOOKED_AT)
        kept = store.cached(plan.run.cache_key or "") if options.cached else None
        told = quote.lines(plan, quote.quote(plan, earlier, options.rpm, kept))
        _write(f"{plan.run.prompt or ''}\n\n" + "\n".join(told) + "\n")

    def _command(self, line: str) -> Any:
        command = parse_command(line)
        return getattr(self, f"_do_{command.name}")(command)

    def _do_help(self, command: Command) -> None:
        _write(command_help(*command.words) + ("" if command.words else "\n" + cell.cell_help()))

    def _do_status(self, command: Command) -> None:
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
            _write(f"{name:8} {told}\n")

    def _do_login(self, command: Command) -> None:
        try:
            key = getpass.getpass("xpander.ai API key: ").strip()
        except (EOFError, NotImplementedError, OSError):  # no answer, no one at the front end, no terminal
            raise ConfigError("Nobody can be asked for the key here. Set XPANDER_API_KEY before it starts.") from None
        except KeyboardInterrupt:
            raise errors.Interrupted("No key was given; nothing has changed.") from None
        if not key:
            raise ConfigError("No key was given; nothing has changed. To try without one: %xpander local")
        url, kept, untried = self.session.log_in(key)
        if untried is not None:
            _write(f"The key could not be tried: {untried}\n")
        _write(f"Logged in at {url}; the key is kept {'in the keyring' if kept else 'for this kernel'}.\n")

    def _do_logout(self, command: Command) -> None:
        _write("The key is forgotten.\n" if self.session.log_out() else "There was no key from login.\n")
        if config.has_environment_key():
            _write("XPANDER_API_KEY is still set in this kernel's environment.\n")

    def _do_local(self, command: Command) -> None:
        if command.words and command.words[0] != "stop":
            hint = errors.did_you_mean(command.words[0], ["stop"])
            raise ConfigError(f"%xpander local takes stop or nothing, not {command.words[0]!r}. {hint}".rstrip())
        if command.words:
            _write("The local server has ended.\n" if self.session.stop_local() else "No local server was running.\n")
            return
        local = self.session.start_local(command.file, command.gguf)
        names = self.session.client.directory.target_names()
        _write(f"The local server runs at {local.base_url} and ends with this kernel. It has: {', '.join(names)}.\n")

    def _do_use(self, command: Command) -> None:
        from xpander_magics.plan import check_choices, provider_and_model, refuse_sweeps

        given = command.options or cell.Options()
        refuse_sweeps(given)
        check_choices(given)
        cell.parse_set(given.set)
        for model in given.models:
            if not cell.is_template(model):
                self.session.client.directory.check_model(*provider_and_model(model))
        if given.target is not None and not cell.is_template(given.target):
            self.session.client.directory.resolve(given.target)
        self.session.defaults = given.over_defaults(cell.Options() if command.clear else self.session.defaults)
        _write(f"Defaults: {_chosen(self.session) or 'none'}.\n")

    def _do_agents(self, command: Command) -> Any:
        from xpander_magics.display import table

        return table(self.session.client.agents(), "agents")

    def _do_workflows(self, command: Command) -> Any:
        from xpander_magics.display import table

        return table(self.session.client.workflows(), "workflows")

    def _do_providers(self, command: Command) -> Any:
        from xpander_magics.display import table

        return table(self.session.client.providers(), "providers")

    def _do_models(self, command: Command) -> Any:
        from xpander_magics.display import table

        client = self.session.client
        known = client.directory.provider_ids()
        chosen = list(command.words) or known
        if command.words and command.words[0] not in known:
            hint = errors.did_you_mean(command.words[0], known, otherwise=f"There are: {', '.join(known)}.")
            raise NotFoundError(f"There is no provider {command.words[0]!r}. {hint}")
        return table([model for provider in chosen for model in _models_of(client, provider)], "models")

    def _do_runs(self, command: Command) -> Any:
        from xpander_magics.store.columns import STATUSES

        name = _checked_name(command.out)
        frame = self.session.store.frame(
            experiment=command.experiment,
            tag=command.tag,
            status=command.status,
            target=command.target,
            limit=command.last,
        )
        if frame.empty:  # the service may have statuses of its own, but then a run has one
            cell.one_of("--status", command.status, STATUSES)
        self._bind(name, frame)
        return None if name else frame

    def _do_show(self, command: Command) -> Any:
        from xpander_magics.display import Stream

        view = cell.one_of("--view", command.view, cell.VIEWS)
        run = self._run_named(command)
        self._kept.refresh(run)
        if view is None:
            return run
        Stream(_send, rich=_is_rich(self.shell), view=view).finish(run)
        return None

    def _do_stop(self, command: Command) -> None:
        word = command.words[0] if command.words else None
        if word not in (None, "all"):
            self._stop(self._run_named(command))
            return
        runs = self._kept.under_way()
        if not runs:
            _write("No run is under way.\n")
        failure: XpanderError | None = None
        for run in runs:
            unheard = run.task_id is None
            try:
                self._stop(run)
            except errors.StoreError:
                raise
            except (errors.ServiceError, ConfigError) as error:  # the others are to be stopped all the same
                if unheard and isinstance(error, (ConfigError, NotFoundError)):
                    _write(f"Run {run.run_id[:8]} has no task at the service; perhaps it never got there.\n")
                    continue
                _write(f"Run {run.run_id[:8]} could not be stopped.\n")
                failure = failure or error
            if word is None:
                break
        if failure is not None:
            raise failure

    def _stop(self, run: Run) -> None:
        self._kept.stop(run)
        _write(f"Run {run.run_id[:8]} is {run.status}.\n")

    def _do_usage(self, command: Command) -> Any:
        from xpander_magics.store.frames import frame_of

        if command.words:
            runs = [self._run_named(command)]
            self._kept.read_usage(runs[0])
        else:
            runs = self._kept.read_missing_usage(_write)
        columns = ["run_id", "model", "prompt_tokens", "completion_tokens", "total_tokens", "actions", "cost_usd"]
        return frame_of(runs)[[*columns, "is_byok"]]

    def _do_thread(self, command: Command) -> Any:
        from xpander_magics.display import table
        from xpander_magics.plan import check_service

        run = self._run_named(command)
        if run.task_id is None:
            raise ConfigError(f"Run {run.run_id[:8]} has no conversation: it started no task.")
        check_service(run, self.session.client)
        if not command.full:
            return table(self.session.client.thread(run.task_id), "thread")
        parts = self.session.client.full_thread(run.task_id)
        return table([_within(message, part) for part, messages in parts.items() for message in messages], "thread")

    def _do_tag(self, command: Command) -> None:
        if len(command.words) < 2:
            raise ConfigError("%xpander tag takes a run and at least one tag.")
        ref, *tags = command.words
        run = self._kept.find(ref)
        self._kept.tag(run, tags, remove=command.remove)
        _write(f"Run {run.run_id[:8]} has the tags: {', '.join(run.tags) or 'none'}.\n")

    @property
    def _kept(self) -> Kept:
        return Kept(self.session, self.shell.user_ns)

    def _run_named(self, command: Command) -> Run:
        if not command.words:
            raise ConfigError(
                f"%xpander {command.name} takes a run: its id, or a variable that holds it. %xpander runs"
            )
        return self._kept.find(command.words[0])


XpanderMagics.xpander.__doc__ = f"{cell.cell_help()}\n\nCommands:\n\n{command_help()}"


def _models_of(client: Any, provider: str) -> list[Any]:
    return [_within(model, provider, "provider") for model in client.models(provider)]


def _within(record: Any, part: str, column: str = "conversation") -> Any:
    return type(record)({column: part, **record.raw})


def _checked_name(name: str | None) -> str | None:
    if name is not None and (not name.isidentifier() or keyword.iskeyword(name)):
        raise ConfigError(f"--out takes a variable's name, not {name!r}.")
    return name


def _chosen(session: Session) -> str:
    """What later cells have by default."""
    return ", ".join(f"{name}={value!r}" for name, value in session.defaults.said().items())


def _location(store: Store) -> str:
    """Where the runs are kept; raises StoreError where they can't be."""
    store.select(limit=1)
    return store.location


def _kept_instead(run: Run, options: cell.Options) -> str:
    """What a reused run keeps in place of what this cell asked to keep."""
    asked = {"experiment": options.experiment, "tags": list(options.tags), "note": options.note, "title": options.title}
    own = {name: getattr(run, name) for name, value in asked.items() if value and value != getattr(run, name)}
    told = ", ".join(f"{name} {value!r}" if value else f"no {name}" for name, value in own.items())
    return f"It keeps its own: {told}.\n" if told else ""


def _write(text: str) -> None:
    """Writes what may quote a service, a model or a file."""
    _send(plain(text))


def _send(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _is_rich(shell: Any) -> bool:
    """Whether outputs go to a notebook, which can show HTML and clear what streamed in."""
    return hasattr(shell, "kernel")


def load(ipython: InteractiveShell) -> None:
    """Registers the magics and the completion."""
    from xpander_magics.complete import Completer

    _forget(ipython)
    ipython.register_magics(XpanderMagics(ipython, default_session()))
    ipython.Completer.custom_matchers.append(Completer(default_session(), ipython.user_ns).matcher)


def _forget(ipython: InteractiveShell) -> None:
    """Takes away whatever ``load`` has given the shell."""
    manager = ipython.magics_manager
    for kind in ("line", "cell"):
        manager.magics[kind].pop("xpander", None)
    manager.registry.pop(XpanderMagics.__name__, None)
    configurables: list[Any] = ipython.configurables
    configurables[:] = [c for c in configurables if not isinstance(c, XpanderMagics)]
    matchers = ipython.Completer.custom_matchers
    matchers[:] = [m for m in matchers if not hasattr(m, "xpander_completer")]


def unload(ipython: InteractiveShell) -> None:
    """Takes the magics and the completion away; ends the local server; closes the store."""
    _forget(ipython)
    default_session().close()
