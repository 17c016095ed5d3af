"""What a model, the service or somebody's file says, where it is no HTML: terminals, Tab, cells, exports, names."""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer, agent, reply, stream
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from xpander_magics import cell, errors
from xpander_magics.analysis.exports.exports import export
from xpander_magics.analysis.files import checked_path
from xpander_magics.cell import Options, is_template
from xpander_magics.errors import ConfigError, ServiceError, StoreError, XpanderError
from xpander_magics.magics.complete import Completer
from xpander_magics.magics.magic import load, unload
from xpander_magics.plans.grid import Grid, reused_in
from xpander_magics.results import Run
from xpander_magics.service.targets import can_be_typed
from xpander_magics.session import Session
from xpander_magics.store.votes import Vote
from xpander_magics.widgets.choices import cell_text, models_from, targets_from

# Colours, a link, the clipboard, device control, an application's command, C1, a bell, backspaces, a carriage return,
# NUL, an override and an isolate, what isn't seen, text of tags and selectors, line ends, half a character.
EVIL = (
    "A\x1b[31mred\x1b]8;;http://evil\x1b\\L\x1b]8;;\x07\x1b]52;c;YQ==\x07\x1bP1$q\x1b\\\x1b_x\x1b\\\x9b31m\x07\x08\x08"
    "\rover\x00\u202etxt\u2066i\u2069\u200b\U000e0041\U000e007f\U000e0101\ufff9\u3164\uffa0\u115f\xad\x85\u2028\u2029\ud800"
)
STEERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u115f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
)
# Names that would be more than a name in a cell, or in its line.
NAMES = [
    *(
        EVIL,
        "x\n%xpander stop all",
        "--flag",
        "-n 5 --allow-secrets",
        "{{ secret }}",
        "{% raw %}",
        "tab\there",
        " padded ",
    ),
    *('q"uote', "q'uote", "both\"'", "a;b $(touch x) `x`", "back\\slash", "a b", "writer --set x=1", "#x", "a,b", "ok"),
]


@pytest.fixture
def hostile(service: FaultServer) -> FaultServer:
    """A service that lists such names, and answers with such text in every field."""
    model = service.service
    model.agents = [agent("writer", 1, description=EVIL, **{EVIL: EVIL}), agent("asleep", 2, status=EVIL)]
    model.agents += [agent(name, number) for number, name in enumerate(NAMES, 3)]
    model.agents.append({**agent("{{ both }}", 99), "id": "{{ secret }}"})
    model.models = {"openai": ["gpt-5", *NAMES], EVIL: ["m"], "--x": ["m"], "two words": ["m"]}
    model.chunks = list(EVIL)
    named = ("title", "internal_status", "llm_model_provider", "llm_model_name", "think_mode", "agent_version")
    model.final = {
        "status": "completed",
        "result": EVIL,
        "used_tools": [EVIL],
        EVIL: EVIL,
        **dict.fromkeys(named, EVIL),
    }
    return service


@pytest.fixture
def typed(hostile: FaultServer, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Types a cell in a terminal's IPython; returns what it shows, and its error."""
    environment.setenv("XPANDER_API_KEY", hostile.key)
    environment.setenv("XPANDER_BASE_URL", hostile.url)
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    shell = InteractiveShell(config=config)
    load(shell)
    shell.user_ns.update(evil=EVIL, rows=[{"text": EVIL, "label": EVIL}, {"text": "b", "label": "c"}], errors=errors)

    def run(source: str) -> tuple[str, BaseException | None]:
        capsys.readouterr()
        outcome = shell.run_cell(source)
        shown = capsys.readouterr()
        return shown.out + shown.err, outcome.error_before_exec or outcome.error_in_exec

    run.shell = shell  # type: ignore[attr-defined]
    yield run
    unload(shell)
    shell.restore_sys_module_state()


CELLS = (
    "%%xpander writer -o a\nhi",
    "%%xpander writer -o b --mode sync --title '{{ evil }}' --note '{{ evil }}'\nhi {{ evil }}",
    *("a", "repr(a)", "a.events", "%xpander show a --view table", "%xpander thread a", "%xpander usage a"),
    "%%xpander writer -m openai/gpt-5,openai/ok --over rows -o s --tag '{{ evil }}' --score exact --expected label\n"
    "{{ text }}",
    *("s", "s[0]", "print(s)", "s.board()", "s.df", "s.df[['result', 'model']]", "s.df.result", "%xpander runs"),
    *("%xpander agents", "%xpander workflows", "%xpander providers", "%xpander models", "%xpander models openai"),
    *("%xpander compare s --by model -o c", "print(c)", "c.table", "c.frame", "%xpander diff a b", "%xpander status"),
    *(
        "%%xpander writer --dry-run\n{{ evil }}",
        "%%xpander writer --dry-run -n 2\n{{ evil }}",
        "%xpander tag a \x1b[1m",
    ),
)
FAILING = (
    *("%%xpander asleep\nhi", "%%xpander writr\x1b[1m\nhi", "%%xpander writer -m openai/gpt-\x1b[1m\nhi"),
    *(
        "%xpander models \x1b[1m",
        "%xpander show \x1b[1m",
        "%xpander bo\x1b[1mgus",
        "%%xpander writer --set \x1b[1m=1\nhi",
    ),
)


def test_no_output_steers_a_terminal(typed: Any, hostile: FaultServer) -> None:
    # Times that no calendar has.
    odd = [{"role": EVIL, "content": EVIL, "created_at": when} for when in (1e30, float("inf"), 10**30, "x", EVIL)]
    hostile.on("GET */thread", reply(200, odd))
    for source in CELLS:
        shown, error = typed(source)
        assert STEERS.findall(shown) == [], source
        assert error is None, source
    for source in FAILING:
        shown, error = typed(source)
        assert STEERS.findall(shown) == [], source
        assert isinstance(error, XpanderError), source
        assert len(shown.splitlines()) <= 4, source
    hostile.service.final = {"status": "failed", "result": EVIL}
    typed("%config XpanderMagics.traceback = True")
    cause = (
        "try:\n    raise ValueError(evil)\nexcept ValueError as error:\n    raise errors.ConfigError(evil) from error"
    )
    for source in ("%%xpander writer -m openai/gpt-5 -o f\nhi", cause):
        shown, error = typed(source)
        assert "Traceback" in shown
        assert STEERS.findall(shown) == [], source
        assert STEERS.findall(str(error)) == []


def test_frames_are_shown_as_before_once_it_is_unloaded(typed: Any) -> None:
    import pandas as pd

    formatter = typed.shell.display_formatter.formatters["text/plain"]
    own = pd.Series(["\x1b[1m"])
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    shown = [formatter(value) for value in (frame, frame["a"], [frame, {"key": frame}], frame.iloc[:0])]
    assert "\x1b" not in formatter(own)
    unload(typed.shell)
    assert "\x1b" in formatter(own)
    assert shown == [formatter(value) for value in (frame, frame["a"], [frame, {"key": frame}], frame.iloc[:0])]
    formatter.for_type(pd.Series, lambda frame, printer, cycle: printer.text("mine"))
    load(typed.shell)
    assert formatter(own) == "mine"


def test_what_tab_offers_is_one_word_and_means_itself(session: Session, hostile: FaultServer) -> None:
    completer = Completer(session, {})
    for line in ("%%xpander ", "%%xpander agent:", "%xpander use "):
        found = completer.matches(line)
        assert found is not None
        for word in set(found[1]) - {o for a in cell.cell_parser()._actions for o in a.option_strings} - {"--clear"}:
            options = cell.parse_cell(word)
            assert options == Options(target=options.target)
            assert str(options.target).removeprefix("agent:") in {a["name"] for a in hostile.service.agents} | {
                "pipeline"
            }
            assert not is_template(word)
    found = completer.matches("%%xpander writer --model ")
    assert found is not None
    assert {"openai/gpt-5", '"openai/a b"', '"two words/m"'} <= set(found[1])
    for word in found[1]:
        options = cell.parse_cell(f"--model {word}")
        assert options == Options(models=options.models)
        assert len(options.models) == 1
        assert not is_template(word)
    # Those that need no more than quotes are there.
    offered = completer.matches("%%xpander ")
    assert offered is not None
    assert {"ok", '"a b"', '"writer --set x=1"', '"q\'uote"'} <= set(offered[1])


def test_a_chosen_cell_says_what_was_chosen_and_no_more(session: Session, hostile: FaultServer) -> None:
    directory = session.client.directory
    targets = targets_from([*directory.entries("agent"), *directory.entries("workflow")])
    models = [c for provider in directory.provider_ids() for c in models_from(provider, directory.models(provider))]
    assert len(targets) == len(hostile.service.agents)  # one can't be named; and a workflow
    assert len(models) == len([name for name in NAMES if can_be_typed(name) and "," not in name]) + 2
    several = max(len(targets), len(models))
    for target, model in itertools.islice(
        zip(itertools.cycle(targets), itertools.cycle(models), strict=False), several
    ):
        line, prompt = cell_text(Options(target=target.value, models=(model.value,)), "{{ x }}").split("\n")
        assert prompt == "{{ x }}"
        assert STEERS.findall(line) == []
        assert not is_template(line)
        parsed = cell.parse_cell(line.removeprefix("%%xpander "))
        assert parsed == Options(target=target.value, models=(model.value,))


ODD_IDS = [
    "a/b/../c",
    "..",
    ".",
    "",
    "\ud800",
    "x?y=1#z",
    "\r\nHost: evil",
    "\x00",
    "x" * 100_000,
    5,
    [1],
    {"a": 1},
    EVIL,
]


@pytest.mark.parametrize("mode", ["stream", "sync", "async"])
def test_a_tasks_id_leads_nowhere_else(session: Session, service: FaultServer, mode: str) -> None:
    session.client.search_pauses = (0.0,)
    for odd in ODD_IDS:
        task = {"id": odd, "status": "executing"}
        event = {"type": "task_created", "task_id": odd, "data": task}
        sent = f"data: {json.dumps(event)}\n\n".encode()
        service.on("POST */invoke*", stream(sent, end="close") if mode == "stream" else reply(200, task))
        service.log.clear()
        with pytest.raises(ServiceError) as raised:
            session.run(Options(target="writer", mode=mode), "hi", {})
        run = raised.value.run
        assert run is not None
        # It may have run: whatever its id is, that isn't known.
        assert run.status in ("unknown", "executing")
        asked = {request.path for request in service.log if request.method == "GET"}
        assert all(path.count("/") <= 3 and len(path) < 1000 for path in asked - {"/v1/agents", "/v1/workflows"})
        # A database's index takes so much, and the store has it as it is.
        assert session.store.find(run.run_id).task_id == run.task_id
        assert len(run.task_id or "") < 1000


def test_an_answers_odd_header_doesnt_mean_that_nothing_was_sent(session: Session, service: FaultServer) -> None:
    """requests calls two lengths an invalid header, as it does one of ours, which is a mistake before the sending."""
    service.on("POST */invoke", reply(200, "{}", {"Content-Length": "2, 3"}, work=True))
    run = session.run(Options(target="writer", mode="sync"), "hi", {})
    assert run.status == "completed"  # found by its mark
    assert len(service.service.tasks) == 1


def test_nothing_is_unpacked_that_was_sent_packed(session: Session, service: FaultServer) -> None:
    """Ten megabytes may be made to unpack to ten thousand: we ask for none, and unpack none."""
    import gzip

    packed = gzip.compress(b'{"items": [], "total_pages": 1}')
    service.on("GET /v1/agents", reply(200, packed, {"Content-Encoding": "gzip"}))
    with pytest.raises(errors.ServerError, match="isn't JSON"):
        session.client.agents()
    assert service.requests("GET /v1/agents")[0].headers["accept-encoding"] == "identity"


def test_half_characters_are_exported(session: Session, tmp_path: Path) -> None:
    one, other = (Run(prompt=EVIL, result=f"{EVIL}{n}", status="completed", model=EVIL) for n in range(2))
    session.store.add([one, other])
    session.store.votes.add(Vote(one.run_id, other.run_id, "left", EVIL))
    for ending in ("csv", "jsonl", "parquet", "sqlite"):
        for what in ("runs", "preferences"):
            subject = session.store.frame()
            assert export(subject, tmp_path / f"{what}.{ending}", what=what).stat().st_size
    connection = sqlite3.connect(tmp_path / "preferences.sqlite")
    chosen, voted_at = connection.execute("SELECT chosen, voted_at FROM preferences").fetchone()
    connection.close()
    assert chosen.startswith("A\x1b[31m")  # as it is: an export has the data
    assert chosen.endswith("\\ud8000")
    assert voted_at[:2] == "20"


@pytest.mark.parametrize(
    "name", ["a\0.csv", "~nobody-of-this-name/x.csv", "x" * 300 + ".csv", "\ud800.csv", "x/" * 3000 + "a.csv"]
)
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(ConfigError, match="can't be written") as raised:
        checked_path(name, (".csv",))
    assert len(str(raised.value)) < 500


def test_a_link_is_replaced_and_what_it_leads_to_stays(session: Session, tmp_path: Path) -> None:
    session.store.add([Run(result="x", status="completed")])
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link.csv").symlink_to(tmp_path / "precious")
    export(session.store.frame(), tmp_path / "link.csv")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "link.csv").is_symlink()


@pytest.mark.parametrize(
    "record",
    [
        *(b"", b"junk", zlib.compress(b"junk"), zlib.compress(b"[]"), zlib.compress(b"{}"), zlib.compress(b"{}")[:-1]),
        *(zlib.compress(b'{"version": "x"}'), zlib.compress(b"[" * 100_000)),
    ],
)
def test_a_sweeps_record_that_is_none(session: Session, record: bytes) -> None:
    for read in (reused_in, lambda told: Grid.restore(told, session.client)):
        with pytest.raises(StoreError, match="damaged"):
            read(record)


def test_somebody_elses_store_is_not_trusted(session: Session) -> None:
    with session.store.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA trusted_schema").scalar() == 0
