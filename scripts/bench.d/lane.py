"""Lane start: getting a place to work in, against `git worktree add`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from corpus import LARGE, SMALL, generated
from sample import CACHE, NANOSUP, Options, Sample, say, table, timed

LANES = 4

# What every lane does: says when it has listed the repository, through its jail and its mount.
# It then stays for a while, as agents do, long enough for the next spare keeper to be ready.
_LOOK = ["sh", "-c", "ls > /dev/null && date +%s%N && sleep 0.3"]


def tables(options: Options) -> str:
    """Getting a place to work in: `git worktree add`, and a lane from its being asked for."""
    rounds = options.rounds
    rows = []
    for corpus in [SMALL] if options.quick else [SMALL, LARGE]:
        repository = generated(corpus, CACHE)
        worktree: list[float] = []
        first: list[float] = []
        later: list[float] = []
        looked: list[float] = []
        whole: list[float] = []
        _remove_worktrees(repository, rounds)  # of a bench that was killed
        # In turn, so that a noisy minute of the machine is everybody's.
        for number in range(rounds):
            say(f"{corpus.name}: round {number + 1} of {rounds}")
            # Each waits for its own writes, not for what the other has left to be written.
            os.sync()
            worktree.append(_worktree_add(repository, number))
            os.sync()
            sprint = _sprint(repository)
            looked += sprint.looked_s[1:]
            first.append(sprint.lanes_s[0])
            later += sprint.lanes_s[1:]
            whole.append(sprint.whole_s)
        ours = (Sample(tuple(first)), Sample(tuple(later)))
        theirs = Sample(tuple(worktree))
        # Only now: where many files were just removed, ext4 takes long to find room for new ones.
        _remove_worktrees(repository, rounds)
        shutil.rmtree(repository / ".git/nanosup")
        rows.append(
            [
                f"{corpus.files:,}",
                str(theirs),
                str(ours[0]),
                str(ours[1]),
                str(Sample(tuple(looked))),
                f"{theirs.median / ours[0].median:.1f} ×",
                f"{theirs.median / ours[1].median:.1f} ×",
                str(Sample(tuple(whole))),
            ]
        )
    head = [
        "files",
        "`git worktree add`",
        "first lane of `nanosup up`",
        "every later lane",
        "its first `ls`",
        "ratio, first",
        "ratio, later",
        f"`nanosup up`, {LANES} such lanes one after the other",
    ]
    about = (
        "From the request to the running child: claim, mount, git directory, jail. The first lane\n"
        "of `nanosup up` also waits for the template to be ready, and writes the index that all\n"
        "lanes of its snapshot share. Its first `ls`: from the\n"
        "request until `ls` in the lane has listed the repository and `date` has told, so with a\n"
        "shell and two programs started. Each lane then stays for 0.3 s.\n"
        f"Medians (least–most) of {rounds} rounds.\n"
    )
    return f"## Lane start\n\n{about}\n{table(head, rows)}\n"


@dataclass(frozen=True, slots=True)
class SprintTimes:
    """
    Attributes:
        lanes_s: of each lane, from the request to the running child.
        looked_s: of each lane, from the request until it has listed the repository.
        whole_s: of `nanosup up`.
    """

    lanes_s: tuple[float, ...]
    looked_s: tuple[float, ...]
    whole_s: float


def _sprint(repository: Path) -> SprintTimes:
    """A sprint of LANES lanes that only look, one after the other."""
    phases = [
        {
            "name": f"lane{number}",
            "agents": ["nothing"],
            "network": "none",
            "depends_on": [f"lane{number - 1}"] if number else [],
        }
        for number in range(LANES)
    ]
    command = json.dumps(_LOOK)
    (repository / "nanosup.toml").write_text(f"[agents.nothing]\ncommand = {command}\n")
    up = [str(NANOSUP), "up", "--plain", "--goal", "bench", "--graph", json.dumps(phases)]
    whole_s = timed(up, repository)
    events = subprocess.run(
        [NANOSUP, "events", "--json"], cwd=repository, check=True, stdout=subprocess.PIPE
    ).stdout
    sprints = repository / ".git/nanosup/sprints"
    lanes, looked = [], []
    for event in map(json.loads, events.splitlines()):
        if event["event"] == "attempt.running":
            lanes.append(event["ready_ms"] / 1000)
            phase = sprints / event["sprint"] / "phases" / event["phase"]
            log = phase / "attempts/0001/stdout.log"
            asked_s = datetime.fromisoformat(event["at"]).timestamp() - lanes[-1]
            looked.append(int(log.read_text()) / 1e9 - asked_s)
    return SprintTimes(tuple(lanes), tuple(looked), whole_s)


def _worktree(repository: Path, number: int) -> Path:
    return repository.with_name(f"{repository.name}.worktree{number}")


def _worktree_add(repository: Path, number: int) -> float:
    # What was left to be written out is not for this to wait for, nor what this leaves for others.
    os.sync()
    git = ["git", "-C", str(repository), "worktree", "add", "--quiet", "--detach"]
    taken_s = timed([*git, str(_worktree(repository, number)), "HEAD"])
    os.sync()
    return taken_s


def _remove_worktrees(repository: Path, count: int) -> None:
    for number in range(count):
        shutil.rmtree(_worktree(repository, number), ignore_errors=True)
    subprocess.run(["git", "-C", repository, "worktree", "prune"], check=True)
