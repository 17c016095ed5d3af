"""The panel: target, model, effort and prompt are chosen in it, and run; later cells have what was chosen.

Nothing in it waits for the service where a front end's message is read: lists, quotes and runs have threads of their
own, and each of them puts what it has found into the widgets.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ipywidgets as w

from xpander_magics import cell
from xpander_magics.cell import Options
from xpander_magics.errors import StoreError, XpanderError
from xpander_magics.kept import own_variables
from xpander_magics.outcomes import Runs
from xpander_magics.progress import line, summary
from xpander_magics.results import Run
from xpander_magics.safety import Redactor, secret_variables
from xpander_magics.sending.quote import quoted
from xpander_magics.session import Session, default_session
from xpander_magics.showing import carried
from xpander_magics.showing.display import as_html
from xpander_magics.showing.markup import escape
from xpander_magics.showing.tables import runs_shown
from xpander_magics.tally import Tally
from xpander_magics.widgets.background import in_background, later
from xpander_magics.widgets.celltext import CellText, later_cells, standing_in
from xpander_magics.widgets.choices import defaults_from, runs_html, tables_among, variables_html, variables_in
from xpander_magics.widgets.controls import Controls
from xpander_magics.widgets.lists import Lists
from xpander_magics.widgets.live import LiveText

# Seconds after a change until it is looked at, so that nothing is computed for each letter; and how many times
# as long as that took is waited where it took long.
_PAUSE, _PATIENCE, _LONGEST_PAUSE = 0.4, 3.0, 10.0
# A second press within so many seconds is a double click, and not a wish for another run.
_DOUBLE = 1.0
_LAST_RUNS = 8
# Of so many runs that were sent here, what stands in for the panel has the rows: it is put out again with each choice.
_CARRIED_RUNS = 100


class Panel(w.VBox):  # type: ignore[misc]
    """Controls for one prompt, and what comes of it; ``xp.panel()`` makes one.

    Attributes:
        runs: those of the last run or sweep that was begun here; None before.
    """

    runs: Runs | None = None

    def __init__(self, session: Session) -> None:
        from IPython import get_ipython

        self.session = session
        self._shell: Any = get_ipython()
        self._lock = threading.RLock()
        self._due: threading.Timer | None = None
        self._newest = 0  # of what was asked to be computed
        self._computing = threading.Lock()
        self._took = 0.0
        self._pressed = -math.inf
        self._sending = self._closed = False
        self._stop = threading.Event()
        self._sent: list[str] = []
        self._newest_sent: list[Run] = []
        self._carried: dict[str, Any] = {}
        self._controls = Controls(self._changed, self._list_models)
        self._lists = Lists(session, self._controls, self._refresh_soon)
        self._variables, self._quote, self._problem, self._defaults, self._last = (w.HTML() for _ in range(5))
        self._run = w.Button(description="Run", button_style="primary", tooltip="Ctrl+Enter, or ⌘+Enter")
        self._copy = CellText(self._refresh_soon)
        # What runs here is no cell: an interrupt would end another's work.
        self._live = LiveText(stop=self._stop.set, interrupts=False, layout=w.Layout())
        self._run.on_click(lambda _: self._press())
        super().__init__()
        self.children = (
            self._lists.shown,
            *self._controls.children,
            *(self._variables, self._quote, self._problem),
            w.HBox((self._run, self._copy)),
            *(self._live, self._defaults, self._last),
        )
        self.add_class("xpander-panel")
        self.add_class("tex2jax_ignore")  # two amounts in dollars are no formula between them
        self._told: Options = session.defaults
        self._controls.show(session.defaults)
        self._show_chosen()
        if self._shell is not None:
            self._shell.events.register("post_run_cell", self._cell_ran)
        self._lists.load()

    def close(self) -> None:
        """Takes it away, with all that it is made of; a run under way goes on."""
        if self._shell is not None and self._cell_ran in self._shell.events.callbacks["post_run_cell"]:
            self._shell.events.unregister("post_run_cell", self._cell_ran)
        with self._lock:
            self._closed = True
            self._newest += 1
            if self._due is not None:
                self._due.cancel()
        _close_parts(self)
        super().close()

    # What is chosen

    def _changed(self) -> None:
        """Called when a person has changed something: later cells have it at once."""
        self._show_problem(None)
        with self._lock:
            before = self._told
            self._told = defaults_from(self._controls.options(before, sound=True), before)
            # What a cell that still runs has chosen since isn't shown here yet, and stays.
            news = {name: value for name, value in vars(self._told).items() if value != getattr(before, name)}
            self.session.defaults = replace(self.session.defaults, **news)
        self._show_chosen()
        self._refresh_soon()

    def _list_models(self, provider: str) -> None:
        self._lists.load_models(provider)

    def _show_chosen(self) -> None:
        self._copy.show(self._controls.options(self.session.defaults), self._controls.prompt.value)
        self._defaults.value = f'<div class="xp-defaults">{escape(later_cells(self.session.defaults))}</div>'

    def _cell_ran(self, *_: Any) -> None:
        """Called after each cell: its variables, and what ``%xpander use`` chose, may be others."""
        if not self._sending:
            self._show_problem(None)  # its cause may be gone; else the quote says it, too
        if self.session.defaults != self._told:
            self._told = self.session.defaults
            self._controls.show(self._told)
            self._show_chosen()
            self._refresh_soon()
        elif self._copy.is_seen:
            self._refresh_soon()
        self._lists.load_again()

    # What it would take

    def _refresh_soon(self) -> None:
        """Computes what depends on the choices, once nothing more changes."""
        with self._lock:
            if self._closed:
                return
            self._newest += 1
            if self._due is not None:
                self._due.cancel()
            pause = min(max(_PAUSE, self._took * _PATIENCE), _LONGEST_PAUSE)
            self._due = later(pause, functools.partial(self._refresh, self._newest))

    def _refresh(self, mine: int) -> None:
        with self._computing:  # one at a time; whoever waited too long has been overtaken
            if mine != self._newest:
                return
            began = time.monotonic()
            options, variables = self._controls.options(self.session.defaults), self._notebook()
            listed, quote = self._compute(options, variables)
            self._took = time.monotonic() - began
            if mine == self._newest:
                self._variables.value, self._quote.value, self._last.value = listed, quote, self._last_runs()
                self._copy.update(self.static())

    def _compute(self, options: Options, variables: Mapping[str, Any]) -> tuple[str, str]:
        """The variables and the quote, as HTML."""
        prompt, listed, redact = self._controls.prompt.value, "", self._redact()
        try:
            self._controls.offer_tables(tables_among(variables))
            found = variables_in(prompt, options, variables, redact)
            listed = variables_html(found) if found else ""
            told = self._quoted(options, prompt, variables)
        except XpanderError as error:
            told = str(error)
        except Exception as error:  # a value's own, such as one that another thread is just changing
            told = f"{type(error).__name__}: {error}"
        return listed, f'<div class="xp-quote" role="status">{escape(redact(told))}</div>'

    def _quoted(self, options: Options, prompt: str, variables: Mapping[str, Any]) -> str:
        problem = self._controls.problem
        if problem is not None or not prompt.strip():
            return problem or "There is no prompt yet."
        if not self._lists.ready:
            return "What it would take is told once the lists are there."
        planned = self.session.grid(self._to_send(options, variables), prompt, variables)
        told = "\n".join(quoted(planned, options, self.session.client, self.session.store))
        return told.removeprefix("Nothing was sent. ")

    def _to_send(self, options: Options, variables: Mapping[str, Any]) -> Options:
        """The options of a run that is begun here: it is stopped by its button, never by an interrupted cell."""
        usage = options.usage if cell.makes_several(options, variables) else options.usage is not False
        return replace(options, usage=usage, on_interrupt="stop")

    def _notebook(self) -> dict[str, Any]:
        """The notebook's own variables as they are now; a cell may be changing them."""
        return {} if self._shell is None else own_variables(dict(self._shell.user_ns), self._shell.user_ns_hidden)

    def _redact(self) -> Redactor:
        try:
            return self.session.redactor()
        except XpanderError:  # there is no key
            return Redactor(secret_variables().values())

    def _last_runs(self) -> str:
        try:
            runs = self.session.store.select(limit=_LAST_RUNS)
        except StoreError as error:
            return f'<div class="xp-problem">{escape(str(error))}</div>'
        return runs_html(runs[::-1]) if runs else ""

    # What comes of it

    def _press(self) -> None:
        """Runs what is chosen, once."""
        with self._lock:
            now = time.monotonic()
            if self._sending or now - self._pressed < _DOUBLE:
                return
            self._pressed = now
            options, prompt = self._controls.options(self.session.defaults), self._controls.prompt.value
            problem = self._controls.problem
            problem = problem or (None if prompt.strip() else "The prompt is empty.")
            self._show_problem(problem)
            if problem is not None:
                return
            self._sending = self._run.disabled = True
            self._stop.clear()
        self._live.begin()
        in_background(lambda: self._carry_out(options, prompt), "xpander-panel")

    def _carry_out(self, options: Options, prompt: str) -> None:
        html = note = ""
        try:
            cell.checked_name(options.out)
            variables = self._notebook()
            several = cell.makes_several(options, variables)
            grid = self.session.grid(self._to_send(options, variables), prompt, variables)
            if self._stop.is_set():
                note = "Stopped; nothing was sent."
                return
            try:
                watch, listen = _Watch(self._live, self._stop, told=several), None if several else self._live.listen
                runs: Runs | None = self.session.sweep(grid, watch, listen=listen)
            except XpanderError as error:
                runs = error.runs
                self._show_problem(str(error))
            if runs is not None:
                self.runs = runs
                html = self._outcome(runs, options, several=several)
                self._carry(runs)
        except XpanderError as error:
            self._show_problem(str(error))
        except Exception as error:
            self._show_problem(f"{type(error).__name__}: {error}")
        finally:
            try:
                self._live.finish(html, note)
            finally:
                with self._lock:
                    self._sending = self._run.disabled = False
                self._refresh_soon()

    def _outcome(self, runs: Runs, options: Options, *, several: bool) -> str:
        """Binds what was done; returns it as safe HTML."""
        found = runs if several else runs[0]
        if options.out is not None and self._shell is not None:
            self._shell.user_ns[cell.checked_name(options.out)] = found
        if not several:
            view = options.view if options.view not in (None, "none") else "auto"
            return as_html(runs[0], str(view))
        name, bound = options.out or "NAME", "" if options.out else "With a NAME in Bind to, "
        hint = f"{bound}{name}.board() shows them side by side, {name}.df has them as a DataFrame."
        return f"{runs_shown(runs)['text/html']}<div>{escape(hint)}</div>"

    def _carry(self, runs: Runs) -> None:
        """Lets what stands in for this carry them, besides those that were sent here before."""
        self._sent += [entry.run_id for entry in runs.entries]
        self._newest_sent = [*runs[:_CARRIED_RUNS], *self._newest_sent][:_CARRIED_RUNS]
        self._carried = carried.bundle(self._newest_sent, self._sent)

    def _show_problem(self, problem: str | None) -> None:
        told = f'<div class="xp-problem" role="alert">{escape(self._redact()(problem))}</div>' if problem else ""
        self._problem.value = told

    def static(self) -> dict[str, Any]:
        """What is chosen, and what was run, as ``text/plain`` and safe ``text/html``."""
        choices = self._controls.target.choices
        unlisted = self._lists.problem or "not listed yet"
        targets = unlisted if choices is None else [choice.value for choice in choices if choice.refused is None]
        same = self._copy.text or self._copy.problem
        facts = standing_in(self.session.defaults, targets, same, self._last.value, self._redact())
        return {**facts, **self._carried}

    def _ipython_display_(self) -> None:
        """Called by IPython where this is shown."""
        if hasattr(self._shell, "kernel"):
            self._copy.display(self.model_id, self.static())
        else:
            print(self.static()["text/plain"])
            print("\nIts controls need a notebook. %xpander use chooses the same here.")


def _close_parts(widget: w.Widget) -> None:
    """Closes all that a widget is made of; ipywidgets leaves that open."""
    for part in (*getattr(widget, "children", ()), *(getattr(widget, name, None) for name in ("layout", "style"))):
        if part is not None:
            _close_parts(part)
            part.close()


class _Watch:
    """Shows how a sweep goes, and ends it as an interrupt would once its button was pressed."""

    def __init__(self, live: LiveText, stop: threading.Event, *, told: bool) -> None:
        self._live = live
        self._stop = stop
        self._told = told
        self._stopped = False

    def __call__(self, tally: Tally) -> None:
        if self._told:
            self._live.tell(summary(tally) if tally.done == tally.total else line(tally))
        if self._stop.is_set() and not self._stopped:
            self._stopped = True
            raise KeyboardInterrupt


def panel() -> Panel:
    """Controls for one prompt: target, model, effort, variables, Run and Stop; ``%xpander panel``.

    What is chosen becomes the default of later cells. ``panel.runs`` has what the last press of Run
    came to.

    Returns:
        The panel, which a notebook shows where it is a cell's value.

    Example:
        >>> panel = xp.panel()
        >>> panel.close()
    """
    return Panel(default_session())
