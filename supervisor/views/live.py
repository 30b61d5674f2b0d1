"""The live view: the table of a sprint, drawn again whenever something changes."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Group
from rich.live import Live as RichLive

from supervisor.artifacts.refusal import observe_checked
from supervisor.board.board import Board, SprintDir
from supervisor.views.console import headline, open_console, table


class Live:
    """Shows sprints in place. On a pipe only the last state is printed, at the end."""

    def __init__(self, board: Board, *sprints: SprintDir) -> None:
        self._board = board
        self._sprints = list(sprints)
        self._live = RichLive(console=open_console(), auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self.update()
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.update()
        self._live.stop()

    def add(self, sprint: SprintDir) -> None:
        """Shows one more, below the others."""
        self._sprints.append(sprint)

    def update(self) -> None:
        """Reads the board and draws it."""
        parts: list[object] = []
        for sprint in self._sprints:
            seen = observe_checked(self._board, sprint)
            parts += [headline(seen, self._board), table(seen, self._board)]
        self._live.update(Group(*parts), refresh=True)  # type: ignore[arg-type]
