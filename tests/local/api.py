"""The local server as a client meets it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import requests

from xpander_magics.local import LocalServer


class Api:
    """The server as a client meets it."""

    def __init__(self, server: LocalServer) -> None:
        self.server = server
        self.http = requests.Session()
        self.http.headers["x-api-key"] = server.key
        self.http.trust_env = False
        self.ids: dict[str, str] = {}
        for kind in ("agents", "workflows"):
            for item in self.get(f"/v1/{kind}?per_page=50").json()["items"]:
                self.ids[item["name"]] = f"/v1/{kind}/{item['id']}"

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        return self.http.get(self.server.base_url + path, timeout=60, **kwargs)

    def post(self, path: str, body: Any = None, **kwargs: Any) -> requests.Response:
        return self.http.post(self.server.base_url + path, json=body, timeout=120, **kwargs)

    def try_invoke(self, name: str, text: str, how: str = "", **fields: Any) -> requests.Response:
        script = fields.pop("script", None)
        if script is not None:
            fields["payload_extension"] = {"script": script}
        return self.post(self.ids[name] + "/invoke" + how, {"input": {"text": text}, **fields})

    def invoke(self, name: str, text: str, how: str = "", **fields: Any) -> dict[str, Any]:
        answer = self.try_invoke(name, text, how, **fields)
        assert answer.status_code == 200, answer.text
        task: dict[str, Any] = answer.json()
        return task

    def stream(self, name: str, text: str, **fields: Any) -> Iterator[dict[str, Any]]:
        script = fields.pop("script", None)
        if script is not None:
            fields["payload_extension"] = {"script": script}
        body = {"input": {"text": text}, **fields}
        with self.post(self.ids[name] + "/invoke/stream", body, stream=True) as answer:
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    def task(self, task_id: str) -> dict[str, Any]:
        task: dict[str, Any] = self.get(f"/v1/tasks/{task_id}").json()
        return task

    def ended(self, task_id: str) -> dict[str, Any]:
        """The task once it has ended, by polling, as a client does."""
        while True:
            task = self.task(task_id)
            if task["status"] in ("completed", "failed", "stopped"):
                return task
