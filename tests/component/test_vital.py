"""Whether an owner lives is known in other PID namespaces of the same kernel, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from supervisor import clock
from supervisor.board import vital
from supervisor.board.owner import liveness, this_process
from supervisor.board.slot import Slot
from supervisor.model.liveness import Liveness
from supervisor.model.record import AttemptState, Outcome

_CLAIM = """
import sys
from supervisor.board.owner import this_process
from supervisor.board.slot import Slot
Slot(sys.argv[1], "it").claim(1, this_process().owner("a", ""))
print(flush=True)
sys.stdin.read()
"""


def slot(path: Path) -> Slot:
    (path / "slot").mkdir()
    return Slot(str(path / "slot"), "it")


@pytest.mark.skipif(os.getuid() != 0, reason="makes a PID namespace")
def test_owner_in_another_pid_namespace_is_seen_to_live_and_to_die(tmp_path: Path) -> None:
    made = slot(tmp_path)
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += [sys.executable, "-c", _CLAIM, made.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdin is not None and owner.stdout is not None
        owner.stdout.readline()
        (claim,) = made.attempts()
        assert claim.owner.pid_ns != this_process().pid_ns
        assert liveness(claim) is Liveness.ALIVE
        owner.stdin.close()
    assert liveness(claim) is Liveness.DEAD


def test_lock_is_given_up_with_the_claim(tmp_path: Path) -> None:
    made = slot(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    claim = made.claim(1, this_process().owner("a", ""))
    assert claim.owner.locks
    assert vital.is_held(claim.path)

    outcome = Outcome(state=AttemptState.RELEASED, ended_at=clock.utc_now())
    made.finish(claim, outcome)
    assert vital.is_held(claim.path) is False
    assert len(os.listdir("/proc/self/fd")) == before


def test_nobody_locks_for_another_process(tmp_path: Path) -> None:
    another = msgspec.structs.replace(this_process().owner("a", ""), pid=1)
    claim = slot(tmp_path).claim(1, another)
    assert not claim.owner.locks
    assert vital.is_held(claim.path) is False


def test_of_what_is_gone_nobody_can_tell(tmp_path: Path) -> None:
    assert vital.is_held(str(tmp_path / "nothing")) is None
