"""Real models: SmolLM2 in the server, and the same as somebody's OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from api import Api

from xpander_magics.local import LocalServer, ensure
from xpander_magics.local.llama import load

pytestmark = [pytest.mark.model, pytest.mark.network]

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green", "blue"]}, "count": {"type": "integer", "maximum": 9}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def weights() -> Path:
    return ensure("smollm2-135m-instruct")


def test_a_direct_answer(api: Api, weights: Path) -> None:
    first = api.invoke("writer", "What is the capital of France?")
    assert "Paris" in first["result"]
    assert first["tokens"]["total_tokens"] == first["tokens"]["prompt_tokens"] + first["tokens"]["completion_tokens"]
    assert first["tokens"]["completion_tokens"] > 3
    assert (first["llm_model_provider"], first["llm_model_name"]) == ("local", "smollm2-135m-instruct")
    assert api.invoke("writer", "What is the capital of France?")["result"] == first["result"], "at temperature 0"


def test_it_streams_as_it_is_decoded(api: Api, weights: Path) -> None:
    events = list(api.stream("writer", "Tell me about the sea."))
    chunks = [event["data"] for event in events if event["type"] == "chunk"]
    assert len(chunks) > 10
    assert "".join(chunks) == events[-1]["data"]["result"] == events[-1]["data"]["result"].strip()


def test_choices_hold_the_classifier(api: Api, weights: Path) -> None:
    for text, label in (("I love it, thank you!", "praise"), ("You charged my card twice.", "billing")):
        prompt = f"Classify this support ticket as bug, billing or praise: {text}"
        assert api.invoke("ticket-classifier", prompt)["result"] == label
        for effort in ("medium", "high"):
            voted = api.invoke("ticket-classifier", prompt, llm_reasoning_effort=effort)
            assert voted["result"] in ("bug", "billing", "praise")


def test_more_effort_is_more_work(api: Api, weights: Path) -> None:
    prompt = "Write one sentence about rain."
    spent = [api.invoke("writer", prompt, llm_reasoning_effort=e)["tokens"]["total_tokens"] for e in ("low", "medium")]
    events = list(api.stream("writer", prompt, llm_reasoning_effort="high"))
    assert spent[0] < spent[1] < events[-1]["data"]["tokens"]["total_tokens"]
    assert sum(event["type"] == "think" for event in events) == 3
    assert next(e for e in events if e["type"] == "analyze")["data"].startswith("3 answers: ")
    assert "".join(e["data"] for e in events if e["type"] == "chunk") == events[-1]["data"]["result"]
    harder = list(api.stream("writer", prompt, think_mode="harder"))
    assert [e["type"] for e in harder if e["type"] in ("think", "analyze")] == ["think", "analyze"]


def test_a_schema_holds_the_answer(api: Api, weights: Path) -> None:
    task = api.invoke("writer", "How many apples, and which colour?", output_format="json", output_schema=SCHEMA)
    answer = json.loads(task["result"])
    assert set(answer) == {"colour", "count"}
    assert answer["colour"] in ("red", "green", "blue")
    assert isinstance(answer["count"], int)
    found = json.loads(api.invoke("extractor", "Grace was born in New York in 1906.")["result"])
    assert found == {"person": "Grace", "city": "New York", "year": 1906}
    assert isinstance(json.loads(api.invoke("extractor", "x", llm_reasoning_effort="medium")["result"]), dict)


def test_a_schema_holds_a_base_model(api: Api) -> None:
    """Guards against its stop strings, one of them an empty line, ending an answer before its JSON has begun."""
    ensure("gemma-3-270m")
    schema = {"type": "object", "properties": {"label": {"enum": ["bug", "billing"]}}, "required": ["label"]}
    for text in ("I was charged twice.", "The app crashes.", "I love it.", "The button is dead."):
        task = api.invoke(
            "writer",
            f"Classify this support ticket: {text}",
            llm_model_name="gemma-3-270m",
            output_format="json",
            output_schema=schema,
        )
        assert json.loads(task["result"])["label"] in ("bug", "billing")


def test_json_alone_is_an_object(api: Api, weights: Path) -> None:
    text = api.invoke("writer", "Name a colour.", output_format="json")["result"]
    assert text.startswith("{")


def test_a_thread_is_in_the_context(api: Api, weights: Path) -> None:
    first = api.invoke("writer", "What is the capital of France?")
    second = api.invoke("writer", "And of Italy?", id=first["id"])
    assert second["tokens"]["prompt_tokens"] > first["tokens"]["total_tokens"]
    assert "Rome" in second["result"] or "Italy" in second["result"]


def test_stop_ends_the_decoding(api: Api, weights: Path) -> None:
    for event in api.stream("writer", "Count to one thousand.", llm_reasoning_effort="low"):
        if event["type"] == "chunk":
            api.post(f"/v1/tasks/{event['task_id']}/stop")
    assert event["data"]["status"] == "stopped"
    # All four places are free again: as many tasks as there are places get through.
    tasks = [api.invoke("writer", "Say hi.", "/async") for _ in range(4)]
    assert {api.ended(task["id"])["status"] for task in tasks} == {"completed"}


def test_draft_and_edit(api: Api, weights: Path) -> None:
    task = api.invoke("draft-edit", "Write about the sea.")
    draft, edited = (api.task(child) for child in task["sub_executions"])
    assert edited["input"]["text"] == draft["result"]
    assert task["result"] == edited["result"] != draft["result"]


def test_what_the_engine_refuses_fails_the_task(api: Api, weights: Path) -> None:
    task = api.invoke("writer", "word " * 20_000)
    assert task["status"] == "failed"
    assert "context" in task["result"]


AGENTS = """
agents:
  - {name: far, instructions: You write clearly and briefly., model: endpoint/smol, max_tokens: 40}
  - {name: file, instructions: You write clearly and briefly., model: local/own, max_tokens: 40}
  - {name: keyless, model: nokey/smol}
  - {name: down, model: nowhere/smol}
providers:
  - {name: endpoint, base_url: "BASE/v1", api_key_env: TEST_ENDPOINT_KEY, models: [smol]}
  - {name: asked, base_url: "BASE/v1", api_key_env: TEST_ENDPOINT_KEY}
  - {name: nokey, base_url: "BASE/v1", api_key_env: TEST_NO_SUCH_KEY, models: [smol]}
  - {name: wrongkey, base_url: "BASE/v1", models: [smol]}
  - {name: nowhere, base_url: "http://127.0.0.1:1/v1", models: [smol]}
models:
  - {id: own, path: "FILE", context: 2048}
"""


@pytest.fixture(scope="module")
def far(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server of ours whose provider is a real OpenAI-compatible endpoint: llama.cpp's own, with a key."""
    key = secrets.token_hex(8)
    endpoint = load(str(weights), key, None, 2048)
    path = tmp_path_factory.mktemp("far") / "agents.yaml"
    path.write_text(AGENTS.replace("BASE", endpoint.listening_address).replace("FILE", weights.as_posix()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_ENDPOINT_KEY", key)
        with LocalServer.start(path, [weights], fetch=False) as server:
            yield Api(server)


def test_an_openai_compatible_endpoint(far: Api) -> None:
    task = far.invoke("far", "What is the capital of France?")
    assert "Paris" in task["result"]
    assert task["tokens"]["completion_tokens"] > 0
    assert (task["llm_model_provider"], task["llm_model_name"]) == ("endpoint", "smol")
    usage = far.get(f"/v1/tasks/{task['id']}/llm_usage").json()
    assert (usage["is_byok"], usage["cost"]) == (True, 0.0)
    assert usage["tokens"] == task["tokens"]["total_tokens"]
    held = far.invoke("far", "Pick.", output_format="json", output_schema=SCHEMA)
    assert json.loads(held["result"])["colour"] in ("red", "green", "blue")
    assert far.try_invoke("far", "x", llm_model_name="other").status_code == 422


def test_the_models_of_an_endpoint(far: Api) -> None:
    assert [m["model_id"] for m in far.get("/v1/misc/llm_providers/endpoint/models").json()] == ["smol"]
    asked = far.get("/v1/misc/llm_providers/asked/models").json()
    assert asked[0]["model_id"].endswith(".gguf")
    any_model = far.invoke("far", "Hi", llm_model_provider="asked", llm_model_name=asked[0]["model_id"])
    assert any_model["status"] == "completed"
    assert far.try_invoke("far", "x", llm_model_provider="asked").status_code == 422


def test_what_keeps_an_endpoint_from_answering(far: Api) -> None:
    keyless = far.invoke("keyless", "x")
    assert (keyless["status"], "TEST_NO_SUCH_KEY" in keyless["result"]) == ("failed", True)
    refused = far.invoke("far", "x", llm_model_provider="wrongkey")
    assert (refused["status"], "wrongkey answered 401" in refused["result"]) == ("failed", True)
    down = far.invoke("down", "x")
    assert (down["status"], "nowhere can't be reached" in down["result"]) == ("failed", True)


def test_files_of_the_user(far: Api, weights: Path) -> None:
    assert "Paris" in far.invoke("file", "What is the capital of France?")["result"]
    models = [m["model_id"] for m in far.get("/v1/misc/llm_providers/local/models").json()]
    assert {"own", weights.stem} <= set(models)


def test_a_server_that_may_not_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPANDER_CACHE", str(tmp_path))
    with LocalServer.start(fetch=False) as server:
        task = Api(server).invoke("writer", "x")
    assert task["status"] == "failed"
    assert "fetch=True" in task["result"]


def test_the_first_use_fetches_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPANDER_CACHE", str(tmp_path))
    with LocalServer.start() as server:
        events = list(Api(server).stream("writer", "Hi"))
    said = [e["data"]["internal_status"] for e in events if e["type"] == "task_updated"]
    assert any("fetching SmolLM2-135M-Instruct, licence: Apache-2.0" in (text or "") for text in said)
    assert events[-1]["data"]["status"] == "completed"
    assert events[-1]["data"]["internal_status"] is None
