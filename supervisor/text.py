"""Writing JSON of whatever text there is. No I/O.

Names of files and output of agents are bytes; what is not UTF-8 in them is half a surrogate pair in
Python (PEP 383), which JSON in UTF-8 cannot hold. It is written as an escape that can be read,
`\\udcff`, since a document that cannot be written would leave an attempt that cannot end.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


def encode(value: Any, *, sort: bool = False) -> bytes:
    """A value as JSON on one line. `sort` sorts the keys."""
    order: Literal["sorted"] | None = "sorted" if sort else None
    try:
        return msgspec.json.encode(value, order=order)
    except UnicodeEncodeError:
        return msgspec.json.encode(escaped(msgspec.to_builtins(value)), order=order)


def escaped(value: Any) -> Any:
    """A value of builtin types, with what is not UTF-8 in its strings escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {escaped(key): escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [escaped(item) for item in value]
    return value
