"""``%xpander`` and ``%%xpander``: a line is parsed, the session does the work, the result is shown.

Loading this imports neither requests, pandas, SQLAlchemy nor Jinja2, and of this package little more than the parser;
the first call does.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from traitlets import Bool, Enum, Float, Integer, Unicode

from xpander_magics import cell, errors
from xpander_magics.commands import command_help, parse_command
from xpander_magics.config import Settings
from xpander_magics.errors import ConfigError, XpanderError
from xpander_magics.magics.firstline import check_first_line
from xpander_magics.safety import Address, plain
from xpander_magics.session import Session, default_session

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from xpander_magics.magics.actions import Actions
    from xpander_magics.magics.complete import Completer
    from xpander_magics.results import Run
    from xpander_magics.showing.display import Stream
    from xpander_magics.widgets.running import LiveView

# By their names, which pandas 3 has changed: pandas isn't imported for this.
_FRAMES = (
    *(("pandas", "DataFrame"), ("pandas.core.frame", "DataFrame")),
    *(("pandas", "Series"), ("pandas.core.series", "Series")),
)


class _Address(Unicode[Any, Any]):
    """An address, which ``%config`` shows without its password."""

    def validate(self, obj: Any, value: Any) -> Any:
        checked = super().validate(obj, value)
        return checked if checked is None else Address(checked)


@magics_class
class XpanderMagics(Magics):
    """``%xpander`` and ``%%xpander``; ``%config XpanderMagics`` lists their settings.

    A setting is set by ``%config XpanderMagics.timeout = 60``, or in ``ipython_config.py``.
    """

    base_url = _Address(None, allow_none=True, help="Where the service is; else XPANDER_BASE_URL.").tag(config=True)
    target = Unicode(None, allow_none=True, help="The target of cells that name none; else XPANDER_AGENT_ID.").tag(
        config=True
    )
    store = _Address(None, allow_none=True, help="An SQLAlchemy URL for the runs; else XPANDER_STORE.").tag(config=True)
    connect_timeout = Float(10.0, min=0.001, help="Seconds to connect.").tag(config=True)
    read_timeout = Float(60.0, min=0.001, help="Seconds between two pieces of an answer.").tag(config=True)
    timeout = Float(600.0, min=0.001, help="Seconds that a run may take.").tag(config=True)
    pause_wait = Float(30.0, min=0.0, help="Seconds to wait for a person where a task is paused.").tag(config=True)
    retries = Integer(5, min=0, help="How often a request is sent again at the most.").tag(config=True)
    settle = Float(60.0, min=1.0, help="Seconds until a call that no task shows up for has surely started none.").tag(
        config=True
    )
    rate_limit = Float(
        None, allow_none=True, help="Requests a minute that the service allows; 100 if it isn't local. 0: any number."
    ).tag(config=True)
    view = Enum(cell.VIEWS, "auto", help="How answers are shown when --view isn't given.").tag(config=True)
    widgets = Bool(True, help="Show in a notebook what is under way, and sweeps, as widgets; else as text.").tag(
        config=True
    )
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

    @errors.without_variables
    def _run_cell(self, line: str, body: str) -> None:
        """``%%xpander``: shown as it goes, bound to a name, kept in the store."""
        from xpander_magics.kept import own_variables

        options = cell.parse_cell(line).over_defaults(self.session.defaults)
        view = "none" if options.quiet else cell.one_of("--view", options.view or self.view, cell.VIEWS)
        cell.checked_name(options.out)
        if not body.strip():
            raise ConfigError("The prompt is empty. Write it below the %%xpander line.")
        variables = own_variables(self.shell.user_ns, self.shell.user_ns_hidden)
        several = cell.makes_several(options, variables)
        if options.dry_run:
            plans = self.session.grid if several else self.session.plan
            _write(self.session.dry_run(plans(options, body, variables), options))
        elif several:
            self._actions.send_sweep(options, body, variables, view or "auto")
        else:
            self._send_one(options, body, variables, view or "auto")

    def _send_one(self, options: cell.Options, body: str, variables: dict[str, Any], view: str) -> None:
        shown, bind = self._view_of_one(view), self._actions.bind
        try:
            run = self.session.run(options, body, variables, shown, shown.begin)
        except (XpanderError, errors.Interrupted) as error:
            if error.run is not None:
                bind(options.out, error.run)
                shown.finish(error.run, raised=error)
            raise
        else:
            bind(options.out, run)
            shown.finish(run)
        finally:
            shown.close()
        if view != "none":
            _write(f"{_kept_instead(run, options) if run.reused else ''}{run.said}")

    def _view_of_one(self, view: str) -> LiveView | Stream:
        from xpander_magics.showing.display import Stream

        if self.widgets and view != "none" and _is_rich(self.shell):
            from xpander_magics.widgets.running import LiveView

            return LiveView(view)
        # What it streams it makes safe itself; the carriage return of its progress is its own.
        return Stream(_send, rich=_is_rich(self.shell), view=view)

    @property
    def _actions(self) -> Actions:
        from xpander_magics.magics.actions import Actions

        return Actions(self.session, self.shell.user_ns, _send, rich=_is_rich(self.shell), widgets=self.widgets)

    @errors.without_variables
    def _command(self, line: str) -> Any:
        return self._actions.do(parse_command(line))


_EXAMPLE = """
Example:

    %%xpander writer -m openai/gpt-5,anthropic/claude-sonnet-4-6 -e low,high --over tickets -o results
    Classify this support ticket as bug, billing or praise: {{ text }}

    %xpander compare results --by model,effort --score exact --expected label
"""
XpanderMagics.xpander.__doc__ = f"{cell.cell_help()}\nCommands:\n\n{command_help()}{_EXAMPLE}"


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
    _forget(ipython)
    ipython.register_magics(XpanderMagics(ipython, default_session()))
    ipython.Completer.custom_matchers.append(_matcher(ipython.user_ns))
    ipython.input_transformers_cleanup.append(check_first_line)
    for kind in _FRAMES:
        if _text_formatter(ipython).for_type_by_name(*kind) is None:
            _text_formatter(ipython).for_type_by_name(*kind, _shown_plainly)


def _matcher(variables: Mapping[str, Any]) -> Any:
    """What Tab asks of IPython's matchers."""

    @functools.cache
    def completer() -> Completer:
        from xpander_magics.magics.complete import Completer

        return Completer(default_session(), variables)

    @context_matcher(identifier="xpander_magics")
    def matcher(context: CompletionContext) -> SimpleMatcherResult:
        lines = context.full_text.split("\n")[: context.cursor_line + 1]
        lines[-1] = lines[-1][: context.cursor_position]
        text = "\n".join(lines)
        word, offered = ("xpander" in text and completer().matches(text)) or ("", [])
        return {
            "completions": [SimpleCompletion(text=text, type="xpander") for text in offered],
            "suppress": bool(offered),
            "matched_fragment": word,
            "ordered": True,
            "do_not_suppress": set(),
        }

    matcher.xpander_completer = completer
    return matcher


def _text_formatter(ipython: InteractiveShell) -> Any:
    return ipython.display_formatter.formatters["text/plain"]  # type: ignore[union-attr]


def _shown_plainly(frame: Any, printer: Any, cycle: bool) -> None:
    """A DataFrame as pandas shows it: it would write a terminal's control characters as they are."""
    with printer.group():
        for number, line in enumerate(plain(repr(frame)).split("\n")):
            if number:
                printer.break_()  # which indents it within a list
            printer.text(line)


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
    transformers = ipython.input_transformers_cleanup
    transformers[:] = [t for t in transformers if t is not check_first_line]
    for module, name in _FRAMES:
        if _text_formatter(ipython).for_type_by_name(module, name) is _shown_plainly:
            _text_formatter(ipython).pop(f"{module}.{name}", None)


def unload(ipython: InteractiveShell) -> None:
    """Takes the magics and the completion away; ends the local server; closes the store."""
    _forget(ipython)
    default_session().close()
