"""The board in a real browser."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable

import pytest
from front_ends import NotebookPage
from playwright.sync_api import Browser, Locator, expect

from xpander_magics.widgets.front import source

pytestmark = pytest.mark.browser

Opens = Callable[..., NotebookPage]

ROWS = """rows = [
    {'text': 'one', 'p': {'script': {'result': 'The **same** answer', 'tools': True, 'think': ['Hm.']}}},
    {'text': 'two', 'p': {'script': {'result': 'Another long answer ' + 'with many words ' * 30 + 'at its end'}}},
    {'text': 'three', 'p': {'script': {'result': '# Title', 'fail': None}}},
]"""
SWEEP = "%%xpander echo --over rows --payload p -m scripted/echo,scripted/fail -n 2 -o runs\n{{ text }}"
# Answers that differ in a few words, without a service that would have to be told them.
MADE = """from xpander_magics import Run
from xpander_magics.outcomes import Entry, Runs
from xpander_magics.session import default_session
from xpander_magics.contract import Event

def made(*several):
    held = {run.run_id: run for run in several}
    default_session().store.add(several)
    return Runs(default_session(), 'ab' * 16, [Entry(n, run_id) for n, run_id in enumerate(held)], held)

def answer(text, result, model, **more):
    more = {'status': 'completed', 'latency_s': 1.0, 'total_tokens': 10, **more}
    return Run(prompt=text, variables={'text': text}, requested_model=model, result=result, **more)
"""
SMALL = """made(
    answer('apples', 'I like red apples very much', 'a', latency_s=1.0, scores={'exact': 1.0}),
    answer('apples', 'I like green apples', 'b', latency_s=5.0, scores={'exact': 0.0}),
    answer('pears', 'Pears are fine', 'a', latency_s=2.0),
    answer('pears', 'Pears are  fine', 'b', latency_s=4.0),
    answer('plums', 'None left', 'a', latency_s=3.0),
    answer('plums', None, 'b', status='failed', error='It broke', error_type='ServerError', latency_s=3.0),
).board()"""


def board_of(outputs: Locator) -> Locator:
    """The board among a cell's outputs, once it shows its cells."""
    board = outputs.locator(".xpander-board")
    expect(board.get_by_role("gridcell").first).to_be_visible()
    return board


def inputs_in(board: Locator) -> list[str]:
    """The inputs that are in the grid, from top to bottom."""
    heads = board.get_by_role("rowheader")
    found = heads.evaluate_all("nodes => nodes.map(n => [Number(n.parentNode.ariaRowIndex), n.innerText.trim()])")
    return [re.sub(r"^\d+ ", "", text) for _, text in sorted(found)]


def choose(board: Locator, name: str) -> None:
    board.get_by_role("radio", name=re.compile(name)).check()


@pytest.mark.parametrize("front_end", ["lab", "notebook", "classic"])
def test_a_sweep_is_shown_as_a_board_in_place_of_its_table(open_notebook: Opens, front_end: str) -> None:
    """Guards against a sweep that shows its table and its board, or none of them."""
    page = open_notebook(ROWS, SWEEP, front_end=front_end)
    page.run(1)
    outputs = page.run(2)
    board = board_of(outputs)
    expect(outputs.locator(".xpander-static")).to_be_hidden()
    expect(board.get_by_role("grid")).to_have_attribute("aria-rowcount", "4")
    cell = board.get_by_role("gridcell").first
    expect(cell).to_contain_text("2× The **same** answer")
    cell.click()
    opened = board.get_by_role("region", name="Opened input")
    expect(opened.locator("strong", has_text="same").first).to_be_visible()
    expect(opened.get_by_role("img", name=re.compile("In this order: thought, tool lookup")).first).to_be_visible()
    page.screenshot(f"board-{front_end}")


def test_filters_search_and_sorting(open_notebook: Opens) -> None:
    """Guards against filters whose counts and rows disagree."""
    page = open_notebook(MADE, SMALL)
    page.run(1)
    board = board_of(page.run(2))
    assert inputs_in(board) == ["apples", "pears", "plums"]
    for name, found in {
        "Failures 2": ["apples", "plums"],
        "Errors 1": ["plums"],
        "Different 1": ["apples"],
    }.items():
        choose(board, name)
        expect(board.get_by_role("rowheader")).to_have_count(len(found))
        assert inputs_in(board) == found
    choose(board, "All 3")
    board.get_by_role("searchbox").fill("GREEN")
    expect(board.get_by_role("rowheader")).to_have_count(1)
    board.get_by_role("searchbox").fill("")
    expect(board.get_by_role("rowheader")).to_have_count(3)
    board.get_by_label("Sort by", exact=True).select_option("seconds")
    board.get_by_label("Configuration to sort by").select_option("b")
    assert inputs_in(board) == ["apples", "pears", "plums"]
    board.get_by_role("button", name="descending").click()
    assert inputs_in(board) == ["plums", "pears", "apples"]
    expect(board.get_by_role("columnheader", name=re.compile("^b"))).to_have_attribute("aria-sort", "ascending")


def test_differences_are_marked_against_a_baseline_that_moves(open_notebook: Opens) -> None:
    """Guards against differences that stay those of the old baseline."""
    page = open_notebook(MADE, SMALL)
    page.run(1)
    board = board_of(page.run(2))
    first, second = board.get_by_role("gridcell").nth(0), board.get_by_role("gridcell").nth(1)
    expect(second.locator("del")).to_have_text(["red", "very much"])
    expect(second.locator("ins")).to_have_text(["green"])
    expect(board.get_by_role("gridcell").nth(3)).not_to_contain_text("differs")  # white space alone
    board.get_by_role("button", name="Baseline: b").click()
    expect(first.locator("del")).to_have_text(["green"])
    expect(second.locator("del, ins")).to_have_count(0)
    expect(board.get_by_role("button", name="Baseline: b")).to_have_attribute("aria-pressed", "true")
    board.get_by_role("button", name="Baseline: b").click()
    expect(board.locator("del, ins")).to_have_count(0)
    expect(board.get_by_role("radio", name=re.compile("Different 1"))).to_be_visible()
    board.get_by_role("button", name="Baseline: a").click()
    second.click()
    opened = board.get_by_role("region", name="Opened input")
    expect(opened.locator("del")).to_have_count(0)
    opened.get_by_role("button", name="Mark differences").click()
    expect(opened.locator("del")).to_have_text(["red", "very much"])


def test_a_difference_is_the_shortest_and_loses_no_word(chromium: Browser) -> None:
    """Guards against a wrong difference, and one of long texts that takes forever."""
    page = chromium.new_page()
    page.add_script_tag(content=source("common.js", "words.js"))
    some = random.Random(4)
    pairs = [["".join(some.choices("abc ", k=some.randrange(30))) for _ in range(2)] for _ in range(500)]
    pairs += [
        ["", ""],
        ["", "a b"],
        [" ".join(f"a{n}" for n in range(50_000)), " ".join(f"b{n}" for n in range(50_000))],
    ]
    found = page.evaluate("pairs => pairs.map(([a, b]) => differences(a, b))", pairs)
    for (before, after), pieces in zip(pairs, found, strict=True):
        words = {kind: [w for k, text in pieces if k in ("=", kind) for w in text.split()] for kind in "-+"}
        assert (words["-"], words["+"]) == (before.split(), after.split())
        same = [word for kind, text in pieces if kind == "=" for word in text.split()]
        if len(before) < 100:
            assert len(same) == longest_common(before.split(), after.split())
    page.close()


def longest_common(first: list[str], second: list[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for a in first:
        row = list(
            itertools.accumulate(
                range(len(second)),
                lambda left, n, row=row, a=a: row[n] + 1 if a == second[n] else max(left, row[n + 1]),
                initial=0,
            )
        )
    return row[-1]


def test_whole_texts_come_when_they_are_looked_at(open_notebook: Opens) -> None:
    """Guards against comparing the cut beginnings of long texts."""
    long = "'word ' * 300"
    page = open_notebook(
        MADE, f"made(answer('x', {long} + 'old end', 'a'), answer('x', {long} + 'new end', 'b')).board()"
    )
    page.run(1)
    board = board_of(page.run(2))
    expect(board.get_by_role("gridcell").nth(1).locator("ins")).to_have_text("new")
    expect(board.get_by_role("gridcell").nth(1).locator("del")).to_have_text("old")
    board.get_by_role("searchbox").fill("old END")
    expect(board.get_by_role("rowheader")).to_have_count(1)


def test_by_keyboard_alone(open_notebook: Opens) -> None:
    """Guards against keys that reach the notebook, and against a focus that is lost when a row closes."""
    page = open_notebook(MADE, SMALL)
    page.run(1)
    board = board_of(page.run(2))
    keys = page.page.keyboard
    board.get_by_role("searchbox").focus()
    for _ in range(10):
        keys.press("Tab")
        if page.page.evaluate("() => Boolean(document.activeElement.closest('[role=grid]'))"):
            break
    expect(board.get_by_role("rowheader", name=re.compile("apples"))).to_be_focused()
    keys.press("ArrowRight")
    keys.press("ArrowDown")
    expect(board.get_by_role("gridcell").nth(2)).to_be_focused()
    keys.press("Home")
    keys.press("Control+End")
    expect(board.get_by_role("gridcell").nth(5)).to_be_focused()
    keys.press("Enter")
    opened = board.get_by_role("region", name="Opened input")
    expect(opened).to_contain_text("Input 3 of 3")
    expect(opened.locator(".xp-title")).to_be_focused()
    keys.press("Alt+ArrowUp")
    expect(opened).to_contain_text("Input 2 of 3")
    keys.press("Escape")
    expect(opened).to_be_hidden()
    expect(board.get_by_role("gridcell").nth(3)).to_be_focused()
    for _ in range(4):
        keys.press("ArrowUp")
    expect(board.get_by_role("button", name="Baseline: b")).to_be_focused()
    keys.press("Enter")
    expect(board.get_by_role("button", name="Baseline: b")).to_be_focused()
    expect(board.get_by_role("button", name="Baseline: b")).to_have_attribute("aria-pressed", "true")
    keys.press("d")
    keys.press("d")  # deletes a cell where it reaches the notebook
    expect(page.cell(2)).to_contain_text("made(")


def test_notes_and_tags_stay(open_notebook: Opens) -> None:
    """Guards against annotations that are lost with the page, and a board that outlives its kernel."""
    look = "kept = default_session().store.find(runs[1].run_id)\nprint(kept.note, kept.tags, runs[1].note)"
    page = open_notebook(MADE, f"runs = {SMALL.removesuffix('.board()')}\nruns.board()", look)
    page.run(1)
    board = board_of(page.run(2))
    board.get_by_role("gridcell").nth(1).click()
    side = board.get_by_role("region", name="b", exact=True)
    side.get_by_role("textbox", name="Note").fill("check <b>this</b>")
    side.get_by_role("button", name="Keep note").click()
    expect(side.get_by_text("Kept.")).to_be_visible()
    side.get_by_role("textbox", name="New tag").fill("odd, one")
    side.get_by_role("textbox", name="New tag").press("Enter")
    expect(side.get_by_role("button", name="Remove tag odd, one")).to_be_visible()
    expect(board.get_by_role("gridcell").nth(1)).to_contain_text("noted")
    expect(page.run(3)).to_contain_text("check <b>this</b> ['odd, one'] check <b>this</b>")
    page.save()
    page.reload()
    board = board_of(page.outputs(2))
    expect(page.outputs(2).locator(".xpander-static")).to_be_hidden()
    expect(board.get_by_role("gridcell").nth(1)).to_contain_text("noted")
    page.save()
    page.restart()
    expect(page.outputs(2).locator(".xpander-static")).to_be_visible()
    page.run(0)
    page.reload()
    expect(page.outputs(2).locator(".xpander-static")).to_be_visible()
    expect(page.outputs(2).locator(".xpander-static")).to_contain_text("I like green apples")
    expect(page.outputs(2).locator(".xpander-board")).to_have_count(0)


def test_what_was_typed_and_not_kept_is_still_there(open_notebook: Opens) -> None:
    """Guards against a note that is lost when another row is opened, a tag when another is removed."""
    page = open_notebook(MADE, SMALL)
    page.run(1)
    board = board_of(page.run(2))
    board.get_by_role("gridcell").nth(0).click()
    side = board.get_by_role("region", name="a", exact=True)
    note, tag = (side.get_by_role("textbox", name=name) for name in ("Note", "New tag"))
    tag.fill("kept")
    tag.press("Enter")
    expect(side.get_by_role("button", name="Remove tag kept")).to_be_visible()
    note.fill("half a note")
    tag.fill("half a tag")
    board.get_by_role("button", name="Next", exact=True).click()
    expect(note).to_have_value("")
    board.get_by_role("button", name="Previous", exact=True).click()
    expect(note).to_have_value("half a note")
    expect(side.get_by_text("Not kept yet.")).to_be_visible()
    side.get_by_role("button", name="Remove tag kept").click()
    expect(side.get_by_text("Kept, but for what is still typed here.")).to_be_visible()
    expect(note).to_have_value("half a note")
    expect(tag).to_have_value("half a tag")
    side.get_by_role("button", name="Keep note").click()
    tag.press("Enter")
    expect(side.get_by_text("Kept.", exact=True)).to_be_visible()
    expect(side.get_by_role("button", name="Remove tag half a tag")).to_be_visible()


def test_rows_are_as_high_as_the_answers_need(open_notebook: Opens) -> None:
    """Guards against rows of four lines for answers of one word, and long answers that are cut after one line."""
    short, long = (
        f"made(*[answer(f'input {{n}}', {answers}[n % 2], m) for n in range(4) for m in 'ab']).board()"
        for answers in ("['bug', 'billing']", "['some words ' * 40, 'other words ' * 40]")
    )
    page = open_notebook(MADE, short, long)
    page.run(1)
    boards = [board_of(page.run(number)) for number in (2, 3)]
    height = "node => node.closest('.xp-row').offsetHeight"
    low, high = (board.get_by_role("gridcell").first.evaluate(height) for board in boards)
    assert low < 0.75 * high
    count = "node => node.offsetHeight / parseFloat(getComputedStyle(node).lineHeight)"
    lines = [board.get_by_role("gridcell").first.locator(".xp-clamp").evaluate(count) for board in boards]
    assert [round(number) for number in lines] == [1, 3]


def test_hostile_runs_do_nothing(open_notebook: Opens) -> None:
    """Guards against markup from answers, variables, models, notes and steps that becomes part of the page."""
    attack = "<img src=x onerror=window.evil=1><script>window.evil=1</script>[x](javascript:window.evil=1)\\x1b\\u202e"
    source = f"""bad = {attack!r}.encode().decode('unicode_escape')
kinds = ('tool_call_request', 'sub_agent_trigger')
events = [Event(kind, None, None, {{'tool_name': bad, 'name': bad}}, {{}}) for kind in kinds]
several = [answer(bad, bad, bad, note=bad, tags=[bad], tools_used=[bad], events=events, scores={{bad: 0.5}}),
           answer(bad, bad, 'b', output={{bad: [bad, {{bad: bad}}]}}),
           answer(bad + '2', None, bad, status=bad, error=bad),
           answer(bad + '2', None, 'b', status='failed', error=bad, error_type=bad)]
for run in several: run.variables = {{bad: run.prompt}}
made(*several).board()"""
    page = open_notebook(MADE, source)
    page.run(1)
    board = board_of(page.run(2))
    for row in (0, 2):
        board.get_by_role("gridcell").nth(row).click()
        opened = board.get_by_role("region", name="Opened input")
        expect(opened.get_by_role("button", name="Keep note").first).to_be_visible()
        for _ in range(4):  # what is unfolded is made then
            opened.evaluate("node => node.querySelectorAll('details').forEach(one => { one.open = true; })")
    board.get_by_role("searchbox").fill("<img")
    expect(board.get_by_role("rowheader")).to_have_count(2)
    assert page.page.evaluate("() => window.evil") is None
    assert board.locator("img, script, a[href^=javascript]").count() == 0
    assert not re.search("[\x1b\u202e]", board.inner_text())


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_accessible_in_both_themes_and_narrow(open_notebook: Opens, theme: str) -> None:
    """Guards against contrast, roles and names that a person can't do without; and a page that grows sideways."""
    page = open_notebook(MADE, SMALL, theme=theme)
    page.run(1)
    for width in (1280, 420):
        if width < 1280:
            page.narrow(width)
        board = board_of(page.run(2))
        page.screenshot(f"board-{theme}-{width}")
        assert page.axe(".xpander-board") == []
        board.get_by_role("gridcell").first.click()
        expect(board.get_by_role("button", name="Keep note").first).to_be_visible()
        page.screenshot(f"board-opened-{theme}-{width}")
        assert page.axe(".xpander-board") == []
        assert board.evaluate("node => node.scrollWidth <= node.clientWidth + 1")


def test_ten_thousand_runs_put_few_rows_into_the_page(open_notebook: Opens) -> None:
    """Guards against a grid that is as large in the page as in the store, and a focus that scrolls away."""
    many = (
        "made(*[answer(f'input {n}', f'answer {n * m}', f'model {m}') for n in range(2500) for m in range(4)]).board()"
    )
    page = open_notebook(MADE, many)
    page.run(1)
    board = board_of(page.run(2))
    grid = board.get_by_role("grid")
    expect(grid).to_have_attribute("aria-rowcount", "2501")
    keys = page.page.keyboard
    board.get_by_role("gridcell").nth(1).focus()
    keys.press("Control+End")
    expect(board.get_by_role("gridcell", name=re.compile("7497"))).to_be_focused()
    assert board.get_by_role("row").count() < 100
    grid.evaluate("node => { node.scrollTop = 0; }")
    expect(board.get_by_role("rowheader", name=re.compile("input 0$"))).to_be_visible()
    expect(board.get_by_role("gridcell", name=re.compile("7497"))).to_be_focused()
    keys.press("ArrowUp")
    expect(board.get_by_role("gridcell", name=re.compile("7494"))).to_be_focused()
    assert board.get_by_role("row").count() < 100


def test_many_repeats_of_one_input(open_notebook: Opens) -> None:
    """Guards against a cell, or an opened row, that lists thousands of answers."""
    page = open_notebook(
        MADE, "made(*[answer('x', f'answer {n % 3000}', 'a', repeat=n) for n in range(10_000)]).board()"
    )
    page.run(1)
    board = board_of(page.run(2))
    expect(board.get_by_role("gridcell")).to_contain_text("4× answer 0")
    board.get_by_role("gridcell").click()
    side = board.get_by_role("region", name="runs", exact=True)
    expect(side.locator(".xp-groups li")).to_have_count(10)
    side.get_by_role("button", name="3× answer 5", exact=True).or_(
        side.get_by_role("button", name="4× answer 5", exact=True)
    ).click()
    expect(side.get_by_text("6 of 10,000 repeats")).to_be_visible()
    expect(side.locator(".xp-rendered")).to_have_text("answer 5")
    side.get_by_role("button", name="Next repeat").click()
    expect(side.locator(".xp-rendered")).to_have_text("answer 6")


def test_many_configurations_scroll_sideways(open_notebook: Opens) -> None:
    """Guards against columns that are all in the page, and arrows that leave its sight."""
    page = open_notebook(
        MADE, "made(*[answer('x', f'answer {m}', f'model {m}') for m in range(60)]).board()", width=700
    )
    page.run(1)
    board = board_of(page.run(2))
    assert board.get_by_role("gridcell").count() < 12
    board.get_by_role("rowheader").focus()
    page.page.keyboard.press("End")
    expect(board.get_by_role("gridcell", name=re.compile("answer 59|59"))).to_be_focused()
    expect(board.get_by_role("columnheader", name=re.compile("model 59"))).to_be_in_viewport()
    expect(board.get_by_role("rowheader")).to_be_in_viewport()


def test_a_busy_kernel_leaves_it_usable(open_notebook: Opens) -> None:
    """Guards against a board that waits for the cell that runs."""
    page = open_notebook(MADE, SMALL, "import time\ntime.sleep(60)")
    page.run(1)
    board = board_of(page.run(2))
    page.start(3)
    choose(board, "Errors 1")
    board.get_by_role("gridcell").first.click()
    opened = board.get_by_role("region", name="Opened input")
    expect(opened).to_contain_text("None left")
    expect(opened).to_contain_text("It broke")
    expect(opened.locator(".xp-rendered").first).to_be_visible()  # the kernel has answered
    page.select(0)
    page.interrupt()
    page.wait(3)


def test_the_notebook_is_saved_from_the_board(open_notebook: Opens) -> None:
    """Guards against a board that keeps Ctrl+S for itself, so that nothing is saved; d d must not delete the cell."""
    page = open_notebook(MADE, SMALL)
    page.run(1)
    board = board_of(page.run(2))
    board.get_by_role("gridcell").nth(0).click()
    with page.page.expect_response(lambda r: r.request.method == "PUT" and "/api/contents/" in r.url):
        page.page.keyboard.press("Control+s")
    page.page.keyboard.press("d")
    page.page.keyboard.press("d")
    expect(board).to_be_visible()
