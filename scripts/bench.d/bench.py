"""Measures, prints tables, and with --write puts them into docs/performance.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from corpus import LARGE, SMALL, Corpus, generated

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "bench"
PAGE = ROOT / "docs" / "performance.md"
MARK = "<!-- tables: written by scripts/bench --write -->\n"
NANOSUP = Path(sys.executable).with_name("nanosup")
MOUNT_BENCH = ROOT / "scripts" / "bench_mount.py"

LANES = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """Durations of one thing, measured several times."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.seconds)

    def __str__(self) -> str:
        low, high = min(self.seconds), max(self.seconds)
        return f"{_duration(self.median)} ({_duration(low)}–{_duration(high)})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--quick", action="store_true", help="small repository, fewer rounds")
    parser.add_argument("--write", action="store_true", help="put the tables into the docs")
    options = parser.parse_args()
    rounds = 3 if options.quick else 7
    corpora = [SMALL] if options.quick else [SMALL, LARGE]
    text = lane_start(corpora, rounds)
    if MOUNT_BENCH.exists() and not options.quick:
        text += mounts()
    print(text)
    if options.write:
        head = PAGE.read_text().split(MARK)[0]
        PAGE.write_text(f"{head}{MARK}\n{_where()}\n\n{text}")
    return 0


def lane_start(corpora: Sequence[Corpus], rounds: int) -> str:
    """Getting a place to work in: `git worktree add`, and a lane from claim to running child."""
    rows = []
    for corpus in corpora:
        repository = generated(corpus, CACHE)
        worktree: list[float] = []
        first: list[float] = []
        later: list[float] = []
        whole: list[float] = []
        # In turn, so that a noisy minute of the machine is everybody's.
        for number in range(rounds):
            _say(f"{corpus.name}: round {number + 1} of {rounds}")
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
    return f"## Lane start\n\n{about}\n{_table(head, rows)}\n"


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
    whole_s = _timed(up, repository)
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
        taken_s = _timed([*git, "worktree", "add", "--quiet", "--detach", place, "HEAD"])
        subprocess.run([*git, "worktree", "remove", "--force", place], check=True)
    return taken_s


def mounts() -> str:
    _say("mounts")
    done = subprocess.run(
        [sys.executable, MOUNT_BENCH], check=True, stdout=subprocess.PIPE, text=True
    )
    return f"\n## Mounts\n\n{done.stdout}"


def _timed(command: list[str], cwd: Path | None = None) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    taken_s = time.perf_counter() - began
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return taken_s


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _where() -> str:
    git, bwrap = (
        subprocess.run([tool, "--version"], capture_output=True, text=True).stdout.strip()
        for tool in ("git", "bwrap")
    )
    return (
        f"Linux {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{git}, {bwrap}."
    )


def _say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
