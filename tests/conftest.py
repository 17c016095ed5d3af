"""What most tests need: a local server, and a notebook that talks to it. Real HTTP, nothing patched."""

from __future__ import annotations

import atexit
import functools
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from fault_server import FaultServer
from hypothesis import HealthCheck, settings
from IPython.core.interactiveshell import InteractiveShell
from notebook_shell import Notebook
from postgres_server import PostgresServer, programs
from traitlets.config import Config

from xpander_magics.config import Settings
from xpander_magics.errors import ConfigError
from xpander_magics.local.launch import LocalServer
from xpander_magics.local.models import ensure
from xpander_magics.service.client import Client
from xpander_magics.session import Session, default_session

# Started in the background of a script, the tests would inherit that interrupts are ignored, and so would
# the processes that they start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What a machine takes for an example says nothing about the code.
settings.register_profile("steady", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What can't be had here is a skip that says so; in CI, where it must be had, a failure."""
    why = None
    if item.get_closest_marker("network"):
        why = no_index()
    if why is None and item.get_closest_marker("model"):
        why = no_weights()
    if why is None and item.get_closest_marker("postgres") and programs() is None:
        why = "no PostgreSQL server's programs (initdb): `apt-get install postgresql`, or put them on the PATH"
    if why is None and item.get_closest_marker("browser"):
        why = no_browser()
    if why is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)


@functools.cache
def no_index() -> str | None:
    """Why the package index can't be had, or None."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, "platformdirs"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return f"no package index: {done.stderr.strip()[-200:]}" if done.returncode else None


@functools.cache
def no_weights() -> str | None:
    """Why the smaller model's weights can't be had, or None."""
    try:
        ensure("smollm2-135m-instruct")
    except ConfigError as error:
        return f"no weights: {error}"
    return None


@functools.cache
def no_browser() -> str | None:
    """Why no front end can be opened in a browser, or None."""
    missing = [name for name in ("playwright", "jupyterlab", "notebook", "nbclassic") if find_spec(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}; `pip install -e '.[local,test]'`"
    from front_ends import chromium_path

    return None if chromium_path() else "no Chromium: `apt-get install chromium`, or `playwright install chromium`"


@pytest.fixture(scope="session")
def server() -> Iterator[LocalServer]:
    """A local server that all tests share."""
    with LocalServer.start() as started:
        yield started


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that all tests share; each takes a database of its own."""
    with PostgresServer() as started:
        yield started


@pytest.fixture
def service() -> Iterator[FaultServer]:
    """A service that breaks as the test tells it to."""
    with FaultServer() as server:
        yield server


@pytest.fixture
def session(service: FaultServer, environment: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Session]:
    """A session at the fault server, with a store of its own."""
    environment.setenv("XPANDER_API_KEY", service.key)
    session = Session(Settings(base_url=service.url, store=f"sqlite:///{tmp_path / 'runs.db'}"))
    yield session
    session.close()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """An environment without settings or keys of the developer's own, and with a store of its own."""
    for name in list(os.environ):
        if name.startswith("XPANDER_") and name != "XPANDER_CACHE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("XPANDER_STORE", f"sqlite:///{tmp_path / 'runs.db'}")
    yield monkeypatch
    default_session().close()  # it holds this test's store


@pytest.fixture
def shell(environment: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """A fresh IPython with the extension loaded, and no service."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    fresh = InteractiveShell(config=config)
    fresh.run_line_magic("load_ext", "xpander_magics")
    yield fresh
    fresh.run_line_magic("unload_ext", "xpander_magics")
    fresh.restore_sys_module_state()
    # At exit each shell would collect all garbage: minutes, with hundreds of them.
    atexit.unregister(fresh.atexit_operations)


@pytest.fixture
def connected(environment: pytest.MonkeyPatch, server: LocalServer) -> LocalServer:
    """The server, with the environment pointing at it."""
    environment.setenv("XPANDER_BASE_URL", server.base_url)
    environment.setenv("XPANDER_API_KEY", server.key)
    return server


@pytest.fixture
def notebook(connected: LocalServer, shell: InteractiveShell) -> Iterator[Notebook]:
    """A notebook that talks to the server."""
    with Client(connected.key, connected.base_url) as client:
        yield Notebook(shell, client)
