"""A real local server in its own process, spoken to over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api import Api

from xpander_magics.local import LocalServer


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """The shipped agents, on a server that lives as long as the tests."""
    with LocalServer.start() as server:
        yield Api(server)
