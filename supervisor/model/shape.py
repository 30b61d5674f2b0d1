"""The plainer half of JSON Schema, for the schemas that ship and others that need no more. Pure.

`jsonschema` takes a tenth of a second to import, as much as all else that `complete` does. What
this module covers it decides as `jsonschema` does; for anything else it is not asked
(tests/unit/test_shape.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Fault = tuple[str, str]
"""Where, as a JSON path, and what."""

_SILENT = frozenset({"$schema", "$comment", "title", "description", "default", "examples"})
_CHECKED = frozenset(
    {
        "type",
        "enum",
        "required",
        "properties",
        "items",
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
    }
)
_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    ),
}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def covers(schema: Any) -> bool:
    """Whether `faults` knows every keyword of a schema, which is a valid one."""
    if isinstance(schema, bool):
        return True
    if schema.get("$schema", _DIALECT) != _DIALECT or schema.keys() - _SILENT - _CHECKED:
        return False
    # Numbers equal truth values in Python, and not in JSON.
    if not all(isinstance(choice, str) for choice in schema.get("enum", ())):
        return False
    below = [*schema.get("properties", {}).values()]
    if "items" in schema:
        below.append(schema["items"])
    return all(covers(one) for one in below)


def faults(schema: Any, value: Any, at: str = "$") -> Iterator[Fault]:
    """Yields where `value` breaks a schema that is covered: the nearest to the top first."""
    if isinstance(schema, bool):
        if not schema:
            yield at, f"{value!r} is not allowed"
        return
    wanted = schema.get("type", ())
    wanted = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    if wanted and not any(_TYPES[kind](value) for kind in wanted):
        yield at, f"{value!r} is not of type {', '.join(map(repr, wanted))}"
    if "enum" in schema and not (isinstance(value, str) and value in schema["enum"]):
        yield at, f"{value!r} is not one of {schema['enum']!r}"
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if name not in value:
                yield at, f"{name!r} is a required property"
        for name, below in schema.get("properties", {}).items():
            if name in value:
                yield from faults(below, value[name], f"{at}.{name}")
    elif isinstance(value, list):
        yield from _length(schema, "Items", value, at)
        if "items" in schema:
            for number, item in enumerate(value):
                yield from faults(schema["items"], item, f"{at}[{number}]")
    elif isinstance(value, str):
        yield from _length(schema, "Length", value, at)


def _length(schema: Any, what: str, value: Any, at: str) -> Iterator[Fault]:
    if len(value) < schema.get(f"min{what}", 0):
        yield at, f"{value!r} is too short"
    if len(value) > schema.get(f"max{what}", len(value)):
        yield at, f"{value!r} is too long"
