"""The main job, end to end: one prompt over some inputs, two models by two efforts, into a DataFrame.

Everything is real: the embedded server in its own process, two language models on this machine's
processor, HTTP between, and the run store. Only the price is not what it would be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpander_magics.cell import Options
from xpander_magics.safety import plain
from xpander_magics.session import Session

if TYPE_CHECKING:
    import pandas as pd

    from xpander_magics.analysis.comparison import Comparison

EXPERIMENT = "demo"
MODELS = ("local/smollm2-135m-instruct", "local/gemma-3-270m")
EFFORTS = ("low", "high")
TICKETS = (
    ("The app crashes when I click save.", "bug"),
    ("I was charged twice this month.", "billing"),
    ("I love the new dashboard, great work!", "praise"),
    ("The export button does nothing.", "bug"),
    ("Can I get my money back for last week?", "billing"),
)
PROMPT = "Classify this support ticket as bug, billing or praise: {{ text }}"


def demo() -> pd.DataFrame:
    """Runs it, prints the frame and the comparison, and says how to go on.

    Returns:
        The runs' DataFrame, one row a run.

    Raises:
        XpanderError: a part of the way is missing; says which.
    """
    from xpander_magics.analysis.comparison import compare
    from xpander_magics.local import require
    from xpander_magics.local.models import ensure

    require("fastapi", "uvicorn", "httpx", "yaml", "tqdm", "xllamacpp")
    for model in MODELS:
        ensure(model.partition("/")[2])
    session = Session()
    try:
        session.start_local()
        count = len(TICKETS) * len(MODELS) * len(EFFORTS)
        print(f"{len(TICKETS)} tickets x {len(MODELS)} models x {len(EFFORTS)} efforts = {count} runs", flush=True)
        options = Options(
            target="ticket-classifier",
            models=MODELS,
            efforts=EFFORTS,
            over=[{"text": text, "label": label} for text, label in TICKETS],
            jobs=2,
            experiment=EXPERIMENT,
            scores=("normalized",),
            expected="label",
        )
        # A failed run is a row like any other.
        runs = session.sweep(session.grid(options, PROMPT, {}))
        frame = runs.df
        compared = compare(runs, by=["model", "effort"])
    finally:
        session.close()
    _show(frame, compared)
    return frame


def _show(frame: pd.DataFrame, compared: Comparison) -> None:
    import pandas as pd

    columns = ["ticket", "model", "effort", "status", "result", "total_tokens", "latency_s"]
    with pd.option_context("display.width", 160, "display.max_columns", 20, "display.max_colwidth", 42):
        print("\nThe DataFrame (some of its columns):\n")
        table = frame.assign(ticket=[variables["text"] for variables in frame["variables"]])[columns]
        print(plain(table.round({"latency_s": 2}).to_string(index=False)))
        print("\nCompared:\n")
        print(compared)
    print(
        "\nThe runs are kept: xpander_magics.runs(experiment='demo') reads them again.\n"
        "To go on in a notebook:  python -m pip install jupyterlab  and then  jupyter lab notebooks/quickstart.ipynb"
    )
