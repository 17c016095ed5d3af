"""What an answer says beside its body: that it refuses, and why; what time it is there. No I/O."""

from __future__ import annotations

import contextlib
import email.utils
import json
import math
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from xpander_magics import errors
from xpander_magics.safety import Redactor, plain

# The service's clock is read so often, in seconds.
_CLOCK_SECONDS = 10.0
# What helps against a wrong key, by where that came from.
_OTHER_KEY = {
    "XPANDER_API_KEY": "Correct XPANDER_API_KEY before the kernel starts, or run %xpander login.",
    "keyring": "It is the one in the keyring: %xpander login puts another there.",
}


def refusal(
    status: int, reason: str, headers: Mapping[str, str], body: bytes, *, host: str, redact: Redactor, key_of: str
) -> errors.ServiceError:
    """The error for an answer with a status of 300 or more.

    Args:
        body: the answer's body, or its beginning.
        host: who answered, for the message.
        key_of: where the key came from; see ``config.Key``.
    """
    retry_after = _retry_after(headers)
    said = plain(_detail(body, redact)) or plain(redact(reason) or "no reason given")
    kind: type[errors.ServiceError] = errors.InvalidRequestError
    message = f"{host} refuses the request ({status}): {said}"
    if status in (401, 403):
        kind = errors.AuthError
        hint = _OTHER_KEY.get(key_of, "Check the key that was given.")
        hint = hint if status == 401 else "The key is known, but has no right to this."
        message = f"{host} refuses the key ({status}): {said}\n{hint}"
    elif status == 404:
        kind, message = errors.NotFoundError, f"{host} has no such thing (404): {said}"
    elif status == 429:
        kind = errors.RateLimitError
        message = f"Too many requests for {host} (429): {said}\nWait a little, or send fewer with --rpm."
    elif status >= 500:
        kind, message = errors.ServerError, f"{host} failed ({status}): {said}"
    elif status < 400:
        kind, message = errors.ServerError, f"{host} redirects ({status}) without saying where."
    return kind(
        message,
        status_code=status,
        # Who says when to come again has refused it; a gateway's bare 503 may come of a connection that it lost.
        maybe_sent=status >= 500 and not (status == 503 and retry_after is not None),
        retry_after=retry_after,
    )


class Clock:
    """How the service's clock goes beside ours, as its answers tell in ``Date``.

    Attributes:
        behind: by how many seconds the service's clock is behind ours at the most; 0 where it isn't.
    """

    def __init__(self) -> None:
        self.behind = 0.0
        self._due = -math.inf

    def told(self, headers: Mapping[str, str]) -> None:
        """Looks at an answer's headers, now and then."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _CLOCK_SECONDS
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            theirs = (
                email.utils.parsedate_to_datetime(headers["Date"]).timestamp() if "Date" in headers else time.time()
            )
            self.behind = max(self.behind, time.time() - theirs - 1.0)  # a date has whole seconds


def _detail(body: bytes, redact: Redactor) -> str:
    """What an error's body says: FastAPI's ``detail`` in its two shapes, else the beginning of a text."""
    text: str = redact(body.decode("utf-8", "replace"))  # before any of it is cut
    try:
        said = redact(json.loads(text))
    except (ValueError, RecursionError):
        # A gateway's page: its title says as much as all the rest.
        lower = text.lower()
        start, end = lower.find("<title>"), lower.find("</title>")
        return text[start + 7 : end].strip()[:200] if 0 <= start < end else "" if "<" in text else text.strip()[:200]
    detail = said.get("detail", said.get("message", said)) if isinstance(said, dict) else said
    if isinstance(detail, list):
        return "; ".join(_complaint(item) for item in detail[:5])
    return (detail if isinstance(detail, str) else json.dumps(detail))[:500]


def _complaint(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)[:200]
    loc = item.get("loc")
    where = ".".join(map(str, loc)) if isinstance(loc, list) else str(loc or "")
    return f"{where}: {item.get('msg', 'invalid')}"[:300]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as ``Retry-After`` says, in seconds or as a date (RFC 9110, section 10.2.3)."""
    value = (headers.get("Retry-After") or "").strip()
    try:
        return float(value) if value.replace(".", "", 1).isdigit() else _until(value, headers.get("Date"))
    except (TypeError, ValueError, OverflowError):
        return None


def _until(date: str, now: str | None) -> float | None:
    if not date:
        return None
    then = email.utils.parsedate_to_datetime(date)
    # The server's own clock, where it tells it: ours may be off.
    since = email.utils.parsedate_to_datetime(now) if now else datetime.now(timezone.utc)
    return max(0.0, (then - since).total_seconds())
