"""One attempt being carried out: its lane made, mounted, jailed, watched, taken down, sealed."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import msgspec

from sandbox import syscalls
from sandbox.errors import MountError
from sandbox.jail import namespace, survey, view
from sandbox.jail.end import End
from sandbox.jail.feature import Features
from sandbox.jail.jail import Bind
from sandbox.repository import gitdir, index, repository, seal
from sandbox.repository.repository import Repository
from sandbox.tiers.tier import choose
from sandbox.union.spec import MountSpec
from supervisor import clock
from supervisor.artifacts import artifact
from supervisor.board import pulse, room
from supervisor.board.attempt import Attempt
from supervisor.board.board import Board, SprintDir
from supervisor.board.owner import stamp
from supervisor.board.pause import paused_question
from supervisor.errors import ArtifactError
from supervisor.keeper import credential
from supervisor.keeper.bounds import Bounds, bounded
from supervisor.keeper.enforcement import check_network
from supervisor.keeper.hold import Hold
from supervisor.keeper.lane import (
    BEAT_FILE,
    LaneDir,
    locked,
    placeholders,
    variables,
)
from supervisor.keeper.layer import Layers
from supervisor.keeper.lodging import seen_in
from supervisor.keeper.mount import Mount, Server
from supervisor.keeper.order import Order
from supervisor.keeper.refresh import Refresh
from supervisor.keeper.relay import hand_over
from supervisor.keeper.session import Finding, Session
from supervisor.keeper.vigil import Vigil
from supervisor.model import lineage, prompt
from supervisor.model.contract import Inspector
from supervisor.model.graph import Graph
from supervisor.model.phase import Agent, Phase
from supervisor.model.record import AttemptState, Outcome, Output, Snapshot, Sprint


class Run:
    """Carries out one claimed attempt, in a process of its own.

    Attributes:
        end: how the command ended, once it has.
    """

    def __init__(
        self,
        board: Board,
        record: Sprint,
        sprint: SprintDir,
        phase: Phase,
        attempt: Attempt,
        order: Order,
        features: Features,
        server: Server | None,
    ) -> None:
        self._board = board
        self._record = record
        self._sprint = sprint
        self._phase = phase
        self._attempt = attempt
        self._order = order
        self._features = features
        self._server = server
        self._lane = LaneDir(attempt.lane_path)
        self._layers = Layers(board, sprint)
        assert attempt.owner.snapshot is not None
        self._snapshot: Snapshot = attempt.owner.snapshot
        self._layer = self._board.layer_path(lineage.layer_id(record.id, phase.name, attempt.n))
        self.end: End | None = None

    def carry_out(self) -> Outcome:
        """Runs the lane to its end. What the outcome names exists when this returns.

        Raises:
            SandboxError: the lane cannot be made on this host.
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
            mountpoint = hold.enter(self._lane)
            bounds = stack.enter_context(self._bounded(agent, uid, gid))
            mounted = bounds.of_mount(self._mount_spec(repo, mountpoint, uid, gid))
            server = hold.mount(repo, mounted, self._lane, self._phase, self._shares(repo), lock)
            stack.enter_context(server)
            text = self._prepare(repo, agent, uid, gid)
            seen = self._view(repo, agent, text, mountpoint, uid, gid)
            ground = self._survey(repo, agent, uid)
            vigil = Vigil(
                self._phase,
                self._tell,
                is_paused=paused_question(self._sprint, self._phase.name),
                foreground=self._order.foreground,
            )
            stack.enter_context(vigil)
            session = stack.enter_context(
                Session(
                    self._phase,
                    agent,
                    self._attempt.path,
                    beat=os.path.join(self._lane.tmp, BEAT_FILE),
                    foreground=self._order.foreground,
                    stderr=self._order.stderr,
                    tell=self._tell,
                )
            )
            jailed = hold.start(
                bounds.of_lane(seen),
                ground,
                stdio=session.stdio(uid, gid),
                lock=lock,
                top=str(repo.root),
                await_view=server.await_ready,
                meanwhile=lambda: self._make_ready(repo, uid, gid),
            )
            stack.enter_context(jailed)
            server.attend(jailed.pid)
            lane_pulse = self._announce(jailed.pid, server)
            look = bounds.looked_after(lane_pulse.refresh)
            ending = session.watch(vigil, jailed, server, look, always=bounds.are_looked_after)
            if not ending.stuck:
                jailed.kill()
                self.end = jailed.wait()
                self._refresh.take_back(Path(self._lane.home))
            jailed.abandon()
            finding = session.find(jailed, self.end)
            if ending.served:
                self._unmount(server, finding)
            lane_pulse.refresh()
        return room.patiently(
            lambda: self._conclude(repo, finding), lambda: self._tell("disk.full")
        )

    def _unmount(self, server: Mount, finding: Finding) -> None:
        """Ends the file system. Whether all of it was written matters only to what is sealed.

        Raises:
            MountError: it did not end well, and the attempt would have been completed.
        """
        try:
            server.stop()
        except MountError as error:
            if finding.state is AttemptState.COMPLETED:
                raise
            self._tell("mount.failed", reason=error.message)

    def withdraw(self) -> None:
        """Undoes the sealing of a fenced attempt: its layer is nobody's, and goes back."""
        if os.path.isdir(self._layer):
            os.rename(self._layer, self._lane.upper)

    def _bounded(self, agent: Agent, uid: int, gid: int) -> AbstractContextManager[Bounds]:
        tier, lane = self._hold.tier, self._lane
        where = (self._phase, agent, lane, self._attempt, self._sprint, tier, self._features)
        return bounded(*where, ids=(uid, gid))

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
        self._refresh = Refresh(agent.write_back, Path.home(), self._tell)
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

    def _conclude(self, repo: Repository, finding: Finding) -> Outcome:
        state, reason = finding.state, finding.reason
        outputs: tuple[Output, ...] = ()
        sealed: Snapshot | None = None
        inspector = Inspector(self._phase)
        if state is AttemptState.COMPLETED:
            try:
                outputs = artifact.collect(
                    self._board.blobs,
                    self._lane.outputs,
                    self._phase.outputs,
                    inspector=inspector,
                )
            except ArtifactError as error:
                finding = finding.failed(f"{reason or 'exit 0'}, but {error.message}")
                state, reason = finding.state, finding.reason
        if state is AttemptState.COMPLETED and self._phase.access.writes:
            sealed, notes = self._seal(repo)
            reason = "; ".join([*filter(None, [reason]), *notes])
        return Outcome(
            state=state,
            ended_at=clock.utc_now(),
            ended=stamp(),
            exit=finding.exit,
            reason=reason,
            trouble=finding.trouble if state is not AttemptState.COMPLETED else None,
            retry_s=finding.retry_s if state is not AttemptState.COMPLETED else None,
            outputs=outputs,
            sealed=sealed,
            verdict=inspector.verdict if state is AttemptState.COMPLETED else None,
        )

    def _seal(self, repo: Repository) -> tuple[Snapshot, tuple[str, ...]]:
        """Makes a commit of what was written, and moves the upper to where layers are."""
        carried = self._layers.there(self._snapshot.carried)
        seen = msgspec.structs.replace(self._snapshot, carried=tuple(carried))
        done = seal.seal(
            repo,
            parent=seen.commit,
            layers=[*map(Path, carried.values()), Path(self._lane.upper)],
            below=[Path(self._layers.path(layer)) for layer in seen.layers],
            lane_git=Path(self._lane.git),
            object_dirs=[Path(path) for path in self._layers.object_dirs],
            message=f"{self._phase.name}: {self._record.goal or 'no goal given'}\n\n"
            f"Sprint: {self._record.id}\nAgent: {self._attempt.owner.agent}\n",
            author="{} <{}>".format(*gitdir.identity(repo)),
            when_s=int(time.time()),
        )
        upper = os.open(self._lane.upper, os.O_RDONLY | os.O_DIRECTORY)
        try:
            syscalls.syncfs(upper)
        finally:
            os.close(upper)
        os.makedirs(os.path.dirname(self._layer), mode=0o700, exist_ok=True)
        os.rename(self._lane.upper, self._layer)
        if self._lane.is_confined:
            shutil.rmtree(self._lane.tree, ignore_errors=True)  # the layer has what it had
        layer = os.path.basename(self._layer)
        return lineage.sealed(seen, layer, commit=done.commit, tree=done.tree), done.notes

    def _alternates(self, repo: Repository) -> list[tuple[Path, str]]:
        stores = [*repo.object_dirs, *map(Path, self._layers.object_dirs)]
        return self._hold.alternates(stores)

    def _shares(self, repo: Repository) -> tuple[tuple[str, str], ...]:
        """(directory of the host, path in the repository) of those that are there."""
        pairs = ((os.path.realpath(repo.root / path), path) for path in self._phase.share)
        return tuple((source, path) for source, path in pairs if os.path.isdir(source))

    def _tell(self, event: str, **fields: Any) -> None:
        self._sprint.journal.note(event, phase=self._phase.name, attempt=self._attempt.n, **fields)

    def _announce(self, child_pid: int, server: Mount) -> pulse.LanePulse:
        ready_ms = round((time.monotonic() - self._order.given_s) * 1000, 1)
        first = pulse.Pulse(
            child_pid=child_pid,
            server_pid=server.pid,
            ready_ms=ready_ms,
            tier=self._hold.tier.value,
        )
        lane_pulse = pulse.LanePulse(self._attempt.path, first, server.counters)
        self._tell(
            "attempt.running", child_pid=child_pid, ready_ms=ready_ms, tier=self._hold.tier.value
        )
        return lane_pulse
