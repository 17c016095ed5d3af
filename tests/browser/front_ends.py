"""Jupyter's front ends in a real browser: one server that has all of them, and a page with a notebook in it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, expect, sync_playwright

LOAD = "%load_ext xpander_magics"

# Machines are slow at times; what comes at all comes sooner.
expect.set_options(timeout=60_000)

# What Jupyter's own pages say of themselves on the console, none of it about a widget.
NOISE = (
    # A kernel that is restarted, or ended with its test, cuts its sockets.
    "WebSocket connection to",
    "Connection lost, reconnecting",
    "Could not restore the debugger state",
    # Notebook 7 asks for JupyterLab's file browser, which it doesn't have.
    "Command 'filebrowser:open-path' not registered",
    "Cannot read properties of undefined (reading 'schema')",
    # JupyterLab draws a widget's view once more after ipywidgets has closed it.
    "Cannot read properties of null (reading 'processLuminoMessage')",
)

_ATTEMPTS = 5
# Pixels; in windows that are narrower, JupyterLab's file list is closed.
_NARROW = 900

# Selectors that differ: cells, a cell's prompt (where a click selects it), its outputs, the kernel's state.
_LAB = {
    "path": "/lab/tree/{name}?reset",
    "cell": ".jp-Notebook .jp-Cell",
    "prompt": ".jp-InputPrompt",
    "outputs": ".jp-OutputArea",
    "idle": ".jp-Notebook-ExecutionIndicator[data-status=idle]",
    "accept": ".jp-Dialog .jp-mod-accept",
}
FRONT_ENDS: dict[str, dict[str, str]] = {
    "lab": _LAB,
    "notebook": {**_LAB, "path": "/notebooks/{name}"},
    "classic": {
        "path": "/nbclassic/notebooks/{name}",
        "cell": "#notebook-container > .cell",
        "prompt": ".input_prompt",
        "outputs": ".output_wrapper",
        "idle": "#notification_kernel, .kernel_idle_icon",
        "accept": ".modal.in .btn-danger",
    },
}


def chromium_path() -> str | None:
    """Where Chromium is; Playwright's own, if it has fetched one, comes last."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if os.path.exists(path) else None


@contextlib.contextmanager
def running_chromium() -> Iterator[Browser]:
    """A browser that asks nobody but the pages' own server for anything."""
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    sandbox = () if not hasattr(os, "geteuid") or os.geteuid() else ("--no-sandbox",)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=[*quiet, *sandbox])
        try:
            yield browser
        finally:
            browser.close()


class JupyterServer:
    """JupyterLab, Notebook 7 and the classic notebook on loopback, with nothing of the developer's own.

    Args:
        folder: where its notebooks, settings and sockets are.
        environment: what its kernels see besides.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.notebooks = folder / "notebooks"
        self.notebooks.mkdir(parents=True)
        self._token = secrets.token_hex(16)
        own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
        own |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
        own |= {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_TOKEN": self._token}
        env = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "XPANDER_"))}
        options = {
            "ServerApp.root_dir": self.notebooks,
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": 0,
            "ServerApp.terminals_enabled": False,
            "LabApp.news_url": "None",
            "LabApp.extension_manager": "readonly",
            "LanguageServerManager.autodetect": False,
        }
        command = [sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser"]
        command += [f"--{name}={value}" for name, value in options.items()]
        self.settings("apputils-extension", "notification", fetchNews="false", checkForUpdates=False)
        self.log = folder / "server.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env={**env, **own, **environment}, cwd=self.notebooks, stdout=log, stderr=log
            )
        try:
            self._until_ready()
        except BaseException:
            self.stop()
            raise

    def _until_ready(self) -> None:
        """Waits until it answers."""
        end = time.monotonic() + 180
        while time.monotonic() < end and self._process.poll() is None:
            for path in (self.folder / "runtime").glob("jpserver-*.json"):
                with contextlib.suppress(ValueError, OSError):
                    self.url = json.loads(path.read_text())["url"].rstrip("/")
                    self.ask("GET", "/api/status")
                    return
            time.sleep(0.1)
        raise AssertionError("Jupyter didn't start:\n" + self.log.read_text()[-2000:])

    def settings(self, extension: str, plugin: str, **values: Any) -> None:
        """Writes settings of JupyterLab's, which Notebook 7 reads, too; pages opened from now on have them."""
        path = self.folder / "settings" / "@jupyterlab" / extension / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    def address(self, path: str) -> str:
        """The whole address of a page, with the word that lets one in."""
        return f"{self.url}{path}{'&' if '?' in path else '?'}token={self._token}"

    def ask(self, method: str, path: str) -> Any:
        """What the server's REST API answers."""
        head = {"Authorization": f"token {self._token}"}
        request = urllib.request.Request(self.url + path, method=method, headers=head)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def end_kernels(self) -> None:
        """Ends all kernels."""
        for session in self.ask("GET", "/api/sessions"):
            with contextlib.suppress(urllib.error.HTTPError):
                self.ask("DELETE", f"/api/sessions/{session['id']}")

    def stop(self) -> None:
        """Ends it and its kernels."""
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class NotebookPage:
    """A notebook in a front end, used as a person uses it: by keys and clicks.

    Attributes:
        page: Playwright's page.
        errors: what the console and uncaught errors have said, without Jupyter's own noise.
        foreign: the addresses of what was asked for elsewhere than at the Jupyter server.
        path: the notebook's file.
    """

    def __init__(
        self, server: JupyterServer, browser: Browser, cells: tuple[str, ...], front_end: str, theme: str, width: int
    ) -> None:
        self.server = server
        self.front_end = front_end
        self._at = FRONT_ENDS[front_end]
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.path = server.notebooks / f"{secrets.token_hex(4)}.ipynb"
        spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        # Without a kernel's name a dialog asks for it, and swallows all clicks.
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata={"kernelspec": spec}
        )
        nbformat.write(notebook, self.path)
        name = {"dark": "JupyterLab Dark", "light": "JupyterLab Light"}[theme]
        server.settings("apputils-extension", "themes", theme=name)
        self._context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(120_000)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self._take(f"uncaught: {error}"))
        self.page.on("request", self._see)
        self.page.goto(server.address(self._at["path"].format(name=self.path.name)))
        self._until_ready()
        if front_end == "lab" and width < _NARROW:
            self.page.keyboard.press("Control+b")

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._take(f"{message.text} ({message.location.get('url', '')})")

    def _take(self, error: str) -> None:
        if not any(noise in error for noise in NOISE):
            self.errors.append(error)

    def _see(self, request: Request) -> None:
        if not request.url.startswith((self.server.url, "data:", "blob:")):
            self.foreign.append(request.url)

    def _until_ready(self) -> None:
        """Waits for the notebook and its kernel."""
        self.page.wait_for_selector(self._at["cell"])
        end = time.monotonic() + 180
        # The page says idle of a kernel that it hasn't heard of yet, too.
        while not any(
            session["path"] == self.path.name and session["kernel"]["execution_state"] == "idle"
            for session in self.server.ask("GET", "/api/sessions")
        ):
            assert time.monotonic() < end, "the kernel didn't get ready"
            self.page.wait_for_timeout(100)
        self.page.wait_for_selector(self._at["idle"], state="attached")

    def cell(self, number: int) -> Locator:
        """A cell, counted from 0; -1 is the last."""
        return self.page.locator(self._at["cell"]).nth(number)

    def outputs(self, number: int) -> Locator:
        """Where a cell's outputs are."""
        return self.cell(number).locator(self._at["outputs"]).first

    def select(self, number: int) -> None:
        """Selects a cell, in command mode."""
        self.cell(number).locator(self._at["prompt"]).first.click()

    def start(self, number: int) -> None:
        """Runs a cell, and doesn't wait for its end."""
        prompt = self.cell(number).locator(self._at["prompt"]).first
        before = prompt.inner_text()
        for attempt in range(_ATTEMPTS):
            self.select(number)
            self.page.keyboard.press("Control+Enter")
            try:
                # A page that has just been opened knows its keys a little later than it shows its cells: the first
                # cell. Any other isn't to run twice where the machine is slow.
                expect(prompt).not_to_have_text(before, timeout=20_000 if number else 2000)
            except AssertionError:
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    def wait(self, number: int, seconds: float = 180) -> None:
        """Waits for a cell that was started to end."""
        prompt = self.cell(number).locator(self._at["prompt"]).first
        expect(prompt).to_have_text(re.compile(r"\[\d+\]"), timeout=seconds * 1000)

    def run(self, number: int, seconds: float = 180) -> Locator:
        """Runs a cell to its end; returns where its outputs are."""
        self.start(number)
        self.wait(number, seconds)
        return self.outputs(number)

    def add(self, source: str) -> int:
        """Types a new cell at the end; returns its number."""
        count = self.page.locator(self._at["cell"]).count()
        self.select(count - 1)
        self.page.keyboard.press("b")
        expect(self.page.locator(self._at["cell"])).to_have_count(count + 1)
        self.page.keyboard.press("Enter")
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Escape")
        return count

    def execute(self, source: str, seconds: float = 180) -> Locator:
        """Types a new cell at the end and runs it to its end; returns where its outputs are."""
        return self.run(self.add(source), seconds)

    def interrupt(self) -> None:
        """Interrupts the kernel, by the keyboard."""
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("i")
        self.page.keyboard.press("i")

    def restart(self) -> None:
        """Restarts the kernel, as by its button."""
        self.page.remove_locator_handler(self.page.locator(".jp-Dialog"))
        self.select(0)
        self.page.keyboard.press("0")
        self.page.keyboard.press("0")
        with self.page.expect_response(re.compile("/api/kernels/.*/restart")):
            self.page.locator(self._at["accept"]).click()
        self._until_ready()

    def reload(self) -> None:
        """Loads the page again; the kernel goes on."""
        address = self.server.address(self._at["path"].replace("?reset", "").format(name=self.path.name))

        def again(dialog: Locator) -> None:
            print("loaded once more, as it asked:", dialog.all_inner_texts())
            self.page.goto(address)

        self.page.goto(address)
        self.page.wait_for_selector(self._at["cell"])
        # On a busy machine a page that is loaded beside its running kernel may begin with a question, in a dialog that
        # swallows all clicks.
        self.page.add_locator_handler(self.page.locator(".jp-Dialog"), again, times=1)

    def narrow(self, width: int) -> None:
        """Makes the window this narrow, and closes JupyterLab's file list, as a person would."""
        if self.front_end == "lab":
            self.page.keyboard.press("Control+b")
        self.page.set_viewport_size({"width": width, "height": 900})

    def save(self) -> nbformat.NotebookNode:
        """Saves it; returns what the file then holds."""
        self.page.keyboard.press("Escape")
        with self.page.expect_response(lambda r: r.request.method == "PUT" and "/api/contents/" in r.url):
            self.page.keyboard.press("Control+s")
        return nbformat.read(self.path, as_version=4)

    def screenshot(self, name: str) -> None:
        """Keeps a picture of the page where XPANDER_SCREENSHOTS says, if it does."""
        folder = os.environ.get("XPANDER_SCREENSHOTS")
        if folder:
            self.page.screenshot(path=Path(folder) / f"{name}.png")

    def axe(self, selector: str = ".xpander") -> list[str]:
        """The serious and critical faults that axe-core finds in our widgets, each in a line."""
        return serious_faults(self.page, selector)

    def close(self) -> None:
        """Closes the page, ends its kernel; nothing may have been said on the console or asked for elsewhere."""
        self._context.close()
        self.server.end_kernels()
        assert not self.errors, "the console shows errors:\n" + "\n".join(self.errors)
        assert not self.foreign, "asked for elsewhere:\n" + "\n".join(self.foreign)


def serious_faults(page: Page, selector: str) -> list[str]:
    """The serious and critical faults that axe-core finds in a part of a page, each in a line."""
    page.evaluate(_axe_source())
    found = page.evaluate("(selector) => axe.run({include: [[selector]]})", selector)
    assert found["passes"], "nothing was looked at"
    return [
        f"{fault['id']}: {fault['help']}: {node['html'][:200]} {node['failureSummary']}"
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


@functools.cache
def _axe_source() -> str:
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
