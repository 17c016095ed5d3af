"""A real PostgreSQL server for the tests: started in a temporary folder, gone with the process that started it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import URL

OWNER = "owner"
"""The user that may do everything."""

# The server ends when the pipe closes, however the tests ended. INT cuts off those who are connected.
SUPERVISOR = """
"$@" </dev/null &
server=$!
read -r word
kill -INT $server
wait $server
[ "$word" = keep ] || rm -rf "$FOLDER"
"""


@functools.cache
def programs() -> Path | None:
    """The folder of the newest server's programs, or None."""
    on_path = shutil.which("initdb")
    debians = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found = sorted(debians, key=lambda path: [int(digits) for digits in re.findall(r"\d+", str(path))])
    return Path(on_path).resolve().parent if on_path else found[-1].parent if found else None


def _unprivileged() -> dict[str, Any]:
    """Arguments for ``subprocess``: a PostgreSQL server refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    import pwd

    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise RuntimeError("root may not run PostgreSQL, and there is no user postgres or nobody")


class PostgresServer:
    """A server on a port of 127.0.0.1, with a password, without what only guards against power cuts."""

    def __init__(self) -> None:
        self.password = secrets.token_hex(8)
        self.port = 0
        self._numbers = itertools.count()

    def __enter__(self) -> PostgresServer:
        found = programs()
        assert found is not None
        self._programs, self._as = found, _unprivileged()
        self._folder = Path(tempfile.mkdtemp(prefix="pg"))
        try:
            (self._folder / "password").write_text(self.password)
            if self._as:
                for path in (self._folder, self._folder / "password"):
                    os.chown(path, self._as["user"], self._as["group"])
            # Not "C", in whose collation some things work that don't elsewhere.
            made = subprocess.run(
                [
                    *(self._programs / "initdb", "-D", self._folder / "data", "-U", OWNER, "--no-sync"),
                    *("-A", "scram-sha-256", "--pwfile", self._folder / "password"),
                    *("--encoding", "UTF8", "--locale", "C.UTF-8"),
                ],
                cwd=self._folder,
                capture_output=True,
                text=True,
                check=False,
                **self._as,
            )
            if made.returncode:
                raise RuntimeError(f"initdb failed: {made.stderr}")
            self.start()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(keep=False)
        shutil.rmtree(self._folder, ignore_errors=True)  # where a test had stopped it, its supervisor is gone

    def start(self) -> None:
        """Starts it, on the port that it had before, if any. Raises RuntimeError if it doesn't answer."""
        if not self.port:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                self.port = probe.getsockname()[1]
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "lc_messages": "C",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", SUPERVISOR, "sh", self._programs / "postgres", "-D", self._folder / "data", *options],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, "FOLDER": str(self._folder)},
                start_new_session=True,  # an interrupt is for the tests
                **self._as,
            )
        until = time.monotonic() + 60
        while True:
            try:
                return psycopg.connect(self._conninfo("postgres")).close()
            except psycopg.OperationalError as error:
                if time.monotonic() > until:
                    log_text = (self._folder / "log").read_text(errors="replace")
                    self.stop(keep=False)
                    raise RuntimeError(f"PostgreSQL doesn't start: {error}\n{log_text[-2000:]}") from error
            time.sleep(0.05)

    def stop(self, keep: bool = True) -> None:
        """Stops it, cutting off who is connected; with ``keep`` it can be started again."""
        with contextlib.suppress(BrokenPipeError, ValueError):  # stopped already
            self._process.communicate(b"keep\n" if keep else b"\n")

    def url(self, database: str, user: str = OWNER, password: str | None = None, **settings: str) -> str:
        """A store's address."""
        made = URL.create(
            "postgresql+psycopg", user, password or self.password, "127.0.0.1", self.port, database, settings
        )
        return made.render_as_string(hide_password=False)

    def new_database(self, options: str = "") -> str:
        """Makes an empty database, and gives its name."""
        name = f"runs_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return name

    def drop_database(self, name: str) -> None:
        """Drops a database, and cuts off who is connected to it."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Runs one statement as the owner, in no transaction, and gives its rows."""
        with psycopg.connect(self._conninfo(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _conninfo(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user={OWNER} password={self.password} dbname={database}"
