"""The page of benchmarks has what its script makes: works, rows and columns. Its figures are nobody's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"
sys.path.append(str(BENCHMARKS))  # where its scripts find each other

import page  # noqa: E402
from reporting import HEADER, Aim, Figure, figures_of, table  # noqa: E402

TEXT = page.PAGE.read_text(encoding="utf-8")


def rows_under(title: str) -> list[list[str]]:
    """The cells of the table under a heading, its header first."""
    part = TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]


def test_the_works_are_those_of_the_script() -> None:
    assert [line[3:] for line in TEXT.splitlines() if line.startswith("## ")] == [work.title for work in page.WORKS]
    for name in page.TOOLS:
        assert f"\n- {name} " in TEXT


@pytest.mark.parametrize("work", page.WORKS, ids=lambda work: work.title)
def test_each_table_has_the_rows_that_the_script_makes(work: page.Work) -> None:
    header, _, *rows = rows_under(work.title)
    assert header == list(HEADER)
    if work.of_tools:
        assert [row[0] for row in rows[: len(page.TOOLS)]] == list(page.TOOLS)
    for row in rows:
        without = work.without.get(row[0])
        assert row[1] == f"—: {without}" if without else row[4].startswith("**"), row


def test_a_script_reports_what_the_page_reads() -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_call.py"), "--calls", "3", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    (figure,) = figures_of(ended.stdout)
    assert len(figure.own) == len(figure.floor) == 3
    assert figure.name in [row[0] for row in rows_under("Ours alone")]


def test_a_figure_is_the_ratio_of_medians() -> None:
    figure = Figure("it", [30.0, 10.0, 2000.0], [10.0, 20.0, 10.0], aim=Aim("ratio", 2.5))
    assert (figure.ratio, figure.more, figure.middle_half, figure.held) == (3.0, 20.0, (1.75, 101.5), False)
    assert figure.row() == ("it", "30.0 ms", "10.0 ms", "+20.0 ms", "**3.00**", "1.75–102", "≤ 2.5 ×: **missed**")
    assert Figure("it", [3.0], [4.0], aim=Aim("own", 3.0)).held
    assert not Figure("it", [3.0], [1.0], aim=Aim("more", 1.5)).held
    (missing,) = table([Figure("it", without="it has none")]).splitlines()[2:]
    assert missing.split("|")[2].strip() == "—: it has none"
    told = [{"name": "it", "own": [1.0], "floor": [2.0], "unit": "s", "aim": None, "without": ""}]
    assert figures_of("something else\n" + json.dumps(told)) == [Figure("it", [1.0], [2.0], "s")]


def test_where_we_lose_is_said() -> None:
    figures = [
        Figure(page.US, [3.0], [1.0], aim=Aim("ratio", 2.0)),
        Figure(page.INSPECT_, [2.0], [1.0]),
        Figure(page.JUPYSQL_, without="it has none"),
    ]
    said = page.verdict(figures)
    assert said == "With a lower ratio than ours: Inspect. Its aim is missed by: xpander_magics."
