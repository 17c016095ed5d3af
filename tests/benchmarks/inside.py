"""What the page measures within a tool's own Python: ``page.py`` runs it there, with what that tool needs and no more.

``inside.mjs`` is the same for promptfoo.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

from bench_sweep import INVOKE, KEY
from reporting import in_turns

PROMPT = "Classify ticket 1"
QUERY = "SELECT * FROM runs"
INSPECTED = 1_000


def shell_with(extension: str) -> Any:
    """A bare IPython with an extension."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    shell.run_line_magic("load_ext", extension)
    return shell


def run(shell: Any, cell: str) -> Any:
    """Runs a cell; what it writes is taken in, as a kernel would."""
    with contextlib.redirect_stdout(io.StringIO()):
        result = shell.run_cell(cell, store_history=False)
    result.raise_error()
    return result.result


def posted(address: str, body: dict[str, Any]) -> Any:
    """A function that sends a request by one bare session, which stays connected."""
    import requests

    session, headers = requests.Session(), {"x-api-key": KEY, "Authorization": f"Bearer {KEY}"}
    return lambda: session.post(address, json=body, headers=headers).json()


def chatted(url: str, model: str) -> Any:
    """The same for a chat completion."""
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}]}
    return posted(f"{url}/v1/chat/completions", body)


def cell_of_ours(url: str, rounds: int) -> Any:
    shell = shell_with("xpander_magics")
    cell = f"%%xpander writer --mode sync --no-usage -o answer\n{PROMPT}"
    told = in_turns(rounds, lambda: run(shell, cell), posted(url + INVOKE, {"input": {"text": PROMPT}}))
    assert shell.user_ns["answer"].status == "completed"
    return told


def cell_of_jupyter_ai(url: str, rounds: int) -> Any:
    os.environ |= {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_BASE": f"{url}/v1"}
    shell = shell_with("jupyter_ai_magics")
    cell = f"%%ai openai-chat:gpt-4o-mini -f text\n{PROMPT}"
    assert str(run(shell, cell)), "it answered nothing"
    return in_turns(rounds, lambda: run(shell, cell), chatted(url, "gpt-4o-mini"))


def jupysql() -> Any:
    """A shell with it, set up as its documentation says for frames and little talk."""
    shell = shell_with("sql")
    for setting in ("autopandas = True", "feedback = 0", "displaycon = False"):
        run(shell, f"%config SqlMagic.{setting}")
    return shell


def cell_of_jupysql(url: str, rounds: int) -> Any:
    import pandas as pd

    shell, connection = jupysql(), sqlite3.connect(":memory:")
    run(shell, "%sql sqlite://")

    def floor() -> object:
        cursor = connection.execute("SELECT 1 AS number")
        return pd.DataFrame(cursor.fetchall(), columns=[column[0] for column in cursor.description])

    return in_turns(rounds, lambda: run(shell, "%%sql answer <<\nSELECT 1 AS number"), floor)


def inspect_eval(count: int, model: str, folder: str) -> Path:
    """Where the log is of an evaluation of so many samples."""
    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.solver import generate

    samples = [Sample(input=f"Classify ticket {number}") for number in range(count)]
    task = Task(dataset=MemoryDataset(samples), solver=generate())
    (log,) = eval(task, model=model, display="none", log_dir=folder, log_realtime=False)
    assert log.status == "success", log.error and log.error.message
    return Path(log.location)


def at(url: str) -> str:
    """Inspect's name of a model at this address, with its provider for servers like OpenAI's."""
    os.environ |= {"BENCH_BASE_URL": f"{url}/v1", "BENCH_API_KEY": KEY}
    return "openai-api/bench/writer"


def cell_of_inspect(url: str, rounds: int) -> Any:
    model = at(url)
    return in_turns(rounds, lambda: inspect_eval(1, model, "logs"), chatted(url, "writer"))


def frame_of_jupysql(database: str, rounds: int) -> Any:
    import pandas as pd
    from sqlalchemy import create_engine

    shell, engine = jupysql(), create_engine(f"sqlite:///{database}")
    run(shell, f"%sql sqlite:///{database}")

    def own() -> None:
        run(shell, f"%%sql frame <<\n{QUERY}")

    told = in_turns(rounds, own, lambda: pd.read_sql_query(QUERY, engine), 1.0)
    assert shell.user_ns["frame"].shape == pd.read_sql_query(QUERY, engine).shape
    return told


def frame_of_inspect(url: str, rounds: int) -> Any:
    """A log of fewer samples: Inspect takes far longer to write one than to read it."""
    import zipfile

    import pandas as pd
    from inspect_ai.analysis import samples_df

    log = inspect_eval(INSPECTED, at(url), "logs")

    def floor() -> pd.DataFrame:
        return pd.DataFrame(json.loads(zipfile.ZipFile(log).read("summaries.json")))

    def own() -> pd.DataFrame:
        with contextlib.redirect_stdout(io.StringIO()):
            return samples_df(str(log), quiet=True)

    assert len(own()) == len(floor()) == INSPECTED
    return in_turns(rounds, own, floor, 1.0)


if __name__ == "__main__":
    function, given, rounds = sys.argv[1:]
    print("\n" + json.dumps(globals()[function](given, int(rounds))))
