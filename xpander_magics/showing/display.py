"""A run as a person sees it: safe text, safe HTML, and the answer as it streams in.

What a model wrote is hostile until made safe (``markup``).
No bundle ever holds ``text/markdown``: front ends and nbconvert render that without cleaning it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from xpander_magics import contract
from xpander_magics.contract import Event, Record, model_in_full
from xpander_magics.results import STREAMED, Run
from xpander_magics.safety import as_shown, encodable, plain
from xpander_magics.showing import carried
from xpander_magics.showing.markup import AS_IT_IS, escape, safe_html

FOOT = "font-size:85%;opacity:.8;border-top:1px solid currentColor;margin-top:.6em;padding-top:.2em"
_PRE = "white-space:pre-wrap;overflow-wrap:anywhere"
_LONGEST_NOTE = 100


def facts(run: Run) -> str:
    """A line: how it ended, with what, how long it took, what it used and cost, how it scored."""
    tokens = None
    if run.total_tokens is not None:
        known = run.prompt_tokens is not None and run.completion_tokens is not None
        parts = f" ({run.prompt_tokens:,} in, {run.completion_tokens:,} out)" if known else ""
        tokens = f"{run.total_tokens:,} tokens{parts}"
    cost = "own keys" if run.is_byok else None
    if run.cost_usd is not None:
        cost = f"${run.cost_usd:.5f}"
    told = [
        f"reused: nothing was sent; run of {_day(run)}" if run.reused else None,
        run.status,
        model_in_full(run.provider, run.model),
        f"effort {run.effort}" if run.effort else None,
        f"think {run.think_mode}" if run.think_mode not in (None, "default") else None,
        f"{run.latency_s:.1f} s" if run.latency_s is not None else None,
        f"first token {run.ttft_s:.1f} s" if run.ttft_s is not None else None,
        tokens,
        cost,
        *(f"score {name} {score:.3g}" for name, score in run.scores.items()),
        f"run {run.run_id[:8]}",
    ]
    return plain(" · ".join(fact for fact in told if fact)).replace("\n", " ")


def _day(run: Run) -> str:
    return f"{run.created_at:%Y-%m-%d %H:%M} UTC" if run.created_at else "a time that isn't known"


def waiting_for(run: Run) -> str | None:
    """What a paused run waits for, and what to do; None where it isn't paused."""
    if run.status != "paused":
        return None
    told = (run.metadata.get(name) for name in ("pending_eca_request", "hitl_request"))
    sign_in, approve = (request if isinstance(request, Mapping) else {} for request in told)
    collect = f"Then: %xpander show {run.run_id[:8]}"
    if sign_in.get("auth_url"):
        return plain(f"Paused: sign in to {sign_in.get('connector_name') or 'it'} at {sign_in['auth_url']}\n{collect}")
    what = approve.get("title") or approve.get("description") or approve.get("wait_node_id")
    return plain(f"Paused: a person must approve{f': {what}' if what else ''}.\n{collect}")


def as_text(run: Run, view: str = "auto", *, shown: Collection[str] = ()) -> str:
    """A run for a terminal: the answer, what it waits for, what went wrong, and the facts.

    Args:
        shown: what is left out, because it is shown beside this.
    """
    answer = "" if told_by_error(run) else _answer_text(run, view)
    begun = streamed(run)
    if begun and begun not in shown:
        answer = f"{plain(begun)}\n{answer}"
    notes = [plain(note) for note in _notes(run, shown) if plain(note) not in answer]
    return "\n".join(part for part in (answer, *notes, facts(run)) if part)


def _answer_text(run: Run, view: str) -> str:
    if view == "table" and run.result and run.output is not None:
        return plain(_table_text(run))
    return plain(_pretty(run) if view in ("json", "table") or _is_json(run, view) else run.result or "")


def _notes(run: Run, shown: Collection[str] = ()) -> list[str]:
    """What is said beside the answer: what is waited for, what went wrong."""
    return [note for note in (waiting_for(run), run.error) if note and note not in shown]


def streamed(run: Run) -> str:
    """What a task had written before it failed."""
    return str(run.metadata.get(STREAMED) or "")


def told_by_error(run: Run) -> bool:
    """Whether the error says the whole answer: a failed task's result is why it failed."""
    said = (run.result or "").strip()
    return bool(said) and run.status != "completed" and said in (run.error or "")


def as_html(run: Run, view: str = "auto", *, shown: Collection[str] = ()) -> str:
    """A run for a notebook, as safe HTML; ``shown`` is left out."""
    parts = ["" if told_by_error(run) else answer_html(run, view), _steps_html(run.events)]
    if streamed(run):
        parts.insert(0, f'<div class="{AS_IT_IS}" style="{_PRE}">{escape(streamed(run))}</div>')
    for note in _notes(run, shown):
        parts.append(f'<div class="{AS_IT_IS}" role="status" style="{_PRE}"><strong>{escape(note)}</strong></div>')
    parts.append(f'<div class="{AS_IT_IS}" style="{FOOT}">{escape(facts(run))}</div>')
    return f'<div class="xpander-run">{"".join(parts)}</div>'


def run_bundle(
    run: Run, view: str = "auto", *, shown: Collection[str] = (), source: str | None = None
) -> dict[str, Any]:
    """What a notebook keeps of a run: ``text/plain``, safe ``text/html``, and the run itself (``carried``).

    Args:
        shown: what is left out, because it is shown beside this.
        source: of the cell that ran it; the running cell's when omitted.
    """
    texts = {"text/plain": as_text(run, view, shown=shown), "text/html": as_html(run, view, shown=shown)}
    return {**texts, **carried.bundle([run], source=source)}


def put_out_unseen(bundle: dict[str, Any]) -> None:
    """Puts out what a notebook is to keep and not to show, if there is any."""
    from IPython.display import display

    if bundle:
        # Without a text nbconvert would warn that it can't show this.
        display({**bundle, "text/plain": ""}, raw=True)  # type: ignore[no-untyped-call]


def answer_html(run: Run, view: str = "auto") -> str:
    """The answer alone, as safe HTML: nothing says what run it is of."""
    if not run.result:
        return ""
    if view == "table":
        return _table_html(run)
    if view == "json" or _is_json(run, view):
        return f'<pre class="{AS_IT_IS}" style="{_PRE}">{escape(_pretty(run))}</pre>'
    if view == "text" or (view == "auto" and run.request.get("output_format") == "text"):
        return f'<div class="{AS_IT_IS}" style="{_PRE}">{escape(run.result)}</div>'
    return safe_html(run.result)


def _is_json(run: Run, view: str) -> bool:
    return view == "auto" and run.output is not None


def _pretty(run: Run) -> str:
    try:
        return (run.result or "") if run.output is None else json.dumps(run.output, indent=2, ensure_ascii=False)
    except RecursionError:  # it is nested so deep that a notebook's own frames were one too many
        return run.result or ""


def _table_of(run: Run) -> tuple[list[str] | None, list[list[Any]]]:
    """A JSON answer as a table: a list of objects by rows under their names, anything else as names and values."""
    rows = run.output if run.output is not None else {"result": run.result}
    if isinstance(rows, list) and rows and all(isinstance(row, Mapping) for row in rows):
        names = list(dict.fromkeys(name for row in rows for name in row))
        return [str(name) for name in names], [[row.get(name) for name in names] for row in rows]
    pairs = rows.items() if isinstance(rows, Mapping) else enumerate(rows if isinstance(rows, list) else [rows])
    return None, [[str(name), value] for name, value in pairs]


def _table_text(run: Run) -> str:
    import pandas as pd

    head, rows = _table_of(run)
    # A line end within a cell would break its row.
    cells = [[plain(as_shown(value)).replace("\n", " ") for value in row] for row in rows]
    names = [plain(name).replace("\n", " ") for name in head or ()]
    frame = pd.DataFrame(cells, columns=names or None, dtype="object")
    return frame.to_string(index=False, header=bool(names)) if any(cells) else _pretty(run)


def _table_html(run: Run) -> str:
    head, rows = _table_of(run)
    if head is not None:
        top = f"<thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr></thead>"
        body = "".join(f"<tr>{table_cells(row)}</tr>" for row in rows)
        return f'<table class="{AS_IT_IS}">{top}<tbody>{body}</tbody></table>'
    body = "".join(f"<tr><th>{escape(name)}</th>{table_cells(values)}</tr>" for name, *values in rows)
    return f'<table class="{AS_IT_IS}"><tbody>{body}</tbody></table>'


def table_cells(values: Iterable[Any]) -> str:
    return "".join(f"<td>{escape(as_shown(value))}</td>" for value in values)


def _steps_html(events: list[Event]) -> str:
    """Thoughts and tool calls, folded."""
    steps: list[tuple[str, str]] = []
    for kind, text in filter(None, map(shown_step, events)):
        if kind in _IN_PIECES and steps and steps[-1][0] == kind:
            steps[-1] = kind, steps[-1][1] + text
        else:
            steps.append((kind, text))
    if not steps:
        return ""
    items = "".join(f'<li style="{_PRE}">{escape(f"{kind}: {text}")}</li>' for kind, text in steps)
    summary = f"{len(steps)} step{'s' * (len(steps) > 1)}"
    return f'<details class="{AS_IT_IS}"><summary>{summary}</summary><ol>{items}</ol></details>'


_STEPS = {
    "think": "thought",
    "analyze": "analysis",
    "tool_call_request": "tool call",
    "tool_call_result": "tool result",
    "auth_event": "sign-in",
}
_IN_PIECES = ("thought", "analysis")  # a word each, as a model writes them


def shown_step(event: Event) -> tuple[str, str] | None:
    """What was done on the way to the answer: of which kind, and what; None where the event tells nothing of it."""
    if event.type not in _STEPS:
        return None
    return _STEPS[event.type], plain(as_shown(event.data))


def shown_note(run: Run, event: Event) -> str | None:
    """What is said beside a run that is under way; None where the event changes nothing of it."""
    if event.type == "auth_event" and isinstance(event.data, Mapping) and event.data.get("auth_url"):
        return plain(f"Sign in at {event.data['auth_url']} to let it go on.")
    if event.type != "task_updated":
        return None
    doing = run.metadata.get("internal_status")
    return waiting_for(run) or (plain(doing)[:_LONGEST_NOTE] if isinstance(doing, str) else "")


def final_bundle(run: Run, view: str, raised: BaseException | None = None, source: str | None = None) -> dict[str, Any]:
    """What a notebook keeps of a run that has just ended.

    Args:
        raised: the error that is shown right after this; it isn't said twice.
        source: as for ``run_bundle``.
    """
    # The run keeps the error that ended it; another one, as of the store, says something new.
    return run_bundle(run, view, shown=said_by(run, raised), source=source)


def said_by(run: Run, raised: BaseException | None) -> set[str]:
    """What an error that is shown says of the run."""
    return {run.error} if run.error and run.error_type == type(raised).__name__ else set()


class Stream:
    """Shows a run while it is under way: text is only ever appended, so its cost grows with the answer.

    Args:
        write: writes text to the cell's output or the terminal.
        rich: whether the final rendering can take the place of what streamed in.
        view: how the final rendering shows the answer; ``none`` shows nothing at all, though a notebook keeps the run.
    """

    def __init__(self, write: Callable[[str], object], *, rich: bool, view: str = "auto") -> None:
        self._write = write
        self._rich = rich
        self._view = view
        self._wrote = False
        self._answer: list[str] = []
        self._progress = 0
        self._told: set[str] = set()

    def begin(self, run: Run) -> None:
        """Called before it is sent."""

    def __call__(self, run: Run, event: Event, piece: str) -> None:
        """The engine's listener."""
        if self._view == "none":
            return
        note = shown_note(run, event)
        if note and (event.type == "auth_event" or run.status == "paused"):
            if note not in self._told:
                self._told.add(note)
                self._say(f"\n{note}\n" if self._wrote else f"{note}\n")
        elif note is not None and not self._wrote:
            self._show_progress(note)
        if piece:
            self._answer.append(piece)
            self._say(plain(piece))

    def _say(self, text: str) -> None:
        self._wrote = True
        self._show_progress("")
        self._write(text)

    def _show_progress(self, note: str) -> None:
        """What the service says that it is doing, in one line that overwrites itself."""
        text = note.replace("\n", " ")
        if text or self._progress:
            self._write(f"\r{text:{self._progress}}" + ("" if text else "\r"))
            self._progress = len(text)

    def finish(self, run: Run, raised: BaseException | None = None) -> None:
        """Ends the output: one clean rendering, or in a terminal the line of facts.

        Args:
            raised: the error that is shown right after this; it isn't said twice.
        """
        if self._view == "none":
            put_out_unseen(carried.bundle([run]))
            return
        progressed = bool(self._progress)
        self._show_progress("")
        if self._rich:
            from IPython.display import clear_output, display

            if self._wrote or progressed:
                clear_output(wait=True)  # type: ignore[no-untyped-call]
            display(final_bundle(run, self._view, raised), raw=True)  # type: ignore[no-untyped-call]
            return
        # In a terminal, what was written while it ran still stands there.
        shown = {*said_by(run, raised), *self._told, "".join(self._answer)}
        if "".join(self._answer) == run.result and not self._renders_json(run):
            self._write("\n" + "\n".join([*map(plain, _notes(run, shown)), facts(run)]) + "\n")
        else:
            self._write(("\n" if self._wrote else "") + as_text(run, self._view, shown=shown) + "\n")

    def close(self) -> None:
        """Called at the end, however that came."""

    def _renders_json(self, run: Run) -> bool:
        return run.output is not None and self._view in ("auto", "json", "table")


def table(records: Sequence[Record], what: str) -> Any:
    """Records of the service as a DataFrame: the contract's columns, then those that it sent besides.

    Args:
        what: agents, workflows, providers, models or thread.
    """
    import pandas as pd

    kinds: dict[str, type[Record]] = {
        "agents": contract.Agent,
        "workflows": contract.Agent,
        "providers": contract.Provider,
        "models": contract.Model,
        "thread": contract.Message,
    }
    rows = [{encodable(name): encodable(value) for name, value in record.raw.items()} for record in records]
    sent = dict.fromkeys(name for row in rows for name in row)
    first = [name for name in sent if name in ("provider", "conversation")]
    if kinds[what] is contract.Agent:
        first = ["name", "status"]  # by which one is chosen
    columns = list(dict.fromkeys([*first, *kinds[what].FIELDS, *sent]))
    frame = pd.DataFrame(rows, columns=columns).convert_dtypes()
    if what == "thread":
        seconds = pd.to_numeric(frame["created_at"], errors="coerce")
        # Of what no calendar has, pandas 2 makes an error in spite of "coerce".
        seconds = seconds.where(seconds.abs() < 9e9)
        frame["created_at"] = pd.to_datetime(seconds, unit="s", utc=True, errors="coerce")
    return frame
