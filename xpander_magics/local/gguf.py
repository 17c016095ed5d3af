"""GGUF files through llama.cpp: each behind a server of its own, spoken to as any other endpoint is."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import secrets
from collections.abc import AsyncGenerator, Iterable
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
from xpander_magics.local.models import KNOWN, cached, ensure

_PARALLEL = 4
"""Answers decoded at once by one GGUF model; they share its context."""


class GGUFEngine:
    """GGUF files, each behind a llama.cpp server of its own on loopback, in this process, with a key of its own."""

    limit = _PARALLEL
    byok = False
    default = next(iter(KNOWN))

    def __init__(self, files: Iterable[ModelFile], *, fetch: bool = True) -> None:
        self._files = {file.id: file for file in files}
        self._fetch = fetch
        self._loading: dict[str, asyncio.Task[httpx.AsyncClient]] = {}
        self._servers: list[Any] = []
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
            if model not in self._loading:
                self._loading[model] = asyncio.create_task(self._load(model))
            # A task that is stopped meanwhile must not take the model from the others that wait for it.
            await asyncio.shield(self._loading[model])
        except (ConfigError, OSError, RuntimeError) as error:
            self._loading.pop(model, None)
            raise EngineError(str(error)) from error
        finally:
            listeners.discard(say)

    async def generate(self, call: Call) -> AsyncGenerator[Piece, None]:
        """Streams one chat completion of a model that is ``ready``."""
        body = request_body(call)
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
        client = await self._loading[call.model]
        async with contextlib.aclosing(completion(client, call.model, body, call.prefix)) as pieces:
            async for piece in pieces:
                yield piece

    async def close(self) -> None:
        """Closes the connections; the models' servers end with the process."""
        for loading in self._loading.values():
            loading.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConfigError, OSError, RuntimeError):
                await (await loading).aclose()

    async def _load(self, model: str) -> httpx.AsyncClient:
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
        server = await asyncio.to_thread(_llama, str(path), key, template, file.context if file else 8192)
        self._servers.append(server)  # it ends when it is collected
        return http_client(f"{server.listening_address}/v1", {"Authorization": f"Bearer {key}"})

    def _tell(self, model: str, text: str) -> None:
        for say in tuple(self._said[model]):
            say(text)


def _threads() -> int:
    """One processor is left to the notebook.

    llama.cpp's threads wait for each other by spinning: where another process takes one's processor, all stand
    still, and answers take 20 times as long. More than 8 make models of this size no faster.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, usable - 1))


def _llama(path: str, key: str, template: str | None, context: int) -> Any:
    """A llama.cpp server in this process, loaded and listening."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise ConfigError("GGUF models need xllamacpp. Install it with: pip install 'xpander_magics[local]'")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.hostnames = ["127.0.0.1"]
    params.api_keys = [key]
    params.n_ctx = context
    params.n_parallel = _PARALLEL
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _threads()
    params.verbosity = -1
    params.ui = False
    if template is not None:
        params.chat_template = template
    return xllamacpp.Server(params)
