"""The board: claims and outcomes, the conductor's commands, many sprints, artifacts, overlap."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter

from sample import CACHE, NANOSUP, Options, Sample, duration, say, table, timed

from supervisor import clock
from supervisor.board import owner
from supervisor.board.board import Board
from supervisor.board.slot import Slot
from supervisor.errors import HeldError
from supervisor.model.phase import Phase
from supervisor.model.record import AttemptState, Outcome, Owner, Snapshot, Sprint

SNAPSHOT = Snapshot(commit="c" * 40, tree="7" * 40, base_tree="7" * 40)
PHASES = ("think", "plan", "build", "review", "security", "qa", "ship")
GIBI = 1 << 30
# What shell scripts that do the same take on such a machine, in ms: Nanostack's conductor.
SHELL = {"next": "70", "claim": "92", "complete": "93–114", "status": "317"}


def tables(options: Options) -> str:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        top = Path(name)
        rows = [*_single(Board(top / "one"))]
        rows += [_racing(Board(top / f"race{count}"), count) for count in (2, 20)]
        rows += _reading(Board(top / "many"))
        if not options.quick:
            rows += _verifying(Board(top / "blobs"), top)
        text = f"## Board\n\nIn process; medians.\n\n{table(['', 'takes'], rows)}\n"
        text += _commands(top / "commands", options)
        return text + _overlap(top, options)


def _single(board: Board) -> Iterator[list[str]]:
    say("claims")
    slot = board.create_sprint(_sprint("s")).slot("build")
    claims, ends, looks = [], [], []
    for n in range(1, 301):
        by = _me()
        claims.append(_taken(lambda n=n, by=by: slot.claim(n, by)))
        attempt = slot.attempt(n)
        looks.append(_taken(lambda attempt=attempt: owner.liveness(attempt)))
        ends.append(_taken(lambda attempt=attempt: slot.finish(attempt, _ended())))
    yield ["claim", _shown(claims)]
    yield ["outcome", _shown(ends)]
    yield ["is the owner alive?", _shown(looks)]
    yield ["fsync of a new file and of its directory, alone", _shown(_fsyncs(board.path))]


def _fsyncs(directory: str) -> list[float]:
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

    return [_taken(lambda n=n: once(n)) for n in range(300)]


def _racing(board: Board, count: int) -> list[str]:
    """Claims of one number by many processes at once: what each of them waits."""
    rounds = 50
    board.create_sprint(_sprint("s"))
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(count), context.SimpleQueue()

    def run() -> None:
        slot = Board(board.path).sprint("s").slot("build")
        waits = []
        for n in range(1, rounds + 1):
            by = _me()
            barrier.wait()
            began = perf_counter()
            won = _claimed(slot, n, by)
            waits.append((won, perf_counter() - began))
            barrier.wait()
            if won:
                slot.finish(slot.attempt(n), _ended())
            barrier.wait()
        answers.put(waits)

    processes = [context.Process(target=run) for _ in range(count)]
    for process in processes:
        process.start()
    waits = [wait for _ in processes for wait in answers.get()]
    for process in processes:
        process.join()
    if sum(won for won, _ in waits) != rounds:
        sys.exit("bench: a claim was won twice, or by nobody")
    return [
        f"claim of one number by {count} processes at once: the winner; the others",
        f"{_shown([s for won, s in waits if won])}; {_shown([s for won, s in waits if not won])}",
    ]


def _claimed(slot: Slot, n: int, by: Owner) -> bool:
    try:
        slot.claim(n, by)
    except HeldError:
        return False
    return True


def _fill(board: Board, sprints: int) -> Iterator[float]:
    """Puts sprints of 7 phases, each tried once, on a board. Yields what the making took."""
    for number in range(sprints):
        began = perf_counter()
        made = board.create_sprint(_sprint(f"s{number:03}"))
        yield perf_counter() - began
        for phase in PHASES:
            slot = made.slot(phase)
            slot.finish(slot.claim(1, _me()), _ended(AttemptState.COMPLETED))


def _reading(board: Board) -> Iterator[list[str]]:
    from supervisor.board.observe import observe

    say("sprints")
    made = list(_fill(board, 100))

    def read_all() -> None:
        fresh = Board(board.path)
        for sprint_id in fresh.sprints():
            observe(fresh.sprint(sprint_id))

    yield ["a sprint of 7 phases made", _shown(made)]
    yield ["100 sprints of 7 phases observed", _shown([_taken(read_all) for _ in range(5)])]


def _verifying(board: Board, top: Path) -> Iterator[list[str]]:
    say("1 GiB")
    source = top / "source"
    with source.open("wb") as file:
        for _ in range(GIBI >> 24):
            file.write(os.urandom(1 << 24))
    board.prepare()
    sha256, _ = board.blobs.add(str(source), GIBI)
    source.unlink()
    path = board.blobs.path_of(sha256)
    ours, coreutils = [], []
    for _ in range(3):
        ours.append(_taken(lambda: board.blobs.verify(sha256)))
        coreutils.append(timed(["sha256sum", path]))
    yield ["1 GiB of artifacts verified; `sha256sum` of it", f"{_shown(ours)}; {_shown(coreutils)}"]


def _commands(repository: Path, options: Options) -> str:
    """The conductor as an agent meets it: one process a call."""
    say("commands")
    _make(repository, [{"name": "plan", "agents": ["a"], "outputs": ["plan.json"]}])
    (repository / "plan.json").write_text("{}")
    rounds = options.rounds * 3
    taken: dict[str, list[tuple[float, float]]] = {}

    def run(name: str, *arguments: str) -> str:
        before, began = _children_s(), perf_counter()
        done = subprocess.run(
            [NANOSUP, name, *arguments], cwd=repository, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"bench: nanosup {name}: {done.stderr}")
        taken.setdefault(name, []).append((perf_counter() - began, _children_s() - before))
        return done.stdout.strip()

    nothing = []
    for number in range(rounds):
        run("next")
        # A new sprint is begun by hand each time, which is not what is measured.
        subprocess.run(
            [NANOSUP, "claim", "plan", "--agent", "me", "--goal", f"g{number}"],
            cwd=repository, check=True, capture_output=True,
        )  # fmt: skip
        subprocess.run([NANOSUP, "unstuck", "plan", "--force"], cwd=repository, capture_output=True)
        token = run("claim", "plan", "--agent", "me")
        run("status")
        run("complete", "plan", "--token", token, "--artifact", "plan.json")
        before, began = _children_s(), perf_counter()
        subprocess.run([sys.executable, "-c", "import click, msgspec"], check=True)
        nothing.append((perf_counter() - began, _children_s() - before))
    many = repository / ".git" / "many"
    list(_fill(Board(many), 100))
    arguments = [NANOSUP, "status", "--all", "--json"]
    everything = []
    for _ in range(options.rounds):
        before, began = _children_s(), perf_counter()
        subprocess.run(
            arguments, cwd=repository, env=os.environ | {"NANOSUP_STATE": str(many)},
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        everything.append((perf_counter() - began, _children_s() - before))
    rows = [
        [f"`nanosup {name}`", *_wall_and_cpu(taken[name]), SHELL[name]]
        for name in ("next", "claim", "complete", "status")
    ]
    rows.append(["`nanosup status --all --json`, 100 sprints", *_wall_and_cpu(everything), ""])
    rows.append(["Python, `import click, msgspec`", *_wall_and_cpu(nothing), ""])
    head = ["a process each", "wall", "CPU", "as shell scripts, ms"]
    about = "Commands; medians (least–most). On a busy machine the CPU says more than the wall."
    return f"{about}\n\n{table(head, rows)}\n"


def _wall_and_cpu(taken: Sequence[tuple[float, float]]) -> tuple[str, str]:
    wall, cpu = zip(*taken, strict=True)
    return str(Sample(wall)), str(Sample(cpu))


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _overlap(top: Path, options: Options) -> str:
    """Two sprints at once against one after the other."""
    say("overlap")
    work_s = 1 if options.quick else 2
    rows = []
    for title, before in (("build, review", []), ("plan, build, review", ["plan"])):
        names = [*before, "build", "review"]
        graph = [
            {"name": name, "agents": ["a"], "depends_on": names[max(i - 1, 0) : i]}
            | ({"access": "write"} if name == "build" else {})
            for i, name in enumerate(names)
        ]
        apart, together = [], []
        for number in range(1 if options.quick else 3):
            repository = top / f"overlap-{len(names)}-{number}"
            _make(repository, graph, command=["sleep", str(work_s)])
            up = [str(NANOSUP), "up", "--plain"]
            apart.append(sum(timed([*up, "--goal", g], repository) for g in ("A", "B")))
            together.append(timed([*up, "--goal", "C", "--goal", "D"], repository))
            _check_turns(repository)
            shutil.rmtree(repository)
        ratio = median(together) / median(apart)
        rows.append([title, str(Sample((*apart,))), str(Sample((*together,))), f"{ratio:.2f}"])
    head = ["phases", "one after the other", "together", "ratio"]
    about = f"Two sprints whose phases each take {work_s} s; never two writers at once."
    return f"{about}\n\n{table(head, rows)}"


def _check_turns(repository: Path) -> None:
    """Ends the measuring if two writers ever had the turn at once."""
    spans = []
    for journal in repository.glob(".git/nanosup/sprints/*/journal.jsonl"):
        events = [json.loads(line) for line in journal.read_text().splitlines() if line]
        taken = [e["at"] for e in events if e["event"] == "turn.taken"]
        released = [e["at"] for e in events if e["event"] == "turn.released"]
        spans += zip(taken, released, strict=True)
    spans.sort()
    if len(spans) != 4 or any(a[1] > b[0] for a, b in pairwise(spans)):
        sys.exit(f"bench: two writers at once: {spans}")


def _make(repository: Path, graph: object, command: Sequence[str] = ("true",)) -> None:
    """A repository with a commit and this graph."""
    lines = [f"[agents.a]\ncommand = {json.dumps(command)}\n"]
    for phase in graph:  # type: ignore[attr-defined]
        keys = "\n".join(f"{key} = {json.dumps(value)}" for key, value in phase.items())
        lines.append(f"[[phase]]\n{keys}\n")
    repository.mkdir()
    (repository / "nanosup.toml").write_text("\n".join(lines))
    git = ["git", "-C", str(repository), "-c", "user.name=b", "-c", "user.email=b@b"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "bench"]):
        subprocess.run([*git, *arguments], check=True)


def _sprint(sprint_id: str) -> Sprint:
    return Sprint(
        id=sprint_id,
        goal="bench",
        created_at=clock.utc_now(),
        base=SNAPSHOT,
        phases=tuple(Phase(name=name, agents=("a",)) for name in PHASES),
        agents={},
    )


def _me() -> Owner:
    return owner.this_process().owner("bench", clock.utc_now())


def _ended(state: AttemptState = AttemptState.FAILED) -> Outcome:
    return Outcome(state=state, ended_at=clock.utc_now())


def _taken(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


def _shown(seconds: Sequence[float]) -> str:
    return duration(median(seconds))
