"""How strongly, and by what, lanes are held on a host: the three tiers. Pure.

All three promise the same of the repository: a reader cannot change it, a writer's changes are a
layer. They differ in what the host must offer, and in what a lane can see of it (docs/security.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from sandbox.errors import HostError
from sandbox.jail.feature import Features, Mechanism, Row


class Tier(StrEnum):
    """What a lane is mounted and held by, best first. The values are those of `mount`."""

    FUSE = "fuse"  # our own overlay over the git tree, in namespaces
    KERNEL = "kernel"  # the kernel's overlayfs over a checkout, in namespaces
    LANDLOCK = "landlock"  # a checkout of the lane's own, no namespaces at all

    @property
    def namespaced(self) -> bool:
        """Whether the lane has namespaces, and so a mount at the repository's own path."""
        return self is not Tier.LANDLOCK


AUTO = "auto"

_EVERYWHERE = (Mechanism.LINUX, Mechanism.PIDFD)
_JAILED = (
    Mechanism.BUBBLEWRAP,
    Mechanism.MOUNT_NAMESPACE,
    Mechanism.JAIL,
    Mechanism.LAYER_FORMAT,
)

NEEDS: Mapping[Tier, tuple[Mechanism, ...]] = {
    Tier.FUSE: (
        *_EVERYWHERE,
        Mechanism.FUSE,
        Mechanism.PYFUSE3,
        *_JAILED,
        Mechanism.FUSE_MOUNT,
    ),
    Tier.KERNEL: (*_EVERYWHERE, *_JAILED, Mechanism.OVERLAY_MOUNT),
    Tier.LANDLOCK: (
        *_EVERYWHERE,
        Mechanism.LAYER_FORMAT,
        Mechanism.SECCOMP,
        Mechanism.LANDLOCK,
        Mechanism.CONFINEMENT,
    ),
}
# Used where there, and part of what a tier gives then.
_ALSO: Mapping[Tier, tuple[Mechanism, ...]] = {
    Tier.FUSE: (Mechanism.SECCOMP, Mechanism.LANDLOCK, Mechanism.CGROUPS),
    Tier.KERNEL: (Mechanism.SECCOMP, Mechanism.LANDLOCK, Mechanism.CGROUPS),
    Tier.LANDLOCK: (Mechanism.CGROUPS,),
}

UNSEEN = (
    "readers can read the system's own files (/usr, /etc, /opt, /proc), process list and command "
    "lines included",
    "they can ask whether a file elsewhere exists, how large and how old it is",
    "the lane works in a directory of its own, not at the repository's path",
)
"""What the landlock tier cannot keep a lane from, for doctor and status."""


def describe(tier: Tier) -> str:
    """What holds lanes in a sentence, and what is not as it is in the best tier."""
    match tier:
        case Tier.FUSE:
            return "lanes are held by the fuse tier"
        case Tier.KERNEL:
            return (
                "lanes are held by the kernel tier: overlayfs over a checkout; the first lane "
                "of a tree waits for it"
            )
        case Tier.LANDLOCK:
            return f"lanes are held by the landlock tier: {'; '.join(UNSEEN)}"


def lacking(features: Features, tier: Tier) -> tuple[Row, ...]:
    """What the host does not have of what `tier` needs. Not looked at counts as there."""
    rows = {row.mechanism: row for row in features.rows}
    found = (rows.get(mechanism) for mechanism in NEEDS[tier])
    return tuple(row for row in found if row is not None and not row.ok)


def available(features: Features) -> tuple[Tier, ...]:
    """The tiers that this host can hold lanes by, best first."""
    return tuple(tier for tier in Tier if not lacking(features, tier))


def choose(features: Features, wanted: str = AUTO, required: Iterable[str] = ()) -> Tier:
    """The tier for lanes here: the one wanted, or the best.

    Args:
        wanted: a tier's name, or "auto".
        required: names of tiers and of mechanisms that must be in force.

    Raises:
        HostError: it cannot be had here, or something required is not in force with it. Nothing
            weaker is taken instead.
    """
    if wanted == AUTO:
        tiers = available(features)
        if not tiers:
            row = lacking(features, Tier.FUSE)[0]
            raise HostError(f"no lane can be enforced on this host: {row.detail}", hint=row.fix)
        tier = tiers[0]
    else:
        tier = Tier(wanted)
        if missing := lacking(features, tier):
            raise HostError(
                f'mount = "{tier.value}" cannot be enforced on this host: {missing[0].detail}',
                hint=missing[0].fix,
            )
    for name in required:
        _check_required(features, tier, name)
    return tier


def _check_required(features: Features, tier: Tier, name: str) -> None:
    if name in set(Tier):
        if name != tier.value:
            missing = lacking(features, Tier(name))
            why = missing[0].detail if missing else f"lanes are held by the {tier.value} tier"
            fix = missing[0].fix if missing else f'set mount = "{name}" under [workspace]'
            raise HostError(f'require names "{name}", but {why}', hint=fix)
        return
    mechanism = Mechanism(name)
    row = next((row for row in features.rows if row.mechanism is mechanism), None)
    if row is None or not row.ok:
        why = row.detail if row else "this host was not asked for it"
        raise HostError(f'require names "{name}", but {why}', hint=row.fix if row else "")
    if mechanism not in (*NEEDS[tier], *_ALSO[tier]):
        raise HostError(
            f'require names "{name}", which the {tier.value} tier does not use',
            hint="take it out of require, or make a better tier possible: see `nanosup doctor`",
        )


def requirement_names() -> tuple[str, ...]:
    """What `require` may name."""
    return tuple(dict.fromkeys((*(t.value for t in Tier), *(m.value for m in Mechanism))))
