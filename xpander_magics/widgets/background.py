"""Work in threads of their own, beside those that run cells and read a front end's messages.

Each has the context of the thread that asks for it: in it ipykernel keeps which cell, or which message, an output
belongs to. None of them keeps a kernel from ending.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable


def in_background(work: Callable[[], object], name: str) -> threading.Thread:
    """Does it at once, in a thread of this name."""
    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True)
    thread.start()
    return thread


def later(seconds: float, work: Callable[[], object]) -> threading.Timer:
    """Does it after so many seconds, unless the timer is cancelled before."""
    timer = threading.Timer(seconds, contextvars.copy_context().run, (work,))
    timer.daemon = True
    timer.start()
    return timer
