"""What depends on the tier of a lane: its view, its places, and how its command starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from sandbox.jail import launch, namespace, survey, view
from sandbox.jail.feature import Features
from sandbox.jail.jail import Bind
from sandbox.repository.repository import Repository
from sandbox.tiers import lending, ward
from sandbox.tiers.checkout import EPOCH_NS, Checkouts
from sandbox.tiers.confinement import SYSTEM, confine
from sandbox.tiers.tier import Tier
from sandbox.union.spec import MountSpec
from supervisor.keeper.lane import CHANGES, OBJECTS, LaneDir
from supervisor.keeper.lodging import rooms
from supervisor.keeper.mount import Mount, Server
from supervisor.keeper.overlaid import Overlaid
from supervisor.keeper.plain import Plain
from supervisor.keeper.post import Post
from supervisor.model.phase import Phase
from supervisor.model.record import Snapshot


class Hold:
    """One lane, held by `tier`.

    Args:
        state: the board's directory.
        name: of its room.
        server: stands by to serve the mount; None where no lane of this host can have one.
    """

    def __init__(
        self,
        tier: Tier,
        features: Features,
        state: str,
        name: str,
        uid: int,
        server: Server | None,
    ) -> None:
        self.tier = tier
        self._server = server
        if server is not None and tier is not Tier.FUSE:
            server.close()
        self._features = features
        self._state = state
        self._name = name
        self._uid = uid

    @property
    def room(self) -> str | None:
        """Where the lane's own directories are; None: on the board."""
        return None if self.tier.namespaced else os.path.join(self._rooms(), self._name)

    def epoch_ns(self, seen: Snapshot) -> int:
        """Time stamp of everything that comes from the base tree."""
        return seen.epoch_ns if self.tier is Tier.FUSE else EPOCH_NS

    @property
    def index_suffix(self) -> str:
        """What tells indexes of different time stamps apart."""
        return ".index" if self.tier is Tier.FUSE else ".checkout.index"

    @property
    def changes(self) -> str | None:
        """Where git in the lane asks what has changed; None where nobody can say."""
        return CHANGES if self.tier is Tier.FUSE else None

    def tells(self, mountpoint: str) -> tuple[Bind, ...]:
        """What the lane is given so that its git can ask."""
        return (Bind(f"{mountpoint}/.git", self.changes),) if self.changes is not None else ()

    def enter(self, lane: LaneDir, post: Post) -> str:
        """Into the lane's namespaces, where the tier has them. Returns where the view will be."""
        if not self.tier.namespaced:
            return lane.tree
        namespace.enter()
        post.entered()
        return lane.mount

    def mount(
        self,
        repo: Repository,
        spec: MountSpec,
        lane: LaneDir,
        phase: Phase,
        shares: Sequence[tuple[str, str]],
        lock: IO[bytes],
    ) -> Mount:
        """The lane's view of the repository."""
        if self.tier is Tier.FUSE:
            assert self._server is not None
            self._server.serve(spec, lock=lock.fileno())
            return self._server
        if self.tier is Tier.KERNEL:
            base = os.path.join(self._state, "checkouts")
            tree = Checkouts(base, spec.uid, spec.gid).checkout(repo, spec.tree, spec.object_dirs)
            return Overlaid(spec, tree, lane.grafts, lock)
        # On the disk that the rooms are on. They are ours, not the agent's: it gets no overlay.
        checkouts = Checkouts(os.path.join(self._rooms(), "checkouts"), os.getuid(), os.getgid())
        return Plain(
            spec,
            lane,
            lambda: checkouts.checkout(repo, spec.tree, spec.object_dirs),
            links=tuple((path, source) for source, path in shares),
            scratch=phase.scratch,
        )

    def alternates(self, stores: Sequence[Path]) -> list[tuple[Path, str]]:
        """(object directory of the host, where the lane sees it)."""
        if self.tier.namespaced:
            return [(path, f"{OBJECTS}/{number}") for number, path in enumerate(stores)]
        if os.getuid() == self._uid or all(map(lending.is_reachable, stores)):
            return [(path, str(path)) for path in stores]
        lent = Path(self._rooms()) / "objects"
        lending.lend(stores, lent)
        return [(lent, str(lent))]

    def start(
        self,
        post: Post,
        seen: view.Lane,
        ground: view.Ground,
        *,
        stdio: tuple[int | None, int, int],
        lock: IO[bytes],
        top: str,
        await_view: Callable[[], None],
        meanwhile: Callable[[], None],
    ) -> int:
        """Runs the command of a lane of the repository at `top`, once `await_view` and `meanwhile`
        have returned. Returns the pid of its outermost process, which `post` has from now on.

        Raises JailError where it cannot be held.
        """
        stdin, stdout, stderr = stdio
        if self.tier.namespaced:
            spec = view.jail_of(seen, ground)
            begun = launch.start(
                spec,
                self._features,
                starter=post.begin,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                await_sources=await_view,
                meanwhile=meanwhile,
            )
            return begun.pid
        await_view()
        meanwhile()
        system = survey.around(SYSTEM, (*seen.hidden, ground.user_home, top))
        held = ward.start(
            confine(seen, ground, system),
            self._features,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            lock=lock.fileno(),
            limits=seen.resources,
        )
        post.hold(held)
        return held.pid

    def _rooms(self) -> str:
        return rooms(self._state, public=self._uid != os.getuid())
