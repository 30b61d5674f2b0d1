"""Logs: every byte that was printed, within a bound, whatever happens to their files."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faultbox import Make, Scenario, await_true, finish, phase, stand_in
from tests.fleetbox import NANOSUP


def raw(scenario: Scenario, *args: str) -> bytes:
    return subprocess.run(
        [NANOSUP, "logs", "p", "--raw", *args],
        cwd=scenario.top,
        env=scenario.env,
        capture_output=True,
        check=True,
    ).stdout


def test_log_is_byte_for_byte_what_was_printed(make: Make) -> None:
    odd = b"\0\xff\xc3\xa4 \xe2\x82\x1b[31mred\x1b]0;title\x07\r\n" + b"y" * 70_000 + b"\n\xf0\x9f"
    scenario = make(stand_in("a", f"say({odd!r}); say(b'no newline')") + phase("p"))

    assert finish(scenario.up())[0] == 0

    assert raw(scenario) == odd + b"no newline"
    shown = scenario.run("logs", "p").stdout
    assert "\x1b" not in shown
    assert "\0" not in shown
    assert "red\n" in shown
    assert shown.endswith("no newline\n")
    scenario.check_completed()


@pytest.mark.parametrize(
    ("total", "limit"),
    [(48 << 20, 4 << 20), pytest.param(1 << 30, 64 << 20, marks=pytest.mark.long)],
)
def test_flood_without_a_newline_is_bounded_and_its_loss_is_counted(
    make: Make, total: int, limit: int
) -> None:
    script = f"""
block = bytes(range(1, 256)) * 257
left = {total}
while left:
    left -= os.write(1, block[:min(left, len(block))])
wait()
"""
    scenario = make(
        f"[workspace]\nlog_limit = {limit}\n\n" + stand_in("a", script) + phase("p", stall_s=60)
    )
    up = scenario.up()
    scenario.await_entry("waits", "p")
    log = scenario.log("p")
    await_true(lambda: log.stat().st_blocks * 512 <= limit, "the log within its bound")
    keeper = scenario.attempts("p")[0]["pid"]
    peak = next(
        int(line.split()[1]) << 10
        for line in Path(f"/proc/{keeper}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    scenario.release("p")

    assert finish(up)[0] == 0
    assert peak < 150 << 20
    assert log.stat().st_size == total
    (dropped,) = (e for e in scenario.journal() if e["event"] == "log.dropped")
    kept = total - dropped["bytes"]
    assert limit // 2 < kept <= limit
    done = scenario.run("logs", "p", "--stdout")
    assert f"{dropped['bytes']} bytes of stdout.log before this were dropped" in done.stderr
    block = bytes(range(1, 256)) * 257
    whole = (block * (total // len(block) + 1))[:total]
    kept_digest = hashlib.sha256(whole[dropped["bytes"] :]).hexdigest()
    assert hashlib.sha256(raw(scenario, "--stdout")).hexdigest() == kept_digest


def test_log_that_was_deleted_meanwhile_is_there_again(make: Make) -> None:
    scenario = make(stand_in("a", "say('before'); wait(); say('after')") + phase("p"))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    scenario.log("p").unlink()
    scenario.release("p")

    assert finish(up)[0] == 0
    assert raw(scenario) == b"before\nafter\n"
    assert any(e["event"] == "log.restored" for e in scenario.journal())
    scenario.check_completed()


def test_follower_sees_all_attempts_and_then_the_end(make: Make) -> None:
    scenario = make(
        stand_in("a", "say(f'this is {n}'); wait(); sys.exit(n < 3)")
        + stand_in("b", "wait()")
        + phase("p", agents=["a"], restarts=3, backoff_s=0)
        + phase("q", agents=["b"], depends_on=["p"])
    )
    up = scenario.up()
    scenario.await_entry("waits", "p")
    follow = scenario.start("logs", "-f", "p")
    for n in (1, 2, 3):
        assert follow.stdout is not None
        assert follow.stdout.readline() == f"this is {n}\n"
        scenario.release("p", n)

    out, err = follow.communicate(timeout=30)
    assert (out, follow.returncode) == ("", 0)
    assert err == "==> p.2 (a)\n==> p.3 (a)\n"
    scenario.release("q")
    assert finish(up)[0] == 0


def await_begun(scenario: Scenario, times: int) -> None:
    """Returns once `up` has begun for so many times."""

    def begun() -> int:
        return sum(event["event"] == "up.started" for event in scenario.journal())

    await_true(lambda: begun() == times, "up")


def test_output_goes_on_without_a_gap_while_up_is_killed_again_and_again(make: Make) -> None:
    script = "for i in range(400): say(f'line {i}'); time.sleep(0.01)"
    scenario = make(stand_in("a", script) + phase("p", restarts=0))
    for times in (1, 2):
        up = scenario.up()
        scenario.await_entry("said", "p")
        await_begun(scenario, times)
        up.kill()
        up.communicate()

    assert finish(scenario.up())[0] == 0
    assert raw(scenario) == b"".join(b"line %d\n" % i for i in range(400))
    assert scenario.states("p") == ["completed"]
    scenario.check_completed()


def test_log_that_a_directory_was_put_in_place_of_is_there_again(make: Make) -> None:
    scenario = make(stand_in("a", "say('before'); wait(); say('after')") + phase("p"))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    scenario.log("p").unlink()
    (scenario.log("p") / "in it").mkdir(parents=True)
    scenario.release("p")

    assert finish(up)[0] == 0
    assert raw(scenario) == b"before\nafter\n"
    scenario.check_completed()


@pytest.mark.parametrize("make_one", [os.mkdir, os.mkfifo])
def test_what_is_in_a_logs_place_is_named(make: Make, make_one: Callable[[Path], None]) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p"))
    scenario.up()
    scenario.await_entry("waits", "p")
    log = scenario.log("p")
    log.unlink()
    make_one(log)

    done = scenario.run("logs", "p")

    assert done.returncode == 20, done.stderr
    assert f"{log} cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
    scenario.release("p")
