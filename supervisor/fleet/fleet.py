"""`nanosup up`: observe the board, decide, act, wait for a change, and again.

The fleet keeps no state that matters. What it holds in memory are shortcuts (which keepers were
just started, when an end was first seen); after a SIGKILL a new one finds everything on the board.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import anyio

from supervisor.artifacts.refusal import require
from supervisor.board import pause, room, shortage
from supervisor.board.board import Board, SprintDir
from supervisor.board.driving import driving
from supervisor.board.line import Place
from supervisor.board.lost import bury
from supervisor.board.observe import SprintView, observe
from supervisor.board.owner import liveness, visible_pids
from supervisor.board.owner import observe as observe_pid
from supervisor.board.request import request_end
from supervisor.board.watch import Watch
from supervisor.errors import ArtifactError, BoardError, SupervisorError
from supervisor.fleet.template import SpawnRefusedError, Template, keeper_log
from supervisor.keeper.order import Order
from supervisor.model.decide import Bury, PhaseState, SprintState, Start, decide
from supervisor.model.liveness import Liveness, Sight
from supervisor.model.quota import Quota
from supervisor.model.record import AttemptState

# A keeper on another host, or one that dies without a trace in inotify, is noticed by looking.
_LOOK_AGAIN_S = 30.0
_STARTS_WITHOUT_CLAIM = 8
_DEATHS = 5
_SHORT_S = 1.0
_HOLD_START_S = 0.05
_HOLD_LIMIT_S = 30.0
_FAREWELL_S = 10.0


class Fleet:
    """Runs one sprint to its end.

    Args:
        top: the repository's own path.
        quota: shared with the other sprints that this process runs.
    """

    def __init__(
        self,
        board: Board,
        sprint: SprintDir,
        template: Template,
        *,
        top: str,
        quota: Quota | None = None,
    ) -> None:
        self._board = board
        self._quota = quota or Quota()
        self._place = Place(board, f"sprint {sprint.id}")
        self._sprint = sprint
        self._template = template
        self._top = top
        self._watch = Watch()
        self._starting: dict[tuple[str, int], int] = {}
        self._duds = 0
        self._refused: dict[str, str] = {}
        self._waits_for: set[int] = set()
        self._stopping: signal.Signals | None = None
        self._leaving = False
        self._arrived = False
        self._is_full = False
        self._told = 0
        self._deaths = 0
        self._held_s = 0.0
        self._hold_until = 0.0
        self._complaint = ""

    async def run(self, begun: Callable[[], None] = lambda: None) -> SprintState:
        """Drives the sprint until it has ended, or until `stop` was called and its lanes are gone.

        Args:
            begun: called once this process is the one that runs the sprint.

        Raises:
            BusyError: another `nanosup up` runs this sprint.
            BoardError: the board cannot be read or written.
            SupervisorError: keepers die before they have claimed anything.
        """
        try:
            with driving(self._sprint) as drive:
                self._quota.join(self._sprint.id, self._watch.nudge)
                begun()
                state = await self._drive()
                drive.arrived = self._arrived
                return state
        finally:
            with room.forgiving():
                self._place.leave()
            self._quota.leave(self._sprint.id)
            self._watch.close()

    def stop(self, *, now: bool = False) -> None:
        """Ends the fleet: lanes get TERM and their grace, or with `now` KILL at once."""
        self._stopping = signal.SIGINT if now else signal.SIGTERM
        self._sprint.journal.note("up.stopping", now=now)
        self._watch.nudge()

    def leave(self) -> None:
        """Ends the fleet and leaves its lanes running: the terminal is gone, the work goes on."""
        self._leaving = True
        self._watch.nudge()

    async def _drive(self) -> SprintState:
        while True:
            if not self._leaving and self._stopping is None and shortage.is_short():
                # Lanes go on by themselves. Whoever holds the descriptors may give some back.
                self._complain("no descriptors are left (`ulimit -n`)")
                await self._watch.changed(_SHORT_S)
                continue
            self._set_watches()
            seen = observe(self._sprint, refused=self._refused)
            self._note(seen)
            if self._leaving:
                return seen.state
            if self._stopping is not None:
                with room.forgiving():
                    self._place.leave()
                self._watch_processes(seen)
                if not self._ask_to_stop(seen):
                    await self._await_keepers(seen)
                    return seen.state
                await self._watch.changed(1.0)
                continue
            wake_s = self._act_where_there_is_room(seen)
            # Those just started too: one that dies before it has claimed writes nothing down.
            self._watch_processes(seen)
            if wake_s == 0:
                continue
            busy = self._starting or any(
                v.state in (PhaseState.RUNNING, PhaseState.READY) for v in seen.phases.values()
            )
            if not busy:
                await self._await_keepers(seen)
                self._sprint.journal.note("sprint.ended", state=seen.state)
                self._arrived = True
                return seen.state
            await self._watch.changed(wake_s)

    def _act_where_there_is_room(self, seen: SprintView) -> float:
        """As `_act`. On a full disk nothing is begun; what runs goes on."""
        was_full, self._is_full = self._is_full, room.is_full(self._board.path)
        if not self._is_full:
            try:
                wake_s = self._act(seen)
            except BoardError as error:
                if not room.is_wanting(error):
                    raise
                self._is_full = True
        if self._is_full != was_full:
            self._sprint.journal.note("disk.full" if self._is_full else "disk.room")
        return room.LOOK_S if self._is_full else wake_s

    def _act(self, seen: SprintView) -> float:
        """Carries out what is decided. Returns seconds until to look again; 0 = at once."""
        phases = {name: view for name, view in seen.phases.items() if not self._is_starting(name)}
        self._waits_for, may_write = self._place.look(self._watch)
        decision = decide(
            phases,
            max_lanes=self._room(seen),
            turn_taken=not may_write,
            asked=self._place.ticket is not None,
            starting=[seen.graph[name].access for name, _ in self._starting],
        )
        refused = len(self._refused)
        for action in decision.actions:
            match action:
                case Bury():
                    self._bury(action)
                case Start() if time.monotonic() >= self._hold_until:
                    self._start(action, seen)
        if len(self._refused) != refused:
            return 0
        if decision.asks and self._place.ticket is None:
            self._place.join()
            return 0
        if not decision.asks and not self._is_writer_starting(seen):
            self._place.leave()
        self._quota.note(self._sprint.id, self._lanes(seen))
        held_s = self._hold_until - time.monotonic()
        return min(decision.wake_s or _LOOK_AGAIN_S, held_s if held_s > 0 else _LOOK_AGAIN_S)

    def _start(self, action: Start, seen: SprintView) -> None:
        # Contents, signatures and the chain, each time: what was in order when it was made may
        # have been changed since.
        try:
            require(self._board, self._sprint, seen, seen.graph[action.phase])
        except ArtifactError as error:
            self._refused[action.phase] = error.message
            return
        order = Order(
            state=self._board.path,
            top=self._top,
            sprint=self._sprint.id,
            phase=action.phase,
            n=action.n,
            agent=action.agent,
            ticket=self._place.ticket if seen.graph[action.phase].access.writes else None,
        )
        try:
            self._starting[action.phase, action.n] = self._template.spawn(order)
        except SpawnRefusedError as refusal:
            self._deaths = self._deaths + 1 if refusal.died else 0
            if self._deaths >= _DEATHS:
                raise SupervisorError(
                    f"no keeper could be started: {refusal}, {self._deaths} times in a row",
                    hint=f"see {keeper_log(self._board.path)}",
                ) from None
            self._hold(f"no keeper can be started: {refusal}")

    def _hold(self, reason: str) -> None:
        """Starts nothing for a while: twice as long each time, until something has started."""
        self._held_s = min(_HOLD_LIMIT_S, self._held_s * 2 or _HOLD_START_S)
        self._hold_until = time.monotonic() + self._held_s
        self._complain(reason)

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:
            self._complaint = reason
            self._sprint.journal.note("up.waits", reason=reason)

    def _bury(self, action: Bury) -> None:
        if bury(self._sprint.slot(action.phase), action.n, "its keeper died without an outcome"):
            self._sprint.journal.note(
                "attempt.ended", phase=action.phase, attempt=action.n, state=AttemptState.LOST
            )

    def _note(self, seen: SprintView) -> None:
        """Updates the shortcuts from what was observed."""
        for key, pid in list(self._starting.items()):
            name, n = key
            if name in seen.phases and n <= len(seen.phases[name].attempts):
                del self._starting[key]
                self._duds = 0
                self._deaths, self._held_s, self._complaint = 0, 0.0, ""
            elif not _runs(pid):
                # It lost a race for the claim or the turn, or could not even claim.
                del self._starting[key]
                if room.is_full(self._board.path):
                    continue
                self._duds += 1
                if self._duds > 1:  # a race is lost once; more than that is something else
                    self._hold("keepers end before they have claimed anything")
        if self._duds >= _STARTS_WITHOUT_CLAIM:
            raise SupervisorError(
                f"{self._duds} keepers in a row ended before they had claimed anything",
                hint=f"see {keeper_log(self._board.path)}",
            )
        self._pass_on_pauses(seen)

    def _pass_on_pauses(self, seen: SprintView) -> None:
        """Tells keepers what is paused or resumed, in case whoever asked for it could not."""
        asked = pause.count(self._sprint)
        if asked == self._told:
            return
        self._told = asked
        for name, view in seen.phases.items():
            if view.state is PhaseState.RUNNING:
                pause.tell(self._sprint, name)

    def _watch_processes(self, seen: SprintView) -> None:
        owners = [
            view.latest.owner
            for view in seen.phases.values()
            if view.latest and view.latest.state is AttemptState.RUNNING
        ]
        keepers = visible_pids(owners)
        self._watch.processes(keepers | self._waits_for | set(self._starting.values()))

    def _ask_to_stop(self, seen: SprintView) -> bool:
        """Asks every keeper of the sprint to end its lane. False when there is none left."""
        asked = False
        for name, view in seen.phases.items():
            if view.state is PhaseState.RUNNING and view.latest is not None:
                attempt = self._sprint.slot(name).attempt(view.latest.n)
                asked |= request_end(attempt, self._stopping or signal.SIGTERM)
        for pid in self._starting.values():
            asked = True
            _signal(pid, self._stopping or signal.SIGTERM)
        return asked

    async def _await_keepers(self, seen: SprintView) -> None:
        """Returns when the keepers that wrote the last outcomes have also put everything away.

        After its outcome a keeper still sets a ref and gives the writer's turn back. None of it is
        lost if it does not come to that, but who waited for us may look for it.
        """
        for name, view in seen.phases.items():
            if view.latest is None or (pid := view.latest.owner.pid) is None:
                continue
            if liveness(self._sprint.slot(name).attempt(view.latest.n)) is Liveness.ALIVE:
                self._watch.processes([pid])
                with anyio.move_on_after(_FAREWELL_S):
                    while _runs(pid):
                        await self._watch.changed(1.0)

    def _set_watches(self) -> None:
        self._watch.file(self._sprint.journal.path)

    def _lanes(self, seen: SprintView) -> int:
        running = sum(view.state is PhaseState.RUNNING for view in seen.phases.values())
        return running + len(self._starting)

    def _room(self, seen: SprintView) -> int:
        """How many lanes this sprint may have."""
        return seen.record.max_lanes - self._quota.others(self._sprint.id)

    def _is_starting(self, phase: str) -> bool:
        return any(name == phase for name, _ in self._starting)

    def _is_writer_starting(self, seen: SprintView) -> bool:
        return any(seen.graph[name].access.writes for name, _ in self._starting)


def _runs(pid: int) -> bool:
    return observe_pid(pid).sight is Sight.RUNNING


def _signal(pid: int, how: signal.Signals) -> None:
    try:
        os.kill(pid, how)
        os.kill(pid, signal.SIGCONT)  # somebody may have stopped it
    except ProcessLookupError:
        pass
