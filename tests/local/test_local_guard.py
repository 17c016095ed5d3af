"""Who may ask, and how much."""

from __future__ import annotations

import http.client
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest


def status(api: Any, path: str = "/v1/agents", **headers: str) -> int:
    """The answer to exactly these headers, which requests would complete."""
    address = urlsplit(api.server.base_url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    code = connection.getresponse().status
    connection.close()
    return code


@pytest.mark.parametrize("path", ["/v1/agents", "/v1/tasks/x", "/nowhere", "/v1/misc/llm_providers"])
def test_every_path_wants_the_key(api: Any, path: str) -> None:
    key = api.server.key
    assert status(api, path, x_api_key=key) in (200, 404)
    assert status(api, path) == 401
    assert status(api, path, x_api_key="") == 401
    assert status(api, path, x_api_key=key[:-1]) == 401
    assert status(api, path, x_api_key="ü") == 401
    assert status(api, path, Authorization=f"Bearer {key}") == 401


@pytest.mark.parametrize(
    ("host", "code"),
    [
        *(("localhost", 200), ("127.0.0.1:1", 200), ("[::1]:80", 200), ("LocalHost:8000", 200)),
        *(("evil.example", 403), ("127.0.0.1.evil.example", 403), ("", 403), ("[", 403), ("localhost:x", 403)),
        *(("localhost@evil.example", 403), ("evil.example:80@localhost", 403), ("localhost:1@evil.example", 403)),
        *(("localhost/evil.example", 403), ("localhost.", 403), ("localhost#", 403), ("localhost evil", 403)),
        *(("[::ffff:127.0.0.1]", 403), ("127.0.0.2", 403), ("127.1", 403), ("2130706433", 403), ("0.0.0.0", 403)),
    ],
)
def test_host_names_this_machine(api: Any, host: str, code: int) -> None:
    assert status(api, Host=host, x_api_key=api.server.key) == code


def test_pages_from_elsewhere_are_refused(api: Any) -> None:
    """Those of other programs of this machine, too: a page's origin is its port as well as its name."""
    key, host = api.server.key, urlsplit(api.server.base_url).netloc
    assert status(api, Host=host, Origin=f"http://{host}", x_api_key=key) == 200
    others = [
        "http://localhost:8888",
        "http://127.0.0.1",
        f"https://{host}",
        f"http://evil@{host}",
        "null",
        "file://",
        "",
    ]
    for origin in [*others, "https://evil.example", f"http://{host}.evil.example", f"http://{host}, http://{host}"]:
        assert status(api, Host=host, Origin=origin, x_api_key=key) == 403, origin


def test_a_large_body_is_refused(api: Any) -> None:
    answer = api.try_invoke("echo", "x" * 3_900_000)
    assert answer.status_code == 200
    assert len(answer.json()["result"]) == 3_900_000
    assert api.try_invoke("echo", "x" * 4_100_000).status_code == 413


def test_a_large_body_without_a_length_is_refused(api: Any) -> None:
    def pieces() -> Any:
        for _ in range(50):
            yield b"x" * 100_000

    try:
        answer = api.http.post(api.server.base_url + api.ids["echo"] + "/invoke", data=pieces(), timeout=30)
    except OSError:
        return  # refused before all was sent, and the connection closed
    assert answer.status_code == 413


def test_only_loopback_is_listened_on(api: Any) -> None:
    port = urlsplit(api.server.base_url).port
    with socket.socket() as other:
        # Binding the same port on another loopback address fails where the server took them all.
        other.bind(("127.0.0.2", port))
