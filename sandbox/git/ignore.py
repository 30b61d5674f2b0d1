"""What git ignores: the rules of gitignore(5), as dir.c of git applies them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandbox.git.wildmatch import compile_glob, has_wildcard

FILE_NAME = b".gitignore"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line. Exactly one of `literal`, `suffix` and `glob` is set.

    Attributes:
        negative: matching means *not* ignored.
        directory: matches directories alone.
        anchored: compared with the path below the file's directory, not with the last component.
    """

    negative: bool
    directory: bool
    anchored: bool
    literal: bytes | None = None
    suffix: bytes | None = None
    glob: re.Pattern[bytes] | None = None

    def matches(self, path: bytes, name: bytes) -> bool:
        """Whether `path` (below the file's directory; `name` is its end) is meant."""
        subject = path if self.anchored else name
        if self.literal is not None:
            return subject == self.literal
        if self.suffix is not None:
            return subject.endswith(self.suffix)
        assert self.glob is not None
        return self.glob.fullmatch(subject) is not None


def _trimmed(line: bytes) -> bytes:
    """Without trailing spaces that no backslash protects."""
    end, position, last_space = len(line), 0, -1
    while position < end:
        if line[position] == 0x20:
            if last_space < 0:
                last_space = position
        else:
            if line[position] == 0x5C:
                position += 1
                if position == end:
                    return line
            last_space = -1
        position += 1
    return line if last_space < 0 else line[:last_space]


def parse_rule(line: bytes) -> Rule:
    """A pattern, as gitignore and gitattributes have it, without spaces around it."""
    negative = line.startswith(b"!")
    if negative:
        line = line[1:]
    directory = line.endswith(b"/")
    if directory:
        line = line[:-1]
    anchored = b"/" in line
    if not anchored:
        if not has_wildcard(line):
            return Rule(negative, directory, False, literal=line)
        if line[0] == 0x2A and not has_wildcard(line[1:]):
            return Rule(negative, directory, False, suffix=line[1:])
        return Rule(negative, directory, False, glob=compile_glob(line, pathname=False))
    if line.startswith(b"/"):
        line = line[1:]
    if not has_wildcard(line):
        return Rule(negative, directory, True, literal=line)
    return Rule(negative, directory, True, glob=compile_glob(line, pathname=True))


def parse(content: bytes) -> tuple[Rule, ...]:
    """The rules of a file, last first, since the last that matches decides."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    rules = []
    for line in content.split(b"\n"):
        if not line or line.startswith(b"#"):
            continue
        line = line.split(b"\0", 1)[0].removesuffix(b"\r")
        rules.append(parse_rule(_trimmed(line)))
    rules.reverse()
    return tuple(rules)


class Scope:
    """The rules that hold in one directory: its own, then its parents', then the general ones.

    Its `.gitignore` is read when first needed: most directories are never asked.
    """

    __slots__ = ("_load", "_parent", "_prefix", "_rules")

    def __init__(
        self, prefix: bytes, load: Callable[[], bytes | None], parent: Scope | Sequence[Rule]
    ) -> None:
        self._prefix = len(prefix)
        self._load = load
        self._parent = parent
        self._rules: tuple[Rule, ...] | None = None

    def ignores(self, path: bytes, *, directory: bool) -> bool:
        """Whether `path` (from the top of the repository, directly in this directory) is ignored.

        Its parents are not looked at: nothing in an ignored directory can be un-ignored, and the
        caller, who walks from the top, has seen them.
        """
        name = path.rsplit(b"/", 1)[-1]
        scope: Scope | Sequence[Rule] = self
        while isinstance(scope, Scope):
            if scope._rules is None:
                content = scope._load()
                scope._rules = parse(content) if content else ()
            below = path[scope._prefix :]
            for rule in scope._rules:
                if (directory or not rule.directory) and rule.matches(below, name):
                    return not rule.negative
            scope = scope._parent
        for rule in scope:
            if (directory or not rule.directory) and rule.matches(path, name):
                return not rule.negative
        return False
