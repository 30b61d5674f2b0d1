"""What a host can enforce, as values. `host.py` finds it out, `jail.py` builds from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sandbox.jail import elf, landlock


class Mechanism(StrEnum):
    """What a lane is enforced with. The values are the keys of `nanosup doctor --json`."""

    FUSE = "fuse"
    PYFUSE3 = "pyfuse3"
    BUBBLEWRAP = "bubblewrap"
    MOUNT_NAMESPACE = "mount_namespace"
    FUSE_MOUNT = "fuse_mount"
    JAIL = "jail"
    LAYER_FORMAT = "layer_format"
    SECCOMP = "seccomp"
    LANDLOCK = "landlock"
    CGROUPS = "cgroups"
    PIDFD = "pidfd"
    LINUX = "linux"
    OVERLAY_MOUNT = "overlay_mount"
    CONFINEMENT = "confinement"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of `nanosup doctor`.

    Attributes:
        ok: whether the host has it.
        needed: whether lanes are held by less than the best tier (`tier.Tier`) without it.
        detail: what was found.
        fix: the exact command that mends it, or "".
    """

    mechanism: Mechanism
    ok: bool
    needed: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What this host offers for mounts and jails.

    Attributes:
        bwrap: absolute path of bubblewrap, "" where there is none.
        bwrap_version: e.g. (0, 8, 0).
        seccomp: seccomp filters can be loaded, on an architecture that we have a filter for.
        notifies: a filter can have somebody who answers (not where one further out has, LXD's say).
        landlock_abi: 0 where there is no landlock.
        machine: architecture, as uname(2) says.
        rows: everything that was looked at, in the order of importance.
    """

    bwrap: str
    bwrap_version: tuple[int, ...] = (0, 8, 0)
    seccomp: bool = False
    notifies: bool = False
    landlock_abi: int = 0
    machine: str = "x86_64"
    rows: tuple[Row, ...] = ()

    @property
    def has_entry(self) -> bool:
        """Whether there is an entry program for this machine; without it no filter, no landlock."""
        return self.machine in elf.MACHINES

    @property
    def confined(self) -> bool:
        """Whether landlock can decide what is written in a lane, beside the mounts."""
        return self.has_entry and self.landlock_abi >= landlock.ABI_MINIMUM

    @property
    def scoped(self) -> bool:
        """Whether signals and abstract unix sockets can be kept inside the jail by landlock."""
        return self.landlock_abi >= landlock.ABI_SCOPES

    def row(self, mechanism: Mechanism) -> Row:
        """The line about `mechanism`. Raises KeyError where it was not looked at."""
        for row in self.rows:
            if row.mechanism is mechanism:
                return row
        raise KeyError(mechanism)
