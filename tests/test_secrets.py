"""Nothing that is secret is found anywhere: one long session whose service repeats all it is told, then focused rules.

The session runs in a real kernel. Every canary has a core of letters and digits; whatever the session leaves behind is
unpacked and searched for the cores, as they are, in hexadecimal, backwards and in base64 at each alignment.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import html
import json
import logging
import pickle
import re
import secrets
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from fault_server import KEY, FaultServer, Request, Service, agent, event, redirect, reply
from jupyter_client.manager import start_new_kernel
from test_kernel import Kernel
from test_safety import streamed

from xpander_magics import errors
from xpander_magics.cell import Options, parse_cell
from xpander_magics.config import Key, Settings, base_url_from
from xpander_magics.contract import secrets_in
from xpander_magics.limits import Deadline
from xpander_magics.local.launch import LocalServer
from xpander_magics.plans.terms import refuse_secrets, repeat_options
from xpander_magics.safety import MASK, Address, Redactor, Secret, secret_variables, secrets_of_url, shown_url
from xpander_magics.service.client import Client
from xpander_magics.service.transport import Transport
from xpander_magics.session import Session
from xpander_magics.store.database import address, shown

# ---- the canaries


def canary(around: str = "{}") -> tuple[str, str]:
    """A secret, and its core."""
    core = f"Q{secrets.token_hex(10)}Z"
    return around.format(core), core


def in_base64(text: str) -> Iterator[str]:
    """Those letters of its base64 that stand in that of any longer text."""
    for before in range(3):
        whole = base64.b64encode(bytes(before) + text.encode()).decode()
        inner = whole[-(-before * 8 // 6) : (before + len(text.encode())) * 8 // 6]
        yield from (inner, inner.translate(str.maketrans("+/", "-_")))


def traces(core: str) -> list[bytes]:
    """What a core may look like in an artefact."""
    return [way.encode() for way in (core, core[::-1], core.encode().hex(), *in_base64(core))]


def written(secret: str) -> list[str]:
    """The ways in which a service may repeat a secret."""
    both = base64.b64encode(f"user:{secret}".encode()).decode()
    in_json = json.dumps({"headers": {"Authorization": f"Bearer {secret}"}})
    return [
        *(secret, html.escape(secret), html.escape(secret, quote=False), quote(secret), quote(secret, safe="")),
        *(quote_plus(secret), json.dumps(secret), json.dumps(secret, ensure_ascii=False), json.dumps(in_json)),
        *(f"Basic {both}", base64.urlsafe_b64encode(f"?{secret}!".encode()).decode(), f"??{secret}"),
    ]


def unpacked(data: bytes) -> Iterator[bytes]:
    """The data, and what is packed in it: as gzip or zlib, and in base64."""
    yield data
    for unpack in (gzip.decompress, zlib.decompress):
        with contextlib.suppress(OSError, EOFError, zlib.error):
            yield unpack(data)
    for packed in re.findall(rb"[A-Za-z0-9+/]{64,}={0,2}", data):
        with contextlib.suppress(ValueError, OSError, EOFError, zlib.error):
            yield gzip.decompress(base64.b64decode(packed))


def rows_of(path: Path) -> Iterator[bytes]:
    """Every value of an SQLite file."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in database.execute(f'SELECT * FROM "{table}"'):
                for value in row:
                    if isinstance(value, (str, bytes)):
                        yield value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def found_in(artefacts: Iterable[tuple[str, bytes]], cores: dict[str, str]) -> list[str]:
    """Which canaries are in which artefacts."""
    wanted = {name: traces(core) for name, core in cores.items()}
    return [
        f"{name} in {where}: …{text[max(0, text.index(one) - 80) : text.index(one) + 60]!r}"
        for where, data in artefacts
        for text in unpacked(data)
        for name, ways in wanted.items()
        for one in ways
        if one in text
    ]


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """Else that it finds nothing in the session's artefacts would say nothing."""
    secret, core = canary("a/{}'ü")
    texts = [*written(secret), secret[::-1], secret.encode().hex()]
    packed = base64.b64encode(gzip.compress(f"some words, then {secret}".encode() * 3)).decode()
    for text in (*texts, f'"rows": "{packed}"'):
        assert found_in([("x", text.encode())], {"it": core}), text
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as database:
        database.execute("CREATE TABLE t (blob)")
        database.execute("INSERT INTO t VALUES (?)", (zlib.compress(secret.encode()),))
        database.commit()
    assert found_in((("row", row) for row in rows_of(tmp_path / "x.db")), {"it": core})


# ---- the service that repeats all


@dataclass
class Echo(Service):
    """A service that puts whatever it is told, and every canary in many ways, wherever it can write."""

    canaries: list[str] = field(default_factory=list)

    def said(self, request: Request | None = None) -> str:
        told = json.dumps([request.headers, request.body.decode()]) if request else ""
        return f"{told} {' | '.join(way for secret in self.canaries for way in written(secret))}"

    def start(self, request: Request) -> dict[str, Any]:
        task, said, body = super().start(request), self.said(request), request.json
        task |= {name: body.get(name) for name in ("user_tokens", "user_oidc_token")}
        return task | {"title": self.canaries[0], "hitl_request": {"said": said}, "headers": dict(request.headers)}

    def finish(self, task: dict[str, Any]) -> dict[str, Any]:
        said, text = self.said(), task["input"]["text"]
        result = json.dumps({"said": said, "id": task["id"]}) if "as JSON" in text else f"# Answer\n\n{said}\n{text}"
        state = "failed" if "please fail" in text else "completed"
        super().finish(task).update(status=state, result=result, used_tools=[{"name": said}, *self.canaries])
        return task

    def _invoke(self, request: Request, parts: list[str]) -> tuple[int, Any]:
        if parts[-1] != "stream":
            return super()._invoke(request, parts)
        task = self.start(request)
        said = self.said(request)
        pieces = [said[at : at + 61] for at in range(0, len(said), 61)]
        call = {"tool_name": "send", "payload": {"body": self.canaries, self.canaries[0]: said}}
        sent = [event("task_created", self.shown(task), task["id"])]
        sent += [event(kind, piece, task["id"]) for piece in pieces for kind in ("think", "chunk")]
        sent += [event("tool_call_request", call, task["id"]), event("tool_call_result", {"result": said}, task["id"])]
        sent += [f"data: {said}\n\n".encode(), event("task_finished", self.shown(self.finish(task)), task["id"])]
        return 200, b"".join(sent)

    def _task(self, request: Request, parts: list[str]) -> tuple[int, Any]:
        status, answer = super()._task(request, parts)
        if parts[2:] == ["thread"]:
            return 200, [{"role": "user", "content": self.said(request)}, {"role": "assistant", "content": self.said()}]
        return status, answer


SETUP = """
import json, logging, multiprocessing, os, warnings
from concurrent.futures import ProcessPoolExecutor
import ipywidgets
logging.basicConfig(filename="log.txt", level=logging.DEBUG, force=True)
logging.captureWarnings(True)
warnings.simplefilter("always")
C = json.load(open(os.environ["CANARIES"]))
tokens, oidc, url = {"crm": C["tokens"], "more": [{"deep": C["deep"]}]}, C["oidc"], C["file"]
env, env64, key, word = C["env"], C["env64"], C["key"], C["file password"]
servers = [
    {"name": "files", "config": {"url": C["mcp url"], "headers": {"Authorization": "Bearer " + C["mcp header"]}}},
    {"name": "tool", "config": {"env": {"SOME_NAME": C["mcp env"]}, "args": ["--api-key", C["mcp argument"]]}},
]
rows = [{"text": "one", "label": "a"}, {"text": "two " + C["env"], "label": "b"}]
def fields():
    return {"user_tokens": tokens, "user_oidc_token": oidc}
def everything():
    return {"target": "writer", "mcp": servers, "fields": fields(), "files": [url], "allow_secrets": True}
def key_of():
    return {"key": C["key"]}
def mine(answer, expected):
    raise ValueError("I can't read " + answer)
import xpander_magics as xp
%load_ext xpander_magics
%xmode Verbose
"""
ALL = (
    "--mcp servers --file '{{ url }}' --set 'user_tokens={{ tokens | tojson }}'"
    " --set 'user_oidc_token={{ oidc | tojson }}' --allow-secrets"
)
WORKS = [
    "%xpander status",
    "%xpander agents",
    "get_ipython().run_line_magic('xpander', f\"use writer --mcp servers --set 'user_oidc_token=\\\"{oidc}\\\"'\")\n"
    "%xpander status",
    "%xpander panel",
    "%xpander use --clear",
    f"%%xpander writer {ALL} -o first\nhello {{{{ env }}}} and {{{{ key }}}}",
    f"%%xpander writer {ALL} --mode sync -o second\nhello",
    f"%%xpander writer {ALL} --mode async --format json\nas JSON",
    f"%%xpander writer {ALL} --dry-run\nhello {{{{ key }}}}",
    "first.refresh()\nfirst",
    "print(vars(first), first.events)",
    "%xpander thread first\n",
    "%xpander show second",
    f"%%xpander writer {ALL} --over rows --effort low,high -o runs\nas JSON {{{{ text }}}}",
    "runs.board()",
    "%xpander score runs exact --expected label",
    "xp.score(runs, mine, expected='label')",
    "%xpander compare runs --by effort -o compared",
    "compared",
    "%xpander diff first second",
    "%xpander vote runs\n%xpander vote runs[0] runs[1] left --voter me",
    "%xpander plot runs",
    "%xpander report report.html runs",
    "%xpander export runs.csv\n%xpander export runs.jsonl\n%xpander export runs.parquet\n%xpander export runs.sqlite",
    "%xpander export preferences.jsonl runs --what preferences",
    "get_ipython().run_line_magic('xpander', 'resume ' + runs.sweep_id)",
    "%xpander runs",
    "xp.sweep('in another process', repeat=2, **everything(), progress=False,\n"
    "         executor=ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('spawn'))).df",
    "failed = xp.sweep('please fail', repeat=2, **everything(), progress=False)",
    "%xpander usage",
    "%config XpanderMagics",
    "from xpander_magics.session import default_session\n"
    "s = default_session(); print(vars(s), vars(s.client), s.engine, s.store, s.settings, s.redactor(), s.client.key)",
    "from xpander_magics.doctor import doctor\ndoctor()",
    "json.dump(ipywidgets.Widget.get_manager_state(), open('widgets.json', 'w'))",
    "%xpander local",
    "open(os.environ['CANARIES'] + '.local', 'w').write(s.local.key);",
    "%%xpander echo\nhello",
    "print(s.local, vars(s.local), s.client, vars(s.client))",
    "%xpander status\n%xpander local stop",
]
FAILS = [
    "%%xpander writer\nmy key: {{ key }}",
    "%%xpander writer\nmy token: {{ env }}",
    "%%xpander writer\n{{ env64 }}",
    f"%%xpander writer {ALL}\nplease fail",
    f"%%xpander writer {ALL} --set 'user_tokens={{{{ oidc }}}}'\ngiven twice",
    "%%xpander writer --set 'user_tokens={{ oidc }}'\nno JSON",
    "%%xpander writer --set 'user_tokens={{ oidc | tojson }}'\nno dict",
    "%%xpander writer --mcp '{{ servers | tojson }}'\nno name",
    "%%xpander writer --file 'user:{{ word }}@host/x'\nno URL",
    "try:\n    xp.run('please fail', **everything())\n"
    "except xp.XpanderError as error:\n    raise RuntimeError from error",
    "try:\n    xp.run('{{ key }}', variables=key_of(), target='writer')\n"
    "except xp.XpanderError as error:\n    raise RuntimeError from error",
    "class Odd(list):\n    def __iter__(self):\n        raise KeyError('odd')\n"
    "xp.run('hello', **everything(), tags=Odd())",
    "%xpander thread nothing",
    "%config XpanderMagics.base_url = C['base url']\n%xpander agents",
    "%config XpanderMagics.base_url = None\n%config XpanderMagics.store = C['store']\n%xpander runs",
    "%config XpanderMagics\n%config XpanderMagics.store\ns.settings, 1 / 0",
    "%config XpanderMagics.store = None\n%config XpanderMagics.traceback = True\n%xpander agents\n1 / 0",
    "try:\n    xp.Client().prepare('writer', 'hello', titel='t', **fields())\n"
    "except xp.XpanderError as error:\n    raise RuntimeError from error",
]
REFUSED = [
    *([f"%%xpander writer {ALL}\nrefused"] * 4),
    *(
        f"try:\n    {call}\nexcept xp.XpanderError as error:\n    raise RuntimeError from error"
        for call in ("list(xp.Client().stream('writer', 'hello', **fields()))", "failed.retry()")
    ),
]


@contextlib.contextmanager
def watched_processes() -> Iterator[set[bytes]]:
    """The command lines of all processes, looked at again and again."""
    seen: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(path.read_bytes())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        over.set()
        looking.join()


def test_a_long_session_leaves_no_secret_anywhere(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cores: dict[str, str] = {}
    told: dict[str, str] = {}
    for name, around in {
        **{"key": "sk-{}", "env": "tok/{}+'\"<&>=", "tokens": 'a"b\\{}/é', "deep": "deep {}", "oidc": "eyJ.{}.sig"},
        **{"mcp header": "{}+/==", "mcp env": "env-{}", "mcp argument": "arg-{}", "password": "pa%2F{}"},
        **{"mcp url": "https://mcp.example/sse?api_key={}", "file": "https://me:{}@files.example/a.txt"},
        **{"store": "mysql+nothing://me:{}@db.example/runs", "base url": "https://me:{}@api.example"},
        **{"proxy": "http://me:{}@127.0.0.1:9", "file password": "{}"},
    }.items():
        told[name], cores[name] = canary(around)
    told["env64"] = base64.b64encode(f"x{told['env']}".encode()).decode()
    passwords = [cores[name] for name in ("mcp url", "file")]
    names = ("key", "env", "tokens", "deep", "oidc", "mcp header", "mcp env", "mcp argument", "password")
    folder, aside = tmp_path / "work", tmp_path / "aside"
    folder.mkdir()
    aside.mkdir()
    (aside / "canaries.json").write_text(json.dumps(told))
    with FaultServer(told["key"]) as service, watched_processes() as processes:
        said = [*(told[name] for name in names), *passwords]
        service.service = Echo([agent("writer", 1, description=told["key"])], canaries=said)
        environment.setenv("XPANDER_API_KEY", told["key"])
        environment.setenv("XPANDER_BASE_URL", service.url)
        environment.setenv("XPANDER_STORE", f"sqlite:///{folder / 'runs.db'}")
        environment.setenv("MY_SERVICE_TOKEN", told["env"])
        environment.setenv("DATABASE_URL", f"postgresql://me:{told['password']}@db.example/x")
        environment.setenv("HTTPS_PROXY", told["proxy"])
        environment.setenv("CANARIES", str(aside / "canaries.json"))
        messages = session_in_a_kernel(service, folder)
    local = (aside / "canaries.json.local").read_text()
    assert len(local) > 40
    artefacts: list[tuple[str, bytes]] = [("message", json.dumps(one, default=repr).encode()) for one in messages]
    artefacts += [("process", line) for line in processes]
    for path in folder.rglob("*"):
        if path.is_file():
            artefacts.append((path.name, path.read_bytes()))
            if path.suffix in (".db", ".sqlite"):
                artefacts += [(path.name, row) for row in rows_of(path)]
    kinds = {where for where, _ in artefacts}
    assert {"message", "process", "runs.db", "runs.csv", "runs.jsonl", "runs.parquet", "runs.sqlite"} <= kinds
    assert {"report.html", "log.txt", "widgets.json", "kernel.txt"} <= kinds
    assert b"DEBUG:urllib3" in (folder / "log.txt").read_bytes()
    assert any(b"ipykernel" in line for line in processes)
    assert found_in(artefacts, {**cores, "the local server's key": local}) == []
    # And all of it was sent, or nothing could have been repeated.
    sent = b"".join(request.body for request in service.log)
    for name in ("tokens", "deep", "oidc", "mcp header", "mcp env", "mcp argument", "mcp url", "file", "env", "key"):
        assert cores[name].encode() in sent, name


def session_in_a_kernel(service: FaultServer, folder: Path) -> list[dict[str, Any]]:
    """Runs the cells; returns every message that a front end heard, but the sources of the cells themselves."""
    heard: list[dict[str, Any]] = []
    with (folder / "kernel.txt").open("wb") as printed:
        manager, client = start_new_kernel(
            kernel_name="python3", cwd=str(folder), stdout=printed, stderr=printed, startup_timeout=180
        )
        try:
            kernel = Kernel(manager, client)
            for source in (SETUP, *WORKS):
                reply_, outputs = kernel.run(source)
                heard += [reply_, *(out["content"] for out in outputs)]
                assert reply_["status"] == "ok", (source, reply_)
            detail = service.service.said()  # type: ignore[attr-defined]
            refusals = [
                *(reply(status, {"detail": "x" * 490 + detail}) for status in (400, 401)),
                *(
                    reply(500, f"<title>{detail}</title>", content_type="text/html"),
                    reply(422, {"detail": [{"msg": detail}]}),
                ),
            ]
            for number, source in enumerate((*FAILS, *REFUSED), -len(FAILS)):
                if number >= 0:
                    service.on("POST *", refusals[number % len(refusals)])
                reply_, outputs = kernel.run(source)
                heard += [reply_, *(out["content"] for out in outputs)]
                assert reply_["status"] == "error", (source, outputs)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    return heard


# ---- where the key goes

HOSTS = """
http://localhost.evil.example http://127.0.0.1.nip.io http://127.0.0.1.evil.example http://127.0.0.1.5 http://127.1
http://2130706433 http://0x7f000001 http://0177.0.0.1 http://0.0.0.0 http://0 http://[::] http://[fe80::1]
http://localhost. http://localhost%00.evil.example http://localhost%2eevil.example http://127.0.0.1%23.evil.example
http://127.0.0.1@evil.example http://@evil.example http://127.0.0.1:80@evil.example http://:@127.0.0.1
http://127.0.0.1\\@evil.example http://127.0.0.1\\.evil.example http:\\\\127.0.0.1 http:/127.0.0.1 http:///127.0.0.1
http://127.0.0.1;.evil.example http://127.0.0.1,evil.example http://127.0.0.1\t.evil.example http://127.0.0.1\n.evil
http://127\u30020\u30020\u30021 http://\u2460\u2461\u2466.0.0.1 http://127.0.0.\u0661 http://\uff4cocalhost http://loca\u017fthost
http://localhost\u2024evil.example https://ex\u00e4mple.org https://api.xpander.ai\u200b https://api.xpander.ai\\@evil.example
https://api.xpander.ai@evil.example https://me@api.xpander.ai https://api.xpander.ai?x#y https://[::1 https://a..b:x
http://169.254.169.254 http://10.0.0.1 http://[::ffff:10.0.0.1] http://api.xpander.ai ftp://127.0.0.1 file:///etc/passwd
""".replace("\t", "\0t").replace("\n.evil", "\0n.evil")


@pytest.mark.parametrize("url", [one.replace("\0t", "\t").replace("\0n", "\n") for one in HOSTS.split()])
def test_addresses_that_would_take_the_key_elsewhere(url: str, environment: pytest.MonkeyPatch) -> None:
    """Refused before anything is connected to; also in the environment and in the settings of a session."""
    with pytest.raises(errors.ConfigError):
        base_url_from(url)
    environment.setenv("XPANDER_BASE_URL", url)
    environment.setenv("XPANDER_API_KEY", "k" * 20)
    with pytest.raises(errors.ConfigError):
        _ = Session().client


def test_unencrypted_is_allowed_by_name_alone(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("XPANDER_ALLOW_HTTP", " Intranet.Example ,10.0.0.1")
    assert base_url_from("http://intranet.example:81") == "http://intranet.example:81"
    assert base_url_from("http://10.0.0.1") == "http://10.0.0.1"
    for other in ("http://x.intranet.example", "http://intranet.example.evil", "http://10.0.0.11"):
        with pytest.raises(errors.ConfigError, match="XPANDER_ALLOW_HTTP"):
            base_url_from(other)
    for name in ("*", "", ".example", "1"):
        environment.setenv("XPANDER_ALLOW_HTTP", name)
        with pytest.raises(errors.ConfigError):
            base_url_from("http://intranet.example")


def test_a_key_of_one_service_is_not_sent_to_another(
    environment: pytest.MonkeyPatch, tmp_path: Path, service: FaultServer
) -> None:
    """After a login, a change of the address or of the settings, and back."""
    with FaultServer("the-key-of-the-other-service") as other:
        session = Session(Settings(base_url=service.url, store=f"sqlite:///{tmp_path / 'runs.db'}"))
        session.log_in(service.key)
        assert session.client.agents()
        session.configure(Settings(base_url=other.url, store=session.settings.store))
        with pytest.raises(errors.AuthError, match="no API key"):
            _ = session.client
        environment.setenv("XPANDER_API_KEY", other.key)
        assert session.client.agents()
        with pytest.raises(errors.SecretError, match="key"):  # nor is it in a prompt that goes there
            session.plan(Options(target="writer"), f"my other key is {service.key}", {})
        session.configure(Settings(base_url=service.url, store=session.settings.store))
        assert session.client.agents()
        session.close()
        assert {request.headers["x-api-key"] for request in other.log} == {other.key}
        assert {request.headers["x-api-key"] for request in service.log} == {service.key}


def test_netrc_cookies_and_proxies_add_nothing(
    environment: pytest.MonkeyPatch, tmp_path: Path, service: FaultServer
) -> None:
    """Of a service on this machine; of others the proxy is asked for a tunnel, and sees no key."""
    (tmp_path / "netrc").write_text("default login me password of-the-netrc\n")
    environment.setenv("NETRC", str(tmp_path / "netrc"))
    with FaultServer() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            environment.setenv(name, proxy.url.replace("//", "//me:of-the-proxy@"))
        for name in ("no_proxy", "NO_PROXY"):
            environment.delenv(name, raising=False)
        with Client(KEY, service.url) as client:
            assert client.agents()
        assert not proxy.accepted
        assert not {"authorization", "proxy-authorization", "cookie"} & service.log[-1].headers.keys()
        with (
            Client(KEY, "https://api.xpander.example", retries=0) as client,
            pytest.raises(errors.ServiceError) as caught,
        ):
            client.agents()
        assert [request.method for request in proxy.log] == ["CONNECT"]
        assert "x-api-key" not in proxy.log[0].headers
    assert "of-the-" not in "".join([str(caught.value), *caught.value._render_traceback_()])


@pytest.mark.parametrize(
    "proxy", ["http://me:of-the-proxy@[::1", "gopher://me:of-the-proxy@host", "http://me:of-the-proxy@h:x"]
)
def test_a_proxys_password_is_in_no_error(proxy: str, environment: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY"):
        environment.setenv(name, proxy)
    with Client(KEY, "https://api.xpander.example", retries=0) as client, pytest.raises(errors.XpanderError) as caught:
        client.agents()
    assert "of-the-proxy" not in str(caught.value)


def test_a_redirect_neither_logs_nor_shows_the_key(service: FaultServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    transport = Transport(service.url, Key(KEY, "given"), retries=0)
    for to in (
        f"/v1/x?k={KEY}",
        f"/v1/{quote(base64.b64encode(KEY.encode()))}",
        f"http://{KEY}@evil.example/x",
        f"//{KEY}.evil/",
    ):
        service.on("GET *", redirect(to))
        with pytest.raises(errors.XpanderError) as caught:
            transport.json("GET", "/v1/agents", deadline=Deadline(30))
        assert KEY not in str(caught.value)
    assert KEY not in caplog.text
    assert len(service.log) == 4


def test_a_secret_that_a_cut_would_halve_is_masked_first(service: FaultServer) -> None:
    """A refusal's text is cut: what was masked after it would show a secret's beginning."""
    for around in (190, 195, 290, 295, 490, 495):
        for body in ({"detail": "x" * around + KEY}, "x" * around + KEY, {"detail": [{"msg": "x" * around + KEY}]}):
            service.on("GET *", reply(400, body))
            with Client(KEY, service.url, retries=0) as client, pytest.raises(errors.InvalidRequestError) as caught:
                client.agents()
            assert KEY[:5] not in str(caught.value)


# ---- what is never shown


def test_texts_of_what_holds_secrets() -> None:
    """``repr``, ``str`` and variables in tracebacks, of whatever holds one."""
    options = parse_cell(f"writer --set 'user_oidc_token=\"{KEY}\"' --file https://me:{KEY}@host/x?sig={KEY}")
    settings = Settings(store=f"postgresql://me:{KEY}@host/x", base_url=f"https://{KEY}@host")
    held = [
        Secret(KEY),
        {"a": Secret(KEY)},
        Key(KEY, "given"),
        options,
        settings,
        Redactor([KEY]),
        options.without_secrets(),
    ]
    held += [
        Address(f"https://me:{KEY}@host/x?api_key={KEY}&y=1"),
        vars(Redactor([KEY])),
        secret_variables({"MY_KEY": KEY}),
    ]
    assert KEY not in repr(held)
    assert KEY not in str(Key(KEY, "given"))
    assert Secret(KEY) == KEY
    assert pickle.loads(pickle.dumps(Key(KEY, "given"))).reveal() == KEY  # workers need it
    assert shown_url("https://me:pw@host/x?a=b&token=tok-0123456789") == f"https://{MASK}@host/x?a=b&token={MASK}"
    for url in (f"postgresql://me:{KEY}@h/x?sslpassword={KEY}", f"mssql+pyodbc:///?odbc_connect=PWD%3D{KEY}"):
        assert KEY not in shown(address(url))


@pytest.mark.parametrize(
    ("value", "known"),
    [
        ({"user_tokens": {"a": ["one", {"b": "two"}]}}, {"one", "b", "two"}),
        ({"user_oidc_token": "one"}, {"one"}),
        (
            {"mcp_servers": [{"name": "n", "config": {"url": "https://u:one@h/?api_key=two&x=y#z", "type": "sse"}}]},
            {"one", "two"},
        ),
        (
            {"mcp_servers": [{"args": ["-v", "--token", "one", "--port", "80", "--api-key=two", "--mode=x"]}]},
            {"one", "two"},
        ),
        ({"mcp_servers": [{"headers": {"X": "Bearer one"}, "env": {"Y": "two"}}]}, {"Bearer one", "one", "two"}),
        ({"files": ["https://one@h/x", "https://h/x?X-Amz-Signature=two&Expires=9", "data:,x"]}, {"one", "two"}),
        ({"input": {"files": ["https://u:one@h/x"]}, "title": "https://u:no@h"}, {"one"}),
    ],
)
def test_which_values_of_a_call_are_secrets(value: dict[str, Any], known: set[str]) -> None:
    assert {*filter(None, secrets_in(value))} == known


def test_of_any_url_its_password(environment: pytest.MonkeyPatch) -> None:
    assert secret_variables({"X": "https://me:long@password@host/x"}) == {"X": "long@password"}
    assert secrets_of_url("https://host/x?page=1&q=word") == []
    assert secrets_of_url("http://[::1") == []


@pytest.mark.parametrize(
    "secret", ["plain-0123456789", "with/+'\"<&>= \u00e9\\n\n", "p%40ss%2Fword", "-----BEGIN KEY-----\nMIIB\n"]
)
def test_every_way_of_writing_a_secret_is_masked_whole_and_in_pieces(secret: str) -> None:
    for way in written(secret):
        text = f"before {way} after"
        masked = Redactor([secret])(text)
        assert masked.startswith("before ")
        assert masked.endswith(" after")
        assert MASK in masked
        assert len(masked) < len(text) - len(secret) // 2
        for size in (1, 3, 7):
            assert streamed([secret], [text[at : at + size] for at in range(0, len(text), size)]) == masked
        with pytest.raises(errors.SecretError, match="holds the thing"):
            refuse_secrets([text], {}, [("another", "another-0123"), ("the thing", secret)])
    assert Redactor([secret]).joined(Redactor(["x" * 9])).secrets == (secret, "x" * 9)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc to look at a process's environment")
def test_the_local_server_is_told_no_key_and_says_its_own_to_its_parent_alone(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("XPANDER_API_KEY", KEY)
    with LocalServer.start() as server:
        process = Path(f"/proc/{server._process.pid}")
        told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes() + server.log.read_bytes()
        assert server.key.encode() not in told
        assert KEY.encode() not in told
        assert server.key not in repr([server, vars(server)])


def test_a_key_that_is_typed_behind_login_is_not_repeated(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for typed in (KEY, f"--key {KEY}", f"--key={KEY}"):
        with pytest.raises(errors.ConfigError, match="asks for the key") as caught:
            shell.run_cell(f"%xpander login {typed}").raise_error()
        assert KEY not in str(caught.value) + "".join(capsys.readouterr())


def test_a_run_that_lost_secrets_is_not_asked_again(session: Session) -> None:
    """A file's address is kept without its password: what would be sent isn't what was."""
    word = "pw-of-the-files"
    options = Options(target="writer", files=(f"https://me:{word}@files.example/x",))
    run = session.run(options, "hello", {})
    assert run.request["input"]["files"] == [f"https://{MASK}@files.example/x"]
    assert word not in repr(vars(run))
    with pytest.raises(errors.ConfigError, match="sent with a secret"):
        repeat_options(run, (), session.client)
