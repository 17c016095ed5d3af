"""The runs of a sweep as a person sees them: their first rows, with what varies among them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from xpander_magics.display import FOOT, as_shown, escape
from xpander_magics.results import Run
from xpander_magics.safety import plain

if TYPE_CHECKING:
    from xpander_magics.outcomes import Runs

_ROWS_SHOWN = 20
_LONGEST_CELL = 200
_LEFT = ("planned", "pending", "executing", "unknown")
_NUMBER = re.compile(r"-?[\d.]*")


def runs_bundle(runs: Runs) -> dict[str, Any]:
    """What a notebook keeps of the runs of a sweep: their first rows, with what varies among them."""
    rows = list(runs[:_ROWS_SHOWN])
    names, cells = _rows_of(rows)
    counts = runs.statuses()
    odd = counts.get("completed", 0) - len(runs.completed)
    told = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    told += f" ({odd:,} with an error)" if odd else ""
    head = plain(f"{len(runs):,} run{'s' * (len(runs) != 1)}{f': {told}' if told else ''} · sweep {runs.sweep_id[:8]}")
    more = f"… and {len(runs) - len(rows):,} more: .df has all of them." if len(runs) > len(rows) else ""
    # JupyterLab puts all of a table to the right, which is for numbers.
    numbers = [all(map(_NUMBER.fullmatch, column)) for column in zip(*cells, strict=True)]
    styles = ["" if number else ' style="text-align:left"' for number in numbers]
    body = "".join(f"<tr>{_html('td', styles, row)}</tr>" for row in cells)
    table = f"<table><thead><tr>{_html('th', styles, names)}</tr></thead><tbody>{body}</tbody></table>" if cells else ""
    notes = f"<div>{escape(more)}</div>" if more else ""
    return {
        "text/plain": "\n".join(part for part in (_columned(names, cells), more, head) if part),
        "text/html": f'<div class="xpander-runs">{table}{notes}<div style="{FOOT}">{escape(head)}</div></div>',
    }


def show_runs(runs: Runs, name: str | None, write: Callable[[str], object], *, rich: bool) -> None:
    """Shows the runs of a sweep, and what can be done about those that aren't well."""
    bundle = runs_bundle(runs)
    if rich:
        from IPython.display import display

        display(bundle, raw=True)  # type: ignore[no-untyped-call]
    else:
        write(f"{bundle['text/plain']}\n")
    counts = runs.statuses()
    left = sum(counts.get(status, 0) for status in _LEFT)
    if left:
        write(f"{left:,} of them are still to be sent or collected: %xpander resume {runs.sweep_id[:8]}\n")
    failed = [run for run in runs.failed if run.status not in _LEFT]  # those are resume's
    if failed:
        first = plain((failed[0].error or failed[0].status).partition("\n")[0])[:_LONGEST_CELL]
        bound = f"{name}.failed has them, {name}.retry() sends them again."
        if name is None:
            bound = f"%xpander resume {runs.sweep_id[:8]} -o runs binds them, then runs.retry() sends them again."
        how = "stopped" if all(run.status == "stopped" for run in failed) else "failed"
        write(f"{len(failed):,} {how}; the first: {first}\n{bound}\n")


def _html(tag: str, styles: Sequence[str], texts: Sequence[str]) -> str:
    return "".join(f"<{tag}{style}>{escape(text)}</{tag}>" for style, text in zip(styles, texts, strict=True))


def _rows_of(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Names and rows: the variables, then the settings as far as they vary, then the outcomes."""
    variables = list(dict.fromkeys(name for run in runs for name in run.variables))
    settings: dict[str, list[Any]] = {
        "model": [run.requested_model or run.model for run in runs],
        "effort": [run.requested_effort or run.effort for run in runs],
        "think": [run.think_mode for run in runs],
        "repeat": [run.repeat for run in runs],
        "target": [run.target for run in runs],
    }
    # What wasn't asked for is known of those alone that were sent.
    varying = {name: values for name, values in settings.items() if len(set(values) - {None}) > 1}
    names = ["#", *variables, *varying, "status", "result", "seconds", "tokens"]  # runs[#] is the row's run
    cells = []
    for number, run in enumerate(runs):
        own = [run.variables.get(name) for name in variables] + [values[number] for values in varying.values()]
        seconds = None if run.latency_s is None else f"{run.latency_s:.1f}"
        # A failed task's result says why; its error says in more words that it failed, which stands beside it.
        told = run.status == "completed" or (run.error_type == "TaskFailed" and run.result)
        answer = run.result if told else run.error or run.result
        status = f"{run.status}: {run.error_type}" if run.status == "completed" and run.error_type else run.status
        cells.append([_cut(value) for value in (number, *own, status, answer, seconds, run.total_tokens)])
    return names, cells


def _cut(value: Any) -> str:
    text = plain(as_shown(value)).replace("\n", " ")
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"


def _columned(names: Sequence[str], cells: Sequence[Sequence[Any]]) -> str:
    """A table in text; a wide column is cut, so that a row stays a line."""
    rows = [[plain(text)[:40] for text in row] for row in (names, *cells)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
