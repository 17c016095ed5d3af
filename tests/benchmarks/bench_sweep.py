"""What a sweep costs: many calls at once, against the ideal and against bare ``requests`` in threads.

Run it as a script: ``python tests/benchmarks/bench_sweep.py``; ``--help`` tells what can be chosen. It needs
Linux, as it reads the memory of its processes from ``/proc``.

A server, a process of its own on loopback, answers every invoke after half a second. The floor is the same
POSTs by one ``requests.Session`` in as many threads, each answer parsed. Ours is ``xp.sweep`` with an SQLite
store in a file. Each measurement is a process of its own, so that its CPU time and its memory are its own;
floor and ours take turns. The clock starts after the imports and one call, and stops when all have ended. In
``async`` mode a call lasts until the poll that sees its end, so there the ideal is out of reach.

The last case plans 100,000 runs, and is interrupted after ten seconds.

Aims: 400 calls of 0.5 s, 20 at once, take at most 1.03 times the ideal 10 s; 2,000 calls, 200 at once, at most
1.10 times the ideal 5 s. A call costs the client at most twice the CPU time of the floor's. A run that waits
takes less than 5 KB; 100,000 start within 2 s, in less than 600 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import math
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from reporting import Aim, Figure, report

CASES = ((400, 20, 1.03), (2000, 200, 1.10))
AIM_CPU, AIM_ROW_KB, AIM_START_S, AIM_RSS_MB = 2.0, 5.0, 2.0, 600.0
KEY = "benchmark-key-0123456789"
AGENT_ID = "93a1cd50-2af0-452a-99a0-6e1f1b14fb29"
INVOKE = f"/v1/agents/{AGENT_ID}/invoke"
TEMPLATE = "Classify {{ text }}"
EXAMPLES = Path(__file__).parent.parent / "contract/examples"
Figures = dict[str, Any]


def example(name: str) -> Any:
    return json.loads((EXAMPLES / name).read_text(encoding="utf-8"))


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat().replace("+00:00", "Z")


class Service:
    """What the server knows: its lists, its tasks, and what it has counted.

    Args:
        seconds: how long an invoke takes.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.agent = {**example("agents-page.json")["items"][0], "id": AGENT_ID, "name": "writer", "version": 1}
        self.models = {"openai": example("llm-models-openai.json")}
        self.providers = example("llm-providers.json")
        self.usage = example("llm-usage.json")
        self.task = example("agent-sync-completed.json")
        self.tasks: dict[str, tuple[dict[str, Any], float]] = {}
        self.made = self.open_now = self.most_open = 0
        self.reset()

    def reset(self) -> None:
        """Begins to count anew."""
        self.invokes = self.others = 0
        self.first = self.last = 0.0
        self.most_open = self.open_now
        self.cpu = time.process_time()

    def figures(self) -> Figures:
        """What was counted; ``first`` and ``last`` are on the monotonic clock, which all processes share."""
        names = ("invokes", "others", "first", "last", "most_open")
        return {**{name: getattr(self, name) for name in names}, "cpu": time.process_time() - self.cpu}

    def came(self) -> None:
        """An invoke has come."""
        self.invokes += 1
        self.first = self.first or time.monotonic()

    def begin(self, request: dict[str, Any]) -> dict[str, Any]:
        """A new task, ``pending`` as yet."""
        self.made += 1
        task = {
            **self.task,
            "id": f"00000000-0000-4000-8000-{self.made:012d}",
            "agent_id": AGENT_ID,
            "input": request.get("input"),
            "payload_extension": request.get("payload_extension"),
            "status": "pending",
            "result": None,
            "created_at": iso(time.time()),
            "finished_at": None,
        }
        self.tasks[task["id"]] = task, time.monotonic() + self.seconds
        return task

    def end(self, task: dict[str, Any]) -> dict[str, Any]:
        """The task when it has ended."""
        return {**task, "status": "completed", "result": self.task["result"], "finished_at": iso(time.time())}

    def look_up(self, path: str, query: dict[str, list[str]]) -> Any:
        """What a GET of a path answers; None where there is nothing."""
        parts = path.split("/")[2:]
        match parts:
            case ["agents"]:
                return self._page([self.agent], query)
            case ["agents", agent_id] if agent_id == AGENT_ID:
                return self.agent
            case ["workflows"]:
                return self._page([], query)
            case ["misc", "llm_providers"]:
                return self.providers
            case ["misc", "llm_providers", provider, "models"]:
                return self.models.get(provider)
            case ["tasks"]:
                # A client that lost an answer looks for its task among the newest.
                newest = [self._now(task_id) for task_id in list(self.tasks)[-200:]]
                return self._page(newest[::-1], query)
            case ["tasks", task_id] if task_id in self.tasks:
                return self._now(task_id)
            case ["tasks", task_id, "llm_usage"] if task_id in self.tasks:
                return {**self.usage, "task_id": task_id}
        return None

    def stop(self, task_id: str) -> Any:
        """Ends a task at once; None where there is none."""
        if task_id not in self.tasks:
            return None
        task = self._now(task_id)
        if task["status"] != "completed":
            stopped = {**task, "status": "stopped", "is_manually_stopped": True, "finished_at": iso(time.time())}
            self.tasks[task_id] = stopped, math.inf
        return self._now(task_id)

    def _now(self, task_id: str) -> dict[str, Any]:
        task, due = self.tasks[task_id]
        if task["finished_at"] is None:
            task = self.end(task) if time.monotonic() >= due else {**task, "status": "executing"}
            self.tasks[task_id] = task, due
        return task

    @staticmethod
    def _page(items: list[dict[str, Any]], query: dict[str, list[str]]) -> dict[str, Any]:
        page, size = (int(query.get(name, [default])[0]) for name, default in (("page", "1"), ("per_page", "20")))
        return {
            "items": items[(page - 1) * size : page * size],
            "total": len(items),
            "page": page,
            "per_page": size,
            "total_pages": math.ceil(len(items) / size),
        }


class Connection(asyncio.Protocol):
    """One kept connection, by hand: a framework's server would cost more than the clients that it is to measure."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._service.open_now += 1
        self._service.most_open = max(self._service.most_open, self._service.open_now)

    def connection_lost(self, exc: Exception | None) -> None:
        self._service.open_now -= 1

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            at = head.lower().find(b"\r\ncontent-length:")
            length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._received) < end + 4 + length:
                return
            body = self._received[end + 4 : end + 4 + length]
            self._received = self._received[end + 4 + length :]
            method, url, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            self._answer(method, url, body)

    def _answer(self, method: str, url: str, body: bytes) -> None:
        service, parts = self._service, urlsplit(url)
        path = parts.path
        if path == "/figures":
            self._send(service.figures())
        elif path == "/reset":
            service.reset()
            self._send({})
        elif method == "POST" and path == "/v1/chat/completions":
            service.came()
            self._loop.call_later(service.seconds, self._chatted, json.loads(body).get("model"))
        elif method == "POST" and path.startswith(INVOKE):
            service.came()
            self._invoke(path.removeprefix(INVOKE), json.loads(body))
        else:
            service.others += 1
            stops = method == "POST" and path.startswith("/v1/tasks/") and path.endswith("/stop")
            found = service.stop(path.split("/")[3]) if stops else None
            self._send(found or service.look_up(path, parse_qs(parts.query)))

    def _invoke(self, kind: str, request: dict[str, Any]) -> None:
        service, later = self._service, self._loop.call_later
        task = service.begin(request)
        if kind == "/async":
            service.last = time.monotonic() + service.seconds
            self._send(task)
        elif kind == "/stream":
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                + self._event("task_created", task, task)
            )
            for number, piece in enumerate(("2+2", " equals", " 4"), start=1):
                later(service.seconds * number / 4, self._stream, "chunk", task, piece)
            later(service.seconds, self._stream, "task_finished", task, None)
        else:
            later(service.seconds, self._finish, task)

    def _finish(self, task: dict[str, Any]) -> None:
        self._service.last = time.monotonic()
        self._send(self._service.end(task))

    def _stream(self, kind: str, task: dict[str, Any], data: Any) -> None:
        if self._transport.is_closing():
            return
        if kind == "task_finished":
            self._service.last = time.monotonic()
            self._transport.write(self._event(kind, task, self._service.end(task)) + b"0\r\n\r\n")
        else:
            self._transport.write(self._event(kind, task, data))

    @staticmethod
    def _event(kind: str, task: dict[str, Any], data: Any) -> bytes:
        """One event as a chunk of the answer."""
        event = {"type": kind, "task_id": task["id"], "organization_id": task["organization_id"]}
        text = b"data: %s\n\n" % json.dumps({**event, "time": iso(time.time()), "data": data}).encode()
        return b"%x\r\n%s\r\n" % (len(text), text)

    def _chatted(self, model: Any) -> None:
        service = self._service
        service.last = time.monotonic()
        service.made += 1
        message = {"role": "assistant", "content": service.task["result"]}
        self._send(
            {
                "id": f"chatcmpl-{service.made}",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": model,
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17},
            }
        )

    def _send(self, answer: Any) -> None:
        if self._transport.is_closing():
            return
        status = b"404 Not Found" if answer is None else b"200 OK"
        body = json.dumps({"detail": "Not found"} if answer is None else answer).encode()
        self._transport.write(
            b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
        )


async def serve(seconds: float) -> None:
    """Serves for good; prints the port first."""
    service = Service(seconds)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(service), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def server_process(seconds: float) -> Iterator[str]:
    """The URL of a server that runs meanwhile."""
    command = [sys.executable, __file__, "serve", str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


def ask(url: str, path: str) -> Figures:
    """One of the server's own answers, by a connection that doesn't stay."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.request("GET", path)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert isinstance(answer, dict)
    return answer


def floor(url: str, jobs: int, mode: str, lean: bool) -> Callable[[int], None]:
    """Bare ``requests`` in threads, ready to send so many calls.

    Args:
        lean: without what requests reads of the environment for each request.
    """
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    session.trust_env = not lean
    session.mount("http://", HTTPAdapter(pool_maxsize=jobs))
    headers = {"x-api-key": KEY}

    def call(number: int) -> None:
        body = {
            "input": {"text": f"Classify ticket {number}"},
            "payload_extension": {"xpander_magics_run": f"{number:032x}"},
        }
        address = url + INVOKE
        if mode == "sync":
            task = session.post(address, json=body, headers=headers).json()
        elif mode == "stream":
            with session.post(f"{address}/stream", json=body, headers=headers, stream=True) as response:
                # As the package does it: each piece when it comes; requests' own default waits for 512 bytes.
                lines = response.iter_lines(chunk_size=None)
                events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]
            task = events[-1]["data"]
        else:
            task, pause = session.post(f"{address}/async", json=body, headers=headers).json(), 0.15
            while task["status"] != "completed":
                time.sleep(pause)
                pause *= 1.5
                task = session.get(f"{url}/v1/tasks/{task['id']}", headers=headers).json()
        assert task["status"] == "completed", task

    def send(count: int) -> None:
        with ThreadPoolExecutor(jobs) as threads:
            list(threads.map(call, range(count)))

    return send


def ours(rows: Sequence[dict[str, Any]], jobs: int, mode: str, usage: bool | None) -> Any:
    """One sweep by the package."""
    import xpander_magics as xp

    return xp.sweep(TEMPLATE, target="writer", over=rows, jobs=jobs, mode=mode, usage=usage)


def tickets(count: int) -> list[dict[str, Any]]:
    return [{"text": f"ticket {number}"} for number in range(count)]


def measure(kind: str, url: str, calls: int, jobs: int, mode: str, usage: bool | None) -> Figures:
    """One measurement of floor or ours, in a process of its own: this one."""
    rows = tickets(calls)
    runs: list[Any] = []

    def sweep(count: int) -> None:
        runs[:] = ours(rows[:count], jobs, mode, usage)

    send = sweep if kind == "ours" else floor(url, jobs, mode, lean=kind == "lean")
    send(1)
    ask(url, "/reset")
    began, cpu = time.monotonic(), time.process_time()
    send(calls)
    wall, cpu = time.monotonic() - began, time.process_time() - cpu
    if kind == "ours":
        statuses = {run.status for run in runs}
        assert len(runs) == calls, f"{len(runs)} runs of {calls} calls"
        assert statuses == {"completed"}, statuses
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": wall, "cpu": cpu, "peak_mb": peak}


def plan_many(rows: int, jobs: int, mode: str, usage: bool | None) -> Figures:
    """A sweep of many rows in this process, which somebody will interrupt; tells when it begins."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ours(tickets(1), jobs, mode, usage)
    many, ended = tickets(rows), "returned"
    print("ready", flush=True)
    sys.stdin.readline()  # the memory is read meanwhile
    began = time.monotonic()
    try:
        ours(many, jobs, mode, usage)
    except (KeyboardInterrupt, Exception) as error:
        ended = f"raised {type(error).__name__}"
    left = time.monotonic()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"began": began, "left": left, "ended": ended, "peak_mb": peak}


def child(
    arguments: Sequence[object], url: str, folder: str, python: str | Path = sys.executable
) -> subprocess.Popen[str]:
    """A process of this script, its runs kept in a folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XPANDER_")}
    environment |= {"XPANDER_BASE_URL": url, "XPANDER_API_KEY": KEY, "XPANDER_STORE": f"sqlite:///{folder}/runs.db"}
    command = [python, __file__, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def measured(
    kind: str, url: str, calls: int, jobs: int, mode: str, usage: bool | None, python: str | Path = sys.executable
) -> Figures:
    """One measurement in a new process, with what the server saw of it."""
    with tempfile.TemporaryDirectory() as folder:
        process = child([kind, url, calls, jobs, mode, json.dumps(usage)], url, folder, python)
        told, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"The process of {kind!r} has failed.")
    figures: Figures = json.loads(told)
    seen = ask(url, "/figures")
    assert seen["invokes"] == calls, seen
    return {
        "wall": figures["wall"],
        "cpu": figures["cpu"] / calls,
        "peak_mb": figures["peak_mb"],
        "span": seen["last"] - seen["first"],
        "served": seen["cpu"] / calls,
        "others": seen["others"],
        "most_open": seen["most_open"],
    }


def resident_mb(pid: int) -> float:
    """The memory that a process holds now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def compare(
    kinds: Sequence[str], calls: int, jobs: int, aim: float | None, options: argparse.Namespace
) -> list[Figure]:
    """Measures one case in turns, and prints it unless JSON is wanted."""
    ideal = math.ceil(calls / jobs) * options.seconds
    rounds: dict[str, list[Figures]] = {kind: [] for kind in kinds}
    with server_process(options.seconds) as url:
        for _ in range(options.rounds):
            for kind in kinds:
                rounds[kind].append(measured(kind, url, calls, jobs, options.mode, options.usage))
    figures = figures_of_case(rounds, f"{calls:,} calls, {jobs} at once", aim and ideal * aim)
    if options.json:
        return figures
    print(f"\n{calls} calls of {options.seconds:g} s, {jobs} at once, {options.mode}: ideal {ideal:g} s")
    print("  of each the best and the median; first to last: from the first request to the last answer")
    best_cpu: dict[str, float] = {}
    for kind, told in rounds.items():
        wall, span, cpu, served = ([one[name] for one in told] for name in ("wall", "span", "cpu", "served"))
        best_cpu[kind] = min(cpu)
        print(
            f"  {kind:5} wall {both(wall, 3)} s, {min(wall) / ideal:.4f} of the ideal"
            f"   first to last {both(span, 3)} s   CPU a call {both(cpu, 2, 1e3)} ms"
            f"\n        memory at the most {max(one['peak_mb'] for one in told):.0f} MB"
            f"   other requests {told[-1]['others']}   connections {told[-1]['most_open']}"
            f"   server's CPU a call {both(served, 2, 1e3)} ms"
        )
        if kind == "ours" and aim and options.mode != "async":
            print(f"        wall over the ideal {min(wall) / ideal:.4f} (aim: at most {aim:g})")
    ratio = best_cpu["ours"] / best_cpu["floor"]
    print(f"        CPU a call over the floor's {ratio:.2f} (aim: at most {AIM_CPU:g})")
    return figures


def figures_of_case(rounds: dict[str, list[Figures]], name: str, most: float | None) -> list[Figure]:
    """A case's wall and CPU time, beside those of bare requests."""
    wall, cpu = ([[one[what] for one in rounds[kind]] for kind in ("ours", "floor")] for what in ("wall", "cpu"))
    milliseconds = ([one * 1e3 for one in values] for values in cpu)
    return [
        Figure(name, *wall, unit="s", aim=Aim("own", most) if most else None),
        Figure(f"{name}: CPU a call", *milliseconds, aim=Aim("ratio", AIM_CPU)),
    ]


def both(values: Sequence[float], digits: int, factor: float = 1.0) -> str:
    """The best and the median."""
    return f"{min(values) * factor:.{digits}f} / {statistics.median(values) * factor:.{digits}f}"


def many_rows(options: argparse.Namespace) -> None:
    """Measures the start and the memory of a long plan, and prints them."""
    rows, jobs = options.rows, 20
    print(f"\na plan of {rows} rows, {jobs} at once, {options.mode}, interrupted after {options.after:g} s")
    with server_process(options.seconds) as url, tempfile.TemporaryDirectory() as folder:
        process = child(["rows", rows, jobs, options.mode, json.dumps(options.usage)], url, folder)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise SystemExit("The process of the long plan has failed.")
            ask(url, "/reset")
            before = resident_mb(process.pid)
            process.stdin.write("\n")
            process.stdin.flush()
            began = time.monotonic()
            while not (seen := ask(url, "/figures"))["first"] and time.monotonic() - began < 120:
                time.sleep(0.05)
            planned = resident_mb(process.pid)
            time.sleep(max(0.0, began + options.after - time.monotonic()))
            late = resident_mb(process.pid)
            interrupted = time.monotonic()
            process.send_signal(signal.SIGINT)
            try:
                told = json.loads(process.communicate(timeout=60)[0])
            except subprocess.TimeoutExpired:
                print(f"  first request after {seen['first'] - began:.2f} s; no return within 60 s of the interrupt")
                return
            sent = ask(url, "/figures")["invokes"]
        finally:
            process.kill()
    if not seen["first"]:
        print("  nothing was sent within 120 s")
        return
    print(f"  first request after {seen['first'] - told['began']:.2f} s (aim: within {AIM_START_S:g})")
    print(f"  memory at the most {told['peak_mb']:.0f} MB (aim: under {AIM_RSS_MB:g}); before it began {before:.0f} MB")
    for what, memory in (("when it had sent the first", planned), ("just before the interrupt", late)):
        each = (memory - before) * 1024 / rows
        print(f"  memory of a row that waits, {what}: {each:.2f} KB (aim: under {AIM_ROW_KB:g})")
    print(f"  sent {sent}; the sweep {told['ended']} {told['left'] - interrupted:.2f} s after the interrupt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, help="measure this one case in place of both")
    parser.add_argument("--jobs", type=int, help="calls at once, for --calls (20)")
    parser.add_argument("--mode", choices=("sync", "async", "stream"), default="sync")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long a call takes (0.5)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind (3)")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the long plan; 0 leaves it out (100000)")
    parser.add_argument("--after", type=float, default=10.0, help="seconds until the long plan is interrupted (10)")
    parser.add_argument("--usage", action=argparse.BooleanOptionalAction, help="give xp.sweep usage=True or False")
    parser.add_argument("--lean", action="store_true", help="also a floor whose requests don't read the environment")
    parser.add_argument("--json", action="store_true", help="print JSON of the cases, and leave out the long plan")
    options = parser.parse_args()
    cases: Sequence[tuple[int, int, float | None]] = CASES
    if options.calls is not None:
        chosen = options.calls, options.jobs or 20
        cases = [(*chosen, next((aim for *case, aim in CASES if (*case,) == chosen), None))]
    if options.jobs is not None and options.calls is None:
        parser.error("--jobs goes with --calls")
    kinds = ("floor", *(["lean"] if options.lean else []), "ours")
    figures = [figure for calls, jobs, aim in cases for figure in compare(kinds, calls, jobs, aim, options)]
    if options.json:
        report(figures, as_json=True)
    elif options.rows:
        many_rows(options)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", seconds]:
            asyncio.run(serve(float(seconds)))
        case [("floor" | "lean" | "ours") as kind, url, calls, jobs, mode, usage]:
            print(json.dumps(measure(kind, url, int(calls), int(jobs), mode, json.loads(usage))))
        case ["rows", rows, jobs, mode, usage]:
            print(json.dumps(plan_many(int(rows), int(jobs), mode, json.loads(usage))))
        case _:
            main()
