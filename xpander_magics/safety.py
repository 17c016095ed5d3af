"""Secrets kept out, and hostile text made harmless. No I/O.

``Redactor`` masks known secrets wherever text is kept or shown; ``plain`` makes text that somebody
else wrote safe for a terminal. HTML is ``display``'s business.
"""

from __future__ import annotations

import base64
import functools
import html
import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

MASK = "***"
# Such as OPENAI_API_KEY, but not KEYBOARD; the longer words also at the end of another, as in PGPASSWORD.
_SECRET_NAME = re.compile(
    r"(?:(?<![A-Z])(?:KEY|CREDENTIALS?|PASS|PWD|PAT|AUTH(?!_SOCK))"
    r"|APIKEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|SSHPASS|AUTHORIZATION)S?(?![A-Z])"
)
_NO_SECRETS = frozenset({"PWD", "OLDPWD"})
_URL_PASSWORD = re.compile(r"://[^/\s:@]*:([^/\s]+)@")
_USER_OF_URL = re.compile(r"(?<=://)[^/\s?#]*@")
# What an address that is signed is signed with, beside what other names say of themselves.
_SIGNATURE = re.compile(r"(?:^|[-_])sig(?:nature)?$", re.IGNORECASE)
# Shorter values are words of the language more often than secrets.
_SHORTEST_SECRET = 8
# C0 and C1 controls but tab and newline; line separators; what Unicode says is not to be seen (the property
# Default_Ignorable_Code_Point: bidirectional overrides and isolates, fillers, tags, ...), but the joiners and variation
# selectors that Persian, Indic scripts, Mongolian and emoji are written with; interlinear notes; half characters (from
# "\\ud800" in JSON), which can't be printed.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029"
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff\ud800-\udfff]+"
)
# The flags of England, Scotland and Wales; and an ideograph in one of its shapes, as names have it.
_WRITTEN_WITH = re.compile(
    "\U0001f3f4\U000e0067\U000e0062(?:\U000e0065\U000e006e\U000e0067|\U000e0073\U000e0063\U000e0074"
    "|\U000e0077\U000e006c\U000e0073)\U000e007f|[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff][\U000e0100-\U000e01ef]"
)


class Secret(str):
    """A secret, whose repr is a mask: tracebacks that show variables show that."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{MASK!r}"


class Address(str):
    """An address, whose repr lacks its secrets."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(shown_url(str(self)))


def encodable(value: Any) -> Any:
    """A text with halves of surrogate pairs, which UTF-8 lacks, spelled out; any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def plain(text: str) -> str:
    """The text without what could steer a terminal or disguise what it says.

    Each control, bidirectional or invisible character becomes U+FFFD, so that it is seen to have
    been there; a carriage return before a newline goes. Works on any piece of a longer text alike.
    """
    return _CONTROL.sub(_seen, text.replace("\r\n", "\n").replace("\r", "\n"))


def _seen(found: re.Match[str]) -> str:
    """U+FFFD for each, unless what stands before them is written with them."""
    before = found.string[max(found.start() - 1, 0) : found.end()]
    return found[0] if _WRITTEN_WITH.fullmatch(before) else "\ufffd" * len(found[0])


def unpacked(data: bytes, most: int) -> bytes:
    """What zlib or gzip has packed. Few bytes may have been made to unpack to any number of them.

    Raises:
        ValueError: these would be more than ``most``, or aren't whole.
    """
    unpacker = zlib.decompressobj(wbits=47)  # either's head
    try:
        found = unpacker.decompress(data, most + 1)
    except zlib.error as error:
        raise ValueError("are damaged") from error
    if len(found) > most:
        raise ValueError("unpack to more than can be")
    if not unpacker.eof:
        raise ValueError("end too early")
    return found


def as_shown(value: Any) -> str:
    """A value as text: text as it is, anything else as JSON; still to be made safe."""
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "(nested too deep to be shown)"


def secret_variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment's variables that look like secrets by their names, with their values.

    Of any variable that holds a URL with a password, such as ``DATABASE_URL``: that password.
    """
    environ = os.environ if environ is None else environ
    found: dict[str, str] = {}
    for name, value in environ.items():
        password = _URL_PASSWORD.search(value)
        secret = password[1] if password else value if is_secret_name(name) else ""
        if len(secret) >= _SHORTEST_SECRET:
            found[name] = Secret(secret)
    return found


def secrets_of_url(url: str) -> list[str]:
    """The secrets in an address: its password, or the user that stands there alone; what its query names as one."""
    try:
        parts = urlsplit(url)
        given = parse_qsl(parts.query)
    except ValueError:
        return []
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    named = [value for name, value in given if is_secret_name(name) or _SIGNATURE.search(name)]
    return [Secret(found) for found in (password if colon else user, *named) if found]


def shown_url(url: str) -> str:
    """An address without its secrets."""
    masked: str = Redactor(secrets_of_url(url))(without_user(url))
    return masked


def without_user(text: str) -> str:
    """A text without what stands before the hosts of its addresses: users and passwords."""
    return _USER_OF_URL.sub(f"{MASK}@", text)


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


@functools.lru_cache(maxsize=1_000)
def _ways(secret: str) -> frozenset[str]:
    """The ways that a secret is written: as it is, in HTML, JSON, JSON's JSON and URLs; in base64 within any text."""
    marked = html.escape(secret)
    marks = marked, html.escape(secret, quote=False), marked.replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    ways = {secret, *marks}
    within = {secret, *marks}
    for _ in range(3):
        within = {json.dumps(text, ensure_ascii=ascii_only)[1:-1] for text in within for ascii_only in (True, False)}
        ways |= {*within, *(text.replace("/", "\\/") for text in within)}
    data = secret.encode("utf-8", "surrogatepass")
    ways |= {quote(data, safe=""), quote(data), quote_plus(data), unquote(secret)}
    for before in range(3):
        # Its neighbours share the first and the last letter: those between are its own.
        letters = base64.b64encode(bytes(before) + data).decode()
        letters = letters[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        ways |= {letters, letters.translate(_URL_SAFE)}
    return frozenset(way for way in ways if len(way) >= _SHORTEST_SECRET)


_URL_SAFE = str.maketrans("+/", "-_")
_PLAIN = frozenset({bool, int, float})


class Redactor:
    """Replaces each of some secrets by ``***`` in any JSON value.

    Attributes:
        secrets: those that it masks.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self.secrets = tuple(dict.fromkeys(Secret(s) for s in secrets if len(s) >= _SHORTEST_SECRET))
        ways = {way for secret in self.secrets for way in _ways(secret)}
        # The longest first: one secret may hold another. By their first letters, or each of them would be tried
        # at each letter of a text.
        self._by_first: dict[str, list[str]] = {}
        for way in sorted(ways, key=len, reverse=True):
            self._by_first.setdefault(way[0], []).append(Secret(way))
        groups = (
            f"{re.escape(first)}(?:{'|'.join(re.escape(way[1:]) for way in several)})"
            for first, several in self._by_first.items()
        )
        self._pattern: Any = re.compile("|".join(groups)) if ways else None
        self._longest = max(map(len, ways), default=0)

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
        return Redactor([*self.secrets, *other.secrets])

    def finds(self, text: str) -> bool:
        """Whether a text holds one of the secrets."""
        return self._pattern is not None and self._pattern.search(text) is not None

    def held_in(self, text: str) -> list[str]:
        """Those of the secrets that are in a text."""
        return [secret for secret in self.secrets if Redactor([secret]).finds(text)] if self.finds(text) else []

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
                alike = self._by_first.get(tail[0], ())
                if any(len(tail) < len(secret) and secret.startswith(tail) for secret in alike):
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
