"""Strict JSON (I-JSON, RFC 7493), for files that agents hand on. No I/O.

A reader that takes the first of two equal keys and one that takes the last see different verdicts
in the same bytes. What different readers could read differently is refused.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

LIMIT_BYTES = 64 << 20
INTEGER_MAX = 2**53 - 1  # beyond it, readers that hold numbers as doubles round (RFC 7493, 2.2)

_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class StrictError(ValueError):
    """Raised when a text is not strict JSON; its text is the end of a sentence."""


def loads(data: bytes) -> Any:
    """Parses strict JSON.

    Raises:
        StrictError: not JSON, not UTF-8, a byte order mark, a key twice in one object, NaN or
            Infinity, an integer past 2^53 - 1, a number too large for a double, half a surrogate
            pair, or nested too deeply.
    """
    if len(data) > LIMIT_BYTES:
        raise StrictError(f"has {len(data)} bytes of JSON, and {LIMIT_BYTES} is the most")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StrictError(f"is not UTF-8 (at byte {error.start})") from error
    if text.startswith("\ufeff"):
        raise StrictError("starts with a byte order mark, which JSON does not allow")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_float,
        )
        if _ESCAPED_SURROGATE.search(data) is not None:
            _check_strings(value)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise StrictError(f"is not JSON ({error.msg} at {where})") from error
    except RecursionError as error:
        raise StrictError("is nested too deeply") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise StrictError(f"has the key {key!r} twice in one object")
            seen.add(key)
    return found


def _constant(text: str) -> NoReturn:
    raise StrictError(f"has {text}, which is not JSON")


def _integer(text: str) -> int:
    # By length first: int() of a million digits takes seconds, and Python refuses it.
    if len(text) > 17 or abs(value := int(text)) > INTEGER_MAX:
        shown = text if len(text) <= 24 else f"{text[:20]}… ({len(text)} digits)"
        raise StrictError(f"has the integer {shown}, past 2^53 - 1, which not every reader keeps")
    return value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise StrictError(f"has the number {text[:24]}, too large for a double")
    return value


def _check_strings(value: Any) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise StrictError("has a string with half a surrogate pair") from error
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_strings(key)
            _check_strings(item)
    elif isinstance(value, list):
        for item in value:
            _check_strings(item)
