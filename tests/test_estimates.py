"""Statistics against published examples, against statsmodels, and by simulation with fixed seeds.

``benchmarks/bench_coverage.py`` has the larger simulations, of which these are a part.
"""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from benchmarks import bench_coverage as simulation
from scipy.stats import binom, norm, ttest_1samp
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from xpander_magics.analysis.estimates import (
    PairedDifference,
    adjusted,
    mean_interval,
    more_inputs,
    noise_floor,
    paired_difference,
)
from xpander_magics.errors import ConfigError

Floats = npt.NDArray[np.float64]

# The heights of 15 pairs of crossed and self-fertilized maize plants, in eighths of an inch, crossed less selfed:
# Darwin 1876, and Fisher, The Design of Experiments (1935), section 17.
DARWIN = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48.0])


def of_differences(differences: Floats) -> PairedDifference:
    """The comparison of one run an input with 0."""
    inputs = np.arange(len(differences))
    return paired_difference(differences, inputs, np.zeros(len(differences)), inputs)


def of_table(both: int, first: int, second: int, neither: int) -> PairedDifference:
    """The comparison of two sides with these many inputs right on both, on one alone, and on neither."""
    counts = (both, first, second, neither)
    inputs = np.arange(sum(counts))
    return paired_difference(np.repeat([1.0, 1, 0, 0], counts), inputs, np.repeat([1.0, 0, 1, 0], counts), inputs)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_a_share_has_the_interval_that_newcombe_published_for_wilsons_method(
    right: int, count: int, low: float, high: float
) -> None:
    """Newcombe 1998, Statistics in Medicine 17:857, Table I, method 3."""
    found = mean_interval(np.repeat([1.0, 0], [right, count - right]), np.arange(count))
    assert found[:3] == pytest.approx((right / count, low, high), abs=5e-5)
    assert (found.inputs, found.runs, found.method) == (count, count, "Wilson (1927)")


def test_the_t_interval_is_that_of_a_textbook() -> None:
    """Darwin's maize: the 95% interval of Student's t is 0.004 to 5.229 inches; its lower end is moved by skewness."""
    found = mean_interval(DARWIN / 8, np.arange(15))
    assert found.mean == pytest.approx(2.617, abs=5e-4)
    assert found.high == pytest.approx(5.2294, abs=5e-5)
    assert found.low < 0.0039
    even = mean_interval([2.0, 4, 6, 8, 10], range(5))  # no skewness: t alone, s = sqrt(10), t = 2.7764
    assert (even.low, even.high) == pytest.approx((6 - 2.7764 * math.sqrt(2), 6 + 2.7764 * math.sqrt(2)), abs=1e-4)


def test_the_interval_of_skewed_scores_inverts_halls_transformation() -> None:
    """Hall 1992: T + 2 A T² + 4/3 A² T³ + A is nearly symmetric, where 6 A √n is the skewness; Willink 2005 uses t."""
    values = np.random.default_rng(3).lognormal(0, 0.5, 60) + 5
    found = mean_interval(values, np.arange(60))
    error = values.std(ddof=1) / math.sqrt(60)
    skewness = float(np.mean((values - values.mean()) ** 3)) / values.std(ddof=1) ** 3 * 60**2 / (59 * 58)
    a, quantile = skewness / (6 * math.sqrt(60)), student.ppf(0.975, 59)
    ends = (values.mean() - np.array([found.high, values.mean() - quantile * error])) / error
    moved = ends + 2 * a * ends**2 + 4 / 3 * a**2 * ends**3 + a
    assert skewness > 0.5
    assert moved[0] == pytest.approx(-quantile)
    assert found.low == pytest.approx(values.mean() - quantile * error)  # Student's reaches further there


def test_repeats_of_an_input_count_as_one_input_where_they_always_agree() -> None:
    once = mean_interval(np.repeat([1.0, 0], [30, 20]), np.arange(50))
    five = mean_interval(np.repeat([1.0, 0], [150, 100]), np.repeat(np.arange(50), 5))
    assert five[:3] == pytest.approx(once[:3])
    assert (five.inputs, five.runs) == (50, 250)


def test_repeats_count_at_most_as_much_as_inputs() -> None:
    # Of every two repeats one is right: the inputs' means don't vary at all, yet a hundred runs are no more than that.
    found = mean_interval(np.tile([1.0, 0], 50), np.repeat(np.arange(50), 2))
    assert found[:3] == pytest.approx(mean_interval(np.tile([1.0, 0], 50), np.arange(100))[:3])


def test_each_input_counts_once_whatever_its_repeats() -> None:
    assert mean_interval([1.0, 1, 1, 0], [7, 7, 7, 3]).mean == 0.5


def test_an_interval_mirrors_with_the_scores() -> None:
    rng = np.random.default_rng(8)
    for values in ((rng.random(40) < 0.1) * 1.0, rng.beta(1, 6, 40)):
        found, mirrored = mean_interval(values, np.arange(40) // 2), mean_interval(1 - values, np.arange(40) // 2)
        assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((found.low, found.high))
        assert 0 <= found.low < found.mean < found.high <= 1


def test_a_higher_level_is_wider() -> None:
    values = np.random.default_rng(2).random(30)
    narrow, wide = (mean_interval(values, np.arange(30), level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_what_cannot_be_estimated_is_nan() -> None:
    assert mean_interval([], [])[:5] == pytest.approx((math.nan, math.nan, math.nan, 0, 0), nan_ok=True)
    for values in ([3.0], [3.0, 3.0]):  # beyond 0 to 1 nothing tells how much scores vary
        found = mean_interval(values, range(len(values)))
        assert found.mean == 3
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    one = mean_interval([1.0], [0])
    assert 0 < one.low < 0.3
    nothing = paired_difference([1.0], [0], [1.0], [1])
    assert nothing.inputs == 0
    assert math.isnan(nothing.p_value)
    assert nothing.more_inputs is None


@pytest.mark.parametrize("values", [[0.5, math.nan], [math.inf, 1]])
def test_a_missing_score_is_an_error(values: list[float]) -> None:
    with pytest.raises(ConfigError, match="1 of 2 scores"):
        mean_interval(values, [0, 1])


@pytest.mark.parametrize(
    ("table", "published"),
    [
        # Bonett and Price 2012, Journal of Educational and Behavioral Statistics 37:479, the worked example.
        ((6, 26, 4, 12), (0.2548, 0.6252)),
        # Bentur et al. 2009, in Fagerland, Lydersen and Laake 2014, Stat. Med. 33:2850: Newcombe's interval.
        ((1, 1, 7, 12), (-0.507, -0.026)),
        # Altman et al., Statistics with Confidence (2000), Table 6.2: Newcombe's interval.
        ((14, 5, 0, 22), (0.011, 0.226)),
    ],
)
def test_a_paired_difference_agrees_with_published_intervals(
    table: tuple[int, int, int, int], published: tuple[float, float]
) -> None:
    """Other methods than this one, all of which are recommended: they agree to 0.02."""
    found = of_table(*table)
    assert found.difference == (table[1] - table[2]) / sum(table)
    assert (found.low, found.high) == pytest.approx(published, abs=0.02)


def test_the_interval_of_ties_alone_is_bonett_and_prices() -> None:
    found = of_table(12, 0, 0, 8)
    reach = 1.959964 * math.sqrt(2 / 22 / 21)  # theirs has 22 for 21
    assert (found.low, found.high) == pytest.approx((-reach, reach), rel=0.02)
    assert (found.p_value, found.wins, found.ties, found.losses) == (1, 0, 20, 0)
    assert found.more_inputs is None
    assert math.isnan(found.effect_size)


@pytest.mark.parametrize("table", [(1, 1, 7, 12), (14, 5, 0, 22), (59, 6, 16, 80), (794, 150, 86, 570)])
def test_without_repeats_the_test_of_0_and_1_is_mcnemars(table: tuple[int, int, int, int]) -> None:
    """Its exact p-value, in which what was seen counts half.

    Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91, give both for the first table: 0.0703
    and 0.0391. The last is the approval of the Prime Minister, Agresti, Categorical Data Analysis, Table 10.1.
    """
    found = of_table(*table)
    exact = mcnemar([[table[0], table[1]], [table[2], table[3]]], exact=True).pvalue
    assert found.p_value == pytest.approx(exact - binom.pmf(table[1], table[1] + table[2], 0.5), rel=1e-9)
    assert (found.wins, found.ties, found.losses) == (table[1], table[0] + table[3], table[2])
    if table[1:3] == (1, 7):
        assert (round(exact, 4), round(found.p_value, 4)) == (0.0703, 0.0391)


def test_as_many_wins_as_losses_do_not_tell() -> None:
    found = of_table(0, 3, 3, 0)
    assert found.p_value == pytest.approx(1 - 20 / 2**6 / 2)  # half of the chance of exactly three of six


def test_the_sign_flip_test_is_fishers() -> None:
    """Of 32,768 choices of signs 835 have a higher sum than Darwin's and 28 the same (Fisher 1935, section 21)."""
    found = of_differences(DARWIN)
    assert found.p_value == 2 * (835 + 28 / 2) / 32_768


def test_the_test_by_draws_and_by_approximation_agree_with_other_tests() -> None:
    rng = np.random.default_rng(11)
    drawn = of_differences(np.round(rng.normal(0.25, 1, 100) * 2) / 2)
    assert "draws" in drawn.method
    many = rng.normal(0.06, 1, 1_000)
    approximate = of_differences(many)
    assert "normal" in approximate.method
    assert approximate.p_value == pytest.approx(ttest_1samp(many, 0).pvalue, abs=0.002)
    # The same differences as a permutation test has them, without the approximation.
    signs = rng.integers(0, 2, (20_000, 1_000), dtype=np.int8)
    sums = 2 * (signs @ np.abs(many)) - np.abs(many).sum()
    assert approximate.p_value == pytest.approx(np.mean(np.abs(sums) >= abs(many.sum())), abs=0.006)
    halves = np.round(rng.normal(0.25, 1, 100) * 2) / 2
    flips = (1 - 2 * rng.integers(0, 2, (20_000, 100))) @ halves
    assert of_differences(halves).p_value == pytest.approx(np.mean(np.abs(flips) >= abs(halves.sum())), abs=0.006)


def test_the_same_comparison_gives_the_same_p_value() -> None:
    values = np.random.default_rng(1).choice([-1, -0.5, 0, 0.5, 1], 90)
    assert of_differences(values) == of_differences(values)
    assert of_differences(-values).p_value == of_differences(values).p_value


def test_the_effect_size_is_cohens_d_z() -> None:
    """Lakens 2013, Frontiers in Psychology 4:863, Table 1: two movies, t(9) = 4.74, d_z = 1.50."""
    first = [9.0, 7, 8, 9, 8, 9, 9, 10, 9, 9]
    second = [9.0, 6, 7, 8, 7, 9, 8, 8, 8, 7]
    found = paired_difference(first, range(10), second, range(10))
    assert found.difference == pytest.approx(1)
    assert found.effect_size == pytest.approx(1.50, abs=0.005)


def test_only_inputs_of_both_sides_are_compared_and_repeats_are_averaged() -> None:
    found = paired_difference([1.0, 0, 1, 1, 0], [1, 1, 2, 3, 9], [0.0, 0, 1, 1, 1, 1], [3, 1, 2, 2, 4, 5])
    assert (found.wins, found.ties, found.losses, found.inputs) == (2, 1, 0, 3)
    assert found.difference == 0.5


def test_the_order_of_repeats_makes_no_difference() -> None:
    scores = [0.1, 0.2, 0.3, 0.7, 0.6]
    found = paired_difference(scores, [0] * 5, scores[::-1], [0] * 5)
    assert (found.ties, found.difference) == (1, 0)


def test_sides_change_places() -> None:
    rng = np.random.default_rng(6)
    for one, other in ((rng.random(30), rng.random(30)), (rng.normal(5, 1, 30), rng.normal(5, 1, 30))):
        found = paired_difference(one, range(30), other, range(30))
        turned = paired_difference(other, range(30), one, range(30))
        assert (turned.difference, turned.low, turned.high) == pytest.approx(
            (-found.difference, -found.high, -found.low)
        )
        assert (turned.wins, turned.losses) == (found.losses, found.wins)


def test_how_many_more_inputs_would_tell_agrees_with_the_power_of_the_t_test() -> None:
    values = (np.arange(80) - 39.5) / np.std(np.arange(80), ddof=1) + 0.15
    expected = TTestPower().solve_power(effect_size=0.15, alpha=0.05, power=0.8)
    more = of_differences(values).more_inputs
    assert more is not None
    assert more + 80 == pytest.approx(expected, rel=0.02)
    assert of_differences(values + 0.3).more_inputs is None  # it tells already
    assert of_differences(np.array([1.0, -1])).more_inputs is None  # no difference
    assert of_differences(np.ones(3)).more_inputs == 2  # four wins out of four don't tell, five do


def test_differences_that_cancel_out_but_for_the_last_bit_are_none() -> None:
    values = np.array([0.1, 0.2, -0.3])
    assert values.mean() != 0
    found = of_differences(values)
    assert (found.difference, found.more_inputs) == (0, None)
    assert of_differences(np.array([1.0, -1, 1e-9])).more_inputs is None  # there are no such many inputs


def test_a_correction_asks_for_more_inputs() -> None:
    found = of_differences(np.repeat([1.0, -1, 0], [12, 6, 32]))
    once, five = more_inputs(found, 0.05), more_inputs(found, 0.01)
    assert once == found.more_inputs
    assert once is not None
    assert five is not None
    ratio = ((norm.ppf(0.995) + norm.ppf(0.8)) / (norm.ppf(0.975) + norm.ppf(0.8))) ** 2
    assert (five + 50) / (once + 50) == pytest.approx(ratio, rel=0.02)


@pytest.mark.parametrize(
    ("wins", "losses", "ties"), [(3, 0, 17), (12, 6, 32), (40, 30, 130)], ids=["sparse", "dense", "many"]
)
def test_with_so_many_more_inputs_the_power_is_about_80_percent(wins: int, losses: int, ties: int) -> None:
    sample = np.repeat([1.0, -1, 0], [wins, losses, ties])
    _, power = simulation.power_of_more(np.random.default_rng(4), sample, 400)
    assert 0.72 < power < 0.93  # with few discordant inputs the power goes up in steps


def test_p_values_are_adjusted_as_published() -> None:
    """Benjamini and Hochberg 1995, section 3.2: of 15 hypotheses Bonferroni rejects three at 5%, theirs four."""
    published = [*(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344), *(0.0459, 0.3240, 0.4262)]
    published += [0.5719, 0.6528, 0.7590, 1.0]
    assert (adjusted(published, "bonferroni") <= 0.05).sum() == 3
    assert (adjusted(published, "fdr_bh") <= 0.05).sum() == 4
    # Holm 1979: the k-th smallest of n times n - k + 1, and never less than one before it.
    assert adjusted([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("method", ["holm", "bonferroni", "fdr_bh"])
def test_p_values_are_adjusted_as_statsmodels_does(method: str) -> None:
    rng = np.random.default_rng(3)
    for count in (1, 2, 19, 40):
        p_values = np.round(rng.random(count) ** 3, 2)  # some are alike, some are 0
        assert adjusted(p_values, method) == pytest.approx(multipletests(p_values, method=method)[1])


def test_what_is_not_a_p_value_is_no_comparison() -> None:
    found = adjusted([0.01, math.nan, 0.04])
    assert found.tolist() == pytest.approx([0.02, math.nan, 0.04], nan_ok=True)
    assert np.isnan(adjusted([math.nan])).all()
    assert adjusted([]).shape == (0,)
    with pytest.raises(ConfigError, match=r"'holme'.*bonferroni.*fdr_bh.*holm"):
        adjusted([0.1], "holme")


def test_the_noise_of_single_scores_is_the_repeatability_limit() -> None:
    """ISO 5725-6: two single results differ by less than 2.8 standard deviations (here with 500 degrees of freedom)."""
    values = np.random.default_rng(9).normal(0, 3, (2, 500))
    within = math.sqrt(np.mean((values[0] - values[1]) ** 2) / 2)
    found = noise_floor(values.T.ravel(), np.repeat(np.arange(500), 2), np.zeros(1_000, dtype=int))
    assert found is not None
    assert found.pairs == 500
    # Means over 500 inputs of two runs each instead of single scores.
    assert found.floor * math.sqrt(1_000) / within == pytest.approx(2.8, abs=0.03)


def test_noise_needs_repeats_and_is_none_without_any_difference() -> None:
    assert noise_floor([1.0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1]) is None
    assert noise_floor([], [], []) is None
    same = noise_floor([1.0, 1, 0, 0], [0, 0, 1, 1], [5, 5, 5, 5])
    assert same is not None
    assert (same.floor, same.pairs) == (0, 2)


def test_noise_counts_the_runs_of_each_configuration() -> None:
    # Input 0 of configuration 0 is repeated; configuration 1 ran each of two inputs once.
    found = noise_floor([0.0, 1, 1, 0, 1], [0, 0, 1, 0, 1], [0, 0, 0, 1, 1])
    assert found is not None
    variance = 0.5 * np.mean([(1 / 2 + 1) / 4, (1 + 1) / 4])
    assert found.floor == pytest.approx(student.ppf(0.975, 1) * math.sqrt(2 * variance))


def test_a_configuration_of_few_inputs_does_not_raise_the_noise_of_others() -> None:
    rng = np.random.default_rng(4)
    codes, setups = np.tile(np.repeat(np.arange(100), 2), 4), np.repeat(np.arange(4), 200)
    values = (rng.random(800) < 0.5) * 1.0
    partly = (setups != 3) | (codes < 3)
    whole, part = noise_floor(values, codes, setups), noise_floor(values[partly], codes[partly], setups[partly])
    assert whole is not None
    assert part is not None
    assert part.floor == pytest.approx(whole.floor, rel=0.1)


@pytest.mark.parametrize("repeats", [2, 5])
def test_two_runs_of_one_setup_lie_within_the_noise_95_percent_of_the_time(repeats: int) -> None:
    assert 0.93 <= simulation.within_floor(np.random.default_rng(7), 50, repeats, 0.5, 600) <= 0.98


@pytest.mark.parametrize("span", simulation.RANGES)
@pytest.mark.parametrize(("repeats", "correlation"), [(1, 0), (5, 0.3), ("1-5", 0.8)])
@pytest.mark.parametrize("inputs", [20, 200])
def test_the_interval_of_a_rate_covers_it_in_93_to_97_percent(
    inputs: int, repeats: int | str, correlation: float, span: tuple[float, float]
) -> None:
    rng = np.random.default_rng(2)
    found = simulation.covered(
        simulation.beta_binomial(rng, inputs, repeats, simulation.rate_in(rng, span), correlation) for _ in range(800)
    )
    assert 0.925 <= found <= 0.975  # 800 samples are uncertain by 0.8%


@pytest.mark.parametrize("shape", ["normal", "log-normal 0.5"])
def test_the_interval_of_unbounded_scores_covers_their_mean(shape: str) -> None:
    rng = np.random.default_rng(3)
    found = simulation.covered(simulation.unbounded(rng, 50, "1-5", shape) for _ in range(800))
    assert 0.93 <= found <= 0.97


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_interval_of_a_difference_covers_it_and_the_test_errs_in_at_most_5_percent(repeats: int) -> None:
    rng = np.random.default_rng(5)
    apart = simulation.compared(simulation.pairs(rng, 50, repeats, (0.75, 0.5), 0.9, 0.7) for _ in range(600))
    assert 0.93 <= apart.covered <= 0.97
    assert apart.contradicted <= 0.03
    alike = simulation.compared(simulation.pairs(rng, 50, repeats, (0.3, 0.3), 0.9, 0.7) for _ in range(600))
    assert alike.rejected <= 0.055


@pytest.mark.parametrize("shape", ["beta", "normal", "log-normal"])
def test_the_interval_of_a_difference_of_other_scores_covers_it(shape: str) -> None:
    rng = np.random.default_rng(6)
    found = simulation.compared(simulation.other_pairs(rng, 50, shape) for _ in range(600))
    assert 0.93 <= found.covered <= 0.975
    assert found.contradicted <= 0.05


def test_nearly_identical_sides_are_not_told_apart() -> None:
    rng = np.random.default_rng(4)
    found = simulation.compared(simulation.pairs(rng, 20, 1, (0.97, 0.97), 1, 1) for _ in range(200))
    assert found.covered == 1
    assert found.rejected == 0


WITHOUT = """
import sys
for name in ("scipy", "statsmodels"):
    sys.modules[name] = None
from xpander_magics.analysis import estimates
from xpander_magics.errors import ConfigError
found = estimates.mean_interval([1.0, 0, 1], [0, 0, 1])
assert (found.mean, found.inputs, found.runs) == (0.75, 2, 3) and found.low != found.low and found.high != found.high
for call in (
    lambda: estimates.paired_difference([1.0], [0], [0.0], [0]),
    lambda: estimates.adjusted([0.1]),
    lambda: estimates.noise_floor([1.0, 0], [0, 0], [0, 0]),
):
    try:
        call()
    except ConfigError as error:
        assert "pip install 'scipy" in str(error)
    else:
        raise AssertionError("an error was expected")
"""


def test_means_need_neither_scipy_nor_statsmodels() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)
