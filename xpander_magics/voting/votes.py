"""A person's votes, each kept as it is cast: pair after pair, or one by command."""

from __future__ import annotations

import getpass
import secrets
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from xpander_magics.cell import one_of
from xpander_magics.errors import ConfigError, did_you_mean
from xpander_magics.matrix import is_usable
from xpander_magics.results import Run
from xpander_magics.safety import plain
from xpander_magics.store.votes import CHOICES, JUDGE, Vote
from xpander_magics.voting.pairs import Ballot, Contest, Pair

if TYPE_CHECKING:
    from xpander_magics.store import Store

WORDS = (*(name.replace("_", "-") for name in CHOICES), "undo")
"""What a vote by command may say."""

_LARGEST_SEED = 2**63 - 1  # what every database keeps


class Voting:
    """One person's votes on some runs, each kept in the store as it is cast. Safe from any thread.

    Args:
        runs: all are in the store.
        voter: who judges; the login name when omitted.
        seed: what order and sides are shuffled with; a new one when omitted.

    Attributes:
        pair: the two answers to judge now; None where all is judged.
        last: the vote that was just cast.

    Raises:
        ConfigError: an argument is wrong, or no two of the runs can be compared.
    """

    def __init__(
        self,
        runs: Iterable[Run],
        store: Store,
        *,
        sweep_id: str | None = None,
        voter: str | None = None,
        seed: int | None = None,
    ) -> None:
        self.seed = secrets.randbelow(10**9) + 1 if seed is None else _checked_seed(seed)
        self.voter = checked_voter(voter)
        self.contest = Contest(runs)
        self._store = store
        self._sweep_id = sweep_id
        self._lock = threading.RLock()
        self._begin()
        if not self._ballot.total + self._ballot.identical:
            raise ConfigError(
                f"There is nothing to judge: a vote needs two completed answers to the same input by different models,"
                f" efforts or other settings. Usable answers: {len(self.contest.answers):,}, configurations among"
                f" them: {len(self.contest.names):,}."
            )

    def _begin(self) -> None:
        votes = self.votes()
        self._own = [vote for vote in votes if vote.voter == self.voter]
        self._ballot = Ballot(self.contest, votes, self.voter, self.seed)
        self.last: Vote | None = None
        self.pair = self._ballot.next()

    @property
    def judged(self) -> int:
        """How many pairs this voter has judged or skipped."""
        return self._ballot.judged

    @property
    def total(self) -> int:
        """How many pairs this voter has to judge, those included."""
        return self._ballot.total

    @property
    def identical(self) -> int:
        """How many pairs aren't asked because both answers are the same."""
        return self._ballot.identical

    @property
    def can_undo(self) -> bool:
        """Whether this voter has a vote that can be taken back."""
        return bool(self._own)

    def votes(self) -> list[Vote]:
        """All people's votes on these runs; without those that were taken back."""
        return votes_by(self._store.votes.select(self.contest.answers))

    def shown(self) -> tuple[Run, Run] | None:
        """The runs of the pair, the left one first."""
        pair = self.pair
        if pair is None:
            return None
        found = {run.run_id: run for run in self._store.select(run_ids=[answer.run_id for answer in pair])}
        return found[pair.left.run_id], found[pair.right.run_id]

    def cast(self, choice: str) -> Vote:
        """Judges the pair, and goes on to the next. The vote is kept before anything else.

        Args:
            choice: ``left``, ``right``, ``both_good``, ``both_bad`` or ``skip``.

        Raises:
            ConfigError: there is no such choice, or no pair is left.
            StoreError: the vote couldn't be kept; the pair stays.
        """
        choice = checked_choice(choice)
        with self._lock:
            if self.pair is None:
                raise ConfigError("All pairs are judged: there is nothing left to vote on.")
            sides = self.pair.left.run_id, self.pair.right.run_id
            vote = Vote(*sides, choice, self.voter, sweep_id=self._sweep_id, seed=self.seed)
            self._store.votes.add(vote)
            self._own.append(vote)
            self._ballot.count(vote)
            self.last = vote
            self.pair = self._ballot.next()
            return vote

    def undo(self) -> Vote | None:
        """Takes this voter's newest vote back, and asks its pair again, whose names may have been seen by now.

        Returns:
            The vote; None where there is none.
        """
        with self._lock:
            if not self._own:
                return None
            vote = self._own[-1]
            self._store.votes.undo(vote.vote_id)
            del self._own[-1]
            self._ballot.count(vote, by=-1)
            self.last = None
            self.pair = Pair(*(self.contest.answers[run_id] for run_id in (vote.left_run, vote.right_run)))
            return vote

    def change_voter(self, voter: str) -> None:
        """Goes on as another person, with that one's own pairs."""
        with self._lock:
            self.voter = checked_voter(voter)
            self._begin()


def cast(store: Store, left: Run, right: Run, choice: str, voter: str | None = None) -> Vote:
    """Judges two answers by name, where no widget can run; ``undo`` takes one's vote on them back.

    Raises:
        ConfigError: the runs can't be compared, or there is no such choice, or nothing to undo.
    """
    person = checked_voter(voter)
    if choice == "undo":
        return _undo(store, left, right, person)
    choice = checked_choice(choice)
    if left.run_id == right.run_id:
        raise ConfigError("A vote takes two runs; these are the same one.")
    for run in (left, right):
        if not is_usable(run):
            raise ConfigError(f"Run {run.run_id[:8]} has no answer to judge: it is {run.error_type or run.status}.")
    answers = Contest([left, right]).answers
    if answers[left.run_id].input != answers[right.run_id].input:
        raise ConfigError("These two runs were asked different things; a vote compares answers to the same input.")
    if choice in ("left", "right") and answers[left.run_id].text == answers[right.run_id].text:
        raise ConfigError("Both answers are the same, so neither is better: both-good, both-bad or skip.")
    sweep_id = left.sweep_id if left.sweep_id == right.sweep_id else None
    vote = Vote(left.run_id, right.run_id, choice, person, sweep_id=sweep_id)
    store.votes.add(vote)
    return vote


def _undo(store: Store, left: Run, right: Run, voter: str) -> Vote:
    own = [vote for vote in store.votes.select([left.run_id, right.run_id]) if vote.voter == voter]
    if not own:
        raise ConfigError(f"{voter} has no vote on these two runs that could be taken back.")
    store.votes.undo(own[-1].vote_id)
    return own[-1]


def checked_choice(choice: str) -> str:
    """A choice, however its words are joined; raises ConfigError for what is none."""
    if not isinstance(choice, str):
        raise ConfigError(f"A vote is one of {', '.join(WORDS[:-1])}, not a value of type {type(choice).__name__}.")
    one_of("A vote", choice.replace("_", "-"), WORDS[:-1])
    return choice.replace("-", "_")


def checked_voter(voter: str | None) -> str:
    """A voter's name, the login name when omitted; raises ConfigError where it is empty, or too long."""
    if voter is None:
        return login_name()
    if not isinstance(voter, str) or not voter.strip() or len(voter) > 200:
        raise ConfigError("voter takes a name of 1 to 200 characters.")
    name = plain(voter.strip()).replace("\n", " ")
    if name.startswith(JUDGE):
        raise ConfigError(f"A person's name can't begin with {JUDGE!r}: that is how judges' votes are told apart.")
    return name


def votes_by(votes: Iterable[Vote], voter: str | Iterable[str] | None = None) -> list[Vote]:
    """Those of the votes that one voter has cast, or several; when omitted, those of all people, and no judge.

    Raises:
        ConfigError: one that is named has cast none of these; says who has.
    """
    given = list(votes)
    if voter is None:
        return [vote for vote in given if not vote.by_judge]
    named = [voter] if isinstance(voter, str) else list(voter)
    known = list(dict.fromkeys(vote.voter for vote in given))
    for name in named:
        if name not in known:
            hint = did_you_mean(str(name), known, otherwise=f"Who has: {', '.join(known) or 'nobody'}.")
            raise ConfigError(f"{name!r} has no vote on these runs. {hint}")
    return [vote for vote in given if vote.voter in named]


def login_name() -> str:
    """Who is logged in, as far as the system knows."""
    try:
        return plain(getpass.getuser()) or "unknown"
    except (ImportError, KeyError, OSError):  # no such user in a container, no such module on Windows
        return "unknown"


def _checked_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= _LARGEST_SEED:
        raise ConfigError("seed takes a whole number of 0 or more.")
    return seed
