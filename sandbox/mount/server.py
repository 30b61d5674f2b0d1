"""Serves one mount: from mount(2) to umount(2), in a process of its own."""

from __future__ import annotations

import gc
import logging
import mmap
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

import pyfuse3

from sandbox.descriptor import close_others
from sandbox.errors import MountError, SandboxError
from sandbox.mount import handshake, loop
from sandbox.mount.device import mount_device, read_further_ahead, unmount
from sandbox.mount.express import Express
from sandbox.mount.fuse import Adapter
from sandbox.mount.inbox import Inbox
from sandbox.syscalls import PR_SET_PDEATHSIG, prctl, syncfs
from sandbox.union.counter import Counter
from sandbox.union.overlay import Overlay
from sandbox.union.spec import MountSpec

_log = logging.getLogger("nanosup.mount")

READY = b"\1"

# libfuse answers nothing large: reads and listings do not come to it. An attribute is at most
# XATTR_SIZE_MAX = 64 KiB.
_MESSAGE_BYTES = 1 << 18

# Requests that are answered before anything else is looked at.
_BURST = 1000


class Server:
    """A mounted overlay and the loop that answers the kernel."""

    def __init__(
        self,
        spec: MountSpec,
        *,
        control_fd: int | None = None,
        jail: socket.socket | None = None,
        counter: Counter | None = None,
    ) -> None:
        self._spec = spec
        self._control_fd = control_fd
        self._jail = jail
        self._jail_fd = -1
        self._ready_fd = -1
        self._requests = 0
        self._session_fd = -1
        self._unmounter = 0
        self._stopping = False
        self._wake_fd = -1
        self._device_fd = -1
        # Pages of it come into being when a request is as long as that.
        self._buffer = mmap.mmap(-1, handshake.MAX_WRITE_BYTES + mmap.PAGESIZE)
        self._is_forwarded = False
        self._init_request = b""
        self._poll = select.poll()
        self._on_readable: dict[int, Callable[[], int]] = {}
        self.counter = counter or Counter()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.overlay = Overlay(
            spec, fd_limit=max(64, min(hard // 4, 4096)), counts=self.counter.totals
        )

    def mount(self) -> None:
        """Mounts, and gives libfuse a session. Raises MountError or HostError.

        libfuse gets one end of a socket pair for its device. What it has to answer is passed on
        through it, and so are its answers.
        """
        self._device_fd = mount_device(
            self._spec.mountpoint,
            is_writable=self.overlay.is_writable,
            allow_other=self._spec.allow_other,
        )
        self._init_request = os.read(self._device_fd, handshake.REQUEST_BYTES)
        kernel, session = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._kernel = kernel
        self._session_fd = session.detach()
        kernel.send(handshake.edited_request(self._init_request))
        try:
            # libfuse takes this name for a descriptor that somebody else has mounted.
            adapter = Adapter(self.overlay, self.counter)
            self._adapter = adapter
            pyfuse3.init(adapter, f"/dev/fd/{self._session_fd}", set())
        except RuntimeError as error:
            raise MountError(f"cannot start a session: {error}") from error

    def _shake_hands(self) -> None:
        """Drops libfuse's answer to INIT, and gives our own."""
        self._kernel.recv(4096)
        request, self._init_request = self._init_request, b""
        is_stateless = not self.overlay.is_writable and handshake.opens_by_itself(request)
        upper = self.overlay.upper
        # Where bytes are counted, they have to be seen.
        is_passable = upper is not None and upper.allowance is None
        is_passing = is_passable and handshake.passes_through(request)
        reply = handshake.answer(
            request,
            page_bytes=resource.getpagesize(),
            is_stateless=is_stateless,
            is_passing=is_passing,
        )
        self._express = Express(
            self.overlay,
            self._adapter.changes,
            self._adapter.handles,
            self.counter,
            self._buffer,
            self._device_fd,
            is_stateless=is_stateless,
            is_passing=is_passing,
        )
        os.write(self._device_fd, reply)
        read_further_ahead(self._spec.mountpoint)
        self._inbox = Inbox(self._device_fd, self._buffer)
        if upper is not None and upper.allowance is not None:
            upper.allowance.hear = self._hear
        self._watch(self._device_fd, self._inbox.receive)

    def run(self, ready_fd: int) -> None:
        """Answers requests until unmounted. Writes READY to `ready_fd` after INIT."""
        self._ready_fd = ready_fd
        if self._control_fd is not None:
            self._watch(self._control_fd, self._answer)
        if self._jail is not None:
            self._watch(self._jail.fileno(), self._attend)
        # A signal has to end poll(2), whenever it comes.
        wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, self._on_term)
        signal.signal(signal.SIGCHLD, self._on_child)
        self._wake_fd = wake
        self._watch(wake, self._drain)
        # It reports each answer that came too late for an aborted connection.
        logging.getLogger("pyfuse3").setLevel(logging.CRITICAL)
        gc.freeze()
        gc.disable()
        pyfuse3.trio = loop.Loop(self._wait)  # type: ignore[attr-defined]
        try:
            loop.run(pyfuse3.main(1, 1))
        finally:
            pyfuse3.close(unmount=False)
            self.overlay.close()

    def _wait(self) -> None:
        """Returns when there is a request for libfuse to receive."""
        if self._requests < 2:
            self._requests += 1
            if self._requests == 1:
                return
            self._shake_hands()
            os.write(self._ready_fd, READY)
            os.close(self._ready_fd)
        if self._is_forwarded:
            self._return_replies()
        inbox, answer = self._inbox, self._express.answer
        passthrough = self._express.passthrough
        while True:
            # No more than so many at once: the others shall not wait for ever.
            for _ in range(_BURST):
                length = inbox.catch()
                if length <= 0:
                    break
                if not answer(length):
                    self._forward(length)
                    return
            length = self._await(passthrough.look_again_ms if length <= 0 else 0)
            if length and not answer(length):
                self._forward(length)
                return
            if self._stopping and self._jail_fd < 0:
                raise loop.ClosedResourceError

    def _await(self, timeout_ms: int | None) -> int:
        """Waits for anything to happen. Returns the length of a request, 0 if there is none."""
        length = 0
        self._inbox.begin_waiting()
        ready = self._poll.poll(timeout_ms)
        self._inbox.end_waiting()
        for fd, _event in ready:
            length += self._on_readable[fd]()
        if not ready:
            self._express.passthrough.look()
        return length

    def _hear(self) -> None:
        self._inbox.look_further(self._express.take)

    def _forward(self, length: int) -> None:
        self._kernel.send(memoryview(self._buffer)[:length])
        self._is_forwarded = True

    def _watch(self, fd: int, on_readable: Callable[[], int]) -> None:
        self._on_readable[fd] = on_readable
        self._poll.register(fd, select.POLLIN)

    def _unwatch(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._on_readable[fd]

    def _drain(self) -> int:
        try:
            os.read(self._wake_fd, 64)
        except BlockingIOError:
            pass
        return 0

    def _return_replies(self) -> None:
        """Hands on what libfuse had to say to the request that it was given: notices, a reply."""
        self._is_forwarded = False
        while True:
            try:
                message = self._kernel.recv(_MESSAGE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            try:
                os.write(self._device_fd, message)
            except FileNotFoundError:
                pass  # who asked was interrupted, or knows nothing of what the notice is about

    def _answer(self) -> int:
        """Any message on the control socket is answered by the counters."""
        assert self._control_fd is not None
        try:
            if os.read(self._control_fd, 4096):
                os.write(self._control_fd, self.counter.document())
                return 0
        except OSError:
            pass
        self._unwatch(self._control_fd)
        return 0

    # -- the end

    def _attend(self) -> int:
        """Hears which process has to be dead before nobody uses the mount; or that none will be."""
        assert self._jail is not None
        self._unwatch(self._jail.fileno())
        try:
            _, fds, _, _ = socket.recv_fds(self._jail, 1, 1)
        except OSError:
            return 0
        for fd in fds:
            self._jail_fd = fd
            self._watch(fd, self._let_go)
        return 0

    def _let_go(self) -> int:
        self._unwatch(self._jail_fd)
        os.close(self._jail_fd)
        self._jail_fd = -1
        return 0

    def _on_term(self, _signal: int, _frame: object) -> None:
        if self._unmounter:
            return
        # Unmounting writes dirty pages of mapped files back, which only this process can
        # answer; so another process asks for it.
        self._unmounter = os.fork()
        if self._unmounter == 0:
            _unmount(self._spec.mountpoint)
            os._exit(0)

    def _on_child(self, _signal: int, _frame: object) -> None:
        while True:
            try:
                pid, _status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self._unmounter:
                # The kernel closes the device by then, unless somebody still has the mount open,
                # or in a copy of its namespace. Only the jail is waited for: what its processes
                # have open they can still write to.
                self._stopping = True


def _unmount(mountpoint: str) -> None:
    """Writes back what is dirty, then unmounts."""
    signal.set_wakeup_fd(-1)
    # Above all the device: as long as we held it, the death of the server would not end the
    # connection, and we would wait for answers that nobody gives, with the lane's lock held.
    close_others((0, 1, 2))
    try:
        fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(fd)
        finally:
            os.close(fd)
    except OSError:
        pass
    unmount(mountpoint)


def serve(
    spec: MountSpec,
    ready_fd: int,
    control_fd: int | None = None,
    jail: socket.socket | None = None,
    counter: Counter | None = None,
) -> NoReturn:
    """Mounts, answers, unmounts and exits; meant for a freshly forked process.

    `ready_fd` gets READY once the kernel has finished its handshake, or the reason as text if
    there will be no mount. `control_fd` is a connected socket: each message on it is answered
    with a line of JSON (`Counter.document`). `jail` brings a pidfd, the process of which has to be
    dead before the server ends unasked. `counter` was made before the fork by who wants to
    read it without asking. Ends on SIGTERM, also when its parent dies.
    """
    os.umask(0)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    status = 0
    try:
        server = Server(spec, control_fd=control_fd, jail=jail, counter=counter)
        server.mount()
    except SandboxError as error:
        os.write(ready_fd, error.message.encode(errors="surrogateescape"))
        sys.stdout.flush()
        os._exit(error.exit_code)
    except BaseException as error:
        os.write(ready_fd, f"cannot mount: {error!r}".encode())
        os._exit(MountError.exit_code)
    try:
        server.run(ready_fd)
    except BaseException:
        _log.exception("the mount failed")
        status = MountError.exit_code
    os._exit(status)
