"""What the engines that answer have in common, and the one for OpenAI-compatible endpoints.

One interface for all (``gguf.py`` and ``scripted.py`` are the others): ``ready(model, say)`` makes a model usable, and
``generate(call)`` yields pieces. A caller that stops listening ends the generation: the HTTP stream to the
engine is closed, and llama.cpp stops decoding when it is.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from xpander_magics.config import is_loopback
from xpander_magics.errors import did_you_mean
from xpander_magics.local.agents import Provider

Say = Callable[[str], None]

_LONGEST_ANSWER = 4_000_000
_LONGEST_LINE = 1_000_000
_LONGEST_LIST = 4_000_000
_LONGEST_REFUSAL = 10_000
_MOST_TOKENS = 10**12


class EngineError(Exception):
    """The engine can't answer; its words are for the user."""


@dataclass(frozen=True)
class Piece:
    """Something that an engine says.

    ``type`` is that of a stream's event (``chunk``, ``think``, ``tool_call_request``, ...); besides them
    ``tokens`` (``{"prompt_tokens", "completion_tokens"}``, once, at the end) and ``paused``.
    """

    type: str
    data: Any


@dataclass(frozen=True)
class Call:
    """One generation.

    Attributes:
        prompt: what the user wrote, with its attachments.
        system: the instructions.
        examples: turns that show what is wanted; like ``history``, as OpenAI's chat messages.
        notes: what the passes before this one found; read before the prompt.
        ask: what this pass shall do with the prompt; read after it.
        temperature: None leaves it to the engine.
        schema: a JSON Schema to hold the answer to.
        prefix: words that the answer was taught to begin with; taken off.
        choices: the only answers, for engines that can be held to them.
        script: what the scripted engine shall do.
    """

    model: str
    prompt: str
    system: str = ""
    examples: tuple[dict[str, str], ...] = ()
    history: tuple[dict[str, str], ...] = ()
    notes: str = ""
    ask: str = ""
    temperature: float | None = None
    seed: int | None = None
    max_tokens: int = 512
    schema: dict[str, Any] | None = None
    prefix: str = ""
    choices: tuple[str, ...] = ()
    script: dict[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> list[dict[str, str]]:
        """What the model reads."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        prompt = "\n\n".join(filter(None, (self.notes, self.prompt, self.ask)))
        return [*system, *self.examples, *self.history, {"role": "user", "content": prompt}]


class Engine(Protocol):
    """What the runner needs of an engine.

    Attributes:
        limit: the tasks that it works on at once; the others stay pending.
        byok: whether it runs on the user's own key, so that its cost isn't known here.
        default: the model for a call that names the provider alone.

    ``check`` says what is wrong with a call: the field of the body, and words.
    """

    limit: int
    byok: bool
    default: str

    async def models(self) -> list[dict[str, Any]]: ...
    def check(self, model: str, extension: dict[str, Any]) -> tuple[str, str] | None: ...
    async def ready(self, model: str, say: Say) -> None: ...
    def generate(self, call: Call) -> AsyncGenerator[Piece, None]: ...
    async def close(self) -> None: ...


class OpenAIEngine:
    """Any endpoint that speaks OpenAI's chat completions."""

    limit = 64
    byok = True

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.default = (provider.models or ("",))[0]
        self._client: httpx.AsyncClient | None = None

    async def models(self) -> list[dict[str, Any]]:
        """The models of the file, or the endpoint's own list."""
        if self._provider.models is not None:
            return [model_row(name) for name in self._provider.models]
        try:
            async with self._http().stream("GET", "/models", timeout=10) as answer:
                body = await asyncio.wait_for(_read(answer, _LONGEST_LIST), 10)
                answer.raise_for_status()
            return [model_row(str(model["id"])[:200]) for model in json.loads(body)["data"]]
        except (httpx.HTTPError, asyncio.TimeoutError, ValueError, RecursionError, KeyError, TypeError) as error:
            why = str(error) or type(error).__name__
            raise EngineError(f"{self._provider.base_url} doesn't list its models: {why}") from None

    def check(self, model: str, extension: dict[str, Any]) -> tuple[str, str] | None:
        """What is wrong with the model's name, as far as can be said without asking the endpoint."""
        del extension
        known = self._provider.models
        return None if model and known is None else unknown_model(self._provider.name, model, known or ())

    async def ready(self, model: str, say: Say) -> None:
        """Reads the key, so that a missing one is said before anything is sent."""
        del model, say
        self._http()

    def generate(self, call: Call) -> AsyncGenerator[Piece, None]:
        """Streams one chat completion."""
        return completion(self._http(), self._provider.name, request_body(call), call.prefix)

    async def close(self) -> None:
        """Closes the connections."""
        if self._client:
            await self._client.aclose()

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            headers = {}
            if name := self._provider.api_key_env:
                if not os.environ.get(name):
                    raise EngineError(f"{self._provider.name} needs its key in the environment variable {name}.")
                headers["Authorization"] = f"Bearer {os.environ[name]}"
            self._client = http_client(self._provider.base_url, headers)
        return self._client


def unknown_model(provider: str, model: str, known: Iterable[str]) -> tuple[str, str] | None:
    """What ``Engine.check`` says of a model that isn't among those known."""
    names = list(known)
    if model in names:
        return None
    if not model:
        return "llm_model_name", f"{provider} has no model of its own choice: name one"
    return "llm_model_name", f"{provider} has no model {model!r}. {did_you_mean(model, names, otherwise=_list(names))}"


async def completion(
    client: httpx.AsyncClient, name: str, body: dict[str, Any], prefix: str
) -> AsyncGenerator[Piece, None]:
    """One streamed chat completion as pieces, its text without white space at its ends."""
    trim = _Trim(prefix)
    tokens: dict[str, int] | None = None
    length = 0
    # Half characters, which JSON can hold and UTF-8 can't, become question marks.
    content = json.dumps(body, ensure_ascii=False).encode(errors="replace")
    headers = {"Content-Type": "application/json"}
    try:
        async with client.stream("POST", "/chat/completions", content=content, headers=headers) as answer:
            if answer.status_code != 200:
                reason = _reason(await _read(answer, _LONGEST_REFUSAL))
                raise EngineError(f"{name} answered {answer.status_code}: {reason}")
            async for event in _events(answer):
                if event.get("error"):
                    raise EngineError(f"{name} failed: {_reason(json.dumps(event).encode())}")
                if usage := event.get("usage"):
                    tokens = {k: _count(usage.get(k)) for k in ("prompt_tokens", "completion_tokens")}
                for choice in event.get("choices") or []:
                    delta = choice.get("delta") or {}
                    thought, said = (str(delta.get(key) or "") for key in ("reasoning_content", "content"))
                    length += len(thought) + len(said)
                    if length > _LONGEST_ANSWER:
                        raise EngineError(f"{name} doesn't end: its answer is over {_LONGEST_ANSWER:,} characters.")
                    if thought:
                        yield Piece("think", thought)
                    if text := trim(said):
                        yield Piece("chunk", text)
    except httpx.HTTPError as error:
        raise EngineError(f"{name} can't be reached or broke off: {error or type(error).__name__}") from error
    except (ValueError, OverflowError, RecursionError, AttributeError, TypeError) as error:
        raise EngineError(f"{name} answered with what is no chat completion: {error}") from error
    if rest := trim.end():
        yield Piece("chunk", rest)
    if tokens is not None:
        yield Piece("tokens", tokens)


async def _read(answer: httpx.Response, most: int) -> bytes:
    """The beginning of a body: an endpoint may send without end."""
    got = bytearray()
    async for block in answer.aiter_bytes():
        got += block
        if len(got) > most:
            break
    return bytes(got[:most])


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """What a stream's lines hold; none of them may be endless."""
    rest = b""
    async for block in answer.aiter_bytes():
        *whole, rest = (rest + block).split(b"\n")
        for event in filter(None, map(_event, whole)):
            yield event
        if len(rest) > _LONGEST_LINE:
            raise ValueError(f"a line is over {_LONGEST_LINE:,} bytes")
    if last := _event(rest):
        yield last


def _event(line: bytes) -> Any:
    return json.loads(line[5:]) if line.startswith(b"data:") and line[5:].strip() != b"[DONE]" else None


def _count(number: Any) -> int:
    return min(max(0, int(number or 0)), _MOST_TOKENS)


class _Trim:
    """Takes the white space from both ends of a text that comes in pieces, and a prefix from its beginning."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.strip()
        self._held = ""
        self._begun = False

    def __call__(self, piece: str) -> str:
        text = self._held + piece
        if not self._begun:
            text = text.lstrip()
            # Still the prefix, as far as can be seen: too early to say.
            if self._prefix.startswith(text):
                self._held = text
                return ""
            text = text.removeprefix(self._prefix).lstrip() if self._prefix else text
            self._begun = bool(text)
        out = text.rstrip()
        self._held = text[len(out) :]
        return out

    def end(self) -> str:
        """What was held back and turns out to be the answer."""
        return "" if self._begun or self._held == self._prefix else self._held


def request_body(call: Call) -> dict[str, Any]:
    """The body of a streamed chat completion."""
    body: dict[str, Any] = {
        "model": call.model,
        "messages": call.messages,
        "max_tokens": call.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if call.temperature is not None:
        body["temperature"] = call.temperature
    if call.seed is not None:
        body["seed"] = call.seed
    if call.schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": call.schema}}
    return body


def http_client(base_url: str, headers: dict[str, str]) -> httpx.AsyncClient:
    """A client for one endpoint."""
    # No limit on reading: a first token can take minutes, and whoever waits can stop the task.
    timeout = httpx.Timeout(None, connect=10)
    # A kept connection that the endpoint is about to close fails the next call, which can't be sent twice.
    limits = httpx.Limits(max_keepalive_connections=0)
    # A proxy of the environment's would be sent what is for this machine alone.
    local = is_loopback(urlsplit(base_url).hostname or "")
    return httpx.AsyncClient(base_url=base_url, headers=headers, timeout=timeout, limits=limits, trust_env=not local)


def model_row(model_id: str, description: str | None = None, name: str | None = None) -> dict[str, Any]:
    """A model as the service lists it."""
    return {"model_id": model_id, "display_name": name, "tier": None, "description": description}


def _list(names: list[str]) -> str:
    return f"It has {', '.join(names[:20])}."


def _reason(body: bytes) -> str:
    """The words of an error's body, short."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:300]
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:300].strip() or "no message"
