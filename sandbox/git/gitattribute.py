"""What gitattributes(5) says about a path, as attr.c of git works it out. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandbox.git.ignore import Rule, parse_rule

FILE_NAME = b".gitattributes"

Value = bool | bytes | None
"""Set, unset, a value, or (None) said to be unspecified."""

# git ignores longer lines and larger files since 2.38.
_LINE_LIMIT_BYTES = 2048
_FILE_LIMIT_BYTES = 100 << 20

_NAME = re.compile(rb"[A-Za-z0-9_.][A-Za-z0-9_.-]*")
_ESCAPE = re.compile(rb"\\([abfnrtv\"\\]|[0-3][0-7]{2})")
_CONTROL = {b"a": 7, b"b": 8, b"f": 12, b"n": 10, b"r": 13, b"t": 9, b"v": 11}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an attributes file: which paths (or the name of a macro), and what of them."""

    rule: Rule | None
    macro: bytes
    states: tuple[tuple[bytes, Value], ...]


BINARY = Line(None, b"binary", ((b"diff", False), (b"merge", False), (b"text", False)))


def _unescape(match: re.Match[bytes]) -> bytes:
    text = match[1]
    value = _CONTROL.get(text)
    if value is None:
        value = int(text, 8) if text.isdigit() else text[0]
    return bytes((value,))


def _split(line: bytes) -> tuple[bytes, bytes]:
    if line.startswith(b'"'):
        end = re.match(rb'"((?:[^"\\]|\\.)*)"', line, re.DOTALL)
        if end is not None:
            return _ESCAPE.sub(_unescape, end[1]), line[end.end() :]
    pattern, *rest = re.split(rb"[ \t\r\n]", line, maxsplit=1)
    return pattern, rest[0] if rest else b""


def _states(text: bytes) -> tuple[tuple[bytes, Value], ...] | None:
    states: list[tuple[bytes, Value]] = []
    for word in text.split():
        name, equals, value = word.partition(b"=")
        state: Value = True
        if name[:1] in {b"-", b"!"}:
            state = False if name[:1] == b"-" else None
            name = name[1:]
        elif equals:
            state = value
        if not _NAME.fullmatch(name):
            return None  # git drops the whole line
        states.append((name, state))
    return tuple(states)


def parse(content: bytes, *, macros: bool) -> tuple[Line, ...]:
    """The lines of a file, last first. `macros` may be defined at the top of a repository alone."""
    if len(content) > _FILE_LIMIT_BYTES:
        return ()
    lines = []
    for raw in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        line = raw.split(b"\0", 1)[0].lstrip(b" \t\r")
        if not line or line.startswith(b"#") or len(raw) >= _LINE_LIMIT_BYTES:
            continue
        pattern, rest = _split(line)
        states = _states(rest)
        if states is None:
            continue
        if pattern.startswith(b"[attr]") and not line.startswith(b'"'):
            name = pattern.removeprefix(b"[attr]") or (rest.split() or [b""])[0]
            if macros and _NAME.fullmatch(name):
                lines.append(Line(None, name, states))
            continue
        rule = parse_rule(pattern)
        # git forbids negative patterns here, and no file matches one for directories.
        if not rule.negative and not rule.directory:
            lines.append(Line(rule, b"", states))
    lines.reverse()
    return tuple(lines)


class Attributes:
    """The attributes that hold in one directory: its own file, its parents', the general ones.

    `top` outranks all directories (info/attributes), `bottom` is outranked by all.
    """

    __slots__ = ("_bottom", "_lines", "_load", "_parent", "_prefix", "_top")

    def __init__(
        self,
        prefix: bytes,
        load: Callable[[], bytes | None],
        parent: Attributes | None,
        *,
        top: Sequence[Line] = (),
        bottom: Sequence[Line] = (),
    ) -> None:
        self._prefix = len(prefix)
        self._load = load
        self._parent = parent
        self._top: Sequence[Line] = parent._top if parent else tuple(top)
        self._bottom: Sequence[Line] = parent._bottom if parent else (*bottom, BINARY)
        self._lines: tuple[Line, ...] | None = None

    def _own(self) -> tuple[Line, ...]:
        if self._lines is None:
            content = self._load()
            self._lines = parse(content, macros=self._parent is None) if content else ()
        return self._lines

    def resolve(self, path: bytes) -> dict[bytes, Value]:
        """The attributes of the file `path` (from the top, directly in this directory)."""
        found: dict[bytes, Value] = {}
        files: list[tuple[int, Sequence[Line]]] = [(0, self._top)]
        scope: Attributes | None = self
        while scope is not None:
            files.append((scope._prefix, scope._own()))
            scope = scope._parent
        files.append((0, self._bottom))
        if not any(line.rule for _, lines in files for line in lines):
            return found
        macros: dict[bytes, tuple[tuple[bytes, Value], ...]] = {}
        for _, lines in reversed(files):
            for line in reversed(lines):
                if line.macro:
                    macros[line.macro] = line.states
        name = path.rsplit(b"/", 1)[-1]
        for prefix, lines in files:
            below = path[prefix:]
            for line in lines:
                if line.rule is not None and line.rule.matches(below, name):
                    _fill(found, line.states, macros)
        return found


def _fill(
    found: dict[bytes, Value],
    states: tuple[tuple[bytes, Value], ...],
    macros: dict[bytes, tuple[tuple[bytes, Value], ...]],
) -> None:
    # Whatever was said first counts, since the strongest file comes first. Macros may name others,
    # and so on: an agent writes them, and must not get deeper than Python's stack.
    pending = list(states)
    while pending:
        name, value = pending.pop()
        if name in found:
            continue
        found[name] = value
        if value is True:
            pending += macros.get(name, ())
