"""The jail as data, and as bubblewrap's arguments. Pure; the only module that knows its flags.

A `JailSpec` says what a process will see and be. `operations` puts what is mounted (`furnish.py`)
into an order in which it works, `bwrap_options` spells the rest for bwrap(1).
"""

from __future__ import annotations

import functools
import os.path
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from sandbox.errors import JailError
from sandbox.jail.feature import Features

# Descriptors that bubblewrap is started with. None of them reaches the command.
OPTIONS_FD = 3  # its options, NUL-separated: nobody can read them from /proc/*/cmdline
STATUS_FD = 4  # it writes JSON lines: the child's pid, then the exit code
BUILT_FD = 5  # it closes this one when the jail is complete
# And these two reach the entry, which closes them (`entry.py`).
ENTRY_FD = 6  # the program itself
REPORT_FD = 7  # it says there what went wrong

_CANONICAL = re.compile(r"/|(?:/(?!\.{1,2}(?:/|\Z))[^/\0]+)+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Bind:
    """A directory or file of the host shown at `target`. No devices, no setuid."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Mask:
    """An empty tmpfs over `target`.

    Attributes:
        writable: False: read-only, once everything below has been put in its place.
        size_bytes: None: the kernel's default, half of the memory.
    """

    target: str
    writable: bool = False
    mode: int = 0o755
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A file with synthesized content, read-only, over or at `target`."""

    target: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link at `target`, where nothing is."""

    target: str
    points_to: str


Operation = Bind | Mask | File | Symlink


@dataclass(frozen=True, slots=True, kw_only=True)
class JailSpec:
    """Everything about a jail.

    The root of the host is shown read-only below all that is listed here, with a private /proc and
    /dev. All paths are absolute and canonical (no symbolic link in any of them).

    Attributes:
        env: the whole environment of the command.
        uid, gid: of the command, inside and outside.
        host_network: share the host's network; else an empty network namespace, with loopback.
        resources: resource.RLIMIT_* → limit, soft and hard, of each process in there.
        shm_bytes: size of /dev/shm; None: the kernel's default, half of the memory.
        groups: descriptors to get into the lane's control groups by (`cgroup.py`).
        netns: descriptor of the lane's network namespace (`netns.py`); None: bubblewrap makes one.
        tty: the command has a terminal of its own on 0, 1 and 2 and keeps it as controlling.
    """

    argv: tuple[str, ...]
    cwd: str
    uid: int
    gid: int
    env: Mapping[str, str] = field(default_factory=dict)
    hostname: str = "lane"
    masks: tuple[Mask, ...] = ()
    binds: tuple[Bind, ...] = ()
    files: tuple[File, ...] = ()
    symlinks: tuple[Symlink, ...] = ()
    host_network: bool = False
    resources: Mapping[int, int] = field(default_factory=dict)
    groups: tuple[int, ...] = ()
    shm_bytes: int | None = None
    netns: int | None = None
    tty: bool = False


def operations(spec: JailSpec) -> tuple[Operation, ...]:
    """What is mounted, parents before children. A mask with a bind on top of it is left out.

    Raises JailError for paths that are not absolute and canonical, and for two different things at
    one target.
    """
    everything: dict[str, Operation] = {}
    listed: tuple[Operation, ...] = (*spec.masks, *spec.binds, *spec.files, *spec.symlinks)
    for operation in listed:
        target = operation.target
        _check_path(target)
        if isinstance(operation, Bind):
            _check_path(operation.source)
        there = everything.get(target)
        if there is None or (isinstance(there, Mask) and not isinstance(operation, Mask)):
            everything[target] = operation
        elif there != operation:
            raise JailError(
                f"two things would be mounted at {target} in the jail",
                hint="check home_read, scratch and share for paths that are named twice",
            )
    return tuple(everything[target] for target in sorted(everything, key=_depth))


def shown_at(spec: JailSpec, path: str) -> str | None:
    """The host path whose content the jail shows at `path`; None where it is private or synthetic.

    What `path` is on the host, symbolic links for instance, is not looked at.
    """
    return shown_by(spec)(path)


def shown_by(spec: JailSpec) -> Callable[[str], str | None]:
    """`shown_at` for many paths of one jail."""
    return functools.partial(_shown, operations(spec))


def places_of(spec: JailSpec, paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """All the places in the jail where each of the host's `paths` can be seen."""
    ordered = operations(spec)
    places = {}
    for path in paths:
        candidates = {path}
        for bind in spec.binds:
            if _below(path, bind.source):
                candidates.add(_join(bind.target, os.path.relpath(path, bind.source)))
        places[path] = tuple(sorted(at for at in candidates if _shown(ordered, at) == path))
    return places


def _shown(ordered: tuple[Operation, ...], path: str, links: int = 8) -> str | None:
    if _below(path, "/proc") or _below(path, "/dev"):
        return None
    nearest: Operation | None = None
    for operation in ordered:
        if _below(path, operation.target):
            nearest = operation
    if nearest is None:
        return path
    if isinstance(nearest, Bind):
        return _join(nearest.source, os.path.relpath(path, nearest.target))
    if isinstance(nearest, Symlink):
        led_to = os.path.join(os.path.dirname(nearest.target), nearest.points_to)
        path = _join(os.path.normpath(led_to), os.path.relpath(path, nearest.target))
        return _shown(ordered, path, links - 1) if links else None
    return None


def bwrap_options(spec: JailSpec) -> list[str]:
    """The options of bwrap(1) for `spec`, which go through OPTIONS_FD. It is started where the root
    is what the jail is to show."""
    options = [
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup"),
        *(() if spec.host_network or spec.netns is not None else ("--unshare-net",)),
        *("--uid", str(spec.uid), "--gid", str(spec.gid), "--hostname", spec.hostname),
        *("--disable-userns", "--assert-userns-disabled", "--cap-drop", "ALL"),
        # A lane's own terminal stays its controlling one: keystrokes pushed into it by TIOCSTI
        # reach nobody but the lane. Any other terminal is left behind by a new session.
        *(() if spec.tty else ("--new-session",)),
        "--die-with-parent",
        *("--json-status-fd", str(STATUS_FD), "--block-fd", str(BUILT_FD)),
        # The root is furnished already, and devices, read-only and nosuid are as they should be.
        *("--dev-bind", "/", "/", "--proc", "/proc", "--mqueue", "/dev/mqueue"),
        *("--chdir", spec.cwd, "--clearenv"),
    ]
    for name, value in spec.env.items():
        _check_variable(name, value)
        options += ["--setenv", name, value]
    return options


def bwrap_argv(spec: JailSpec, features: Features) -> list[str]:
    """The command line of bubblewrap; `bwrap_options` has to be readable from OPTIONS_FD."""
    if not spec.argv:
        raise JailError("there is no command to run in the jail")
    if any("\0" in argument for argument in spec.argv):
        raise JailError("the command has a NUL byte in it")
    # On other machines there is no filter either, and bubblewrap runs the command itself.
    entry = (f"/proc/self/fd/{ENTRY_FD}",) if features.has_entry else ()
    return [features.bwrap, "--args", str(OPTIONS_FD), "--", *entry, *spec.argv]


def _below(path: str, directory: str) -> bool:
    return directory == "/" or path == directory or path.startswith(directory + "/")


def _join(directory: str, relative: str) -> str:
    return directory if relative == "." else os.path.join(directory, relative)


def _depth(path: str) -> tuple[int, str]:
    return (0 if path == "/" else path.count("/"), path)


def _check_path(path: str) -> None:
    if _CANONICAL.fullmatch(path) is None:
        raise JailError(f"the jail needs absolute canonical paths, not {path!r}")


def _check_variable(name: str, value: str) -> None:
    if not name or "=" in name or "\0" in name or "\0" in value:
        raise JailError(f"{name!r} cannot be set in the lane's environment")
