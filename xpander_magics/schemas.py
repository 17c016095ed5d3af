"""JSON Schemas as users give them, and answers checked against them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xpander_magics.errors import ConfigError, SchemaError


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


def check(value: Any, schema: Mapping[str, Any]) -> None:
    """Checks a JSON value against a schema; nothing is ever fetched for a ``$ref``.

    Raises:
        SchemaError: it breaks the schema; says where.
    """
    import jsonschema
    import referencing.exceptions

    validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        # The registry is empty, so that a remote reference fails in place of being fetched.
        error = jsonschema.exceptions.best_match(validator(schema, registry=_no_registry()).iter_errors(value))
    except referencing.exceptions.Unresolvable as unresolved:
        raise SchemaError(f"The schema refers to what it doesn't hold: {unresolved}.") from None
    except RecursionError:
        raise SchemaError("The schema refers to itself without an end, or the answer is nested too deep.") from None
    except re.error as error:
        raise SchemaError(f"The schema has a pattern that Python can't read: {error}.") from None
    if error is not None:
        raise SchemaError(f"The answer breaks the schema at {error.json_path}: {error.message[:300]}")


def _no_registry() -> Any:
    import referencing

    return referencing.Registry()


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
