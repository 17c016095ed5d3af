"""How often the intervals hold, how often the test errs, and how many inputs more would tell: by simulation.

Run it as a script: ``python tests/benchmarks/bench_coverage.py [SAMPLES [SEED]]``; 300 samples a row when omitted,
of which the sampling error is 1.3 percentage points (0.7 of 1,000). Aim: an interval called 95% holds in 93–97%.

With few scores of 0 and 1 there are few values that a mean can have, so at a single rate no method's coverage can be
within such bounds (Brown, Cai and DasGupta 2001). So each sample's rate is drawn anew from a range, and what is told
is the mean over the range; the worst single rates are told below that. Ranges are taken with their mirror images:
0.005–0.05 stands for 0.95–0.995 too. An input's repeats are correlated by 0 (each run is by itself) to 1 (all repeats
agree); "1-5" repeats are unequal numbers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import beta as beta_distribution

from xpander_magics.analysis.estimates import mean_interval, noise_floor, paired_difference

Floats = npt.NDArray[np.float64]
RANGES = ((0.005, 0.05), (0.05, 0.2), (0.2, 0.8))
INPUTS = (20, 50, 200, 2_000)
REPEATS = (1, 2, 5, "1-5")
FIXED = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


class Sample(NamedTuple):
    """Scores of a simulated setup, which input each is of, and the mean that they were drawn with."""

    values: Floats
    inputs: npt.NDArray[np.int64]
    true: float


def rate_in(rng: np.random.Generator, span: tuple[float, float]) -> float:
    """A rate from a range or its mirror image."""
    rate = float(rng.uniform(*span))
    return rate if rng.random() < 0.5 else 1 - rate


def codes_of(rng: np.random.Generator, inputs: int, repeats: int | str) -> npt.NDArray[np.int64]:
    """Which input each run is of."""
    return np.repeat(np.arange(inputs), rng.integers(1, 6, inputs) if repeats == "1-5" else repeats)


def beta_binomial(rng: np.random.Generator, inputs: int, repeats: int | str, rate: float, correlation: float) -> Sample:
    """Scores of 0 and 1 whose inputs have rates of their own, with this correlation of an input's repeats."""
    if correlation == 0:
        rates = np.full(inputs, rate)
    elif correlation == 1:
        rates = (rng.random(inputs) < rate) * 1.0
    else:
        size = (1 - correlation) / correlation
        rates = rng.beta(rate * size, (1 - rate) * size, inputs)
    codes = codes_of(rng, inputs, repeats)
    return Sample((rng.random(len(codes)) < rates[codes]) * 1.0, codes, rate)


def fractions(rng: np.random.Generator, inputs: int, repeats: int | str, rate: float, spread: float) -> Sample:
    """Continuous scores from 0 to 1, beta-distributed over inputs and repeats; 30% of them are 0 or 1."""
    means = np.clip(rng.beta(rate / spread, (1 - rate) / spread, inputs), 1e-9, 1 - 1e-9)
    codes = codes_of(rng, inputs, repeats)
    own = means[codes]
    values = rng.beta(own * 8, (1 - own) * 8)
    return Sample(np.where(rng.random(len(codes)) < 0.3, rng.random(len(codes)) < own, values), codes, rate)


def fields(rng: np.random.Generator, inputs: int, repeats: int | str, rate: float, correlation: float) -> Sample:
    """The share of four fields that are right."""
    found = beta_binomial(rng, inputs, 4, rate, correlation)
    return Sample(found.values.reshape(-1, 4).mean(axis=1), np.arange(inputs), rate)


def unbounded(rng: np.random.Generator, inputs: int, repeats: int | str, shape: str) -> Sample:
    """Normal scores, or log-normal ones of a sigma, over inputs; repeats add normal noise."""
    codes = codes_of(rng, inputs, repeats)
    sigma = float(shape.partition(" ")[2] or 0)
    own, true = (rng.lognormal(0, sigma, inputs), np.exp(sigma**2 / 2)) if sigma else (rng.normal(size=inputs), 0.0)
    return Sample(own[codes] + rng.normal(0, 0.3, len(codes)), codes, float(true))


def pairs(
    rng: np.random.Generator, inputs: int, repeats: int | str, rates: tuple[float, float], kin: float, within: float
) -> tuple[Sample, Sample]:
    """Scores of 0 and 1 of two setups on the same inputs.

    A run succeeds where a normal value is below its setup's threshold. ``within`` of its variance is the input's, and
    of that the two setups share ``kin``. A ``kin`` of 1 also shares the run's own part in nine of ten inputs: the
    setups are nearly identical.
    """
    same = (rng.random(inputs) < 0.9) & (kin == 1)
    shared, own = rng.normal(size=inputs), rng.normal(size=(2, inputs))
    noise = rng.normal(size=(2, inputs, 5))
    sides = []
    for side, rate in enumerate(rates):
        codes = codes_of(rng, inputs, repeats)
        place = np.arange(len(codes)) - np.searchsorted(codes, codes)
        of_input = np.sqrt(kin) * shared + np.sqrt(1 - kin) * own[side]
        drawn = np.where(same[codes], noise[0, codes, place], noise[side, codes, place])
        values = np.sqrt(within) * of_input[codes] + np.sqrt(1 - within) * drawn < ndtri(rate)
        sides.append(Sample(values * 1.0, codes, rate))
    return sides[0], sides[1]


def other_pairs(rng: np.random.Generator, inputs: int, shape: str) -> tuple[Sample, Sample]:
    """Two setups' scores that aren't 0 and 1, correlated by input, a run each."""
    codes = np.arange(inputs)
    normal = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], inputs)
    if shape == "beta":
        rates = rng.uniform(0.1, 0.9, 2)
        uniform = beta_distribution.cdf(rng.beta(2, 2, (inputs, 2)), 2, 2)
        uniform[:, 1] = np.where(rng.random(inputs) < 0.6, uniform[:, 0], uniform[:, 1])
        a, b = (beta_distribution.ppf(uniform[:, n], 3 * rates[n], 3 * (1 - rates[n])) for n in (0, 1))
        return Sample(a, codes, rates[0]), Sample(b, codes, rates[1])
    if shape == "70% ties":
        moved = (rng.random(inputs) < 0.3) * rng.uniform(-0.1, 0.4, inputs)
        return Sample(0.5 + moved, codes, 0.5 + 0.3 * 0.15), Sample(np.full(inputs, 0.5), codes, 0.5)
    if shape == "normal":
        return Sample(normal[:, 0] + 0.3, codes, 0.3), Sample(normal[:, 1], codes, 0.0)
    a, b = np.exp(0.7 * normal[:, 0]), 0.8 * np.exp(0.5 * normal[:, 1])
    return Sample(a, codes, float(np.exp(0.245))), Sample(b, codes, float(0.8 * np.exp(0.125)))


def covered(samples: Iterator[Sample]) -> float:
    """The share of samples whose interval holds the true mean."""
    found = [(mean_interval(s.values, s.inputs), s.true) for s in samples]
    return float(np.mean([e.low - 1e-12 <= true <= e.high + 1e-12 for e, true in found]))


class Paired(NamedTuple):
    """What came of samples of pairs: how often the interval held, the test rejected, and the two disagreed on 0."""

    covered: float
    rejected: float
    contradicted: float
    differing: float


def compared(samples: Iterator[tuple[Sample, Sample]]) -> Paired:
    """Intervals and tests of many samples of pairs."""
    rows = []
    for ours, base in samples:
        found = paired_difference(ours.values, ours.inputs, base.values, base.inputs)
        told = found.p_value <= 0.05
        excluded = not found.low <= 0 <= found.high
        held = found.low - 1e-12 <= ours.true - base.true <= found.high + 1e-12
        rows.append((held, told, told != excluded, found.wins + found.losses))
    return Paired(*np.mean(rows, axis=0).tolist())


def means_table(rng: np.random.Generator, samples: int) -> None:
    """Coverage of ``mean_interval`` over ranges of rates."""
    heads = "".join(f"{low:g}-{high:g}".rjust(12) for low, high in RANGES)
    print(f"\nmean_interval: coverage in %\n{'scores':34}{'inputs':>7}{'repeats':>8}{heads}")
    shapes: list[tuple[str, Any, float]] = [
        *((f"0/1, correlation {c:g}", beta_binomial, c) for c in (0, 0.3, 0.8, 1)),
        *((f"continuous, spread {c:g}, 30% at 0/1", fractions, c) for c in (0.1, 1)),
        *((f"share of 4 fields, correlation {c:g}", fields, c) for c in (0.3,)),
    ]
    outside: list[str] = []
    for inputs in INPUTS:
        for name, draw, how in shapes:
            for repeats in (1,) if draw is fields else REPEATS:
                if draw is beta_binomial and repeats == 1 and how:
                    continue  # without repeats there is nothing to correlate
                cells = []
                for span in RANGES:
                    found = covered(draw(rng, inputs, repeats, rate_in(rng, span), how) for _ in range(samples))
                    cells.append(found)
                    if not 0.93 <= found <= 0.97:
                        outside.append(f"{name}, {inputs} inputs, {repeats} repeats, {span}: {found:.1%}")
                print(f"{name:34}{inputs:7}{repeats:>8}" + "".join(f"{cell:12.1%}" for cell in cells), flush=True)
        for shape in ("normal", "log-normal 0.5", "log-normal 1"):
            found = covered(unbounded(rng, inputs, "1-5", shape) for _ in range(samples))
            print(f"{shape:34}{inputs:7}{'1-5':>8}{found:12.1%}", flush=True)
    print("Outside 93-97%:", *(outside or ["none"]), sep="\n  ")


def worst_table(rng: np.random.Generator, samples: int) -> None:
    """The worst coverage of ``mean_interval`` at single rates, for 0/1 scores without repeats and with five."""
    print(f"\nmean_interval at single rates ({', '.join(map(str, FIXED))}): lowest and highest coverage in %")
    for inputs in INPUTS[:3]:
        for repeats, correlation in ((1, 0.0), (5, 0.3)):
            found = {
                rate: covered(beta_binomial(rng, inputs, repeats, rate, correlation) for _ in range(samples))
                for rate in FIXED
            }
            low, high = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
            print(f"{inputs:7}{repeats:8}   {found[low]:.1%} at {low}, {found[high]:.1%} at {high}", flush=True)


def pairs_table(rng: np.random.Generator, samples: int) -> None:
    """Coverage of ``paired_difference``, its test where there is no difference, and how often the two disagree."""
    print("\npaired_difference: coverage, rejections without a difference, contradictions with one | without, in %")
    print(f"{'scores':44}{'range':>10}{'inputs':>7}{'differ':>8}{'covered':>9}{'rejected':>9}{'contradicted':>16}")
    for inputs in INPUTS:
        for repeats, within in ((1, 1.0), (5, 0.0), (5, 0.5), ("1-5", 0.5)):
            for kin in (0.0, 0.9, 1.0) if inputs < INPUTS[-1] else (0.9,):
                for span in RANGES:
                    two, one = [], []
                    for _ in range(samples):
                        side = rng.random() < 0.5
                        rates = np.abs(side - rng.uniform(*span, 2))
                        two.append(pairs(rng, inputs, repeats, (rates[0], rates[1]), kin, within))
                        one.append(pairs(rng, inputs, repeats, (rates[0], rates[0]), kin, within))
                    other, same = compared(iter(two)), compared(iter(one))
                    name = f"0/1, {repeats} repeats, within {within:g}, kin {kin:g}"
                    print(
                        f"{name:44}{span[1]:10}{inputs:7}{other.differing:8.1f}{other.covered:9.1%}{same.rejected:9.1%}"
                        f"{other.contradicted:9.1%}{same.contradicted:7.1%}",
                        flush=True,
                    )
        for shape in ("beta", "70% ties", "normal", "log-normal"):
            found = compared(other_pairs(rng, inputs, shape) for _ in range(samples))
            print(f"{shape:54}{inputs:7}{found.differing:8.1f}{found.covered:9.1%}{'':9}{found.contradicted:9.1%}")


def errors_table(rng: np.random.Generator, samples: int) -> None:
    """How often the test tells where differences have the mean 0, with and without skewness."""
    print("\ntest of differences with the mean 0: rejections in % (aim at most 5%)")
    shapes = {
        "normal": lambda count: rng.normal(size=count),
        "exponential": lambda count: rng.exponential(size=count) - 1,
        "log-normal 0.7": lambda count: rng.lognormal(0, 0.7, count) - np.exp(0.245),
    }
    for name, draw in shapes.items():
        for inputs in INPUTS[:3]:
            codes, base = np.arange(inputs), np.zeros(inputs)
            told = [paired_difference(draw(inputs), codes, base, codes).p_value <= 0.05 for _ in range(samples)]
            print(f"{name:34}{inputs:7}{np.mean(told):9.1%}", flush=True)


def power_of_more(rng: np.random.Generator, sample: Floats, samples: int) -> tuple[float, float]:
    """``more_inputs`` of these differences, and how often the test tells with so many more of the same kind."""
    codes, base = np.arange(len(sample)), np.zeros(len(sample))
    more = paired_difference(sample, codes, base, codes).more_inputs
    assert more is not None, "the sample tells already"
    count = len(sample) + int(more)
    codes, base = np.arange(count), np.zeros(count)
    drawn = (paired_difference(rng.choice(sample, count), codes, base, codes).p_value for _ in range(samples))
    return more, float(np.mean([p <= 0.05 for p in drawn]))


def power_table(rng: np.random.Generator, samples: int) -> None:
    """The power with ``more_inputs`` more, which should be about 80%."""
    print("\nmore_inputs: how many, and the power with them (aim 80%)")
    for name, sample in {
        "3 wins, 17 ties": np.repeat([1.0, 0], [3, 17]),
        "5 wins, 2 losses, 43 ties": np.repeat([1.0, -1, 0], [5, 2, 43]),
        "12 wins, 6 losses, 32 ties": np.repeat([1.0, -1, 0], [12, 6, 32]),
        "40 wins, 30 losses, 130 ties": np.repeat([1.0, -1, 0], [40, 30, 130]),
        "of 3 repeats each, 50 inputs": np.repeat([1, 2 / 3, 1 / 3, 0, -1 / 3, -2 / 3], [2, 3, 9, 25, 8, 3]),
        "normal, d_z 0.2, 60 inputs": ndtri((np.arange(60) + 0.5) / 60) + 0.2,
    }.items():
        more, power = power_of_more(rng, sample, samples)
        print(f"{name:44}{more:7.0f}{power:9.1%}", flush=True)


def within_floor(rng: np.random.Generator, inputs: int, repeats: int, correlation: float, samples: int) -> float:
    """How often two runs of a setup on the same inputs lie no further apart than the noise floor says."""
    held = []
    for _ in range(samples):
        size = (1 - correlation) / correlation
        rates = rng.beta(0.7 * size, 0.3 * size, inputs)
        codes = np.repeat(np.arange(inputs), repeats)
        drawn = (rng.random((5, len(codes))) < rates[codes]) * 1.0
        noise = noise_floor(drawn[:3].ravel(), np.tile(codes, 3), np.repeat(np.arange(3), len(codes)))
        held.append(noise is not None and abs(drawn[3].mean() - drawn[4].mean()) <= noise.floor + 1e-12)
    return float(np.mean(held))


def noise_table(rng: np.random.Generator, samples: int) -> None:
    """How often the noise floor holds, from three configurations."""
    print("\nnoise_floor: share of two runs of one setup that lie within it (aim 95%)")
    for inputs in INPUTS[:3]:
        for repeats in (2, 5):
            cells = "".join(f"{within_floor(rng, inputs, repeats, c, samples):9.1%}" for c in (0.1, 0.5, 0.8))
            print(f"{inputs:7} inputs {repeats} repeats, correlation 0.1, 0.5, 0.8{cells}", flush=True)


def main() -> None:
    """Print all tables."""
    given = [int(word) for word in sys.argv[1:]]
    samples, seed = given + [300, 5][len(given) :]
    started = time.perf_counter()
    for table in (means_table, worst_table, pairs_table, errors_table, power_table, noise_table):
        table(np.random.default_rng(seed), samples)
    print(f"\n{samples:,} samples a row, seed {seed}, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
