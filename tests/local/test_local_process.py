"""The server's process: starting, ending, and what keeps it from either."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from xpander_magics.errors import ConfigError
from xpander_magics.local import LocalServer

PACKAGE = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


def answers(base_url: str, key: str) -> bool:
    try:
        return requests.get(f"{base_url}/v1/agents", headers={"x-api-key": key}, timeout=30).status_code == 200
    except requests.ConnectionError:
        return False


def gone(pid: int) -> bool:
    """Waits until a process that isn't ours has ended."""
    for _ in range(600):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except ProcessLookupError:
            return True
        except OSError:
            state = "no /proc here"
        if state == "Z":  # nobody waits for it: a container without an init keeps it so
            return True
        time.sleep(0.05)
    return False


def test_start_and_stop() -> None:
    server = LocalServer.start()
    assert server.alive
    assert answers(server.base_url, server.key)
    assert server.base_url.startswith("http://127.0.0.1:")
    assert server.key not in repr(server)
    assert server.log.exists()
    if os.name == "posix":
        assert stat.S_IMODE(server.log.stat().st_mode) == 0o600
    server.stop()
    server.stop()
    assert not server.alive
    assert not answers(server.base_url, server.key)
    assert not server.log.exists()


def test_stop_with_work_under_way() -> None:
    with LocalServer.start() as server:
        headers = {"x-api-key": server.key}
        agents = requests.get(f"{server.base_url}/v1/agents", headers=headers, timeout=30).json()["items"]
        echo = next(a["id"] for a in agents if a["name"] == "echo")
        body = {"input": {"text": "x"}, "payload_extension": {"script": {"delay": 600}}}
        url = f"{server.base_url}/v1/agents/{echo}/invoke/stream"
        stream = requests.post(url, json=body, headers=headers, stream=True, timeout=30)
        next(stream.iter_lines())
    assert not server.alive
    stream.close()


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_the_key_is_on_no_command_line_and_in_no_environment() -> None:
    with LocalServer.start() as server:
        process = Path(f"/proc/{server._process.pid}")
        for name in ("cmdline", "environ"):
            assert server.key.encode() not in (process / name).read_bytes()


@posix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_parent(number: int) -> None:
    program = (
        "from xpander_magics.local import LocalServer; import time\n"
        "s = LocalServer.start(); print(s._process.pid, s.base_url, s.key, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=PACKAGE)
    assert parent.stdout is not None
    pid, base_url, key = parent.stdout.readline().split()
    assert answers(base_url, key)
    parent.send_signal(number)
    parent.wait()
    assert gone(int(pid))
    parent.stdout.close()


@posix
def test_an_interrupt_of_the_kernel_is_not_one_of_the_server() -> None:
    program = (
        "from xpander_magics.local import LocalServer; import signal, time\n"
        "signal.signal(signal.SIGINT, lambda *_: print('interrupted', flush=True))\n"
        "s = LocalServer.start(); print(s.base_url, s.key, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=PACKAGE, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        base_url, key = parent.stdout.readline().split()
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.stdout.readline() == "interrupted\n"
        assert answers(base_url, key)
        parent.kill()


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_in_a_terminal(number: int) -> None:
    program = "from xpander_magics.local import serve; serve()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PACKAGE
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        settings = dict(line.split()[1].split("=", 1) for line in lines if "export" in line)
        assert answers(settings["XPANDER_BASE_URL"], settings["XPANDER_API_KEY"])
        process.send_signal(number)
        _, stderr = process.communicate()
        assert (process.returncode, stderr) == (0, "")


def test_a_taken_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Port {port} .* can't be used"):
            LocalServer.start(port=port)


def test_a_wrong_file_of_agents(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("agents: [{name: A}]")
    with pytest.raises(ConfigError, match=r"mine\.yaml: agents: entry 1 \(A\) lacks model"):
        LocalServer.start(tmp_path / "mine.yaml")


def test_a_process_that_dies_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    # What a broken installation does: the interpreter ends before anything of ours runs.
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with pytest.raises(ConfigError, match=r"(?s)didn't start.*encodings"):
        LocalServer.start()


def test_only_loopback_is_served() -> None:
    program = "from xpander_magics.local import serve; serve(host='0.0.0.0')"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=PACKAGE, check=False)
    assert "ConfigError: The local server listens on loopback alone" in process.stderr


@pytest.mark.parametrize(
    "program",
    [
        "from xpander_magics.local import LocalServer; LocalServer.start()",
        "from xpander_magics.local import serve; serve()",
        "from xpander_magics.local.catalog import load; load()",
    ],
)
def test_without_the_extra_it_says_what_to_install(program: str) -> None:
    # -S: an interpreter with nothing but the standard library and this package.
    bare = f"import sys; sys.path.insert(0, {str(PACKAGE)!r}); {program}"
    command = [sys.executable, "-I", "-S", "-c", bare]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "ConfigError" in process.stderr
    assert "needs the extra [local]:" in process.stderr
    assert "python -m pip install " in process.stderr


def test_importing_the_package_is_light() -> None:
    heavy = ("fastapi", "uvicorn", "httpx", "yaml", "xllamacpp", "tqdm", "asyncio")
    program = f"import sys, xpander_magics.local; print([m for m in {heavy} if m in sys.modules])"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=PACKAGE, check=True)
    assert process.stdout.strip() == "[]"


def test_empty_logs_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XPANDER_CACHE", str(tmp_path))
    days = {"server-a.log": (2, ""), "server-b.log": (2, "told"), "server-c.log": (8, "told"), "server-d.log": (0, "")}
    for name, (age, text) in days.items():
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (time.time() - age * 86_400,) * 2)
    # A kernel that ends without a word to its server.
    program = "from xpander_magics.local import LocalServer; LocalServer.start()"
    subprocess.run([sys.executable, "-c", program], cwd=PACKAGE, check=True, timeout=60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server-b.log", "server-d.log"]
