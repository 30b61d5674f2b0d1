from __future__ import annotations

import resource

import pytest

from sandbox.jail.limit import DEFAULT_PROCESSES, Limits, Means, bytes_of, plan, unmet

SECOND = Means(version=2, controllers=frozenset(("memory", "pids", "cpu")), own_processes=True)
FIRST = Means(version=1, controllers=frozenset(("memory", "pids", "cpu")), own_processes=True)
NONE = Means(own_processes=True)
EVERYTHING = Limits(memory=1 << 30, pids=64, cpu=1.5, disk=1 << 20, open_files=99, processes=50)


def files(limits: Limits, means: Means) -> dict[str, str]:
    return {file: content for _, file, content in plan(limits, means).group}


def test_a_group_of_version_2_is_told_everything() -> None:
    assert files(EVERYTHING, SECOND) == {
        "pids.max": "66",
        "memory.max": str(1 << 30),
        "memory.swap.max?": "0",
        "cpu.max": "150000 100000",
    }


def test_a_group_of_version_1_is_told_the_same_in_its_words() -> None:
    assert files(EVERYTHING, FIRST) == {
        "pids.max": "66",
        "memory.limit_in_bytes": str(1 << 30),
        "memory.memsw.limit_in_bytes?": str(1 << 30),
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
    }


@pytest.mark.parametrize("means", [FIRST, SECOND])
def test_with_a_group_nothing_is_missing(means: Means) -> None:
    found = plan(EVERYTHING, means)

    assert not found.weak
    assert not found.missing


def test_without_a_group_processes_are_still_counted_for_the_lane() -> None:
    found = plan(Limits(pids=64), NONE)

    assert found.resources[resource.RLIMIT_NPROC] == 65
    assert not found.missing


def test_without_a_group_what_is_left_is_said() -> None:
    found = plan(EVERYTHING, NONE)

    assert found.resources[resource.RLIMIT_DATA] == 1 << 30
    assert set(found.weak) == {"memory"}
    assert set(found.missing) == {"cpu"}


def test_processes_that_are_counted_for_the_user_are_not_limited() -> None:
    """Else a lane could fork or not, depending on what else its user does."""
    found = plan(Limits(processes=64, pids=70), Means())

    assert resource.RLIMIT_NPROC not in found.resources
    assert "processes" in found.missing


def test_a_lane_without_limits_cannot_fork_without_end() -> None:
    assert plan(Limits(), NONE).resources == {resource.RLIMIT_NPROC: DEFAULT_PROCESSES + 1}


def test_a_file_may_be_as_large_as_the_lane() -> None:
    assert plan(Limits(disk=1 << 20), SECOND).resources[resource.RLIMIT_FSIZE] > 1 << 20


def test_only_what_is_required_is_unmet() -> None:
    limits = EVERYTHING.over(Limits(required=("cpu", "disk", "pids")))

    assert set(unmet(limits, plan(limits, NONE))) == {"cpu"}
    assert not unmet(EVERYTHING, plan(EVERYTHING, NONE))


def test_a_phase_goes_before_its_agent() -> None:
    merged = Limits(memory=1, required=("memory",)).over(
        Limits(memory=2, pids=3, required=("pids",))
    )

    assert (merged.memory, merged.pids) == (1, 3)
    assert set(merged.required) == {"memory", "pids"}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4G", 4 << 30),
        ("512m", 512 << 20),
        ("1.5GiB", 3 << 29),
        ("100kB", 100 << 10),
        ("17", 17),
        ("", None),
        ("G", None),
        ("-1G", None),
        ("0", None),
        ("nan", None),
        ("inf", None),
        ("1e40", None),
        ("4 apples", None),
    ],
)
def test_sizes_are_read(text: str, size: int | None) -> None:
    assert bytes_of(text) == size


def test_without_a_user_namespace_the_users_other_processes_come_on_top() -> None:
    means = Means(others=30)

    asked = plan(Limits(processes=100), means)
    unasked = plan(Limits(), means)

    assert asked.resources[6] == 130
    assert "together" in asked.weak["processes"]
    assert unasked.resources[6] == 30 + DEFAULT_PROCESSES
    assert unasked.weak == unasked.missing == {}


def test_no_more_is_given_than_there_is_to_give() -> None:
    """Else a host on which `ulimit -u` is lower than what lanes have would start none at all."""
    means = Means(own_processes=True, ceilings={resource.RLIMIT_NPROC: 2000})

    assert plan(Limits(), means).resources == {resource.RLIMIT_NPROC: 2000}
    assert plan(Limits(processes=50), means).resources == {resource.RLIMIT_NPROC: 51}
