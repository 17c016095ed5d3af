"""How far judges agree with people: raw agreement and Cohen's kappa on the pairs that both have judged.

A judge stands in for people's votes; how well it does has to be measured on some that people have cast. Statistics are
statsmodels' (the extra ``[stats]``), which is imported when it is first needed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from xpander_magics.store.scores import Score
from xpander_magics.store.votes import JUDGE, Vote
from xpander_magics.voting.pairs import Contest
from xpander_magics.voting.standing import has_statistics, outcomes, wilson

if TYPE_CHECKING:
    import pandas as pd

_FEW_PAIRS = 30  # a large-sample interval means little below


class Agreement(NamedTuple):
    """How often two said the same of the same things, with Cohen's kappa; None where it can't be told."""

    pairs: int
    agreed: int
    low: float | None
    high: float | None
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None


def agreement(one: Sequence[str], other: Sequence[str]) -> Agreement:
    """How far what one said of some pairs, ``first``, ``second`` or ``tie``, is what another said of the same.

    Raw agreement counts what chance alone would bring; kappa is what is left above that (Cohen, 1960): 1 is full
    agreement, 0 is chance, and it isn't defined where both said the same one thing throughout. Its 95% interval is
    the large-sample one of Fleiss, Cohen and Everitt (1969), as statsmodels has it; that of raw agreement is Wilson's
    (1927). Both take pairs as independent. Without statsmodels there are the counts alone.
    """
    agreed = sum(a == b for a, b in zip(one, other, strict=True))
    low, high = wilson(agreed, len(one))
    kappa: tuple[float | None, ...] = (None, None, None)
    if len({*one, *other}) > 1 and has_statistics():
        import numpy as np
        from statsmodels.stats.inter_rater import cohens_kappa

        said = sorted({*one, *other})
        table = np.zeros((len(said), len(said)))
        np.add.at(table, ([said.index(a) for a in one], [said.index(b) for b in other]), 1)
        with np.errstate(invalid="ignore"):  # it tells the largest kappa, too, which there may be none of
            found = cohens_kappa(table)
        bounds = (float(found.kappa), float(found.kappa_low), float(found.kappa_upp))
        kappa = tuple(max(-1.0, min(bound, 1.0)) for bound in bounds)
    return Agreement(len(one), agreed, low, high, *kappa)


def agreement_frame(contest: Contest, votes: Iterable[Vote], scores: Iterable[Score] = ()) -> pd.DataFrame:
    """How far judges agree with people on the pairs that both have judged.

    What people said of a pair is what most of their votes say, a tie where no one thing has most; skipped ones don't
    count. Each pair counts once.

    Args:
        votes: those of people and of judges.
        scores: all that these answers ever had, oldest first. Of each judge's the newest count: the higher one wins.

    Returns:
        ``judge``, ``of`` (string: ``pairs``, or ``scores``), ``pairs``, ``people``, ``agreed`` (Int64), ``agreement``,
        ``low``, ``high``, ``kappa``, ``kappa_low``, ``kappa_high`` (Float64; see ``agreement``), ``decided`` (Int64:
        the pairs on which neither says tie), ``decided_agreement`` (Float64), ``words`` (string).
    """
    import pandas as pd

    people: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    voters: dict[tuple[str, str], set[str]] = defaultdict(set)
    said: dict[tuple[str, str], dict[tuple[str, str], str]] = defaultdict(dict)
    for vote in votes:
        for outcome in outcomes(contest, [vote]):  # none where both are of one configuration
            if outcome.choice == "skip":
                continue
            sides = vote.left_run, vote.right_run
            pair = sides if contest.answers[vote.left_run].configuration == outcome.first else sides[::-1]
            choice = outcome.choice if outcome.choice in ("first", "second") else "tie"
            if vote.by_judge:
                said[vote.voter, "pairs"][pair] = choice
            else:
                people[pair][choice] += 1
                voters[pair].add(vote.voter)
    given: dict[str, dict[str, float | None]] = defaultdict(dict)
    for score in scores:
        if score.scored_by.startswith(JUDGE):
            given[score.scored_by][score.run_id] = score.value
    for judge, newest in given.items():
        values = {run_id: value for run_id, value in newest.items() if value is not None}
        for one, other in people:
            if one in values and other in values:
                higher = "first" if values[one] > values[other] else "second"
                said[judge, "scores"][one, other] = "tie" if values[one] == values[other] else higher
    rows = []
    for (judge, of), verdicts in said.items():
        shared = [pair for pair in verdicts if pair in people]
        ones, others = [verdicts[pair] for pair in shared], [_most(people[pair]) for pair in shared]
        found = agreement(ones, others)
        decided = [a == b for a, b in zip(ones, others, strict=True) if "tie" not in (a, b)]
        rows.append(
            {
                "judge": judge,
                "of": of,
                "people": len(set().union(*(voters[pair] for pair in shared))),
                **found._asdict(),
                "agreement": found.agreed / found.pairs if found.pairs else None,
                "decided": len(decided),
                "decided_agreement": sum(decided) / len(decided) if decided else None,
                "words": _in_words(found),
            }
        )
    dtypes = {
        **dict.fromkeys(("judge", "of"), pd.StringDtype("python")),
        **dict.fromkeys(("pairs", "people", "agreed"), "Int64"),
        **dict.fromkeys(("agreement", "low", "high", "kappa", "kappa_low", "kappa_high"), "Float64"),
        **{"decided": "Int64", "decided_agreement": "Float64", "words": pd.StringDtype("python")},
    }
    frame: pd.DataFrame = pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)
    return frame


def _most(said: Counter[str]) -> str:
    """What most of some votes say; a tie where no one thing has most."""
    (first, count), *others = said.most_common()
    return "tie" if others and others[0][1] == count else first


def _in_words(found: Agreement) -> str:
    """What an agreement means, for people."""
    if not found.pairs:
        return "No pair was judged by both: people's votes on the same answers are needed."
    words = [f"Agrees with people on {found.agreed:,} of {found.pairs:,} pairs ({found.agreed / found.pairs:.0%})."]
    if found.kappa is None:
        why = "both say the same of all" if has_statistics() else "it needs statsmodels"
        words.append(f"Kappa can't be told: {why}.")
    else:
        between = f"{found.kappa_low:.2f} to {found.kappa_high:.2f}"
        words.append(f"Kappa {found.kappa:.2f} ({between}); 0 is what chance brings.")
    if found.pairs < _FEW_PAIRS:
        words.append(f"Under {_FEW_PAIRS} pairs are too few to rely on that.")
    elif found.kappa_low is not None and found.kappa_low <= 0:
        words.append("That can't be told from chance.")
    return " ".join(words)
