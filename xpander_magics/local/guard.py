"""Who may ask, and how much: an ASGI layer in front of every route.

A web page can send requests to loopback, under a name of its own that resolves there (DNS rebinding), and a
page's script sets no ``Host`` or ``Origin`` of its choice: both are checked. A page of another port of this machine
is another program's, so it is refused as any other. The key keeps out the other users of the machine.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from typing import Any

MOST_BYTES = 4_000_000
MOST_REQUESTS = 1_000
"""Under way at once, streams included."""

_SECONDS_TO_SEND = 60
"""Most that a body may take to arrive; without a limit it could hold its place for good."""

# As written in full: what else a parser of URLs would take, such as "evil.example:1@localhost", no client sends.
_HOST = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)


class Guard:
    """Refuses what isn't from this machine, or lacks the key, or is too large."""

    def __init__(self, app: Any, key: str) -> None:
        self._app = app
        self._key = key.encode()
        self._under_way = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":  # a websocket is closed unanswered
            if refusal := self._refusal(scope["headers"]):
                await _answer(send, *refusal)
                return
            self._under_way += 1
            try:
                await self._allowed(scope, receive, send)
            finally:
                self._under_way -= 1

    async def _allowed(self, scope: Any, receive: Any, send: Any) -> None:
        """A request of one who may ask. Its body is read here, so that no route ever holds more than the bound."""
        try:
            body = await asyncio.wait_for(_read(receive), _SECONDS_TO_SEND)
        except asyncio.TimeoutError:
            await _answer(send, 408, f"The body took over {_SECONDS_TO_SEND} seconds to arrive")
            return
        if len(body) > MOST_BYTES:
            await _answer(send, *_TOO_LARGE)
            return
        unread = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def again() -> Any:
            return unread.pop() if unread else await receive()

        await self._app(scope, again, send)

    def _refusal(self, headers: list[tuple[bytes, bytes]]) -> tuple[int, str] | None:
        given: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            given.setdefault(name.lower(), []).append(value)
        hosts = given.get(b"host", [])
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            return 403, "Only 127.0.0.1, localhost and ::1 are names of this server"
        if any(origin.lower() != b"http://" + hosts[0].lower() for origin in given.get(b"origin", [])):
            return 403, "Web pages from elsewhere may not ask this server"
        keys = given.get(b"x-api-key", [])
        if len(keys) != 1 or not secrets.compare_digest(keys[0], self._key):
            return 401, "The header x-api-key lacks this server's key"
        length = given.get(b"content-length", [b"0"])[-1]
        if not length.isdigit() or int(length) > MOST_BYTES:
            return _TOO_LARGE
        if self._under_way >= MOST_REQUESTS:
            return 503, f"{MOST_REQUESTS:,} requests are under way, the most at once"
        return None


_TOO_LARGE = 413, f"The body is over {MOST_BYTES:,} bytes"
_LEAVE_UNREAD = frozenset({408, 413})


async def _read(receive: Any) -> bytearray:
    """The body, or a little more of it than is allowed."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MOST_BYTES or message["type"] == "http.disconnect" or not message.get("more_body"):
            return body


async def _answer(send: Any, status: int, detail: str) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status in _LEAVE_UNREAD:
        headers.append((b"connection", b"close"))  # the rest of the body
    if status == 503:
        headers.append((b"retry-after", b"1"))  # which says, too, that nothing was begun
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
