"""What `nanosup up` shows while it runs, in a thread of its own.

Whoever reads it may stop to: a terminal after Ctrl-S, a pipe into a program that hangs. Then this
thread stands still, and nothing else does. It takes what it shows from the board alone.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from enum import Enum

from supervisor.board.board import Board, SprintDir
from supervisor.board.watch import Watch
from supervisor.errors import BoardError, SupervisorError
from supervisor.views.views import event_document, event_line

_GONE = frozenset({errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Look(Enum):
    """How it is shown."""

    LIVE = "a table that is drawn again"
    PLAIN = "a line for each event"
    JSON = "an object for each event"


class Show:
    """Shows what happens in the sprints that were added, on stdout, from `start` on; and nothing
    more once nobody reads it.

    Args:
        tells_apart: there may be several, so each line says which it is about.
    """

    def __init__(self, board: Board, look: Look, *, tells_apart: bool = False) -> None:
        self._board = board
        self._look = look
        self._tells_apart = tells_apart
        self._added: list[tuple[SprintDir, int]] = []
        self._offsets: dict[str, int] = {}
        self._watch = Watch()
        self._ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # A daemon: the interpreter does not wait for it where nobody ever reads.
        self._thread = threading.Thread(target=self._run, name="show", daemon=True)

    def add(self, sprint: SprintDir, offset: int) -> None:
        """Shows a sprint too, from an offset in its journal on. From any thread."""
        self._added.append((sprint, offset))
        self._watch.nudge()

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Returns when all that has happened was shown. As long as the reader takes for that."""
        os.eventfd_write(self._ended, 1)
        self._thread.join()
        self._watch.close()

    def _run(self) -> None:
        try:
            if self._look is Look.LIVE:
                self._draw()
            else:
                self._print()
        except OSError as error:
            if error.errno not in _GONE:
                raise
            # Nobody reads any more, or it goes to a disk that is full: no reason for lanes to end.
            os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
        except SupervisorError as error:
            print(f"nanosup: nothing more is shown: {error.message}", file=sys.stderr)

    def _draw(self) -> None:
        from supervisor.views.live import Live

        with Live(self._board) as live:
            shown = 0
            has_ended = False
            while True:
                for sprint, _ in self._added[shown:]:
                    self._watch.file(sprint.journal.path)
                    live.add(sprint)
                    shown += 1
                live.update()
                if has_ended:
                    return
                has_ended = self._watch.wait(1.0, self._ended)

    def _print(self) -> None:
        has_ended = False
        while True:
            again_s = None
            for sprint, offset in tuple(self._added):
                try:
                    self._watch.file(sprint.journal.path)
                    self._tell(sprint, self._offsets.get(sprint.id, offset))
                except BoardError:  # no descriptors are left: later
                    again_s = 1.0
            sys.stdout.flush()
            if has_ended:
                return
            has_ended = self._watch.wait(again_s, self._ended)

    def _tell(self, sprint: SprintDir, offset: int) -> None:
        for event in sprint.journal.read(offset):
            self._offsets[sprint.id] = event.end
            if self._look is Look.JSON:
                print(json.dumps(event_document(sprint.id, event), ensure_ascii=False))
            elif self._tells_apart:
                print(f"{sprint.id.rsplit('-', 1)[-1]} {event_line(event)}")
            else:
                print(event_line(event))
