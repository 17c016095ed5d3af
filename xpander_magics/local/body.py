"""The body of an invoke: what it may hold, and reading it from JSON."""

from __future__ import annotations

import json
import math
from typing import Any, Literal, NoReturn

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

_MOST_LEVELS = 100
"""Of lists and objects within each other: what is read must be written again, and deeper."""


class User(BaseModel):
    """Who asks; all of it comes back with the task."""

    model_config = ConfigDict(strict=True, extra="allow")
    id: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None
    display_name: str | None = None
    role: str | None = None
    is_super_admin: bool | None = None
    timezone: str | None = None
    additional_attributes: dict[str, Any] | None = None


class Input(BaseModel):
    """The prompt."""

    model_config = ConfigDict(strict=True, extra="allow")
    text: str
    files: list[str] | None = None
    user: User | None = None


class Invoke(BaseModel):
    """The invoke body; a field that isn't set means "as the agent is configured"."""

    model_config = ConfigDict(strict=True, extra="forbid")
    input: Input
    # Each event of the stream has it.
    id: str | None = Field(None, max_length=200)
    llm_model_provider: str | None = None
    llm_model_name: str | None = None
    llm_reasoning_effort: Literal["low", "medium", "high", "xhigh"] | None = None
    think_mode: Literal["default", "harder"] | None = None
    output_format: Literal["text", "markdown", "json", "voice"] | None = None
    output_schema: dict[str, Any] | None = None
    instructions_override: str | None = None
    additional_context: str | None = None
    expected_output: str | None = None
    title: str | None = None
    payload_extension: dict[str, Any] | None = None
    mcp_servers: list[dict[str, Any]] | None = None
    source: str | None = None
    parent_execution_id: str | None = None
    triggering_agent_id: str | None = None
    worker_id: str | None = None
    run_locally: bool | None = None
    events_streaming: bool | None = None
    disable_attachment_injection: bool | None = None
    return_metrics: bool | None = None
    user_tokens: dict[str, Any] | None = None
    user_oidc_token: str | None = None
    test_run_node_id: str | None = None


def read(raw: bytes) -> Invoke:
    """The body of a request.

    Raises:
        RequestValidationError: it is no JSON, or not what an invoke takes; answered with 422.
    """
    try:
        value = json.loads(raw, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        # Not the error's own words alone: some of them end in the text that was sent.
        raise refused(["body"], f"No JSON: {type(error).__name__}", "json_invalid") from None
    if _is_deep(value):
        raise refused(["body"], f"Lists and objects within each other are at most {_MOST_LEVELS} deep", "json_invalid")
    try:
        return Invoke.model_validate(value)
    except ValidationError as error:
        # Without the input: it may hold the user's tokens.
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in found]) from None


def refused(loc: list[str], message: str, kind: str = "value_error") -> RequestValidationError:
    """An error about one field, in the shape of all the others."""
    return RequestValidationError([{"loc": tuple(loc), "msg": message, "type": kind}])


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    """A number that can be written again: 1e999 is JSON, and infinite here."""
    number = float(text)
    return number if math.isfinite(number) else _no_constant(text)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MOST_LEVELS + 1):
        holders = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list)))
        level = [inner for holder in holders for inner in holder]
    return bool(level)
