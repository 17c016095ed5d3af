"""A cell's runs scored as they land: what ``--score`` and ``--expected`` say, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xpander_magics.errors import ConfigError
from xpander_magics.results import Run
from xpander_magics.scoring.keeping import Misses, Session, judged, scored, scorers_named, unknown_name
from xpander_magics.scoring.measures import plain_value, shortened
from xpander_magics.scoring.scorers import Scorer
from xpander_magics.store.scores import Score
from xpander_magics.template import as_json
from xpander_magics.votes import login_name

if TYPE_CHECKING:
    from xpander_magics.scoring.judge import Judge


class Scoring:
    """What the runs of a cell are scored by as they land.

    Attributes:
        written: the scorers as they were written, for another kernel; a function by its name.
        expected: the variable that says what is expected.
        judges: those that score what has landed, once all has.
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
        return [one for scorer in self.scorers for one in scored(scorer, [run], [wanted], self._who, self._misses)]

    def lacks(self, run: Run) -> bool:
        """Whether a run that landed unseen is yet to be scored."""
        return any(scorer.name not in run.scores for scorer in self.scorers)

    def judge(self, runs: Sequence[Run], session: Session, tell: Callable[[str], object]) -> None:
        """Has the judges score what has landed."""
        expected = None if self.expected is None else [run.variables.get(self.expected) for run in runs]
        for judge in self.judges:
            judged(judge, runs, expected, session, None, tell)

    def told(self) -> str:
        """How many runs have no score, and why; empty where all is well."""
        lost = "".join(
            f"The scorer {one} belongs to another kernel: runs.score(...) scores what has landed.\n"
            for one in self.lost
        )
        return f"{lost}{self._misses.told()}"


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


def restored_scoring(written: Sequence[str], expected: str | None, rows: Sequence[dict[str, Any]]) -> Scoring:
    """What ``Scoring.written`` says, in another kernel; what it can't make is ``lost``."""
    scorers: list[Scorer | Judge] = []
    lost = []
    for one in written:
        try:
            made = make_scoring([one], expected, {}, rows)
        except ConfigError:
            lost.append(shortened(one))
        else:
            scorers += (*made.scorers, *made.judges) if made is not None else ()
    scoring = Scoring(scorers, written, expected)
    scoring.lost = lost
    return scoring
