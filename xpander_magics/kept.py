"""The kept runs that a command is about: as the notebook's variables hold them, and as the store does. No IPython."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from xpander_magics import errors
from xpander_magics.contract import WAITING
from xpander_magics.outcomes import Entry, Runs
from xpander_magics.results import Run, utc_now

if TYPE_CHECKING:
    from xpander_magics.session import Session

# Sent, but what became of it was never heard; the task's id or its mark can tell.
_UNHEARD = ("planned", "unknown")
# After so long a task that nobody heard of has ended one way or the other.
_UNHEARD_FOR = timedelta(days=1)
# More at once than anybody has under way; usage is one request each.
_LOOKED_AT = 1000


def own_variables(variables: Mapping[str, Any], hidden: Mapping[str, Any]) -> dict[str, Any]:
    """The notebook's own variables, without ``open``, ``get_ipython`` and the like, which IPython adds (``hidden``)."""
    missing = object()
    return {name: value for name, value in variables.items() if hidden.get(name, missing) is not value}


class Kept:
    """The runs of one session, and the variables of one notebook that hold some of them."""

    def __init__(self, session: Session, variables: Mapping[str, Any]) -> None:
        self._session = session
        self._variables = variables

    def find(self, ref: str) -> Run:
        """The run that is meant, as the notebook holds it; ``results[0]`` is one, too. Raises as ``Session.find``."""
        return self._held(self._numbered(ref) or self._session.find(ref, self._variables))

    def _numbered(self, ref: str) -> Run | None:
        """The run that stands at a place in a variable, if that is what is said."""
        said = re.fullmatch(r"(\w+)\[(-?\d{1,9})\]", ref)
        held = self._variables.get(said[1]) if said else None
        if said is None or not isinstance(held, (Runs, list)):
            return None
        try:
            run = held[int(said[2])]
        except IndexError:
            raise errors.ConfigError(f"{said[1]} has {len(held):,} runs; the first is {said[1]}[0].") from None
        return run if isinstance(run, Run) else None

    def runs(self, ref: str | None) -> Runs:
        """The runs of a variable, or of the sweep of this id or its beginning, or of the newest sweep.

        The service isn't asked: what waits to be sent is there only if it is kept already.

        Raises:
            NotFoundError, ConfigError: there is no such sweep, or there are several.
        """
        from xpander_magics.plans.grid import reused_in
        from xpander_magics.sending.sweeps import newest_of

        held = self._variables.get(ref) if ref is not None else None
        if isinstance(held, Runs):
            return held
        sweeps = self._session.store.sweeps
        try:
            kept = sweeps.find(ref, None)
        except errors.NotFoundError:
            if held is not None:
                told = f"There is no sweep {ref!r}, and the variable is of type {type(held).__name__}. This takes Runs."
                raise errors.NotFoundError(told) from None
            names = [name for name, value in self._variables.items() if isinstance(value, Runs)]
            if near := errors.did_you_mean(ref or "", names):
                raise errors.NotFoundError(f"There is no sweep or variable {ref!r}. {near}") from None
            if ref is not None:
                told = f"There is no sweep {ref!r}, and no variable. A cell binds it by -o NAME; see %xpander runs."
                raise errors.NotFoundError(told) from None
            raise
        ids = {number: state.run_id for number, state in newest_of(sweeps.states(kept.sweep_id)).items()}
        places = {number: Entry(number, run_id) for number, run_id in ids.items()}
        places |= {number: Entry(None, run_id) for number, run_id in reused_in(kept.plan).items()}
        entries = [place for _, place in sorted(places.items())]
        return self._session.swept.get(kept.sweep_id) or Runs(self._session, kept.sweep_id, entries, {})

    def refresh(self, run: Run) -> None:
        """Asks for it again, unless it has ended or was surely never sent; keeps what couldn't be kept before."""
        if run.unkept:
            self._session.engine.keep(run)
        if not run.ended and (run.task_id is not None or run.sent_at is not None):
            run.refresh()
            self._pass_on(run)

    def tag(self, run: Run, tags: list[str], *, remove: bool) -> None:
        """Adds tags, or takes them away."""
        self._session.store.tag([run.run_id], tags, remove=remove)
        run.tags[:] = self._session.store.find(run.run_id).tags
        self._pass_on(run)

    def stop(self, run: Run) -> None:
        """Stops its task."""
        run.stop()
        self._pass_on(run)

    def under_way(self) -> list[Run]:
        """The runs of this service that may be under way, newest first."""
        since = utc_now() - _UNHEARD_FOR
        store, url = self._session.store, self._session.client.base_url
        runs = [run for status in WAITING for run in store.select(status=status, limit=_LOOKED_AT) if run.task_id]
        for status in _UNHEARD:
            runs += store.select(status=status, limit=_LOOKED_AT, sent_since=since)
        runs = [self._held(run) for run in runs if run.base_url == url]
        return sorted(runs, key=lambda run: run.sent_at or run.created_at or utc_now(), reverse=True)

    def read_usage(self, run: Run) -> None:
        """Asks what it used and cost, and keeps that."""
        self._session.engine.read_usage(run)
        self._pass_on(run)

    def read_missing_usage(self, tell: Callable[[str], object], among: Iterable[Run] | None = None) -> list[Run]:
        """Reads the usage of runs that lack it; one run's failure doesn't keep it from the others.

        Args:
            among: these; the newest when omitted.
            tell: told how many failed, and how many weren't asked for.

        Returns:
            Those for which it is known now.

        Raises:
            XpanderError: the first failure, where nothing could be read at all.
        """
        url = self._session.client.base_url
        found = self._session.store.select(limit=_LOOKED_AT) if among is None else among
        runs = [run for run in found if run.ended and run.task_id]
        # Only usage tells these; a service may leave some of them out.
        runs = [run for run in runs if run.actions is run.cost_usd is run.is_byok is None]
        lacking = [self._held(run) for run in runs if run.base_url == url]
        done: list[Run] = []
        failures: list[errors.XpanderError] = []
        for run in lacking:
            try:
                self.read_usage(run)
            except errors.StoreError:
                raise
            except (errors.ServiceError, errors.ConfigError) as error:
                failures.append(error)
                if _is_for_all(error):
                    break
            else:
                done.append(run)
        if failures:
            left = len(lacking) - len(done) - len(failures)
            rest = f"; {left} more left, not asked for" if left else ""
            tell(f"The usage of {len(failures)} of {len(lacking)} runs could not be read{rest}. {failures[0]}\n")
        if failures and not done:
            raise failures[0]
        return done

    def _objects_of(self, run: Run) -> list[Run]:
        """What holds this run among the variables; those that IPython has named come last."""
        named = sorted(self._variables.items(), key=lambda item: item[0].startswith("_"))
        objects = [value.held.get(run.run_id) if isinstance(value, Runs) else value for _, value in named]
        return [value for value in objects if isinstance(value, Run) and value.run_id == run.run_id]

    def _held(self, run: Run) -> Run:
        """The notebook's own object for a run, if a variable holds one: what becomes of the run is to show there."""
        objects = self._objects_of(run)
        held = run if any(value is run for value in objects) else next(iter(objects), run)
        held.session = held.session or self._session
        return held

    def _pass_on(self, run: Run) -> None:
        """Tells the notebook's other objects of a run what is known of it now; each keeps its own events."""
        now = {field.name: getattr(run, field.name) for field in fields(run) if field.name != "events"}
        for other in self._objects_of(run):
            vars(other).update(now)


def _is_for_all(error: errors.XpanderError) -> bool:
    """Whether each further request would meet the same."""
    refused = isinstance(error, errors.AuthError) and error.status_code != 403
    return refused or isinstance(error, (errors.RateLimitError, errors.ConnectionFailed))
