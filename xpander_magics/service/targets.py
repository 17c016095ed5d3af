"""What a cell may call: agents and workflows by name, unique name or id, and the models they may run on."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from xpander_magics.contract import Agent, Model, Provider, id_from
from xpander_magics.errors import ConfigError, InvalidRequestError, NotFoundError, ServerError, did_you_mean
from xpander_magics.safety import plain

KINDS = ("agent", "workflow")
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
# How long a list may be used again, in seconds: long enough for a sweep, short enough for a new agent.
_FRESH = 300.0


@dataclass(frozen=True)
class Target:
    """An agent or a workflow that can be invoked."""

    kind: str
    id: str
    name: str
    version: str | None = None

    @property
    def path(self) -> str:
        """The beginning of its endpoints' paths."""
        return f"/v1/{self.kind}s/{quoted(self.id)}"


class Directory:
    """The service's lists, asked for when needed and kept for five minutes. Safe to use from many threads.

    Args:
        list_kind: lists all agents, or all workflows.
        get_one: gets one by its kind and id; NotFoundError where there is none.
        list_providers, list_models: list the providers, and the models of one.
    """

    def __init__(
        self,
        list_kind: Callable[[str], list[Agent]],
        get_one: Callable[[str, str], Agent],
        list_providers: Callable[[], list[Provider]],
        list_models: Callable[[str], list[Model]],
    ) -> None:
        self._list_kind = list_kind
        self._get_one = get_one
        self._list_providers = list_providers
        self._list_models = list_models
        self._entries: dict[str, tuple[float, list[Agent]]] = {}
        self._by_id: dict[str, tuple[float, Agent]] = {}
        self._models: dict[str, tuple[float, list[Model]]] = {}
        self._providers: tuple[float, list[Provider]] | None = None

    def entries(self, kind: str, *, fresh: bool = False) -> list[Agent]:
        """All agents, or all workflows; asked for again with ``fresh``."""
        kept = self._entries.get(kind)
        if fresh or kept is None or _stale(kept[0]):
            kept = self._entries[kind] = (time.monotonic(), self._list_kind(kind))
        return kept[1]

    def entries_of(self, kinds: tuple[str, ...], *, fresh: bool = False) -> list[Agent]:
        """Those of several kinds; a service without workflows needs no list of them to find an agent."""
        found: list[Agent] = []
        missing: NotFoundError | None = None
        for kind in kinds:
            try:
                found += self.entries(kind, fresh=fresh)
            except NotFoundError as error:
                missing = error
        if missing is not None and not found:
            raise missing
        return found

    def resolve(self, written: str | Agent | Target) -> Target:
        """The agent or workflow that is meant by ``NAME``, ``agent:NAME``, ``workflow:NAME`` or an id.

        One that was listed means itself, and so does a target.

        Raises:
            NotFoundError: there is none; the nearest names are given.
            ConfigError: several are meant.
            InvalidRequestError: it is there, but isn't ACTIVE.
        """
        if isinstance(written, Target):
            return written
        if isinstance(written, Agent):
            written = f"{written.kind}:{written.id}"
        if not isinstance(written, str):
            raise ConfigError(f"A target is a name, an id, or one of those listed, not a {type(written).__name__}.")
        prefix, colon, rest = written.partition(":")
        kinds, name = ((prefix,), rest.strip()) if colon and prefix in KINDS else (KINDS, written.strip())
        if not name:
            raise ConfigError("A target needs a name: an agent's or a workflow's. %xpander agents lists them.")
        found = self._by_uuid(kinds, name) if _UUID.fullmatch(name) else self._by_name(kinds, name)
        refused = why_not(found)
        if refused:
            raise InvalidRequestError(refused)
        version = None if found.version is None else str(found.version)
        return Target(found.kind, str(found.id), str(found.name or found.id), version)

    def _by_uuid(self, kinds: tuple[str, ...], uuid: str) -> Agent:
        kept = self._by_id.get(uuid)
        if kept and not _stale(kept[0]) and kept[1].kind in kinds:
            return kept[1]
        for kind in kinds:
            try:
                found = self._get_one(kind, uuid)
            except NotFoundError:
                continue
            if found.status == "ACTIVE":  # one that isn't may be so in a minute
                self._by_id[uuid] = (time.monotonic(), found)
            return found
        raise NotFoundError(f"There is no {' or '.join(kinds)} with the id {uuid}. %xpander agents lists them.")

    def _by_name(self, kinds: tuple[str, ...], name: str) -> Agent:
        for fresh in (False, True):
            entries = self.entries_of(kinds, fresh=fresh)
            found = _matches(entries, name)
            # A list that is some minutes old may lack a name; before that is an error, ask again.
            if len(found) == 1 and (fresh or found[0].status == "ACTIVE"):
                return found[0]
        if found:
            return _only(name, found)
        names = [str(n) for entry in entries for n in (entry.name, entry.unique_name) if n]
        hint = did_you_mean(name, names, otherwise="%xpander agents and %xpander workflows list what there is.")
        raise NotFoundError(f"There is no {' or '.join(kinds)} named {name!r}. {hint}")

    def check_model(self, provider: str, model: str) -> None:
        """Says no to a model that its provider's list lacks.

        Raises:
            NotFoundError: with the nearest names, and how to use it all the same.
        """
        try:
            known = self._model_ids(provider)
            if model not in known:
                known = self._model_ids(provider, fresh=True)
        except NotFoundError:
            providers = self.provider_ids()
            if provider in providers:
                return
            hint = did_you_mean(provider, providers, otherwise=f"There are: {', '.join(providers) or 'none'}.")
            raise NotFoundError(f"There is no provider {provider!r}. {hint}") from None
        except ServerError:
            return  # a list that can't be had says nothing about the model; the service itself will
        if model not in known:
            hint = did_you_mean(model, known, otherwise=f"%xpander models {provider} lists its models.")
            raise NotFoundError(
                f"{provider} lists no model {model!r}. {hint}\nTo send it all the same: "
                f"--set 'llm_model_provider=\"{provider}\"' --set 'llm_model_name=\"{model}\"'"
            )

    def providers(self, *, fresh: bool = False) -> list[Provider]:
        """The providers that have a name that can be typed; asked for again with ``fresh``."""
        kept = self._providers
        if fresh or kept is None or _stale(kept[0]):
            found = [provider for provider in self._list_providers() if can_be_typed(provider.internal_identifier)]
            kept = self._providers = (time.monotonic(), found)
        return kept[1]

    def provider_ids(self) -> list[str]:
        """The names that may stand before the slash of PROVIDER/MODEL."""
        return [str(provider.internal_identifier) for provider in self.providers()]

    def models(self, provider: str, *, fresh: bool = False) -> list[Model]:
        """A provider's models that have a name that can be typed; asked for again with ``fresh``."""
        kept = self._models.get(provider)
        if fresh or kept is None or _stale(kept[0]):
            # A comma stands between several.
            found = [m for m in self._list_models(provider) if can_be_typed(m.model_id) and "," not in str(m.model_id)]
            kept = self._models[provider] = (time.monotonic(), found)
        return kept[1]

    def _model_ids(self, provider: str, *, fresh: bool = False) -> list[str]:
        return [str(model.model_id) for model in self.models(provider, fresh=fresh)]

    def model_names(self) -> list[str]:
        """Every PROVIDER/MODEL."""
        return [f"{provider}/{model}" for provider in self.provider_ids() for model in self._model_ids(provider)]

    def target_names(self) -> list[str]:
        """Every name that ``resolve`` takes without a prefix, if it can be typed."""
        return [str(entry.name) for kind in KINDS for entry in self.entries(kind) if can_be_typed(entry.name)]


def can_be_typed(name: Any) -> bool:
    """Whether a name of the service's can stand in a cell's line, and means nothing there but itself.

    It may be made to be more: another line, an option, a template.
    """
    text = str(name or "")
    return text == " ".join(plain(text).split()) and text[:1] not in ("", "-") and "{" not in text


def why_not(entry: Agent) -> str | None:
    """Why an agent or a workflow can't be invoked; None where it can."""
    if entry.status in (None, "ACTIVE"):
        return None
    return (
        f"The {entry.kind} {entry.name!r} is {entry.status}, and only an ACTIVE one can be invoked. "
        "Activate it at xpander.ai, then try again."
    )


def written(entries: Iterable[Agent]) -> dict[str, Agent]:
    """These by how a cell names each: by its name where that means no other, else by its kind and its id.

    One that can't be named in a cell either way is left out.
    """
    known = list(entries)
    names = [{str(name).casefold() for name in (e.id, e.unique_name, e.name) if name} for e in known]
    count = Counter(name for several in names for name in several)
    found: dict[str, Agent] = {}
    for entry in known:
        name = str(entry.name or "")
        alone = can_be_typed(name) and not name.startswith(("agent:", "workflow:")) and count[name.casefold()] == 1
        if alone or can_be_typed(entry.id):
            found[name if alone else f"{entry.kind}:{entry.id}"] = entry
    return found


def _matches(entries: list[Agent], name: str) -> list[Agent]:
    """Those meant by a name: by id, else unique name, else name, else name in any case."""
    ways = (
        [entry for entry in entries if entry.id == name],
        [entry for entry in entries if entry.unique_name == name],
        [entry for entry in entries if entry.name == name],
        [entry for entry in entries if str(entry.name or "").casefold() == name.casefold()],
    )
    return next(filter(None, ways), [])


def _only(name: str, found: list[Agent]) -> Agent:
    if len(found) == 1:
        return found[0]
    by_kind = len({entry.kind for entry in found}) == len(found)
    ways = [f"{e.kind}:{name}" if by_kind else f"{e.kind}:{e.unique_name or e.id}" for e in found]
    raise ConfigError(f"{name!r} is the name of {len(found)}. Write one of: {', '.join(ways)}.")


def quoted(id_: str) -> str:
    """An id as a part of a path, whatever it holds.

    Raises:
        ConfigError: it would mean another endpoint.
    """
    text = id_from(id_)
    if text is None:
        raise ConfigError(f"{str(id_)[:60]!r} is no id.")
    return quote(text, safe="", errors="surrogatepass")


def _stale(since: float) -> bool:
    return time.monotonic() - since > _FRESH
