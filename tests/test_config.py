"""Where the service is and the key to it: what wins, what is refused, and that no key is shown."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest

from xpander_magics import config
from xpander_magics.config import DEFAULT_BASE_URL, Key, base_url_from, is_loopback, key_from
from xpander_magics.errors import AuthError, ConfigError

KEY = "sk-0123456789abcdef"


@pytest.fixture(autouse=True)
def _clean(environment: pytest.MonkeyPatch) -> None:
    """No settings of the developer's own, and no keyring."""


def test_the_address_option_then_environment_then_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert base_url_from() == DEFAULT_BASE_URL
    monkeypatch.setenv("XPANDER_BASE_URL", "https://two.example/")
    assert base_url_from() == "https://two.example"
    assert base_url_from(" https://one.example/api// ") == "https://one.example/api"


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://a.example", "api.xpander.ai", "https://", "//a.example", "https:///x", "javascript:alert(1)"),
        *("https://user:pass@a.example", "https://user@a.example", "https://a.example?key=1", "https://a.example#x"),
        *("https://a.example:port", "https://[::1", "https://a.example:99999"),
        *("http://127.0.0.1\\@evil.example", "http://a.example", "http://localhost.evil.example"),
        *("http://127.0.0.1.evil.example", "http://10.0.0.1", "http://0.0.0.0"),
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        base_url_from(url)
    assert "pass" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:1", "https://a.example/v"])
def test_addresses_that_are_taken(url: str) -> None:
    assert base_url_from(url) == url


def test_unencrypted_elsewhere_only_where_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"XPANDER_ALLOW_HTTP=intranet"):
        base_url_from("http://intranet")
    monkeypatch.setenv("XPANDER_ALLOW_HTTP", "other,intranet")
    assert base_url_from("http://intranet") == "http://intranet"


def test_loopback() -> None:
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.1.2.3", "::1"]))
    assert not any(map(is_loopback, ["", "127.evil.example", "localhost.example", "128.0.0.1", "1.127.0.1"]))


def test_the_key_option_then_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPANDER_API_KEY", f" {KEY}\n")
    assert (key_from("https://a").reveal(), key_from("https://a").source) == (KEY, "XPANDER_API_KEY")
    assert key_from("https://a", "other-key-0123").reveal() == "other-key-0123"
    assert config.has_environment_key()


@pytest.mark.parametrize("value", [None, "", "   "])
def test_no_key(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is not None:
        monkeypatch.setenv("XPANDER_API_KEY", value)
    with pytest.raises(AuthError, match=r"%xpander login"):
        key_from("https://a")


@pytest.mark.parametrize("value", ["ключ-ключ-ключ", "two words here", "line\nbreak-0123456", "bell\x07-0123456789"])
def test_a_key_that_is_none(value: str) -> None:
    with pytest.raises(AuthError) as caught:
        key_from("https://a", value)
    assert value not in str(caught.value)


def test_a_key_is_never_shown() -> None:
    key = Key(KEY, "given")
    for shown in (repr(key), str(key), f"{key}", repr([key]), repr(copy.copy(key))):
        assert KEY not in shown
        assert KEY[:-4] not in shown
    assert "abc" not in str(Key("abcdefgh", "given"))


def test_without_a_keyring_nothing_is_kept() -> None:
    assert config.remember_key("https://a", KEY) is False
    assert config.forget_key("https://a") is False
    with pytest.raises(AuthError):
        key_from("https://a")


_RING = """
import keyring
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError, KeyringLocked
from xpander_magics.config import forget_key, key_from, remember_key
from xpander_magics.errors import AuthError

class Ring(KeyringBackend):
    priority, kept, locked, stuck = 5, {}, False, False
    def get_password(self, service, username):
        if self.locked:
            raise KeyringLocked()
        return self.kept.get((service, username))
    def set_password(self, service, username, password):
        if self.locked:
            raise KeyringLocked()
        self.kept[service, username] = password
    def delete_password(self, service, username):
        if self.stuck:
            raise PasswordDeleteError()
        del self.kept[service, username]

def is_there(url):
    try:
        key = key_from(url)
    except AuthError:
        return False
    assert (key.source, key.reveal()) == ("keyring", "sk-0123456789abcdef")
    return True

ring, one, two = Ring(), "https://one.example", "https://two.example"
keyring.set_keyring(ring)
print(forget_key(one), remember_key(one, "sk-0123456789abcdef"), is_there(one), is_there(two))
ring.locked = True
print(remember_key(two, "sk-other-key-of-mine"), is_there(one), forget_key(one))
ring.locked, ring.stuck = False, True
print(forget_key(one), is_there(one))
ring.stuck = False
print(forget_key(one), is_there(one))
Ring.priority = 0.5  # plain text
print(remember_key(one, "sk-0123456789abcdef"), ring.kept)
"""


def test_the_systems_keyring_keeps_a_key_for_its_address() -> None:
    """In a process of its own: keyring finds every backend that is defined."""
    ended = subprocess.run([sys.executable, "-c", _RING], capture_output=True, text=True, timeout=120, check=False)
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        "False True True False",
        "False False False",
        "False True",
        "True False",
        "False {}",
    ]
