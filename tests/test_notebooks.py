"""Every notebook that ships runs from top to bottom, in a kernel of its own, against the real models.

What is kept of it, too: its outputs are those of its cells, and its runs can be read from the file alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from xpander_magics.showing.carried import MIME, read_notebook
from xpander_magics.store.columns import COLUMNS

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

_VIEW = "application/vnd.jupyter.widget-view+json"
_OF_A_MACHINE = re.compile(
    r"(?<![\w.:/~])(?:/(?:home|root|tmp|var|usr|opt|mnt|work|private|Users)/|[A-Z]:\\)\w[^\s\"'<]*"
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def code_of(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose_of(path: Path) -> str:
    notebook = nbformat.read(path, as_version=4)
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def may_fail(cell: Any) -> bool:
    """Whether the cell shows an error on purpose, as Jupyter's own tag says."""
    return "raises-exception" in cell.metadata.get("tags", ())


def texts_of(output: Any) -> Iterator[tuple[str, str]]:
    """What an output has for people, by its kind; pictures aside."""
    if output.output_type == "stream":
        yield output.name, output.text
    for kind, text in output.get("data", {}).items():
        if kind.startswith("text/"):
            yield kind, text


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} == {
        *("quickstart", "sweeps", "comparing", "structured", "conversations", "own-models", "report")
    }


@pytest.mark.model
@each
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPANDER_STORE", f"sqlite:///{tmp_path / 'runs.db'}")
    notebook = nbformat.read(path, as_version=4)

    NotebookClient(notebook, timeout=1500, resources={"metadata": {"path": str(tmp_path)}}).execute()

    # What the reader is promised: an answer below each cell that sends, as one output with its facts.
    sent = [cell for cell in code_of(notebook) if cell.source.startswith("%%xpander") and not may_fail(cell)]
    sent = [cell for cell in sent if "--dry-run" not in cell.source]
    assert sent
    for cell in sent:
        shown = [output.data for output in cell.outputs if "data" in output]
        kinds = [sorted(data) for data in shown]
        carried = [data[MIME]["runs"] for data in shown if MIME in data]
        assert len(carried) == 1, cell.source
        if "--view none" in cell.source or " -q" in cell.source.partition("\n")[0]:
            assert kinds == [[MIME, "text/plain"]], cell.source
        elif carried == [1]:
            assert kinds == [[MIME, "text/html", "text/plain"]], cell.source
            assert re.search(r"\ncompleted · \S+/\S+", shown[0]["text/plain"]), cell.source
        else:  # a bar, a board, and the table that stands in for it
            bar, board, table = ["text/html", "text/plain"], [_VIEW, "text/plain"], [MIME, "text/html", "text/plain"]
            assert kinds == [bar, board, table], cell.source
            assert re.search(r"^\d+ runs in .* completed", shown[0]["text/plain"]), cell.source


@each
def test_notebook_is_kept_fit_to_be_read(path: Path) -> None:
    """It opens without a question for a kernel, with the outputs of one run, and without a trace of who ran it."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    assert path.stat().st_size < 300_000
    code = code_of(notebook)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert "execution" not in cell.metadata, cell.source  # when each cell ran, by the second
        failed = [output.evalue for output in cell.outputs if output.output_type == "error"]
        assert len(failed) == may_fail(cell), (cell.source, failed)
        for output in cell.outputs:
            assert _VIEW not in output.get("data", {}), cell.source  # it would say "model not found"
            shown = dict(texts_of(output))
            assert set(output.get("data", {})) == {MIME, "text/plain"} or all(map(str.strip, shown.values())), shown
            assert not [text for text in shown.values() if _OF_A_MACHINE.search(text)], cell.source


@each
def test_links_lead_somewhere(path: Path) -> None:
    for link in _LINK.findall(prose_of(path)):
        if not re.match(r"[a-z]+:", link):
            file, _, heading = link.partition("#")
            assert not heading, f"{link}: nobody checks where in a file it leads"
            assert (FOLDER / file).is_file(), link


@each
@pytest.mark.filterwarnings("error")
def test_runs_are_read_from_the_file_alone(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And no cell that shows runs was edited since: its source is what ran."""
    monkeypatch.setenv("XPANDER_STORE", f"sqlite:///{tmp_path / 'empty.db'}")
    notebook = nbformat.read(path, as_version=4)
    frame = read_notebook(path)
    assert list(frame.columns[: len(COLUMNS)]) == [column.name for column in COLUMNS]
    cells = {cell["cell"]: cell for cell in frame.attrs["cells"]}
    for cell in cells.values():
        assert cell["run_ids"]
        assert (cell["edited"], cell["intact"], cell["missing"]) == (False, True, 0)
    sending = {
        number
        for number, cell in enumerate(notebook.cells, 1)
        if cell.cell_type == "code" and cell.source.startswith("%%xpander")
        if "--dry-run" not in cell.source and not may_fail(cell)
    }
    assert sending <= cells.keys()
    known = {run_id for cell in cells.values() for run_id in cell["run_ids"]}
    assert set(frame["run_id"]) == known
    assert frame["status"].notna().all()
    assert not _OF_A_MACHINE.search(frame.to_csv())


@pytest.mark.filterwarnings("error")
def test_conversations_can_be_told_from_the_kept_frame() -> None:
    frame = read_notebook(FOLDER / "conversations.ipynb")
    turns = frame.groupby("thread_id").size()
    assert sorted(turns) == [2] * 8 + [3]
    swept = frame[frame["sweep_id"].notna()]
    assert swept.groupby("thread_id")["model"].nunique().eq(1).all()  # each went on with its own model
    assert {row["city"] for row in swept["variables"]} == {"Rome", "Tokyo", "Lisbon", "Moscow"}


@pytest.mark.model
def test_a_machine_runs_the_report_as_the_notebook_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines for the shell, with papermill's parameter, then those for Python."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XPANDER_STORE", f"sqlite:///{tmp_path / 'runs.db'}")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    shutil.copy(FOLDER / "report.ipynb", tmp_path)
    blocks = dict(_BLOCK.findall(prose_of(FOLDER / "report.ipynb")))
    install, *lines = blocks["sh"].splitlines()
    assert install.startswith("pip install ")
    for line in lines:
        subprocess.run(line.split(), check=True, timeout=1500, capture_output=True)
    assert len(read_notebook("six.ipynb")) == 12
    assert "completed" in Path("six.html").read_text()
    names: dict[str, Any] = {}
    *body, last = blocks["python"].strip().splitlines()
    exec("\n".join(body), names)
    means = eval(last, names)
    assert len(means) == 2
    assert means.between(0, 1).all()
