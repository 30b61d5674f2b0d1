"""The plainer half of JSON Schema decides as `jsonschema` does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from supervisor.config.resource import schemas
from supervisor.model.contract import broken_schema, schema_fault
from supervisor.model.shape import covers, faults

TYPES = ["null", "boolean", "object", "array", "string", "number", "integer"]
NAMES = st.sampled_from(["a", "b", "verdict"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, 1.0, 0.5, -2.0, 1e300])
    | st.text(max_size=3)
    | st.sampled_from(["pass", "fail"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def schemas_of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    size = st.integers(0, 3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(TYPES)
            | st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True),
            "enum": st.lists(st.sampled_from(["pass", "fail", ""]), min_size=1, unique=True),
            "required": st.lists(NAMES, unique=True),
            "properties": st.dictionaries(NAMES, inner, max_size=2),
            "items": inner,
            "minItems": size,
            "maxItems": size,
            "minLength": size,
            "maxLength": size,
            "title": st.text(max_size=2),
        },
    )


SCHEMAS = st.recursive(st.booleans() | st.just({}), schemas_of, max_leaves=6)


@given(SCHEMAS, VALUES)
def test_it_finds_what_jsonschema_finds(schema: Any, value: Any) -> None:
    assert covers(schema)
    found = list(faults(schema, value))

    assert bool(found) != Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize("name", sorted(schemas()))
def test_schemas_that_ship_are_covered_and_sound(name: str) -> None:
    schema = json.loads(schemas()[name].read_text())

    assert covers(schema)
    assert broken_schema(schema) is None
    assert schema["title"] == f"{name}.json"


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "x"},
        {"$ref": "#"},
        {"enum": [1]},
        {"properties": {"a": {"anyOf": []}}},
        {"items": {"minimum": 3}},
        {"$schema": "http://json-schema.org/draft-07/schema#"},
    ],
)
def test_what_it_does_not_know_it_leaves_to_jsonschema(schema: Any) -> None:
    assert not covers(schema)


def test_both_ways_say_where_and_what() -> None:
    simple = {"properties": {"n": {"type": "integer"}}}
    full = {"properties": {"n": {"type": "integer", "minimum": 0}}}

    said = [schema_fault(schema, {"n": "x" * 999}) for schema in (simple, full)]

    assert said[0] == said[1]
    assert str(said[0]).startswith("breaks its schema at $.n: 'xxx")
    assert len(str(said[0])) < 400
