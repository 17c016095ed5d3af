"""Settings that do nothing: what was asked for and didn't run, and efforts that change no tokens, time or answers."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from xpander_magics.analysis import estimates
from xpander_magics.analysis.differences import samples
from xpander_magics.analysis.layout import Laid, numbered
from xpander_magics.analysis.subjects import Subject, objects
from xpander_magics.contract import EFFORTS
from xpander_magics.matrix import compared
from xpander_magics.voting.standing import has_statistics

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FEWEST_INPUTS = 5
_SAME = (0.9, 1.1)
_POINTS = 0.05
_MOST = 5


class _Ratio(NamedTuple):
    """The interval of a ratio; NaN where it isn't known."""

    low: float
    high: float

    @property
    def words(self) -> str:
        return f"ratio {self.low:.2f} to {self.high:.2f}"

    @property
    def is_small(self) -> bool:
        return _SAME[0] <= self.low and self.high <= _SAME[1]


def mismatches(subject: Subject, failed: NDArray[np.bool_]) -> list[str]:
    """What was asked for where something else ran, in sentences."""
    frame = subject.frame
    asked_and_ran = {
        "model": (objects(frame["requested_model"]), objects(frame["model"])),
        "provider": (objects(frame["requested_provider"]), objects(frame["provider"])),
        "effort": (objects(frame["requested_effort"]), objects(frame["effort"])),
        "think mode": (subject.asked["think"].tolist(), objects(frame["think_mode"])),
    }
    found = []
    for what, (asked, ran) in asked_and_ran.items():
        pairs = Counter(
            (wanted, told)
            for wanted, told, lost in zip(asked, ran, failed, strict=True)
            if wanted is not None and told is not None and not lost
        )
        wrong = {pair: count for pair, count in pairs.items() if str(pair[0]).casefold() != str(pair[1]).casefold()}
        for (wanted, told), count in sorted(wrong.items(), key=lambda item: -item[1])[:_MOST]:
            total = sum(number for (other, _), number in pairs.items() if other == wanted)
            found.append(f"{what} {wanted} was asked for, but {told} ran: {count:,} of {total:,} runs.")
        if len(wrong) > _MOST:
            found.append(f"Of {what}, {len(wrong) - _MOST} more kinds of runs were asked for otherwise than they ran.")
    return found


def without_effect(subject: Subject, laid: Laid, failed: NDArray[np.bool_]) -> list[str]:
    """The efforts of one setup between which nothing changes, in sentences.

    An effort does nothing that can be seen where, on at least 5 inputs that both efforts have, the 95% interval of the
    ratio of tokens lies within 0.9 and 1.1, that of seconds lies there or includes 1, and answers are equal between
    efforts as often as among repeats of one effort, but for 5 points (without repeats: in 95% of inputs).

    Ratios are of the geometric means of the inputs' means, with the interval of ``estimates.paired_difference`` on
    their logarithms. Without scipy and statsmodels nothing is said.
    """
    if "effort" not in laid.by or not has_statistics():
        return []
    tokens, seconds = (_measured(subject, laid, failed, names) for names in _MEASURES)
    found = []
    shares: _Shares | None = None
    for low, high in _neighbours(laid):
        used, took = (_ratio(high, low, several) for several in (tokens, seconds))
        spent = math.isnan(used.low) or used.is_small
        if not spent or not (took.is_small or took.low <= 1 <= took.high):
            continue
        shares = shares or _Shares(subject, laid, failed)
        between, within = shares.between(low, high), shares.within(low, high)
        if not between >= (1 - _POINTS if math.isnan(within) else within - _POINTS):
            continue
        alike = f"{between:.0%} of answers are equal"
        alike += "" if math.isnan(within) else f", among repeats {within:.0%}"
        same = "tokens aren't known" if math.isnan(used.low) else f"tokens are the same ({used.words})"
        found.append(
            f"Effort does nothing that can be seen between {laid.names[low]} and {laid.names[high]}:"
            f" {same}, seconds, too ({took.words}); {alike}."
        )
    return found


_MEASURES = (("completion_tokens", "total_tokens"), ("latency_s",))


def _neighbours(laid: Laid) -> Iterator[tuple[int, int]]:
    """Each two configurations that differ in effort alone, one effort next to the other."""
    order = {effort: place for place, effort in enumerate((None, "none", *EFFORTS))}
    groups: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
    columns = [objects(laid.configurations[name]) for name in laid.by]
    at = laid.by.index("effort")
    for number, row in enumerate(zip(*columns, strict=True)):
        rest = tuple(str(value) for place, value in enumerate(row) if place != at)
        groups.setdefault(rest, []).append((order.get(row[at], len(order)), number))
    for several in groups.values():
        numbers = [number for _, number in sorted(several)]
        yield from itertools.pairwise(numbers)


def _measured(subject: Subject, laid: Laid, failed: NDArray[np.bool_], names: tuple[str, ...]) -> list[Any]:
    """The logarithms of the first of these columns that has values, by configurations."""
    import numpy as np

    for name in names:
        values = subject.frame[name].to_numpy(dtype="float64", na_value=np.nan)
        there = (values > 0) & ~failed
        if there.any():
            break
    logarithms = np.full(len(values), np.nan)
    np.log(values, where=there, out=logarithms)
    return samples(logarithms, laid.configuration, laid.input)


def _ratio(one: int, other: int, several: list[Any]) -> _Ratio:
    """The ratio between two configurations, paired by input."""
    if max(one, other) >= len(several) or not len(several[one].values) or not len(several[other].values):
        return _Ratio(math.nan, math.nan)
    told = estimates.paired_difference(*several[one], *several[other])
    if told.inputs < _FEWEST_INPUTS:
        return _Ratio(math.nan, math.nan)
    if math.isnan(told.low):  # alike for each input, so there is no spread to estimate an interval from
        return _Ratio(math.exp(told.difference), math.exp(told.difference))
    return _Ratio(math.exp(told.low), math.exp(told.high))


class _Shares:
    """How often two answers to one input are equal, over all that did not fail."""

    def __init__(self, subject: Subject, laid: Laid, failed: NDArray[np.bool_]) -> None:
        import pandas as pd

        part = subject.frame.loc[~failed, ["result", "output"]]
        texts = [compared(*row) for row in zip(objects(part["result"]), objects(part["output"]), strict=True)]
        place = {"at": laid.configuration[~failed], "input": laid.input[~failed]}
        found = pd.DataFrame({**place, "answer": numbered(texts)})
        counts = found.groupby(["at", "input", "answer"], sort=False).size().rename("count").reset_index()
        counts["runs"] = counts.groupby(["at", "input"])["count"].transform("sum")
        self._counts = dict(list(counts.groupby("at")))

    def within(self, *configurations: int) -> float:
        """Of repeats of one configuration; NaN where nothing was repeated."""
        import pandas as pd

        known = [self._counts[one] for one in configurations if one in self._counts]
        found = pd.concat(known) if known else pd.DataFrame({"runs": [], "count": [], "at": [], "input": []})
        several = found[found["runs"] > 1]
        equal = several["count"] * (several["count"] - 1) / (several["runs"] * (several["runs"] - 1))
        return float(equal.groupby([several["at"], several["input"]]).sum().mean())

    def between(self, one: int, other: int) -> float:
        """Of one configuration and the other; NaN where they have too few inputs in common."""
        if one not in self._counts or other not in self._counts:
            return math.nan
        ours, theirs = self._counts[one], self._counts[other]
        common = set(ours["input"]) & set(theirs["input"])
        if len(common) < _FEWEST_INPUTS:
            return math.nan
        both = ours.merge(theirs, on=["input", "answer"])
        return float((both["count_x"] * both["count_y"] / (both["runs_x"] * both["runs_y"])).sum() / len(common))
