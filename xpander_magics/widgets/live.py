"""The live view of a run: its answer as it comes, what it does on the way, a button that stops it.

Only new text crosses the wire, a few times a second, so bytes grow with the answer and not with its square; text is
never part of the widget's state, which notebooks keep. A page that opens or is loaded again asks for the whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar

from ipywidgets import Layout
from traitlets import Bool

from xpander_magics.contract import Event
from xpander_magics.results import Run
from xpander_magics.safety import plain
from xpander_magics.showing.display import shown_note, shown_step
from xpander_magics.widgets.background import in_background
from xpander_magics.widgets.front import FrontEnd, source

# Seconds between two updates, first and later: 20 a second are promised at the most. An update has 1 KB around it,
# which is more than most texts grow by meanwhile.
_PERIODS = (0.1, 0.2)
_FIRST = 10
_LONG = 10_000


class LiveText(FrontEnd):
    """A run's text as it comes, its thoughts and tool calls folded, and a stop button.

    Safe to use from any thread. ``running`` and ``stopping`` say what the button may do.

    Args:
        stop: called when the button is pressed, in whatever thread reads the front end's messages; where the kernel
            reads none while a cell runs, after the front end's interrupt has ended the cell.
        about: the run, where the final rendering is shown elsewhere: a page that can't show this says so.

    Attributes:
        seen: whether a front end shows it, or has shown it.
    """

    _esm = source("common.js", "live.js")
    _css = source("theme.css", "live.css")
    running = Bool(False).tag(sync=True)
    stopping = Bool(False).tag(sync=True)
    # Whether a cell is what runs, so that an interrupt of the kernel stops it where no message is read meanwhile.
    interrupts = Bool(True).tag(sync=True)

    # A layout is a widget, too; one is enough.
    _plain_layout: ClassVar[Layout | None] = None

    def __init__(self, stop: Callable[[], object] | None = None, about: Run | None = None, **traits: Any) -> None:
        self.seen = False
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._over = threading.Event()
        self._over.set()
        self._flusher: threading.Thread | None = None
        self._stop = stop
        self._about = about
        self._empty()
        self.on_msg(self._hear)  # before it opens: a page may ask at once
        if LiveText._plain_layout is None or LiveText._plain_layout.comm is None:  # closed, by Widget.close_all()
            LiveText._plain_layout = Layout()
        super().__init__(**{"layout": LiveText._plain_layout, **traits})

    def _empty(self) -> None:
        self._text: list[str] = []
        self._length = 0  # of the text that was sent, in the front end's characters
        self._sent = self._sent_steps = 0  # how many pieces of it, and how many steps
        self._whole_at = 0  # how long the text was when it was last sent as a whole
        self._steps: list[dict[str, str]] = []
        self._note = self._sent_note = ""
        self._html = ""

    def static(self) -> dict[str, Any]:
        """Where the run is to be found, for a page that was saved or loaded while it was under way."""
        if self._about is None:
            return {}
        known = self._about.run_id[:8]
        told = f"Run {known} was under way here; %xpander show {known} tells what became of it."
        return {"text/plain": told, "text/html": f"<div>{told}</div>"}

    def begin(self) -> None:
        """Empties it for a run that begins."""
        self._end_flusher()
        with self._lock:
            self._empty()
            self._send_news()
            self._over.clear()
        with self.hold_sync():
            self.running, self.stopping = True, False

    def listen(self, run: Run, event: Event, piece: str) -> None:
        """Shows an event; the engine's listener."""
        step, note = shown_step(event), shown_note(run, event)
        with self._lock:
            if piece:
                self._text.append(plain(piece))
            if step is not None:
                self._steps.append({"kind": step[0], "text": step[1]})
            self._note = self._note if note is None else note
        if piece or step is not None or note is not None:
            self._tell()

    def tell(self, note: str) -> None:
        """Shows a line beside the button."""
        with self._lock:
            self._note = note
        self._tell()

    def finish(self, html: str = "", note: str = "") -> None:
        """Shows how it ended.

        Args:
            html: the final rendering, safe HTML in place of the text; only pages that show this ask for it.
            note: what the line beside the button says from now on.
        """
        self._end_flusher()
        with self._lock:
            self._note, self._html = note, html
            if not html:
                self._flush()
        with self.hold_sync():
            self.running, self.stopping = False, False

    def fade(self) -> None:
        """Takes its front end away: what runs a notebook by machine keeps the state of all widgets, closed or not."""
        with self.hold_sync():
            self._esm, self._css = "export default {}", ""

    def _tell(self) -> None:
        with self._lock:
            if self._over.is_set():
                self._flush()
            elif self._flusher is None:
                self._flusher = in_background(self._flush_often, "xpander-live")
        self._news.set()

    def _flush_often(self) -> None:
        updates = 0
        while not self._over.is_set():
            self._news.wait()
            self._news.clear()
            with self._lock:
                self._flush()
            updates += 1
            self._over.wait(_PERIODS[updates > _FIRST])

    def _end_flusher(self) -> None:
        """Ends the thread that sends; what it hasn't sent yet waits for the next ``_flush``."""
        with self._lock:
            self._over.set()
            flusher, self._flusher = self._flusher, None
        self._news.set()
        if flusher is not None:
            flusher.join()

    def _flush(self) -> None:
        """Sends what is new, if there is anything."""
        # Nobody has asked for the text yet, perhaps because this kernel reads no messages while a cell runs, and
        # a front end may have missed how it began. Sent again whenever it has grown fourfold, it stays linear; by the
        # time it is long, every front end is there.
        if not self.seen and 4 * self._whole_at <= self._length < _LONG:
            self._sent = self._sent_steps = 0
        new = len(self._text) > self._sent or len(self._steps) > self._sent_steps
        if new or self._note != self._sent_note:
            self._send_news()

    def _send_news(self) -> None:
        """Sends what hasn't been sent. Under the lock: two threads must not swap two pieces."""
        news: dict[str, Any] = {"kind": "news", "note": self._note}
        if self._html:
            self.send(news | {"at": 0, "text": "", "at_step": 0, "steps": [], "html": self._html})
            return
        whole = not self._sent
        at = 0 if whole else self._length
        text, steps = "".join(self._text[self._sent :]), self._steps[self._sent_steps :]
        news |= {"at": at, "text": text}
        if steps or whole:
            news |= {"at_step": self._sent_steps, "steps": steps}
        self._sent, self._sent_steps, self._sent_note = len(self._text), len(self._steps), self._note
        self._length = at + _characters(text)
        self._whole_at = self._length if whole else self._whole_at
        self.send(news)

    def _hear(self, _widget: Any, message: Any, _buffers: Any) -> None:
        kind = message.get("kind") if isinstance(message, dict) else None
        if kind == "stop" and self._stop is not None and not self.stopping:
            self.stopping = self.running
            self._stop()
        elif kind == "ready":
            with self._lock:
                self.seen = True
                self._sent = self._sent_steps = 0
                self._send_news()


def _characters(text: str) -> int:
    """The length of a text as JavaScript counts: what lies beyond the first 65,536 characters counts twice."""
    return len(text) + sum(character > "\uffff" for character in text)
