"""Single runs worth showing beside a comparison: where configurations differ most, and how runs failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xpander_magics.analysis.layout import numbered
from xpander_magics.analysis.subjects import has_failed
from xpander_magics.safety import as_shown

if TYPE_CHECKING:
    from xpander_magics.analysis.comparison import Comparison


class Answer(NamedTuple):
    """What a configuration answered, the first time; and the mean score of all its answers to this input."""

    configuration: str
    answer: str
    score: float
    runs: int


class Example(NamedTuple):
    """An input, as the variables that were filled in, or the prompt without any; and what was answered."""

    asked: str
    answers: list[Answer]


class Failures(NamedTuple):
    """Runs that failed alike: the status with the error's name, how many, of how many configurations, one error."""

    kind: str
    runs: int
    configurations: int
    error: str


def differing(comparison: Comparison, score: str, most: int = 5, beside: int = 4) -> list[Example]:
    """The inputs whose mean scores are farthest apart, the farthest first.

    Args:
        most: at most so many inputs.
        beside: at most so many answers to each: the best, the worst, the baseline's, then any.
    """
    import numpy as np
    import pandas as pd

    of_each, inputs = comparison.codes()
    values = comparison.values(score)
    there = np.flatnonzero(~np.isnan(values))
    frame = pd.DataFrame(
        {"input": inputs[there], "configuration": of_each[there], "score": values[there], "row": there}
    )
    told = frame.groupby(["input", "configuration"]).agg(
        score=("score", "mean"), row=("row", "min"), runs=("row", "size")
    )
    by_input = told["score"].groupby("input")
    # Sorted in a stable way: of inputs that are as far apart, the first asked comes first.
    apart = (by_input.max() - by_input.min()).sort_values(ascending=False, kind="stable")
    base = comparison.names.index(comparison.baseline)
    found = []
    for number in apart[apart > 0].index[:most]:
        of_input = told.loc[number].sort_values("score", ascending=False, kind="stable")
        order = dict.fromkeys([of_input.index[0], of_input.index[-1], *(n for n in of_input.index if n == base)])
        chosen = list(dict.fromkeys([*order, *of_input.index]))[:beside]
        row = comparison.frame.iloc[int(of_input["row"].min())]
        answers = [
            Answer(
                comparison.names[n],
                _answer(comparison.frame.iloc[int(of_input.at[n, "row"])]),
                float(of_input.at[n, "score"]),
                int(of_input.at[n, "runs"]),
            )
            for n in sorted(chosen)
        ]
        found.append(Example(_asked(row), answers))
    return found


def _asked(row: Any) -> str:
    variables = row["variables"]
    if isinstance(variables, dict) and variables:
        return "\n".join(f"{name}: {as_shown(value)}" for name, value in variables.items())
    return _text(row["prompt"])


def _answer(row: Any) -> str:
    return _text(row["result"]) or _text(row["error"]) or f"({row['status']}, without an answer)"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def failures_by_kind(comparison: Comparison) -> list[Failures]:
    """How runs failed, the most frequent first."""
    of_each, _ = comparison.codes()
    failed = has_failed(comparison.frame)
    frame = comparison.frame.loc[failed, ["status", "error_type", "error", "result"]].astype("object")
    if not len(frame):
        return []
    named = zip(frame["status"], frame["error_type"], strict=True)
    kinds = [f"{status}: {error}" if isinstance(error, str) and error else str(status) for status, error in named]
    frame = frame.assign(of=of_each[failed])
    names = list(dict.fromkeys(kinds))
    found = []
    for number, rows in frame.groupby(numbered(kinds)):
        first = rows.iloc[0]
        error = _text(first["error"]) or _text(first["result"])
        found.append(Failures(names[number], len(rows), int(rows["of"].nunique()), error))
    return sorted(found, key=lambda one: -one.runs)
