"""Git's glob patterns (wildmatch.c of git) as regular expressions over bytes. Pure.

The expressions use atomic groups, so matching takes time in proportion to pattern × name: an
agent writes the patterns, and must not be able to hang a seal with `*a*a*a*a*b`. That is exact,
not an approximation: after `*` the leftmost match of what follows, up to the next wildcard, leaves
the most to the rest, and can be kept. After `**/` that is so up to the next `**/`; what a `*` in
between may match depends on which directory `**/` has led to, so those are tried in turn.
"""

from __future__ import annotations

import functools
import re
import string

SPECIAL = b"*?[\\"

_NEVER = rb"(?!)"

_CLASSES: dict[bytes, frozenset[int]] = {
    b"alnum": frozenset((string.ascii_letters + string.digits).encode()),
    b"alpha": frozenset(string.ascii_letters.encode()),
    b"blank": frozenset(b" \t"),
    b"cntrl": frozenset([*range(32), 127]),
    b"digit": frozenset(string.digits.encode()),
    b"graph": frozenset(range(33, 127)),
    b"lower": frozenset(string.ascii_lowercase.encode()),
    b"print": frozenset(range(32, 127)),
    b"punct": frozenset(string.punctuation.encode()),
    b"space": frozenset(b" \t\n\r\v\f"),
    b"upper": frozenset(string.ascii_uppercase.encode()),
    b"xdigit": frozenset(string.hexdigits.encode()),
}


def has_wildcard(pattern: bytes) -> bool:
    """Whether the pattern is more than a literal name."""
    return any(byte in SPECIAL for byte in pattern)


class _BrokenError(ValueError):
    """Raised on a pattern that wildmatch gives up on: it matches nothing."""


def _at(pattern: bytes, position: int) -> int:
    return pattern[position] if position < len(pattern) else 0


def _bracket(pattern: bytes, position: int) -> tuple[frozenset[int], int]:
    """The set of bytes of the bracket expression that starts after `[`, and where it ends."""
    negated = _at(pattern, position) in b"!^" and position < len(pattern)
    if negated:
        position += 1
    chosen: set[int] = set()
    previous = 0
    current = _at(pattern, position)
    while True:
        if not current:
            raise _BrokenError
        if current == ord("\\"):
            position += 1
            current = _at(pattern, position)
            if not current:
                raise _BrokenError
            chosen.add(current)
        elif current == ord("-") and previous and _at(pattern, position + 1) not in {0, ord("]")}:
            position += 1
            current = _at(pattern, position)
            if current == ord("\\"):
                position += 1
                current = _at(pattern, position)
                if not current:
                    raise _BrokenError
            chosen.update(range(previous, current + 1))
            current = 0
        elif current == ord("[") and _at(pattern, position + 1) == ord(":"):
            start = position + 2
            end = pattern.find(b"]", start)
            if end < 0:
                raise _BrokenError
            if end - start - 1 < 0 or pattern[end - 1] != ord(":"):
                chosen.add(ord("["))  # no `:]`: an ordinary member
            else:
                try:
                    chosen |= _CLASSES[pattern[start : end - 1]]
                except KeyError as error:
                    raise _BrokenError from error
                position = end
                current = 0
        else:
            chosen.add(current)
        previous = current
        position += 1
        current = _at(pattern, position)
        if current == ord("]"):
            break
    everything = frozenset(range(256))
    return (everything - chosen if negated else frozenset(chosen)), position + 1


def _class(chosen: frozenset[int]) -> bytes:
    if not chosen:
        return _NEVER
    # As ranges: `[!a]` has 255 members, and an agent may write it any number of times.
    first = sorted(byte for byte in chosen if byte - 1 not in chosen)
    last = sorted(byte for byte in chosen if byte + 1 not in chosen)
    ranges = (b"\\x%02x-\\x%02x" % ends for ends in zip(first, last, strict=True))
    return b"[" + b"".join(ranges) + b"]"


class _Stretch:
    """What is between two wildcards that cross slashes.

    Attributes:
        lazy, greedy: the one that it begins with, where others follow, and where it is the last.
        pieces: what is between the wildcards in it that do not.
    """

    def __init__(self, lazy: bytes = b"", greedy: bytes = b"") -> None:
        self.lazy = lazy
        self.greedy = greedy
        self.pieces = [b""]

    def expression(self, star: bytes, *, is_last: bool) -> bytes:
        """What it matches. The last piece of all is anchored at the end of the name, so what
        comes before it must be free to look for it."""
        first, *others = self.pieces
        result = (self.greedy if is_last else self.lazy) + first
        for number, piece in enumerate(others, 1):
            if is_last and number == len(others):
                result += star + piece
            else:
                result += b"(?>" + star + b"?" + piece + b")"
        return result if is_last else b"(?>" + result + b")"


def _translate(pattern: bytes, pathname: bool) -> bytes:
    star = rb"[^/]*" if pathname else rb".*"
    stretches = [_Stretch()]

    def literal(text: bytes) -> None:
        stretches[-1].pieces[-1] += text

    position = 0
    while position < len(pattern):
        byte = pattern[position]
        if byte == ord("\\"):
            position += 1
            if position == len(pattern):
                raise _BrokenError
            literal(re.escape(pattern[position : position + 1]))
            position += 1
        elif byte == ord("?"):
            literal(rb"[^/]" if pathname else rb".")
            position += 1
        elif byte == ord("["):
            chosen, position = _bracket(pattern, position + 1)
            literal(_class(chosen - {ord("/")} if pathname else chosen))
        elif byte == ord("*"):
            start = position
            while position < len(pattern) and pattern[position] == ord("*"):
                position += 1
            rest = pattern[position:]
            boundary = start == 0 or pattern[start - 1] == ord("/")
            crosses = position - start > 1 and pathname and boundary
            if crosses and rest[:1] == b"/":
                stretches.append(_Stretch(rb"(?:.*?/)??", rb"(?:.*/)?"))
                position += 1
            elif crosses and (not rest or rest.startswith(b"\\/")):
                stretches.append(_Stretch(rb".*?", rb".*"))
            else:
                stretches[-1].pieces.append(b"")
        else:
            literal(re.escape(bytes((byte,))))
            position += 1
    *before, last = stretches
    found = b"".join(stretch.expression(star, is_last=False) for stretch in before)
    return found + last.expression(star, is_last=True)


@functools.lru_cache(maxsize=4096)
def compile_glob(pattern: bytes, *, pathname: bool) -> re.Pattern[bytes]:
    """An expression whose fullmatch() is wildmatch(pattern, …).

    `pathname` is WM_PATHNAME: wildcards stop at a slash, and `**` is special. git compares the
    part before the first wildcard by itself, so that `foo**/bar` sees `**` at its beginning.
    """
    cut = next((i for i, byte in enumerate(pattern) if byte in SPECIAL), len(pattern))
    try:
        text = re.escape(pattern[:cut]) + _translate(pattern[cut:], pathname)
    except _BrokenError:
        text = _NEVER
    return re.compile(text, re.DOTALL)
