"""Nothing gets out of a lane, and what tries to would if nothing protected."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from sandbox.probe import host
from sandbox.tiers.tier import Tier, lacking
from tests.fleetbox import NANOSUP
from tests.ordinary import ordinary_user, why_not

LIMIT_S = 240


def redteam(*args: str) -> Any:
    done = subprocess.run(
        [NANOSUP, "redteam", "--json", *args],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    return report(done)


def redteam_as_user(*args: str) -> Any:
    with ordinary_user() as user:
        command = user.command(NANOSUP, "redteam", "--json", *args)
        done = subprocess.run(
            command,
            cwd="/",
            env=user.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    return report(done)


def report(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["ok"] == (done.returncode == 0)
    return found


def needs(tier: Tier) -> None:
    if missing := lacking(host.probe(), tier):
        pytest.skip(f"{tier.value}: {missing[0].detail}")


def check(found: Any, *tiers: Tier) -> None:
    through = [row for row in found["attempts"] if row["result"] != "stopped"]
    assert through == []
    lanes = {(row["tier"], row["access"]) for row in found["attempts"]}
    expected = {(tier.value, access) for tier in tiers for access in ("read", "write")}
    assert lanes == expected | {(tier.value, "net") for tier in tiers if tier.namespaced}
    for lane in expected:
        assert sum((row["tier"], row["access"]) == lane for row in found["attempts"]) > 80
    assert found["ok"]


def test_everything_is_stopped_in_lanes_with_mounts() -> None:
    needs(Tier.FUSE)

    check(redteam("--tier", "fuse"), Tier.FUSE)


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_everything_is_stopped_without_namespaces_for_an_ordinary_user() -> None:
    """Where an agent is nobody else than the user himself, and only landlock and the warden are
    between them."""
    needs(Tier.LANDLOCK)

    check(redteam_as_user("--tier", "landlock"), Tier.LANDLOCK)


@pytest.mark.long
@pytest.mark.parametrize("who", ["root", "user"])
def test_everything_is_stopped_and_the_control_gets_through(who: str) -> None:
    for tier in Tier:
        needs(tier)
    if who == "user" and why_not():
        pytest.skip(why_not())
    if who == "root" and os.getuid() != 0:
        pytest.skip("not run as root")

    found = redteam("--control") if who == "root" else redteam_as_user("--control")

    check(found, *Tier)
    assert [row for row in found["control"] if row["result"] != "escaped"] == []
    assert len(found["control"]) > 100
