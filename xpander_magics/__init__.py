"""Jupyter magics for xpander.ai: a cell goes to an agent, its answer lands in a DataFrame.

In a notebook, ``%load_ext xpander_magics`` registers ``%xpander`` and ``%%xpander``. Without an
account, ``%xpander local`` serves small models on this machine; with one, set ``XPANDER_API_KEY``
before the kernel starts, or run ``%xpander login``. Then a cell is a prompt::

    %%xpander writer -e low,high --over tickets -o results
    Classify this support ticket as bug, billing or praise: {{ text }}

The same from Python::

    import xpander_magics as xp

    run = xp.run("Say hi to {{ name }}.", target="writer", variables={"name": "Ada"})
    runs = xp.sweep("Classify: {{ text }}", target="writer", efforts=["low", "high"], over=tickets)
    found = xp.compare(runs, by="effort", score="exact", expected="label")
    df = xp.runs()  # every kept run, one a row

``%%xpander?`` shows every option, ``%xpander help`` every command, ``help(xp.sweep)`` and the like
all arguments. The documentation is in README.md and in the folder ``docs`` of this package;
``%xpander help WORDS`` finds the page that answers a question.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpander_magics.analysis.comparison import compare as compare
    from xpander_magics.analysis.diffs.difference import diff as diff
    from xpander_magics.analysis.exports.exports import export as export
    from xpander_magics.api import run as run
    from xpander_magics.api import runs as runs
    from xpander_magics.api import sweep as sweep
    from xpander_magics.contract import Event as Event
    from xpander_magics.contract import Task as Task
    from xpander_magics.errors import AuthError as AuthError
    from xpander_magics.errors import ConfigError as ConfigError
    from xpander_magics.errors import ConnectionFailed as ConnectionFailed
    from xpander_magics.errors import InvalidRequestError as InvalidRequestError
    from xpander_magics.errors import NotFoundError as NotFoundError
    from xpander_magics.errors import RateLimitError as RateLimitError
    from xpander_magics.errors import SchemaError as SchemaError
    from xpander_magics.errors import SecretError as SecretError
    from xpander_magics.errors import ServerError as ServerError
    from xpander_magics.errors import StoreError as StoreError
    from xpander_magics.errors import TaskFailed as TaskFailed
    from xpander_magics.errors import TemplateError as TemplateError
    from xpander_magics.errors import Timeout as Timeout
    from xpander_magics.errors import XpanderError as XpanderError
    from xpander_magics.outcomes import Runs as Runs
    from xpander_magics.results import Run as Run
    from xpander_magics.scoring.judge import Judge as Judge
    from xpander_magics.scoring.keeping import score as score
    from xpander_magics.service.client import Client as Client
    from xpander_magics.showing.carried import read_notebook as read_notebook
    from xpander_magics.widgets.panel import panel as panel

__version__ = "0.1.0"

_HOME = {
    "service.client": ("Client",),
    "contract": ("Event", "Task"),
    "errors": (
        *("XpanderError", "AuthError", "ConfigError", "ConnectionFailed", "InvalidRequestError"),
        *("NotFoundError", "RateLimitError", "SchemaError", "SecretError", "ServerError", "StoreError"),
        *("TaskFailed", "TemplateError", "Timeout"),
    ),
    "results": ("Run",),
    "outcomes": ("Runs",),
    "api": ("run", "runs", "sweep"),
    "analysis.comparison": ("compare",),
    "analysis.diffs.difference": ("diff",),
    "analysis.exports.exports": ("export",),
    "showing.carried": ("read_notebook",),
    "scoring.judge": ("Judge",),
    "scoring.keeping": ("score",),
    "widgets.panel": ("panel",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted([*_MODULE_OF, "__version__"])  # noqa: PLE0605  # the snapshot in the tests spells it out


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(ipython: Any) -> None:
    """Registers the magics; what ``%load_ext xpander_magics`` calls.

    Args:
        ipython: the shell.
    """
    from xpander_magics.magics.magic import load

    load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Takes the magics away and ends the local server; what ``%unload_ext xpander_magics`` calls.

    Args:
        ipython: the shell.
    """
    from xpander_magics.magics.magic import unload

    unload(ipython)
