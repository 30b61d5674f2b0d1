"""The JSON Schema that editors complete `nanosup.toml` by."""

from __future__ import annotations

import json
import tomllib

import pytest
from jsonschema import Draft202012Validator

from supervisor.config.resource import configs
from supervisor.config.schema import json_schema

SHIPPED = configs() / "nanosup.schema.json"


def test_shipped_schema_is_that_of_the_code() -> None:
    # To renew it, write what `json_schema` returns to the file.
    assert SHIPPED.read_bytes() == json_schema()


@pytest.mark.parametrize(
    "path", sorted((configs() / "fleets").glob("*.toml")), ids=lambda p: p.stem
)
def test_fleets_to_start_from_are_valid_by_it(path: object) -> None:
    validator = Draft202012Validator(json.loads(SHIPPED.read_text()))

    validator.validate(tomllib.loads(path.read_text()))  # type: ignore[attr-defined]


def test_misspelt_key_is_not_valid_by_it() -> None:
    validator = Draft202012Validator(json.loads(SHIPPED.read_text()))

    assert not validator.is_valid({"phase": [{"name": "x", "restart": 1}]})
