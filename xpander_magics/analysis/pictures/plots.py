"""Plots of a comparison: trade-offs, scores, distributions, prompt versions, differences.

They need matplotlib (the extra ``[plot]``). What a colour says in them, a marker's shape or a word
says as well.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from xpander_magics import extras
from xpander_magics.analysis.files import checked_path, whole_file
from xpander_magics.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from xpander_magics.analysis.comparison import Comparison
    from xpander_magics.analysis.pictures.figures import Plot

KINDS = ("tradeoff", "scores", "distribution", "prompts", "differences")
SUFFIXES = (".png", ".svg", ".pdf")


class Quantity(NamedTuple):
    """What a run takes: the table's column, the runs' column, and how an axis calls each."""

    of_each: str
    of_runs: str
    averaged: str
    single: str


QUANTITIES = {
    "cost": Quantity("cost_per_run", "cost_usd", "Cost per run, mean (US dollars)", "Cost of a run (US dollars)"),
    "seconds": Quantity("seconds_p50", "latency_s", "Time per run, median (seconds)", "Time of a run (seconds)"),
    "tokens": Quantity("tokens", "total_tokens", "Tokens per run, mean", "Tokens of a run"),
}


def plot(
    comparison: Comparison,
    kind: str = "tradeoff",
    *,
    x: str | None = None,
    score: str | None = None,
    file: str | os.PathLike[str] | None = None,
) -> Plot:
    """A plot of a comparison, which a notebook shows by itself.

    Args:
        kind: ``tradeoff`` (mean score against what a run takes, with the Pareto front), ``scores`` (means with their
            intervals), ``distribution`` (what single runs took), ``prompts`` (score by prompt version, beside the
            changed lines) or ``differences`` (paired differences from the baseline).
        x: of ``tradeoff``: ``cost``, ``seconds`` or ``tokens``; of ``distribution`` also ``score``. Without it: of
            ``tradeoff`` the cost, of ``distribution`` the seconds, or where these aren't known, what is.
        score: which score, where there are several; without it the first.
        file: where it is written to, whole or not at all: ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        ConfigError: no matplotlib, no such kind, score or ``x``, nothing to draw, or a file that can't be written.
    """
    if kind not in KINDS:
        raise ConfigError(f"There is no plot {kind!r}: {', '.join(KINDS)}.")
    path = None if file is None else checked_path(file, SUFFIXES)
    score = comparison.scores[0] if score is None else score
    if score not in comparison.scores:
        raise ConfigError(f"There is no score {score!r} in this comparison: {', '.join(comparison.scores)}.")
    if not has_matplotlib():
        raise ConfigError(no_matplotlib())
    if not len(comparison.table):
        raise ConfigError("There are no runs to plot.")
    from xpander_magics.analysis.pictures import drawings, figures

    with figures.styled():
        if kind == "tradeoff":
            drawn = drawings.tradeoff(comparison, score, _chosen(x, known_quantities(comparison)))
        elif kind == "distribution":
            known = known_quantities(comparison)
            usual = "seconds" if "seconds" in known else None
            drawn = drawings.distribution(comparison, score, _chosen(x or usual, [*known, "score"]))
        else:
            draw = {"scores": drawings.scores, "prompts": drawings.prompts, "differences": drawings.differences}[kind]
            drawn = draw(comparison, score)
    if path is not None:
        with whole_file(path) as beside:
            beside.write_bytes(drawn.as_bytes(path.suffix[1:].lower()))
    return drawn


def has_matplotlib() -> bool:
    """Whether matplotlib is there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def no_matplotlib() -> str:
    """What is said where it isn't."""
    return extras.missing("Plots need", "plot")


def known_quantities(comparison: Comparison) -> list[str]:
    """Those of cost, seconds and tokens that are known of some configuration."""
    return [name for name, what in QUANTITIES.items() if comparison.table[what.of_each].notna().any()]


def _chosen(x: str | None, known: list[str]) -> str:
    if x is None and known:
        return known[0]
    if x in known:
        return x
    others = f"x can be {' or '.join(known)}" if known else "fetch it with %xpander usage, or compare runs that have it"
    if x is None:
        raise ConfigError(f"No cost, seconds or tokens are known of these runs: {others}.")
    if x in QUANTITIES:
        raise ConfigError(f"No {x} {'are' if x[-1] == 's' else 'is'} known of these runs: {others}.")
    raise ConfigError(f"There is no x {x!r} for this plot: {others}.")


def pareto_front(costs: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which points no other beats: none takes as little and scores as high, and is better in one of both.

    Args:
        costs: float64 (n,); less is better.
        scores: float64 (n,); more is better. A point that lacks either is on no front.
    """
    import numpy as np

    known = np.isfinite(costs) & np.isfinite(scores)
    as_good = (costs[:, None] <= costs) & (scores[:, None] >= scores)
    better = (costs[:, None] < costs) | (scores[:, None] > scores)
    front: npt.NDArray[np.bool_] = known & ~np.any(as_good & better & known[:, None], axis=0)
    return front
