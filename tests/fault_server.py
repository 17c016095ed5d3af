"""A service on loopback that misbehaves as told, over real sockets, and a model of the real one behind it.

``FaultServer`` answers as the contract says until a test scripts it otherwise::

    with FaultServer() as server:
        server.on("POST */invoke", drop(work=True))   # does the work, then closes without an answer
        Client(server.key, server.url).invoke("writer", "hi")

A script is a list of actions for the requests that fit a pattern, used one after the other; then the
model answers again. An action with ``work`` first lets the model do its work: the answer is lost, but
the task exists.
"""

from __future__ import annotations

import fnmatch
import json
import socket
import ssl
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KEY = "fault-server-key-0123456789"
ORGANIZATION = "91fbe9bc-35b3-41e8-b59d-922fb5a0f031"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends RST


@dataclass
class Request:
    """One request as it arrived; ``connection`` numbers the accepted sockets."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    at: float
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Action = Callable[["FaultServer", socket.socket, Request], bool]
"""Answers one request; says whether the connection stays open."""


Piece = bytes | float | Action
"""What a stream is made of: bytes, pauses in seconds, and what to do meanwhile."""


def now(ahead: float = 0.0) -> str:
    return (datetime.now(timezone.utc) + timedelta(seconds=ahead)).isoformat().replace("+00:00", "Z")


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


def reply(
    status: int = 200,
    body: Any = None,
    headers: dict[str, str] | None = None,
    *,
    content_type: str = "application/json",
    framing: str = "length",
    cut: int | None = None,
    end: str = "close",
    split: int | None = None,
    pause: float = 0.0,
    wait: float = 0.0,
    work: bool = False,
) -> Action:
    """An answer.

    Args:
        body: bytes or text as they are, else JSON; None for what the model answers (it does its work).
        framing: ``length``, ``chunked``, or ``close`` (the end of the connection ends the answer).
        cut: sends so many bytes of the body, then ends the connection by ``end``: ``close`` or ``reset``.
        split, pause: sends pieces of so many bytes, so many seconds apart.
        wait: seconds before the first byte.
        work: lets the model do its work even though the answer is another.
    """

    def act(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        code, answer = status, body
        if work or body is None:
            model_code, model_answer = server.service.answer(request)
            code, answer = (model_code, model_answer) if body is None else (code, body)
        data = answer.encode() if isinstance(answer, str) else answer
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        server.rest(wait)
        sent = {"Content-Type": content_type, **(headers or {})}
        if framing == "length":
            sent.setdefault("Content-Length", str(len(data)))
        elif framing == "chunked":
            sent["Transfer-Encoding"] = "chunked"
        else:
            sent["Connection"] = "close"
        connection.sendall(head(code, sent))
        whole = data if cut is None else data[:cut]
        size = split or max(len(whole), 1)
        for start in range(0, len(whole), size):
            piece = whole[start : start + size]
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if framing == "chunked" else piece)
            server.rest(pause)
        if cut is not None:
            if end == "reset":
                server.rest(0.05)  # what was sent should arrive before the reset does
                reset(connection)
            return False
        if framing == "chunked":
            connection.sendall(b"0\r\n\r\n")
        return framing != "close"

    return act


def head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def stream(*pieces: Piece, framing: str = "chunked", end: str = "end", work: bool = False) -> Action:
    """A stream of server-sent events, its bytes cut as given; a number is a pause in seconds.

    Args:
        end: ``end`` properly, ``close`` or ``reset`` in the middle, or ``hang`` open.
        work: lets the model start a task; ``TASK`` and ``MARK`` in the bytes become its id and mark.
    """

    def act(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        task = server.service.start(request) if work else {"id": "no-task"}
        headers = {"Content-Type": "text/event-stream"}
        headers |= {"Transfer-Encoding": "chunked"} if framing == "chunked" else {"Connection": "close"}
        connection.sendall(head(200, headers))
        for piece in pieces:
            if isinstance(piece, (int, float)):
                server.rest(piece)
                continue
            if not isinstance(piece, bytes):
                piece(server, connection, request)
                continue
            data = piece.replace(b"TASK", task["id"].encode())
            connection.sendall(b"%x\r\n%s\r\n" % (len(data), data) if framing == "chunked" else data)
        if end == "hang":
            server.rest(60)
        elif end == "reset":
            server.rest(0.05)
            reset(connection)
        elif end == "end" and framing == "chunked":
            connection.sendall(b"0\r\n\r\n")
            return True
        return False

    return act


def event(kind: str, data: Any = None, task_id: str | None = "TASK", spelling: str = "type", **more: Any) -> bytes:
    """One event as bytes; ``TASK`` becomes the id of the task that the stream has started."""
    return b"data: " + json.dumps({spelling: kind, "task_id": task_id, "data": data, **more}).encode() + b"\n\n"


def keep_alives(seconds: float) -> list[Piece]:
    """A comment five times a second."""
    return [b": keep-alive\n\n", 0.2] * int(seconds * 5)


def created(**more: Any) -> bytes:
    return event("task_created", {"id": "TASK", "status": "pending", "created_at": now(), **more})


def finished(result: str | None = "hi", status: str = "completed", **more: Any) -> bytes:
    data = {"id": "TASK", "status": status, "result": result, "created_at": now(), "finished_at": now(), **more}
    return event("task_finished", data)


def drop(*, work: bool = False, by: str = "close") -> Action:
    """Ends the connection without an answer, by ``close`` or ``reset``."""

    def act(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        if work:
            server.service.answer(request)
        if by == "reset":
            reset(connection)
        return False

    return act


def hang(*, work: bool = False) -> Action:
    """Says nothing, for as long as the test lasts."""

    def act(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        if work:
            server.service.answer(request)
        server.rest(60)
        return False

    return act


def redirect(to: str, status: int = 307) -> Action:
    """Sends the client elsewhere."""
    return reply(status, b"", {"Location": to})


@dataclass
class Service:
    """A model of the service: what it has, and what becomes of a task.

    Attributes:
        states: what a task's fields become with each Get Task, before it ends.
        final: the fields with which it ends.
        chunks: what it streams.
        usage: what the usage endpoint answers.
        clock: by how many seconds its clock is ahead.
    """

    agents: list[dict[str, Any]] = field(default_factory=lambda: [agent("writer", 1), agent("Ticket Sorter", 2)])
    workflows: list[dict[str, Any]] = field(default_factory=lambda: [agent("pipeline", 3)])
    models: dict[str, list[str]] = field(
        default_factory=lambda: {"openai": ["gpt-5", "gpt-5-mini"], "anthropic": ["claude-sonnet-4-6"]}
    )
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    states: list[dict[str, Any]] = field(default_factory=list)
    final: dict[str, Any] = field(default_factory=lambda: {"status": "completed", "result": "hi"})
    chunks: list[str] = field(default_factory=lambda: ["h", "i"])
    usage: dict[str, Any] = field(
        default_factory=lambda: {"tokens": 9, "input_tokens": 4, "output_tokens": 5, "is_byok": False, "cost": 0.01}
    )
    clock: float = 0.0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def start(self, request: Request) -> dict[str, Any]:
        """A new task for an invoke request."""
        body = request.json
        task = {
            "id": body.get("id") or str(uuid.uuid4()),
            "agent_id": unquote(request.path.split("/")[3]),
            "organization_id": ORGANIZATION,
            "status": "pending",
            "created_at": now(self.clock),
            **{name: value for name, value in body.items() if name not in ("user_tokens", "user_oidc_token", "id")},
            "left": list(self.states),
        }
        with self.lock:
            self.tasks.pop(task["id"], None)
            self.tasks[task["id"]] = task
        return task

    def finish(self, task: dict[str, Any]) -> dict[str, Any]:
        task.update({"started_at": now(), "finished_at": now(), **self.final})
        return task

    def shown(self, task: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in task.items() if name != "left"}

    def answer(self, request: Request) -> tuple[int, Any]:
        """Status and body for a request; a stream comes as bytes."""
        parts = [unquote(part) for part in request.path.split("/")[2:]]
        with self.lock:
            if request.method == "POST" and "invoke" in parts:
                return self._invoke(request, parts)
            if parts[0] in ("agents", "workflows"):
                known: list[dict[str, Any]] = getattr(self, parts[0])
                return self._page(known, request) if len(parts) == 1 else found(known, parts[1])
            if parts[0] == "tasks":
                return self._task(request, parts)
            if parts[:2] == ["misc", "llm_providers"]:
                return self._models(parts)
        return 404, {"detail": "Not Found"}

    def _invoke(self, request: Request, parts: list[str]) -> tuple[int, Any]:
        if found(getattr(self, parts[0]), parts[1])[0] != 200:
            return 404, {"detail": "No such agent"}
        task = self.start(request)
        if parts[-1] == "invoke":
            return 200, self.shown(task if task["left"] else self.finish(task))
        if parts[-1] == "async":
            return 200, self.shown(task)
        said = [event("task_created", self.shown(task), task["id"])]
        said += [event("chunk", text, task["id"]) for text in self.chunks]
        said += [event("task_finished", self.shown(self.finish(task)), task["id"])]
        return 200, b"".join(said)

    def _task(self, request: Request, parts: list[str]) -> tuple[int, Any]:
        if len(parts) == 1:
            hidden = ("payload_extension", "left", "input")
            summaries = [{k: v for k, v in t.items() if k not in hidden} for t in reversed(self.tasks.values())]
            for name in ("agent_id", "status"):
                wanted = request.query.get(name)
                summaries = [s for s in summaries if wanted in (None, s[name])]
            since = request.query.get("from_date", "")
            return self._page([s for s in summaries if s["created_at"] >= since], request)
        task = self.tasks.get(parts[1])
        if task is None:
            return 404, {"detail": "Task not found"}
        if parts[2:] == ["stop"]:
            if task["status"] not in ("completed", "failed", "error", "stopped"):
                task.update(status="stopped", is_manually_stopped=True, finished_at=now())
            return 200, self.shown(task)
        if parts[2:] == ["llm_usage"]:
            return 200, {"task_id": parts[1], **self.usage}
        if parts[2:] == ["thread"]:
            return 200, [{"role": "user", "content": task["input"]["text"]}, {"role": "assistant", "content": "hi"}]
        if parts[2:] == ["thread", "full"]:
            return 200, {"root": [{"role": "user", "content": "hi"}], "sub": []}
        if "finished_at" not in task:
            if task["left"]:
                task.update(task["left"].pop(0))
            else:
                self.finish(task)
        return 200, self.shown(task)

    def _models(self, parts: list[str]) -> tuple[int, Any]:
        if len(parts) == 2:
            return 200, [{"internal_identifier": name, "name": name.title()} for name in self.models]
        if parts[2] not in self.models:
            return 404, {"detail": "Unknown provider"}
        return 200, [{"model_id": name} for name in self.models[parts[2]]]

    def _page(self, items: list[dict[str, Any]], request: Request) -> tuple[int, Any]:
        page, size = int(request.query.get("page", 1)), int(request.query.get("per_page", 20))
        if size > 50:
            return 422, {"detail": [{"loc": ["query", "per_page"], "msg": "at most 50", "type": "less_than_equal"}]}
        shown = items[(page - 1) * size : page * size]
        count = {"total": len(items), "page": page, "per_page": size, "total_pages": -(-len(items) // size)}
        return 200, {"items": shown, **count}


def agent(name: str, number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"00000000-0000-4000-8000-{number:012d}",
        "name": name,
        "unique_name": f"{name.lower().replace(' ', '-')}-u",
        "organization_id": ORGANIZATION,
        "status": "ACTIVE",
        "version": 3,
        **more,
    }


def found(known: Iterable[dict[str, Any]], id_: str) -> tuple[int, Any]:
    return next(((200, entry) for entry in known if entry["id"] == id_), (404, {"detail": "Not Found"}))


class FaultServer:
    """The server; a context manager.

    Attributes:
        url: its address.
        log: the requests so far.
        accepted: how many connections it has taken.
        service: the model behind it.

    Args:
        tls: its certificate, where it speaks TLS.
    """

    def __init__(self, key: str = KEY, tls: ssl.SSLContext | None = None) -> None:
        self.key, self._tls = key, tls
        self.log: list[Request] = []
        self.accepted = 0
        self.service = Service()
        self._scripts: list[tuple[str, list[Action]]] = []
        self._dropping = 0
        self._ended = threading.Event()
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> FaultServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._listener.close()
        with self._lock:
            for connection in self._open:
                connection.close()

    def on(self, pattern: str, *actions: Action, times: int = 1) -> None:
        """Scripts the next requests whose ``METHOD PATH`` fits a pattern such as ``POST */invoke``."""
        self._scripts.append((pattern, [*actions] * times))

    def forget(self) -> None:
        """Drops what was scripted and hasn't happened."""
        self._scripts.clear()

    def drop_connections(self, count: int) -> None:
        """Resets the next so many connections before anything is read."""
        self._dropping = count

    def rest(self, seconds: float) -> None:
        """Sleeps, but not past the end of the test."""
        self._ended.wait(seconds)

    def requests(self, pattern: str) -> list[Request]:
        """The logged requests that fit a pattern."""
        return [r for r in self.log if fnmatch.fnmatchcase(f"{r.method} {r.path}", pattern)]

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted += 1
            if self._dropping:
                self._dropping -= 1
                self.rest(0.05)  # the client should have connected by then
                reset(connection)
                continue
            with self._lock:
                self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection, self.accepted), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as reader:
                while request := read(reader, number):
                    self.log.append(request)
                    if not self._action(request)(self, connection, request):
                        if connection.fileno() >= 0:  # else it was reset
                            connection.shutdown(socket.SHUT_RDWR)
                        return
        except (OSError, ValueError):
            pass  # the client has gone, or the test is over

    def _action(self, request: Request) -> Action:
        line = f"{request.method} {request.path}"
        with self._lock:
            for pattern, actions in self._scripts:
                if actions and fnmatch.fnmatchcase(line, pattern):
                    return actions.pop(0)
        if request.headers.get("x-api-key") != self.key:
            return reply(401, {"detail": "Invalid API key"})
        if request.path.endswith("/invoke/stream"):
            return reply(content_type="text/event-stream", framing="chunked", split=64)
        return reply()


def read(reader: Any, number: int) -> Request | None:
    """The next request of a connection; None at its end."""
    line = reader.readline().decode("latin-1").split()
    if len(line) != 3:
        return None
    headers = {}
    while (row := reader.readline().decode("latin-1").strip()) != "":
        name, _, value = row.partition(":")
        headers[name.lower()] = value.strip()
    body = reader.read(int(headers.get("content-length", 0)))
    target = urlsplit(line[1])
    query = {name: values[-1] for name, values in parse_qs(target.query).items()}
    return Request(line[0], target.path, query, headers, body, time.monotonic(), number)
