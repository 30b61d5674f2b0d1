"""What `git checkout` does to a blob's bytes (convert.c of git), where nothing is executed. Pure.

Line ends, `ident` and `working-tree-encoding` are done, as the tree's own `.gitattributes` say. No
`filter` is run: a file of Git LFS is its pointer, as it is for a git without LFS. The host's
configuration (`core.autocrlf`, `core.eol`, `info/attributes`) is left out, so that what a lane sees
is a function of the tree alone.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from sandbox.git.conversion import codec_of, crlf_of, encoding_of, is_binary
from sandbox.git.gitattribute import Attributes, Line, Value, parse
from sandbox.git.ignore import Rule

SIZE_LIMIT_BYTES = 512 << 20  # core.bigFileThreshold: git converts no larger ones

_IDENT = re.compile(rb"\$Id(?:\$|:([^$\n]*)\$)")
_LONE_LF = re.compile(rb"(?<!\r)\n")
_CONVERTING = (b"eol", b"ident", b"working-tree-encoding")


class Crlf(Enum):
    """When LF becomes CRLF."""

    NEVER = "never"
    IF_TEXT = "unless the file looks binary, or has a CR in the repository"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Smudge:
    """What is to be done to one file."""

    crlf: Crlf = Crlf.NEVER
    ident: bool = False
    encoding: str = ""

    @property
    def key(self) -> str:
        """Tells different conversions apart, in characters that a file name may have."""
        if self == NOTHING:
            return ""
        return f"{self.crlf.name[0]}{self.ident:d}{self.encoding.encode().hex()}."


NOTHING = Smudge()


def smudge(attributes: Mapping[bytes, Value]) -> Smudge:
    """What a checkout does to a file with these attributes."""
    text = crlf_of(attributes)
    crlf = Crlf.NEVER
    if attributes.get(b"eol") == b"crlf" and text is not False:
        crlf = Crlf.IF_TEXT if text == b"auto" else Crlf.ALWAYS
    return Smudge(crlf, attributes.get(b"ident") is True, encoding_of(attributes))


def to_worktree(data: bytes, todo: Smudge, oid: str) -> bytes:
    """The file that a checkout makes of the blob `data`, whose object id is `oid`.

    What cannot be put into its encoding stays as it is, as it does for git.
    """
    if len(data) > SIZE_LIMIT_BYTES:
        return data
    if todo.ident and b"$Id" in data:
        data = _with_ident(data, oid)
    if (todo.crlf is Crlf.ALWAYS) or (
        todo.crlf is Crlf.IF_TEXT and b"\r" not in data and not is_binary(data)
    ):
        data = _LONE_LF.sub(b"\r\n", data)
    if todo.encoding and data:
        data = _encoded(data, todo.encoding)
    return data


def _with_ident(data: bytes, oid: str) -> bytes:
    expansion = b"$Id: %s $" % oid.encode()
    pieces: list[bytes] = []
    done = at = 0
    while (match := _IDENT.search(data, at)) is not None:
        inner = match[1]
        # Another system's expansion has spaces where git puts none, and is kept.
        space = inner.find(b" ", 1) if inner is not None else -1
        if 0 <= space < len(inner or b"") - 1:
            at = match.start() + 1
            continue
        pieces += (data[done : match.start()], expansion)
        done = at = match.end()
    return b"".join((*pieces, data[done:]))


_WITH_BOM = {
    "utf-16le-bom": ("utf-16-le", codecs.BOM_UTF16_LE),
    "utf-16be-bom": ("utf-16-be", codecs.BOM_UTF16_BE),
}


def _encoded(data: bytes, encoding: str) -> bytes:
    name, bom = _WITH_BOM.get(encoding.lower(), (encoding, b""))
    try:
        if codec_of(name) == "utf-8":
            return data
        return bom + data.decode("utf-8").encode(name)
    except (LookupError, UnicodeError):
        return data


class Rules:
    """The conversions that hold in one directory of a tree.

    Directories without a `.gitattributes` of their own share those of the one above.
    """

    __slots__ = ("_attributes", "_causes", "converts")

    def __init__(self, prefix: bytes, content: bytes, parent: Rules | None) -> None:
        """`prefix` is the directory's path from the top with a slash, or empty at the top."""
        above: Attributes | None = parent._attributes if parent is not None else None
        if above is None and prefix:
            above = Attributes(b"", lambda: None, None)
        self._attributes: Attributes = Attributes(prefix, lambda: content, above)
        lines = parse(content, macros=not prefix)
        self.converts: bool = (parent is not None and parent.converts) or any(
            map(_may_convert, lines)
        )
        # Most files match no line that could be the reason for a conversion, and need no more
        # than to be asked about these. None: a macro may be the reason.
        self._causes: tuple[tuple[int, Rule], ...] | None = None
        above_causes = parent._causes if parent is not None else ()
        if above_causes is not None and not any(
            line.macro and _may_convert(line) for line in lines
        ):
            own = (line.rule for line in lines if line.rule is not None and _may_convert(line))
            self._causes = (*above_causes, *((len(prefix), rule) for rule in own))

    def smudge(self, path: bytes) -> Smudge:
        """What is done to the file at `path`, from the top, that is in this directory or below."""
        if not self.converts:
            return NOTHING
        if self._causes is not None:
            name = path.rsplit(b"/", 1)[-1]
            if not any(rule.matches(path[prefix:], name) for prefix, rule in self._causes):
                return NOTHING
        return smudge(self._attributes.resolve(path))


def _may_convert(line: Line) -> bool:
    """Whether a line can be the reason for a conversion. (`text` alone says nothing here: it is
    about what is added.)"""
    return any(
        name in _CONVERTING and value and (name != b"eol" or value == b"crlf")
        for name, value in line.states
    )
