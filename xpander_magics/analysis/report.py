"""A comparison as one HTML page, for people without Python: what was found in plain words first, then all of it."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpander_magics.analysis import page, plots
from xpander_magics.analysis.differences import CORRECTIONS, p_shown
from xpander_magics.analysis.examples import differing, failures_by_kind
from xpander_magics.analysis.files import checked_path, whole_file
from xpander_magics.analysis.versions import prompt_versions
from xpander_magics.errors import ConfigError
from xpander_magics.results import utc_now

if TYPE_CHECKING:
    from xpander_magics.analysis.comparison import Comparison

_MOST_ROWS = 100
_MOST_NOTES = 40
_MOST_VERSIONS = 12
_MOST_SCORES = 4
_LONGEST_ANSWER = 900
_LONGEST_ERROR = 400
_SOFTWARE = ("xpander-magics", "pandas", "numpy", "scipy", "statsmodels", "matplotlib")


def report(comparison: Comparison, path: str | os.PathLike[str], title: str | None = None) -> Path:
    """Writes a comparison as one self-contained HTML page, whole or not at all, readable by its owner alone.

    The page runs no script and asks for nothing. It holds prompts, some answers and errors, but no request. Its plots
    are SVG, which stays sharp on paper and is smaller than a PNG of the same; they need the extra ``plot``.

    Args:
        path: ``.html``; a file of that name is replaced.
        title: the page's heading; without it, what was compared.

    Returns:
        Where it was written.

    Raises:
        ConfigError: another ending, no such folder, or it can't be written.
    """
    found = checked_path(path, (".html", ".htm"))
    written = report_html(comparison, title)
    with whole_file(found) as beside:
        beside.write_text(written, encoding="utf-8")
    return found


def report_html(comparison: Comparison, title: str | None = None) -> str:
    """The page itself; some hundred kilobytes, however many runs there are."""
    title = title or f"Comparison by {_listed(comparison.by)}"
    made = f"Made on {utc_now():%Y-%m-%d at %H:%M} UTC by xpander-magics {_installed('xpander-magics') or ''}".strip()
    return page.whole_page(
        title,
        [
            f"<header>\n<h1>{page.text(title)}</h1>\n{page.paragraph(f'{made}.', 'soft')}\n</header>",
            f'<section class="short" aria-label="In short">{"".join(map(page.paragraph, in_short(comparison)))}</section>',
            page.section("What was compared", page.facts(_what(comparison))),
            page.section("What to keep in mind", page.items(_first(comparison.notes, _MOST_NOTES))),
            page.section("Results", _table(comparison), page.paragraph(_LEGEND, "legend")),
            page.section("Differences", *_differences(comparison)),
            page.section("Pictures", *_pictures(comparison)),
            page.section("Prompts", *_prompts(comparison)),
            page.section("Where they differ most", *_examples(comparison)),
            page.section("Failures", *_failures(comparison)),
            page.section("Method", page.items(_method(comparison)), page.facts(_software(comparison))),
        ],
    )


def in_short(comparison: Comparison) -> list[str]:
    """What was found, in a few plain sentences."""
    count, runs = len(comparison.names), len(comparison.frame)
    _, inputs = comparison.codes()
    told = int(inputs.max(initial=-1)) + 1
    first = f"In short: {_counted(count, 'configuration')} ran on {_counted(told, 'input')}, {_counted(runs, 'run')}."
    found = [first]
    for score in comparison.scores[:_MOST_SCORES]:
        found.append(_best(comparison, score))
        of_score = comparison.differences
        if len(of_score):
            of_score = of_score[of_score["score"] == score]
            found.append(_verdicts(of_score, comparison.baseline))
    failed = int(comparison.table["failures"].sum())
    if failed:
        found.append(f"{failed:,} of {_counted(runs, 'run')} failed. {comparison.failures}")
    else:
        found.append("No run failed.")
    return [sentence for sentence in found if sentence]


def _best(comparison: Comparison, score: str) -> str:
    rows = [row for row in _rows(comparison) if not math.isnan(row[score])]
    if not rows:
        return f"No run has a score {score}."
    best = max(rows, key=lambda row: float(row[score]))
    among = [row["configuration"] for row in rows if row[score] == best[score]]
    if len(rows) > 1 and len(among) == len(rows):
        return f"All have the same {_called(score)}: {_score(best, score)}."
    return f"The highest {_called(score)} is {_score(best, score)}, of {_listed(among[:4])}."


def _verdicts(rows: Any, baseline: str) -> str:
    """Who is better or worse than the baseline, and who can't be told from it."""
    named = {
        "better": f"Better than {baseline}",
        "worse": f"Worse than {baseline}",
        "can't tell": f"These runs can't tell from {baseline}",
        "noise": f"No farther from {baseline} than one setup is from itself when run twice",
    }
    told = []
    for verdict, head in named.items():
        those = [str(name) for name in rows.loc[rows["verdict"] == verdict, "configuration"]]
        if those:
            told.append(f"{head}: {_listed(those[:6])}{f' and {len(those) - 6} more' if len(those) > 6 else ''}.")
    return " ".join(told)


def _what(comparison: Comparison) -> Iterator[tuple[str, str]]:
    frame = comparison.frame
    times = frame["created_at"].dropna()
    if len(times):
        first, last = (f"{when:%Y-%m-%d %H:%M}" for when in (times.min(), times.max()))
        yield "When", f"{first} UTC" if first == last else f"{first} to {last} UTC"
    yield "Compared by", _listed(comparison.by)
    yield "Scores", _listed([_called(score) for score in comparison.scores])
    yield "Baseline", comparison.baseline
    yield "Targets", _distinct(frame["target"].where(frame["target"].notna(), frame["target_id"]))
    yield "Models", _distinct(frame["model"])
    yield "Efforts", _distinct(frame["effort"])
    templates = frame["template"].nunique()
    yield "Prompts", f"{_counted(templates, 'template')}, below" if templates else ""
    of_each, inputs = comparison.codes()
    yield "Inputs", f"{int(inputs.max(initial=-1)) + 1:,}"
    most = frame.assign(_c=of_each, _i=inputs).groupby(["_c", "_i"]).size()
    if len(most):
        least, most = int(most.min()), int(most.max())
        yield "Runs of each input", f"{most} by each configuration" if least == most else f"{least} to {most}"
    yield "Runs", f"{len(frame):,}, of which {int(comparison.table['failures'].sum()):,} failed"
    yield "Failures", comparison.failures


_LEGEND = (
    "In parentheses: the 95% interval of the mean. Seconds: from sending to the end; half of the runs took at most the"
    " median, 95% at most the 95th percentile. First token: seconds until the answer began, median. Tokens: mean of a"
    " run. Costs are US dollars; a success is a run that didn't fail, with a score of at least 0.5 where there is one."
)


def _table(comparison: Comparison) -> str:
    """The table of the configurations; columns in which nothing is known are left out."""
    rows = _rows(comparison)[:_MOST_ROWS]
    columns: list[tuple[str, str, Any]] = [
        ("runs", "Runs", lambda row: f"{row['runs']:,.0f}"),
        ("inputs", "Inputs", lambda row: f"{row['inputs']:,.0f}"),
        ("failures", "Failed", lambda row: f"{row['failures']:,.0f}"),
        ("unscored", "Unscored", lambda row: f"{row['unscored']:,.0f}" if row["unscored"] else ""),
    ]
    for score in comparison.scores:
        columns.append((score, _called(score).capitalize(), lambda row, score=score: _score(row, score)))
    columns += [
        (name, head, lambda row, name=name, digits=digits: _number(row[name], digits))
        for name, head, digits in (
            ("seconds_p50", "Seconds, median", "{:,.2f}"),
            ("seconds_p95", "Seconds, 95th percentile", "{:,.2f}"),
            ("ttft_p50", "First token, s", "{:,.2f}"),
            ("tokens", "Tokens", "{:,.0f}"),
            ("cost_per_run", "$ a run", "{:,.5f}"),
            ("cost_per_success", "$ a success", "{:,.5f}"),
        )
    ]
    cells = [[str(row["configuration"]), *(shown(row) for _, _, shown in columns)] for row in rows]
    kept = [0, *(n for n, _ in enumerate(columns, 1) if any(row[n] for row in cells))]
    heads = ["Configuration", *(head for _, head, _ in columns)]
    left = len(comparison.names) - len(rows)
    caption = "Configurations" + (f"; {left:,} more are left out" if left > 0 else "")
    return page.table(
        caption,
        [heads[n] for n in kept],
        [[row[n] for n in kept] for row in cells],
        ["", *("number" for _ in kept[1:])],
    )


def _differences(comparison: Comparison) -> Iterator[str]:
    """The table of differences, with each in words, and the noise floor."""
    if not len(comparison.differences):
        return
    yield page.paragraph(
        f"Each configuration against {comparison.baseline}, over the inputs that both have: what counts is by how much"
        " the mean score is higher or lower on the same input. Won and lost count inputs."
    )
    several = len(comparison.scores) > 1
    rows = comparison.differences.to_dict("records")
    cells = []
    for row in rows[:_MOST_ROWS]:
        low, high = _real(row["low"]), _real(row["high"])
        interval = "" if math.isnan(low) else f" ({low:+.3f} to {high:+.3f})"
        p_value = _real(row["p_adjusted"])
        cells.append(
            [
                str(row["configuration"]),
                *([str(row["score"])] if several else []),
                str(row["verdict"]),
                f"{_number(row['difference'], '{:+.3f}')}{interval}",
                "" if math.isnan(p_value) else p_shown(p_value).removeprefix("p = ").removeprefix("p "),
                _number(row["effect_size"], "{:+.2f}"),
                f"{row['wins']} / {row['ties']} / {row['losses']}",
                str(row["unpaired"]),
                str(row["words"]),
            ]
        )
    heads = ["Configuration", *(["Score"] if several else []), "Verdict", "Difference", "p", "Effect size"]
    heads += ["Won / tied / lost", "Unpaired", "In words"]
    numbers = ["number"] * 5
    left = f"; {len(rows) - _MOST_ROWS:,} more are left out" if len(rows) > _MOST_ROWS else ""
    kinds = ["", *([""] if several else []), "", *numbers, "words"]
    yield page.table(f"Differences from {comparison.baseline}{left}", heads, cells, kinds)
    for score, noise in comparison.noise.items():
        yield page.paragraph(
            f"Noise floor of {_called(score)}: {noise.floor:.2g}. When one and the same setup was run twice, its two mean"
            f" scores lay within that of each other 95% of the time ({noise.method}; {_counted(noise.pairs, 'pair')}). A"
            " smaller difference is called noise."
        )
    if not comparison.noise:
        yield page.paragraph(
            "The noise floor isn't known: no input was run twice with one setup, so how far a setup varies by itself"
            " can't be told."
        )


def _pictures(comparison: Comparison) -> Iterator[str]:
    """The plots that there is something for; how to get them where there are none."""
    if not plots.has_matplotlib():
        yield page.paragraph(f"{plots.NO_MATPLOTLIB} adds them to the next report.")
        return
    several = len(comparison.names) > 1
    wanted: list[tuple[str, str | None, str | None]] = []
    for score in comparison.scores[:_MOST_SCORES]:
        wanted.append(("scores", None, score))
        if several:
            wanted += [("differences", None, score)]
            wanted += [("tradeoff", x, score) for x in plots.known_quantities(comparison) if x != "tokens"]
    wanted += [("distribution", x, None) for x in plots.known_quantities(comparison) if x != "cost"]
    for kind, x, score in wanted:
        try:
            drawn = plots.plot(comparison, kind, x=x, score=score)
        except ConfigError:
            continue  # nothing to draw: the tables say what is missing
        yield page.picture(drawn.as_bytes("svg"), drawn.alt, _CAPTIONS[kind])


_CAPTIONS = {
    "scores": "The mean score of each configuration. The farther two intervals are apart, the surer the difference;"
    " the differences below are surer than what can be seen here, as they compare input by input.",
    "differences": "How much higher or lower each configuration scores than the baseline on the same inputs. An interval"
    " that crosses zero means: these runs can't tell.",
    "tradeoff": "Up is better, left is cheaper or faster. What is on the Pareto front is the best for what it takes.",
    "distribution": "How single runs spread: an average alone hides the slow and the long ones.",
    "prompts": "What each change of the prompt brought.",
}


def _prompts(comparison: Comparison) -> Iterator[str]:
    """The templates; of several, what changed and what that brought."""
    score = comparison.scores[0]
    versions = prompt_versions(comparison, score)
    names = {template: name for name, template in comparison.prompts.items()}
    if len(versions) > 1 and plots.has_matplotlib():
        drawn = plots.plot(comparison, "prompts")
        yield page.picture(drawn.as_bytes("svg"), drawn.alt, _CAPTIONS["prompts"])
    for one in versions[:_MOST_VERSIONS]:
        name = names.get(one.template)
        head = f"Version {one.number}{f' ({name})' if name else ''}" if len(versions) > 1 else "The template"
        yield f"<h3>{page.text(head)}</h3>"
        mean, low, high = one.estimate[:3]
        said = f"Mean {_called(score)}: {_interval(mean, low, high)}." if not math.isnan(mean) else ""
        if one.change is not None and not math.isnan(one.change.difference):
            change = one.change
            said += f" Change from version {one.number - 1}: {change.difference:+.3f}"
            said += "." if math.isnan(change.low) else f" ({change.low:+.3f} to {change.high:+.3f}, 95% interval)."
        yield page.paragraph(said)
        yield page.preformatted(one.template)
        if one.changed:
            yield page.paragraph(f"Changed from version {one.number - 1}:", "soft")
            yield page.changes(one.changed)
    if len(versions) > _MOST_VERSIONS:
        yield page.paragraph(f"{len(versions) - _MOST_VERSIONS} more versions are left out.")


def _examples(comparison: Comparison) -> Iterator[str]:
    score = comparison.scores[0]
    found = differing(comparison, score)
    if found:
        yield page.paragraph(
            f"The inputs on which {_called(score)} differs most between configurations. They were picked because they"
            " differ, so they say nothing about how often that happens. Of repeats, the first answer is shown."
        )
    for number, one in enumerate(found, 1):
        yield f"<h3>Input {number}</h3>"
        yield page.preformatted(one.asked, _LONGEST_ANSWER)
        yield page.cards(
            (
                answer.configuration,
                page.text(answer.answer, _LONGEST_ANSWER),
                f"{_called(score).capitalize()}: {answer.score:.3g}" + (f" over {answer.runs} runs" * (answer.runs > 1)),
            )
            for answer in one.answers
        )


def _failures(comparison: Comparison) -> Iterator[str]:
    found = failures_by_kind(comparison)
    if not found:
        yield page.paragraph("No run failed.")
        return
    shown = found[:12]
    cells = [[one.kind, f"{one.runs:,}", f"{one.configurations:,}", _cut(one.error)] for one in shown]
    heads = ["How they ended", "Runs", "Configurations", "The first of them"]
    yield page.table("Failed runs by kind", heads, cells, ["", "number", "number", "words"])
    if len(found) > len(shown):
        yield page.paragraph(f"{len(found) - len(shown)} more kinds are left out.")


def _method(comparison: Comparison) -> list[str]:
    """How it was done, in plain words, with the sources."""
    found = [
        "A configuration is one combination of the settings that are compared. An input is what was asked: the variables"
        " that were filled into the prompt, or else the prompt. Repeats of an input count as one input: their mean.",
        f"{comparison.failures} Runs that hadn't ended are left out.",
    ]
    if not _has_intervals(comparison):
        return [*found, "No intervals: they need scipy and statsmodels (pip install 'xpander-magics[stats]')."]
    found += [
        "An interval at 95% is made in a way that holds the true mean in about 95 of 100 such studies. For scores of 0 and"
        " 1 it is Wilson's (1927), with an effective number of inputs where inputs were repeated (Korn and Graubard 1998);"
        " skewed scores widen it as Willink (2005) does; scores beyond 0 to 1 have Student's t.",
        "A difference is taken on each input that both configurations have, then averaged. Its p-value tells how often so"
        " large a mean difference would come about if each input's difference could as well have had the other sign"
        " (Fisher's permutation test of paired data, 1935; for 0 and 1 without repeats that is McNemar's test).",
        "The effect size is Cohen's d: the mean difference in units of the differences' standard deviation (Lakens 2013).",
        "How many more inputs would tell: so many that a difference as large as seen would be found four times of five"
        " (Connor 1987).",
    ]
    if len(comparison.differences) > 1:
        found.append(
            f"{len(comparison.differences):,} differences were tested, and the p-values have {CORRECTIONS[comparison.correction]},"
            " since among many comparisons some look large by chance. Better or worse: p below 0.05 after that."
        )
    found.append(
        "The noise floor comes from repeats: how far apart two mean scores of one and the same setup lie, 95% of the"
        " time. A difference below it is called noise, whatever its p-value."
    )
    return found


def _has_intervals(comparison: Comparison) -> bool:
    return any(comparison.table[f"{score}_low"].notna().any() for score in comparison.scores)


def _software(comparison: Comparison) -> Iterator[tuple[str, str]]:
    told = [f"Python {platform.python_version()}"]
    told += [f"{name} {found}" for name in _SOFTWARE if (found := _installed(name))]
    yield "Software", ", ".join(told)
    yield "Sweeps", _distinct(comparison.frame["sweep_id"])
    yield "Experiments", _distinct(comparison.frame["experiment"])


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The table's rows; numbers are floats, NaN where one is missing."""
    heads = comparison.table.columns
    numbers = {name for name in heads if name not in ("configuration", *comparison.by)}
    return [
        {name: _real(value) if name in numbers else value for name, value in row.items()}
        for row in comparison.table.to_dict("records")
    ]


def _score(row: dict[str, Any], score: str) -> str:
    return _interval(row[score], row[f"{score}_low"], row[f"{score}_high"])


def _interval(mean: float, low: float, high: float) -> str:
    if math.isnan(mean):
        return ""
    return f"{mean:.3f}" + ("" if math.isnan(low) else f" ({low:.3f} to {high:.3f})")


def _number(value: object, how: str) -> str:
    real = _real(value)
    return "" if math.isnan(real) else how.format(real)


def _real(value: object) -> float:
    """A number of a frame as a float; NaN where it is missing."""
    try:
        return float(value)  # type: ignore[arg-type]  # what isn't a number, such as pandas' NA, raises
    except (TypeError, ValueError):
        return math.nan


def _called(score: str) -> str:
    return "success rate" if score == "success" else f"score {score}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _listed(words: Any) -> str:
    *others, last = [str(word) for word in words] or ["nothing"]
    return f"{', '.join(others)} and {last}" if others else last


def _distinct(values: Any, most: int = 12) -> str:
    """The distinct values of a column, the first of many."""
    found = [_cut(str(value), 80) for value in values.dropna().unique()]
    return ", ".join(found[:most]) + (f" and {len(found) - most:,} more" if len(found) > most else "")


def _cut(text: str, longest: int = _LONGEST_ERROR) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def _first(texts: list[str], most: int) -> list[str]:
    return texts if len(texts) <= most else [*texts[:most], f"… and {len(texts) - most:,} more."]
