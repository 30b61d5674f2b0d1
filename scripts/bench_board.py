"""Measures the board and prints a table: claims, outcomes, reading, and verifying artifacts.

python scripts/bench_board.py [DIRECTORY]     on the file system of DIRECTORY
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from supervisor import clock, owner
from supervisor.board import Board
from supervisor.errors import HeldError
from supervisor.phase import Phase
from supervisor.record import AttemptState, Outcome, Snapshot, Sprint
from supervisor.slot import Slot

SNAPSHOT = Snapshot(commit="c" * 40, tree="7" * 40, base_tree="7" * 40)
PHASES = ("think", "plan", "build", "review", "security", "qa", "ship")
GIBI = 1 << 30


def main() -> None:
    rows: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as top:
        rows += single(Board(f"{top}/one"))
        rows += [racing(Board(f"{top}/race{count}"), count) for count in (2, 20)]
        rows += reading(Board(f"{top}/many"))
        rows += verifying(Board(f"{top}/blobs"), Path(top))
    print("| | median |\n|---|---|")
    print("\n".join(f"| {what} | {took} |" for what, took in rows))


def single(board: Board) -> list[tuple[str, str]]:
    slot = board.create_sprint(sprint("s")).slot("build")
    claims, ends, looks = [], [], []
    for n in range(1, 301):
        by = owner.this_process().owner("bench", clock.utc_now())
        claims.append(timed(lambda n=n, by=by: slot.claim(n, by)))
        attempt = slot.attempt(n)
        looks.append(timed(lambda attempt=attempt: owner.liveness(attempt)))
        ends.append(timed(lambda attempt=attempt: slot.finish(attempt, ended())))
    return [
        ("claim, in process", shown(claims)),
        ("outcome, in process", shown(ends)),
        ("is the owner alive?", shown(looks)),
        ("two fsyncs of a new file and its directory, alone", shown(fsyncs(board.path))),
    ]


def fsyncs(directory: str) -> list[float]:
    def once(n: int) -> None:
        os.mkdir(f"{directory}/tmp.{n}")
        for path, flags in (
            (f"{directory}/tmp.{n}/x", os.O_WRONLY | os.O_CREAT),
            (directory, os.O_RDONLY),
        ):
            fd = os.open(path, flags)
            if flags != os.O_RDONLY:
                os.write(fd, b"x" * 400)
            os.fsync(fd)
            os.close(fd)

    return [timed(lambda n=n: once(n)) for n in range(300)]


def racing(board: Board, count: int) -> tuple[str, str]:
    """Claims of one number by many processes at once: what each of them waits."""
    rounds = 50
    board.create_sprint(sprint("s"))
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(count), context.SimpleQueue()

    def run() -> None:
        slot = Board(board.path).sprint("s").slot("build")
        waits = []
        for n in range(1, rounds + 1):
            by = owner.this_process().owner("bench", clock.utc_now())
            barrier.wait()
            began = time.perf_counter()
            won = claimed(slot, n, by)
            waits.append((won, time.perf_counter() - began))
            barrier.wait()
            if won:
                slot.finish(slot.attempt(n), ended())
            barrier.wait()
        answers.put(waits)

    processes = [context.Process(target=run) for _ in range(count)]
    for process in processes:
        process.start()
    waits = [wait for _ in processes for wait in answers.get()]
    for process in processes:
        process.join()
    assert sum(won for won, _ in waits) == rounds
    return (
        f"claim of one number by {count} processes at once: the winner, the losers",
        f"{shown([s for won, s in waits if won])}, {shown([s for won, s in waits if not won])}",
    )


def claimed(slot: Slot, n: int, by: object) -> bool:
    try:
        slot.claim(n, by)  # type: ignore[arg-type]
    except HeldError:
        return False
    return True


def reading(board: Board) -> list[tuple[str, str]]:
    made = []
    for number in range(100):
        began = time.perf_counter()
        made_sprint = board.create_sprint(sprint(f"s{number:03}"))
        made.append(time.perf_counter() - began)
        for phase in PHASES:
            slot = made_sprint.slot(phase)
            slot.finish(
                slot.claim(1, owner.this_process().owner("bench", clock.utc_now())), ended()
            )

    def read_all() -> None:
        fresh = Board(board.path)
        for sprint_id in fresh.sprints():
            seen = fresh.sprint(sprint_id)
            for phase in seen.record.phases:
                seen.slot(phase.name).attempts()

    return [
        ("a sprint of 7 phases made", shown(made)),
        ("all of 100 sprints of 7 phases read", shown([timed(read_all) for _ in range(5)])),
    ]


def verifying(board: Board, top: Path) -> list[tuple[str, str]]:
    source = top / "source"
    with source.open("wb") as file:
        for _ in range(GIBI >> 24):
            file.write(os.urandom(1 << 24))
    sha256, _ = board.blobs.add(str(source), GIBI)
    path = board.blobs.path_of(sha256)
    ours, coreutils = [], []
    for _ in range(3):
        ours.append(timed(lambda: board.blobs.verify(sha256)))
        coreutils.append(timed(lambda: subprocess.run(["sha256sum", path], stdout=-3, check=True)))
    return [("1 GiB verified; sha256sum of it", f"{shown(ours)}; {shown(coreutils)}")]


def sprint(sprint_id: str) -> Sprint:
    return Sprint(
        id=sprint_id,
        goal="bench",
        created_at=clock.utc_now(),
        base=SNAPSHOT,
        phases=tuple(Phase(name=name) for name in PHASES),
        agents={},
    )


def ended() -> Outcome:
    return Outcome(state=AttemptState.FAILED, ended_at=clock.utc_now())


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def shown(seconds: list[float]) -> str:
    middle = median(seconds)
    return f"{middle * 1000:.2f} ms" if middle < 1 else f"{middle:.2f} s"


if __name__ == "__main__":
    main()
