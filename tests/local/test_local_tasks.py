"""Tasks by themselves: polling, lists, threads, files, bounds."""

from __future__ import annotations

import base64
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xpander_magics.local.agents import Agent
from xpander_magics.local.body import Input, Invoke
from xpander_magics.local.tasks import Task, Tasks


def test_async_is_pending_then_completed(api: Any) -> None:
    task = api.invoke("echo", "later", "/async", script={"delay": 0.05})
    assert (task["status"], task["result"], task["started_at"]) == ("pending", None, None)
    assert api.ended(task["id"])["result"] == "later"


def test_lists_by_every_filter(api: Any) -> None:
    user = {"input": {"text": "x", "user": {"id": "user-of-lists"}}}
    marks = {"triggering_agent_id": "trigger-of-lists", "parent_execution_id": "parent-of-lists"}
    tasks = [api.post(api.ids["echo"] + "/invoke", {**user, **marks}).json() for _ in range(3)]
    agent = api.ids["echo"].rsplit("/", 1)[1]
    since = tasks[0]["created_at"]
    for query in (
        *("user_id=user-of-lists", "triggering_agent_id=trigger-of-lists", "parent_task_id=parent-of-lists"),
        f"user_id=user-of-lists&agent_id={agent}&status=completed&from_date={since}",
    ):
        page = api.get(f"/v1/tasks?{query}").json()
        assert [item["id"] for item in page["items"]] == [task["id"] for task in tasks[::-1]], query
        assert (page["total"], page["total_pages"]) == (3, 1)
    second = api.get("/v1/tasks?user_id=user-of-lists&per_page=2&page=2").json()
    assert [item["id"] for item in second["items"]] == [tasks[0]["id"]]
    assert api.get("/v1/tasks?user_id=user-of-lists&status=failed").json()["items"] == []
    assert api.get("/v1/tasks?user_id=user-of-lists&to_date=2001-01-01T00:00:00Z").json()["total"] == 0
    assert api.get(f"/v1/tasks?user_id=user-of-lists&from_date={since[:-1]}%2B00:00").json()["total"] == 3


@pytest.mark.parametrize(
    "query",
    [
        *("per_page=51", "page=0", "status=done", "from_date=yesterday", "to_date=5"),
        *("from_date=2026-13-01T00:00:00Z", "from_date=2026-02-07", "to_date=2026-02-07T25:00:00Z"),
    ],
)
def test_wrong_filters_are_refused(api: Any, query: str) -> None:
    answer = api.get(f"/v1/tasks?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", query.split("=", 1)[0]]


def test_a_thread_goes_on_under_its_id(api: Any) -> None:
    first = api.invoke("echo", "one")
    second = api.invoke("echo", "two words", id=first["id"])
    assert second["id"] == first["id"]
    assert api.task(first["id"])["result"] == "two words"
    # The scripted engine counts the words that it was given: those of the turn before too.
    assert first["tokens"]["prompt_tokens"] == 1
    assert second["tokens"]["prompt_tokens"] == 4
    thread = api.get(f"/v1/tasks/{first['id']}/thread").json()
    assert [(m["role"], m["content"]) for m in thread] == [
        *(("user", "one"), ("assistant", "one"), ("user", "two words"), ("assistant", "two words"))
    ]
    assert thread[3]["metrics"] == {"input_tokens": 4, "output_tokens": 2, "total_tokens": 6}
    assert len({m["id"] for m in thread}) == 4


def test_a_thread_takes_any_id_but_one_under_way(api: Any) -> None:
    assert api.invoke("echo", "x", id="a-thread-of-mine")["id"] == "a-thread-of-mine"
    busy = api.invoke("echo", "x", "/async", script={"delay": 600})
    refused = api.try_invoke("echo", "y", id=busy["id"])
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["body", "id"]
    api.post(f"/v1/tasks/{busy['id']}/stop")
    assert api.invoke("echo", "y", id=busy["id"])["result"] == "y"


def test_many_at_once(api: Any) -> None:
    tasks = [api.invoke("echo", f"n{n}", "/async", script={"delay": 0.2}) for n in range(100)]
    assert [api.ended(task["id"])["result"] for task in tasks] == [f"n{n}" for n in range(100)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "note.txt").write_text("The key is under the mat. Ä")
    (tmp_path / "large.txt").write_text("x" * 1_000_001)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\x00\xff")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_files_are_read_into_the_prompt(api: Any, site: str) -> None:
    data = "data:text/plain;base64," + base64.b64encode("Grüße".encode()).decode()
    for url, text in ((f"{site}/note.txt", "under the mat. Ä"), (data, "Grüße"), ("data:,a%20b", "a b")):
        body = {"input": {"text": "Where?", "files": [url]}}
        task = api.post(api.ids["echo"] + "/invoke", body).json()
        assert task["status"] == "completed"
        assert task["result"].startswith("Where?\n\nFile 1")
        assert text in task["result"]
        off = api.post(api.ids["echo"] + "/invoke", {**body, "disable_attachment_injection": True}).json()
        assert off["result"] == "Where?"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("{site}/large.txt", "over 1 MB"),
        ("{site}/picture.png", "no UTF-8 text"),
        ("{site}/nothing.txt", "404"),
        ("http://127.0.0.1:1/x", "can't be read"),
        ("http://[/x", "can't be read"),
        ("ftp://127.0.0.1/x", "neither an http(s) nor a data: URL"),
        ("file:///etc/hostname", "neither an http(s) nor a data: URL"),
        ("data:text/plain", "comma"),
        ("data:;base64,%%%", "says base64"),
    ],
)
def test_files_that_cannot_be_read_fail_the_task(api: Any, site: str, url: str, words: str) -> None:
    task = api.post(api.ids["echo"] + "/invoke", {"input": {"text": "x", "files": [url.format(site=site)]}}).json()
    assert task["status"] == "failed"
    assert words in task["result"]


def test_the_oldest_ended_tasks_are_forgotten() -> None:
    tasks = Tasks(most=20)
    agent = Agent("a", "", "scripted/echo")
    kept = [Task(agent, Invoke(input=Input(text=str(n))), None) for n in range(21)]
    for task in kept:
        tasks.add(task)
        if task is not kept[0]:
            task.finish("completed", "")
    assert tasks.get(kept[0].id) is kept[0], "it is still under way"
    assert tasks.get(kept[1].id) is None
    assert tasks.messages(kept[1].id) == []
    assert tasks.get(kept[20].id) is kept[20]
