"""The public names, spelt out: a change here is a change for users."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import pytest

import xpander_magics as xp

NAMES = [
    "AuthError",
    "Client",
    "ConfigError",
    "ConnectionFailed",
    "Event",
    "InvalidRequestError",
    "Judge",
    "NotFoundError",
    "RateLimitError",
    "Run",
    "Runs",
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
    "compare",
    "diff",
    "export",
    "panel",
    "read_notebook",
    "run",
    "runs",
    "score",
    "sweep",
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
    assert inspect.isfunction(xp.sweep)
    for name in ("compare", "diff", "export", "read_notebook", "score"):
        assert inspect.isfunction(getattr(xp, name))
        assert inspect.getdoc(getattr(xp, name))
    assert inspect.isclass(xp.Runs)
    assert inspect.isclass(xp.Run)


def test_every_public_error_is_of_one_family() -> None:
    kinds = [getattr(xp, name) for name in NAMES if name.endswith(("Error", "Failed", "Timeout"))]
    assert len(kinds) == 14
    assert all(issubclass(kind, xp.XpanderError) for kind in kinds)


def test_signatures() -> None:
    assert list(inspect.signature(xp.run).parameters) == [
        *("prompt", "target", "model", "effort", "think", "variables", "version", "instructions", "context"),
        *("expected_output", "title", "format", "schema", "files", "user", "payload", "mcp", "thread", "fields"),
        *("mode", "rpm", "timeout", "usage", "on_interrupt", "cached", "experiment", "tags", "note"),
        *("score", "expected", "raw", "allow_secrets"),
    ]
    assert list(inspect.signature(xp.runs).parameters) == ["experiment", "status", "target", "tag", "last"]
    assert list(inspect.signature(xp.sweep).parameters) == [
        *("prompt", "target", "models", "efforts", "thinks", "over", "repeat", "variables", "version", "instructions"),
        *("context", "expected_output", "title", "format", "schema", "files", "user", "payload", "mcp", "thread"),
        *("fields", "mode", "jobs", "rpm", "timeout", "usage", "on_interrupt", "cached", "experiment", "tags"),
        *("note", "score", "expected", "raw", "allow_secrets", "executor", "progress"),
    ]
    for function in (xp.run, xp.sweep):
        kinds = [p.kind for p in inspect.signature(function).parameters.values()]
        assert kinds == [kinds[0]] + [inspect.Parameter.KEYWORD_ONLY] * (len(kinds) - 1)
    for public in (xp.run, xp.sweep, xp.runs, xp.Run, xp.Client, xp.Run.reply, xp.Run.stop, xp.Run.refresh):
        assert inspect.getdoc(public)
    votes = ("vote", "votes", "win_rates", "strengths", "judge", "agreement")
    compared = ("compare", "score", "score_history")
    for name in ("df", "failed", "statuses", "retry", "resume", "reply", "raise_for_failures", *votes, *compared):
        assert inspect.getdoc(inspect.getattr_static(xp.Runs, name))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        *(({name: 5}, f"{name} takes a text, not a value of type int") for name in ("prompt", "target", "effort")),
        *(({name: 5}, f"{name} takes a text") for name in ("think", "version", "title", "format", "mode", "note")),
        ({"experiment": 5}, "experiment takes a text"),
        ({"model": ["a/b"]}, "model takes a text, not a value of type list"),
        ({"timeout": "5"}, "timeout takes a number of seconds above 0"),
        ({"timeout": True}, "timeout takes"),
        ({"rpm": "a"}, "rpm takes a number of requests a minute above 0"),
        ({"rpm": [5]}, "rpm takes"),
        ({"variables": [1]}, "variables takes a dict"),
        ({"fields": "a=1"}, "fields takes a dict"),
        ({"tags": [1]}, "tags takes a list of texts"),
        ({"tags": 5}, "tags takes a list of texts, not a value of type int"),
        ({"files": {"a": "b"}}, "files takes a list of texts"),
        ({"usage": "no"}, "usage takes True or False"),
        ({"cached": 1}, "cached takes True or False"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \n"}, "prompt is empty"),
    ],
)
def test_arguments_of_another_type(environment: pytest.MonkeyPatch, given: dict[str, Any], says: str) -> None:
    with pytest.raises(xp.ConfigError) as caught:
        xp.run(**{"prompt": "hello", **given})
    assert str(caught.value).startswith(says)
    assert "%%xpander" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        *(({name: 5}, f"{name} takes a list of texts, not a value of type int") for name in ("models", "efforts")),
        ({"thinks": [None]}, "thinks takes a list of texts, not a value of type NoneType"),
        ({"models": {"a/b": 1}}, "models takes a list of texts, not a value of type dict"),
        *(
            ({name: 1.5}, f"{name} takes a whole number above 0, not a value of type float")
            for name in ("repeat", "jobs")
        ),
        *(({name: True}, f"{name} takes a whole number above 0") for name in ("repeat", "jobs")),
        *(({name: 0}, f"{name} takes a whole number above 0, not 0.") for name in ("repeat", "jobs")),
        ({"variables": {"over": 1}}, "over is an argument of its own, not one of the variables."),
        ({"rpm": "a"}, "rpm takes a number of requests a minute above 0"),
        ({"usage": "no"}, "usage takes True or False"),
        ({"prompt": " "}, "prompt is empty"),
        ({"prompt": 5}, "prompt takes a text"),
    ],
)
def test_arguments_of_a_sweep_of_another_type(
    environment: pytest.MonkeyPatch, given: dict[str, Any], says: str
) -> None:
    with pytest.raises(xp.ConfigError) as caught:
        xp.sweep(**{"prompt": "hello", **given})
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        *(({"last": last}, "last takes a whole number above 0") for last in ("a", -1, 0, True, 1.5)),
        ({"status": ["failed"]}, "status takes a text, not a value of type list"),
        ({"tag": 5}, "tag takes a text"),
    ],
)
def test_runs_of_another_type(environment: pytest.MonkeyPatch, given: dict[str, Any], says: str) -> None:
    with pytest.raises(xp.ConfigError, match=says):
        xp.runs(**given)
