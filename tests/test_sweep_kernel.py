"""Sweeps in real kernels and terminals: interrupted, killed and gone on with; what a notebook file keeps of them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from fault_server import reply
from test_kernel import LOAD, Kernel, executed, running_kernel, until
from test_sweep import INVOKE, Watched
from test_terminal import Terminal, running_terminal, without_codes

from xpander_magics.local.launch import LocalServer
from xpander_magics.service.calls import MARK
from xpander_magics.service.client import Client
from xpander_magics.showing.carried import MIME
from xpander_magics.store import Store
from xpander_magics.widgets.front import VIEW

ROWS = "rows = [{'n': n, 'p': {'script': {'delay': 0 if n < 2 else 60}}} for n in range(10)]"
SWEEP = "%%xpander echo --over rows --payload p -o runs"


@pytest.fixture
def kernel(connected: LocalServer) -> Iterator[Kernel]:
    """A kernel that talks to the local server."""
    with running_kernel() as started:
        yield started


@pytest.fixture
def store(environment: pytest.MonkeyPatch) -> Iterator[Store]:
    """The store that the kernels write to."""
    opened = Store(os.environ["XPANDER_STORE"])
    yield opened
    opened.close()


@pytest.fixture
def watched(environment: pytest.MonkeyPatch) -> Iterator[Watched]:
    """A service that breaks as it is told; the kernels talk to it."""
    with Watched() as service:
        environment.setenv("XPANDER_BASE_URL", service.url)
        environment.setenv("XPANDER_API_KEY", service.key)
        yield service
        service.held.set()


def begin(kernel: Kernel, source: str) -> None:
    """Runs a cell without waiting for it."""
    kernel.client.execute(source)


def ended(kernel: Kernel) -> dict[str, Any]:
    """The reply of the cell that runs."""
    return until(lambda: kernel.client.get_shell_msg(timeout=60))["content"]


def statuses(kernel: Kernel, name: str = "runs") -> Counter[str]:
    """How many of the runs that a kernel holds have each status."""
    return Counter(kernel.text(f"print(*[run.status for run in {name}])").split())


def under_way(store: Store) -> int:
    return sum(run.status == "executing" for run in store.select())


def marks(server: LocalServer) -> Counter[Any]:
    """How many tasks the server has of each run in the store."""
    with Client(server.key, server.base_url) as client:
        tasks = [client.task(task.id).raw for task in client.tasks(limit=60)]
    return Counter((task.get("payload_extension") or {}).get(MARK) for task in tasks)


def started_once(server: LocalServer, store: Store) -> bool:
    """Whether each kept run has one task at the server."""
    counts = marks(server)
    return [counts[run.run_id] for run in store.select()] == [1] * len(store.select())


# ---- interrupted


@pytest.mark.parametrize("mode", ["stream", "sync", "async"])
def test_an_interrupt_stops_the_tasks_and_keeps_the_finished_rows(
    kernel: Kernel, store: Store, connected: LocalServer, mode: str
) -> None:
    kernel.text(ROWS)
    begin(kernel, f"{SWEEP} --mode {mode}\n{{{{ n }}}}")
    with Client(connected.key, connected.base_url) as client:
        until(lambda: sum(run.status == "completed" for run in store.select()) == 2)
        until(lambda: len(client.tasks(status="executing", limit=50)) == 8)
        kernel.manager.interrupt_kernel()
        assert ended(kernel)["status"] == "ok"
        assert statuses(kernel) == {"completed": 2, "stopped": 8}
        assert client.tasks(status="executing", limit=50) == []
    assert kernel.text("print([run.result for run in runs][:2])") == "['0', '1']\n"
    assert Counter(run.status for run in store.select()) == {"completed": 2, "stopped": 8}
    assert started_once(connected, store)


@pytest.mark.parametrize("mode", ["stream", "sync"])
def test_detached_tasks_run_on_and_are_collected(
    kernel: Kernel, store: Store, connected: LocalServer, mode: str
) -> None:
    kernel.text(ROWS.replace("60", "5"))
    begin(kernel, f"{SWEEP} --on-interrupt detach --mode {mode}\n{{{{ n }}}}")
    with Client(connected.key, connected.base_url) as client:
        until(lambda: sum(run.status == "completed" for run in store.select()) == 2)
        until(lambda: len(client.tasks(status="executing", limit=50)) == 8)
        kernel.manager.interrupt_kernel()
        assert ended(kernel)["status"] == "ok"
        assert statuses(kernel)["completed"] == 2
        left = [run.task_id or "" for run in store.select() if run.status != "completed"]
        assert len(left) == 8
        assert "stopped" not in {client.task(task_id).status for task_id in left if task_id}
    assert "Going on with sweep" in kernel.text("%xpander resume -o rest")
    assert statuses(kernel, "rest") == {"completed": 10}
    assert Counter(run.status for run in store.select()) == {"completed": 10}
    assert started_once(connected, store)


def test_two_interrupts_in_quick_succession(kernel: Kernel, store: Store) -> None:
    kernel.text(ROWS)
    begin(kernel, f"{SWEEP}\n{{{{ n }}}}")
    until(lambda: under_way(store) == 8)
    kernel.manager.interrupt_kernel()
    kernel.manager.interrupt_kernel()
    ended(kernel)
    assert kernel.text("print(1 + 1)") == "2\n"
    assert sum(statuses(kernel).values()) == 10
    kernel.text("%xpander stop all")
    assert under_way(store) == 0


@pytest.mark.parametrize("line", ["-n 5 --rpm 1", "-n 5 -m openai/gpt-5,openai/gpt-5-mini"], ids=["rpm", "retry after"])
def test_an_interrupt_while_all_wait(watched: Watched, store: Store, line: str) -> None:
    held = "rpm" not in line
    watched.on(INVOKE, *[reply(429, {"detail": "Too many"}, {"Retry-After": "50"})] * 50 * held)
    with running_kernel() as kernel:
        kernel.text("%xpander agents")
        begin(kernel, f"%%xpander writer {line} -o runs\nhello")
        until(lambda: len(watched.invokes()) >= 1)
        until(store.select)
        kernel.manager.interrupt_kernel()
        assert ended(kernel)["status"] == "ok"
        found = statuses(kernel)
        assert found["planned"] >= 4
        assert not watched.requests("POST */stop")
        before = len(watched.invokes())
        assert kernel.text("print(1 + 1)") == "2\n"
        assert len(watched.invokes()) == before


# ---- killed


@pytest.mark.parametrize("mode", ["stream", "async"])
def test_a_new_kernel_ends_the_sweep_of_a_killed_one(connected: LocalServer, store: Store, mode: str) -> None:
    rows = "rows = [{'n': n, 'p': {'script': {'delay': 0 if n < 4 else 2}}} for n in range(16)]"
    with running_kernel() as kernel:
        kernel.text(rows)
        begin(kernel, f"{SWEEP} -j 5 --mode {mode}\n{{{{ n }}}}")
        until(lambda: under_way(store) == 5)
        os.kill(kernel.manager.provisioner.pid, signal.SIGKILL)  # type: ignore[union-attr]
    with running_kernel() as fresh:
        fresh.text("%xpander resume -o r")
        assert fresh.text("print(len(r), *r.df['status'].unique())") == "16 completed\n"
        assert fresh.text("print(*[run.result for run in r])").split() == [str(n) for n in range(16)]
    assert len(store.select()) == 16
    assert started_once(connected, store)


# ---- what a notebook keeps


def test_a_notebook_keeps_one_progress_line_and_the_table(connected: LocalServer) -> None:
    rows = "rows = [{'n': n, 'p': {'script': {'delay': 0.3 * n}}} for n in range(5)]"
    notebook = executed(rows, f"{SWEEP}\n{{{{ n }}}}", "runs", "%%xpander echo -m scripted/echo,scripted/fail\nx")
    progress, board, table = notebook.cells[2].outputs
    assert {output.output_type for output in notebook.cells[2].outputs} == {"display_data"}
    assert set(board.data) == {VIEW, "text/plain"}
    assert re.fullmatch(r"5 runs in \d:\d\d: 5 completed.*", progress.data["text/plain"])
    assert "<progress" not in progress.data["text/html"]
    assert set(table.data) == {"text/plain", "text/html", MIME}
    assert table.data["text/html"].count("<tr>") == 6
    assert '<th>n</th><th style="text-align:left">p</th>' in table.data["text/html"]
    assert notebook.cells[3].outputs[0].data["text/html"] in table.data["text/html"]
    assert [output.output_type for output in notebook.cells[4].outputs] == [*["display_data"] * 3, "stream"]
    assert "1 failed; the first: " in notebook.cells[4].outputs[3].text


def test_without_widgets_or_with_a_view_a_sweep_is_a_table(connected: LocalServer) -> None:
    sweep = "%%xpander echo -n 2"
    notebook = executed(f"{sweep} --view table\nx", "%config XpanderMagics.widgets = False", f"{sweep}\nx")
    for cell in (notebook.cells[1], notebook.cells[3]):
        texts = {"text/plain", "text/html"}
        assert [set(output.data) for output in cell.outputs] == [texts, {*texts, MIME}]


def test_the_page_of_a_hostile_sweep_holds_no_script(connected: LocalServer, tmp_path: Path) -> None:
    attack = "<script>alert('evil')</script> <img src=x onerror=evil()> [x](javascript:evil()) </td></table>"
    cells = [
        LOAD,
        f"rows = [{{{attack!r}: {attack!r}, 'p': {{'script': {{'result': {attack!r}, 'fail': fail}}}}}} "
        f"for fail in ({attack!r}, None)]",
        f"{SWEEP}\nhello",
        "runs",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, tmp_path / "hostile.ipynb")
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--execute", "--no-input"]
    subprocess.run([*command, str(tmp_path / "hostile.ipynb")], check=True, capture_output=True, timeout=120)
    html = (tmp_path / "hostile.html").read_text()
    body = html[html.index("<body") :]
    assert "1 completed, 1 failed" in body
    assert body.count("xpander-progress") == 1
    assert "<progress" not in body
    for part in ("<script>alert", "<img src=x", 'href="javascript', "<img"):
        assert part not in body


def test_a_notebook_run_by_papermill(connected: LocalServer, tmp_path: Path) -> None:
    import papermill

    cells = [LOAD, "word = 'one'", "%%xpander echo -n 3 -o runs\n{{ word }}", "runs.raise_for_failures()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.cells[1].metadata.tags = ["parameters"]
    nbformat.write(notebook, tmp_path / "in.ipynb")
    papermill.execute_notebook(
        tmp_path / "in.ipynb", tmp_path / "out.ipynb", {"word": "another"}, progress_bar=False, log_output=False
    )
    done = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    (outputs,) = [cell.outputs for cell in done.cells if cell.source.startswith("%%xpander")]
    assert [output.output_type for output in outputs] == ["display_data"] * 3
    assert "3 completed" in outputs[0].data["text/plain"]
    assert re.search(r"^0–2  another  3×     completed  another ", outputs[2].data["text/plain"], re.MULTILINE)


# ---- a terminal


@pytest.fixture
def terminal(connected: LocalServer) -> Iterator[Terminal]:
    with running_terminal() as started:
        yield started


def test_the_bar_in_a_terminal_overwrites_itself_and_ends_as_one_line(terminal: Terminal) -> None:
    terminal.run("rows = [{'n': n, 'p': {'script': {'delay': 0.4 * n}}} for n in range(5)]")
    terminal.type(f"{SWEEP} -j 1", "{{ n }}")
    terminal.child.expect("5 runs: 5 completed")
    raw = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", terminal.child.before)
    bar = raw[raw.index("0 of 5") :]
    assert len(re.findall(r"\r\d of 5 \(\d+%\)", bar)) >= 3
    last = bar[: bar.index("\n")]
    assert last.count("\n") == 0
    assert re.fullmatch(r"5 runs in \d:\d\d: 5 completed.*", last.rstrip("\r").rpartition("\r")[2].strip())
    assert without_codes(bar).splitlines()[1].split() == ["#", "n", "p", "status", "result", "seconds", "tokens"]


def test_an_interrupt_of_a_sweep_in_a_terminal(terminal: Terminal) -> None:
    terminal.run(ROWS)
    terminal.type(SWEEP, "{{ n }}")
    terminal.child.expect("2 of 10")
    terminal.child.sendintr()
    # On a busy machine some of them had not been sent yet.
    terminal.child.expect(r"10 runs in \d:\d\d: 2 completed, (\d) (stopped|not sent)")
    terminal.prompt()
    assert "10" in terminal.run("len(runs.completed) + len(runs.failed) + (runs.df['status'] == 'planned').sum()")
    assert "2" in terminal.run("len(runs.completed)")
