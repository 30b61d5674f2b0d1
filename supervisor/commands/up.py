"""`nanosup up`: check everything, begin or go on with sprints, and run them to their end."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable

import anyio

from sandbox import host, repository, tier
from sandbox.feature import Mechanism
from sandbox.snapshot import dirty
from supervisor import config, lineage, place, sprint
from supervisor.board import Board, SprintDir
from supervisor.config import Config
from supervisor.decide import SprintState
from supervisor.fleet import Fleet, keeper_log
from supervisor.hold import enforced
from supervisor.observe import observe
from supervisor.plan import Planned, begin_on, plan, ripened
from supervisor.publish import publish_all
from supervisor.quota import Quota
from supervisor.stack import mark_stacked
from supervisor.sweep import sweep
from supervisor.template import Template
from supervisor.views import event_document, event_line, status_document

_CODES = {SprintState.COMPLETED: 0, SprintState.BLOCKED: 16}


def run(
    *,
    goals: tuple[str, ...],
    agent: str | None,
    graph: str | None,
    stack: bool | None,
    detach: bool,
    plain: bool,
    as_json: bool,
) -> int:
    """Everything that can be wrong is found before anything is started."""
    here = place.find()
    wanted = config.load(here.top, agent=agent, graph=graph)
    repo = repository.find(here.top)
    sprint.check_agents(wanted.agents, here.top)
    board = here.board
    features = host.probe(str(here.state))
    if not features.row(Mechanism.LAYER_FORMAT).ok:
        board.prepare()  # one that cannot be written at all is to be called that
    held = enforced(features, wanted)
    if stack is None:
        stack = wanted.workspace.stack
    planned = plan(board, repo, wanted, goals, stack=stack)
    _warn_of_dirt(repo, wanted)
    if held is not tier.Tier.FUSE:
        print(f"nanosup: {tier.describe(held)}", file=sys.stderr)
    for one in planned:
        if one.sprint is not None:
            # A keeper may have been killed just before it did.
            publish_all(repo, observe(one.sprint))
    board.prepare()
    sweep(board)
    run = Run(board, repo, wanted, planned)
    if detach:
        return _detached(run)
    show = "json" if as_json else "plain" if plain or not sys.stdout.isatty() else "live"
    try:
        return anyio.run(run.carry_out, show, lambda: None)
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(error: BaseException) -> BaseException:
    """What really happened: task groups wrap it, and each other, even where it was one thing."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _warn_of_dirt(repo: repository.Repository, wanted: Config) -> None:
    if wanted.workspace.snapshot == "commit" and dirty(repo):
        print(
            "nanosup: the working tree has changes that are not committed, and no lane will see "
            f'them: the sprint starts from {repo.commit[:10]} (snapshot = "worktree" takes them '
            "along)",
            file=sys.stderr,
        )


def _detached(run: Run) -> int:
    """Runs the fleet in a session of its own; returns once it holds its sprints."""
    ready, announce = os.pipe()
    if os.fork() == 0:
        os.close(ready)
        os.setsid()
        log = os.open(
            os.path.join(run.board.path, "up.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )
        for fd, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
            os.dup2(fd, target)
        code = 1
        try:
            code = anyio.run(run.carry_out, "plain", lambda: os.write(announce, b"\1"))
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(announce)
    if not os.read(ready, 1):
        print(f"nanosup: the fleet did not start; see {run.board.path}/up.log", file=sys.stderr)
        return 1
    for item in run.begun:
        print(item.id)
    return 0


class Run:
    """The sprints of one `nanosup up`, carried out."""

    def __init__(
        self, board: Board, repo: repository.Repository, wanted: Config, planned: list[Planned]
    ) -> None:
        self.board = board
        self._repo = repo
        self._wanted = wanted
        self._planned = planned
        self._offsets = {item.id: _end(item) for item in self.begun}
        self._fleets: list[Fleet] = []
        self._waiting: list[anyio.CancelScope] = []
        self._stopped: list[signal.Signals] = []
        self._quota = Quota()

    @property
    def begun(self) -> list[SprintDir]:
        return [one.sprint for one in self._planned if one.sprint is not None]

    async def carry_out(self, show: str, announce: Callable[[], object]) -> int:
        """Returns the exit code. Calls `announce` once this process runs what is begun already."""
        ends: list[SprintState] = []
        to_drive = [len(self.begun)]

        def driving() -> None:
            to_drive[0] -= 1
            if to_drive[0] == 0:
                announce()

        for one in self._planned:
            one.driving = anyio.Event()
        with Template(keeper_log(self.board)) as template:

            async def drive(one: Planned) -> None:
                if one.sprint is None and not await self._begin(one):
                    return
                ends.append(await self._drive(one, template, driving))

            async with anyio.create_task_group() as outer:
                outer.start_soon(self._listen)
                outer.start_soon(self._show, show)
                async with anyio.create_task_group() as inner:
                    for one in self._planned:
                        inner.start_soon(drive, one)
                    if not self.begun:
                        announce()
                outer.cancel_scope.cancel()
        _conclude(self.board, self.begun, show)
        if self._stopped:
            return 128 + self._stopped[0]
        return max(_CODES.get(state, 1) for state in ends)

    async def _begin(self, one: Planned) -> bool:
        """Begins a sprint once its base is there. False: this process was stopped before."""
        if self._stopped:
            return False
        with anyio.CancelScope() as scope:
            self._waiting.append(scope)
            base = await ripened(one)
            one.sprint = begin_on(self.board, self._repo, self._wanted, one, base)
            self._offsets[one.sprint.id] = 0
        if scope.cancel_called:
            print(f"nanosup: not begun: {one.goal or 'a sprint without a goal'}", file=sys.stderr)
        return not scope.cancel_called

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

    async def _listen(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as heard:
            async for number in heard:
                self._stopped.append(number)
                for scope in self._waiting:
                    scope.cancel()
                for fleet in self._fleets:
                    if number is signal.SIGHUP:
                        fleet.leave()
                    else:
                        fleet.stop(now=len(self._stopped) > 1)

    async def _show(self, show: str) -> None:
        """Shows what happens, until cancelled; then what has happened since."""
        from supervisor.watch import Watch

        watch = Watch()
        try:
            if show == "live":
                from supervisor.live import Live

                with Live(self.board, *self.begun) as live:
                    shown = self.begun
                    try:
                        while True:
                            for item in self.begun:
                                watch.file(item.journal.path)
                                if item not in shown:
                                    live.add(item)
                                    shown.append(item)
                            live.update()
                            await watch.changed(1.0)
                    finally:
                        live.update()
            while True:
                for item in self.begun:
                    watch.file(item.journal.path)
                self._print_events(show)
                # One that is begun meanwhile is not watched yet.
                await watch.changed(None if len(self.begun) == len(self._planned) else 1.0)
        finally:
            watch.close()
            if show != "live":
                self._print_events(show)

    def _print_events(self, show: str) -> None:
        for item in self.begun:
            for event in item.journal.read(self._offsets[item.id]):
                self._offsets[item.id] = event.end
                if show == "json":
                    print(json.dumps(event_document(item.id, event), ensure_ascii=False))
                elif len(self._planned) == 1:
                    print(event_line(event))
                else:
                    print(f"{item.id.rsplit('-', 1)[-1]} {event_line(event)}")
        sys.stdout.flush()


def _end(item: SprintDir) -> int:
    return max((e.end for e in item.journal.read()), default=0)


def _conclude(board: Board, chosen: list[SprintDir], show: str) -> None:
    """Says how it ended, and where what came out is to be found."""
    seen = [observe(item) for item in chosen]
    if show == "json":
        print(json.dumps({"event": "status", **status_document(seen, {})}, ensure_ascii=False))
        return
    for one in seen:
        head = lineage.head(one.record, one.phases)
        print(f"sprint {one.record.id} {one.state.value}")
        for view in one.phases.values():
            if view.why and view.state.value in ("failed", "blocked"):
                print(f"  {view.phase.name} {view.state.value}: {view.why}")
        for view in one.phases.values():
            done = view.completed
            if done and done.outcome and done.outcome.sealed:
                commit = done.outcome.sealed.commit
                print(f"  refs/nanosup/{one.record.id}/{view.phase.name}  {commit[:10]}")
        if head.commit != one.record.base.commit:
            print("  see the change: nanosup diff    the artifacts: nanosup artifacts list")
