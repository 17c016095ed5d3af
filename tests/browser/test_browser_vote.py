"""The vote in a real browser: blind, by keys and by mouse, kept as it is cast."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from front_ends import NotebookPage
from playwright.sync_api import Locator, WebSocket, expect

pytestmark = pytest.mark.browser

Opens = Callable[..., NotebookPage]

# Four inputs by two models of one agent, which repeats its prompt; then each answer but the last two is made another.
SWEPT = """\
import xpander_magics as xp
from xpander_magics.session import default_session
rows = [{"q": f"question {n}: {'which word is better? ' * 9}"} for n in range(4)]
runs = xp.sweep("{{ q }}", target="echo", models=["scripted/echo", "scripted/think"], over=rows, progress=False)
for n, run in enumerate(runs[:6]):
    run.result = ANSWERS[n % 2].format(n=n)
    default_session().store.update(run)"""
PLAIN = """\
ANSWERS = ("**Bold** answer {n}.\\n\\n- one\\n- two", "Plain answer {n}, " + "which says a little more. " * 8)
"""
HOSTILE = """\
ANSWERS = ("<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> {n}",
           "[link](javascript:window.hacked=1) ![](http://127.0.0.1:9/x.png) <style>body{{display:none}}</style> {n}")
"""
VOTE = "runs.vote(voter='ada', seed=7)"
NAMES = ("scripted", "echo", "think")


def opened(open_notebook: Opens, answers: str = PLAIN, vote: str = VOTE, **how: Any) -> tuple[NotebookPage, Locator]:
    """A notebook in which a vote is shown: its page, and the view."""
    page = open_notebook(answers + SWEPT, vote, **how)
    page.run(1)
    view = page.run(2).locator(".xpander-vote")
    expect(view).to_contain_text("0 of 3 judged")
    return page, view


def kept(page: NotebookPage, voter: str = "ada") -> list[tuple[Any, ...]]:
    """What the store has of a voter in this notebook's sweep: choice, whether it was undone, when it was cast."""
    path = page.server.folder / "runs.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        newest = "sweep_id = (SELECT sweep_id FROM sweeps ORDER BY seq DESC LIMIT 1)"
        query = f"SELECT choice, undone_at IS NOT NULL, added_at FROM votes WHERE {newest} AND voter = ? ORDER BY seq"
        return connection.execute(query, [voter]).fetchall()


def choices(page: NotebookPage) -> list[str]:
    return [choice for choice, undone, _ in kept(page) if not undone]


@pytest.mark.parametrize("front_end", ["lab", "notebook", "classic"])
def test_votes_by_keys_and_by_mouse(open_notebook: Opens, front_end: str) -> None:
    """Guards against keys that the notebook takes for its own: a 1 would make a heading of the cell."""
    page, view = opened(open_notebook, front_end=front_end)
    view.get_by_role("button", name="A is better").click()
    expect(view).to_contain_text("1 of 3 judged")
    assert choices(page) == ["left"]
    page.page.keyboard.press("2")
    expect(view).to_contain_text("2 of 3 judged")
    page.page.keyboard.press("u")
    expect(view).to_contain_text("1 of 3 judged")
    expect(view.get_by_role("status")).to_have_text("The last vote was taken back.")
    page.page.keyboard.press("0")
    expect(view).to_contain_text("2 of 3 judged")
    expect(view).to_contain_text("Last vote: skipped.")
    page.page.keyboard.press("3")
    expect(view).to_contain_text("All pairs are judged.")
    expect(view.get_by_role("table", name="Win rates")).to_be_visible()
    assert [(choice, undone) for choice, undone, _ in kept(page)] == [
        *(("left", 0), ("right", 1)),
        *(("skip", 0), ("both_good", 0)),
    ]
    page.page.keyboard.press("4")  # nothing is left to judge
    expect(view.get_by_role("button", name="Both bad")).to_have_attribute("aria-disabled", "true")
    assert len(choices(page)) == 3
    assert page.cell(2).locator("h1").count() == 0
    page.screenshot(f"vote-end-{front_end}")


def test_arrows_vote_and_text_fields_keep_their_keys(open_notebook: Opens) -> None:
    """Guards against a name that is typed being taken for votes."""
    page, view = opened(open_notebook)
    view.get_by_role("button", name="Both bad").focus()
    page.page.keyboard.press("ArrowRight")
    expect(view).to_contain_text("Last vote: B is better.")
    voter = view.get_by_label("Voter")
    voter.fill("")
    voter.press_sequentially("u123")
    page.page.keyboard.press("Enter")
    expect(view).to_contain_text("0 of 3 judged")
    assert choices(page) == ["right"]
    view.get_by_role("button", name="Both bad").focus()
    page.page.keyboard.press("ArrowLeft")
    expect(view).to_contain_text("1 of 3 judged")
    assert [choice for choice, *_ in kept(page, "u123")] == ["left"]


def test_names_come_after_the_vote(open_notebook: Opens) -> None:
    """Guards against a vote that isn't blind: a name or an id in the page or on its way there before the vote."""
    page = open_notebook(PLAIN + SWEPT, VOTE)
    page.run(1)
    frames: list[str] = []

    def listen(socket: WebSocket) -> None:
        socket.on(
            "framereceived", lambda data: frames.append(data if isinstance(data, str) else data.decode("latin-1"))
        )

    page.page.on("websocket", listen)
    page.reload()
    outputs = page.run(2)
    view = outputs.locator(".xpander-vote")
    expect(view).to_contain_text("0 of 3 judged")
    with sqlite3.connect(f"file:{page.server.folder / 'runs.db'}?mode=ro", uri=True) as connection:
        ids = [row[0] for row in connection.execute("SELECT run_id FROM runs ORDER BY seq DESC LIMIT 8")]
    sent = [frame for frame in frames if "comm_msg" in frame or "comm_open" in frame or "display_data" in frame]
    assert any("question" in frame for frame in sent), "the pair came by one of these"
    telling = re.compile("|".join(map(re.escape, [*NAMES, *ids])))
    assert not [frame for frame in sent if telling.search(frame)]
    assert not telling.search(outputs.inner_html())
    view.get_by_role("button", name="A is better").click()
    expect(view).to_contain_text(re.compile(r"A was (echo, B was think|think, B was echo)"))


def test_a_page_that_is_loaded_again_goes_on(open_notebook: Opens) -> None:
    """Guards against a reload that begins anew, or shows nothing."""
    page, view = opened(open_notebook)
    view.get_by_role("button", name="Both good").click()
    expect(view).to_contain_text("1 of 3 judged")
    asked = view.get_by_role("region", name="Input").inner_text()
    page.save()
    page.reload()
    view = page.outputs(2).locator(".xpander-vote")
    expect(view).to_contain_text("1 of 3 judged")
    expect(view.get_by_role("region", name="Input")).to_have_text(asked, use_inner_text=True)
    view.get_by_role("button", name="B is better").click()
    expect(view).to_contain_text("2 of 3 judged")
    assert choices(page) == ["both_good", "right"]


def test_hostile_answers_run_nothing(open_notebook: Opens) -> None:
    """Guards against what a model wrote running, or being loaded, in the page."""
    page, view = opened(open_notebook, HOSTILE)
    for number in range(3):
        view.get_by_role("button", name="Skip").click()
        expect(view).to_contain_text(f"{number + 1} of 3 judged")
        assert view.locator("script, img, style").count() == 0
    assert page.page.evaluate("window.hacked") is None
    assert view.is_visible()


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 420), ("dark", 420)])
def test_it_can_be_read_by_all(open_notebook: Opens, theme: str, width: int) -> None:
    """Guards against what axe-core finds, and against a view that is wider than its column."""
    # A narrow window of JupyterLab's is mostly its sidebar.
    front_end = "lab" if width > 1000 else "notebook"
    page, view = opened(open_notebook, theme=theme, width=width, front_end=front_end)
    page.screenshot(f"vote-{theme}-{width}")
    assert page.axe(".xpander-vote") == []
    for number in range(3):
        view.get_by_role("button", name="A is better").click()
        expect(view).to_contain_text(f"{number + 1} of 3 judged")
    expect(view.get_by_role("table", name="Win rates")).to_be_visible()
    view.scroll_into_view_if_needed()
    page.screenshot(f"vote-end-{theme}-{width}")
    assert page.axe(".xpander-vote") == []
    assert view.evaluate("node => node.scrollWidth <= node.clientWidth")


def test_the_static_equivalent_steps_back(open_notebook: Opens) -> None:
    """Guards against the standing being shown twice, or saved as it was before the votes."""
    page, view = opened(open_notebook)
    expect(page.outputs(2).get_by_text("No votes yet")).to_be_hidden()
    saved = page.save().cells[2].outputs
    assert any("No votes yet: 2 configurations" in output.data.get("text/html", "") for output in saved)
    view.get_by_role("button", name="A is better").click()
    expect(page.outputs(2).locator(".xpander-static")).to_contain_text("1 vote by 1 person")
    expect(page.outputs(2).locator(".xpander-static")).to_be_hidden()
    saved = page.save().cells[2].outputs
    assert any("1 vote by 1 person on 2 configurations" in output.data.get("text/plain", "") for output in saved)


def test_a_restarted_kernel_is_said(open_notebook: Opens) -> None:
    """Guards against buttons that look alive, and grey out for good when one is pressed."""
    page, view = opened(open_notebook)
    view.get_by_role("button", name="A is better").click()
    expect(view).to_contain_text("1 of 3 judged")
    page.restart()
    expect(view).to_contain_text("The kernel was restarted. Run the cell again to go on; what was voted is kept.")
    expect(view.get_by_role("button")).to_have_count(0)
    expect(page.outputs(2).locator(".xpander-static")).to_be_visible()
