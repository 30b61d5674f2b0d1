"""Starting a command in a jail: what bubblewrap and the in-jail entry are given, and how."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sandbox.descriptor import write_whole
from sandbox.jail import jail, spawn
from sandbox.jail.anchor import check_anchors
from sandbox.jail.child import Child
from sandbox.jail.entry import Entry, entry_of
from sandbox.jail.feature import Features
from sandbox.jail.furnish import furnished
from sandbox.jail.jail import JailSpec
from sandbox.jail.seccomp import assemble, names

# A jail takes milliseconds. This only bounds a host that hangs, e.g. in a dead network mount.
BUILD_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What bubblewrap is given: its arguments, its options, and the entry, where there is one."""

    argv: tuple[str, ...]
    options: bytes
    entry: Entry | None


def plan(
    spec: JailSpec,
    features: Features,
    *,
    limits: Mapping[int, int],
    seccomp: bytes | None = None,
) -> Plan:
    """What `start` starts. Starts nothing. Raises JailError for a spec that makes no sense."""
    options = "\0".join(jail.bwrap_options(spec)).encode(errors="surrogateescape")
    entry = None
    if features.has_entry:
        filter_program = None
        if features.seccomp:
            filter_program = seccomp or assemble(features.machine, notify=features.notifies)
        entry = entry_of(spec, features, limits=limits, filter_program=filter_program)
    return Plan(tuple(jail.bwrap_argv(spec, features)), options, entry)


def start(
    spec: JailSpec,
    features: Features,
    *,
    stdout: int,
    stderr: int,
    stdin: int | None = None,
    limits: Mapping[int, int] | None = None,
    seccomp: bytes | None = None,
    build_s: float = BUILD_S,
    await_sources: Callable[[], None] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Child:
    """Runs `spec` and returns when its command is being executed. Call it from the main thread.

    Attributes:
        stdout, stderr: descriptors, which stay open here. stderr should be a file, for
            bubblewrap's complaints to be told in errors.
        stdin: None: /dev/null.
        limits: resource.RLIMIT_* → limit.
        seccomp: a filter program; None: the default one.
        build_s: how long the jail may take.
        await_sources: returns when all that `spec` shows is in its place. What it raises is raised
            here.
        meanwhile: what is to be done, while the jail is being built, before the command is
            executed. What it raises is raised here, and nothing is executed.

    Raises JailError when the jail cannot be built. A command that cannot be executed is no error:
    the child's end is then `Unstarted`.
    """
    resources = {**spec.resources, **(limits or {})}
    planned = plan(spec, features, limits=resources, seccomp=seccomp)
    entry = planned.entry
    if await_sources is not None:
        await_sources()
    check_anchors(spec)
    opened: list[int] = []

    def own(fd: int) -> int:
        opened.append(fd)
        return fd

    built, peer = socket.socketpair()
    report_r: int | None = None
    status_r, status_w = os.pipe()
    opened += [peer.detach(), status_w]
    try:
        fds = {
            0: own(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) if stdin is None else stdin,
            1: stdout,
            2: stderr,
            jail.OPTIONS_FD: own(_memory(planned.options)),
            jail.STATUS_FD: status_w,
            jail.BUILT_FD: opened[0],
        }
        if entry is not None:
            fds[jail.ENTRY_FD] = own(spawn.executable("entry", entry.program))
            # Not a pipe: the filter's listener comes along.
            reader, writer = socket.socketpair()
            report_r, fds[jail.REPORT_FD] = reader.detach(), own(writer.detach())
        image = spawn.Image(
            argv=planned.argv,
            fds=fds,
            uid=spec.uid,
            gid=spec.gid,
            limits={} if entry is not None else resources,
            terminal=spec.tty,
            groups=spec.groups,
            netns=spec.netns,
            # The entry's own domain scopes, too, and a second one would forbid renames.
            scoped=features.scoped and (entry is None or not features.confined),
        )
        offset = _end_of_file(stderr)
        with furnished(spec, console=_terminal(fds) if spec.tty else None):
            pid = spawn.spawn(image)
    except BaseException:
        built.close()
        os.close(status_r)
        if report_r is not None:
            os.close(report_r)
        raise
    finally:
        for fd in opened:
            os.close(fd)
    child = Child(
        pid,
        status_fd=status_r,
        stderr_fd=os.dup(stderr),
        stderr_offset=offset,
        command=spec.argv[0],
        # Only bubblewrap leaves it open why a command was not found.
        program=_find_program(spec) if entry is None else None,
        report_fd=report_r,
        entry=entry,
        names=names(features.machine) if features.seccomp else {},
    )
    try:
        if meanwhile is not None:
            meanwhile()
    except BaseException:
        built.close()
        child.close()
        raise
    child.await_built(built, build_s)
    return child


def _terminal(fds: Mapping[int, int]) -> str | None:
    """What ttyname(3) is to find in the jail as /dev/console, as bubblewrap's own /dev has it."""
    for target in (0, 1, 2):
        try:
            return os.ttyname(fds[target])
        except OSError:
            continue
    return None


def _find_program(spec: JailSpec) -> str | None:
    """Where the command is on the host, as far as can be said from outside."""
    name = spec.argv[0]
    if "/" in name:
        candidates = [os.path.normpath(os.path.join(spec.cwd, name))]
    else:
        path = spec.env.get("PATH", os.defpath).split(":")
        candidates = [os.path.normpath(os.path.join(spec.cwd, entry, name)) for entry in path]
    for candidate in candidates:
        shown = jail.shown_at(spec, candidate)
        if shown is not None and os.path.lexists(shown):
            return shown
    return None


def _memory(content: bytes) -> int:
    fd = os.memfd_create("options", os.MFD_CLOEXEC)
    write_whole(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _end_of_file(fd: int) -> int | None:
    status = os.fstat(fd)
    return status.st_size if stat.S_ISREG(status.st_mode) else None
