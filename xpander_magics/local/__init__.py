"""The embedded local server: the service's contract on 127.0.0.1, with real small models behind it.

``LocalServer.start()`` runs it beside a kernel, ``serve()`` in a terminal, ``ensure()`` fetches a
model's weights. Importing this package imports nothing heavy; what the extra ``[local]`` brings is
imported by the modules that need it, and ``require`` says what to install where it is missing.

::

    launch.py            a server process for a kernel
    process.py           the process itself
      server.py          the HTTP routes
        guard.py         who may ask, and how much
        body.py          the request bodies
        tasks.py         tasks and threads
        runner.py        runs a task
          files.py       what a prompt attaches
          effort.py      effort and think mode: the passes
          engines.py     what engines are; OpenAI-compatible endpoints
            gguf.py      GGUF files
              llama.py   the process of one
            scripted.py  the engine for tests
      catalog.py         reads the YAML file; agents.yaml is the one that is shipped
        agents.py        what it holds
      models.py          the known weights, and fetching them
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from xpander_magics import extras
from xpander_magics.errors import ConfigError

if TYPE_CHECKING:
    from xpander_magics.local.launch import LocalServer as LocalServer
    from xpander_magics.local.models import ensure as ensure
    from xpander_magics.local.process import serve as serve

__all__ = ["LocalServer", "ensure", "require", "serve"]

_HOME = {"LocalServer": "launch", "ensure": "models", "serve": "process"}


def require(*modules: str) -> None:
    """Checks that the named modules of the extra are installed, without importing them.

    Raises:
        ConfigError: one isn't; says what to install.
    """
    if any(importlib.util.find_spec(name) is None for name in modules):
        raise ConfigError(extras.missing("The local server needs", "local"))


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
