"""Which tier lanes are held by, from what a host has."""

from __future__ import annotations

import pytest

from sandbox.errors import HostError
from sandbox.jail.feature import Features, Mechanism, Row
from sandbox.tiers.tier import NEEDS, Tier, available, choose, lacking


def host_without(*missing: Mechanism) -> Features:
    rows = tuple(
        Row(
            mechanism=each,
            ok=each not in missing,
            needed=True,
            detail=f"no {each.value}",
            fix=f"mend {each.value}",
        )
        for each in Mechanism
    )
    return Features(bwrap="/usr/bin/bwrap", rows=rows)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ((), Tier.FUSE),
        ((Mechanism.FUSE,), Tier.KERNEL),
        ((Mechanism.PYFUSE3,), Tier.KERNEL),
        ((Mechanism.FUSE_MOUNT, Mechanism.OVERLAY_MOUNT), Tier.LANDLOCK),
        ((Mechanism.JAIL,), Tier.LANDLOCK),
        ((Mechanism.MOUNT_NAMESPACE,), Tier.LANDLOCK),
        ((Mechanism.SECCOMP,), Tier.FUSE),
    ],
)
def test_the_best_tier_that_the_host_has_is_taken(
    missing: tuple[Mechanism, ...], expected: Tier
) -> None:
    assert choose(host_without(*missing)) is expected


def test_a_tier_that_is_asked_for_is_had_or_refused_with_the_reason() -> None:
    features = host_without(Mechanism.OVERLAY_MOUNT)

    assert choose(features, "landlock") is Tier.LANDLOCK
    with pytest.raises(HostError, match=r"kernel.*no overlay_mount") as caught:
        choose(features, "kernel")
    assert caught.value.hint == "mend overlay_mount"
    assert caught.value.exit_code == 18


def test_without_any_tier_the_first_thing_that_the_best_one_lacks_is_named() -> None:
    features = host_without(Mechanism.FUSE, Mechanism.BUBBLEWRAP, Mechanism.LANDLOCK)

    assert available(features) == ()
    with pytest.raises(HostError, match="no fuse"):
        choose(features)


@pytest.mark.parametrize("tier", Tier)
def test_every_tier_lacks_each_thing_that_it_needs(tier: Tier) -> None:
    for mechanism in NEEDS[tier]:
        assert [row.mechanism for row in lacking(host_without(mechanism), tier)] == [mechanism]


@pytest.mark.parametrize(
    ("wanted", "required", "missing", "complaint"),
    [
        ("auto", "fuse", (Mechanism.FUSE,), "no fuse"),
        ("kernel", "fuse", (), "held by the kernel tier"),
        ("landlock", "jail", (), "the landlock tier does not use"),
        ("auto", "seccomp", (Mechanism.SECCOMP,), "no seccomp"),
        ("auto", "cgroups", (Mechanism.CGROUPS,), "no cgroups"),
    ],
)
def test_what_is_required_and_not_in_force_is_refused(
    wanted: str, required: str, missing: tuple[Mechanism, ...], complaint: str
) -> None:
    with pytest.raises(HostError, match=complaint):
        choose(host_without(*missing), wanted, [required])


def test_what_is_required_and_in_force_is_fine() -> None:
    assert choose(host_without(), "auto", ["fuse", "jail", "seccomp", "cgroups"]) is Tier.FUSE
    assert choose(host_without(), "kernel", ["kernel", "jail"]) is Tier.KERNEL
    assert choose(host_without(), "landlock", ["landlock", "seccomp"]) is Tier.LANDLOCK
