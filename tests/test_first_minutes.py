"""What a newcomer meets where something isn't there yet: each error says in a line or three what to do next."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_server import FaultServer, drop
from IPython.core.interactiveshell import InteractiveShell
from notebook_shell import Notebook
from test_main import run_main

from xpander_magics import extras
from xpander_magics.config import Key
from xpander_magics.errors import AuthError, ConfigError, ConnectionFailed, NotFoundError, ServiceError
from xpander_magics.limits import Deadline
from xpander_magics.magics.firstline import check_first_line
from xpander_magics.service.client import Client
from xpander_magics.service.transport import Transport, may_pass

PYPROJECT = (Path(__file__).parents[1] / "pyproject.toml").read_text()
WRONG = "a-wrong-key-0123456789"


def in_a_new_ipython(*cells: str, env: dict[str, str] | None = None, without: tuple[str, ...] = ()) -> list[str]:
    """What each cell shows in an IPython of its own, where these packages can't be imported."""
    script = f"""
        import contextlib, io, json, sys, warnings
        warnings.simplefilter("ignore")
        class Without:
            def __init__(self, finder):
                self.finder = finder
            def __getattr__(self, name):
                return getattr(self.finder, name)
            def find_spec(self, name, *where):
                return None if name.partition(".")[0] in {without!r} else self.finder.find_spec(name, *where)
        sys.meta_path[:] = map(Without, sys.meta_path)
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance(colors="nocolor")
        shell.run_line_magic("load_ext", "xpander_magics")
        shown = []
        for cell in {cells!r}:
            with contextlib.redirect_stdout(io.StringIO()) as told:
                shell.run_cell(cell)
            shown.append(told.getvalue().strip())
        print(json.dumps(shown))
        shell.run_line_magic("unload_ext", "xpander_magics")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    told: list[str] = json.loads(ended.stdout.splitlines()[-1])
    return told


def test_without_a_key_everything_says_how_to_get_on(environment: pytest.MonkeyPatch) -> None:
    in_python = "import xpander_magics as xp; xp.Client()"
    for told in in_a_new_ipython("%%xpander writer\nhi", "%xpander agents", "%xpander use writer", in_python):
        assert told.startswith("AuthError: There is no API key. Set XPANDER_API_KEY before the kernel starts")
        assert "%xpander local" in told
        assert len(told.splitlines()) == 2


def test_a_wrong_key_is_told_by_where_it_came_from(service: FaultServer, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("XPANDER_API_KEY", WRONG)
    with Client(base_url=service.url) as client, pytest.raises(AuthError) as caught:
        client.agents()
    assert re.search(r"refuses the key \(401\): .*\nCorrect XPANDER_API_KEY before", str(caught.value))
    with Client(WRONG, service.url) as client, pytest.raises(AuthError, match="Check the key that was given"):
        client.agents()


def test_doctor_with_a_wrong_key_says_what_to_do(service: FaultServer, tmp_path: Path) -> None:
    done = run_main("doctor", cwd=tmp_path, XPANDER_API_KEY=WRONG, XPANDER_BASE_URL=service.url)
    assert done.returncode == 1
    (at,) = [n for n, line in enumerate(done.stdout.splitlines()) if line.startswith("!!")]
    said = done.stdout.splitlines()[at : at + 2]
    assert "refuses the key (401)" in said[0]
    assert "Correct XPANDER_API_KEY" in said[1]
    assert WRONG not in done.stdout


# ---- a proxy in the way


@pytest.fixture
def proxy(environment: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], str]]:
    """Makes a proxy that answers every CONNECT with these bytes, or with silence; gives its host and port."""
    listeners: list[socket.socket] = []
    silent: list[socket.socket] = []

    def serve(listener: socket.socket, answer: bytes) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if not answer:
                silent.append(connection)
                continue
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    def make(answer: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=serve, args=(listener, answer), daemon=True).start()
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        for name in ("HTTPS_PROXY", "https_proxy"):
            environment.setenv(name, f"http://me:hunter2@{host}")
        for name in ("NO_PROXY", "no_proxy"):
            environment.delenv(name, raising=False)
        return host

    yield make
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
    for one in (*listeners, *silent):
        one.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407 Proxy Authentication Required"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden"),
        (b"", "Read timed out"),
    ],
)
def test_a_proxy_in_the_way_is_named_and_nothing_has_left(
    proxy: Callable[[bytes], str], answer: bytes, why: str
) -> None:
    host = proxy(answer)
    with Client(WRONG, "https://nowhere.invalid", connect_timeout=0.5, retries=0) as client:
        with pytest.raises(ServiceError) as caught:
            client.invoke("agent:91fbe9bc-35b3-41e8-b59d-922fb5a0f031", "hi")
        said = str(caught.value)
        assert said.startswith(f"nowhere.invalid can't be reached through the proxy {host} (")
        assert why in said
        assert "HTTPS_PROXY" in said
        assert "hunter2" not in said
        assert not caught.value.maybe_sent


def test_what_a_proxy_has_taken_and_lost_is_not_sent_twice(environment: pytest.MonkeyPatch) -> None:
    """urllib3 says of that, too, that it couldn't connect to the proxy."""
    with FaultServer() as proxy:
        proxy.on("POST *", drop(), times=9)
        environment.setenv("XPANDER_ALLOW_HTTP", "nowhere.invalid")
        for name in ("HTTP_PROXY", "http_proxy"):
            environment.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            environment.delenv(name, raising=False)
        transport = Transport("http://nowhere.invalid", Key(WRONG, "given"))
        with pytest.raises(ConnectionFailed, match="closed the connection without an answer") as caught:
            transport.json("POST", "/v1/agents/a/invoke", body={}, deadline=Deadline(60))
        assert caught.value.maybe_sent
        assert [request.method for request in proxy.log] == ["POST"]


@pytest.mark.parametrize(("answer", "again"), [("407 Proxy Authentication Required", False), ("503 Busy", True)])
def test_a_proxy_that_has_refused_is_not_asked_again(proxy: Callable[[bytes], str], answer: str, again: bool) -> None:
    proxy(f"HTTP/1.1 {answer}\r\n\r\n".encode())
    with Client(WRONG, "https://nowhere.invalid", retries=0) as client, pytest.raises(ConnectionFailed) as caught:
        client.agents()
    assert may_pass(caught.value) is again
    assert not caught.value.maybe_sent


def test_without_a_network_the_system_is_quoted_and_the_page_named() -> None:
    with Client(WRONG, "http://127.0.0.1:9", retries=0) as client, pytest.raises(ConnectionFailed) as caught:
        client.agents()
    assert str(caught.value).endswith(
        "(Connection refused). Is the network up, and the base URL right?\n%xpander help network has more."
    )


# ---- without the extras


def test_what_lacks_an_extra_names_it_and_what_to_type(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    extra_of = {
        "%xpander local": "local",
        "%xpander plot runs": "plot",
        f"%xpander export {tmp_path / 'a.parquet'} runs": "parquet",
        "xp.score(made, 'similarity', expected='a')": "similarity",
    }
    begin = (
        "from xpander_magics.results import Run\n"
        "from xpander_magics.session import default_session\n"
        "made = Run(target='w', prompt='p', variables={'a': '1'}, status='completed', result='1')\n"
        "default_session().store.add([made])\n"
        "import xpander_magics as xp; runs = xp.runs()"
    )
    first, *told = in_a_new_ipython(begin, *extra_of, without=("fastapi", "matplotlib", "pyarrow", "rapidfuzz"))
    assert not first, first
    for said, extra in zip(told, extra_of.values(), strict=True):
        assert f"the extra [{extra}]:" in said, said
        assert "%pip install" in said
        assert len(said.splitlines()) <= 3


def test_the_extras_are_those_of_the_package() -> None:
    stated = PYPROJECT.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    declared = dict(re.findall(r"^(\w+) = \[(.*?)\]$", stated, re.MULTILINE | re.DOTALL))
    del declared["test"]
    assert extras.names() == sorted(declared)
    for extra, text in declared.items():
        wanted = re.findall(r'"([\w.-]+)', text)
        said = extras.missing("It needs", extra)
        assert said.startswith(f"It needs the extra [{extra}]:")
        for name in extras.lacking(extra) or wanted:
            assert name in said


def test_what_is_installed_by_hand_is_quoted_for_the_shell() -> None:
    assert extras.install(["a[b]<2,>=1", "c"]).endswith("pip install 'a[b]<2,>=1' c")


# ---- a newcomer's mistakes


@pytest.mark.parametrize(
    ("cell", "kind", "says"),
    [
        ("%xpander writer", ConfigError, "Two percent signs send a prompt: %%xpander writer"),
        ("%xpander writer --help", ConfigError, "Two percent signs send a prompt: %%xpander writer"),
        ("%%xpander --help\nhi", ConfigError, "%%xpander? shows every option."),
        ("%%xpander echo -model scripted/echo\nhi", ConfigError, "no option '-model'. Did you mean --model?"),
        ("%%xpander echo -e low, high\nhi", ConfigError, "no space after a comma"),
        ("%xpander runs -last 3", ConfigError, "no option '-last'. Did you mean --last?"),
        ("%xpander compare results", NotFoundError, "There is no sweep 'results', and no variable"),
        ("%%xpander echo --over words\n{{ text }}", ConfigError, "[{'a': 1}, ...]"),
        ("# first\n%%xpander echo\nhi", SyntaxError, "%%xpander has to be the cell's first line"),
        ("x = 1\n%%xpander echo\nTell me {{ x }}", SyntaxError, "%%xpander has to be the cell's first line"),
        ("%load_ext xpander_magics\n%%xpander echo\nhi there", SyntaxError, "has to be the cell's first line"),
        ("x = %pwd\nprint('%d!' % (7 % 2))\n%%xpander echo\nhi there", SyntaxError, "has to be the cell's first line"),
    ],
)
def test_a_mistake_leads_on(notebook: Notebook, cell: str, kind: type[BaseException], says: str) -> None:
    notebook.ns["words"] = ["one", "two"]
    before = notebook.newest_tasks()
    with pytest.raises(kind) as caught:
        notebook.run(cell)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
    assert notebook.newest_tasks() == before


@pytest.mark.parametrize("command", ["--help", "-h", "use --help", "runs -h"])
def test_help_is_what_help_gives(notebook: Notebook, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.run(f"%xpander {command}")
    name = command.split(maxsplit=1)[0].lstrip("-")
    assert f"%xpander {'status' if name in ('help', 'h') else name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "cell",
    [
        's = """\n%%xpander echo\nhi\n"""',
        "%%capture\n%%xpander echo\nhi",
        "\n\n%%xpander echo -o other\nhi",
        "# %%xpander\nx = 1",
    ],
)
def test_what_only_looks_like_a_second_line_is_left_alone(notebook: Notebook, cell: str) -> None:
    transform = notebook.shell.input_transformer_manager.transform_cell
    lines = cell.splitlines(keepends=True)
    assert check_first_line(list(lines)) == lines
    assert transform(cell)


def test_loading_again_checks_once_and_unloading_not_at_all(shell: InteractiveShell) -> None:
    def count() -> int:
        return sum(t.__name__ == "check_first_line" for t in shell.input_transformers_cleanup if hasattr(t, "__name__"))

    shell.run_line_magic("reload_ext", "xpander_magics")
    assert count() == 1
    shell.run_line_magic("unload_ext", "xpander_magics")
    assert count() == 0


def test_the_key_is_not_asked_for_where_it_would_be_seen() -> None:
    script = """
        from xpander_magics import config
        try:
            config.asked_key()
        except Exception as error:
            print(type(error).__name__, error)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        input="typed-for-all-to-see\n",
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
        check=True,
    )
    assert ended.stdout.startswith("ConfigError Nobody can be asked for the key here.")
    assert ended.stderr == ""


# ---- the command line


def test_without_a_command_all_of_them_are_told(tmp_path: Path) -> None:
    done = run_main(cwd=tmp_path)
    assert done.returncode == 2
    assert {"demo", "local", "doctor"} <= set(done.stderr.split())
    version = run_main("--version", cwd=tmp_path)
    assert re.fullmatch(r"xpander_magics \d+\.\d+\.\d+\n", version.stdout)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_main("local", "--port", port, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"ConfigError: Port {port} on 127.0.0.1 can't be used:")
    assert "Without --port it is a free one." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a home where nobody can write, root neither: /proc")
def test_in_a_home_that_cannot_be_written(
    service: FaultServer, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    environment.delenv("XPANDER_STORE")
    env = {"HOME": "/proc", "XPANDER_API_KEY": service.key, "XPANDER_BASE_URL": service.url}
    env |= {"XDG_DATA_HOME": "", "IPYTHONDIR": str(tmp_path / "ipython")}
    cells = ("%%xpander writer\nhi", "%config XpanderMagics.store = 'sqlite://'", "%%xpander writer -o run\nhi")
    refused, _, after = in_a_new_ipython(*cells, env=env)
    assert refused.startswith("StoreError: The run store /proc/")
    assert "set XPANDER_STORE (sqlite:// forgets with the kernel)" in refused
    assert refused.endswith("Nothing was sent.")
    assert "completed" in after
