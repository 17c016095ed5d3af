"""Schemas as users give them, and answers held to them; nothing is fetched for a reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pydantic
import pytest
from fault_server import FaultServer
from hypothesis import given
from hypothesis import strategies as st

from xpander_magics.errors import ConfigError, SchemaError
from xpander_magics.plans import schemas
from xpander_magics.plans.schemas import check, parse_json, schema_from

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


class Answer(pydantic.BaseModel):
    n: int


class Unsendable(pydantic.BaseModel):
    call: Callable[[], int]


def test_a_dict_a_file_and_a_model(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    assert schema_from(SCHEMA) == schema_from(str(path)) == schema_from(path) == SCHEMA
    check({"n": 1}, schema_from(Answer))


def circle() -> dict[str, Any]:
    schema: dict[str, Any] = {}
    schema["not"] = schema
    return schema


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (5, ConfigError),
        ([SCHEMA], ConfigError),
        (True, ConfigError),
        ("no-such-name", ConfigError),
        ("no-such-file.json", ConfigError),
        ("~nobody-of-this-name/schema.json", ConfigError),
        ("nul\0.json", ConfigError),
        ({"type": "nonsense"}, SchemaError),
        ({"type": 5}, SchemaError),
        ({"required": "n"}, SchemaError),
        ({"pattern": "("}, SchemaError),
        ({"const": {1}}, SchemaError),
        ({"const": float("nan")}, SchemaError),
        ({"$schema": ["x"]}, SchemaError),
        (Unsendable, SchemaError),
        (circle(), SchemaError),
    ],
    ids=repr,
)
def test_what_is_no_schema(given: Any, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind) as caught:
        schema_from(given)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize("text", ["{", "nonsense", "", "[" * 100_000])
def test_a_file_that_holds_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        schema_from(str(path))


def test_an_answer_that_keeps_to_it() -> None:
    check(parse_json('{"n": 1}'), SCHEMA)


@pytest.mark.parametrize(
    "text", [None, "", "  ", "Sure!", "{", "NaN", "[Infinity]", '```json\n{"n": 1}\n```', "[" * 99_999]
)
def test_an_answer_that_is_no_json(text: str | None) -> None:
    with pytest.raises(SchemaError) as caught:
        parse_json(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [{}, {"n": "1"}, [], None, {"n": "x" * 10_000}])
def test_an_answer_that_breaks_it(value: Any) -> None:
    with pytest.raises(SchemaError, match=r"breaks the schema at \$") as caught:
        check(value, SCHEMA)
    assert len(str(caught.value)) < 500


def test_a_reference_is_never_fetched() -> None:
    with FaultServer() as server:
        for ref in (f"{server.url}/schema.json", "other.json", "#/$defs/missing", "file:///etc/hostname"):
            with pytest.raises(SchemaError, match="refers to what it doesn't hold"):
                check({}, {"$ref": ref})
        assert server.accepted == 0


def test_a_reference_to_itself() -> None:
    def check_below(frames: int) -> None:
        check_below(frames - 1) if frames else check({}, {"$ref": "#"})

    # On Python 3.10, one in three met the end of the stack inside a library in Rust, which panicked.
    for frames in range(6):
        with pytest.raises(SchemaError, match="refers to itself without an end"):
            check_below(frames)
    tree = {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}
    check([[], [[]]], tree)


def test_a_pattern_that_cannot_be_read() -> None:
    with pytest.raises(SchemaError, match="pattern that can't be read"):
        check("a", {"pattern": "("})


BACKTRACKING, ANSWER = "^(a|aa)+$", "a" * 60 + "!"
DOUBLING: dict[str, Any] = {
    "$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {}},
    "$ref": "#/$defs/d0",
}
IN_DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": BACKTRACKING}, ANSWER),
        ({"properties": {"n": {"items": {"pattern": BACKTRACKING}}}}, {"n": [ANSWER]}),
        ({"patternProperties": {BACKTRACKING: {}}}, {ANSWER: 1}),
        ({"patternProperties": {BACKTRACKING: {}}, "additionalProperties": False}, {ANSWER: 1}),
        ({"propertyNames": {"pattern": BACKTRACKING}}, {ANSWER: 1}),
        ({"pattern": BACKTRACKING, **IN_DRAFT_7}, ANSWER),
        ({"items": {"pattern": BACKTRACKING, **IN_DRAFT_7}}, [ANSWER]),
        ({"$defs": {"a": {"$id": "urn:a", "pattern": BACKTRACKING, **IN_DRAFT_7}}, "$ref": "urn:a"}, ANSWER),
        (DOUBLING, 1),
        ({"items": {"enum": list(range(10_000))}}, [-1] * 10_000),
        ({"contains": {"type": "string"}}, [1] * 200_000),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_check_comes_to_an_end(schema: Any, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own ``re`` would hold the kernel for years, and so would the rest without a look at the clock."""
    monkeypatch.setattr(schemas, "SECONDS", 0.1)
    with pytest.raises(SchemaError, match=r"could not be held to the schema within 0.1 s"):
        check(value, schema_from(schema))


def test_what_jsonschema_would_search_by_itself_is_refused() -> None:
    schema = {"allOf": [{"patternProperties": {BACKTRACKING: {}}}], "unevaluatedProperties": False}
    with pytest.raises(SchemaError, match="Use additionalProperties"):
        schema_from(schema)
    with pytest.raises(SchemaError, match="Use additionalProperties"):
        check({ANSWER: 1}, schema)  # as one that was kept


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(0, 2) | st.just(1.0) | st.text("ab", max_size=1),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    ),
    st.sampled_from(["[ab]", "^a$", "b"]),
)
def test_the_bounded_keywords_say_what_jsonschemas_own_say(value: Any, pattern: str) -> None:
    item: dict[str, Any] = {
        "uniqueItems": True,
        "pattern": pattern,
        "patternProperties": {pattern: {"type": "integer"}},
    }
    for schema in (item, {**item, "additionalProperties": False}, {**item, "additionalProperties": {"type": "string"}}):
        whole = {"items": schema, **schema}
        try:
            check(value, whole)
            said = True
        except SchemaError:
            said = False
        assert said is jsonschema.Draft202012Validator(whole).is_valid(value)


def test_many_items_are_compared_at_once() -> None:
    check([{"n": n} for n in range(30_000)], {"uniqueItems": True})
    with pytest.raises(SchemaError, match="breaks the schema"):
        check([*({"n": n} for n in range(30_000)), {"n": 7.0}], {"uniqueItems": True})


def test_numbers_beyond_all_measure() -> None:
    with pytest.raises(SchemaError, match="too large"):
        check(10**400, {"multipleOf": 0.1})
    check(10**4000, {"multipleOf": 10**2000, "minimum": -1e308})
    with pytest.raises(SchemaError, match="breaks the schema"):
        check(1e300, {"multipleOf": 7e-300})
