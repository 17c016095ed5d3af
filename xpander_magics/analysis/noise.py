"""``%xpander noise``: the same setup twice, to learn which differences between setups are only noise.

Each input of one configuration is sent twice with the same settings, and half of the inputs have their first turn in
one arm, half in the other. So both arms are spread alike over the time that it takes, and the two answers to an input
are far apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from xpander_magics.asked import configuration_named
from xpander_magics.errors import ConfigError
from xpander_magics.matrix import NO_ANSWER, matrix_of
from xpander_magics.outcomes import Runs
from xpander_magics.plans.grid import Asking, grid_of
from xpander_magics.plans.terms import repeat_options
from xpander_magics.results import Run
from xpander_magics.safety import plain
from xpander_magics.scoring.keeping import score as score_runs
from xpander_magics.scoring.scorers import scorer_of
from xpander_magics.showing.markup import AS_IT_IS, escape
from xpander_magics.tally import counted
from xpander_magics.voting.standing import has_statistics, no_statistics

if TYPE_CHECKING:
    from xpander_magics.analysis.comparison import Comparison
    from xpander_magics.analysis.estimates import Noise
    from xpander_magics.plans.grid import Grid
    from xpander_magics.sending.sweeps import Watch
    from xpander_magics.session import Session

TAG = "noise"
"""What these runs are tagged with."""
_ARMS = ("first", "second")
_TIMES = len(_ARMS)


class NoiseRuns(Runs):
    """Runs of one setup, each input twice. Shows what they tell; ``compare(..., noise=...)`` takes them as they are.

    Attributes:
        setup: the configuration's name.
        notes: what has to be said about the scores.
    """

    setup = ""
    notes: tuple[str, ...] = ()

    @property
    def arms(self) -> list[str]:
        """Which arm each run is of: ``first`` or ``second``."""
        return [_ARMS[((entry.number or 0) // _TIMES + (entry.number or 0)) % _TIMES] for entry in self.entries]

    @property
    def comparison(self) -> Comparison:
        """The second arm compared with the first, by all scores that the runs have.

        Raises:
            ConfigError: none of them has ended.
        """
        from xpander_magics.analysis.comparison import compare

        return compare(self.df.assign(arm=self.arms), by="arm", baseline=_ARMS[0])

    @property
    def noise(self) -> dict[str, Noise]:
        """How far apart two mean scores of this setup lie, by the score's name; see ``estimates.noise_floor``.

        That is for means of two runs an input; of one run each they lie 1.41 times as far apart.
        """
        from xpander_magics.analysis.comparison import compare

        return compare(self.df).noise

    def equal_answers(self) -> tuple[int, int]:
        """For how many inputs both answers are equal, as the board has it; and how many have two answers."""
        matrix = matrix_of(self)
        both = [[matrix.outcomes[number].answer for number in numbers] for numbers in matrix.cells.values()]
        pairs = [answers for answers in both if len(answers) == _TIMES and NO_ANSWER not in answers]
        return sum(len(set(answers)) == 1 for answers in pairs), len(pairs)

    def report(self) -> str:
        """What they tell, in words."""
        lines = [
            f"The same setup twice: {self.setup}, {counted(len(self) // _TIMES, 'input')}, {counted(len(self), 'run')}."
        ]
        equal, pairs = self.equal_answers()
        if not pairs:
            return f"{lines[0]} No input has two answers yet."
        lines.append(f"Both answers are equal for {equal:,} of {counted(pairs, 'input')} ({equal / pairs:.0%}).")
        compared, noise = self.comparison, self.noise
        table = compared.table
        lines += [_difference(row, compared, noise) for row in compared.differences.to_dict("records")]
        seconds = [f"{value:.2f}" for value in table["seconds_p50"].dropna()]
        if len(seconds) == _TIMES:
            lines.append(f"Seconds, the median: {' and '.join(seconds)}.")
        failures = int(table["failures"].sum())
        if failures:
            lines.append(f"{counted(failures, 'run')} failed: {compared.failures}")
        lines += [] if has_statistics() else [no_statistics()]
        return plain("\n".join([*lines, *self.notes]))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        told, bundle = self.report(), super()._repr_mimebundle_()
        lines = "".join(f"<div>{escape(line)}</div>" for line in told.splitlines())
        return {
            **bundle,
            "text/plain": f"{told}\n{bundle['text/plain']}",
            "text/html": f'<div class="xpander-noise {AS_IT_IS}">{lines}{bundle["text/html"]}</div>',
        }


def _difference(row: dict[Any, Any], comparison: Comparison, noise: dict[str, Noise]) -> str:
    """What a score tells of the two arms."""
    import pandas as pd

    name = row["score"]
    means = dict(zip(comparison.table["configuration"], comparison.table[name], strict=True))
    both = " and ".join(f"{means[arm]:.3g}" for arm in comparison.names)
    told = f"{name}, the mean: {both}; difference {_signed(row['difference'])}"
    if not pd.isna(row["low"]):  # where it can't be estimated
        told += f" (95% interval {_signed(row['low'])} to {_signed(row['high'])})"
    if name in noise and not noise[name].floor:
        told += ". Repeats never differed: a noise floor of 0"
    elif name in noise:
        twice = noise[name].floor
        told += (
            f". Noise floor {math.sqrt(_TIMES) * twice:.3g} where each input is sent once, {twice:.3g} where twice:"
            " a smaller difference between two setups may be noise"
        )
    return f"{told}."


def _signed(value: float) -> str:
    return f"{value:+.3g}"


def noise(
    runs: Runs | Iterable[Run],
    configuration: str | None = None,
    *,
    score: Any = None,
    expected: str | None = None,
    watch: Watch | None = None,
    tell: Callable[[str], object] = print,
) -> NoiseRuns:
    """Sends each input of one configuration twice, and tells how much the same setup differs from itself.

    Args:
        runs: ``Runs``, or a list of ``Run``. What they were asked is asked again, with their settings, files and
            schema; ``-j``, ``--rpm`` and ``--timeout`` are those of ``%xpander use``.
        configuration: a configuration's name, as the board and comparisons have it, or a part of it; the first when
            omitted.
        score: a scorer, or several; when omitted, those by which the runs were scored, where they can be had again:
            functions and judges can't.
        expected: what the answers should be, by a variable's name.
        watch: told how the sweep stands; a progress bar when omitted.
        tell: told how many runs will be sent, before any is.

    Returns:
        The new runs, tagged ``noise``, of the same experiment.

    Raises:
        ConfigError: there are no such runs, or they can't be sent again: turns of a conversation, runs with secrets,
            runs of another service.
        XpanderError: what stopped the sweep.
    """
    session, given, name = _setup_of(runs, configuration)
    grid = noise_grid(session, given)
    tell(f"Sending {counted(len(grid), 'run')}: {counted(len(given), 'input')} of {plain(name)}, each twice.\n")
    sent = session.sweep(grid, watch)
    found = NoiseRuns(session, sent.sweep_id, sent.entries, sent.held, sent.grid)
    found.setup = name
    if score is not None:
        score_runs(found, score, expected, tell=tell)
    else:
        found.notes = tuple(_score_alike(session, found, given, tell))
    return found


def quoted(runs: Runs | Iterable[Run], configuration: str | None = None) -> str:
    """What ``noise`` would send, as ``--dry-run`` tells it."""
    session, given, _ = _setup_of(runs, configuration)
    return session.dry_run(noise_grid(session, given), session.defaults)


def noise_grid(session: Session, runs: Iterable[Run]) -> Grid:
    """All that is sent: what each of these runs asked, twice. Raises as ``terms.repeat_options``."""
    client, given = session.client, list(runs)
    asked = [Asking(run.prompt or "", repeat_options(run, [TAG], client), run.variables) for run in given]
    templates = {run.template for run in given}
    chosen = {name: getattr(session.defaults, name) for name in ("jobs", "rpm", "timeout")}
    return grid_of(
        asked,
        client,
        lambda ref: None,
        template=templates.pop() if len(templates) == 1 else None,
        repeat=_TIMES,
        **{name: value for name, value in chosen.items() if value is not None},
    )


def _setup_of(runs: Runs | Iterable[Run], configuration: str | None) -> tuple[Session, list[Run], str]:
    """The session, a run of each input of the configuration that is meant, and the configuration's name."""
    from xpander_magics.session import Session, default_session

    kept = runs.session if isinstance(runs, Runs) else None
    session = kept if isinstance(kept, Session) else default_session()
    several = list(runs) if isinstance(runs, Iterable) else [runs]
    if not several or not all(isinstance(run, Run) for run in several):
        raise ConfigError("noise takes Runs, or a list of Run, of which one setup is sent again.")
    matrix = matrix_of(several)
    number = 0 if configuration is None else configuration_named(configuration, matrix.names)
    places = [numbers[0] for (_, at), numbers in sorted(matrix.cells.items()) if at == number]
    return session, [several[place] for place in places], matrix.names[number]


def _score_alike(session: Session, runs: NoiseRuns, given: list[Run], tell: Callable[[str], object]) -> list[str]:
    """Scores the runs as those that they repeat were scored; returns what couldn't be."""
    by_name: dict[str, dict[str, tuple[str, Any]]] = {}
    for one in session.store.scores.select([run.run_id for run in given]):
        by_name.setdefault(one.name, {})[one.run_id] = one.scorer, one.detail.get("expected")
    notes = []
    for name, said in by_name.items():
        spec, _ = next(reversed(list(said.values())))
        try:
            scorer = scorer_of(f"{name}={spec}")
        except ConfigError:
            notes.append(f"They have no score {name}: {spec} isn't made again by itself. runs.score(...) does it.")
            continue
        expected = [said.get(run.run_id, (spec, None))[1] for run in given for _ in _ARMS]
        score_runs(runs, scorer, expected if scorer.needs_expected else None, tell=tell)
    return notes
