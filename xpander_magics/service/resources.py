"""What the service has: tasks, agents, workflows, providers, models. Each endpoint of the contract but invoke."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from xpander_magics import errors
from xpander_magics.config import Key, base_url_from, is_loopback, key_from
from xpander_magics.contract import Agent, Message, Model, Provider, Record, Task, Usage, id_from
from xpander_magics.limits import Deadline, Pace, shared_pacer
from xpander_magics.service.targets import Directory, quoted
from xpander_magics.service.transport import Transport

_R = TypeVar("_R", bound=Record)
_Self = TypeVar("_Self", bound="Resources")
_LIST_SECONDS = 60.0
_LONGEST = 10_000_000  # in seconds: four months
_PAGE = 50  # the most that the service gives at once
_RATE_LIMIT = 100  # the requests a minute that the service allows, as its documentation says


class Resources:
    """Everything that is asked of the service without starting a task; the base of ``Client``."""

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        connect_timeout: float = 10.0,
        read_timeout: float = 60.0,
        timeout: float = 600.0,
        retries: int = 5,
        connections: int = 20,
        rate_limit: float | None = None,
    ) -> None:
        self.base_url = base_url_from(base_url)
        self.timeout = seconds("timeout", timeout)
        if not isinstance(retries, int) or retries < 0:
            raise errors.ConfigError(f"retries takes a number of times, 0 or more, not {retries!r}.")
        if not isinstance(connections, int) or connections < 1:
            raise errors.ConfigError(f"connections takes a number, 1 or more, not {connections!r}.")
        window = _window(rate_limit, self.base_url)
        self.settings: dict[str, Any] = {
            **{"connect_timeout": connect_timeout, "read_timeout": read_timeout, "timeout": timeout},
            **{"retries": retries, "rate_limit": rate_limit},
        }
        self._key = key_from(self.base_url, api_key)
        self.private: dict[str, str] = {}
        self._rated = False
        self._pacer = shared_pacer(self.base_url)
        self._pacer.set_window(window)
        self._http = Transport(
            self.base_url,
            self._key,
            connect_timeout=seconds("connect_timeout", connect_timeout),
            read_timeout=seconds("read_timeout", read_timeout),
            retries=retries,
            connections=connections,
        )
        self.directory = Directory(self._list_kind, self._get_one, self.providers, self.models)

    def __repr__(self) -> str:
        return f"Client(base_url={self.base_url!r}, api_key={self._key})"

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the kept connections, and takes away the rate that it has set. ``with`` does it, too."""
        if self._rated:
            self.pace(None)
        self._http.close()

    def pace(self, per_minute: float | None) -> None:
        """Sends at most so many requests a minute from now on, evenly spaced.

        That holds for all clients of this service in this process. Stopping a task, and looking for a
        lost one, never wait for that.

        Args:
            per_minute: how many; None for no limit besides the service's own.

        Example:
            >>> client.pace(30)
            >>> client.pace(None)
        """
        self._rated = per_minute is not None
        self._pacer.set_rate(per_minute)

    def paced(self, per_minute: float | None) -> AbstractContextManager[None]:
        """Holds all clients of this service to a rate for a while; of several at once the lowest counts.

        Args:
            per_minute: the most requests a minute, evenly spaced; None for no limit.
        """
        return self._pacer.paced(per_minute)

    @property
    def pacer(self) -> Pace:
        """Says when a request may be sent. Another may take its place; ``pace`` is for the process's own."""
        return self._http.pacer

    @pacer.setter
    def pacer(self, pacer: Pace) -> None:
        self._http.pacer = pacer

    @property
    def clock_behind(self) -> float:
        """By how many seconds the service's clock is behind ours, as far as it has told."""
        return self._http.clock.behind

    def reserve(self, jobs: int) -> None:
        """Makes ready for so many threads that use this client at once."""
        self._http.reserve(jobs + 1)  # and whoever started them

    @property
    def rate_limit(self) -> int | None:
        """The most requests in any minute that the service allows; None for no limit."""
        return _window(self.settings["rate_limit"], self.base_url)

    def gap(self, per_minute: float | None) -> float:
        """Seconds between two requests, evenly spaced, as ``pace`` and the service's limit have it; or 0."""
        limits = [limit for limit in (per_minute, self.rate_limit) if limit]
        return 60.0 / min(limits) if limits else 0.0

    @property
    def key(self) -> Key:
        """The key, which shows as a mask."""
        return self._key

    def secrets(self) -> dict[str, str]:
        """What must be masked wherever text is kept or shown, by what it is: the key, what its owner adds."""
        return {"the API key": self._key.reveal(), **self.private}

    @property
    def key_shown(self) -> str:
        """The key as it may be shown, and where it came from."""
        return str(self._key)

    def task(
        self, id: str, *, deadline: Deadline | None = None, paced: bool = True, retries: int | None = None
    ) -> Task:
        """One task as it stands.

        Args:
            id: the task's.
            deadline: until when it may take; a minute when omitted.
            paced: whether the request waits for its turn, where ``pace`` has set a rate.
            retries: how often it is sent again at the most; the client's own number when omitted.

        Raises:
            NotFoundError: there is no such task.
            ServiceError: another of its kinds.

        Example:
            >>> client.task(run.task_id).status
            'completed'
        """
        path = f"/v1/tasks/{quoted(id)}"
        return self.task_from(
            self._http.json("GET", path, deadline=deadline or self._short(), paced=paced, retries=retries)
        )

    def tasks(
        self,
        *,
        agent_id: str | None = None,
        status: str | None = None,
        parent_task_id: str | None = None,
        triggering_agent_id: str | None = None,
        user_id: str | None = None,
        from_date: datetime | str | None = None,
        to_date: datetime | str | None = None,
        limit: int | None = None,
    ) -> list[Task]:
        """The summaries of tasks, newest first, over as many pages of 50 as that takes.

        Args:
            agent_id, status, parent_task_id, triggering_agent_id, user_id: only tasks that fit.
            from_date, to_date: ISO 8601 text or an aware datetime.
            limit: no more than so many; all when omitted.

        Raises:
            ServiceError: one of its kinds.

        Example:
            >>> [task.status for task in client.tasks(status="completed", limit=2)]
            ['completed', 'completed']
        """
        found: list[Task] = []
        filters = given(
            agent_id=agent_id,
            status=status,
            parent_task_id=parent_task_id,
            triggering_agent_id=triggering_agent_id,
            user_id=user_id,
            from_date=_iso(from_date),
            to_date=_iso(to_date),
        )
        for task in self.pages("/v1/tasks", Task, self._short(), **filters):
            if limit is not None and len(found) >= limit:
                break
            found.append(task)
        return found

    def stop(self, id: str, *, deadline: Deadline | None = None) -> Task:
        """Stops a task; a finished one comes back unchanged.

        Args:
            id: the task's.
            deadline: until when it may take; a minute when omitted.

        Raises:
            ServiceError: one of its kinds; NotFoundError where there is no such task.
        """
        path = f"/v1/tasks/{quoted(id)}/stop"
        # It may be about money or an interrupted kernel: it doesn't wait for its turn.
        return self.task_from(
            self._http.json("POST", path, deadline=deadline or self._short(), repeatable=True, paced=False)
        )

    def usage(self, id: str, *, deadline: Deadline | None = None) -> Usage:
        """What a task used, and what it cost: counts of tokens, ``cost`` in US dollars.

        Args:
            id: the task's.
            deadline: until when it may take; a minute when omitted.

        Raises:
            ServiceError: one of its kinds; NotFoundError where there is no such task.

        Example:
            >>> client.usage(run.task_id).cost
            0.01
        """
        return Usage(_object(self._get(f"/v1/tasks/{quoted(id)}/llm_usage", deadline)))

    def thread(self, id: str) -> list[Message]:
        """The conversation that the task of this id belongs to, oldest message first.

        Raises:
            ServiceError: one of its kinds; NotFoundError where there is no such task.

        Example:
            >>> [message.role for message in client.thread(run.task_id)]
            ['user', 'assistant']
        """
        return [Message(_object(item)) for item in _array(self._get(f"/v1/tasks/{quoted(id)}/thread"))]

    def full_thread(self, id: str) -> dict[str, list[Message]]:
        """The conversation (``root``) of the task of this id, and those of its sub-tasks by their ids.

        Tool calls are included. Raises as ``thread``.
        """
        answer = _object(self._get(f"/v1/tasks/{quoted(id)}/thread/full"))
        return {name: [Message(_object(item)) for item in _array(items)] for name, items in answer.items()}

    def agents(self) -> list[Agent]:
        """All agents, newest first. Raises ServiceError, one of its kinds."""
        return self.directory.entries("agent", fresh=True)

    def agent(self, id: str) -> Agent:
        """One agent with its full configuration, by its id. Raises as ``agents``."""
        return self._get_one("agent", id)

    def workflows(self) -> list[Agent]:
        """All workflows, newest first. Raises as ``agents``."""
        return self.directory.entries("workflow", fresh=True)

    def workflow(self, id: str) -> Agent:
        """One workflow with its full configuration, by its id. Raises as ``agents``."""
        return self._get_one("workflow", id)

    def providers(self) -> list[Provider]:
        """The providers of models. Raises as ``agents``.

        Example:
            >>> [provider.internal_identifier for provider in client.providers()]
            ['openai', 'anthropic']
        """
        return [Provider(_object(item)) for item in _array(self._get("/v1/misc/llm_providers"))]

    def models(self, provider: str) -> list[Model]:
        """A provider's models, by its ``internal_identifier``. Raises as ``agents``.

        Example:
            >>> [model.model_id for model in client.models("openai")]
            ['gpt-5', 'gpt-5-mini']
        """
        path = f"/v1/misc/llm_providers/{quoted(provider)}/models"
        return [Model(_object(item)) for item in _array(self._get(path))]

    def _list_kind(self, kind: str) -> list[Agent]:
        return [Agent(entry.raw, kind) for entry in self.pages(f"/v1/{kind}s", Record, self._short())]

    def _get_one(self, kind: str, id: str) -> Agent:
        return Agent(_object(self._get(f"/v1/{kind}s/{quoted(id)}")), kind)

    def _short(self) -> Deadline:
        return Deadline(_LIST_SECONDS)

    def _get(self, path: str, deadline: Deadline | None = None) -> Any:
        return self._http.json("GET", path, deadline=deadline or self._short())

    def pages(
        self, path: str, kind: type[_R], deadline: Deadline, *, paced: bool = True, **filters: Any
    ) -> Iterator[_R]:
        """The items of a list of the service, over as many pages as that takes; raises ServiceError."""
        page = 1
        while True:
            params = {**filters, "page": page, "per_page": _PAGE}
            answer = _object(self._http.json("GET", path, params=params, deadline=deadline, paced=paced))
            # Another object is no empty page: whoever looks for a lost task must not believe that there is none.
            items, pages = _array(answer["items"] or [] if "items" in answer else None), answer.get("total_pages")
            yield from (kind(_object(item)) for item in items)
            # Without a count, the last page is the one that isn't full.
            if not items or (page >= pages if isinstance(pages, int) else len(items) < _PAGE):
                return
            page += 1

    def task_from(self, answer: Any) -> Task:
        """A task from the answer that should hold one; raises ServerError where it holds none."""
        task = Task(_object(answer))
        if id_from(task.id) is None:
            raise errors.ServerError("The service answered with a task that has no id.", maybe_sent=True)
        return task


def seconds(name: str, value: Any) -> float:
    """A time limit that was given.

    Raises:
        ConfigError: it is no positive number, or more than sockets take.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= _LONGEST:
        raise errors.ConfigError(f"{name} takes seconds, more than 0 and at most {_LONGEST:,}, not {value!r}.")
    return value


def _window(rate_limit: Any, base_url: str) -> int | None:
    """How many requests a minute a service allows; None for any number."""
    if rate_limit is None:
        return None if is_loopback(urlsplit(base_url).hostname or "") else _RATE_LIMIT
    number = isinstance(rate_limit, (int, float)) and not isinstance(rate_limit, bool)
    if not number or not (rate_limit == 0 or 1 <= rate_limit <= _LONGEST):
        raise errors.ConfigError(
            f"rate_limit takes a number of requests a minute, 1 or more, or 0 for no limit, not {rate_limit!r}."
        )
    return int(rate_limit) or None


def given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _iso(when: datetime | str | None) -> str | None:
    return when.isoformat() if isinstance(when, datetime) else when


def _object(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise errors.ServerError("The service answered something else than its contract says.", maybe_sent=True)
    return answer


def _array(answer: Any) -> list[Any]:
    if not isinstance(answer, list):
        raise errors.ServerError("The service answered something else than its contract says.", maybe_sent=True)
    return answer
