"""The bytes of a request's body, which ask whether they may leave, and the connections that they leave by."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

MayLeave = Callable[[], None]
"""Called once there is a connection, right before the body leaves; what it raises keeps it from leaving."""

OnAttempt = Callable[[], MayLeave | None]
"""Called before each time that a request is sent."""


class Body:
    """A body as requests takes a file: it is read once there is a connection, and its headers have been sent.

    Looking up the address, connecting and the handshake take time, and a process may have been stopped since
    it decided to send. A request whose body never comes is none, so this is the last moment to think better.
    """

    def __init__(self, data: bytes, may_leave: MayLeave) -> None:
        self._data, self._may_leave = data, may_leave
        self._sent = 0

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[bytes]:
        """That makes requests send it piece by piece; it is read, though."""
        return iter(self.read, b"")

    def read(self, size: int = -1) -> bytes:
        """The next so many bytes."""
        piece = self._data[self._sent :][: size if size >= 0 else None]
        if not self._sent:
            self._may_leave()
            piece = _Beginning(piece)
            piece.may_leave = self._may_leave
        self._sent += len(piece)
        return piece


class _Beginning(bytes):
    """A body's first bytes."""

    may_leave: MayLeave


def _send_at_once(sock: Any, data: _Beginning) -> int:
    """Asks once more, as late as can be, and sends what the system takes.

    Whoever is stopped between the two sends late, so there is next to nothing between them: a socket with a time
    limit would first wait for room, and each wait lets other threads go first.

    Returns:
        How many bytes have left.
    """
    limit = sock.gettimeout()
    sock.settimeout(0)
    try:
        time.sleep(0)  # whoever wants the interpreter may have it now
        data.may_leave()
        return int(sock.send(data))
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return 0
    finally:
        sock.settimeout(limit)


class _Connection(HTTPConnection):
    def send(self, data: Any) -> None:
        super().send(data[_send_at_once(self.sock, data) :] if isinstance(data, _Beginning) else data)


class _SecureConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class Adapter(HTTPAdapter):
    """Sends by these connections, but for those through a proxy, which are of kinds of their own."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
