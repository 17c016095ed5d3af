"""What a cell shows while its run is under way: a live view, and in the end the final rendering in its place.

The front end is imported and shown by a thread of its own, while the request is under way: nobody waits for it, and a
run that ends at once shows nothing else than its end.
"""

from __future__ import annotations

import _thread
import signal
import threading
from typing import TYPE_CHECKING, ClassVar

from xpander_magics.contract import Event
from xpander_magics.errors import XpanderError
from xpander_magics.results import Run
from xpander_magics.safety import plain
from xpander_magics.showing.carried import cell_source
from xpander_magics.showing.display import final_bundle
from xpander_magics.widgets.background import in_background, later

if TYPE_CHECKING:
    from xpander_magics.widgets.live import LiveText

# Seconds until a run that hasn't ended is shown.
_PATIENCE = 0.2
# Seconds that the end of a stopped task's run may take to be heard of; then the kernel is interrupted.
_UNTIL_STOPPED = 3.0
_VIEWS_HELD = 8


class LiveView:
    """Shows the run of a cell while it is under way, then its final rendering in place of that.

    Args:
        view: how the final rendering shows the answer.
    """

    # A page that was loaded again in the middle of a run shows this, not the cell's outputs: the newest stay for it.
    _shown: ClassVar[list[LiveText]] = []

    def __init__(self, view: str) -> None:
        self._view = view
        self._run: Run | None = None
        self._text: LiveText | None = None
        self._source: str | None = None
        self._early: list[tuple[Event, str]] = []
        self._show_soon: threading.Timer | None = None
        # The kernel's interrupt reaches the main thread, whatever runs there.
        self._interruptible = threading.current_thread() is threading.main_thread()
        self._over = threading.Event()
        self._lock = threading.Lock()

    def begin(self, run: Run) -> None:
        """Called when it is about to be sent; it may be stopped as soon as it is shown."""
        self._run = run
        self._source = cell_source()
        self._show_soon = later(_PATIENCE, self._show)

    def _show(self) -> None:
        from xpander_magics.widgets.live import LiveText

        with self._lock:
            if self._over.is_set() or self._run is None:
                return
            self._make_room()
            self._text = LiveText(stop=self._stop_soon, about=self._run)
            self._shown.append(self._text)
            self._text.begin()
            self._text._ipython_display_()
            for event, piece in self._early:
                self._text.listen(self._run, event, piece)

    def _make_room(self) -> None:
        """Of those that nobody has asked for, no more is needed; nor of the oldest."""
        for text in self._shown:
            if not text.seen:
                text.fade()
        while len(self._shown) >= _VIEWS_HELD:
            self._shown.pop(0).close()

    def __call__(self, run: Run, event: Event, piece: str) -> None:
        """The engine's listener."""
        with self._lock:
            if self._text is None:
                self._early.append((event, piece))
            else:
                self._text.listen(run, event, piece)

    def finish(self, run: Run, raised: BaseException | None = None) -> None:
        """Puts the final rendering in place of the live view.

        Args:
            raised: the error that is shown right after this; it isn't said twice.
        """
        from IPython.display import clear_output, display

        self._end()
        bundle = final_bundle(run, self._view, raised, self._source)
        if self._text is not None:
            clear_output(wait=True)  # type: ignore[no-untyped-call]
        display(bundle, raw=True, display_id=self._name(run))  # type: ignore[no-untyped-call]
        if self._text is not None:
            self._text.finish(bundle["text/html"])

    @staticmethod
    def _name(run: Run) -> str:
        """Of the output that the final rendering is."""
        return f"xpander-run-{run.run_id}"

    def close(self) -> None:
        """Ends the view, whatever has ended the run."""
        self._end()
        if self._text is not None and self._text.running:
            self._text.finish()

    def _end(self) -> None:
        with self._lock:
            self._over.set()
        if self._show_soon is not None:
            self._show_soon.cancel()
            self._show_soon.join()

    def _stop_soon(self) -> None:
        # Other messages must not wait for the service's answer.
        in_background(self._stop, "xpander-stop")

    def _stop(self) -> None:
        """Stops the task; before it is known, the sending of it."""
        run, text = self._run, self._text
        assert run is not None
        assert text is not None
        if run.ended:
            return  # and the cell is about to
        run.stopping, late = True, self._over.is_set()
        # Where there is none yet, the interrupt looks for the task, and stops it.
        if run.task_id is not None or late:
            try:
                run.stop()
            except XpanderError as error:
                text.tell(plain(f"It could not be stopped: {error}"))
            else:
                if late:  # the cell was interrupted first, and its task left running
                    self._show_again(run)
                self._over.wait(_UNTIL_STOPPED)
        # Under the lock: the main thread can't get past ``_end`` meanwhile, so this never meets the next cell.
        with self._lock:
            if self._interruptible and not self._over.is_set():
                _interrupt()

    def _show_again(self, run: Run) -> None:
        from IPython.display import update_display

        bundle = final_bundle(run, self._view, source=self._source)
        update_display(bundle, raw=True, display_id=self._name(run))  # type: ignore[no-untyped-call]


def _interrupt() -> None:
    """Interrupts the cell that runs, as the kernel's own stop button does."""
    if hasattr(signal, "pthread_kill"):  # ends even a read that waits, if it is the main thread that gets it
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()
