"""`nanosup up`, whole: what comes out when agents work, fail, hang, and are killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fleetbox import TIMEOUT_S, Fleet, agent, phase
from tests.gitbox import git

Make = Callable[..., Fleet]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with ExitStack() as stack:

        def made(toml: str, files: dict[str, str | bytes] | None = None) -> Fleet:
            fleet = Fleet(tmp_path / "repo", toml, files)
            stack.callback(fleet.close)
            return fleet

        yield made


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out + err


def is_gone(pid: int) -> bool:
    """Whether a process has ended; waits for it if it is about to."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        import select

        return bool(select.select([fd], [], [], 10)[0])
    finally:
        os.close(fd)


def test_what_build_writes_is_sealed_and_seen_by_what_depends_on_it(make: Make) -> None:
    fleet = make(
        agent("b", "echo built > new.txt; rm readme; mkdir d; echo y > d/z")
        + agent("r", "cat new.txt; cat d/z; test ! -e readme; cp new.txt $NANOSUP_OUTPUTS/seen")
        + phase("build", access="write", agents=["b"])
        + phase("review", depends_on=["build"], agents=["r"], outputs=["seen"])
    )

    done = fleet.run("up", "--goal", "g")

    assert done.returncode == 0, done.stdout + done.stderr
    sprint = fleet.sprint()
    assert sprint["state"] == "completed"
    ref = f"refs/nanosup/{sprint['id']}/build"
    assert git(fleet.top, "ls-tree", "-r", "--name-only", ref) == "d/z\nnanosup.toml\nnew.txt"
    assert fleet.run("artifacts", "show", "review", "seen").stdout == "built\n"
    assert git(fleet.top, "status", "--porcelain") == ""
    assert (fleet.top / "readme").exists()


def test_counters_of_the_file_system_are_shown_when_an_attempt_has_ended(make: Make) -> None:
    fleet = make(
        agent("b", "cat readme readme; echo built > new.txt")
        + phase("build", access="write", agents=["b"])
    )

    assert fleet.run("up").returncode == 0

    counted = fleet.sprint()["phases"][0]["attempts"][0]["mount"]
    assert counted["create"] == 1
    assert counted["write_bytes"] == len("built\n")
    assert counted["blob_miss"] == 1, "the second read is the kernel's own to answer"
    assert counted["operations"] > 5


def test_reader_is_refused_by_the_kernel(make: Make) -> None:
    script = "(echo x > readme) 2>&1 || true; (rm readme) 2>&1 || true; (mkdir .git/x) 2>&1 || true"
    fleet = make(agent("r", script) + phase("review", agents=["r"]))

    assert fleet.run("up").returncode == 0

    assert fleet.run("logs", "review").stdout.count("Read-only file system") == 3


def test_script_may_open_its_own_stderr(make: Make) -> None:
    fleet = make(agent("a", "echo heard > /dev/stderr; echo said > /dev/stdout") + phase("p"))

    assert fleet.run("up").returncode == 0

    assert fleet.run("logs", "p").stdout == "said\nheard\n"


def test_failed_attempt_is_retried_and_carries_on_what_it_wrote(make: Make) -> None:
    fleet = make(
        agent("b", "echo $NANOSUP_ATTEMPT >> log; test $NANOSUP_ATTEMPT -ge 2")
        + phase("build", access="write", restarts=1)
    )

    assert fleet.run("up").returncode == 0

    assert fleet.states("build") == ["failed", "completed"]
    assert fleet.attempts("build")[0]["exit"] == {"code": 1}
    head = git(fleet.top, "for-each-ref", "--format=%(refname)", "refs/nanosup")
    assert git(fleet.top, "show", f"{head}:log") == "1\n2"
    assert (fleet.lane("build", 1) / "upper/log").read_text() == "1\n"


def test_fresh_attempt_starts_from_the_snapshot(make: Make) -> None:
    fleet = make(
        agent("b", "echo $NANOSUP_ATTEMPT >> log; test $NANOSUP_ATTEMPT -ge 2")
        + phase("build", access="write", carry="fresh")
    )

    assert fleet.run("up").returncode == 0

    head = git(fleet.top, "for-each-ref", "--format=%(refname)", "refs/nanosup")
    assert git(fleet.top, "show", f"{head}:log") == "2"


def test_next_agent_takes_over(make: Make) -> None:
    fleet = make(
        agent("bad", "exit 3") + agent("good", "true")
        + phase("p", agents=["bad", "good"], restarts=0)
    )  # fmt: skip

    assert fleet.run("up").returncode == 0

    assert [a["agent"] for a in fleet.attempts("p")] == ["bad", "good"]


def test_phase_that_fails_for_good_blocks_only_what_depends_on_it(make: Make) -> None:
    fleet = make(
        agent("a", 'test "$NANOSUP_PHASE" != bad')
        + phase("bad", restarts=0)
        + phase("after", depends_on=["bad"])
        + phase("other")
    )

    done = fleet.run("up")

    assert done.returncode == 1
    assert {p["name"]: p["state"] for p in fleet.sprint()["phases"]} == {
        "bad": "failed",
        "after": "blocked",
        "other": "completed",
    }
    assert fleet.sprint()["state"] == "failed"
    assert "exit status 1" in done.stdout


@pytest.mark.parametrize(
    ("script", "keys", "state", "end", "said"),
    [
        ("exit 7", {}, "failed", {"code": 7}, "exit status 7"),
        ("kill -SEGV $$", {}, "failed", {"signal": 11}, "killed by SIGSEGV"),
        ("true", {"outputs": ["x.json"]}, "failed", {"code": 0}, "'x.json' is missing"),
        ("ln -s /etc/passwd $NANOSUP_OUTPUTS/x", {}, "failed", {"code": 0}, "symbolic link"),
        ("sleep 60", {"timeout_s": 0.5}, "timed_out", {"signal": 15}, "timeout_s = 0.5"),
        ("sleep 60", {"stall_s": 0.5}, "stalled", {"signal": 15}, "stall_s = 0.5"),
        (
            "trap '' TERM; while :; do sleep 1 & wait; done",
            {"timeout_s": 0.5, "grace_s": 0.5},
            "timed_out",
            {"signal": 9},
            "timeout_s",
        ),
    ],
)
def test_end_of_an_attempt_is_recorded_as_what_it_is(
    make: Make, script: str, keys: dict[str, Any], state: str, end: dict[str, int], said: str
) -> None:
    fleet = make(agent("a", script) + phase("p", restarts=0, **keys))

    assert fleet.run("up").returncode == 1

    (attempt,) = fleet.attempts("p")
    assert (attempt["state"], attempt["exit"]) == (state, end)
    assert said in attempt["reason"]


def test_command_that_is_not_there_is_said_to_be_so(make: Make) -> None:
    fleet = make('[agents.a]\ncommand = ["no-such-agent-here"]\n' + phase("p"))

    done = fleet.run("up")

    assert done.returncode == 10
    assert "'no-such-agent-here' is not on PATH" in done.stderr
    assert not (fleet.board / "sprints").exists()


def test_slow_agent_that_prints_is_not_taken_for_stalled(make: Make) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 0.3; echo $i; done"
    fleet = make(agent("a", script) + phase("p", stall_s=1.2))

    assert fleet.run("up").returncode == 0


def test_daemon_left_behind_dies_with_the_lane(make: Make) -> None:
    fleet = make(
        agent("a", "setsid sh -c 'sleep 1000 & exec sleep 1000' > /tmp/out 2>&1 & sleep 0.2")
        + phase("p")
    )  # fmt: skip

    assert fleet.run("up").returncode == 0

    left = subprocess.run(["pgrep", "-f", "^sleep 1000$"], capture_output=True, text=True)
    assert left.stdout == ""


def test_writers_take_turns_and_the_second_starts_from_the_first(make: Make) -> None:
    fleet = make(
        agent("a", "echo $NANOSUP_PHASE >> log; cat log")
        + phase("one", access="write")
        + phase("two", access="write")
        + phase("three", access="write")
    )

    assert fleet.run("up").returncode == 0

    refs = git(fleet.top, "for-each-ref", "--format=%(refname)", "refs/nanosup").split()
    logs = {git(fleet.top, "show", f"{ref}:log") for ref in refs}
    assert "one\ntwo\nthree" in logs
    writing = 0
    for event in fleet.journal():
        if event["event"] == "attempt.claimed":
            writing += 1
            assert writing == 1
        elif event["event"] == "attempt.ended":
            writing -= 1


def test_readers_run_side_by_side_up_to_max_lanes(make: Make) -> None:
    names = ["a", "b", "c", "d"]
    fleet = make(
        "[workspace]\nmax_lanes = 2\n\n"
        + agent("x", "sleep 0.3")
        + "".join(phase(name) for name in names)
    )

    assert fleet.run("up").returncode == 0

    at_once, most = 0, 0
    for event in fleet.journal():
        at_once += {"attempt.claimed": 1, "attempt.ended": -1}.get(event["event"], 0)
        most = max(most, at_once)
    assert most == 2


def test_inputs_are_read_only_and_carry_what_upstream_made(make: Make) -> None:
    fleet = make(
        agent(
            "a",
            'if [ "$NANOSUP_PHASE" = plan ]; then echo \'{"k": 1}\' > $NANOSUP_OUTPUTS/plan.json;'
            " else cat $NANOSUP_INPUTS/plan/plan.json;"
            " ! (echo x > $NANOSUP_INPUTS/plan/plan.json) 2>/dev/null; fi",
        )
        + phase("plan", outputs=["plan.json"])
        + phase("mid", depends_on=["plan"])
        + phase("last", depends_on=["mid"])
    )

    assert fleet.run("up").returncode == 0

    assert fleet.run("logs", "last").stdout == '{"k": 1}\n'


def test_changed_artifact_stops_its_branch_and_is_named(make: Make) -> None:
    fleet = make(
        agent("a", "echo x > $NANOSUP_OUTPUTS/f")
        + agent("stop", "exit 1")
        + phase("plan", agents=["a"])
        + phase("after", depends_on=["plan"], agents=["stop"], restarts=5)
        + phase("other", agents=["a"])
    )
    up = fleet.start("up")
    with fleet.events() as wait:
        wait("attempt.ended", phase="after", attempt=1)
        (artifact,) = (
            a for a in fleet.json("artifacts", "list")["artifacts"] if a["phase"] == "plan"
        )
        blob = fleet.board / f"blobs/sha256/{artifact['sha256'][:2]}/{artifact['sha256']}"
        blob.chmod(0o644)
        blob.write_text("forged\n")

        code, said = finish(up)

    assert code == 16, said
    assert artifact["sha256"] in said
    assert "plan/f" in said
    verdict = fleet.run("artifacts", "verify", "--json")
    assert verdict.returncode == 16
    assert fleet.phase("other")["state"] == "completed"


def test_ctrl_c_ends_lanes_gracefully_and_up_goes_on_later(make: Make) -> None:
    fleet = make(
        agent("a", "echo $NANOSUP_ATTEMPT >> log; test $NANOSUP_ATTEMPT -gt 1 || sleep 100")
        + phase("build", access="write", restarts=0)
    )
    up = fleet.start("up")
    with fleet.events() as wait:
        running = wait("attempt.running")

    up.send_signal(signal.SIGINT)
    code, said = finish(up)

    assert code == 130, said
    assert fleet.states("build") == ["revoked"]
    assert fleet.sprint()["state"] == "stopped"
    assert is_gone(running["child_pid"])
    assert fleet.run("up").returncode == 0
    assert fleet.states("build") == ["revoked", "completed"]
    ref = git(fleet.top, "for-each-ref", "--format=%(refname)", "refs/nanosup")
    assert git(fleet.top, "show", f"{ref}:log") == "1\n2"


def test_second_ctrl_c_does_not_wait_for_the_grace(make: Make) -> None:
    fleet = make(
        agent("a", "trap '' TERM INT; echo deaf; while :; do sleep 1 & wait; done")
        + phase("p", grace_s=600)
    )
    up = fleet.start("up")
    with fleet.events() as wait:
        wait("attempt.running")
        logs = fleet.start("logs", "-f", "p")
        assert logs.stdout is not None
        assert logs.stdout.readline() == "deaf\n"

        up.send_signal(signal.SIGINT)
        wait("up.stopping")  # two signals at once would be one
        up.send_signal(signal.SIGINT)
        code, said = finish(up)

    assert code == 130, said
    assert fleet.states("p") == ["revoked"]


def test_lane_runs_on_when_up_is_killed_and_the_next_up_finds_it(make: Make) -> None:
    fleet = make(
        agent("a", "true")
        + agent(
            "waits", "echo one; until [ -e $NANOSUP_OUTPUTS/go ]; do sleep 0.05; done; echo two"
        )
        + phase("p", agents=["waits"], restarts=0)
        + phase("after", agents=["a"], depends_on=["p"])
    )
    up = fleet.start("up")
    with fleet.events() as wait:
        running = wait("attempt.running")
    up.kill()
    up.communicate()
    os.kill(running["child_pid"], 0)
    assert fleet.phase("p")["state"] == "running"

    again = fleet.start("up")
    (fleet.lane("p") / "outputs/go").touch()
    code, said = finish(again)

    assert code == 0, said
    assert fleet.states("p") == ["completed"]
    assert fleet.run("logs", "p").stdout == "one\ntwo\n"


def test_killed_keeper_takes_its_lane_with_it_and_the_next_attempt_goes_on(make: Make) -> None:
    fleet = make(
        agent("a", "echo $NANOSUP_ATTEMPT >> log; test $NANOSUP_ATTEMPT -gt 1 || sleep 100")
        + phase("build", access="write", restarts=1)
    )
    up = fleet.start("up")
    with fleet.events() as wait:
        running = wait("attempt.running")
        follow = fleet.lane("build") / "upper/log"
        while not follow.exists() or not follow.read_text():
            pass
        keeper = fleet.attempts("build")[0]["pid"]

        os.kill(keeper, signal.SIGKILL)
        code, said = finish(up)

    assert code == 0, said
    assert is_gone(running["child_pid"])
    assert fleet.states("build") == ["lost", "completed"]
    ref = git(fleet.top, "for-each-ref", "--format=%(refname)", "refs/nanosup")
    assert git(fleet.top, "show", f"{ref}:log") == "1\n2"


def test_lane_is_lost_when_its_file_system_server_is_killed(make: Make) -> None:
    fleet = make(
        agent("a", "echo $NANOSUP_ATTEMPT >> log; test $NANOSUP_ATTEMPT -gt 1 || sleep 100")
        + phase("build", access="write", restarts=1)
    )
    up = fleet.start("up")
    with fleet.events() as wait:
        running = wait("attempt.running")
        server = fleet.attempts("build")[0]["server_pid"]

        os.kill(server, signal.SIGKILL)
        code, said = finish(up)

    assert code == 0, said
    assert is_gone(running["child_pid"])
    assert fleet.states("build") == ["lost", "completed"]
    assert "its server died" in fleet.attempts("build")[0]["reason"]


def test_second_up_on_the_same_sprint_is_refused(make: Make) -> None:
    fleet = make(agent("a", "sleep 100") + phase("p"))
    up = fleet.start("up")
    with fleet.events() as wait:
        wait("attempt.running")

    second = fleet.run("up")
    down = fleet.run("down")
    code, _ = finish(up)

    assert second.returncode == 19
    assert "another `nanosup up` runs sprint" in second.stderr
    assert down.returncode == 0
    assert "phase p.1" in down.stdout
    assert code == 143
    assert fleet.states("p") == ["revoked"]


def test_detached_up_runs_to_the_end(make: Make) -> None:
    fleet = make(agent("a", "true") + phase("p"))

    done = fleet.run("up", "--detach")
    assert done.returncode == 0, done.stderr
    with fleet.events() as wait:
        ended = wait("sprint.ended")

    assert ended["state"] == "completed"
    assert done.stdout.strip() == fleet.sprint()["id"]


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", 137), ("exit 200", 200)],
)
def test_run_returns_the_commands_own_status(make: Make, script: str, status: int) -> None:
    fleet = make(agent("a", "true") + phase("p"))

    assert fleet.run("run", "p", "--", "sh", "-c", script).returncode == status


def test_run_refuses_what_cannot_be_claimed(make: Make) -> None:
    fleet = make(agent("a", "true") + phase("p") + phase("q", depends_on=["p"]))

    assert fleet.run("run", "nope", "--", "true").returncode == 11
    assert fleet.run("run", "q", "--", "true").returncode == 13
    assert fleet.run("run", "p", "--", "no-such-command").returncode == 127
    assert fleet.run("run", "p", "--", "/etc/passwd").returncode == 126
    assert fleet.run("run", "p", "--", "true").returncode == 0
    assert fleet.run("run", "p", "--", "true").returncode == 14


def test_next_names_what_can_be_picked_up(make: Make) -> None:
    fleet = make(agent("a", "true") + phase("p") + phase("q", depends_on=["p"]))

    fleet.run("run", "p", "--", "false")
    assert fleet.run("next").stdout == "p\n"
    assert fleet.json("next") == {"next": "p", "ready": ["p"], "waiting": {"q": "waits for p"}}
    fleet.run("run", "p", "--", "true")
    assert fleet.run("next").stdout == "q\n"
    fleet.run("run", "q", "--", "true")
    assert fleet.run("next").stdout == ""


def test_fault_of_the_template_is_one_line(make: Make) -> None:
    fleet = make(agent("a", "true") + phase("p"))
    fleet.env["PYTHONPATH"] = str(fleet.top / "broken")
    (fleet.top / "broken/pyfuse3").mkdir(parents=True)
    (fleet.top / "broken/pyfuse3/__init__.py").write_text("raise SystemExit(3)\n")

    done = fleet.run("up", "--plain")

    assert done.returncode == 98
    assert "no keeper could be started" in done.stderr
    assert "Traceback" not in done.stderr
