"""A browser, and a Jupyter server whose kernels talk to the tests' local server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from xpander_magics.local.launch import LocalServer

if not os.environ.get("CI"):
    pytest.importorskip("playwright", reason="no Playwright: `pip install -e '.[local,test]'`")

from front_ends import LOAD, JupyterServer, NotebookPage, running_chromium
from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def jupyter(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """A Jupyter server that all tests share; its kernels have one store."""
    folder = tmp_path_factory.mktemp("jupyter")
    environment = {
        "XPANDER_BASE_URL": server.base_url,
        "XPANDER_API_KEY": server.key,
        "XPANDER_STORE": f"sqlite:///{folder / 'runs.db'}",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
    }
    started = JupyterServer(folder, environment)
    yield started
    started.stop()


# Not for the whole session: while Playwright runs, this thread has an event loop, which breaks other tests.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser that the tests of a module share; each page has its own profile."""
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def open_notebook(jupyter: JupyterServer, chromium: Browser) -> Iterator[Callable[..., NotebookPage]]:
    """Opens a notebook of these cells in a front end: ``open_notebook(*cells, front_end, theme, width)``.

    The first cell loads the extension, and has run, unless ``load=False``; so the first of one's own is cell 1.
    At the test's end the page's console must show no error.
    """
    opened: list[NotebookPage] = []

    def opens(
        *cells: str, front_end: str = "lab", theme: str = "light", width: int = 1280, load: bool = True
    ) -> NotebookPage:
        opened.append(NotebookPage(jupyter, chromium, (LOAD, *cells) if load else cells, front_end, theme, width))
        if load:
            opened[-1].run(0)
        return opened[-1]

    yield opens
    problems = []
    for page in opened:
        try:
            page.close()
        except AssertionError as problem:
            problems.append(str(problem))
    assert not problems, "\n".join(problems)
