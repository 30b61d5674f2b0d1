"""Preparing a lane in one process for another, which keeps it.

A keeper lives as long as its agent, an hour perhaps, and there may be a hundred. To prepare a lane
takes far more memory than to watch one: CPython counts references in the objects themselves, so a
fork has a copy of whatever it reads. So the keeper forks a *preparer*, which acts for it: it claims
in the keeper's name, makes the lane, and ends when the command runs. What only the process that
keeps the lane can do, it asks the keeper to do (`There`), down one channel.

The kernel ends the preparer when the keeper dies; the keeper ends when the preparer does before it
has handed over, and what it had begun with it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import NoReturn

import msgspec

from sandbox import syscalls
from sandbox.channel import Channel, ClosedError
from sandbox.descriptor import readable
from sandbox.errors import HostError, JailError, MountError, SandboxError
from sandbox.jail.feature import Features
from sandbox.jail.held import Held
from sandbox.jail.launch import Arrangement, Begun
from sandbox.jail.view import WayOut
from supervisor.board.board import SprintDir
from supervisor.board.journal import Journal
from supervisor.keeper import withdrawal
from supervisor.keeper.charge import Charge
from supervisor.keeper.mount import Mount
from supervisor.keeper.post import Here
from supervisor.keeper.session import Finding
from supervisor.keeper.wakeup import Wakeup
from supervisor.keeper.withdrawal import asks_for_the_end
from supervisor.model.phase import Phase

_END_S = 5.0


# What the preparer says to the keeper. All but `Declined` and a charge are answered.


class Entered(msgspec.Struct, frozen=True, tag=True):
    """The lane's namespaces were made.

    Attributes:
        user: descriptor of the user namespace; None where it is the keeper's.
        mnt: of the mount namespace.
    """

    user: int | None
    mnt: int


class Open(msgspec.Struct, frozen=True, tag=True):
    """Open the way out (`egress.opened`)."""

    phase: Phase
    n: int
    journal: str
    ids: tuple[int, int]


class Begin(msgspec.Struct, frozen=True, tag=True):
    """Begin what is arranged, in the mount namespace `mnt`. Answered with a pid."""

    arranged: Arrangement
    mnt: int


class Go(msgspec.Struct, frozen=True, tag=True):
    """Wait for the jail that has begun (`Begun.await_built`)."""

    timeout_s: float


class Close(msgspec.Struct, frozen=True, tag=True):
    """End what has begun."""


class Declined(msgspec.Struct, frozen=True, tag=True):
    """The lane is of a kind that its keeper has to prepare itself."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """The answer where it was done."""

    pid: int | None = None
    way_out: WayOut | None = None


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The answer where it could not be done. `kind` is the name of an error."""

    kind: str
    message: str
    hint: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The answer where a system call failed."""

    errno: int
    strerror: str
    filename: str | None

    @classmethod
    def of(cls, error: OSError) -> Failed:
        return cls(error.errno or 0, error.strerror or "", error.filename)


_ERRORS = {each.__name__: each for each in (HostError, JailError, MountError, SandboxError)}
_requests = msgspec.msgpack.Decoder(Entered | Open | Begin | Go | Close | Declined | Charge)
_answers = msgspec.msgpack.Decoder(Done | Refused | Failed)


class _Begun:
    """The keeper's jail, seen by the preparer."""

    def __init__(self, pid: int, ask: Callable[[msgspec.Struct], object]) -> None:
        self.pid = pid
        self._ask = ask

    def await_built(self, timeout_s: float) -> None:
        self._ask(Go(timeout_s))

    def close(self) -> None:
        self._ask(Close())


class There:
    """The process at the other end of the channel keeps the lane (`post.Post`)."""

    def __init__(self, channel: Channel, keeper: int) -> None:
        self._channel = channel
        self._keeper = keeper
        self._begun: _Begun | None = None

    def decline(self) -> NoReturn:
        """Leaves all of it to the keeper. Nothing must have been claimed."""
        self._tell(Declined())
        os._exit(0)

    def entered(self) -> None:
        tie(self._keeper)  # the kernel unties who enters a user namespace
        with _opened("mnt") as mnt:
            if os.getuid() == 0:  # it has made no user namespace (`namespace.enter`)
                self._ask(Entered(None, mnt), (mnt,))
                return
            with _opened("user") as user:
                self._ask(Entered(user, mnt), (user, mnt))

    @contextmanager
    def way_out(
        self, phase: Phase, n: int, record: Journal, ids: tuple[int, int], features: Features
    ) -> Iterator[WayOut | None]:
        answer, place = self._ask(Open(phase, n, record.path, ids))
        found = answer.way_out
        yield found and replace(found, netns=place[found.netns])

    def listening(self) -> AbstractContextManager[object]:
        withdrawal.ignore()
        return ExitStack()

    def begin(self, arranged: Arrangement) -> Begun:
        with _opened("mnt") as mnt:
            try:
                answer, _ = self._ask(Begin(arranged, mnt), (mnt, *arranged.fds))
            finally:
                for fd in arranged.taken_over:
                    os.close(fd)
        assert answer.pid is not None
        self._begun = _Begun(answer.pid, self._ask)
        return self._begun

    def hold(self, held: Held) -> None:
        raise AssertionError("a preparer starts nothing itself")

    def close(self) -> None:
        if self._begun is not None:
            self._begun.close()

    def keep(self, charge: Charge, sprint: SprintDir, mount: Mount) -> Finding:
        self._tell(charge, charge.fds)
        os._exit(0)

    def _tell(self, message: msgspec.Struct, fds: tuple[int, ...] = ()) -> None:
        try:
            self._channel.send(msgspec.msgpack.encode(message), fds)
        except ClosedError:
            os._exit(1)  # the keeper is dead, and so are we

    def _ask(
        self, message: msgspec.Struct, fds: tuple[int, ...] = ()
    ) -> tuple[Done, dict[int, int]]:
        self._tell(message, fds)
        try:
            body, place = self._channel.receive()
        except ClosedError:
            os._exit(1)
        match _answers.decode(body):
            case Refused(kind, said, hint):
                raise _ERRORS[kind](said, hint=hint)
            case Failed(errno, strerror, filename):
                raise OSError(errno, strerror, filename)
            case answer:
                return answer, place


Met = Charge | Declined | int
"""What comes of it: a lane that runs; one that the keeper has to prepare itself; the exit status of
a preparer that ended with neither, and has told the board what there was to tell."""


class Preparer:
    """A forked process that prepares a lane for this one.

    Args:
        prepare: what it does; is given its channel and the pid of this process, and returns its
            exit status.

    Attributes:
        heard: the signals that came meanwhile, and were passed on to it.
    """

    def __init__(self, prepare: Callable[[Channel, int], int]) -> None:
        ours, theirs = map(Channel, socket.socketpair())
        keeper = os.getpid()
        self._channel = ours
        self._mnt = -1
        self.heard = b""
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                ours.close()
                tie(keeper)
                code = prepare(theirs, keeper)
            finally:
                os._exit(code)
        theirs.close()

    def give(self, order: bytes) -> None:
        """Hands it its order. One that does not live to take it is noticed in `attend`."""
        try:
            self._channel.send(order)
        except ClosedError:
            pass

    def attend(self, here: Here, wakeup: Wakeup, features: Features, stack: ExitStack) -> Met:
        """Does what the preparer asks for, and returns when it has handed over, or has ended.

        Args:
            here: what this process keeps of the lane.
            stack: closes the rest, when the lane has ended.
        """
        poll = select.poll()
        poll.register(wakeup.fileno(), select.POLLIN)
        poll.register(self._channel.fileno(), select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if wakeup.fileno() in ready:
                numbers = wakeup.read()
                self.heard += numbers
                for number in numbers:
                    if asks_for_the_end(bytes([number])):
                        # Not waited for yet, so the pid is still its. Somebody may have stopped it.
                        os.kill(self.pid, number)
                        os.kill(self.pid, signal.SIGCONT)
                continue
            try:
                body, place = self._channel.receive()
            except ClosedError:
                here.close()
                return self._await_end()
            except OSError as error:  # of the descriptors that came some had no room
                self._answer(Failed.of(error))
                continue
            message = _requests.decode(body)
            match message:
                case Charge():
                    self._let_go()
                    wakeup.put_back(self.heard)  # who watches the lane does as they ask
                    return message.moved(place)
                case Declined():
                    self._await_end()
                    return message
            try:
                done = self._do(message, place, here, features, stack)
            except SandboxError as error:
                self._answer(Refused(type(error).__name__, error.message, error.hint))
            except OSError as error:
                self._answer(Failed.of(error))
            else:
                self._answer(done, () if done.way_out is None else (done.way_out.netns,))

    def _answer(self, answer: Done | Refused | Failed, fds: tuple[int, ...] = ()) -> None:
        try:
            self._channel.send(msgspec.msgpack.encode(answer), fds)
        except ClosedError:
            pass  # it is dead, which is noticed next

    def _do(
        self,
        message: object,
        place: dict[int, int],
        here: Here,
        features: Features,
        stack: ExitStack,
    ) -> Done:
        match message:
            case Entered(user, mnt):
                if user is not None:
                    syscalls.setns(place[user], syscalls.CLONE_NEWUSER)
                    os.close(place[user])
                self._mnt = place[mnt]
                syscalls.setns(self._mnt, syscalls.CLONE_NEWNS)
            case Open(phase, n, journal, ids):
                opened = here.way_out(phase, n, Journal(journal), ids, features)
                return Done(way_out=stack.enter_context(opened))
            case Begin(arranged, mnt):
                return Done(pid=self._begin(arranged.moved(place), place[mnt], here))
            case Go(timeout_s):
                here.await_built(timeout_s)
            case Close():
                here.close()
            case _:
                raise AssertionError(message)
        return Done()

    def _begin(self, arranged: Arrangement, mnt: int, here: Here) -> int:
        """As `furnish.furnished`: there for a moment, and back."""
        try:
            syscalls.setns(mnt, syscalls.CLONE_NEWNS)
            try:
                return here.begin(arranged).pid
            finally:
                syscalls.setns(self._mnt, syscalls.CLONE_NEWNS)
        finally:
            for fd in {mnt, *arranged.fds} - set(arranged.taken_over):
                os.close(fd)

    def _let_go(self) -> None:
        """It has nothing left to do. The lane is not to be without a watch for long: where it
        cannot end now (a disk that hangs, state D) the kernel reaps it some time."""
        self._channel.close()
        os.kill(self.pid, signal.SIGKILL)  # somebody may have stopped it
        pidfd = os.pidfd_open(self.pid)
        try:
            if readable(pidfd, _END_S):
                os.waitpid(self.pid, 0)
        finally:
            os.close(pidfd)

    def _await_end(self) -> int:
        """Its exit status."""
        self._channel.close()
        _, status = os.waitpid(self.pid, 0)
        return max(os.waitstatus_to_exitcode(status), 0) or int(os.WIFSIGNALED(status))


def tie(keeper: int) -> None:
    """Has this process die with its parent, the keeper (PR_SET_PDEATHSIG(2const))."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)


@contextmanager
def _opened(kind: str) -> Iterator[int]:
    """A descriptor of the namespace of a kind that this process is in (namespaces(7))."""
    fd = os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
