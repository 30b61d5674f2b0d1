"""The sprints of one `nanosup up`: their fleets, its signals and hooks, and what it shows."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from sandbox.repository.repository import Repository
from supervisor.board import shortage
from supervisor.board.board import Board, SprintDir
from supervisor.config.config import Config
from supervisor.config.schema import Hooks
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.hook import HookRunner
from supervisor.fleet.plan import Planned, begin_on, ripened
from supervisor.fleet.reaper import reap
from supervisor.fleet.show import Look, Show
from supervisor.fleet.stack import mark_stacked
from supervisor.fleet.template import Template
from supervisor.model.decide import SprintState
from supervisor.model.quota import Quota


@dataclass(frozen=True, slots=True)
class Arrival:
    """How it ended.

    Attributes:
        heard: the first signal that asked for an end, if one did.
    """

    states: tuple[SprintState, ...]
    heard: signal.Signals | None


class Convoy:
    """What one process runs.

    Args:
        read_hooks: reads `[hooks]` again when the configuration was reloaded; None = not valid.
    """

    def __init__(
        self,
        board: Board,
        repo: Repository,
        wanted: Config,
        planned: list[Planned],
        template: Template,
        *,
        look: Look,
        read_hooks: Callable[[], Hooks | None],
    ) -> None:
        self.board = board
        self.look = look
        self._repo = repo
        self._wanted = wanted
        self._planned = planned
        self._template = template
        self._read_hooks = read_hooks
        self._fleets: list[Fleet] = []
        self._waiting: list[anyio.CancelScope] = []
        self._heard: list[signal.Signals] = []
        self._quota = Quota()

    @property
    def begun(self) -> list[SprintDir]:
        return [one.sprint for one in self._planned if one.sprint is not None]

    async def drive(self, announce: Callable[[], object] = lambda: None) -> Arrival:
        """Runs all sprints to their end, or until a signal says otherwise.

        SIGTERM and SIGINT end the lanes too, with their grace; the second one at once. SIGHUP,
        which means that the terminal is gone, leaves them running. One that is ignored stays so
        (nohup(1)).

        Args:
            announce: called once this process runs what is begun already.

        Raises:
            SupervisorError: see `Fleet.run`.
        """
        ends: list[SprintState] = []
        to_drive = [len(self.begun)]
        show = Show(self.board, self.look, tells_apart=len(self._planned) > 1)
        hooks = HookRunner(
            self._wanted.hooks,
            read=self._read_hooks,
            top=str(self._repo.root),
            log=os.path.join(self.board.path, "hook.log"),
        )

        def driving() -> None:
            to_drive[0] -= 1
            if to_drive[0] == 0:
                announce()

        for one in self._planned:
            one.driving = anyio.Event()
            if one.sprint is not None:
                # What a new sprint's journal has so far is news; of an old one it was.
                offset = 0 if one.is_new else _end(one.sprint)
                show.add(one.sprint, offset)
                hooks.add(one.sprint, offset)
        with self._template as template:

            async def drive(one: Planned) -> None:
                if one.sprint is None:
                    begun = await self._begin(one)
                    if begun is None:
                        return
                    show.add(begun, 0)
                    hooks.add(begun, 0)
                ends.append(await self._drive(one, template, driving))

            def children() -> list[int]:
                return [pid for pid in (template.pid, hooks.pid) if pid is not None]

            shortage.raise_limit()  # only now: the template's children keep the soft one
            show.start()
            async with anyio.create_task_group() as outer:
                telling, told = anyio.CancelScope(), anyio.Event()
                outer.start_soon(self._listen, telling)
                outer.start_soon(reap, children)
                outer.start_soon(_tell, hooks, telling, told)
                async with anyio.create_task_group() as inner:
                    for one in self._planned:
                        inner.start_soon(drive, one)
                    if not self.begun:
                        announce()
                hooks.finish()
                with anyio.move_on_after(hooks.finish_s):
                    await told.wait()
                outer.cancel_scope.cancel()
            hooks.give_up()
        show.finish()
        return Arrival(tuple(ends), self._heard[0] if self._heard else None)

    async def _begin(self, one: Planned) -> SprintDir | None:
        """Begins a sprint once its base is there. None: this process was stopped before."""
        if self._heard:
            return None
        with anyio.CancelScope() as scope:
            self._waiting.append(scope)
            base = await ripened(one)
            one.sprint = begin_on(self.board, self._repo, self._wanted, one, base)
        if scope.cancel_called:
            print(f"nanosup: not begun: {one.goal or 'a sprint without a goal'}", file=sys.stderr)
        return one.sprint

    async def _drive(
        self, one: Planned, template: Template, driving: Callable[[], None]
    ) -> SprintState:
        assert one.sprint is not None
        top = str(self._repo.root)
        fleet = Fleet(self.board, one.sprint, template, top=top, quota=self._quota)
        self._fleets.append(fleet)

        def noted() -> None:
            if one.driving is not None:
                one.driving.set()
            driving()

        state = await fleet.run(noted)
        mark_stacked(self.board, one.sprint, state)
        return state

    async def _listen(self, telling: anyio.CancelScope) -> None:
        wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        heeded = [n for n in wanted if signal.getsignal(n) is not signal.SIG_IGN]
        with anyio.open_signal_receiver(*heeded) as signals:
            async for number in signals:
                self._heard.append(number)
                if len(self._heard) > 1:
                    telling.cancel()
                for scope in self._waiting:
                    scope.cancel()
                for fleet in self._fleets:
                    if number is signal.SIGHUP:
                        fleet.leave()
                    else:
                        fleet.stop(now=len(self._heard) > 1)


async def _tell(hooks: HookRunner, scope: anyio.CancelScope, told: anyio.Event) -> None:
    with scope:
        await hooks.run()
    told.set()


def _end(item: SprintDir) -> int:
    return max((e.end for e in item.journal.read()), default=0)
