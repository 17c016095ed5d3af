"""The same setup twice: what is sent, and what it tells."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pandas as pd
import pytest
from notebook_shell import Notebook
from scipy import stats

from xpander_magics.analysis.comparison import compare
from xpander_magics.analysis.noise import NoiseRuns, noise, quoted
from xpander_magics.errors import ConfigError
from xpander_magics.outcomes import Runs
from xpander_magics.results import Run

ARMS = ("first", "second")
ROWS = """rows = [
    {'text': f't{n}', 'label': 'bug', 'p': {'script': {'result': ['bug', 'praise'][n % 2]}}} for n in range(6)
]"""


def swept(notebook: Notebook, line: str, body: str = "{{ text }}") -> Runs:
    notebook.run(ROWS)
    notebook.run(f"%%xpander echo --over rows --payload p -o runs -q {line}\n{body}")
    runs = notebook.ns["runs"]
    assert isinstance(runs, Runs)
    return runs


def quiet(_told: Any) -> None:
    """Watches nothing."""


def asked(run: Run) -> dict[str, Any]:
    """What was sent, but for the mark."""
    payload = {name: value for name, value in run.request["payload_extension"].items() if "xpander" not in name}
    return {**run.request, "payload_extension": payload, "variables": run.variables, "template": run.template}


def test_one_setup_is_sent_twice_as_it_was(notebook: Notebook) -> None:
    runs = swept(notebook, "-m scripted/echo,scripted/fail -e low --experiment tickets --title T-{{text}} --tag mine")
    told: list[str] = []
    found = noise(runs, watch=quiet, tell=told.append)
    assert told[0] == "Sending 12 runs: 6 inputs of echo, each twice.\n"
    assert isinstance(found, NoiseRuns)
    assert Counter(run.status for run in found) == {"completed": 12}
    first = [run for run in runs if run.requested_model == "echo"]
    for number, run in enumerate(found):
        assert asked(run) == asked(first[number // 2])
        assert (run.experiment, run.tags, run.repeat) == ("tickets", ["noise"], number % 2 + 1)
    # They are the same inputs, then: a comparison pairs them.
    both = compare([*runs, *found], by="model", score="success")
    assert both.table["inputs"].tolist() == [6, 6]
    assert len(notebook.run("import xpander_magics as xp\nxp.runs(tag='noise')")) == 12


def test_the_arms_are_interleaved_and_the_repeats_apart(notebook: Notebook) -> None:
    runs = swept(notebook, "-m scripted/echo")
    notebook.run("%xpander use -j 1")
    found = noise(runs, watch=quiet, tell=quiet)
    notebook.run("%xpander use --clear")
    sent = sorted(zip(found, found.arms, strict=True), key=lambda pair: pair[0].sent_at or pair[0].created_at)
    assert [arm for _, arm in sent] == ["first", "second"] * 3 + ["second", "first"] * 3
    texts = [run.variables["text"] for run, _ in sent]
    assert texts[:6] == texts[6:] == [f"t{number}" for number in range(6)]


def test_another_configuration_by_its_name(notebook: Notebook) -> None:
    runs = swept(notebook, "-m scripted/echo,scripted/fail")
    found = noise(runs, "FAIL", watch=quiet, tell=quiet)
    assert {run.requested_model for run in found} == {"fail"}
    report = found.report()
    assert "The same setup twice: fail, 6 inputs, 12 runs." in report
    assert "12 runs failed" in report
    with pytest.raises(ConfigError, match="no configuration 'gpt'"):
        noise(runs, "gpt", watch=quiet, tell=quiet)


def test_runs_without_variables_are_told_apart_by_their_prompts(notebook: Notebook) -> None:
    answers = [notebook.ask("echo -m scripted/echo", text) for text in ("one", "two")]
    found = noise(answers, watch=quiet, tell=quiet)
    assert [run.prompt for run in found] == ["one", "one", "two", "two"]
    assert found.equal_answers() == (2, 2)


# ---- what it tells


def test_scores_are_made_as_they_were(notebook: Notebook) -> None:
    runs = swept(notebook, "-m scripted/echo")
    runs.score("exact", "label")
    runs.score("words=regex:\\w+")
    found = noise(runs, watch=quiet, tell=quiet)
    assert found.df["score_exact"].tolist() == [1, 1, 0, 0] * 3
    assert found.df["score_words"].tolist() == [1] * 12
    report = found.report()
    assert "Both answers are equal for 6 of 6 inputs (100%)." in report
    assert "exact, the mean: 0.5 and 0.5; difference +0" in report
    assert "Repeats never differed: a noise floor of 0." in report
    assert found.noise["exact"].floor == 0
    row = found.comparison.differences.set_index("score").loc["exact"]
    assert (row["inputs"], row["ties"]) == (6, 6)
    bundle = found._repr_mimebundle_()
    assert report in bundle["text/plain"]
    assert "xpander-noise" in bundle["text/html"]


def test_what_is_not_scored_again_is_said(notebook: Notebook) -> None:
    runs = swept(notebook, "-m scripted/echo")

    def length(text: str) -> float:
        return len(text) / 10

    runs.score(length)
    found = noise(runs, watch=quiet, tell=quiet)
    assert "score_length" not in found.df.columns
    assert "They have no score length" in found.report()
    assert noise(runs, score=length, watch=quiet, tell=quiet).df["score_length"].notna().all()


def test_answers_that_change_make_noise(notebook: Notebook) -> None:
    runs = swept(notebook, "-m scripted/echo")
    found = noise(runs, watch=quiet, tell=quiet)
    scores = [1, 1, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0]
    for run, score in zip(found, scores, strict=True):
        run.scores, run.result = {"mine": float(score)}, f"answer {score}"
    assert found.equal_answers() == (3, 6)
    # By input, first and second arm: (1, 1), (1, 0), (1, 0), (0, 0), (1, 1), (0, 1).
    arms = {arm: [run.scores["mine"] for run, at in zip(found, found.arms, strict=True) if at == arm] for arm in ARMS}
    assert arms == {"first": [1, 1, 1, 0, 1, 0], "second": [1, 0, 0, 0, 1, 1]}
    (row,) = found.comparison.differences.to_dict("records")
    assert row["difference"] == pytest.approx(-1 / 6)
    assert (row["wins"], row["ties"], row["losses"]) == (1, 3, 2)
    # Three of six inputs have a variance of 1/2, the others none; a mean of 12 runs of 6 inputs, each twice.
    within = 3 * 0.5 / 6
    assert found.noise["mine"].floor == pytest.approx(stats.t.ppf(0.975, 6) * math.sqrt(2 * within / 12))
    report = found.report()
    assert "Both answers are equal for 3 of 6 inputs (50%)." in report
    floor = found.noise["mine"].floor
    assert f"Noise floor {floor * 2**0.5:.3g} where each input is sent once, {floor:.3g} where twice" in report
    assert "mine, the mean: 0.667 and 0.5; difference -0.167 (95% interval -" in report


def test_a_difference_without_an_interval_is_told(notebook: Notebook) -> None:
    def length(answer: str) -> float:
        return 3.0 if answer else 0.0  # the same for all, and no share: there is nothing to estimate an interval from

    found = noise(swept(notebook, "-m scripted/echo"), score=length, watch=quiet, tell=quiet)
    assert pd.isna(found.comparison.differences.iloc[0]["low"])
    assert "length, the mean: 3 and 3; difference +0. Repeats never differed" in found.report()


def test_compare_takes_it_as_it_is(notebook: Notebook) -> None:
    runs = swept(notebook, "-m scripted/echo,scripted/fail")
    found = noise(runs, watch=quiet, tell=quiet)
    compared = compare(runs, by="model", score="exact", expected="label", noise=found)
    assert compared.noise["exact"].floor == 0
    assert compared.noise["exact"].pairs == 6


# ---- what is refused


def test_a_quote_sends_nothing(notebook: Notebook) -> None:
    runs = swept(notebook, "-m scripted/echo")
    before = notebook.newest_tasks()
    told = quoted(runs)
    assert "Nothing was sent. 12 runs, 12 requests, to echo." in told
    assert notebook.newest_tasks() == before


def test_what_can_not_be_asked_again(notebook: Notebook) -> None:
    run = notebook.ask("echo -m scripted/echo")
    before = notebook.newest_tasks()
    with pytest.raises(ConfigError, match="went on with a conversation"):
        noise([run.reply("and?")], watch=quiet, tell=quiet)
    notebook.ns["m"] = {"name": "m", "config": {"headers": {"Authorization": "Bearer abcdefghijkl"}}}
    secret = notebook.ask("echo -m scripted/echo --mcp m")
    with pytest.raises(ConfigError, match="with a secret"):
        noise([secret], watch=quiet, tell=quiet)
    run.base_url = "https://elsewhere.example"
    with pytest.raises(ConfigError, match="was sent to https://elsewhere"):
        noise([run], watch=quiet, tell=quiet)
    for wrong in ([], 3, ["x"], notebook.ns):
        with pytest.raises(ConfigError, match="takes Runs"):
            noise(wrong, watch=quiet, tell=quiet)  # type: ignore[arg-type]
    assert len(before) < 4


def test_the_command(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    swept(notebook, "-m scripted/echo")
    before = notebook.newest_tasks()
    assert notebook.run("%xpander noise runs --dry-run") is None
    assert "Nothing was sent. 12 runs" in capsys.readouterr().out
    assert notebook.newest_tasks() == before
    found = notebook.run("%xpander noise runs -o twice")
    assert "Sending 12 runs: 6 inputs" in capsys.readouterr().out
    assert found is notebook.ns["twice"]
    assert isinstance(found, NoiseRuns)
