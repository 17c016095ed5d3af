"""Every notebook that ships runs from top to bottom, in a kernel of its own, against the real model."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from xpander_magics.showing.carried import MIME, read_notebook

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.model
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPANDER_STORE", f"sqlite:///{tmp_path / 'runs.db'}")
    notebook = nbformat.read(path, as_version=4)

    NotebookClient(notebook, timeout=1500, resources={"metadata": {"path": str(tmp_path)}}).execute()

    # What the reader is promised: an answer below each %%xpander cell, as one output with its facts.
    cells = [cell for cell in notebook.cells if cell.source.startswith("%%xpander")]
    assert cells
    for cell in cells:
        if "--view none" in cell.source:  # nothing to see, but the notebook carries the runs
            assert [list(output.data) for output in cell.outputs] == [[MIME, "text/plain"]], cell.source
            continue
        swept = "--over" in cell.source  # a bar, a board and the table that stands in for it; else the answer
        assert [output.output_type for output in cell.outputs] == ["display_data"] * (1 + 2 * swept), cell.source
        assert ("completed ·" if swept else "completed · local/") in cell.outputs[0].data["text/plain"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_fit_to_be_read(path: Path) -> None:
    """It opens without a question for a kernel, with its outputs, and without a trace of who ran it."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert not [cell.source for cell in code for output in cell.outputs if output.output_type == "error"]
    assert "/home/" not in path.read_text()
    assert "/root/" not in path.read_text()


@pytest.mark.parametrize("name", ["classification", "prompts"])
@pytest.mark.filterwarnings("error")
def test_shipped_study_can_be_compared_from_the_file_alone(name: str) -> None:
    """Every run that its cells show is in it, scored; no cell was edited after it ran."""
    frame = read_notebook(Path(__file__).parents[1] / "notebooks" / f"{name}.ipynb")
    assert len(frame) >= 192
    assert (frame["status"] == "completed").all()
    score = {"classification": "score_exact", "prompts": "score_contains"}[name]
    assert frame[score].notna().all()
    assert 0 < frame[score].mean() < 1
