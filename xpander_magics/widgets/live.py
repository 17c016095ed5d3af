"""The live view of a run: its answer as it comes, what it does on the way, a button that stops it.

Only new text crosses the wire, a few times a second, so bytes grow with the answer and not with its square. The
whole is part of the model's state all the same, for a page that is loaded again. Once the run has ended, its final
rendering takes the view's place among the cell's outputs, so that a notebook keeps it.
"""

from __future__ import annotations

import _thread
import contextvars
import signal
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

from traitlets import Bool, Unicode

from xpander_magics.contract import Event
from xpander_magics.display import final_bundle, shown_note, shown_step
from xpander_magics.errors import XpanderError
from xpander_magics.results import Run
from xpander_magics.safety import plain
from xpander_magics.widgets.front import FrontEnd, source

# Seconds between two updates: at most 20 a second are promised, and 12 look the same.
_PERIOD = 0.08
_VIEWS_HELD = 8


class LiveText(FrontEnd):
    """A run's text as it comes, its thoughts and tool calls folded, and a stop button.

    Safe to use from any thread. ``running`` and ``stopping`` say what the button may do; ``html`` is the final
    rendering, safe HTML in place of the text.

    Args:
        stop: called when the button is pressed, in whatever thread reads the front end's messages.
    """

    _esm = source("common.js", "live.js")
    _css = source("theme.css", "live.css")
    running = Bool(False).tag(sync=True)
    stopping = Bool(False).tag(sync=True)
    html = Unicode().tag(sync=True)

    def __init__(self, stop: Callable[[], object] | None = None, **traits: Any) -> None:
        self._text: list[str] = []
        self._length = 0  # of the text that has been sent, in the front end's characters
        self._sent = 0  # how many pieces of it, and how many steps
        self._steps: list[dict[str, str]] = []
        self._sent_steps = 0
        self._note = self._sent_note = ""
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._flusher: threading.Thread | None = None
        self._stop = stop
        super().__init__(**traits)
        self.on_msg(self._hear)

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
        """The state for a front end that connects; text and steps are in it, and never sent as a whole otherwise."""
        state = super().get_state(key, drop_defaults)
        if key is None:
            with self._lock:
                state.update(self._whole())
        return state

    def _whole(self) -> dict[str, Any]:
        """All that has been sent so far."""
        text, steps = "".join(self._text[: self._sent]), self._steps[: self._sent_steps]
        return {"text": text, "steps": steps, "note": self._sent_note}

    def begin(self) -> None:
        """Empties it for a run that begins."""
        with self._lock:
            self._text, self._length, self._sent, self._steps, self._sent_steps = [], 0, 0, [], 0
            self._note = self._sent_note = ""
            self.send({"kind": "whole", **self._whole()})
        with self.hold_sync():
            self.running, self.stopping, self.html = True, False, ""

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
        """Shows how it ended."""
        with self._lock:
            self._note = note
        self._flush()
        with self.hold_sync():
            self.running, self.stopping, self.html = False, False, html
        self._news.set()

    def _tell(self) -> None:
        self._news.set()
        if self._flusher is None or not self._flusher.is_alive():
            # With this thread's context, in which ipykernel keeps which cell it is that an output belongs to.
            work = contextvars.copy_context().run
            self._flusher = threading.Thread(target=work, args=(self._flush_often,), name="xpander-live", daemon=True)
            self._flusher.start()

    def _flush_often(self) -> None:
        pause = threading.Event()
        while self.running:
            self._news.wait()
            self._news.clear()
            self._flush()
            pause.wait(_PERIOD)

    def _flush(self) -> None:
        """Sends what is new."""
        with self._lock:
            text, steps = "".join(self._text[self._sent :]), self._steps[self._sent_steps :]
            if not text and not steps and self._note == self._sent_note:
                return
            news = {"kind": "news", "at": self._length, "text": text, "note": self._note}
            if steps:
                news.update(at_step=self._sent_steps, steps=steps)
            self._sent, self._sent_steps, self._sent_note = len(self._text), len(self._steps), self._note
            self._length += _characters(text)
            # Under the lock: two threads must not swap two pieces.
            self.send(news)

    def _hear(self, _widget: Any, message: Any, _buffers: Any) -> None:
        kind = message.get("kind") if isinstance(message, dict) else None
        if kind == "stop" and self._stop is not None and self.running and not self.stopping:
            self.stopping = True
            self._stop()
        elif kind == "whole":
            with self._lock:
                self.send({"kind": "whole", **self._whole()})


def _characters(text: str) -> int:
    """The length of a text as JavaScript counts: what lies beyond the first 65,536 characters counts twice."""
    return len(text) + sum(character > "\uffff" for character in text)


class LiveView:
    """Shows the run of a cell while it is under way, then its final rendering in place of that.

    Args:
        view: how the final rendering shows the answer.
    """

    # A page that was loaded again in the middle of a run shows what the model holds, not the cell's outputs: the
    # newest stay for it.
    _shown: ClassVar[deque[LiveText]] = deque()

    def __init__(self, view: str) -> None:
        self._view = view
        self._run: Run | None = None
        self._text: LiveText | None = None

    def begin(self, run: Run) -> None:
        """Shows that it is about to be sent; it may be stopped from here on."""
        self._run = run
        self._text = LiveText(stop=self._stop)
        self._text.begin()
        self._text._ipython_display_()

    def __call__(self, run: Run, event: Event, piece: str) -> None:
        """The engine's listener."""
        assert self._text is not None, "begun"
        self._text.listen(run, event, piece)

    def finish(self, run: Run, raised: BaseException | None = None) -> None:
        """Puts the final rendering in place of the live view.

        Args:
            raised: the error that is shown right after this; it isn't said twice.
        """
        from IPython.display import clear_output, display

        bundle = final_bundle(run, self._view, raised)
        if self._text is not None:
            self._text.finish(bundle["text/html"])
            clear_output(wait=True)  # type: ignore[no-untyped-call]
        display(bundle, raw=True)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Ends the view, whatever has ended the run."""
        if self._text is None:
            return
        self._text.finish(self._text.html)
        self._shown.append(self._text)
        while len(self._shown) > _VIEWS_HELD:
            self._shown.popleft().close()

    def _stop(self) -> None:
        """Stops the task; before it is known, the sending of it."""
        run, text = self._run, self._text
        assert run is not None
        assert text is not None
        run.stopping = True
        if run.task_id is None:
            _interrupt()
            return
        try:
            run.stop()
        except XpanderError as error:
            text.tell(plain(f"It could not be stopped: {error}"))
            _interrupt()


def _interrupt() -> None:
    """Interrupts the cell that runs, as the kernel's own stop button does."""
    if hasattr(signal, "pthread_kill"):  # ends even a read that waits, if it is the main thread that gets it
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()
