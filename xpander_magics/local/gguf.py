"""GGUF files through llama.cpp: each in a process of its own (``llama.py``), spoken to as any other endpoint is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from xpander_magics.errors import ConfigError
from xpander_magics.local.agents import ModelFile
from xpander_magics.local.engines import (
    Call,
    EngineError,
    Piece,
    Say,
    completion,
    http_client,
    model_row,
    request_body,
    unknown_model,
)
from xpander_magics.local.llama import PARALLEL
from xpander_magics.local.models import KNOWN, cached, ensure
from xpander_magics.safety import is_secret_name

_LONGEST_SCHEMA = 10_000
"""Characters. llama.cpp's grammar of a longer one takes minutes, and of one much longer more stack than it has."""


class GGUFEngine:
    """GGUF files, each behind a llama.cpp server of its own on loopback, with a key of its own."""

    limit = PARALLEL
    byok = False
    default = next(iter(KNOWN))

    def __init__(self, files: Iterable[ModelFile], *, fetch: bool = True) -> None:
        self._files = {file.id: file for file in files}
        self._fetch = fetch
        self._loading: dict[str, asyncio.Task[_Model]] = {}
        self._said: dict[str, set[Say]] = {}

    async def models(self) -> list[dict[str, Any]]:
        """The known weights and the user's files."""
        files = [model_row(name, str(file.path.name)) for name, file in self._files.items()]
        return [model_row(w.id, f"{w.description}; {w.licence}", w.name) for w in KNOWN.values()] + files

    def check(self, model: str, extension: dict[str, Any]) -> tuple[str, str] | None:
        """What is wrong with the model's name."""
        del extension
        return unknown_model("local", model, (*KNOWN, *self._files))

    async def ready(self, model: str, say: Say) -> None:
        """Fetches and loads the model unless that is done, or under way for another task."""
        listeners = self._said.setdefault(model, set())
        listeners.add(say)
        try:
            loading = self._loading.get(model)
            if loading is None or _has_ended(loading):
                loading = self._loading[model] = asyncio.create_task(self._load(model))
            # A task that is stopped meanwhile must not take the model from the others that wait for it.
            await asyncio.shield(loading)
        except asyncio.CancelledError:
            if listeners == {say} and self._loading.get(model) is loading and loading and not loading.done():
                self._loading.pop(model).cancel()
            raise
        except (ConfigError, OSError, RuntimeError) as error:
            raise EngineError(str(error)) from error
        finally:
            listeners.discard(say)

    async def generate(self, call: Call) -> AsyncGenerator[Piece, None]:
        """Streams one chat completion of a model that is ``ready``."""
        body = request_body(call)
        if call.schema is not None and len(json.dumps(call.schema)) > _LONGEST_SCHEMA:
            raise EngineError(
                f"The schema is over {_LONGEST_SCHEMA:,} characters, the most that a GGUF model is held to."
            )
        weights = KNOWN.get(call.model)
        file = self._files.get(call.model)
        stop = file.stop if file else weights.stop if weights else ()
        # What a schema holds ends by itself; before and within it, an empty line is only white space.
        if stop and call.schema is None:
            body["stop"] = list(stop)
        # Only where the wording is free: it would hold back a label that the examples repeat, or JSON's own signs.
        if weights and not file and call.schema is None and not call.prefix and not call.choices:
            body["repeat_penalty"] = weights.penalty
        if call.choices:
            choices = " | ".join(json.dumps(choice) for choice in call.choices)
            begin = f"{json.dumps(call.prefix.strip() + ' ')} " if call.prefix else ""
            body["grammar"] = f"root ::= {begin}({choices})"
        loaded = await self._loading[call.model]
        try:
            async with contextlib.aclosing(completion(loaded.client, call.model, body, call.prefix)) as pieces:
                async for piece in pieces:
                    yield piece
        except EngineError:
            with contextlib.suppress(subprocess.TimeoutExpired):  # its connections end a little before it
                await asyncio.to_thread(loaded.process.wait, 0.5)
            if not (why := loaded.why_ended()):
                raise
            raise EngineError(
                f"{call.model} broke off: llama.cpp ended ({why}), by this task or another of the same model. "
                "The next task loads it again."
            ) from None

    async def close(self) -> None:
        """Closes the connections, and ends the models' processes."""
        for loading in self._loading.values():
            loading.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConfigError, OSError, RuntimeError):
                loaded = await loading
                loaded.process.kill()
                await loaded.client.aclose()

    async def _load(self, model: str) -> _Model:
        loop = asyncio.get_running_loop()

        def progress(what: str, done: int, total: int) -> None:
            loop.call_soon_threadsafe(self._tell, model, f"fetching {what}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

        file = self._files.get(model)
        if file is None and not self._fetch and not await asyncio.to_thread(cached, model):
            raise ConfigError(f"{model} isn't in the cache, and this server may not fetch. Start it with fetch=True.")
        path = file.path if file else await asyncio.to_thread(ensure, model, progress)
        self._tell(model, f"loading {model}")
        template = file.chat_template if file else KNOWN[model].chat_template
        key = secrets.token_urlsafe(32)
        context = file.context if file else 8192
        process = _start()  # from this thread, which lasts: it ends with the one that started it
        try:
            address = await asyncio.to_thread(_address, process, path, key, template, context)
        except BaseException:
            process.kill()
            raise
        return _Model(process, http_client(f"{address}/v1", {"Authorization": f"Bearer {key}"}))

    def _tell(self, model: str, text: str) -> None:
        for say in tuple(self._said[model]):
            say(text)


@dataclass
class _Model:
    """A model's process and the way to it."""

    process: subprocess.Popen[bytes]
    client: httpx.AsyncClient

    def why_ended(self) -> str:
        """Words for how its process ended; empty while it runs."""
        code = self.process.poll()
        return "" if code is None else f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _has_ended(loading: asyncio.Task[_Model]) -> bool:
    """Whether it came to nothing, or to a process that is gone: then it is done anew."""
    if not loading.done():
        return False
    return loading.cancelled() or loading.exception() is not None or bool(loading.result().why_ended())


def _start() -> subprocess.Popen[bytes]:
    """A process for a model; it ends with this one."""
    # What runs somebody's file has no use for keys. Without a debugger's report a crash is one at once.
    environment = {name: value for name, value in os.environ.items() if not is_secret_name(name)}
    return subprocess.Popen(
        [sys.executable, "-m", "xpander_magics.local.llama"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**environment, "GGML_NO_BACKTRACE": "1"},
    )


def _address(process: subprocess.Popen[bytes], path: Path, key: str, template: str | None, context: int) -> str:
    """Where it listens, once it has loaded the file."""
    assert process.stdin is not None
    assert process.stdout is not None
    what = {"parent": os.getpid(), "path": str(path), "key": key, "template": template, "context": context}
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(what).encode() + b"\n")
        process.stdin.flush()
    told = json.loads(process.stdout.readline() or b"{}")
    if "address" in told:
        return str(told["address"])
    why = told.get("error") or "llama.cpp ended while it read the file"
    raise ConfigError(f"{path.name} can't be loaded: {why}. Is it damaged, or too large for this machine?")
