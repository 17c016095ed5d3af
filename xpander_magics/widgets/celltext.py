"""What is chosen in a panel, as a cell: to be copied, and to stand in for the panel where no widget can run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from traitlets import Unicode

from xpander_magics.cell import Options
from xpander_magics.errors import XpanderError
from xpander_magics.safety import Redactor, plain
from xpander_magics.showing.markup import escape
from xpander_magics.widgets.choices import cell_line, cell_text
from xpander_magics.widgets.front import FrontEnd, source

_LONGEST_ID = 64


class CellText(FrontEnd):
    """The button that copies what is chosen as a cell; hides what stands in for the panel, too.

    Args:
        seen: called when a view of it has been made.
    """

    _esm = source("common.js", "copy.js")
    _css = source("theme.css", "panel.css")
    text = Unicode().tag(sync=True)
    problem = Unicode().tag(sync=True)

    def __init__(self, seen: Callable[[], object]) -> None:
        super().__init__()
        self._seen = seen
        self._views: set[str] = set()
        self._put_out: dict[str, Any] | None = None  # what was last put out to stand in for the panel
        self.on_msg(self._hear)

    @property
    def is_seen(self) -> bool:
        """Whether a front end shows it: that of a cell which was run again doesn't any more."""
        return bool(self._views)

    def show(self, options: Options, prompt: str) -> None:
        """Takes over what is chosen."""
        try:
            text, problem = cell_text(options, prompt), ""
        except XpanderError as error:
            text, problem = "", str(error)
        with self.hold_sync():
            self.text, self.problem = text, problem

    def display(self, view_of: str, static: dict[str, Any]) -> None:
        """Puts out the view of the panel that this is a part of, and what stands in for it.

        Args:
            view_of: the panel's model.
        """
        self._put_out = static
        self.put_out(view_of, static)

    def update(self, static: dict[str, Any]) -> None:
        """Brings what stands in for the panel up to date, if it was put out."""
        if self._put_out is not None and static != self._put_out:
            self._put_out = static
            self.renew_static(static)

    def _hear(self, _widget: Any, message: Any, _buffers: Any) -> None:
        kind, view = (message.get(name) for name in ("kind", "view")) if isinstance(message, dict) else (None, None)
        if not isinstance(view, str) or len(view) > _LONGEST_ID:
            return
        if kind == "shown":
            self._views.add(view)
            self._seen()
        elif kind == "hidden":
            self._views.discard(view)


def later_cells(defaults: Options) -> str:
    """What the cells below have by default, in a line."""
    try:
        chosen = cell_line(defaults) or "none"
    except XpanderError as error:
        chosen = str(error)
    return f"Defaults of later cells: {chosen}"


def standing_in(defaults: Options, targets: list[str] | str, cell: str, last: str, redact: Redactor) -> dict[str, Any]:
    """What a panel shows, as ``text/plain`` and safe ``text/html``.

    Args:
        targets: the agents and workflows that can be chosen, or why they aren't listed.
        cell: the cell that does the same.
        last: the last runs, as safe HTML.
    """
    listed = targets if isinstance(targets, str) else ", ".join(targets) or "none"
    told = [
        "xpander panel: choose a target, a model and an effort, write a prompt, run it.",
        later_cells(defaults),
        f"Agents and workflows: {listed}",
        "The cell that does the same:",
    ]
    text, same = plain(redact("\n".join(told))), plain(redact(cell.rstrip()))
    head = f'<div style="white-space:pre-wrap">{escape(text)}</div>'
    return {"text/plain": f"{text}\n\n{same}", "text/html": f"<div>{head}<pre>{escape(same)}</pre>{last}</div>"}
