"""Scorers: a table of cases for each, hostile ones among them; functions as scorers; what is said no to."""

from __future__ import annotations

import decimal
import functools
import json
import logging
import math
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

from xpander_magics.errors import ConfigError, XpanderError
from xpander_magics.results import Run
from xpander_magics.scoring import measures
from xpander_magics.scoring.measures import number_in
from xpander_magics.scoring.scorers import SCORERS, WORDS, Scorer, parse_scorer, scorer_of


def answered(text: str | None, **more: Any) -> Run:
    return Run(status="completed", result=text, **more)


def score(spec: Any, text: str, expected: Any = None, **variables: Any) -> float | None:
    return scorer_of(spec, variables).score(answered(text), expected)


# ---- exact


@pytest.mark.parametrize(
    ("text", "expected", "value"),
    [
        ("bug", "bug", 1),
        ("  bug\n", "bug ", 1),
        ("Bug", "bug", 0),
        ("bug.", "bug", 0),
        ("", "", 1),
        ("3", 3, 1),
        ("3.0", 3, 1),
        ("3", 3.0, 1),
        (" 3 ", np.int64(3), 1),
        ("0.5", np.float32(0.5), 1),
        ("3", decimal.Decimal(3), 1),
        ("three", 3, 0),
        ("4", 3, 0),
        ("1e400", 3, 0),
        ("nan", 3, 0),
        ("3.0", "3", 0),
        ("true", True, 1),
        ("True", np.bool_(True), 1),
        ("1", True, 0),
        ("no", False, 0),
        ('{"a": 1.0}', {"a": 1}, 1),
        ("[1, 2]", [1, 2], 1),
        ("[2, 1]", [1, 2], 0),
        ("x", {"a": 1}, 0),
        ("2024-01-02", pd.Timestamp("2024-01-02").date(), 1),
    ],
)
def test_exact(text: str, expected: Any, value: float) -> None:
    assert score("exact", text, expected) == value


@pytest.mark.parametrize("missing", [None, math.nan, np.nan, pd.NA, pd.NaT, np.float64("nan"), decimal.Decimal("NaN")])
@pytest.mark.parametrize("spec", ["exact", "normalized", "contains", "numeric", "choice:a|b", "json", "fields"])
def test_what_has_no_expected_value_has_no_score(spec: str, missing: Any) -> None:
    assert score(spec, "a", missing) is None


# ---- normalized


@pytest.mark.parametrize(
    ("text", "expected", "value"),
    [
        ("The  Cat, sat!", "cat sat", 1),
        ("an apple a day", "apple day", 1),
        ("theatre", "atre", 0),  # only whole words are articles
        ("Straße", "STRASSE", 1),
        ("ﬁne １２", "fine 12", 1),  # ligature, full width
        ("naïve", "naïve", 1),  # composed and decomposed
        ("«Oui» — non…", "oui non", 1),
        ("A.", "A", 1),
        ("B", "A", 0),  # both are more than articles
        ("", "A", 0),
        ("The", "A", 0),
        ("...", "?!", 0),
        ("?!", "?!", 1),
        ("", "", 1),
        ("12", 12.0, 1),
        ("$5", "5", 1),
    ],
)
def test_normalized(text: str, expected: Any, value: float) -> None:
    assert score("normalized", text, expected) == value


# ---- contains, regex


@pytest.mark.parametrize(
    ("text", "expected", "value"),
    [
        ("It is a BUG\u00a0 report.", "bug report", 1),
        ("I know", "no", 1),
        ("a(b", "a(b", 1),
        ("bug", "billing", 0),
        ("year 2024", 2024, 1),
    ],
)
def test_contains(text: str, expected: Any, value: float) -> None:
    assert score("contains", text, expected) == value


def test_contains_has_nothing_to_look_for() -> None:
    assert score("contains", "anything", "  ") is None


@pytest.mark.parametrize(
    ("pattern", "text", "value"),
    [(r"^\d+$", "12", 1), ("a=b:c", "xa=b:cx", 1), ("(?i)bug", "BUG", 1), ("bug", "BUG", 0), ("a|b", "b", 1)],
)
def test_regex(pattern: str, text: str, value: float) -> None:
    assert score(f"regex:{pattern}", text) == value


@pytest.mark.parametrize("pattern", [r"(a|aa)+$", r"(a*)*b\1", r"(?:a+)+$"])
def test_a_pattern_that_never_ends_is_given_up(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = scorer_of(f"regex:{pattern}")
    monkeypatch.setattr(measures, "PATTERN_SECONDS", 0.2)
    answer = measures.Answer("1", "a" * 5000 + "!", None, Run)
    # Whether it is found or given up, it ends: `re` would go on for longer than the test may last.
    (outcome,) = scorer.outcomes([answer], [None])
    assert outcome in (0, 1) or "the pattern wasn't done after 0.2 s" in str(outcome)


def test_one_answers_pattern_is_no_others() -> None:
    scorer = scorer_of("regex:^(a|aa)+$")
    answers = [measures.Answer(str(n), text, None, Run) for n, text in enumerate(["aa", "a" * 70 + "!", "b"])]
    first, second, third = scorer.outcomes(answers, [None] * 3)
    assert (first, third) == (1, 0)
    assert isinstance(second, measures.Unscored)
    assert second.is_error


# ---- numeric


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("The answer is 42.", 42),
        ("First 3, then 4", 4),
        ("it costs $1,234.50", 1234.5),
        ("1,234,567", 1234567),
        ("1_000", 1000),
        ("1\u202f000\u00a0000", 1000000),
        ("1'000", 1000),
        ("-7", -7),
        ("−7.5", -7.5),
        ("3-5", 5),
        ("from -3 to -5", -5),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("6.02E+23", 6.02e23),
        ("2.5e3 apples", 2500),
        ("3e", 3),
        ("$-3", -3),
        ("\\boxed{12}", 12),
        ("**12**", 12),
        ("1/2", 2),
        ("12,34", 34),
    ],
)
def test_the_number_in_an_answer_is_the_last(text: str, value: float) -> None:
    found = number_in(text)
    assert found is not None
    assert found.value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["", "none", "e", "-", "1e999", "9" * 400])
def test_an_answer_without_a_number(text: str) -> None:
    assert number_in(text) is None
    assert score("numeric", text, 1) == 0


@pytest.mark.parametrize(
    ("spec", "text", "expected", "value"),
    [
        ("numeric", "4.0", 4, 1),
        ("numeric", "0.3", 0.1 + 0.2, 1),
        ("numeric", "0.30001", 0.3, 0),
        ("numeric:0.5", "4.5", 4, 1),
        ("numeric:0.5", "4.51", 4, 0),
        ("numeric:0.1", "0.3", 0.2, 1),  # the border itself, which floats miss by a hair
        ("numeric:5%", "105", 100, 1),
        ("numeric:5%", "106", 100, 0),
        ("numeric:5%", "-105", -100, 1),
        ("numeric:5%", "0.01", 0, 0),
        ("numeric", "1,000", "1000", 1),
        ("numeric", "12%", "12%", 1),
        ("numeric", "12 %", 0.12, 1),
        ("numeric", "12%", 12, 1),
        ("numeric", "0.12", "12%", 1),
        ("numeric", "1.2%", 12, 0),
        ("numeric", "5", np.int32(5), 1),
        ("numeric", "0", 0, 1),
    ],
)
def test_numeric(spec: str, text: str, expected: Any, value: float) -> None:
    assert score(spec, text, expected) == value


@pytest.mark.parametrize("expected", ["none", True, math.inf, "1e999", {"a": 1}])
def test_an_expected_value_without_a_number_is_said(expected: Any) -> None:
    with pytest.raises(XpanderError, match="has no number"):
        score("numeric", "1", expected)


@pytest.mark.parametrize("text", ["1," * 100_000, "1" * 200_000, "1,111" * 40_000, "-" * 200_000, "1e" * 100_000])
def test_long_answers_take_no_longer_than_they_are_long(text: str) -> None:
    began = time.process_time()
    score("numeric", text, 1)
    score("choice:a|b", text, "a")
    score("normalized", text, "a")
    assert time.process_time() - began < 20  # squared, it would be an hour


# ---- choice


@pytest.mark.parametrize(
    ("choices", "text", "expected", "value"),
    [
        ("bug|billing|praise", "It's a bug.", "bug", 1),
        ("bug|billing|praise", "BUG", "bug", 1),
        ("bug|billing|praise", "billing", "bug", 0),
        ("bug|billing|praise", "bug or billing", "bug", 0),
        ("bug|billing|praise", "bug, definitely a bug", "bug", 1),
        ("bug|billing|praise", "debugging", "bug", 0),
        ("bug|billing|praise", "", "bug", 0),
        ("yes|no", "I don't know", "no", 0),
        ("bug|not a bug", "That is not  a\nbug", "not a bug", 1),
        ("bug|not a bug", "That is not a bug", "bug", 0),
        ("C|C++|C#", "C++, I think", "C++", 1),
        ("C|C++|C#", "C, I think", "C++", 0),
        ("1|2|10", "10", 10, 1),
        ("1|2|10", "10", 1.0, 0),
        ("a.b|axb", "axb", "a.b", 0),
        ("true|false", "True", True, 1),
    ],
)
def test_choice(choices: str, text: str, expected: Any, value: float) -> None:
    assert score(f"choice:{choices}", text, expected) == value


def test_an_expected_value_that_is_no_choice_is_said() -> None:
    with pytest.raises(XpanderError, match="'praise' is none of the choices"):
        score("choice:bug|billing", "bug", "praise")


def test_without_a_list_the_expected_values_are_the_choices() -> None:
    scorer = scorer_of("label=choice")
    assert scorer.needs_all
    ready = scorer.prepared(["bug", "Bug", "billing", None, pd.NA, 3.0])
    assert (ready.name, ready.spec) == ("label", "choice:3|billing|bug")
    assert ready.score(answered("billing?"), "billing") == 1
    with pytest.raises(XpanderError, match=r"choice:a\|b"):
        scorer.score(answered("bug"), "bug")
    with pytest.raises(ConfigError, match="two or more choices"):
        scorer.prepared(["bug", "bug"])


# ---- JSON


@pytest.mark.parametrize(
    ("text", "expected", "value"),
    [
        ('{"a": 1, "b": [1.0, "x"]}', {"b": [1, "x"], "a": 1}, 1),
        ('{"a": 1}', '{"a": 1.0}', 1),
        ("1", True, 0),
        ("true", True, 1),
        ("0", False, 0),
        ("[1, 2]", [2, 1], 0),
        ("[1]", [1, 1], 0),
        ('{"a": 1}', {"a": 1, "b": None}, 0),
        ('"bug"', "bug", 1),
        ("bug", "bug", 0),
        ("100000000000000001", 100000000000000000, 0),
        ("NaN", 1, 0),
        ("", {}, 0),
    ],
)
def test_json(text: str, expected: Any, value: float) -> None:
    assert score("json", text, expected) == value


def test_json_nested_beyond_all_depth() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    assert score("json", deep, [1]) == 0
    nest: list[Any] = []
    for _ in range(100_000):
        nest = [nest]
    run = answered("x", output=nest)
    with pytest.raises(XpanderError, match="nested too deep"):
        scorer_of("json").score(run, nest[0])


@pytest.mark.parametrize(
    ("spec", "text", "expected", "value"),
    [
        ("fields", '{"a": 1, "b": 2, "c": 3}', {"a": 1.0, "b": 3}, 0.5),
        ("fields", '{"a": 1}', '{"a": 1}', 1),
        ("fields:b", '{"a": 1, "b": 2}', {"a": 9, "b": 2}, 1),
        ("fields: a, b", '{"a": 1}', {"a": 1, "b": 2, "c": 3}, 0.5),
        ("fields", "[1]", {"a": 1}, 0),
        ("fields", "no JSON", {"a": 1}, 0),
        ("fields", '{"a": null}', {"a": None}, 1),
        ("fields", "{}", {"a": None}, 0),
    ],
)
def test_fields(spec: str, text: str, expected: Any, value: float) -> None:
    assert score(spec, text, expected) == value


@pytest.mark.parametrize("expected", ["text", [1], {}, 3])
def test_fields_need_an_object(expected: Any) -> None:
    with pytest.raises(XpanderError, match="no JSON object with fields"):
        score("fields", '{"a": 1}', expected)
    with pytest.raises(XpanderError, match="no field 'b'"):
        score("fields:b", '{"a": 1}', {"a": 1})


class Ticket(BaseModel):
    label: str


def test_schema() -> None:
    scorer = scorer_of("schema:Ticket", {"Ticket": Ticket})
    assert not scorer.needs_expected
    assert scorer.score(answered('{"label": "bug"}')) == 1
    assert scorer.score(answered('{"label": 3}')) == 0
    assert scorer.score(answered("bug")) == 0
    # A run whose answer broke its schema has an answer all the same, and that is what is asked here.
    assert scorer.score(answered('{"label": 3}', error_type="SchemaError")) == 0
    other = scorer_of("schema:Ticket", {"Ticket": {"type": "object"}})
    assert scorer.spec != other.spec


def test_schema_of_the_run() -> None:
    asked = {"output_schema": {"type": "integer"}}
    assert scorer_of("schema").score(answered("3", request=asked)) == 1
    assert scorer_of("schema").score(answered("x", request=asked)) == 0
    with pytest.raises(XpanderError, match="schema:NAME"):
        scorer_of("schema").score(answered("3"))
    with pytest.raises(ConfigError, match="schema:Nothing"):
        scorer_of("schema:Nothing")


# ---- similarity


@pytest.mark.parametrize(
    ("text", "expected", "value"),
    [("kitten", "sitting", 4 / 7), (" same ", "same", 1), ("", "abc", 0), ("", "", 1), ("3", 3.0, 1)],
)
def test_similarity(text: str, expected: Any, value: float) -> None:
    assert score("similarity", text, expected) == pytest.approx(value)


def test_similarity_of_texts_that_would_hold_the_kernel() -> None:
    with pytest.raises(XpanderError, match="texts of 400,000 and 300,000 characters are too long for it"):
        score("similarity", "a" * 400_000, "b" * 300_000)
    assert score("similarity", "a" * 400_000, "b") == 0


def test_embedding() -> None:
    near = score("embedding", "The invoice was wrong.", "There is an error in the bill.")
    far = score("embedding", "The invoice was wrong.", "Cats sleep all day.")
    assert near is not None
    assert far is not None
    assert near > far + 0.2
    assert score("embedding", "same words", "same words") == pytest.approx(1)
    assert score("embedding", "same words \ud800", "same words") == pytest.approx(1, abs=0.5)
    assert score("embedding", "  ", "words") is None
    assert score("embedding", "words", None) is None
    assert "wordllama" in scorer_of("embedding").spec


def test_many_embeddings_are_those_of_one_by_one() -> None:
    texts = ["bug", "a bill " * 3000, "", "praise and thanks", "x" * 500_000]
    answers = [measures.Answer(str(n), text, None, Run) for n, text in enumerate(texts)]
    scorer = scorer_of("embedding")
    together = scorer.outcomes(answers, ["thanks"] * len(texts))
    for answer, found in zip(answers, together, strict=True):
        (alone,) = scorer.outcomes([answer], ["thanks"])
        if isinstance(found, measures.Unscored):
            assert answer.text == ""
        else:
            assert found == pytest.approx(alone, abs=1e-5)


def test_embeddings_need_no_network_and_leave_the_logging_alone() -> None:
    code = """
import logging, socket
def refused(*args, **kwargs): raise OSError("no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refused
from xpander_magics.results import Run
from xpander_magics.scoring.scorers import scorer_of
print(scorer_of("embedding").score(Run(status="completed", result="a cat"), "a cat"))
print(logging.getLogger().level == logging.WARNING, logging.getLogger().handlers)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"HOME": "/nowhere"}
    )
    value, rest = done.stdout.split("\n", 1)
    assert float(value) == pytest.approx(1)
    assert rest.strip() == "True []"
    assert logging.getLogger("wordllama").level == logging.NOTSET


# ---- functions


def long_enough(answer: str) -> bool:
    return len(answer) > 3


def same_start(answer: str, expected: str) -> float:
    return float(answer[:1] == expected[:1])


def by_name(expected: str, *, run: Run, output: Any) -> float:
    return float(run.result == expected and output == [1])


def loose(answer: str, expected: str = "abc", weight: float = 0.5) -> float:
    return weight * (answer == expected)


@pytest.mark.parametrize(
    ("function", "text", "expected", "value", "needs"),
    [
        (long_enough, "abcd", None, 1, False),
        (same_start, "abc", "aXX", 1, True),
        (loose, "abc", None, 0.5, False),
        (loose, "x", "x", 0.5, False),
        (functools.partial(same_start, expected="b"), "b", None, 1, False),
        (lambda text: np.float32(0.25), "x", None, 0.25, False),
        (lambda text: np.True_, "x", None, 1, False),
        (lambda text: decimal.Decimal("0.5"), "x", None, 0.5, False),
        (lambda text: None, "x", None, None, False),
        (lambda text: math.nan, "x", None, None, False),
        (len, "four", None, 4, False),
        (float, "2.5", None, 2.5, False),
    ],
)
def test_functions(function: Callable[..., Any], text: str, expected: Any, value: float | None, needs: bool) -> None:
    scorer = scorer_of(function)
    assert scorer.needs_expected == needs
    assert scorer.score(answered(text), expected) == value


def test_a_function_gets_the_run_and_its_output_by_name() -> None:
    scorer = scorer_of(by_name)
    assert scorer.score(answered("[1]", output=[1]), "[1]") == 1
    assert scorer.score(answered("[1]", output=[2]), "[1]") == 0


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda text: 1 / 0, "ZeroDivisionError"),
        (lambda text: "good", "type str, no number"),
        (lambda text: [1], "type list, no number"),
        (lambda text: math.inf, "infinity"),
        (json.loads, "JSONDecodeError"),
    ],
)
def test_what_a_function_does_wrong_is_said_with_the_run(function: Callable[..., Any], problem: str) -> None:
    run = answered("x")
    with pytest.raises(XpanderError, match=problem) as raised:
        scorer_of(function).score(run)
    assert run.run_id[:8] in str(raised.value)


async def later(answer: str) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (later, "async"),
        (lambda: 1, "takes no answer"),
        (lambda a, b, c: 1, "one too many"),
    ],
)
def test_functions_that_are_no_scorers(function: Callable[..., Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        scorer_of(function)


def test_a_changed_function_is_another() -> None:
    first = scorer_of(long_enough).spec
    assert first == scorer_of(long_enough).spec
    assert first != scorer_of(same_start).spec
    assert first.startswith("function long_enough (")


# ---- what is scored, and what is said no to


@pytest.mark.parametrize("status", ["failed", "error", "stopped", "unknown", "planned", "executing", "paused"])
def test_a_run_without_an_answer_has_no_score(status: str) -> None:
    assert scorer_of("exact").score(Run(status=status, result="bug"), "bug") is None


def test_a_completed_run_without_a_result_has_no_score() -> None:
    assert scorer_of(long_enough).score(answered(None)) is None


def test_names() -> None:
    scorer = parse_scorer("close=numeric:5%", {})
    assert (scorer.name, scorer.spec) == ("close", "numeric:5%")
    assert parse_scorer("regex:a=b", {}).name == "regex"
    assert parse_scorer("long_enough", {"long_enough": long_enough}).name == "long_enough"
    assert parse_scorer("short", {"short": lambda text: 1}).name == "short"
    assert parse_scorer("mine=short", {"short": lambda text: 1}).name == "mine"
    assert scorer_of(scorer) is scorer
    assert parse_scorer("strict", {"strict": scorer}) is scorer


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("exat", "Did you mean exact"),
        ("lenght", "Did you mean length"),
        ("", r"\[NAME=\]SCORER"),
        ("=exact", "name"),
        ("a b=exact", "name"),
        ("x" * 70 + "=exact", "name"),
        ("<b>=exact", "name"),
        ("exact:1", "nothing after a colon"),
        ("regex", "needs a pattern"),
        ("regex:[", "can't be read"),
        ("numeric:x", "tolerance"),
        ("numeric:-1", "tolerance"),
        ("numeric:nan", "tolerance"),
        ("numeric:inf%", "tolerance"),
        ("choice:a", "two or more"),
        ("choice:a||b", "two or more"),
        ("choice:a|A", "two or more"),
        ("fields:a,,b", "commas"),
        ("length:3", "no scorer"),
        (3, "type int"),
        (None, "type NoneType"),
    ],
)
def test_what_is_no_scorer(spec: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        scorer_of(spec, {"length": len})


def test_a_word_that_is_a_function_too_is_not_guessed() -> None:
    with pytest.raises(ConfigError, match="another name"):
        parse_scorer("exact", {"exact": len})
    assert parse_scorer("json", {"json": json}).name == "json"


def test_all_words_are_scorers() -> None:
    arguments = {"regex": "x", "choice": "a|b"}
    for word in WORDS:
        bare = word.partition("[")[0].partition(":")[0]
        spec = f"{bare}:{arguments[bare]}" if bare in arguments else bare
        assert isinstance(scorer_of(spec), Scorer)
        assert bare in SCORERS
