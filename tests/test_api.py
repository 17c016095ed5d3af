"""The public names, spelt out: a change here is a change for users."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import xpander_magics as xp

NAMES = [
    "AuthError",
    "Client",
    "ConfigError",
    "ConnectionFailed",
    "Event",
    "InvalidRequestError",
    "NotFoundError",
    "RateLimitError",
    "Run",
    "SchemaError",
    "SecretError",
    "ServerError",
    "StoreError",
    "Task",
    "TaskFailed",
    "TemplateError",
    "Timeout",
    "XpanderError",
    "__version__",
    "run",
    "runs",
]


def test_names() -> None:
    assert xp.__all__ == NAMES
    assert set(NAMES) <= set(dir(xp))
    for name in NAMES:
        assert getattr(xp, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'sweeep'"):
        xp.sweeep  # noqa: B018


def test_functions_stay_functions_when_every_module_is_imported() -> None:
    for module in pkgutil.walk_packages(xp.__path__, "xpander_magics."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert inspect.isfunction(xp.run)
    assert inspect.isfunction(xp.runs)
    assert inspect.isclass(xp.Run)


def test_every_public_error_is_of_one_family() -> None:
    kinds = [getattr(xp, name) for name in NAMES if name.endswith(("Error", "Failed", "Timeout"))]
    assert len(kinds) == 14
    assert all(issubclass(kind, xp.XpanderError) for kind in kinds)


def test_signatures() -> None:
    assert list(inspect.signature(xp.run).parameters) == [
        *("prompt", "target", "model", "effort", "think", "variables", "version", "instructions", "context"),
        *("expected_output", "title", "format", "schema", "files", "user", "payload", "mcp", "thread", "fields"),
        *("mode", "rpm", "timeout", "usage", "on_interrupt", "cached", "experiment", "tags", "note", "raw"),
        "allow_secrets",
    ]
    assert list(inspect.signature(xp.runs).parameters) == ["experiment", "status", "target", "tag", "last"]
    for public in (xp.run, xp.runs, xp.Run, xp.Client, xp.Run.reply, xp.Run.stop, xp.Run.refresh):
        assert inspect.getdoc(public)
