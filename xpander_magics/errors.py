"""The errors of this package, and how a cell shows them.

::

    XpanderError
    ├── ConfigError            an option, a setting or a name is wrong; nothing was sent
    │   └── StoreError         the run store can't be opened, read or written
    ├── TemplateError          the cell can't be rendered; nothing was sent
    ├── SecretError            the rendered prompt holds a secret; nothing was sent
    ├── SchemaError            the schema itself is no JSON Schema, or an answer breaks it
    ├── ServiceError           the service, or the way to it, said no
    │   ├── AuthError              401, 403, or no key at all
    │   ├── NotFoundError          404, or no such target, model or run
    │   ├── InvalidRequestError    400, 409, 422 and other refusals of the request
    │   ├── RateLimitError         429, after the retries
    │   ├── ServerError            5xx, or an answer that is not the contract's
    │   ├── ConnectionFailed       no connection, or a lost one
    │   └── Timeout                a connect, a read, or the run as a whole took too long
    └── TaskFailed             the task ended, and not as ``completed``

Each says what was wrong, where, and what to do next. Where a run was kept, it is the error's ``run``.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import sys
import traceback
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, ClassVar, ParamSpec, TypeVar

from xpander_magics.safety import plain

if TYPE_CHECKING:
    from xpander_magics.outcomes import Runs
    from xpander_magics.results import Run


_P = ParamSpec("_P")
_T = TypeVar("_T")
# Whose variables may hold what is sent: the body, its headers, what a template is rendered with.
_SENDERS = frozenset({"xpander_magics", "requests", "urllib3", "http", "jinja2"})


class _ShownBriefly:
    """In a cell: the message alone, with the traceback only when asked for."""

    _show_traceback: ClassVar[bool] = False

    def _render_traceback_(self) -> list[str]:
        """What IPython prints in place of its own traceback."""
        if _ShownBriefly._show_traceback:
            # What it came of may quote what a service or a file says, and isn't one of these.
            return [plain(part) for part in traceback.format_exception(*sys.exc_info())]
        return [f"{type(self).__name__}: {self}"]


def show_tracebacks(wanted: bool) -> None:
    """Whether cells show the tracebacks of these errors; ``%config XpanderMagics.traceback`` sets it."""
    _ShownBriefly._show_traceback = wanted


def without_variables(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A function whose errors bring no variables of this package along.

    Some tracebacks show them: IPython's after ``%xmode Verbose``, of an error that a caller makes of ours, too.
    """

    @functools.wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            args, kwargs = (), {}  # type: ignore[assignment]  # which this frame would bring along
            _forget_variables(error)
            raise

    return called


def forgetful(events: Generator[_T]) -> Generator[_T]:
    """The same, where they come one by one: what ``without_variables`` can't wrap."""
    try:
        yield from events
    except BaseException as error:
        _forget_variables(error)
        raise


def _forget_variables(error: BaseException) -> None:
    seen: set[int] = set()
    errors: list[BaseException | None] = [error]
    while errors:
        one = errors.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        errors += [one.__cause__, one.__context__]
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if frame.f_globals.get("__name__", "").partition(".")[0] in _SENDERS:
                with contextlib.suppress(RuntimeError):  # it goes on, as this one does
                    frame.clear()


class XpanderError(_ShownBriefly, Exception):
    """Anything that this package raises on purpose.

    The message says what was wrong, where, and what to do next. A cell shows it without a traceback;
    ``%config XpanderMagics.traceback = True`` shows that, too.

    Attributes:
        run: the run that it ended, already kept in the store; None where nothing was sent.
        runs: what was done of the sweep that it ended; None where it ended none.

    Example:
        >>> try:
        ...     xp.run("Say hi to {{ name }}.", target="writer")
        ... except xp.XpanderError as error:
        ...     print(type(error).__name__, error.run)
        TemplateError None
    """

    run: Run | None = None
    runs: Runs | None = None

    def __init__(self, message: str = "") -> None:
        # The message may quote what a service or a model wrote, and is shown in many places.
        super().__init__(plain(message))


class ConfigError(XpanderError):
    """An option, a setting or a name is wrong. Nothing was sent."""


class StoreError(ConfigError):
    """The run store can't be opened, read or written."""


class TemplateError(XpanderError):
    """The prompt, or an option's value, can't be rendered. Nothing was sent."""


class SecretError(XpanderError):
    """A rendered prompt holds a secret. Nothing was sent; ``--allow-secrets`` sends it all the same."""


class SchemaError(XpanderError):
    """A schema is no JSON Schema, or an answer breaks it."""


class ServiceError(XpanderError):
    """The service, or the way to it, said no.

    Attributes:
        status_code: the HTTP status, or None where there was no answer.
        maybe_sent: whether the request may have reached the service and done its work there.
        retry_after: the seconds that the service asked to wait, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        maybe_sent: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.maybe_sent = maybe_sent
        self.retry_after = retry_after


class AuthError(ServiceError):
    """The key is missing, wrong, or not allowed to do this: HTTP 401 and 403."""


class NotFoundError(ServiceError):
    """There is no such agent, workflow, provider, model, task or run: HTTP 404."""


class InvalidRequestError(ServiceError):
    """The service refuses the request as it is: HTTP 400, 409, 422 and the like."""


class RateLimitError(ServiceError):
    """Too many requests, still after the retries: HTTP 429."""


class ServerError(ServiceError):
    """The service failed (HTTP 5xx), or answered something that isn't its contract's."""


class ConnectionFailed(ServiceError):
    """The service can't be reached, or the connection was lost."""


class Timeout(ServiceError):
    """A connect, a read, or the run as a whole took too long."""


class TaskFailed(XpanderError):
    """The task ended, and not as ``completed``; its ``run`` tells all that is known."""


class Interrupted(_ShownBriefly, KeyboardInterrupt):
    """The kernel was interrupted; what was under way is kept as its ``run``."""

    run: Run | None = None


def nearest(name: str, known: Iterable[str], *, most: int = 3, alike: float = 0.5) -> list[str]:
    """The known names that look most like ``name``, best first, whatever their case."""
    by_lower = {k.lower(): k for k in known}
    return [by_lower[m] for m in difflib.get_close_matches(name.lower(), by_lower, n=most, cutoff=alike)]


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """A sentence to end an error with: the nearest names, or ``otherwise``."""
    near = nearest(name, known)
    return f"Did you mean {' or '.join(near)}?" if near else otherwise
