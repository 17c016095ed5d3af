"""``compare``: which configuration is better, by how much, and whether that can be told."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpander_magics.analysis import estimates, subjects
from xpander_magics.analysis.differences import CORRECTIONS, Sample, differences_frame, samples
from xpander_magics.analysis.layout import Laid, lay_out
from xpander_magics.analysis.remarks import remarks
from xpander_magics.analysis.scored import SUCCESS, scored
from xpander_magics.analysis.summaries import Choice, summary_table, values_of
from xpander_magics.asked import configuration_named
from xpander_magics.errors import ConfigError, did_you_mean
from xpander_magics.voting.standing import has_statistics

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """What ``xp.compare`` found: a table of the configurations, and how they differ from a baseline.

    As a cell's last line it shows what varies; ``table`` and ``differences`` have all of it.

    Attributes:
        by: what makes configurations.
        scores: the names of the scores that are compared; ``success`` where there is none.
        frame: the runs that are compared, one a row, with their ``score_NAME`` columns; without
            those that have not ended, each once.
        table: one row a configuration: ``configuration`` (string), the columns of ``by``, ``runs``,
            ``inputs``, ``failures``, ``unscored`` (Int64), and for each score ``NAME``,
            ``NAME_low``, ``NAME_high``; then ``seconds_p50``, ``seconds_p95``, ``ttft_p50``
            (seconds, of runs that ended well), ``prompt_tokens``, ``completion_tokens``, ``tokens``
            (means a run), ``cost_usd`` (the sum of what is known), ``cost_per_run``,
            ``cost_per_success`` (US dollars; Float64).
        differences: one row a configuration but the baseline, and score: ``configuration``, the
            columns of ``by``, ``score``, ``baseline``, ``difference``, ``low``, ``high``,
            ``effect_size``, ``p_value``, ``p_adjusted`` (Float64), ``wins``, ``ties``, ``losses``,
            ``inputs``, ``unpaired`` (Int64), ``verdict`` (better, worse, can't tell, noise),
            ``more_inputs`` (Int64; how many would tell) and ``words``.
        baseline: the name of the configuration that the others are compared with.
        names: of the configurations, in the table's order.
        noise: how far apart two mean scores of one setup lie, by the score's name, where it is known.
        notes: what must be said aloud.
        failures: how failed runs count, in words.
        correction: the correction for several comparisons, as it was asked for.
        prompts: the prompt templates by their short names, where they make configurations.

    Example:
        >>> found = xp.compare(runs, by="effort", score="exact", expected="label")
        >>> found.table[["configuration", "runs", "exact"]].to_dict("records")
        [{'configuration': 'low', 'runs': 2, 'exact': 0.5}, {'configuration': 'high', ...}]
        >>> found.against("high").baseline
        'high'
    """

    by: tuple[str, ...]
    scores: tuple[str, ...]
    frame: pd.DataFrame
    table: pd.DataFrame
    differences: pd.DataFrame
    baseline: str
    names: list[str]
    noise: dict[str, estimates.Noise]
    notes: list[str]
    failures: str
    correction: str
    prompts: dict[str, str]
    _laid: Laid
    _values: dict[str, NDArray[np.float64]]
    _samples: dict[str, list[Sample]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.scores)} by {', '.join(self.by)}: {len(self.names)} configurations)"

    def __str__(self) -> str:
        return str(self._repr_mimebundle_()["text/plain"])

    def codes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The configuration and the input of each row of ``frame``.

        Returns:
            Two int64 arrays (n,): places in ``names``, and numbers of inputs from 0.
        """
        return self._laid.configuration, self._laid.input

    def values(self, score: str) -> NDArray[np.float64]:
        """What each row of ``frame`` counts as by this score.

        Args:
            score: one of ``scores``.

        Returns:
            float64 (n,); NaN where a row doesn't count.
        """
        return self._values[score]

    def against(self, baseline: str) -> Comparison:
        """The same comparison with another baseline; only the differences are made anew.

        Args:
            baseline: a configuration's name, or a part of it that no other has, whatever the case.

        Raises:
            ConfigError: there is no such configuration, or there are several.
        """
        number = configuration_named(baseline, self.names)
        floors = {name: noise.floor for name, noise in self.noise.items()}
        found = differences_frame(self._samples, self.names, self._laid.configurations, number, self.correction, floors)
        return replace(self, baseline=self.names[number], differences=found)

    def plot(self, kind: str = "tradeoff", **options: Any) -> Figure:
        """A plot, which a notebook shows by itself.

        Args:
            kind: ``tradeoff`` (mean score against what a run takes, with the Pareto front), ``scores``
                (means with their intervals), ``distribution`` (what single runs took), ``prompts``
                (score by prompt version, beside the changed lines) or ``differences`` (paired
                differences from the baseline).
            options: ``x``, of ``tradeoff`` ``cost``, ``seconds`` or ``tokens``, of ``distribution`` also
                ``score``; ``score``, which one; ``file``, a ``.png``, ``.svg`` or ``.pdf`` to write.

        Returns:
            A matplotlib figure.

        Raises:
            ConfigError: no matplotlib, no such kind, score or ``x``, nothing to draw, or a file that
                can't be written.

        Example:
            >>> figure = comparison.plot("scores")
        """
        from xpander_magics.analysis.pictures.plots import plot

        return plot(self, kind, **options)

    def report(self, path: str | os.PathLike[str], title: str | None = None) -> Path:
        """Writes one self-contained HTML page with all of it, for people without Python.

        Args:
            path: ``.html``; a file of that name is replaced.
            title: the page's heading; what was compared when omitted.

        Returns:
            Where it was written.

        Raises:
            ConfigError: another ending, no such folder, or it can't be written.

        Example:
            >>> comparison.report("study.html").name
            'study.html'
        """
        from xpander_magics.analysis.reports.report import report

        return report(self, path, title=title)

    def export(self, path: str | os.PathLike[str], **options: Any) -> Path | str:
        """Writes it to a file.

        Args:
            path, options: as of ``xp.export``; ``what="comparison"`` writes the table in place of the
                runs.

        Returns:
            The file's path; of MLflow, ``mlflow:EXPERIMENT``.

        Raises:
            ConfigError: as ``xp.export``.

        Example:
            >>> comparison.export("table.csv", what="comparison").name
            'table.csv'
        """
        from xpander_magics.analysis.exports.exports import export

        return export(self, path, **options)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from xpander_magics.analysis.shown import comparison_bundle
        from xpander_magics.showing.carried import bundle

        ids = (run_id for run_id in self.frame["run_id"] if isinstance(run_id, str))
        return {**comparison_bundle(self), **bundle((), ids)}


def compare(
    runs: Any = None,
    by: str | Sequence[str] | None = None,
    score: Any = None,
    expected: Any = None,
    *,
    baseline: str | None = None,
    failures: str | float = "zero",
    correction: str = "holm",
    noise: Any = None,
) -> Comparison:
    """Compares configurations: their mean scores with intervals, and their differences by input.

    A configuration is one combination of the values of ``by``; an input is what was asked: the
    variables of a run, or else its prompt. Higher scores are better. Repeats of an input count as one
    input, and differences are paired by input. Runs that have not ended are left out, and counted in
    ``notes``. Intervals and tests need the extra ``[stats]``; their methods and
    sources are told by ``help("xpander_magics.analysis.estimates")``.

    Args:
        runs: ``Runs``, a list of ``Run`` or ``Runs``, a DataFrame of runs, a notebook's path; every
            kept run when omitted. A DataFrame isn't changed.
        by: settings (model, effort, think, target, version, prompt), columns of the DataFrame, or
            variables; a list, or with commas. The settings that vary when omitted.
        score: a scorer, as its text (``exact``, ``numeric:5%``), a function or a ``Judge``, or
            several; the scores that the runs have when omitted, and else whether they succeeded.
            Runs of the store keep their scores.
        expected: what the answers should be: a variable's name, a column's, or a list as long as the
            runs.
        baseline: the configuration that the others are compared with; the first when omitted. See
            ``Comparison.against``.
        failures: how a failed run counts: ``zero`` (a score of 0), ``drop`` (not at all), or a score.
        correction: of the p-values: holm, bonferroni, fdr_bh or none.
        noise: runs of one setup repeated, which tell the noise floor, scaled to these runs' inputs
            and repeats; their own repeats tell it when omitted.

    Returns:
        A ``Comparison``: ``table``, ``differences``, ``notes``, ``plot()``, ``report(FILE)``, …

    Raises:
        ConfigError: there is nothing to compare, or an argument is wrong.

    Example:
        >>> found = xp.compare(runs, by="effort", score="exact", expected="label")
        >>> print(found)
        exact by effort...
        >>> found.differences["verdict"].tolist()
        ["can't tell"]
    """
    choice = _choice(failures)
    if correction not in CORRECTIONS:
        hint = did_you_mean(str(correction), CORRECTIONS, otherwise=f"There are: {', '.join(CORRECTIONS)}.")
        raise ConfigError(f"There is no correction {correction!r}. {hint}")
    given, names, trouble = scored(subjects.subject_of(runs), score, expected, keep=runs is None)
    ended, gone = subjects.ended(given)
    laid = lay_out(ended, by)
    failed = subjects.has_failed(ended.frame)
    if names == [SUCCESS] and f"{subjects.SCORE}{SUCCESS}" not in ended.frame.columns:
        choice = Choice(0.0)  # by the meaning of a success, whatever was chosen
    values = {name: values_of(ended.frame, name, failed, choice) for name in names}
    found = {name: samples(values[name], laid.configuration, laid.input) for name in names}
    floors = _noise(values, laid) if noise is None else _noise_of(noise, score, expected, values, laid, choice)
    comparison = Comparison(
        by=laid.by,
        scores=tuple(names),
        frame=ended.frame,
        table=summary_table(ended.frame, laid, failed, values, found),
        differences=None,  # type: ignore[arg-type]  # right below
        baseline="",
        names=laid.names,
        noise=floors,
        notes=[*remarks(ended, laid, failed, gone, values, floors), *trouble],
        failures=choice.words,
        correction=correction,
        prompts=laid.prompts,
        _laid=laid,
        _values=values,
        _samples=found,
    )
    compared = comparison.against(laid.names[0] if baseline is None else baseline)
    for heads in (compared.table.columns, compared.differences.columns):
        if len(twice := heads[heads.duplicated()]):
            raise ConfigError(f"{twice[0]!r} is a column of every comparison: give what you named so another name.")
    return compared


def _choice(failures: Any) -> Choice:
    """How failed runs count, from what was asked for."""
    if isinstance(failures, str) and failures in ("zero", "drop"):
        return Choice(0.0 if failures == "zero" else math.nan)
    try:
        value = float(failures) if isinstance(failures, (str, numbers.Real)) else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or isinstance(failures, bool):
        raise ConfigError(f'failures takes "zero", "drop" or a score, not {failures!r}.')
    return Choice(value)


def _noise(values: dict[str, NDArray[np.float64]], laid: Laid) -> dict[str, estimates.Noise]:
    """The noise floor of each score for which repeats tell one."""
    import numpy as np

    found: dict[str, estimates.Noise] = {}
    if not has_statistics():
        return found
    for name, each in values.items():
        there = ~np.isnan(each)
        told = estimates.noise_floor(each[there], laid.input[there], laid.setup[there])
        if told is not None:
            scale = math.sqrt(_share(each, laid, laid.configuration) / _share(each, laid, laid.setup))
            found[name] = told._replace(floor=told.floor * scale)
    return found


def _noise_of(
    runs: Any, score: Any, expected: Any, values: dict[str, NDArray[np.float64]], laid: Laid, choice: Choice
) -> dict[str, estimates.Noise]:
    """The noise floors that other runs tell, scored alike, for as many inputs and repeats as these have."""
    given, _, _ = scored(subjects.subject_of(runs), score, expected)
    ended, _ = subjects.ended(given)
    failed = subjects.has_failed(ended.frame)
    known = [name for name in values if name == SUCCESS or f"{subjects.SCORE}{name}" in ended.frame.columns]
    own, others = {name: values_of(ended.frame, name, failed, choice) for name in known}, lay_out(ended)
    found = _noise(own, others)
    if not found:
        raise ConfigError(
            "noise: these runs tell no noise floor. It takes one setup, each input at least twice (-n 2)."
        )
    scale = {
        name: math.sqrt(
            _share(values[name], laid, laid.configuration) / _share(own[name], others, others.configuration)
        )
        for name in found
    }
    return {name: noise._replace(floor=noise.floor * scale[name]) for name, noise in found.items()}


def _share(values: NDArray[np.float64], laid: Laid, codes: NDArray[np.int64]) -> float:
    """The variance of a mean score, in units of the variance among an input's repeats; the median over ``codes``."""
    import numpy as np

    there = ~np.isnan(values)
    cells = codes[there] * (laid.input.max(initial=0) + 1) + laid.input[there]
    cells, repeats = np.unique(cells, return_counts=True)
    owner = cells // (laid.input.max(initial=0) + 1)
    inputs = np.bincount(owner)
    return float(np.median((np.bincount(owner, weights=1 / repeats) / np.maximum(inputs, 1) ** 2)[inputs > 0]))
