"""Which two answers are judged next. No I/O.

Two answers make a *pair* where they answer the same input under different *configurations*: whatever of model,
effort, think mode, target, version and prompt template varies among the runs. Of the repeats of a configuration one
is drawn for each input, so each person judges two configurations once on each input.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from xpander_magics.results import Run
from xpander_magics.safety import plain
from xpander_magics.store.values import to_json
from xpander_magics.store.votes import Vote

_LONGEST_NAME = 60


class Answer(NamedTuple):
    """A usable answer: its run, and the numbers of its configuration and its input."""

    run_id: str
    configuration: int
    input: int
    digest: bytes


class Pair(NamedTuple):
    """Two answers to the same input, as they are shown."""

    left: Answer
    right: Answer


class Contest:
    """The usable answers among some runs: completed, and without an error.

    Attributes:
        names: the configurations, by what varies among them, in the order in which the runs have them.
        answers: by their run's id.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        usable = [run for run in runs if is_usable(run)]
        same_template = len({run.template for run in usable}) <= 1
        configurations: dict[tuple[str | None, ...], int] = {}
        inputs: dict[tuple[str | None, ...], int] = {}
        self.answers: dict[str, Answer] = {}
        for run in usable:
            configuration = configurations.setdefault(tuple(_configuration_of(run).values()), len(configurations))
            input_ = inputs.setdefault(input_of(run, same_template), len(inputs))
            # What a reused run answers counts once.
            self.answers.setdefault(run.run_id, Answer(run.run_id, configuration, input_, _digest(run)))
        self.names = _names(list(configurations))

    def side(self, run_id: str) -> str:
        """The name of the configuration of a run."""
        return self.names[self.answers[run_id].configuration]


def is_usable(run: Run) -> bool:
    return run.status == "completed" and run.error_type is None and run.result is not None


def _configuration_of(run: Run) -> dict[str, str | None]:
    """What may vary between two answers to one input; what was asked for, else what the service did."""
    model = (run.requested_provider, run.requested_model) if run.requested_model else (run.provider, run.model)
    return {
        "target": run.target or run.target_id,
        "version": run.version,
        "model": "/".join(part for part in model if part) or None,
        "effort": run.requested_effort or run.effort,
        "think": run.think_mode,
        "prompt": run.template,
    }


def input_of(run: Run, same_template: bool) -> tuple[str | None, ...]:
    """Equal for runs that were asked the same: the variables, what a conversation has had before, and the prompt, but
    where several prompt templates compete."""
    variables = to_json(dict(sorted(run.variables.items(), key=lambda item: str(item[0]))))
    thread = run.request.get("id")
    prompt = run.prompt if same_template or not run.variables else None
    return variables, thread if isinstance(thread, str) else None, prompt


def _digest(run: Run) -> bytes:
    answer = to_json(run.output) if run.output is not None else (run.result or "").strip()
    return hashlib.blake2b(answer.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _names(configurations: Sequence[tuple[str | None, ...]]) -> list[str]:
    """A short name for each configuration; no two are alike."""
    varying = [number for number, values in enumerate(zip(*configurations, strict=True)) if len(set(values)) > 1]
    names: list[str] = []
    for values in configurations:
        told = " · ".join(_short(values[number]) for number in varying) or "the only configuration"
        alike = (told, *(f"{told} #{number}" for number in range(2, len(names) + 2)))
        names.append(next(name for name in alike if name not in names))
    return names


def _short(value: str | None) -> str:
    text = " ".join(plain(value or "default").split())
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


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
            alike = sum(_pairs(count) for count in Counter(answer.digest for answer in chosen.values()).values())
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
        alike = chosen[left.configuration].digest == chosen[right.configuration].digest
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
            and self._chosen[number][first].digest != self._chosen[number][second].digest
        )
        return min(fits, key=lambda number: (self._votes[number, first, second], self._votes[number]), default=None)


def _both(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one < other else (other, one)


def _pairs(count: int) -> int:
    return count * (count - 1) // 2
