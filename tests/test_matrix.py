"""The matrix of a sweep's runs: what varies, which answers are equal, what differs, what is counted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from xpander_magics.matrix import NO_ANSWER, Matrix, matrix_of, preview
from xpander_magics.results import Run

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202egnp.exe\ud800"


def run(result: str | None = None, **given: Any) -> Run:
    """A run that completed, unless it is told otherwise; ``model`` is what was asked for, as in a cell."""
    provider, _, model = given.pop("model", "").rpartition("/")
    given.setdefault("status", "completed")
    return Run(result=result, requested_provider=provider or None, requested_model=model or None, **given)


def asked(prompt: str, *models: str, **given: Any) -> list[Run]:
    return [run("x", prompt=prompt, variables={"text": prompt}, model=model, **given) for model in models]


def answers_of(matrix: Matrix, *place: int) -> list[tuple[str, int]]:
    """The answers in a cell, with how many runs gave them."""
    groups = matrix.groups(matrix.cells[place[0], place[1]])
    return [(matrix.answers[answer] if answer != NO_ANSWER else "", len(runs)) for answer, runs in groups.items()]


# ---- configurations


def test_only_what_varies_makes_a_configuration() -> None:
    matrix = matrix_of([r for p in ("one", "two") for r in asked(p, "openai/gpt-5", "openai/gpt-5-mini", target="t")])
    assert (matrix.settings, matrix.names) == (["model"], ["gpt-5", "gpt-5-mini"])
    assert matrix.cells == {(0, 0): [0], (0, 1): [1], (1, 0): [2], (1, 1): [3]}


def test_models_of_one_name_are_told_apart_by_their_providers() -> None:
    assert matrix_of(asked("one", "openai/gpt-5", "azure/gpt-5")).names == ["openai/gpt-5", "azure/gpt-5"]


def test_each_setting_may_vary() -> None:
    runs = [
        run(requested_effort="low", request={"think_mode": "harder"}, target="a", version="2"),
        run(request={"think_mode": "default"}, target="b", version="draft"),
    ]
    matrix = matrix_of(runs)
    assert matrix.settings == ["effort", "think", "target", "version"]
    assert matrix.names == ["low · harder · a · 2", "default effort · default · b · draft"]


def filled(template: str, **variables: Any) -> Run:
    return run("x", template=template, prompt=template.format(**variables), variables=variables)


def test_templates_that_compete_are_a_setting() -> None:
    runs = [filled(template, q=q) for q in "ab" for template in ("Say {q}", "Please say {q}")]
    matrix = matrix_of(runs)
    assert (matrix.settings, matrix.names) == (["prompt"], ["Say {q}", "Please say {q}"])
    assert matrix.cells == {(0, 0): [0], (0, 1): [1], (1, 0): [2], (1, 1): [3]}


def test_templates_that_dont_compete_are_none() -> None:
    apart = matrix_of([filled("Say {q}", q="a"), filled("Please say {q}", q="b")])
    assert (apart.settings, len(apart.inputs)) == ([], 2)
    literal = matrix_of([filled("Say a"), filled("Say b")])
    assert (literal.settings, len(literal.inputs)) == ([], 2)
    alike = matrix_of([run("x", template=template, prompt="a", variables={"q": "a"}) for template in "12"])
    assert (alike.settings, alike.cells) == ([], {(0, 0): [0, 1]})


def test_no_two_configurations_have_one_name() -> None:
    templates = (f"{'x' * 100} {{q}} 1", f"{'x' * 100} {{q}} 2", f"{'x' * 59}… #2", f"{'x' * 100} {{q}} 3")
    names = matrix_of([filled(template, q=1) for template in templates]).names
    assert len(set(names)) == 4
    assert max(map(len, names)) < 70


def test_what_a_run_turned_out_to_use_makes_no_configuration() -> None:
    matrix = matrix_of([run("a", effort="low"), run(status="failed"), run("b", effort="high")])
    assert (matrix.settings, matrix.names) == ([], ["runs"])


def test_a_column_that_names_the_model_is_a_setting() -> None:
    rows = [("one", "openai/gpt-5"), ("one", "openai/gpt-5-mini"), ("two", "openai/gpt-5")]
    matrix = matrix_of([run("x", prompt=t, variables={"text": t, "m": m}, model=m) for t, m in rows])
    assert [one.variables for one in matrix.inputs] == [{"text": "one"}, {"text": "two"}]
    assert matrix.cells == {(0, 0): [0], (0, 1): [1], (1, 0): [2]}


def test_no_runs_at_all() -> None:
    matrix = matrix_of([])
    assert (matrix.configurations, matrix.inputs, matrix.summaries()) == ([], [], [])
    assert matrix.columns()["input"] == []


# ---- inputs


def test_inputs_are_told_apart_by_all_variables_and_shown_by_those_that_vary() -> None:
    rows = [{"text": "a", "lang": "en", "n": [1]}, {"text": "b", "lang": "en", "n": [2]}]
    matrix = matrix_of([run("x", prompt="p", variables=row) for row in rows])
    assert (matrix.variables, matrix.varying) == (["text", "lang", "n"], ["text", "n"])
    assert matrix.columns()["inputs"] == [["a", "[1]"], ["b", "[2]"]]


def test_what_holds_dicts_or_lists_comes_last() -> None:
    rows = [{"payload": {"id": n}, "tags": [n], "text": text} for n, text in enumerate("ab")]
    matrix = matrix_of([run("x", prompt="p", variables=row) for row in rows])
    assert matrix.columns()["names"] == ["text", "payload", "tags"]
    assert matrix.columns()["inputs"][0] == ["a", '{"id": 0}', "[0]"]


def test_the_order_of_variables_makes_no_input() -> None:
    rows = [{"a": 1, "b": 2}, {"b": 2, "a": 1}]
    assert matrix_of([run("x", prompt="p", variables=row) for row in rows]).cells == {(0, 0): [0, 1]}


def test_another_conversation_is_another_input() -> None:
    threads = ("one", "two", "one")
    matrix = matrix_of([run("x", prompt="p", request={"id": thread}, model="p/m") for thread in threads])
    assert (matrix.settings, matrix.cells) == ([], {(0, 0): [0, 2], (1, 0): [1]})
    assert matrix.columns()["inputs"] == [["one"], ["two"]]


def turn(model: str, city: str | None, thread: str) -> Run:
    variables = {"city": city} if city else {}
    return run("x", prompt="and then?", variables=variables, model=f"p/{model}", request={"id": thread})


def test_conversations_of_several_models_about_the_same_are_one_input() -> None:
    matrix = matrix_of([turn("m", "Oslo", "1"), turn("k", "Oslo", "2"), turn("m", "Rome", "3"), turn("k", "Rome", "4")])
    assert (matrix.settings, matrix.names) == (["model"], ["m", "k"])
    assert matrix.cells == {(0, 0): [0], (0, 1): [1], (1, 0): [2], (1, 1): [3]}
    assert (matrix.columns()["names"], matrix.columns()["inputs"]) == (["city"], [["Oslo"], ["Rome"]])


@pytest.mark.parametrize(
    "turns",
    [
        [("m", "Oslo", "1"), ("k", "Oslo", "1"), ("m", "Oslo", "2"), ("k", "Oslo", "2")],  # each had by both
        [("m", "Oslo", "1"), ("m", "Oslo", "2")],  # had by the same
        [("m", None, "1"), ("k", None, "2")],  # about who knows what
    ],
)
def test_other_conversations_are_inputs_of_their_own(turns: list[tuple[str, str | None, str]]) -> None:
    assert matrix_of([turn(*one) for one in turns]).columns()["inputs"] in (
        [["Oslo", "1"], ["Oslo", "2"]],
        [["1"], ["2"]],
    )


def test_where_no_variable_varies_the_prompt_is_the_input() -> None:
    told = matrix_of([run("x", prompt="one"), run("x", prompt="two")]).columns()
    assert (told["names"], told["inputs"]) == (["prompt"], [["one"], ["two"]])


# ---- equal answers


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        (run("a  b\n"), run(" a b"), True),
        (run("A b"), run("a b"), False),
        (run('{"a": 1, "b": 2}', output={"a": 1, "b": 2}), run('{"b":2,"a":1}', output={"b": 2, "a": 1}), True),
        (run("[1, 2]", output=[1, 2]), run("[2, 1]", output=[2, 1]), False),
        (run("a", error_type="SchemaError", error="no"), run("a"), False),
        (run(status="failed", error="at 12:01"), run(status="failed", error="at 12:02"), True),
        (run(status="failed", error_type="Timeout"), run(status="failed", error_type="ServerError"), False),
        (run(None), run(""), True),
    ],
)
def test_which_answers_are_equal(first: Run, second: Run, equal: bool) -> None:
    matrix = matrix_of([first, second])
    assert len(matrix.groups([0, 1])) == (1 if equal else 2)
    assert matrix.differs((0, 0), 0) is False


def test_repeats_are_stacked_the_most_frequent_first() -> None:
    matrix = matrix_of([run(answer, repeat=n) for n, answer in enumerate(["billing", "bug", "bug", "bug "])])
    assert answers_of(matrix, 0, 0) == [("bug", 3), ("billing", 1)]


def test_what_has_no_answer_yet_is_compared_with_nothing() -> None:
    first, second, third = asked("one", "p/a", "p/b", "p/c")
    second.status, third.result = "executing", "y"
    matrix = matrix_of([first, second, third])
    assert [matrix.differs((0, c), 0) for c in range(3)] == [False, False, True]
    assert [matrix.differs((0, c), 2) for c in range(3)] == [True, False, False]
    assert answers_of(matrix, 0, 1) == [("", 1)]


def test_a_cell_differs_by_any_of_its_repeats() -> None:
    runs = [
        run(answer, model=f"p/{model}")
        for model, answers in (("a", "xxy"), ("b", "yx"), ("c", "xx"))
        for answer in answers
    ]
    matrix = matrix_of(runs)
    assert [matrix.differs((0, c), 0) for c in range(3)] == [False, False, True]


# ---- what is counted


def test_each_failure_has_its_own_reason() -> None:
    """Guards against the first reason in the rows of all; repeats of one input have one."""
    why = {"status": "failed", "error_type": "TaskFailed"}
    runs = [run(prompt=p, variables={"p": p}, error=f"{p}, {n}", **why) for p in ("one", "two") for n in (1, 2)]
    matrix = matrix_of(runs)
    assert [answers_of(matrix, number, 0) for number in (0, 1)] == [[("one, 1", 2)], [("two, 1", 2)]]


def test_failures_and_errors() -> None:
    runs = [
        *(run("x"), run("x", scores={"exact": 0.0, "other": 1.0}), run("x", scores={"graded": 0.5})),
        *(run("x", error_type="SchemaError"), run(status="stopped"), run(status="failed"), run(status="unknown")),
        *(run(status="planned"), run(status="paused"), run("x", status="error")),
    ]
    outcomes = matrix_of(runs).outcomes
    assert [outcome.failure for outcome in outcomes] == [False, True, False, True, True, True, True, False, False, True]
    assert [outcome.error for outcome in outcomes] == [False, False, False, True, False, True, True, False, False, True]


def test_a_configuration_is_summed_up() -> None:
    runs = [
        run(
            "x",
            latency_s=seconds,
            total_tokens=tokens,
            cost_usd=cost,
            scores={"exact": score} if score is not None else {},
        )
        for seconds, tokens, cost, score in ((1.0, 10, 0.5, 1.0), (9.0, 20, None, 0.0), (2.0, None, 0.25, None))
    ]
    assert matrix_of(runs).summaries() == [(3, 1, {"exact": 0.5}, 2.0, 30, 0.75)]
    assert matrix_of([run()]).summaries() == [(1, 0, {}, None, None, None)]


# ---- for the front end


def test_the_columns_are_json_of_one_entry_a_run() -> None:
    runs = asked("one", "p/a", "p/b") + asked("two", "p/a", "p/b", note="see here")
    runs[0].scores = {"exact": 1.0}
    told = json.loads(json.dumps(matrix_of(runs).columns(), allow_nan=False))
    for name in (
        "input",
        "configuration",
        "answer",
        "status",
        "failure",
        "error",
        "noted",
        "seconds",
        "tokens",
        "cost",
    ):
        assert len(told[name]) == 4, name
    assert told["noted"] == [0, 0, 1, 1]
    assert told["scores"] == [[1.0, None, None, None]]
    assert told["answers"] == ["x"]
    assert [one["name"] for one in told["configurations"]] == ["a", "b"]


def test_long_texts_are_cut_and_known_to_be() -> None:
    told = matrix_of([run("word " * 400), run("short…"), run("a" * 161), run("b" * 160)]).columns()
    assert [len(text) for text in told["answers"]] == [160, 6, 160, 160]
    assert told["cut"] == [0, 2]
    assert preview("a\n\n b") == "a b"


def test_ten_thousand_runs_stay_small() -> None:
    runs = [
        run(f"answer {n} " * 40, prompt=f"{n % 2500} {'text ' * 60}", model=f"p/{n // 2500}") for n in range(10_000)
    ]
    assert len(json.dumps(matrix_of(runs).columns())) < 3_000_000


def test_words_are_found_in_whole_texts() -> None:
    matrix = matrix_of([run("word " * 400 + "Needle", prompt="one"), run("x", prompt="NEEDLE"), run("y", prompt="two")])
    assert matrix.matching("needle") == [0, 1]
    assert matrix.matching("nothing") == []


def test_hostile_text_can_be_sent() -> None:
    runs = [run(HOSTILE, prompt=HOSTILE, variables={HOSTILE: HOSTILE}, model=f"p/{HOSTILE}"), run(status=HOSTILE)]
    matrix = matrix_of(runs)
    text = json.dumps(matrix.columns(), ensure_ascii=False)
    text.encode()
    assert not any(character in text for character in "\x1b\u202e\ud800")
