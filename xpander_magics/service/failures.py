"""Requests that got no answer become errors: what failed, where, and whether anything had left."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from xpander_magics import errors
from xpander_magics.extras import install
from xpander_magics.limits import Deadline
from xpander_magics.safety import Redactor, plain, without_user

_MORE = "%xpander help network has more."
_NO_TUNNEL = "Tunnel connection failed"  # so http.client says it


def failure(error: requests.RequestException, deadline: Deadline, *, host: str, redact: Redactor) -> Exception:
    """The error for a request that got no answer.

    Args:
        host: who was asked, for the message.
    """
    # So requests marks an address or a header that is none. One of the answer's comes after the sending.
    if isinstance(error, ValueError) and not isinstance(_innermost(error), urllib3.exceptions.InvalidHeader):
        said = plain(redact(without_user(str(error))))
        hint = f" {install(['pysocks'])}, or set a proxy of another kind." if "SOCKS" in said else ""
        return errors.ConfigError(f"The request can't be made: {said}{hint}")
    unsent, why = _never_sent(error), reason(error)
    if deadline.left() <= 0:
        return deadline.passed(maybe_sent=not unsent)
    if unsent and isinstance(error, requests.exceptions.SSLError):
        return errors.ConnectionFailed(
            f"No trusted connection to {host}: {why}.\n"
            f"Behind a company's proxy, point REQUESTS_CA_BUNDLE at its certificate. {_MORE}",
            status_code=0,  # no retry: a certificate doesn't mend itself
        )
    proxy = _proxy_of(error)
    if unsent and proxy:
        kind = errors.Timeout if isinstance(error, requests.exceptions.Timeout) else errors.ConnectionFailed
        return kind(
            f"{host} can't be reached through the proxy {plain(redact(proxy))} ({why}).\n"
            f"Correct HTTPS_PROXY, or unset it, before the kernel starts. {_MORE}",
            status_code=0 if f"{_NO_TUNNEL}: 4" in why else None,  # it has refused (4xx), and will again
        )
    if isinstance(error, requests.exceptions.Timeout):
        what = "can't be reached" if unsent else "didn't answer"
        return errors.Timeout(f"{host} {what} in time ({why}).{f' {_MORE}' if unsent else ''}", maybe_sent=not unsent)
    what = "can't be reached" if unsent else "closed the connection without an answer"
    hint = f" Is the network up, and the base URL right?\n{_MORE}" if unsent else ""
    return errors.ConnectionFailed(f"{host} {what} ({why}).{hint}", maybe_sent=not unsent)


def reason(error: BaseException) -> str:
    """Why, in a few words: the system's own where it has some."""
    cause = _innermost(error)
    system = cause if isinstance(cause, OSError) else cause.__cause__
    text = getattr(system, "strerror", None) or str(cause) or type(cause).__name__
    return plain(str(text).rpartition(">: ")[2].rpartition("): ")[2])[:200]


def _never_sent(error: requests.RequestException) -> bool:
    """Whether the connection itself failed, so that not a byte of the request has left."""
    untrusted = isinstance(_innermost(error), ssl.SSLCertVerificationError)
    if untrusted or isinstance(error, requests.exceptions.ConnectTimeout):
        return True
    cause: Any = error.args[0] if error.args else None
    if isinstance(cause, urllib3.exceptions.ReadTimeoutError):  # a proxy's silence before there is a way through it
        proxy = getattr(cause.pool, "proxy", None)
        return proxy is not None and cause.url == proxy.url
    cause = getattr(cause, "reason", cause)
    if isinstance(cause, urllib3.exceptions.ProxyError):  # so it also calls a connection that is lost later, by a proxy
        cause = cause.original_error
        if str(cause).startswith(_NO_TUNNEL):
            return True
    return isinstance(cause, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError))


def _proxy_of(error: requests.RequestException) -> str:
    """The proxy's host and port, without the user; empty where there was none."""
    proxy = getattr(getattr(error.args[0] if error.args else None, "pool", None), "proxy", None)
    return urlsplit(str(proxy)).netloc.rpartition("@")[2] if proxy is not None else ""


def _innermost(error: BaseException) -> BaseException:
    """The first cause in a chain of wrapped errors."""
    while True:
        inner = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
        if not isinstance(inner, BaseException):
            return error
        error = inner
