"""What must be said aloud beside a comparison: what is left out, what is missing, what did nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpander_magics.analysis import estimates
from xpander_magics.analysis.differences import short
from xpander_magics.analysis.efforts import mismatches, without_effect
from xpander_magics.analysis.layout import Laid
from xpander_magics.analysis.scored import SUCCESS
from xpander_magics.analysis.subjects import Gone, Subject
from xpander_magics.analysis.summaries import PASSED
from xpander_magics.matrix import preview
from xpander_magics.safety import plain
from xpander_magics.voting.standing import has_statistics

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

_FEW_INPUTS = 20
_FEW_NEAR_ENDS = 200
_NEAR = 0.05


def remarks(
    subject: Subject,
    laid: Laid,
    failed: NDArray[np.bool_],
    gone: Gone,
    values: Mapping[str, NDArray[np.float64]],
    noise: Mapping[str, estimates.Noise],
) -> list[str]:
    """The notes of a comparison, in sentences; the effects of settings come first.

    Args:
        failed: of each run whether it failed.
        gone: what is left out.
        values: by the score's name, what each run counts as.
        noise: the noise floors.
    """
    return [
        _success(values),
        *mismatches(subject, failed),
        *without_effect(subject, laid, failed),
        *_left_out(gone),
        *_unscored(values, failed),
        *_inputs(laid),
        *_near_ends(values, laid),
        *_noise(laid, noise),
        *_cost(subject),
        *([] if has_statistics() else [estimates.no_statistics()]),
        *(f"{name}: {plain(preview(text))}" for name, text in laid.prompts.items()),
    ]


def _success(values: Mapping[str, NDArray[np.float64]]) -> str:
    first = next(iter(values))
    passed = "" if first == SUCCESS else f" and with a score {first} of {PASSED} or more"
    return f"A success is a run that completed without an error{passed}. Seconds are those of runs that did not fail."


def _left_out(gone: Gone) -> list[str]:
    found = []
    if gone.unended:
        told = ", ".join(f"{count:,} {status}" for status, count in gone.unended.items())
        found.append(f"Left out, because they have not ended: {told}.")
    if gone.repeated:
        found.append(f"Rows of a run that is there already: {gone.repeated:,}. Each run counts once.")
    return found


def _unscored(values: Mapping[str, NDArray[np.float64]], failed: NDArray[np.bool_]) -> list[str]:
    import numpy as np

    found = []
    for name, each in values.items():
        count = int((np.isnan(each) & ~failed).sum())
        if count:
            found.append(
                f"{name}: {count:,} of {len(each):,} runs have no score, such as for want of an expected value;"
                " they don't count."
            )
    return found


def _inputs(laid: Laid) -> list[str]:
    import numpy as np

    found = []
    total = int(laid.input.max(initial=-1)) + 1
    pairs = np.unique(laid.configuration * total + laid.input)
    whole = int((np.bincount(pairs % total, minlength=total) == len(laid.names)).sum())
    if whole < total:
        found.append(
            f"Of {total:,} inputs, {total - whole:,} lack a configuration: differences are over those that both have."
        )
    if total < _FEW_INPUTS:
        found.append(f"{total} input{'s' * (total != 1)}: few, so intervals are wide and hold of no others than such.")
    return found


def _near_ends(values: Mapping[str, NDArray[np.float64]], laid: Laid) -> list[str]:
    """Scores whose intervals hold less often than they say; see ``estimates.mean_interval``."""
    import numpy as np

    found = []
    for name, each in values.items():
        there = ~np.isnan(each)
        scores, codes = each[there], laid.configuration[there]
        if not np.all((scores >= 0) & (scores <= 1)):
            continue
        runs = np.bincount(codes, minlength=len(laid.names))
        pairs = np.unique(codes * (laid.input.max(initial=0) + 1) + laid.input[there])
        inputs = np.bincount(pairs // (laid.input.max(initial=0) + 1), minlength=len(runs))
        between = np.bincount(codes, weights=(scores > 0) & (scores < 1), minlength=len(runs)) > 0
        means = np.bincount(codes, weights=scores, minlength=len(runs)) / np.maximum(runs, 1)
        near = between & (inputs < _FEW_NEAR_ENDS) & ((means < _NEAR) | (means > 1 - _NEAR))
        if count := int(near.sum()):
            several = f"{count:,} configuration{'s' * (count != 1)}"
            found.append(
                f"{name}: the mean of {several} is within {_NEAR:g} of 0 or 1, over fewer than {_FEW_NEAR_ENDS} inputs."
                " Rare scores that change it may be missing, so its interval may be too narrow."
            )
    return found


def _noise(laid: Laid, noise: Mapping[str, estimates.Noise]) -> list[str]:
    if noise:
        return [
            f"Noise floor of {name}: {short(told.floor)}. One setup run twice differs by up to that, 95% of the time."
            for name, told in noise.items()
        ]
    if len(laid.names) > 1 and has_statistics():
        return ["Without repeats there is no noise floor: -n 2, or %xpander noise, tells how far one setup varies."]
    return []


def _cost(subject: Subject) -> list[str]:
    frame = subject.frame
    missing = frame["cost_usd"].isna()
    count, own = int(missing.sum()), int((missing & frame["is_byok"].eq(True).fillna(False)).sum())
    if not count:
        return []
    why = f", {own:,} of them for they used your own keys" if own else "; %xpander usage asks for it"
    return [f"Cost isn't known of {count:,} of {len(frame):,} runs{why}. Sums are of what is known."]
