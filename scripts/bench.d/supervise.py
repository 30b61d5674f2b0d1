"""Supervision: starting, restarting and logging, against other supervisors' bare children."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from peer import Peer, Task, marked, peers, running
from sample import NANOSUP, Options, Sample, duration, say, table

_PATIENCE_S = 300.0
_LINE = "x" * 79
_SETTLED_S = 15.0  # a keeper looks more often in a lane that has just begun
_IDLE_S = 20.0  # in which each looks after its lane once
_LANES_MANY = 50


def tables(options: Options) -> str:
    """Start, restart and logs beside others; then what a lane takes."""
    load = os.getloadavg()[0]
    found = peers()
    able = {name: peer for name, (peer, why) in found.items() if not why}
    counts = (20,) if options.quick else (50, 200)
    log_mb = 100 if options.quick else 500
    starts: dict[str, list[str]] = {}
    restarts: dict[str, str] = {}
    logs: dict[str, list[float | None]] = {name: [] for name in (*able, "itself", "nanosup")}
    for name, peer in able.items():
        say(f"{name}: start")
        starts[name] = [duration(_peer_start(peer, count)) for count in counts]
        say(f"{name}: restart")
        restarts[name] = str(_peer_restart(peer, options.rounds)) if peer.restarts else "never"
    say("nanosup: start")
    starts["nanosup"] = [duration(_our_start(count)) for count in counts]
    say("nanosup: restart")
    restarts["nanosup"] = str(_our_restart(options.rounds))
    for number in range(1 if options.quick else 3):
        say(f"logs of {log_mb} MB, round {number + 1}")
        logs["itself"].append(_log_itself(log_mb))
        logs["nanosup"].append(_our_log(log_mb))
        for name, peer in able.items():
            if number == 0 or name not in ("circus", "honcho"):  # minutes each
                logs[name].append(_peer_log(peer, log_mb))
    itself = Sample(tuple(one for one in logs["itself"] if one is not None)).median
    names = [*found, "nanosup"]
    rows = [
        [f"start of {count} children"]
        + [starts[n][i] if n in starts else found[n][1] for n in names]
        for i, count in enumerate(counts)
    ]
    rows.append(["SIGKILL → the next runs"] + [restarts.get(n, "") for n in names])
    rows.append(
        [f"{log_mb} MB of log (the child writing the file itself: {duration(itself)})"]
        + [_ratio(logs[n], itself) if n in logs else "" for n in names]
    )
    say("nanosup: what lanes take")
    return (
        "## Supervision\n\n"
        "The others run bare children; nanosup's are in lanes, each with a mount and a jail.\n"
        "Starts count from that of the supervisor. Restarts are without a backoff where that can\n"
        "be had. While nanosup's child printed, `up` was killed. The load of the host when this\n"
        f"began was {load:.1f}; on one that is busy, whatever takes CPU time takes longer.\n\n"
        f"{table(['', *names], rows)}\n{_lanes(options)}"
    )


def _ratio(seconds: list[float | None], itself: float) -> str:
    taken = tuple(one for one in seconds if one is not None)
    if len(taken) < len(seconds):
        return f"not whole after {_PATIENCE_S:g} s"
    sample = Sample(taken)
    return f"{sample} = {sample.median / itself:.2f} ×"


# Others


def _peer_start(peer: Peer, count: int) -> float:
    with _scratch() as directory:
        marks = directory / "marks"
        script = f"echo $$ >> {marks}; exec sleep 100000"
        tasks = [Task(f"c{n}", ("sh", "-c", script), directory / f"log{n}") for n in range(count)]
        began = time.monotonic()
        with running(peer, directory / "peer", tasks):
            _await(lambda: len(_lines(marks)) >= count, f"{peer.name} to start {count}")
            return time.monotonic() - began


def _peer_restart(peer: Peer, rounds: int) -> Sample:
    with _scratch() as directory:
        marks = directory / "marks"
        task = Task("c", ("sh", "-c", f"echo $$ >> {marks}; exec sleep 100000"), directory / "log")
        with running(peer, directory / "peer", [task]):
            return _restarts(
                lambda number: len(_lines(marks)) >= number,
                lambda number: int(_lines(marks)[number - 1]),
                rounds,
            )


def _restarts(has_begun: Callable[[int], bool], pid: Callable[[int], int], rounds: int) -> Sample:
    """Kills the n-th child, and waits for the next; `pid` is asked once it has run for a while."""
    taken = []
    for number in range(1, rounds + 1):
        _await(lambda n=number: has_begun(n), "a child")
        time.sleep(1.2)  # s6 and runit start at once only what has run for a second
        child = pid(number)
        began = time.monotonic()
        os.kill(child, signal.SIGKILL)
        _await(lambda n=number: has_begun(n + 1), "the next", interval_s=0.0005)
        taken.append(time.monotonic() - began)
    return Sample(tuple(taken))


def _peer_log(peer: Peer, megabytes: int) -> float | None:
    """Seconds from the child's first byte until all is in the log; None where it never was."""
    with _scratch() as directory:
        log, times = directory / "log", directory / "times"
        task = Task("c", ("sh", "-c", f"{_prints(megabytes, times)}; sleep 100000"), log)
        with running(peer, directory / "peer", [task]):

            def size() -> int:
                files = [path for path in (log, *Path(f"{log}.d").glob("*")) if path.is_file()]
                return sum(path.stat().st_size for path in files)

            try:
                _await(lambda: size() >= megabytes * 1_000_000, "the log", interval_s=0.01)
            except TimeoutError:
                return None
            return time.time() - float(_lines(times)[0])


def _log_itself(megabytes: int) -> float:
    with _scratch() as directory:
        times = directory / "times"
        script = f"exec > {directory}/log; {_prints(megabytes, times)}"
        subprocess.run(["sh", "-c", script], check=True)
        return _between(times)


# Ours


def _our_start(count: int) -> float:
    with _scratch() as directory:
        repository = _repository(directory, count, "echo > $NANOSUP_OUTPUTS/up; exec sleep 100000")
        began = time.monotonic()
        with _up(repository):
            # Seldom: to look at all takes a good part of one of two cores, which lanes start on.
            _await(lambda: len(_marks(repository)) >= count, f"{count} to start", interval_s=0.05)
            return time.monotonic() - began


def _our_restart(rounds: int) -> Sample:
    with _scratch() as directory:
        repository = _repository(
            directory, 1, "echo > $NANOSUP_OUTPUTS/up; exec sleep 100000", backoff_s=0
        )
        with _up(repository):
            _await(lambda: bool(_marks(repository)), "a child")
            (first,) = _marks(repository)

            def attempt(number: int) -> Path:
                return first.parents[3] / f"{number:04d}"

            def pid(number: int) -> int:
                pulse = json.loads((attempt(number) / "pulse.json").read_text())
                return _innermost(pulse["child_pid"])

            return _restarts(
                # One look at one file: more would take a core from who starts the next.
                lambda number: (attempt(number) / "lane/outputs/up").exists(),
                pid,
                rounds,
            )


def _our_log(megabytes: int) -> float | None:
    """`up` is killed while the agent prints: the log is whole all the same."""
    with _scratch() as directory:
        times = "$NANOSUP_OUTPUTS/times"
        script = f"{_prints(megabytes, times)}; echo > $NANOSUP_OUTPUTS/up; exec sleep 100000"
        repository = _repository(directory, 1, script, log_limit=10_000_000_000)
        with _up(repository) as up:
            _await(lambda: _log_size(repository) > 0, "the first byte", interval_s=0.0005)
            up.kill()
            # Seldom: who prints says how long it took, and looking takes a part of a core.
            _await(
                lambda: bool(_marks(repository)), f"nanosup to take {megabytes} MB", interval_s=0.05
            )
            if _log_size(repository) != megabytes * 1_000_000:
                return None
            return _between(_marks(repository)[0].with_name("times"))


def _lanes(options: Options) -> str:
    """Memory and idle CPU of lanes."""
    rows = [_lanes_row(count) for count in ((20,) if options.quick else (_LANES_MANY, 100))]
    head = ["lanes", "PSS of one: keeper, file system server, jail and `sleep`",
            "of its file system server alone", "of all",
            f"CPU of one core while idle for {_SETTLED_S:g} s, `up` included"]  # fmt: skip
    return f"{table(head, rows)}\n"


def _lanes_row(count: int) -> list[str]:
    with _scratch() as directory:
        script = "echo > $NANOSUP_OUTPUTS/up; exec sleep 100000"
        repository = _repository(directory, count, script)
        with _up(repository) as up:
            _await(lambda: len(_marks(repository)) >= count, "all lanes")
            time.sleep(2)
            owners = [json.loads(path.read_text())["pid"] for path in _owners(repository)]
            lanes = [pid for owner in owners for pid in _descend(owner)]
            pss = sum(map(_pss, lanes))
            pulses = [json.loads(p.read_text()) for p in _pulses(repository)]
            servers = sum(_pss(pulse["server_pid"]) for pulse in pulses) / len(pulses)
            # Keepers are children of the template, which is one of `up`.
            everyone = {*lanes, *_descend(up.pid)}
            time.sleep(_SETTLED_S)
            before = sum(map(_cpu_s, everyone))
            time.sleep(_IDLE_S)
            cpu = (sum(map(_cpu_s, everyone)) - before) / _IDLE_S
    return [
        str(count),
        *(f"{pss / count / 1e6:.1f} MB", f"{servers / 1e6:.1f} MB", f"{pss / 1e6:.0f} MB"),
        f"{cpu * 100:.2f} %",
    ]


@contextmanager
def _up(repository: Path) -> Iterator[subprocess.Popen[bytes]]:
    with marked() as env:
        yield subprocess.Popen(
            [str(NANOSUP), "up", "--plain"], cwd=repository, env=env, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def _repository(directory: Path, count: int, script: str, **keys: object) -> Path:
    top = directory / "repository"
    top.mkdir()
    command = json.dumps(["sh", "-c", script])
    options = "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
    phases = "\n".join(
        f'[[phase]]\nname = "p{n}"\nrestarts = 1000\n{options}\n' for n in range(count)
    )
    (top / "nanosup.toml").write_text(
        f"[workspace]\nmax_lanes = {count}\n[agents.a]\ncommand = {command}\n{phases}"
    )
    for words in (
        ("init", "-q"), ("add", "-A"),
        ("-c", "user.name=b", "-c", "user.email=b@b", "commit", "-qm", "one"),
    ):  # fmt: skip
        subprocess.run(["git", *words], cwd=top, check=True)
    return top


def _of_attempts(repository: Path, name: str) -> list[Path]:
    """The file of this name of each attempt; not those of what is half-made, which may vanish."""
    attempts = ".git/nanosup/sprints/[0-9]*/phases/*/attempts/[0-9]*"
    return list(repository.glob(f"{attempts}/{name}"))


def _marks(repository: Path) -> list[Path]:
    return _of_attempts(repository, "lane/outputs/up")


def _owners(repository: Path) -> list[Path]:
    return _of_attempts(repository, "owner.json")


def _pulses(repository: Path) -> list[Path]:
    return _of_attempts(repository, "pulse.json")


def _log_size(repository: Path) -> int:
    logs = _of_attempts(repository, "stdout.log")
    return sum(log.stat().st_size for log in logs)


# Both


def _prints(megabytes: int, times: Path | str) -> str:
    """A script that prints, and writes down when it began and ended."""
    stamp = f"date +%s.%N >> {times}"
    return f"{stamp}; yes {_LINE} | head -c {megabytes * 1_000_000}; {stamp}"


def _between(times: Path) -> float:
    began, ended = map(float, _lines(times))
    return ended - began


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []


def _await(
    condition: Callable[[], bool],
    what: str,
    *,
    interval_s: float = 0.002,
    patience_s: float = _PATIENCE_S,
) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(interval_s)


@contextmanager
def _scratch() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="nanosup-bench-", dir="/var/tmp"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _descend(pid: int) -> list[int]:
    return [pid, *(below for child in _children(pid) for below in _descend(child))]


def _innermost(pid: int) -> int:
    """The agent: the last of a line of only children."""
    while children := _children(pid):
        pid = children[0]
    return pid


def _pss(pid: int) -> int:
    """Bytes: what is shared is divided among those who share it (proc_pid_smaps(5))."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _cpu_s(pid: int) -> float:
    """What its threads have run, as the scheduler counts it (Documentation/scheduler/sched-stats).

    /proc/PID/stat has samples of a clock that ticks, which miss most of what runs for so short.
    """
    run_ns = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            run_ns += int(path.read_text().split()[0])
        except OSError:
            continue
    return run_ns / 1e9
