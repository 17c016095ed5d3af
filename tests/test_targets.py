"""Names become targets, and models are checked; wrong ones get the nearest names, and nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fault_server import FaultServer, agent, reply

from xpander_magics.errors import ConfigError, InvalidRequestError, NotFoundError
from xpander_magics.service.client import Client
from xpander_magics.service.targets import Target


@pytest.fixture
def client(service: FaultServer) -> Iterator[Client]:
    with Client(service.key, service.url, retries=0) as client:
        yield client


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


@pytest.mark.parametrize(
    ("written", "kind", "number"),
    [
        ("writer", "agent", 1),
        (" writer ", "agent", 1),
        ("WRITER", "agent", 1),
        ("Ticket Sorter", "agent", 2),
        ("ticket-sorter-u", "agent", 2),
        ("agent:writer", "agent", 1),
        ("agent: writer", "agent", 1),
        ("pipeline", "workflow", 3),
        ("workflow:pipeline", "workflow", 3),
        (uuid(1), "agent", 1),
        (uuid(3), "workflow", 3),
        (f"workflow:{uuid(3)}", "workflow", 3),
    ],
)
def test_ways_to_write_a_target(client: Client, written: str, kind: str, number: int) -> None:
    target = client.directory.resolve(written)
    assert (target.kind, target.id, target.version) == (kind, uuid(number), "3")
    assert target.path == f"/v1/{kind}s/{uuid(number)}"


def test_an_id_costs_one_request_and_then_none(service: FaultServer, client: Client) -> None:
    client.directory.resolve(uuid(1))
    client.directory.resolve(uuid(1))
    assert len(service.log) == 1


def test_names_cost_one_list_a_kind_and_then_none(service: FaultServer, client: Client) -> None:
    for _ in range(3):
        client.directory.resolve("writer")
    assert [r.path for r in service.log] == ["/v1/agents", "/v1/workflows"]


@pytest.mark.parametrize("written", ["", "  ", "agent:", "workflow: "])
def test_no_name(client: Client, written: str) -> None:
    with pytest.raises(ConfigError, match="needs a name"):
        client.directory.resolve(written)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("writr", "Did you mean writer"),
        ("ticket sortr", "Did you mean Ticket Sorter"),
        ("workflow:writer", "no workflow named 'writer'"),
        ("zzzzzz", "%xpander agents"),
        (uuid(9), "no agent or workflow with the id"),
        ("a:b", "no agent or workflow named 'a:b'"),
    ],
)
def test_unknown(client: Client, written: str, said: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.directory.resolve(written)
    assert said in str(caught.value)


def test_ambiguous_by_kind_and_within_a_kind(service: FaultServer, client: Client) -> None:
    service.service.workflows.append(agent("writer", 4))
    with pytest.raises(ConfigError, match="Write one of: agent:writer, workflow:writer"):
        client.directory.resolve("writer")
    assert client.directory.resolve("workflow:writer").id == uuid(4)
    service.service.agents += [agent("twin", 5, unique_name="twin-1"), agent("twin", 6, unique_name=None)]
    client.agents()
    with pytest.raises(ConfigError, match=f"agent:twin-1, agent:{uuid(6)}"):
        client.directory.resolve("twin")
    assert client.directory.resolve("agent:twin-1").id == uuid(5)


def test_a_unique_name_wins_over_a_name(service: FaultServer, client: Client) -> None:
    service.service.agents.append(agent("Other", 5, unique_name="writer"))
    assert client.directory.resolve("writer").id == uuid(5)


@pytest.mark.parametrize("written", ["asleep", uuid(5)])
def test_inactive_until_it_is_activated(service: FaultServer, client: Client, written: str) -> None:
    service.service.agents.append(agent("asleep", 5, status="INACTIVE"))
    with pytest.raises(InvalidRequestError, match="'asleep' is INACTIVE"):
        client.directory.resolve(written)
    service.service.agents[-1]["status"] = "ACTIVE"
    assert client.directory.resolve(written) == Target("agent", uuid(5), "asleep", "3")


def test_a_new_agent_is_found_at_once(service: FaultServer, client: Client) -> None:
    client.directory.resolve("writer")
    service.service.agents.append(agent("newcomer", 5))
    assert client.directory.resolve("newcomer").id == uuid(5)


def test_sparse_entries(service: FaultServer, client: Client) -> None:
    sparse = {"id": "not-a-uuid", "name": None, "organization_id": "o", "status": None}
    service.service.agents.append(sparse)
    assert client.directory.resolve("not-a-uuid") == Target("agent", "not-a-uuid", "not-a-uuid", None)
    with pytest.raises(NotFoundError):
        client.directory.resolve("not-a-uid")


def test_beyond_the_first_page(service: FaultServer, client: Client) -> None:
    service.service.agents += [agent(f"agent {n}", n) for n in range(100, 221)]
    assert client.directory.resolve("agent 220").id == uuid(220)
    assert len(client.agents()) == 123
    assert {r.query["per_page"] for r in service.log} == {"50"}
    assert "agent 150" in client.directory.target_names()


def test_models(service: FaultServer, client: Client) -> None:
    check = client.directory.check_model
    check("openai", "gpt-5")
    check("anthropic", "claude-sonnet-4-6")
    with pytest.raises(NotFoundError, match="Did you mean gpt-5-mini"):
        check("openai", "gpt-5-mni")
    with pytest.raises(NotFoundError, match="Did you mean openai"):
        check("opnai", "gpt-5")
    with pytest.raises(NotFoundError, match="There are: openai, anthropic"):
        check("zzz", "gpt-5")
    service.service.models["openai"].append("gpt-6")
    check("openai", "gpt-6")
    assert "openai/gpt-5" in client.directory.model_names()


def test_what_to_write_for_a_model_that_the_list_lacks(client: Client) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.directory.check_model("openai", "brand-new")
    assert "--set 'llm_model_name=\"brand-new\"'" in str(caught.value)


def test_a_list_that_cannot_be_had_says_nothing(service: FaultServer, client: Client) -> None:
    service.on("GET */models", reply(500, {"detail": "down"}), reply(404, {"detail": "no list"}))
    client.directory.check_model("openai", "anything")
    client.directory.check_model("openai", "anything")


def test_models_without_names(service: FaultServer, client: Client) -> None:
    service.on("GET */models", reply(200, [{"model_id": None}, {"model_id": "a"}]), times=2)
    with pytest.raises(NotFoundError):
        client.directory.check_model("openai", "b")


def test_a_service_without_workflows_still_finds_its_agents(service: FaultServer, client: Client) -> None:
    service.on("GET /v1/workflows", reply(404, {"detail": "Not Found"}), times=10)
    assert client.directory.resolve("writer").id == uuid(1)
    with pytest.raises(NotFoundError, match="writer"):
        client.directory.resolve("wirter")
    service.on("GET /v1/agents", reply(404, {"detail": "Not Found"}), times=10)
    with pytest.raises(NotFoundError, match="404"), Client(service.key, service.url, retries=0) as anew:
        anew.directory.resolve("writer")
