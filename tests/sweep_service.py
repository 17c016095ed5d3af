"""A service that counts what it bills, and breaks in every way, by a schedule that a seed makes.

``SweepService`` is a ``FaultServer`` whose model starts at most one task per request and counts the starts
of each mark. Its faults depend on the seed, on what is asked for and on how often it was asked before, so
that threads that come in another order meet the same ones. They die out by themselves: what was asked for
often enough is answered, and after ``calm`` everything is.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fault_server import Action, FaultServer, Request, Service, drop, event, now, reply, reset, stream

from xpander_magics.service.calls import MARK

LATEST = 0.6
"""Seconds after which a request that has arrived starts no task any more; a sweep's ``settle`` must be longer."""

SETTLE = 3.0
"""A ``settle`` that leaves a busy machine more than a second between a claim and the arrival of its request."""

_HTML = "<html><head><title>Bad gateway</title></head><body>nginx</body></html>"
_ENDS = ("completed",) * 7 + ("failed", "error", "stopped")


@dataclass
class Model(Service):
    """The service as it would be without faults.

    Attributes:
        seed: what becomes of a task depends on it and on the task's mark.
        bills: how many tasks each mark has started.
        slow: the most looks at a task before it ends.
        lag: the longest that a new task is missing from the list, in seconds.
        ends: the statuses that tasks end with, each as often as it is there.
        started: when that was, for whoever has to find out why there were two.
    """

    seed: str = ""
    bills: Counter[str] = field(default_factory=Counter)
    slow: int = 0
    lag: float = 0.0
    ends: tuple[str, ...] = _ENDS
    started: dict[str, list[str]] = field(default_factory=dict)

    def start(self, request: Request) -> dict[str, Any]:
        """A new task, unless its request is so late that a sweep may have sent it again."""
        if time.monotonic() - request.at > LATEST:
            raise TimeoutError
        mark = request.json["payload_extension"][MARK]
        chance = random.Random(f"{self.seed} {mark}")
        with self.lock:
            self.bills[mark] += 1
            self.started.setdefault(mark, []).append(f"arrived {time.monotonic() - request.at:.2f} s before {now()}")
            task = super().start(request)
            task["left"] = [{"status": "executing"}] * chance.randint(0, self.slow)
            status = chance.choice(self.ends)
            task["end"] = {"status": status, "result": f"{status}: {mark} {self.bills[mark]}"}
            task["listed"] = time.monotonic() + chance.uniform(0.0, self.lag)
        return task

    def finish(self, task: dict[str, Any]) -> dict[str, Any]:
        task.update({"started_at": now(), "finished_at": now(), **task["end"]})
        return task

    def shown(self, task: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in task.items() if name not in ("left", "end", "listed")}

    def of(self, mark: str) -> list[dict[str, Any]]:
        """The tasks of a mark."""
        with self.lock:
            return [dict(task) for task in self.tasks.values() if mark_in(task) == mark]

    def _invoke(self, request: Request, parts: list[str]) -> tuple[int, Any]:
        if parts[-1] != "stream":
            return super()._invoke(request, parts)
        task = self.start(request)
        said = [event("task_created", self.shown(task), task["id"]), event("chunk", "so ", task["id"])]
        if not task["left"]:  # else the stream ends too early
            said.append(event("task_finished", self.shown(self.finish(task)), task["id"]))
        return 200, b"".join(said)

    def _task(self, request: Request, parts: list[str]) -> tuple[int, Any]:
        if len(parts) > 1:
            status, answer = super()._task(request, parts)
            hidden = ("left", "end", "listed")
            return status, {k: v for k, v in answer.items() if k not in hidden} if isinstance(answer, dict) else answer
        since, hidden = request.query.get("from_date", ""), ("payload_extension", "left", "input", "end", "listed")
        listed = [
            {name: value for name, value in task.items() if name not in hidden}
            for task in reversed(self.tasks.values())
            if task["listed"] <= time.monotonic() and task["created_at"] >= since
        ]
        return self._page(listed, request)


def mark_in(task: dict[str, Any]) -> Any:
    return task.get("payload_extension", {}).get(MARK)


Choice = tuple[int, Callable[[random.Random], Action]]
"""How often a fault is chosen among the others, and what makes it."""


def late(seconds: float) -> Action:
    """Resets the connection, and does the work a while after that."""

    def act(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        reset(connection)
        server.rest(seconds)
        server.service.answer(request)
        return False

    return act


def hold(seconds: float, *, work: bool, after: bool = False) -> Action:
    """Says nothing for a while, then ends the connection; the work is done before or ``after`` that while."""

    def act(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        if work and not after:
            server.service.answer(request)
        server.rest(seconds)
        if work and after:
            server.service.answer(request)
        return False

    return act


def _refusal(chance: random.Random, *, work: bool) -> Action:
    """A status that says no. A service that refuses by 429 or 503 has done nothing; another may have."""
    status = chance.choice((500, 502, 502, 502, 504) if work else (429, 500, 502, 502, 503, 503, 504))
    headers = {}
    if status in (429, 503) and chance.random() < 0.8:
        headers["Retry-After"] = chance.choice(("0", "0.05", "0.2"))
    body = chance.choice((_HTML, {"detail": "Try again later"}, ""))
    return reply(status, body, headers, work=work, content_type="text/html" if body == _HTML else "application/json")


def _odd(chance: random.Random, *, work: bool) -> Action:
    """A good status over what is no answer."""
    return reply(200, chance.choice((_HTML, "", "[]", "{}", '{"id": ', "null")), work=work)


def _cut(chance: random.Random) -> Action:
    """The answer, done and cut."""
    return reply(
        framing=chance.choice(("length", "chunked", "close")),
        cut=chance.choice((0, 1, 30, 200)),
        end=chance.choice(("close", "reset")),
    )


def _cut_stream(chance: random.Random) -> Action:
    """A stream that ends somewhere."""
    created = event("task_created", {"id": "TASK", "status": "pending", "created_at": now()})
    pieces: list[list[bytes]] = [[], [b": hello\n\n"], [created[:25]], [created], [created, event("chunk", "so ")]]
    return stream(*chance.choice(pieces), end=chance.choice(("end", "close", "reset")), work=True)


_LOOKS: list[Choice] = [
    (3, lambda chance: drop(by=chance.choice(("close", "reset")))),
    (4, lambda chance: _refusal(chance, work=False)),
    (2, _cut),
    (1, lambda chance: _odd(chance, work=False)),
    (1, lambda chance: hold(chance.uniform(0.1, 0.5), work=False)),
]
_STOPS: list[Choice] = [
    *_LOOKS,
    (3, lambda chance: drop(by=chance.choice(("close", "reset")), work=True)),
    (2, lambda chance: _refusal(chance, work=True)),
    (1, lambda chance: hold(chance.uniform(0.1, 0.5), work=True)),
]
_STARTS: list[Choice] = [
    (2, lambda chance: drop(by=chance.choice(("close", "reset")))),
    (4, lambda chance: drop(by=chance.choice(("close", "reset")), work=True)),
    (4, lambda chance: _refusal(chance, work=False)),
    (4, lambda chance: _refusal(chance, work=True)),
    (3, _cut),
    (1, lambda chance: _odd(chance, work=False)),
    (1, lambda chance: _odd(chance, work=True)),
    (2, lambda chance: hold(chance.uniform(0.1, 0.6), work=True)),
    (1, lambda chance: hold(chance.uniform(0.1, 0.6), work=False)),
    (1, lambda chance: hold(chance.uniform(0.1, 0.5), work=True, after=True)),
    (2, lambda chance: late(chance.uniform(0.05, 0.5))),
]
_STREAMS: list[Choice] = [*((weight, make) for weight, make in _STARTS if make is not _cut), (8, _cut_stream)]


class SweepService(FaultServer):
    """A service with faults.

    Args:
        seed: makes the faults, and what becomes of tasks.
        rate: how many of a kind's requests meet a fault, for ``start``, ``look``, ``list`` and ``stop``.
        often: a run's n-th request of a kind meets none from this n on.
        refused: how many connections are reset before anything is read, of the first hundred.
        down: how often it is down for a moment, so that no connection is made at all.

    Attributes:
        moment: called as ``start`` and ``look`` are ``read`` and ``done``, with how many of them there were.
    """

    def __init__(
        self,
        seed: str,
        *,
        rate: dict[str, float] | None = None,
        often: int = 3,
        refused: float = 0.0,
        down: float = 0.0,
        slow: int = 0,
        lag: float = 0.0,
    ) -> None:
        super().__init__()
        self.service: Model = Model(seed=seed, slow=slow, lag=lag)
        self.moment: Callable[[str, str, int], None] = lambda kind, when, count: None
        self._seed = seed
        self._rate = rate or {}
        self._often = often
        self._refused, self._down = refused, down
        self._asked: Counter[tuple[str, str]] = Counter()
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._moving = threading.Lock()
        # Keeps the port while nobody listens there, which connections then find refused.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.close()
        self._place.bind(("127.0.0.1", 0))
        self.port = self._place.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._listen()

    def __exit__(self, *exc: object) -> None:
        with self._moving:
            self._ended.set()
            self._hang_up()
        with self._lock:
            for connection in self._open:
                connection.close()
        self._place.close()

    @classmethod
    def of_seed(cls, seed: str) -> SweepService:
        """A service whose faults are as many and as bad as the seed has it."""
        chance = random.Random(f"{seed} service")
        kinds = ("start", "look", "list", "stop")
        return cls(
            seed,
            rate={kind: chance.choice((0.1, 0.3, 0.6, 0.9)) for kind in kinds},
            often=chance.choice((1, 1, 2, 3)),
            refused=chance.choice((0.0, 0.0, 0.1)),
            down=chance.choice((0.0, 0.0, 0.05)),
            slow=chance.choice((0, 0, 1, 2)),
            lag=chance.choice((0.0, 0.0, 0.3)),
        )

    def calm(self) -> None:
        """No faults from now on."""
        self._rate, self._refused, self._down = {}, 0.0, 0.0
        with self._moving:  # it is up again then
            pass

    def break_again(self, rate: dict[str, float]) -> None:
        """Faults from now on, and none counts as met before."""
        with self._counting:
            self._rate = rate
            self._asked.clear()

    def _listen(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(128)

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # a thread in accept() would hold it open
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            listener = self._listener
            try:
                connection, _ = listener.accept()
            except OSError:
                with self._moving:  # down for a moment, or for good
                    continue
            self.accepted += 1
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            chance = random.Random(f"{self._seed} connection {self.accepted}")
            if self.accepted < 100 and chance.random() < self._refused:
                reset(connection)
                continue
            with self._lock:
                self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection, self.accepted), daemon=True).start()

    def _go_down(self, seconds: float) -> None:
        with self._moving:
            if self._ended.is_set():
                return
            self._hang_up()
            self.rest(seconds)
            if not self._ended.is_set():
                self._listen()

    def _action(self, request: Request) -> Action:
        kind, key = self._kind(request)
        usual = super()._action(request)
        if kind is None:
            return usual
        with self._counting:
            self._counts[kind] += 1
            count = self._counts[kind]
            self._asked[kind, key] += 1
            asked = self._asked[kind, key]
        chance = random.Random(f"{self._seed} {kind} {key} {asked}")
        action = usual
        if asked <= self._often * (3 if kind == "list" else 1) and chance.random() < self._rate.get(kind, 0.0):
            choices = {"start": _STARTS, "stop": _STOPS}.get(kind, _LOOKS)
            choices = _STREAMS if request.path.endswith("/stream") else choices
            (make,) = chance.choices([make for _, make in choices], [weight for weight, _ in choices])
            action = make(chance)
        if kind == "start" and count < 100 and chance.random() < self._down:
            threading.Thread(target=self._go_down, args=(chance.choice((0.05, 0.2, 0.4, 2.5)),), daemon=True).start()
        return self._told(kind, count, action)

    def _told(self, kind: str, count: int, action: Action) -> Action:
        def act(server: FaultServer, connection: socket.socket, request: Request) -> bool:
            self.moment(kind, "read", count)
            try:
                return action(server, connection, request)
            finally:
                self.moment(kind, "done", count)

        return act

    def _kind(self, request: Request) -> tuple[str | None, str]:
        """What kind of request it is, and of whose run."""
        parts = request.path.split("/")
        if "invoke" in parts:
            return "start", request.json["payload_extension"][MARK]
        if parts[2:3] != ["tasks"]:
            return None, ""
        if len(parts) == 3:
            return "list", ""
        with self.service.lock:
            mark = str(mark_in(self.service.tasks.get(parts[3], {})))
        return ("stop" if parts[-1] == "stop" else "look"), mark
