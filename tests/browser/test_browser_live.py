"""The live view of a run, in a real browser: watched, stopped, scrolled, loaded again, attacked."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from front_ends import NotebookPage
from playwright.sync_api import Locator, expect

from xpander_magics.showing.carried import MIME

pytestmark = pytest.mark.browser

Opens = Callable[..., NotebookPage]
FRONT_ENDS = ("lab", "notebook", "classic")
SLOW = "s = {'script': {'chunks': ['word %d\\n' % i for i in range(2000)], 'rate': 40}}"
ATTACK = (
    "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'><svg onload='window.pwned = 1'>"
    "[a link](javascript:window.pwned=1) ![a picture](https://evil.example/p.png) <style>body{display:none}</style>"
    "<a href='javascript:window.pwned=1' id='link'>click</a> \x1b[31mred \u202egnp.exe\u202c "
)


def stop_of(outputs: Locator) -> Locator:
    """The stop button of a live view."""
    return outputs.get_by_role("button", name="Stop")


def stops(page: NotebookPage, cell: int = 1) -> None:
    """Presses Stop as soon as the answer streams in; waits for the cell's end."""
    outputs = page.outputs(cell)
    expect(outputs).to_contain_text("word 3")
    stop_of(outputs).click()
    page.wait(cell)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_text_comes_while_the_cell_runs_and_the_final_rendering_is_kept(open_notebook: Opens, front_end: str) -> None:
    """Guards against a view that comes late or stays, and against widgets in a saved notebook."""
    chunks = "['# Title\\n\\n'] + ['word '] * 60"
    script = f"s = {{'script': {{'chunks': {chunks}, 'rate': 20, 'think': ['Fi', 'rst.'], 'tools': True}}}}"
    page = open_notebook(script, "%%xpander echo --payload s\nhello", front_end=front_end)
    page.run(1)
    page.start(2)
    outputs = page.outputs(2)
    expect(outputs.locator(".xpander-live")).to_contain_text("# Title")
    expect(outputs.locator(".xpander-live")).to_contain_text("word word word")
    expect(page.cell(2)).to_contain_text("[*]")
    expect(outputs.locator("summary")).to_have_text("3 steps · tool result")
    expect(outputs.get_by_text("thought: First.")).to_be_hidden()
    outputs.locator("summary").click()
    expect(outputs.get_by_text("thought: First.")).to_be_visible()
    page.wait(2)
    expect(outputs.locator("h1")).to_have_text("Title")
    expect(outputs).to_contain_text("completed · scripted/echo")
    expect(outputs.locator(".xpander-live")).to_have_count(0)
    saved = page.save()
    assert [set(out.data) for out in saved.cells[2].outputs] == [{"text/plain", "text/html", MIME}]
    assert "widgets" not in saved.metadata


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_stop(open_notebook: Opens, front_end: str) -> None:
    """Guards against a button that is heard only once the cell has ended."""
    page = open_notebook(SLOW, "%%xpander echo --payload s -o run\nhello", "run.status", front_end=front_end)
    page.run(1)
    page.start(2)
    stops(page, 2)
    expect(page.run(3)).to_contain_text("'stopped'")
    expect(page.outputs(2)).to_contain_text("stopped · scripted/echo")
    expect(page.outputs(2).locator(".xpander-live")).to_have_count(0)


@pytest.mark.parametrize("front_end", ["lab", "classic"])
def test_stop_stops_what_an_interrupt_would_leave(open_notebook: Opens, front_end: str) -> None:
    """Guards against a stop that ``--on-interrupt detach`` turns into leaving the task running."""
    cell = "%%xpander echo --payload s -o run --on-interrupt detach\nhello"
    page = open_notebook(SLOW, cell, "run.refresh().status", front_end=front_end)
    page.run(1)
    page.start(2)
    stops(page, 2)
    for _ in range(20):
        outputs = page.run(3)
        if "'stopped'" in outputs.inner_text():
            break
    expect(outputs).to_contain_text("'stopped'")
    expect(page.outputs(2)).to_contain_text("was stopped by its button")
    expect(page.outputs(2)).to_contain_text("stopped · scripted/echo")
    # The classic notebook knows no subshells: there the interrupt comes first, and the word to stop after it.
    expect(page.outputs(2).get_by_text("Its task was left running")).to_have_count(int(front_end == "classic"))


@pytest.mark.parametrize("front_end", ["lab", "notebook"])
def test_keys_on_it_are_no_commands_of_the_notebook(open_notebook: Opens, front_end: str) -> None:
    """Guards against an x on Stop that cuts the cell, and against keys that are dead once another cell is clicked."""
    page = open_notebook(SLOW, "%%xpander echo --payload s\nhello", "'another'", front_end=front_end)
    page.run(1)
    page.start(2)
    expect(page.outputs(2)).to_contain_text("word 3")
    stop_of(page.outputs(2)).focus()
    page.page.keyboard.press("x")
    page.page.keyboard.press("ArrowDown")
    expect(stop_of(page.outputs(2))).to_be_focused()
    page.page.keyboard.press("Enter")
    page.wait(2)
    expect(page.outputs(2)).to_contain_text("was stopped by its button")


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_stop_before_the_task_is_known(open_notebook: Opens, mode: str) -> None:
    """Guards against a stop that waits for an id which a sync call tells only at its end."""
    cell = f"%%xpander echo --payload s -o run --mode {mode}\nhello"
    page = open_notebook("s = {'script': {'delay': 60}}", cell, "run.status")
    page.run(1)
    page.start(2)
    expect(page.outputs(2)).to_contain_text("Waiting for the answer…")
    stop_of(page.outputs(2)).click()
    page.wait(2)
    expect(page.run(3)).to_contain_text("'stopped'")
    expect(page.outputs(2)).to_contain_text("stopped")


@pytest.mark.parametrize("front_end", ["lab", "notebook"])
def test_a_page_that_is_loaded_again_shows_the_end(open_notebook: Opens, front_end: str) -> None:
    """Guards against text that only the page that has seen it come knows.

    While its cell runs, the kernel answers no new page, and a view waits: the front ends' own limit.
    """
    script = "s = {'script': {'chunks': ['**bold** '] + ['word %d\\n' % i for i in range(400)], 'rate': 40}}"
    page = open_notebook(script, "%%xpander echo --payload s -o run\nhello", "run.status", front_end=front_end)
    page.run(1)
    page.start(2)
    expect(page.outputs(2)).to_contain_text("word 3")
    assert "was under way here" not in page.outputs(2).inner_text()
    page.save()
    page.reload()
    expect(page.cell(2)).to_contain_text("was under way here; %xpander show")
    live = page.outputs(2).locator(".xpander-live")
    expect(live.locator("strong")).to_have_text("bold")
    expect(live).to_contain_text("completed · scripted/echo")
    expect(stop_of(live)).to_have_count(0)
    expect(page.cell(2)).not_to_contain_text("was under way here", use_inner_text=True)
    expect(page.run(3)).to_contain_text("'completed'")


def test_a_second_page_goes_on_with_the_text(open_notebook: Opens) -> None:
    """Guards against a view that opens later and has only what comes from then on."""
    open_view = "from IPython.display import display; display(live)"
    begin = (
        "import threading, time\nfrom xpander_magics.widgets.live import LiveText\n"
        "from xpander_magics.contract import Event\nfrom xpander_magics.results import Run\n"
        "live, run = LiveText(), Run()\nlive.begin()\n"
        "def work():\n    for i in range(400):\n"
        "        live.listen(run, Event('chunk', None, None, '', {}), f'word {i} \U0001f600\\n'); time.sleep(.02)\n"
        "    live.finish()\nthreading.Thread(target=work).start()"
    )
    page = open_notebook(begin, open_view, open_view)
    page.run(1)
    page.run(2)
    expect(page.outputs(2)).to_contain_text("word 20")
    page.run(3)
    expect(page.outputs(3)).to_contain_text("word 399")
    expected = "".join(f"word {i} \U0001f600\n" for i in range(400))
    for number in (2, 3):
        assert page.outputs(number).locator(".xp-scroll .xp-text").text_content() == expected


def test_a_restarted_kernel_leaves_no_broken_view(open_notebook: Opens) -> None:
    """Guards against a Stop that nobody hears, and against a view that breaks the next one."""
    page = open_notebook(SLOW, "%%xpander echo --payload s -o run\nhello")
    page.run(1)
    page.start(2)
    expect(page.outputs(2)).to_contain_text("word 3")
    page.restart()
    expect(page.outputs(2)).to_contain_text("The kernel was restarted.")
    expect(page.outputs(2)).to_contain_text("word 3")
    expect(stop_of(page.outputs(2))).to_have_count(0)
    page.run(0)
    page.run(1)
    page.start(2)
    stops(page, 2)
    expect(page.outputs(2).locator(".xpander-live")).to_have_count(0)


@pytest.mark.parametrize("front_end", ["lab", "notebook"])
def test_reading_is_not_disturbed(open_notebook: Opens, front_end: str) -> None:
    """Guards against a page, or a view, that scrolls away under its reader."""
    long = [f"# cell {i}\n" + "pass\n" * 12 for i in range(4)]
    page = open_notebook(SLOW, "%%xpander echo --payload s\nhello", *long, front_end=front_end)
    page.run(1)
    page.start(2)
    box = page.outputs(2).locator(".xp-scroll")
    expect(box).to_contain_text("word 80")
    at_end = "box => box.scrollHeight - box.scrollTop - box.clientHeight < 5"
    assert box.evaluate(at_end), "who reads the end follows it"
    box.evaluate("box => box.scrollTop = 100")
    expect(box).to_contain_text("word 110")
    assert box.evaluate("box => box.scrollTop") == 100
    page.cell(4).scroll_into_view_if_needed()
    before = page.cell(4).bounding_box()
    expect(box).to_contain_text("word 150")
    assert page.cell(4).bounding_box() == before
    box.evaluate("box => box.scrollTop = box.scrollHeight")
    expect(box).to_contain_text("word 180")
    assert box.evaluate(at_end)


def test_each_update_only_adds_text(open_notebook: Opens) -> None:
    """Guards against flicker: text that is drawn again, and a selection that is lost."""
    page = open_notebook(SLOW, "%%xpander echo --payload s\nhello")
    page.run(1)
    page.start(2)
    text = page.outputs(2).locator(".xp-scroll .xp-text")
    expect(text).to_contain_text("word 5")
    text.evaluate(
        """text => {
            window.removed = 0;
            new MutationObserver((all) => all.forEach((one) => (window.removed += one.removedNodes.length)))
                .observe(text.closest(".xpander-live"), {childList: true, subtree: true});
            getSelection().selectAllChildren(text.firstChild.parentNode);
            getSelection().setBaseAndExtent(text.firstChild, 0, text.firstChild, 4);
        }"""
    )
    expect(text).to_contain_text("word 60")
    assert page.page.evaluate("window.removed") == 0
    assert page.page.evaluate("getSelection().toString()") == "word"
    stops(page, 2)


@pytest.mark.parametrize("front_end", ["lab", "notebook", "classic"])
def test_hostile_answers_run_nothing(open_notebook: Opens, front_end: str) -> None:
    """Guards against answers, thoughts and errors that become markup; what they ask for elsewhere fails the test."""
    chunks = [ATTACK[i : i + 7] for i in range(0, len(ATTACK), 7)]
    script = (
        f"attack, chunks = {ATTACK!r}, {chunks!r} + ['x' * 100_000] + ['.'] * 80\n"
        "s = {'script': {'chunks': chunks, 'rate': 40, 'think': [attack], 'fail': attack}}"
    )
    page = open_notebook(script, "%%xpander echo --payload s\n{{ attack }}", front_end=front_end, width=800)
    page.run(1)
    page.start(2)
    live = page.outputs(2).locator(".xpander-live")
    expect(live).to_contain_text("xxxxxx")
    live.locator("summary").click()
    expect(live.locator("li")).to_contain_text("<script>")
    assert live.locator("script, img, style, svg, .xp-text a").count() == 0
    page.screenshot(f"live-hostile-{front_end}")
    page.wait(2)
    outputs = page.outputs(2)
    expect(outputs).to_contain_text("failed · scripted/echo")
    found = outputs.locator("script, img, style, svg:not([data-icon]), a[href^=javascript]")
    assert [found.nth(i).evaluate("node => node.outerHTML") for i in range(found.count())] == []
    assert page.page.evaluate("window.pwned") is None
    assert "\u202e" not in outputs.inner_text()


def test_many_short_runs_leave_nothing_behind(open_notebook: Opens) -> None:
    """Guards against views of runs that end before they are drawn, and widgets that pile up."""
    cells = ["%%xpander echo\nhello"] * 20
    page = open_notebook(*cells)
    for number in range(1, 21):
        page.start(number)
    page.wait(20)
    for number in range(1, 21):
        expect(page.outputs(number)).to_contain_text("completed")
    expect(page.page.locator(".xpander-live")).to_have_count(0)


@pytest.mark.parametrize("front_end", ["lab", "notebook"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_anybody_can_use_it(open_notebook: Opens, front_end: str, theme: str) -> None:
    """Guards against low contrast, missing labels, a mouse that is needed, and columns that are too narrow."""
    chunks = "['word %d ' % i for i in range(4000)]"
    script = f"s = {{'script': {{'chunks': {chunks}, 'rate': 60, 'think': ['First.'], 'tools': True}}}}"
    page = open_notebook(script, "%%xpander echo --payload s\nhello", front_end=front_end, theme=theme)
    page.run(1)
    for width in (1280, 420):
        if width < 1280:
            page.narrow(width)
        page.start(2)
        live = page.outputs(2).locator(".xpander-live")
        expect(live).to_contain_text("word 9")
        live.locator("summary").focus()
        page.page.keyboard.press("Enter")
        expect(live.locator("li").first).to_be_visible()
        page.screenshot(f"live-{front_end}-{theme}-{width}")
        assert page.axe() == []
        assert live.evaluate("live => live.scrollWidth <= live.clientWidth + 1")
        stop_of(live).focus()
        page.page.keyboard.press("Enter")
        page.wait(2)
        page.screenshot(f"live-{front_end}-{theme}-{width}-end")


def test_without_widgets_the_text_is_printed(open_notebook: Opens) -> None:
    """Guards against a setting that front ends without widgets need, and that nothing obeys."""
    page = open_notebook(SLOW, "%config XpanderMagics.widgets = False", "%%xpander echo --payload s\nhello")
    page.run(1)
    page.run(2)
    page.start(3)
    expect(page.outputs(3)).to_contain_text("word 3")
    assert page.outputs(3).locator(".xpander-live").count() == 0
    page.interrupt()
    page.wait(3)
    expect(page.outputs(3)).to_contain_text(re.compile("Interrupted: Run .* Its task was stopped."))
