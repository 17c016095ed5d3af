"""HTTP to the service: pooled connections, time limits, retries, errors. The one user of requests.

What is sent again, and what never is:

* any request that surely never reached the service (no connection), and any that it refused with
  429 or 503: again, after ``Retry-After`` or a jittered, growing pause;
* a request that changes nothing when it is repeated (every GET, and Stop): also after a lost
  connection and after 500, 502 and 504;
* a POST that may have started a task: never. Its error has ``maybe_sent`` set, and the caller looks
  for the task instead.
"""

from __future__ import annotations

import email.utils
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from xpander_magics import errors
from xpander_magics.config import Key
from xpander_magics.limits import Pacer
from xpander_magics.safety import Redactor, plain

_REFUSED = (429, 503)
_PASSING = (*_REFUSED, 500, 502, 504)
_LONGEST_PAUSE = 20.0
_LARGEST_ANSWER = 256 * 2**20


class Deadline:
    """The moment when something must be over, on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def shorten(self, seconds: float) -> None:
        """Brings the moment forward, to so many seconds from now at the latest."""
        self._end = min(self._end, time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds until then; 0 or less when it has passed."""
        return self._end - time.monotonic()

    def check(self, *, maybe_sent: bool = False) -> float:
        """The seconds left.

        Raises:
            Timeout: none are.
        """
        left = self.left()
        if left <= 0:
            raise errors.Timeout(f"It took longer than {self.seconds:g} s.", maybe_sent=maybe_sent)
        return left


class _Session(requests.Session):
    """A requests session that keeps the key to one host."""

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Called before a redirect is followed; the body is as private as the key, so both stay here."""
        here, there = (urlsplit(url or "") for url in (response.request.url, prepared_request.url))
        if (here.scheme, here.netloc) != (there.scheme, there.netloc):
            raise errors.ConnectionFailed(
                f"{here.netloc} redirects to {there.scheme}://{there.netloc}, which must not see the key.\n"
                "If that is where the service now is, set XPANDER_BASE_URL to it."
            )


class _KeyAuth(requests.auth.AuthBase):
    """Adds the key as each request leaves; also keeps requests from looking into ``.netrc``."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["x-api-key"] = self._key.reveal()
        return request


class Transport:
    """Sends requests to one service with one key; safe to use from many threads.

    Args:
        base_url: such as ``https://api.xpander.ai``, checked before.
        connect_timeout, read_timeout: seconds to connect, and between two pieces of an answer.
        retries: how often a request is sent again at the most.
        connections: how many connections are kept for reuse; as many as calls under way at once.
    """

    def __init__(
        self,
        base_url: str,
        key: Key,
        *,
        connect_timeout: float = 10.0,
        read_timeout: float = 60.0,
        retries: int = 5,
        connections: int = 20,
    ) -> None:
        self.base_url = base_url
        self.read_timeout = read_timeout
        self._connect_timeout = connect_timeout
        self._retries = retries
        self._redact = Redactor([key.reveal()])
        self._session = _Session()
        self._session.auth = _KeyAuth(key)
        self._session.headers.update({"User-Agent": "xpander_magics", "Accept-Encoding": "identity"})
        adapter = HTTPAdapter(pool_connections=4, pool_maxsize=connections, max_retries=0)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)
        self.pacer = Pacer()

    def close(self) -> None:
        """Closes the kept connections."""
        self._session.close()

    def json(
        self,
        method: str,
        path: str,
        *,
        deadline: Deadline,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        repeatable: bool | None = None,
        on_attempt: Callable[[], None] | None = None,
        patient: bool = False,
    ) -> Any:
        """One request, its answer's JSON.

        Args:
            path: below the base URL, quoted.
            repeatable: whether sending it twice does no harm; for a GET when omitted.
            on_attempt: called before each time that it is sent.
            patient: whether the answer's first byte may take until the deadline.

        Raises:
            ServiceError: one of its kinds; ``maybe_sent`` says whether the request may have worked.
        """
        repeatable = method == "GET" if repeatable is None else repeatable
        for attempt in range(self._retries + 1):
            try:
                return self.parsed(self._once(method, path, params, body, deadline, on_attempt, patient), deadline)
            except errors.ServiceError as error:
                self._pause_or_raise(error, attempt, repeatable, deadline)
        raise AssertionError("the last attempt returns or raises")

    def open(
        self,
        path: str,
        *,
        deadline: Deadline,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any],
        on_attempt: Callable[[], None] | None = None,
    ) -> requests.Response:
        """POSTs for a stream; the caller reads ``pieces`` of the answer. Errors as for ``json``."""
        for attempt in range(self._retries + 1):
            try:
                return self._once("POST", path, params, body, deadline, on_attempt)
            except errors.ServiceError as error:
                self._pause_or_raise(error, attempt, False, deadline)
        raise AssertionError("the last attempt returns or raises")

    def pieces(self, response: requests.Response, deadline: Deadline) -> Iterator[bytes]:
        """The bytes of an answer as they come, each wait held to the read timeout and the deadline."""
        raw, size = response.raw, 0
        try:
            while True:
                _limit_wait(raw, min(self.read_timeout, deadline.check(maybe_sent=True)))
                piece = raw.read1(65536)
                if not piece:
                    return
                size += len(piece)
                if size > _LARGEST_ANSWER:
                    raise errors.ServerError("The answer is larger than 256 MiB.", maybe_sent=True)
                yield piece
        except (urllib3.exceptions.HTTPError, OSError) as error:
            response.close()
            deadline.check(maybe_sent=True)
            raise errors.ConnectionFailed(
                f"The connection to {self._host} was lost while it answered ({_reason(error)}).", maybe_sent=True
            ) from None

    def finish(self, response: requests.Response) -> None:
        """Gives the connection back for reuse if the answer ends here, else closes it."""
        try:
            _limit_wait(response.raw, 0.2)
            if response.raw.read1(65536):
                response.close()
        except (urllib3.exceptions.HTTPError, OSError):
            response.close()
        response.raw.release_conn()

    @property
    def _host(self) -> str:
        return urlsplit(self.base_url).netloc

    def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
        deadline: Deadline,
        on_attempt: Callable[[], None] | None,
        patient: bool = False,
    ) -> requests.Response:
        self.pacer.wait(deadline.left())
        left = deadline.check()
        if on_attempt is not None:
            on_attempt()
        timeout = (min(self._connect_timeout, left), left if patient else min(self.read_timeout, left))
        try:
            response = self._session.request(
                method,
                self.base_url + path,
                params=params,
                data=None if body is None else json.dumps(body, allow_nan=False).encode(),
                headers=None if body is None else {"Content-Type": "application/json"},
                timeout=timeout,
                stream=True,
            )
        except requests.RequestException as error:
            raise self._failure(error, deadline) from None
        if response.status_code >= 300:
            raise self._refusal(response, deadline)
        return response

    def parsed(self, response: requests.Response, deadline: Deadline) -> Any:
        """The JSON of an answer."""
        data = b"".join(self.pieces(response, deadline))
        try:
            return json.loads(data)
        except ValueError:
            raise errors.ServerError(
                f"{self._host} answered something that isn't JSON. Is {self.base_url} the service's address?",
                status_code=response.status_code,
                maybe_sent=True,
            ) from None

    def _pause_or_raise(self, error: errors.ServiceError, attempt: int, repeatable: bool, deadline: Deadline) -> None:
        status = error.status_code
        lost = status is None and isinstance(error, (errors.ConnectionFailed, errors.Timeout))
        again = (status in _REFUSED) or (lost and not error.maybe_sent)
        again = again or (repeatable and (status in _PASSING or lost))
        pause = error.retry_after
        if pause is None:
            pause = min(_LONGEST_PAUSE, 0.25 * 2**attempt) * random.uniform(0.5, 1.0)
        else:
            # Many clients told the same moment must not all come back at it.
            pause += random.uniform(0.0, min(1.0, 0.1 * pause))
        if not again or attempt >= self._retries or pause >= deadline.left():
            raise error
        time.sleep(pause)

    def _failure(self, error: requests.RequestException, deadline: Deadline) -> Exception:
        """The error for a request that got no answer."""
        bad_request = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)
        if isinstance(error, (*bad_request, requests.exceptions.MissingSchema, requests.exceptions.InvalidHeader)):
            return errors.ConfigError(f"The request can't be made: {plain(self._redact(str(error)))}")
        unsent = _never_sent(error)
        if deadline.left() <= 0:
            return errors.Timeout(f"It took longer than {deadline.seconds:g} s.", maybe_sent=not unsent)
        if isinstance(error, requests.exceptions.SSLError):
            return errors.ConnectionFailed(
                f"No trusted connection to {self._host}: {_reason(error)}.\n"
                "Behind a company's proxy, point REQUESTS_CA_BUNDLE at its certificate.",
                status_code=0,  # no retry: a certificate doesn't mend itself
            )
        if isinstance(error, requests.exceptions.Timeout):
            what = "can't be reached" if unsent else "didn't answer"
            return errors.Timeout(f"{self._host} {what} in time ({_reason(error)}).", maybe_sent=not unsent)
        what = "can't be reached" if unsent else "closed the connection without an answer"
        return errors.ConnectionFailed(
            f"{self._host} {what} ({_reason(error)}). Is the network up, and the base URL right?"
            if unsent
            else f"{self._host} {what} ({_reason(error)}).",
            maybe_sent=not unsent,
        )

    def _refusal(self, response: requests.Response, deadline: Deadline) -> errors.ServiceError:
        """The error that a status of 300 or more means."""
        status = response.status_code
        try:
            data = b"".join(self.pieces(response, deadline))[:100_000]
        except errors.ServiceError:
            data = b""
        said = plain(self._redact(_detail(data))) or plain(response.reason or "no reason given")
        kind: type[errors.ServiceError] = errors.InvalidRequestError
        message = f"{self._host} refuses the request ({status}): {said}"
        if status in (401, 403):
            kind = errors.AuthError
            hint = "Check the key: %xpander status, %xpander login." if status == 401 else "It is another's."
            message = f"{self._host} refuses the key ({status}): {said}\n{hint}"
        elif status == 404:
            kind, message = errors.NotFoundError, f"{self._host} has no such thing (404): {said}"
        elif status == 429:
            kind = errors.RateLimitError
            message = f"Too many requests for {self._host} (429): {said}\nWait a little, or send fewer with --rpm."
        elif status >= 500:
            kind, message = errors.ServerError, f"{self._host} failed ({status}): {said}"
        elif status < 400:
            kind, message = errors.ServerError, f"{self._host} redirects ({status}) without saying where."
        return kind(
            message,
            status_code=status,
            maybe_sent=status >= 500 and status != 503,
            retry_after=_retry_after(response.headers),
        )


def _limit_wait(raw: Any, seconds: float) -> None:
    """Sets how long the next read may wait; requests alone fixes that once for the whole answer."""
    sock = getattr(getattr(raw, "connection", None), "sock", None)
    if sock is not None:
        sock.settimeout(max(seconds, 0.001))


def _never_sent(error: requests.RequestException) -> bool:
    """Whether the connection itself failed, so that not a byte of the request has left."""
    if isinstance(error, (requests.exceptions.ConnectTimeout, requests.exceptions.SSLError)):
        return True
    cause: Any = error.args[0] if error.args else None
    cause = getattr(cause, "reason", cause)
    if isinstance(cause, urllib3.exceptions.ProxyError):
        cause = cause.original_error
    return isinstance(cause, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError))


def _reason(error: BaseException) -> str:
    """The innermost reason of a chain of wrapped errors, in a few words."""
    cause: Any = error
    while True:
        inner = getattr(cause, "reason", None) or (cause.args[-1] if getattr(cause, "args", None) else None)
        if not isinstance(inner, BaseException):
            break
        cause = inner
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return plain(str(text).rpartition(">: ")[2].rpartition("): ")[2])[:200]


def _detail(data: bytes) -> str:
    """What an error's body says: FastAPI's ``detail`` in its two shapes, else the beginning of a text."""
    text = data.decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except ValueError:
        # A gateway's page: its title says as much as all the rest.
        lower = text.lower()
        start, end = lower.find("<title>"), lower.find("</title>")
        return text[start + 7 : end].strip()[:200] if 0 <= start < end else "" if "<" in text else text.strip()[:200]
    detail = body.get("detail", body.get("message", body)) if isinstance(body, dict) else body
    if isinstance(detail, list):
        return "; ".join(_complaint(item) for item in detail[:5])
    return (detail if isinstance(detail, str) else json.dumps(detail))[:500]


def _complaint(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)[:200]
    where = ".".join(str(part) for part in item.get("loc") or [])
    return f"{where}: {item.get('msg', 'invalid')}"[:300]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as ``Retry-After`` says, in seconds or as a date (RFC 9110, section 10.2.3)."""
    value = (headers.get("Retry-After") or "").strip()
    try:
        return max(0.0, float(value)) if value.replace(".", "", 1).isdigit() else _until(value, headers.get("Date"))
    except (TypeError, ValueError):
        return None


def _until(date: str, now: str | None) -> float | None:
    if not date:
        return None
    then = email.utils.parsedate_to_datetime(date)
    # The server's own clock, where it tells it: ours may be off.
    since = email.utils.parsedate_to_datetime(now) if now else datetime.now(timezone.utc)
    return max(0.0, (then - since).total_seconds())
