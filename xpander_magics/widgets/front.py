"""What every widget with a front end of its own has in common: its files, and its static equivalent.

A front end is plain JavaScript and CSS in files beside this one, sent to the browser as it is: nothing is
loaded from elsewhere. Text that a model, a service or a person wrote goes there as text, and becomes HTML only in
``markup.safe_html``.
"""

from __future__ import annotations

import functools
import uuid
from pathlib import Path
from typing import Any

import anywidget
from traitlets import Unicode

from xpander_magics.showing.markup import AS_IT_IS

VIEW = "application/vnd.jupyter.widget-view+json"


@functools.cache
def source(*names: str) -> str:
    """The text of files beside this one, one after the other: anywidget takes one module for each widget."""
    folder = Path(__file__).parent
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


class FrontEnd(anywidget.AnyWidget):
    """A widget with a front end of its own.

    In a notebook it is two outputs: the view, and what stands in for it wherever no widget can run. The view's
    front end hides the other while it is shown (``standIn`` in ``common.js``), so that a notebook that is reopened
    without its kernel, or read at GitHub, still has the facts.
    """

    stand_in = Unicode().tag(sync=True)
    """The CSS class of what stands in for this widget."""

    def __init__(self, **traits: Any) -> None:
        super().__init__(stand_in=f"xpander-static-{uuid.uuid4().hex[:12]}", **traits)

    def open(self) -> None:
        """Called when it is made: its way to the front end."""
        super().open()
        # Since 7.4 ipykernel takes a front end's message to the thread that wrote last: the main one, which reads none
        # while a cell runs. Here each goes to the subshell that the front end has chosen.
        self.comm._reply_subshell_for = lambda _data, chosen: chosen

    def static(self) -> dict[str, Any]:
        """The same facts as ``text/plain`` and safe ``text/html``; empty where nothing needs to stay."""
        return {}

    def _ipython_display_(self) -> None:
        """Called by IPython where this is shown."""
        from IPython import get_ipython

        static = self.static()
        if not hasattr(get_ipython(), "kernel"):
            print(static.get("text/plain", ""))
            return
        self.put_out(self.model_id, static)

    def put_out(self, model: str, static: dict[str, Any]) -> None:
        """Shows a view, and what stands in for it.

        Args:
            model: the view's; another's where this is a part of it.
        """
        from IPython.display import display

        # Without a text of its own, GitHub and the like show nothing of it.
        view = {"version_major": 2, "version_minor": 0, "model_id": model}
        display({VIEW: view, "text/plain": ""}, raw=True)  # type: ignore[no-untyped-call]
        if static:
            display(self._held(static), raw=True, display_id=self.stand_in)  # type: ignore[no-untyped-call]

    def renew_static(self, static: dict[str, Any] | None = None) -> None:
        """Puts the facts as they are now, or these, where the static equivalent was shown."""
        from IPython import get_ipython
        from IPython.display import update_display

        if hasattr(get_ipython(), "kernel"):
            facts = self.static() if static is None else static
            update_display(self._held(facts), raw=True, display_id=self.stand_in)  # type: ignore[no-untyped-call]

    def _held(self, static: dict[str, Any]) -> dict[str, Any]:
        """The static equivalent in what the view's front end finds and hides."""
        kinds = f"xpander-static {self.stand_in} {AS_IT_IS}"
        return {**static, "text/html": f'<div class="{kinds}">{static["text/html"]}</div>'}
