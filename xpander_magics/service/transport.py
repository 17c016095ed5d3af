"""HTTP to the service: pooled connections, time limits, retries, errors. One of three users of requests.

What is sent again, and what never is:

* any request that surely never reached the service (no connection), and any that it refused (429, or 503
  with ``Retry-After``): again, then or after a jittered, growing pause; a POST that is to start a task, and
  is refused like that, until its deadline;
* a request that changes nothing when it is repeated (every GET, and Stop): also after a lost
  connection and after any 5xx;
* a POST that may have started a task: never. Its error has ``maybe_sent`` set, and the caller looks
  for the task instead.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from xpander_magics import errors
from xpander_magics.config import Key, is_loopback
from xpander_magics.contract import secrets_in
from xpander_magics.limits import Deadline, Pace, shared_pacer
from xpander_magics.safety import Redactor, plain, secret_variables
from xpander_magics.service.bodies import Adapter, Body, OnAttempt
from xpander_magics.service.failures import failure, reason
from xpander_magics.service.refusals import Clock, refusal

_T = TypeVar("_T")
_REFUSED = (429, 503)
_LONGEST_PAUSE = 20.0
# Whoever looks something up should soon hear that the network is down.
_MOST_UNSENT_GETS = 2
_LARGEST_ANSWER = 256 * 2**20
_LONGEST_REFUSAL = 64 * 2**10
_MOST_REDIRECTS = 5


class _Session(requests.Session):
    """A session that follows no redirect: requests would read all of its body first, however long that takes."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


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

    Attributes:
        pacer: says when a request may be sent; the one that this process has for the service, or another.
        clock: how the service's clock goes.
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
        self.base_url, self.read_timeout = base_url, read_timeout
        self._connect_timeout, self._retries = connect_timeout, retries
        self._key, self._redact, self._connections = key, Redactor([key.reveal()]), connections
        self.clock, self._reserving = Clock(), threading.Lock()
        self._session, self._pid = self._new_session(), os.getpid()
        self.pacer: Pace = shared_pacer(base_url)

    def close(self) -> None:
        """Closes the kept connections."""
        self._session.close()

    def reserve(self, connections: int) -> None:
        """Keeps so many connections for reuse from now on, if it kept fewer."""
        with self._reserving:
            if connections > self._connections:
                self._connections = connections
                # The old one isn't closed: threads are about to send with it. It goes with the last of them.
                self._session = self._new_session()

    def json(
        self,
        method: str,
        path: str,
        *,
        deadline: Deadline,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        repeatable: bool | None = None,
        on_attempt: OnAttempt | None = None,
        patient: bool = False,
        paced: bool = True,
        retries: int | None = None,
    ) -> Any:
        """One request, its answer's JSON.

        Args:
            path: below the base URL, quoted.
            repeatable: whether sending it twice does no harm; for a GET when omitted.
            on_attempt: called before each time that it is sent; may return what is called as the body leaves.
            patient: whether the answer's first byte may take until the deadline.
            paced: whether it waits for its turn, which then puts the deadline off; False for what must
                not wait, or has done so.
            retries: how often it is sent again at the most, if not as often as other requests.

        Raises:
            ServiceError: one of its kinds; ``maybe_sent`` says whether the request may have worked.
        """

        def send() -> Any:
            if paced:
                deadline.extend(self.pacer.wait(deadline=deadline))
            return self.parsed(self._once(method, path, params, body, deadline, on_attempt, patient), deadline)

        get, most = method == "GET", self._retries if retries is None else retries
        unsent = min(most, _MOST_UNSENT_GETS) if get else most
        again = get if repeatable is None else repeatable
        return self._insist(send, deadline, most, most_unsent=unsent, repeatable=again)

    def open(
        self,
        path: str,
        *,
        deadline: Deadline,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any],
        on_attempt: OnAttempt | None = None,
    ) -> requests.Response:
        """POSTs for a stream, not paced; the caller reads ``pieces`` of the answer. Errors as for ``json``."""
        most, send = self._retries, lambda: self._once("POST", path, params, body, deadline, on_attempt)
        return self._insist(send, deadline, most, most_unsent=most, repeatable=False)

    def pieces(self, response: requests.Response, deadline: Deadline) -> Iterator[bytes]:
        """The bytes of an answer as they come, each wait held to the read timeout and the deadline."""
        raw, size, ended = response.raw, 0, False
        try:
            while True:
                _limit_wait(raw, min(self.read_timeout, deadline.check(maybe_sent=True)))
                piece = raw.read1(65536)
                if not piece:
                    ended = True
                    return
                size += len(piece)
                if size > _LARGEST_ANSWER:
                    raise errors.ServerError("The answer is larger than 256 MiB.", maybe_sent=True)
                yield piece
        except (urllib3.exceptions.HTTPError, OSError) as error:
            deadline.check(maybe_sent=True)
            raise errors.ConnectionFailed(
                f"The connection to {self._host} was lost while it answered ({reason(error)}).", maybe_sent=True
            ) from None
        finally:
            if not ended:
                response.close()

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

    def _new_session(self) -> requests.Session:
        session, parts = _Session(), urlsplit(self.base_url)
        # A proxy is no way to this machine, and must not see the key of a server that runs here.
        session.trust_env = parts.scheme != "http" or not is_loopback(parts.hostname or "")
        session.auth = _KeyAuth(self._key)
        session.headers.update({"User-Agent": "xpander_magics", "Accept-Encoding": "identity"})
        adapter = Adapter(pool_connections=4, pool_maxsize=self._connections, max_retries=0)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        return session

    def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
        deadline: Deadline,
        on_attempt: OnAttempt | None,
        patient: bool = False,
    ) -> requests.Response:
        deadline.check()
        may_leave = on_attempt() if on_attempt is not None else None
        left = deadline.check()
        timeout = (min(self._connect_timeout, left), left if patient else min(self.read_timeout, left))
        if self._pid != os.getpid():
            # A forked process must not read the answers that its parent's connections bring.
            self._session, self._pid = self._new_session(), os.getpid()
        url, data = self.base_url + path, None if body is None else json.dumps(body, allow_nan=False).encode()
        for _ in range(_MOST_REDIRECTS):
            try:
                response = self._session.request(
                    method,
                    url,
                    params=params,
                    data=data if data is None or may_leave is None else Body(data, may_leave),
                    headers=None if body is None else {"Content-Type": "application/json"},
                    timeout=timeout,
                    stream=True,
                )
            except requests.RequestException as error:
                failed = failure(error, deadline, host=self._host, redact=self._redact)
                if deadline.left() > 0 and not isinstance(failed, errors.ConfigError):
                    self.pacer.told(None)
                raise failed from None
            if not response.is_redirect:
                break
            url, params = self._redirected(response, method), None
        else:
            raise errors.ServerError(f"{self._host} redirects in a circle.", status_code=response.status_code)
        self.clock.told(response.headers)
        refused = self._refusal(response, deadline, body or {}) if response.status_code >= 300 else None
        self.pacer.told(response.status_code, refused.retry_after if refused else None)
        if refused:
            raise refused
        return response

    def _redirected(self, response: requests.Response, method: str) -> str:
        """Where a redirect leads, if the request may go there: its body is as private as the key."""
        response.close()
        status = response.status_code
        try:
            if self._redact.finds(url := urljoin(response.url, response.headers["Location"])):
                raise ValueError  # logs name addresses
            here, there = urlsplit(response.url), urlsplit(url)
        except ValueError:
            raise errors.ServerError(f"{self._host} redirects ({status}) to no address.", status_code=status) from None
        if (here.scheme, here.netloc) != (there.scheme, there.netloc):
            raise errors.ConnectionFailed(
                f"{self._host} redirects to {plain(self._redact(f'{there.scheme}://{there.netloc}'))[:200]}, "
                "which must not see the key.\n"
                "If that is where the service now is, set XPANDER_BASE_URL to it.",
                status_code=status,
            )
        if method != "GET" and status not in (307, 308):
            # These turn a POST into a GET; after 303 its work is done.
            raise errors.ServerError(
                f"{self._host} redirects a {method} ({status}), which would lose its body.",
                status_code=status,
                maybe_sent=status == 303,
            )
        return url

    def parsed(self, response: requests.Response, deadline: Deadline) -> Any:
        """The JSON of an answer."""
        data = b"".join(self.pieces(response, deadline))
        try:
            return self._redact(json.loads(data))
        except (ValueError, RecursionError):
            if data.lstrip()[:1] in (b"{", b"["):
                # Without a length and without chunks, an answer that was cut looks like this.
                raise errors.ConnectionFailed(f"{self._host} answered half a JSON text.", maybe_sent=True) from None
            raise errors.ServerError(
                f"{self._host} answered something that isn't JSON. Is {self.base_url} the service's address?",
                status_code=response.status_code,
                maybe_sent=True,
            ) from None

    def _insist(
        self, send: Callable[[], _T], deadline: Deadline, most: int, *, most_unsent: int, repeatable: bool
    ) -> _T:
        """Sends, and sends again where that is safe and may help, so often at the most."""
        tries = failed = 0
        while True:
            try:
                return send()
            except errors.ServiceError as error:
                refused, unsent = (not error.maybe_sent and error.status_code in of for of in (_REFUSED, (None,)))
                if not may_pass(error) or not (repeatable or refused or unsent):
                    raise
                tries += 1
                # A start that is put off has cost nothing yet: its own time limit says when to give up.
                failed += not (refused and not repeatable and most)
                if failed > (most_unsent if unsent else most):
                    raise
                pause = min(_LONGEST_PAUSE, 0.25 * 2 ** min(tries - 1, 10)) * random.uniform(0.5, 1.0)
                if (told := error.retry_after) is not None:
                    # Many clients told the same moment must not all come back at it. And who says "at once"
                    # again and again doesn't know.
                    pause = max(told + random.uniform(0.0, min(1.0, 0.1 * told)), pause if tries > most else 0.0)
                if pause >= deadline.left():
                    raise
            deadline.sleep(pause)

    def _refusal(self, response: requests.Response, deadline: Deadline, sent: Mapping[str, Any]) -> errors.ServiceError:
        """The error that a status of 300 or more means; of a long page the beginning is enough."""
        body, redact = b"", Redactor([*self._redact.secrets, *secret_variables().values(), *secrets_in(sent)])
        try:
            for piece in self.pieces(response, deadline):
                body += piece
                if len(body) > _LONGEST_REFUSAL:
                    break
        except errors.ServiceError:
            pass  # what was wrong is in the status, too
        finally:
            response.close()
        status, said, headers = response.status_code, response.reason, response.headers
        return refusal(status, said, headers, body, host=self._host, redact=redact, key_of=self._key.source)


def may_pass(error: errors.ServiceError) -> bool:
    """Whether the same request may get another answer a while later: 429, 5xx, and whatever was lost on the way."""
    if error.status_code is None:
        return isinstance(error, (errors.ConnectionFailed, errors.Timeout))
    return error.status_code == 429 or error.status_code >= 500


def _limit_wait(raw: Any, seconds: float) -> None:
    """Sets how long the next read may wait; requests alone fixes that once for the whole answer."""
    sock = getattr(getattr(raw, "connection", None), "sock", None)
    if sock is None:
        # A connection that closes after this answer has let go of its socket; the answer still reads from it.
        sock = getattr(getattr(getattr(getattr(raw, "_fp", None), "fp", None), "raw", None), "_sock", None)
    if sock is not None:
        sock.settimeout(max(seconds, 0.001))
