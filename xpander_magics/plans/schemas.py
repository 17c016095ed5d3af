"""JSON Schemas as users give them, and answers checked against them."""

from __future__ import annotations

import functools
import itertools
import json
import math
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xpander_magics.errors import ConfigError, SchemaError

SECONDS = 5.0
"""How long an answer is held to a schema: a pattern that backtracks would take for ever."""

_MOST_ERRORS = 10_000  # are looked at for the one that tells most
_DEEPEST = 200  # keywords in one another
_DATA = ("const", "default", "enum", "examples")  # these hold no schemas


def schema_from(given: Any) -> dict[str, Any]:
    """A JSON Schema from a dict, a path to a .json file, or a pydantic model class.

    Raises:
        ConfigError: it is none of these, or the file can't be read.
        SchemaError: it is no valid JSON Schema.
    """
    if isinstance(given, (str, Path)):
        given = _read(Path(given))
    elif hasattr(given, "model_json_schema"):
        try:
            given = given.model_json_schema()
        except Exception as error:  # pydantic's own, for a field that no JSON can hold
            raise SchemaError(f"The model can't be made a JSON Schema: {error}".partition("\n")[0]) from None
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"--schema takes a dict, a path to a .json file or a pydantic model class, not a {type(given).__name__}."
        )
    schema = dict(given)
    if not isinstance(schema.get("$schema", ""), str):
        raise SchemaError("The schema is no JSON Schema: its $schema is no text.")
    import jsonschema

    try:
        jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator).check_schema(schema)
        json.dumps(schema, allow_nan=False)
    except jsonschema.SchemaError as error:
        raise SchemaError(f"The schema is no JSON Schema: {error.message} (at {error.json_path}).") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"The schema can't be sent as JSON: {error}.") from None
    _refuse_mixture(schema)
    return schema


def _read(path: Path) -> Any:
    if path.suffix != ".json":
        raise ConfigError(f"{str(path)!r} is neither a name in the notebook nor a path to a .json file.")
    try:
        return json.loads(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The schema {str(path)!r} can't be read: {error.strerror}.") from None
    except RuntimeError as error:  # "~name" of nobody; also what is nested too deep
        raise ConfigError(f"The schema {str(path)!r} can't be read: {error}.") from None
    except ValueError as error:
        raise ConfigError(f"The schema {str(path)!r} isn't JSON: {error}.") from None


def parse_json(text: str | None) -> Any:
    """The answer's JSON.

    Raises:
        SchemaError: it is none.
    """
    try:
        return json.loads(text or "", parse_constant=_no_constant)
    except (ValueError, RecursionError):
        shown = (text or "").strip()[:60]
        what = f"The answer is not JSON: it begins with {shown!r}." if shown else "There is no answer."
        raise SchemaError(what) from None


class _Clock(threading.local):
    """When this thread's check must be over, and how many keywords are in one another now."""

    end = math.inf
    depth = 0

    def left(self) -> float:
        """Seconds until then; raises TimeoutError where it is over."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


_clock = _Clock()


def check(value: Any, schema: Mapping[str, Any]) -> None:
    """Checks a JSON value against a schema, for ``SECONDS`` at the most; nothing is ever fetched for a ``$ref``.

    Raises:
        SchemaError: it breaks the schema, and says where; or that can't be told.
    """
    import jsonschema
    import referencing
    import regex

    _clock.end, _clock.depth = time.monotonic() + SECONDS, 0
    try:
        errors = _validator(json.dumps(schema)).iter_errors(value)
        error = jsonschema.exceptions.best_match(itertools.islice(errors, _MOST_ERRORS))
    except referencing.exceptions.Unresolvable as unresolved:
        raise SchemaError(f"The schema refers to what it doesn't hold: {unresolved}.") from None
    except RecursionError:
        raise SchemaError("The schema refers to itself without an end, or the answer is nested too deep.") from None
    except regex.error as error:
        raise SchemaError(f"The schema has a pattern that can't be read: {error}.") from None
    except TimeoutError:
        raise SchemaError(f"The answer could not be held to the schema within {SECONDS:g} s.") from None
    except ArithmeticError:
        raise SchemaError("The answer has a number too large to be held to the schema.") from None
    if error is not None:
        raise SchemaError(f"The answer breaks the schema at {error.json_path}: {error.message[:300]}")


@functools.lru_cache(maxsize=32)
def _validator(text: str) -> Any:
    """What checks by a schema that is written as JSON; made once for the answers of a sweep."""
    import jsonschema
    import referencing

    schema = json.loads(text)
    _refuse_mixture(schema)
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    # The registry is empty, so that a remote reference fails in place of being fetched.
    return _bounded(kind)(_of_one_dialect(schema), registry=referencing.Registry())


def _refuse_mixture(schema: Mapping[str, Any]) -> None:
    """Says no to what jsonschema has one function for that can't be given another way to search."""
    text = json.dumps(schema, default=str)
    if '"unevaluatedProperties":' in text and '"patternProperties":' in text:
        raise SchemaError(
            "The schema has both unevaluatedProperties and patternProperties, which can't be checked in bounded time."
            "\nUse additionalProperties."
        )


def _of_one_dialect(schema: Any) -> Any:
    """The schema without any ``$schema``: for a part with one, jsonschema would leave the bounded validator."""
    if isinstance(schema, Mapping):
        return {
            name: part if name in _DATA else _of_one_dialect(part)
            for name, part in schema.items()
            if name != "$schema" or not isinstance(part, str)
        }
    return [_of_one_dialect(part) for part in schema] if isinstance(schema, list) else schema


@functools.cache
def _bounded(kind: Any) -> Any:
    """jsonschema's validator of a dialect, with an eye on the clock.

    Python's ``re`` knows no time limit, and holds all of the kernel while it searches: ``regex`` takes its place. Two
    equal items are found by their hashes, not by comparing each with each. All else is quick, one keyword at a time.
    """
    import jsonschema

    def watched(keyword: Any) -> Any:
        def watching(validator: Any, *given: Any) -> Iterator[Any]:
            _clock.left()
            # Where Python's own limit is met inside a library in Rust, that panics.
            if _clock.depth == _DEEPEST:
                raise RecursionError
            _clock.depth += 1
            try:
                yield from keyword(validator, *given) or ()
            finally:
                _clock.depth -= 1

        return watching

    def pattern(validator: Any, wanted: str, instance: Any, schema: Any) -> Iterator[Any]:
        if validator.is_type(instance, "string") and not _found(wanted, instance):
            yield jsonschema.ValidationError(f"{instance!r} does not match {wanted!r}")

    def pattern_properties(validator: Any, parts: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
        if validator.is_type(instance, "object"):
            for wanted, part in parts.items():
                for name in instance:
                    if _found(wanted, name):
                        yield from validator.descend(instance[name], part, path=name, schema_path=wanted)

    def additional_properties(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
        # What patterns match isn't additional; jsonschema's own function does the rest.
        if validator.is_type(instance, "object"):
            patterns = schema.get("patternProperties", {})
            others = {name: value for name, value in instance.items() if not any(_found(one, name) for one in patterns)}
            bare = {name: part for name, part in schema.items() if name != "patternProperties"}
            yield from kind.VALIDATORS["additionalProperties"](validator, wanted, others, bare) or ()

    def unique_items(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if (
            wanted
            and validator.is_type(instance, "array")
            and len({_hashable(item) for item in instance}) < len(instance)
        ):
            yield jsonschema.ValidationError(f"{instance!r} has non-unique elements")

    own = {
        "pattern": pattern,
        "patternProperties": pattern_properties,
        "additionalProperties": additional_properties,
        "uniqueItems": unique_items,
    }
    keywords = {name: watched(own.get(name, keyword)) for name, keyword in kind.VALIDATORS.items()}
    return jsonschema.validators.extend(kind, keywords)  # type: ignore[no-untyped-call]


def _found(pattern: str, text: str) -> bool:
    import regex

    return regex.search(pattern, text, timeout=_clock.left(), concurrent=True) is not None


def _hashable(value: Any) -> Any:
    """Equal for equal JSON values: numbers by value, and a boolean is no number."""
    if isinstance(value, dict):
        return frozenset((name, _hashable(part)) for name, part in value.items())
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    return (value,) if isinstance(value, bool) else value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
