"""The board without a browser: what the kernel answers the front end, what is kept, what stands in for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from notebook_shell import Notebook
from test_kernel import Kernel, running_kernel

from xpander_magics.analysis.diffs.steps import steps
from xpander_magics.contract import Event
from xpander_magics.local.launch import LocalServer
from xpander_magics.results import STREAMED, Run
from xpander_magics.store import Store
from xpander_magics.widgets.board import Board, opened, tree
from xpander_magics.widgets.front import VIEW

HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(1)> [x](javascript:alert(1)) \x1b[2J\u202e"
ROWS = """rows = [
    {'text': 'one', 'p': {'script': {'result': '# Bug', 'tools': True, 'think': ['I ', 'think.']}}},
    {'text': 'two', 'p': {'script': {'result': '{"a": [1, 12345678901234567890]}'}}},
]"""
SWEEP = "%%xpander echo --over rows --payload p -m scripted/echo,scripted/fail -n 2 -o runs -q\n{{ text }}"


class Front:
    """A front end's part of a widget, by the protocol's own messages."""

    def __init__(self, kernel: Kernel, source: str) -> None:
        self._client = kernel.client
        reply, outputs = kernel.run(source)
        assert reply["status"] == "ok", reply
        self.shown = [out["content"]["data"] for out in outputs if out["msg_type"] == "display_data"]
        (self._model,) = [data[VIEW]["model_id"] for data in self.shown if VIEW in data]

    def ask(self, **message: Any) -> dict[str, Any]:
        """Sends a message; returns the answer."""
        self.send(**message)
        while True:
            told = self._client.get_iopub_msg(timeout=60)
            if told["msg_type"] == "comm_msg" and told["content"]["data"].get("method") == "custom":
                content: dict[str, Any] = told["content"]["data"]["content"]
                return content

    def send(self, **message: Any) -> None:
        data = {"method": "custom", "content": message}
        self._client.shell_channel.send(self._client.session.msg("comm_msg", {"comm_id": self._model, "data": data}))


@pytest.fixture(scope="module")
def swept(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kernel, Front, Store]]:
    """A kernel with a sweep on its board; they are only looked at, or changed where no other test looks."""
    with pytest.MonkeyPatch.context() as patch:
        url = f"sqlite:///{tmp_path_factory.mktemp('board') / 'runs.db'}"
        patch.setenv("XPANDER_STORE", url)
        patch.setenv("XPANDER_BASE_URL", server.base_url)
        patch.setenv("XPANDER_API_KEY", server.key)
        with running_kernel() as kernel:
            kernel.text(ROWS)
            kernel.text(SWEEP)
            store = Store(url)
            yield kernel, Front(kernel, "board = runs.board()\nboard"), store
            store.close()


# ---- what the front end is told


def test_a_page_that_is_ready_gets_all_by_columns(swept: tuple[Kernel, Front, Store]) -> None:
    told = swept[1].ask(kind="ready", to="a page")
    assert (told["kind"], told["to"]) == ("data", "a page")
    data = told["data"]
    assert [one["name"] for one in data["configurations"]] == ["echo", "fail"]
    assert [one["failures"] for one in data["configurations"]] == [0, 4]
    assert data["names"] == ["text", "p"]
    assert (data["input"], data["configuration"]) == ([0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1] * 2)
    assert data["answer"] == [0, 0, 1, 1, 2, 2, 3, 3]
    again = swept[1].ask(kind="ready", to="another page")
    assert (again["to"], again["data"]) == ("another page", data)


def test_a_page_that_is_loaded_again_shows_what_has_become_of_the_runs(swept: tuple[Kernel, Front, Store]) -> None:
    kernel = swept[0]
    kernel.text("%%xpander echo -n 3 -o three -q\nx")
    front = Front(kernel, "three.board()")
    assert front.ask(kind="ready", to="a page")["data"]["answer"] == [0, 0, 0]
    kernel.text("three[0].result = 'tried again'")
    told = front.ask(kind="ready", to="a page")
    assert (told["to"], told["data"]["answer"]) == (None, [0, 1, 1])  # each page is to know the new numbers


def test_nothing_of_it_is_in_the_state_that_notebooks_keep(swept: tuple[Kernel, Front, Store]) -> None:
    state = json.loads(swept[0].text("import json\nprint(json.dumps(board.get_state()))"))
    own = {name for name in state if not name.startswith("_")}
    assert own <= {"stand_in", "layout", "tabbable", "tooltip"}
    assert "# Bug" not in json.dumps(state)


def test_the_whole_of_a_row(swept: tuple[Kernel, Front, Store]) -> None:
    told = swept[1].ask(kind="open", to="a page", input=0, runs=[0, 2])
    assert (told["kind"], told["input"], told["prompt"]) == ("opened", 0, "one")
    assert told["variables"][0] == ["text", "one"]
    first, failed = told["runs"]
    assert (first["run"], first["status"], first["html"]) == (0, "completed", "<h1>Bug</h1>\n")
    assert [step["lane"] for step in first["steps"]] == ["thought", "tool"]
    assert first["steps"][1]["ok"] is True
    assert (failed["status"], failed["streamed"]) == ("failed", "# Bug")
    assert "The script says: fail." in failed["problem"]


def test_whole_texts_and_words_in_them(swept: tuple[Kernel, Front, Store]) -> None:
    assert swept[1].ask(kind="texts", answers=[0])["texts"] == [[0, "# Bug"]]
    assert swept[1].ask(kind="search", words="BUG")["inputs"] == [0]


@pytest.mark.parametrize(
    "message",
    [
        {"kind": "open", "input": "0", "runs": [99, -1, "0", None]},
        {"kind": "open", "runs": "all"},
        {"kind": "texts", "answers": {"0": 1}},
        {"kind": "search", "words": ["a"]},
    ],
)
def test_odd_messages_get_an_empty_answer(swept: tuple[Kernel, Front, Store], message: dict[str, Any]) -> None:
    told = swept[1].ask(**message)
    assert not any(told.get(name) for name in ("runs", "texts", "inputs"))


def test_unknown_messages_get_none(swept: tuple[Kernel, Front, Store]) -> None:
    for message in ({"kind": "__class__"}, {"kind": ["open"]}, {}):
        swept[1].send(**message)
    assert swept[1].ask(kind="search", words="bug")["kind"] == "found"


# ---- notes and tags


def test_notes_and_tags_are_kept(swept: tuple[Kernel, Front, Store]) -> None:
    kernel, front, store = swept
    run_id = kernel.text("print(runs[3].run_id)").strip()
    told = front.ask(kind="note", to="a page", run=3, note="look again")
    assert (told["kind"], told["to"], told["note"]) == ("kept", None, "look again")
    store.tag([run_id], ["from elsewhere"])
    told = front.ask(kind="tags", run=3, tags=["odd, isn't it", "b"])
    assert told["tags"] == ["from elsewhere", "odd, isn't it", "b"]
    assert front.ask(kind="tags", run=3, tags=["b"])["tags"] == ["b"]
    kept = store.find(run_id)
    assert (kept.note, kept.tags) == ("look again", ["b"])
    assert kernel.text("print(runs[3].note, runs[3].tags)") == "look again ['b']\n"
    assert front.ask(kind="ready")["data"]["noted"] == [0, 0, 0, 1, 0, 0, 0, 0]
    assert front.ask(kind="note", run=3, note=" ")["note"] == ""
    assert store.find(run_id).note is None


def test_what_can_not_be_kept_says_why(swept: tuple[Kernel, Front, Store]) -> None:
    kernel = swept[0]
    kernel.text("from xpander_magics.outcomes import Entry, Runs\nfrom xpander_magics import Run")
    kernel.text("from xpander_magics.session import default_session\nr = Run()")
    front = Front(kernel, "Runs(default_session(), 'ab' * 16, [Entry(0, r.run_id)], {r.run_id: r}).board()")
    told = front.ask(kind="note", to="a page", run=0, note="x")
    assert (told["kind"], told["to"], told["of"]["run"]) == ("refused", "a page", 0)
    assert "nothing was changed" in told["why"]
    assert kernel.text("print(r.note)") == "None\n"


# ---- where no widget can run


def test_the_stand_in_has_the_same_facts(swept: tuple[Kernel, Front, Store]) -> None:
    (html,) = [data["text/html"] for data in swept[1].shown if "text/html" in data]
    assert html.startswith('<div class="xpander-static xpander-static-')
    for fact in (
        "0–1",
        "2×",
        "# Bug",
        "completed",
        "failed",
        "8 runs: 4 completed, 4 failed",
    ):
        assert fact in html, fact
    assert '<td style="text-align:left">fail</td><td>4</td><td>4</td>' in html


def test_in_a_terminal_it_is_a_table(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.run("%%xpander echo -m scripted/echo,scripted/fail -n 2 -o runs -q\nhello")
    capsys.readouterr()
    notebook.run("runs.board()")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[1:] == ["#", "model", "times", "status", "result", "seconds", "tokens"]
    assert lines[1].split()[:5] == ["0–1", "echo", "2×", "completed", "hello"]
    assert "4 runs: 2 completed, 2 failed" in lines[3]
    assert [line.split()[:3] for line in lines[4:]] == [
        ["configuration", "runs", "failures"],
        ["echo", "2", "0"],
        ["fail", "2", "2"],
    ]
    assert isinstance(notebook.run("runs.board()"), Board)


# ---- a run opened


def event(kind: str, data: Any) -> Event:
    return Event(kind, None, None, data, {})


def test_steps_in_their_order() -> None:
    call = {"tool_name": "search", "tool_call_id": "1", "parameters": {}}
    found = steps(
        [
            *(
                event("task_created", {}),
                event("think", "I "),
                event("think", "see."),
                event("tool_call_request", call),
            ),
            *(event("sub_agent_trigger", {"agent_name": "helper"}), event("analyze", "Hm.")),
            *(event("tool_call_result", {**call, "is_success": False, "result": "no"}), event("chunk", "x")),
            event("sub_task_finished", {"id": "sub", "status": "completed"}),
        ]
    )
    told = [(step["lane"], step["name"], step["ok"]) for step in found]
    assert told == [
        ("thought", "think", None),
        ("tool", "search", False),
        ("agent", "helper", None),
        ("thought", "analyze", None),
        ("agent", "sub ended", True),
    ]
    assert found[0]["text"] == "I see."
    assert '"result": "no"' in found[1]["text"]


def test_a_tree_of_json_keeps_every_digit_and_ends_somewhere() -> None:
    assert tree({"a": [1.5, True, None, "x"]}) == [
        "object",
        [["a", "array", [["0", "float", "1.5"], ["1", "bool", "true"], ["2", "null", ""], ["3", "string", "x"]]]],
    ]
    deep: Any = "end"
    for _ in range(500):
        deep = [deep]
    assert json.dumps(tree(deep)).count("array") == 100


def test_parsed_json_is_opened_as_a_tree() -> None:
    told = opened(Run(status="completed", result='{"a": 12345678901234567890}', output={"a": 12345678901234567890}))
    assert (told["html"], told["tree"]) == (None, ["object", [["a", "int", "12345678901234567890"]]])


def test_an_opened_run_is_harmless() -> None:
    run = Run(status=HOSTILE, result=HOSTILE, error=HOSTILE, note=HOSTILE, tags=[HOSTILE], tools_used=[HOSTILE])
    run.metadata = {STREAMED: HOSTILE}
    run.events = [event("tool_call_request", {"tool_name": HOSTILE})]
    told = opened(run)
    assert not any(character in json.dumps(told, ensure_ascii=False) for character in "\x1b\u202e")
    for part in ("<script", "<img", 'javascript:alert(1)"'):
        assert part not in told["html"]


def test_a_long_answer_is_shown_as_text_and_cut() -> None:
    told = opened(Run(status="completed", result="word " * 100_000))
    assert told["html"] is None
    assert len(told["text"]) < 201_000
    assert "500,000 characters" in told["text"]


def test_text_that_was_asked_for_as_text_stays_text() -> None:
    assert opened(Run(result="# x", request={"output_format": "text"}))["html"] is None
