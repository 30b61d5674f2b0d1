"""A network namespace with nothing in it but listeners on its loopback.

Made before the jail and outside of it, so that nothing of ours has to run in there: a socket
belongs to the namespace that it was made in, whoever accepts from it.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from sandbox import syscalls
from sandbox.errors import HostError

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_IFREQ = struct.Struct("16sh22x")
_BACKLOG = 256


@dataclass(frozen=True, slots=True)
class Netns:
    """Owned by who made it, like its sockets.

    Attributes:
        fd: of the namespace, for setns(2).
        listeners: in the order in which they were asked for.
    """

    fd: int
    listeners: tuple[socket.socket, ...]

    def close(self) -> None:
        os.close(self.fd)
        for listener in self.listeners:
            listener.close()


def make(ports: Sequence[tuple[str, int]]) -> Netns:
    """A new namespace that listens at each of `ports`: (address of the loopback, port or 0).

    The caller has CAP_SYS_ADMIN in its user namespace (`namespace.enter`). Raises HostError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            _make(theirs, ports)
        except BaseException as error:
            theirs.send((str(error) or repr(error)).encode()[:4096])
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        room = socket.CMSG_SPACE(4 * (len(ports) + 1))
        said, ancillary, _, _ = ours.recvmsg(4096, room, socket.MSG_CMSG_CLOEXEC)
    os.waitpid(pid, 0)
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if said or len(fds) != len(ports) + 1:
        raise HostError(
            f"a network namespace for the lane is refused: {said.decode(errors='replace')}",
            hint='`nanosup doctor` shows what this host forbids; network = "none" needs no proxy',
        )
    return Netns(fds[0], tuple(socket.socket(fileno=fd) for fd in fds[1:]))


def _make(channel: socket.socket, ports: Sequence[tuple[str, int]]) -> None:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = _IFREQ.pack(b"lo", 0)
        _, flags = _IFREQ.unpack(fcntl.ioctl(control, _SIOCGIFFLAGS, request))
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))
    namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    listeners = [_listen(*place) for place in ports]
    fds = array.array("i", [namespace, *(listener.fileno() for listener in listeners)])
    channel.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(_BACKLOG)
    return listener
