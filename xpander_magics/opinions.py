"""What people and judges say of runs: votes, what they come to, and how far judges agree with people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from xpander_magics.errors import ConfigError, did_you_mean
from xpander_magics.results import Run

if TYPE_CHECKING:
    import pandas as pd

    from xpander_magics.cell import Options
    from xpander_magics.outcomes import Runs
    from xpander_magics.plans.grid import Grid
    from xpander_magics.scoring.judge import Judge
    from xpander_magics.scoring.verdicts import Pairing, Verdicts
    from xpander_magics.store import Store
    from xpander_magics.store.votes import Vote
    from xpander_magics.tally import Tally
    from xpander_magics.voting.pairs import Contest


class Sending(Protocol):
    """What a judge asks of the session that its own runs are sent by."""

    defaults: Options

    @property
    def store(self) -> Store: ...
    def grid(self, options: Options, template: str, variables: Mapping[str, Any]) -> Grid: ...
    def sweep(self, grid: Grid, watch: Callable[[Tally], object] | None = None) -> Runs: ...
    def dry_run(self, planned: Grid, options: Options) -> str: ...


class Opinions(Sequence[Run]):
    """Runs that can be judged, by people and by models.

    Attributes:
        session: where their votes are kept, and judges are asked.
        sweep_id: of the sweep that they are of.
    """

    session: Sending
    sweep_id: str

    @property
    def votes(self) -> pd.DataFrame:
        """People's votes on these runs, oldest first; without those that were taken back.

        ``vote_id`` (string), ``created_at`` (datetime64[us, UTC]), ``voter`` (string), ``choice``
        (category: left, right, both_good, both_bad, skip), ``left_run_id``, ``right_run_id``, and the
        configurations ``left``, ``right`` and ``winner`` (string; missing where neither won).
        ``votes_by`` has the judges'.
        """
        return self.votes_by(None)

    def votes_by(self, voter: str | Iterable[str] | None) -> pd.DataFrame:
        """The votes of a person, a judge, or several of them.

        Args:
            voter: a name, or several; None for all people's.

        Returns:
            A vote a row, with the columns of ``votes``.

        Raises:
            ConfigError: one of them has none on these runs.
        """
        from xpander_magics.voting.standing import votes_frame

        return votes_frame(*self._voted(voter))

    def win_rates(self, voter: str | Iterable[str] | None = None) -> pd.DataFrame:
        """How often each configuration won against each other one, by the votes.

        The interval is Wilson's (1927), at 95%. It takes votes as independent, which those of several
        persons on the same two answers aren't: with many of these it is too narrow.

        Args:
            voter: whose votes count: a person's or a judge's name, or several; all people's when omitted.

        Returns:
            A row for each two: ``configuration``, ``opponent`` (string), ``wins``, ``losses``,
            ``both_good``, ``both_bad``, ``skipped`` (Int64), ``win_rate``, ``low``, ``high`` (Float64:
            the share of decided votes; without statsmodels no interval).

        Raises:
            ConfigError: one of them has no votes on these runs.

        Example:
            >>> vote = runs.vote(voter="ada", seed=1).cast("left")
            >>> runs.win_rates("ada")[["configuration", "opponent", "wins", "losses"]].shape
            (1, 4)
        """
        from xpander_magics.voting.standing import win_rates_frame

        return win_rates_frame(*self._voted(voter))

    def strengths(self, voter: str | Iterable[str] | None = None) -> pd.DataFrame:
        """Each configuration's Bradley–Terry strength, by the votes, the strongest first.

        Strengths are log-odds against the mean of all (Bradley and Terry, 1952); 0 is the average
        configuration, a tie is half a win for each. The 95% intervals are robust to clusters by input.

        Args:
            voter: whose votes count: a person's or a judge's name, or several; all people's when omitted.

        Returns:
            A row for each: ``configuration`` (string), ``votes`` (Int64: without skipped ones),
            ``strength``, ``low``, ``high`` (Float64), ``note`` (string: why it has none, if so).

        Raises:
            ConfigError: one of them has no votes on these runs, or statsmodels is missing.
        """
        from xpander_magics.voting.standing import strengths_frame

        return strengths_frame(*self._voted(voter))

    def judge(
        self,
        judge: Judge | str,
        *,
        expected: str | Sequence[Any] | None = None,
        pairs: int | None = None,
        seed: int = 0,
    ) -> Verdicts:
        """Lets a judge say which of two answers to the same input is better, each pair in both orders.

        Its votes are kept under its own name: ``win_rates(voter)``, ``strengths(voter)``. A score for
        each answer by itself is ``score(judge)``.

        Args:
            judge: a ``Judge``, or the name of its target.
            expected: what each run should have answered: one of its variables by name, or a value for
                each run.
            pairs: no more than so many; all when omitted. Those that people have voted on come first.
            seed: what repeats and inputs are drawn with.

        Returns:
            The verdicts: wins, ties, how much the sides decided, what is missing.

        Raises:
            ConfigError: no two of these runs can be compared, or there is no such variable.
            XpanderError: what stops all of it.

        Example:
            >>> verdicts = runs.judge("judge", expected="label")
            2 verdicts by judge judge for 1 pair in both orders.
            >>> len(verdicts.votes)
            1
        """
        pairing = self._pairing(judge, expected, pairs, seed)
        return pairing.judged(self.session, self.sweep_id, _said)

    def quote_judge(
        self,
        judge: Judge | str,
        *,
        expected: str | Sequence[Any] | None = None,
        pairs: int | None = None,
        seed: int = 0,
    ) -> str:
        """What ``judge`` would send, and what that would take; nothing is sent.

        Args:
            judge, expected, pairs, seed: as for ``judge``.

        Returns:
            The first prompts and the quote, as ``--dry-run`` shows them.

        Raises:
            ConfigError: as ``judge``.
        """
        return self._pairing(judge, expected, pairs, seed).quote(self.session)

    def _pairing(
        self, judge: Judge | str, expected: str | Sequence[Any] | None, pairs: int | None, seed: int
    ) -> Pairing:
        from xpander_magics.scoring.judge import judge_of
        from xpander_magics.scoring.verdicts import pairing

        return pairing(judge_of(judge), self, self.session.store, self.expected_answers(expected), pairs, seed)

    def agreement(self) -> pd.DataFrame:
        """How far judges agree with people on these runs: a row for each judge that both have judged.

        A judge of pairs is compared by its votes, one of single answers by which of two scored higher.
        Kappa is Cohen's (1960), its 95% interval that of Fleiss, Cohen and Everitt (1969); the interval
        of the raw agreement is Wilson's (1927).

        Returns:
            ``judge``, ``of`` (string: ``pairs``, or ``scores``), ``pairs``, ``people``, ``agreed``
            (Int64), ``agreement``, ``low``, ``high``, ``kappa``, ``kappa_low``, ``kappa_high``
            (Float64), ``decided`` (Int64: pairs on which neither says tie), ``decided_agreement``
            (Float64), ``words`` (string).
        """
        from xpander_magics.voting.agreement import agreement_frame

        contest, store = self._contest(), self.session.store
        scores = store.scores.select(contest.answers)
        return agreement_frame(contest, store.votes.select(contest.answers), scores)

    def expected_answers(self, given: str | Sequence[Any] | None) -> Sequence[Any] | None:
        """What each run should have answered.

        Args:
            given: a variable's name, or the values themselves.

        Raises:
            ConfigError: no run has such a variable.
        """
        if not isinstance(given, str):
            return given
        if not any(given in run.variables for run in self):
            known = {name for run in self for name in run.variables}
            raise ConfigError(f"No run has a variable {given!r}. {did_you_mean(given, known)}".rstrip())
        return [run.variables.get(given) for run in self]

    def _voted(self, voter: str | Iterable[str] | None) -> tuple[Contest, list[Vote]]:
        from xpander_magics.voting.votes import votes_by

        contest = self._contest()
        return contest, votes_by(self.session.store.votes.select(contest.answers), voter)

    def _contest(self) -> Contest:
        from xpander_magics.voting.pairs import Contest

        return Contest(self)


def _said(text: str) -> None:
    print(text, end="", flush=True)
