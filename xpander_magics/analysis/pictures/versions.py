"""Prompt versions: the templates that were compared, what each scored, and what changed from one to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xpander_magics.analysis.diffs.alignment import aligned
from xpander_magics.analysis.estimates import Estimate, PairedDifference, mean_interval, paired_difference
from xpander_magics.analysis.layout import combined, numbered
from xpander_magics.analysis.subjects import objects
from xpander_magics.voting.standing import has_statistics

if TYPE_CHECKING:
    from xpander_magics.analysis.comparison import Comparison


class Version(NamedTuple):
    """A prompt template, and what it came to.

    Attributes:
        number: counted from 1, in the order in which the templates were first used.
        estimate: its mean score.
        change: the paired difference from the version before; None for the first, and without statistics.
        changed: the lines that differ from the version before, each after ``-`` or ``+``.
        settings: over how many combinations of the other settings: those that all versions ran with.
    """

    number: int
    template: str
    estimate: Estimate
    change: PairedDifference | None
    changed: list[str]
    settings: int


def prompt_versions(comparison: Comparison, score: str) -> list[Version]:
    """The prompt versions of a comparison, the first used first.

    Versions are compared over the settings that all of them ran with; where there are none, over all runs.
    """
    import numpy as np
    import pandas as pd

    frame, values = comparison.frame, comparison.values(score)
    texts = objects(frame["template"])
    templates = [text for text in dict.fromkeys(texts) if text is not None]
    place = {text: number for number, text in enumerate(templates)}
    codes = np.array([place.get(text, -1) for text in texts])
    of_each, inputs = comparison.codes()
    others = [name for name in comparison.by if name != "prompt"]
    table = comparison.table
    setting = combined([numbered(table[name]) for name in others], len(table))[of_each]
    met = pd.crosstab(setting[codes >= 0], codes[codes >= 0])
    shared = met.index[(met > 0).all(axis=1)].to_numpy()
    chosen = np.isin(setting, shared) if shared.size else np.ones(len(codes), dtype=bool)
    found: list[Version] = []
    for number, template in enumerate(templates):
        mine = chosen & (codes == number) & ~np.isnan(values)
        change, changed = None, []
        if number:
            before = chosen & (codes == number - 1) & ~np.isnan(values)
            if has_statistics():
                change = paired_difference(values[mine], inputs[mine], values[before], inputs[before])
            changed = changed_lines(templates[number - 1], template)
        estimate = mean_interval(values[mine], inputs[mine])
        found.append(Version(number + 1, template, estimate, change, changed, len(shared)))
    return found


def changed_lines(old: str, new: str) -> list[str]:
    """The lines that differ, each after ``-`` or ``+``, in their order."""
    before, after = old.splitlines(), new.splitlines()
    pairs = aligned(before, after).pairs
    return [
        f"- {before[was or 0]}" if now is None else f"+ {after[now]}"
        for was, now in pairs
        if was is None or now is None
    ]
