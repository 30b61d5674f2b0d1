"""The process of the template (`template.py`): forks keepers, and has a spare one ready.

A fork copies each page that it touches, and a keeper touches a thousand before it has a lane. Done
ahead, that is no part of the lane's start. There is one spare at most, and only while nothing is
asked for: lanes that are started all at once are not to wait for each other's spares.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial

# Not used here: what keepers need that takes long to import.
import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401

from sandbox.channel import Channel, ClosedError
from sandbox.descriptor import readable
from sandbox.jail.feature import Features
from sandbox.mount import server  # noqa: F401
from sandbox.probe import host
from sandbox.tiers.tier import Tier, available
from supervisor.board.board import SprintDir
from supervisor.fleet.memory import Memory
from supervisor.fleet.rehearsal import rehearse, rehearse_mount
from supervisor.keeper import keeper
from supervisor.keeper.keeper import Training

_IDLE_S = 0.03


class Recruit:
    """A forked process, in a session of its own, that is the keeper of the order that it is given,
    or ends where it is given none.

    Args:
        training: what it does before it waits for that.
        known: what is known of a sprint already.
        is_fuse: as for `keeper.serve`.
        leave: closes what is not for it.

    Attributes:
        pid: its pid.

    Raises OSError where there can be none now (fork(2)).
    """

    def __init__(
        self,
        features: Features,
        training: Training,
        known: SprintDir | None,
        *,
        is_fuse: bool,
        leave: Callable[[], None],
    ) -> None:
        self._orders, orders = map(Channel, socket.socketpair())
        try:
            self.pid = os.fork()
        except BaseException:
            self._orders.close()
            orders.close()
            raise
        if self.pid == 0:
            try:
                leave()
                self._orders.close()
                os.setsid()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                keeper.serve(features, known, orders, training, is_fuse=is_fuse)
            finally:
                os._exit(1)
        orders.close()

    def give(self, order: bytes) -> bool:
        """Hands an order over. False where it did not live to take it."""
        try:
            self._orders.send(order)
        except ClosedError:
            return False
        finally:
            self._orders.close()
        return True

    def dismiss(self) -> None:
        """Has it end, and waits for that."""
        self._orders.close()
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass  # the kernel has reaped it


def serve(requests: socket.socket, state: str, top: str) -> None:
    """Answers each request, until the other end closes (`template.py`)."""
    features = host.probe(state)
    os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)

    spare_training = Training(
        preparer=lambda enough: rehearse(state, top, features, enough=enough),
        server=lambda: rehearse_mount(top),
    )
    rehearse(state, top, features)
    rehearse_mount(top)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps: keepers report on the board
    gc.collect()
    gc.freeze()  # keeps the collector from writing to, and so copying, the pages that forks share
    lines = requests.makefile("rb")

    def leave() -> None:
        lines.close()
        requests.close()

    is_fuse = Tier.FUSE in available(features)
    recruit = partial(Recruit, features, is_fuse=is_fuse, leave=leave)
    memory = Memory()
    spare: Recruit | None = None
    while True:
        if spare is None and not readable(requests.fileno(), _IDLE_S):
            memory.refresh()
            try:
                spare = recruit(spare_training, memory.sprint)
            except OSError:
                pass  # another moment will do
        line = lines.readline()
        if not line:
            break
        if spare is not None and spare.give(line):
            taken = spare
        else:
            try:
                taken = recruit(Training(), memory.sprint)
            except OSError as error:
                requests.sendall(f"{error.strerror}\n".encode())
                continue
            taken.give(line)
        spare = None
        memory.note(line)
        requests.sendall(b"%d\n" % taken.pid)
    if spare is not None:
        spare.dismiss()


if __name__ == "__main__":
    try:
        serve(socket.socket(fileno=os.dup(0)), *sys.argv[1:])
    except (BrokenPipeError, ConnectionResetError):
        pass  # `up` was killed, and its keepers run on
