"""A comparison's numbers as arrays, which plots are drawn of. numpy and pandas are imported here, so this is, like
``figures``, only imported where a plot is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xpander_magics.analysis.estimates import mean_interval
from xpander_magics.analysis.pictures.plots import QUANTITIES
from xpander_magics.analysis.subjects import has_failed

if TYPE_CHECKING:
    from xpander_magics.analysis.comparison import Comparison

Floats = NDArray[np.float64]


def real(value: object) -> float:
    """A value of a frame; NaN where it is missing."""
    return float(value) if isinstance(value, (int, float, np.number)) else float("nan")


def _floats(series: pd.Series[Any]) -> Floats:
    found: Floats = pd.to_numeric(series, errors="coerce").to_numpy(dtype="float64", na_value=np.nan, copy=True)
    return found


def column(comparison: Comparison, name: str) -> Floats:
    """A column of the table, whose order is that of ``names``."""
    # A column of the runs may be called so, too, and stands before it.
    return _floats(comparison.table.iloc[:, np.flatnonzero(comparison.table.columns == name)[-1]])


def estimates(comparison: Comparison, score: str) -> Floats:
    """Mean, low and high of each configuration: float64 (configurations, 3)."""
    return np.stack([column(comparison, f"{score}{end}") for end in ("", "_low", "_high")], axis=1)


def sides(comparison: Comparison, x: str) -> Floats:
    """The 95% interval of what a run takes, by configuration; NaN for seconds, whose median is plotted."""
    sides = np.full((len(comparison.names), 2), np.nan)
    if x != "seconds":
        values, (of_each, inputs) = _floats(comparison.frame[QUANTITIES[x].of_runs]), comparison.codes()
        for n in range(len(sides)):
            mine = (of_each == n) & np.isfinite(values)
            if mine.any():
                # Scores from 0 to 1 have intervals of their own; costs are none, however small.
                unit = (values[mine].max() or 1.0) / 100
                sides[n] = np.array(mean_interval(values[mine] / unit, inputs[mine])[1:3]) * unit
    return sides


def repeats(comparison: Comparison) -> NDArray[np.int64]:
    """Which repeat each run is, from 0: its number among those of its configuration and input."""
    of_each, inputs = comparison.codes()
    found: NDArray[np.int64] = pd.DataFrame({"c": of_each, "i": inputs}).groupby(["c", "i"]).cumcount().to_numpy()
    return found


def single_runs(comparison: Comparison, x: str) -> Floats:
    """What each run took; NaN where it failed, as the table's seconds are without these, too."""
    values = _floats(comparison.frame[QUANTITIES[x].of_runs])
    values[has_failed(comparison.frame)] = np.nan
    return values
