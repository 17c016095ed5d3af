"""What one call costs over a bare ``requests.Session.post``, the run store included.

Run it as a script: ``python tests/benchmarks/bench_call.py [--calls N] [--json]``. Both ask the same server, a process
of its own on loopback, in turns. Ours is ``Engine.run`` in ``sync`` mode with an SQLite store in a file and
without the usage request: the run is kept before it is sent and when it has ended. The floor is the same POST
with its answer's JSON. Aim: at most 3 ms more than the floor, by the medians.
"""

from __future__ import annotations

import argparse
import socketserver
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests
from reporting import Aim, Figure, report

from xpander_magics.plans.plan import Plan
from xpander_magics.results import Run
from xpander_magics.safety import Redactor, secret_variables
from xpander_magics.sending.engine import Engine
from xpander_magics.service.client import Client
from xpander_magics.service.targets import Target
from xpander_magics.store import Store

AIM = Aim("more", 3.0)
KEY = "benchmark-key-0123456789"
TARGET = Target("agent", "93a1cd50-2af0-452a-99a0-6e1f1b14fb29", "writer")
PROMPT = "Classify this support ticket as bug, billing or praise: the agent reads a ticket and answers."
EXAMPLE = Path(__file__).parent.parent / "contract/examples/task-with-snapshot.json"
BODY = EXAMPLE.read_bytes()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Handler(socketserver.StreamRequestHandler):
    """Answers every request of a connection with the contract's example of a task."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        while True:
            length = 0
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            if not line:
                return
            self.rfile.read(length)
            self.wfile.write(ANSWER)


def serve() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


def measure(url: str, folder: str, calls: int) -> tuple[list[float], list[float]]:
    """The seconds of each call of the floor's, and of ours."""
    client, store = Client(KEY, url), Store(f"sqlite:///{folder}/runs.db")
    engine, session = Engine(client, store), requests.Session()
    redact = Redactor([KEY, *secret_variables().values()])
    body = client.prepare(TARGET, PROMPT).body
    headers = {"x-api-key": KEY}

    def plan() -> Plan:
        run = Run(target_kind=TARGET.kind, target_id=TARGET.id, target=TARGET.name, mode="sync", prompt=PROMPT)
        call = client.prepare(TARGET, PROMPT, mark=run.run_id)
        run.request = call.body
        return Plan(run, call, "sync", timeout=60, usage=False, on_interrupt="stop", redact=redact)

    floor: list[float] = []
    ours: list[float] = []
    for number in range(calls + 20):
        made = plan()
        began = time.perf_counter()
        session.post(f"{url}{TARGET.path}/invoke", json=body, headers=headers).json()
        middle = time.perf_counter()
        engine.run(made)
        ended = time.perf_counter()
        if number >= 20:  # imports, connections and the store's first use come before
            floor.append(middle - began)
            ours.append(ended - middle)
    assert made.run.status == "completed"
    store.close()
    return floor, ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            floor, ours = measure(f"http://127.0.0.1:{server.stdout.readline().strip()}", folder, options.calls)
        finally:
            server.kill()
    milliseconds = ([one * 1e3 for one in times] for times in (ours, floor))
    report([Figure("one call", *milliseconds, aim=AIM)], options.json)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        main()
