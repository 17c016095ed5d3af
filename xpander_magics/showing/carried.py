"""What a saved notebook carries of its runs, and how it is read back.

An output that shows runs carries them, too, under a MIME type of our own in its ``data``. Front ends choose what they
know from an output's ``data``, so JupyterLab, Notebook 7, the classic notebook and nbconvert pass over it, while all of
them, nbclient and papermill keep it as it is. An output's ``metadata`` would be kept as well, but ``_repr_mimebundle_``
and updates of a display would need a second way for it, and what clears metadata before a notebook is shared would
take the runs along. What it holds::

    {"version": 1, "at": when it was put out, "source": SHA-256 of the cell's source as it ran, or null where no cell
     put it out (a panel's button), "run_ids": [...], "runs": how many there are, "sha256": of the unpacked rows,
     "rows": gzip in base64 of {"columns": [...], "rows": [[...], ...]}}

The rows are the store's, so secrets are masked in them, and what was sent (``request``) isn't there. Columns are
named: a later version with more of them reads these, and this one reads those that it knows. Not all rows of a large
sweep fit: a Jupyter server drops outputs once they come with more than 3 MB within 3 s, and the table and the board
come at the same time. Whoever passes a notebook on passes these rows on; to clear a cell's outputs takes them out.

Reading takes the file for hostile: nothing of it is run or imported, what it unpacks to is bounded, and every value is
checked by its column.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xpander_magics.errors import ConfigError, XpanderError
from xpander_magics.progress import notebook_shell
from xpander_magics.results import Run, utc_now
from xpander_magics.safety import plain, unpacked
from xpander_magics.store.columns import COLUMNS, UNFRAMED
from xpander_magics.tally import listed

if TYPE_CHECKING:
    import pandas as pd

MIME = "application/vnd.xpander.runs+json"
MOST_RUNS = 1_000
"""Of more runs than this the rows don't go into one output."""

_VERSION = 1
_COLUMNS = {column.name: column for column in (*COLUMNS, UNFRAMED[0])}
_MOST_NAMED = 10_000
_MOST_PACKED = 750_000  # bytes; a third more in base64
_MOST_ROWS = 4 << 20  # characters of JSON
_MOST_UNPACKED = _MOST_ROWS + (64 << 10)  # bytes of JSON in one output, with the columns' names
_MOST_IN_ALL = 256 << 20  # bytes of JSON in one notebook


class NotebookWarning(UserWarning):
    """What a reader of a notebook's runs should know: edited cells, missing runs, rows that somebody has changed."""


def cell_source() -> str | None:
    """The SHA-256 of the running cell's source; None where no cell runs, or in another thread than the cells'."""
    kernel: Any = getattr(notebook_shell(), "kernel", None)
    if not hasattr(kernel, "get_parent") or threading.current_thread() is not threading.main_thread():
        return None
    # Not of the input history: its last entry may be of a cell before, and IPython's versions number it differently.
    request = (kernel.get_parent() or {}).get("content") or {}
    # A front end's message to a widget has no code; what a front end runs by itself isn't for the history.
    return _digest(request["code"]) if request.get("code") and request.get("store_history") else None


def _digest(source: str) -> str:
    """The hash of a source; front ends differ in line ends, and in white space at its end."""
    text = "\n".join(source.splitlines()).rstrip()
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def bundle(runs: Iterable[Run], run_ids: Iterable[str] | None = None, source: str | None = None) -> dict[str, Any]:
    """What an output carries of its runs, to be put beside what it shows; empty where there is no notebook.

    Args:
        runs: whose rows are carried, as far as they fit.
        run_ids: of all runs that the output is about, where these are more.
        source: of the cell that ran them, as ``cell_source`` had it; the running cell's when omitted.
    """
    if notebook_shell() is None:
        return {}
    return {MIME: packed(runs, run_ids, source or cell_source())}


def packed(runs: Iterable[Run], run_ids: Iterable[str] | None = None, source: str | None = None) -> dict[str, Any]:
    """What ``bundle`` puts out, wherever it is made; the arguments are the same."""
    shown = list(runs)
    names = list(dict.fromkeys(run_ids if run_ids is not None else (run.run_id for run in shown)))
    text, blob = _blob(rows := _rows(shown))
    while len(blob) > _MOST_PACKED:
        text, blob = _blob(rows := rows[: len(rows) * _MOST_PACKED * 9 // (len(blob) * 10)])
    return {
        "version": _VERSION,
        "at": utc_now().isoformat(timespec="microseconds"),
        "source": source,
        "run_ids": names[:_MOST_NAMED],
        "runs": len(names),
        "sha256": hashlib.sha256(text).hexdigest(),
        "rows": base64.b64encode(blob).decode("ascii"),
    }


def _rows(runs: list[Run]) -> list[str]:
    """The rows of the first runs as JSON in ASCII, as many as may be; one that is too large by itself is left out."""
    rows: list[str] = []
    size = 0
    for run in runs[:MOST_RUNS]:
        row = json.dumps([column.kind.pack(getattr(run, name)) for name, column in _COLUMNS.items()])
        if len(row) < _MOST_ROWS:
            size += len(row) + 1
            if size > _MOST_ROWS:
                break
            rows.append(row)
    return rows


def _blob(rows: list[str]) -> tuple[bytes, bytes]:
    """A table of these rows, and the same packed."""
    text = f'{{"columns":{json.dumps(list(_COLUMNS))},"rows":[{",".join(rows)}]}}'.encode("ascii")
    return text, gzip.compress(text, mtime=0)


class _Output(NamedTuple):
    """What one output carries: of so many runs, the ids of the first of them and the rows of some."""

    cell: int
    at: str
    source: str | None
    run_ids: list[str]
    unnamed: int
    intact: bool
    rows: dict[str, Run]


def read_notebook(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The runs that a saved notebook's outputs carry, as a DataFrame; no store and no service is needed.

    A run that several outputs show is taken from the one that was put out last. What an output only
    names, because it was too much, is taken from the run store where that has it.

    Args:
        path: of an ``.ipynb`` of format 4. It needn't be trusted: nothing of it is run.

    Returns:
        One row a run, in the order in which the notebook shows them; columns and dtypes are those of
        ``xp.runs()``. ``attrs["cells"]`` has a dict for each cell that shows runs: ``cell``, its
        place in the notebook counted from 1, text cells too; ``execution_count``; ``run_ids``;
        ``edited``, whether its source isn't what ran, None where that isn't known; ``intact``,
        whether its rows are as they were put out; ``missing``, how many of its runs are to be had
        nowhere.

    Warns:
        NotebookWarning: cells were edited since they ran, rows were changed, or runs are missing.

    Raises:
        ConfigError: the file can't be read, is no such notebook, or what a cell carries is malformed.

    Example:
        >>> df = xp.read_notebook("study.ipynb")
        >>> df["result"].tolist()
        ['Hi Ada!']
    """
    name = Path(path).name
    sources: dict[int, tuple[Any, str]] = {}
    outputs: list[_Output] = []
    left = _MOST_IN_ALL
    for number, cell in enumerate(_cells(path), 1):
        try:
            for carried in _carried_by(cell):
                output, size = _opened(carried, number, min(left, _MOST_UNPACKED))
                left -= size
                outputs.append(output)
                sources[number] = cell.get("execution_count"), _digest(_joined(cell.get("source")))
        except (ConfigError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ConfigError(
                f"{name}: what cell {number} carries of its runs can't be read: {_in_short(error)}.\n"
                "Run the cell again, or clear its outputs."
            ) from error
    named = list(dict.fromkeys(run_id for output in outputs for run_id in output.run_ids))
    found: dict[str, Run] = {}
    for output in sorted(outputs, key=lambda output: output.at):
        found.update(output.rows)
    found.update(_from_store([run_id for run_id in named if run_id not in found]))
    cells = [_told(number, *sources[number], [o for o in outputs if o.cell == number], found) for number in sources]
    _warn(name, cells)
    return _framed((found[run_id] for run_id in named if run_id in found), cells)


def _framed(runs: Iterable[Run], cells: list[dict[str, Any]]) -> pd.DataFrame:
    from xpander_magics.store.frames import frame_of

    frame = frame_of(runs)
    frame.attrs["cells"] = cells
    return frame


def _cells(path: str | os.PathLike[str]) -> list[Any]:
    """The cells of a notebook file."""
    try:
        notebook = json.loads(Path(path).expanduser().read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no notebook: it holds no JSON ({_in_short(error)}).") from error
    form = notebook.get("nbformat") if isinstance(notebook, dict) else None
    if not isinstance(form, int):
        raise ConfigError(f"{path} is no notebook: it doesn't say which format of notebooks it has (nbformat).")
    if form != 4:
        raise ConfigError(f"{path} is a notebook of format {form}; only format 4 can be read.\nSave it in Jupyter.")
    cells = notebook.get("cells")
    if not isinstance(cells, list):
        raise ConfigError(f"{path} is no notebook: it has no list of cells.")
    return cells


def _carried_by(cell: Any) -> Iterator[Any]:
    """What the outputs of a cell carry, still as it is written."""
    outputs = cell.get("outputs") if isinstance(cell, dict) else None
    for output in outputs if isinstance(outputs, list) else ():
        data = output.get("data") if isinstance(output, dict) else None
        carried = data.get(MIME) if isinstance(data, dict) else None
        if carried is not None:
            # Some programs write JSON in an output as text, or as its lines.
            yield carried if isinstance(carried, dict) else json.loads(_joined(carried))


def _joined(text: Any) -> str:
    """A text of a notebook file, which may be written as its lines."""
    return text if isinstance(text, str) else "".join(text or ())


def _opened(carried: Any, cell: int, most: int) -> tuple[_Output, int]:
    """What an output carries, checked, and how many bytes its rows unpack to. Raises ValueError and the like."""
    if not isinstance(carried, dict) or carried.get("version") != _VERSION:
        version = carried.get("version") if isinstance(carried, dict) else None
        newer = isinstance(version, int) and version > _VERSION
        raise ValueError("a newer xpander_magics wrote it: upgrade this one" if newer else "its version isn't known")
    source, at, count = carried["source"], carried["at"], carried["runs"]
    run_ids = carried["run_ids"]
    right = isinstance(run_ids, list) and all(isinstance(run_id, str) for run_id in run_ids)
    right = right and type(count) is int and 0 <= count < 2**53
    if not right or not isinstance(at, str) or not isinstance(source, (str, type(None))):
        raise ValueError("its parts aren't of their types")
    text = _unpacked(carried["rows"], most)
    rows = _runs_of(json.loads(text))
    if not rows.keys() <= set(run_ids):
        raise ValueError("it holds runs that it doesn't name")
    intact = hashlib.sha256(text).hexdigest() == carried["sha256"]
    return _Output(cell, at, source, run_ids, max(count - len(set(run_ids)), 0), intact, rows), len(text)


def _unpacked(packed: Any, most: int) -> bytes:
    blob = base64.b64decode(packed, validate=True)
    try:
        return unpacked(blob, most)
    except ValueError as error:
        raise ValueError(f"its rows {error}") from error


def _runs_of(table: Any) -> dict[str, Run]:
    """The runs of unpacked rows. Raises ValueError and the like."""
    from xpander_magics.scoring.scorers import checked_name

    columns = [_COLUMNS.get(name) for name in table["columns"]]
    runs = {}
    for row in table["rows"]:
        values = {}
        for column, value in zip(columns, row, strict=True):
            if column is not None:  # a later version's
                if not column.kind.fits(value):
                    raise ValueError(f"a run's {column.name} isn't {column.dtype}")
                values[column.name] = column.kind.unpack(value)
        run = Run(**values)
        if not isinstance(values.get("run_id"), str):
            raise ValueError("a run has no id")
        for name in run.scores if isinstance(run.scores, dict) else ():
            checked_name(name)  # it becomes a column's
        runs[run.run_id] = run
    return runs


def _from_store(run_ids: list[str]) -> dict[str, Run]:
    """Those of the runs that the store has; none where there is no store, which isn't needed."""
    if not run_ids:
        return {}
    from xpander_magics.session import default_session

    with contextlib.suppress(XpanderError):
        return {run.run_id: run for run in default_session().store.select(run_ids=run_ids)}
    return {}


def _told(number: int, count: Any, source: str, outputs: list[_Output], found: Mapping[str, Run]) -> dict[str, Any]:
    """What is said of a cell."""
    run_ids = list(dict.fromkeys(run_id for output in outputs for run_id in output.run_ids))
    sources = {output.source for output in outputs} - {None}
    missing = sum(run_id not in found for run_id in run_ids) + sum(output.unnamed for output in outputs)
    return {
        "cell": number,
        "execution_count": count if type(count) is int else None,
        "run_ids": run_ids,
        "edited": sources != {source} if sources else None,
        "intact": all(output.intact for output in outputs),
        "missing": missing,
    }


def _warn(name: str, cells: list[dict[str, Any]]) -> None:
    edited = [cell["cell"] for cell in cells if cell["edited"]]
    changed = [cell["cell"] for cell in cells if not cell["intact"]]
    lacking = [cell["cell"] for cell in cells if cell["missing"]]
    told = []
    if edited:
        told.append(f"{_named(edited, 'has', 'have')} been edited since {'it' if len(edited) == 1 else 'they'} ran")
    if changed:
        told.append(f"the rows of {_named(changed)} aren't as they were put out: somebody has changed them")
    if lacking:
        count = sum(cell["missing"] for cell in cells)
        runs = f"{count:,} run{'s' * (count != 1)}"
        told.append(f"{runs} of {_named(lacking)} are only named in it, and the run store here doesn't have them")
    for one in told:
        warnings.warn(plain(f"{name}: {one}."), NotebookWarning, stacklevel=3)


def _named(cells: list[int], one: str = "", several: str = "") -> str:
    many = len(cells) > 1
    return f"{'cells' if many else 'cell'} {listed(cells)} {several if many else one}".rstrip()


def _in_short(error: BaseException) -> str:
    """What was wrong, in a line."""
    text = f"{error!s} is missing" if isinstance(error, KeyError) else str(error)
    return text.partition("\n")[0][:200].rstrip(".") or type(error).__name__
