"""Bytes become server-sent events, as the WHATWG's HTML standard says (section 9.2.6). No I/O."""

from __future__ import annotations

import codecs
from dataclasses import dataclass


@dataclass(frozen=True)
class ServerEvent:
    """One event: its type (``message`` where none was sent) and its ``data`` lines, joined."""

    event: str
    data: str


class SSEDecoder:
    """Takes bytes as they come, cut anywhere, and gives the events that they complete."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._line: list[str] = []
        self._after_cr = False
        self._event = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that are complete with this chunk, in order."""
        text = self._utf8.decode(chunk)
        if self._after_cr and text:
            # A CRLF that was cut in two ends one line, not two.
            text = text[1:] if text[0] == "\n" else text
            self._after_cr = False
        self._after_cr = self._after_cr or text.endswith("\r")
        *lines, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        events = []
        for line in lines:
            self._line.append(line)
            event = self._take("".join(self._line))
            self._line.clear()
            if event is not None:
                events.append(event)
        if rest:
            self._line.append(rest)
        return events

    def _take(self, line: str) -> ServerEvent | None:
        if not line:
            return self._complete()
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        # Comments (an empty name), ids, retry times and unknown fields change nothing here.
        return None

    def _complete(self) -> ServerEvent | None:
        event, data = self._event or "message", "\n".join(self._data)
        complete = bool(self._data)
        self._event = ""
        self._data.clear()
        return ServerEvent(event, data) if complete else None
