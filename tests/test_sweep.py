"""Sweeps as cells and as calls: their rows, their order and limits at the server, what fails, what is tried again."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fault_server import Action as Answer
from fault_server import FaultServer, Request, drop, hang, reply
from IPython.core.interactiveshell import InteractiveShell
from notebook_shell import Notebook

import xpander_magics as xp
from xpander_magics.errors import AuthError, ConfigError, NotFoundError, StoreError, TaskFailed, TemplateError
from xpander_magics.outcomes import Runs
from xpander_magics.service.calls import MARK
from xpander_magics.service.client import Client
from xpander_magics.session import default_session

GPT, MINI, SONNET = "openai/gpt-5", "openai/gpt-5-mini", "anthropic/claude-sonnet-4-6"
SEVERAL = f"{GPT},{MINI}"
INVOKE = "POST */invoke*"


class Watched(FaultServer):
    """A service that counts what is open at once, and answers as slowly as it is told.

    Attributes:
        slow: seconds that the answer to an invoke request takes.
        spans: of each invoke request that was answered: when it came, when the answer had been sent, and itself.
        seen: how many invoke requests were open as each came.
        most: how many requests of any kind were open at once.
        held: what else holds the answers back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slow = 0.0
        self.spans: list[tuple[float, float, Request]] = []
        self.seen: list[int] = []
        self.most = 0
        self.held = threading.Event()
        self.held.set()
        self._counting = threading.Lock()
        self._now = self._invokes = 0

    def _action(self, request: Request) -> Answer:
        usual, invoke = super()._action(request), "invoke" in request.path

        def act(server: FaultServer, connection: socket.socket, request: Request) -> bool:
            with self._counting:
                self._now += 1
                self._invokes += invoke
                self.most = max(self.most, self._now)
                if invoke:
                    self.seen.append(self._invokes)
            began = time.monotonic()
            try:
                if invoke:
                    self.rest(self.slow)
                    self.held.wait(20)
                return usual(server, connection, request)
            finally:
                with self._counting:
                    self._now -= 1
                    self._invokes -= invoke
                    if invoke:
                        self.spans.append((began, time.monotonic(), request))

        return act

    def invokes(self) -> list[Request]:
        """The requests that may have started a task."""
        return self.requests(INVOKE)

    def sent(self) -> list[tuple[str, str | None]]:
        """The prompt and the model of each of them."""
        return [(r.json["input"]["text"], r.json.get("llm_model_name")) for r in self.invokes()]

    def open_from(self, begin: int) -> int:
        """How many invoke requests were open at once, from the n-th on."""
        return max(self.seen[begin:], default=0)


class Faulty(Notebook):
    """A notebook that talks to a service that breaks as it is told."""

    def __init__(self, shell: InteractiveShell, client: Client, service: Watched) -> None:
        super().__init__(shell, client)
        self.service = service


@pytest.fixture
def faulty(environment: pytest.MonkeyPatch, shell: InteractiveShell) -> Iterator[Faulty]:
    with Watched() as service:
        environment.setenv("XPANDER_BASE_URL", service.url)
        environment.setenv("XPANDER_API_KEY", service.key)
        with Client(service.key, service.url) as client:
            yield Faulty(shell, client, service)
        service.held.set()


def swept(notebook: Notebook, line: str, body: str = "hello") -> Runs:
    """Runs a cell that makes a sweep; returns what it has bound."""
    notebook.run(f"%%xpander {line} -o results\n{body}")
    runs = notebook.ns["results"]
    assert isinstance(runs, Runs)
    return runs


def work_on(server: FaultServer, connection: socket.socket, request: Request) -> bool:
    """Starts a task that goes on until it is stopped, and never answers."""
    server.service.start(request)["left"] = [{"status": "executing"}] * 1000
    return hang()(server, connection, request)


def interrupt(*, answered: bool) -> Answer:
    """Starts a task that goes on until it is stopped, and interrupts this process.

    Args:
        answered: whether the client hears of the task, and is interrupted as it asks for it; else it is
            interrupted at once, and the connection closed a little later.
    """

    def now(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return reply()(server, connection, request)

    def act(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        task = server.service.start(request)
        task["left"] = [{"status": "executing"}] * 1000
        if answered:
            server.on(f"GET */tasks/{task['id']}", now)
            return reply(body=server.service.shown(task))(server, connection, request)
        os.kill(os.getpid(), signal.SIGINT)
        server.rest(0.6)
        return False

    return act


def end_all(service: Watched) -> None:
    """Lets all tasks end when they are asked for the next time."""
    for task in service.service.tasks.values():
        task["left"] = []


def states(runs: Runs) -> list[str]:
    return [run.status for run in runs]


# ---- rows


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ("-m scripted/echo,scripted/think", ["one echo None None 1", "one think None None 1"]),
        ("-m scripted/think -m scripted/echo", ["one think None None 1", "one echo None None 1"]),
        ("-m scripted/echo,scripted/echo -n 2", ["one echo None None 1", "one echo None None 2"]),
        ("-e low,high", ["one None low None 1", "one None high None 1"]),
        ("--think default,harder", ["one None None default 1", "one None None harder 1"]),
        ("-n 3", ["one None None None 1", "one None None None 2", "one None None None 3"]),
        ("--over rows", ["one None None None 1", "two None None None 1"]),
        ("--over listed", ["one None None None 1", "two None None None 1"]),
        ("--over lists", ["one None None None 1", "two None None None 1"]),
        (
            "-m scripted/echo,scripted/think -e low,high -n 2 --over rows",
            [
                f"{word} {model} {effort} None {repeat}"
                for word in ("one", "two")
                for model in ("echo", "think")
                for effort in ("low", "high")
                for repeat in (1, 2)
            ],
        ),
    ],
)
def test_a_sweep_has_a_row_for_each_combination(notebook: Notebook, line: str, rows: list[str]) -> None:
    words = ["one", "two"]
    notebook.ns.update(
        word="one", rows=pd.DataFrame({"word": words}), listed=[{"word": w} for w in words], lists={"word": words}
    )
    runs = swept(notebook, f"echo {line}", "{{ word }}")
    asked = [(r.prompt, r.requested_model, r.requested_effort, r.request.get("think_mode"), r.repeat) for r in runs]
    assert [" ".join(map(str, row)) for row in asked] == rows
    assert runs.df["status"].tolist() == ["completed"] * len(rows)
    assert runs.df["result"].tolist() == [row.split()[0] for row in rows]
    assert set(runs.df["sweep_id"]) == {runs.sweep_id}
    assert len({run.task_id for run in runs}) == len(rows)
    kept = notebook.run("%xpander runs")
    assert sorted(kept["run_id"]) == sorted(runs.df["run_id"])
    assert list(kept.columns) == list(runs.df.columns)


def test_a_row_brings_options_of_its_own(notebook: Notebook) -> None:
    notebook.ns["rows"] = [{"said": {"script": {"result": name}}, "name": name} for name in ("x", "y")]
    runs = swept(notebook, "echo --over rows --payload said --title 'about {{ name }}' -n 2")
    assert [(run.result, run.title) for run in runs] == [(n, f"about {n}") for n in ("x", "x", "y", "y")]


def test_defaults_hold_in_sweeps_and_may_make_one(notebook: Notebook) -> None:
    notebook.run("%xpander use echo -m scripted/echo,scripted/think -e low --tag t --experiment x")
    runs = swept(notebook, "-n 2")
    assert [(r.requested_model, r.requested_effort, r.repeat) for r in runs] == [
        ("echo", "low", 1),
        ("echo", "low", 2),
        ("think", "low", 1),
        ("think", "low", 2),
    ]
    assert {(run.experiment, *run.tags) for run in runs} == {("x", "t")}
    assert len(swept(notebook, "")) == 2
    assert len(xp.sweep("hello", efforts=["low", "high"])) == 4
    assert notebook.ask("-m scripted/echo").requested_model == "echo"


def test_a_sweep_of_one_row_is_a_sweep(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.ns["rows"] = [{"word": "one"}]
    runs = swept(notebook, "echo --over rows", "{{ word }}")
    assert states(runs) == ["completed"]
    shown = capsys.readouterr().out
    assert re.search(r"^1 run in 0:0\d: 1 completed", shown, re.MULTILINE)
    assert f"1 run: 1 completed · sweep {runs.sweep_id[:8]}" in shown


def test_sweeps_one_after_the_other_are_apart(notebook: Notebook) -> None:
    first, second = swept(notebook, "echo -n 2", "one"), swept(notebook, "echo -n 3", "two")
    assert first.sweep_id != second.sweep_id
    assert [(len(runs), *{run.result for run in runs}) for runs in (first, second)] == [(2, "one"), (3, "two")]
    assert xp.runs()["result"].tolist() == ["one"] * 2 + ["two"] * 3


def test_a_dry_run_sends_nothing(faulty: Faulty, capsys: pytest.CaptureFixture[str]) -> None:
    faulty.ns["rows"] = [{"word": "first one"}, {"word": "second one"}]
    faulty.run(f"%%xpander writer -m {SEVERAL} -n 3 --over rows --dry-run -o results\n{{{{ word }}}}")
    shown = capsys.readouterr().out
    assert "12 runs" in shown
    assert "first one" in shown
    assert faulty.service.invokes() == []
    assert "results" not in faulty.ns
    assert len(xp.runs()) == 0


@pytest.mark.parametrize(
    ("line", "body", "kind", "says"),
    [
        ("-n 3", "{{ nope }}", TemplateError, "'nope' is not defined"),
        ("--over rows", "{{ only }}", TemplateError, r"row 2 of 2"),
        ("--over rows -n 0", "x", ConfigError, "-n"),
        (f"-m {SEVERAL},openai/gpt-6", "x", NotFoundError, "gpt-5"),
        ("-e low,extreme", "x", ConfigError, "extreme"),
        ("-n 2 -j 0", "x", ConfigError, "-j"),
    ],
)
def test_a_sweep_that_can_not_be_is_refused_before_anything_is_sent(
    faulty: Faulty, line: str, body: str, kind: type[Exception], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty.ns["rows"] = [{"only": "x"}, {"other": "y"}]
    with pytest.raises(kind, match=says):
        swept(faulty, f"writer {line}", body)
    assert len(capsys.readouterr().out.splitlines()) <= 4
    assert faulty.service.invokes() == []
    assert len(xp.runs()) == 0


@pytest.mark.parametrize("quiet", ["-q", "--view none"])
def test_a_quiet_sweep_shows_nothing(notebook: Notebook, quiet: str, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert states(swept(notebook, f"echo -m scripted/echo,scripted/fail {quiet}")) == ["completed", "failed"]
    assert capfd.readouterr() == ("", "")


def test_a_sweep_from_python(notebook: Notebook, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    frame = pd.DataFrame({"word": ["one", "two"]})
    told: dict[str, Any] = {"target": "echo", "models": ["scripted/echo", "scripted/think"], "over": frame}
    runs = xp.sweep("{{ word }}", **told, progress=False)
    assert [(run.result, run.requested_model) for run in runs] == [
        ("one", "echo"),
        ("one", "think"),
        ("two", "echo"),
        ("two", "think"),
    ]
    assert len(xp.sweep("{{ word }}", **told)) == 4
    assert capfd.readouterr() == ("", ""), "neither a notebook nor a terminal"
    xp.sweep("{{ word }}", **told, progress=True)
    assert re.fullmatch(r"4 runs in \d:\d\d: 4 completed.*\n", capfd.readouterr().out)


# ---- what fails


def test_a_failed_run_is_a_row_and_the_cell_says_what_to_do(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = swept(notebook, "echo -m scripted/echo,scripted/fail -n 2")
    shown = capsys.readouterr().out
    assert states(runs) == ["completed"] * 2 + ["failed"] * 2
    assert runs.df["error_type"].tolist()[2:] == ["TaskFailed"] * 2
    assert re.search(r"^4 runs in \d:\d\d: 2 completed, 2 failed", shown, re.MULTILINE)
    assert "2 failed; the first: The task of run " in shown
    assert "The script says: fail." in shown
    assert "results.failed has them, results.retry() sends them again." in shown
    assert [run.run_id for run in runs.failed] == [run.run_id for run in runs[2:]]
    with pytest.raises(TaskFailed, match=r"2 of 4 runs failed: 2 TaskFailed\.") as caught:
        runs.raise_for_failures()
    assert caught.value.run is runs[2]


def test_runs_that_were_given_no_name_can_be_had_by_their_sweep(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.run("%%xpander echo -n 2 -m scripted/echo,scripted/fail\nhello")
    shown = capsys.readouterr().out
    assert re.search(r"^2–3 +fail +2× +failed +The script says: fail\. ", shown, re.MULTILINE), (
        "the reason is what counts"
    )
    (command,) = re.findall(r"%xpander resume [0-9a-f]{8} -o runs", shown)
    notebook.run(command)
    assert states(notebook.ns["runs"]) == ["completed"] * 2 + ["failed"] * 2


@pytest.mark.parametrize(("option", "says"), [("--schema want", "required property"), ("--format json", "not JSON")])
def test_an_answer_that_is_not_as_asked_is_a_failed_row(
    notebook: Notebook, option: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = '{"b": 1}' if "schema" in option else "plain words"
    notebook.ns["want"] = {"type": "object", "required": ["a"]}
    notebook.ns["rows"] = [{"p": {"script": {"result": text}}} for text in ('{"a": 1}', wrong)]
    runs = swept(notebook, f"echo --over rows --payload p {option}")
    assert [(run.status, run.error_type) for run in runs] == [("completed", None), ("completed", "SchemaError")]
    assert runs[0].output == {"a": 1}
    assert runs[1].result == wrong
    assert says in (runs[1].error or "")
    shown = capsys.readouterr().out
    assert "1 completed, 1 failed" in shown
    assert says in shown


def test_a_key_that_is_refused_in_the_middle_stops_the_sweep(
    faulty: Faulty, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty.service.on(INVOKE, *[reply()] * 3, reply(401, {"detail": "Invalid API key"}))
    with pytest.raises(AuthError) as caught:
        swept(faulty, "writer -n 6 -j 1 --mode sync")
    runs = faulty.ns["results"]
    assert caught.value.runs is runs
    assert states(runs)[:3] == ["completed"] * 3
    assert states(runs)[4:] == ["planned"] * 2
    assert len(faulty.service.invokes()) == 4
    shown = capsys.readouterr().out
    assert "AuthError" in shown
    assert "Traceback" not in shown
    faulty.run("%xpander resume -o results")
    faulty.ns["results"].retry()
    assert states(faulty.ns["results"]) == ["completed"] * 6
    assert len(faulty.service.service.tasks) == 6


def test_the_time_limit_is_of_each_run(faulty: Faulty) -> None:
    def slow(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        answer = work_on if request.json["input"]["text"] == "2" else reply(wait=0.4)
        return answer(server, connection, request)

    faulty.service.on(INVOKE, slow, times=6)
    faulty.ns["rows"] = {"n": range(6)}
    runs = swept(faulty, "writer --over rows --timeout 2 -j 1 --mode sync", "{{ n }}")
    assert states(runs) == ["completed"] * 2 + ["stopped"] + ["completed"] * 3
    assert runs[2].error_type == "Timeout"
    assert "longer than 2 s; its task was stopped" in (runs[2].error or "")
    assert len(faulty.service.requests("POST */stop")) == 1


@pytest.mark.parametrize("mode", ["stream", "sync", "async"])
def test_what_the_service_fails_at_is_tried_again_and_nothing_is_billed_twice(faulty: Faulty, mode: str) -> None:
    faulty.service.on(
        INVOKE,
        reply(502, {"detail": "bad"}, work=True),
        reply(503, {"detail": "busy"}, {"Retry-After": "0"}),
        drop(work=True),
        reply(502, {"detail": "bad"}, work=True),
    )
    runs = swept(faulty, f"writer -n 12 -j 4 --mode {mode}")
    assert states(runs) == ["completed"] * 12
    assert len(faulty.service.service.tasks) == 12


def test_a_local_server_that_has_died_is_said_and_nothing_else_is_asked(
    faulty: Faulty, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty.run("%xpander local")
    local = default_session().local
    assert local is not None
    assert states(swept(faulty, "echo -n 2")) == ["completed"] * 2
    local._process.kill()
    local._process.wait()
    with pytest.raises(ConfigError, match=r"local server has ended\. %xpander local starts it again"):
        faulty.run("%%xpander echo -n 3 -o later\nhello")
    with pytest.raises(ConfigError, match="local server has ended"):
        faulty.run("%xpander resume")
    assert "later" not in faulty.ns
    assert faulty.service.log == []


def test_a_store_that_can_not_be_written_stops_the_sweep_before_anything_is_sent(
    faulty: Faulty, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swept(faulty, "writer -n 2")
    faulty.run(f"%config XpanderMagics.store = 'sqlite:///file:{tmp_path / 'runs.db'}?mode=ro&uri=true'")
    with pytest.raises(StoreError, match=r"readonly.*Make the file and its folder writable"):
        swept(faulty, "writer -n 3")
    assert len(faulty.service.invokes()) == 2
    assert "Traceback" not in capsys.readouterr().out


def test_a_full_disk_stops_the_sweep_before_anything_is_sent(faulty: Faulty, tmp_path: Path) -> None:
    swept(faulty, "writer -n 2")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        faulty.ns["rows"] = {"text": [os.urandom(2000).hex() for _ in range(300)]}
        with pytest.raises(StoreError, match=r"disk is full|Free some space"):
            swept(faulty, "writer --over rows", "{{ text }}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(faulty.service.invokes()) == 2
    assert states(swept(faulty, "writer --over rows", "{{ text }}")) == ["completed"] * 300


# ---- tried again


def failing(faulty: Faulty, line: str = "writer -n 3 --mode sync") -> Runs:
    """A sweep, all of whose tasks fail; from then on they don't."""
    faulty.service.service.final = {"status": "failed", "result": "out of paper"}
    runs = swept(faulty, line)
    assert set(states(runs)) == {"failed"}
    faulty.service.service.final = {"status": "completed", "result": "hi"}
    return runs


def test_a_retry_keeps_the_old_rows_until_the_new_are_in(faulty: Faulty) -> None:
    runs = failing(faulty)
    old = [run.run_id for run in runs]
    faulty.service.held.clear()
    retried = threading.Thread(target=runs.retry)
    retried.start()
    while len(faulty.service.invokes()) < 6:
        time.sleep(0.01)
    assert [run.run_id for run in runs] == old
    assert runs.df["status"].tolist() == ["failed"] * 3
    faulty.service.held.set()
    retried.join(20)
    assert states(runs) == runs.df["status"].tolist() == ["completed"] * 3
    assert not {run.run_id for run in runs} & set(old)
    assert len(runs.failed) == 0
    kept = xp.runs()
    assert sorted(kept["status"]) == ["completed"] * 3 + ["failed"] * 3
    assert set(kept["sweep_id"]) == {runs.sweep_id}


def test_a_retry_sends_only_what_failed_and_may_fail_again(faulty: Faulty) -> None:
    faulty.service.on(INVOKE, reply(), reply(400, {"detail": "not now"}), reply(), reply(400, {"detail": "not again"}))
    runs = swept(faulty, "writer -n 3 -j 1 --mode sync")
    first = [run.run_id for run in runs]
    assert states(runs) == ["completed", "failed", "completed"]
    assert runs.retry() is runs
    assert states(runs) == ["completed", "failed", "completed"]
    assert [new.run_id == old for new, old in zip(runs, first, strict=True)] == [True, False, True]
    assert "not again" in (runs[1].error or "")
    runs.retry()
    assert states(runs) == ["completed"] * 3
    assert len(faulty.service.invokes()) == 5
    runs.retry()
    assert len(faulty.service.invokes()) == 5
    assert len(xp.runs()) == 5


def test_some_of_the_runs_can_be_retried(faulty: Faulty) -> None:
    runs = failing(faulty)
    some = runs[:2].retry()
    assert states(some) == ["completed"] * 2
    assert len(faulty.service.invokes()) == 5


def test_a_retry_of_an_unknown_run_looks_for_its_task_and_sends_nothing(faulty: Faulty) -> None:
    faulty.service.on(INVOKE, reply(), interrupt(answered=False))
    runs = swept(faulty, "writer -n 2 -j 1 --mode sync --on-interrupt detach")
    assert states(runs) in (["completed", "unknown"], ["completed", "executing"]), "its task may have been found"
    end_all(faulty.service)
    assert runs.retry() is runs
    assert states(runs) == ["completed"] * 2
    assert len(faulty.service.invokes()) == 2
    assert len(xp.runs()) == 2


# ---- reused


def test_cached_reuses_each_repeat_once(faulty: Faulty, capsys: pytest.CaptureFixture[str]) -> None:
    first = swept(faulty, "writer -n 2")
    again = swept(faulty, "writer -n 3 --cached")
    assert [run.run_id for run in again[:2]] == [run.run_id for run in first]
    assert len(faulty.service.invokes()) == 3
    assert "3 completed (2 reused)" in capsys.readouterr().out
    swept(faulty, "writer -n 3 --cached")
    assert len(faulty.service.invokes()) == 3
    swept(faulty, "writer -n 3")
    assert len(faulty.service.invokes()) == 6


def test_cached_never_reuses_a_failed_run(faulty: Faulty) -> None:
    failing(faulty)
    assert states(swept(faulty, "writer -n 3 --mode sync --cached")) == ["completed"] * 3
    assert len(faulty.service.invokes()) == 6


def test_cached_reuses_nothing_that_asked_something_else(faulty: Faulty) -> None:
    faulty.service.service.final = {"status": "completed", "result": '{"a": 1}'}
    faulty.ns.update(one={"type": "object"}, other={"type": "object", "required": ["a"]})
    lines = ["", f"-m {GPT}", f"-m {MINI}", "-e low", "-e high", "--think harder", "--version 2", "--version 3"]
    lines += ["--schema one", "--schema other", "--format json", "--instructions i", "--set 'source=\"sdk\"'"]
    # The agent's version is 3, so asking for it by number asks the same.
    same = {"--version 3"}
    for count in (1, 2):
        sent = [len(swept(faulty, f"writer -n 2 --cached {line}")) and len(faulty.service.invokes()) for line in lines]
        new = [after - before for before, after in pairwise([0, *sent])] if count == 1 else []
        assert all(many == (0 if line in same else 2) for line, many in zip(lines, new, strict=False)), (lines, new)
    assert len(faulty.service.invokes()) == 2 * (len(lines) - len(same))
    assert len(swept(faulty, "writer -n 2 --cached", "another prompt")) == 2
    assert len(faulty.service.invokes()) == 2 * (len(lines) - len(same)) + 2


# ---- conversations


def turns(service: Watched) -> dict[str, list[tuple[float, float, Request]]]:
    """The invoke requests of each conversation that goes on."""
    found: dict[str, list[tuple[float, float, Request]]] = {}
    for span in sorted(service.spans, key=lambda span: span[0]):
        if span[2].json.get("id"):
            found.setdefault(span[2].json["id"], []).append(span)
    return found


@pytest.mark.parametrize("mode", ["stream", "sync", "async"])
def test_turns_of_a_conversation_go_one_by_one_and_in_order(faulty: Faulty, mode: str) -> None:
    faulty.service.slow = 0.05
    first = swept(faulty, "writer -n 3")
    faulty.ns["talks"] = first
    runs = swept(faulty, f"writer --thread talks -m {SEVERAL} -n 2 --mode {mode}", "and then?")
    assert len(runs) == 12
    assert states(runs) == ["completed"] * 12
    found = turns(faulty.service)
    assert set(found) == {run.thread_id for run in first}
    for spans in found.values():
        assert len(spans) == 4
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
    marks = {run.run_id: run for run in runs}
    for thread_id, spans in found.items():
        sent = [marks[span[2].json["payload_extension"][MARK]] for span in spans]
        assert [run.repeat for run in sent] == [1, 1, 2, 2]
        assert {run.thread_id for run in sent} == {thread_id}
    assert faulty.service.open_from(3) > 1, "other conversations go on meanwhile"


def test_reply_goes_on_with_each_conversation(notebook: Notebook) -> None:
    notebook.ns["rows"] = {"word": ["one", "two"]}
    runs = swept(notebook, "echo -m scripted/echo,scripted/think -e low --over rows", "{{ word }}")
    replies = runs.reply("and {{ this }}?")
    assert [run.thread_id for run in replies] == [run.thread_id for run in runs]
    assert {run.prompt for run in replies} == {"and {{ this }}?"}
    assert [(r.requested_model, r.requested_effort) for r in replies] == [
        (r.requested_model, r.requested_effort) for r in runs
    ]
    assert replies.sweep_id != runs.sweep_id
    assert {run.result for run in runs} == {"one", "two"}


# ---- order and limits


def test_each_input_has_all_settings_before_the_next_and_repeats_come_last(faulty: Faulty) -> None:
    faulty.ns["rows"] = {"word": ["one", "two", "three"]}
    swept(faulty, f"writer -m {SEVERAL} -n 2 --over rows -j 1", "{{ word }}")
    sent = faulty.service.sent()
    rounds = [sent[start : start + 2] for start in range(0, 12, 2)]
    assert [{word for word, _ in pair} for pair in rounds] == [{"one"}, {"two"}, {"three"}] * 2
    assert all({model for _, model in pair} == {"gpt-5", "gpt-5-mini"} for pair in rounds)
    assert {pair[0][1] for pair in rounds[:2]} == {"gpt-5", "gpt-5-mini"}, "none is always first"


@pytest.mark.parametrize("mode", ["stream", "sync", "async"])
@pytest.mark.parametrize("jobs", [1, 4])
def test_no_more_than_jobs_are_under_way(faulty: Faulty, mode: str, jobs: int) -> None:
    faulty.service.slow = 0.05
    faulty.service.service.states = [{"status": "executing"}] if mode == "async" else []
    assert states(swept(faulty, f"writer -n {5 * jobs} -j {jobs} --mode {mode}")) == ["completed"] * 5 * jobs
    assert faulty.service.most == jobs


def test_rpm_holds_from_the_first_request_on_polls_included(faulty: Faulty) -> None:
    faulty.service.service.states = [{"status": "executing"}]
    swept(faulty, "writer -n 2")  # the lists are read by now
    before = len(faulty.service.log)
    assert states(swept(faulty, "writer -n 4 --rpm 240 --mode async")) == ["completed"] * 4
    came = [request.at for request in faulty.service.log[before:]]
    assert len(came) >= 12, "of each run: one that starts it, and two that ask"
    # A request may take long to arrive, so two of them may be closer; never all of them.
    assert came[-1] - came[0] >= (len(came) - 1) * 0.25 - 0.5
    assert came[3] - came[0] >= 0.4
    before = len(faulty.service.log)
    swept(faulty, "writer -n 40")
    came = sorted(request.at for request in faulty.service.log[before:])
    assert min(later - at for at, later in pairwise(came)) < 0.2, "the next sweep is as fast as can be"


def test_after_a_refusal_less_is_under_way_and_then_more_again(faulty: Faulty) -> None:
    service = faulty.service
    swept(faulty, "writer -n 2")
    begin = len(service.seen)

    def refuse(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        while len(service.seen) < begin + 8:
            server.rest(0.01)
        return reply(429, {"detail": "Too many"}, {"Retry-After": "0"})(server, connection, request)

    def after(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        server.rest(0.4)
        return refuse_all(server, connection, request)

    refuse_all = reply(wait=0.3)
    service.on(INVOKE, refuse, *[after] * 7)
    service.slow = 0.25
    runs = swept(faulty, "writer -n 60 -j 8 --mode sync")
    assert states(runs) == ["completed"] * 60
    assert len(service.service.tasks) == 62
    first = [r.json["payload_extension"][MARK] for r in service.invokes()[: begin + 8]]
    new = [
        open_then
        for open_then, request in zip(service.seen, service.invokes(), strict=True)
        if request.json["payload_extension"][MARK] not in first
    ]
    # The service may still count one or two whose answers the client has read already.
    assert max(new[:4]) <= 6, new
    assert max(new) > 4, new
    assert max(service.seen) <= 8


@pytest.mark.parametrize("asked", [True, False])
def test_usage_is_asked_of_each_run_where_it_is_wanted(faulty: Faulty, asked: bool) -> None:
    runs = swept(faulty, f"writer -n 3{' --usage' * asked}")
    assert len(faulty.service.requests("GET */llm_usage")) == 3 * asked
    assert runs.df["total_tokens"].fillna(0).tolist() == [9 * asked] * 3
    assert runs.df["cost_usd"].fillna(0).tolist() == [0.01 * asked] * 3
    faulty.run("%xpander usage")
    assert len(faulty.service.requests("GET */llm_usage")) == 3
    assert xp.runs()["total_tokens"].tolist() == [9] * 3


# ---- interrupted, and gone on with


def interrupted(faulty: Faulty, line: str = "-n 5 -j 1 --mode async") -> Runs:
    """A sweep that is interrupted as its third run is sent."""
    faulty.service.on(INVOKE, reply(), reply(), interrupt(answered=True))
    return swept(faulty, f"writer {line}")


def test_an_interrupt_stops_what_is_under_way_and_keeps_what_is_finished(
    faulty: Faulty, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = interrupted(faulty)
    assert states(runs) == ["completed"] * 2 + ["stopped"] + ["planned"] * 2
    assert len(faulty.service.requests("POST */stop")) == 1
    shown = capsys.readouterr().out
    assert f"2 of them are still to be sent or collected: %xpander resume {runs.sweep_id[:8]}" in shown
    assert "2 completed, 1 stopped, 2 not sent" in shown


def test_what_is_stopped_is_told_so_even_where_its_answer_never_comes(
    faulty: Faulty, capsys: pytest.CaptureFixture[str]
) -> None:
    def unheard(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        return work_on(server, connection, request)

    faulty.service.on(INVOKE, reply(), unheard)
    runs = swept(faulty, "writer -n 3 -j 1 --mode sync")
    assert states(runs) == ["completed", "stopped", "planned"]
    shown = capsys.readouterr().out
    assert "1 completed, 1 stopped, 1 not sent" in shown
    assert "1 stopped; the first: The task of run " in shown


def test_what_resume_collects_is_not_told_as_failed(faulty: Faulty, capsys: pytest.CaptureFixture[str]) -> None:
    runs = interrupted(faulty, "-n 5 -j 1 --mode async --on-interrupt detach")
    shown = capsys.readouterr().out
    assert f"3 of them are still to be sent or collected: %xpander resume {runs.sweep_id[:8]}" in shown
    assert "the first:" not in shown


def test_a_detached_sweep_is_collected_by_resume(faulty: Faulty) -> None:
    runs = interrupted(faulty, "-n 5 -j 1 --mode async --on-interrupt detach")
    assert states(runs) == ["completed"] * 2 + ["executing"] + ["planned"] * 2
    assert faulty.service.requests("POST */stop") == []
    end_all(faulty.service)
    assert faulty.run("%xpander resume -o rest") is None
    assert states(faulty.ns["rest"]) == ["completed"] * 5
    assert [run.run_id for run in faulty.ns["rest"]] == [run.run_id for run in runs]
    assert len(faulty.service.invokes()) == len(faulty.service.service.tasks) == 5


@pytest.mark.parametrize("ref", ["", "{id}", "{short}", "results"])
def test_resume_goes_on_with_a_sweep(faulty: Faulty, ref: str, capsys: pytest.CaptureFixture[str]) -> None:
    runs = interrupted(faulty)
    ended = [run.run_id for run in runs[:3]]
    ref, is_held = ref.format(id=runs.sweep_id, short=runs.sweep_id[:8]), ref == "results"
    capsys.readouterr()
    faulty.run(f"%xpander resume {ref} -o rest")
    rest = faulty.ns["rest"]
    assert states(rest) == ["completed"] * 2 + ["stopped"] + ["completed"] * 2
    assert [run.run_id for run in rest[:3]] == ended
    assert rest is runs or not is_held
    assert len(faulty.service.invokes()) == 5
    shown = capsys.readouterr().out
    assert "4 completed, 1 stopped" in shown
    assert "rest.retry() sends them again" in shown
    with pytest.raises(NotFoundError, match="is unfinished; there is nothing to go on with"):
        faulty.run("%xpander resume")
    faulty.run(f"%xpander resume {runs.sweep_id} -o rest")
    assert len(faulty.service.invokes()) == 5


def test_runs_resume_themselves(faulty: Faulty) -> None:
    runs = interrupted(faulty)
    assert runs.resume() is runs
    assert states(runs) == ["completed"] * 2 + ["stopped"] + ["completed"] * 2


@pytest.mark.parametrize(
    ("ref", "kind", "says"),
    [
        ("nothere", NotFoundError, "There is no sweep 'nothere'"),
        ("words", NotFoundError, "There is no sweep 'words'"),
        ("one two", ConfigError, "resume"),
    ],
)
def test_resume_of_what_is_no_sweep(faulty: Faulty, ref: str, kind: type[Exception], says: str) -> None:
    interrupted(faulty)
    faulty.ns["words"] = ["a", "b"]
    before = len(faulty.service.log)
    with pytest.raises(kind, match=says):
        faulty.run(f"%xpander resume {ref}")
    assert len(faulty.service.log) == before


def test_resume_where_several_sweeps_begin_so(faulty: Faulty) -> None:
    beginnings: Counter[str] = Counter()
    while not beginnings or max(beginnings.values()) < 2:
        beginnings[swept(faulty, "writer -n 2 -q").sweep_id[0]] += 1
    with pytest.raises(ConfigError, match=r"Several sweeps begin with '.': write more"):
        faulty.run(f"%xpander resume {beginnings.most_common()[0][0]}")


def test_resume_asks_only_the_service_that_the_sweep_was_sent_to(
    faulty: Faulty, environment: pytest.MonkeyPatch
) -> None:
    runs = interrupted(faulty)
    with Watched() as other:
        faulty.run(f"%config XpanderMagics.base_url = '{other.url}'")
        with pytest.raises(NotFoundError, match=r"No sweep of .* is unfinished"):
            faulty.run("%xpander resume")
        with pytest.raises(ConfigError, match=rf"was sent to {faulty.service.url}/?; this kernel now talks to"):
            faulty.run(f"%xpander resume {runs.sweep_id}")
        with pytest.raises(ConfigError, match="was sent to"):
            faulty.run("%xpander resume results")
        assert other.log == []
