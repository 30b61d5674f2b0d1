"""Write-back: a token that an agent has refreshed in its lane, put where the user's own is.

Some providers give out a refresh token once: after a lane has used it, the user's copy is worth
nothing, unless what the lane got instead comes back. It comes from a lane, so it is looked at as
what a stranger wrote: a plain file, small, of the form that it had; and it replaces the user's
only if that is still what the lane was given.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from supervisor.board import disk

LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Refresh:
    """Remembers what a lane is given, and takes back what became of it.

    Attributes:
        given: credentials below HOME whose refreshing is written back, and the SHA-256 of each;
            None where there is none.
    """

    given: Mapping[str, bytes | None]

    @classmethod
    def of(cls, paths: Iterable[str], home: Path) -> Refresh:
        """What a lane is given of these, below `home`."""
        return cls({path: _digest(home / path) for path in paths})

    def take_back(self, home: Path, lane_home: Path, tell: Callable[..., None]) -> None:
        """Writes back what has changed. Tells what was, and what was refused and why.

        Args:
            tell: takes an event and its fields, for the journal.
        """
        for path, given in self.given.items():
            if given is None:
                continue
            try:
                content = _read(lane_home, path)
                if content is None or hashlib.sha256(content).digest() == given:
                    continue
                if refusal := _refusal(path, content) or _replace(home / path, given, content):
                    tell("credential.refused", path=path, reason=refusal)
                else:
                    tell("credential.written_back", path=path)
            except OSError as error:
                tell("credential.refused", path=path, reason=error.strerror)


def _replace(target: Path, given: bytes, content: bytes) -> str:
    """Puts `content` in its place, by one rename. Why not, else."""
    with _locked(target.parent):
        if _digest(target) != given:
            return "the user's own was changed meanwhile"
        status = target.stat()
        temporary = target.with_name(f".{target.name}.nanosup-{os.getpid()}")
        disk.remove(str(temporary))  # of one that was killed, and had this pid
        try:
            disk.write_file(str(temporary), content)
            os.chmod(temporary, stat.S_IMODE(status.st_mode))
            os.chown(temporary, status.st_uid, status.st_gid)
            os.rename(temporary, target)
        except BaseException:
            disk.remove(str(temporary))
            raise
    return ""


def _refusal(path: str, content: bytes) -> str:
    if len(content) > LIMIT_BYTES:
        return f"larger than {LIMIT_BYTES} bytes"
    if path.endswith(".json"):
        try:
            if not isinstance(json.loads(content), dict):
                return "no JSON object"
        except (ValueError, RecursionError):
            return "not JSON"
    return ""


def _read(lane_home: Path, path: str) -> bytes | None:
    """A file of the lane's, no link of either kind on the way; None where it is none.

    Raises OSError where something of it is not what it should be.
    """
    *directories, name = Path(path).parts
    fd = os.open(lane_home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for directory in directories:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(directory, flags, dir_fd=fd)
            os.close(fd)
            fd = below
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(name, flags, dir_fd=fd)
    except FileNotFoundError:
        return None
    finally:
        os.close(fd)
    with open(file, "rb") as opened:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise OSError(0, "no plain file")
        return opened.read(LIMIT_BYTES + 1)


def _digest(path: Path) -> bytes | None:
    """Of a plain file; None where there is none."""
    try:
        if path.is_symlink():
            return None
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One at a time, whatever board it is of (flock(2))."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
