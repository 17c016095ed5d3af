"""Secrets kept out, and hostile text made harmless. No I/O.

``Redactor`` masks known secrets wherever text is kept or shown; ``plain`` makes text that somebody
else wrote safe for a terminal. HTML is ``display``'s business.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

MASK = "***"
# Such as OPENAI_API_KEY, but not KEYBOARD; the longer words also at the end of another, as in PGPASSWORD.
_SECRET_NAME = re.compile(
    r"(?:(?<![A-Z])(?:KEY|CREDENTIALS?|PASS|PWD|PAT|AUTH(?!_SOCK))"
    r"|APIKEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|SSHPASS|AUTHORIZATION)S?(?![A-Z])"
)
_NO_SECRETS = frozenset({"PWD", "OLDPWD"})
_URL_PASSWORD = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")
# Shorter values are words of the language more often than secrets.
_SHORTEST_SECRET = 8
# C0 and C1 controls but tab and newline; the bidirectional overrides and isolates; other invisibles; half
# characters (from "\\ud800" in JSON), which can't be printed.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def plain(text: str) -> str:
    """The text without what could steer a terminal or disguise what it says.

    Each control, bidirectional or invisible character becomes U+FFFD, so that it is seen to have
    been there; a carriage return before a newline goes. Works on any piece of a longer text alike.
    """
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def as_shown(value: Any) -> str:
    """A value as text: text as it is, anything else as JSON; still to be made safe."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def secret_variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment's variables that look like secrets by their names, with their values.

    Of any variable that holds a URL with a password, such as ``DATABASE_URL``: that password.
    """
    environ = os.environ if environ is None else environ
    found = {}
    for name, value in environ.items():
        password = _URL_PASSWORD.search(value)
        secret = password[1] if password else value if is_secret_name(name) else ""
        if len(secret) >= _SHORTEST_SECRET:
            found[name] = secret
    return found


def is_secret_name(name: str) -> bool:
    """Whether a variable's or a setting's name says that its value is a secret."""
    # apiKey is API_KEY
    upper = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
    return upper not in _NO_SECRETS and _SECRET_NAME.search(upper) is not None


def strings_in(value: Any) -> Iterable[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from strings_in(key)
            yield from strings_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from strings_in(inner)


def _ways(secret: str) -> set[str]:
    """The ways that a secret is written in plain text and in JSON."""
    return {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}


_PLAIN = frozenset({bool, int, float})


class Redactor:
    """Replaces each of some secrets by ``***`` in any JSON value."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first: one secret may hold another.
        known = sorted({w for s in secrets if len(s) >= _SHORTEST_SECRET for w in _ways(s)}, key=len, reverse=True)
        self._pattern: Any = re.compile("|".join(map(re.escape, known))) if known else None
        self._longest = len(known[0]) if known else 0
        self._known = known

    def __call__(self, value: Any) -> Any:
        """The same value, its secrets masked."""
        if self._pattern is None:
            return value
        try:
            return self._masked(value)
        except RecursionError:
            return MASK  # what is nested too deep to be looked into isn't shown

    def _masked(self, value: Any) -> Any:
        # Every event of every run comes by here: the usual types are asked for first, and short texts hold nothing.
        kind, masked = type(value), self._masked
        if kind is str:
            return value if len(value) < _SHORTEST_SECRET else self._pattern.sub(MASK, value)
        if value is None or kind in _PLAIN:
            return value
        if kind is dict or isinstance(value, Mapping):
            return {masked(key): masked(inner) for key, inner in value.items()}
        if kind is list or isinstance(value, (list, tuple)):
            return [masked(inner) for inner in value]
        return self._pattern.sub(MASK, value) if isinstance(value, str) else value

    def joined(self, other: Redactor) -> Redactor:
        """One that masks what either does."""
        return Redactor([*self._known, *other._known])

    def finds(self, text: str) -> bool:
        """Whether a text holds one of the secrets; for long texts that most likely don't."""
        return any(word in text for word in self._known)

    def held_in(self, text: str) -> list[str]:
        """Those of the secrets that are in a text."""
        return [word for word in self._known if word in text]

    def split(self, text: str) -> tuple[str, str]:
        """Masks the beginning of a text that goes on.

        Returns:
            What no further text can change, masked; and the rest, which may begin a secret.
        """
        if self._pattern is None:
            return text, ""
        masked: list[str] = []
        at = 0
        while True:
            found = self._pattern.search(text, at)
            stop = found.start() if found else len(text) - 1
            # A longer secret may begin before this one, or with it.
            for begin in range(max(at, len(text) - self._longest + 1), stop + 1):
                tail = text[begin:]
                if any(len(tail) < len(secret) and secret.startswith(tail) for secret in self._known):
                    return "".join([*masked, text[at:begin]]), tail
            if found is None:
                return "".join([*masked, text[at:]]), ""
            masked += [text[at : found.start()], MASK]
            at = found.end()


class StreamRedactor:
    """A ``Redactor`` for text that comes in pieces: a secret cut in two is masked as well."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""

    def feed(self, piece: str) -> str:
        """The text that may be shown now; what could begin a secret waits for the next piece."""
        text, self._held = self._redactor.split(self._held + piece)
        return text

    def flush(self) -> str:
        """What still waited, at the end."""
        text: str = self._redactor(self._held)
        self._held = ""
        return text
