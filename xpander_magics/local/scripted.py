"""The engine for tests: it does what it is told, and is as quick as told.

The model's name is a behaviour (``MODELS``), and a JSON object in ``payload_extension.script`` changes it for
one call:

====================  ==========================================================================
``delay``             seconds before the first chunk
``chunks``            into how many pieces the answer is cut, or the pieces themselves
``rate``              chunks a second; as fast as can be when omitted
``result``            the answer; the prompt when omitted
``think``             thoughts, each sent as a ``think`` event
``tools``             true: a tool is called before answering
``pause``             ``hitl`` or ``auth``: a person is waited for, until the task is stopped
``resume``            seconds after which the pause ends by itself
``fail``              the task fails with this message, after its chunks
``tokens``            ``{"prompt_tokens", "completion_tokens"}``; words are counted when omitted
====================  ==========================================================================
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xpander_magics.local.engines import Call, EngineError, Piece, Say, unknown_model

MODELS: dict[str, dict[str, Any]] = {
    "echo": {},
    "slow": {"delay": 0.5, "chunks": 20, "rate": 10},
    "think": {"think": ["First I read the question.", "Then I repeat it."]},
    "tools": {"tools": True},
    "fail": {"fail": "The script says: fail."},
    "pause-hitl": {"pause": "hitl"},
    "pause-auth": {"pause": "auth"},
}

_MOST_CHUNKS = 100_000


class _Tokens(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    prompt_tokens: int = Field(0, ge=0)
    completion_tokens: int = Field(0, ge=0)


class Script(BaseModel):
    """What one call does; the module says what each field means."""

    model_config = ConfigDict(extra="forbid", strict=True)
    delay: float = Field(0, ge=0, le=3600)
    chunks: Annotated[int, Field(le=_MOST_CHUNKS)] | Annotated[list[str], Field(max_length=_MOST_CHUNKS)] = 4
    rate: float | None = Field(None, gt=0)
    result: str | None = None
    think: list[str] = []
    tools: bool = False
    pause: Literal["hitl", "auth"] | None = None
    resume: float | None = Field(None, ge=0, le=3600)
    fail: str | None = None
    tokens: _Tokens | None = None


class ScriptedEngine:
    """Answers as told. It counts words where others count tokens, and obeys no schema."""

    limit = 1000
    byok = False
    default = "echo"

    async def models(self) -> list[dict[str, Any]]:
        """The behaviours."""
        return [
            {"model_id": name, "display_name": None, "tier": None, "description": str(script) if script else None}
            for name, script in MODELS.items()
        ]

    def check(self, model: str, extension: dict[str, Any]) -> tuple[str, str] | None:
        """What is wrong with the model's name or the script."""
        if wrong := unknown_model("scripted", model, MODELS):
            return wrong
        try:
            _script(model, extension)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            return "payload_extension", f"script.{'.'.join(map(str, first['loc']))}: {first['msg']}"
        except TypeError as error:
            return "payload_extension", f"script {error}"
        return None

    async def ready(self, model: str, say: Say) -> None:
        """Always is."""

    async def generate(self, call: Call) -> AsyncGenerator[Piece, None]:
        """Follows the script."""
        script = _script(call.model, {"script": call.script})
        for thought in script.think:
            yield Piece("think", thought)
        await asyncio.sleep(script.delay)
        if script.tools:
            async for piece in _tool(call.prompt):
                yield piece
        if script.pause:
            yield Piece("paused", _pause(script.pause))
            await (asyncio.Event().wait() if script.resume is None else asyncio.sleep(script.resume))
        said: list[str] = []
        clock = asyncio.get_running_loop().time
        start = clock()
        for chunk in _cut(call.prompt if script.result is None else script.result, script.chunks):
            # Sleeps of 0 too: else a long answer keeps all others waiting.
            await asyncio.sleep(max(0, start + len(said) / script.rate - clock()) if script.rate else 0)
            said.append(chunk)
            yield Piece("chunk", chunk)
        if script.fail is not None:
            raise EngineError(script.fail)
        read = sum(len(message["content"].split()) for message in call.messages)
        counted = {"prompt_tokens": read, "completion_tokens": len("".join(said).split())}
        yield Piece("tokens", script.tokens.model_dump() if script.tokens else counted)

    async def close(self) -> None:
        """Nothing to close."""


def _script(model: str, extension: dict[str, Any]) -> Script:
    told = extension.get("script")
    if told is not None and not isinstance(told, dict):
        raise TypeError("must be an object")
    return Script.model_validate({**MODELS[model], **(told or {})})


def _cut(text: str, chunks: int | list[str]) -> list[str]:
    if isinstance(chunks, list):
        return chunks
    count = max(1, min(chunks, len(text)))
    borders = [len(text) * i // count for i in range(count + 1)]
    return [text[start:end] for start, end in itertools.pairwise(borders) if end > start]


async def _tool(prompt: str) -> AsyncGenerator[Piece, None]:
    call = {"tool_name": "lookup", "tool_call_id": uuid.uuid4().hex, "parameters": {"query": prompt}}
    yield Piece("tool_call_request", {**call, "reasoning": "The answer may be known already."})
    await asyncio.sleep(0)
    yield Piece("tool_call_result", {**call, "is_success": True, "result": f"Nothing is known of {prompt!r}."})


def _pause(kind: str) -> dict[str, Any]:
    """The task's fields that say what is waited for."""
    if kind == "auth":
        request = {"connector_name": "calendar", "auth_url": "http://127.0.0.1/sign-in"}
        return {"pending_eca_request": request}
    request = {"operation_id": uuid.uuid4().hex, "title": "Send it?", "description": "A person must approve."}
    return {"hitl_request": {**request, "content": "Scripted", "approved_by": None, "rejected_by": None}}
