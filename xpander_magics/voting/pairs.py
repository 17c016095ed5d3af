"""Which two answers are judged next. No I/O.

Two answers make a *pair* where they answer the same input under different configurations, both as ``matrix`` has
them. Of the repeats of a configuration one is drawn for each input, so each person judges two configurations once on
each input.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from xpander_magics.matrix import matrix_of
from xpander_magics.results import Run
from xpander_magics.store.votes import Vote


class Answer(NamedTuple):
    """A usable answer: its run, and the numbers of its configuration, its input and its text.

    Equal answers have the same text.
    """

    run_id: str
    configuration: int
    input: int
    text: int


class Pair(NamedTuple):
    """Two answers to the same input, as they are shown."""

    left: Answer
    right: Answer


class Contest:
    """The usable answers among some runs: completed, and without an error.

    Attributes:
        names: the configurations that have such answers, in the order in which the runs have them.
        answers: by their run's id.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        matrix = matrix_of(runs)
        usable = [outcome for outcome in matrix.outcomes if outcome.usable]
        competing = sorted({outcome.configuration for outcome in usable})
        names = matrix.names
        self.names = [names[configuration] for configuration in competing]
        number = {configuration: number for number, configuration in enumerate(competing)}
        self.answers: dict[str, Answer] = {}
        for run_id, _, input_, configuration, text, *_ in usable:
            # What a reused run answers counts once.
            self.answers.setdefault(run_id, Answer(run_id, number[configuration], input_, text))

    def side(self, run_id: str) -> str:
        """The name of the configuration of a run."""
        return self.names[self.answers[run_id].configuration]


class Ballot:
    """The pairs that one person is still to judge, made one by one: however many there are, none is stored.

    Pairs of configurations with the fewest votes come first, then inputs with the fewest; the rest is chance, as are
    the sides. The same seed, voter and votes give the same pairs in the same order.

    Attributes:
        judged: how many pairs the voter has judged or skipped.
        total: how many there are, those included.
        identical: how many are left out because both answers are the same.
    """

    def __init__(self, contest: Contest, votes: Iterable[Vote], voter: str, seed: int) -> None:
        self._contest = contest
        self._voter = voter
        self._seed = seed
        chance = random.Random(f"{seed} {voter}")
        repeats: dict[int, dict[int, list[Answer]]] = defaultdict(lambda: defaultdict(list))
        for answer in contest.answers.values():
            repeats[answer.input][answer.configuration].append(answer)
        self._chosen = {
            number: {which: chance.choice(several) for which, several in by_configuration.items()}
            for number, by_configuration in repeats.items()
        }
        self._inputs_of: dict[int, list[int]] = defaultdict(list)
        for number in chance.sample(list(self._chosen), len(self._chosen)):
            for which in self._chosen[number]:
                self._inputs_of[which].append(number)
        self._configurations = chance.sample(range(len(contest.names)), len(contest.names))
        self._own: Counter[tuple[int, int, int]] = Counter()  # the voter's votes on an input and two configurations
        self._exhausted: set[tuple[int, int]] = set()
        self._votes: Counter[Any] = Counter()  # by pair of configurations, by input, and by both
        self.identical, self.total = 0, 0
        for chosen in self._chosen.values():
            alike = sum(_pairs(count) for count in Counter(answer.text for answer in chosen.values()).values())
            self.identical += alike
            self.total += _pairs(len(chosen)) - alike
        for vote in votes:
            self.count(vote)

    @property
    def judged(self) -> int:
        return len(self._own)

    def count(self, vote: Vote, by: int = 1) -> None:
        """Counts a vote, or with ``by=-1`` one that was taken back."""
        left, right = (self._contest.answers.get(run_id) for run_id in (vote.left_run, vote.right_run))
        if left is None or right is None or left.configuration == right.configuration or left.input != right.input:
            return
        both = _both(left.configuration, right.configuration)
        matchup = (left.input, *both)
        for key in (both, left.input, matchup):
            self._votes[key] += by
        if vote.voter != self._voter:
            return
        chosen = self._chosen[left.input]
        alike = chosen[left.configuration].text == chosen[right.configuration].text
        before = len(self._own)
        self._own[matchup] += by
        self._own = +self._own  # without those that are 0
        if alike:  # judged all the same, of other repeats
            self.total += len(self._own) - before
            self.identical -= len(self._own) - before
        self._exhausted.discard(both)

    def next(self) -> Pair | None:
        """The pair to judge now; None where none is left."""
        while self.judged < self.total:
            both = self._least_voted()
            if both is None:
                return None
            number = self._input_for(both)
            if number is not None:
                sides = [self._chosen[number][which] for which in both]
                random.Random(f"{self._seed} {self._voter} {number} {both}").shuffle(sides)
                return Pair(*sides)
            self._exhausted.add(both)
        return None

    def _least_voted(self) -> tuple[int, int] | None:
        """The pair of configurations with the fewest votes."""
        best: tuple[int, int] | None = None
        for both in self._pairings():
            if both in self._exhausted:
                continue
            if not self._votes[both]:
                return both
            if best is None or self._votes[both] < self._votes[best]:
                best = both
        return best

    def _pairings(self) -> Iterator[tuple[int, int]]:
        """Each two configurations once, so that each comes up as often as the others from the beginning."""
        known, count = self._configurations, len(self._configurations)
        for step in range(1, count // 2 + 1):
            for place in range(count // 2 if 2 * step == count else count):
                yield _both(known[place], known[(place + step) % count])

    def _input_for(self, both: tuple[int, int]) -> int | None:
        """The input with the fewest votes on which these two are still to be judged."""
        first, second = both
        fits = (
            number
            for number in self._inputs_of[first]
            if second in self._chosen[number]
            and (number, first, second) not in self._own
            and self._chosen[number][first].text != self._chosen[number][second].text
        )
        return min(fits, key=lambda number: (self._votes[number, first, second], self._votes[number]), default=None)


def _both(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one < other else (other, one)


def _pairs(count: int) -> int:
    return count * (count - 1) // 2
