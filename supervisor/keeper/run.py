"""One attempt being carried out: its lane made, mounted, jailed, watched, taken down, sealed."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from sandbox.descriptor import readable
from sandbox.errors import JailError
from sandbox.jail import namespace, survey, view
from sandbox.jail.feature import Features
from sandbox.jail.jail import Bind
from sandbox.repository import gitdir, index, repository
from sandbox.repository.repository import Repository
from sandbox.tiers.tier import choose
from sandbox.union.spec import MountSpec
from supervisor.artifacts import artifact
from supervisor.board import pulse, vital
from supervisor.keeper import credential
from supervisor.keeper.bounds import Bounds, bounded
from supervisor.keeper.charge import Charge
from supervisor.keeper.enforcement import check_network
from supervisor.keeper.engagement import Engagement
from supervisor.keeper.hold import Hold
from supervisor.keeper.lane import (
    LaneDir,
    locked,
    placeholders,
    variables,
)
from supervisor.keeper.layer import Layers
from supervisor.keeper.lodging import seen_in
from supervisor.keeper.log import NAMES, open_log
from supervisor.keeper.mount import Mount, Server, UnservedError
from supervisor.keeper.order import Order
from supervisor.keeper.post import Post
from supervisor.keeper.refresh import Refresh
from supervisor.keeper.relay import hand_over
from supervisor.keeper.session import Finding
from supervisor.model import lineage, prompt
from supervisor.model.graph import Graph
from supervisor.model.phase import Agent
from supervisor.model.record import Snapshot, Sprint


class Run:
    """Prepares the lane of a claimed attempt, and has `post` keep it.

    Args:
        record: the sprint.
        server: stands by to serve the mount; None where no lane of this host can have one.
    """

    def __init__(
        self,
        engagement: Engagement,
        record: Sprint,
        order: Order,
        features: Features,
        server: Server | None,
        post: Post,
    ) -> None:
        self._engagement = engagement
        self._board = engagement.board
        self._sprint = engagement.sprint
        self._phase = engagement.phase
        self._attempt = engagement.attempt
        self._record = record
        self._order = order
        self._features = features
        self._server = server
        self._post = post
        self._lane = LaneDir(self._attempt.lane_path)
        self._layers = Layers(self._board, self._sprint)
        assert self._attempt.owner.snapshot is not None
        self._snapshot: Snapshot = self._attempt.owner.snapshot

    def carry_out(self) -> Finding:
        """Returns what became of the lane once its command has ended and nothing of it is left.

        Raises:
            SandboxError: the lane cannot be made on this host.
            UnservedError: its file system has gone while it was made.
            ArtifactError: an input is not what it was.
            BoardError: the board cannot be written.
        """
        repo = repository.find(Path(self._order.top))
        uid, gid = namespace.lane_ids()
        hold = self._hold = self._held(uid)
        agent = self._agent()
        self._lane.make(self._phase, uid=uid, gid=gid, room=hold.room)
        with ExitStack() as stack:
            lock = stack.enter_context(locked(self._lane))
            mountpoint = hold.enter(self._lane, self._post)
            bounds = stack.enter_context(self._bounded(agent, uid, gid))
            mounted = bounds.of_mount(self._mount_spec(repo, mountpoint, uid, gid))
            mount = hold.mount(repo, mounted, self._lane, self._phase, self._shares(repo), lock)
            stack.enter_context(mount)
            text = self._prepare(repo, agent, uid, gid)
            seen = self._view(repo, agent, text, mountpoint, uid, gid)
            ground = self._survey(repo, agent, uid)
            stack.enter_context(self._post.listening())
            logs = self._logs(stack, uid, gid)
            try:
                jail = hold.start(
                    self._post,
                    bounds.of_lane(seen),
                    ground,
                    stdio=(None, logs[0], logs[1]) if logs else (0, 1, self._order.stderr),
                    lock=lock,
                    top=str(repo.root),
                    await_view=mount.await_ready,
                    meanwhile=lambda: self._make_ready(repo, uid, gid),
                )
            except (JailError, OSError) as error:
                if readable(mount.fileno(), 0):
                    raise UnservedError from error
                raise
            stack.callback(self._post.close)
            mount.attend(jail)
            charge = Charge(
                order=self._order,
                phase=self._phase,
                agent=agent,
                attempt=self._attempt,
                turn=self._engagement.turn,
                bounds=bounds,
                refresh=self._refresh,
                pulse=self._announce(jail, mount),
                logs=logs,
                lock=lock.fileno(),
                vital=vital.held(),
            )
            return self._post.keep(charge, self._sprint, mount)

    def _logs(self, stack: ExitStack, uid: int, gid: int) -> tuple[int, ...]:
        """Descriptors of the lane's logs, stdout and stderr; none in the foreground."""
        if self._order.foreground:
            return ()
        logs = []
        for name in NAMES:
            logs.append(open_log(os.path.join(self._attempt.path, name)))
            stack.callback(os.close, logs[-1])
            # Scripts open /dev/stderr anew, and are asked for permission when they do.
            os.fchown(logs[-1], uid, gid)
        return tuple(logs)

    def _bounded(self, agent: Agent, uid: int, gid: int) -> AbstractContextManager[Bounds]:
        phase, attempt = self._phase, self._attempt
        journal = self._sprint.journal
        way_out = self._post.way_out(phase, attempt.n, journal, (uid, gid), self._features)
        return bounded(phase, agent, self._lane, attempt, self._sprint, self._hold.tier, way_out)

    def _agent(self) -> Agent:
        if self._order.command is not None:
            return Agent(name=self._order.agent, command=self._order.command)
        return self._record.agents[self._order.agent]

    def _prepare(self, repo: Repository, agent: Agent, uid: int, gid: int) -> str:
        """Gives the lane what the agent is to find there. Returns the prompt."""
        lane, phase, owner = self._lane, self._phase, self._attempt.owner
        artifact.provide(self._board.blobs, owner.inputs, lane.inputs)
        text = prompt.compose(
            phase,
            goal=self._record.goal,
            inputs=owner.inputs,
            judged_by=lineage.judged_in(Graph(self._record.phases), phase, owner.inputs),
            handoff=hand_over(repo, self._sprint, phase, self._attempt, self._layers),
        )
        Path(lane.prompt).write_text(text, encoding="utf-8")
        self._refresh = Refresh.of(agent.write_back, Path.home())
        credential.copy(agent.credentials, Path.home(), Path(lane.home), uid=uid, gid=gid)
        return text

    def _mount_spec(self, repo: Repository, mountpoint: str, uid: int, gid: int) -> MountSpec:
        phase, seen = self._phase, self._snapshot
        carried = self._layers.there(seen.carried)
        return MountSpec(
            git_dir=str(repo.common_dir),
            tree=seen.base_tree,
            layers=(*map(self._layers.path, seen.layers), *carried.values()),
            upper=self._lane.upper if phase.access.writes else None,
            work=self._lane.work if phase.access.writes else None,
            mountpoint=mountpoint,
            epoch_ns=seen.epoch_ns,
            uid=uid,
            gid=gid,
            allow_other=os.getuid() != uid,
            grafts=(".git", *phase.scratch, *(path for _, path in self._shares(repo))),
            object_dirs=self._layers.object_dirs,
        )

    def _held(self, uid: int) -> Hold:
        tier = choose(self._features, self._record.mount, self._record.require)
        check_network(tier, self._phase)
        name = lineage.layer_id(self._record.id, self._phase.name, self._attempt.n)
        return Hold(tier, self._features, self._board.path, name, uid, self._server)

    def _make_ready(self, repo: Repository, uid: int, gid: int) -> None:
        """What has to be done before the command begins, and can be while its jail is made."""
        self._make_git(repo, uid, gid)
        self._sprint.slot(self._phase.name).settle(self._attempt)

    def _make_git(self, repo: Repository, uid: int, gid: int) -> None:
        """The lane's git directory. Its index and refs are made once a snapshot, and copied."""
        seen = self._snapshot
        cache = Path(self._sprint.path) / "git"
        record = cache / f"{seen.commit}{self._hold.index_suffix}"
        index.record(
            record,
            repo,
            commit=seen.commit,
            epoch_ns=self._hold.epoch_ns(seen),
            uid=uid,
            gid=gid,
            layers=[Path(self._layers.path(layer)) for layer in seen.layers],
            object_dirs=[Path(path) for path in self._layers.object_dirs],
            location=str(repo.root) if self._hold.changes is not None else None,
        )
        refs = cache / "packed-refs"
        gitdir.record_refs(repo, refs)
        gitdir.make(
            Path(self._lane.git),
            repo,
            commit=seen.commit,
            alternates=self._alternates(repo),
            index=record,
            refs=refs,
            uid=uid,
            gid=gid,
            changes=self._hold.changes,
        )

    def _view(
        self,
        repo: Repository,
        agent: Agent,
        text: str,
        mountpoint: str,
        uid: int,
        gid: int,
    ) -> view.Lane:
        phase, lane, n = self._phase, self._lane, self._attempt.n
        where = seen_in(lane, str(repo.root))
        alternates = self._alternates(repo)
        empty = os.path.join(lane.path, "empty")
        Path(empty).touch()
        return view.Lane(
            argv=prompt.fill(agent.command, placeholders(self._record, phase, n, where, text)),
            uid=uid,
            gid=gid,
            repository=where.top,
            mount=mountpoint,
            home=lane.home,
            git_dir=lane.git,
            writable=phase.access.writes,
            git_writable=phase.access.writes,
            objects=tuple(Bind(str(path), seen) for path, seen in alternates),
            tmp=lane.tmp,
            inputs=lane.inputs,
            outputs=lane.outputs,
            prompt=lane.prompt,
            scratch=tuple((path, where) for where, path in lane.scratch_for(phase).items()),
            share=self._shares(repo),
            hidden=(self._board.path, str(repo.common_dir)),
            extra=(
                *self._hold.tells(mountpoint),
                *(Bind(empty, mask) for mask in gitdir.masks(alternates)),
            ),
            env=variables(self._record, phase, n, agent, os.environ, where),
            host_network=phase.network == "host",
            tty=self._order.tty,
        )

    def _survey(self, repo: Repository, agent: Agent, uid: int) -> view.Ground:
        home = Path.home()
        return survey.survey(
            uid=uid,
            targets=[str(repo.root), *(seen for _, seen in self._alternates(repo))],
            environment=os.environ,
            # What a preset lists is where its program may be, not where it must be.
            home_read=[path for path in agent.home_read if (home / path).exists()],
        )

    def _alternates(self, repo: Repository) -> list[tuple[Path, str]]:
        stores = [*repo.object_dirs, *map(Path, self._layers.object_dirs)]
        return self._hold.alternates(stores)

    def _shares(self, repo: Repository) -> tuple[tuple[str, str], ...]:
        """(directory of the host, path in the repository) of those that are there."""
        pairs = ((os.path.realpath(repo.root / path), path) for path in self._phase.share)
        return tuple((source, path) for source, path in pairs if os.path.isdir(source))

    def _announce(self, child_pid: int, mount: Mount) -> pulse.Pulse:
        ready_ms = round((time.monotonic() - self._order.given_s) * 1000, 1)
        tier = self._hold.tier.value
        first = pulse.Pulse(
            child_pid=child_pid,
            server_pid=mount.pid,
            ready_ms=ready_ms,
            mount=mount.counters(),
            tier=tier,
        )
        pulse.write(self._attempt.path, first)
        self._engagement.tell("attempt.running", child_pid=child_pid, ready_ms=ready_ms, tier=tier)
        return first
