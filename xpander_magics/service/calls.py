"""A call that starts a task, and the mark that its task is found again by. No I/O."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from xpander_magics.contract import INVOKE_FIELDS, SECRET_FIELDS, Task
from xpander_magics.errors import ConfigError, did_you_mean
from xpander_magics.service.bodies import MayLeave
from xpander_magics.service.targets import Target

MARK = "xpander_magics_run"
"""The key of our mark in ``payload_extension``; its value is the run's id."""

INPUT_FIELDS: dict[str, type] = {"files": list, "user": dict}
"""The fields of ``input`` that can be given beside the text."""


@dataclass
class Call:
    """One invocation, ready to be sent.

    Attributes:
        body: the invoke body, our mark in it.
        mark: what the task is found again by.
        attempts: how often it was sent; more than once only where it surely hadn't arrived.
        has_turn: whether its next sending needn't wait, see ``Client.wait_turn``.
        on_leave: called right before each time that it is sent; what it raises keeps it from being sent.
        may_leave: called then once there is a connection.
    """

    target: Target
    body: dict[str, Any] = field(repr=False)
    version: str | None
    mark: str
    attempts: int = 0
    sent_at: datetime | None = None
    has_turn: bool = False
    on_leave: Callable[[], None] | None = None
    may_leave: MayLeave | None = None


def mark_of(task: Task) -> Any:
    """Our mark in a task, or None."""
    return task.payload_extension.get(MARK) if isinstance(task.payload_extension, dict) else None


def check_field(name: str, value: Any) -> None:
    """Says no to a field of the invoke body that the service surely would refuse.

    Raises:
        ConfigError: the value has the wrong type, or the name looks like a known one misspelt. A name
            that looks like none is let through: the service may know more than this package.
    """
    known = {**INVOKE_FIELDS, **INPUT_FIELDS}
    wanted = known.get(name)
    if wanted is None:
        hint = did_you_mean(name, known)
        if hint:
            raise ConfigError(f"The invoke body has no field {name!r}. {hint}")
    elif value is not None and not isinstance(value, wanted):
        kinds = {str: "a string", bool: "true or false", dict: "an object", list: "an array"}
        given = f"a {type(value).__name__}" if name in SECRET_FIELDS else json.dumps(value, default=repr)[:60]
        raise ConfigError(f"{name} takes {kinds[wanted]}, not {given}.")
