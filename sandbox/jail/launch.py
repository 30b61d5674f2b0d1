"""Starting a command in a jail: what bubblewrap and the in-jail entry are given, and how."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from sandbox.descriptor import write_whole
from sandbox.jail import jail, spawn
from sandbox.jail.anchor import check_anchors
from sandbox.jail.child import Child
from sandbox.jail.entry import Entry, entry_of
from sandbox.jail.feature import Features
from sandbox.jail.furnish import furnished
from sandbox.jail.jail import JailSpec
from sandbox.jail.seccomp import assemble

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """A jail that is ready to begin: all that it needs but its first process.

    Attributes:
        image: that process; its descriptors are open here until it has begun.
        built, status, report: our ends of what is heard from it, descriptors; `report` None: no
            entry, no report. `begin` takes them over.
        stderr_offset: where bubblewrap's complaints would begin.
        command: what is executed, for people.
        program: where that is on the host, where only bubblewrap could say that it is not.
        entry: as planned.
        machine: what system calls are numbered for; None: none is filtered.
    """

    image: spawn.Ready
    built: int
    status: int
    report: int | None = None
    stderr_offset: int | None
    command: str
    program: str | None
    entry: Entry | None
    machine: str | None

    @property
    def taken_over(self) -> tuple[int, ...]:
        """The descriptors that `begin` takes over."""
        ends = (self.built, self.status, self.report)
        return tuple(end for end in ends if end is not None)

    @property
    def fds(self) -> tuple[int, ...]:
        """All its descriptors."""
        return (*self.taken_over, *self.image.passed)

    def moved(self, place: Mapping[int, int]) -> Arrangement:
        """The same, with each descriptor at its `place`."""
        return replace(
            self,
            image=self.image.moved(place),
            built=place[self.built],
            status=place[self.status],
            report=None if self.report is None else place[self.report],
        )


class Begun(Protocol):
    """A jail that has begun: bubblewrap works, and waits before the command."""

    @property
    def pid(self) -> int: ...

    def await_built(self, timeout_s: float) -> None:
        """As `Child.await_built`."""

    def close(self) -> None:
        """Ends it."""


Jail = TypeVar("Jail", bound=Begun)


def begin(arranged: Arrangement) -> Child:
    """Starts the first process of what is arranged, in the mount namespace that this process is in
    (`furnished`). Call it from the main thread. Takes over what is `taken_over`, also where it
    fails. Raises JailError.
    """
    try:
        pid = spawn.spawn(arranged.image)
    except BaseException:
        for fd in arranged.taken_over:
            os.close(fd)
        raise
    return Child(
        pid,
        built=socket.socket(fileno=arranged.built),
        status_fd=arranged.status,
        stderr_fd=os.dup(arranged.image.fds[2]),
        stderr_offset=arranged.stderr_offset,
        command=arranged.command,
        program=arranged.program,
        report_fd=arranged.report,
        entry=arranged.entry,
        machine=arranged.machine,
    )


def start(
    spec: JailSpec,
    features: Features,
    *,
    starter: Callable[[Arrangement], Jail],
    stdout: int,
    stderr: int,
    stdin: int | None = None,
    limits: Mapping[int, int] | None = None,
    seccomp: bytes | None = None,
    build_s: float = BUILD_S,
    await_sources: Callable[[], None] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Jail:
    """Runs `spec` and returns when its command is being executed. Call it from the main thread.

    Attributes:
        starter: starts the first process: `begin`, or what has another process do that.
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
    if await_sources is not None:
        await_sources()
    check_anchors(spec)
    with _arranged(spec, planned, (stdin, stdout, stderr), features, resources) as arranged:
        jailed = starter(arranged)
    try:
        if meanwhile is not None:
            meanwhile()
    except BaseException:
        jailed.close()
        raise
    jailed.await_built(build_s)
    return jailed


@contextmanager
def _arranged(
    spec: JailSpec,
    planned: Plan,
    stdio: tuple[int | None, int, int],
    features: Features,
    resources: Mapping[int, int],
) -> Iterator[Arrangement]:
    """While the block lasts, this process is where the jail is to begin. What the jail alone is to
    have is closed at its end, what is `taken_over` is not."""
    stdin, stdout, stderr = stdio
    entry = planned.entry
    with ExitStack() as stack:

        def own(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        with ExitStack() as ends:

            def ours(fd: int) -> int:
                ends.callback(os.close, fd)
                return fd

            built, peer = map(socket.socket.detach, socket.socketpair())
            status_r, status_w = os.pipe()
            fds = {
                0: own(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) if stdin is None else stdin,
                1: stdout,
                2: stderr,
                jail.OPTIONS_FD: own(_memory(planned.options)),
                jail.STATUS_FD: own(status_w),
                jail.BUILT_FD: own(peer),
            }
            kept = {"built": ours(built), "status": ours(status_r)}
            if entry is not None:
                fds[jail.ENTRY_FD] = own(spawn.executable("entry", entry.program))
                # Not a pipe: the filter's listener comes along.
                reader, writer = map(socket.socket.detach, socket.socketpair())
                kept["report"], fds[jail.REPORT_FD] = ours(reader), own(writer)
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
            arranged = Arrangement(
                image=stack.enter_context(spawn.ready(image)),
                **kept,
                stderr_offset=_end_of_file(stderr),
                command=spec.argv[0],
                # Only bubblewrap leaves it open why a command was not found.
                program=_find_program(spec) if entry is None else None,
                entry=entry,
                machine=features.machine if features.seccomp else None,
            )
            stack.enter_context(furnished(spec, console=_terminal(fds) if spec.tty else None))
            ends.pop_all()
        yield arranged


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
