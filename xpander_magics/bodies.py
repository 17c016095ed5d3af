"""The bytes of a request's body, which ask whether they may leave. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
            self._may_leave()  # as late as can be: a process that is stopped between this and the sending sends late
        self._sent += len(piece)
        return piece
