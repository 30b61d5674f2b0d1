"""The state of a sprint as a table, for a terminal."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sandbox.tiers.tier import Tier, describe
from supervisor.board import room, turn
from supervisor.board.board import Board
from supervisor.board.footing import Footing
from supervisor.board.observe import SprintView
from supervisor.board.pulse import pulses
from supervisor.board.tail import last_line, sanitize
from supervisor.model.decide import AttemptView, PhaseState, PhaseView
from supervisor.model.name import attempt_name
from supervisor.model.policy import Try
from supervisor.model.record import Verdict
from supervisor.views.views import duration, elapsed_s

_STYLES = {
    PhaseState.BLOCKED: "dim",
    PhaseState.READY: "yellow",
    PhaseState.RUNNING: "bold cyan",
    PhaseState.COMPLETED: "green",
    PhaseState.FAILED: "bold red",
}
_PIPED_WIDTH = 160
_FULL = "disk full: nothing starts before there is room"


def open_console() -> Console:
    """A console on stdout. NO_COLOR and pipes are respected by rich itself."""
    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=_PIPED_WIDTH)


def show(sprint: SprintView, board: Board, footing: Footing | None = None) -> None:
    """Prints the table of a sprint."""
    console = open_console()
    console.print(headline(sprint, board))
    if footing is not None:
        console.print(_footing(footing))
    console.print(table(sprint, board))
    if Tier.LANDLOCK.value in tiers_of(sprint, board):
        console.print(Text(describe(Tier.LANDLOCK), style="dim"))


def tiers_of(sprint: SprintView, board: Board) -> tuple[str, ...]:
    """What the lanes of a sprint are and were held by."""
    found = (
        pulses(board, sprint.record.id, name, attempt.n).get("tier")
        for name, view in sprint.phases.items()
        for attempt in view.attempts
    )
    return tuple(dict.fromkeys(str(tier) for tier in found if tier))


def headline(sprint: SprintView, board: Board) -> Text:
    """The sprint in a line, with what its lanes are held by."""
    tiers = tiers_of(sprint, board)
    goal = f"  {sanitize(sprint.record.goal)}" if sprint.record.goal else ""
    return Text.assemble(
        ("sprint ", "dim"),
        (sprint.record.id, "bold"),
        f"  {sprint.state.value}",
        (f"  base {sprint.record.base.commit[:10]}", "dim"),
        (f"  tier {'+'.join(tiers)}" if tiers else "", "dim"),
        (
            "  disk full: nothing starts before there is room" if room.is_full(board.path) else "",
            "red",
        ),
        goal,
    )


def _footing(footing: Footing) -> Text:
    words = f"stacked on sprint {footing.sprint}, {footing.state or 'which was removed'}"
    if footing.sound:
        return Text(words, style="dim")
    return Text(f"{words}: what it is based on was rejected, failed or made anew", style="red")


def table(sprint: SprintView, board: Board) -> Table:
    """A row for each phase: what it may do, who is at it, how it stands, and the last it said."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    for name in ("phase", "access", "agent", "try", "state", "time"):
        made.add_column(name, no_wrap=True)
    made.add_column("last line", no_wrap=True, overflow="ellipsis", ratio=1)
    now = datetime.now(UTC)
    for name, view in sprint.phases.items():
        latest = view.latest
        made.add_row(
            name,
            view.phase.access.value,
            latest.owner.agent if latest else "/".join(view.phase.agents),
            str(latest.n) if latest else "",
            Text(_state(view), style=_style(view)),
            duration(elapsed_s(latest, now)) if latest else "",
            Text(_words(sprint, view, latest, board), style="dim"),
        )
    return made


def _state(view: PhaseView) -> str:
    if view.paused and view.state in (PhaseState.RUNNING, PhaseState.READY):
        return f"{view.state.value}, paused"
    failed = view.verdict is Verdict.FAIL
    return f"{view.state.value}: {view.verdict}" if failed else view.state.value


def _style(view: PhaseView) -> str:
    return _STYLES[PhaseState.FAILED if view.verdict is Verdict.FAIL else view.state]


def _words(sprint: SprintView, view: PhaseView, latest: AttemptView | None, board: Board) -> str:
    if view.state in (PhaseState.BLOCKED, PhaseState.FAILED):
        return view.why
    waits_to_write = view.state is PhaseState.READY and view.phase.access.writes
    if waits_to_write and (why := turn.hindrance(board)):
        return sanitize(why)
    if latest is None:
        return ""
    directory = os.path.join(
        board.path, "sprints", sprint.record.id, "phases", view.phase.name, "attempts",
        attempt_name(latest.n),
    )  # fmt: skip
    if view.state is PhaseState.READY and latest.outcome is not None:
        waits = f"{view.why}, " if view.why else ""
        if isinstance(view.step, Try) and view.step.wait_s > 0:
            waits += f"{duration(view.step.wait_s)} left, "
        return sanitize(f"again: {waits}{latest.outcome.reason}")
    for log in ("stdout.log", "stderr.log"):
        if line := last_line(os.path.join(directory, log)):
            return line
    return ""
