"""`nanosup up`: check everything, begin or go on with sprints, and run them to their end."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable

import anyio

from sandbox import host, repository, tier
from sandbox.errors import HostError
from sandbox.feature import Mechanism
from sandbox.snapshot import dirty
from supervisor import config, lineage, place, sprint
from supervisor.board import Board, SprintDir
from supervisor.config import Config
from supervisor.decide import SprintState
from supervisor.errors import BusyError
from supervisor.fleet import Fleet, keeper_log
from supervisor.observe import observe
from supervisor.publish import publish_all
from supervisor.template import Template
from supervisor.views import event_document, event_line, status_document

_CODES = {SprintState.COMPLETED: 0, SprintState.BLOCKED: 16}


def run(
    *,
    goals: tuple[str, ...],
    agent: str | None,
    graph: str | None,
    detach: bool,
    plain: bool,
    as_json: bool,
) -> int:
    """Everything that can be wrong is found before anything is started."""
    here = place.find()
    wanted = config.load(here.top, agent=agent, graph=graph)
    repo = repository.find(here.top)
    sprint.check_agents(wanted.agents, here.top)
    _check_network(wanted)
    board = here.board
    features = host.probe(str(here.state))
    if not features.row(Mechanism.LAYER_FORMAT).ok:
        board.prepare()  # one that cannot be written at all is to be called that
    held = tier.choose(features, wanted.workspace.mount, wanted.workspace.require)
    chosen = _choose(board, repo, wanted, goals)
    _warn_of_dirt(repo, wanted)
    if held is not tier.Tier.FUSE:
        print(f"nanosup: {tier.describe(held)}", file=sys.stderr)
    for item in chosen:
        publish_all(repo, observe(item))  # a keeper may have been killed just before it did
    board.prepare()
    if detach:
        return _detached(board, chosen, str(repo.root))
    show = "json" if as_json else "plain" if plain or not sys.stdout.isatty() else "live"
    try:
        return anyio.run(_run, board, chosen, str(repo.root), show, lambda: None)
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(error: BaseException) -> BaseException:
    """What really happened: task groups wrap it, and each other, even where it was one thing."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _choose(
    board: Board, repo: repository.Repository, wanted: Config, goals: tuple[str, ...]
) -> list[SprintDir]:
    """The sprints to run: for each goal the one that was interrupted, or a new one.

    Raises:
        BusyError: another `nanosup up` runs one of them.
    """
    open_sprints = {}
    for known in board.sprints():
        seen = observe(board.sprint(known))
        if seen.state in (SprintState.RUNNING, SprintState.STOPPED):
            open_sprints[known] = seen
    chosen = []
    for goal in goals or (None,):
        matching = [i for i, s in open_sprints.items() if goal in (None, s.record.goal)]
        for known in matching:
            if open_sprints[known].driven:
                raise BusyError(
                    f"another `nanosup up` runs sprint {known}",
                    hint="watch it with `nanosup status --watch`, or end it with `nanosup down`",
                )
        if matching:
            print(f"nanosup: going on with sprint {matching[-1]}", file=sys.stderr)
            chosen.append(board.sprint(matching[-1]))
        else:
            chosen.append(sprint.begin(board, repo, wanted, goal=goal or ""))
    return chosen


def _check_network(wanted: Config) -> None:
    for phase in wanted.graph.order:
        if not isinstance(phase.network, str):
            raise HostError(
                f"phase {phase.name!r}: network = a list of hosts cannot be enforced yet",
                hint='use "none" or "host"',
            )


def _warn_of_dirt(repo: repository.Repository, wanted: Config) -> None:
    if wanted.workspace.snapshot == "commit" and dirty(repo):
        print(
            "nanosup: the working tree has changes that are not committed, and no lane will see "
            f'them: the sprint starts from {repo.commit[:10]} (snapshot = "worktree" takes them '
            "along)",
            file=sys.stderr,
        )


def _detached(board: Board, chosen: list[SprintDir], top: str) -> int:
    """Runs the fleet in a session of its own; returns once it holds its sprints."""
    ready, announce = os.pipe()
    if os.fork() == 0:
        os.close(ready)
        os.setsid()
        log = os.open(
            os.path.join(board.path, "up.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )
        for fd, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
            os.dup2(fd, target)
        code = 1
        try:
            code = anyio.run(_run, board, chosen, top, "plain", lambda: os.write(announce, b"\1"))
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(announce)
    if not os.read(ready, 1):
        print(f"nanosup: the fleet did not start; see {board.path}/up.log", file=sys.stderr)
        return 1
    for item in chosen:
        print(item.id)
    return 0


async def _run(
    board: Board, chosen: list[SprintDir], top: str, show: str, announce: Callable[[], object]
) -> int:
    ends: dict[str, SprintState] = {}
    stopped: list[signal.Signals] = []
    offsets = [max((e.end for e in item.journal.read()), default=0) for item in chosen]
    with Template(keeper_log(board)) as template:
        fleets = [Fleet(board, item, template, top=top) for item in chosen]
        waiting = [len(fleets)]

        async def drive(fleet: Fleet, item: SprintDir) -> None:
            def driving() -> None:
                waiting[0] -= 1
                if not waiting[0]:
                    announce()

            ends[item.id] = await fleet.run(driving)

        async def listen() -> None:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as heard:
                async for number in heard:
                    stopped.append(number)
                    for fleet in fleets:
                        if number is signal.SIGHUP:
                            fleet.leave()
                        else:
                            fleet.stop(now=len(stopped) > 1)

        async with anyio.create_task_group() as outer:
            outer.start_soon(listen)
            outer.start_soon(_show, board, chosen, show, offsets)
            async with anyio.create_task_group() as inner:
                for fleet, item in zip(fleets, chosen, strict=True):
                    inner.start_soon(drive, fleet, item)
            outer.cancel_scope.cancel()
    _conclude(board, chosen, show)
    if stopped:
        return 128 + stopped[0]
    return max(_CODES.get(state, 1) for state in ends.values())


async def _show(board: Board, chosen: list[SprintDir], show: str, offsets: list[int]) -> None:
    """Shows what happens, until cancelled; then what has happened since."""
    from supervisor.watch import Watch

    watch = Watch()
    for item in chosen:
        watch.file(item.journal.path)
    try:
        if show == "live":
            from supervisor.live import Live

            with Live(board, *chosen) as live:
                try:
                    while True:
                        live.update()
                        await watch.changed(1.0)
                finally:
                    live.update()
        while True:
            offsets = _print_events(chosen, show, offsets)
            await watch.changed()
    finally:
        watch.close()
        if show != "live":
            _print_events(chosen, show, offsets)


def _print_events(chosen: list[SprintDir], show: str, offsets: list[int]) -> list[int]:
    ends = []
    for item, offset in zip(chosen, offsets, strict=True):
        end = offset
        for event in item.journal.read(offset):
            end = event.end
            if show == "json":
                print(json.dumps(event_document(item.id, event), ensure_ascii=False))
            else:
                print(event_line(event))
        ends.append(end)
    sys.stdout.flush()
    return ends


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
