"""What votes come to: win rates of each two configurations, and the strengths of all of them.

The counts need nothing. Intervals and strengths are statsmodels' (the extra ``[stats]``), which is
imported when it is first needed.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from xpander_magics import extras
from xpander_magics.errors import ConfigError
from xpander_magics.store.votes import CHOICES, Vote
from xpander_magics.voting.pairs import Contest

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
_MANY_INPUTS = 20


class Strength(NamedTuple):
    """A configuration's Bradley–Terry strength, with its interval; NaN and a reason where it can't be estimated."""

    strength: float
    low: float
    high: float
    note: str | None


def has_statistics() -> bool:
    """Whether statsmodels is there."""
    try:
        import statsmodels  # noqa: F401
    except ImportError:
        return False
    return True


def no_statistics() -> str:
    """What is said where it isn't."""
    return extras.missing("Intervals and strengths need", "stats")


def votes_frame(contest: Contest, votes: Iterable[Vote]) -> pd.DataFrame:
    """The votes as a DataFrame, oldest first.

    Returns:
        ``vote_id`` (string), ``created_at`` (datetime64[us, UTC]), ``voter`` (string), ``choice`` (category: left,
        right, both_good, both_bad, skip), ``left_run_id``, ``right_run_id``, and the configurations ``left``,
        ``right`` and ``winner`` (string; the last is missing where neither won). The same when empty.
    """
    import pandas as pd

    kept = list(votes)
    left = [contest.side(vote.left_run) for vote in kept]
    right = [contest.side(vote.right_run) for vote in kept]
    won = [{"left": a, "right": b}.get(vote.choice) for vote, a, b in zip(kept, left, right, strict=True)]
    text = pd.StringDtype("python")
    times = pd.to_datetime([vote.added_at for vote in kept], utc=True)
    frame: pd.DataFrame = pd.DataFrame(
        {
            "vote_id": pd.array([vote.vote_id for vote in kept], dtype=text),
            "created_at": pd.Series(times).astype("datetime64[us, UTC]"),
            "voter": pd.array([vote.voter for vote in kept], dtype=text),
            "choice": pd.Categorical([vote.choice for vote in kept], categories=list(CHOICES)),
            "left_run_id": pd.array([vote.left_run for vote in kept], dtype=text),
            "right_run_id": pd.array([vote.right_run for vote in kept], dtype=text),
            "left": pd.array(left, dtype=text),
            "right": pd.array(right, dtype=text),
            "winner": pd.array(won, dtype=text),
        }
    )
    return frame


def win_rates_frame(contest: Contest, votes: Iterable[Vote]) -> pd.DataFrame:
    """How often each configuration won against each other one; one row for each two that were voted on.

    The interval is Wilson's (1927) for a share, at 95%. It takes votes as independent, which those of several persons
    on the same two answers aren't: with many of these it is too narrow.

    Returns:
        ``configuration``, ``opponent`` (string), ``wins``, ``losses``, ``both_good``, ``both_bad``, ``skipped``
        (Int64), and ``win_rate``, ``low``, ``high`` (Float64): the share of decided votes that it won, and the
        interval, which is missing without statsmodels.
    """
    import pandas as pd

    counts: dict[tuple[int, int], Counter[str]] = defaultdict(Counter)
    for said in outcomes(contest, votes):
        counts[said.first, said.second][said.choice] += 1
    rows = []
    for first, second in sorted(counts):
        found = counts[first, second]
        wins, losses = found["first"], found["second"]
        low, high = wilson(wins, wins + losses)
        rate = wins / (wins + losses) if wins + losses else None
        tied = (found["both_good"], found["both_bad"], found["skip"])
        rows.append((contest.names[first], contest.names[second], wins, losses, *tied, rate, low, high))
    dtypes = {
        **dict.fromkeys(("configuration", "opponent"), pd.StringDtype("python")),
        **dict.fromkeys(("wins", "losses", "both_good", "both_bad", "skipped"), "Int64"),
        **dict.fromkeys(("win_rate", "low", "high"), "Float64"),
    }
    frame: pd.DataFrame = pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)
    return frame


class Outcome(NamedTuple):
    """A vote: two configurations, the one that the runs have first first; who won, or the choice that names none."""

    first: int
    second: int
    choice: str
    input: int


def outcomes(contest: Contest, votes: Iterable[Vote]) -> Iterator[Outcome]:
    """What each vote says of two configurations."""
    for vote in votes:
        left, right = (contest.answers[run_id].configuration for run_id in (vote.left_run, vote.right_run))
        if left != right:  # a vote by command may have judged two repeats
            sides = {"left": "first", "right": "second"} if left < right else {"left": "second", "right": "first"}
            said = sides.get(vote.choice, vote.choice)
            yield Outcome(min(left, right), max(left, right), said, contest.answers[vote.left_run].input)


def wilson(wins: int, decided: int) -> tuple[float | None, float | None]:
    """Wilson's interval for the share of wins; (None, None) without a decided vote, or without statsmodels."""
    if not decided or not has_statistics():
        return None, None
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(wins, decided, alpha=1 - LEVEL, method="wilson")
    return float(low), float(high)


def strengths_frame(contest: Contest, votes: Iterable[Vote]) -> pd.DataFrame:
    """The Bradley–Terry strength of each configuration, the strongest first; see ``bradley_terry``.

    Returns:
        ``configuration`` (string), ``votes`` (Int64: those it was in, without skipped ones), ``strength``, ``low``,
        ``high`` (Float64), and ``note`` (string: why it has none, if so).

    Raises:
        ConfigError: statsmodels is missing.
    """
    import pandas as pd

    score = {"first": 1.0, "second": 0.0, "both_good": 0.5, "both_bad": 0.5}
    judged = [outcome for outcome in outcomes(contest, votes) if outcome.choice != "skip"]
    first, second = [outcome.first for outcome in judged], [outcome.second for outcome in judged]
    scores, inputs = [score[outcome.choice] for outcome in judged], [outcome.input for outcome in judged]
    found = bradley_terry(first, second, scores, inputs, len(contest.names))
    counts = Counter([*first, *second])
    rows = [
        (name, counts[number], strength.strength, strength.low, strength.high, strength.note)
        for number, (name, strength) in enumerate(zip(contest.names, found, strict=True))
    ]
    text, real = pd.StringDtype("python"), "Float64"
    dtypes = {"configuration": text, "votes": "Int64", "strength": real, "low": real, "high": real, "note": text}
    frame: pd.DataFrame = pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)
    ordered: pd.DataFrame = frame.sort_values("strength", ascending=False, kind="stable", ignore_index=True)
    return ordered


def bradley_terry(
    first: Sequence[int], second: Sequence[int], score: Sequence[float], clusters: Sequence[Any], count: int
) -> list[Strength]:
    """Strengths from comparisons of two, such that ``first`` wins with the odds ``exp(strength - strength)``.

    A logistic regression without an intercept on a row of +1 and -1 for each vote (Bradley and Terry, 1952; Agresti,
    Categorical Data Analysis, 2nd ed., 10.6). A tie is half a win for each. Strengths are log-odds against the mean
    of all that can be estimated: 0 is the average configuration.

    Votes on the same input aren't independent, so the 95% intervals are those of standard errors that are robust to
    clusters by input, with Student's t of one degree less than there are inputs. These errors are too small where
    inputs are few: below 20 inputs the model's own are taken where they are larger (Angrist and Pischke, Mostly
    Harmless Econometrics, 2009, 8.2). A single input has the model's alone, and they tell of no other input.

    Where some never lost to the others, not even half, the likelihood has no maximum (Ford, 1957): their strength is
    without bound. Strengths are then those of the largest group in which each is connected with each by wins in
    both directions; the others have NaN and a note.

    Args:
        first, second: the numbers of the two that a vote compares, from 0.
        score: 1 where the first won, 0 where the second did, 0.5 for a tie.
        clusters: the input that a vote is about.
        count: how many compete.

    Raises:
        ConfigError: statsmodels is missing.
    """
    if not has_statistics():
        raise ConfigError(no_statistics())
    import numpy as np
    import statsmodels.api as sm
    from scipy.stats import norm, t
    from statsmodels.tools.sm_exceptions import PerfectSeparationWarning

    nan = float("nan")
    inside, notes = _comparable(first, second, score, count)
    found = [Strength(nan, nan, nan, note) for note in notes]
    votes = [n for n, (a, b) in enumerate(zip(first, second, strict=True)) if a in inside and b in inside]
    if len(inside) < 2:
        return found
    column = {number: place for place, number in enumerate(inside)}
    design = np.zeros((len(votes), len(inside)))
    for row, vote in enumerate(votes):
        design[row, column[first[vote]]], design[row, column[second[vote]]] = 1.0, -1.0
    # The last is the reference: only differences can be told. Then all are moved so that their mean is 0.
    model = sm.GLM(np.array([score[vote] for vote in votes]), design[:, :-1], family=sm.families.Binomial())
    centred = np.vstack([np.eye(len(inside) - 1), np.zeros(len(inside) - 1)]) - 1.0 / len(inside)
    names, groups = np.unique(np.array([clusters[vote] for vote in votes]), return_inverse=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PerfectSeparationWarning)  # raised where there are ties alone, which are told
        fits = [model.fit()]
        if len(names) > 1:
            fits.append(model.fit(cov_type="cluster", cov_kwds={"groups": groups}))
    variances = [np.diag(centred @ fit.cov_params() @ centred.T) for fit in fits]
    variance = variances[-1] if len(names) >= _MANY_INPUTS else np.max(variances, axis=0)
    tail = (1 + LEVEL) / 2
    reach = np.sqrt(variance) * (t.ppf(tail, len(names) - 1) if len(names) > 1 else norm.ppf(tail))
    for number, strength, half in zip(inside, centred @ fits[0].params, reach, strict=True):
        found[number] = Strength(float(strength), float(strength - half), float(strength + half), None)
    return found


def _comparable(
    first: Sequence[int], second: Sequence[int], score: Sequence[float], count: int
) -> tuple[list[int], list[str | None]]:
    """The largest group whose strengths have a finite estimate, and for each of all why it isn't in it."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    beat = {(a, b) for a, b, s in zip(first, second, score, strict=True) if s > 0}
    beat |= {(b, a) for a, b, s in zip(first, second, score, strict=True) if s < 1}
    winners, losers = zip(*beat, strict=True) if beat else ((), ())
    graph = coo_matrix(([1] * len(beat), (winners, losers)), shape=(count, count))
    _, group = connected_components(graph, directed=True, connection="strong")
    largest = Counter(group.tolist()).most_common(1)[0][0] if count else 0
    inside = [number for number in range(count) if group[number] == largest]
    voted = {number for pair in beat for number in pair}
    notes: list[str | None] = []
    for number in range(count):
        has_won, has_lost = number in winners, number in losers
        if number not in voted:
            notes.append("not estimable: no votes yet")
        elif len(inside) > 1 and number in inside:
            notes.append(None)
        elif has_won and has_lost:
            notes.append("not estimable: too few votes connect it with the others")
        else:
            notes.append(f"not estimable: it {'won' if has_won else 'lost'} every vote so far")
    return inside, notes
