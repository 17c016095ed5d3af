"""The YAML file of agents, workflows, providers and models, read and checked.

::

    agents:
      - name: writer
        unique_name: short-writer        # the name, when omitted
        description: Writes short texts
        instructions: You write clearly and briefly.
        examples:                        # earlier turns that show what is wanted
          - {input: rain, output: Water that falls from clouds.}
        prefix: "Label:"                 # what the examples' outputs begin with; taken off the answers
        choices: [rain, snow]            # the only answers; holds GGUF models, others see the instructions
        model: local/smollm2-135m-instruct
        effort: low                      # low medium high xhigh
        think_mode: default              # default harder
        output_format: json              # text markdown json voice
        output_schema: {type: object}    # with output_format json
        temperature: 0.7
        seed: 7                          # the same answer to the same prompt at any temperature
        max_tokens: 200
        status: ACTIVE                   # or INACTIVE
        version: 1
      - {name: editor, model: ollama/qwen3}
    workflows:
      - name: draft-edit
        description: One drafts, one edits
        nodes: [writer, {name: edit, agent: editor, instructions: Shorten it.}]
    providers:                           # any OpenAI-compatible endpoint
      - {name: ollama, base_url: "http://127.0.0.1:11434/v1", models: [qwen3], api_key_env: OLLAMA_KEY}
    models:                              # GGUF files of your own, as local/ID; stop: strings that end an answer
      - {id: mine, path: mine.gguf, context: 4096, chat_template: "...", stop: ["###"]}

Paths are relative to the file. ``api_key_env`` names the variable whose value is sent to ``base_url``, so read the
file of somebody else before it is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from xpander_magics.config import may_go_unencrypted
from xpander_magics.contract import EFFORTS, FORMATS, THINK_MODES
from xpander_magics.errors import ConfigError, did_you_mean
from xpander_magics.local import require
from xpander_magics.local.agents import Agent, Catalog, ModelFile, Node, Provider, Workflow
from xpander_magics.safety import is_secret_name, without_user

DEFAULTS = Path(__file__).with_name("agents.yaml")
BUILT_IN = ("local", "scripted")

_MOST_BYTES = 1_000_000
_MOST_LEVELS = 50
_MOST_VALUES = 100_000
"""With each alias counted as what it stands for: a few lines of aliases can stand for billions of values."""
_MOST_CONTEXT = 1_000_000

_T = TypeVar("_T")


def load(file: str | Path | None = None, gguf: Iterable[str | Path] = ()) -> Catalog:
    """Reads a file of agents, or the set that is shipped.

    Args:
        file: the YAML file; it takes the place of the shipped set.
        gguf: more GGUF files, each a model ``local/STEM``.

    Raises:
        ConfigError: names the file, the entry, and what to do.
    """
    require("yaml")
    path = Path(file) if file is not None else DEFAULTS
    top = _Entry(str(path), "the file", _document(path))
    stamp = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
    agents = _each(top, "agents", lambda entry: _agent(entry, stamp))
    catalog = Catalog(
        agents=agents,
        workflows=_each(top, "workflows", lambda entry: _workflow(entry, agents, stamp)),
        providers=_each(top, "providers", _provider),
        models=(*_each(top, "models", lambda entry: _model(entry, path.parent)), *map(_given, gguf)),
    )
    top.end()
    _check_models(path, catalog)
    return catalog


def _document(path: Path) -> Any:
    """What the file holds: the values that JSON has, and no more of them than a person writes."""
    import yaml

    try:
        if not path.is_file() and path.exists():  # a pipe or a device may never end
            raise ConfigError(f"{path} can't be read: it is no file.")
        with path.open("rb") as opened:
            raw = opened.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise ConfigError(f"{path} is over {_MOST_BYTES / 1e6:.0f} MB, which no file of agents is.")
        loader = yaml.SafeLoader(raw.decode("utf-8-sig"))
        node = loader.get_single_node()
        if node is None:
            return None
        _check_node(path, node)
        return loader.construct_document(node)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply.") from None


def _check_node(path: Path, root: Any) -> None:
    """Refuses what only looks like a file of agents, before any value is made of it."""
    values = 0
    level = [root]
    for _ in range(_MOST_LEVELS):
        inner: list[Any] = []
        for node in level:
            where = f"{path}, line {node.start_mark.line + 1}"
            tag = node.tag.removeprefix("tag:yaml.org,2002:")
            if tag not in ("str", "int", "float", "bool", "null", "seq", "map", "merge", "value"):
                raise ConfigError(
                    f"{where}: a value of the type {tag} isn't read here. If it is text, put quotes around."
                )
            if tag == "float" and node.value.lower().endswith(("inf", "nan")):
                raise ConfigError(f"{where}: {node.value} is no number here.")
            if not isinstance(node.value, list):
                continue
            keys = Counter(key.value for key, _ in node.value if key.tag.endswith(":str")) if tag == "map" else {}
            if twice := next((key for key, count in keys.items() if count > 1), None):
                raise ConfigError(f"{where}: {twice!r} stands twice in the same mapping.")
            inner += [one for pair in node.value for one in pair] if tag == "map" else node.value
            values += len(node.value)
            if values > _MOST_VALUES:
                raise ConfigError(f"{path} holds over {_MOST_VALUES:,} values, its aliases written out.")
        level = inner
    if level:
        raise ConfigError(f"{path} is nested too deeply, or an alias stands within what it is an alias for.")


class _Entry:
    """A mapping of the file whose keys are taken one by one, so that a misspelt one is noticed."""

    def __init__(self, file: str, where: str, value: Any) -> None:
        self.file, self.where = file, where
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise self.wrong("must be a mapping of names to values")
        self._left: dict[str, Any] = dict(value)
        self._known: list[str] = []

    def wrong(self, what: str) -> ConfigError:
        return ConfigError(f"{self.file}: {self.where} {what}.")

    def take(self, key: str, kind: type[_T] | tuple[type[_T], ...], default: _T | None = None) -> _T | None:
        """The value of a key, checked; ``default`` where it is missing or null."""
        self._known.append(key)
        value = self._left.pop(key, None)
        if value is None:
            return default
        # YAML's true is an int to isinstance; no key here takes either.
        if not isinstance(value, kind) or isinstance(value, bool):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            shown = repr(value) if len(repr(value)) <= 100 else f"{repr(value)[:100]}…"
            raise self.wrong(f"has {key}: {shown}, which is no {' or '.join(k.__name__ for k in kinds)}")
        return value

    def need(self, key: str) -> str:
        value = self.take(key, str)
        if not value:
            raise self.wrong(f"lacks {key}: add one")
        return value

    def one_of(self, key: str, allowed: Iterable[str], default: str) -> str:
        value = self.take(key, str, default) or default
        if value not in allowed:
            raise self.wrong(f"has {key}: {value}; it must be one of {', '.join(filter(None, allowed))}")
        return value

    def strings(self, key: str) -> tuple[str, ...] | None:
        values = self.take(key, list)
        if values is not None and not all(isinstance(value, str) for value in values):
            raise self.wrong(f"has {key} that are not all strings: put quotes around them")
        return None if values is None else tuple(values)

    def end(self) -> None:
        """Nothing may be left."""
        for key in self._left:
            known = did_you_mean(key, self._known, otherwise=f"Known: {', '.join(self._known)}")
            raise self.wrong(f"has {key!r}, which isn't known. {known.rstrip('.')}")


def _each(top: _Entry, key: str, read: Callable[[_Entry], _T]) -> tuple[_T, ...]:
    """Reads the list under ``key``; names, ids and unique names must differ."""
    read_ones: list[_T] = []
    seen: set[str] = set()
    for number, value in enumerate(top.take(key, list) or [], 1):
        name = value.get("name", value.get("id")) if isinstance(value, Mapping) else None
        entry = _Entry(top.file, f"{key}: entry {number}" + (f" ({name})" if name else ""), value)
        one = read(entry)
        entry.end()
        if name in seen:
            raise entry.wrong("has the name of an earlier one: rename it")
        seen.add(str(name))
        read_ones.append(one)
    return tuple(read_ones)


def _agent(entry: _Entry, stamp: datetime) -> Agent:
    name = entry.need("name")
    model = entry.need("model")
    if "/" not in model.strip("/"):
        raise entry.wrong(f"has model: {model}; write PROVIDER/MODEL, such as local/smollm2-135m-instruct")
    temperature = entry.take("temperature", (int, float))
    agent = Agent(
        name=name,
        unique_name=entry.take("unique_name", str, name) or name,
        description=entry.take("description", str, "") or "",
        instructions=entry.take("instructions", str, "") or "",
        examples=_examples(entry),
        prefix=entry.take("prefix", str, "") or "",
        choices=entry.strings("choices") or (),
        model=model,
        effort=entry.one_of("effort", ("", *EFFORTS), "") or None,
        think_mode=entry.one_of("think_mode", THINK_MODES, "default"),
        output_format=entry.one_of("output_format", FORMATS, "text"),
        output_schema=entry.take("output_schema", dict),
        temperature=None if temperature is None else float(temperature),
        seed=entry.take("seed", int),
        max_tokens=entry.take("max_tokens", int, 512) or 512,
        status=entry.one_of("status", ("ACTIVE", "INACTIVE"), "ACTIVE"),
        version=entry.take("version", int, 1) or 1,
        created_at=stamp + timedelta(microseconds=_position(entry)),
    )
    if agent.output_schema is not None and agent.output_format != "json":
        raise entry.wrong("has an output_schema: add output_format: json")
    if agent.max_tokens < 1 or (temperature or 0) < 0:
        raise entry.wrong("needs max_tokens of 1 or more and a temperature of 0 or more")
    if max(agent.max_tokens, abs(agent.seed or 0), temperature or 0) >= 2**31:
        raise entry.wrong("has a number that is too large for max_tokens, seed or temperature")
    return agent


def _examples(entry: _Entry) -> tuple[tuple[str, str], ...]:
    pairs = []
    for number, value in enumerate(entry.take("examples", list) or [], 1):
        example = _Entry(entry.file, f"{entry.where}, example {number}", value)
        pairs.append((example.need("input"), example.need("output")))
        example.end()
    return tuple(pairs)


def _workflow(entry: _Entry, agents: Iterable[Agent], stamp: datetime) -> Workflow:
    name = entry.need("name")
    nodes = [_node(entry, value, {agent.name: agent for agent in agents}) for value in entry.take("nodes", list) or []]
    if not nodes:
        raise entry.wrong("has no nodes: list the agents to run, in order")
    if len({node.name for node in nodes}) < len(nodes):
        raise entry.wrong("has two nodes of one name: write one as {name: OTHER, agent: AGENT}")
    return Workflow(
        name=name,
        unique_name=entry.take("unique_name", str, name) or name,
        description=entry.take("description", str, "") or "",
        status=entry.one_of("status", ("ACTIVE", "INACTIVE"), "ACTIVE"),
        version=entry.take("version", int, 1) or 1,
        nodes=tuple(nodes),
        created_at=stamp + timedelta(microseconds=_position(entry)),
    )


def _node(workflow: _Entry, value: Any, agents: dict[str, Agent]) -> Node:
    entry = _Entry(workflow.file, f"{workflow.where}, node", {"agent": value} if isinstance(value, str) else value)
    agent = entry.need("agent")
    if agent not in agents:
        raise entry.wrong(f"names the agent {agent!r}, not in this file. {did_you_mean(agent, agents)}".rstrip(". "))
    node = Node(
        name=entry.take("name", str, agent) or agent,
        agent=agents[agent],
        instructions=entry.take("instructions", str, "") or "",
    )
    entry.end()
    return node


def _provider(entry: _Entry) -> Provider:
    name, base_url = entry.need("name"), entry.need("base_url")
    if name in BUILT_IN or "/" in name:
        raise entry.wrong("can't have that name: it is built in, or has a slash")
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise entry.wrong(f"has base_url: {without_user(base_url)}; it must begin with http:// or https://, and a host")
    if parts.username is not None or parts.query or parts.fragment:
        raise entry.wrong("has a base_url that holds more than a host and a path: name the key by api_key_env")
    key = entry.take("api_key_env", str)
    if key is not None and (not is_secret_name(key) or key.upper().startswith("XPANDER")):
        raise entry.wrong(
            f"has api_key_env: {key}, which doesn't name a key of its own: such as {name.upper()}_API_KEY"
        )
    if key is not None and parts.scheme == "http" and not may_go_unencrypted(host):
        raise entry.wrong(
            f"would send its key to {host} for all to read: write https://, or allow it: XPANDER_ALLOW_HTTP={host}"
        )
    return Provider(name, base_url.rstrip("/"), key, entry.strings("models"))


def _model(entry: _Entry, folder: Path) -> ModelFile:
    model = ModelFile(
        id=entry.need("id"),
        path=folder / Path(entry.need("path")).expanduser(),
        chat_template=entry.take("chat_template", str),
        context=entry.take("context", int, 8192) or 8192,
        stop=entry.strings("stop") or (),
    )
    if not 1 <= model.context <= _MOST_CONTEXT:
        raise entry.wrong(f"has context: {model.context}; it must be from 1 to {_MOST_CONTEXT:,}")
    if not model.path.is_file():
        raise entry.wrong(f"has path: {model.path}, and there is no such file")
    if not _is_gguf(model.path):
        raise entry.wrong(f"has path: {model.path}, which is no GGUF file")
    return model


def _given(path: str | Path) -> ModelFile:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"There is no GGUF file {file}.")
    if not _is_gguf(file):
        raise ConfigError(f"{file} is no GGUF file: it doesn't begin with GGUF. Convert the model, or fetch it anew.")
    return ModelFile(id=file.stem, path=file)


def _is_gguf(file: Path) -> bool:
    """Whether a file begins as GGUF does: llama.cpp would find out on first use only, and say little."""
    try:
        with file.open("rb") as opened:
            return opened.read(4) == b"GGUF"
    except OSError as error:
        raise ConfigError(f"{file} can't be read: {error.strerror}.") from None


def _check_models(path: Path, catalog: Catalog) -> None:
    """An agent's provider must exist; its model is checked when it is invoked, when lists are known."""
    known = (*BUILT_IN, *(provider.name for provider in catalog.providers))
    for agent in catalog.agents:
        provider = agent.model.partition("/")[0]
        if provider not in known:
            hint = did_you_mean(provider, known, otherwise=f"Known: {', '.join(known)}. Add it under providers.")
            raise ConfigError(f"{path}: agents: {agent.name} has the unknown provider {provider!r}. {hint}")


def _position(entry: _Entry) -> int:
    return int(entry.where.split("entry ")[1].split()[0])
