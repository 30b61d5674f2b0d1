"""What a `.gitmodules` must not say, as fsck of git has it (gitmodulesUrl and its like). Pure.

git itself refuses most of these when it acts on them; older ones, and other tools, do not.
"""

from __future__ import annotations

import re

FILE_NAME = b".gitmodules"

_SECTION = re.compile(
    rb'\[\s*submodule(?:\s+"(?P<quoted>(?:[^"\\]|\\.)*)"|\.(?P<dotted>[^\]]*))\s*\]', re.IGNORECASE
)
_KEY = re.compile(
    rb"(?:^|\])\s*(?P<key>url|path|update)\s*=[ \t]*(?P<value>(?:[^\r\n\\]|\\.|\\\r?\n)*)",
    re.IGNORECASE | re.MULTILINE,
)
_ESCAPE = re.compile(rb"\\(\r?\n|.)", re.DOTALL)
# Transports that run a command, or use a descriptor (git-remote-ext(1), git-remote-fd(1)).
_COMMANDS = (b"ext::", b"fd::")


def fault(content: bytes) -> str:
    """Why a file with this content is refused, as the end of a sentence; "" where it is not."""
    for section in _SECTION.finditer(content):
        name = section["quoted"] if section["quoted"] is not None else section["dotted"]
        name = _ESCAPE.sub(lambda match: match[1], name)
        if not name or b".." in re.split(rb"[/\\]", name):
            return "has a submodule whose name leads out of .git/modules"
    for found in _KEY.finditer(content):
        key = found["key"].lower()
        value = _plain(found["value"])
        if key == b"update" and value.startswith(b"!"):
            return "has an update that runs a command"
        if key in (b"url", b"path") and value.startswith(b"-"):
            return f"has a {key.decode()} that is taken for an option"
        if key == b"url" and value.lower().startswith(_COMMANDS):
            return "has a url that runs a command"
        if key == b"url" and (b"\n" in value or b"%0a" in value.lower()):
            return "has a url with a line break"
    return ""


def _plain(value: bytes) -> bytes:
    """A value as git reads it, but for comments: quotes gone, escapes undone."""
    unquoted = value.strip().replace(b'"', b"")
    return _ESCAPE.sub(
        lambda match: {b"n": b"\n", b"t": b"\t"}.get(
            match[1], b"" if b"\n" in match[1] else match[1]
        ),
        unquoted,
    )
