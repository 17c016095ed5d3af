"""What a saved notebook carries of its runs: real kernels write it, ``read_notebook`` reads it without a store."""

from __future__ import annotations

import base64
import copy
import gzip
import hashlib
import json
import math
import random
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from fault_server import reply
from nbclient import NotebookClient
from nbconvert import HTMLExporter, MarkdownExporter
from notebook_shell import Notebook
from pandas.testing import assert_frame_equal
from test_frames import DTYPES, full_run
from test_kernel import Kernel, executed, kernel, live_text, running_kernel, store, until  # noqa: F401
from test_sweep import INVOKE, Watched
from test_sweep_kernel import watched  # noqa: F401

import xpander_magics as xp
from xpander_magics.errors import ConfigError
from xpander_magics.local.launch import LocalServer
from xpander_magics.results import Run
from xpander_magics.session import default_session
from xpander_magics.showing import carried
from xpander_magics.showing.carried import MIME, MOST_RUNS, NotebookWarning, packed, read_notebook
from xpander_magics.store import Store
from xpander_magics.store.frames import frame_of


@pytest.fixture(autouse=True)
def _another_machine(environment: pytest.MonkeyPatch) -> Iterator[None]:
    """Reading has a store of its own, as yet without a file; and nothing is said but what a test expects to be."""
    default_session().close()
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotebookWarning)
        yield
    default_session().close()


def code(source: str, *carries: Any, count: int | None = 1) -> dict[str, Any]:
    """A cell with an output for each thing to carry."""
    outputs = [{"output_type": "display_data", "metadata": {}, "data": {"text/plain": "", MIME: c}} for c in carries]
    return {"cell_type": "code", "source": source, "execution_count": count, "metadata": {}, "outputs": outputs}


def saved(path: Path, *cells: dict[str, Any]) -> Path:
    """A notebook file of these cells, the first of them after a text."""
    text = {"cell_type": "markdown", "source": "# Study", "metadata": {}}
    named = [{"id": str(n), **cell} if isinstance(cell, dict) else cell for n, cell in enumerate((text, *cells))]
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": named}
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


def unpacked(carries: dict[str, Any]) -> dict[str, Any]:
    table = json.loads(gzip.decompress(base64.b64decode(carries["rows"])))
    assert isinstance(table, dict)
    return table


def repacked(carries: dict[str, Any], table: Any, **others: Any) -> dict[str, Any]:
    """The same with another table, and a hash that is right."""
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    rows = base64.b64encode(gzip.compress(text)).decode()
    return {**carries, "rows": rows, "sha256": hashlib.sha256(text).hexdigest(), **others}


def hash_of(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()


# ---- what real kernels write

ROWS = "rows = [{'text': 'one', 'label': 'a'}, {'text': 'two', 'label': 'b'}]"
CELLS = (
    "%%xpander echo --tag first\nhello\n",
    ROWS,
    "%%xpander echo -m scripted/echo,scripted/fail --over rows -o swept\nSay {{ text }}",
    "%%xpander echo -q -o quiet\nhush",
    "%%xpander echo -n 2 -q\nhush, all",
    "import xpander_magics as xp\nrun = xp.run('from Python', target='echo')\nrun",
    "swept[:3]",
    "%xpander show quiet --view json",
)


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_alone_gives_the_frame(
    connected: LocalServer,
    store: Store,  # noqa: F811
    tmp_path: Path,
    environment: pytest.MonkeyPatch,
    widgets: bool,
) -> None:
    notebook = executed(f"%config XpanderMagics.widgets = {widgets}", *CELLS)
    path = tmp_path / "study.ipynb"
    nbformat.write(notebook, path)
    expected = store.frame()
    nowhere = tmp_path / "elsewhere.db"
    environment.setenv("XPANDER_STORE", f"sqlite:///{nowhere}")

    frame = read_notebook(path)

    assert len(frame) == 1 + 4 + 1 + 2 + 1
    assert frame["prompt"].tolist() == [
        *("hello", "Say one", "Say one", "Say two", "Say two"),
        *("hush", "hush, all", "hush, all", "from Python"),
    ]
    order = pd.Index(expected["run_id"]).get_indexer(frame["run_id"])
    assert_frame_equal(pd.DataFrame(frame), expected.iloc[order].reset_index(drop=True), check_categorical=False)
    assert frame.dtypes.astype(str).to_dict() == expected.dtypes.astype(str).to_dict()
    assert not nowhere.exists(), "no store is opened"
    cells = frame.attrs["cells"]
    json.dumps(frame.attrs)
    counted = {cell["cell"]: (len(cell["run_ids"]), cell["edited"], cell["missing"]) for cell in cells}
    assert counted == {
        3: (1, False, 0),
        5: (4, False, 0),
        6: (1, False, 0),
        7: (2, False, 0),
        8: (1, False, 0),
        9: (3, False, 0),
        10: (1, False, 0),
    }
    assert [cell["execution_count"] for cell in cells] == [cell["cell"] for cell in cells]
    assert all(cell["intact"] for cell in cells)


def test_an_edited_cell_is_said(connected: LocalServer, tmp_path: Path) -> None:
    notebook = executed("%%xpander echo\nhello", "%%xpander echo -n 2\nagain", "%%xpander echo\nhello")
    path = tmp_path / "study.ipynb"
    notebook.cells[1].source += "  \n\n"
    nbformat.write(notebook, path)
    assert [cell["edited"] for cell in read_notebook(path).attrs["cells"]] == [False, False, False]
    notebook.cells[2].source = notebook.cells[2].source.replace("again", "and again")
    nbformat.write(notebook, path)
    with pytest.warns(NotebookWarning, match=r"^study\.ipynb: cell 3 has been edited since it ran\.$") as said:
        frame = read_notebook(path)
    assert len(said) == 1
    assert said[0].filename == __file__
    assert frame["prompt"].tolist() == ["hello", "again", "again", "hello"]
    assert [cell["edited"] for cell in frame.attrs["cells"]] == [False, True, False]
    notebook.cells[1].source = "print()"
    nbformat.write(notebook, path)
    with pytest.warns(NotebookWarning, match="cells 2 and 3 have been edited since they ran"):
        read_notebook(path)


def test_an_interrupted_and_a_failed_run_are_carried(
    connected: LocalServer,
    kernel: Kernel,  # noqa: F811
) -> None:
    kernel.text("s = {'script': {'chunks': ['begun '] + ['x'] * 1000, 'rate': 2}}")
    source = "%%xpander echo --payload s\nhello"
    kernel.client.execute(source)
    until(lambda: "begun" in live_text(kernel.client.get_iopub_msg(timeout=60)))
    kernel.manager.interrupt_kernel()
    carries = until(lambda: kernel.client.get_iopub_msg(timeout=60)["content"].get("data", {}).get(MIME))
    assert carries["source"] == hash_of(source)
    table = unpacked(carries)
    assert table["rows"][0][table["columns"].index("status")] == "stopped"
    _, outputs = kernel.run("%%xpander echo -m scripted/fail\nx")
    (carries,) = (out["content"]["data"][MIME] for out in outputs if MIME in out["content"].get("data", {}))
    assert unpacked(carries)["rows"][0][table["columns"].index("error_type")] == "TaskFailed"


def test_an_interrupted_sweep_is_carried(
    connected: LocalServer,
    kernel: Kernel,  # noqa: F811
    store: Store,  # noqa: F811
) -> None:
    kernel.text("s = {'script': {'chunks': ['x'] * 1000, 'rate': 2}}")
    kernel.client.execute("%%xpander echo --payload s -n 3 -j 1\nhello")
    until(lambda: [run for run in store.select() if run.status == "executing"])
    kernel.manager.interrupt_kernel()
    carries = until(lambda: _with(MIME, kernel.client.get_iopub_msg(timeout=60)))
    assert len(carries["run_ids"]) == len(unpacked(carries)["rows"]) == 3
    until(lambda: kernel.client.get_shell_msg(timeout=60))


def test_a_sweep_that_an_error_stops_is_carried_without_being_shown(watched: Watched) -> None:  # noqa: F811
    watched.on(INVOKE, reply(), reply(401, {"detail": "Invalid API key"}))
    with running_kernel() as running:
        answer, outputs = running.run("%%xpander writer -n 3 -j 1\nhello")
    assert answer["ename"] == "AuthError"
    carries = [found for out in outputs if (found := _with(MIME, out))]
    assert [len(found["run_ids"]) for found in carries] == [3]


def _with(mime: str, message: Any) -> Any:
    return message["content"].get("data", {}).get(mime)


def test_what_no_cell_put_out_has_no_source(connected: LocalServer, kernel: Kernel) -> None:  # noqa: F811
    """A run that is shown from a thread, or by code that isn't kept in the history, as by a front end's own."""
    kernel.text("%%xpander echo -o run -q\nhello")
    shown = "from IPython.display import display\nimport threading\n"
    shown += "t = threading.Thread(target=display, args=(run,)); t.start(); t.join()"
    outputs: list[dict[str, Any]] = []
    kernel.client.execute_interactive(shown, timeout=180, output_hook=outputs.append)
    kernel.client.execute_interactive("display(run)", timeout=180, output_hook=outputs.append, store_history=False)
    assert [found["source"] for out in outputs if (found := _with(MIME, out))] == [None, None]


def test_a_comparison_names_its_runs(connected: LocalServer, tmp_path: Path) -> None:
    path = tmp_path / "study.ipynb"
    sweep = "%%xpander echo -m scripted/echo,scripted/fail -n 2 -o swept\nhello"
    nbformat.write(executed(sweep, "swept.compare('model')"), path)
    frame = read_notebook(path)
    swept, compared = frame.attrs["cells"]
    assert set(compared["run_ids"]) == set(swept["run_ids"]) == set(frame["run_id"])
    assert compared["missing"] == 0
    carries = nbformat.read(path, as_version=4).cells[2].outputs[0].data[MIME]
    assert unpacked(carries)["rows"] == []


def test_a_panels_runs_are_carried(connected: LocalServer) -> None:
    with running_kernel() as running:
        running.text("import xpander_magics as xp\np = xp.panel()")
        _, outputs = running.run("p")
        assert not any(_with(MIME, out) for out in outputs), "nothing was sent yet"
        running.text(
            "from xpander_magics.cell import parse_cell\n"
            "for prompt in ('by the panel', 'once more'): p._carry_out(parse_cell('echo'), prompt)"
        )
        _, outputs = running.run("p")
        (carries,) = filter(None, (_with(MIME, out) for out in outputs))
        ids = running.text("print(*xp.runs()['run_id'])").split()
    assert carries["run_ids"] == ids
    assert len(unpacked(carries)["rows"]) == 2


def test_a_terminal_has_nothing_of_it(notebook: Notebook) -> None:
    run = notebook.ask("echo")
    notebook.run("%%xpander echo -n 2 -o runs\nhello")
    for shown in (run, notebook.ns["runs"]):
        assert set(shown._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_secrets_and_requests_stay_out(connected: LocalServer, tmp_path: Path) -> None:
    secret, other = "sk-live-0123456789abcdef", "another-0123456789abcdef"
    cells = (
        f"import os; os.environ['OTHER_API_KEY'] = {secret!r}",
        f"servers = [{{'type': 'url', 'name': 'm', 'url': 'http://127.0.0.1:9/', 'headers': {{'X': {other!r}}}}}]",
        f"p = {{'script': {{'result': 'the key is {secret}'}}}}",
        "%%xpander echo --mcp servers --payload p --allow-secrets\nhello {{ p.script.result }}",
    )
    notebook = executed(*cells)
    (carries,) = (out.data[MIME] for out in notebook.cells[4].outputs if MIME in out.data)
    text = json.dumps(unpacked(carries))
    assert "the key is ***" in text
    assert secret not in text
    assert other not in text
    assert "request" not in unpacked(carries)["columns"]
    assert connected.key not in text


@pytest.mark.parametrize("exporter", [HTMLExporter, MarkdownExporter])
def test_exports_pass_over_it(tmp_path: Path, exporter: Any) -> None:
    unseen, run = packed([full_run()]), packed([full_run()])
    path = saved(tmp_path / "study.ipynb", code("%%xpander -q\nx", unseen), code("%%xpander\nx", run))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    notebook.cells[2].outputs[0].data["text/plain"] = "the answer"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page, _ = exporter().from_notebook_node(notebook)
    assert "the answer" in page
    assert "vnd.xpander" not in page
    assert run["rows"] not in page


def test_executing_a_notebook_again_keeps_it(connected: LocalServer, tmp_path: Path) -> None:
    path = tmp_path / "study.ipynb"
    nbformat.write(executed("%%xpander echo\nhello"), path)
    first = read_notebook(path)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=180, kernel_name="python3").execute()
    nbformat.write(notebook, path)
    assert read_notebook(path)["run_id"].tolist() != first["run_id"].tolist()
    assert len(read_notebook(path)) == 1


# ---- what is carried


def odd_runs() -> list[Run]:
    nested: Any = "deep"
    for _ in range(60):
        nested = [nested]
    return [
        full_run(),
        Run(run_id="bare"),
        Run(
            run_id="odd",
            status="completed",
            prompt="\x00 \ud800 \x1a0000 ümlaut 漢字",
            result="\u2028\n\r\n",
            output=[math.inf, 1e300, 2**70, nested],
            variables={"a": {"b": None}, "ü": "\ud800"},
            metadata={"x": "</script>"},
            prompt_tokens=2**53,
            cost_usd=math.inf,
            latency_s=0.1 + 0.2,
            is_byok=False,
            scores={"exact": 1.0, "f-1": 0.1 + 0.2},
        ),
    ]


def test_every_value_comes_back(tmp_path: Path) -> None:
    runs = odd_runs()
    frame = read_notebook(saved(tmp_path / "study.ipynb", code("x", packed(runs, source=hash_of("x")))))
    assert_frame_equal(pd.DataFrame(frame), frame_of(runs))
    assert frame.attrs["cells"] == [
        {
            "cell": 2,
            "execution_count": 1,
            "run_ids": ["aa01", "bare", "odd"],
            "edited": False,
            "intact": True,
            "missing": 0,
        }
    ]


def test_a_notebook_without_runs_is_an_empty_frame(tmp_path: Path) -> None:
    stream = {"output_type": "stream", "name": "stdout", "text": "x"}
    cell = {**code("x"), "outputs": [stream, {"output_type": "display_data", "data": {"text/plain": "x"}}]}
    frame = read_notebook(saved(tmp_path / "study.ipynb", cell))
    assert frame.dtypes.astype(str).to_dict() == DTYPES
    assert len(frame) == 0
    assert frame.attrs == {"cells": []}


def test_the_newest_output_of_a_run_counts(tmp_path: Path) -> None:
    def put_out(status: str) -> dict[str, Any]:
        return packed([Run(run_id="one", status=status), Run(run_id=f"beside {status}")])

    older = put_out("executing")
    newer = put_out("completed")
    frame = read_notebook(saved(tmp_path / "study.ipynb", code("a", newer), code("b", older)))
    assert frame["run_id"].tolist() == ["one", "beside completed", "beside executing"], "as the notebook shows them"
    assert frame["status"].tolist() == ["completed", "planned", "planned"]
    assert [cell["edited"] for cell in frame.attrs["cells"]] == [None, None]


def test_only_as_much_as_fits_is_carried(tmp_path: Path) -> None:
    runs = [Run(run_id=f"{number:032x}") for number in range(MOST_RUNS + 5)]
    carries = packed(runs)
    assert len(carries["run_ids"]) == carries["runs"] == MOST_RUNS + 5
    assert len(unpacked(carries)["rows"]) == MOST_RUNS
    with pytest.warns(NotebookWarning, match="5 runs of cell 2 are only named in it, and the run store here"):
        frame = read_notebook(saved(tmp_path / "study.ipynb", code("x", carries)))
    assert frame["run_id"].tolist() == [run.run_id for run in runs[:MOST_RUNS]]
    assert frame.attrs["cells"][0]["missing"] == 5
    # A server drops what is more than 3 MB at once.
    noise = random.Random(7)
    large = [Run(run_id=str(number), result=noise.randbytes(2_500).hex()) for number in range(900)]
    carries = packed(large)
    assert 800_000 < len(carries["rows"]) <= 1_000_000
    assert 0 < len(unpacked(carries)["rows"]) < 900
    huge = packed([Run(run_id="huge", result="x" * 5_000_000), Run(run_id="small")])
    assert [row[0] for row in unpacked(huge)["rows"]] == ["small"]
    assert huge["run_ids"] == ["huge", "small"]
    many = packed((), (str(number) for number in range(12_000)))
    assert (len(many["run_ids"]), many["runs"]) == (10_000, 12_000)
    with pytest.warns(NotebookWarning, match="12,000 runs of cell 2"):
        assert len(read_notebook(saved(tmp_path / "study.ipynb", code("x", many)))) == 0


def test_what_is_only_named_comes_from_the_store(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept, held = Run(run_id="kept", result="from the store"), Run(run_id="held")
    default_session().store.add([kept])
    path = saved(tmp_path / "study.ipynb", code("x", packed([held], ["kept", "held"])))
    frame = read_notebook(path)
    assert_frame_equal(pd.DataFrame(frame), frame_of([kept, held]))
    assert frame.attrs["cells"][0]["missing"] == 0


def test_columns_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    carries = packed([full_run()])
    table = unpacked(carries)
    table["columns"] = ["of_later", *table["columns"][:-3]]
    table["rows"] = [[{"any": "thing"}, *row[:-3]] for row in table["rows"]]
    frame = read_notebook(saved(tmp_path / "study.ipynb", code("x", repacked(carries, table))))
    assert frame["prompt"].tolist() == ["a prompt"]
    assert pd.isna(frame["note"][0])


@pytest.mark.parametrize("written", [json.dumps, lambda carries: [f"{json.dumps(carries)}\n"]])
def test_it_may_be_written_as_text(tmp_path: Path, written: Any) -> None:
    path = saved(tmp_path / "study.ipynb", {**code("x", written(packed([full_run()]))), "source": ["x\n", "y"]})
    assert read_notebook(path)["run_id"].tolist() == ["aa01"]


# ---- hostile and broken files


def test_changed_rows_are_said(tmp_path: Path) -> None:
    carries = packed([full_run()])
    table = unpacked(carries)
    table["rows"][0][table["columns"].index("result")] = "a better result"
    changed = repacked(carries, table, sha256=carries["sha256"])
    with pytest.warns(NotebookWarning, match="the rows of cell 2 aren't as they were put out"):
        frame = read_notebook(saved(tmp_path / "study.ipynb", code("x", changed)))
    assert frame["result"].tolist() == ["a better result"]
    assert frame.attrs["cells"][0]["intact"] is False


def with_value(name: str, value: Any) -> Any:
    def change(carries: dict[str, Any]) -> Any:
        table = unpacked(carries)
        table["rows"][0][table["columns"].index(name)] = value
        return repacked(carries, table)

    return change


MALFORMED: list[tuple[Any, str]] = [
    (lambda c: 5, "can't be read"),
    (lambda c: "no JSON", "can't be read"),
    (lambda c: [1], "can't be read"),
    (lambda c: {}, "version isn't known"),
    (lambda c: {**c, "version": 2}, "a newer xpander_magics wrote it"),
    (lambda c: {**c, "run_ids": "aa01"}, "aren't of their types"),
    (lambda c: {**c, "run_ids": [["aa01"]]}, "aren't of their types"),
    (lambda c: {**c, "runs": True}, "aren't of their types"),
    (lambda c: {**c, "at": 5}, "aren't of their types"),
    (lambda c: {**c, "source": 5}, "aren't of their types"),
    (lambda c: {**c, "run_ids": ["another"]}, "holds runs that it doesn't name"),
    (lambda c: {k: v for k, v in c.items() if k != "rows"}, "'rows' is missing"),
    (lambda c: {**c, "rows": 5}, "can't be read"),
    (lambda c: {**c, "rows": "%%%"}, "can't be read"),
    (lambda c: {**c, "rows": "ü"}, "can't be read"),
    (lambda c: {**c, "rows": base64.b64encode(b"no gzip").decode()}, "rows are damaged"),
    (lambda c: {**c, "rows": c["rows"][: len(c["rows"]) // 8 * 4]}, "rows end too early"),
    (lambda c: repacked(c, []), "can't be read"),
    (lambda c: repacked(c, {"columns": ["run_id"], "rows": [["aa01", "more"]]}), "can't be read"),
    (lambda c: repacked(c, {"columns": ["run_id"], "rows": [5]}), "can't be read"),
    (lambda c: repacked(c, {"columns": [["run_id"]], "rows": [["aa01"]]}), "can't be read"),
    (lambda c: repacked(c, {"columns": ["prompt"], "rows": [["x"]]}), "a run has no id"),
    (lambda c: repacked(c, {"columns": ["run_id"], "rows": [[None]]}), "a run has no id"),
    (lambda c: repacked(c, b"[" * 100_000), "can't be read"),
    (lambda c: repacked(c, b'{"columns":["repeat"],"rows":[[' + b"9" * 5000 + b"]]}"), "can't be read"),
    (with_value("prompt", 5), "a run's prompt isn't string"),
    (with_value("prompt", {"a": 1}), "a run's prompt isn't string"),
    (with_value("metadata", {"a": 1}), "a run's metadata isn't object"),
    (with_value("repeat", "1"), "a run's repeat isn't Int64"),
    (with_value("repeat", True), "a run's repeat isn't Int64"),
    (with_value("repeat", 1 << 63), "a run's repeat isn't Int64"),
    (with_value("latency_s", "1"), "a run's latency_s isn't Float64"),
    (with_value("is_byok", 1), "a run's is_byok isn't boolean"),
    (with_value("created_at", "2026"), "a run's created_at isn't datetime64"),
    (with_value("created_at", 1 << 62), "can't be read"),
    (with_value("status", ["completed"]), "a run's status isn't category"),
    (with_value("scores", '{"a\\nb": 1.0}'), "A score's name is made of"),
    (with_value("scores", '{"<script>": 1.0}'), "A score's name is made of"),
    (with_value("scores", '{"\\ud800": 1.0}'), "A score's name is made of"),
    (with_value("scores", json.dumps({"a" * 61: 1.0})), "A score's name is made of"),
]


@pytest.mark.parametrize(("change", "says"), MALFORMED)
def test_what_is_malformed_names_its_cell(tmp_path: Path, change: Any, says: str) -> None:
    good = packed([full_run()])
    path = saved(tmp_path / "study.ipynb", code("x", good), code("y", change(copy.deepcopy(good))))
    with pytest.raises(ConfigError, match=says) as caught:
        read_notebook(path)
    first, second = str(caught.value).splitlines()
    assert first.startswith("study.ipynb: what cell 3 carries of its runs can't be read: ")
    assert second == "Run the cell again, or clear its outputs."


@pytest.mark.parametrize("column", ["output", "variables", "tags", "tools_used", "metadata", "scores"])
@pytest.mark.parametrize("text", ["{", "5", '"x"', "[]", "{}", "null", "[" * 50_000, '{"a": NaN}', '{"a": "x"}'])
def test_odd_json_in_a_column_is_a_value(tmp_path: Path, column: str, text: str) -> None:
    """As in the store: it is what the text says, or the text; the dtypes hold."""
    path = saved(tmp_path / "study.ipynb", code("x", with_value(column, text)(packed([full_run()]))))
    frame = read_notebook(path)
    assert {name: str(dtype) for name, dtype in frame.dtypes.items() if name in DTYPES} == DTYPES
    assert not any(name.startswith("score_") and str(dtype) != "Float64" for name, dtype in frame.dtypes.items())


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    good = packed([full_run()])
    bomb = repacked(good, b'{"columns":[],"rows":[' + b" " * 40_000_000)
    assert len(bomb["rows"]) < 200_000
    path = saved(tmp_path / "study.ipynb", code("x", bomb))
    tracemalloc.start()
    with pytest.raises(ConfigError, match="its rows unpack to more than can be"):
        read_notebook(path)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    each = repacked(good, b'{"columns":[],"rows":[]' + b" " * 4_000_000 + b"}", run_ids=[], runs=0)
    path = saved(tmp_path / "study.ipynb", *(code("x", each) for _ in range(100)))
    with pytest.raises(ConfigError, match=r"what cell 69 carries .* unpack to more than can be"):
        read_notebook(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no notebook: it holds no JSON"),
        (b"\xff\xfe\xfd", "is no notebook: it holds no JSON"),
        (b"# %%\nprint()", "is no notebook: it holds no JSON"),
        (b"[" * 100_000, "is no notebook: it holds no JSON"),
        (b"5", "is no notebook: it doesn't say"),
        (b"{}", "is no notebook: it doesn't say"),
        (b'{"nbformat": "4"}', "is no notebook: it doesn't say"),
        (b'{"nbformat": 4}', "it has no list of cells"),
        (b'{"nbformat": 4, "cells": {}}', "it has no list of cells"),
        (b'{"nbformat": 3, "worksheets": []}', "is a notebook of format 3; only format 4 can be read"),
    ],
)
def test_what_is_no_notebook(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "study.ipynb"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        read_notebook(path)
    assert str(path) in str(caught.value)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.ipynb"):
        with pytest.raises(ConfigError, match="can't be read: "):
            read_notebook(path)


@pytest.mark.parametrize(
    "cell", [None, 5, "x", [], {}, {"outputs": 5}, {"outputs": [5, None, {"data": 5}, {"data": {MIME: None}}]}]
)
def test_odd_cells_carry_nothing(tmp_path: Path, cell: Any) -> None:
    assert len(read_notebook(saved(tmp_path / "study.ipynb", cell))) == 0


@pytest.mark.parametrize("odd", [{"source": None}, {"source": []}, {"execution_count": "x"}, {"execution_count": {}}])
def test_odd_cells_that_carry_something(tmp_path: Path, odd: dict[str, Any]) -> None:
    path = saved(tmp_path / "study.ipynb", {**code("", packed([full_run()], source=hash_of(""))), **odd})
    (cell,) = read_notebook(path).attrs["cells"]
    assert cell["execution_count"] in (1, None)
    assert cell["edited"] is False


def test_it_is_public() -> None:
    assert xp.read_notebook is carried.read_notebook
