"""Lane start: getting a place to work in, against `git worktree add`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from corpus import LARGE, SMALL, generated
from sample import CACHE, NANOSUP, Options, Sample, say, table, timed

LANES = 4


def tables(options: Options) -> str:
    """Getting a place to work in: `git worktree add`, and a lane from claim to running child."""
    rounds = options.rounds
    rows = []
    for corpus in [SMALL] if options.quick else [SMALL, LARGE]:
        repository = generated(corpus, CACHE)
        worktree: list[float] = []
        first: list[float] = []
        later: list[float] = []
        whole: list[float] = []
        # In turn, so that a noisy minute of the machine is everybody's.
        for number in range(rounds):
            say(f"{corpus.name}: round {number + 1} of {rounds}")
            worktree.append(_worktree_add(repository))
            sprint = _sprint(repository)
            first.append(sprint.lanes_s[0])
            later += sprint.lanes_s[1:]
            whole.append(sprint.whole_s)
        ours = (Sample(tuple(first)), Sample(tuple(later)))
        theirs = Sample(tuple(worktree))
        rows.append(
            [
                f"{corpus.files:,}",
                str(theirs),
                str(ours[0]),
                str(ours[1]),
                f"{theirs.median / ours[0].median:.1f} ×",
                f"{theirs.median / ours[1].median:.1f} ×",
                str(Sample(tuple(whole))),
            ]
        )
    head = [
        "files",
        "`git worktree add`",
        "first lane of a sprint",
        "every later lane",
        "ratio, first",
        "ratio, later",
        f"`nanosup up`, {LANES} lanes of `true` one after the other",
    ]
    about = (
        "From claim to running child: mount, git directory, jail. The first lane of a sprint also\n"
        f"writes the index that all its lanes share. Medians (least–most) of {rounds} rounds.\n"
    )
    return f"## Lane start\n\n{about}\n{table(head, rows)}\n"


@dataclass(frozen=True, slots=True)
class SprintTimes:
    lanes_s: tuple[float, ...]
    whole_s: float


def _sprint(repository: Path) -> SprintTimes:
    """A sprint of LANES lanes that do nothing, one after the other."""
    phases = [
        {
            "name": f"lane{number}",
            "agents": ["nothing"],
            "network": "none",
            "depends_on": [f"lane{number - 1}"] if number else [],
        }
        for number in range(LANES)
    ]
    (repository / "nanosup.toml").write_text('[agents.nothing]\ncommand = ["true"]\n')
    up = [str(NANOSUP), "up", "--plain", "--goal", "bench", "--graph", json.dumps(phases)]
    whole_s = timed(up, repository)
    events = subprocess.run(
        [NANOSUP, "events", "--json"], cwd=repository, check=True, stdout=subprocess.PIPE
    ).stdout
    lanes = [
        event["ready_ms"] / 1000
        for event in map(json.loads, events.splitlines())
        if event["event"] == "attempt.running"
    ]
    shutil.rmtree(repository / ".git" / "nanosup")
    return SprintTimes(tuple(lanes), whole_s)


def _worktree_add(repository: Path) -> float:
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        place = str(Path(directory) / "worktree")
        # What the last round left to be written out is not this one's to wait for.
        os.sync()
        git = ["git", "-C", str(repository)]
        taken_s = timed([*git, "worktree", "add", "--quiet", "--detach", place, "HEAD"])
        subprocess.run([*git, "worktree", "remove", "--force", place], check=True)
    return taken_s
