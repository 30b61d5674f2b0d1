"""What an output has to look like: its JSON Schema, and for a gate a verdict. No I/O.

Schemas are frozen into the sprint with its phases. `jsonschema` is imported only where one is
there to be checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from supervisor.model import shape
from supervisor.model.phase import Phase
from supervisor.model.record import Verdict

_SHOWN = 300  # characters of a fault: it quotes what the agent has written


class Inspector:
    """Looks at the JSON that an attempt at `phase` hands on.

    Attributes:
        verdict: what the first output of a gate says, once it was looked at.
    """

    __slots__ = ("_phase", "verdict")

    def __init__(self, phase: Phase) -> None:
        self._phase = phase
        self.verdict: Verdict | None = None

    def fault(self, name: str, value: Any) -> str | None:
        """What is wrong with the output `name`, as the end of a sentence; None if nothing is."""
        if name in self._phase.schemas:
            found = schema_fault(self._phase.schemas[name], value)
            if found is not None:
                return found
        if not self._phase.gate or name != self._phase.outputs[0]:
            return None
        said = value.get("verdict") if isinstance(value, dict) else None
        if said not in ("pass", "fail"):
            return 'has no "verdict" that is "pass" or "fail", and its phase is a gate'
        self.verdict = Verdict(said)
        return None


def schema_fault(schema: Any, value: Any) -> str | None:
    """Where `value` breaks a JSON Schema, as the end of a sentence; None where it does not."""
    if shape.covers(schema):
        where, what = next(shape.faults(schema, value), ("", ""))
        return _fault(where, what) if where else None
    import jsonschema
    from referencing import Registry

    # An empty registry: by default a reference to elsewhere would be fetched from there.
    validator = _validator(schema)(schema, registry=Registry())
    error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    return None if error is None else _fault(error.json_path, error.message)


def _fault(where: str, what: str) -> str:
    text = " ".join(what.split())
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}…"
    return f"breaks its schema at {where}: {text}"


def broken_schema(schema: Any) -> str | None:
    """Why a JSON value cannot serve as a schema, as the end of a sentence; None if it can."""
    import jsonschema

    if not isinstance(schema, dict):
        return "is no JSON Schema: an object was expected"
    try:
        _validator(schema).check_schema(schema)
    except jsonschema.exceptions.SchemaError as error:
        return f"is no JSON Schema: {error.json_path}: {' '.join(error.message.split())[:_SHOWN]}"
    for reference in _references(schema):
        if not reference.startswith("#"):
            return f"refers to {reference!r}, and only references within it (#…) are followed"
        try:
            schema_fault({**schema, "$ref": reference}, None)
        except Exception as error:
            return f"has a reference that leads nowhere: {reference!r} ({type(error).__name__})"
    return None


def _validator(schema: Any) -> Any:
    import jsonschema

    return jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references(item)
