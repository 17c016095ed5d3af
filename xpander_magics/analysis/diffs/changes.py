"""Which values of two JSON values differ, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class _Missing:
    """What stands for a value that one of the two lacks; JSON has a null of its own."""

    def __repr__(self) -> str:
        return "(none)"


MISSING = _Missing()


class Change(NamedTuple):
    """A value that differs: where it is, and what it is in each; ``MISSING`` where one lacks it."""

    name: str
    before: Any
    after: Any


def changes(before: Any, after: Any, root: str = "$") -> list[Change]:
    """The values that differ between two JSON values, by their paths (``$.items[0].name``), in the order of the first.

    Numbers are equal if they are the same number, however they are written. What stands in lists is compared by place.
    """
    found: list[Change] = []
    left: list[tuple[str, Any, Any]] = [(root, before, after)]
    while left:  # not by calls: what a model wrote may be nested as deep as it likes
        path, old, new = left.pop()
        inner: list[tuple[str, Any, Any]] = []
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            for name in dict.fromkeys([*old, *new]):
                inner.append((_member(path, str(name)), old.get(name, MISSING), new.get(name, MISSING)))
        elif isinstance(old, list) and isinstance(new, list):
            for place in range(max(len(old), len(new))):
                first, second = (each[place] if place < len(each) else MISSING for each in (old, new))
                inner.append((f"{path}[{place}]", first, second))
        elif not same(old, new):
            found.append(Change(path, old, new))
        left.extend(reversed(inner))
    return found


def _member(path: str, name: str) -> str:
    if not name.isidentifier():
        name = name.replace("\\", "\\\\").replace("'", "\\'")
        return f"{path}['{name}']"
    return f"{path}.{name}" if path else name


def same(old: Any, new: Any) -> bool:
    """Whether two JSON values are equal; true is not 1."""
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    try:
        return bool(old == new)
    except RecursionError:
        return False
