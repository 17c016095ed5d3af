"""A comparison as one HTML page, for people without Python: what was found in plain words first, then all of it."""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpander_magics.analysis.differences import CORRECTIONS, MARKS
from xpander_magics.analysis.estimates import no_statistics
from xpander_magics.analysis.files import checked_path, whole_file
from xpander_magics.analysis.pictures import plots
from xpander_magics.analysis.pictures.versions import prompt_versions
from xpander_magics.analysis.reports import page
from xpander_magics.analysis.reports.examples import differing, failures_by_kind
from xpander_magics.analysis.shown import Shown, differences_shown, table_shown
from xpander_magics.errors import ConfigError
from xpander_magics.results import utc_now
from xpander_magics.tally import counted, listed

if TYPE_CHECKING:
    from xpander_magics.analysis.comparison import Comparison

_MOST_ROWS = 100
_MOST_NOTES = 40
_MOST_VERSIONS = 12
_MOST_SCORES = 4
_LONGEST_ANSWER = 900
_LONGEST_ERROR = 400
_NUMBER = re.compile(r"[-+–<]?\s?[\d–$]|–")
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
    title = title or f"Comparison by {listed(comparison.by)}"
    made = f"Made on {utc_now():%Y-%m-%d at %H:%M} UTC by xpander-magics {_installed('xpander-magics') or ''}".strip()
    return page.whole_page(
        title,
        [
            f"<header>\n<h1>{page.text(title)}</h1>\n{page.paragraph(f'{made}.', 'soft')}\n</header>",
            page.panel("In short", map(page.paragraph, in_short(comparison))),
            page.section("What was compared", page.facts(_what(comparison))),
            page.section("What to keep in mind", page.items(_first(comparison.notes, _MOST_NOTES))),
            page.section("Results", _shown(table_shown(comparison)), page.paragraph(_LEGEND, "legend")),
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
    first = f"In short: {counted(count, 'configuration')} ran on {counted(told, 'input')}, {counted(runs, 'run')}."
    found = [first]
    for score in comparison.scores[:_MOST_SCORES]:
        found.append(_best(comparison, score))
        of_score = comparison.differences
        if len(of_score):
            of_score = of_score[of_score["score"] == score]
            found.append(_verdicts(of_score, comparison.baseline))
    failed = int(comparison.table["failures"].sum())
    if failed:
        found.append(f"{failed:,} of {counted(runs, 'run')} failed. {comparison.failures}")
    else:
        found.append("No run failed.")
    return [sentence for sentence in found if sentence]


def _best(comparison: Comparison, score: str) -> str:
    table = comparison.table
    means = [_real(value) for value in table[score]]
    known = [mean for mean in means if not math.isnan(mean)]
    if not known:
        return f"No run has a {_called(score)}."
    place = means.index(max(known))
    among = [name for name, mean in zip(comparison.names, means, strict=True) if mean == means[place]]
    told = _interval(means[place], _real(table[f"{score}_low"].iloc[place]), _real(table[f"{score}_high"].iloc[place]))
    if 1 < len(means) == len(among):
        return f"All have the same {_called(score)}: {told}."
    return f"The highest {_called(score)} is {told}, of {listed(among[:4])}."


def _verdicts(rows: Any, baseline: str) -> str:
    """Who is better or worse than the baseline, and who can't be told from it."""
    named = {
        "better": f"Better than {baseline}",
        "worse": f"Worse than {baseline}",
        "can't tell": f"These runs can't tell apart from {baseline}",
        "noise": f"Within the noise of {baseline}, as one setup run twice may differ by as much",
    }
    told = []
    for verdict, head in named.items():
        those = [str(name) for name in rows.loc[rows["verdict"] == verdict, "configuration"]]
        if those:
            told.append(f"{head}: {listed(those[:6])}{f' and {len(those) - 6} more' if len(those) > 6 else ''}.")
    return " ".join(told)


def _what(comparison: Comparison) -> Iterator[tuple[str, str]]:
    frame = comparison.frame
    times = frame["created_at"].dropna()
    if len(times):
        first, last = (f"{when:%Y-%m-%d %H:%M}" for when in (times.min(), times.max()))
        yield "When", f"{first} UTC" if first == last else f"{first} to {last} UTC"
    yield "Compared by", listed(comparison.by)
    yield "Scores", listed([_called(score) for score in comparison.scores])
    yield "Baseline", comparison.baseline
    yield "Targets", _distinct(frame["target"].where(frame["target"].notna(), frame["target_id"]))
    yield "Models", _distinct(frame["model"])
    yield "Efforts", _distinct(frame["effort"])
    templates = frame["template"].nunique()
    yield "Prompts", f"{counted(templates, 'template')}, below" if templates else ""
    of_each, inputs = comparison.codes()
    yield "Inputs", f"{int(inputs.max(initial=-1)) + 1:,}"
    most = frame.assign(_c=of_each, _i=inputs).groupby(["_c", "_i"]).size()
    if len(most):
        least, most = int(most.min()), int(most.max())
        yield "Runs of each input", f"{most} by each configuration" if least == most else f"{least} to {most}"
    yield "Runs", f"{len(frame):,}, of which {int(comparison.table['failures'].sum()):,} failed"
    yield "Failures", comparison.failures


_LEGEND = (
    "In parentheses: the 95% interval. s p50 and p95: half of the runs took at most so many seconds, and 95% did; first"
    " token: seconds until the answer began, median; tokens/run: mean. Costs are US dollars; a success is a run that"
    " didn't fail, with a score of at least 0.5 where there is one."
)


def _shown(table: Shown) -> str:
    """A table as the page has it; the rest of a long one left out."""
    left = len(table.rows) - _MOST_ROWS
    more = f"{left:,} more rows are left out" if left > 0 else ""
    caption = ". ".join(part for part in (table.title, table.common, more) if part)
    rows = table.rows[:_MOST_ROWS]
    numbers = [all(_NUMBER.match(cell) for cell in column) for column in zip(*rows, strict=True)]
    return page.table(caption, table.names, rows, ["number" if number else "" for number in numbers])


def _differences(comparison: Comparison) -> Iterator[str]:
    """The table of differences, each in words, and the noise floor."""
    if not len(comparison.differences):
        return
    yield page.paragraph(
        f"Each configuration against {comparison.baseline}, over the inputs that both have: what counts is by how much"
        " the mean score is higher or lower on the same inputs. Wins, ties and losses count inputs."
    )
    yield _shown(differences_shown(comparison))
    signs = zip(comparison.differences["verdict"], comparison.differences["words"], strict=True)
    yield page.items(_first([f"{MARKS[verdict]} {words}." for verdict, words in signs], _MOST_NOTES))
    for score, noise in comparison.noise.items():
        yield page.paragraph(
            f"Noise floor of {_called(score)}: {noise.floor:.2g}. When one and the same setup is run twice, its two"
            f" mean scores lie within that of each other 95% of the time, as {counted(noise.pairs, 'pair')} of"
            " repeats tell. A smaller difference is called noise."
        )
    if not comparison.noise:
        yield page.paragraph(
            "The noise floor isn't known: how far a setup differs from itself can't be told without repeats."
        )


def _pictures(comparison: Comparison) -> Iterator[str]:
    """The plots that there is something for; how to get them where there are none."""
    if not plots.has_matplotlib():
        yield page.paragraph(plots.no_matplotlib())
        return
    several = len(comparison.names) > 1
    wanted: list[tuple[str, str | None, str | None]] = []
    for score in comparison.scores[:_MOST_SCORES]:
        wanted.append(("scores", None, score))
        if several:
            wanted += [("differences", None, score)]
            wanted += [("tradeoff", x, score) for x in plots.known_quantities(comparison) if x != "tokens"]
    wanted += [("distribution", x, None) for x in plots.known_quantities(comparison) if x != "cost"]
    for kind, x, named in wanted:
        try:
            drawn = plots.plot(comparison, kind, x=x, score=named)
        except ConfigError:
            continue  # nothing to draw: the tables say what is missing
        yield page.picture(drawn.as_bytes("svg"), drawn.title, drawn.alt, _CAPTIONS[kind])


_CAPTIONS = {
    "scores": "The mean score of each configuration. The farther two intervals are apart, the surer the difference;"
    " still surer are the differences, which compare input by input.",
    "differences": "How much higher or lower each configuration scores than the baseline on the same inputs.",
    "tradeoff": "Up is better, left is cheaper or faster. What is on the Pareto front is the best for what it takes.",
    "distribution": "How single runs spread: an average alone hides the slow and the long ones.",
    "prompts": "What each change of the prompt brought.",
}


def _prompts(comparison: Comparison) -> Iterator[str]:
    """The templates; of several, what changed and what that brought."""
    score = comparison.scores[0]
    versions = prompt_versions(comparison, score)
    if len(versions) > 1 and plots.has_matplotlib():
        drawn = plots.plot(comparison, "prompts")
        yield page.picture(drawn.as_bytes("svg"), drawn.title, drawn.alt, _CAPTIONS["prompts"])
    for one in versions[:_MOST_VERSIONS]:
        yield f"<h3>{f'Prompt {one.number}' if len(versions) > 1 else 'The template'}</h3>"
        mean, low, high = one.estimate[:3]
        said = f"Mean {_called(score)}: {_interval(mean, low, high)}." if not math.isnan(mean) else ""
        if one.change is not None and not math.isnan(one.change.difference):
            change = one.change
            said += f" Change from prompt {one.number - 1}: {change.difference:+.3f}"
            said += "." if math.isnan(change.low) else f" ({change.low:+.3f} to {change.high:+.3f}, 95% interval)."
        yield page.paragraph(said)
        yield page.preformatted(one.template)
        if one.changed:
            yield page.paragraph(f"Changed from prompt {one.number - 1}:", "soft")
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
                answer.answer,
                f"{_called(score).capitalize()}: {answer.score:.3g}"
                + (f" over {answer.runs} runs" * (answer.runs > 1)),
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
        "A configuration is one combination of the settings that are compared. An input is what was asked: the"
        " variables that were filled into the prompt, or else the prompt. Repeats of an input count as one input.",
        f"{comparison.failures} Runs that hadn't ended are left out.",
    ]
    if not any(comparison.table[f"{score}_low"].notna().any() for score in comparison.scores):
        return [*found, no_statistics()]
    found += [
        "A 95% interval is made in a way that holds the true mean in about 95 of 100 such studies. For scores of 0 and"
        " 1 it is Wilson's (1927), with an effective number of inputs where inputs were repeated (Korn and Graubard"
        " 1998); skewed scores widen it as Willink (2005) does; scores beyond 0 to 1 have Student's t.",
        "A difference is taken on each input that both configurations have, then averaged. Its p-value says how often"
        " so large a mean would come about if each input's difference could as well have had the other sign (Fisher's"
        " permutation test of paired data, 1935; for scores of 0 and 1 without repeats it is McNemar's test).",
        "The effect size is Cohen's d: the mean difference in units of the differences' standard deviation (Lakens"
        " 2013). More inputs that would tell: with so many, a difference as large as seen would be found four times of"
        " five (Connor 1987).",
    ]
    tested = len(comparison.differences)
    if tested:
        corrected = f" p has {CORRECTIONS[comparison.correction]} for {tested:,} differences" if tested > 1 else ""
        corrected += ", since among many some look large by chance." if tested > 1 else ""
        found.append(f"Better or worse: p is below 0.05.{corrected}")
    if comparison.noise:
        found.append("The noise floor comes from repeats. A difference below it is called noise, whatever its p-value.")
    return found


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


def _interval(mean: float, low: float, high: float) -> str:
    if math.isnan(mean):
        return ""
    return f"{mean:.3f}" + ("" if math.isnan(low) else f" ({low:.3f} to {high:.3f})")


def _real(value: object) -> float:
    """A number of a frame as a float; NaN where it is missing."""
    try:
        return float(value)  # type: ignore[arg-type]  # what isn't a number, such as pandas' NA, raises
    except (TypeError, ValueError):
        return math.nan


def _called(score: str) -> str:
    return "success rate" if score == "success" else f"score {score}"


def _distinct(values: Any, most: int = 12) -> str:
    """The distinct values of a column, the first of many."""
    found = [_cut(str(value), 80) for value in values.dropna().unique()]
    return ", ".join(found[:most]) + (f" and {len(found) - most:,} more" if len(found) > most else "")


def _cut(text: str, longest: int = _LONGEST_ERROR) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def _first(texts: list[str], most: int) -> list[str]:
    return texts if len(texts) <= most else [*texts[:most], f"… and {len(texts) - most:,} more."]
