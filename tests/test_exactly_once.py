"""Every row of a sweep ends as one run that is true to the service, and none is billed twice.

However connections are refused, reset, cut or hang, however often 502 comes, whoever is killed or stopped.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from fault_server import drop, reply
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sweep_runner import (
    Child,
    Planned,
    Zygote,
    billed_again,
    complaints,
    ending,
    interrupting,
    same_everywhere,
    session_for,
    tried,
    unwatched,
)
from sweep_service import SETTLE, SweepService

from xpander_magics.contract import MODES
from xpander_magics.errors import NotFoundError
from xpander_magics.outcomes import Runs
from xpander_magics.session import Session
from xpander_magics.tally import Tally

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

_EACH = 184
_KILLED = 320
_AT_ONCE = 16


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """A process that forks others at once."""
    with Zygote(str(tmp_path_factory.mktemp("z"))) as forked:
        yield forked


@pytest.mark.parametrize("jobs", [1, 3, 8])
@pytest.mark.parametrize("mode", MODES)
def test_whatever_the_service_does_nothing_is_billed_twice_and_every_row_is_true(
    zygote: Zygote, mode: str, jobs: int
) -> None:
    half = _EACH // 2
    children = [zygote.child(do="schedules", seeds=(start, start + half), mode=mode, jobs=jobs) for start in (0, half)]
    wrong = [child.result() for child in children]
    assert wrong == [[], []], "\n".join(what for found in wrong for what in found or ["a child has died"])[:20_000]


def test_a_process_that_is_killed_at_any_moment_leaves_what_another_can_end(zygote: Zygote, tmp_path: Path) -> None:
    assert _all_wrong(_killed, zygote, tmp_path, _KILLED) == []


def test_two_processes_that_resume_one_sweep_send_each_run_once(zygote: Zygote, tmp_path: Path) -> None:
    assert _all_wrong(_at_once, zygote, tmp_path, 40) == []


def test_a_process_that_was_stopped_while_another_took_over_sends_nothing_again(zygote: Zygote, tmp_path: Path) -> None:
    assert _all_wrong(_stopped, zygote, tmp_path, 48) == []


def test_what_an_interrupt_has_left_is_collected_by_retry_and_not_sent_again(tmp_path: Path) -> None:
    planned = Planned("left", "async", 8)
    with SweepService("left", slow=3) as service:
        session = session_for(service.url, str(tmp_path / "runs.db"))
        grid = planned.grid(session)
        grid = replace(grid, terms=[replace(terms, on_interrupt="detach") for terms in grid.terms])
        started = threading.Event()
        service.moment = lambda kind, when, count: started.set() if kind == "start" and when == "done" else None

        def interrupt(tally: Tally) -> None:
            started.wait(60)
            raise KeyboardInterrupt

        runs = session.sweep(grid, interrupt)
        session.retry(runs)
        assert set(service.service.bills.values()) == {1}
        runs.resume()
        assert sum(service.service.bills.values()) == planned.size
        assert list(complaints(service.service, list(runs), planned.size, over=True)) == []


def test_two_kernels_that_try_the_same_runs_again_send_each_once(tmp_path: Path) -> None:
    planned = Planned("twice", "sync", 3)
    with SweepService("twice", slow=1) as service:
        sessions = [session_for(service.url, str(tmp_path / "runs.db")) for _ in range(2)]
        service.service.ends = ("failed",)
        planned.begin(sessions[0], unwatched)
        kept = [session.resume(planned.sweep_id) for session in sessions]
        service.service.ends = ("completed",)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Runs.retry, kept))
        assert sum(service.service.bills.values()) == 2 * planned.size
        assert [runs.statuses() for runs in kept] == [{"completed": planned.size}] * 2


def test_an_answer_that_is_no_list_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    planned = Planned("no list", "sync", 1, most=4)
    with SweepService("no list") as service:
        service.on("POST */invoke", drop(work=True))
        service.on("GET /v1/tasks", reply(200, {}), times=4)  # the looks at once, and the one after it has settled
        session = session_for(service.url, str(tmp_path / "runs.db"))
        planned.begin(session, unwatched)
        assert set(service.service.bills.values()) == {1}
        assert ending(service, str(tmp_path / "runs.db"), planned.sweep_id, planned.size) == []


Schedule = Callable[[int, Zygote, str], list[str]]


def _all_wrong(schedule: Schedule, zygote: Zygote, tmp_path: Path, many: int) -> list[str]:
    """What didn't hold in so many schedules, with their seeds."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda seed: schedule(seed, zygote, str(tmp_path / f"{seed}.db")), range(many))
        return [f"seed {seed}: {what}" for seed, wrong in enumerate(found) for what in wrong]


def _some_faults(name: str) -> SweepService:
    chance = random.Random(f"{name} service")
    rate = {kind: chance.choice((0.0, 0.1, 0.4)) for kind in ("start", "look", "list", "stop")}
    return SweepService(name, rate=rate, often=1, slow=chance.choice((0, 1, 2)), lag=chance.choice((0.0, 0.2)))


def _signal_at_some_moment(service: SweepService, child: Child, chance: random.Random, number: int) -> None:
    """Sends a signal as the service reads or has answered the n-th request of a kind, or just after some time."""
    if chance.random() < 0.3:
        time.sleep(chance.uniform(0.0, 0.4))
        child.signal(number)
        return
    wanted = (chance.choice(("start", "start", "start", "look", "list")), chance.choice(("read", "done")))
    left = [chance.randint(1, 6)]

    def moment(kind: str, when: str, count: int) -> None:
        if (kind, when) == wanted:
            left[0] -= 1
            if left[0] == 0:
                child.signal(number)

    service.moment = moment


def _job(what: str, service: SweepService, store: str, planned: Planned) -> dict[str, object]:
    return {
        "do": what,
        "url": service.url,
        "store": f"{store}?timeout=5",  # who is stopped may be so while it writes
        "planned": asdict(planned),
        "sweep_id": planned.sweep_id,
    }


def _killed(seed: int, zygote: Zygote, store: str) -> list[str]:
    name = f"killed {seed}"
    chance = random.Random(name)
    planned = Planned(name, chance.choice(MODES), chance.choice((1, 3, 8)), most=10)
    with _some_faults(name) as service:
        for what in ("begin", *["resume"] * chance.randint(0, 3)):
            child = zygote.child(**_job(what, service, store, planned))
            _signal_at_some_moment(service, child, chance, signal.SIGKILL)
            child.result()
            service.moment = _nothing
        service.calm()
        return _ended(service, store, planned)


def _at_once(seed: int, zygote: Zygote, store: str) -> list[str]:
    name = f"at once {seed}"
    chance = random.Random(name)
    planned = Planned(name, chance.choice(MODES), chance.choice((1, 3, 8)), most=12)
    with _some_faults(name) as service:
        child = zygote.child(**_job("begin", service, store, planned))
        _signal_at_some_moment(service, child, chance, signal.SIGKILL)
        child.result()
        service.moment = _nothing
        children = [zygote.child(**_job("resume", service, store, planned)) for _ in range(2)]
        for child in children:
            child.result()
        service.calm()
        return _ended(service, store, planned)


def _stopped(seed: int, zygote: Zygote, store: str) -> list[str]:
    name = f"stopped {seed}"
    chance = random.Random(name)
    planned = Planned(name, chance.choice(MODES), chance.choice((1, 3, 8)), most=12)
    with _some_faults(name) as service:
        child = zygote.child(**_job("begin", service, store, planned))
        _signal_at_some_moment(service, child, chance, signal.SIGSTOP)
        time.sleep(SETTLE + 0.6)
        service.moment = _nothing
        other = zygote.child(**_job("resume", service, store, planned))
        other.result()
        child.signal(signal.SIGCONT)
        child.result()
        service.calm()
        return _ended(service, store, planned)


def _nothing(kind: str, when: str, count: int) -> None:
    """For a moment that nothing is to happen at."""


def _ended(service: SweepService, store: str, planned: Planned) -> list[str]:
    """What doesn't hold once nobody is killed any more."""
    try:
        session_for(service.url, store).store.sweeps.find(planned.sweep_id, service.url)
    except NotFoundError:  # killed before it was kept
        return ["sent before it was kept"] if service.service.bills else []
    return ending(service, store, planned.sweep_id, planned.size)


interrupts = st.one_of(st.none(), st.integers(0, 5))
rates = st.fixed_dictionaries({kind: st.sampled_from((0.0, 0.3, 0.7)) for kind in ("start", "look", "list", "stop")})


class Life(RuleBasedStateMachine):
    """One sweep's life: interrupted, gone on with in several kernels at once, tried again, the service ill or well."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._store = str(Path(self._folder.name) / "runs.db")

    @initialize(
        seed=st.integers(0, 10_000),
        mode=st.sampled_from(MODES),
        jobs=st.sampled_from((1, 3, 8)),
        rate=rates,
        interrupt=interrupts,
    )
    def begin(self, seed: int, mode: str, jobs: int, rate: dict[str, float], interrupt: int | None) -> None:
        self.service = SweepService(f"life {seed}", rate=rate, often=2, slow=seed % 3, lag=0.2 * (seed % 2))
        self.service.__enter__()
        self.planned = Planned(f"life {seed}", mode, jobs, most=8)
        self.session = self._kernel()
        grid = self.planned.grid(self.session)
        self.runs: Runs = self.session.sweep(grid, interrupting(interrupt))

    @rule(rate=rates)
    def fall_ill(self, rate: dict[str, float]) -> None:
        self.service.break_again(rate)

    @rule()
    def get_well(self) -> None:
        self.service.calm()

    @rule(interrupt=interrupts)
    def resume(self, interrupt: int | None) -> None:
        self.session.go_on(self.runs, interrupting(interrupt))

    @rule(interrupt=interrupts)
    def retry(self, interrupt: int | None) -> None:
        self.session.retry(self.runs, interrupting(interrupt))

    @rule(interrupt=interrupts)
    def die_and_resume(self, interrupt: int | None) -> None:
        self.session = self._kernel()
        self.runs = self.session.resume(self.planned.sweep_id, interrupting(interrupt))

    @rule(interrupt=interrupts, other=interrupts, retry=st.booleans())
    def use_two_kernels_at_once(self, interrupt: int | None, other: int | None, retry: bool) -> None:
        second = self._kernel()

        def meanwhile() -> None:
            runs = second.resume(self.planned.sweep_id, interrupting(other))
            if retry:
                second.retry(runs)

        thread = threading.Thread(target=tried, args=(meanwhile,))
        thread.start()
        if retry:
            self.session.retry(self.runs, interrupting(interrupt))
        else:
            self.session.go_on(self.runs, interrupting(interrupt))
        thread.join()

    @invariant()
    @precondition(lambda self: hasattr(self, "runs"))
    def nothing_is_billed_twice(self) -> None:
        kept = self.session.store.select(sweep_id=self.planned.sweep_id)
        assert list(complaints(self.service.service, kept, self.planned.size, over=False, once=False)) == []
        assert list(billed_again(self.service.service, kept)) == []
        assert [run.number for run in self.runs] == list(range(self.planned.size))

    def teardown(self) -> None:
        if hasattr(self, "runs"):
            self.service.calm()
            last = session_for(self.service.url, self._store, patient=True)
            runs = last.resume(self.planned.sweep_id, unwatched)
            wrong = [
                *complaints(self.service.service, list(runs), self.planned.size, over=True),
                *billed_again(self.service.service, last.store.select(sweep_id=self.planned.sweep_id)),
                *same_everywhere(last, runs),
            ]
            last.close()
            self.service.__exit__()
            assert wrong == []
        self._folder.cleanup()

    def _kernel(self) -> Session:
        return session_for(self.service.url, self._store)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=20,
    stateful_step_count=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),  # threads come in another order each time, so nothing can be shrunk
    suppress_health_check=list(HealthCheck),
)
