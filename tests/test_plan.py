"""Every option: what it makes of a run, that it reaches the service, and what a wrong value gets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pydantic
import pytest
import requests
from notebook_shell import Notebook
from test_quote import polls_of

from xpander_magics import errors
from xpander_magics.errors import (
    AuthError,
    ConfigError,
    InvalidRequestError,
    NotFoundError,
    SchemaError,
    SecretError,
    TaskFailed,
    TemplateError,
    Timeout,
    XpanderError,
)
from xpander_magics.results import Run

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


class Answer(pydantic.BaseModel):
    a: int


@pytest.fixture
def filled(notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notebook:
    """A notebook with variables for the options that name one."""
    monkeypatch.chdir(tmp_path)
    Path("good.json").write_text(json.dumps(SCHEMA))
    Path("bad.json").write_text("{")
    notebook.ns.update(
        topic="rain",
        empty="",
        me={"id": "u1", "email": "ada@example.org"},
        extra={"ticket": 7},
        script={"script": {"result": '{"a": 1}'}},
        servers=[{"name": "files", "config": {"url": "https://mcp.example", "token": "s3cr3t-s3cr3t"}}],
        schema=SCHEMA,
        Answer=Answer,
        number=7,
        frame=pd.DataFrame({"a": [1]}),
        not_json={"a": {1}},
        wrong_schema={"type": "nonsense"},
    )
    return notebook


def shown_error(notebook: Notebook, source: str, kind: type[BaseException], capsys: pytest.CaptureFixture[str]) -> str:
    """What a cell shows that must fail before anything is sent; no traceback, three lines at the most."""
    before = notebook.newest_tasks()
    capsys.readouterr()
    with pytest.raises(kind) as caught:
        notebook.run(source)
    assert type(caught.value) is kind
    shown = capsys.readouterr().out
    assert shown == f"{kind.__name__}: {caught.value}\n"
    assert len(shown.splitlines()) <= 3
    assert "Traceback" not in shown
    assert notebook.newest_tasks() == before
    return shown


# A line, the error's class, and what its message says: the option, and what to do.
BAD = [
    ("ecco", NotFoundError, "There is no agent or workflow named 'ecco'. Did you mean echo?"),
    ("workflow:echo", NotFoundError, "There is no workflow named 'echo'"),
    ("agent:", ConfigError, "A target needs a name"),
    ("00000000-0000-4000-8000-000000000000", NotFoundError, "with the id 00000000"),
    ("retired-writer", InvalidRequestError, "is INACTIVE, and only an ACTIVE one"),
    ("'{{ nothing }}'", TemplateError, "The target: 'nothing' is not defined"),
    ("echo extra", ConfigError, "at most 1 word"),
    ("echo -m gpt-5", ConfigError, "--model takes PROVIDER/MODEL, such as openai/gpt-5, not 'gpt-5'"),
    ("echo -m scripted/", ConfigError, "--model takes PROVIDER/MODEL"),
    ("echo -m /echo", ConfigError, "--model takes PROVIDER/MODEL"),
    ("echo -m scripted/ecco", NotFoundError, "Did you mean echo?\nTo send it all the same: --set"),
    ("echo -m scriptde/echo", NotFoundError, "There is no provider 'scriptde'. Did you mean scripted?"),
    ("echo -m '{{ empty }}'", ConfigError, "--model is empty once"),
    ("echo -m scripted/echo,scripted/ecco", NotFoundError, "scripted lists no model 'ecco'"),
    ("echo -e lo", ConfigError, "--effort takes low, medium, high, xhigh; not 'lo'. Did you mean low?"),
    ("echo -e low,hihg", ConfigError, "--effort takes low, medium, high, xhigh; not 'hihg'"),
    ("echo -e '{{ topic }}'", ConfigError, "--effort takes low, medium, high, xhigh; not 'rain'"),
    ("echo --think hard", ConfigError, "--think takes default, harder; not 'hard'. Did you mean harder?"),
    ("echo --think default,hard", ConfigError, "--think takes default, harder; not 'hard'"),
    ("echo -n 1000001", ConfigError, "That makes 1,000,001 runs; a sweep has 1,000,000 at the most. Nothing was sent."),
    ("echo -n x", ConfigError, "'x' is no whole number above 0"),
    ("echo --over fram", ConfigError, "--over: there is no variable 'fram' in the notebook. Did you mean frame?"),
    ("echo --over number", ConfigError, "--over takes a DataFrame, [{'a': 1}, ...] or"),
    ("echo --instructions ''", ConfigError, "--instructions has an empty value"),
    ("echo --instructions '{{ nope }}'", TemplateError, "--instructions: 'nope' is not defined"),
    ("echo --context '{{ nope }}'", TemplateError, "--context: 'nope' is not defined"),
    ("echo --expected-output '{{ nope }}'", TemplateError, "--expected-output: 'nope' is not defined"),
    ("echo --title '{{ nope }}'", TemplateError, "--title: 'nope' is not defined"),
    ("echo --title '{{ empty }}'", ConfigError, "--title is empty once '{{ empty }}' is rendered"),
    ("echo --format xml", ConfigError, "--format takes text, markdown, json, voice; not 'xml'"),
    ("echo --schema schema --format text", ConfigError, "--schema needs --format json, not text"),
    ("echo --schema nothere", ConfigError, "'nothere' is neither a name in the notebook nor a path"),
    ("echo --schema nothere.json", ConfigError, "can't be read"),
    ("echo --schema bad.json", ConfigError, "isn't JSON"),
    ("echo --schema number", ConfigError, "--schema takes a dict, a path to a .json file or a pydantic model class"),
    ("echo --schema wrong_schema", SchemaError, "The schema is no JSON Schema"),
    ("echo --file notes.txt", ConfigError, "--file takes a URL that the service can read, not 'notes.txt'"),
    ("echo --file file:///etc/passwd", ConfigError, "--file takes a URL that the service can read"),
    ("echo --user mee", ConfigError, "--user: there is no variable 'mee' in the notebook. Did you mean me or frame?"),
    ("echo --user number", ConfigError, "--user takes a dict, and 'number' is a int"),
    ("echo --user servers", ConfigError, "--user takes a dict, and 'servers' is a list"),
    ("echo --payload extr", ConfigError, "--payload: there is no variable 'extr'"),
    ("echo --payload number", ConfigError, "--payload takes a dict"),
    ("echo --payload not_json", ConfigError, "--payload can't be sent as JSON"),
    ("echo --mcp serverz", ConfigError, "--mcp: there is no variable 'serverz'"),
    ("echo --mcp number", ConfigError, "--mcp takes a dict or a list of dicts"),
    ("echo --mcp numbers", ConfigError, "--mcp takes a dict or a list of dicts"),
    ("echo --thread '{{ nope }}'", TemplateError, "--thread: 'nope' is not defined"),
    ("echo --set output_format=voice", ConfigError, """write --set 'output_format="voice"'"""),
    ("echo --set voice", ConfigError, "--set takes FIELD=JSON"),
    ("echo --set 'title=1'", ConfigError, "title takes a string, not 1"),
    ("echo --set 'outptu_format=\"x\"'", ConfigError, "has no field 'outptu_format'. Did you mean output_format"),
    ("echo --title a --set 'title=\"b\"'", ConfigError, "--set title and --title both give that field"),
    ("echo -m scripted/echo --set 'llm_model_name=\"b\"'", ConfigError, "--set llm_model_name and --model both"),
    ("echo --set 'input={}'", ConfigError, "--set input: that field is made of the cell, --file and --user"),
    ("echo --file https://a/b --set 'files=[]'", ConfigError, "--set files: that field is made of"),
    ("echo --set 'user={}'", ConfigError, "--set user: that field is made of"),
    ("echo --set 'output_schema={\"type\": 5}'", SchemaError, "The schema is no JSON Schema"),
    ("echo --set 'output_schema=5'", ConfigError, "output_schema takes an object, not 5"),
    ("echo --set 'title=\"a\"' --set 'title=\"b\"'", ConfigError, "--set gives title twice"),
    ("echo --mode fast", ConfigError, "--mode takes stream, sync, async; not 'fast'"),
    ("echo -j 0", ConfigError, "'0' is no whole number above 0"),
    ("echo --rpm -1", ConfigError, "'-1' is no number above 0"),
    ("echo --timeout 0", ConfigError, "'0' is no number above 0"),
    ("echo --usage=yes", ConfigError, "--usage"),
    ("echo --on-interrupt wait", ConfigError, "--on-interrupt takes stop, detach; not 'wait'"),
    ("echo -o my-run", ConfigError, "--out takes a variable's name, not 'my-run'"),
    ("echo -o class", ConfigError, "--out takes a variable's name, not 'class'"),
    ("echo --experiment ''", ConfigError, "--experiment has an empty value"),
    ("echo --tag ''", ConfigError, "--tag has an empty value"),
    ("echo --tag '{{ nope }}'", TemplateError, "--tag: 'nope' is not defined"),
    ("echo --note '{{ nope }}'", TemplateError, "--note: 'nope' is not defined"),
    ("echo --view picture", ConfigError, "--view takes auto, text, markdown, json, table, none; not 'picture'"),
    ("echo --raw -e '{{ topic }}'", ConfigError, "--effort takes low"),
    ("echo --colour red", ConfigError, "There is no option '--colour'"),
    ("echo --title 'open", ConfigError, "A quotation mark is left open"),
]


@pytest.mark.parametrize(("line", "kind", "says"), BAD, ids=[line for line, *_ in BAD])
def test_a_wrong_value(
    filled: Notebook, line: str, kind: type[XpanderError], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled.ns["numbers"] = [1]
    filled.ns["answer"] = kept = object()
    assert says in shown_error(filled, f"%%xpander {line}\nhello", kind, capsys)
    assert filled.ns["answer"] is kept
    assert len(filled.run("%xpander runs")) == 0


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        ("{{ topik }}", TemplateError, "The prompt: 'topik' is not defined. Did you mean topic?"),
        ("{{ topic", TemplateError, "To send braces as they are, use --raw"),
        ("{{ open('/etc/passwd').read() }}", TemplateError, "'open' is not defined"),
        ("{{ get_ipython().system('id') }}", TemplateError, "'get_ipython' is not defined"),
        ("{{ exit() }}", TemplateError, "'exit' is not defined"),
        ("  \n ", ConfigError, "The prompt is empty"),
        ("{{ empty }}", ConfigError, "The prompt is empty"),
    ],
)
def test_a_wrong_body(
    filled: Notebook, body: str, kind: type[XpanderError], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in shown_error(filled, f"%%xpander echo\n{body}", kind, capsys)


def test_no_target(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is no target. Name an agent" in shown_error(notebook, "%%xpander\nhello", ConfigError, capsys)


def test_no_key(notebook: Notebook, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    environment.delenv("XPANDER_API_KEY")
    assert "%xpander login" in shown_error(notebook, "%%xpander echo\nhello", AuthError, capsys)
    environment.setenv("XPANDER_API_KEY", "a key with spaces")
    assert "characters that no key has" in shown_error(notebook, "%%xpander echo\nhello", AuthError, capsys)
    environment.setenv("XPANDER_API_KEY", "wrong-key-wrong-key")
    shown = shown_error(notebook, "%%xpander echo\nhello", AuthError, capsys)
    assert "refuses the key (401)" in shown
    assert "wrong-key-wrong-key" not in shown


@pytest.mark.parametrize("url", ["ftp://a", "http://example.org", "https://user:password@a", "nonsense", "http://[::1"])
def test_a_wrong_address(
    notebook: Notebook, environment: pytest.MonkeyPatch, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("XPANDER_BASE_URL", url)
    shown = shown_error(notebook, "%%xpander echo\nhello", ConfigError, capsys)
    assert "password@" not in shown


# A line, and what of the task on the server, and what of the run, it must have set.
GOOD: list[tuple[str, Callable[[dict[str, Any]], Any], Any, dict[str, Any]]] = [
    ("agent:echo", lambda t: t["input"]["text"], "hello", {"target": "echo", "target_kind": "agent"}),
    ("workflow:echo-twice", lambda t: t["is_orchestration"], True, {"target_kind": "workflow"}),
    ("ECHO", lambda t: t["status"], "completed", {"target": "echo"}),
    (
        "echo -m scripted/think",
        lambda t: (t["llm_model_provider"], t["llm_model_name"]),
        ("scripted", "think"),
        {"provider": "scripted", "model": "think", "requested_provider": "scripted", "requested_model": "think"},
    ),
    (
        "echo -e low",
        lambda t: t["llm_reasoning_effort"],
        "low",
        {"effort": "low", "requested_effort": "low"},
    ),
    ("echo --think default", lambda t: t["think_mode"], "default", {"think_mode": "default"}),
    ("echo --version 1", lambda t: t["agent_version"], "1", {"agent_version": "1", "version": "1"}),
    ("echo --version draft", lambda t: t["status"], "completed", {"version": "draft"}),
    ("echo --instructions 'be {{ topic }}'", lambda t: t["instructions_override"], "be rain", {}),
    ("echo --context 'be {{ topic }}'", lambda t: t["additional_context"], "be rain", {}),
    ("echo --expected-output 'be {{ topic }}'", lambda t: t["expected_output"], "be rain", {}),
    ("echo --title '{{ topic|upper }}'", lambda t: t["title"], "RAIN", {"title": "RAIN"}),
    ("echo --format markdown", lambda t: t["output_format"], "markdown", {}),
    ("echo --format text", lambda t: t["output_format"], "text", {}),
    ("echo --payload script --format json", lambda t: t["output_format"], "json", {"output": {"a": 1}}),
    ("echo --payload script --schema schema", lambda t: t["output_schema"], SCHEMA, {"output": {"a": 1}}),
    ("echo --payload script --schema good.json", lambda t: t["output_schema"], SCHEMA, {"output": {"a": 1}}),
    (
        "echo --payload script --schema Answer",
        lambda t: t["output_schema"],
        Answer.model_json_schema(),
        {"output": {"a": 1}},
    ),
    (
        "echo --file data:,one --file 'data:,{{ topic }}'",
        lambda t: t["input"]["files"],
        ["data:,one", "data:,rain"],
        {},
    ),
    ("echo --user me", lambda t: t["input"]["user"]["email"], "ada@example.org", {}),
    ("echo --payload extra", lambda t: t["payload_extension"]["ticket"], 7, {}),
    ("echo --mcp servers", lambda t: t["mcp_servers"][0]["name"], "files", {}),
    (
        "echo --set 'source=\"sdk\"' --set return_metrics=true",
        lambda t: (t["source"], t["return_metrics"]),
        ("sdk", True),
        {},
    ),
    ("echo --set 'title=\"{{ topic }}\"'", lambda t: t["title"], "rain", {"title": "rain"}),
    ("echo --set 'output_format=\"voice\"'", lambda t: t["output_format"], "voice", {}),
    ("echo --mode sync", lambda t: t["status"], "completed", {"mode": "sync", "ttft_s": None}),
    ("echo --mode async", lambda t: t["status"], "completed", {"mode": "async", "ttft_s": None}),
    ("echo --mode stream", lambda t: t["status"], "completed", {"mode": "stream"}),
    ("echo -n 1 -j 3 --rpm 6000 --timeout 30", lambda t: t["status"], "completed", {"repeat": 1, "attempts": 1}),
    ("echo --usage", lambda t: t["status"], "completed", {"actions": 0, "is_byok": False, "total_tokens": 2}),
    ("echo --no-usage", lambda t: t["status"], "completed", {"actions": None, "is_byok": None, "cost_usd": None}),
    ("echo --on-interrupt detach", lambda t: t["status"], "completed", {"status": "completed"}),
    ("echo --experiment 'of {{ topic }}'", lambda t: t["status"], "completed", {"experiment": "of rain"}),
    ("echo --tag a --tag '{{ topic }}' --tag a", lambda t: t["status"], "completed", {"tags": ["a", "rain"]}),
    ("echo --note 'see {x} $x'", lambda t: t["status"], "completed", {"note": "see {x} $x"}),
    ("echo --raw --title '{{ topic }}'", lambda t: t["title"], "{{ topic }}", {"title": "{{ topic }}"}),
    ("'{{ target }}'", lambda t: t["status"], "completed", {"target": "echo"}),
]


@pytest.mark.parametrize(("line", "look", "told", "kept"), GOOD, ids=[line for line, *_ in GOOD])
def test_a_good_value_reaches_the_service_and_the_store(
    filled: Notebook, line: str, look: Callable[[dict[str, Any]], Any], told: Any, kept: dict[str, Any]
) -> None:
    filled.ns["target"] = "echo"
    run = filled.ask(line)
    assert look(filled.task(run)) == told
    assert run.status == "completed"
    row = filled.run("%xpander runs").iloc[-1]
    for name, value in kept.items():
        assert getattr(run, name) == value
        if name in row.index:
            assert pd.isna(row[name]) if value is None else row[name] == value, name
    assert row["run_id"] == run.run_id
    assert row["prompt"] == "hello"


def test_secrets_of_mcp_servers_are_sent_and_not_kept(filled: Notebook, tmp_path: Path) -> None:
    run = filled.ask("echo --mcp servers", "the token is s3cr3t-s3cr3t")
    assert filled.task(run)["mcp_servers"] == filled.ns["servers"]
    assert filled.ns["servers"][0]["config"]["token"] == "s3cr3t-s3cr3t"
    assert run.result == "the token is ***"
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("runs.db*"))
    assert b"s3cr3t" not in kept
    assert run.request["mcp_servers"] == [{"name": "files", "config": "***"}]


def test_an_unlisted_model_is_sent_with_set(notebook: Notebook) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        notebook.ask("""echo --set 'llm_model_provider="scripted"' --set 'llm_model_name="ecco"'""")
    assert caught.value.run is notebook.ns["answer"]
    assert notebook.ns["answer"].status == "failed"


def test_a_version_that_is_not_there(notebook: Notebook) -> None:
    with pytest.raises(NotFoundError, match="has no version '99'"):
        notebook.ask("echo --version 99")
    assert notebook.ns["answer"].status == "failed"
    assert notebook.ns["answer"].task_id is None


def test_braces_dollars_and_json_pass_untouched(notebook: Notebook) -> None:
    notebook.ns["x"] = "EXPANDED"
    body = 'Keep {x} and $x and ${x}, {"a": {"b": [1]}}, 100 %, {!r}, `back`, "quotes" \\n'
    run = notebook.ask('echo --title \'{x} $x\' --set \'payload_extension={"k": {"x": "$x {x}"}}\'', body)
    task = notebook.task(run)
    assert run.result == run.prompt == task["input"]["text"] == body
    assert task["title"] == "{x} $x"
    assert task["payload_extension"]["k"] == {"x": "$x {x}"}


def test_raw_sends_templates_as_typed(notebook: Notebook) -> None:
    body = "{{ undefined }} {% raw %} {# c #}"
    run = notebook.ask("echo --raw", body)
    assert run.result == run.template == body
    assert run.variables == {}


def test_template_and_variables_are_kept(notebook: Notebook) -> None:
    notebook.ns.update(name="Ada", other="unused")
    run = notebook.ask("echo", "Hi {{ name }}\n\nBye")
    assert (run.prompt, run.template) == ("Hi Ada\n\nBye", "Hi {{ name }}\n\nBye")
    assert run.variables == {"name": "Ada"}


@pytest.mark.parametrize(
    ("set_up", "body", "line"),
    [
        ("key", "my key: {{ secret }}", "echo"),
        ("variable", "the token {{ secret }} is", "echo"),
        ("variable", "hello", "echo --title 'x{{ secret }}'"),
        ("variable", "hello", "echo --context '{{ secret }}'"),
        ("variable", "hello", "echo --user holder"),
        ("variable", "hello", "echo --payload holder"),
        ("variable", "hello", "echo --file 'data:,{{ secret }}'"),
    ],
)
def test_secrets_are_not_sent(
    notebook: Notebook,
    environment: pytest.MonkeyPatch,
    set_up: str,
    body: str,
    line: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environment.setenv("MY_SERVICE_TOKEN", "tok-0123456789")
    import os

    secret = os.environ["XPANDER_API_KEY"] if set_up == "key" else "tok-0123456789"
    notebook.ns.update(secret=secret, holder={"id": secret})
    shown = shown_error(notebook, f"%%xpander {line}\n{body}", SecretError, capsys)
    assert ("the API key" if set_up == "key" else "the value of $MY_SERVICE_TOKEN") in shown
    assert "--allow-secrets" in shown
    assert secret not in shown
    run = notebook.ask(f"{line} --allow-secrets --note '{{{{ secret }}}}' --tag '{{{{ secret }}}}'", body)
    key = {"x-api-key": notebook.client.key.reveal()}  # the client masks it in what it reads
    assert secret in requests.get(f"{notebook.client.base_url}/v1/tasks/{run.task_id}", headers=key, timeout=60).text
    kept = f"{vars(run)}{run.events}{notebook.run('%xpander runs').to_dict()}"
    assert secret not in kept
    assert secret not in capsys.readouterr().out


def test_a_thread_by_variable_run_id_beginning_and_task_id(notebook: Notebook) -> None:
    first = notebook.ask("echo", "one")
    notebook.ns.update(first=first, ref=first.run_id)
    assert first.task_id is not None
    ways = ["first", first.run_id, first.run_id[:8], first.task_id, "'{{ ref }}'", "'{{ first.run_id[:10] }}'"]
    for way in ways:
        run = notebook.ask(f"echo --thread {way}", "another")
        assert run.thread_id == first.thread_id == run.task_id
        assert run.run_id != first.run_id
    thread = notebook.run(f"%xpander thread {first.run_id}")
    assert list(thread["role"]) == ["user", "assistant"] * (1 + len(ways))
    assert thread["content"][0] == "one"


def test_a_thread_that_nobody_knows(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.ask("echo")
    cell = "%%xpander echo --thread anwser\nhello"
    assert "no variable, run or task 'anwser'. Did you mean answer?" in shown_error(
        notebook, cell, NotFoundError, capsys
    )
    cell = "%%xpander echo --thread 00000000-0000-4000-8000-000000000000\nhello"
    assert "%xpander runs lists the runs" in shown_error(notebook, cell, NotFoundError, capsys)


def test_a_thread_of_the_service_that_this_store_has_not_seen(notebook: Notebook) -> None:
    task = notebook.client.invoke("echo", "one")
    assert notebook.ask(f"echo --thread {task.id}", "two").thread_id == task.id


def test_a_thread_of_a_run_that_started_no_task(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.ns["lost"] = Run(status="failed")
    assert "has no conversation" in shown_error(notebook, "%%xpander echo --thread lost\nx", ConfigError, capsys)


def test_cached(notebook: Notebook) -> None:
    first = notebook.ask("echo", "the same")
    before = notebook.newest_tasks()
    again = notebook.ask("echo --cached --title other", "the same")
    assert again.run_id == first.run_id
    assert again.result == "the same"
    assert notebook.newest_tasks() == before
    for line, body in (
        ("echo --cached", "another"),
        ("echo --cached -e low", "the same"),
        ("echo --cached --context x", "the same"),
        ("echo-twice --cached", "the same"),
        ("echo", "the same"),
    ):
        assert notebook.ask(line, body).run_id != first.run_id


def test_cached_does_not_reuse_a_failure(notebook: Notebook) -> None:
    for _ in range(2):
        with pytest.raises(TaskFailed):
            notebook.ask("echo -m scripted/fail --cached", "the same")
    assert len(notebook.run("%xpander runs")) == 2


def test_dry_run(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.ns["topic"] = "rain"
    earlier = notebook.ask("echo", "earlier")
    before, runs = notebook.newest_tasks(), len(notebook.run("%xpander runs"))
    capsys.readouterr()
    notebook.run("%%xpander echo --dry-run --mode async --rpm 1 -o never\nAbout {{ topic }}\x1b[2J")
    shown = capsys.readouterr().out
    assert "About rain" in shown
    assert "\x1b" not in shown
    assert earlier.latency_s is not None
    least = 2 + polls_of(earlier.latency_s)  # on a busy machine it took long
    assert f"Nothing was sent. 1 run, {least} requests or more, with its polls, to echo." in shown
    assert f"At least {least - 1} minutes, as the rate limit allows." in shown
    assert "as 1 earlier run suggests)" in shown
    assert notebook.newest_tasks() == before
    assert len(notebook.run("%xpander runs")) == runs
    assert "never" not in notebook.ns


def test_dry_run_says_what_is_wrong(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    shown_error(notebook, "%%xpander echo --dry-run\n{{ nope }}", TemplateError, capsys)
    shown_error(notebook, "%%xpander ecco --dry-run\nx", NotFoundError, capsys)


def test_timeout_stops_the_task(notebook: Notebook) -> None:
    notebook.ns["slow"] = {"script": {"delay": 30}}
    with pytest.raises(
        Timeout, match=r"longer than 0\.3 s; its task was stopped\. Allow more with --timeout"
    ) as caught:
        notebook.ask("echo --payload slow --timeout 0.3")
    run = notebook.ns["answer"]
    assert caught.value.run is run
    assert notebook.task(run)["status"] == run.status == "stopped"
    assert run.error_type == "Timeout"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"effort": "lo"}, "--effort takes"),
        ({"timeout": 0}, "--timeout takes a number of seconds above 0, not 0"),
        ({"timeout": -1.0}, "--timeout takes"),
        ({"timeout": float("nan")}, "--timeout takes"),
        ({"rpm": 0}, "--rpm takes a number of requests above 0, not 0"),
        ({"fields": {"a": {1}}}, "fields can't be sent as JSON"),
        ({"fields": {"title": 1}}, "title takes a string"),
        ({"schema": 1}, "--schema takes"),
        ({"thread": 5}, "--thread takes a run or an id, not a int"),
        ({"user": pd.DataFrame({"a": [1]})}, "--user takes a dict, and this is a DataFrame"),
        ({"model": "gpt-5"}, "--model takes PROVIDER/MODEL"),
    ],
)
def test_wrong_values_from_python(notebook: Notebook, settings: dict[str, Any], says: str) -> None:
    from xpander_magics.api import run

    before = notebook.newest_tasks()
    with pytest.raises(ConfigError, match=re.escape(says)):
        run("hello", target="echo", **settings)
    assert notebook.newest_tasks() == before


def test_run_from_python(notebook: Notebook) -> None:
    from xpander_magics import api

    run = api.run(
        "Hi {{ name }}",
        target="echo",
        model="scripted/echo",
        effort="low",
        variables={"name": "Ada"},
        title="{{ name }}",
        files="data:,one",
        user={"id": "u"},
        payload={"k": 1},
        schema=None,
        mcp={"name": "m", "config": {}},
        fields={"source": "sdk"},
        experiment="e",
        tags="one",
        note="n",
    )
    task = notebook.task(run)
    assert (run.prompt, run.title, run.tags, run.note) == ("Hi Ada", "Ada", ["one"], "n")
    assert (task["source"], task["input"]["files"], task["input"]["user"]["id"]) == ("sdk", ["data:,one"], "u")
    assert task["mcp_servers"] == [{"name": "m", "config": {}}]
    frame = api.runs(experiment="e")
    assert list(frame["run_id"]) == [run.run_id]
    assert frame["created_at"].iloc[0] <= datetime.now(timezone.utc)
    assert api.runs(status="failed").empty
    assert errors.XpanderError is XpanderError


def test_of_an_mcp_server_only_what_its_names_call_secret_is_masked(notebook: Notebook) -> None:
    """Its address and transport are words that prompts and answers may well hold."""
    config = {
        "url": "https://mcp.example.com/sse",
        "transport": "streamable-http",
        "headers": {"Authorization": "Bearer s3cr3t-of-headers"},
        "api_key": "s3cr3t-of-the-key",
    }
    notebook.ns["mcp"] = {"name": "m", "config": config}
    text = "streamable-http at https://mcp.example.com/sse with s3cr3t-of-headers and s3cr3t-of-the-key"
    run = notebook.ask("echo --mcp mcp", text)
    assert run.result == run.prompt == "streamable-http at https://mcp.example.com/sse with *** and ***"
