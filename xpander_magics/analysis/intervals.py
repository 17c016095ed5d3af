"""Confidence intervals of a mean over inputs, and of a mean difference over paired inputs.

The sources of the methods, and how far they hold, stand with ``mean_interval`` and ``paired_difference`` in
``estimates``, whose arrays these take: one number an input.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

# What is smaller than this, or than this share of the scores, is of floating point alone.
ROUNDING = 1e-12
NOWHERE = (math.nan, math.nan)


class Kind(NamedTuple):
    """What scores are: all 0 or 1; all from 0 to 1, which those are too; or any numbers."""

    binary: bool
    bounded: bool

    @classmethod
    def of(cls, scores: Floats) -> Kind:
        """What these scores are."""
        import numpy as np

        inside = (scores >= 0) & (scores <= 1)
        return cls(bool(np.all((scores == 0) | (scores == 1))), bool(np.all(inside)))

    @property
    def method(self) -> str:
        """The interval that suits them."""
        if self.binary:
            return "Wilson (1927)"
        return "Wilson (1927) or Willink (2005)" if self.bounded else "Student's t or Willink (2005)"


def normal_quantile(share: float) -> float:
    """The point below which a standard normal value falls with this chance."""
    return NormalDist().inv_cdf(share)


def t_quantile(level: float, freedom: int) -> float:
    """The point that a value of Student's t stays within, on both sides of 0, with this chance."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def mean_ends(means: Floats, repeats: Floats, kind: Kind, level: float) -> tuple[float, float]:
    """The interval of the mean of the inputs' means; NaN where it can't be estimated.

    Args:
        means: the mean score of each input.
        repeats: how many scores each of these is of.
        kind: what the scores are.
        level: the confidence.
    """
    import numpy as np

    count = len(means)
    if not count:
        return NOWHERE
    mean = float(np.mean(means))
    spread = float(np.std(means, ddof=1)) if count > 1 else 0.0
    variance = spread**2 / count if spread > ROUNDING * max(abs(mean), 1) else 0.0
    if kind.bounded:
        as_good = count**2 / float(np.sum(1 / repeats)) if kind.binary else math.inf
        if variance:
            effective = mean * (1 - mean) / variance * _t_adjustment(count, level)
        else:
            # Repeats that differ by as much in every input are as good as inputs; scores all alike may be of any kind.
            effective = as_good if kind.binary and count > 1 and 0 < mean < 1 else count
        low, high = _wilson(mean, min(max(effective, count), as_good), level)
        if kind.binary:
            return low, high
        low, high = _wider((low, high), _willink(means, level))
        lowest, highest = _wilson(mean, count, level)
        return max(low, lowest), min(high, highest)
    if not variance:
        return NOWHERE
    reach = t_quantile(level, count - 1) * math.sqrt(variance)
    return _wider((mean - reach, mean + reach), _willink(means, level))


def difference_ends(differences: Floats, kind: Kind, level: float) -> tuple[float, float]:
    """The interval of the mean of the inputs' differences; NaN where it can't be estimated.

    Args:
        differences: of each input's means, exactly 0 where they tie; at least one.
        kind: what the scores of both sides are.
        level: the confidence.
    """
    import numpy as np

    count, differing = len(differences), int(np.count_nonzero(differences))
    # Two inputs more, one won and one lost, each of the weight `ties`.
    ties = 1 - differing / count
    size = math.sqrt(float(np.sum(differences**2)) / differing) if differing else 1.0
    total = count + 2 * ties
    centre = float(np.sum(differences)) / total
    squares = float(np.sum((differences - centre) ** 2)) + ties * ((size - centre) ** 2 + (size + centre) ** 2)
    spread = math.sqrt(squares / total)
    variance = spread**2 / (total - 1) if total > 1 and spread > ROUNDING * max(size, 1) else 0.0
    if kind.bounded:
        # Half of 1 + difference is from 0 to 1, and its variance a quarter of the difference's.
        effective = (1 - centre**2) / variance if variance else count
        if variance and not kind.binary and count > 1:
            effective *= _t_adjustment(count, level)
        low, high = (2 * end - 1 for end in _wilson((1 + centre) / 2, effective, level))
    elif variance and differing and count > 1:
        reach = t_quantile(level, count - 1) * math.sqrt(variance)
        low, high = centre - reach, centre + reach
    else:
        return NOWHERE
    if kind.binary:
        return low, high
    low, high = _wider((low, high), _willink(differences, level))
    return (max(low, -1.0), min(high, 1.0)) if kind.bounded else (low, high)


def _t_adjustment(count: int, level: float) -> float:
    """By what Korn and Graubard multiply the effective number, so that a normal quantile serves."""
    return (normal_quantile((1 + level) / 2) / t_quantile(level, count - 1)) ** 2


def _wilson(share: float, count: float, level: float) -> tuple[float, float]:
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(share * count, count, alpha=1 - level, method="wilson")
    # At the ends the formula gives 0 and 1 themselves, but for rounding.
    return float(low) if share > 0 else 0.0, float(high) if share < 1 else 1.0


def _wider(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    return min(first[0], second[0]), max(first[1], second[1])


def _willink(values: Floats, level: float) -> tuple[float, float]:
    """Willink's interval for the mean of an asymmetric distribution (2005), from Hall's transformation (1992).

    It ends at the latest where the transformation turns: beyond that, a few scores alone decide how far it reaches.
    """
    import numpy as np

    count, mean = len(values), float(np.mean(values))
    spread = float(np.std(values, ddof=1)) if count > 2 else 0.0
    if spread <= ROUNDING * max(abs(mean), 1):
        return mean, mean
    third = float(np.sum(((values - mean) / spread) ** 3)) * count / ((count - 1) * (count - 2))
    skew, quantile, error = third / (6 * math.sqrt(count)), t_quantile(level, count - 1), spread / math.sqrt(count)

    def moved(r: float) -> float:
        return float(np.cbrt(max(1 + 6 * skew * (r - skew), 0)) - 1) / (2 * skew) if abs(skew) > 1e-6 else r

    return mean - moved(quantile) * error, mean - moved(-quantile) * error
