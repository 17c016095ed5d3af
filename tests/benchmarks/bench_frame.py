"""How fast a frame of 100,000 stored runs is, and how much memory making it takes.

Run it as a script: ``python tests/benchmarks/bench_frame.py [--runs N] [--rounds N] [--database FILE] [--json]``. The
floor, in turns with it over the same rows, is ``pandas.read_sql_query("SELECT * FROM runs")``, which parses no JSON and
knows no dtypes. Of memory, the floor is the frame's own; its figure comes from a process of its own. Aims: at most
1.5 × the floor's time, and at most 2 × the frame's own memory at the peak.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import tempfile
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from reporting import Aim, Figure, in_turns, report

from xpander_magics.results import Run
from xpander_magics.store import Store

TIME_AIM, MEMORY_AIM = Aim("ratio", 1.5), Aim("ratio", 2.0)
WORDS = "the agent reads a ticket and says whether it is praise or a bug; see naïve café notes"
MODELS = (("openai", "gpt-5"), ("openai", "gpt-5-mini"), ("anthropic", "claude-sonnet-4-6"))
TEMPLATE = "Classify this support ticket as bug, billing or praise, and answer with one word only: {{ text }}"


def text_of(chance: random.Random, length: int) -> str:
    """Words up to about this length."""
    words = chance.choices(WORDS.split(), k=length // 5)
    return " ".join(words)[:length]


def realistic_run(number: int, chance: random.Random) -> Run:
    """A finished run of a sweep as the service would have it."""
    provider, model = chance.choice(MODELS)
    effort = chance.choice(["low", "high"])
    start = datetime(2026, 3, 1, tzinfo=timezone.utc) + timedelta(seconds=number, microseconds=chance.randrange(10**6))
    ticket, answer = text_of(chance, 120), text_of(chance, 400)
    task_id, seconds = f"{chance.getrandbits(128):032x}", chance.random() * 9
    prompt_tokens, completion_tokens = chance.randrange(40, 90), chance.randrange(80, 200)
    metadata: dict[str, Any] = {
        "organization_id": "0b9c4f5e-8a53-4a57-9d0c-5d3c2b0f7a11",
        "input": {"text": ticket, "files": [], "user": None},
        "internal_status": "completed",
        "last_executed_node_id": f"node-{chance.randrange(9)}",
        "paused_at": None,
        "parent_execution": None,
        "sub_executions": [],
        "is_manually_stopped": False,
        "payload_extension": {"xpander_magics": f"{number:032x}"},
        "source": "sdk",
        "output_format": "text",
        "events_streaming": True,
        "execution_attempts": 1,
        "duration": seconds,
        "tokens": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
    }
    return Run(
        sweep_id=f"sweep{number // 1000:027d}",
        experiment="tickets",
        task_id=task_id,
        thread_id=task_id,
        created_at=start,
        started_at=start + timedelta(milliseconds=300),
        finished_at=start + timedelta(seconds=seconds),
        target_kind="agent",
        status="completed" if number % 50 else "failed",
        target_id="3f0c8f52-7f0f-4f3b-9a8e-2f6d1f0f9b11",
        target="writer",
        agent_version="7",
        provider=provider,
        model=model,
        effort=effort,
        think_mode="default",
        requested_provider=provider,
        requested_model=model,
        requested_effort=effort,
        mode="stream",
        prompt=TEMPLATE.replace("{{ text }}", ticket),
        template=TEMPLATE,
        result=answer,
        error=None if number % 50 else "The tool timed out",
        error_type=None if number % 50 else "TaskFailed",
        output={"label": chance.choice(["bug", "billing", "praise"])} if number % 3 == 0 else None,
        variables={"text": ticket, "label": "bug", "row": number},
        tags=["nightly", "v2"],
        tools_used=["search"] if number % 4 == 0 else [],
        metadata=metadata,
        repeat=number % 3,
        attempts=1,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        actions=number % 5,
        cost_usd=chance.random() / 100,
        is_byok=False,
        latency_s=seconds,
        ttft_s=seconds / 5,
        queue_s=0.3,
        server_s=seconds - 0.3,
        scores={"exact": float(number % 2)},
        request={"input": {"text": TEMPLATE.replace("{{ text }}", ticket)}, "llm_model_name": model},
        version="7",
        base_url="https://api.xpander.ai",
        cache_key=f"{chance.getrandbits(256):064x}",
        sent_at=start,
    )


def fill(path: Path, count: int) -> None:
    """A store with so many runs."""
    chance = random.Random(1)
    store = Store(f"sqlite:///{path}")
    for first in range(0, count, 5000):
        store.add(realistic_run(number, chance) for number in range(first, min(first + 5000, count)))
    store.close()


def floor(path: Path) -> Any:
    """What pandas reads by itself."""
    import pandas as pd
    from sqlalchemy import create_engine

    return pd.read_sql_query("SELECT * FROM runs", create_engine(f"sqlite:///{path}"))


def ours(path: Path) -> Any:
    """What the store makes of it."""
    return Store(f"sqlite:///{path}").frame()


def times(path: Path, rounds: int) -> Figure:
    """Seconds of ours and of the floor, in this process."""
    told = in_turns(rounds, lambda: ours(path), lambda: floor(path), 1.0)
    return Figure("the frame", **told, unit="s", aim=TIME_AIM)


def resident() -> int:
    """Bytes that this process holds now, as the kernel counts them."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmRSS here")


def memory(path: Path) -> Figure:
    """MiB that the process holds more at the peak, beside the frame's own."""
    Store(f"sqlite:///{path}").frame(limit=10)  # what is imported on the way isn't the frame's
    before, peak, done = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    frame = ours(path)
    done.set()
    watcher.join()
    sizes = (max(peak, resident()) - before, int(frame.memory_usage(deep=True).sum()))
    return Figure("memory at the peak", *([size / 2**20] for size in sizes), unit="MiB", aim=MEMORY_AIM)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result from a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--database", type=Path, help="where to leave the runs for others to read")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.database or Path(folder) / "runs.db"
        fill(path, options.runs)
        report([apart(times, path, options.rounds), apart(memory, path)], options.json)


if __name__ == "__main__":
    main()
