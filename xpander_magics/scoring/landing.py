"""A cell's runs scored as they land: what ``--score`` and ``--expected`` say, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xpander_magics.cell import Options, is_template
from xpander_magics.errors import ConfigError, StoreError, XpanderError
from xpander_magics.plans.template import as_json, render
from xpander_magics.results import Run
from xpander_magics.scoring.keeping import Misses, Session, judged, scored, scorers_named, unknown_name
from xpander_magics.scoring.measures import Unscored, plain_value, shortened
from xpander_magics.scoring.scorers import Scorer
from xpander_magics.store.scores import Score
from xpander_magics.voting.votes import login_name

if TYPE_CHECKING:
    from xpander_magics.plans.grid import Grid
    from xpander_magics.plans.plan import Plan
    from xpander_magics.scoring.judge import Judge
    from xpander_magics.tally import Tally

    Watch = Callable[[Tally], object]


class Scoring:
    """What the runs of a cell are scored by as they land.

    Attributes:
        written: the scorers as they were written, for another kernel; a function by its name.
        expected: the variable that says what is expected.
        scorers: those that score a run when it lands.
        judges: those that score what has landed, once all has.
        lost: those of ``written`` that this kernel can't make.
    """

    def __init__(self, scorers: Sequence[Scorer | Judge], written: Sequence[str], expected: str | None) -> None:
        self.written = tuple(written)
        self.expected = expected
        self.judges = [one for one in scorers if not isinstance(one, Scorer)]
        self.lost: list[str] = []
        self.scorers = [one for one in scorers if isinstance(one, Scorer)]
        self._who = login_name()
        self._misses = Misses()

    def landed(self, run: Run, variables: Mapping[str, Any] | None = None) -> list[Score]:
        """Scores a run that has ended; a scorer's trouble is counted, and never the run's.

        Args:
            variables: what it was made of; its own when omitted.

        Returns:
            The scores, to be kept.
        """
        wanted = None if self.expected is None else (variables or run.variables).get(self.expected)
        scores: list[Score] = []
        for scorer in self.scorers:
            try:
                scores += scored(scorer, [run], [wanted], self._who, self._misses)
            except Exception as error:  # it can't score at all: a broken installation, say
                reason = Unscored(f"it raised {type(error).__name__}: {error}"[:300], is_error=True)
                self._misses.add(scorer.name, [(run.run_id, reason)])
        return scores

    def lacks(self, run: Run) -> bool:
        """Whether a run that landed unseen is yet to be scored."""
        return any(scorer.name not in run.scores for scorer in self.scorers)

    def end_one(self, run: Run, variables: Mapping[str, Any], session: Session) -> None:
        """Scores a run of its own, which has landed. What goes wrong is said: the run was paid for, and stays.

        Args:
            variables: what it was asked with; a kept run that was given out again has others of its own.
        """
        try:
            session.store.scores.add(self.landed(run, variables))
            run.said = self.end([run], session)
        except StoreError as error:
            run.said = f"Its scores aren't kept. {error}\n"

    def end(self, runs: Sequence[Run], session: Session, watch: Watch | None = None, *, waits: bool = False) -> str:
        """Has the judges score what has landed.

        Args:
            waits: whether some of the runs are yet to come; then the judges aren't asked.

        Returns:
            What there is to say: what the judges said, how many runs have no score, and why.
        """
        told: list[str] = []
        expected = None if self.expected is None else [run.variables.get(self.expected) for run in runs]
        for judge in self.judges:
            if waits:
                told.append(f"{judge.name} judges once all has landed: resume it, or score(...) what there is.\n")
                continue
            try:
                judged(judge, runs, expected, session, watch, told.append)
            except XpanderError as error:  # the runs are in, and were paid for
                told.append(f"{judge.name} has given no scores: {error}\n")
        return f"{''.join(told)}{self._missing()}"

    def _missing(self) -> str:
        misses, self._misses = self._misses, Misses()
        lost = "".join(
            f"The scorer {one} belongs to another kernel: runs.score(...) scores what has landed.\n"
            for one in self.lost
        )
        return f"{lost}{misses.told()}"


def scored_plan(plan: Plan, options: Options, variables: Mapping[str, Any]) -> Plan:
    """A plan with what its cell's ``--score`` and ``--expected`` say; raises as ``make_scoring``."""
    scoring = make_scoring(_rendered(options, variables), options.expected, variables, [plan.run.variables])
    if scoring is None:
        return plan
    plan.run.variables = plan.redact(plan.run.variables)  # which may have got what is expected
    return replace(plan, scoring=scoring)


def scored_grid(grid: Grid, options: Options, variables: Mapping[str, Any]) -> Grid:
    """A grid with what its cell's ``--score`` and ``--expected`` say; raises as ``make_scoring``."""
    rows = [one.variables for one in grid.inputs]
    grid.scoring = make_scoring(_rendered(options, variables), options.expected, variables, rows)
    if grid.scoring is not None:
        grid.scores, grid.expected = grid.scoring.written, grid.scoring.expected
    return grid


def _rendered(options: Options, variables: Mapping[str, Any]) -> list[Any]:
    return [
        render(one, variables, what="--score").text if is_template(one) and not options.raw else one
        for one in options.scores
    ]


def make_scoring(
    given: Sequence[Any], expected: str | None, variables: Mapping[str, Any], rows: Sequence[dict[str, Any]]
) -> Scoring | None:
    """What a cell's ``--score`` and ``--expected`` say, checked before anything is sent; None where they say nothing.

    Args:
        variables: the notebook's.
        rows: the variables of each input. Where none has ``expected``, and the notebook has, each of them gets it.

    Raises:
        ConfigError: see ``scorers_named``; or there is no such column.
    """
    if not given:
        if expected is not None:
            raise ConfigError("--expected says what answers are scored by: add --score exact, say.")
        return None
    if expected is not None and not isinstance(expected, str):
        raise ConfigError("expected names a variable; once runs are in, runs.score(...) takes a list, too.")
    scorers = scorers_named(list(given), variables, expected is not None)
    if expected is not None:
        if not any(expected in row for row in rows):
            own = plain_value(variables.get(expected))
            if not isinstance(own, (str, bool, int, float, dict, list)):
                raise unknown_name(expected, {name for row in rows for name in row})
            for row in rows:
                row[expected] = as_json(own)
        values = [row.get(expected) for row in rows]
        scorers = [one.prepared(values) if isinstance(one, Scorer) else one for one in scorers]
    written = [one if isinstance(one, str) else scorer.spec for one, scorer in zip(given, scorers, strict=True)]
    return Scoring(scorers, written, expected)


def restored_scoring(grid: Grid) -> Scoring | None:
    """What a grid's ``scores`` say, in another kernel; what it can't make is ``lost``."""
    if not grid.scores:
        return None
    scorers: list[Scorer | Judge] = []
    lost, rows = [], [one.variables for one in grid.inputs]
    for one in grid.scores:
        try:
            made = make_scoring([one], grid.expected, {}, rows)
        except ConfigError:
            lost.append(shortened(one))
        else:
            scorers += (*made.scorers, *made.judges) if made is not None else ()
    scoring = Scoring(scorers, grid.scores, grid.expected)
    scoring.lost = lost
    return scoring
