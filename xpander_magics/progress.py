"""How a sweep goes, while it goes and at its end: one line, with a bar beside it in a notebook.

tqdm's bar in a notebook is a widget, which nbconvert's page and a reopened notebook lack. This one is an
output of the cell that is updated in place, so that what is kept is its last state.
"""

from __future__ import annotations

import contextlib
import html
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from xpander_magics.safety import plain
from xpander_magics.tally import Tally

# Seconds between two updates: of what is overwritten, and of what piles up, as in a log.
_OFTEN, _SELDOM = 0.25, 30.0
_LONGEST_NOTE = 80


def duration(seconds: float) -> str:
    """A duration as people write it: ``0:05``, ``1:05``, ``2:03:04``."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def dollars(amount: float) -> str:
    """An amount: with five digits below a dollar, where runs differ, and with cents above."""
    return f"${amount:,.5f}" if round(amount, 5) < 1 else f"${amount:,.2f}"


def line(tally: Tally) -> str:
    """How a sweep that is under way stands; the most important comes first, for a narrow terminal."""
    pace = f"{duration(tally.left)} left" if tally.left is not None else f"{duration(tally.seconds)} so far"
    percent = tally.done * 100 // tally.total if tally.total else 100
    told = [f"{tally.done:,} of {tally.total:,} ({percent}%)", *_not_well(tally), *_counted(tally.reused, "reused")]
    return _joined(*told, *_counted(tally.under_way, "under way"), _note(tally), pace, *reversed(_used(tally)))


def summary(tally: Tally) -> str:
    """How a sweep ended."""
    reused = f" ({tally.reused:,} reused)" if tally.reused else ""
    ends = [f"{end}{reused}" for end in _counted(tally.completed, "completed")] + _not_well(tally)
    ends += [*_counted(tally.under_way, "still under way"), *_counted(tally.not_sent, "not sent")]
    whole = f"{tally.total:,} run{'s' * (tally.total != 1)} in {duration(tally.seconds)}"
    return _joined(": ".join(part for part in (whole, ", ".join(ends)) if part), *_used(tally), _note(tally))


def _not_well(tally: Tally) -> list[str]:
    return [told for end in ("failed", "stopped", "unknown", "paused") for told in _counted(getattr(tally, end), end)]


def _counted(count: int, what: str) -> list[str]:
    return [f"{count:,} {what}"] if count else []


def _used(tally: Tally) -> list[str]:
    tokens = [] if tally.tokens is None else [f"{tally.tokens:,} tokens"]
    return [*tokens, dollars(tally.cost_usd)] if tally.cost_usd else tokens


def _note(tally: Tally) -> str:
    return _cut(" ".join(plain(tally.note or tally.slowed).split()), _LONGEST_NOTE)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _fitting(text: str, width: int) -> str:
    """As many whole parts of a line as fit: half a number would be another number."""
    if len(text) <= width:
        return text
    parts = text[: width - 1].rpartition(" ·")[0]
    return f"{parts} …" if parts else _cut(text, width)


def _joined(*parts: str) -> str:
    return plain(" · ".join(part for part in parts if part))


class Bar:
    """Shows how a sweep goes. In a notebook and in a terminal it is one thing that changes in its place.

    Where lines can't be overwritten, as in a log, there is one every half minute, and the last.

    Args:
        write: writes text to the terminal or the log.
        rich: whether outputs go to a notebook.
        quiet: whether nothing at all is shown.
        terminal: whether ``write`` goes to a terminal; by default, whether stdout does.
        clock: seconds, from wherever they are counted.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        *,
        rich: bool,
        quiet: bool = False,
        terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._rich = rich
        self._over = quiet
        self._terminal = sys.stdout.isatty() if terminal is None else terminal
        self._clock = clock
        self._gap = _OFTEN if rich or self._terminal else _SELDOM
        self._due = clock() + (0 if rich or self._terminal else _SELDOM)
        self._shown = ""
        self._output: Any = None

    def __call__(self, tally: Tally) -> None:
        """Shows how it stands, unless that was shown already or just now. Costs next to nothing then."""
        if self._over or self._clock() < self._due:
            return
        text = line(tally)
        if text == self._shown:
            return
        if self._rich:
            self._display(text, _bar_html(tally, text))
        elif self._terminal:
            # At the start of the line, where what the terminal echoes of Ctrl-C is overwritten.
            self._overwrite(_fitting(text, max(shutil.get_terminal_size().columns - 1, 1)), "\r")
        else:
            self._write(f"{text}\n")
        self._shown = text
        self._due = self._clock() + self._gap

    def finish(self, tally: Tally) -> None:
        """Shows how it ended, in place of the bar. Nothing is shown after that."""
        if self._over:
            return
        text = summary(tally)
        if self._rich:
            # Told to a screen reader; every update would be too much of it.
            self._display(text, f'<div class="xpander-progress" role="status">{html.escape(text)}</div>')
        elif self._terminal:
            self._overwrite(text, "\n")
        else:
            self._write(f"{text}\n")
        self._over = True

    def _overwrite(self, text: str, end: str) -> None:
        before = min(len(self._shown), shutil.get_terminal_size().columns - 1)
        self._write(f"\r{text.ljust(before)}{end}")

    def _display(self, text: str, shown: str) -> None:
        from IPython.display import DisplayHandle

        bundle = {"text/plain": text, "text/html": shown}
        if self._output is not None:
            self._output.update(bundle, raw=True)
            return
        output = DisplayHandle()  # type: ignore[no-untyped-call]
        output.display(bundle, raw=True)  # type: ignore[no-untyped-call]
        self._output = output


def _bar_html(tally: Tally, text: str) -> str:
    most = max(tally.total, 1)
    bar = f'<progress value="{min(tally.done, most)}" max="{most}" aria-label="Runs that have ended"></progress>'
    return f'<div class="xpander-progress">{bar} {html.escape(text)}</div>'


@contextlib.contextmanager
def bar(wanted: bool | None = None, *, rich: bool | None = None) -> Iterator[Callable[[Tally], None]]:
    """A bar around a sweep; the last tally that it is called with is shown at its end.

    Args:
        wanted: whether it is shown; by default, where there is a notebook or a terminal.
        rich: whether outputs go to a notebook; found out by default.
    """
    rich = notebook_shell() is not None if rich is None else rich
    shown = Bar(_write, rich=rich, quiet=not (sys.stdout.isatty() or rich) if wanted is None else not wanted)
    last: list[Tally] = []

    def show(tally: Tally) -> None:
        last[:] = [tally]
        shown(tally)

    try:
        yield show
    finally:
        for tally in last:
            shown.finish(tally)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def notebook_shell() -> Any:
    """IPython's shell where outputs go to a notebook, else None; IPython isn't imported for it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if hasattr(shell, "kernel") else None
