"""Schemas as users give them, and answers held to them; nothing is fetched for a reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
from fault_server import FaultServer

from xpander_magics.errors import ConfigError, SchemaError
from xpander_magics.schemas import check, parse_json, schema_from

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
    with pytest.raises(SchemaError):
        check({}, {"$ref": "#"})
    tree = {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}
    check([[], [[]]], tree)


def test_a_pattern_that_python_cannot_read() -> None:
    with pytest.raises(SchemaError):
        check("a", {"pattern": r"\p{L}"})
