"""What a notebook that a front end has saved carries of its runs: the front ends must keep what they don't know."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
from front_ends import NotebookPage
from playwright.sync_api import expect

from xpander_magics.showing.carried import NotebookWarning, read_notebook

pytestmark = pytest.mark.browser

ROWS = "rows = [{'text': 'one'}, {'text': 'two'}]"
ONE = "%%xpander echo\nhello"
SEVERAL = "%%xpander echo -m scripted/echo,scripted/think --over rows\n{{ text }}"
QUIET = "%%xpander echo -q\nhush"


def edited(page: NotebookPage) -> dict[int, Any]:
    """Saves it; whether each cell with runs was edited."""
    page.save()
    return {cell["cell"]: cell["edited"] for cell in read_notebook(page.path).attrs["cells"]}


@pytest.mark.parametrize("front_end", ["lab", "notebook", "classic"])
def test_a_saved_notebook_is_read_back(open_notebook: Callable[..., NotebookPage], front_end: str) -> None:
    page = open_notebook(ROWS, ONE, SEVERAL, QUIET, front_end=front_end)
    page.run(1)
    expect(page.run(2)).to_contain_text("completed")
    expect(page.run(3).locator(".xpander-board").first).to_be_visible()
    # What there is of a quiet cell may come after its number.
    expect(page.run(4).locator(".jp-OutputArea-child, .output_area")).to_have_count(1)
    page.select(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotebookWarning)
        assert edited(page) == {3: False, 4: False, 5: False}
        frame = read_notebook(page.path)
    assert frame["prompt"].tolist() == ["hello", *("one", "one", "two", "two"), "hush"]
    assert frame["status"].tolist() == ["completed"] * 6
    assert "vnd.xpander" not in page.page.content()

    page.cell(2).locator(".cm-content, .CodeMirror-lines").first.click()
    page.page.keyboard.press("Control+End")
    page.page.keyboard.insert_text(" there")
    page.page.keyboard.press("Escape")
    with pytest.warns(NotebookWarning, match=r"cell 3 has been edited since it ran\."):
        assert edited(page) == {3: True, 4: False, 5: False}
