"""A real kernel: what a notebook file keeps, and what outlives an interrupted or a killed kernel."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from xpander_magics.local.launch import LocalServer
from xpander_magics.results import Run
from xpander_magics.service.client import Client
from xpander_magics.showing.carried import MIME
from xpander_magics.store import Store

LOAD = "%load_ext xpander_magics"


class Kernel:
    """A running kernel, and what its cells put out."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    def run(self, source: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Runs a cell; returns its reply and its outputs' messages."""
        outputs: list[dict[str, Any]] = []
        reply = self.client.execute_interactive(source, timeout=180, output_hook=outputs.append, allow_stdin=False)
        return reply["content"], outputs

    def text(self, source: str) -> str:
        """What a cell printed; it must not fail."""
        reply, outputs = self.run(source)
        assert reply["status"] == "ok", reply
        return "".join(out["content"]["text"] for out in outputs if out["msg_type"] == "stream")


@contextlib.contextmanager
def running_kernel() -> Iterator[Kernel]:
    """A kernel with the extension loaded; it ends at once, and may have been killed before."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        kernel = Kernel(manager, client)
        kernel.text(LOAD)
        yield kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(connected: LocalServer) -> Iterator[Kernel]:
    """A kernel with the extension loaded, that talks to the server."""
    with running_kernel() as running:
        yield running


@pytest.fixture
def store(environment: pytest.MonkeyPatch) -> Iterator[Store]:
    """The store that the kernel writes to."""
    opened = Store(os.environ["XPANDER_STORE"])
    yield opened
    opened.close()


def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    """What is found, as soon as it is."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value


def executed(*cells: str) -> nbformat.NotebookNode:
    """A notebook of these cells, run to its end."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (LOAD, *cells)])
    NotebookClient(notebook, timeout=180, kernel_name="python3").execute()
    return notebook


def test_a_stream_ends_as_one_clean_output(connected: LocalServer) -> None:
    script = "s = {'script': {'result': '# Title\\n\\nsome *text*', 'chunks': 10, 'rate': 50}}"
    notebook = executed(script, "%%xpander echo --payload s -o run\nhello", "run", "%%xpander echo --mode async\nhello")
    outputs = notebook.cells[2].outputs
    assert [out.output_type for out in outputs] == ["display_data"]
    assert set(outputs[0].data) == {"text/plain", "text/html", MIME}
    assert "<h1>Title</h1>" in outputs[0].data["text/html"]
    assert outputs[0].data["text/plain"].startswith("# Title\n\nsome *text*\ncompleted · scripted/echo · ")
    assert [out.output_type for out in notebook.cells[3].outputs] == ["execute_result"]
    assert "<h1>Title</h1>" in notebook.cells[3].outputs[0].data["text/html"]
    assert [out.output_type for out in notebook.cells[4].outputs] == ["display_data"]


@pytest.mark.parametrize(
    ("cell", "name", "value"),
    [
        ("%%xpander ecco\nhello", "NotFoundError", "Did you mean echo?"),
        ("%%xpander echo\n{{ nope }}", "TemplateError", "'nope' is not defined"),
        ("%%xpander echo -m scripted/fail\nhello", "TaskFailed", "The script says: fail."),
        ("%xpander nope", "ConfigError", "There is no command 'nope'"),
        ("import xpander_magics as xp\nxp.run('{{ nope }}', target='echo')", "TemplateError", "'nope'"),
        ("%xpander login", "ConfigError", "Nobody can be asked for the key here"),
    ],
)
def test_an_error_fails_the_notebook_without_a_traceback(
    connected: LocalServer, cell: str, name: str, value: str
) -> None:
    with pytest.raises(CellExecutionError) as caught:
        executed(cell, "print('never')")
    assert caught.value.ename == name
    assert value in caught.value.evalue
    shown = caught.value.traceback
    assert value in shown
    assert "Traceback" not in shown
    assert 'File "' not in shown
    assert "---->" not in shown
    lines = [line for line in shown.partition("\n------------------\n\n")[2].splitlines() if line]
    assert 0 < len([line for line in lines if line != name and not line.startswith("-----")]) <= 5


def test_a_failed_run_is_shown_and_kept_in_the_notebook(connected: LocalServer) -> None:
    cells = [LOAD, "%%xpander echo -m scripted/fail -o run\nhello", "run.status"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=180, kernel_name="python3", allow_errors=True).execute()
    assert [out.output_type for out in notebook.cells[1].outputs] == ["display_data", "error"]
    assert "failed · scripted/fail" in notebook.cells[1].outputs[0].data["text/html"]
    assert len(notebook.cells[1].outputs[1].traceback) == 1
    assert notebook.cells[2].outputs[0].data["text/plain"] == "'failed'"


def test_interrupt(kernel: Kernel, store: Store, connected: LocalServer) -> None:
    kernel.text("s = {'script': {'chunks': ['begun '] + ['x'] * 1000, 'rate': 2}}")
    kernel.client.execute("%%xpander echo --payload s -o run\nhello")
    kept: Run = until(lambda: [run for run in store.select() if run.status == "executing"])[0]
    until(lambda: "begun" in live_text(kernel.client.get_iopub_msg(timeout=60)))
    kernel.manager.interrupt_kernel()
    reply = until(lambda: kernel.client.get_shell_msg(timeout=60))["content"]
    assert (reply["status"], reply["ename"]) == ("error", "Interrupted")
    assert reply["traceback"] == [f"Interrupted: Run {kept.run_id[:8]} was interrupted. Its task was stopped."]
    assert kernel.text("print(run.status, run.run_id, run.result)").split()[:3] == ["stopped", kept.run_id, "begun"]
    with Client(connected.key, connected.base_url) as client:
        assert client.task(str(kept.task_id)).status == "stopped"
    again = store.find(kept.run_id)
    assert (again.status, again.error_type) == ("stopped", "Interrupted")
    assert kernel.text("print(1 + 1)") == "2\n"


def live_text(message: dict[str, Any]) -> str:
    """The text that a message brings to a live view."""
    data = message["content"].get("data", {})
    return str(data["content"].get("text", "")) if data.get("method") == "custom" else ""


def test_a_live_view_costs_little(kernel: Kernel) -> None:
    said = "".join(f"word {i} \U0001f600 " for i in range(400))
    kernel.text(f"s = {{'script': {{'result': {said!r}, 'chunks': 400, 'rate': 200}}}}")
    _, messages = kernel.run("%%xpander echo --payload s -o run\nhello")
    news = [message for message in messages if live_text(message)]
    assert all(live_text(message) in said for message in news)
    seconds = float(kernel.text("print(run.latency_s)"))
    assert 2 <= len(news) <= 20 * seconds
    assert sum(len(live_text(message)) for message in news) <= 2 * len(said)
    kinds = [message["msg_type"] for message in messages if message["msg_type"] in ("clear_output", "display_data")]
    # The view, what stands in for it; then the final rendering, which takes their place.
    assert kinds == ["display_data", "display_data", "clear_output", "display_data"]
    assert (
        kernel.text("import threading; print([t.name for t in threading.enumerate() if 'xpander' in t.name])") == "[]\n"
    )


def test_a_machine_that_runs_a_notebook_keeps_little_of_its_live_views(connected: LocalServer) -> None:
    script = "s = {'script': {'result': 'word ' * 2000, 'chunks': 10, 'rate': 20}}"
    cells = ["%%xpander echo --payload s\nhello"] * 3
    notebook = executed(script, *cells)
    for cell in notebook.cells[2:]:
        assert [set(out.data) for out in cell.outputs] == [{"text/plain", "text/html", MIME}]
    # Of the last one its front end; of the others a stub; of none a text.
    assert len(str(notebook.metadata.get("widgets", ""))) < 20_000
    assert "word word" not in str(notebook.metadata)


def test_without_widgets_a_run_is_text(kernel: Kernel) -> None:
    kernel.text("%config XpanderMagics.widgets = False")
    kernel.text("s = {'script': {'chunks': ['one ', 'two '] * 20, 'rate': 50}}")
    _, messages = kernel.run("%%xpander echo --payload s\nhello")
    assert not [message for message in messages if message["msg_type"].startswith("comm")]
    assert "one two" in "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")
    assert [m["msg_type"] for m in messages if m["msg_type"] == "display_data"] == ["display_data"]


def test_a_killed_kernel_loses_nothing(kernel: Kernel, store: Store, environment: pytest.MonkeyPatch) -> None:
    told = kernel.text(
        "%xpander local\nimport xpander_magics.session as s; print(s.default_session().local._process.pid)"
    )
    server = int(told.split()[-1])
    kernel.text("s = {'script': {'delay': 60}}")
    kernel.client.execute("%%xpander echo --payload s -o run --tag kept\nhello")
    # What is written while the first event comes may hold its task and not yet its status.
    kept: Run = until(lambda: [run for run in store.select() if run.task_id and run.status != "planned"])[0]
    os.kill(kernel.manager.provisioner.pid, signal.SIGKILL)  # type: ignore[union-attr]
    assert kept.status in ("pending", "executing")
    assert (kept.prompt, kept.tags) == ("hello", ["kept"])
    assert store.find(kept.run_id).task_id == kept.task_id
    until(lambda: not running(server))


def running(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent doesn't."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_local_in_a_kernel(kernel: Kernel) -> None:
    assert "It has: " in kernel.text("%xpander local")
    assert "(the embedded local server)" in kernel.text("%xpander status")
    kernel.text("%%xpander echo -o run\nhello")
    assert kernel.text("print(run.result)") == "hello\n"
    assert kernel.text("%xpander local stop") == "The local server has ended.\n"


def test_completion_in_a_kernel(kernel: Kernel) -> None:
    kernel.client.complete("%%xpander echo --eff")
    found = kernel.client.get_shell_msg(timeout=60)["content"]
    assert found["matches"] == ["--effort"]
    assert (found["cursor_start"], found["cursor_end"]) == (15, 20)


def test_help_in_a_kernel(kernel: Kernel) -> None:
    reply, _ = kernel.run("%%xpander?")
    assert "usage: %%xpander [TARGET] [options]" in reply["payload"][0]["data"]["text/plain"]
    _, outputs = kernel.run("%xpander help why is a run unknown")
    shown = next(out["content"]["data"] for out in outputs if out["msg_type"] == "execute_result")
    assert shown["text/html"].startswith("<h1>Why is a run <code>unknown</code>?</h1>")
    assert not any(out["msg_type"] == "stream" for out in outputs)


def test_html_of_a_hostile_notebook_holds_no_script(connected: LocalServer, tmp_path: Path) -> None:
    attack = (
        "<script>alert('evil')</script> <img src=x onerror=evil()> [x](javascript:evil()) ![x](https://evil.example/p)"
    )
    cells = [
        LOAD,
        f"s = {{'script': {{'result': {attack!r}, 'think': [{attack!r}], 'fail': {attack!r}}}}}",
        "%%xpander echo --payload s -o run\nhello",
        "run",
        "%xpander runs",
    ]
    cells[2:2] = [cells[2].replace("--payload s", "--payload t")]
    cells.insert(2, "t = {'script': {**s['script'], 'fail': None}}")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, tmp_path / "hostile.ipynb")
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--execute", "--allow-errors", "--no-input"]
    subprocess.run([*command, str(tmp_path / "hostile.ipynb")], check=True, capture_output=True, timeout=600)
    html = (tmp_path / "hostile.html").read_text()
    body = html[html.index("<body") :]
    assert "completed · scripted/echo" in body
    assert "failed · scripted/echo" in body
    for part in ("<script>alert", "<img src=x", 'href="javascript', 'src="https://evil', "<img"):
        assert part not in body
