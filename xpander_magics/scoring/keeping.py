"""Runs that have landed are scored, and their scores kept: with who had it done, and when."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from xpander_magics.errors import ConfigError, did_you_mean
from xpander_magics.results import Run
from xpander_magics.safety import Redactor, plain, secret_variables
from xpander_magics.scoring.measures import Unscored, plain_value
from xpander_magics.scoring.scorers import Scorer, answer_of, parts_of, scorer_of
from xpander_magics.store.columns import COLUMNS
from xpander_magics.store.scores import Score
from xpander_magics.voting.votes import login_name

if TYPE_CHECKING:
    from xpander_magics.opinions import Sending
    from xpander_magics.outcomes import Runs
    from xpander_magics.scoring.judge import Judge
    from xpander_magics.store import Store
    from xpander_magics.tally import Tally

_BATCH = 2_000
NO_ANSWER = "no answer that can be used"

Scored = TypeVar("Scored", bound="Runs | Run | Sequence[Any]")


class Session(Protocol):
    """What scoring asks of the session that runs came from."""

    @property
    def store(self) -> Store: ...


def say(text: str) -> None:
    """Writes what couldn't be scored, and why; a scorer's error may quote an answer."""
    print(plain(text), end="", flush=True)


def score(
    runs: Scored,
    scorer: Any,
    expected: Any = None,
    *,
    variables: Mapping[str, Any] | None = None,
    session: Session | None = None,
    watch: Callable[[Tally], object] | None = None,
    tell: Callable[[str], object] | None = None,
) -> Scored:
    """Scores runs that have landed, and keeps the scores with who had it done and when.

    The newest score of a name is ``run.scores[NAME]`` and the frame's ``score_NAME``; those before
    it stay in ``runs.score_history()``. Scores are float64; most lie between 0, wrong, and 1, right.

    Args:
        runs: ``Runs``, a ``Run``, or a list of these.
        scorer: a text such as ``"exact"`` or ``"close=numeric:5%"``, a function, a ``Judge``, or a
            list of these. The texts: ``exact``, ``normalized``, ``contains``, ``regex:PATTERN``,
            ``numeric[:TOLERANCE|P%]``, ``choice[:a|b|c]``, ``json``, ``fields[:a,b]``,
            ``schema[:NAME]``, ``similarity``, ``embedding``, ``judge:TARGET``. A function takes the
            answer and, if it has a second argument, what is expected.
        expected: what the answers should be: the name of a variable that the runs were made of, else
            of a column; or a list or Series as long as the runs.
        variables: where functions, judges and schemas are looked for by name.
        session: what keeps the scores; the runs' own when omitted.
        watch: told how a judge's verdicts stand; a progress bar when omitted.
        tell: told how many runs have no score, and why; it is printed when omitted.

    Returns:
        The runs.

    Raises:
        ConfigError: there is no such scorer or no such column, or the scorer needs an expected value.
        StoreError: the scores can't be kept.
        XpanderError: what stops a judge's runs; see ``xp.sweep``.

    Example:
        >>> scored = xp.score(runs, ["exact", "short=regex:^.{1,8}$"], expected="label")
        >>> scored[0].scores
        {'exact': 1.0, 'short': 1.0}
    """
    tell = tell or say
    given = (
        cast("Sequence[Run]", runs)
        if _is_runs(runs)
        else runs_in(runs, "What is scored is Runs, a Run or a list of these")
    )
    if not len(given):
        return runs
    scorers = scorers_named(scorer, variables or {}, expected is not None)
    wanted = _Expected(expected, given)
    used = session or cast(Session, getattr(given, "session", None) or given[0]._session())
    scorers = [one.prepared(wanted.all()) if isinstance(one, Scorer) else one for one in scorers]
    misses, unkept, who = Misses(), set[str](), login_name()
    for start, batch in _batches(given):
        values = wanted.of(batch, start)
        scores = [
            one for rule in scorers if isinstance(rule, Scorer) for one in scored(rule, batch, values, who, misses)
        ]
        unkept |= used.store.scores.add(scores) & {one.run_id for one in scores if one.value is not None}
    for judge in scorers:
        if not isinstance(judge, Scorer):
            judged(judge, given, None if expected is None else wanted.all(), used, watch, tell)
    if unkept:
        tell(f"{len(unkept):,} of these runs aren't kept in this store, and so aren't their scores.\n")
    if told := misses.told():
        tell(told)
    return runs


def judged(
    judge: Judge,
    runs: Sequence[Run],
    expected: Iterable[Any] | None,
    session: Session,
    watch: Callable[[Tally], object] | None,
    tell: Callable[[str], object],
) -> None:
    """Has runs scored by a judge, which sends runs of its own, and keeps the scores; what it never saw stays."""
    from xpander_magics.scoring.judge import NOT_ASKED

    several, values = list(runs), None if expected is None else [plain_value(value) for value in expected]
    scores = judge.score_all(several, values, cast("Sending", session), watch=watch, tell=tell)
    seen = [pair for pair in zip(several, scores, strict=True) if pair[1].detail.get("problem") != NOT_ASKED]
    for run, one in seen:
        set_score(run, one.name, one.value)
    session.store.scores.add(one for _, one in seen)


def scorers_named(given: Any, variables: Mapping[str, Any], has_expected: bool) -> list[Scorer | Judge]:
    """The scorers that are meant, one or several.

    Raises:
        ConfigError: see ``scorer_named``; or two have one name, or one needs what isn't given.
    """
    several = given if isinstance(given, (list, tuple)) else [given]
    scorers = [scorer_named(one, variables) for one in several]
    if not scorers:
        raise ConfigError("No scorer is named: exact, say.")
    for name, count in Counter(one.name for one in scorers).items():
        if count > 1:
            raise ConfigError(f"Two scores would be named {name}: give one another name, such as strict={name}.")
    for one in scorers:
        if isinstance(one, Scorer) and one.needs_expected and not has_expected:
            raise ConfigError(
                f"The scorer {one.name} needs to know what is expected: --expected COLUMN, or expected=... in Python."
            )
    return scorers


def scorer_named(given: Any, variables: Mapping[str, Any]) -> Scorer | Judge:
    """A scorer or a judge: as it is, by its text, or by the name that the notebook has for it.

    Raises:
        ConfigError: there is none; says what is near.
    """
    from xpander_magics.scoring.judge import Judge

    if isinstance(given, Judge):
        return given
    if isinstance(given, str):
        name, word, argument = parts_of(given)
        held = variables.get(word)
        if isinstance(held, Judge) and argument is None:
            return held if name is None else _renamed(held, name)
        if word == "judge":
            if not (argument or "").strip():
                raise ConfigError("A judge is an agent or a workflow: judge:TARGET, or a Judge that a variable holds.")
            return Judge((argument or "").strip(), name=name)
    return scorer_of(given, variables)


def _renamed(judge: Judge, name: str) -> Judge:
    twin = copy.copy(judge)
    twin.name = name
    return twin


class Misses:
    """What couldn't be scored, and why; threads may add to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tried: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = {}
        self._errors: dict[str, tuple[str, str]] = {}

    def add(self, name: str, outcomes: Iterable[tuple[str, float | Unscored]]) -> None:
        """Counts what came of runs, by their ids."""
        with self._lock:
            reasons = self._reasons.setdefault(name, Counter())
            for run_id, outcome in outcomes:
                self._tried[name] += 1
                if not isinstance(outcome, Unscored):
                    continue
                reasons["trouble in scoring" if outcome.is_error else str(outcome)] += 1
                if outcome.is_error:
                    self._errors.setdefault(name, (run_id, str(outcome)))

    def told(self) -> str:
        """All of it, a line a score; empty where nothing is missing."""
        lines = []
        for name, reasons in self._reasons.items():
            if not reasons:
                continue
            why = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
            line = f"{reasons.total():,} of {self._tried[name]:,} runs have no score {name}: {why}."
            if name in self._errors:
                run_id, error = self._errors[name]
                line += f" The first trouble, at run {run_id[:8]}: {error}."
            lines.append(f"{line}\n")
        return "".join(lines)


def scored(scorer: Scorer, runs: Sequence[Run], expected: Sequence[Any], who: str, misses: Misses) -> list[Score]:
    """Scores runs by one scorer, and puts that into them."""
    answers = [answer_of(run) for run in runs]
    pairs = [(answer, value) for answer, value in zip(answers, expected, strict=True) if answer is not None]
    outcomes = iter(scorer.outcomes([answer for answer, _ in pairs], [value for _, value in pairs]))
    scores, every = [], [Unscored(NO_ANSWER) if answer is None else next(outcomes) for answer in answers]
    redact = Redactor(secret_variables().values())
    misses.add(scorer.name, ((run.run_id, outcome) for run, outcome in zip(runs, every, strict=True)))
    for run, outcome, value in zip(runs, every, expected, strict=True):
        wanted = plain_value(value) if scorer.needs_expected else None
        detail: dict[str, Any] = {} if wanted is None else {"expected": wanted}
        number = None if isinstance(outcome, Unscored) else outcome
        if number is None:
            detail["problem"] = str(outcome)
        set_score(run, scorer.name, number)
        scores.append(Score(run.run_id, scorer.name, number, scorer.spec, who, redact(detail)))
    return scores


def set_score(run: Run, name: str, value: float | None) -> None:
    """Puts a score into a run, or takes it away."""
    others = {other: score for other, score in run.scores.items() if other != name}
    run.scores = others if value is None else {**others, name: value}


class _Expected:
    """What is expected of runs, by a name or as a list."""

    def __init__(self, given: Any, runs: Sequence[Run]) -> None:
        self._name: str | None = None
        self._list: list[Any] | None = None
        self._runs = runs
        if isinstance(given, str):
            self._name = given
            self._in_variables = self._is_variable()
        elif given is not None:
            self._list = expected_list(given, len(runs))

    def _is_variable(self) -> bool:
        """Whether the name is one of the variables; ConfigError where it is nothing that the runs have."""
        known: set[str] = set()
        for run in self._runs:
            if self._name in run.variables:
                return True
            known.update(run.variables)
            if self._name in _COLUMN_NAMES:
                return False
        raise unknown_name(str(self._name), known)

    def of(self, runs: Sequence[Run], start: int) -> list[Any]:
        """The values for some of the runs, of which the first has this place."""
        if self._list is not None:
            return self._list[start : start + len(runs)]
        if self._name is None:
            return [None] * len(runs)
        if self._in_variables:
            return [run.variables.get(self._name) for run in runs]
        return [getattr(run, self._name) for run in runs]

    def all(self) -> Iterator[Any]:
        """The values for all of them."""
        for start, batch in _batches(self._runs):
            yield from self.of(batch, start)


_COLUMN_NAMES = frozenset(column.name for column in COLUMNS)


def expected_list(given: Any, count: int) -> list[Any]:
    """Expected values that were given as a list, an array or a Series; ConfigError where they are too many or few."""
    if hasattr(given, "tolist"):
        given = given.tolist()
    if not isinstance(given, (list, tuple)):
        raise ConfigError(
            "expected is a variable's or a column's name, or a list or Series;"
            f" not a value of type {type(given).__name__}."
        )
    if len(given) != count:
        raise ConfigError(f"There are {len(given):,} expected values for {count:,} runs: give one for each.")
    return list(given)


def unknown_name(name: str, known: Iterable[str]) -> ConfigError:
    """The error for an expected value that can't be found, with what is near."""
    names = sorted(known)
    shown = f"They have {', '.join(names[:10])}." if names else "They have no variables."
    return ConfigError(
        f"There is no variable or column {name!r} in these runs. {did_you_mean(name, names, otherwise=shown)}"
    )


def _is_runs(value: Any) -> bool:
    return hasattr(value, "entries") and hasattr(value, "session")


def runs_in(given: Any, takes: str) -> list[Run]:
    """The runs of a ``Run``, of ``Runs``, or of several of these.

    Args:
        takes: what may be given, for the error.

    Raises:
        ConfigError: it is something else.
    """
    is_one = _is_runs(given) or isinstance(given, (str, Mapping)) or not isinstance(given, Iterable)
    several = [given] if is_one else given
    found: list[Run] = []
    for one in several:
        if not isinstance(one, Run) and not _is_runs(one):
            wrong = one if isinstance(given, (list, tuple)) else given
            raise ConfigError(f"{takes}, not a value of type {type(wrong).__name__}.")
        found += [one] if isinstance(one, Run) else one
    return found


def _batches(runs: Sequence[Run]) -> Iterator[tuple[int, list[Run]]]:
    """The runs in batches, each with its place; of a large sweep, they are read as they are asked for."""
    start, each = 0, iter(runs)
    while batch := list(islice(each, _BATCH)):
        yield start, batch
        start += len(batch)
