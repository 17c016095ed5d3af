"""Secrets are masked wherever they stand and however they are cut; hostile text is made harmless."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpander_magics.errors import ConfigError
from xpander_magics.safety import (
    MASK,
    Redactor,
    StreamRedactor,
    is_secret_name,
    plain,
    secret_variables,
    strings_in,
)

SECRET = "sk-0123456789abcdef"


def streamed(secrets: list[str], pieces: list[str]) -> str:
    stream = StreamRedactor(Redactor(secrets))
    return "".join([*(stream.feed(piece) for piece in pieces), stream.flush()])


def test_masks_anywhere_in_a_json_value() -> None:
    value = {"a": [f"x{SECRET}y", 1, None, True, {SECRET: SECRET}], "b": (SECRET,)}
    assert Redactor([SECRET])(value) == {"a": [f"x{MASK}y", 1, None, True, {MASK: MASK}], "b": [MASK]}


def test_nothing_to_mask() -> None:
    value = {"a": [1]}
    assert Redactor([])(value) is value
    assert Redactor(["short"])("a short word") == "a short word"


def test_the_longer_of_two_secrets() -> None:
    assert Redactor([SECRET, SECRET + "-extra"])(f"{SECRET}-extra") == MASK


def test_a_secret_in_json_text() -> None:
    """An answer in JSON holds a key of several lines, or with quotes, in JSON's escapes."""
    secret = '-----BEGIN KEY-----\n"é"'
    for ascii_only in (True, False):
        assert secret not in json.loads(Redactor([secret])(json.dumps([secret], ensure_ascii=ascii_only)))


def test_what_is_nested_too_deep_is_masked() -> None:
    value: Any = SECRET
    for _ in range(5000):
        value = [value]
    masked = Redactor([SECRET])(value)
    while isinstance(masked, list):
        masked = masked[0]
    assert masked == MASK


@pytest.mark.parametrize("at", range(len(SECRET) + 1))
def test_a_secret_cut_at_each_position(at: int) -> None:
    text = f"before {SECRET} after"
    cut = text.index(SECRET) + at
    stream = StreamRedactor(Redactor([SECRET]))
    shown = [stream.feed(text[:cut]), stream.feed(text[cut:]), stream.flush()]
    assert "".join(shown) == f"before {MASK} after"


def test_what_only_looked_like_a_secret_is_shown() -> None:
    assert streamed([SECRET], [SECRET[:-1], "no"]) == SECRET[:-1] + "no"
    assert streamed([SECRET], [SECRET[:-1]]) == SECRET[:-1]


def test_text_without_a_secrets_beginning_is_not_held_back() -> None:
    assert StreamRedactor(Redactor([SECRET])).feed("hello") == "hello"
    assert StreamRedactor(Redactor([])).feed(SECRET) == SECRET


ALPHABET = st.text("ab-", min_size=8, max_size=14)


@given(st.lists(ALPHABET, min_size=1, max_size=4), st.data())
def test_masking_in_pieces_equals_masking_whole(secrets: list[str], draw: st.DataObject) -> None:
    parts = draw.draw(st.lists(st.sampled_from(secrets) | st.text("ab-", max_size=9), max_size=6))
    text = "".join(parts)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert streamed(secrets, pieces) == Redactor(secrets)(text)


@given(st.lists(ALPHABET, min_size=1, max_size=4), st.data())
def test_no_secret_is_ever_shown_and_little_is_held(secrets: list[str], draw: st.DataObject) -> None:
    stream, shown = StreamRedactor(Redactor(secrets)), ""
    fed = 0
    for piece in draw.draw(st.lists(st.sampled_from(secrets) | st.text("xab-", max_size=9), max_size=6)):
        shown += stream.feed(piece)
        fed += len(piece)
        assert not any(secret in shown for secret in secrets)
    assert fed == 0 or not shown or "".join([shown, stream.flush()]).startswith(shown)


@pytest.mark.parametrize(
    "name",
    [
        *("OPENAI_API_KEY", "api_key", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "PGPASSWORD", "DB_PASSWORD"),
        *("XPANDER_API_KEY", "MY_TOKENS", "SSH_PASSPHRASE", "APIKEY", "NPM_AUTHTOKEN", "CLIENT_SECRET_2"),
    ],
)
def test_variables_that_look_like_secrets(name: str) -> None:
    assert secret_variables({name: "0123456789"}) == {name: "0123456789"}
    assert secret_variables({name: "short"}) == {}


@pytest.mark.parametrize(
    "name", ["HOME", "PWD", "KEYBOARD_LAYOUT", "TOKENIZERS_PARALLELISM", "MONKEY", "SECRETARY", "PATH", "SSH_AUTH_SOCK"]
)
def test_variables_that_do_not(name: str) -> None:
    assert secret_variables({name: "0123456789"}) == {}


def test_strings_in() -> None:
    assert [*strings_in({"a": ["b", 1, ("c",)], "d": None})] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("a\r\nb", "a\nb"),
        ("50 %\r100 %", "50 %\n100 %"),
        ("\x1b[31mred\x1b]0;title\x07", "\ufffd[31mred\ufffd]0;title\ufffd"),
        ("\x9b31m", "\ufffd31m"),
        ("user\u202etxt.exe", "user\ufffdtxt.exe"),
        ("zero\u200bwidth\ufeff", "zero\ufffdwidth\ufffd"),
        ("half \ud83d of it", "half \ufffd of it"),
        ("hi\U000e0068\U000e0069\U000e007f", "hi\ufffd\ufffd\ufffd"),  # tags: text that nobody sees
        ("a\U000e0100\U000e01ef", "a\ufffd\ufffd"),
        ("\u845b\U000e0100\U000e0101", "\u845b\ufffd\ufffd"),
        ("\U0001f3f4\U000e0067\U000e0062\U000e0068\U000e007f", "\U0001f3f4\ufffd\ufffd\ufffd\ufffd"),
        ("soft\xadhyphen", "soft\ufffdhyphen"),
        ("\u115f\u1160\u3164\uffa0 \u034f\u206a\ufff9", "\ufffd\ufffd\ufffd\ufffd \ufffd\ufffd\ufffd"),
    ],
)
def test_plain(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "family \U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u2764\ufe0f, text \u2764\ufe0e, key 1\ufe0f\u20e3, flag \U0001f1e9\U0001f1ea, wave \U0001f44b\U0001f3fd",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with a non-joiner
        "\u0627\u0644\u0633\u0644\u0627\u0645 \u0639\u0644\u064a\u0643\u0645, \u05e9\u05dc\u05d5\u05dd",
        "\u0915\u094d\u200d\u0937, \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35, \ud55c\uad6d\uc5b4, \u1820\u180b",
        "e\u0301, a\xa0b, 100\u202f%, a\u2011b, \u2713",
        *("\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in f"gb{flag}\x7f") for flag in ("eng", "sct", "wls")),
        "\u845b\U000e0100\u98fe\u5340, \u9089\U000e010f",  # one shape of several, as names have it
    ],
)
def test_plain_leaves_what_people_write(text: str) -> None:
    assert plain(text) == text


def test_plain_marks_all_that_unicode_hides_but_joiners_and_selectors() -> None:
    kept = {0x200C, 0x200D, *range(0xFE00, 0xFE10), *range(0x180B, 0x1810)}
    hidden = {c for c in range(0x110000) if unicodedata.category(chr(c)) in ("Cc", "Cs", "Zl", "Zp")} - {9, 10, 13}
    # Of the format characters, those that are seen themselves are left: signs before numbers, joiners of hieroglyphs.
    seen = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13440)}
    hidden |= {c for c in range(0x110000) if unicodedata.category(chr(c)) == "Cf"} - kept - seen
    assert [hex(c) for c in sorted(hidden) if plain(chr(c)) != "\ufffd"] == []
    assert [hex(c) for c in sorted(kept | seen) if plain(chr(c)) != chr(c)] == []


@given(st.text(), st.integers(0, 50))
def test_plain_never_breaks_and_can_be_printed(text: str, at: int) -> None:
    plain(text).encode()
    assert plain(plain(text)) == plain(text)
    if text[at - 1 : at] != "\r":
        assert plain(text[:at]) + plain(text[at:]) == plain(text)


@pytest.mark.parametrize(
    "name", ["DB_PASS", "MYSQL_PWD", "SSHPASS", "AUTH_HEADER", "MY_PAT", "apiKey", "Authorization"]
)
def test_names_that_say_secret(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "PATH", "SSH_AUTH_SOCK", "KEYBOARD", "AUTHOR", "COMPASS", "url"])
def test_names_that_do_not(name: str) -> None:
    assert not is_secret_name(name)


def test_a_password_in_any_url_is_a_secret() -> None:
    environ = {"DATABASE_URL": "postgresql://me:hunter2-hunter2@db.example/x", "HOME_PAGE": "https://example.org/a"}
    assert secret_variables(environ) == {"DATABASE_URL": "hunter2-hunter2"}


def test_messages_of_errors_are_plain() -> None:
    assert str(ConfigError("red \x1b[31m \u202e")) == "red \ufffd[31m \ufffd"
