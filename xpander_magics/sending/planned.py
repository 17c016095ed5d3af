"""The runs of a sweep that wait: kept before they are sent, a few hundred at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from xpander_magics.plans.grid import Grid
from xpander_magics.plans.plan import Plan
from xpander_magics.results import Run
from xpander_magics.sending.attendance import Halted
from xpander_magics.service.client import Client
from xpander_magics.store import Store

# So many at a time, and so many before anything is sent.
_CHUNK, _FIRST = 100, 200
# Seconds before the rest: the first calls leave meanwhile.
_REST = 0.3


class Planned:
    """Keeps the planned runs in the store, ahead of their sending.

    Args:
        numbers: what is to be sent, in its order.
        begun: the runs that have begun before, which are kept already.
        fail: hears why no more could be kept.

    Attributes:
        numbers: those that can be sent, in their order; what isn't kept yet is waited for by ``plan``.
    """

    def __init__(
        self,
        store: Store,
        grid: Grid,
        client: Client,
        numbers: Iterable[int],
        begun: dict[int, Run],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._fail = fail
        self._failed = False
        self._store, self._grid, self._client = store, grid, client
        self._all = list(numbers)
        self.numbers: Iterator[int] = iter(self._all)
        self._begun = begun
        self._plans: dict[int, Plan] = {}
        self._places = {number: place for place, number in enumerate(self._all)}
        self._done = threading.Condition()
        self._upto = self._wanted = 0

    def begin(self) -> None:
        """Keeps the first ones now, and the rest meanwhile."""
        rest = iter(self._all)
        self._keep(list(islice(rest, _FIRST)), plans=True)
        if self._upto < len(self._all):
            threading.Thread(target=self._go_on, args=(rest,), name="xpander-planned", daemon=True).start()

    def plan(self, number: int) -> Plan:
        """The plan of a run that is in the store."""
        place = self._places.get(number, 0)
        if place >= self._upto:
            with self._done:
                self._wanted = max(self._wanted, place)
                self._done.notify_all()
                self._done.wait_for(lambda: place < self._upto or self._failed)
        if place >= self._upto:
            raise Halted
        begun = self._begun.get(number)
        if begun is not None:
            begun.error = begun.error_type = None
        return self._plans.pop(number, None) or self._grid.plan(number, self._client, begun)

    def _go_on(self, rest: Iterator[int]) -> None:
        try:
            pause = _REST
            while chunk := list(islice(rest, _CHUNK)):
                # What is sent has the processor first, unless it waits for this.
                with self._done:
                    self._done.wait_for(lambda: self._wanted >= self._upto, pause)
                began = time.monotonic()
                self._keep(chunk)
                pause = 2 * (time.monotonic() - began)
        except BaseException as error:
            self._fail(error)
            with self._done:
                self._failed = True
                self._done.notify_all()

    def _keep(self, numbers: list[int], *, plans: bool = False) -> None:
        new = [number for number in numbers if number not in self._begun]
        made = [self._grid.plan(number, self._client) for number in new]
        if plans:
            self._plans.update(zip(new, made, strict=True))
        self._store.sweeps.plan(plan.run for plan in made)
        with self._done:
            self._upto += len(numbers)
            self._done.notify_all()
