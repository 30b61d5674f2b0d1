"""The mount: reading, writing, git and memory, each against what people use instead."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from corpus import LARGE, SMALL, generated
from place import (
    Place,
    checkout,
    clear_rooms,
    enter_namespace,
    fuse_overlayfs,
    git_sources,
    lane,
    lane_git,
    plain,
    room,
)
from sample import CACHE, Options, Sample, say, table, timed

Open = Callable[[], AbstractContextManager[Place]]
Work = Callable[[Place], float]

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. `limit` bounds ours / theirs; `cpu_s` is what each server used of it."""

    what: str
    limit: float
    ours: Sample
    theirs: Sample
    peer: str
    cpu_s: tuple[float, float]

    def cells(self) -> list[str]:
        # Of each round its own ratio: both sides of it had the same minute of the machine.
        ratio = median(o / t for o, t in zip(self.ours.seconds, self.theirs.seconds, strict=True))
        met = "yes" if ratio <= self.limit else "**no**"
        return [
            self.what,
            self.peer,
            str(self.theirs),
            str(self.ours),
            f"{ratio:.2f}",
            f"≤ {self.limit:.3g}",
            met,
            " / ".join(f"{seconds:.2f} s" for seconds in self.cpu_s if seconds),
        ]


class Bench:
    """Carries out comparisons and gathers their rows."""

    def __init__(self, rounds: int, only: str = "") -> None:
        self.rounds = rounds
        self.only = only
        self.rows: list[Row] = []

    def compare(
        self,
        what: str,
        limit: float,
        peer: str,
        ours: Open,
        theirs: Open,
        work: Work,
        *,
        their_work: Work | None = None,
        warm: bool = False,
        rounds: int | None = None,
    ) -> None:
        """Measures `work` in both places, in turn; `warm` does it once before."""
        if self.only not in what:
            return
        say(what)
        taken: tuple[list[float], list[float]] = ([], [])
        used: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds or self.rounds):
            # Whoever comes second finds the disk's caches as the first has left them.
            sides = [(0, ours, work), (1, theirs, their_work or work)]
            for side, opened, job in sides if number % 2 else reversed(sides):
                os.sync()
                with opened() as place:
                    if warm:
                        job(place)
                    before_s = place.cpu_s()
                    taken[side].append(job(place))
                    used[side].append(place.cpu_s() - before_s)
        cpu_s = (median(used[0]), median(used[1]))
        row = Row(what, limit, Sample(tuple(taken[0])), Sample(tuple(taken[1])), peer, cpu_s)
        say(" | ".join(row.cells()[2:]))
        self.rows.append(row)


def tables(options: Options) -> str:
    """Every row of the mount's targets."""
    enter_namespace()
    bench = Bench(1 if options.quick else 3, os.environ.get("BENCH_ONLY", ""))
    small = git_sources() or generated(SMALL, CACHE)
    large = small if options.quick else generated(LARGE, CACHE)
    _reading(bench, small)
    _writing(bench, small)
    _large_file(bench, small, (_GIB >> 3) if options.quick else _GIB)
    _git(bench, large)
    if not options.quick and (small / "GIT-VERSION-GEN").exists():
        _compiling(bench, small)
    head = [
        "what",
        "against",
        "theirs",
        "ours",
        "ours / theirs",
        "target",
        "met",
        "CPU of the servers",
    ]
    about = (
        f"R: {_count(small):,} files ({small.name}); B: {_count(large):,} files. Medians\n"
        "(least–most); the ratio is the median of each round's own. Both sides take turns. CPU of\n"
        "the servers, ours / theirs, says more than the clock where the machine has other work.\n"
    )
    memory = "" if bench.only else _memory(large)
    clear_rooms()
    for repository in (small, large):
        subprocess.run(["git", "-C", repository, "worktree", "prune"], check=True)
    text = table(head, [row.cells() for row in bench.rows])
    return f"## Mounts\n\n{about}\n{text}\n{memory}"


def _run(*command: str | Path) -> Work:
    """The wall time of a command; `{}` in it is the place."""
    return lambda place: timed([str(part).replace("{}", str(place.path)) for part in command])


def _in(*command: str) -> Work:
    return lambda place: timed(command, place.path)


def _grep(place: Place) -> float:
    # The same tree on both sides: a checkout has a file .git, which a lane does not.
    return timed(["grep", "-r", "-c", "-s", "--exclude=.git", "no such word", "."], place.path, 1)


def _find(place: Place) -> float:
    return timed(["find", ".", "-printf", "%p %s %m %T@\n"], place.path)


def _reading(bench: Bench, small: Path) -> None:
    tree = checkout(small)

    def ours() -> AbstractContextManager[Place]:
        return lane(small, writes=False)

    def theirs() -> AbstractContextManager[Place]:
        return fuse_overlayfs(tree, writes=False)

    peer = "fuse-overlayfs"
    bench.compare("`grep -r` warm, R", 0.6, peer, ours, theirs, _grep, warm=True)
    bench.compare("`find -printf` warm, R", 0.4, peer, ours, theirs, _find, warm=True)

    def native() -> AbstractContextManager[Place]:
        return plain(tree, writes=False)

    for what, work in (("grep -r", _grep), ("find -printf", _find)):
        bench.compare(f"`{what}` warm, R", 1.2, "native", ours, native, work, warm=True)
    bench.compare(
        "fresh lane, walk and grep, R",
        1.0,
        "`git worktree add`, native grep",
        room_for(small),
        room_for(small),
        _fresh(small),
        their_work=_worktree(small),
    )

    def both(place: Place) -> float:
        with lane(small, writes=False) as second:
            began = perf_counter()
            jobs = [subprocess.Popen(_READ_ALL, cwd=p.path, shell=True) for p in (place, second)]
            if any(job.wait() for job in jobs):
                raise SystemExit("bench: reading two lanes failed")
            return (perf_counter() - began) / 2

    bench.compare(
        "two lanes at once, cold, time for each", 1 / 1.8, "one lane", ours, ours, both,
        their_work=lambda place: timed(["sh", "-c", _READ_ALL], place.path),
    )  # fmt: skip


_READ_ALL = "find . -type f -print0 | xargs -0 cat > /dev/null"


def room_for(_repository: Path) -> Open:
    """A directory that each round makes anew."""

    @contextmanager
    def opened() -> Iterator[Place]:
        with room() as where:
            yield Place(where)

    return opened


def _fresh(repository: Path) -> Work:
    def work(_place: Place) -> float:
        began = perf_counter()
        with lane(repository, writes=False) as place:
            _find(place)
            _grep(place)
            return perf_counter() - began

    return work


def _worktree(repository: Path) -> Work:
    def work(place: Place) -> float:
        git = ["git", "-C", str(repository), "worktree"]
        made = Place(place.path / "tree")
        began = perf_counter()
        timed([*git, "add", "--quiet", "--detach", str(made.path), "HEAD"])
        _find(made)
        _grep(made)
        return perf_counter() - began

    return work


def _writing(bench: Bench, small: Path) -> None:
    tree = checkout(small)
    with room() as where:
        tarball = where / "r.tar"
        subprocess.run(["tar", "cf", tarball, "--exclude=.git", "-C", tree, "."], check=True)

        def ours() -> AbstractContextManager[Place]:
            return lane(small, writes=True)

        def theirs() -> AbstractContextManager[Place]:
            return fuse_overlayfs(tree, writes=True)

        def copied(place: Place) -> float:
            return timed(["cp", "-r", str(tree), "copy"], place.path)

        def removed(place: Place) -> float:
            copied(place)
            return timed(["rm", "-rf", "copy"], place.path)

        def unpacked(place: Place) -> float:
            (place.path / "unpacked").mkdir()
            return timed(["tar", "xf", str(tarball), "-C", "unpacked"], place.path)

        def lifted(place: Place) -> float:
            command = "find . -name .git -prune -o -type f -print0 | xargs -0 chmod a+x"
            return timed(["sh", "-c", command], place.path)

        peer = "fuse-overlayfs"
        bench.compare("`cp -r` of R in", 1.0, peer, ours, theirs, copied)
        bench.compare("`tar x` of R", 1.0, peer, ours, theirs, unpacked)
        bench.compare("copy-up of all of R (`chmod`)", 1.0, peer, ours, theirs, lifted)
        # Last: what is removed slows down whoever makes files after it (`place.room`).
        bench.compare("`rm -rf` of R, copied in", 1.0, peer, ours, theirs, removed)


def _large_file(bench: Bench, small: Path, size: int) -> None:
    tree = checkout(small)
    dd = ["dd", "bs=1M", "status=none"]
    name = f"{size >> 20} MiB"

    def ours() -> AbstractContextManager[Place]:
        return lane(small, writes=True)

    def theirs() -> AbstractContextManager[Place]:
        return fuse_overlayfs(tree, writes=True)

    def written(place: Place) -> float:
        return timed([*dd, "if=/dev/zero", "of=large", f"count={size >> 20}"], place.path)

    def read(place: Place) -> float:
        return timed([*dd, "if=large", "of=/dev/null"], place.path)

    def dropped(place: Place) -> float:
        written(place)
        # Out of the mount's page cache, not the disk's: what is measured is the mount.
        advice = f"import os; f=os.open('{place.path}/large',0); os.posix_fadvise(f,0,0,4)"
        timed(["sync", str(place.path / "large")])
        timed(["python3", "-c", advice])
        return read(place)

    def again(place: Place) -> float:
        if not (place.path / "large").exists():
            written(place)
        return read(place)

    peer = "fuse-overlayfs"
    bench.compare(f"sequential write of {name}", 1.0, peer, ours, theirs, written)
    bench.compare(f"sequential read of {name}", 1.0, peer, ours, theirs, dropped)
    bench.compare(f"reread of {name}", 1.2, "native", ours, lambda: plain_room(), again, warm=True)


@contextmanager
def plain_room() -> Iterator[Place]:
    """A plain, empty directory."""
    with room() as where:
        yield Place(where)


def _git(bench: Bench, large: Path) -> None:
    tree = checkout(large)

    @contextmanager
    def ours() -> Iterator[Place]:
        with lane(large, writes=True) as place:
            lane_git(large, place)
            yield place

    def theirs() -> AbstractContextManager[Place]:
        return plain(tree, writes=False)

    def status(place: Place) -> float:
        git = ["git", "-c", "safe.directory=*", "status", "--porcelain"]
        # As every lane has it (supervisor.keeper.lane).
        environment = ["GIT_OPTIONAL_LOCKS=0"] if place.server else []
        return timed(["env", *environment, *git], place.path)

    def after_changes(place: Place) -> float:
        status(place)
        found = subprocess.run(
            ["git", "-c", "safe.directory=*", "ls-files"],
            cwd=place.path, check=True, capture_output=True, text=True,
        ).stdout.splitlines()  # fmt: skip
        for name in found[:: len(found) // 10][:10]:
            with open(place.path / name, "a") as file:
                file.write("changed\n")
        taken_s = status(place)
        if place.server == 0:
            timed(["git", "checkout", "-q", "--", "."], place.path)
        return taken_s

    native = "native checkout, warm"
    bench.compare(
        "`git status`, first in a fresh lane, B", 1.0, native, ours, theirs, status,
        their_work=lambda place: min(status(place), status(place)),
    )  # fmt: skip
    bench.compare("`git status` after 10 changes, B", 0.2, native, ours, theirs, after_changes)


def _compiling(bench: Bench, small: Path) -> None:
    tree = checkout(small)
    make = _in("make", "-j2", "-s", "CFLAGS=-O1", "NO_CURL=1", "NO_EXPAT=1", "NO_TCLTK=1",
               "NO_GETTEXT=1", "NO_OPENSSL=1", "NO_PERL=1", "NO_PYTHON=1", "git")  # fmt: skip
    bench.compare(
        "`make -j2` of git",
        1.15,
        "native",
        lambda: lane(small, writes=True),
        lambda: plain(tree, writes=True),
        make,
        rounds=1,
    )


def _memory(large: Path) -> str:
    """Of a server that is forked from this process; `supervise` has what one takes in a fleet."""
    with lane(large, writes=False) as place:
        before = place.pss_bytes()
        _find(place)
        walked = place.pss_bytes() - before
        timed(["sh", "-c", _READ_ALL], place.path)
        whole = place.pss_bytes()
    rows = [
        ["grown by a full walk of B", f"{walked / 1e6:.1f} MB", "≤ 100 MB"],
        ["PSS after every file was read, too", f"{whole / 1e6:.1f} MB", "≤ 100 MB"],
        ["a node of B, on average", f"{walked / _count(large):.0f} bytes", "< 1 KB"],
    ]
    return f"### Memory\n\n{table(['what', 'got', 'target'], rows)}"


def _count(repository: Path) -> int:
    listing = subprocess.run(
        ["git", "-C", str(repository), "ls-tree", "-r", "--name-only", "-z", "HEAD"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    return listing.count(b"\0")
