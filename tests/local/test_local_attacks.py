"""What a hostile peer, file, endpoint or model does to the server, and what it may not come to."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import requests
from api import Api
from hypothesis import given, settings
from hypothesis import strategies as st

from xpander_magics.local import LocalServer, ensure, files
from xpander_magics.local.agents import Agent
from xpander_magics.local.body import Input, Invoke
from xpander_magics.local.tasks import Task, Tasks

PACKAGE = Path(__file__).parents[2]


def say(api: Any, raw: bytes, *, hang_up: bool = False) -> bytes:
    """All that comes back for these bytes, until the server closes; at once closed from here where it may wait."""
    address = urlsplit(api.server.base_url)
    got = b""
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        try:
            connection.sendall(raw)
            if hang_up:
                connection.shutdown(socket.SHUT_WR)
            while block := connection.recv(1 << 16):
                got += block
        except ConnectionError:
            pass  # refused before all was sent
    return got


def request(api: Any, *lines: str, target: str = "GET /v1/agents?per_page=1", body: bytes = b"") -> bytes:
    head = [f"{target} HTTP/1.1", f"x-api-key: {api.server.key}", "Connection: close", *lines]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def codes(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


HI = b'{"input":{"text":"hi"}}'
CHUNKED = b"17\r\n" + HI + b"\r\n0\r\n\r\n"
KEYLESS = b"GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ((), 400),
        (("Host: localhost", "Host: localhost"), 400),
        (("Host: localhost", "Host: evil.example"), 400),
        (("Host: localhost", "x-api-key: other"), 401),
        (("Host: localhost", "Origin: http://evil.example", "Access-Control-Request-Method: POST"), 403),
        (("Host: localhost", "Content-Length: -1"), 400),
        (("Host: localhost", f"Content-Length: {'9' * 30}"), 400),
        (("Host: localhost", "Content-Length: 4000001"), 413),
        (("Host: localhost", "Content-Length: 1", "Content-Length: 2"), 400),
        (("Host: localhost", "Transfer-Encoding: xchunked"), 400),
        (("Host: localhost", "X: a\rb"), 400),
        (("Host: localhost", f"X: {'a' * 1_000_000}"), 400),
    ],
)
def test_heads_that_are_refused(api: Any, lines: tuple[str, ...], code: int) -> None:
    assert codes(say(api, request(api, *lines)))[:1] == [code]


def test_no_page_is_let_in_and_nothing_is_switched_to(api: Any) -> None:
    preflight = ("Host: localhost", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-api-key")
    answer = say(api, request(api, *preflight, target="OPTIONS /v1/agents"))
    assert codes(answer) == [405]
    assert b"access-control-allow" not in answer.lower()
    for protocol in ("websocket", "h2c"):
        lines = ("Host: localhost", f"Upgrade: {protocol}", "Sec-WebSocket-Key: YQ==", "Sec-WebSocket-Version: 13")
        assert codes(say(api, request(api, *lines))) == [200]
    for target in ("http://evil.example/v1/agents", "//v1/agents", "/v1/../v1/agents", "*", "/v1/agents/%00"):
        assert codes(say(api, request(api, "Host: localhost", target=f"GET {target}"))) == [404], target


def test_requests_within_requests_need_the_key_too(api: Any) -> None:
    """A body's length told in two ways may end it early; what follows is a request by itself."""
    invoke = f"POST {api.ids['echo']}/invoke"
    for lines, body in (
        (("Content-Length: 5", "Transfer-Encoding: chunked"), CHUNKED),
        ((f"Content-Length: {len(HI)}",), HI),
    ):
        raw = request(api, "Host: localhost", *lines, target=invoke, body=body + KEYLESS)
        assert codes(say(api, raw.replace(b"Connection: close\r\n", b""), hang_up=True)) in ([200, 401], [200], [])
        assert codes(say(api, raw)) == [200]
    for body in (b"-17\r\n" + HI, b"17\r\n" + HI + b"XX0\r\n\r\n", b"F" * 100_000, b"17;" + b"a" * 1_000_000):
        answer = say(api, request(api, "Host: localhost", "Transfer-Encoding: chunked", target=invoke, body=body))
        assert codes(answer)[:1] in ([400], []), body[:20]


PIECES = st.sampled_from(
    [
        *(
            b"GET ",
            b"POST ",
            b"/v1/tasks",
            b"/v1/agents?page=",
            b" HTTP/1.1\r\n",
            b" HTTP/1.0\r\n",
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
        ),
        *(b"Host: localhost\r\n", b"Host: ", b"x-api-key: KEY\r\n", b"Content-Length: ", b"23\r\n", b"4000001\r\n", HI),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"17\r\n",
            b"0\r\n\r\n",
            b"FFFFFFFF\r\n",
            b"Expect: 100-continue\r\n",
            b"INVOKE",
        ),
        *(
            b"Upgrade: h2c\r\n",
            b"Connection: close\r\n",
            b"Origin: null\r\n",
            b"%00%ff",
            b"&from_date=9999-",
            b"\xff\x00",
            b"{",
        ),
    ]
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(parts=st.lists(PIECES | st.binary(max_size=30), max_size=14), whole=st.booleans())
def test_any_bytes_do_no_harm(api: Any, parts: list[bytes], whole: bool) -> None:
    """Junk, and junk behind a head that is let in."""
    raw = b"".join(parts)
    if whole:
        raw = b"POST INVOKE HTTP/1.1\r\nHost: localhost\r\nx-api-key: KEY\r\n" + raw
    raw = raw.replace(b"KEY", api.server.key.encode()).replace(b"INVOKE", api.ids["echo"].encode() + b"/invoke/async")
    assert not [code for code in codes(say(api, raw, hang_up=True)) if code >= 500]


def test_after_all_that_it_answers_and_has_no_fault_to_tell(api: Any) -> None:
    assert api.invoke("echo", "still here")["result"] == "still here"
    assert "Traceback" not in api.server.log.read_text()


@pytest.mark.parametrize("depth", [99, 100, 900, 990, 3000, 100_000])
def test_deep_bodies_are_answered_or_refused(api: Any, depth: int) -> None:
    """Guards against a task that was begun, and could never be written as JSON again."""
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    raw = HI[:-1] + b',"payload_extension":' + deep + b"}"
    answer = api.http.post(api.server.base_url + api.ids["echo"] + "/invoke", data=raw, timeout=60)
    assert answer.status_code == (200 if depth < 100 else 422)


@pytest.mark.parametrize("part", [b'"payload_extension":{"a":1e999}', b'"id":"' + b"a" * 201 + b'"'])
def test_what_could_not_be_said_again_is_refused(api: Any, part: bytes) -> None:
    """An infinite number would be no JSON; a long id would be in every event."""
    raw = HI[:-1] + b"," + part + b"}"
    assert api.http.post(api.server.base_url + api.ids["echo"] + "/invoke", data=raw, timeout=60).status_code == 422


# Bounds, on a server that has small ones


SMALL = """
from xpander_magics.local import guard, process, tasks
guard.MOST_REQUESTS, guard._SECONDS_TO_SEND = 3, 0.5
tasks.MOST_UNDER_WAY, tasks.MOST_UNREAD = 5, 20
process._SECONDS_TO_ASK = 0.5
process.main()
"""


class Told:
    """A server by what it told, with what ``Api`` needs of one."""

    def __init__(self, told: dict[str, str]) -> None:
        self.base_url, self.key = told["base_url"], told["key"]


@pytest.fixture(scope="module")
def small() -> Iterator[Api]:
    process = subprocess.Popen(
        [sys.executable, "-c", SMALL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PACKAGE
    )
    assert process.stdout is not None
    yield Api(Told(json.loads(process.stdout.readline())))  # type: ignore[arg-type]
    process.communicate()


def begin(api: Any, how: str = "/stream", **script: Any) -> requests.Response:
    body = {"input": {"text": "x"}, "payload_extension": {"script": script}}
    return requests.post(
        f"{api.server.base_url}{api.ids['echo']}/invoke{how}",
        json=body,
        headers={"x-api-key": api.server.key},
        stream=True,
        timeout=60,
    )


def test_requests_at_once_are_bounded(small: Api) -> None:
    streams = [begin(small, delay=600) for _ in range(3)]
    refused = small.get("/v1/agents")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1"), "nothing was begun: ask again"
    # The keyless don't count, and are turned away as ever.
    assert requests.get(f"{small.server.base_url}/v1/agents", timeout=60).status_code == 401
    for stream in streams:
        stream.close()
    while small.get("/v1/agents").status_code == 503:
        time.sleep(0.01)
    for task in small.get("/v1/tasks?status=executing").json()["items"]:
        small.post(f"/v1/tasks/{task['id']}/stop")


def test_tasks_under_way_are_bounded(small: Api) -> None:
    begun = [small.invoke("echo", "x", "/async", script={"delay": 600}) for _ in range(5)]
    for how in ("", "/async", "/stream"):
        refused = small.try_invoke("echo", "x", how)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    for task in begun:
        small.post(f"/v1/tasks/{task['id']}/stop")
    assert small.invoke("echo", "x")["status"] == "completed"


def test_a_stream_that_nobody_reads_is_cut(small: Api) -> None:
    """Its events would be kept for good; its reader goes on by Get Task."""
    events = list(small.stream("echo", "x", script={"result": "word " * 30, "chunks": 30}))
    assert events[-1]["type"] == "task_finished", "one that is read isn't"
    body = {"input": {"text": "x"}, "payload_extension": {"script": {"result": "x" * 3_800_000, "chunks": 2000}}}
    raw = json.dumps(body).encode()
    address = urlsplit(small.server.base_url)
    with socket.socket() as unread:
        unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # the system's buffers hold little of it
        unread.settimeout(60)
        unread.connect((address.hostname, address.port))
        lines = ("Host: localhost", f"Content-Length: {len(raw)}")
        unread.sendall(request(small, *lines, target=f"POST {small.ids['echo']}/invoke/stream", body=raw))
        unread.recv(1)
        task_id = small.get("/v1/tasks").json()["items"][0]["id"]
        assert len(small.ended(task_id)["result"]) == 3_800_000
        rest = b""
        while block := unread.recv(1 << 20):
            rest = rest[-1000:] + block
            assert b'"type": "task_finished"' not in rest


def test_who_says_nothing_is_hung_up_on(small: Api) -> None:
    """No request, half a head, half a body: none holds its place for good."""
    key = small.server.key
    assert say(small, b"") == b""
    assert say(small, b"GET /v1/agents HTTP/1.1\r\nHost: local") == b""
    invoke = f"POST {small.ids['echo']}/invoke HTTP/1.1\r\nHost: localhost\r\nx-api-key: {key}\r\n"
    for length in ("Content-Length: 1000000", "Transfer-Encoding: chunked"):
        assert codes(say(small, f"{invoke}{length}\r\n\r\n5\r\n".encode())) == [408]


def test_what_is_kept_is_bounded_in_bytes() -> None:
    kept = Tasks(most_bytes=1000)
    agent = Agent("a", "", "scripted/echo")
    added = []
    for number in range(50):
        assert kept.has_room(90)
        task = Task(agent, Invoke(input=Input(text="x")), None, size=90, id=str(number % 7) if number % 2 else "")
        task.id = task.id or f"own-{number}"
        kept.add(task)
        task.sent, added = "y" * 5, [*added, task]
        task.finish("completed", "z" * 5)
        kept.ended(task)
    assert kept._bytes == sum(turn.size for key in kept._tasks for turn in kept.turns(key)) <= 1000
    assert kept.get(added[-1].id) is added[-1]
    waiting = Task(agent, Invoke(input=Input(text="x")), None, size=900)
    assert kept.has_room(900)
    kept.add(waiting)
    assert not kept.has_room(200), "what is under way isn't forgotten"
    waiting.finish("stopped", None)
    kept.ended(waiting)
    assert kept.has_room(200)


# Files that a prompt attaches


def attached(*urls: str) -> str:
    return asyncio.run(files.attach("x", list(urls)))


def test_attached_files_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(files.FileError, match="at most 50"):
        attached(*["data:,x"] * 51)
    with pytest.raises(files.FileError, match="over 4 MB together"):
        attached(*[f"data:,{'x' * 900_000}"] * 5)
    monkeypatch.setattr(files, "_SECONDS", 0.3)
    with Endpoint() as endpoint, pytest.raises(files.FileError, match="took over"):
        attached(f"{endpoint.url}/drip")


def test_a_file_may_begin_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx's own limit is shorter than the one for a file as a whole."""
    monkeypatch.setitem(httpx.AsyncClient.__init__.__kwdefaults__, "timeout", httpx.Timeout(0.1))
    with Endpoint() as endpoint:
        assert "plain words" in attached(f"{endpoint.url}/late")


def test_what_lets_one_read_a_file_is_not_for_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with Endpoint() as endpoint:
        url = f"{endpoint.url.replace('//', '//me:canary-1@')}/text?sig=canary-2#canary-3"
        read = attached(url)
        assert "plain words" in read
        with pytest.raises(files.FileError) as caught:
            attached(url.replace("/text", "/missing"))
    assert "canary" not in read + str(caught.value)


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        *(("169.254.169.254", True), ("::ffff:169.254.169.254", True), ("fe80::1%eth0", True)),
        *(("127.0.0.1", False), ("10.0.0.1", False), ("::1", False)),
    ],
)
def test_link_local_addresses_are_not_read(address: str, refused: bool) -> None:
    class Stream:
        def get_extra_info(self, name: str) -> Any:
            return {"server_addr": (address, 80)}[name]

    assert files._is_link_local(httpx.Response(200, extensions={"network_stream": Stream()})) is refused


# Endpoints


class Endpoint:
    """A server that speaks as its paths say; ``asked`` is what it was asked, and with which headers."""

    def __init__(self) -> None:
        asked = self.asked = []  # type: list[tuple[str, dict[str, str]]]

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                self.rfile.read(int(self.headers.get("content-length") or 0))
                kind = urlsplit(self.path).path.split("/")[1]
                with contextlib.suppress(OSError):  # it was hung up on
                    getattr(self, f"say_{kind}", self.say_missing)()

            do_POST = do_GET  # noqa: N815

            def head(self, code: int = 200, **headers: str) -> None:
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def events(self, *events: Any) -> None:
                self.head(Content_Type="text/event-stream")
                for event in events:
                    self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")

            def say_missing(self) -> None:
                self.head(404)

            def say_text(self) -> None:
                self.head()
                self.wfile.write(b"plain words")

            def say_late(self) -> None:
                time.sleep(0.5)
                self.say_text()

            def say_drip(self) -> None:
                self.head()
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.05)

            def say_redirect(self) -> None:
                self.head(307, Location="/stolen")

            def say_html(self) -> None:
                self.head()
                self.wfile.write(b"<html>data: <script>alert(1)</script></html>\ndata: <html>\n")

            def say_refusal(self) -> None:
                self.head(500)
                while True:
                    self.wfile.write(b"no " * 100_000)

            def say_line(self) -> None:
                self.head()
                self.wfile.write(b"data: ")
                while True:
                    self.wfile.write(b"x" * 100_000)

            def say_words(self) -> None:
                self.events()
                said = json.dumps({"choices": [{"delta": {"content": "word " * 10_000}}]}).encode()
                while True:
                    self.wfile.write(b"data: " + said + b"\n\n")

            def say_list(self) -> None:
                self.events([1])

            def say_types(self) -> None:
                self.events({"choices": [{"delta": 5}]})

            def say_usage(self) -> None:
                self.events({"choices": [], "usage": {"prompt_tokens": "many"}})

            def say_infinite(self) -> None:
                self.head()
                self.wfile.write(b'data: {"usage": {"prompt_tokens": 1e999}}\n\n')

            def say_deep(self) -> None:
                self.head()
                self.wfile.write(b"data: " + b"[" * 200_000 + b"\n\n")

            def say_numbers(self) -> None:
                self.events({"choices": [{"delta": {"content": 5}}], "usage": {"completion_tokens": -3}})

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Endpoint:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def is_in_environment(secret: str, pid: int) -> bool:
    return secret.encode() in Path(f"/proc/{pid}/environ").read_bytes()


HOSTILE = {
    "redirect": "answered 307",
    "html": "is no chat completion",
    "refusal": "answered 500: no no",
    "line": "a line is over",
    "words": "its answer is over",
    "list": "is no chat completion",
    "types": "is no chat completion",
    "usage": "is no chat completion",
    "infinite": "is no chat completion",
    "deep": "is no chat completion",
}


def test_endpoints_that_answer_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fails its own task, in words. Its key goes to it alone: to no redirect, and no proxy of the environment."""
    with Endpoint() as endpoint, Endpoint() as proxy:
        providers = [
            {"name": kind, "base_url": f"{endpoint.url}/{kind}", "api_key_env": "CANARY_KEY"}
            for kind in (*HOSTILE, "numbers")
        ]
        agents = [{"name": "echo", "model": "scripted/echo"}]
        (tmp_path / "mine.yaml").write_text(json.dumps({"agents": agents, "providers": providers}))
        for name, value in {"CANARY_KEY": "canary-key-1", "HTTP_PROXY": proxy.url, "ALL_PROXY": proxy.url}.items():
            monkeypatch.setenv(name, value)
            monkeypatch.setenv(name.lower(), value)
        monkeypatch.setenv("XPANDER_API_KEY", "canary-of-the-service")
        with LocalServer.start(tmp_path / "mine.yaml") as server:
            if Path("/proc").exists():
                assert not is_in_environment("canary-of-the-service", server._process.pid)
            api = Api(server)
            for kind, words in HOSTILE.items():
                task = api.invoke("echo", "half \ud800", llm_model_provider=kind, llm_model_name="m")
                assert (task["status"], words in task["result"]) == ("failed", True), task["result"]
                assert len(task["result"]) < 600
                assert api.get(f"/v1/misc/llm_providers/{kind}/models").status_code == 502
            fine = api.invoke("echo", "x", llm_model_provider="numbers", llm_model_name="m")
            assert (fine["result"], fine["tokens"]["total_tokens"]) == ("5", 0)
            assert "Traceback" not in server.log.read_text()
    assert {headers["authorization"] for _, headers in endpoint.asked} == {"Bearer canary-key-1"}
    assert not any(path.startswith("/stolen") for path, _ in endpoint.asked)
    assert proxy.asked == []


# Model files, and what holds their answers


def weights_of_nothing(folder: Path) -> dict[str, Path]:
    """Files that begin as GGUF does, and then lie about themselves."""
    number = (2**62).to_bytes(8, "little")
    lies = {
        "junk": b"GGUF" + bytes(range(256)) * 50,
        "counts": b"GGUF\3\0\0\0" + number + number,
        "string": b"GGUF\3\0\0\0" + bytes(8) + b"\1" + bytes(7) + number + b"key",
        "arrays": b"GGUF\3\0\0\0" + bytes(8) + b"\1" + bytes(7) + b"\1" + bytes(7) + b"k" + b"\t\0\0\0" * 9 + number,
    }
    for name, content in lies.items():
        (folder / f"{name}.gguf").write_bytes(content)
    return {name: folder / f"{name}.gguf" for name in lies}


def test_files_that_are_no_models(tmp_path: Path) -> None:
    lies = weights_of_nothing(tmp_path)
    with LocalServer.start(gguf=lies.values()) as server:
        api = Api(server)
        for name in lies:
            task = api.invoke("echo", "x", llm_model_provider="local", llm_model_name=name)
            assert (task["status"], f"{name}.gguf can't be loaded" in task["result"]) == ("failed", True)
        assert api.invoke("echo", "still here")["result"] == "still here"


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
@pytest.mark.model
def test_a_crash_of_the_native_code_costs_its_own_tasks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_TOKEN", "canary-token-1")
    with LocalServer.start(fetch=False) as server:
        api = Api(server)
        for event in api.stream("writer", "Count to one thousand.", llm_reasoning_effort="low"):
            if event["type"] == "chunk":
                (model,) = children(server._process.pid)
                assert not is_in_environment("canary-token-1", model)
                os.kill(model, signal.SIGSEGV)
        task = event["data"]
        assert (task["status"], "llama.cpp ended (SIGSEGV)" in task["result"]) == ("failed", True)
        assert api.invoke("echo", "still here")["result"] == "still here"
        assert api.invoke("writer", "Say hi. \ud800")["status"] == "completed", (
            "loaded again; half a character is no fault"
        )


def children(pid: int) -> set[int]:
    """The processes that one has started and that aren't gone."""
    lists = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return {int(child) for each in lists for child in each if is_alive(int(child))}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
@pytest.mark.model
def test_a_template_that_never_ends_ends_with_its_task_and_with_the_server(tmp_path: Path) -> None:
    """It comes with a model's file, and is rendered while that is loaded, where nothing of Python's runs."""
    endless = "{% for i in range(100000000000) %}{% endfor %}"
    model = {"id": "endless", "path": str(ensure("smollm2-135m-instruct")), "chat_template": endless}
    agents = [{"name": "echo", "model": "scripted/echo"}, {"name": "loops", "model": "local/endless"}]
    (tmp_path / "mine.yaml").write_text(json.dumps({"agents": agents, "models": [model]}))
    with LocalServer.start(tmp_path / "mine.yaml") as server:
        api = Api(server)
        for last in (False, True):
            task = api.invoke("loops", "x", "/async")
            while not (begun := children(server._process.pid)):
                time.sleep(0.01)
            assert api.invoke("echo", "still here")["result"] == "still here"
            if last:
                break
            api.post(f"/v1/tasks/{task['id']}/stop")
            while any(map(is_alive, begun)):
                time.sleep(0.01)
        server._process.kill()
        while any(map(is_alive, begun)):
            time.sleep(0.01)


@pytest.mark.model
def test_schemas_that_are_bombs(api: Any) -> None:
    """Some would hold llama.cpp for minutes, and end it: they aren't given to it."""
    bombs: list[tuple[str, dict[str, Any]]] = [
        ("over 10,000 characters", {"type": "object", "properties": {f"p{n}": {} for n in range(50_000)}}),
        ("answered 400", {"type": "array", "items": {"type": "integer"}, "minItems": 10**9}),
        ("answered 400", {"type": "string", "pattern": "^a{1000000000}$"}),
        ("answered 400", {"$ref": "#"}),
        ("answered 400", {"$ref": "file:///etc/passwd"}),
    ]
    for words, schema in bombs:
        task = api.invoke("writer", "x", output_format="json", output_schema=schema)
        assert (task["status"], words in task["result"]) == ("failed", True), task["result"]


# The port


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="ports that two sockets share")
def test_nobody_takes_the_port_of_a_server_that_died() -> None:
    """Another user would be sent the key, and every prompt that follows."""
    server = LocalServer.start()
    address = urlsplit(server.base_url)
    try:
        os.kill(server._process.pid, signal.SIGKILL)
        server._process.wait()
        for options in ((), (socket.SO_REUSEADDR,)):
            with socket.socket() as other:
                for option in options:
                    other.setsockopt(socket.SOL_SOCKET, option, 1)
                with pytest.raises(OSError, match="in use"):
                    other.bind(("127.0.0.1", address.port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address.hostname, address.port), timeout=60)
    finally:
        server.stop()
