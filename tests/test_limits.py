"""How long, how fast, how many at once: deadlines that are cancelled, the shared pace, the throttle."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fault_server import KEY, FaultServer, drop, hang, reply
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from xpander_magics import errors
from xpander_magics.config import Settings
from xpander_magics.limits import Deadline, Impatient, Pacer, Throttle, shared_pacer
from xpander_magics.service.client import Client
from xpander_magics.session import Session, default_session

GET = "GET */llm_providers"


class Clock(Deadline):
    """A clock that stands still, but for whoever sleeps by it."""

    def __init__(self) -> None:
        super().__init__(math.inf)
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def rest(self, seconds: float) -> None:
        self.now += max(seconds, 1e-6)


def together(count: int, work: Callable[[], Any]) -> None:
    """Does it in so many threads at once."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def sends(pacer: Pacer, clock: Clock, count: int) -> list[float]:
    """When the next so many requests may go, each sent as soon as it may."""
    times = []
    for _ in range(count):
        pacer.wait(deadline=clock)
        times.append(clock.now)
    return times


def most_within(times: list[float], seconds: float) -> int:
    """The most of these moments that lie within any so many seconds."""
    return max(sum(begin <= at < begin + seconds for at in times) for begin in times)


@pytest.fixture
def client(service: FaultServer) -> Iterator[Client]:
    with Client(KEY, service.url, retries=3) as client:
        yield client


# ---- deadlines


@pytest.mark.parametrize("cancellable", [True, False])
def test_a_cancelled_deadline_has_no_time_left_for_good(cancellable: bool) -> None:
    deadline = Deadline(100, cancellable=cancellable)
    assert not deadline.cancelled
    deadline.cancel()
    deadline.extend(50)
    deadline.restore()
    assert deadline.cancelled
    assert deadline.left() <= 0
    with pytest.raises(errors.Timeout, match="cancelled") as caught:
        deadline.check(maybe_sent=True)
    assert caught.value.maybe_sent


@pytest.mark.parametrize("cancellable", [True, False])
@pytest.mark.parametrize("name", ["sleep", "rest"])
def test_a_sleep_ends_when_it_is_cancelled(cancellable: bool, name: str) -> None:
    deadline = Deadline(100, cancellable=cancellable)
    threading.Timer(0.2, deadline.cancel).start()
    began = time.monotonic()
    getattr(deadline, name)(60)
    assert 0.15 <= time.monotonic() - began < 30


@pytest.mark.parametrize("cancellable", [True, False])
def test_a_sleep_ends_at_the_deadline_and_a_rest_does_not(cancellable: bool) -> None:
    deadline = Deadline(0.2, cancellable=cancellable)
    began = time.monotonic()
    deadline.sleep(60)
    assert 0.19 <= time.monotonic() - began < 30
    deadline.rest(0.3)
    assert time.monotonic() - began >= 0.49
    deadline.sleep(-1)


# ---- the window


@given(
    most=st.integers(1, 30),
    idle=st.lists(st.one_of(st.just(0.0), st.floats(0, 3), st.floats(0, 200)), max_size=120),
    rate=st.one_of(st.none(), st.floats(20, 600)),
)
def test_no_window_ever_holds_more_than_it_may(most: int, idle: list[float], rate: float | None) -> None:
    clock = Clock()
    pacer = Pacer(clock=clock)
    pacer.set_window(most)
    pacer.set_rate(rate)
    times: list[float] = []
    for seconds in idle:
        clock.now += seconds
        times += sends(pacer, clock, 1)
    for first, beyond in zip(times, times[most:], strict=False):
        assert beyond - first >= 60
    for first, second in itertools.pairwise(times):
        assert rate is None or second - first >= 60 / rate - 1e-6


def test_half_of_the_window_may_go_at_once_and_the_others_are_evenly_spaced() -> None:
    clock = Clock()
    pacer = Pacer(clock=clock)
    pacer.set_window(100)
    began = clock()
    times = [at - began for at in sends(pacer, clock, 150)]
    assert times[:50] == [0] * 50
    assert times[50:100] == pytest.approx([0.6 * n for n in range(1, 51)], abs=0.01)
    assert 60 <= times[100] < 63
    # Nothing is lost for good: then one goes for each that leaves the window.
    assert times[149] < 95


def test_who_sends_seldom_never_waits() -> None:
    clock = Clock()
    pacer = Pacer(clock=clock)
    pacer.set_window(100)
    for _ in range(300):
        clock.now += 2
        began = clock.now
        assert sends(pacer, clock, 1) == [began]


def test_what_was_sent_before_a_window_was_set_counts() -> None:
    clock = Clock()
    pacer = Pacer(clock=clock)
    sends(pacer, clock, 15)
    pacer.set_window(10)
    began = clock.now
    assert sends(pacer, clock, 1)[0] - began >= 60
    pacer.set_window(None)
    assert most_within(sends(pacer, clock, 30), 1) == 30


def test_the_window_holds_for_all_threads_of_a_client(service: FaultServer, client: Client) -> None:
    pacer = Pacer(period=2.0)
    pacer.set_window(20)
    client.pacer = pacer
    together(10, lambda: [client.providers() for _ in range(3)])
    times = [request.at for request in service.log]
    assert len(times) == 30
    assert most_within(times, 1.9) <= 20  # they take unequal time to arrive
    assert max(times) - min(times) >= 1.9


def test_many_waiting_threads_get_their_turns_and_leave_the_processor_alone() -> None:
    pacer = Pacer()
    pacer.set_rate(6000)
    began = time.monotonic()
    together(300, pacer.wait)
    assert time.monotonic() - began >= 299 * 0.01
    pacer.set_rate(0.1)  # the next turn is in ten minutes
    threads = [threading.Thread(target=pacer.wait, args=[4]) for _ in range(300)]
    for thread in threads:
        thread.start()
    used = time.process_time()
    for thread in threads:
        thread.join()
    assert time.process_time() - used < 2


@pytest.mark.parametrize("cancellable", [True, False])
def test_a_cancelled_wait_ends_without_its_turn(cancellable: bool) -> None:
    pacer = Pacer()
    pacer.set_rate(0.1)
    pacer.wait()
    deadline = Deadline(0.1, cancellable=cancellable)  # which passes, and doesn't end the wait
    threading.Timer(0.4, deadline.cancel).start()
    assert 0.35 <= pacer.wait(deadline=deadline) < 60
    assert pacer.wait(deadline=deadline) < 60
    pacer.set_rate(6000)
    assert pacer.wait() < 60


# ---- refusals


@pytest.mark.parametrize(
    ("status", "said", "held"),
    [(429, None, 1), (429, 7.5, 7.5), (429, 3600, 60), (429, math.inf, 60), (429, 0, 0), (503, 4, 4), (503, None, 0)],
)
def test_a_refusal_holds_everything_back(status: int, said: float | None, held: float) -> None:
    clock = Clock()
    pacer = Pacer(clock=clock)
    pacer.told(status, said)
    began = clock.now
    assert sends(pacer, clock, 1)[0] - began == pytest.approx(held, abs=0.01)
    assert pacer.refused_at == (1000 if status == 429 else -math.inf)
    assert pacer.failed_at == (1000 if status == 503 else -math.inf)


def test_a_later_refusal_does_not_shorten_the_wait() -> None:
    clock = Clock()
    pacer = Pacer(clock=clock)
    pacer.told(429, 30)
    pacer.told(429, 0)
    assert sends(pacer, clock, 1)[0] >= 1030


def test_a_refusal_holds_back_all_threads(service: FaultServer, client: Client) -> None:
    service.on(GET, reply(429, b"", {"Retry-After": "1"}))
    first = threading.Thread(target=client.providers)
    first.start()
    while client.pacer.refused_at < 0:
        time.sleep(0.01)
    together(8, client.providers)
    first.join()
    refused, *others = sorted(request.at for request in service.log)
    assert len(others) == 9
    assert min(others) - refused >= 1
    # They don't all come back at once: the pace that was learned spaces them.
    assert max(others) - min(others) >= 0.1


@pytest.mark.parametrize("gap", [0.1, 0.5])
def test_the_pace_halves_once_for_a_burst_of_refusals_and_comes_back(gap: float) -> None:
    clock = Clock()
    pacer = Pacer(clock=clock)
    for _ in range(30):
        clock.now += gap
        pacer.wait()
    for _ in range(50):
        pacer.told(429, 0)
    first, second = sends(pacer, clock, 2)
    assert second - first == pytest.approx(2 * gap, rel=0.1)
    clock.now += 5
    pacer.told(429, 0)
    first, second = sends(pacer, clock, 2)
    assert second - first == pytest.approx(4 * gap, rel=0.1)
    before = second - first
    for _ in range(20):
        pacer.told(200)
    first, second = sends(pacer, clock, 2)
    assert before * 0.2 < second - first < before * 0.6
    for _ in range(200):
        pacer.told(200)
    assert most_within(sends(pacer, clock, 30), 0.001) == 30
    assert pacer.wait() == 0


def test_the_pace_is_never_slowed_beyond_bounds() -> None:
    clock = Clock()
    pacer = Pacer(clock=clock)
    for _ in range(30):
        clock.now += 100
        pacer.told(429, 0)
    first, second = sends(pacer, clock, 2)
    assert second - first == pytest.approx(5, abs=0.01)


def test_what_was_under_way_when_all_were_held_does_not_speed_them_up() -> None:
    clock = Clock()
    pacer = Pacer(clock=clock)
    pacer.told(429, 10)
    for _ in range(500):
        pacer.told(200)
    assert most_within(sends(pacer, clock, 10), 0.039) == 1


@pytest.mark.parametrize("status", [None, 500, 502, 503, 520])
def test_a_failure_slows_nothing(status: int | None) -> None:
    clock = Clock()
    pacer = Pacer(clock=clock)
    pacer.told(status)
    assert sends(pacer, clock, 3) == [1000] * 3
    assert (pacer.failed_at, pacer.refused_at) == (1000, -math.inf)


@pytest.mark.parametrize("status", [200, 404, 422])
def test_an_answer_is_neither_failure_nor_refusal(service: FaultServer, client: Client, status: int) -> None:
    service.on(GET, reply(status, []))
    with contextlib.suppress(errors.NotFoundError, errors.InvalidRequestError):
        client.providers()
    assert len(service.log) == 1
    assert client.pacer.failed_at == client.pacer.refused_at == -math.inf


@pytest.mark.parametrize("fault", [reply(500, b""), reply(503, b""), drop(), drop(by="reset")])
def test_a_clients_pace_hears_of_failures(service: FaultServer, client: Client, fault: Any) -> None:
    service.on(GET, fault)
    client.providers()
    assert service.log[0].at < client.pacer.failed_at < service.log[1].at
    assert client.pacer.refused_at == -math.inf


def test_a_run_that_takes_too_long_is_no_failure_of_the_service(service: FaultServer, client: Client) -> None:
    service.on("GET /v1/tasks/x", hang())
    with pytest.raises(errors.Timeout):
        client.task("x", deadline=Deadline(0.3))
    assert client.pacer.failed_at == -math.inf


# ---- one pace for all


def test_all_clients_of_a_service_share_its_pace(service: FaultServer) -> None:
    with Client(KEY, service.url) as one, Client(KEY, f"{service.url}/") as other, FaultServer() as elsewhere:
        assert one.pacer is other.pacer is shared_pacer(service.url)
        assert shared_pacer("HTTPS://One.Invalid") is shared_pacer("https://one.invalid/")
        with Client(KEY, elsewhere.url) as stranger:
            assert stranger.pacer is not one.pacer
        one.pace(120)
        together(2, one.providers)
        together(2, other.providers)
        times = sorted(request.at for request in service.log)
        assert times[-1] - times[0] >= 3 * 0.5 * 0.9


def test_a_closed_client_leaves_no_rate_behind(service: FaultServer) -> None:
    with Client(KEY, service.url) as one:
        with Client(KEY, service.url) as other:
            other.pace(0.1)
            other.pacer.wait()
        with Client(KEY, service.url):
            pass
        assert one.pacer.wait() == 0
        one.pace(0.1)
        with Client(KEY, service.url):
            pass
        assert one.pacer.wait(0.1) >= 0.1  # another's end leaves a rate that isn't its own


def test_another_server_at_the_same_port_begins_anew(service: FaultServer) -> None:
    shared_pacer(service.url).told(429, 60)
    gc.collect()
    assert shared_pacer(service.url).wait() == 0
    shared_pacer("https://two.invalid").told(429, 60)
    gc.collect()
    assert shared_pacer("https://two.invalid").wait(0.1) >= 0.1


FORKING = """
import os, signal, threading
from xpander_magics.limits import shared_pacer
pacer = shared_pacer("https://api.example")
pacer.set_window(4)
waiting = [threading.Thread(target=pacer.wait, args=[5], daemon=True) for _ in range(9)]
[thread.start() for thread in waiting]
held, go_on = threading.Event(), threading.Event()
def hold():
    with pacer._lock:
        held.set()
        go_on.wait(20)
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    assert shared_pacer("https://api.example") is pacer
    assert pacer.wait(0.2) >= 0.2  # what its parent has sent counts
    os._exit(0)
go_on.set()
raise SystemExit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_can_use_the_pace_of_its_parent() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING], check=True, timeout=60)


@pytest.mark.parametrize("limit", [-1, 0.5, "100", True, math.nan, math.inf])
def test_a_limit_that_is_none(limit: Any) -> None:
    with pytest.raises(errors.ConfigError, match="rate_limit takes"):
        Client(KEY, "http://127.0.0.1:1", rate_limit=limit)


def test_the_services_own_limit_holds_from_the_first_request_on() -> None:
    began = time.monotonic()
    with Client(KEY, "https://three.invalid") as client:
        for _ in range(50):
            client.pacer.wait()
        assert time.monotonic() - began < 20
        client.pacer.wait()
    assert time.monotonic() - began >= 0.6


@pytest.mark.parametrize(
    ("url", "limit"), [("http://127.0.0.1:1", None), ("https://four.invalid", 0), ("http://localhost:1", 0)]
)
def test_a_local_server_has_no_limit_and_0_means_none(url: str, limit: float | None) -> None:
    with Client(KEY, url, rate_limit=limit) as client:
        assert sum(client.pacer.wait() for _ in range(1000)) == 0


def test_a_session_passes_its_limit_on(service: FaultServer, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("XPANDER_API_KEY", KEY)
    session = Session(Settings(base_url=service.url, rate_limit=2))
    session.client.pacer.wait()
    assert session.client.pacer.wait(0.3) >= 0.3
    # The completion shares it, and rather offers nothing than wait.
    with pytest.raises(errors.RateLimitError, match="Other requests"):
        session.directory.target_names()
    assert not service.log
    session.configure(Settings(base_url=service.url))
    assert session.client.pacer.wait() == 0
    assert session.directory.target_names()
    session.close()


def test_config_sets_the_limit(shell: InteractiveShell) -> None:
    assert default_session().settings.rate_limit is None
    for value in (300.0, 0.0, None):
        shell.run_cell(f"%config XpanderMagics.rate_limit = {value}").raise_error()
        assert default_session().settings.rate_limit == value


def test_an_impatient_pace_tells_what_the_other_knows() -> None:
    clock = Clock()
    pacer = Pacer(clock=clock)
    impatient = Impatient(pacer, 5)
    assert impatient.wait() == 0
    impatient.told(429, 4)
    impatient.told(500)
    assert (impatient.refused_at, impatient.failed_at) == (1000, 1000)
    assert impatient.wait(deadline=clock) == pytest.approx(4, abs=0.01)
    impatient.told(429, 6)
    with pytest.raises(errors.RateLimitError):
        impatient.wait(deadline=clock)


# ---- how many at once


@dataclass
class Trouble:
    """A pace whose service refuses and fails when the test says so."""

    refused_at: float = -math.inf
    failed_at: float = -math.inf

    def wait(self, longest: float = math.inf, deadline: Deadline | None = None) -> float:
        return 0.0

    def told(self, status: int | None, retry_after: float | None = None) -> None: ...


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace() -> Trouble:
    return Trouble()


def refuse(clock: Clock, pace: Trouble, after: float = 0.0) -> None:
    clock.now += after
    pace.refused_at = clock.now


def end(throttle: Throttle, runs: int, ok: bool = True) -> None:
    for _ in range(runs):
        throttle.done(ok)


def test_there_is_room_up_to_the_limit(clock: Clock, pace: Trouble) -> None:
    throttle = Throttle(3, pace, clock=clock)
    assert [throttle.room(n) for n in range(5)] == [True, True, True, False, False]
    end(throttle, 100)
    assert throttle.limit == 3


def test_a_refusal_halves_what_may_be_under_way(clock: Clock, pace: Trouble) -> None:
    throttle = Throttle(100, pace, clock=clock)
    limits = []
    for _ in range(9):
        refuse(clock, pace, after=3)
        assert not throttle.room(100)
        limits.append(throttle.limit)
    assert limits == [50, 25, 12, 6, 3, 1, 1, 1, 1]
    assert throttle.room(0)


def test_a_refusal_is_seen_when_a_run_ends_too(clock: Clock, pace: Trouble) -> None:
    throttle = Throttle(100, pace, clock=clock)
    refuse(clock, pace)
    throttle.done(False)
    assert throttle.limit == 50


def test_an_old_refusal_does_not_shrink_a_new_throttle(clock: Clock, pace: Trouble) -> None:
    refuse(clock, pace)
    throttle = Throttle(100, pace, clock=clock)
    assert throttle.room(99)


def test_one_burst_of_refusals_cuts_once(clock: Clock, pace: Trouble) -> None:
    throttle = Throttle(100, pace, clock=clock)
    for _ in range(100):
        refuse(clock, pace, after=0.015)
        throttle.room(50)
    assert throttle.limit == 50
    # Nor does it when the last of the burst is seen late.
    clock.now += 100
    throttle.room(50)
    assert throttle.limit == 50


def test_a_round_later_a_refusal_cuts_again(clock: Clock, pace: Trouble) -> None:
    throttle = Throttle(100, pace, clock=clock)
    refuse(clock, pace)
    end(throttle, 49, ok=False)
    refuse(clock, pace, after=0.1)
    throttle.room(0)
    assert throttle.limit == 50
    end(throttle, 50, ok=False)
    refuse(clock, pace, after=0.1)
    throttle.room(0)
    assert throttle.limit == 25


def test_what_may_be_under_way_grows_back(clock: Clock, pace: Trouble) -> None:
    throttle = Throttle(6, pace, clock=clock)
    refuse(clock, pace)
    throttle.room(0)
    limits = []
    for _ in range(20):
        throttle.done(True)
        limits.append(throttle.limit)
    assert limits == [3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, *[6] * 9]


def test_runs_that_ended_badly_make_no_room(clock: Clock, pace: Trouble) -> None:
    throttle = Throttle(6, pace, clock=clock)
    refuse(clock, pace)
    end(throttle, 50, ok=False)
    assert throttle.limit == 3


def test_growth_pauses_after_a_failure_of_the_service(clock: Clock, pace: Trouble) -> None:
    throttle = Throttle(6, pace, clock=clock)
    refuse(clock, pace)
    throttle.room(0)
    pace.failed_at = clock.now
    end(throttle, 50)
    assert throttle.limit == 3  # but it isn't cut
    clock.now += 4.9
    end(throttle, 50)
    assert throttle.limit == 3
    clock.now += 0.2
    end(throttle, 50)
    assert throttle.limit == 6
