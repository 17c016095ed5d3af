"""``xp.diff``: what differs between two runs, in what was asked, what ran, what came of it, and on the way there."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from xpander_magics.analysis.diffs.alignment import Piece, aligned, words_between
from xpander_magics.analysis.diffs.changes import MISSING, Change, changes, same
from xpander_magics.analysis.diffs.steps import steps
from xpander_magics.contract import model_in_full
from xpander_magics.errors import ConfigError
from xpander_magics.results import Run
from xpander_magics.service.calls import MARK
from xpander_magics.session import default_session
from xpander_magics.store.columns import COLUMNS

if TYPE_CHECKING:
    import pandas as pd


class Fact(NamedTuple):
    """An outcome of both runs; the difference of numbers, the second less the first."""

    name: str
    before: Any
    after: Any
    difference: float | None


class Step(NamedTuple):
    """A step of one run or of both: ``lane`` (thought, tool, agent), its name, what it held in each run.

    Attributes:
        before, after: what was thought, called or answered; None where that run has no such step.
        ok_before, ok_after: whether it went well; None where that isn't known.
    """

    lane: str
    name: str
    before: str | None
    after: str | None
    ok_before: bool | None
    ok_after: bool | None

    @property
    def mark(self) -> str:
        """``-`` or ``+`` where one run alone has it, ``=`` where it is the same in both, else ``~``."""
        if self.before is None or self.after is None:
            return "+" if self.before is None else "-"
        same = self.ok_before == self.ok_after and (self.lane == "agent" or self.before == self.after)
        return "=" if same else "~"


@dataclass(frozen=True, repr=False)
class Diff:
    """What differs between two runs, as ``xp.diff`` finds it. Shows itself as text and as safe HTML.

    Attributes:
        a, b: the runs.
        answer: the words of the answers; empty where both are JSON.
        values: the values that differ between two answers that are JSON, by their paths; None where
            they aren't.
        prompt, template: the words of what was sent, and of what it was made of.
        variables: what filled the templates in, where it differs.
        settings: what was asked for and what ran, where it differs; ``equal_settings`` counts the
            others.
        outcome: how they ended, and what that took.
        steps: thoughts, tool calls and sub-agents side by side.
        notes: what has to be said about these.
    """

    a: Run
    b: Run
    answer: list[Piece]
    values: list[Change] | None
    prompt: list[Piece]
    template: list[Piece]
    variables: list[Change]
    settings: list[Change]
    equal_settings: int
    outcome: list[Fact]
    steps: list[Step]
    notes: list[str]

    def __repr__(self) -> str:
        from xpander_magics.analysis.diffs.shown import as_text

        return as_text(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from xpander_magics.analysis.diffs.shown import as_html, as_text

        return {"text/plain": as_text(self), "text/html": as_html(self)}


def diff(a: Run | str | pd.Series[Any], b: Run | str | pd.Series[Any]) -> Diff:
    """What differs between two runs: answers and prompts by words, settings, outcome, and steps.

    A word is what stands between white space, as on the board; JSON answers are compared by value.
    Thoughts and calls are known of runs that were streamed in this kernel; of others it compares the
    tools that the service names.

    Args:
        a, b: a ``Run``; a run's id, or the beginning of one, or a task's id; or a row of a DataFrame
            of runs.

    Returns:
        A ``Diff``, which shows itself; its attributes have each part.

    Raises:
        NotFoundError, ConfigError: there is no such run, or several; or it is something else.

    Example:
        >>> found = xp.diff(runs[1], runs[2])
        >>> [change.name for change in found.settings]
        ['effort asked for', 'effort']
    """
    first, second = run_of(a), run_of(b)
    as_json = first.output is not None and second.output is not None
    settings, equal, notes = _settings(first, second)
    side_by_side, said = _steps(first, second)
    return Diff(
        a=first,
        b=second,
        answer=[] if as_json else words_between(first.result or "", second.result or ""),
        values=changes(first.output, second.output) if as_json else None,
        prompt=words_between(first.prompt or "", second.prompt or ""),
        template=words_between(first.template or "", second.template or ""),
        variables=changes(first.variables, second.variables, root=""),
        settings=settings,
        equal_settings=equal,
        outcome=_outcome(first, second),
        steps=side_by_side,
        notes=[*notes, *said],
    )


def run_of(given: Any) -> Run:
    """The run that is meant; of a frame's row, one that knows what the row does."""
    if isinstance(given, Run):
        return given
    if isinstance(given, str):
        session = default_session()
        found = session.find(given)
        # As this kernel holds it, which knows its events.
        held = (runs.held.get(found.run_id) for runs in list(session.swept.values()))
        return next((run for run in held if run is not None), found)
    if hasattr(given, "to_dict") and "run_id" in getattr(given, "index", ()):
        return _run_of_row(given.to_dict())
    raise ConfigError(
        f"diff takes two runs, ids of runs, or rows of a DataFrame of runs, not a value of type {type(given).__name__}."
    )


def _run_of_row(row: Mapping[Any, Any]) -> Run:
    known = {column.name for column in COLUMNS}
    values = {name: _of_cell(value) for name, value in row.items() if isinstance(name, str)}
    scores = {name[len("score_") :]: value for name, value in values.items() if name.startswith("score_")}
    run = Run(**{name: value for name, value in values.items() if name in known and value is not None})
    run.scores = {name: float(value) for name, value in scores.items() if value is not None}
    return run


def _of_cell(value: Any) -> Any:
    """A cell's value as a run has it."""
    if isinstance(value, datetime):
        return None if type(value).__name__ == "NaTType" else value
    # NA has no truth value, and NaN isn't itself.
    if type(value).__name__ == "NAType" or (isinstance(value, float) and value != value):  # noqa: PLR0124
        return None
    return value


# Made of others, or another one in each run.
_NO_SETTING = frozenset(
    {"input", "id", "llm_model_provider", "llm_model_name", "llm_reasoning_effort", "think_mode", "payload_extension"}
)


def _settings(a: Run, b: Run) -> tuple[list[Change], int, list[str]]:
    """The settings that differ, how many are equal, and what has to be said of them."""
    first, second = ({**_by_columns(run), **_by_request(run)} for run in (a, b))
    notes = []
    if not (a.request and b.request):
        first, second = _by_columns(a), _by_columns(b)
        notes.append("Of a DataFrame's row, its columns are known alone; what else was asked isn't compared.")
    differ = [
        Change(name, first.get(name, MISSING), second.get(name, MISSING))
        for name in dict.fromkeys([*first, *second])
        if not same(first.get(name), second.get(name))
    ]
    return differ, len({**first, **second}) - len(differ), notes


def _by_columns(run: Run) -> dict[str, Any]:
    """What was asked for, and what ran, as far as columns tell."""
    told = {
        "target": run.target or run.target_id,
        "version": run.agent_version,
        "model asked for": model_in_full(run.requested_provider, run.requested_model),
        "model": model_in_full(run.provider, run.model),
        "effort asked for": run.requested_effort,
        "effort": run.effort,
        "think mode": run.think_mode,
        "mode": run.mode,
    }
    return {name: value for name, value in told.items() if value is not None}


def _by_request(run: Run) -> dict[str, Any]:
    """What else was asked for."""
    request = run.request
    given = request.get("input") or {}
    payload = {name: value for name, value in (request.get("payload_extension") or {}).items() if name != MARK}
    told = {
        "service": run.base_url,
        "version asked for": run.version,
        "think mode asked for": request.get("think_mode"),
        "thread": request.get("id"),
        "files": given.get("files"),
        "user": given.get("user"),
        "payload": payload or None,
        **{name: value for name, value in request.items() if name not in _NO_SETTING},
    }
    return {name: value for name, value in told.items() if value is not None}


_FACTS = {
    "status": "status",
    "error_type": "error",
    "latency_s": "seconds",
    "ttft_s": "seconds to the first token",
    "queue_s": "seconds in the queue",
    "server_s": "seconds at the service",
    "prompt_tokens": "prompt tokens",
    "completion_tokens": "completion tokens",
    "total_tokens": "tokens",
    "actions": "actions",
    "attempts": "attempts",
    "cost_usd": "cost, $",
}


def _outcome(a: Run, b: Run) -> list[Fact]:
    told = [(words, getattr(a, name), getattr(b, name)) for name, words in _FACTS.items()]
    told += [
        (f"score {name}", a.scores.get(name), b.scores.get(name)) for name in dict.fromkeys([*a.scores, *b.scores])
    ]
    return [Fact(*fact, _difference(*fact[1:])) for fact in told if fact[1] is not None or fact[2] is not None]


def _difference(before: Any, after: Any) -> float | None:
    both = isinstance(before, numbers.Real) and isinstance(after, numbers.Real)
    return float(after) - float(before) if both else None


def _steps(a: Run, b: Run) -> tuple[list[Step], list[str]]:
    """The steps side by side, and what has to be said of them."""
    told = [steps(run.events) for run in (a, b)]
    notes = []
    # Calls that aren't streamed have events, too, but none that tells what was done.
    without = [name for name, run in (("first", a), ("second", b)) if not run.events or run.mode in ("sync", "async")]
    if without:
        told = [[{"lane": "tool", "name": name, "text": "", "ok": None} for name in _tools(run)] for run in (a, b)]
        which = "both runs" if len(without) == 2 else f"the {without[0]} run"
        notes.append(
            f"Thoughts and calls are known of streamed runs in this kernel alone, not of {which}: compared are the"
            " tools that the service names."
        )
        notes += [
            f"The {name} run handed work to {count} sub-agent{'s' * (count != 1)}."
            for name, run in (("first", a), ("second", b))
            if (count := _handed_on(run))
        ]
    first_steps, second_steps = ([(step["lane"], step["name"]) for step in some] for some in told)
    pairs, is_shortest = aligned(first_steps, second_steps, most=2_000)
    if not is_shortest:
        notes.append("The two took too many different steps to be put side by side.")
    found = []
    for first, second in pairs:
        old = told[0][first] if first is not None else None
        new = told[1][second] if second is not None else None
        known = old or new or {}
        sides = [None if one is None else one["text"] for one in (old, new)]
        ends = [None if one is None else one["ok"] for one in (old, new)]
        found.append(Step(known["lane"], known["name"], *sides, *ends))
    return found, notes


def _tools(run: Run) -> list[str]:
    named = (
        tool.get("name") or tool.get("tool_name") if isinstance(tool, Mapping) else tool for tool in run.tools_used
    )
    return [str(name) for name in named if name]


def _handed_on(run: Run) -> int:
    given = run.metadata.get("sub_executions")
    return len(given) if isinstance(given, list) else 0
