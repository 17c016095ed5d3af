"""The decoder of server-sent events: the same events, however the bytes are cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpander_magics.service.sse import ServerEvent, SSEDecoder

EXAMPLE = (Path(__file__).parent / "contract/examples/stream-completed.sse").read_bytes()
STREAMS = {
    "lf": b"data: a\n\ndata: b\n\n",
    "crlf": b"data: a\r\n\r\nevent: e\r\ndata: b\r\n\r\n",
    "cr": b"data: a\r\revent: e\rdata: b\r\r",
    "mixed": b"data: a\r\n\ndata: b\r\r\ndata: c\n\r",
    "bom": b"\xef\xbb\xbfdata: a\n\n",
    "lines": b"data: a\ndata:\ndata:  b\n\n",
    "comments": b": keep-alive\n\n:\n:data: no\ndata: a\n: in between\n\n",
    "fields": b"id: 7\nretry: 10\nunknown: x\ndata\n\nevent: only\n\ndata: a\nnothing\n\n",
    "unicode": "data: héllo \U0001f44b 日本\n\n".encode(),
    "broken": b"data: \xff\xfe\xf0\x9f\n\ndata: a\n\n",
}
EVENTS = {
    "lf": [("message", "a"), ("message", "b")],
    "crlf": [("message", "a"), ("e", "b")],
    "cr": [("message", "a"), ("e", "b")],
    "mixed": [("message", "a"), ("message", "b"), ("message", "c")],
    "bom": [("message", "a")],
    "lines": [("message", "a\n\n b")],
    "comments": [("message", "a")],
    "fields": [("message", ""), ("message", "a")],
    "unicode": [("message", "héllo \U0001f44b 日本")],
    "broken": [("message", "\ufffd\ufffd\ufffd"), ("message", "a")],
}


def decoded(*chunks: bytes) -> list[ServerEvent]:
    decoder = SSEDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@pytest.mark.parametrize("name", STREAMS)
def test_what_a_stream_says(name: str) -> None:
    assert [(event.event, event.data) for event in decoded(STREAMS[name])] == EVENTS[name]


@pytest.mark.parametrize("data", [*STREAMS.values(), EXAMPLE], ids=[*STREAMS, "example"])
def test_every_split_in_two_and_every_byte_alone(data: bytes) -> None:
    whole = decoded(data)
    assert whole
    for at in range(len(data) + 1):
        assert decoded(data[:at], data[at:]) == whole
        assert decoded(data[:at], b"", data[at:]) == whole
    assert decoded(*(data[i : i + 1] for i in range(len(data)))) == whole


@pytest.mark.parametrize("data", STREAMS.values(), ids=STREAMS)
def test_every_split_in_three(data: bytes) -> None:
    whole = decoded(data)
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            assert decoded(data[:first], data[first:second], data[second:]) == whole


def test_what_was_cut_before_its_empty_line_is_no_event() -> None:
    assert decoded(b"data: a\n\ndata: b\n") == [ServerEvent("message", "a")]


LINES = st.sampled_from([b"data: ", b"data:", b"event: x", b":", b"\n", b"\r", b"\r\n", b"a", "é".encode(), b"\xff"])


@given(st.lists(LINES, max_size=30).map(b"".join), st.data())
def test_decoding_in_pieces_equals_decoding_whole(data: bytes, draw: st.DataObject) -> None:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert decoded(*pieces) == decoded(data)
