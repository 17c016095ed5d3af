"""A comparison in MLflow: a run a configuration, with its settings as parameters, its table's figures as metrics, and
its own runs as a table. Nothing of the process's own MLflow settings is changed."""

from __future__ import annotations

import math
import numbers
import re
import time
from typing import TYPE_CHECKING, Any

from xpander_magics import extras
from xpander_magics.analysis.exports.formats import plain_columns
from xpander_magics.errors import ConfigError
from xpander_magics.safety import Redactor, plain, secret_variables

if TYPE_CHECKING:
    from xpander_magics.analysis.comparison import Comparison

RUNS = "runs.json"
"""The table of a configuration's runs, among its artifacts: ``mlflow.load_table`` reads them all."""

_LONGEST_PARAMETER = 6_000
_UNFIT = re.compile(r"[^\w\-. /]")
_USER = re.compile(r"://[^/\s@]*@")


def to_mlflow(comparison: Comparison, experiment: str) -> int:
    """Adds an MLflow run for each configuration to an experiment, which is made where there is none of that name.

    Args:
        experiment: its name. The tracking server is MLflow's own choice: ``MLFLOW_TRACKING_URI``, or what
            ``mlflow.set_tracking_uri`` was told.

    Returns:
        How many were added.

    Raises:
        ConfigError: mlflow is missing, the experiment has no name, or the tracking server can't be used.
    """
    experiment = " ".join(plain(experiment).split())
    if not experiment:
        raise ConfigError("Name the MLflow experiment: mlflow:EXPERIMENT.")
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise ConfigError(extras.missing("--what mlflow needs", "mlflow")) from None
    try:
        return _add(MlflowClient(), comparison, experiment)
    except ImportError as error:  # what mlflow-skinny leaves out
        raise ConfigError(f"This tracking store needs all of MLflow ({error}): {extras.install(['mlflow'])}") from error
    except (MlflowException, OSError) as error:
        told = str(error).strip().partition("\n")[0]
        # The server's address, with whatever password it has, is a part of most of these.
        first = Redactor(secret_variables().values())(_USER.sub("://", told))[:300]
        raise ConfigError(f"MLflow can't be written to: {first}\nIs MLFLOW_TRACKING_URI what it should be?") from None


def _add(client: Any, comparison: Comparison, experiment: str) -> int:
    import pandas as pd
    from mlflow.entities import Metric, Param

    found = client.get_experiment_by_name(experiment)
    experiment_id = client.create_experiment(experiment) if found is None else found.experiment_id
    configurations, _ = comparison.codes()
    rows = comparison.table.to_dict("records")
    for row in rows:
        frame = comparison.frame[configurations == comparison.names.index(row["configuration"])]
        run = client.create_run(experiment_id, run_name=plain(row["configuration"]))
        run_id, now = run.info.run_id, time.time_ns() // 1_000_000
        status = "FAILED"  # unless all of it is there
        try:
            settings = {name: row[name] for name in comparison.by if not pd.isna(row[name])}
            params = [Param(_named(name), plain(str(value))[:_LONGEST_PARAMETER]) for name, value in settings.items()]
            figures = {name: value for name, value in row.items() if name not in settings and _is_figure(value)}
            metrics = [Metric(_named(str(name)), float(value), now, 0) for name, value in figures.items()]
            client.log_batch(run_id, metrics=metrics, params=params)
            for name in ("experiment", "target"):
                told = [plain(str(value)) for value in frame[name].dropna().unique()]
                if told:
                    client.set_tag(run_id, f"xpander.{name}", ", ".join(told)[:_LONGEST_PARAMETER])
            client.set_tag(run_id, "xpander.failures", comparison.failures)
            client.log_table(run_id, plain_columns(frame), RUNS)
            status = "FINISHED"
        finally:
            client.set_terminated(run_id, status)
    return len(rows)


def _named(name: str) -> str:
    """A name as MLflow takes it."""
    return _UNFIT.sub("_", name)[:250]


def _is_figure(value: Any) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)
