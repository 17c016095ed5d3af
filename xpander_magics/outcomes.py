"""``Runs``: what a sweep has come to."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, overload

from xpander_magics.errors import TaskFailed, without_variables
from xpander_magics.opinions import Opinions, Sending
from xpander_magics.results import Run, has_failed

if TYPE_CHECKING:
    import pandas as pd

    from xpander_magics.analysis.comparison import Comparison
    from xpander_magics.plans.grid import Grid
    from xpander_magics.store.sweeps import State
    from xpander_magics.widgets.board import Board
    from xpander_magics.widgets.vote import VoteView

_BATCH = 500
# Up to so many runs stay in memory; of a larger sweep, each is read from the store when it is asked for.
HELD = 10_000


class Entry(NamedTuple):
    """A place in a sweep, and the run that has it; a run from elsewhere has no number there."""

    number: int | None
    run_id: str


class Sweeping(Sending, Protocol):
    """What ``Runs`` can ask of the session that they came from."""

    def planned(self, grid: Grid, number: int) -> Run: ...
    def retry(self, runs: Runs) -> None: ...
    def go_on(self, runs: Runs) -> None: ...
    def reply_all(self, runs: Runs, text: str) -> Runs: ...
    def begun(self, runs: Runs) -> None: ...


class Runs(Opinions):
    """The runs of a sweep, or some of them, in the order of its inputs, settings and repeats.

    ``xp.sweep`` and ``%%xpander -o NAME`` give them. ``runs[0]`` is a ``Run``, ``runs[:10]`` are
    ``Runs``, ``runs.df`` is a DataFrame. Those that haven't been sent are there, too: ``planned``.

    Attributes:
        sweep_id: of the sweep that they are of.
        said: what their scoring has to say, in this kernel only: how many have no score, and why.
        session, grid, held: what they act through, what they are planned by, what is in memory.

    Example:
        >>> len(runs), runs[0].result
        (4, 'bug')
        >>> len(runs.failed)
        0
        >>> runs.df["effort"].tolist()
        ['low', 'high', 'low', 'high']
    """

    session: Sweeping

    def __init__(
        self, session: Sweeping, sweep_id: str, entries: Sequence[Entry], held: dict[str, Run], grid: Grid | None = None
    ) -> None:
        self.sweep_id = sweep_id
        self.session = session
        self.grid = grid
        self._entries = list(entries)
        self._replaced: dict[str, str] = {}  # the ids of runs that were tried again; shared with all parts of a sweep
        self.held = held
        self.said = ""
        self._loaded: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()

    def __copy__(self) -> Runs:
        return self._some(self.entries)

    def __getstate__(self) -> dict[str, Any]:
        # The grid has secrets, and the session connections; the runs have neither.
        return {"sweep_id": self.sweep_id, "entries": self.entries, "held": {run.run_id: run for run in self}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from xpander_magics.session import default_session

        Runs.__init__(self, default_session(), **state)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> list[Entry]:
        """The places that these are, with the runs that have them now."""
        if not self._replaced:
            return self._entries
        return [Entry(entry.number, self._latest(entry.run_id)) for entry in self._entries]

    @entries.setter
    def entries(self, entries: Sequence[Entry]) -> None:
        self._entries = list(entries)

    def replace(self, run_id: str, by: str) -> None:
        """Puts another run in a run's place, here and in whatever part of the sweep holds it."""
        if run_id != by:
            self._replaced[run_id] = by

    def forget_unended(self, run_id: str) -> None:
        """Lets a run be read from the store again, where this kernel hasn't seen its end."""
        for kept in (self.held, self._loaded):
            run = kept.get(run_id)
            if run is not None and not run.ended:
                del kept[run_id]

    def _latest(self, run_id: str) -> str:
        while run_id in self._replaced:
            run_id = self._replaced[run_id]
        return run_id

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> Run | Runs:
        if isinstance(index, slice):
            return self._some(self.entries[index])
        return self._load([self.entries[index]])[0]

    def __iter__(self) -> Iterator[Run]:
        entries = self.entries
        for start in range(0, len(entries), _BATCH):
            yield from self._load(entries[start : start + _BATCH])

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.statuses().items())
        return f"Runs({self.sweep_id[:8]!r}, {len(self)} runs{f': {counts}' if counts else ''})"

    @property
    def df(self) -> pd.DataFrame:
        """A DataFrame of one row a run, in this order; columns and dtypes are those of ``xp.runs()``."""
        import pandas as pd

        from xpander_magics.store.frames import frame_of

        if len(self) <= HELD:
            return frame_of(self)
        ids = [entry.run_id for entry in self.entries]
        kept = self.session.store.frame(run_ids=ids)
        missing = set(ids).difference(kept["run_id"])
        planned = frame_of(run for entry in self.entries if entry.run_id in missing for run in self._load([entry]))
        frame: pd.DataFrame = kept
        if missing:
            for name in kept.select_dtypes("category"):  # pandas joins only like categories to categories
                known = kept[name].cat.categories.union(planned[name].cat.categories, sort=False)
                kept[name], planned[name] = (part[name].cat.set_categories(known) for part in (kept, planned))
            frame = pd.concat([kept, planned], ignore_index=True)
        # By their places: what --cached reuses may be there more than once.
        ordered: pd.DataFrame = frame.iloc[pd.Index(frame["run_id"]).get_indexer(ids)].reset_index(drop=True)
        return ordered

    @property
    def completed(self) -> Runs:
        """Those that ended well."""
        ends = zip(self.entries, self._ends(), strict=True)
        return self._some([entry for entry, end in ends if end.status == "completed" and end.error_type is None])

    @property
    def failed(self) -> Runs:
        """Those that ended without an answer that can be used: failed, stopped, unknown, or with an error.

        What waits to be sent, or for a person, isn't among them.
        """
        return self._some([entry for entry, end in zip(self.entries, self._ends(), strict=True) if has_failed(end)])

    def statuses(self) -> dict[str, int]:
        """How many have each status, the most frequent first."""
        return dict(Counter(end.status for end in self._ends()).most_common())

    def _ends(self) -> Iterator[Run | State]:
        """How each stands; of a large sweep without making a ``Run`` of each."""
        if len(self) <= HELD:
            yield from self
            return
        kept = {state.run_id: state for state in self.session.store.sweeps.states(self.sweep_id)}
        for entry in self.entries:
            yield self.held.get(entry.run_id) or kept.get(entry.run_id) or self._load([entry])[0]

    @without_variables
    def retry(self) -> Runs:
        """Sends those that failed again; each takes its old run's place once it has ended.

        The old ones stay kept.

        Returns:
            These runs.

        Raises:
            ConfigError: they can't be sent again from here, since they hold secrets, which aren't kept.
            XpanderError: what would have stopped the sweep.

        Example:
            >>> len(runs.retry().failed)
            0
        """
        self.session.retry(self)
        return self

    @without_variables
    def resume(self) -> Runs:
        """Goes on where the sweep was interrupted: collects what is under way, sends what never was.

        Returns:
            These runs.

        Raises:
            XpanderError: what would have stopped the sweep.
        """
        self.session.go_on(self)
        return self

    @without_variables
    def reply(self, text: str) -> Runs:
        """Goes on with each of these conversations, with each run's own settings.

        Args:
            text: sent as it is, not as a template.

        Returns:
            The new runs.

        Raises:
            ConfigError: one of them has no conversation.
            XpanderError: what stops all of it.

        Example:
            >>> [run.result for run in runs[:2].reply("Say hi to Ada.")]
            ['Hi Ada!', 'Hi Ada!']
        """
        return self.session.reply_all(self, text)

    def board(self) -> Board:
        """These runs as a grid to filter, compare and annotate: inputs by configurations.

        Returns:
            A widget; where none can run, it shows a table.
        """
        from xpander_magics.widgets.board import Board

        return Board(self)

    def vote(self, *, voter: str | None = None, seed: int | None = None) -> VoteView:
        """Asks which of two answers to the same input is better, telling whose they are only after the vote.

        What was voted is in ``votes``; what it comes to, in ``win_rates()`` and ``strengths()``.

        Args:
            voter: who judges; the login name when omitted.
            seed: what order and sides are shuffled with; the same one gives the same session. Kept with
                the votes.

        Returns:
            A widget; where none can run, it shows how the votes stand. Its ``cast`` and ``undo`` do what
            its buttons do.

        Raises:
            ConfigError: no two of these runs can be compared, or an argument is wrong.

        Example:
            >>> view = runs.vote(voter="ada", seed=1)
            >>> view.cast("left").voter
            'ada'
        """
        from xpander_magics.voting.votes import Voting
        from xpander_magics.widgets.vote import VoteView

        return VoteView(Voting(self, self.session.store, sweep_id=self.sweep_id, voter=voter, seed=seed))

    def score(self, scorer: Any, expected: Any = None) -> Runs:
        """Scores these runs, and keeps the scores; see ``xp.score``.

        Args:
            scorer: a text such as ``"exact"``, a function, a ``Judge``, or a list of these.
            expected: what the answers should be: a variable's name, or a value for each run.

        Returns:
            These runs.

        Raises:
            ConfigError: there is no such scorer or variable, or the scorer needs an expected value.
            XpanderError: what stops a judge's runs.

        Example:
            >>> runs.score("exact", "label").df["score_exact"].tolist()
            [1.0, 1.0, 0.0, 1.0]
        """
        from xpander_magics.scoring.keeping import score

        return score(self, scorer, expected)

    def score_history(self) -> pd.DataFrame:
        """All scores that these runs ever had, oldest first: how each was made, who had it done, and when.

        Returns:
            A score a row: ``run_id``, ``name`` (string), ``value`` (Float64; missing where one was taken
            away), ``scorer`` (how it was made), ``scored_by`` (string), ``created_at``
            (datetime64[us, UTC]), ``detail`` (object: dicts).

        Raises:
            StoreError: the store can't be read.
        """
        from xpander_magics.scoring.framed import history_frame

        return history_frame(self.session.store.scores.select(entry.run_id for entry in self.entries))

    def compare(
        self, by: str | Sequence[str] | None = None, score: Any = None, expected: Any = None, **options: Any
    ) -> Comparison:
        """Compares the configurations of these runs.

        Args:
            by: settings, columns or variables that make configurations; those that vary when omitted.
            score: a scorer, or several; the scores that the runs have when omitted.
            expected: what the answers should be: a variable's name, or a value for each run.
            options: ``baseline``, ``failures``, ``correction`` and ``noise``, as in ``xp.compare``.

        Returns:
            The comparison: ``table``, ``differences``, ``notes``, ``against(NAME)``, ``plot()``, …

        Raises:
            ConfigError: there is nothing to compare, or an argument is wrong.

        Example:
            >>> runs.compare("effort", "exact", "label").names
            ['low', 'high']
        """
        from xpander_magics.analysis.comparison import compare

        return compare(self, by, score, expected, **options)

    def raise_for_failures(self) -> None:
        """Raises for runs that have failed; does nothing where none has.

        Raises:
            TaskFailed: says how many, and why the first did, which is its ``run``.

        Example:
            >>> runs.raise_for_failures()
        """
        failed = self.failed
        if not failed:
            return
        kinds = Counter(run.error_type or run.status for run in failed)
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        first = failed[0]
        error = TaskFailed(
            f"{len(failed)} of {len(self)} runs failed: {told}.\n"
            f"The first, run {first.run_id[:8]}: {(first.error or first.status).splitlines()[0][:300]}"
        )
        error.run = first
        raise error

    def _some(self, entries: Sequence[Entry]) -> Runs:
        some = Runs(self.session, self.sweep_id, entries, self.held, self.grid)
        some._replaced = self._replaced
        return some

    def _load(self, entries: Sequence[Entry]) -> list[Run]:
        """These runs: as this kernel has them, else as the store has, else as they are planned."""
        found = {entry.run_id: self.held.get(entry.run_id) or self._loaded.get(entry.run_id) for entry in entries}
        missing = [run_id for run_id, run in found.items() if run is None]
        if missing:
            found.update({run.run_id: run for run in self.session.store.select(run_ids=missing)})
        for entry in entries:
            run = found[entry.run_id]
            if run is None:
                assert self.grid is not None
                assert entry.number is not None, "a run from elsewhere is in the store"
                run = found[entry.run_id] = self.session.planned(self.grid, entry.number)
            run.session = run.session or self.session  # type: ignore[assignment]
            self._loaded[entry.run_id] = run
        return [found[entry.run_id] for entry in entries]  # type: ignore[misc]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from xpander_magics.showing.tables import runs_bundle

        bundle: dict[str, Any] = runs_bundle(self)
        return bundle
