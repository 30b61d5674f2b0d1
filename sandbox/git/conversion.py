"""What `git add` does to a file's bytes (convert.c of git), as far as nothing is executed. Pure.

Line ends, `ident` and `working-tree-encoding` are done. `filter` is not: it runs programs.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from sandbox.git.gitattribute import Value

# Bytes that a text may have: all above the control characters, and \b \t \n \r \033 \014.
_PRINTABLE = bytes(byte for byte in range(32, 256) if byte != 127) + b"\b\t\033\014"
_IDENT = re.compile(rb"\$Id:[^$\n]*\$")


class LineEnd(Enum):
    """What happens to CRLF."""

    KEEP = "keep"
    GUESS = "guess"  # to LF, unless the file looks binary or has CRLF in the repository
    CONVERT = "convert"  # to LF


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done to one file.

    Attributes:
        encoding: of the file, to become UTF-8; empty where it is not to be converted.
        driver: name of the filter that git would run, and nanosup does not.
    """

    line_end: LineEnd = LineEnd.KEEP
    ident: bool = False
    encoding: str = ""
    driver: str = ""

    @property
    def converts(self) -> bool:
        """Whether the content has to be looked at at all."""
        return self.line_end is not LineEnd.KEEP or self.ident or bool(self.encoding)


NO_PLAN = Plan()


def _crlf(value: Value) -> LineEnd | None:
    if value is True or value == b"input":
        return LineEnd.CONVERT
    if value is False:
        return LineEnd.KEEP
    return LineEnd.GUESS if value == b"auto" else None


def crlf_of(attributes: Mapping[bytes, Value]) -> Value:
    """What `text` says of a file, or the older `crlf` where it says nothing that git knows."""
    value = attributes.get(b"text")
    return attributes.get(b"crlf") if _crlf(value) is None else value


def encoding_of(attributes: Mapping[bytes, Value]) -> str:
    """The `working-tree-encoding` of a file, or an empty string."""
    encoding = attributes.get(b"working-tree-encoding")
    return encoding.decode("ascii", "replace") if isinstance(encoding, bytes) else ""


def plan(attributes: Mapping[bytes, Value], *, autocrlf: bool) -> Plan:
    """What `git add` would do. `autocrlf`: core.autocrlf is true or input."""
    if not attributes and not autocrlf:
        return NO_PLAN
    line_end = _crlf(crlf_of(attributes))
    if line_end is not LineEnd.KEEP and attributes.get(b"eol") in {b"lf", b"crlf"}:
        line_end = line_end or LineEnd.CONVERT
    if line_end is None:
        line_end = LineEnd.GUESS if autocrlf else LineEnd.KEEP
    driver = attributes.get(b"filter")
    return Plan(
        line_end,
        attributes.get(b"ident") is True,
        encoding_of(attributes),
        driver.decode("utf-8", "replace") if isinstance(driver, bytes) else "",
    )


def is_binary(data: bytes) -> bool:
    """Whether git takes the content for binary (convert_is_binary)."""
    lone_cr = data.count(b"\r") - data.count(b"\r\n")
    if lone_cr or b"\0" in data:
        return True
    # Line ends count neither as printable nor as not.
    odd = len(data.translate(None, _PRINTABLE + b"\r\n"))
    printable = len(data) - odd - data.count(b"\n") - data.count(b"\r")
    if data.endswith(b"\x1a"):
        odd -= 1
    return (printable >> 7) < odd


def _has_crlf(blob: bytes) -> bool:
    return b"\r\n" in blob and not is_binary(blob)


class EncodingFailure(ValueError):  # noqa: N818 (not an error of the seal: the file is kept as is)
    """Raised when a file is not in the encoding that its attributes say."""


# What Python calls encodings too, and no file is in. Their time grows with the square of the size.
_NO_ENCODINGS = frozenset({"idna", "punycode"})


def codec_of(encoding: str) -> str:
    """Python's name of an encoding. Raises LookupError: it knows none of this name."""
    name = codecs.lookup(encoding).name
    if name in _NO_ENCODINGS:
        raise LookupError(f"unknown encoding: {encoding}")
    return name


# Names that git knows and no codec does: the byte order mark must be there.
_BOMS = {"utf-16le-bom": codecs.BOM_UTF16_LE, "utf-16be-bom": codecs.BOM_UTF16_BE}


def _to_utf8(data: bytes, encoding: str) -> bytes:
    bom = _BOMS.get(encoding.lower())
    if bom is not None:
        if not data.startswith(bom):
            raise EncodingFailure(f"not valid {encoding}")
        encoding, data = encoding[:-4], data[len(bom) :]
    try:
        name = codec_of(encoding)
        return data if name == "utf-8" else data.decode(name).encode("utf-8")
    except (LookupError, UnicodeError) as error:
        raise EncodingFailure(f"not valid {encoding}") from error


def to_git(data: bytes, todo: Plan, tracked: Callable[[], bytes | None]) -> bytes:
    """The blob that `git add` would make of a file's `data`.

    `tracked` gives the blob that the repository has for the path, if any.

    Raises:
        EncodingFailure: the file is not in its encoding; git refuses to add it.
    """
    if todo.encoding:
        data = _to_utf8(data, todo.encoding)
    if todo.line_end is LineEnd.CONVERT:
        data = data.replace(b"\r\n", b"\n")
    elif todo.line_end is LineEnd.GUESS and b"\r\n" in data and not is_binary(data):
        before = tracked()
        if before is None or not _has_crlf(before):
            data = data.replace(b"\r\n", b"\n")
    if todo.ident:
        data = _IDENT.sub(b"$Id$", data)
    return data
