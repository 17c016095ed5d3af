"""Two sequences aligned: words, lines, steps. No I/O.

The shortest script of E. Myers, "An O(ND) Difference Algorithm and Its Variations", Algorithmica 1 (1986), as the
board's front end has it (``widgets/words.js``), so that both mark the same words. Not ``difflib``: its time is cubic at
the worst, and what is compared here was written by others.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

_MOST = 500
"""So many differing words are told apart one by one: what the front end does. The next two are for longer texts."""
_MOST_LINES = 2_000
_MOST_WITHIN = 200
_WORD = re.compile(r"\S+\s*")
_LINE = re.compile(r"[^\n.!?]*[\n.!?]+\s*|[^\n.!?]+")


class Piece(NamedTuple):
    """A piece of two texts: in both (``=``), in the first alone (``-``), or in the second alone (``+``)."""

    mark: str
    text: str


class Pair(NamedTuple):
    """Places in two sequences that belong together; None where the other has nothing like it."""

    first: int | None
    second: int | None


class Alignment(NamedTuple):
    """Two sequences side by side, in order; what was taken out comes before what was put in.

    ``is_shortest`` is False where too many items differ: then all between the first and the last is one difference.
    """

    pairs: list[Pair]
    is_shortest: bool


def aligned(a: Sequence[Hashable], b: Sequence[Hashable], most: int = _MOST) -> Alignment:
    """The places of two sequences that belong together.

    Args:
        most: so many items may differ. The time grows with its square, the memory, too.
    """
    start, least = 0, min(len(a), len(b))
    while start < least and a[start] == b[start]:
        start += 1
    end = 0
    while end < least - start and a[-1 - end] == b[-1 - end]:
        end += 1
    old, new = a[start : len(a) - end], b[start : len(b) - end]
    inner = _shortest(old, new, most)
    whole = [*(Pair(place, None) for place in range(len(old))), *(Pair(None, place) for place in range(len(new)))]
    moved = [Pair(*(None if at is None else at + start for at in pair)) for pair in (whole if inner is None else inner)]
    tail = (Pair(len(a) - place, len(b) - place) for place in range(end, 0, -1))
    return Alignment([*(Pair(place, place) for place in range(start)), *moved, *tail], inner is not None)


def _shortest(a: Sequence[Hashable], b: Sequence[Hashable], most: int) -> list[Pair] | None:
    limit = min(len(a) + len(b), most)
    furthest = [0] * (2 * limit + 3)
    middle = limit + 1  # where diagonal 0 is
    trace: list[list[int]] = []
    for d in range(limit + 1):
        trace.append(furthest[middle - d - 1 : middle + d + 2])
        for k in range(-d, d + 1, 2):
            left, right = furthest[middle + k - 1], furthest[middle + k + 1]
            x = right if k == -d or (k != d and left < right) else left + 1
            while x < len(a) and x - k < len(b) and a[x] == b[x - k]:
                x += 1
            furthest[middle + k] = x
            if x >= len(a) and x - k >= len(b):
                return _traced(len(a), len(b), trace)
    return None


def _traced(x: int, y: int, trace: Sequence[Sequence[int]]) -> list[Pair]:
    found: list[Pair] = []
    for d in range(len(trace) - 1, 0, -1):
        furthest, k, middle = trace[d], x - y, d + 1
        left, right = furthest[middle + k - 1], furthest[middle + k + 1]
        down = k == -d or (k != d and left < right)
        before_x = right if down else left
        before_y = before_x - (k + 1 if down else k - 1)
        while x > before_x and y > before_y:
            x, y = x - 1, y - 1
            found.append(Pair(x, y))
        if down:
            y -= 1
            found.append(Pair(None, y))
        else:
            x -= 1
            found.append(Pair(x, None))
    found += [Pair(place, place) for place in range(x - 1, -1, -1)]
    found.reverse()
    return [pair for _, group in groupby(found, _differs) for pair in sorted(group, key=_order)]


def _differs(pair: Pair) -> bool:
    return None in pair


def _order(pair: Pair) -> bool:
    """What was taken out comes first; the sort leaves the rest in its order."""
    return pair.first is None


def words_between(before: str, after: str) -> list[Piece]:
    """How one text became the other, word by word; a word is what stands between white space, which isn't compared.

    Long texts with many differences are told apart by lines and sentences first, then by words within those that
    differ. So the time is bounded: a few seconds at the worst, far less where texts are alike.

    Returns:
        Pieces in order; those with ``=`` and ``+`` together are ``after``.
    """
    return list(_joined(_pieces(before, after)))


def _pieces(before: str, after: str) -> Iterator[Piece]:
    # White space at the beginning belongs to no word.
    yield Piece("=", after[: len(after) - len(after.lstrip())])
    by_words, is_shortest = _by(_WORD, before, after, _MOST)
    if is_shortest:
        yield from by_words
        return
    for piece, block in _blocks(by_words):
        if block is None:
            yield piece
            continue
        by_lines, _ = _by(_LINE, *block, _MOST_LINES)
        for line, lines in _blocks(by_lines):
            yield from [line] if lines is None else _by(_WORD, *lines, _MOST_WITHIN)[0]


def _blocks(pieces: Iterable[Piece]) -> Iterator[tuple[Piece, tuple[str, str] | None]]:
    """Each equal piece; and between them, with its first piece, what went and what came."""
    for differs, group in groupby(pieces, lambda piece: piece.mark != "="):
        told = list(group)
        if differs:
            went, came = ("".join(piece.text for piece in told if piece.mark == mark) for mark in "-+")
            yield told[0], (went, came)
        else:
            yield from ((piece, None) for piece in told)


def _by(part: re.Pattern[str], before: str, after: str, most: int) -> tuple[list[Piece], bool]:
    a, b = part.findall(before.lstrip()), part.findall(after.lstrip())
    pairs, is_shortest = aligned([" ".join(text.split()) for text in a], [" ".join(text.split()) for text in b], most)
    pieces = []
    for first, second in pairs:
        if second is None:
            pieces.append(Piece("-", a[first or 0]))
        else:
            pieces.append(Piece("+" if first is None else "=", b[second]))
    return pieces, is_shortest


def _joined(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Neighbours of one kind as one; what was taken out comes before what was put in."""
    for differs, group in groupby(pieces, lambda piece: piece.mark != "="):
        told = list(group)
        for mark in "-+" if differs else "=":
            text = "".join(piece.text for piece in told if piece.mark == mark)
            if text:
                yield Piece(mark, text)
