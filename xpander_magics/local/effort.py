"""Effort and think mode: what is done before an answer is given.

=========  ===========================================================================================
effort     what is done
=========  ===========================================================================================
none, low  one direct answer, at temperature 0 unless the agent says otherwise
medium     the model first writes a short reasoning (``think`` events), then answers with it before it
high       3 such reasoned answers at temperature 0.8, and a vote: the answer that most agree on, once
           case, white space and punctuation are left aside, or as equal JSON (an ``analyze`` event)
xhigh      the same with 5
=========  ===========================================================================================

``think_mode: harder`` puts a review after that: what came out is a draft (a ``think`` event), the model
criticises it (an ``analyze`` event), and then writes the final answer with both before it.

The pass that writes the final answer streams; a vote's winner is sent in pieces once it is known. A schema
holds the answers to it, not the reasoning. The tokens of all passes are counted.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from xpander_magics.local.engines import Call, Engine, Piece

SAMPLES = {"high": 3, "xhigh": 5}
TEMPERATURE = 0.8
"""Of the samples of a vote, unless the agent says otherwise; at 0 they would all be the same."""

_MOST_ASIDE_TOKENS = 192
_REASON = "Think about this in one or two short sentences. Do not answer it yet."
_REVIEW = "Check this draft in one or two short sentences: what is wrong or missing in it?"


@dataclass
class Tokens:
    """Those of all passes so far."""

    prompt: int = 0
    completion: int = 0
    counted: bool = False

    def add(self, prompt: int, completion: int) -> None:
        """Counts one pass."""
        self.prompt += prompt
        self.completion += completion
        self.counted = True

    def as_json(self) -> dict[str, int] | None:
        """The task's ``tokens``; None where no engine has counted."""
        if not self.counted:
            return None
        total = self.prompt + self.completion
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion, "total_tokens": total}


@dataclass
class Passes:
    """One answer, with all that comes before it.

    Attributes:
        emit: hears each piece that the stream shall show.
        tokens: what was used so far, also of an answer that failed or was stopped.
    """

    engine: Engine
    emit: Callable[[Piece], None]
    tokens: Tokens = field(default_factory=Tokens)

    async def answer(self, call: Call, effort: str | None, think_mode: str | None) -> str:
        """The final answer; its chunks have been emitted.

        Raises:
            EngineError: the engine can't.
        """
        if think_mode != "harder":
            return await self._attempt(call, effort, show=True)
        draft = await self._attempt(call, effort, show=False)
        self.emit(Piece("think", draft))
        drafted = f"Draft: {draft}"
        review = await self._ask(_aside(call, f"{drafted}\n\n{_REVIEW}"), show=None)
        self.emit(Piece("analyze", review))
        return await self._ask(_cool(replace(call, notes=f"{drafted}\n\nReview: {review}")), show="chunk")

    async def _attempt(self, call: Call, effort: str | None, *, show: bool) -> str:
        if effort in SAMPLES:
            return await self._vote(call, SAMPLES[effort], show=show)
        if effort == "medium":
            call = await self._reasoned(call, show=True)
        return await self._ask(_cool(call), show="chunk" if show else None)

    async def _reasoned(self, call: Call, *, show: bool) -> Call:
        """The call with a reasoning before it."""
        reasoning = await self._ask(_aside(call, _REASON), show="think" if show else None)
        if not show:
            self.emit(Piece("think", reasoning))
        return replace(call, notes=f"Notes: {reasoning}")

    async def _vote(self, call: Call, count: int, *, show: bool) -> str:
        warm = replace(call, temperature=TEMPERATURE if call.temperature is None else call.temperature)

        async def sample(number: int) -> str:
            # A seed of the agent's makes the whole repeatable, but not each sample the same.
            own = replace(warm, seed=None if call.seed is None else call.seed + number)
            return await self._ask(await self._reasoned(own, show=False), show=None)

        answers = await _together(sample(number) for number in range(count))
        votes = Counter(map(normalised, answers))
        winner = next(a for a in answers if votes[normalised(a)] == max(votes.values()))
        tally = ", ".join(f"{votes_for} for {answer!r}" for answer, votes_for in votes.most_common())
        self.emit(Piece("analyze", f"{count} answers: {tally}"))
        if show:
            for piece in re.findall(r"\S+\s*|\s+", winner):
                self.emit(Piece("chunk", piece))
        return winner

    async def _ask(self, call: Call, *, show: str | None) -> str:
        """One generation; its text is emitted as ``show`` says."""
        said: list[str] = []
        async with aclosing(self.engine.generate(call)) as pieces:
            async for piece in pieces:
                if piece.type == "chunk":
                    said.append(piece.data)
                    if show:
                        self.emit(Piece(show, piece.data))
                elif piece.type == "tokens":
                    self.tokens.add(piece.data["prompt_tokens"], piece.data["completion_tokens"])
                else:
                    self.emit(piece)
        return "".join(said)


def normalised(answer: str) -> str:
    """The answer as it is compared in a vote."""
    try:
        value = json.loads(answer)
    except ValueError:
        return " ".join(re.sub(r"[^\w\s]", " ", answer).casefold().split())
    return json.dumps(value, sort_keys=True, ensure_ascii=False).casefold()


async def _together(samples: Iterable[Coroutine[Any, Any, str]]) -> list[str]:
    """Runs the samples at once; the first failure, or a stop, ends them all."""
    tasks = [asyncio.create_task(sample) for sample in samples]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _cool(call: Call) -> Call:
    return replace(call, temperature=0.0) if call.temperature is None else call


def _aside(call: Call, ask: str) -> Call:
    """The call for a short text about the prompt. No schema holds it, and no example shows how to answer."""
    short = min(4 * call.max_tokens, _MOST_ASIDE_TOKENS)
    return replace(_cool(call), ask=ask, examples=(), schema=None, prefix="", choices=(), max_tokens=short)
