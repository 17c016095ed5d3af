"""The commands of ``%xpander`` that look at runs which are there: compare, score, plot, vote, report, export."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xpander_magics.commands import Command
from xpander_magics.errors import ConfigError
from xpander_magics.kept import Kept
from xpander_magics.scoring.scorers import SCORERS

if TYPE_CHECKING:
    from xpander_magics.analysis.comparison import Comparison
    from xpander_magics.outcomes import Runs
    from xpander_magics.scoring.judge import Judge
    from xpander_magics.scoring.scorers import Scorer
    from xpander_magics.scoring.verdicts import Verdicts
    from xpander_magics.sending.sweeps import Watch
    from xpander_magics.session import Session
    from xpander_magics.voting.votes import Voting


class Analyses:
    """The analyses of one notebook.

    Args:
        variables: the notebook's.
        tell: writes text to the cell's output, made harmless.
    """

    def __init__(self, session: Session, variables: Mapping[str, Any], tell: Callable[[str], object]) -> None:
        self._session = session
        self._variables = variables
        self._tell = tell
        self._kept = Kept(session, variables)

    def compare(self, command: Command, ref: str | None = None) -> Comparison:
        """The comparison that a command asks for; one that a variable holds is taken as it is.

        Args:
            ref: what is compared; the command's first word when omitted.
        """
        from xpander_magics.analysis.comparison import Comparison
        from xpander_magics.analysis.comparison import compare as compared

        ref = ref or next(iter(command.words), None)
        about = self._subjects(ref, command)
        options: dict[str, Any] = {
            "by": command.by,
            "score": self._scorers(command),
            "expected": command.expected,
            "failures": command.failures,
            "correction": command.correction,
            "noise": self._subjects(command.noise, command) if command.noise else None,
        }
        said = {name: value for name, value in options.items() if value is not None}
        if isinstance(about, Comparison):
            if said:
                raise ConfigError(
                    f"{ref} is a comparison already, which takes --baseline alone. "
                    "Compare its runs anew: %xpander compare RUNS …"
                )
            return about.against(command.baseline) if command.baseline else about
        return compared(about, baseline=command.baseline, **said)

    def _subjects(self, ref: str | None, command: Command) -> Any:
        """What is meant by a variable, a file, a sweep's id; by nothing: an experiment, or the newest sweep."""
        import pandas as pd

        from xpander_magics.analysis.comparison import Comparison
        from xpander_magics.analysis.noise import NoiseRuns

        if ref is None and command.experiment is not None:
            frame = self._session.store.frame(experiment=command.experiment)
            if frame.empty:
                raise ConfigError(f"No kept run is of the experiment {command.experiment!r}: %xpander runs lists them.")
            return frame
        held = self._variables.get(ref) if ref is not None else None
        if isinstance(held, (Comparison, NoiseRuns, pd.DataFrame, list)) or (ref or "").endswith(".ipynb"):
            return held if held is not None else ref
        return self._kept.runs(ref)

    def _scorers(self, command: Command) -> list[Scorer | Judge] | None:
        """The scorers that ``--score`` names, the notebook's own among them; None where it isn't given."""
        from xpander_magics.scoring.keeping import scorers_named

        return scorers_named(command.score, self._variables, command.expected is not None) if command.score else None

    def score(self, command: Command) -> Verdicts | None:
        """Scores answers one by one; with ``--pairs`` a judge compares two at a time."""
        from xpander_magics.scoring.judge import Judge
        from xpander_magics.scoring.keeping import score, scorers_named

        words = list(command.words)
        ref = words.pop(0) if words and not self._is_scorer(words[0]) else None
        specs = [*words, *command.score]
        if not specs:
            raise ConfigError(f"%xpander score takes a scorer: {', '.join(SCORERS)}TARGET, or a function's name.")
        runs = self._kept.runs(ref)
        scorers = scorers_named(specs, self._variables, command.expected is not None or command.pairs)
        judges = [one for one in scorers if isinstance(one, Judge)]
        if command.pairs and (len(scorers) != 1 or not judges):
            raise ConfigError("--pairs takes one judge: %xpander score RUNS judge:TARGET --pairs")
        if command.dry_run:
            self._quote(runs, scorers, command)
            return None
        if not command.pairs:
            score(runs, scorers, command.expected, session=self._session, tell=self._tell)
            for scorer in scorers:
                values = [run.scores[scorer.name] for run in runs if scorer.name in run.scores]
                mean = f", {statistics.fmean(values):.3g} on average" if values else ""
                self._tell(f"{scorer.name}: {len(values):,} of {len(runs):,} runs have a score{mean}.\n")
            return None
        return runs.judge(judges[0], expected=command.expected)

    def _quote(self, runs: Runs, scorers: Sequence[Any], command: Command) -> None:
        """What judges would send; other scorers send nothing."""
        from xpander_magics.scoring.judge import Judge

        for judge in scorers:
            if not isinstance(judge, Judge):
                self._tell(f"{judge.name} sends nothing.\n")
            elif command.pairs:
                self._tell(runs.quote_judge(judge, expected=command.expected))
            else:
                self._tell(judge.quote(runs, runs.expected_answers(command.expected), self._session))

    def _is_scorer(self, word: str) -> bool:
        """Whether a word names a scorer, and not the runs that are to be scored."""
        held = self._variables.get(word)
        named = word.rpartition("=")[2].partition(":")[0]
        if held is None:
            return named in (*SCORERS, "judge")
        return not (isinstance(held, Sequence) or hasattr(held, "columns"))  # a DataFrame of runs scores nothing

    def diff(self, command: Command) -> Any:
        """Two runs side by side."""
        from xpander_magics.analysis.diffs.difference import diff

        if len(command.words) != 2:
            raise ConfigError("%xpander diff takes two runs: their ids, or variables that hold them. %xpander runs")
        return diff(*(self._kept.find(ref) for ref in command.words))

    def noise(self, command: Command, watch: Watch | None) -> Any:
        """One setup twice; with ``--dry-run``, what that would send."""
        from xpander_magics.analysis.noise import noise, quoted

        runs = self._kept.runs(next(iter(command.words), None))
        if command.dry_run:
            self._tell(quoted(runs, command.baseline))
            return None
        score, expected = self._scorers(command), command.expected
        return noise(runs, command.baseline, score=score, expected=expected, watch=watch, tell=self._tell)

    def plot(self, command: Command) -> Any:
        """A comparison as a picture."""
        from xpander_magics.analysis.pictures.plots import KINDS, plot

        words = list(command.words)
        kind = words.pop() if words and words[-1] in KINDS else None
        if len(words) > 1:
            raise ConfigError(f"There is no plot {words[-1]!r}; there are {', '.join(KINDS)}.")
        compared = self.compare(command, words[0] if words else None)
        return plot(compared, kind or KINDS[0], x=command.x, file=command.file)

    def report(self, command: Command) -> None:
        """A comparison as a page of HTML."""
        if not command.words:
            raise ConfigError("%xpander report takes a file: %xpander report study.html RUNS")
        path, *ref = command.words
        written = self.compare(command, ref[0] if ref else None).report(path, title=command.title)
        self._tell(f"Written: {written}\n")

    def export(self, command: Command) -> None:
        """Runs as a file."""
        from xpander_magics.analysis.comparison import Comparison
        from xpander_magics.analysis.exports.exports import exported

        if not command.words:
            raise ConfigError("%xpander export takes a file: %xpander export results.csv RUNS")
        path, *ref = command.words
        about = self._subjects(ref[0] if ref else None, command)
        default = "comparison" if isinstance(about, Comparison) else "runs"
        self._tell(f"{exported(about, path, what=command.what or default).words}\n")

    def vote(self, command: Command, *, widgets: bool) -> Any:
        """A vote on two answers: by a widget, or as text."""
        from xpander_magics.voting.votes import WORDS, Voting

        words = command.words
        if len(words) > 1:
            self._cast(command)
        elif words and words[0] in WORDS:
            self._judge(words[0])
        else:
            runs = self._kept.runs(words[0] if words else None)
            if widgets:
                return runs.vote(voter=command.voter, seed=command.seed)
            store, sweep_id = self._session.store, runs.sweep_id
            self._session.voting = Voting(runs, store, sweep_id=sweep_id, voter=command.voter, seed=command.seed)
            self._show_pair(self._session.voting, standing=True)
        return None

    def _judge(self, word: str) -> None:
        """Votes on the pair that was shown as text, and shows the next."""
        voting = self._session.voting
        if voting is None:
            raise ConfigError(f"No pair is shown that could be judged {word}: %xpander vote RUNS shows one.")
        if word == "undo":
            self._tell("Taken back.\n" if voting.undo() else "There is no vote to take back.\n")
        else:
            vote = voting.cast(word)
            left, right = (voting.contest.side(run_id) for run_id in (vote.left_run, vote.right_run))
            self._tell(f"Kept: {word}. The left one was {left}, the right one {right}.\n")
        self._show_pair(voting)

    def _show_pair(self, voting: Voting, *, standing: bool = False) -> None:
        """Two answers without their names; how it stands at the beginning, and once all are judged."""
        from xpander_magics.showing.tables import standing_bundle
        from xpander_magics.voting.votes import WORDS

        same = f"; {voting.identical:,} not asked, as both answers are the same" if voting.identical else ""
        told = f"{voting.judged:,} of {voting.total:,} pairs are judged by {voting.voter}{same}.\n"
        pair = voting.shown()
        if standing or pair is None:
            self._tell(f"{standing_bundle(voting.contest, voting.votes())['text/plain']}\n")
        self._tell(told)
        if pair is None:
            return
        left, right = pair
        parts = {"asked": left.prompt, "left": left.result, "right": right.result}
        shown = "".join(f"--- {name}\n{text}\n" for name, text in parts.items())
        self._tell(f"{shown}--- To judge: %xpander vote {'|'.join(WORDS)}\n")

    def _cast(self, command: Command) -> None:
        from xpander_magics.voting import votes

        if len(command.words) != 3:
            raise ConfigError(f"%xpander vote takes two runs and one of {', '.join(votes.WORDS)}.")
        left, right = (self._kept.find(ref) for ref in command.words[:2])
        vote = votes.cast(self._session.store, left, right, command.words[2], command.voter)
        told = "Taken back" if command.words[2] == "undo" else "Kept"
        sides = f"left {vote.left_run[:8]}, right {vote.right_run[:8]}"
        self._tell(f"{told}: {vote.choice.replace('_', ' ')} ({sides}), by {vote.voter}.\n")
