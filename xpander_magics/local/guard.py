"""Who may ask, and how much: an ASGI layer in front of every route.

A web page can send requests to loopback, under a name of its own that resolves there (DNS rebinding), and a
page's script sets no ``Host`` or ``Origin`` of its choice: both are checked. The key keeps out the other
users of the machine.
"""

from __future__ import annotations

import json
import secrets
from typing import Any
from urllib.parse import urlsplit

MOST_BYTES = 4_000_000
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Guard:
    """Refuses what isn't from this machine, or lacks the key, or is too large."""

    def __init__(self, app: Any, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a websocket: closed unanswered
        refusal = self._refusal(scope["headers"])
        body = b""
        if refusal is None:
            # Read here, so that no route ever holds more than the bound.
            while True:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > MOST_BYTES:
                    refusal = 413, f"The body is over {MOST_BYTES:,} bytes"
                if refusal or message["type"] == "http.disconnect" or not message.get("more_body"):
                    break
        if refusal:
            await _answer(send, *refusal)
            return
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Any:
            return unread.pop() if unread else await receive()

        await self._app(scope, again, send)

    def _refusal(self, headers: list[tuple[bytes, bytes]]) -> tuple[int, str] | None:
        given: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            given.setdefault(name.lower(), []).append(value)
        if any(not _is_loopback(f"//{host.decode('latin-1')}") for host in given.get(b"host", [b""])):
            return 403, "Only 127.0.0.1, localhost and ::1 are names of this server"
        if any(not _is_loopback(origin.decode("latin-1")) for origin in given.get(b"origin", [])):
            return 403, "Web pages from elsewhere may not ask this server"
        keys = given.get(b"x-api-key", [])
        if len(keys) != 1 or not secrets.compare_digest(keys[0], self._key):
            return 401, "The header x-api-key lacks this server's key"
        length = given.get(b"content-length", [b"0"])[-1]
        if not length.isdigit() or int(length) > MOST_BYTES:
            return 413, f"The body is over {MOST_BYTES:,} bytes"
        return None


def _is_loopback(url: str) -> bool:
    try:
        return urlsplit(url).hostname in _LOOPBACK
    except ValueError:
        return False


async def _answer(send: Any, status: int, detail: str) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 413:
        headers.append((b"connection", b"close"))  # the rest of the body is left unread
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
