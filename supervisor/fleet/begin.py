"""A fleet from its beginning: check everything, begin or go on with sprints, and run them."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import anyio

from sandbox.jail.feature import Mechanism
from sandbox.probe import host
from sandbox.repository import repository
from sandbox.repository.snapshot import dirty
from sandbox.tiers import tier
from supervisor.artifacts.publish import publish_all
from supervisor.artifacts.refusal import observe_checked
from supervisor.board.board import Board, SprintDir
from supervisor.board.observe import observe
from supervisor.board.place import Place
from supervisor.config import config
from supervisor.config.config import Config
from supervisor.config.schema import Hooks
from supervisor.errors import ConfigError, SupervisorError
from supervisor.fleet import sprint
from supervisor.fleet.ask import Ask
from supervisor.fleet.convoy import Convoy
from supervisor.fleet.plan import plan
from supervisor.fleet.show import Look
from supervisor.fleet.template import Template
from supervisor.keeper.enforcement import enforced
from supervisor.keeper.planted import check_hooks_are_no_lanes
from supervisor.model import lineage
from supervisor.model.decide import SprintState
from supervisor.upkeep.stale import remove_stale
from supervisor.upkeep.sweep import sweep
from supervisor.views.views import status_document

_CODES = {SprintState.COMPLETED: 0, SprintState.BLOCKED: 16}


def run(here: Place, template: Template, ask: Ask) -> int:
    """Everything that can be wrong is found before any lane is started.

    Args:
        template: is left as it is where the fleet runs in a process of its own.
    """
    wanted = config.load(here.top, agent=ask.agent, graph=ask.graph)
    repo = repository.find(here.top)
    sprint.check_agents(wanted.agents, here.top)
    sprint.check_hooks(wanted.hooks, here.top)
    board = here.board
    check_hooks_are_no_lanes(board, repo, wanted.hooks)
    for path in remove_stale(board):
        print(f"nanosup: removed a stale mount of a dead lane, {path}", file=sys.stderr)
    features = host.probe(str(here.state))
    if not features.row(Mechanism.LAYER_FORMAT).ok:
        board.prepare()  # one that cannot be written at all is to be called that
    held = enforced(features, wanted)
    stack = wanted.workspace.stack if ask.stack is None else ask.stack
    if held is not tier.Tier.FUSE:
        print(f"nanosup: {tier.describe(held)}", file=sys.stderr)
    is_plain = ask.plain or ask.detach or not sys.stdout.isatty()
    look = Look.JSON if ask.as_json else Look.PLAIN if is_plain else Look.LIVE
    with ExitStack() as beginning:
        # Until we are known to run them: of two that are asked for the same at the same moment,
        # the second is to find the sprints of the first, and that they are run.
        beginning.enter_context(sprint.beginning(board))
        planned = plan(board, repo, wanted, ask.goals, stack=stack)
        if any(one.sprint is None or one.is_new for one in planned):
            _warn_of_dirt(repo, wanted)
        for one in planned:
            if one.sprint is not None:
                # A keeper may have been killed just before it did.
                publish_all(repo, observe(one.sprint))
        sweep(board)
        convoy = Convoy(
            board,
            repo,
            wanted,
            planned,
            template,
            look=look,
            read_hooks=lambda: _hooks(here.top, board, repo),
        )
        return (_detached if ask.detach else _drive)(convoy, beginning.close)


def _drive(convoy: Convoy, announce: Callable[[], object]) -> int:
    try:
        arrival = anyio.run(convoy.drive, announce)
    except BaseExceptionGroup as group:
        raise _first(group) from group
    _conclude(convoy.board, convoy.begun, convoy.look)
    if arrival.heard is not None:
        return 128 + arrival.heard
    return max(_CODES.get(state, 1) for state in arrival.states)


def _hooks(top: Path, board: Board, repo: repository.Repository) -> Hooks | None:
    try:
        hooks = config.load(top).hooks
        check_hooks_are_no_lanes(board, repo, hooks)
        return hooks
    except ConfigError:
        return None  # `nanosup reload` has said why


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


def _detached(convoy: Convoy, begun: Callable[[], object]) -> int:
    """Runs the fleet in a session of its own; returns once it holds its sprints."""
    log_path = os.path.join(convoy.board.path, "up.log")
    ready, announce = os.pipe()
    if os.fork() == 0:
        os.close(ready)
        os.setsid()
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        for fd, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
            os.dup2(fd, target)
        code = 1
        try:
            code = _drive(convoy, lambda: (begun(), os.write(announce, b"\1")))
        except SupervisorError as error:
            print(f"nanosup: {error.message}", file=sys.stderr)
            code = error.exit_code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(announce)
    begun()  # the other process holds it, too
    if not os.read(ready, 1):
        print(f"nanosup: the fleet did not start; see {log_path}", file=sys.stderr)
        return 1
    for item in convoy.begun:
        print(item.id)
    return 0


def _conclude(board: Board, chosen: list[SprintDir], look: Look) -> None:
    """Says how it ended, and where what came out is to be found."""
    seen = [observe_checked(board, item) for item in chosen]
    if look is Look.JSON:
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
