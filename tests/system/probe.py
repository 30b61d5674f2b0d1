"""One tree under test: runs calls in it, as several users, and notes what each answered."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_CLOCK_REALTIME_COARSE = 5  # linux/time.h
OWNER, MEMBER, OTHER = 65101, 65102, 65103
GROUP, LONELY = 65201, 65202

# uid, gid, further groups
USERS: dict[str, tuple[int, int, list[int]]] = {
    "root": (0, 0, []),
    "owner": (OWNER, GROUP, []),
    "member": (MEMBER, LONELY, [GROUP]),
    "other": (OTHER, LONELY, []),
}


def named(code: int | None) -> str:
    """The name of an errno."""
    return errno.errorcode.get(code or 0, str(code))


@contextlib.contextmanager
def becoming(user: str) -> Iterator[None]:
    """Acts as that user to the file system; the process stays root's to come back."""
    uid, gid, groups = USERS[user]
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([])


class Probe:
    """A tree, and a transcript of what calls in it answered.

    Paths are relative: the process's working directory is the case's own directory in the tree.
    """

    def __init__(self, *, waits: bool) -> None:
        self._waits = waits
        self.transcript: list[tuple[str, Any]] = []
        self.held: list[int] = []

    def note(self, label: str, value: Any) -> None:
        """Adds what was found."""
        self.transcript.append((label, value))

    def do(self, label: str, act: Callable[[], Any], user: str = "root") -> Any:
        """Calls, and notes the value or the errno. Values that are not comparable give None."""
        answer: Any
        value: Any = None
        try:
            with becoming(user) if user != "root" else contextlib.nullcontext():
                value = act()
            comparable = isinstance(value, (bytes, str, bool, list, int)) or type(value) is tuple
            answer = value if comparable else "done"
        except OSError as error:
            answer = named(error.errno)
        except (OverflowError, ValueError) as error:
            answer = type(error).__name__
        self.note(label if user == "root" else f"{user}: {label}", answer)
        return value

    def opened(
        self, label: str, path: Any, flags: int, mode: int = 0o644, user: str = "root"
    ) -> int:
        """open(2), noted; the descriptor, closed at the end of the case, or -1."""

        def act() -> None:
            self.held.append(os.open(path, flags, mode))

        count = len(self.held)
        self.do(label, act, user)
        return self.held[-1] if len(self.held) > count else -1

    def look(self, path: Any, label: str = "") -> None:
        """Notes what lstat says, without times."""
        self.note(f"stat {label or path!r}", self.status(path))

    def status(self, path: Any) -> Any:
        """Type, mode, owner, link count and size, or the errno."""
        try:
            found = os.fstat(path) if isinstance(path, int) else os.lstat(path)
        except OSError as error:
            return named(error.errno)
        is_directory = stat.S_ISDIR(found.st_mode)
        return (
            oct(found.st_mode),
            found.st_uid,
            found.st_gid,
            0 if is_directory else found.st_nlink,
            0 if is_directory else found.st_size,
            found.st_rdev,
        )

    def moves(self, label: str, act: Callable[[], Any], *paths: Any, user: str = "root") -> Any:
        """Calls, and notes which times of `paths` it moved."""
        before = [self._times(path) for path in paths]
        if self._waits:
            tick()
        value = self.do(label, act, user)
        for path, old in zip(paths, before, strict=True):
            new = self._times(path)
            if old is None or new is None:
                moved = "-" if old is new else "appeared" if old is None else "gone"
            else:
                # Access times are nobody's promise (mount(8), relatime).
                moved = "".join(x for x, o, n in zip("mc", old, new, strict=True) if n != o)
            what = "the descriptor" if isinstance(path, int) else repr(path)
            self.note(f"{label}: times of {what}", moved)
        return value

    @staticmethod
    def _times(path: Any) -> tuple[int, int] | None:
        try:
            found = os.fstat(path) if isinstance(path, int) else os.lstat(path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ctime_ns

    def close(self) -> None:
        """Closes what the case left open."""
        while self.held:
            with contextlib.suppress(OSError):
                os.close(self.held.pop())


def stamps_finely(directory: Path) -> bool:
    """Whether each change after a look gets a time of its own (multigrain, Linux 6.13)."""
    path = directory / "stamped"
    seen = set()
    for _ in range(50):
        path.write_bytes(b"x")
        seen.add(os.stat(path).st_mtime_ns)
    path.unlink()
    return len(seen) == 50


def tick() -> None:
    """Returns once the clock that files are stamped by has moved on (time(7): a jiffy)."""
    before = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
    while time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) == before:
        os.sched_yield()
