"""How a run's values are written: numbers, and text that every database takes.

Text may hold what some databases refuse
(NUL, half a surrogate pair); such characters are kept as U+001A and four hexadecimal digits. JSON is
ASCII, with the ``NaN`` and ``Infinity`` of Python's ``json``. Whatever a notebook's variables hold,
and whatever the service answers, writing never raises: a run is worth more than one odd value in it.
"""

from __future__ import annotations

import contextlib
import json
import math
import numbers
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

MARK = "\x1a"
"""Begins an escaped character. SUBSTITUTE is made for this, and so rare that hardly a text pays for it."""

_UNFIT = re.compile("[\x00\x1a\ud800-\udfff]")
_MARKED = re.compile(MARK + "([0-9a-f]{4})")
_MOST_BITS = 10_000  # Python refuses to write integers of more than 4,300 digits
_MOST_LEVELS = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


def escape(text: str) -> str:
    """The text as every database takes it; ``unescape`` undoes it."""
    if "\0" not in text and MARK not in text:
        if text.isascii():
            return text
        with contextlib.suppress(UnicodeEncodeError):
            text.encode()
            return text
    return _UNFIT.sub(lambda found: f"{MARK}{ord(found[0]):04x}", text)


def unescape(text: str) -> str:
    """The text as it was before ``escape``."""
    return _MARKED.sub(lambda found: chr(int(found[1], 16)), text) if MARK in text else text


def to_json(value: Any) -> str:
    """The value as JSON in ASCII; what JSON doesn't know is spelled as text."""
    try:
        return _encode(value)
    except Exception:  # ``_spelled`` asks foreign objects, whose methods may raise anything
        return _encode(_tamed(value, ()))


def from_json(text: str | None) -> Any:
    """What the text says; the text itself where it is no JSON (edited by hand, or nested too deeply)."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _spelled(value: Any) -> Any:
    """A value that JSON doesn't know, as one that it does."""
    if type(value).__name__ in {"NAType", "NaTType"}:
        return None
    for method in ("isoformat", "tolist"):  # times; numpy's and pandas' scalars and arrays
        if callable(getattr(value, method, None)):
            return getattr(value, method)()
    if isinstance(value, (set, frozenset)):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else str(value)


_encode = json.JSONEncoder(separators=(",", ":"), default=_spelled).encode


def _tamed(value: Any, above: tuple[int, ...]) -> Any:
    """The value with all replaced that JSON can't hold: keys, circles, depths, huge integers."""
    if value is None or isinstance(value, (str, bool, float)):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < _MOST_BITS else hex(value)
    if id(value) in above or len(above) == _MOST_LEVELS:
        return f"<{type(value).__name__}>"
    try:
        return _tamed_inside(value, (*above, id(value)))
    except Exception:  # as above
        return f"<{type(value).__name__}>"


def _tamed_inside(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): _tamed(item, above) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_tamed(item, above) for item in value]
    return _tamed(_spelled(value), above)


def to_real(value: Any) -> float | None:
    """A number as a 64-bit float, None for what is none. NaN is None, too: SQLite keeps it so."""
    if type(value) is not float:
        try:
            value = float(value) if isinstance(value, numbers.Real) else None
        except (OverflowError, ValueError):
            return None
    return None if value is None or math.isnan(value) else value


def to_integer(value: Any) -> int | None:
    """A number as a 64-bit integer; None for what isn't whole, and for one beyond them: missing, not wrong."""
    if type(value) is not int:
        real = to_real(value)
        if real is None or isinstance(value, bool) or not real.is_integer():
            return None
        value = int(value)
    return value if -(1 << 63) < value < 1 << 63 else None


def to_microseconds(value: Any) -> int | None:
    """A time as microseconds since 1970 in UTC, which one without a zone is taken to be in."""
    if not isinstance(value, datetime) or type(value).__name__ == "NaTType":  # NaT is a datetime
        return None
    aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    return int((aware - _EPOCH) // _MICROSECOND)


def from_microseconds(stored: int | None) -> datetime | None:
    """The time, aware, in UTC."""
    return None if stored is None else _EPOCH + stored * _MICROSECOND
