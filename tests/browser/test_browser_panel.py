"""The panel in a real browser: chosen, run, watched, stopped, copied, reloaded."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable

import pytest
from fault_server import KEY, FaultServer, Request, agent, reply
from front_ends import NotebookPage
from playwright.sync_api import Locator, expect

pytestmark = pytest.mark.browser

Opens = Callable[..., NotebookPage]
SLOW = "s = {'script': {'chunks': 4000, 'rate': 20, 'result': 'word ' * 4000}}\n%xpander use --payload s"
BAD = "<img src=x onerror=window.hacked=1>"


def panel(page: NotebookPage, number: int) -> Locator:
    """Runs the cell that shows a panel; returns it once its lists are there."""
    page.run(number)
    shown = page.cell(number).locator(".xpander-panel")
    expect(shown.get_by_label("Targets", exact=True).locator("option")).not_to_have_count(0)
    expect(shown.get_by_label("Models", exact=True).locator("option")).not_to_have_count(0)
    return shown


def fill(shown: Locator, prompt: str, **texts: str) -> None:
    for label, text in {"Target": "echo", **texts, "Prompt": prompt}.items():
        shown.get_by_label(label.replace("_", " "), exact=True).fill(text)


@pytest.mark.parametrize("front_end", ["lab", "notebook", "classic"])
def test_chosen_and_run(open_notebook: Opens, front_end: str) -> None:
    """Guards against controls that say one thing and send another, in each front end."""
    page = open_notebook("name = 'Ada'", "%xpander panel", front_end=front_end)
    page.run(1)
    shown = panel(page, 2)
    page.page.set_viewport_size({"width": 1280, "height": 1500})
    shown.get_by_label("Targets", exact=True).select_option("echo · agent · ACTIVE")
    shown.get_by_label("Provider", exact=True).select_option("scripted")
    shown.get_by_label("Models", exact=True).select_option("think")
    shown.get_by_label(re.compile("^low:")).check()
    fill(shown, "Hello {{ name }} and {{ nobody }}", Bind_to="answer")
    expect(shown.get_by_role("row", name="nobody")).to_contain_text("not defined")
    expect(shown.get_by_role("row", name="name 'Ada'")).to_be_visible()
    shown.get_by_label("Prompt", exact=True).fill("Hello {{ name }}")
    expect(shown).to_contain_text("1 run, 2 requests, to echo.")
    shown.get_by_role("button", name="Run").click()
    expect(shown.locator(".xpander-run")).to_contain_text("completed · scripted/think · effort low")
    last = shown.get_by_role("table", name="Last runs")
    expect(last.get_by_role("row").nth(1)).to_contain_text("Hello Ada")
    page.screenshot(f"panel-run-{front_end}")
    expect(shown).to_contain_text("Defaults of later cells: echo -m scripted/think -e low")
    later = page.execute("%%xpander -o later\nhello")
    expect(later).to_contain_text("completed · scripted/think · effort low")
    expect(page.execute("print(answer.result, later.result)")).to_contain_text("Hello Ada hello")


def test_a_run_is_watched_and_stopped(open_notebook: Opens) -> None:
    """Guards against a panel that keeps the kernel busy, shows nothing until the end, or can't be stopped."""
    page = open_notebook(SLOW, "%xpander panel")
    page.run(1)
    shown = panel(page, 2)
    fill(shown, "hello", Bind_to="answer")
    shown.get_by_role("button", name="Run").click()
    expect(shown.locator(".xpander-live")).to_contain_text("word word")
    expect(shown.get_by_role("button", name="Run")).to_be_disabled()
    expect(page.execute("print(1 + 1)")).to_contain_text("2")
    shown.get_by_role("button", name="Stop").click()
    expect(shown).to_contain_text("was stopped before it ended")
    expect(shown.get_by_role("button", name="Run")).to_be_enabled()
    expect(page.execute("print(answer.status)")).to_contain_text("stopped")


def test_a_comparison_shows_how_it_goes(open_notebook: Opens) -> None:
    """Guards against a sweep without progress, or one whose table never comes."""
    page = open_notebook("rows = [{'text': f'number {n}'} for n in range(3)]", "%xpander panel")
    page.run(1)
    shown = panel(page, 2)
    fill(shown, "{{ text }}", Model="scripted/echo", Over="rows", Bind_to="found")
    shown.get_by_role("button", name="Compare with another model").click()
    expect(shown.get_by_role("button", name="Remove scripted/echo")).to_be_visible()
    shown.get_by_label("Model", exact=True).fill("scripted/slow")
    expect(shown).to_contain_text("6 runs, 6 requests, to echo.")
    shown.evaluate(
        """shown => {
            window.seen = [];
            new MutationObserver(() => window.seen.push(shown.querySelector(".xpander-live")?.textContent))
                .observe(shown, {childList: true, subtree: true, characterData: true});
        }"""
    )
    shown.get_by_role("button", name="Run").click()
    expect(shown.locator(".xpander-runs")).to_contain_text("6 runs: 6 completed")
    assert [text for text in page.page.evaluate("window.seen") if text and re.search("[345] of 6", text)]
    expect(shown).to_contain_text("found.board() shows them side by side")
    expect(page.execute("print(len(found))")).to_contain_text("6")


def test_copied_as_a_cell(open_notebook: Opens) -> None:
    """Guards against a clipboard that is written too late to be allowed, and a page that may not write it."""
    page = open_notebook("name = 'Ada'", "%xpander panel")
    page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.run(1)
    shown = panel(page, 2)
    fill(shown, "Hello {{ name }}", Model="scripted/think", Bind_to="answer")
    expect(shown).to_contain_text("1 run, 2 requests, to echo.")
    shown.get_by_role("button", name="Copy as cell").click()
    expect(shown).to_contain_text("Copied: paste it into a cell.")
    copied = page.page.evaluate("navigator.clipboard.readText()")
    assert copied == "%%xpander echo -m scripted/think -o answer\nHello {{ name }}"
    expect(page.execute(copied)).to_contain_text("completed · scripted/think")
    page.page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    shown.get_by_role("button", name="Copy as cell").click()
    text = shown.get_by_label("The cell that does the same")
    expect(text).to_have_value(copied)
    expect(text).to_be_focused()
    assert page.page.evaluate("getSelection().toString()") == copied


def test_by_the_keyboard_alone(open_notebook: Opens) -> None:
    """Guards against keys that the notebook takes for its own: an x on a button would cut the cell out."""
    page = open_notebook("%xpander panel", "1")
    shown = panel(page, 1)
    shown.get_by_label("Targets", exact=True).focus()
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("ArrowDown")
    expect(shown.get_by_label("Target", exact=True)).to_have_value("echo")
    shown.get_by_label(re.compile("^high:")).focus()
    page.page.keyboard.press("Space")
    expect(shown.get_by_label(re.compile("^high:"))).to_be_checked()
    shown.get_by_label("Prompt", exact=True).focus()
    page.page.keyboard.type("dd x hello")
    expect(shown).to_contain_text("1 run, 2 requests")
    shown.get_by_role("button", name="Run").focus()
    page.page.keyboard.press("x")
    page.page.keyboard.press("Enter")
    expect(shown.locator(".xpander-run")).to_contain_text("dd x hello")
    expect(page.page.locator(".jp-Notebook .jp-Cell")).to_have_count(3)


@pytest.mark.parametrize("front_end", ["lab", "notebook", "classic"])
def test_the_keys_that_run_a_cell_run_the_panel(open_notebook: Opens, front_end: str) -> None:
    """Guards against a panel that needs the mouse for each run, or a key that runs the notebook's cell anew."""
    page = open_notebook("%xpander panel", front_end=front_end)
    shown = panel(page, 1)
    fill(shown, "typed here", Bind_to="answer")
    shown.get_by_label("Prompt", exact=True).press("Control+Enter")
    expect(shown.locator(".xpander-run")).to_contain_text("typed here")
    expect(shown.get_by_label("Prompt", exact=True)).to_have_value("typed here")


def test_a_page_that_is_loaded_again(open_notebook: Opens) -> None:
    """Guards against a panel that forgets what was chosen, or a run that goes on unseen."""
    page = open_notebook(SLOW, "%xpander panel")
    page.run(1)
    shown = panel(page, 2)
    fill(shown, "hello")
    shown.get_by_role("button", name="Run").click()
    expect(shown.locator(".xpander-live")).to_contain_text("word word")
    page.save()
    page.reload()
    shown = page.cell(2).locator(".xpander-panel")
    expect(shown.get_by_label("Prompt", exact=True)).to_have_value("hello")
    expect(shown.get_by_label("Targets", exact=True)).to_have_value("echo · agent · ACTIVE")
    expect(shown.locator(".xpander-live")).to_contain_text("word word")
    stands_in = page.cell(2).locator(".xpander-static")
    expect(stands_in).to_have_count(1)
    expect(stands_in).to_be_hidden()
    shown.get_by_role("button", name="Stop").click()
    expect(shown).to_contain_text("was stopped before it ended")


def test_a_kernel_that_is_restarted(open_notebook: Opens) -> None:
    """Guards against a notebook without its kernel that shows nothing, and a second panel that fails."""
    page = open_notebook("%xpander panel")
    shown = panel(page, 1)
    fill(shown, "hello {{ name }}")
    expect(shown).to_contain_text("Defaults of later cells: echo")
    stands_in = page.cell(1).locator(".xpander-static")
    expect(stands_in).to_contain_text("%%xpander echo\nhello {{ name }}")  # hidden still; it follows a little later
    page.select(0)
    page.save()
    page.restart()
    page.reload()
    expect(stands_in).to_be_visible()
    expect(stands_in).to_contain_text("%%xpander echo\nhello {{ name }}")
    page.run(0)
    shown = panel(page, 1)
    expect(page.cell(1).locator(".xpander-static")).to_be_hidden()
    fill(shown, "again")
    shown.get_by_role("button", name="Run").click()
    expect(shown.locator(".xpander-run")).to_contain_text("completed")
    # What Jupyter says of every widget that a restarted kernel has no more.
    page.errors[:] = [error for error in page.errors if "widget model not found" not in error]


def elsewhere(service: FaultServer) -> str:
    """A cell that makes the kernel talk to another service."""
    return (
        f"import os; os.environ.update(XPANDER_BASE_URL={service.url!r}, XPANDER_API_KEY={KEY!r})\n"
        "%config XpanderMagics.retries = 0"
    )


def test_lists_that_fail(open_notebook: Opens, service: FaultServer) -> None:
    """Guards against a panel that waits for its lists, or is of no use without them."""
    seen = threading.Event()
    broken = reply(500, {"detail": "broken"})

    def late(server: FaultServer, connection: socket.socket, request: Request) -> bool:
        seen.wait(300)
        return broken(server, connection, request)

    service.on("GET /v1/agents*", late)
    service.on("GET /v1/misc/*", broken)
    page = open_notebook(elsewhere(service) + "\n%config XpanderMagics.read_timeout = 300", "%xpander panel")
    page.run(1)
    page.run(2)
    shown = page.cell(2).locator(".xpander-panel")
    expect(shown).to_contain_text("Loading agents and workflows")
    expect(page.execute("print(1 + 1)")).to_contain_text("2")
    again = shown.get_by_role("button", name="Try again")
    seen.set()
    expect(shown).to_contain_text("The agents and workflows can't be listed")
    fill(shown, "hello", Target="writer", Model="openai/gpt-5")
    expect(shown).to_contain_text("Defaults of later cells: writer -m openai/gpt-5")
    page.screenshot("panel-failing")
    assert not page.axe(".xpander-panel")
    again.click()
    expect(again).to_be_hidden()
    expect(shown.get_by_label("Targets", exact=True)).to_have_value("writer · agent · ACTIVE")
    expect(shown.get_by_label("Models", exact=True)).to_have_value("gpt-5")
    shown.get_by_role("button", name="Run").click()
    expect(shown.locator(".xpander-run")).to_contain_text("completed · openai/gpt-5")


def test_hostile_names_and_answers_run_nothing(open_notebook: Opens, service: FaultServer) -> None:
    """Guards against markup of others that becomes part of the page."""
    service.service.agents = [agent(BAD, 1, description=BAD), agent("writer", 2, status=BAD)]
    service.service.models = {BAD: [BAD]}
    service.service.final = {"status": "completed", "result": BAD}
    page = open_notebook(elsewhere(service) + f"\nbad = {BAD!r}", "%xpander panel")
    page.run(1)
    shown = panel(page, 2)
    shown.get_by_label("Targets", exact=True).select_option(index=0)
    shown.get_by_label("Models", exact=True).select_option(index=0)
    chosen = shown.get_by_label("Target", exact=True)
    for text in (chosen, shown.get_by_label("Model", exact=True)):
        expect(text).to_have_value(re.compile("."))  # the kernel says what was chosen
    fill(shown, "{{ bad }}", Target=chosen.input_value())
    shown.get_by_role("button", name="Run").click()
    expect(shown.locator(".xpander-run")).to_contain_text(BAD)
    expect(shown.get_by_role("table", name="Last runs")).to_contain_text(BAD)
    assert page.page.evaluate("window.hacked") is None
    assert page.page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_can_be_seen_and_heard(open_notebook: Opens, theme: str) -> None:
    """Guards against faults that axe-core finds, and what a narrow column cuts off."""
    page = open_notebook("name = 'Ada'", "%xpander panel", theme=theme)
    page.run(1)
    shown = panel(page, 2)
    fill(shown, "Hello {{ name }} {{ nobody }}", Model="scripted/think")
    shown.get_by_role("button", name="Compare with another model").click()
    expect(shown).to_contain_text("not defined")
    shown.get_by_role("button", name="Run").click()
    expect(shown.get_by_role("alert")).to_contain_text("is not defined")
    shown.get_by_label("Prompt", exact=True).fill("Hello {{ name }}")
    page.page.wait_for_timeout(1100)  # sooner it would be a double click
    shown.get_by_role("button", name="Run").click()
    expect(shown.locator(".xpander-run")).to_contain_text("completed")
    inside = """node => [node, ...node.querySelectorAll("input, select, textarea, button")].every((one) =>
        one.getBoundingClientRect().right <= Math.min(innerWidth, node.getBoundingClientRect().right + 1)
    )"""
    for width in (1280, 420):
        if width < 600:
            page.page.keyboard.press("Control+b")  # the side bar has its own width
        page.page.set_viewport_size({"width": width, "height": 1900})
        # Jupyter follows the window's size a little later.
        page.page.wait_for_function(inside, arg=shown.element_handle())
        page.screenshot(f"panel-{theme}-{width}")
        assert not page.axe(".xpander-panel")
