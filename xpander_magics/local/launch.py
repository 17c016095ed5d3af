"""A local server in a process of its own, for as long as this one lives."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from xpander_magics.errors import ConfigError
from xpander_magics.local import require
from xpander_magics.local.models import cache_dir
from xpander_magics.safety import Secret

_SECONDS_TO_START = 60
_SECONDS_TO_END = 3
_LOG_DAYS = 7
_EMPTY_LOG_DAYS = 1
_logs: set[Path] = set()
"""Of the servers that this process has started and not stopped."""


class LocalServer:
    """A running local server; also a context manager that stops it.

    Attributes:
        base_url: where it listens.
        key: what ``x-api-key`` must hold; known to this process and the server alone.
        log: the file with what it prints.
    """

    def __init__(self, process: subprocess.Popen[bytes], base_url: str, key: str, log: Path) -> None:
        self._process = process
        self.base_url = base_url
        self.key = key
        self.log = log
        self._port: socket.socket | None = None

    @classmethod
    def start(
        cls,
        agents_file: str | Path | None = None,
        gguf: Iterable[str | Path] = (),
        port: int = 0,
        fetch: bool = True,
    ) -> LocalServer:
        """Starts one, and returns when it listens. No model is loaded before it is asked for.

        Args:
            agents_file: the YAML file of agents, in place of the shipped set.
            gguf: GGUF files, each a model ``local/STEM``.
            port: 0 takes a free one.
            fetch: whether the server may fetch the weights that it knows, on first use.

        Raises:
            ConfigError: the extra is missing, the file is wrong, or the process ended; quotes its last words.
        """
        require("fastapi", "uvicorn", "httpx", "yaml")
        command = [sys.executable, "-m", "xpander_magics.local.process", f"--port={port}"]
        command += [f"--agents={_absolute(agents_file)}"] if agents_file is not None else []
        command += [f"--gguf={_absolute(path)}" for path in gguf]
        command += [] if fetch else ["--no-fetch"]
        handle, name = _log_file()
        _logs.add(Path(name))
        with os.fdopen(handle, "wb") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                # There the package is found, and no file of the notebook's folder hides a module.
                cwd=Path(__file__).parents[2],
                # The service's key is none of its business.
                env={name: value for name, value in os.environ.items() if name != "XPANDER_API_KEY"},
                **_own_group(),
            )
        server = cls(process, "", "", Path(name))
        try:
            told = server._first_line()
            if "error" in told:
                raise ConfigError(told["error"])
        except BaseException:
            server.stop()
            raise
        server.base_url, server.key = told["base_url"], Secret(told["key"])
        if not port:
            server._port = _hold_port(server.base_url)
        return server

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ends it, and waits for that; stopping twice is fine."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._port is not None:
            self._port.close()
        with contextlib.suppress(OSError):
            self.log.unlink()
        _logs.discard(self.log)

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"LocalServer({self.base_url!r}, {'alive' if self.alive else 'ended'})"

    def _first_line(self) -> dict[str, str]:
        """What the process says first. A thread reads it: pipes know no timeout on every system."""
        lines: list[bytes] = []
        stdout = self._process.stdout
        assert stdout is not None
        reader = threading.Thread(target=lambda: lines.append(stdout.readline()), daemon=True)
        reader.start()
        reader.join(_SECONDS_TO_START)
        if reader.is_alive():
            self._process.kill()  # which ends the reader too
            reader.join()
        if not lines or not lines[0].strip():
            tail = self.log.read_text(errors="replace").strip().splitlines()[-5:]
            raise ConfigError("The local server didn't start. Its last words:\n" + ("\n".join(tail) or "(none)"))
        told: dict[str, str] = json.loads(lines[0])
        return told


def _hold_port(base_url: str) -> socket.socket | None:
    """A socket at the server's port that listens to nobody.

    Were the server to die, another user of this machine could otherwise take the port, and be sent what was
    meant for it. This process and the server share the port, as processes of one user may.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        return None
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", urlsplit(base_url).port))
    except OSError:  # a system that has the option and not the means
        held.close()
        return None
    return held


def _absolute(path: str | Path) -> Path:
    return Path(path).expanduser().absolute()


def _own_group() -> dict[str, Any]:
    """So that an interrupt of the kernel isn't one of the server."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _log_file() -> tuple[int, str]:
    """A new log, readable by its owner alone. Those that killed kernels left go in time, sooner if they say nothing."""
    folder = cache_dir()
    for old in folder.glob("server-*.log"):
        with contextlib.suppress(OSError):
            kept = old.stat()
            days = _LOG_DAYS if kept.st_size else _EMPTY_LOG_DAYS
            if kept.st_mtime < time.time() - days * 86_400:
                old.unlink()
    try:
        return tempfile.mkstemp(prefix="server-", suffix=".log", dir=folder)
    except OSError as error:
        raise ConfigError(
            f"The cache folder {folder} can't be written ({error.strerror}). Set XPANDER_CACHE."
        ) from None


@atexit.register
def _drop_empty_logs() -> None:
    """At the kernel's end: its servers end by themselves a moment later, and an empty log tells nobody anything."""
    for log in _logs:
        with contextlib.suppress(OSError):
            if not log.stat().st_size:
                log.unlink()
