"""What one mount shows, and where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSpec:
    """Everything a file system server needs to know before it mounts.

    Attributes:
        git_dir: git common directory whose object store (and alternates) holds the tree.
        tree: hex object id of the base tree; empty for no base at all.
        layers: sealed layers, bottom to top: directories in kernel overlayfs format (userxattr).
        upper: directory that takes all changes; None makes the mount read-only for its whole life.
        work: scratch directory on the file system of `upper`, private to this mount.
        mountpoint: an existing directory.
        epoch_ns: access, modification and change time of all that comes from the git tree.
        uid: owner reported for all that comes from the git tree, and for layers when not root.
        gid: its group.
        allow_other: whether users other than the server's may enter.
        grafts: repository-relative paths shown as empty directories where nothing is.
        limit_bytes: how much `upper` may take; None: as much as there is.
        object_dirs: further object directories to look in.
    """

    git_dir: str
    tree: str
    layers: tuple[str, ...] = ()
    upper: str | None = None
    work: str | None = None
    mountpoint: str
    epoch_ns: int
    uid: int
    gid: int
    allow_other: bool = False
    grafts: tuple[str, ...] = ()
    object_dirs: tuple[str, ...] = ()
    limit_bytes: int | None = None
