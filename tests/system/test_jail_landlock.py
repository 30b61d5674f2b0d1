"""What landlock adds to a jail's mounts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from sandbox.jail import entry
from sandbox.jail.end import Exited
from sandbox.jail.feature import Features
from tests.keep import Keeper, Who, keep
from tests.system.jailing import features as features
from tests.system.jailing import who as who


@pytest.fixture(autouse=True)
def confined(features: Features) -> None:
    if not features.confined:
        pytest.skip("landlock here is older than ABI 2, or there is no entry for this machine")


@pytest.fixture
def nothing_writable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The mounts allow what they always do, landlock nothing."""
    monkeypatch.setattr(entry, "writable", lambda spec: ())
    yield


PLACES = ("/tmp", "/var/tmp", "/dev/shm", "$HOME", "$NANOSUP_OUTPUTS")


def touch(kept: Keeper) -> tuple[object, str]:
    return kept.run("sh", "-c", f"for at in {' '.join(PLACES)}; do echo x > $at/f; done; true")


@pytest.mark.usefixtures("nothing_writable")
def test_it_refuses_what_the_mounts_would_allow(who: Who, features: Features) -> None:
    _, out = keep(who, features, touch)

    assert out.count("Permission denied") == len(PLACES)


def test_what_the_mounts_allow_it_allows(who: Who, features: Features) -> None:
    assert keep(who, features, touch) == (Exited(0), "")


@pytest.mark.parametrize("kind", ["c 0 0", "c 1 3", "b 8 0"])
def test_a_lane_makes_no_device_nodes(who: Who, features: Features, kind: str) -> None:
    """Not even the one that everybody may make: overlayfs's mark of a deleted file."""
    end, out = keep(who, features, lambda kept: kept.run("sh", "-c", f"mknod /tmp/node {kind}"))

    assert end == Exited(1)
    assert "Permission denied" in out


def test_without_landlock_that_mark_can_be_made(who: Who, features: Features) -> None:
    """The control: it is landlock that refuses."""
    without = replace(features, landlock_abi=0)
    end, _ = keep(who, without, lambda kept: kept.run("sh", "-c", "mknod /tmp/node c 0 0"))

    assert end == Exited(0)


def test_scripts_open_their_own_output_anew(who: Who, features: Features) -> None:
    def act(kept: Keeper) -> tuple[object, str]:
        os.fchown(kept.log, kept.lane.uid, kept.lane.gid)
        return kept.run(
            "sh", "-ec", "echo one > /dev/stderr; echo two >> /dev/stdout; : > /dev/null"
        )

    assert keep(who, features, act) == (Exited(0), "one\ntwo\n")


def test_another_log_of_the_host_cannot_be_opened_through_a_descriptor(
    who: Who, features: Features
) -> None:
    """A descriptor that a lane was given for reading stays one for reading."""

    def act(kept: Keeper) -> tuple[object, str]:
        path = kept.directory / "given"
        path.write_text("given")
        os.chown(path, kept.lane.uid, kept.lane.gid)
        script = "echo x > /proc/self/fd/0; cat"
        with (
            open(path, encoding="utf-8") as given,
            kept.start(kept.spec("sh", "-c", script), stdin=given.fileno()) as jailed,
        ):
            end = jailed.wait(10)
        return end, os.pread(kept.log, 65536, 0).decode()

    end, out = keep(who, features, act)

    assert end == Exited(0)
    assert "Permission denied" in out
    assert out.endswith("given")


def test_processes_may_still_change_what_is_theirs_in_proc(who: Who, features: Features) -> None:
    script = (
        "echo 600 > /proc/self/oom_score_adj && printf name > /proc/$$/comm && cat /proc/$$/comm"
    )
    end, out = keep(who, features, lambda kept: kept.run("sh", "-c", script))

    assert (end, out) == (Exited(0), "name\n")


def test_files_can_be_moved_and_linked_between_directories(who: Who, features: Features) -> None:
    script = (
        "import os; os.makedirs('/tmp/a/d'); os.mkdir('/tmp/b'); open('/tmp/a/f', 'w').close();"
        "os.rename('/tmp/a/f', '/tmp/b/f'); os.link('/tmp/b/f', '/tmp/a/g');"
        "os.rename('/tmp/a/d', '/tmp/b/d')"
    )
    found = keep(who, features, lambda kept: kept.run("/usr/bin/python3", "-c", script))

    assert found == (Exited(0), "")
