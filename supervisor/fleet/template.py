"""The warm template that keepers are forked from.

A fresh interpreter with everything that a keeper imports costs some 300 ms; a fork of this process
(`forkserver.py`) costs a few. It is single-threaded (so that its children may enter a user
namespace), and it ends when the `nanosup up` that started it ends: the socket to it then reads
end-of-file. Its children, the keepers, do not: each is in a session of its own.

Requests are JSON lines over a stream socket; the answer is the keeper's pid, a line too.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from types import TracebackType

import msgspec

from supervisor.keeper.order import Order

# It gets ready in half a second; on a machine that is overloaded, or emulated, it takes many times
# that, and would no sooner be ready if another one were begun.
_READY_S = 60.0
_ANSWER_S = 10.0
_END_S = 5.0


def keeper_log(state: str) -> str:
    """What keepers print, when something is wrong; `state` is the board's directory."""
    return os.path.join(state, "keeper.log")


class SpawnRefusedError(Exception):
    """Raised when no keeper can be forked just now: no processes or memory are left, or the
    template was killed. Another try may do better.

    Attributes:
        died: the template itself did not live to answer.
    """

    def __init__(self, reason: str, *, died: bool = False) -> None:
        super().__init__(reason)
        self.died = died


class Template:
    """A running template. Use as a context manager; leaving it leaves the keepers running.

    One that is killed, or no longer answers, is replaced when it is needed.
    """

    def __init__(self, log: str, top: str) -> None:
        """`log`, in the state directory, takes what keepers say when something is wrong; `top` is
        the repository."""
        self._log = log
        self._top = top
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def begin(self) -> None:
        """Has it get ready. Whatever hinders that, `spawn` tries again."""
        try:
            if self._process is None:
                self._begin()
        except OSError:
            pass

    def dismiss(self) -> None:
        """Lets it end, by itself, if it is still there, and does not wait."""
        if self._process is not None:
            self._answers.close()
            self._socket.close()  # it reads the end, and ends
            self._process = None

    def __enter__(self) -> Template:
        self.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def spawn(self, order: Order) -> int:
        """Forks a keeper that carries out `order`, and returns its pid.

        Raises:
            SpawnRefusedError: not now; says why.
        """
        try:
            if self._process is None:
                self._begin()
            self._socket.sendall(msgspec.json.encode(order) + b"\n")
            answer = self._answers.readline().decode().strip()
        except OSError as error:
            began = self._process is not None
            self._end()
            reason = error.strerror or "the template does not answer"
            raise SpawnRefusedError(reason, died=began) from None
        if answer.isdigit():
            self._socket.settimeout(_ANSWER_S)
            return int(answer)
        if not answer:
            self._end()
        raise SpawnRefusedError(answer or "the template died", died=not answer)

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs, open(self._log, "ab") as log:
                self._process = subprocess.Popen(
                    # -P: or a `supervisor/` at the top of the repository would be run instead.
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        "supervisor.fleet.forkserver",
                        os.path.dirname(self._log),
                        self._top,
                    ],
                    stdin=theirs.fileno(),
                    # Not ours: keepers outlive us, and would hold our caller's pipe open.
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # a Ctrl-C in the terminal is not for the template
                )
        except BaseException:
            ours.close()
            raise
        # Only one that was stopped takes that long; `up` must not stand still with it.
        ours.settimeout(_READY_S)
        self._socket = ours
        self._answers = ours.makefile("rb")

    def _end(self) -> None:
        process = self._process
        self.dismiss()
        if process is None:
            return
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
