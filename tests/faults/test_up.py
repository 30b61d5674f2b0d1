"""`nanosup up` itself: its signals, its hooks, who reads it, and what it is short of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faultbox import Make, await_true, finish, phase, stand_in
from tests.fleetbox import NANOSUP, TIMEOUT_S
from tests.gitbox import git


@contextmanager
def disposition(number: signal.Signals, handler: signal.Handlers) -> Iterator[None]:
    """What is started meanwhile inherits it."""
    kept = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, kept)


def hook(script: str, timeout_s: float = 10) -> str:
    command = json.dumps(["/bin/sh", "-c", script])
    return f"[hooks]\non_event = {command}\ntimeout_s = {timeout_s}\n\n"


def test_hook_is_told_of_everything_in_order_and_the_last_before_up_ends(make: Make) -> None:
    scenario = make(hook("cat >> ../told") + stand_in("a", "") + phase("p"))

    assert scenario.run("up").returncode == 0

    told = [json.loads(line) for line in (scenario.top.parent / "told").read_text().splitlines()]
    assert told == scenario.journal()
    assert told[-1]["event"] == "up.ended"
    scenario.check_completed()


def test_hook_that_hangs_or_fails_holds_up_nothing_and_is_reported(make: Make) -> None:
    scenario = make(
        hook('case $NANOSUP_EVENT in up.started) sleep 1000;; *) exit 7;; esac', timeout_s=0.5)
        + stand_in("a", "") + phase("p")
    )  # fmt: skip

    assert scenario.run("up").returncode == 0

    failed = [e for e in scenario.journal() if e["event"] == "hook.failed"]
    assert ("up.started", "killed after timeout_s = 0.5") in {
        (e["on"], e["reason"]) for e in failed
    }
    assert "exit status 7" in {e["reason"] for e in failed}
    assert not any(e["on"].startswith("hook") for e in failed)
    scenario.check_completed()


def test_hook_that_is_not_there_is_said_before_anything_starts(make: Make) -> None:
    scenario = make('[hooks]\non_event = ["no-such-hook"]\n' + stand_in("a", "") + phase("p"))

    done = scenario.run("up")

    assert done.returncode == 10
    assert "hooks.on_event: 'no-such-hook' is not on PATH" in done.stderr


def test_hook_that_a_lane_has_written_is_not_run_unasked(make: Make) -> None:
    evil = hook("touch ../planted")
    scenario = make(
        stand_in("a", f"n == 1 and save('nanosup.toml', {evil!r} + open('nanosup.toml').read())")
        + phase("p", access="write")
    )
    assert scenario.run("up").returncode == 0
    git(scenario.top, "merge", "-q", f"refs/nanosup/{scenario.sprint()['id']}/p")

    refused = scenario.run("up")

    assert refused.returncode == 10
    assert "[hooks] was written in a lane, by phase 'p'" in refused.stderr
    assert not (scenario.top.parent / "planted").exists()
    scenario.env["NANOSUP_TRUST_HOOKS"] = "1"
    assert scenario.run("up").returncode == 0
    assert (scenario.top.parent / "planted").exists()


def test_reader_of_up_that_stops_reading_holds_up_no_lane(make: Make) -> None:
    names = [f"p{n}" for n in range(3)]
    # Each event is long enough to fill the pipe (64 KiB) before the first phase has ended.
    scenario = make("[workspace]\nmax_lanes = 1\n" + stand_in("a", "") + "".join(map(phase, names)))
    up = scenario.start("up", "--json", "--goal", "g" * 60000)
    follow = scenario.start("events", "-f", "--json")

    await_true(
        lambda: scenario.sprints() and scenario.sprint()["state"] == "completed", "all phases"
    )

    assert up.poll() is None or up.returncode == 0
    code, said = finish(up)
    assert code == 0
    assert '"sprint.ended"' in said
    follow.kill()
    scenario.check_completed()


def test_nobody_reads_up_any_more_and_it_goes_on(make: Make) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p") + phase("q", depends_on=["p"]))
    up = scenario.start("up", "--json")
    scenario.await_entry("waits", "p")
    assert up.stdout is not None
    up.stdout.close()

    scenario.release("p")
    scenario.release("q")

    assert up.wait(TIMEOUT_S) == 0
    up.stdout = None
    scenario.check_completed()


def test_lost_terminal_ends_up_and_leaves_its_lanes(make: Make) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p"))
    with disposition(signal.SIGHUP, signal.SIG_DFL):
        up = scenario.up()
    scenario.await_entry("waits", "p")

    up.send_signal(signal.SIGHUP)

    assert finish(up)[0] == 129
    assert scenario.states("p") == ["running"]
    scenario.release("p")
    scenario.complete()
    assert scenario.states("p") == ["completed"]


def test_under_nohup_a_lost_terminal_changes_nothing(make: Make) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p"))
    with disposition(signal.SIGHUP, signal.SIG_IGN):
        up = scenario.up()
    scenario.await_entry("waits", "p")

    up.send_signal(signal.SIGHUP)
    scenario.release("p")

    assert finish(up)[0] == 0
    scenario.check_completed()


@pytest.mark.parametrize(
    "fault", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.long)]
)
def test_template_that_dies_is_replaced(make: Make, fault: signal.Signals) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p") + phase("q", depends_on=["p"]))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    (template,) = (
        pid for pid in scenario.processes()
        if b"supervisor.fleet.forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
        and Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1] == str(up.pid)
    )  # fmt: skip

    os.kill(template, fault)
    scenario.release("p")
    scenario.release("q")

    code, said = finish(up)
    assert code == 0, said
    scenario.check_completed()


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGTERM])
def test_a_spare_keeper_that_dies_is_not_missed(make: Make, fault: signal.Signals) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p") + phase("q", depends_on=["p"]))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    (keeper,) = (view["pid"] for view in scenario.attempts("p"))

    def spares() -> list[int]:
        (template,) = (
            pid for pid in children(up.pid)
            if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )  # fmt: skip
        return [pid for pid in children(template) if pid != keeper]

    await_true(lambda: len(spares()) == 1, "a spare keeper")
    os.kill(spares()[0], fault)
    scenario.release("p")
    scenario.release("q")

    code, said = finish(up)
    assert code == 0, said
    assert scenario.states("q") == ["completed"]
    scenario.check_completed()


@pytest.mark.skipif(os.getuid() != 0, reason="a PID namespace without a user namespace takes root")
def test_as_process_1_it_waits_for_orphans(make: Make) -> None:
    scenario = make(
        hook("(sleep 0.05 & sleep 0.1 &)")  # two that are nobody's children soon
        + stand_in("a", "wait()") + phase("p")
    )  # fmt: skip
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", NANOSUP, "up"]
    process = subprocess.Popen(
        command, cwd=scenario.top, env=scenario.env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    scenario.await_entry("waits", "p")
    (up,) = children(process.pid)
    await_true(lambda: not any(is_zombie(pid) for pid in children(up)), "the orphans to be gone")

    scenario.release("p")

    said, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, said
    assert "hook.failed" not in said  # nobody took the hook's status away
    assert scenario.states("p") == ["completed"]


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return False


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-", ">/dev/full"])
def test_with_nothing_to_print_to_it_works_all_the_same(make: Make, closed: str) -> None:
    scenario = make(stand_in("a", "say('x')") + phase("p"))

    done = subprocess.run(
        ["sh", "-c", f'"$0" up --plain {closed}', NANOSUP],
        cwd=scenario.top, env=scenario.env, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip

    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    scenario.check_completed()


def test_killed_at_any_moment_of_a_start_it_leaves_no_complaint(make: Make) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p"))
    up = scenario.up()
    await_true(lambda: scenario.processes(), "the template")
    await_true(lambda: (scenario.board / "keeper.log").exists(), "the template")
    template = template_of(up.pid)
    os.kill(template, signal.SIGSTOP)
    # It has asked for a keeper by the time that it waits for what comes of it.
    await_true(lambda: any(e["event"] == "up.started" for e in scenario.journal()), "the sprint")
    await_true(lambda: is_asleep(up.pid), "an order to be on its way, unanswered")
    os.kill(up.pid, signal.SIGKILL)
    finish(up)
    os.kill(template, signal.SIGCONT)

    scenario.release("p")
    scenario.complete()
    assert (scenario.board / "keeper.log").read_text() == ""


def is_asleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "S"


def template_of(up: int) -> int:
    children = Path(f"/proc/{up}/task/{up}/children")
    await_true(lambda: children.read_text().split(), "the template")
    return int(children.read_text().split()[0])
