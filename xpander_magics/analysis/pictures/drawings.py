"""The kinds of plots, drawn. As ``figures``, this is only imported where a plot is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from xpander_magics.analysis.pictures import figures, readings
from xpander_magics.analysis.pictures.figures import BLUE, GREY, INK, PALE, SMALL, VERMILLION, Look, Plot, number, shown
from xpander_magics.analysis.pictures.plots import QUANTITIES, pareto_front
from xpander_magics.analysis.pictures.versions import prompt_versions
from xpander_magics.errors import ConfigError

if TYPE_CHECKING:
    from xpander_magics.analysis.comparison import Comparison

_MOST_ROWS = 40
_MOST_VERSIONS = 12
_MOST_DOTS = 100
_MOST_LANES = 5
_FEW = 11
_MOST_LINES = 12
_LINE = 58


_LOOKS = {
    "better": Look(">", BLUE, True),
    "worse": Look("<", VERMILLION, True),
    "can't tell": Look("o", GREY, False),
    "noise": Look("s", GREY, False),
}
_BASELINE, _OTHER = Look("D", BLUE, True), Look("o", BLUE, True)
_BEATEN = Look("o", GREY, False)


def tradeoff(comparison: Comparison, score: str, x: str) -> Plot:
    """Mean score against what a run takes, with intervals; the Pareto front is drawn and named."""
    what = QUANTITIES[x]
    costs, estimates = readings.column(comparison, what.of_each), readings.estimates(comparison, score)
    means = estimates[:, 0]
    drawn = np.flatnonzero(np.isfinite(costs) & np.isfinite(means))
    if not drawn.size:
        raise ConfigError(f"No configuration has both its {x} and a score {score!r}.")
    names, base = (
        figures.shown_names(comparison.names, 34 if len(comparison.names) <= 8 else 26),
        comparison.names.index(comparison.baseline),
    )
    front = pareto_front(costs, means)
    along = sorted(np.flatnonzero(front), key=lambda n: costs[n])
    sides = readings.sides(comparison, x)
    title = f"{_title(score)} against {x}"
    as_cheap = {"cost": "as cheap", "seconds": "as fast", "tokens": "as short"}[x]
    plot = figures.new_plot(0, title, least=5.4)
    axes = plot.subplots()
    log = bool(costs[drawn].min() > 0 and costs[drawn].max() > 12 * costs[drawn].min())
    if log:
        axes.set_xscale("log")
    lines: list[list[tuple[float, float]]] = []
    for n in drawn:
        look = Look("D" if n == base else "o", BLUE if front[n] else GREY, bool(front[n]))
        figures.point(axes, costs[n], means[n], look)
        for ends in ([(costs[n], y) for y in estimates[n, 1:]], [(x, means[n]) for x in sides[n]]):
            if np.isfinite(ends).all() and not (log and ends[0][0] <= 0):
                lines.append(ends)
                axes.plot(*zip(*ends, strict=True), color=look.colour, linewidth=1, zorder=2)
    steps = [(float(costs[n]), float(means[n])) for n in along]
    axes.plot(*zip(*steps, strict=True), color=BLUE, linewidth=1.3, linestyle=(0, (5, 2)), zorder=1)
    axes.margins(0.12, 0.1)
    axes.set_xlabel(f"{what.averaged}{', log scale' if log else ''}")
    axes.set_ylabel(_label(score))
    figures.plain_ticks(axes.xaxis, log=log)
    figures.plain_ticks(axes.yaxis, log=False)
    figures.legend(
        axes,
        [
            figures.key(f"Pareto front: none other is {as_cheap} and as good", Look("o", BLUE, True), "--"),
            figures.key(f"another is {as_cheap} and as good", _BEATEN),
            figures.key("baseline", Look("D", GREY, False)),
        ],
    )
    unknown = [names[n] for n in range(len(names)) if n not in drawn]
    across = np.isfinite(sides).any()
    unnamed = drawn.size - figures.MOST_LABELS
    figures.say(
        plot,
        _intervals(estimates, f"Lines: 95% intervals of the means{', across and upright' if across else ''}."),
        f"Left out, as their {x} or score isn't known: {_some(unknown)}." if unknown else "",
        f"{unnamed} of the points have no names here, for want of room." if unnamed > 0 else "",
    )
    labels = [figures.Label(names[n], costs[n], means[n], bool(front[n] or n == base)) for n in drawn]
    missing = figures.place_labels(axes, labels, [*lines, steps])
    best = drawn[int(np.argmax(means[drawn]))]
    plot.alt = (
        f"{title}, {drawn.size} configurations. On the Pareto front, the cheapest first: "
        f"{_some([names[n] for n in along])}. The highest mean is {number(means[best])}, of {names[best]}."
        + (f" {missing} names found no room." if missing else "")
    )
    return plot


def scores(comparison: Comparison, score: str) -> Plot:
    """The mean score of each configuration, with its interval, the baseline's mean, and the noise floor about it."""
    estimates, rows = readings.estimates(comparison, score), list(range(len(comparison.names)))[:_MOST_ROWS]
    base = comparison.names.index(comparison.baseline)
    title = f"{_title(score)} by configuration"
    plot, axes, names = _rows_plot(comparison, rows, title)
    keys: list[Artist] = [figures.key("baseline", _BASELINE, ":")]
    noise = comparison.noise.get(score)
    axes.axvline(estimates[base, 0], color=INK, linewidth=1, linestyle=":", zorder=1)
    if noise is not None and np.isfinite(estimates[base, 0]) and len(rows) > 1:
        keys.append(figures.band(axes, estimates[base, 0], noise.floor))
    for place, n in enumerate(rows):
        mean, low, high = estimates[n]
        figures.dot(axes, place, estimates[n], _BASELINE if n == base else _OTHER)
        interval = f"  ({_fixed(low)} to {_fixed(high)})" if np.isfinite(low) else ""
        figures.beside(axes, place, f"{_fixed(mean)}{interval}")
    axes.set_xlabel(_label(score))
    figures.plain_ticks(axes.xaxis, log=False)
    figures.legend(axes, keys)
    figures.say(
        plot, _intervals(estimates, "Lines: 95% intervals of the means."), _left_out(len(comparison.names), rows)
    )
    told = [f"{name} {number(estimates[n, 0])}" for name, n in zip(names, rows, strict=True)]
    plot.alt = f"{title}: {_some(told)}."
    return plot


def differences(comparison: Comparison, score: str) -> Plot:
    """A forest plot: each configuration's paired difference from the baseline, with zero and the noise floor."""
    found = comparison.differences
    every = found[found["score"] == score].to_dict("records")
    if not every:
        raise ConfigError("There is one configuration only, so nothing differs. Compare by another column.")
    place_of = {name: n for n, name in enumerate(comparison.names)}
    told = every[:_MOST_ROWS]
    rows = [place_of[str(row["configuration"])] for row in told]
    title = f"{_title(score)}: difference from {shown(comparison.baseline, 36)}"
    plot, axes, names = _rows_plot(comparison, rows, title)
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    noise = comparison.noise.get(score)
    keys: list[Artist] = [
        figures.key(word, look) for word, look in _LOOKS.items() if any(row["verdict"] == word for row in told)
    ]
    if noise is not None:
        keys.append(figures.band(axes, 0.0, noise.floor))
    bounds = np.array([[readings.real(row[name]) for name in ("difference", "low", "high")] for row in told])
    for place, row in enumerate(told):
        verdict, p_value = str(row["verdict"]), readings.real(row["p_adjusted"])
        figures.dot(axes, place, bounds[place], _LOOKS.get(verdict, _BEATEN))
        sure = "" if not np.isfinite(p_value) else "  p < 0.001" if p_value < 0.001 else f"  p = {p_value:.3f}"
        figures.beside(axes, place, f"{verdict}{sure}")
    axes.set_xlabel(f"Difference in {_label(score)[0].lower()}{_label(score)[1:]}, paired by input")
    figures.plain_ticks(axes.xaxis, log=False)
    figures.legend(axes, keys)
    adjusted = "p-values are adjusted for the number of comparisons." if len(every) > 1 else ""
    figures.say(plot, _intervals(bounds, f"Lines: 95% intervals. {adjusted}"), _left_out(len(every), rows))
    plot.alt = (
        f"{title}: "
        + _some([f"{name} {bounds[n, 0]:+.3g}, {told[n]['verdict']}" for n, name in enumerate(names)])
        + "."
    )
    return plot


def distribution(comparison: Comparison, score: str, x: str) -> Plot:
    """What single runs took or scored, by configuration: quartiles, the middle 90%, and the runs by their repeats."""
    values, label = comparison.values(score), f"{_title(score)} of a run"
    if x != "score":
        values, label = readings.single_runs(comparison, x), QUANTITIES[x].single
    of_each, _ = comparison.codes()
    repeats = readings.repeats(comparison)
    lanes = min(_MOST_LANES, int(repeats.max(initial=0)) + 1)
    rows = list(range(len(comparison.names)))[:_MOST_ROWS]
    title = f"{label.partition(' (')[0]}, by configuration"
    plot, axes, names = _rows_plot(comparison, rows, title, per_row=0.36 + 0.06 * lanes)
    known = values[np.isfinite(values)]
    log = x != "score" and known.size > 0 and bool(known.min() > 0 and known.max() > 30 * known.min())
    if log:
        axes.set_xscale("log")
    few = x == "score" and np.unique(known).size <= _FEW
    lots = np.random.default_rng(0)  # the same dots each time
    told, cut = [], False
    for place, n in enumerate(rows):
        mine = (of_each == n) & np.isfinite(values)
        if not mine.any():
            figures.beside(axes, place, "none known")
            continue
        p5, p25, p50, p75, p95 = np.percentile(values[mine], [5, 25, 50, 75, 95])
        middle = float(values[mine].mean()) if x == "score" else p50
        top = place - 0.25
        if not few:
            axes.plot([p5, p95], [top, top], color=INK, linewidth=1, zorder=2)
            axes.barh(top, p75 - p25, 0.18, p25, color=PALE, edgecolor=INK, linewidth=0.8, zorder=3)
        axes.plot([middle, middle], [top - 0.13, top + 0.13], color=INK, linewidth=2.6, zorder=4)
        for lane in range(lanes):
            own = values[mine & (repeats % lanes == lane)]
            height, colour = place - 0.04 + 0.44 * lane / lanes, BLUE if lane % 2 == 0 else VERMILLION
            if few:
                met, counts = np.unique(own, return_counts=True)
                heights = np.full(met.size, height + 0.22 / lanes)
                axes.scatter(
                    met, heights, s=150 * counts / own.size, c=colour, marker="o^svP"[lane], linewidths=0, zorder=2
                )
                continue
            if own.size > _MOST_DOTS // lanes:
                own, cut = lots.choice(own, _MOST_DOTS // lanes, replace=False), True
            heights = height + 0.44 * lots.uniform(0.2, 0.8, own.size) / lanes
            axes.scatter(own, heights, s=8, c=colour, marker="o^svP"[lane], linewidths=0, alpha=0.55, zorder=2)
        spread = "" if few else f"  ({number(p5, 2)} to {number(p95, 2)})"
        figures.beside(axes, place, f"{number(middle)}{spread}")
        told.append(f"{names[place]} {number(middle)}")
    axes.set_xlabel(f"{label}{', log scale' if log else ''}")
    figures.plain_ticks(axes.xaxis, log=log)
    several = f", a row for each repeat (1 to {int(repeats.max()) + 1}, downwards)" if lanes > 1 else ""
    lots_drawn = f", at most {_MOST_DOTS} of a configuration, drawn by lot" if cut else ""
    bar = f"Thick bar: the {'mean' if x == 'score' else 'median'}"
    figures.say(
        plot,
        f"{bar}." if few else f"{bar}; box: the middle half of the runs; line: 5th to 95th percentile.",
        f"{'Area of a dot: the share of runs with that score' if few else 'Dots: single runs'}{several}{lots_drawn}.",
        _left_out(len(comparison.names), rows),
    )
    plot.alt = f"{title}. {'Means' if x == 'score' else 'Medians'}: {_some(told)}."
    return plot


def prompts(comparison: Comparison, score: str) -> Plot:
    """The score by prompt version, and each change from the version before beside the lines that changed."""
    versions = prompt_versions(comparison, score)
    if len(versions) < 2:
        raise ConfigError("All of these runs have one prompt template, so there are no versions to plot.")
    count, versions = len(versions), versions[:_MOST_VERSIONS]
    lines = [_changed(version.changed) if version.number > 1 else [(" ", "(the first)")] for version in versions]
    heights = [max(2.4, 1.2 + len(some)) for some in lines]
    title = f"{_title(score)} by prompt version"
    plot = figures.new_plot(sum(heights), title, per_row=0.17)
    left, right, beside = plot.subplots(1, 3, sharey=True, width_ratios=[1, 1, 2.3])
    right.axvline(0, color=INK, linewidth=1, zorder=1)
    keys: list[Artist] = []
    at, middles = 0.0, []
    noise = comparison.noise.get(score)
    if noise is not None:
        keys.append(figures.band(right, 0.0, noise.floor))
    for version, some, height in zip(versions, lines, heights, strict=True):
        middle, at = at + height / 2, at + height
        middles.append(middle)
        figures.dot(left, middle, np.array(version.estimate[:3]), _OTHER)
        if version.change is not None:
            difference, low, high = version.change[:3]
            verdict = "better" if low > 0 else "worse" if high < 0 else "can't tell"
            if noise is not None and abs(difference) < noise.floor:
                verdict = "noise"
            figures.dot(right, middle, np.array([difference, low, high]), _LOOKS[verdict])
            right.annotate(f"{difference:+.2g}", (difference, middle), xytext=(0, 7), textcoords="offset points",
                           ha="center", fontsize=SMALL)  # fmt: skip
        for place, (sign, line) in enumerate(some):
            text = beside.text(
                0,
                middle + place - (len(some) - 1) / 2,
                f"{sign} {line}",
                va="center",
                fontsize=7.6,
                family=["DejaVu Sans Mono", *figures.families()],
                color={"+": BLUE, "-": VERMILLION}.get(sign, GREY),
            )
            text.set_in_layout(False)
        for axes in (left, right, beside):
            axes.axhline(at, color=PALE, linewidth=0.8, zorder=0)
    left.set_ylim(at, 0)
    left.set_yticks(middles, [f"prompt {version.number}" for version in versions])
    left.set_xlabel(shown(_label(score), 26), fontsize=SMALL)
    right.set_xlabel("Change from the one before", fontsize=SMALL)
    beside.set_title("Lines that went (-) and came (+)", loc="left", fontsize=9.5, parse_math=False)
    beside.set_xlim(0, 1)
    beside.set_axis_off()
    right.tick_params(axis="y", length=0, labelleft=False)
    for axes in (left, right):
        figures.plain_ticks(axes.xaxis, log=False, most=4)
        axes.margins(x=0.15)
    settings = versions[0].settings
    figures.say(
        plot,
        "Lines: 95% intervals; changes are paired by input." + (" Grey band: the noise floor." if keys else ""),
        f"Over the {settings} other settings that all versions ran with." if settings > 1 else "",
        "The intervals are not corrected for several changes." if len(versions) > 2 else "",
        f"{count - len(versions)} later versions are left out." if count > len(versions) else "",
    )
    told = [f"prompt {version.number} {number(version.estimate.mean)}" for version in versions]
    plot.alt = f"{title}: {_some(told)}."
    return plot


def _changed(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Changed lines as a plot has room for them: sign and text."""
    found = [(line[:1], shown(line[2:], _LINE)) for line in lines[:_MOST_LINES]]
    if len(lines) > len(found):
        found.append((" ", f"… and {len(lines) - len(found)} more"))
    return found or [(" ", "(white space alone)")]


def _rows_plot(
    comparison: Comparison, rows: Sequence[int], title: str, per_row: float = 0.3
) -> tuple[Plot, Axes, list[str]]:
    """A figure with a row for each of these configurations, the first on top; and their names as shown."""
    names = figures.shown_names([comparison.names[n] for n in rows])
    plot = figures.new_plot(len(rows), title, per_row=per_row, least=2.2)
    axes = plot.subplots()
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=PALE, linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    for place, n in enumerate(rows):
        if comparison.names[n] == comparison.baseline:
            axes.get_yticklabels()[place].set_fontweight("bold")
    return plot, axes, names


def _intervals(estimates: readings.Floats, said: str) -> str:
    return said.strip() if np.isfinite(estimates[:, 1]).any() else "No intervals: the extra [stats] isn't installed."


def _left_out(count: int, rows: Sequence[int]) -> str:
    left = count - len(rows)
    return f"{left} more configurations are in the table only." if left > 0 else ""


def _some(texts: Sequence[str]) -> str:
    """The first of some texts."""
    more = f" and {len(texts) - 8} more" if len(texts) > 8 else ""
    return "; ".join(texts[:8]) + more if texts else "none"


def _title(score: str) -> str:
    return "Success rate" if score == "success" else f"Score {shown(score, 30)}"


def _label(score: str) -> str:
    return "Success rate" if score == "success" else f"Mean score {shown(score, 30)}"


def _fixed(value: float) -> str:
    """A score with as many digits as those above and below it."""
    return f"{value:.3f}" if abs(value) < 100 else number(value)
