"""Reading and writing the typed documents of the board (`record`), and naming damage."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import msgspec

from supervisor import text
from supervisor.errors import BoardError

LIMIT_BYTES = 64 << 20

Document = TypeVar("Document", bound=msgspec.Struct)

_decoders: dict[type, msgspec.json.Decoder[Any]] = {}


def encode(document: msgspec.Struct) -> bytes:
    """A document as JSON that a person can read too."""
    return msgspec.json.format(text.encode(document), indent=2) + b"\n"


def decode(data: bytes, kind: type[Document], path: str) -> Document:
    """The document that `data` is.

    Raises:
        BoardError: it is none; names the file and what was expected.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        document: Document = decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = "is empty" if not data.strip() else f"is damaged ({error})"
        raise damaged(path, f"{what}; expected {_article(kind)}") from error
    return document


def read(path: str, kind: type[Document]) -> Document | None:
    """Reads a document; None where there is no such file.

    Raises:
        BoardError: it cannot be read, or is damaged.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise damaged(path, f"cannot be read: {error.strerror}") from error
    try:
        size = os.fstat(fd).st_size
        if size > LIMIT_BYTES:
            raise damaged(path, f"has {size} bytes; expected {_article(kind)}")
        # One read more than the size, so that a file is taken whole or not at all.
        data = os.read(fd, size + 1)
    except OSError as error:
        raise damaged(path, f"cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    return decode(data, kind, path)


def damaged(path: str, what: str) -> BoardError:
    """The error for a file of the board that is not what it should be."""
    return BoardError(
        f"the board is damaged: {path} {what}",
        hint="Put the file back from a backup, or all of its sprint aside with "
        "`nanosup clean --quarantine`; nothing was changed.",
    )


def _article(kind: type) -> str:
    name = kind.__name__.lower()
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name} document"
