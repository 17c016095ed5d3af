"""The server's process: in a terminal by ``serve()``, beside a kernel by ``python -m xpander_magics.local.process``.

The second is what ``launch.py`` starts. It says where it listens, and its key, in one line of JSON on stdout, so
that the key is on no command line and in no environment, and it ends when its stdin is closed: also where the
kernel was killed and could tell it nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpander_magics.errors import ConfigError
from xpander_magics.local import require

if TYPE_CHECKING:
    from xpander_magics.local.agents import Catalog

_LOOPBACK = ("127.0.0.1", "::1", "localhost")  # the names that the guard lets in
_SECONDS_TO_END = 1.5
"""From the parent's end to ours, whatever is still under way."""
_SECONDS_TO_ASK = 60
"""From a connection to the end of its first request's headers."""


def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    agents_file: str | Path | None = None,
    gguf: Iterable[str | Path] = (),
    *,
    watch_parent: bool = False,
    fetch: bool = True,
) -> None:
    """Serves until SIGINT or SIGTERM, or, with ``watch_parent``, until stdin is closed.

    Args:
        host: a loopback address; no other is served.
        port: 0 takes a free one.
        agents_file: the YAML file of agents; the shipped set without it.
        gguf: GGUF files of the user's, each a model ``local/STEM``.
        watch_parent: for ``launch.py``: one line of JSON on stdout in place of words.
        fetch: whether weights may be fetched on first use.

    Raises:
        ConfigError: the extra is missing, the file is wrong, or the port is taken.
    """
    require("fastapi", "uvicorn", "httpx", "yaml")
    from xpander_magics.local.catalog import load

    if host not in _LOOPBACK:
        raise ConfigError(f"The local server listens on loopback alone, not on {host}. Leave the host out.")
    catalog = load(agents_file, gguf)
    listener = _listen(host, port, shared=watch_parent and not port)
    shown = f"[{host}]" if ":" in host else host
    base_url, key = f"http://{shown}:{listener.getsockname()[1]}", secrets.token_urlsafe(32)

    def announce() -> None:
        if watch_parent:
            _hand_over({"base_url": base_url, "key": key})
        else:
            print(_greeting(catalog, base_url, key), flush=True)

    _run(_app(catalog, key, fetch), listener, announce, watch_parent)


def _app(catalog: Catalog, key: str, fetch: bool) -> Any:
    from xpander_magics.local.server import create_app

    return create_app(catalog, key, fetch=fetch)


def _listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """A bound socket; ``shared`` lets the parent hold the port too."""
    # asyncio sends small answers at once (TCP_NODELAY) only where the socket says that it is TCP.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name != "nt":  # there it would let two servers share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared and hasattr(socket, "SO_REUSEPORT"):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = str(error.strerror if isinstance(error, OSError) else error).rstrip(".")
        raise ConfigError(f"Port {port} on {host} can't be used: {reason}. Without --port it is a free one.") from None
    return listener


def _run(app: Any, listener: socket.socket, announce: Callable[[], None], watch_parent: bool) -> None:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            # uvicorn would wait for a first request for good.
            self.loop.call_later(_SECONDS_TO_ASK, lambda: self.cycle or transport.close())

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            announce()

    config = uvicorn.Config(
        app,
        # One parser, whatever else is installed here. What it refuses isn't logged: anybody could fill the disk.
        http=Protocol,
        ws="none",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # Clients that pool their connections must not find them closed when they send the next prompt.
        timeout_keep_alive=600,
        timeout_graceful_shutdown=1,
    )
    server = Server(config)

    def end(*_: object) -> None:
        server.should_exit = True

    # uvicorn raises the signal once more when it is done. With these handlers that is no traceback.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    if watch_parent:
        threading.Thread(target=_watch, args=(end,), daemon=True).start()
    server.run(sockets=[listener])


def _watch(end: Callable[[], None]) -> None:
    while sys.stdin.buffer.read(1 << 16):
        pass
    end()
    time.sleep(_SECONDS_TO_END)
    os._exit(0)


def _hand_over(line: dict[str, str]) -> None:
    """Writes the one line for the parent; whatever else is printed goes to the log."""
    print(json.dumps(line), flush=True)
    os.dup2(2, 1)


def _greeting(catalog: Catalog, base_url: str, key: str) -> str:
    return (
        f"Serving {len(catalog.agents)} agents and {len(catalog.workflows)} workflows at {base_url}\n"
        "In another terminal, before the notebook starts:\n"
        f"  export XPANDER_BASE_URL={base_url}\n"
        f"  export XPANDER_API_KEY={key}\n"
        "Ctrl-C ends it."
    )


def main() -> int:
    """What ``launch.py`` starts."""
    parser = argparse.ArgumentParser(prog="python -m xpander_magics.local.process")
    parser.add_argument("--agents")
    parser.add_argument("--gguf", action="append", default=[])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--no-fetch", dest="fetch", action="store_false")
    args = parser.parse_args()
    try:
        serve(port=args.port, agents_file=args.agents, gguf=args.gguf, watch_parent=True, fetch=args.fetch)
    except ConfigError as error:
        _hand_over({"error": str(error)})
        return 2
    sys.stderr.flush()
    # A model that is still decoding would keep the interpreter from ending.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
