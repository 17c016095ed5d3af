"""The runs of a sweep as a table: equal answers to the first inputs, with what varies among them."""

from __future__ import annotations

import math
import numbers
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xpander_magics.matrix import NO_ANSWER, Matrix, Summary, matrix_of
from xpander_magics.results import utc_now
from xpander_magics.safety import as_shown, plain
from xpander_magics.showing import carried
from xpander_magics.showing.display import FOOT
from xpander_magics.showing.markup import AS_IT_IS, escape

if TYPE_CHECKING:
    from xpander_magics.outcomes import Runs
    from xpander_magics.store.votes import Vote
    from xpander_magics.voting.pairs import Contest

_INPUTS_SHOWN = 20
_ROWS_SHOWN = 60
_LOOKED_AT = 1_000
_DIFFERS = "≠"
_LONGEST_CELL = 200
_LEFT = ("planned", "pending", "executing", "unknown")
_NUMBER = re.compile(r"-?[\d.]*")


def runs_bundle(runs: Runs, matrix: Matrix | None = None) -> dict[str, Any]:
    """What a notebook keeps of the runs of a sweep: what ``runs_shown`` has, and the runs themselves (``carried``).

    Args:
        matrix: as for ``runs_shown``.
    """
    return {**runs_shown(runs, matrix), **carried_runs(runs)}


def carried_runs(runs: Runs) -> dict[str, Any]:
    """What an output carries of the runs of a sweep."""
    return carried.bundle(runs[: carried.MOST_RUNS], (entry.run_id for entry in runs.entries))


def runs_shown(runs: Runs, matrix: Matrix | None = None) -> dict[str, Any]:
    """Equal answers to the first inputs, with what varies among them, as ``text/plain`` and safe ``text/html``.

    Args:
        matrix: of all the runs, where it is at hand; else so many are read as may be shown.
    """
    matrix = matrix or matrix_of(runs[:_LOOKED_AT])
    names, cells, shown = _rows_of(matrix)
    counts, odd = _counts(runs, matrix)
    told = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    told += f" ({odd:,} with an error)" if odd else ""
    head = plain(f"{len(runs):,} run{'s' * (len(runs) != 1)}{f': {told}' if told else ''} · sweep {runs.sweep_id[:8]}")
    more = f"… and {len(runs) - shown:,} more: .df has all of them." if len(runs) > shown else ""
    if _DIFFERS in names:
        more = "\n".join(filter(None, (f"≠: another answer than {matrix.names[0]}", more)))
    # Of the first of many, the sums would say nothing.
    summed = len(matrix.configurations) > 1 and _has_all(matrix, runs)
    sums = _summaries_of(matrix) if summed else ([], [])
    notes = f'<div style="white-space:pre-line">{escape(more)}</div>' if more else ""
    foot = f'<div style="{FOOT}">{escape(head)}</div>'
    return {
        "text/plain": "\n".join(part for part in (columned(names, cells), more, head, columned(*sums)) if part),
        "text/html": f'<div class="xpander-runs {AS_IT_IS}">{_table(names, cells)}{notes}{foot}{_table(*sums)}</div>',
    }


def _has_all(matrix: Matrix, runs: Runs) -> bool:
    return len(matrix.outcomes) == len(runs)


def _counts(runs: Runs, matrix: Matrix) -> tuple[dict[str, int], int]:
    """How many runs have each status, the most frequent first; how many completed with an error."""
    if not _has_all(matrix, runs):
        counts = runs.statuses()
        return counts, counts.get("completed", 0) - len(runs.completed)
    known = Counter(outcome.status for outcome in matrix.outcomes)
    odd = {status: count for status, count in known.items() if status.startswith("completed: ")}
    whole = (known - Counter(odd)) + Counter(completed=sum(odd.values()))
    return dict(whole.most_common()), sum(odd.values())


def _table(names: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table as safe HTML."""
    if not cells:
        return ""
    # JupyterLab puts all of a table to the right, which is for numbers.
    numbers = [all(map(_NUMBER.fullmatch, column)) for column in zip(*cells, strict=True)]
    styles = ["" if number else ' style="text-align:left"' for number in numbers]
    body = "".join(f"<tr>{_html('td', styles, row)}</tr>" for row in cells)
    return f"<table><thead><tr>{_html('th', styles, names)}</tr></thead><tbody>{body}</tbody></table>"


def show_runs(
    runs: Runs, name: str | None, write: Callable[[str], object], *, rich: bool, board: object | None = None
) -> None:
    """Shows the runs of a sweep, and what can be done about those that aren't well.

    Args:
        board: shown in place of the table.
    """
    if rich:
        from IPython.display import display

        display(runs if board is None else board)  # type: ignore[no-untyped-call]
    else:
        write(f"{runs_shown(runs)['text/plain']}\n")
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


def _rows_of(matrix: Matrix) -> tuple[list[str], list[list[str]], int]:
    """Names, rows, and how many runs these are: variables, the settings that vary, the outcomes of equal answers."""
    places = [place for place in sorted(matrix.cells) if place[0] < _INPUTS_SHOWN]
    groups = [(place, some) for place in places for some in matrix.groups(matrix.cells[place]).values()]
    groups = groups[:_ROWS_SHOWN]
    settings, scorers = matrix.settings, matrix.scorers
    rows: list[list[Any]] = []
    for place, some in groups:
        outcome, summary = matrix.outcomes[some[0]], matrix.summary(some)
        rows.append(
            [
                _numbered(some),  # runs[#] is the row's run
                *(matrix.inputs[place[0]].variables.get(name) for name in matrix.variables),
                *matrix.configurations[place[1]],
                f"{len(some)}×" if len(some) > 1 else None,
                outcome.status,
                matrix.answers[outcome.answer] if outcome.answer != NO_ANSWER else None,
                _DIFFERS if matrix.differs(place, 0) else None,
                None if summary.seconds is None else f"{summary.seconds:.1f}",
                summary.tokens,
                *_money_and_scores(summary, scorers),
            ]
        )
    always = ["#", *matrix.variables, *settings, "times", "status", "result", _DIFFERS, "seconds", "tokens"]
    names = [*always, "cost, $", *(f"score {name}" for name in scorers)]
    optional = {len(always) - 6, len(always) - 3, *range(len(always), len(names))}
    return *_without_empty(names, rows, optional), sum(len(some) for _, some in groups)


def _summaries_of(matrix: Matrix) -> tuple[list[str], list[list[str]]]:
    """Names and rows: what each configuration has come to."""
    scorers = matrix.scorers
    rows = [
        [
            name,
            summary.runs,
            summary.failures,
            None if summary.seconds is None else f"{summary.seconds:.1f}",
            summary.tokens,
            *_money_and_scores(summary, scorers),
        ]
        for name, summary in zip(matrix.names, matrix.summaries(), strict=True)
    ]
    names = ["configuration", "runs", "failures", "median seconds", "tokens", "cost, $"]
    names += [f"score {name}" for name in scorers]
    return _without_empty(names, rows, set(range(3, len(names))))


def _money_and_scores(summary: Summary, scorers: Sequence[str]) -> list[str | None]:
    scores = (summary.scores.get(name) for name in scorers)
    return [
        None if summary.cost is None else f"{summary.cost:.5f}",
        *(None if score is None else f"{score:.3g}" for score in scores),
    ]


def _without_empty(
    names: Sequence[str], rows: Sequence[Sequence[Any]], optional: set[int]
) -> tuple[list[str], list[list[str]]]:
    """Names and texts, without those of the ``optional`` columns that say nothing."""
    shown = [n for n in range(len(names)) if n not in optional or any(row[n] is not None for row in rows)]
    return [names[n] for n in shown], [[_cut(row[n]) for n in shown] for row in rows]


def _numbered(places: Sequence[int]) -> str:
    """The places of runs, in few characters."""
    first, last = places[0], places[-1]
    if last - first == len(places) - 1 and len(places) > 1:
        return f"{first}–{last}"
    return ", ".join(map(str, places[:3])) + (", …" if len(places) > 3 else "")


def _cut(value: Any) -> str:
    text = plain(as_shown(value)).replace("\n", " ")
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"


def columned(names: Sequence[str], cells: Sequence[Sequence[Any]]) -> str:
    """A table in text; a wide column is cut, so that a row stays a line."""
    if not cells:
        return ""
    rows = [[plain(text)[:40] for text in row] for row in (names, *cells)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def standing_bundle(contest: Contest, votes: Sequence[Vote]) -> dict[str, Any]:
    """How configurations stand by the votes on their answers, as ``text/plain`` and safe ``text/html``."""
    from xpander_magics.voting import standing

    people = len({vote.voter for vote in votes})
    competing = f"{len(contest.names):,} configurations"
    when = f"as of {utc_now():%Y-%m-%d %H:%M} UTC"
    if not votes:
        head = f"No votes yet: {competing}, {when}"
        return {"text/plain": head, "text/html": f"<div>{escape(head)}</div>"}
    noun = f"vote{'s' * (len(votes) != 1)} by {people:,} {'person' if people == 1 else 'people'}"
    told = [f"{len(votes):,} {noun} on {competing}, {when}"]
    rates = standing.win_rates_frame(contest, votes).to_dict("records")
    names = ["configuration", "against", "win rate (95%)", "wins", "losses", "both good", "both bad", "skipped"]
    sides, counts = ("configuration", "opponent"), ("wins", "losses", "both_good", "both_bad", "skipped")
    cells = [
        [*(str(row[n]) for n in sides), _interval(row, "win_rate"), *(str(row[n]) for n in counts)] for row in rates
    ]
    tables = [("Win rates", names, cells)]
    if not standing.has_statistics():
        told.append(standing.no_statistics())
    elif len(contest.names) > 2:
        found = standing.strengths_frame(contest, votes).to_dict("records")
        cells = [[r["configuration"], str(r["votes"]), _interval(r, "strength", sign="+")] for r in found]
        tables.append(("Strengths (Bradley–Terry, log-odds)", ["configuration", "votes", "strength (95%)"], cells))
        told.append("Strength 0 is the average; a strength 1 higher wins with odds of 2.7 to 1.")
    shown = [captioned(*table) for table in tables] + [f"<div>{escape(line)}</div>" for line in told]
    return {
        "text/plain": "\n".join([*(f"{title}\n{columned(head, cells)}\n" for title, head, cells in tables), *told]),
        "text/html": f'<div class="xpander-standing {AS_IT_IS}">{"".join(shown)}</div>',
    }


def _interval(row: Mapping[Any, Any], name: str, sign: str = "") -> str:
    """A number with its interval; why there is none, or nothing."""
    value, low, high = (_number_of(row[key]) for key in (name, "low", "high"))
    if value is None:
        return str(row.get("note") or "–")
    between = f" ({low:{sign}.2f} to {high:{sign}.2f})" if low is not None and high is not None else ""
    return f"{value:{sign}.2f}{between}"


def _number_of(value: Any) -> float | None:
    """A value of a frame; None where it is missing."""
    return float(value) if isinstance(value, numbers.Real) and not math.isnan(value) else None


def captioned(title: str, names: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table as safe HTML, with a caption; its first column names the rows."""
    head = "".join(f'<th scope="col" style="text-align:left">{escape(name)}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row" style="text-align:left">{escape(row[0])}</th>'
        + "".join(f'<td style="text-align:left">{escape(text)}</td>' for text in row[1:])
        + "</tr>"
        for row in cells
    )
    caption = f'<caption style="text-align:left">{escape(title)}</caption>'
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
