"""Where the service is, and the key to it: option, then ``%config``, then environment.

The key comes from ``%xpander login`` (this kernel), from ``XPANDER_API_KEY``, or from the system's
keyring, in that order. It is kept in a ``Key``, whose every text is a mask.
"""

from __future__ import annotations

import getpass
import ipaddress
import os
import re
import warnings
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from xpander_magics.errors import AuthError, ConfigError
from xpander_magics.safety import Secret

DEFAULT_BASE_URL = "https://api.xpander.ai"
_KEYRING_SERVICE = "xpander_magics"
# What every library that reads an address takes for the same host: no user, no backslash, no letters like others.
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")


@dataclass(frozen=True)
class Settings:
    """What ``%config XpanderMagics`` sets; None leaves it to the environment.

    Attributes:
        connect_timeout, read_timeout, timeout, pause_wait: seconds; see ``Client`` and ``Engine``.
        retries: how often a request is sent again at the most.
        settle: seconds after which a call whose answer was lost, and that no task shows up for, has surely
            started none, so that a sweep may send it again.
        rate_limit: how many requests a minute the service allows; see ``Client``.
    """

    base_url: str | None = field(default=None, repr=False)
    target: str | None = None
    store: str | None = field(default=None, repr=False)
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    timeout: float = 600.0
    retries: int = 5
    pause_wait: float = 30.0
    settle: float = 60.0
    rate_limit: float | None = None


@dataclass(frozen=True)
class Key:
    """An API key and where it came from; only ``reveal`` gives it away."""

    _value: str = field(repr=False)
    source: str

    def reveal(self) -> str:
        """The key itself, for the request's header alone."""
        return Secret(self._value)

    def __str__(self) -> str:
        shown = f"…{self._value[-4:]}" if len(self._value) >= 16 else "…"
        return f"{shown} ({self.source})"


def base_url_from(option: str | None = None) -> str:
    """The service's address: the option, else ``XPANDER_BASE_URL``, else the public one.

    Raises:
        ConfigError: it is no http(s) URL, holds a password, or is unencrypted and not this machine.
    """
    if not isinstance(option, (str, type(None))):
        raise ConfigError(f"The base URL is a string, not a {type(option).__name__}.")
    url = (option or os.environ.get("XPANDER_BASE_URL") or DEFAULT_BASE_URL).strip().rstrip("/")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"The base URL can't be read: {error}. Write it like {DEFAULT_BASE_URL}.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"The base URL is no http(s) address. Write it like {DEFAULT_BASE_URL}.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError("The base URL may hold no user, password, query or fragment; the key has its own setting.")
    if not _HOST.fullmatch(parts.netloc) or not url.isascii() or not url.isprintable() or {*url} & {"\\", " "}:
        raise ConfigError(
            f"The base URL has characters that no host and no path has. Write it like {DEFAULT_BASE_URL}, a host "
            "with other letters as xn--…"
        )
    if parts.scheme == "http" and not may_go_unencrypted(host):
        raise ConfigError(
            f"http://{host} would send the key unencrypted. Use https, or allow it: XPANDER_ALLOW_HTTP={host}."
        )
    return url


def may_go_unencrypted(host: str) -> bool:
    """Whether a key may be sent to a host by http: to this machine, and to those that ``XPANDER_ALLOW_HTTP`` names."""
    allowed = [name.strip().lower() for name in os.environ.get("XPANDER_ALLOW_HTTP", "").split(",")]
    return is_loopback(host) or host in allowed


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means this machine, without asking a name server."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def key_from(base_url: str, option: str | None = None) -> Key:
    """The key for a service.

    Args:
        option: a key given in so many words; wins over the others.

    Raises:
        AuthError: there is none, or it can't be a header's value.
    """
    if not isinstance(option, (str, type(None))):
        raise AuthError(f"The API key is a string, not a {type(option).__name__}.")
    value, source = option, "given"
    if not value:
        value, source = os.environ.get("XPANDER_API_KEY"), "XPANDER_API_KEY"
    if not value:
        value, source = _read_keyring(base_url), "keyring"
    value = (value or "").strip()
    if not value:
        raise AuthError(
            "There is no API key. Set XPANDER_API_KEY before the kernel starts, or run %xpander login.\n"
            "To try it without a key: %xpander local in a notebook, python -m xpander_magics demo in a terminal."
        )
    if not value.isascii() or not value.isprintable() or " " in value:
        raise AuthError(f"The API key ({source}) holds characters that no key has. Was something else pasted?")
    return Key(value, source)


def asked_key() -> str:
    """The key that is typed, without echo.

    Raises:
        ConfigError: nobody can be asked, or not without an echo; or nothing was typed.
    """
    try:
        with warnings.catch_warnings():  # where it would be seen, getpass only warns
            warnings.simplefilter("error", getpass.GetPassWarning)
            key = Secret(getpass.getpass("xpander.ai API key: ").strip())
    except (EOFError, NotImplementedError, OSError, getpass.GetPassWarning):  # no answer, no front end, no terminal
        raise ConfigError("Nobody can be asked for the key here. Set XPANDER_API_KEY before it starts.") from None
    if not key:
        raise ConfigError("No key was given; nothing has changed. To try without one: %xpander local")
    return key


def has_environment_key() -> bool:
    """Whether the environment holds a key."""
    return bool(os.environ.get("XPANDER_API_KEY"))


def remember_key(base_url: str, key: str) -> bool:
    """Puts the key into the system's keyring; False where there is none to trust."""
    keyring = _keyring()
    if keyring is None:
        return False
    try:
        keyring.set_password(_KEYRING_SERVICE, base_url, key)
    except Exception:  # a locked or broken keyring, by any backend's own errors
        return False
    return True


def forget_key(base_url: str) -> bool:
    """Takes the key out of the system's keyring; False where none was kept."""
    keyring = _keyring()
    if keyring is None or _read_keyring(base_url) is None:
        return False
    try:
        keyring.delete_password(_KEYRING_SERVICE, base_url)
    except Exception:
        return False
    return True


def _read_keyring(base_url: str) -> str | None:
    keyring = _keyring()
    try:
        return keyring.get_password(_KEYRING_SERVICE, base_url) if keyring else None
    except Exception:
        return None


def _keyring() -> Any:
    """The system's keyring; None without the package, or where it would keep the key in clear."""
    try:
        import keyring

        # Real keyrings have a priority of 1 and more; plain text files and the null one have less.
        return keyring if keyring.get_keyring().priority >= 1 else None
    except Exception:
        return None
