"""Comparisons: what is compared with what, what is counted, what is said aloud."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from notebook_shell import Notebook

from xpander_magics.analysis.comparison import Comparison, compare
from xpander_magics.analysis.layout import lay_out
from xpander_magics.analysis.subjects import subject_of
from xpander_magics.errors import ConfigError
from xpander_magics.matrix import matrix_of
from xpander_magics.outcomes import Entry, Runs
from xpander_magics.results import Run
from xpander_magics.session import Session
from xpander_magics.store.frames import frame_of

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202egnp.exe"


def run(label: str | None = "bug", number: int = 0, **given: Any) -> Run:
    """A run that answered the ticket of this number, which is a bug, unless it is told otherwise."""
    provider, _, model = given.pop("model", "openai/gpt-5").rpartition("/")
    given.setdefault("status", "completed")
    given.setdefault("template", "Classify: {{ text }}")
    given.setdefault("prompt", f"Classify: ticket {number}")
    given.setdefault("variables", {"text": f"ticket {number}", "label": "bug"})
    return Run(result=label, requested_provider=provider or None, requested_model=model or None, **given)


def grid(rates: dict[str, float], inputs: int = 30, repeats: int = 1, **given: Any) -> list[Run]:
    """Runs by effort; of each as many are right as its rate says, the first inputs' first."""
    return [
        run(
            "bug" if number < round(rate * inputs) else "praise",
            number,
            requested_effort=effort,
            repeat=repeat,
            **given,
        )
        for number in range(inputs)
        for effort, rate in rates.items()
        for repeat in range(repeats)
    ]


def exact(runs: Any, by: Any = None, **given: Any) -> Comparison:
    """A comparison of a DataFrame, so that nothing has to be kept."""
    frame = runs if isinstance(runs, pd.DataFrame) else frame_of(runs)
    return compare(frame, by, "exact", "label", **given)


def column(comparison: Comparison, name: str) -> list[Any]:
    return comparison.table[name].tolist()


def told(comparison: Comparison, words: str) -> str:
    """The one note that has these words."""
    (found,) = (note for note in comparison.notes if words in note)
    return found


def text_of(comparison: Comparison) -> str:
    return str(comparison._repr_mimebundle_()["text/plain"])


# ---- configurations


def test_what_varies_makes_configurations() -> None:
    models = ("openai/gpt-5", "anthropic/claude")
    runs = [one for model in models for one in grid({"low": 1, "high": 0.5}, 4, model=model, target="writer")]
    found = exact(runs)
    assert found.by == ("model", "effort")
    assert found.names == ["gpt-5 · low", "gpt-5 · high", "claude · low", "claude · high"]
    assert column(found, "configuration") == found.names
    assert column(found, "model") == ["gpt-5", "gpt-5", "claude", "claude"]
    assert column(found, "exact") == [1, 0.5, 1, 0.5]
    assert column(found, "inputs") == column(found, "runs") == [4] * 4


def test_the_provider_is_named_where_models_need_it() -> None:
    assert exact([run(model=model) for model in ("azure/gpt-5", "openai/gpt-5")]).names == [
        "azure/gpt-5",
        "openai/gpt-5",
    ]


def test_what_ran_tells_where_nothing_was_asked() -> None:
    runs = [run(number=n, model="", target_id=target) for n in range(2) for target in "ab"]
    for one in runs:
        one.provider, one.model = "openai", {"a": "gpt-5", "b": "gpt-5-mini"}[str(one.target_id)]
    found = exact(runs, "model")
    assert found.names == ["gpt-5", "gpt-5-mini"]
    # Nobody asked for the model, and it follows from the target.
    assert exact(runs).by == ("target",)


def test_a_run_that_failed_before_anything_ran_stands_with_its_like() -> None:
    runs = [run(number=n, model="", target_id="a") for n in range(3)]
    for one in runs[:2]:
        one.provider, one.model, one.agent_version, one.think_mode = "openai", "gpt-5", "7", "default"
    runs[2].status = "failed"
    found = exact(runs, "model,version,think")
    assert (found.by, found.names) == (("model", "agent_version", "think_mode"), ["gpt-5 · 7 · default"])
    assert column(found, "failures") == [1]


def test_the_think_mode_that_was_asked_for_is_compared_though_another_ran() -> None:
    runs = [
        run(number=n, request={"think_mode": mode}, think_mode="default")
        for n in (0, 1)
        for mode in ("default", "harder")
    ]
    found = compare(runs)
    assert found.names == ["default", "harder"]
    assert told(found, "think mode") == "think mode harder was asked for, but default ran: 2 of 2 runs."


def filled(template: str, number: int, **given: Any) -> Run:
    return run(number=number, template=template, prompt=template.replace("{{ text }}", str(number)), **given)


def test_prompt_versions_that_compete_have_short_names() -> None:
    templates = ("Say {{ text }}", "Please say {{ text }}")
    found = exact([filled(template, number) for number in range(3) for template in templates])
    assert (found.by, found.names) == (("prompt",), ["prompt 1", "prompt 2"])
    assert found.prompts == {"prompt 1": templates[0], "prompt 2": templates[1]}
    assert column(found, "inputs") == [3, 3]
    assert "prompt 2: Please say {{ text }}" in found.notes
    assert exact([filled(template, number) for number, template in enumerate(templates)]).names == ["runs"]


def test_a_column_or_a_variable_makes_configurations_too() -> None:
    runs = [
        run(
            number=n,
            variables={"text": str(n), "style": style, "label": "bug"},
            prompt=f"{style}: {n}",
            experiment=name,
        )
        for n in range(3)
        for style, name in (("terse", "one"), ("kind", "two"))
    ]
    assert exact(runs, "experiment").names == ["one", "two"]
    by_style = exact(runs, ["style"])
    assert (by_style.by, by_style.names) == (("style",), ["terse", "kind"])
    # The variable that makes the configuration makes no input, though the prompt names it.
    assert by_style.differences["inputs"].tolist() == [3]
    assert exact([run(repeat=n) for n in (0, 1)], "repeat").names == ["repeat 0", "repeat 1"]


def test_an_unknown_name_is_told_with_what_is_near() -> None:
    with pytest.raises(ConfigError, match=r"no column or variable 'modle'. Did you mean .*model"):
        exact([run()], "modle")
    with pytest.raises(ConfigError, match="by takes names"):
        exact([run()], 3)


# ---- inputs


RUNS = st.lists(
    st.builds(
        lambda number, effort, style, thread, template: run(
            number=number,
            requested_effort=effort,
            request={"id": thread} if thread else {},
            template=template,
            prompt=f"{template} {number} {style}",
            variables={"text": number, **({"style": style} if style else {})},
        ),
        st.integers(0, 2),
        st.sampled_from(["low", "high", None]),
        st.sampled_from(["low", "terse", None]),
        st.sampled_from(["one", None]),
        st.sampled_from(["A", "B"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(RUNS)
def test_the_board_has_the_same_inputs(runs: list[Run]) -> None:
    board = [outcome.input for outcome in matrix_of(runs).outcomes]
    assert lay_out(subject_of(runs)).input.tolist() == board


def test_a_column_that_names_a_setting_makes_no_input() -> None:
    runs = [
        run(number=n, variables={"text": n, "effort": effort}, requested_effort=effort)
        for n in (0, 1)
        for effort in ("low", "high")
    ]
    assert lay_out(subject_of(frame_of(runs))).input.tolist() == [0, 0, 1, 1]


def test_variables_are_told_apart_by_their_types_and_not_by_their_order() -> None:
    rows: list[dict[str, Any]] = [{"a": 1, "b": [1]}, {"b": [1], "a": 1}, {"a": True, "b": [1]}, {"a": 1}, {"a": True}]
    assert lay_out(subject_of([run(variables=row, prompt="p") for row in rows])).input.tolist() == [0, 0, 1, 2, 3]


# ---- what counts


def failing() -> list[Run]:
    """Of four inputs two are right and one is wrong; one failed, though it has an answer."""
    ends = [
        ("bug", "completed", None),
        ("bug", "completed", None),
        ("no", "completed", None),
        ("bug", "completed", "SchemaError"),
    ]
    return [run(label, n, status=status, error_type=kind) for n, (label, status, kind) in enumerate(ends)]


@pytest.mark.parametrize(
    ("choice", "mean", "words"),
    [
        ("zero", 0.5, "A failed run scores 0."),
        ("drop", 2 / 3, "Failed runs are left out of mean scores and differences."),
        (0.2, 0.55, "A failed run scores 0.2."),
        ("0.2", 0.55, "A failed run scores 0.2."),
    ],
)
def test_failures_are_scored_as_it_was_chosen(choice: Any, mean: float, words: str) -> None:
    found = exact(failing(), failures=choice)
    assert column(found, "exact") == [pytest.approx(mean)]
    assert (column(found, "runs"), column(found, "failures"), found.failures) == ([4], [1], words)
    assert words in text_of(found)


@pytest.mark.parametrize("choice", ["none", float("nan"), True, None])
def test_another_choice_is_refused(choice: Any) -> None:
    with pytest.raises(ConfigError, match='failures takes "zero", "drop" or a score'):
        exact(failing(), failures=choice)


def test_without_a_score_success_is_compared() -> None:
    found = compare(frame_of(failing()))
    assert (found.scores, column(found, "success")) == (("success",), [0.75])


def test_a_failed_run_is_no_success_whatever_was_chosen() -> None:
    found = compare(frame_of(failing()), "effort", failures="drop")
    assert found.failures == "A failed run scores 0."
    assert column(found, "success") == column(compare(frame_of(failing()), "effort"), "success")


def test_what_does_not_count_is_counted() -> None:
    runs = [*grid({"low": 1}, 3), run(status="executing"), run(status="planned"), run(status="planned")]
    runs.append(run(number=9, variables={"text": "ticket 9"}))
    frame = frame_of([*runs, runs[0]])
    found = exact(frame, "effort")
    assert told(found, "not ended") == "Left out, because they have not ended: 2 planned, 1 executing."
    assert "already: 1." in told(found, "Each run counts once")
    assert told(found, "no score").startswith("exact: 1 of 4 runs have no score")
    assert column(found, "unscored") == [0, 1]
    assert len(found.frame) == 4
    with pytest.raises(ConfigError, match="None of the 2 runs has ended"):
        compare(frame_of([run(status="planned"), run(status="paused")]))


def test_seconds_tokens_and_cost() -> None:
    values = [(1.0, 0.2, 100, 0.01), (2.0, 0.4, 200, 0.03), (3.0, 0.6, 300, None), (99.0, None, 400, 0.02)]
    runs = [
        run(
            "bug" if n != 2 else "no",
            n,
            latency_s=s,
            ttft_s=first,
            total_tokens=tokens,
            cost_usd=cost,
            is_byok=cost is None,
        )
        for n, (s, first, tokens, cost) in enumerate(values)
    ]
    runs[3].status = "failed"
    found = exact(runs).table.iloc[0]
    assert (found["seconds_p50"], found["ttft_p50"]) == (2.0, pytest.approx(0.4))
    assert found["seconds_p95"] == pytest.approx(2.9)
    assert found["tokens"] == 250
    assert found["cost_usd"] == pytest.approx(0.06)
    assert found["cost_per_run"] == pytest.approx(0.02)
    assert found["cost_per_success"] == pytest.approx(0.02 * 4 / 2)
    assert (
        told(exact(runs), "Cost")
        == "Cost isn't known of 1 of 4 runs, 1 of them for they used your own keys. Sums are of what is known."
    )


def test_repeats_of_an_input_count_as_one() -> None:
    runs = [run("bug", 0, repeat=n) for n in range(9)] + [run("no", 1)]
    found = exact(runs)
    assert (column(found, "exact"), column(found, "inputs"), column(found, "runs")) == ([0.5], [2], [10])


# ---- scores


def test_scores_that_runs_have_are_compared() -> None:
    runs = [run(number=n, scores={"taste": n / 4, "tone": 0.5}) for n in range(5)]
    assert compare(frame_of(runs)).scores == ("taste", "tone")
    found = compare(frame_of(runs), score="taste")
    assert (found.scores, column(found, "taste")) == (("taste",), [0.5])


def test_scorers_functions_and_lists() -> None:
    def letters(answer: str) -> int:
        return len(answer)

    frame = frame_of(grid({"low": 0.5}, 4))
    before = frame.copy()
    found = compare(frame, score=["strict=exact", letters, "contains"], expected=["bug", "bug", None, "praise"])
    assert found.scores == ("strict", "letters", "contains")
    assert column(found, "strict") == [1]
    assert column(found, "letters") == [4.5]
    assert column(found, "unscored") == [1]
    pd.testing.assert_frame_equal(frame, before)
    with pytest.raises(ConfigError, match="needs to know what is expected"):
        compare(frame, score="exact")
    with pytest.raises(ConfigError, match=r"no variable or column 'lable' in these runs. Did you mean label"):
        compare(frame, score="exact", expected="lable")
    with pytest.raises(ConfigError, match='add score="exact"'):
        compare(frame, expected="label")


def test_trouble_in_a_scorer_is_said() -> None:
    found = compare(frame_of(grid({"low": 1}, 2)), score=lambda answer: 1 / 0)
    assert "ZeroDivisionError" in told(found, "trouble")


@pytest.mark.parametrize("word", ["numeric", "broken"])
def test_a_score_that_no_run_has_is_a_column_without_values(session: Session, word: str) -> None:
    def broken(run: Run) -> float:
        raise ValueError(run.result)

    runs = [run("bug", n, requested_effort=effort) for n in range(3) for effort in ("low", "high")]
    found = compare(kept(session, runs), "effort", broken if word == "broken" else word, ["bug"] * len(runs))
    assert found.scores == (word,)
    assert found.frame[f"score_{word}"].isna().all()
    assert column(found, word) == [pd.NA, pd.NA]
    assert f"{word}: 6 of 6 runs have no score" in told(found, "for want of")


def kept(session: Session, runs: list[Run]) -> Runs:
    """These runs as they would be after a sweep."""
    session.store.add(runs)
    held = {one.run_id: one for one in runs}
    return Runs(session, "0123456789abcdef", [Entry(n, one.run_id) for n, one in enumerate(runs)], held)


def test_runs_keep_the_scores_that_they_were_compared_by(session: Session) -> None:
    runs = kept(session, grid({"low": 1, "high": 0.5}, 6))
    found = runs.compare("effort", "exact", "label")
    assert column(found, "exact") == [1, 0.5]
    assert [one.scores["exact"] for one in runs] == found.frame["score_exact"].tolist()
    assert session.store.frame()["score_exact"].sum() == 9
    again = compare(session.store.frame(), "effort")
    pd.testing.assert_frame_equal(again.table, found.table)
    pd.testing.assert_frame_equal(again.differences, found.differences)


# ---- differences


def test_a_difference_in_numbers_and_words() -> None:
    found = exact(grid({"low": 0.2, "high": 0.9}), "effort")
    row = found.differences.iloc[0]
    assert (row["configuration"], row["baseline"], row["effort"], row["score"]) == ("high", "low", "high", "exact")
    assert row["difference"] == pytest.approx(0.7)
    assert (row["wins"], row["ties"], row["losses"], row["inputs"], row["unpaired"]) == (21, 9, 0, 30, 0)
    assert 0 < row["low"] < 0.7 < row["high"] <= 1
    assert row["p_value"] == row["p_adjusted"] < 0.001
    assert row["verdict"] == "better"
    assert row["words"].startswith("high is better than low by 0.70 (0.")
    assert row["words"].endswith("), p < 0.001")
    assert "▲ better" in text_of(found)


def test_the_other_side_is_worse() -> None:
    row = exact(grid({"low": 0.2, "high": 0.9}), "effort", baseline="high").differences.iloc[0]
    assert (row["verdict"], row["wins"], row["losses"]) == ("worse", 0, 21)
    assert row["words"].startswith("low is worse than high by 0.70 (0.")


def test_how_many_more_inputs_would_tell_is_said_after_the_correction() -> None:
    rates = {"low": 0.5, "medium": 0.7, "high": 0.72, "xhigh": 0.74}
    alone = exact(grid(rates, 20), "effort", correction="none").differences
    found = exact(grid(rates, 20), "effort", correction="bonferroni").differences
    assert alone["p_value"].iloc[0] < 0.08
    assert alone["p_adjusted"].iloc[0] * 3 == pytest.approx(found["p_adjusted"].iloc[0])
    assert found["verdict"].iloc[0] == "can't tell"
    assert found["more_inputs"].iloc[0] > alone["more_inputs"].fillna(0).iloc[0]


def test_what_barely_tells_is_said_to() -> None:
    base = [{"prompt": f"{n}", "effort": "a", "score_x": 0.5} for n in range(20)]
    gained = (0.1, 0.05, 0.4, 0.05, 0.03, 0.02)
    other = [{**row, "effort": "b"} for row in base]
    for row, gain in zip(other, gained, strict=False):
        row["score_x"] += gain
    (row,) = compare(pd.DataFrame([*base, *other]), "effort").differences.to_dict("records")
    assert row["p_adjusted"] < 0.05
    assert row["low"] <= 0
    assert row["verdict"] == "better"
    assert row["words"].endswith(", but barely: the interval holds 0")


def test_means_near_the_ends_of_few_inputs_are_noted() -> None:
    rows = [{"prompt": f"{n}", "effort": "a", "score_x": 0.01 * (n % 3)} for n in range(30)]
    rows += [{"prompt": f"{n}", "effort": "b", "score_x": n / 30} for n in range(30)]
    frame = pd.DataFrame(rows)
    assert told(compare(frame, "effort"), "too narrow").startswith("x: the mean of 1 configuration is within 0.05 of 0")
    binary = compare(frame.assign(score_x=(frame["score_x"] > 0.9) * 1.0), "effort")
    assert not any("too narrow" in note for note in binary.notes)


def test_what_cant_be_told_says_what_would() -> None:
    row = exact(grid({"low": 0.5, "high": 0.6}, 20), "effort").differences.iloc[0]
    assert row["verdict"] == "can't tell"
    assert row["more_inputs"] > 0
    assert row["words"].startswith("can't tell high from low: the difference is 0.10 (")
    assert f"about {row['more_inputs']:,} more inputs would tell" in row["words"]


def test_verdicts_are_of_the_corrected_p() -> None:
    rates = {"low": 0.5, **dict.fromkeys(("medium", "high", "xhigh", "none"), 0.7)}
    single = exact(grid({"low": 0.5, "high": 0.7}), "effort").differences
    several = exact(grid(rates), "effort")
    assert single["verdict"].tolist() == ["better"]
    assert several.differences["verdict"].tolist() == ["can't tell"] * 4
    assert several.differences["p_value"].tolist() == single["p_value"].tolist() * 4
    assert "after Holm's correction" in several.differences["words"][0]
    assert exact(grid(rates), "effort", correction="none").differences["verdict"].tolist() == ["better"] * 4
    with pytest.raises(ConfigError, match=r"no correction 'hol'. Did you mean holm"):
        exact(grid(rates), "effort", correction="hol")


def test_inputs_that_one_side_lacks_are_counted() -> None:
    runs = grid({"low": 0.5, "high": 0.5}, 10)
    found = exact(
        [one for one in runs if one.requested_effort == "low" or one.prompt != "Classify: ticket 3"], "effort"
    )
    assert found.differences[["inputs", "unpaired"]].iloc[0].tolist() == [9, 1]
    assert told(found, "lack a configuration").startswith("Of 10 inputs, 1 lack")
    apart = exact([run(number=0, requested_effort="low"), run(number=1, requested_effort="high")], "effort")
    assert "no input in common" in apart.differences["words"][0]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=25))
def test_another_baseline_turns_the_sign(answers: list[tuple[bool, bool]]) -> None:
    runs = [
        run("bug" if right else "no", number, requested_effort=effort)
        for number, pair in enumerate(answers)
        for effort, right in zip(("low", "high"), pair, strict=True)
    ]
    one = exact(runs, "effort")
    other = one.against("high")
    assert (one.baseline, other.baseline) == ("low", "high")
    first, second = one.differences.iloc[0], other.differences.iloc[0]
    assert first["difference"] == pytest.approx(-second["difference"])
    assert first["low"] == pytest.approx(-second["high"])
    assert (first["p_value"], first["wins"]) == (pytest.approx(second["p_value"]), second["losses"])
    assert other.table is one.table


@settings(max_examples=5, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing_but_the_order(chance: random.Random) -> None:
    frame = frame_of(grid({"low": 0.3, "medium": 0.6, "high": 0.7}, 12, repeats=2))
    order = list(range(len(frame)))
    chance.shuffle(order)
    one, other = (exact(part, "effort").against("low") for part in (frame, frame.iloc[order]))
    for first, second in ((one.table, other.table), (one.differences, other.differences)):
        ordered = [part.sort_values("configuration", ignore_index=True) for part in (first, second)]
        pd.testing.assert_frame_equal(*ordered)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("gpt-5 · high", "gpt-5 · high"),
        ("GPT-5 HIGH", "gpt-5 · high"),
        ("mini low", "gpt-5-mini · low"),
        ("gpt-5-mini,high", "gpt-5-mini · high"),
    ],
)
def test_a_baseline_is_named_in_part(wanted: str, found: str) -> None:
    models = ("openai/gpt-5", "openai/gpt-5-mini")
    runs = [one for model in models for one in grid({"low": 1, "high": 1}, 2, model=model)]
    assert exact(runs).against(wanted).baseline == exact(runs, baseline=wanted).baseline == found
    with pytest.raises(ConfigError, match="Several configurations are called 'low'"):
        exact(runs).against("low")
    with pytest.raises(ConfigError, match="There is no configuration 'hihg'"):
        exact(runs).against("hihg")


# ---- noise


def noisy(rates: dict[str, float], inputs: int = 30) -> list[Run]:
    """Two repeats each, of which one is right by chance."""
    chance = random.Random(7)
    return [
        run("bug" if chance.random() < rate else "no", number, requested_effort=effort, repeat=repeat)
        for number in range(inputs)
        for effort, rate in rates.items()
        for repeat in range(2)
    ]


def test_a_difference_below_the_floor_is_noise() -> None:
    found = exact(noisy({"low": 0.5, "high": 0.52}), "effort")
    assert abs(found.differences["difference"][0]) < found.noise["exact"].floor
    assert found.differences["verdict"].tolist() == ["noise"]
    assert "less than the noise floor" in found.differences["words"][0]
    assert told(found, "Noise floor").startswith("Noise floor of exact: 0.")


def test_the_floor_may_come_from_other_runs() -> None:
    runs = grid({"low": 0.5, "high": 0.6}, 20)
    without = exact(runs, "effort")
    assert without.noise == {}
    assert "Without repeats" in told(without, "noise floor")
    found = exact(runs, "effort", noise=frame_of(noisy({"low": 0.5})))
    assert found.differences["verdict"].tolist() == ["noise"]
    # 20 inputs of one run each tell less than 30 of two.
    own = exact(noisy({"low": 0.5})).noise["exact"].floor
    assert found.noise["exact"].floor == pytest.approx(own * (30 * 2 / 20) ** 0.5)
    with pytest.raises(ConfigError, match="tell no noise floor"):
        exact(runs, "effort", noise=frame_of(grid({"low": 1})))


def test_settings_that_aren_t_compared_make_no_repeats() -> None:
    # Each setup always answers alike; only what isn't compared, the model, tells their answers apart.
    runs = [
        run("bug" if right else "praise", n, requested_effort=effort, model=f"openai/{model}", repeat=repeat)
        for n in range(40)
        for effort in ("low", "high")
        for model, right in (("good", True), ("bad", effort == "high" and n % 4 == 0))
        for repeat in range(2)
    ]
    once = exact([one for one in runs if not one.repeat], "effort")
    assert not once.noise
    assert once.differences.iloc[0]["verdict"] == "better"
    assert exact(runs, "effort").noise["exact"].floor == 0


def test_the_floor_is_of_means_over_what_isn_t_compared() -> None:
    # Two models, each as noisy as one alone: a mean over both has half of the variance.
    runs = noisy({"low": 0.5, "high": 0.5})
    both = [
        replace(one, run_id=f"{one.run_id}{model}", requested_model=model) for one in runs for model in ("one", "other")
    ]
    alone, found = exact(runs, "effort").noise["exact"], exact(both, "effort").noise["exact"]
    assert found.pairs == 2 * alone.pairs
    assert found.floor == pytest.approx(alone.floor / 2**0.5, rel=0.05)


# ---- effort that does nothing


def efforts(tokens: dict[str, int], answers: dict[str, str] | None = None, repeats: int = 1) -> list[Run]:
    """Runs of 12 inputs by effort, with so many tokens and so many seconds a hundredth of it, give or take a little."""
    chance = random.Random(3)
    return [
        run(
            (answers or {}).get(effort, "bug"),
            number,
            requested_effort=effort,
            completion_tokens=count + number,
            latency_s=count / 100 + chance.random() / 10,
            repeat=repeat,
        )
        for number in range(12)
        for effort, count in tokens.items()
        for repeat in range(repeats)
    ]


def test_efforts_that_change_nothing_are_said_aloud() -> None:
    note = told(exact(efforts({"low": 100, "high": 100}), "effort"), "does nothing")
    assert note.startswith("Effort does nothing that can be seen between low and high: tokens are the same (ratio 1.00")
    assert note.endswith("100% of answers are equal.")
    assert "among repeats 100%" in told(exact(efforts({"low": 100, "high": 100}, repeats=2), "effort"), "does nothing")


@pytest.mark.parametrize(
    "runs",
    [
        efforts({"low": 100, "high": 200}),
        efforts({"low": 100, "high": 100}, {"low": "bug", "high": "praise"}),
        efforts({"low": 100, "high": 100}, {"low": "bug", "high": "praise"}, repeats=2),
    ],
    ids=["more tokens", "other answers", "other answers than repeats"],
)
def test_efforts_that_change_something_arent(runs: list[Run]) -> None:
    assert not [note for note in exact(runs, "effort").notes if "does nothing" in note]


def test_tokens_that_grow_alike_for_each_input_are_an_effect() -> None:
    def made(high: int) -> list[Run]:
        return [
            run(
                "bug",
                n,
                requested_effort=effort,
                completion_tokens=tokens,
                latency_s=1.0,
            )
            for n in range(12)
            for effort, tokens in (("low", 10), ("high", high))
        ]

    assert not [note for note in exact(made(40), "effort").notes if "does nothing" in note]
    assert "ratio 1.00 to 1.00" in told(exact(made(10), "effort"), "does nothing")


def test_neighbours_alone_are_compared_and_by_model() -> None:
    runs = efforts({"low": 100, "xhigh": 103, "medium": 100})
    for one in efforts({"low": 100, "high": 300}):
        one.requested_model = "gpt-5-mini"
        runs.append(one)
    notes = [note for note in exact(runs, "model,effort").notes if "does nothing" in note]
    assert [note.partition(":")[0].partition("between ")[2] for note in notes] == [
        "gpt-5 · low and gpt-5 · medium",
        "gpt-5 · medium and gpt-5 · xhigh",
    ]


def test_what_ran_though_another_was_asked_for() -> None:
    runs = [
        run(number=n, requested_effort="high", effort="low" if n < 3 else "high", provider="azure") for n in range(4)
    ]
    found = exact(runs, "effort")
    assert found.names == ["high"]
    assert told(found, "effort high") == "effort high was asked for, but low ran: 3 of 4 runs."
    assert told(found, "provider") == "provider openai was asked for, but azure ran: 4 of 4 runs."


# ---- odd names and texts


@pytest.mark.parametrize("by", ["target", "agent_version", "template", "error_type", "odd"])
def test_half_a_surrogate_pair_is_a_text_as_any(by: str, tmp_path: Path) -> None:
    runs = [run(number=n, label="bug") for n in range(4)]
    for place, one in enumerate(runs):
        odd = f"\ud800{place % 2}"
        one.variables = {**one.variables, "odd": odd}
        if by != "odd":
            setattr(one, by, odd)
    found = exact(runs, by)
    assert len(found.names) == 2
    found._repr_mimebundle_()
    found.report(tmp_path / "found.html")


@pytest.mark.parametrize("name", ["configuration", "runs", "exact", "words", "p_value", "difference"])
def test_a_variable_that_is_named_as_a_column_of_the_table_is_said_no_to(name: str) -> None:
    """Guards against values of one column taken for those of the other."""
    runs = [run(number=n // 2, label="bug") for n in range(8)]
    for place, one in enumerate(runs):
        one.variables = {**one.variables, name: f"v{place % 2}"}
    with pytest.raises(ConfigError, match=f"'{name}' is a column of every comparison"):
        exact(runs, name)


# ---- what it is of


def test_what_holds_runs(session: Session) -> None:
    runs = kept(session, grid({"low": 1, "high": 0.5}, 4))
    tables = [compare(some).table for some in (runs, list(runs), [runs[:4], *runs[4:]], runs.df, session.store.frame())]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])


def test_every_kept_run(connected: Any) -> None:
    from xpander_magics.session import default_session

    default_session().store.add(grid({"low": 1, "high": 0.5}, 4))
    found = compare(None, "effort", "exact", "label")
    assert column(found, "exact") == [1, 0.5]
    assert default_session().store.frame()["score_exact"].sum() == 6


@pytest.mark.parametrize("wrong", [3, ["text"], {"a": 1}, pd.DataFrame({"a": [1]}), [], pd.DataFrame({"result": []})])
def test_what_holds_none(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"What is compared is|holds no runs|There are no runs"):
        compare(wrong)


def test_a_frame_out_of_a_file_is_like_the_one_that_went_in(tmp_path: Path) -> None:
    frame = frame_of(grid({"low": 0.9, "high": 0.2}))
    rows = frame.assign(variables=[pd.Series(row).to_json() for row in frame["variables"]])
    rows.to_csv(tmp_path / "runs.csv", index=False)
    found, wanted = exact(pd.read_csv(tmp_path / "runs.csv"), "effort"), exact(frame, "effort")
    pd.testing.assert_frame_equal(found.table, wanted.table)
    pd.testing.assert_frame_equal(found.differences, wanted.differences)


def test_a_frame_with_few_columns_and_an_index_of_its_own() -> None:
    frame = pd.DataFrame(
        {"model": ["a", "b"] * 3, "score_taste": [1.0, 0, 1, 0, 1, None], "prompt": list("xxyyzz")}, index=[7] * 6
    )
    found = compare(frame)
    assert (found.by, column(found, "taste"), column(found, "unscored")) == (("model",), [1, 0], [0, 1])


# ---- shown


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert dict(attrs).keys() <= {"class", "style", "scope"}


def test_hostile_text_is_shown_as_text() -> None:
    runs = [
        run(HOSTILE, n, model=f"{HOSTILE}/{HOSTILE}{n % 2}", target=HOSTILE, template=f"{HOSTILE}{n % 2}")
        for n in range(4)
    ]
    found = exact(runs, "model,target,prompt,result")
    bundle = found._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    tags = _Tags()
    tags.feed(bundle["text/html"])
    assert set(tags.seen) <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    for text in bundle.values():
        assert not {"\x1b", "\u202e"} & set(text)


def test_text_fits_and_has_only_what_varies() -> None:
    models = ("openai/gpt-5", "anthropic/claude-sonnet-4-6")
    rates = {"low": 0.9, "high": 0.5}
    found = exact([one for model in models for one in grid(rates, 30, model=model, latency_s=1.5, total_tokens=90)])
    lines = text_of(found).splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[0] == "exact by model, effort: 120 runs of 30 inputs"
    assert lines[1] == "The same in all: runs 30, inputs 30, failures 0, s p50 1.50, s p95 1.50, tokens/run 90"
    assert lines[2].split() == ["configuration", "exact", "(95%)"]
    assert "Against gpt-5 · low, paired by input; p with Holm's correction of 3" in lines
    assert repr(found) == "Comparison(exact by model, effort: 4 configurations)"
    assert text_of(found.against("claude high")).count("▲ better") == 2


def test_a_single_configuration_has_no_differences() -> None:
    found = exact(grid({"low": 1}, 3))
    assert (len(found.table), len(found.differences), found.baseline) == (1, 0, "runs")
    assert list(found.differences) == list(exact(grid({"low": 1, "high": 1}, 3), []).differences)
    assert "Against" not in text_of(found)


def test_few_inputs_are_said() -> None:
    assert told(exact(grid({"low": 1}, 3)), "wide").startswith("3 inputs: few")
    assert not [note for note in exact(grid({"low": 1}, 20)).notes if "few" in note]


def test_codes_and_values_are_those_of_the_frame() -> None:
    found = exact(grid({"low": 1, "high": 0.5}, 4), "effort")
    configuration, inputs = found.codes()
    assert len(configuration) == len(inputs) == len(found.frame)
    means = pd.Series(found.values("exact")).groupby(configuration).mean()
    assert means.tolist() == column(found, "exact")
    assert [found.names[code] for code in configuration] == found.frame["requested_effort"].tolist()
    assert sorted(set(zip(configuration, inputs, strict=True))) == list(itertools.product(range(2), range(4)))


def test_without_statistics_counts_and_means_stand() -> None:
    code = f"""
import sys
for name in ("scipy", "statsmodels"):
    sys.modules[name] = None
sys.path[:0] = [{str(Path(__file__).parent)!r}]
from test_comparison import *
found = exact(noisy({{"low": 0.2, "high": 0.9}}), "effort")
row = found.differences.iloc[0]
print(found.table["exact"].notna().all(), found.table["exact_low"].isna().all(), found.table["runs"].tolist())
print(row["difference"] > 0.3, row["wins"] > 9, row["inputs"], row["verdict"], row["p_value"] is pd.NA)
print(told(found, "pip install").partition(": ")[0])
print("can't tell" in text_of(found))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout.splitlines() == [
        "True True [60, 60]",
        "True True 30 can't tell True",
        "Intervals and p-values need the extra [stats]",
        "True",
    ]


# ---- as a user meets it


def test_a_sweep_is_compared(notebook: Notebook) -> None:
    notebook.ns["rows"] = [{"text": f"say {n}", "label": f"say {n}"} for n in range(3)]
    notebook.run("%%xpander echo -e low,high -n 2 --over rows -o runs\n{{ text }}")
    found = notebook.run("runs.compare('effort', 'contains', 'label')")
    assert found.names == ["low", "high"]
    assert column(found, "runs") == [6, 6]
    assert found.differences["inputs"].tolist() == [3]
    assert found.noise["contains"].pairs == 6
    assert set(column(found, "failures")) == {0}
    again = compare(notebook.ns["runs"].df)
    assert again.scores == ("contains",)
    pd.testing.assert_frame_equal(again.table, found.table)
