"""Judges' verdicts on pairs: which of two answers to the same input is better, asked in both orders.

Judges like a side: many name the first of two answers, whichever it is (Zheng et al., Judging LLM-as-a-Judge with
MT-Bench and Chatbot Arena, NeurIPS 2023, section 3.3). Each pair is therefore judged twice, with the sides swapped. An
answer wins only if both verdicts name it; anything else is a tie (the same, section 3.4).
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from xpander_magics.errors import ConfigError
from xpander_magics.matrix import is_usable
from xpander_magics.results import Run
from xpander_magics.safety import as_shown
from xpander_magics.scoring.judge import MATERIAL, SHOWN, Judge, Sheet, problem_of, verdict_schema
from xpander_magics.scoring.measures import plain_value
from xpander_magics.store.votes import CHOICES, Vote
from xpander_magics.voting.pairs import Answer, Contest, Pair
from xpander_magics.voting.standing import strengths_frame, wilson, win_rates_frame

if TYPE_CHECKING:
    import pandas as pd

    from xpander_magics.opinions import Sending
    from xpander_magics.store import Store

PAIRWISE = (
    SHOWN
    + """You judge which of two answers to the same question is better\
{% if expected is not none %}, beside the answer that was expected{% endif %}. Which one stands left and which one \
right is chance, and says nothing of them.
"""
    + MATERIAL
    + """{{ shown("LEFT ANSWER", left) }}

{{ shown("RIGHT ANSWER", right) }}

Judge by the rubric. First say why in one to three sentences, then give the verdict: "left" or "right" for the better \
answer, "both_good" or "both_bad" where neither is better.
Answer with JSON alone: {"reason": "...", "verdict": "..."}"""
)
"""The prompt for the verdict on two answers: a template over the texts and the rubric."""

_CHOICES = [choice for choice in CHOICES if choice != "skip"]
_SWAPPED = {"left": "right", "right": "left"}


class Position(NamedTuple):
    """How much the sides decided, over the pairs that were judged in both orders.

    Attributes:
        pairs: how many pairs these are.
        consistent: on how many both verdicts say the same of the answers; a tie is a tie, good or bad.
        first, second: on how many both verdicts name the same side, left or right, and so another answer each time.
        unsteady: on how many one verdict names an answer, and the other calls it a tie.
        winners: how many single verdicts named one of the two answers.
        first_wins: the share of these that named the left one; 0.5 where sides don't matter.
        low, high: its 95% interval (Wilson, 1927); None without statsmodels.
    """

    pairs: int
    consistent: int
    first: int
    second: int
    unsteady: int
    winners: int
    first_wins: float | None
    low: float | None
    high: float | None

    @property
    def flips(self) -> float | None:
        """The share of the pairs whose verdict changed with the order."""
        return 1 - self.consistent / self.pairs if self.pairs else None


class Judged(NamedTuple):
    """A pair and its two verdicts: as it stands, and with the sides swapped."""

    pair: Pair
    verdict: Run
    swapped: Run

    @property
    def said(self) -> tuple[str, str] | None:
        """What both verdicts say of the pair as it stands; None where one is missing."""
        if not (is_usable(self.verdict) and is_usable(self.swapped)):
            return None
        one, other = (str(run.output["verdict"]) for run in (self.verdict, self.swapped))
        return one, _SWAPPED.get(other, other)

    @property
    def choice(self) -> str | None:
        """The vote that the two make: a winner only if both name it; of a tie ``both_bad`` if a verdict said so."""
        said = self.said
        if said is None or said[0] == said[1]:
            return said and said[0]
        return "both_bad" if "both_bad" in said else "both_good"


class Verdicts:
    """What a judge has said of pairs of answers; ``runs.judge(...)`` returns it. Its votes are kept.

    Attributes:
        judged: the pairs, with their verdicts.
        voter: the judge's name among the voters.
        votes: one for each pair that has both verdicts.
        identical: how many pairs weren't judged because both answers are the same.
    """

    def __init__(self, pairing: Pairing, judged: Sequence[Judged], sweep_id: str | None) -> None:
        self._contest = pairing.contest
        self.judged = list(judged)
        self.identical = pairing.identical
        self.voter = pairing.judge.scored_by(self.runs)
        self.votes = [
            Vote(one.pair.left.run_id, one.pair.right.run_id, one.choice, self.voter, sweep_id, pairing.seed)
            for one in self.judged
            if one.choice is not None
        ]

    @property
    def runs(self) -> list[Run]:
        """The judge's own runs, each once."""
        runs = (run for one in self.judged for run in (one.verdict, one.swapped))
        return list({run.run_id: run for run in runs}.values())

    @property
    def failed(self) -> list[Run]:
        """The judge's runs that brought no verdict."""
        return [run for run in self.runs if not is_usable(run)]

    @property
    def cost_usd(self) -> float | None:
        """What the verdicts have cost, in US dollars, whenever that was; None where it isn't known of any."""
        known = [run.cost_usd for run in self.runs if run.cost_usd is not None]
        return sum(known) if known else None

    @property
    def position(self) -> Position:
        """How much the sides decided."""
        said = [one.said for one in self.judged if one.said is not None]
        sides = [(one, _SWAPPED.get(other, other)) for one, other in said]  # as each verdict has seen them
        won = [side for both in sides for side in both if side in _SWAPPED]
        first, second = sides.count(("left", "left")), sides.count(("right", "right"))
        consistent = sum(_winner(one) == _winner(other) for one, other in said)
        lefts = won.count("left")
        return Position(
            pairs=len(said),
            consistent=consistent,
            first=first,
            second=second,
            unsteady=len(said) - consistent - first - second,
            winners=len(won),
            first_wins=lefts / len(won) if won else None,
            low=wilson(lefts, len(won))[0],
            high=wilson(lefts, len(won))[1],
        )

    @property
    def df(self) -> pd.DataFrame:
        """The pairs as a DataFrame of text columns.

        The configurations ``left`` and ``right``, their runs ``left_run_id`` and ``right_run_id``,
        ``choice`` (missing where a verdict is), and for ``verdict`` and ``swapped``, which saw the sides
        swapped, what each said of the pair as it stands, its ``_reason`` and its ``_run_id``.
        """
        import pandas as pd

        rows = [
            {
                "left": self._contest.side(one.pair.left.run_id),
                "right": self._contest.side(one.pair.right.run_id),
                "left_run_id": one.pair.left.run_id,
                "right_run_id": one.pair.right.run_id,
                "choice": one.choice,
                **_told("verdict", one.verdict, swapped=False),
                **_told("swapped", one.swapped, swapped=True),
            }
            for one in self.judged
        ]
        frame: pd.DataFrame = pd.DataFrame(rows, columns=_COLUMNS, dtype=pd.StringDtype("python"))
        return frame

    def win_rates(self) -> pd.DataFrame:
        """How often each configuration won against each other one; as ``runs.win_rates()``."""
        return win_rates_frame(self._contest, self.votes)

    def strengths(self) -> pd.DataFrame:
        """Each configuration's Bradley–Terry strength; as ``runs.strengths()``.

        Raises:
            ConfigError: statsmodels is missing.
        """
        return strengths_frame(self._contest, self.votes)

    def __repr__(self) -> str:
        position, missing = self.position, len(self.judged) - len(self.votes)
        wins = sum(vote.choice in _SWAPPED for vote in self.votes)
        said = [f"{self.voter}: {len(self.judged):,} pairs, each judged in both orders."]
        said.append(f"{wins:,} have a winner, {len(self.votes) - wins:,} are ties, {missing:,} lack a verdict.")
        if self.identical:
            said.append(f"{self.identical:,} pairs weren't judged: both answers are the same.")
        if position.pairs:
            changed = position.pairs - position.consistent
            sides = f"{position.first:,} name the left answer both times, {position.second:,} the right one"
            said.append(f"{changed:,} of {position.pairs:,} change with the order ({position.flips:.0%}): {sides}.")
        if position.first_wins is not None:
            between = "" if position.low is None else f" (95%: {position.low:.0%} to {position.high:.0%})"
            said.append(
                f"Of {position.winners:,} verdicts for one of two, {position.first_wins:.0%} name the left{between}."
            )
        cost = self.cost_usd
        unknown = "What it has cost isn't known; with usage=True a Judge asks for it."
        said.append(unknown if cost is None else f"It has cost ${cost:,.5f}.")
        return "\n".join(said)


class Pairing(NamedTuple):
    """The pairs that a judge is to compare, and what it is asked of them.

    Attributes:
        identical: how many pairs are left out because both answers are the same.
        sheet: each pair in both orders.
        seed: what repeats and inputs were drawn with; kept with the votes.
    """

    judge: Judge
    contest: Contest
    pairs: list[Pair]
    identical: int
    sheet: Sheet
    seed: int

    def judged(self, session: Sending, sweep_id: str | None, tell: Callable[[str], object] | None = None) -> Verdicts:
        """Has the pairs judged, and keeps the votes that come of it.

        Args:
            sweep_id: of the sweep that the runs are of, kept with the votes.
            tell: as in ``Judge.score_all``.

        Returns:
            The verdicts. Missing ones make no vote; judging again with ``cached`` asks for those alone.

        Raises:
            XpanderError: what stops all of it; nothing is kept then but the judge's runs.
        """
        asked = self.judge.ask(self.sheet, session, tell=tell)
        both = zip(asked[::2], asked[1::2], strict=True)
        judged = [Judged(pair, *verdicts) for pair, verdicts in zip(self.pairs, both, strict=True)]
        found = Verdicts(self, judged, sweep_id)
        session.store.votes.add(*found.votes)
        return found

    def quote(self, session: Sending) -> str:
        """What ``judged`` would send, and its quote; nothing is sent."""
        return self.judge.quoted(self.sheet, session)


def pairing(
    judge: Judge, runs: Sequence[Run], store: Store, expected: Sequence[Any] | None, most: int | None, seed: int
) -> Pairing:
    """Pairs of answers to the same input under different configurations.

    Args:
        store: has the votes of people.
        expected: what each of the runs should have answered, or None.
        most: no more than so many; all for None. Those that people have voted on come first, then each two
            configurations in turn.
        seed: what repeats and inputs are drawn with.

    Raises:
        ConfigError: no two of the runs can be compared.
    """
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise ConfigError("pairs takes a whole number above 0: how many pairs are judged at the most.")
    contest = Contest(runs)
    people = [vote for vote in store.votes.select(contest.answers) if not vote.by_judge]
    chosen, identical = drawn(contest, people, seed)
    if not chosen:
        raise ConfigError(
            "There is nothing to judge: a pair is two completed answers to the same input, not the same, by different"
            f" models, efforts or other settings. Usable answers: {len(contest.answers):,}, configurations among"
            f" them: {len(contest.names):,}, pairs with the same answer: {identical:,}."
        )
    chosen = chosen[:most]
    wanted = None if expected is None else [plain_value(value) for value in expected]
    if wanted is not None and len(wanted) != len(runs):
        raise ConfigError(f"expected has {len(wanted):,} values, and there are {len(runs):,} runs.")
    needed = {answer.run_id for pair in chosen for answer in pair}
    found = {run.run_id: (number, run) for number, run in enumerate(runs) if run.run_id in needed}
    rows, cut = [], 0
    for pair in chosen:
        (first, left), (second, right) = (found[answer.run_id] for answer in pair)
        value = None if wanted is None else wanted[first] if wanted[first] is not None else wanted[second]
        texts = {"question": _question(left, right), "expected": None if value is None else as_shown(value)}
        for one, other in ((left, right), (right, left)):
            sides = {"left": one.result or "", "right": other.result or ""}
            row, shortened = judge.row({**texts, **sides}, [one.run_id, other.run_id])
            rows.append(row)
            cut += shortened
    schema = verdict_schema("verdict", {"type": "string", "enum": _CHOICES})
    of = f"{len(chosen):,} pair{'s' * (len(chosen) != 1)} in both orders"
    return Pairing(judge, contest, chosen, identical, Sheet(PAIRWISE, rows, schema, of, cut), seed)


def drawn(contest: Contest, votes: Iterable[Vote], seed: int) -> tuple[list[Pair], int]:
    """The pairs to judge, and how many are left out because both answers are the same.

    On each input each two configurations meet once, with one of their repeats each, drawn by chance; but where votes
    are given, with the very answers that these are about, so that the judge can be compared with them.

    Returns:
        The pairs voted on first; then so that any number of them has each two configurations equally often.
    """
    chance = random.Random(seed)
    voted: dict[tuple[int, int, int], dict[Pair, None]] = defaultdict(dict)
    for vote in votes:
        pair = Pair(*sorted((contest.answers[i] for i in (vote.left_run, vote.right_run)), key=_configuration))
        if pair.left.configuration != pair.right.configuration and vote.choice != "skip":
            voted[pair.left.input, pair.left.configuration, pair.right.configuration][pair] = None
    repeats: dict[int, dict[int, list[Answer]]] = defaultdict(lambda: defaultdict(list))
    for answer in contest.answers.values():
        repeats[answer.input][answer.configuration].append(answer)
    first: list[Pair] = []
    others: dict[tuple[int, int], list[Pair]] = defaultdict(list)
    identical = 0
    for number in chance.sample(list(repeats), len(repeats)):
        chosen = {which: chance.choice(several) for which, several in sorted(repeats[number].items())}
        for one, other in itertools.combinations(chosen, 2):
            if (number, one, other) in voted:
                first += voted[number, one, other]
            elif chosen[one].text == chosen[other].text:
                identical += 1
            else:
                others[one, other].append(Pair(chosen[one], chosen[other]))
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*(others[both] for both in sorted(others))))
    return [*first, *(pair for pair in in_turn if pair is not None)], identical


def _configuration(answer: Answer) -> int:
    return answer.configuration


def _question(left: Run, right: Run) -> str:
    """What both were asked: the prompt; where prompts compete, the variables that they were made of."""
    return (left.prompt or "") if left.prompt == right.prompt else as_shown(left.variables)


def _winner(choice: str) -> str | None:
    """The side that a verdict names; None for a tie of either kind."""
    return choice if choice in _SWAPPED else None


_COLUMNS = [
    *("left", "right", "left_run_id", "right_run_id", "choice"),
    *(f"{name}{what}" for name in ("verdict", "swapped") for what in ("", "_reason", "_run_id")),
]


def _told(name: str, run: Run, *, swapped: bool) -> dict[str, str | None]:
    """A verdict as columns: what it says of the pair as it stands, or why there is none."""
    said = str(run.output["verdict"]) if is_usable(run) else None
    reason = run.output["reason"] if is_usable(run) else problem_of(run)
    said = _SWAPPED.get(said, said) if swapped and said else said
    return {name: said, f"{name}_reason": reason, f"{name}_run_id": run.run_id}
