"""Runs tasks: chooses the model, writes what it reads, follows a workflow's nodes, stops."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from xpander_magics.errors import did_you_mean
from xpander_magics.local.agents import Agent, Catalog, Node, Workflow
from xpander_magics.local.body import Input, Invoke, refused
from xpander_magics.local.effort import Passes
from xpander_magics.local.engines import Call, Engine, EngineError, OpenAIEngine, Piece
from xpander_magics.local.files import FileError, attach
from xpander_magics.local.gguf import GGUFEngine
from xpander_magics.local.scripted import ScriptedEngine
from xpander_magics.local.tasks import Choice, Task, Tasks

_log = logging.getLogger(__name__)

_FORMATS = {"markdown": "Write the answer in Markdown.", "json": "Answer with JSON only."}


class Runner:
    """The engines, and the tasks that they work on."""

    def __init__(self, catalog: Catalog, *, fetch: bool = True) -> None:
        self.tasks = Tasks()
        self.engines: dict[str, Engine] = {"local": GGUFEngine(catalog.models, fetch=fetch)}
        self.engines["scripted"] = ScriptedEngine()
        self.engines.update({provider.name: OpenAIEngine(provider) for provider in catalog.providers})
        self._slots = {name: asyncio.Semaphore(engine.limit) for name, engine in self.engines.items()}

    def start(self, target: Agent | Workflow, body: Invoke, size: int) -> Task:
        """A new task, pending, of a request of so many bytes; it begins as soon as the caller awaits something.

        Raises:
            RequestValidationError: a field names what doesn't exist here.
        """
        if isinstance(target, Agent):
            task = Task(target, body, self._choose(target, body))
        else:
            for node in _nodes(target, body):
                self._choose(node.agent, body)
            task = Task(target, body, None)
        task.size = size
        if body.id:
            earlier = self.tasks.get(body.id)
            if earlier and not earlier.ended:
                raise refused(["body", "id"], "The task of that id is still under way: wait for it, or stop it")
            task.id = body.id
            task.history = [(turn.sent, turn.result or "") for turn in _completed(self.tasks.turns(body.id))]
        self._launch(task)
        return task

    def stop(self, task: Task) -> None:
        """Stops a task and all that it has begun; one that has ended stays as it is."""
        if task.ended:
            return
        for child in task.children:
            self.stop(child)
        task.stopped = True
        task.finish("stopped", None)
        if task.job:
            task.job.cancel()

    async def close(self) -> None:
        """Ends all that is under way."""
        jobs = [task.job for task in self.tasks.newest() if task.job and not task.job.done()]
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        for engine in self.engines.values():
            await engine.close()

    def _launch(self, task: Task) -> None:
        self.tasks.add(task)
        task.job = asyncio.create_task(self._run(task))

    def _choose(self, agent: Agent, body: Invoke) -> Choice:
        """The model to run: what the call says, else what the agent says."""
        own_provider, _, own_model = agent.model.partition("/")
        provider = own_provider if body.llm_model_provider is None else body.llm_model_provider
        if provider not in self.engines:
            hint = did_you_mean(provider, self.engines, otherwise=f"It has {', '.join(self.engines)}.")
            raise refused(["body", "llm_model_provider"], f"This server has no provider {provider!r}. {hint}")
        engine = self.engines[provider]
        model = body.llm_model_name
        if model is None:
            model = own_model if provider == own_provider else engine.default
        if wrong := engine.check(model, body.payload_extension or {}):
            raise refused(["body", wrong[0]], wrong[1])
        return Choice(provider, model, body.llm_reasoning_effort or agent.effort)

    async def _run(self, task: Task) -> None:
        try:
            await (self._agent(task) if isinstance(task.target, Agent) else self._workflow(task, task.target))
        except (EngineError, FileError) as error:
            task.finish("failed", str(error))
        except asyncio.CancelledError:
            task.finish("stopped", None)
            raise
        except Exception as error:
            # A fault of ours must end the task too: someone waits for it.
            _log.exception("task %s", task.id)
            task.finish("failed", f"The local server failed: {type(error).__name__}: {error}")
        finally:
            self.tasks.ended(task)

    async def _agent(self, task: Task) -> None:
        choice = task.choice
        assert choice is not None
        assert isinstance(task.target, Agent)
        engine = self.engines[choice.provider]
        task.byok = engine.byok
        async with self._slots[choice.provider]:
            task.move("executing")
            files = [] if task.body.disable_attachment_injection else task.body.input.files or []
            task.sent = await attach(task.body.input.text, files)
            await engine.ready(choice.model, lambda text: _say(task, text))
            task.internal_status = None
            passes = Passes(engine, lambda piece: _emit(task, piece), task.tokens)
            result = await passes.answer(_call(task, task.target, choice), choice.effort, task.think_mode)
        task.finish("completed", result)

    async def _workflow(self, task: Task, workflow: Workflow) -> None:
        task.move("executing")
        nodes = _nodes(workflow, task.body)
        text = task.body.input.text
        for node in nodes:
            child = self._node_task(task, node, text, last=node is nodes[-1])
            await asyncio.wait([child.job] if child.job else [])
            task.last_node, task.choice, task.byok = node.name, child.choice, child.byok
            task.tool_calls += child.tool_calls
            if child.tokens.counted:
                task.tokens.add(child.tokens.prompt, child.tokens.completion)
            if child.status != "completed":
                task.finish(child.status, child.result and f"Node {node.name}: {child.result}")
                return
            text = child.result or ""
        task.sent = task.body.input.text
        task.finish("completed", text)

    def _node_task(self, task: Task, node: Node, text: str, *, last: bool) -> Task:
        """The sub-task of one node. How the answer shall look is for the last one alone, files for the first."""
        body = task.body
        first = not task.children
        of_the_last = ("output_format", "output_schema", "expected_output")
        changes: dict[str, Any] = {} if last else dict.fromkeys(of_the_last)
        given = Input(text=text, files=body.input.files if first else None, user=body.input.user)
        own = body.model_copy(update={**changes, "input": given, "id": None, "title": node.name})
        instructions = "\n".join(filter(None, (node.agent.instructions, node.instructions)))
        agent = replace(node.agent, instructions=instructions)
        child = Task(agent, own, self._choose(agent, own), parent=task, history=task.history if first else [])
        child.speaks_for_parent = last
        child.size = len(text)
        task.children.append(child)
        self._launch(child)
        child.tell("task_created", child.as_json())
        return child


def _completed(turns: list[Task]) -> Iterator[Task]:
    return (turn for turn in turns if turn.status == "completed")


def _nodes(workflow: Workflow, body: Invoke) -> tuple[Node, ...]:
    """The nodes to run: all, or the one to test."""
    wanted = body.test_run_node_id
    if wanted is None:
        return workflow.nodes
    nodes = tuple(node for node in workflow.nodes if node.name == wanted)
    if not nodes:
        names = ", ".join(node.name for node in workflow.nodes)
        raise refused(["body", "test_run_node_id"], f"{workflow.name} has no node {wanted!r}; it has {names}")
    return nodes


def _say(task: Task, text: str) -> None:
    if text != task.internal_status and not task.ended:
        task.internal_status = text
        task.tell("task_updated", task.as_json())


def _emit(task: Task, piece: Piece) -> None:
    """What an engine says becomes events, and the task's state."""
    both = [task, *([task.parent] if task.parent else [])]
    if piece.type == "paused":
        for one in both:
            one.waits = piece.data
            if request := piece.data.get("pending_eca_request"):
                one.tell("auth_event", request)
            one.move("paused")
        return
    for one in both:
        if one.status == "paused":
            one.move("executing")
    if piece.type == "tool_call_request":
        task.tool_calls.append(dict(piece.data))
    elif piece.type == "tool_call_result":
        task.tool_calls[-1].update(piece.data)
    speaker = task.parent if task.parent and task.speaks_for_parent and piece.type == "chunk" else task
    speaker.tell(piece.type, piece.data)


def _call(task: Task, agent: Agent, choice: Choice) -> Call:
    """What the model reads, and how it shall answer."""
    as_json = task.output_format == "json"
    script = (task.body.payload_extension or {}).get("script")
    return Call(
        model=choice.model,
        prompt=task.sent,
        system=_system(task, agent),
        examples=_as_messages(agent.examples),
        history=_as_messages(task.history),
        temperature=agent.temperature,
        seed=agent.seed,
        max_tokens=agent.max_tokens,
        schema=(task.output_schema or {"type": "object"}) if as_json else None,
        prefix="" if as_json else agent.prefix,
        choices=() if as_json else agent.choices,
        script=script if isinstance(script, dict) else {},
    )


def _as_messages(turns: Iterable[tuple[str, str]]) -> tuple[dict[str, str], ...]:
    pairs = (({"role": "user", "content": said}, {"role": "assistant", "content": told}) for said, told in turns)
    return tuple(message for pair in pairs for message in pair)


def _system(task: Task, agent: Agent) -> str:
    body = task.body
    schema = task.output_schema if task.output_format == "json" else None
    parts = [
        agent.instructions,
        body.instructions_override,
        body.additional_context and f"Facts:\n{body.additional_context}",
        body.expected_output and f"Expected output: {body.expected_output}",
        _FORMATS.get(task.output_format),
        schema and f"Its JSON Schema: {json.dumps(schema, ensure_ascii=False)}",
    ]
    return "\n\n".join(part.strip() for part in parts if part)
