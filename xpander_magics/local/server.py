"""The service's REST API over the agents, workflows and engines of this machine."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from xpander_magics.errors import did_you_mean
from xpander_magics.local.agents import ORGANIZATION, Agent, Catalog, Workflow
from xpander_magics.local.body import Invoke, read, refused
from xpander_magics.local.engines import EngineError
from xpander_magics.local.guard import Guard
from xpander_magics.local.runner import Runner
from xpander_magics.local.tasks import Events, Task, iso, utc_now

Page = Annotated[int, Query(ge=1)]
PerPage = Annotated[int, Query(ge=1, le=50)]
Status = Literal["pending", "executing", "paused", "error", "failed", "completed", "stopped"]

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+ -]\d\d:\d\d)?", re.ASCII)
_PROVIDERS = {
    "local": "GGUF models on this machine",
    "scripted": "Scripted answers, for tests",
}


def create_app(catalog: Catalog, key: str, *, fetch: bool = True, keep_alive: float = 10) -> Guard:
    """The ASGI application.

    Args:
        catalog: what it serves.
        key: what ``x-api-key`` must hold.
        fetch: whether weights may be fetched on first use.
        keep_alive: seconds of silence after which a stream sends a comment.
    """
    runner = Runner(catalog, fetch=fetch)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await runner.close()

    # No pages of documentation: they'd load scripts from elsewhere. No redirects: a key would follow them.
    app = FastAPI(openapi_url=None, redirect_slashes=False, lifespan=lifespan)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StarletteHTTPException, _error)
    app.add_exception_handler(Exception, _fault)
    app.include_router(_targets("agents", catalog.agents, runner, keep_alive))
    app.include_router(_targets("workflows", catalog.workflows, runner, keep_alive))
    app.include_router(_providers(catalog, runner))
    app.include_router(_tasks(runner))
    return Guard(app, key)


def _targets(kind: str, targets: Iterable[Agent | Workflow], runner: Runner, keep_alive: float) -> APIRouter:
    """Listing, getting and invoking agents or workflows: the same for both."""
    router = APIRouter(prefix=f"/v1/{kind}")
    newest = sorted(targets, key=lambda target: target.created_at, reverse=True)
    by_id = {target.id: target for target in newest}

    def find(target_id: str) -> Agent | Workflow:
        if target_id not in by_id:
            raise HTTPException(404, f"There is no {kind[:-1]} {target_id!r} on this server")
        return by_id[target_id]

    async def start(target_id: str, version: str, request: Request) -> Task:
        target = find(target_id)
        if version not in ("latest", "draft", str(target.version)):
            raise HTTPException(404, f"{target.name} has no version {version!r}; it has {target.version}")
        raw = await request.body()
        body: Invoke = read(raw)
        parts: list[Agent | Workflow] = [target]
        if isinstance(target, Workflow):
            parts += [node.agent for node in target.nodes]
        for part in parts:
            if part.status != "ACTIVE":
                raise HTTPException(400, f"The {part.kind} {part.name} is {part.status}: it can't be invoked")
        if not runner.tasks.has_room(len(raw)):
            raise HTTPException(429, "Too many tasks are under way on this server", {"retry-after": "1"})
        return runner.start(target, body, len(raw))

    @router.get("")
    async def list_all(page: Page = 1, per_page: PerPage = 20) -> Response:
        return _page([target.as_json() for target in newest], page, per_page)

    @router.get("/{target_id}")
    async def get(target_id: str) -> Response:
        return _json(find(target_id).as_json())

    @router.post("/{target_id}/invoke")
    async def invoke(target_id: str, request: Request, version: str = "latest") -> Response:
        task = await start(target_id, version, request)
        await task.settled.wait()
        return _json(task.as_json())

    @router.post("/{target_id}/invoke/async")
    async def invoke_async(target_id: str, request: Request, version: str = "latest") -> Response:
        return _json((await start(target_id, version, request)).as_json())

    @router.post("/{target_id}/invoke/stream")
    async def invoke_stream(target_id: str, request: Request, version: str = "latest") -> Response:
        task = await start(target_id, version, request)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(_events(task, keep_alive), media_type="text/event-stream", headers=headers)

    return router


def _providers(catalog: Catalog, runner: Runner) -> APIRouter:
    router = APIRouter(prefix="/v1/misc/llm_providers")
    described = {**_PROVIDERS, **{p.name: f"OpenAI-compatible endpoint {p.base_url}" for p in catalog.providers}}

    @router.get("")
    async def list_providers() -> Response:
        rows = [
            {"id": str(number), "name": name, "internal_identifier": name, "logo": None, "description": text}
            for number, (name, text) in enumerate(described.items(), 1)
        ]
        return _json(rows)

    @router.get("/{provider}/models")
    async def list_models(provider: str) -> Response:
        if provider not in runner.engines:
            raise HTTPException(404, f"There is no provider {provider!r}. {did_you_mean(provider, runner.engines)}")
        try:
            return _json(await runner.engines[provider].models())
        except EngineError as error:
            raise HTTPException(502, str(error)) from None

    return router


def _tasks(runner: Runner) -> APIRouter:
    router = APIRouter(prefix="/v1/tasks")

    def find(task_id: str) -> Task:
        task = runner.tasks.get(task_id)
        if task is None:
            raise HTTPException(404, f"There is no task {task_id!r} on this server, or it is long ended")
        return task

    @router.get("")
    async def list_tasks(
        page: Page = 1,
        per_page: PerPage = 20,
        agent_id: str | None = None,
        user_id: str | None = None,
        parent_task_id: str | None = None,
        triggering_agent_id: str | None = None,
        status: Status | None = None,
        from_date: str | None = None,
        to_date: str | None = None,
    ) -> Response:
        wanted = {
            "agent_id": agent_id,
            "user_id": user_id,
            "parent_task_id": parent_task_id,
            "triggering_agent_id": triggering_agent_id,
            "status": status,
        }
        wanted = {name: value for name, value in wanted.items() if value is not None}
        first, last = _seconds("from_date", from_date, float("-inf")), _seconds("to_date", to_date, float("inf"))
        within = (task for task in runner.tasks.newest() if first <= task.created_at.timestamp() <= last)
        rows = [row for row in map(Task.summary, within) if wanted.items() <= row.items()]
        return _page(rows, page, per_page)

    @router.get("/{task_id}")
    async def get_task(task_id: str) -> Response:
        return _json(find(task_id).as_json())

    @router.post("/{task_id}/stop")
    async def stop_task(task_id: str) -> Response:
        task = find(task_id)
        runner.stop(task)
        return _json(task.as_json())

    @router.get("/{task_id}/llm_usage")
    async def usage(task_id: str) -> Response:
        return _json(find(task_id).usage())

    @router.get("/{task_id}/thread")
    async def thread(task_id: str) -> Response:
        find(task_id)
        return _json(runner.tasks.messages(task_id))

    @router.get("/{task_id}/thread/full")
    async def full_thread(task_id: str) -> Response:
        find(task_id)
        children = [child.id for turn in runner.tasks.turns(task_id) for child in turn.children]
        threads = {child: runner.tasks.messages(child, full=True) for child in children}
        return _json({"root": runner.tasks.messages(task_id, full=True), **threads})

    return router


def _events(task: Task, keep_alive: float) -> AsyncIterator[str]:
    """The stream of a task that has just been created. Who stops reading it doesn't stop the task."""
    # Listened to from here on: the task begins before the first part of the answer is asked for.
    queue = task.listen()
    hello = {"type": "connected", "task_id": task.id, "organization_id": ORGANIZATION, "time": iso(utc_now())}
    hello["data"] = {}
    first = _sse(hello) + _sse({**hello, "type": "task_created", "data": task.as_json()})
    return _follow(task, queue, first, keep_alive)


async def _follow(task: Task, queue: Events, first: str, keep_alive: float) -> AsyncIterator[str]:
    try:
        yield first
        while True:
            try:
                event = await asyncio.wait_for(queue.get(), keep_alive)
            except asyncio.TimeoutError:
                yield ": keep-alive\n\n"
                continue
            # What has gathered meanwhile goes out in one piece: a packet an event is slow.
            events = [event, *(queue.get_nowait() for _ in range(queue.qsize()))]
            yield "".join(map(_sse, filter(None, events)))
            # Ended too early, the stream is one that was cut: its reader goes on by Get Task.
            if events[-1] is None or events[-1]["type"] == "task_finished":
                return
    finally:
        task.unlisten(queue)


def _sse(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event)}\n\n"


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # ASCII only: a lone surrogate that a caller sent must not end in a fault.
    return Response(json.dumps(value), status, headers, "application/json")


def _page(rows: list[dict[str, Any]], page: int, per_page: int) -> Response:
    items = rows[(page - 1) * per_page : page * per_page]
    pages = -(-len(rows) // per_page)
    return _json({"items": items, "total": len(rows), "page": page, "per_page": per_page, "total_pages": pages})


def _seconds(name: str, text: str | None, otherwise: float) -> float:
    """A time of the query in seconds since the epoch; without an offset it is UTC."""
    if text is None:
        return otherwise
    match = _TIME.fullmatch(text)
    try:
        if not match:
            raise ValueError
        day, clock, fraction, offset = match.groups()
        # A "+" that nobody escaped arrives as a space.
        zone = "+00:00" if offset in (None, "Z", "z") else offset.replace(" ", "+")
        when = datetime.fromisoformat(f"{day}T{clock}{zone}")
        epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
        return (when - epoch).total_seconds() + float(fraction or 0)
    except (ValueError, OverflowError):
        example = "2026-02-07T06:18:47Z"
        raise refused(["query", name], f"Not a time in ISO 8601, such as {example}", "datetime_parsing") from None


async def _invalid(_: Request, error: Exception) -> Response:
    """422 in the service's shape, without what was sent."""
    assert isinstance(error, RequestValidationError)
    found = [{"loc": list(one["loc"]), "msg": one["msg"], "type": one["type"]} for one in error.errors()]
    return _json({"detail": found}, 422)


async def _error(_: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return _json({"detail": error.detail}, error.status_code, dict(error.headers or {}))


async def _fault(_: Request, error: Exception) -> Response:
    return _json({"detail": f"The local server failed: {type(error).__name__}"}, 500)
