"""Statistics of scores: means, paired differences, corrections for several comparisons, and the noise floor.

Arrays go in and named tuples come out; nothing here knows of runs or frames. ``values`` are float64, a score each;
``inputs`` are whole numbers of the same length that say which input a score is of. Repeats of an input share its
number. The input is what is sampled: its scores are averaged first, and then each input counts once. So an interval
tells what other inputs of the same kind would give, and repeats don't pose as inputs.

Intervals and p-values are from scipy and statsmodels (the extra ``[stats]``). Without them
``mean_interval`` still gives means and counts, with NaN for the interval; the other functions raise ``ConfigError``.

How often the intervals hold is measured by ``tests/benchmarks/bench_coverage.py``, which says for which shapes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from xpander_magics import extras
from xpander_magics.analysis.intervals import (
    NOWHERE,
    ROUNDING,
    Kind,
    difference_ends,
    mean_ends,
    normal_quantile,
    t_quantile,
)
from xpander_magics.errors import ConfigError
from xpander_magics.voting.standing import has_statistics

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

LEVEL = 0.95
POWER = 0.8
_ENUMERATED, _SAMPLED, _FLIPS, _SEED = 15, 32, 9_999, 20_130_601
_MOST_INPUTS = 10**9


def no_statistics() -> str:
    """What is said where scipy and statsmodels are missing."""
    return extras.missing("Intervals and p-values need", "stats")


class Estimate(NamedTuple):
    """The mean of the inputs' mean scores, with its interval; NaN where it can't be estimated."""

    mean: float
    low: float
    high: float
    inputs: int
    runs: int
    method: str


class PairedDifference(NamedTuple):
    """How much higher one side scores than the other on the inputs that both have."""

    difference: float
    low: float
    high: float
    effect_size: float
    p_value: float
    wins: int
    ties: int
    losses: int
    inputs: int
    more_inputs: float | None
    method: str


class Noise(NamedTuple):
    """The noise floor, in the score's unit; ``pairs`` is how many repeats beyond an input's first it rests on."""

    floor: float
    pairs: int
    method: str


def mean_interval(values: Any, inputs: Any, level: float = LEVEL) -> Estimate:
    """The mean score with its confidence interval; each input counts once.

    Scores of 0 and 1: Wilson's interval (1927) with an effective number of inputs, ``p (1 - p) / v``, where ``v`` is
    the variance of the mean as the inputs' means vary (Korn and Graubard 1998, with their adjustment by Student's t;
    Dean and Pagano 2015 and Franco, Little, Louis and Slud 2019 compare it with others). It is at least the number of
    inputs, as if repeats told nothing, and at most what it would be if repeats were as good as inputs. Without
    repeats that is Wilson's interval itself.

    Other scores from 0 to 1: the same without an upper bound; and where the scores are skewed, as far as the interval
    of Willink (2005) reaches, which moves Student's by the third moment, but no further than Wilson's for as many
    scores of 0 and 1, which vary as much as scores from 0 to 1 can.

    Any other scores: Student's t over the inputs' means, and as far as Willink's interval reaches.

    Limits, measured at 95% with 20–2,000 inputs and 1–5 repeats: averaged over a range of rates, intervals of scores of
    0 and 1 hold in 93–97% of samples, near 0 and 1 too (up to 97.8% for 20 inputs that don't differ in their rates). At
    a single rate those of few such scores hold in 90–98%, as they do by any method. Continuous scores from 0 to 1 hold
    in 91–98% where their mean is 0.05–0.95. Nearer to 0 or 1 the mean rests on rare scores that a sample easily misses:
    73–90% with 20 inputs, 83–92% with 50; a comparison notes that. Log-normal ones with a sigma of 1: 92% with 20.

    Args:
        values: the scores, float64; NaN is an error.
        inputs: which input each is of.
        level: the interval's confidence.

    Returns:
        The mean, the interval, the numbers of inputs and of runs, and the method in words. The interval is NaN
        without scipy and statsmodels, without runs, and for scores beyond 0 to 1 that don't vary or are of one input.

    Raises:
        ConfigError: a score is missing.
    """
    import numpy as np

    scores, codes = _checked(values, inputs)
    _, means, repeats = by_input(scores, codes)
    count = len(means)
    mean = float(np.mean(means)) if count else math.nan
    if not has_statistics():
        return Estimate(mean, *NOWHERE, count, len(scores), "no interval: scipy or statsmodels is missing")
    kind = Kind.of(scores)
    return Estimate(mean, *mean_ends(means, repeats, kind, level), count, len(scores), kind.method)


def paired_difference(
    values: Any, inputs: Any, base_values: Any, base_inputs: Any, level: float = LEVEL
) -> PairedDifference:
    """The mean difference between two sides over the inputs that both have, with interval, test and effect size.

    Of each input the means of both sides' repeats are compared; ``wins`` counts inputs where the first is higher.

    The interval: where all scores of both sides are from 0 to 1, Wilson's on the differences, whose range is -1 to 1,
    with an effective number of inputs as in ``mean_interval``; else Student's t. Tied inputs show no difference, but
    not that there is none. So, after Bonett and Price (2012), two inputs more are taken in, one won and one lost by
    as much as differing inputs differ, each weighted by the share of ties. Scores other than 0 and 1 are also given
    what Willink's interval (2005) adds for skewness.

    The test: how often the sum of the differences would be as far from 0 if each input's difference had either sign
    with equal chance (Fisher's permutation test of paired data, 1935). For scores of 0 and 1 without repeats that is
    McNemar's exact test. Sums exactly as far as the one seen count half (Lancaster's mid-p, 1961): else, where few
    inputs differ, it errs much less often than it may, and often can't tell what the interval does; Fagerland,
    Lydersen and Laake (2013) recommend it for McNemar's. All signs are tried where at most 15 inputs differ or all
    differ by the same; else 9,999 random draws with a fixed seed, so that p isn't below 0.00005; and the normal
    approximation where there are more than 32 differences of distinct size. Where no input differs, p is 1.

    The effect size is Cohen's d_z (Lakens 2013): the mean of the differences in units of their standard deviation.

    Limits, measured at 95%: for scores of 0 and 1 the interval holds in 93–97% of samples where about ten inputs or
    more differ, and more often, up to always, where fewer do, since a sample without differences must not rule them
    out; for others in 92.7–96%. The test errs in at most 5% where differences
    are symmetric around 0; where they are as skewed as a log-normal with a sigma of 0.7, in 9% with 20 inputs and 6%
    with 200, as Student's t does too. For scores of 0 and 1 interval and test disagree on 0 in 0–7% of samples; for
    others the interval may hold 0 though the test tells, in 3–8%, and in up to 18% where only about six of 20 differ.

    Args:
        values, base_values: the scores of either side, float64; NaN is an error.
        inputs, base_inputs: which input each is of, numbered alike on both sides.
        level: the interval's confidence.

    Returns:
        ``difference`` in the score's unit, positive where the first side is higher; ``low`` and ``high`` NaN where
        they can't be estimated; ``effect_size`` NaN where the differences don't vary; ``more_inputs`` for p at most
        ``1 - level``, see there.

    Raises:
        ConfigError: a score is missing, or scipy or statsmodels is.
    """
    import numpy as np

    if not has_statistics():
        raise ConfigError(no_statistics())
    ours, base = _checked(values, inputs), _checked(base_values, base_inputs)
    names, means, _ = by_input(*ours)
    base_names, base_means, _ = by_input(*base)
    _, here, there = np.intersect1d(names, base_names, assume_unique=True, return_indices=True)
    scores = np.concatenate([ours[0][np.isin(ours[1], base_names)], base[0][np.isin(base[1], names)]])
    differences = means[here] - base_means[there]
    # The same repeats in another order may differ in the last bit.
    differences[np.abs(differences) <= ROUNDING * np.max(np.abs(scores), initial=0)] = 0
    count = len(differences)
    if not count:
        return PairedDifference(math.nan, *NOWHERE, math.nan, math.nan, 0, 0, 0, 0, None, "no input in common")
    mean, spread = float(np.mean(differences)), float(np.std(differences, ddof=1)) if count > 1 else 0.0
    if abs(mean) <= ROUNDING * float(np.max(np.abs(differences))):
        mean = 0.0  # what cancels out but for the last bit would take more inputs than there are
    kind = Kind.of(scores)
    p_value, test = _sign_flips(differences)
    wins, losses = int(np.sum(differences > 0)), int(np.sum(differences < 0))
    found = PairedDifference(
        mean,
        *difference_ends(differences, kind, level),
        mean / spread if spread > ROUNDING * abs(mean) else math.nan,
        p_value,
        wins,
        count - wins - losses,
        losses,
        count,
        None,
        f"{kind.method} with ties after Bonett and Price (2012); {test}",
    )
    return found._replace(more_inputs=more_inputs(found, 1 - level))


def more_inputs(found: PairedDifference, alpha: float) -> float | None:
    """How many more inputs would tell, with a power of 80%, if the difference is as large as seen.

    Connor's formula (1987) for McNemar's test, with the mean square of the differences in place of the share of
    discordant pairs. A difference as seen in few inputs is itself uncertain, and so is this.

    Args:
        alpha: it tells where p is at most this; less than 5% where a correction for several comparisons asks for it.

    Returns:
        None where it tells already, and where there is no difference or none that a billion inputs would tell.
    """
    if not found.difference or not found.p_value > alpha:  # NaN neither
        return None
    mean, count = found.difference, found.inputs
    spread = 0.0 if math.isnan(found.effect_size) else mean / found.effect_size * math.sqrt(1 - 1 / count)
    reach = normal_quantile(1 - alpha / 2) * math.hypot(mean, spread) + normal_quantile(POWER) * spread
    # Fewer differing inputs than this can't tell, even if all were won.
    least = math.ceil(-math.log2(alpha)) / ((found.wins + found.losses) / count)
    more = max(math.ceil(max((reach / mean) ** 2, least)) - count, 1)
    return float(more) if more <= _MOST_INPUTS else None


def adjusted(p_values: Any, method: str = "holm") -> Floats:
    """The p-values, adjusted for being several, as ``statsmodels.stats.multitest.multipletests`` does.

    Args:
        p_values: float64; NaN stays NaN and isn't counted as a comparison.
        method: holm (1979), bonferroni, fdr_bh (Benjamini and Hochberg 1995), or another that statsmodels knows.

    Raises:
        ConfigError: the method isn't known, or statsmodels is missing.
    """
    import numpy as np

    if not has_statistics():
        raise ConfigError(no_statistics())
    from statsmodels.stats.multitest import multipletests, multitest_alias

    known = sorted(multitest_alias)
    if method not in known:
        raise ConfigError(f"There is no correction {method!r}. There are: {', '.join(known)}.")
    found = np.array(p_values, dtype=float)
    told = ~np.isnan(found)
    if method in ("holm", "bonferroni"):
        # Statsmodels collects all garbage first: up to a second beside 100,000 runs.
        order = np.flatnonzero(told)[np.argsort(found[told])]
        times = np.arange(len(order), 0, -1) if method == "holm" else len(order)
        found[order] = np.minimum(np.maximum.accumulate(found[order] * times), 1)
    elif told.any():
        found[told] = multipletests(found[told], method=method)[1]
    return found


def noise_floor(values: Any, inputs: Any, configurations: Any, level: float = LEVEL) -> Noise | None:
    """How far apart two mean scores of one setup lie, run twice on the same inputs, 95% of the time.

    The repeatability limit of ISO 5725-6, which is Bland and Altman's repeatability coefficient (1999), for a mean
    over inputs instead of a single measurement: ``t * sqrt(2 v)``. ``v`` is the variance of a mean score when the
    inputs stay and only the repeats change: the variance within an input and configuration, pooled over all, over
    the number of runs as each configuration has them, of which the median is taken: a configuration of few inputs
    alone doesn't raise it for all. ``t`` is Student's quantile for as many degrees of freedom as the pooled variance
    has. It takes configurations to vary alike: one that varies much more than others raises the floor for all.

    Args:
        values: the scores, float64; NaN is an error.
        inputs, configurations: which input and which configuration each is of.
        level: how much of the time.

    Returns:
        The floor, which is 0 where repeats never differed; None where nothing was repeated.

    Raises:
        ConfigError: a score is missing, or scipy or statsmodels is.
    """
    import numpy as np

    scores, codes = _checked(values, inputs)
    _, asked = np.unique(codes, return_inverse=True)
    _, setups = np.unique(configurations, return_inverse=True)
    width = int(np.max(asked, initial=0)) + 1
    names, means, repeats = by_input(scores, setups * width + asked)
    freedom = len(scores) - len(means)
    if not freedom:
        return None
    if not has_statistics():
        raise ConfigError(no_statistics())
    places = np.searchsorted(names, setups * width + asked)
    within = float(np.sum((scores - means[places]) ** 2)) / freedom
    owner = names // width
    shares = np.bincount(owner, weights=1 / repeats) / np.bincount(owner) ** 2
    floor = t_quantile(level, freedom) * math.sqrt(2 * within * float(np.median(shares)))
    return Noise(floor, freedom, "repeatability limit (ISO 5725-6) of a mean, from the variance within inputs")


def _checked(values: Any, inputs: Any) -> tuple[Floats, npt.NDArray[np.int64]]:
    import numpy as np

    scores, codes = np.asarray(values, dtype=float), np.asarray(inputs, dtype=np.int64)
    if missing := int(np.sum(~np.isfinite(scores))):
        raise ConfigError(f"{missing} of {len(scores)} scores are missing or infinite: leave those runs out first.")
    return scores, codes


def by_input(scores: Floats, codes: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """The inputs' numbers, the mean score of each, and how many scores that is of."""
    import numpy as np

    names, places, repeats = np.unique(codes, return_inverse=True, return_counts=True)
    return names, np.bincount(places, weights=scores, minlength=len(names)) / repeats, repeats.astype(float)


def _sign_flips(differences: Floats) -> tuple[float, str]:
    """The two-sided mid-p value of the sign-flip test, and what it is called."""
    import numpy as np
    from scipy.stats import binom

    differing = differences[differences != 0]
    if not len(differing):
        return 1.0, "no input differs"
    scaled = np.round(differing / np.max(np.abs(differing)), 12)
    sizes, counts = np.unique(np.abs(scaled), return_counts=True)
    seen = abs(float(np.sum(scaled)))
    if len(sizes) == 1:
        more, all_of_them = int(max(np.sum(differing > 0), np.sum(differing < 0))), len(differing)
        once = float(binom.pmf(more, all_of_them, 0.5))
        tails = 2 * float(binom.sf(more, all_of_them, 0.5)) + once
        return (tails if 2 * more > all_of_them else 1 - once / 2), "sign-flip test (McNemar's mid-p for 0/1 scores)"
    if exact := len(differing) <= _ENUMERATED:
        sums = np.zeros(1)
        for size in np.repeat(sizes, counts):
            sums = np.concatenate([sums - size, sums + size])
    elif len(sizes) <= _SAMPLED:
        plus = np.random.default_rng(_SEED).binomial(counts, 0.5, (_FLIPS, len(sizes)))
        sums = (2 * plus - counts) @ sizes
    else:
        z = seen / math.sqrt(float(np.sum(counts * sizes**2)))
        return math.erfc(z / math.sqrt(2)), "sign-flip test by its normal approximation"
    beyond = np.abs(sums) - seen
    extreme = float(np.sum(beyond > 1e-9) + np.sum(np.abs(beyond) <= 1e-9) / 2)
    if exact:
        return extreme / len(sums), "sign-flip test (mid-p)"
    return (extreme + 0.5) / (_FLIPS + 1), f"sign-flip test (mid-p) of {_FLIPS:,} draws"
