"""What a live view sends: messages and bytes for 2,000 chunks of 20 characters at 200 a second.

Run it as a script: ``python tests/benchmarks/bench_live.py [--chunks N] [--json]``. A real kernel; every frame that it
publishes from the start of a cell to its end is counted, the final rendering included. Of ``%%xpander``, once as a page
that asks for the text and once as a machine that runs a notebook, which never does. Floors, in the same kernel: a
``display_id`` update a chunk, and ``print`` a chunk, which the kernel gathers. Aim: at most 0.2 MB and 250 messages.
Then the first cell of a new kernel, as live view and as text: what the front end's import adds to a run that ends
at once, and to one of a second. Aim: nothing that can be told from noise. JSON is of the first part, a page's bytes and
messages beside those of an update a chunk.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel
from reporting import Aim, Figure, report

from xpander_magics.local.launch import LocalServer

RATE = 200
CHUNK = "twenty characters.. "
AIM_MB, AIM_MESSAGES = 0.2, 250
PAGE, EACH = "%%xpander, a page asks", "a display update a chunk"

PER_CHUNK = """
import time
from IPython.display import HTML, display
text, start = "", time.perf_counter()
shown = display(HTML(""), display_id=True)
for number in range({chunks}):
    time.sleep(max(0, start + number / {rate} - time.perf_counter()))
    {each}
"""
UPDATE = "text += {chunk!r}; shown.update(HTML(text))"
PRINT = "print({chunk!r}, end='')"


@contextlib.contextmanager
def running_kernel() -> Iterator[BlockingKernelClient]:
    """A kernel with the extension loaded."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        client.execute_interactive("%load_ext xpander_magics")
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def published(client: BlockingKernelClient, cell: str, *, asks: bool = False) -> tuple[int, int, float]:
    """Runs a cell; returns how many messages it published, their bytes, and the seconds it took.

    Args:
        asks: whether a live view is asked for its text, as a page does that shows it.
    """
    session = client.session
    iopub = zmq.Context.instance().socket(zmq.SUB)
    iopub.subscribe(b"")
    iopub.connect(client._make_url("iopub"))
    time.sleep(0.5)  # a subscription takes a moment
    asked = None
    if asks:
        client.control_channel.send(session.msg("create_subshell_request", {}))
        asked = client.get_control_msg(timeout=10)["content"]["subshell_id"]
        while iopub.poll(300):
            iopub.recv_multipart()
    start = time.perf_counter()
    cell_id = client.execute(cell)
    count = size = 0
    while True:
        frames = iopub.recv_multipart()
        message: dict[str, Any] = session.deserialize(session.feed_identities(frames)[1])
        count, size = count + 1, size + sum(map(len, frames))
        content = message["content"]
        if asked and message["msg_type"] == "comm_msg" and content["data"]["method"] == "custom":
            body = {"comm_id": content["comm_id"], "data": {"method": "custom", "content": {"kind": "ready"}}}
            request = session.msg("comm_msg", body)
            request["header"]["subshell_id"] = asked
            client.shell_channel.send(request)
            asked = None
        ours = message["parent_header"].get("msg_id") == cell_id
        if ours and message["msg_type"] == "status" and content["execution_state"] == "idle":
            break
        assert message["msg_type"] != "error", content
    took = time.perf_counter() - start
    iopub.close()
    while client.get_shell_msg(timeout=20)["parent_header"].get("msg_id") != cell_id:
        pass
    return count, size, took


def first_cells(rounds: int, setting: bool, script: str) -> list[float]:
    """Seconds that the first ``%%xpander`` cell of a new kernel takes."""
    took = []
    for _ in range(rounds):
        with running_kernel() as client:
            client.execute_interactive(f"%config XpanderMagics.widgets = {setting}\n{script}")
            start = time.perf_counter()
            client.execute_interactive("%%xpander echo --payload s\nhello", output_hook=lambda _: None)
            took.append(time.perf_counter() - start)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=2000)
    parser.add_argument("--json", action="store_true", help="print JSON in place of the tables")
    options = parser.parse_args()
    chunks = options.chunks
    with LocalServer.start() as server, tempfile.TemporaryDirectory() as folder:
        os.environ |= {"XPANDER_BASE_URL": server.base_url, "XPANDER_API_KEY": server.key, "IPYTHONDIR": folder}
        os.environ["XPANDER_STORE"] = f"sqlite:///{Path(folder) / 'runs.db'}"
        script = f"s = {{'script': {{'chunks': [{CHUNK!r}] * {chunks}, 'rate': {RATE}}}}}"
        cell = "%%xpander echo --payload s\nhello"
        floors = {
            name: PER_CHUNK.format(chunks=chunks, rate=RATE, each=each.format(chunk=CHUNK))
            for name, each in ((EACH, UPDATE), ("print a chunk", PRINT))
        }
        with running_kernel() as client:
            client.execute_interactive(script)
            figures = {
                PAGE: published(client, cell, asks=True),
                "%%xpander, nobody asks": published(client, cell),
                **{name: published(client, floor) for name, floor in floors.items()},
            }
        if options.json:
            (asks, floor), part = (figures[name] for name in (PAGE, EACH)), f"a live view of {chunks:,} chunks"
            (count, size, _), (floors_count, floors_size, _) = asks, floor
            in_all = Figure(f"{part}: bytes", [size / 1e6], [floors_size / 1e6], unit="MB", aim=Aim("own", AIM_MB))
            messages = Figure(
                f"{part}: messages", [count], [floors_count], unit="messages", aim=Aim("own", AIM_MESSAGES)
            )
            report([in_all, messages], as_json=True)
            return
        print(
            f"{chunks} chunks of {len(CHUNK)} characters at {RATE} a second: {chunks * len(CHUNK) / 1e6:.2f} MB of text"
        )
        for name, (count, size, took) in figures.items():
            good = count <= AIM_MESSAGES and size <= AIM_MB * 1e6
            told = f"aim {AIM_MB} MB, {AIM_MESSAGES}: {'met' if good else 'missed'}" if name == PAGE else ""
            print(f"{name:25} {size / 1e6:7.3f} MB {count:6} messages {took:6.1f} s   {told}")
        rounds = 7
        for what, text in (("at once", "s = {}"), ("in a second", "s = {'script': {'chunks': 10, 'rate': 10}}")):
            live, plain = (first_cells(rounds, setting, text) for setting in (True, False))
            print(
                f"first cell, ends {what:12} live {statistics.median(live):.3f} s (best {min(live):.3f})   "
                f"text {statistics.median(plain):.3f} s (best {min(plain):.3f})"
            )


if __name__ == "__main__":
    main()
