"""Runs notebooks and keeps their outputs: ``python tests/keep_notebooks.py report``, or all where none is named.

Each runs in a folder and with a run store of its own. Widgets are left out: without their kernel they would only say
that their model isn't found, and what they show stands beside them as a table. Look at the outputs before they are
committed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
VIEW = "application/vnd.jupyter.widget-view+json"


def keep(path: Path) -> None:
    """Runs one from top to bottom, and writes it with its outputs in its own place."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XPANDER_STORE"] = "sqlite:///runs.db"
        NotebookClient(
            notebook,
            timeout=1500,
            resources={"metadata": {"path": folder}},
            record_timing=False,
            store_widget_state=False,
            coalesce_streams=True,
        ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if VIEW not in output.get("data", {})]
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
        keep(FOLDER / f"{name}.ipynb")
        print(name, flush=True)
