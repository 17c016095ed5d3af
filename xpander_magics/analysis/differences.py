"""How each configuration differs from a baseline, paired by input, and what is to be said of it in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from xpander_magics.analysis import estimates
from xpander_magics.voting import standing

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

ALPHA = 0.05
MARKS = {"better": "▲", "worse": "▼", "can't tell": "?", "noise": "≈"}
"""A sign for each verdict, always beside its word."""

CORRECTIONS = {
    "holm": "Holm's correction",
    "bonferroni": "Bonferroni's correction",
    "fdr_bh": "Benjamini and Hochberg's correction",
    "none": "no correction",
}
"""How several p-values may be corrected, with the words for it."""


class Sample(NamedTuple):
    """The scores of one configuration: float64, and the input that each is of, int64."""

    values: NDArray[np.float64]
    inputs: NDArray[np.int64]


class _Found(NamedTuple):
    """A row, but for what the correction adds."""

    configuration: int
    score: str
    difference: estimates.PairedDifference
    unpaired: int


def samples(values: NDArray[np.float64], configuration: NDArray[np.int64], inputs: NDArray[np.int64]) -> list[Sample]:
    """The scores of each configuration, without those that are NaN."""
    import numpy as np

    count = int(configuration.max(initial=-1)) + 1
    order = np.argsort(configuration, kind="stable")
    order = order[~np.isnan(values[order])]
    ends = np.searchsorted(configuration[order], np.arange(1, count))
    return [Sample(values[rows], inputs[rows]) for rows in np.split(order, ends)] if count else []


def differences_frame(
    of_scores: Mapping[str, Sequence[Sample]],
    names: Sequence[str],
    configurations: pd.DataFrame,
    baseline: int,
    correction: str,
    floors: Mapping[str, float],
) -> pd.DataFrame:
    """One row a configuration but the baseline, and score.

    Args:
        of_scores: by the score's name, the sample of each configuration.
        configurations: the values of ``by``, one row a configuration.
        baseline: the number of the configuration that the others are compared with.
        correction: over all p-values of this frame; one of ``CORRECTIONS``.
        floors: the noise floor of the scores for which it is known.

    Returns:
        ``configuration``, the columns of ``configurations``, ``score``, ``baseline`` (string), ``difference``, ``low``,
        ``high``, ``effect_size``, ``p_value``, ``p_adjusted`` (Float64), ``wins``, ``ties``, ``losses``, ``inputs``,
        ``unpaired`` (Int64: inputs that one of the two lacks), ``verdict`` (better, worse, can't tell, noise),
        ``more_inputs`` (Int64; how many would tell after the correction, see ``estimates``) and ``words`` (string).
        The verdict is that of ``p_adjusted`` at 5%; it is ``noise`` where the difference is smaller than the floor.
        Intervals are at 95% each, without a correction.
    """
    import numpy as np
    import pandas as pd

    others = [number for number in range(len(names)) if number != baseline]
    found = [
        _Found(number, score, *_difference(several[number], several[baseline]))
        for number in others
        for score, several in of_scores.items()
    ]
    p_values = np.array([one.difference.p_value for one in found], dtype="float64")
    corrected = p_values if correction == "none" or len(found) < 2 else _adjusted(p_values, correction)
    columns = list(configurations.columns)
    rows = []
    for one, p_adjusted in zip(found, corrected, strict=True):
        told = one.difference._replace(more_inputs=_more_inputs(one.difference, float(p_adjusted), len(found)))
        verdict = _verdict(told.difference, float(p_adjusted), floors.get(one.score))
        sentence = words(
            names[one.configuration],
            names[baseline],
            told,
            verdict,
            p_adjusted=float(p_adjusted),
            correction=correction if len(found) > 1 else "none",
            floor=floors.get(one.score),
        )
        more = told.more_inputs
        rows.append(
            (
                names[one.configuration],
                *configurations.iloc[one.configuration].tolist(),
                *(one.score, names[baseline]),
                *(told.difference, told.low, told.high, told.effect_size, told.p_value, float(p_adjusted)),
                *(told.wins, told.ties, told.losses, told.inputs, one.unpaired, verdict),
                None if more is None else int(more),
                f"{one.score}: {sentence}" if len(of_scores) > 1 else sentence,
            )
        )
    numbers = ("difference", "low", "high", "effect_size", "p_value", "p_adjusted")
    counts = ("wins", "ties", "losses", "inputs", "unpaired")
    heads = ["configuration", *columns, "score", "baseline", *numbers, *counts, "verdict", "more_inputs", "words"]
    text = pd.StringDtype("python")
    dtypes: list[Any] = [text, *(configurations[name].dtype for name in columns), text, text]
    dtypes += [*("Float64" for _ in numbers), *("Int64" for _ in counts), text, "Int64", text]
    # A column of the runs may have a name of these: positions can't be mixed up.
    arrays = [pd.Series([row[n] for row in rows], dtype=dtype) for n, dtype in enumerate(dtypes)]
    frame: pd.DataFrame = pd.concat(arrays, axis=1).set_axis(heads, axis=1)
    return frame


def _difference(own: Sample, base: Sample) -> tuple[estimates.PairedDifference, int]:
    """The paired difference, and how many inputs only one of the two has."""
    import numpy as np

    both = np.intersect1d(own.inputs, base.inputs)
    either = np.union1d(own.inputs, base.inputs)
    unpaired = len(either) - len(both)
    if standing.has_statistics() and len(both):
        return estimates.paired_difference(own.values, own.inputs, base.values, base.inputs), unpaired
    return _counted(own, base, both), unpaired


def _counted(own: Sample, base: Sample, both: NDArray[np.int64]) -> estimates.PairedDifference:
    """What can be told without statistics: the mean difference and who won."""
    import numpy as np

    nan = math.nan
    (inputs, means, _), (base_inputs, base_means, _) = (estimates.by_input(*sample) for sample in (own, base))
    apart = means[np.isin(inputs, both)] - base_means[np.isin(base_inputs, both)]
    wins, losses = int((apart > 0).sum()), int((apart < 0).sum())
    mean = float(apart.mean()) if len(apart) else nan
    counts = (wins, len(apart) - wins - losses, losses, len(apart))
    return estimates.PairedDifference(mean, nan, nan, nan, nan, *counts, None, "mean alone")


def _adjusted(p_values: NDArray[np.float64], correction: str) -> NDArray[np.float64]:
    return estimates.adjusted(p_values, correction) if standing.has_statistics() else p_values


def _more_inputs(told: estimates.PairedDifference, p_adjusted: float, comparisons: int) -> float | None:
    """How many more inputs would tell, where p must be as much smaller as the correction makes it larger."""
    if not told.p_value or math.isnan(told.p_value):
        return None
    times = p_adjusted / told.p_value if p_adjusted < 1 else comparisons  # a p-value of 1 doesn't show by how much
    return estimates.more_inputs(told, ALPHA / times)


def _verdict(difference: float, p_adjusted: float, floor: float | None) -> str:
    if floor is not None and abs(difference) < floor:
        return "noise"
    if p_adjusted < ALPHA:  # not where it is NaN
        return "better" if difference > 0 else "worse"
    return "can't tell"


def words(
    name: str,
    baseline: str,
    told: estimates.PairedDifference,
    verdict: str,
    *,
    p_adjusted: float,
    correction: str,
    floor: float | None,
) -> str:
    """A difference in a sentence."""
    if not told.inputs:
        return f"can't tell {name} from {baseline}: they have no input in common"
    sign = -1 if verdict == "worse" else 1
    low, high = sorted((sign * told.low, sign * told.high))
    size = short(sign * told.difference)
    if not math.isnan(low):
        size += f" ({short(low)} to {short(high)})"
    p = "" if math.isnan(p_adjusted) else f", {p_shown(p_adjusted)}"
    if p and correction != "none":
        p += f" after {CORRECTIONS[correction]}"
    if verdict in ("better", "worse"):
        barely = ", but barely: the interval holds 0" if low <= 0 <= high else ""
        return f"{name} is {verdict} than {baseline} by {size}{p}{barely}"
    if verdict == "noise":
        least = "" if floor is None else short(floor)
        return (
            f"{name} differs from {baseline} by {size}, less than the noise floor of {least}: one setup run twice may"
        )
    more = ""
    if told.more_inputs is not None:
        several = f"{told.more_inputs:,.0f} more input{'s' * (told.more_inputs != 1)}"
        more = f"; about {several} would tell if the difference is as large as it looks"
    return f"can't tell {name} from {baseline}: the difference is {size}{p}{more}"


def p_shown(p: float) -> str:
    """A p-value in a few characters."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def short(value: float, sign: str = "") -> str:
    """A score, or a difference of scores, in a few characters; with ``sign`` "+" its sign is always there."""
    size = abs(value)
    form = ",.0f" if size >= 100 else ".1f" if size >= 10 else ".2f" if size >= 0.1 or not size else ".2g"
    return f"{value:{sign}{form}}"
