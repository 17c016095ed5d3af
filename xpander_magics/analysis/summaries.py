"""What each configuration has come to: counts, mean scores with intervals, seconds, tokens, cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from xpander_magics.analysis import estimates
from xpander_magics.analysis.differences import Sample
from xpander_magics.analysis.layout import Laid
from xpander_magics.analysis.scored import SUCCESS
from xpander_magics.analysis.subjects import SCORE

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

PASSED = 0.5
"""The least score of a success, where a score is compared."""


class Choice(NamedTuple):
    """How a failed run counts: as this score; NaN is not at all."""

    score: float

    @property
    def words(self) -> str:
        if math.isnan(self.score):
            return "Failed runs are left out of mean scores and differences."
        return f"A failed run scores {self.score:g}."


def values_of(frame: pd.DataFrame, name: str, failed: NDArray[np.bool_], choice: Choice) -> NDArray[np.float64]:
    """What each run counts as by this score, float64; NaN where it doesn't count. Failures count as they were chosen
    to, whatever their score says; as a success they are 0 by its meaning.
    """
    import numpy as np
    import pandas as pd

    if name == SUCCESS and f"{SCORE}{name}" not in frame.columns:
        return (~failed).astype("float64")
    values = pd.to_numeric(frame[f"{SCORE}{name}"], errors="coerce").to_numpy("float64", na_value=np.nan, copy=True)
    values[~np.isfinite(values)] = np.nan
    values[failed] = choice.score
    return values


def summary_table(
    frame: pd.DataFrame,
    laid: Laid,
    failed: NDArray[np.bool_],
    values: Mapping[str, NDArray[np.float64]],
    found: Mapping[str, Sequence[Sample]],
) -> pd.DataFrame:
    """One row a configuration; see ``Comparison.table``.

    A success is a run without failure whose first score, where one is compared, is at least ``PASSED``. The cost of a
    success is the mean cost of the runs whose cost is known, over the share of successes among all.

    Args:
        values: by the score's name, what each run counts as.
        found: the same by configurations.
    """
    import numpy as np
    import pandas as pd

    count = len(laid.names)
    code = laid.configuration
    runs = np.bincount(code, minlength=count)
    unscored = np.logical_or.reduce([np.isnan(each) for each in values.values()]) & ~failed
    pairs = pd.unique(code * (laid.input.max(initial=0) + 1) + laid.input)
    columns: list[tuple[str, Any]] = [("configuration", pd.array(laid.names, dtype=pd.StringDtype("python")))]
    columns += [(name, laid.configurations[name].array) for name in laid.by]
    for name, counts in {
        "runs": runs,
        "inputs": np.bincount(pairs // (laid.input.max(initial=0) + 1), minlength=count),
        "failures": np.bincount(code[failed], minlength=count),
        "unscored": np.bincount(code[unscored], minlength=count),
    }.items():
        columns.append((name, pd.array(counts, dtype="Int64")))
    for name, scores in found.items():
        means = [mean_of(sample) for sample in scores]
        for place, end in enumerate(("", "_low", "_high")):
            columns.append((f"{name}{end}", pd.array([mean[place] for mean in means], dtype="Float64")))
    first = next(iter(values.values()))
    successes = np.bincount(code[~failed & (np.nan_to_num(first, nan=-np.inf) >= PASSED)], minlength=count)
    columns += _measures(frame, code, failed, runs, successes)
    several = [pd.Series(array) for _, array in columns]
    table: pd.DataFrame = pd.concat(several, axis=1).set_axis([name for name, _ in columns], axis=1)
    return table


def _measures(
    frame: pd.DataFrame,
    code: NDArray[np.int64],
    failed: NDArray[np.bool_],
    runs: NDArray[np.int64],
    successes: NDArray[np.int64],
) -> list[tuple[str, Any]]:
    """Seconds, tokens and cost, by configurations."""
    import numpy as np
    import pandas as pd

    names = ("latency_s", "ttft_s", "prompt_tokens", "completion_tokens", "total_tokens", "cost_usd")
    each = pd.DataFrame({name: frame[name].to_numpy(dtype="float64", na_value=np.nan) for name in names})
    times = each.loc[~failed, ["latency_s", "ttft_s"]].groupby(code[~failed])
    p50, p95 = (times.quantile(share).reindex(range(len(runs))) for share in (0.5, 0.95))
    groups = each.groupby(code)
    means, sums = groups.mean(), groups["cost_usd"].sum(min_count=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_success = np.where(successes > 0, means["cost_usd"].to_numpy() * runs / successes, np.nan)
    told = {
        "seconds_p50": p50["latency_s"],
        "seconds_p95": p95["latency_s"],
        "ttft_p50": p50["ttft_s"],
        "prompt_tokens": means["prompt_tokens"],
        "completion_tokens": means["completion_tokens"],
        "tokens": means["total_tokens"],
        "cost_usd": sums,
        "cost_per_run": means["cost_usd"],
        "cost_per_success": per_success,
    }
    return [(name, pd.array(np.asarray(column, dtype="float64"), dtype="Float64")) for name, column in told.items()]


def mean_of(sample: Sample) -> tuple[float, float, float]:
    """The mean score and its interval; each input counts once. NaN where there is none."""
    if not len(sample.values):
        return math.nan, math.nan, math.nan
    found = estimates.mean_interval(sample.values, sample.inputs)
    return found.mean, found.low, found.high
