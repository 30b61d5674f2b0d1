"""Names that must never become an entry of a git tree (path.c and utf8.c of git). Pure.

A tree with such an entry would, checked out by somebody, write into that person's `.git`. The
rules of all platforms apply on every one: the tree made here may be checked out on another.
"""

from __future__ import annotations

import re
from enum import Enum


class Refusal(Enum):
    """Why a name is refused; NONE when it is not."""

    NONE = ""
    EMPTY = "empty or has a slash"
    DOT = "`.` or `..`"
    DOT_GIT = "an alias of .git"
    SYMLINKED_MODULES = "a symbolic link called .gitmodules"


# Code points that HFS+ ignores when it compares names (utf8.c: next_hfs_char).
_HFS_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
# NTFS: trailing spaces and periods, and everything from a colon on, do not count; `git~1` is the
# short name of `.git`; a backslash separates directories.
_NTFS_DOT_GIT = re.compile(rb"(?:\.git|git~1)[ .]*(?::.*)?", re.IGNORECASE | re.DOTALL)
# Short names of .gitmodules: gitmod~1 to ~4, and the hashed form gi7eba~1 and shorter.
_NTFS_MODULES = re.compile(
    rb"(?:\.gitmodules|gitmod~[1-4]|gi(?:7(?:e(?:ba?)?)?)?~[1-9][0-9]*)[ .]*(?::.*)?",
    re.IGNORECASE | re.DOTALL,
)


def _hfs_folded(name: bytes) -> str:
    # HFS+ folds case beyond ASCII, but of .git's letters only ı and the like could matter, and it
    # does not fold those onto i. casefold() is a superset of what it does for the rest.
    return _HFS_IGNORED.sub("", name.decode("utf-8", "surrogateescape")).casefold()


def refusal(name: bytes, *, symlink: bool = False) -> Refusal:
    """Why `name` (one path component) cannot be in a tree."""
    if not name or b"/" in name or b"\0" in name:
        return Refusal.EMPTY
    if name in {b".", b".."}:
        return Refusal.DOT
    # Almost every name has neither letter sequence; this keeps large seals fast.
    lowered = name.lower()
    if b"g" not in lowered or (b"." not in name and b"~" not in name):
        return Refusal.NONE
    folded = _hfs_folded(name)
    if folded == ".git" or any(_NTFS_DOT_GIT.fullmatch(part) for part in name.split(b"\\")):
        return Refusal.DOT_GIT
    if symlink and (folded == ".gitmodules" or _NTFS_MODULES.fullmatch(name)):
        return Refusal.SYMLINKED_MODULES
    return Refusal.NONE
