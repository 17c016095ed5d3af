"""What the server takes and answers, held to the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from xpander_magics.local.body import Invoke

CONTRACT = Path(__file__).parents[1] / "contract"
SPEC = yaml.safe_load((CONTRACT / "openapi.yaml").read_text())

schema = schemathesis.openapi.from_path(CONTRACT / "openapi.yaml")


@schema.parametrize()
@settings(max_examples=12, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_endpoint_keeps_the_contract(case: Any, api: Any) -> None:
    checks = [
        *(not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance),
        *(ignored_auth, negative_data_rejection, unsupported_method),
    ]
    if case.operation.method == "get":
        checks.append(positive_data_acceptance)
    else:
        # A made-up id finds nothing, and a made-up version or provider is refused: go where something happens.
        for parameter, name in (("agent_id", "echo"), ("workflow_id", "echo-twice")):
            if parameter in (case.path_parameters or {}):
                case.path_parameters[parameter] = api.ids[name].rsplit("/", 1)[1]
        case.query = {}
        for field in ("llm_model_provider", "llm_model_name", "test_run_node_id"):
            if isinstance(case.body, dict) and isinstance(case.body.get(field), str):
                del case.body[field]
        checks.remove(negative_data_rejection)  # what made it negative may just have been taken out
    if case.operation.path.endswith("/stream"):
        # The contract's string is the whole text, schemathesis means each event. test_local_streams.py has them.
        checks.remove(response_schema_conformance)
    key = {"x-api-key": api.server.key}
    case.call_and_validate(base_url=api.server.base_url, headers=key, checks=checks, timeout=30)


def test_the_body_has_the_fields_of_the_contract() -> None:
    assert set(Invoke.model_fields) == set(SPEC["components"]["schemas"]["InvokeRequest"]["properties"])


def valid(name: str, value: Any) -> None:
    root = {"$ref": f"#/components/schemas/{name}", "components": SPEC["components"]}
    checker = jsonschema.Draft202012Validator(root, format_checker=jsonschema.FormatChecker())
    checker.validate(value)


FULL = {
    "instructions_override": "Be kind.",
    "additional_context": "It rains.",
    "expected_output": "One line",
    "title": "A title",
    "source": "notebook",
    "parent_execution_id": "parent-1",
    "triggering_agent_id": "trigger-1",
    "worker_id": "worker-1",
    "output_format": "markdown",
    "think_mode": "default",
    "llm_reasoning_effort": "low",
    "llm_model_provider": "scripted",
    "llm_model_name": "echo",
    "payload_extension": {"mine": [1, None, "\ud800"]},
    "mcp_servers": [{"name": "m", "config": {"url": "http://127.0.0.1:1"}}],
    "events_streaming": True,
    "disable_attachment_injection": True,
    "return_metrics": True,
    "run_locally": True,
}


@pytest.mark.parametrize("name", ["echo", "echo-twice"])
def test_fields_come_back_under_the_names_of_the_task(api: Any, name: str) -> None:
    user = {"id": "u-1", "email": "ada@example.com", "additional_attributes": {"team": "a"}}
    secrets = {"user_tokens": {"t": "s3cret-1"}, "user_oidc_token": "s3cret-2"}
    answer = api.post(api.ids[name] + "/invoke", {"input": {"text": "Hi", "user": user}, **FULL, **secrets})
    task = answer.json()
    valid("Task", task)
    renamed = {"parent_execution_id": "parent_execution"}
    for field, value in FULL.items():
        if field != "run_locally":
            assert task[renamed.get(field, field)] == value, field
    assert task["input"]["user"] == user
    assert task["status"] == "completed"
    assert task["result"] == "Hi"
    assert task["agent_id"] == api.ids[name].rsplit("/", 1)[1]
    assert task["agent_version"] == "1"
    assert task["is_orchestration"] is (name == "echo-twice")
    assert task["created_at"] <= task["started_at"] <= task["finished_at"]
    assert task["duration"] >= 0
    for path in ("", "/thread", "/thread/full", "/llm_usage"):
        assert "s3cret" not in api.get(f"/v1/tasks/{task['id']}{path}").text
    assert api.task(task["id"]) == task
    valid("Usage", api.get(f"/v1/tasks/{task['id']}/llm_usage").json())


def test_secrets_of_a_refused_body_are_not_repeated(api: Any) -> None:
    wrong = {"input": {}, "user_tokens": "s3cret", "user_oidc_token": ["s3cret"]}
    answer = api.post(api.ids["echo"] + "/invoke", wrong)
    assert answer.status_code == 422
    assert "s3cret" not in answer.text


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({}, ["body", "input"]),
        ({"input": {}}, ["body", "input", "text"]),
        ({"input": {"text": 5}}, ["body", "input", "text"]),
        ({"input": {"text": "x", "files": "y"}}, ["body", "input", "files"]),
        ({"input": {"text": "x"}, "colour": "red"}, ["body", "colour"]),
        ({"input": {"text": "x"}, "llm_reasoning_effort": "extreme"}, ["body", "llm_reasoning_effort"]),
        ({"input": {"text": "x"}, "think_mode": "hard"}, ["body", "think_mode"]),
        ({"input": {"text": "x"}, "output_format": "xml"}, ["body", "output_format"]),
        ({"input": {"text": "x"}, "events_streaming": "yes"}, ["body", "events_streaming"]),
        ({"input": {"text": "x"}, "llm_model_provider": "openia"}, ["body", "llm_model_provider"]),
        ({"input": {"text": "x"}, "llm_model_name": "ehco"}, ["body", "llm_model_name"]),
        ({"input": {"text": "x"}, "payload_extension": {"script": {"dleay": 1}}}, ["body", "payload_extension"]),
        ({"input": {"text": "x"}, "payload_extension": {"script": 1}}, ["body", "payload_extension"]),
        ([], ["body"]),
    ],
)
def test_a_wrong_body_is_refused_by_its_field(api: Any, body: Any, loc: list[str]) -> None:
    for how in ("", "/async", "/stream"):
        answer = api.post(api.ids["echo"] + "/invoke" + how, body)
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == loc


@pytest.mark.parametrize("raw", [b"", b"{", b'{"input": {"text": NaN}}', b"[" * 100_000, b"\xff", b"1" * 5000])
def test_what_is_no_json_is_refused(api: Any, raw: bytes) -> None:
    answer = api.http.post(api.server.base_url + api.ids["echo"] + "/invoke", data=raw, timeout=60)
    assert answer.status_code == 422


def test_versions(api: Any) -> None:
    for version in ("latest", "draft", "1"):
        assert api.post(api.ids["echo"] + f"/invoke?version={version}", {"input": {"text": "x"}}).status_code == 200
    assert api.post(api.ids["echo"] + "/invoke?version=2", {"input": {"text": "x"}}).status_code == 404


def test_an_inactive_agent_is_not_invoked(api: Any) -> None:
    answer = api.try_invoke("retired-writer", "x")
    assert answer.status_code == 400
    assert "INACTIVE" in answer.json()["detail"]


def test_what_is_not_there(api: Any) -> None:
    tasks = ("tasks/x", "tasks/x/thread", "tasks/x/thread/full", "tasks/x/llm_usage")
    for path in ("agents/x", "workflows/x", *tasks, "misc/llm_providers/x/models"):
        answer = api.get(f"/v1/{path}")
        assert answer.status_code == 404
        assert isinstance(answer.json()["detail"], str)
    for path in ("/docs", "/redoc", "/openapi.json", "/v1/agents/"):
        assert api.get(path, allow_redirects=False).status_code == 404
    assert api.post("/v1/agents/x/invoke", {"input": {"text": "x"}}).status_code == 404
    assert api.http.delete(api.server.base_url + "/v1/agents", timeout=60).status_code == 405


def test_agents_and_workflows_in_pages(api: Any) -> None:
    for kind, one in (("agents", "writer"), ("workflows", "draft-edit")):
        whole = api.get(f"/v1/{kind}").json()
        valid("AgentPage", whole)
        assert whole["total"] == len(whole["items"])
        stamps = [item["created_at"] for item in whole["items"]]
        assert stamps == sorted(stamps, reverse=True)
        pages = [api.get(f"/v1/{kind}?page={n}&per_page=3").json() for n in range(1, whole["total"] + 1)]
        assert [item for page in pages for item in page["items"]] == whole["items"]
        assert pages[0]["total_pages"] == -(-whole["total"] // 3)
        got = api.get(api.ids[one]).json()
        valid("Agent", got)
        assert got["name"] == one
        for query in ("per_page=51", "per_page=0", "page=0", "page=x"):
            assert api.get(f"/v1/{kind}?{query}").status_code == 422


def test_providers_and_models(api: Any) -> None:
    providers = api.get("/v1/misc/llm_providers").json()
    assert [p["internal_identifier"] for p in providers] == ["local", "scripted"]
    for provider in providers:
        valid("Provider", provider)
        models = api.get(f"/v1/misc/llm_providers/{provider['internal_identifier']}/models").json()
        assert models
        for model in models:
            valid("Model", model)
