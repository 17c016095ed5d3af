"""HTTP: what is sent again and what never is, what errors say, where the key goes, which sockets are used."""

from __future__ import annotations

import email.utils
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from fault_server import KEY, FaultServer, drop, hang, redirect, reply

from xpander_magics import errors
from xpander_magics.config import Key
from xpander_magics.limits import Deadline, Pacer
from xpander_magics.service.client import Client
from xpander_magics.service.transport import Transport

GET = "GET */llm_providers"


@pytest.fixture
def transport(service: FaultServer) -> Iterator[Transport]:
    transport = Transport(service.url, Key(KEY, "given"), retries=2, connect_timeout=2, read_timeout=0.6)
    yield transport
    transport.close()


def get(transport: Transport, seconds: float = 20) -> Any:
    return transport.json("GET", "/v1/misc/llm_providers", deadline=Deadline(seconds))


def post(transport: Transport, seconds: float = 20, **more: Any) -> Any:
    return transport.json("POST", "/v1/echo", body={"a": 1}, deadline=Deadline(seconds), **more)


# ---- what is sent again


FAULTS = {
    "500": reply(500, {"detail": "x"}),
    "502": reply(502, "<html><title>Bad Gateway</title></html>", content_type="text/html"),
    "503": reply(503, {"detail": "x"}),
    "put off": reply(503, {"detail": "x"}, {"Retry-After": "0"}),
    "504": reply(504, b""),
    "520": reply(520, b"unknown error"),
    "429": reply(429, {"detail": "slow down"}),
    "closed": drop(),
    "reset": drop(by="reset"),
    "cut": reply(200, [1, 2, 3], cut=4),
    "cut chunks": reply(200, [1, 2, 3], cut=4, framing="chunked"),
    "cut by reset": reply(200, [1, 2, 3], cut=4, end="reset"),
    "cut without a length": reply(200, [1, 2, 3], cut=4, framing="close"),
    "nothing of it": reply(200, [1, 2, 3], cut=0),
}
SURELY_NOT_DONE = {"put off", "429"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_get_is_repeated(service: FaultServer, transport: Transport, fault: str) -> None:
    service.on(GET, FAULTS[fault])
    assert len(get(transport)) == 2
    assert len(service.log) == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_post_is_never_sent_twice_once_it_may_have_arrived(
    service: FaultServer, transport: Transport, fault: str
) -> None:
    service.on("POST */echo", FAULTS[fault], reply(200, {"ok": 1}))
    if fault in SURELY_NOT_DONE:
        assert post(transport) == {"ok": 1}
        assert len(service.log) == 2
    else:
        with pytest.raises(errors.ServiceError) as caught:
            post(transport)
        assert caught.value.maybe_sent
        assert len(service.log) == 1


def test_a_post_that_changes_nothing_is_repeated(service: FaultServer, transport: Transport) -> None:
    service.on("POST */echo", drop(), reply(500, b""), reply(200, {"ok": 1}))
    assert post(transport, repeatable=True) == {"ok": 1}


def test_a_hang_ends_at_the_read_timeout(service: FaultServer, transport: Transport) -> None:
    service.on("POST */echo", hang())
    with pytest.raises(errors.Timeout, match="didn't answer in time") as caught:
        post(transport)
    assert caught.value.maybe_sent
    service.on(GET, hang())
    assert len(get(transport)) == 2


def test_a_patient_request_waits_longer_than_the_read_timeout(service: FaultServer, transport: Transport) -> None:
    service.on("POST */echo", reply(200, {"ok": 1}, wait=1))
    assert post(transport, patient=True) == {"ok": 1}


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_dripping_answer_ends_at_the_deadline(service: FaultServer, transport: Transport, framing: str) -> None:
    service.on("POST */echo", reply(200, [0] * 500, split=1, pause=0.1, framing=framing))
    began = time.monotonic()
    with pytest.raises(errors.Timeout):
        post(transport, 0.6)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_an_answer_that_stops_in_the_middle_ends_at_the_deadline(service: FaultServer, framing: str) -> None:
    """Also where the connection closes after the answer: its socket has left the pool, and still must not wait."""
    transport = Transport(service.url, Key(KEY, "given"), retries=0, read_timeout=30)
    service.on("POST */echo", reply(200, [0] * 500, split=100, pause=20, framing=framing))
    began = time.monotonic()
    with pytest.raises(errors.Timeout):
        post(transport, 0.8, patient=True)
    assert time.monotonic() - began < 15


def test_refused_then_up(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    late = Transport(f"http://127.0.0.1:{port}", Key(KEY, "given"), retries=5)
    attempts: list[float] = []
    with FaultServer() as server:
        server._listener.close()
        thread = threading.Timer(0.6, bring_up, [server, port])
        thread.start()
        server.on("POST */echo", reply(200, {"ok": 1}))
        assert post(late, on_attempt=lambda: attempts.append(0)) == {"ok": 1}
        thread.join()
    assert len(attempts) > 1
    assert len(server.log) == 1


def bring_up(server: FaultServer, port: int) -> None:
    server._listener = socket.create_server(("127.0.0.1", port))
    threading.Thread(target=server._accept, daemon=True).start()


def test_never_up(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    dead = Transport(f"http://127.0.0.1:{port}", Key(KEY, "given"), retries=1)
    with pytest.raises(errors.ConnectionFailed, match="can't be reached") as caught:
        post(dead)
    assert not caught.value.maybe_sent


@pytest.mark.parametrize(("method", "sent"), [("GET", 3), ("POST", 5)])
def test_who_only_asks_soon_hears_that_the_network_is_down(method: str, sent: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    dead = Transport(f"http://127.0.0.1:{port}", Key(KEY, "given"), retries=4)
    attempts: list[int] = []
    with pytest.raises(errors.ConnectionFailed, match="can't be reached"):
        dead.json(method, "/v1/x", deadline=Deadline(60), on_attempt=lambda: attempts.append(1))
    assert len(attempts) == sent


def test_an_unknown_host() -> None:
    nowhere = Transport("https://nowhere.invalid", Key(KEY, "given"), retries=0)
    with pytest.raises(errors.ConnectionFailed, match=r"nowhere\.invalid can't be reached") as caught:
        get(nowhere)
    assert not caught.value.maybe_sent


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[FaultServer, Path]]:
    """A server that speaks TLS, and its authority's certificate."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusted = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(trusted))
    with FaultServer(tls=context) as server:
        yield server, trusted


def test_a_long_body_arrives_over_tls_and_is_asked_whether_it_may_leave(
    secure: tuple[FaultServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, trusted = secure
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    transport, body, asked = Transport(server.url, Key(KEY, "given"), retries=0), {"a": "x" * 3_000_000}, []
    server.on("POST /v1/echo", reply(200, [1]), times=2)
    for _ in range(2):  # the second by the connection that is kept
        transport.json("POST", "/v1/echo", body=body, deadline=Deadline(60), on_attempt=lambda: lambda: asked.append(1))
    assert [request.json for request in server.log] == [body, body]
    assert asked
    assert server.accepted == 1


def test_what_may_not_leave_after_all_does_not(service: FaultServer, transport: Transport) -> None:
    looks = iter(range(10))

    def may_leave() -> None:
        if next(looks) == 1:
            raise errors.Timeout("too late", maybe_sent=False)

    with pytest.raises(errors.Timeout, match="too late"):
        transport.json("POST", "/v1/echo", body={}, deadline=Deadline(20), retries=0, on_attempt=lambda: may_leave)
    while not (arrived := service.requests("POST *")):
        time.sleep(0.01)
    assert [request.body for request in arrived] == [b""]  # its head alone


def test_nothing_is_sent_to_a_server_that_is_not_trusted(secure: tuple[FaultServer, Path]) -> None:
    server, _ = secure
    with pytest.raises(errors.ConnectionFailed, match="No trusted connection"):
        get(Transport(server.url, Key(KEY, "given"), retries=0))
    assert server.log == []


def test_no_tls_where_it_is_expected(service: FaultServer) -> None:
    https = service.url.replace("http:", "https:")
    mistaken = Transport(https, Key(KEY, "given"), retries=0, connect_timeout=0.5, read_timeout=0.5)
    with pytest.raises(errors.ServiceError):
        get(mistaken)
    # The random bytes of a TLS greeting may hold a line's end, and so look like a request.
    assert not [request for request in service.log if request.method.isascii() and request.method.isalpha()]


# ---- Retry-After


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_obeyed(service: FaultServer, transport: Transport, status: int) -> None:
    service.on("POST */echo", reply(status, b"", {"Retry-After": "1"}), reply(200, {"ok": 1}))
    assert post(transport) == {"ok": 1}
    first, second = service.log
    assert second.at - first.at >= 0.99


@pytest.mark.parametrize("with_date", [True, False])
def test_retry_after_as_a_date_is_obeyed(service: FaultServer, transport: Transport, with_date: bool) -> None:
    """With a ``Date`` by the server's own clock, which may be an hour off; else by ours."""
    clock = time.time() + (3600 if with_date else 0)
    headers = {"Retry-After": email.utils.formatdate(clock + 2, usegmt=True)}
    headers |= {"Date": email.utils.formatdate(clock, usegmt=True)} if with_date else {}
    service.on("POST */echo", reply(429, b"", headers), reply(200, {"ok": 1}))
    assert post(transport) == {"ok": 1}
    first, second = service.log
    assert second.at - first.at >= 0.9  # a date has whole seconds


@pytest.mark.parametrize(
    "value",
    ["soon", "-1", "", "nan", "²", "Wed, 99 Foo 2026 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 +99999999999999"],
)
def test_a_retry_after_that_says_nothing(service: FaultServer, transport: Transport, value: str) -> None:
    service.on("POST */echo", reply(429, b"", {"Retry-After": value}), reply(200, {"ok": 1}))
    assert post(transport) == {"ok": 1}


@pytest.mark.parametrize("value", ["3600", "9" * 400, "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_a_pause_beyond_the_deadline_is_not_waited_for(service: FaultServer, transport: Transport, value: str) -> None:
    service.on("POST */echo", reply(429, {"detail": "later"}, {"Retry-After": value}))
    with pytest.raises(errors.RateLimitError, match="later") as caught:
        post(transport, 10)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 60


def test_clients_told_the_same_moment_come_back_apart(service: FaultServer) -> None:
    service.on("POST */echo", reply(429, b"", {"Retry-After": "1"}), times=6)
    service.on("POST */echo", reply(200, {"ok": 1}), times=6)
    clients = [Transport(service.url, Key(KEY, "given")) for _ in range(6)]
    threads = [threading.Thread(target=post, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = sorted(r.at for r in service.log[6:])
    assert seconds[-1] - seconds[0] > 0.005


def test_a_start_that_is_put_off_is_sent_again_until_its_deadline(service: FaultServer) -> None:
    transport = Transport(service.url, Key(KEY, "given"), retries=1)
    put_off = reply(503, b"", {"Retry-After": "0"})
    service.on("POST */echo", reply(429, b""), put_off, reply(429, b""), reply(200, {"ok": 1}))
    assert post(transport) == {"ok": 1}
    assert len(service.log) == 4
    service.on("POST */echo", reply(429, {"detail": "slow down"}), times=1000)
    with pytest.raises(errors.RateLimitError, match="429"):
        post(transport, 2)
    assert len(service.log) > 4 + 2


def test_a_start_that_is_put_off_for_no_time_is_not_sent_in_a_rush(service: FaultServer, transport: Transport) -> None:
    service.on("POST */echo", reply(429, {"detail": "slow down"}, {"Retry-After": "0"}), times=1000)
    with pytest.raises(errors.RateLimitError, match="429"):
        post(transport, 2)
    assert 3 < len(service.log) < 20


@pytest.mark.parametrize("status", [429, 503])
def test_a_get_is_still_refused_after_the_retries(service: FaultServer, transport: Transport, status: int) -> None:
    service.on(GET, reply(status, {"detail": "slow down"}), times=3)
    with pytest.raises(errors.ServiceError, match="slow down"):
        get(transport)
    assert len(service.log) == 3


@pytest.mark.parametrize("cancellable", [True, False])
def test_a_pause_ends_when_the_run_is_cancelled(service: FaultServer, transport: Transport, cancellable: bool) -> None:
    service.on("POST */echo", reply(429, {"detail": "later"}, {"Retry-After": "50"}), times=9)
    deadline = Deadline(100, cancellable=cancellable)
    threading.Timer(0.5, deadline.cancel).start()
    began = time.monotonic()
    with pytest.raises(errors.ServiceError) as caught:
        transport.json("POST", "/v1/echo", body={}, deadline=deadline)
    assert time.monotonic() - began < 30
    assert not caught.value.maybe_sent
    assert len(service.log) == 1


def test_a_cancelled_run_sends_nothing_even_if_its_turn_was_waited_for(
    service: FaultServer, transport: Transport
) -> None:
    deadline = Deadline(100, cancellable=True)
    with pytest.raises(errors.Timeout, match="cancelled"):
        transport.json("POST", "/v1/echo", body={}, deadline=deadline, paced=False, on_attempt=deadline.cancel)
    assert not service.log


# ---- what errors say


HTML = "<html><head><TITLE>502 Bad Gateway</TITLE></head><body>" + "x" * 300_000 + "</body></html>"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequestError),
        (401, errors.AuthError),
        (403, errors.AuthError),
        (404, errors.NotFoundError),
        (409, errors.InvalidRequestError),
        (418, errors.InvalidRequestError),
        (422, errors.InvalidRequestError),
        (429, errors.RateLimitError),
        (500, errors.ServerError),
        (502, errors.ServerError),
        (503, errors.ServerError),
        (504, errors.ServerError),
        (300, errors.ServerError),
    ],
)
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"detail": "that's why"}, "that's why"),
        (
            {"detail": [{"loc": ["body", "input", 0], "msg": "Field required", "type": "missing"}]},
            "body.input.0: Field",
        ),
        ({"detail": [{"loc": None}, "odd", 5]}, "invalid; odd; 5"),
        ({"detail": {"code": 7}}, '{"code": 7}'),
        ({"message": "why so"}, "why so"),
        (["x"], "x"),
        (5, "5"),
        (None, "Said"),
        (HTML, "502 Bad Gateway"),
        ("<p>no title</p>", "Said"),
        ("plain words", "plain words"),
        (b"\xff\x1b[31m", "\ufffd"),
        (b"[" * 60_000, "[["),
        (b"", "Said"),
    ],
    ids=range(14),
)
def test_refusals(service: FaultServer, status: int, kind: type[errors.ServiceError], body: Any, said: str) -> None:
    transport = Transport(service.url, Key(KEY, "given"), retries=0)
    service.on(GET, reply(status, b"" if body is None else body))
    with pytest.raises(kind) as caught:
        get(transport)
    message = str(caught.value)
    assert caught.value.status_code == status
    assert str(status) in message
    assert status == 300 or said in message
    assert len(message) < 1200
    assert "\x1b" not in message
    transport.close()


def test_of_an_endless_refusal_the_beginning_is_enough(service: FaultServer) -> None:
    service.on(GET, reply(400, b"x" * 50_000_000, split=50_000, pause=0.001))
    began = time.monotonic()
    with pytest.raises(errors.InvalidRequestError):
        get(Transport(service.url, Key(KEY, "given"), retries=0))
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("body", [b"<html>hotel wifi</html>", b"", b"\xff\xfe", b"hello"])
def test_an_answer_that_is_no_json(service: FaultServer, transport: Transport, body: bytes) -> None:
    service.on(GET, reply(200, body), times=3)
    with pytest.raises(errors.ServerError, match=r"isn't JSON\. Is http"):
        get(transport)


def test_an_answer_that_is_nested_without_an_end(service: FaultServer) -> None:
    service.on(GET, reply(200, b"[" * 200_000))
    with pytest.raises(errors.ServiceError):
        get(Transport(service.url, Key(KEY, "given"), retries=0))


def test_a_large_answer_is_read(service: FaultServer, transport: Transport) -> None:
    service.on(GET, reply(200, ["x" * 20_000_000], framing="chunked", split=1_000_000))
    assert len(get(transport)[0]) == 20_000_000


# ---- where the key and the body go


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_redirect_to_another_host_is_not_followed(
    service: FaultServer, transport: Transport, status: int, method: str
) -> None:
    with FaultServer() as other:
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        for to in (f"{other.url}/v1/x", f"{elsewhere}/v1/x", f"//localhost:{other.port}/x"):
            service.on("*", redirect(to, status))
            with pytest.raises(errors.ConnectionFailed, match="must not see the key"):
                (get if method == "GET" else post)(transport)
        assert other.accepted == 0
    assert len(service.log) == 3  # and it isn't tried again


@pytest.mark.parametrize(
    "to", ["https://127.0.0.1:PORT/v1/x", "http://user@127.0.0.1:PORT/", "ftp://a/b", "http://[", ""]
)
def test_odd_redirects(service: FaultServer, transport: Transport, to: str) -> None:
    service.on("POST *", redirect(to.replace("PORT", str(service.port))), times=4)
    with pytest.raises(errors.XpanderError):
        post(transport)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_on_the_same_host(service: FaultServer, transport: Transport, status: int) -> None:
    service.on(GET, redirect("/v1/misc/llm_providers/openai/models", status))
    assert get(transport)[0]["model_id"] == "gpt-5"
    service.on("POST */echo", redirect("/v1/other", status))
    service.on("POST */other", reply(200, {"ok": 1}))
    if status in (307, 308):
        assert post(transport) == {"ok": 1}
        assert service.log[-1].json == {"a": 1}
        assert service.log[-1].headers["x-api-key"] == KEY
    else:
        with pytest.raises(errors.ServerError, match="would lose its body") as caught:
            post(transport)
        assert caught.value.maybe_sent is (status == 303)


def test_a_circle_of_redirects(service: FaultServer, transport: Transport) -> None:
    service.on(GET, redirect("/v1/misc/llm_providers"), times=50)
    with pytest.raises(errors.ServerError, match="in a circle"):
        get(transport)
    assert len(service.log) < 10


def test_netrc_is_not_used(service: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\ndefault login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    get(Transport(service.url, Key(KEY, "given")))
    assert "authorization" not in service.log[0].headers
    assert service.log[0].headers["x-api-key"] == KEY


def test_a_proxy_does_not_see_what_stays_on_this_machine(service: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert get(Transport(service.url, Key(KEY, "given")))
        assert proxy.accepted == 0


def test_the_key_is_in_no_error_and_no_log(
    service: FaultServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    client = Client(KEY, service.url, retries=0)
    shown = [repr(client), str(client), client.key_shown]
    for action in (
        reply(401, {"detail": f"bad key {KEY}"}),
        reply(400, f"<title>{KEY}</title>"),
        reply(422, {"detail": [{"loc": [KEY], "msg": KEY}]}),
        reply(500, b"", {"X-Echo": KEY}),
        drop(),
        redirect(f"http://evil.example/{KEY}"),
    ):
        service.on(GET, action)
        with pytest.raises(errors.XpanderError) as caught:
            client.providers()
        shown += [str(caught.value), repr(caught.value), *(caught.value._render_traceback_())]
    client.agents()
    shown += [caplog.text, *capfd.readouterr()]
    assert KEY not in "".join(shown)


# ---- connections, pace, limits


def test_connections_are_reused(service: FaultServer, transport: Transport) -> None:
    for _ in range(20):
        get(transport)
    for status in (400, 404, 422):
        service.on(GET, reply(status, {"detail": "x"}))
        with pytest.raises(errors.ServiceError):
            get(transport)
    get(transport)
    assert service.accepted <= 4


def test_many_threads_share_a_pool(service: FaultServer, transport: Transport) -> None:
    def work() -> None:
        for _ in range(10):
            get(transport)

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(service.log) == 100
    assert service.accepted <= 10


def test_a_pool_can_be_made_larger_while_it_is_used(service: FaultServer, caplog: pytest.LogCaptureFixture) -> None:
    transport = Transport(service.url, Key(KEY, "given"), connections=2)
    service.on("POST */echo", reply(200, {"ok": 1}, wait=1), times=90)

    def wave(count: int) -> list[threading.Thread]:
        threads = [threading.Thread(target=post, args=[transport]) for _ in range(count)]
        for thread in threads:
            thread.start()
        return threads

    early = wave(2)
    transport.reserve(40)
    late = wave(40)
    for thread in [*early, *late]:
        thread.join()
    before = service.accepted
    transport.reserve(10)
    for thread in wave(40):
        thread.join()
    assert len(service.log) == 82
    assert service.accepted <= before + 2
    assert "pool is full" not in caplog.text
    transport.close()


def test_the_rate_is_kept_over_all_threads(service: FaultServer, transport: Transport) -> None:
    transport.pacer.set_rate(1200)
    threads = [threading.Thread(target=get, args=[transport]) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = sorted(r.at for r in service.log)
    assert seconds[-1] - seconds[0] >= 9 * 0.05 * 0.8


def test_pace_does_not_wait_longer_than_the_deadline() -> None:
    pacer = Pacer()
    pacer.set_rate(0.1)
    began = time.monotonic()
    pacer.wait(5)
    pacer.wait(0.1)
    assert time.monotonic() - began < 20
    pacer.set_rate(None)
    pacer.wait(0)


def test_a_rate_does_not_delay_what_has_none() -> None:
    pacer = Pacer()
    pacer.set_rate(0.1)
    pacer.wait()
    pacer.set_rate(None)
    assert pacer.wait() < 5
    pacer.set_rate(6000)
    assert pacer.wait() < 5


def test_a_wait_that_is_cut_short_gives_its_turn_back() -> None:
    pacer = Pacer()
    pacer.set_rate(60)
    pacer.wait()
    for _ in range(8):
        pacer.wait(0.02)
    assert pacer.wait() < 5


def test_a_wait_that_is_interrupted_gives_its_turn_back() -> None:
    pacer = Pacer()
    pacer.set_rate(20)
    pacer.wait()
    interrupt = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT])
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        pacer.wait()
    interrupt.join()
    assert pacer.wait() < 5


def test_a_new_rate_holds_for_those_who_wait() -> None:
    pacer = Pacer()
    pacer.set_rate(0.1)
    pacer.wait()
    change = threading.Timer(0.2, pacer.set_rate, [None])
    change.start()
    assert pacer.wait() < 30
    change.join()


def test_waiting_for_the_turn_puts_off_the_deadline(service: FaultServer, transport: Transport) -> None:
    transport.pacer.set_rate(30)
    get(transport)
    assert len(get(transport, 1.8)) == 2
    first, second = service.log
    assert second.at - first.at >= 1.9


def test_what_must_not_wait_does_not(service: FaultServer, transport: Transport) -> None:
    transport.pacer.set_rate(0.1)
    for _ in range(3):
        transport.json("GET", "/v1/misc/llm_providers", deadline=Deadline(5), paced=False)
    get(transport)  # the turn is still there
    assert len(service.log) == 4


def test_a_deadline_can_be_put_off() -> None:
    deadline = Deadline(100)
    deadline.extend(50)
    assert 140 < deadline.left() <= 150
    deadline.shorten(0)
    deadline.extend(50)
    assert 40 < deadline.left() <= 50


def test_a_deadline_can_be_brought_forward_and_put_back() -> None:
    deadline = Deadline(100)
    deadline.shorten(0)
    with pytest.raises(errors.Timeout, match="100 s"):
        deadline.check()
    deadline.shorten(50)
    assert deadline.left() <= 0
    deadline.restore()
    assert 90 < deadline.check() <= 100


FORKING = """
import os, sys
import test_transport as t
transport = t.Transport(sys.argv[1], t.Key(t.KEY, "given"))
t.get(transport)
child = os.fork()
t.get(transport) if child == 0 else os.waitpid(child, 0)
if child:
    t.get(transport)
"""


def test_a_forked_child_does_not_share_its_parents_connection(service: FaultServer) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", FORKING, service.url], env=environment, check=True, timeout=120)
    assert [r.connection for r in service.log] == [1, 2, 1]
