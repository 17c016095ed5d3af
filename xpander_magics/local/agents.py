"""What is served: agents, workflows, providers and model files. ``catalog.py`` reads them from YAML."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ORGANIZATION = str(uuid.uuid5(uuid.NAMESPACE_URL, "xpander-magics:local"))


@dataclass(frozen=True)
class Agent:
    """What the service calls an agent."""

    name: str
    instructions: str
    model: str
    unique_name: str = ""
    description: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    prefix: str = ""
    choices: tuple[str, ...] = ()
    effort: str | None = None
    think_mode: str = "default"
    output_format: str = "text"
    output_schema: dict[str, Any] | None = None
    temperature: float | None = None
    seed: int | None = None
    max_tokens: int = 512
    status: str = "ACTIVE"
    version: int = 1
    created_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    kind = "agent"

    @property
    def id(self) -> str:
        """From kind and name alone, so that it outlives a restart."""
        return _id(self.kind, self.name)

    def as_json(self) -> dict[str, Any]:
        """The service's object."""
        provider, _, model = self.model.partition("/")
        return {
            **_common(self),
            "type": "regular",
            "model_provider": provider,
            "model_name": model,
            "llm_reasoning_effort": self.effort,
            "think_mode": self.think_mode,
            "output_format": self.output_format,
            "output_schema": self.output_schema,
            "instructions": {"role": [], "goal": [], "general": self.instructions},
        }


@dataclass(frozen=True)
class Node:
    """One step of a workflow; its name is its id there."""

    name: str
    agent: Agent
    instructions: str = ""


@dataclass(frozen=True)
class Workflow:
    """Agents in a row: each gets the answer of the one before."""

    name: str
    nodes: tuple[Node, ...]
    unique_name: str = ""
    description: str = ""
    status: str = "ACTIVE"
    version: int = 1
    created_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    kind = "workflow"
    think_mode = "default"

    @property
    def id(self) -> str:
        """From kind and name alone, so that it outlives a restart."""
        return _id(self.kind, self.name)

    @property
    def output_format(self) -> str:
        """That of its last node."""
        return self.nodes[-1].agent.output_format

    def as_json(self) -> dict[str, Any]:
        """The service's object, and its nodes."""
        nodes = [{"id": node.name, "name": node.name, "agent_id": node.agent.id} for node in self.nodes]
        return {**_common(self), "type": "orchestration", "output_format": self.output_format, "nodes": nodes}


@dataclass(frozen=True)
class Provider:
    """An OpenAI-compatible endpoint; ``models`` None asks it for its list."""

    name: str
    base_url: str
    api_key_env: str | None = None
    models: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ModelFile:
    """A GGUF file of the user's."""

    id: str
    path: Path
    chat_template: str | None = None
    context: int = 8192
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Catalog:
    """All that one file holds, in its order."""

    agents: tuple[Agent, ...]
    workflows: tuple[Workflow, ...]
    providers: tuple[Provider, ...]
    models: tuple[ModelFile, ...]


def _id(kind: str, name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"xpander-magics:{kind}:{name}"))


def _common(what: Agent | Workflow) -> dict[str, Any]:
    return {
        "id": what.id,
        "name": what.name,
        "unique_name": what.unique_name,
        "description": what.description,
        "icon": None,
        "status": what.status,
        "organization_id": ORGANIZATION,
        "deployment_type": "local",
        "created_at": what.created_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "framework": "xpander_magics.local",
        "version": what.version,
    }
