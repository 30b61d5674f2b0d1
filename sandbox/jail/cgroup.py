"""Control groups for lanes: found, made, removed (cgroups(7)).

Version 2 where this process may divide its own group (it is delegated), version 1 where it may make
directories below its own group in each hierarchy, which in general is root.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from sandbox.errors import HostError

CONTROLLERS = ("memory", "pids", "cpu")
PREFIX = "nanosup."  # of the names of lanes' groups
_OWN = "nanosup-keepers"  # where processes of a group of version 2 go when it is divided


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where groups can be made.

    Attributes:
        version: 1 or 2.
        places: controller → the directory to make one in.
    """

    version: int
    places: Mapping[str, str]


def find(proc: str = "/proc/self") -> Hierarchy | None:
    """What this process may use; None where it may make no group at all."""
    try:
        with open(f"{proc}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            own = [line.rstrip("\n").split(":", 2) for line in file]
        with open(f"{proc}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return None
    second: dict[str, str] = {}
    first: dict[str, str] = {}
    for _, controllers, path in own:
        if not controllers:
            second = _second(_directory(mounts, path, None))
        else:
            for controller in set(controllers.split(",")) & set(CONTROLLERS):
                place = _directory(mounts, path, controller)
                if place is not None and os.access(place, os.W_OK):
                    first[controller] = place
    if second:
        return Hierarchy(2, second)
    return Hierarchy(1, first) if first else None


def _directory(mounts: Iterable[list[str]], path: str, controller: str | None) -> str | None:
    """Where the group `path` of a hierarchy is mounted."""
    for mount in mounts:
        dash = mount.index("-")
        kind, options = mount[dash + 1], mount[dash + 3].split(",")
        if kind == "cgroup2" if controller is None else kind == "cgroup" and controller in options:
            root, point = mount[3], mount[4]
            below = os.path.relpath(path, root)
            place = point if below == "." else os.path.join(point, below)
            return place if not below.startswith("..") and os.path.isdir(place) else None
    return None


def _second(own: str | None) -> dict[str, str]:
    if own is None or os.path.basename(own) == _OWN:
        own = own and os.path.dirname(own)
    if own is None:
        return {}
    needed = ("cgroup.subtree_control", "cgroup.procs")
    if not all(os.access(os.path.join(own, name), os.W_OK) for name in (".", *needed)):
        return {}
    available = set(_read(os.path.join(own, "cgroup.controllers")).split())
    return {controller: own for controller in CONTROLLERS if controller in available}


@dataclass(slots=True)
class Group:
    """A lane's group; one directory, or with version 1 one for each controller.

    Attributes:
        fds: of the files that a process writes `0` to in order to be in it.
        locks: held as long as it is in use.
    """

    directories: tuple[str, ...]
    fds: tuple[int, ...]
    locks: tuple[int, ...]
    _closed: bool = field(default=False)

    def close(self) -> None:
        """Removes it, if nothing is in it any more; otherwise the next one that is made does."""
        if not self._closed:
            self._closed = True
            for directory in self.directories:
                _remove(directory)
            for fd in (*self.fds, *self.locks):
                os.close(fd)


@contextmanager
def made(
    hierarchy: Hierarchy | None, name: str, settings: Iterable[tuple[str, str, str]]
) -> Iterator[Group | None]:
    """A group while a lane runs; None where `settings` are none.

    Attributes:
        settings: (controller, file, content). A file whose name ends in `?` may be missing.

    Raises HostError where it cannot be made after all.
    """
    listed = list(settings)
    if not listed or hierarchy is None:
        yield None
        return
    try:
        group = _make(hierarchy, name, listed)
    except OSError as error:
        raise HostError(
            f"a control group for the lane cannot be made: {error.filename}: {error.strerror}",
            hint="`nanosup doctor` shows what this host has; without `required` lanes do without",
        ) from error
    try:
        yield group
    finally:
        group.close()


def _make(hierarchy: Hierarchy, name: str, settings: list[tuple[str, str, str]]) -> Group:
    wanted = dict.fromkeys(controller for controller, _, _ in settings)
    places = dict.fromkeys(hierarchy.places[controller] for controller in wanted)
    if hierarchy.version == 2:
        (place,) = places
        _divide(place, wanted)
    directories: list[str] = []
    fds: list[int] = []
    locks: list[int] = []
    try:
        for place in places:
            _sweep(place)
            directory, lock = _make_directory(place, name)
            locks.append(lock)
            directories.append(directory)
        for controller, file, content in settings:
            path = os.path.join(hierarchy.places[controller], f"{PREFIX}{name}", file.rstrip("?"))
            try:
                _write(path, content)
            except FileNotFoundError:
                if not file.endswith("?"):
                    raise
        for directory in directories:
            procs = os.path.join(directory, "cgroup.procs")
            fds.append(os.open(procs, os.O_WRONLY | os.O_CLOEXEC))
    except BaseException:
        Group(tuple(directories), tuple(fds), tuple(locks)).close()
        raise
    return Group(tuple(directories), tuple(fds), tuple(locks))


def _make_directory(place: str, name: str) -> tuple[str, int]:
    """A new group, and a lock that tells others that it is in use (flock(2))."""
    directory = os.path.join(place, f"{PREFIX}{name}")
    while True:
        os.mkdir(directory, 0o755)
        try:
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # swept, for it was empty and nobody's
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.isdir(directory):
            return directory, lock
        os.close(lock)


def _divide(place: str, controllers: Iterable[str]) -> None:
    """Lets the groups below `place` have controllers. None of its own processes may be in it then,
    unless it is the root ("no internal processes"), so they move down.

    With one in it, the kernel refuses memory (EBUSY), but hands on pids and cpu: then it takes the
    group for a threaded one, and no process can enter those below (EOPNOTSUPP).
    """
    if os.path.exists(os.path.join(place, "cgroup.type")):  # only the root has none
        _move_down(place)
    control = os.path.join(place, "cgroup.subtree_control")
    if missing := set(controllers) - set(_read(control).split()):
        _write(control, " ".join(f"+{name}" for name in sorted(missing)))


def _move_down(place: str) -> None:
    down = os.path.join(place, _OWN)
    # Until there are none: what is just being forked comes into the old one.
    for _ in range(100):
        pids = _read(os.path.join(place, "cgroup.procs")).split()
        if not pids:
            return
        os.makedirs(down, exist_ok=True)
        for pid in pids:
            try:
                _write(os.path.join(down, "cgroup.procs"), pid)
            except ProcessLookupError:
                pass


def _sweep(place: str) -> None:
    """Removes groups whose keepers were killed. One that has a process in it stays (EBUSY)."""
    try:
        names = os.listdir(place)
    except OSError:
        return
    for name in names:
        if name.startswith(PREFIX):
            _remove_unused(os.path.join(place, name))


def _remove_unused(directory: str) -> None:
    """Holds its lock until it is removed: who has just made it may be about to take it."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(directory)
    except BlockingIOError:
        pass
    finally:
        os.close(fd)


def _remove(directory: str) -> None:
    try:
        os.rmdir(directory)
    except OSError:
        pass


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)
