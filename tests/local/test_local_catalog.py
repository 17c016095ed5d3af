"""The YAML file of agents, and what is said of a wrong one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xpander_magics.errors import ConfigError
from xpander_magics.local.catalog import load


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


FULL = """
agents:
  - name: A
    unique_name: a-1
    description: D
    instructions: I
    examples: [{input: x, output: "Label: y"}]
    prefix: "Label:"
    choices: [y, z]
    model: mine/m
    effort: high
    think_mode: harder
    output_format: json
    output_schema: {type: object}
    temperature: 1
    seed: 3
    max_tokens: 5
    status: INACTIVE
    version: 4
workflows:
  - {name: W, unique_name: w-1, description: E, status: INACTIVE, version: 2,
     nodes: [A, {name: n, agent: A, instructions: J}]}
providers:
  - {name: mine, base_url: "http://127.0.0.1:9/v1/", api_key_env: KEY, models: [m]}
models:
  - {id: own, path: own.gguf, context: 99, chat_template: T, stop: [S]}
"""


def test_every_key_is_read(tmp_path: Path) -> None:
    (tmp_path / "own.gguf").write_bytes(b"GGUF")
    catalog = load(write(tmp_path, FULL), [tmp_path / "own.gguf"])
    (agent,), (workflow,), (provider,), (own, given) = (
        *(catalog.agents, catalog.workflows, catalog.providers, catalog.models),
    )
    assert (agent.name, agent.unique_name, agent.description, agent.instructions) == ("A", "a-1", "D", "I")
    assert (agent.examples, agent.prefix, agent.choices) == ((("x", "Label: y"),), "Label:", ("y", "z"))
    assert (agent.model, agent.effort, agent.think_mode) == ("mine/m", "high", "harder")
    assert (agent.output_format, agent.output_schema) == ("json", {"type": "object"})
    assert (agent.temperature, agent.seed, agent.max_tokens, agent.status, agent.version) == (1.0, 3, 5, "INACTIVE", 4)
    assert (workflow.name, workflow.unique_name, workflow.description) == ("W", "w-1", "E")
    assert (workflow.status, workflow.version) == ("INACTIVE", 2)
    assert [(n.name, n.agent, n.instructions) for n in workflow.nodes] == [("A", agent, ""), ("n", agent, "J")]
    assert (provider.name, provider.base_url, provider.api_key_env) == ("mine", "http://127.0.0.1:9/v1", "KEY")
    assert provider.models == ("m",)
    assert (own.id, own.path, own.context) == ("own", tmp_path / "own.gguf", 99)
    assert (own.chat_template, own.stop) == ("T", ("S",))
    assert (given.id, given.path) == ("own", tmp_path / "own.gguf")


def test_ids_outlive_a_restart_and_differ_by_kind() -> None:
    first, second = load(), load()
    ids = [one.id for one in (*first.agents, *first.workflows)]
    assert ids == [one.id for one in (*second.agents, *second.workflows)]
    assert len(set(ids)) == len(ids)


def test_what_is_shipped() -> None:
    catalog = load()
    assert {"writer", "ticket-classifier", "echo"} <= {agent.name for agent in catalog.agents}
    assert any(agent.status == "INACTIVE" for agent in catalog.agents)
    assert [node.name for node in catalog.workflows[0].nodes] == ["draft", "edit"]


AGENT = "agents: [{name: A, model: scripted/echo}]\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("agents: [", ["is no YAML"]),
        ("- a", ["the file must be a mapping"]),
        ("agentss: []", ["'agentss'", "Did you mean agents"]),
        ("agents: {}", ["has agents: {}", "no list"]),
        ("agents: [x]", ["agents: entry 1 must be a mapping"]),
        ("agents: [{model: a/b}]", ["entry 1 lacks name"]),
        ("agents: [{name: A}]", ["entry 1 (A) lacks model"]),
        ("agents: [{name: A, model: gpt-5}]", ["write PROVIDER/MODEL"]),
        ("agents: [{name: A, model: openia/gpt-5}]", ["unknown provider 'openia'", "under providers"]),
        ("agents: [{name: A, model: scriptd/echo}]", ["Did you mean scripted"]),
        ("agents: [{name: A, model: scripted/echo, efort: low}]", ["'efort'", "Did you mean effort"]),
        ("agents: [{name: A, model: scripted/echo, effort: huge}]", ["effort: huge", "low, medium, high, xhigh"]),
        ("agents: [{name: A, model: scripted/echo, version: yes}]", ["version: True"]),
        ("agents: [{name: A, model: scripted/echo, temperature: hot}]", ["temperature: 'hot'"]),
        ("agents: [{name: A, model: scripted/echo, temperature: -1}]", ["temperature of 0 or more"]),
        ("agents: [{name: A, model: scripted/echo, output_schema: {}}]", ["add output_format: json"]),
        ("agents: [{name: A, model: scripted/echo, choices: [yes]}]", ["choices", "quotes"]),
        ("agents: [{name: A, model: scripted/echo, examples: [{input: x}]}]", ["example 1 lacks output"]),
        ("agents: [{name: A, model: s/e}, {name: A, model: s/e}]", ["entry 2 (A)", "rename it"]),
        (AGENT + "workflows: [{name: W}]", ["has no nodes"]),
        (AGENT + "workflows: [{name: W, nodes: [B]}]", ["names the agent 'B'"]),
        (AGENT + "workflows: [{name: W, nodes: [A, A]}]", ["two nodes of one name"]),
        ("providers: [{name: local, base_url: 'http://x'}]", ["built in"]),
        ("providers: [{name: p, base_url: x}]", ["must begin with http"]),
        ("models: [{id: m, path: nowhere.gguf}]", ["no such file"]),
        ("models: [{id: m, path: x.gguf, context: 10000000000}]", ["context: 10000000000", "1,000,000"]),
        # Values that are no agents
        ("agents: !!python/object/apply:os.system ['id']", ["line 1", "python/object/apply:os.system isn't read"]),
        ("agents: !!python/name:os.system", ["python/name:os.system isn't read"]),
        ("agents:\n  - {name: 2024-01-01, model: s/e}", ["line 2", "timestamp", "quotes"]),
        (AGENT.replace("}]", ", output_schema: {x: !!binary aGk=}}]"), ["binary isn't read"]),
        (AGENT.replace("}]", ", temperature: .inf}]"), [".inf is no number"]),
        (AGENT.replace("}]", ", output_schema: {x: .nan}}]"), [".nan is no number"]),
        (AGENT.replace("}]", f", seed: {'9' * 5000}}}]"), ["is no YAML"]),
        (AGENT.replace("}]", ", max_tokens: 99999999999}]"), ["too large"]),
        ("agents: []\nagents: []", ["'agents' stands twice"]),
        ("agents: " + "x" * 5000, ["has agents: 'xxx", "no list"]),
        (f"# {'x' * 1_000_000}", ["over 1 MB"]),
        # Bombs: a few lines that stand for billions of values, or never end
        (
            "x0: &x0 [x]\n" + "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 30)),
            ["100,000"],
        ),
        (
            "x0: &x0 {a: 1}\n" + "".join(f"x{n}: &x{n} {{<<: [*x{n - 1}, *x{n - 1}]}}\n" for n in range(1, 40)),
            ["100,000"],
        ),
        ("agents: &a [*a]", ["alias"]),
        ("agents: &a {x: *a}", ["alias"]),
        ("[" * 100_000, ["nested too deeply"]),
        ("".join(" " * n + "a:\n" for n in range(60)), ["nested too deeply"]),
        # Keys that would go where they shouldn't
        ("providers: [{name: p, base_url: 'ftp://me:canary@h/'}]", ["must begin with http"]),
        ("providers: [{name: p, base_url: 'https://'}]", ["and a host"]),
        ("providers: [{name: p, base_url: 'http://h:x/'}]", ["and a host"]),
        ("providers: [{name: p, base_url: 'http://['}]", ["and a host"]),
        ("providers: [{name: p, base_url: 'https://me:canary@h/'}]", ["more than a host and a path"]),
        ("providers: [{name: p, base_url: 'https://h/?key=canary'}]", ["more than a host and a path"]),
        ("providers: [{name: p, base_url: 'https://h', api_key_env: HOME}]", ["HOME", "such as P_API_KEY"]),
        ("providers: [{name: p, base_url: 'https://h', api_key_env: XPANDER_API_KEY}]", ["such as P_API_KEY"]),
        ("providers: [{name: p, base_url: 'http://h.example', api_key_env: P_KEY}]", ["h.example for all to read"]),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))
    assert "canary" not in str(caught.value)


def test_a_key_goes_unencrypted_where_that_is_allowed_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPANDER_ALLOW_HTTP", "vllm.lan")
    path = write(tmp_path, "providers: [{name: p, base_url: 'http://HOST:8000/v1', api_key_env: P_KEY}]")
    with pytest.raises(ConfigError, match="XPANDER_ALLOW_HTTP=host"):
        load(path)
    path.write_text(path.read_text().replace("HOST", "vllm.lan"))
    assert load(path).providers[0].api_key_env == "P_KEY"


def test_aliases_are_read(tmp_path: Path) -> None:
    text = "agents:\n  - &a {name: A, model: s/e, examples: &e [{input: x, output: y}]}\n  - {<<: *a, name: B}\n"
    first, second = load(write(tmp_path, text.replace("s/e", "scripted/echo"))).agents
    assert (first.name, second.name) == ("A", "B")
    assert first.examples == second.examples == (("x", "y"),)


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices among the files")
def test_what_never_ends_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="it is no file"):
            load(path)
        with pytest.raises(ConfigError, match="no GGUF file"):
            load(gguf=[path])


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml can't be read"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match=r"no GGUF file .*x\.gguf"):
        load(gguf=[tmp_path / "x.gguf"])


@pytest.mark.parametrize("content", [b"", b"GG", b"<html>", b"ggml"])
def test_a_gguf_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.gguf is no GGUF file: it doesn't begin with GGUF\."):
        load(gguf=[tmp_path / "x.gguf"])
    with pytest.raises(ConfigError, match=r"x\.gguf, which is no GGUF file"):
        load(write(tmp_path, "models: [{id: m, path: x.gguf}]"))
