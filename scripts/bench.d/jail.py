"""What a jail costs: a command in a lane's jail, against the same in a bare bubblewrap."""

from __future__ import annotations

import os
import pickle
import resource
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from sample import Options, Sample, table, timed

from sandbox.jail import launch, namespace, survey, view
from sandbox.jail.feature import Features
from sandbox.jail.jail import JailSpec
from sandbox.probe import host

ROUNDS = 40
BARE = ("bwrap", "--ro-bind", "/", "/", "true")
NAMESPACES = ("--unshare-all", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp")


def tables(options: Options) -> str:
    """`true`, from being asked for to its end known: plain, in bubblewrap, in a jail."""
    features = host.probe()
    host.require(features)
    measured = _measured(features, ROUNDS // 2 if options.quick else ROUNDS)
    bare = measured["bare"]
    names = {
        "bare": "`bwrap --ro-bind / / true`",
        "spaces": f"`bwrap {' '.join(NAMESPACES)} … true`",
        "jail": "a lane's jail",
    }
    rows = []
    for key, name in names.items():
        wall, cpu = measured[key]
        over = "" if key == "bare" else _over(wall, bare[0])
        cpu_over = "" if key == "bare" else _over(cpu, bare[1])
        rows.append([name, str(wall), over, str(cpu), cpu_over])
    head = ["`true` in", "wall", "over bare", "CPU", "over bare"]
    about = (
        "From being asked for to its end known, network and all namespaces the lane's own, with\n"
        "landlock, the filter of system calls and the masks of this host. Interleaved; medians\n"
        f"(least–most) of {len(bare[0].seconds)} rounds.\n"
    )
    return f"## Jail\n\n{about}\n{table(head, rows)}\n"


def _over(sample: Sample, bare: Sample) -> str:
    """Between the medians, and between the least: what a busy machine adds is nobody's."""
    least = min(sample.seconds) - min(bare.seconds)
    return f"{(sample.median - bare.median) * 1000:+.1f} ms (least {least * 1000:+.1f} ms)"


Measured = dict[str, tuple[Sample, Sample]]


def _measured(features: Features, rounds: int) -> Measured:
    """Measures in a process of its own: a keeper enters a mount namespace for good."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receive)
        status = 1
        try:
            with open(send, "wb") as file:
                pickle.dump(_measure(features, rounds), file)
            status = 0
        except BaseException as error:
            print(f"bench: {error!r}", file=sys.stderr)
        finally:
            os._exit(status)
    os.close(send)
    with open(receive, "rb") as file:
        answer = file.read()
    os.waitpid(pid, 0)
    if not answer:
        sys.exit("bench: no jail could be started")
    measured: Measured = pickle.loads(answer)
    return measured


def _measure(features: Features, rounds: int) -> Measured:
    with tempfile.TemporaryDirectory(prefix="nanosup-bench-", dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        namespace.enter()
        spec = _spec(Path(directory))
        log = os.open(f"{directory}/log", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)

        def start() -> None:
            with launch.start(
                spec, features, starter=launch.begin, stdout=log, stderr=log
            ) as jailed:
                jailed.wait()

        ways = {
            "bare": lambda: timed(BARE),
            "spaces": lambda: timed((*BARE[:-1], *NAMESPACES, "true")),
            "jail": start,
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, act in ways.items():
                began, before_s = perf_counter(), _cpu_s()
                act()
                taken[name].append((perf_counter() - began, _cpu_s() - before_s))
        os.close(log)
    return {
        name: (Sample(tuple(wall for wall, _ in each)), Sample(tuple(cpu for _, cpu in each)))
        for name, each in taken.items()
    }


def _cpu_s() -> float:
    """Of this process and all that it has waited for."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def _spec(directory: Path) -> JailSpec:
    uid, gid = namespace.lane_ids()
    for name in ("mnt", "home", "outputs", "tmp", "proj"):
        (directory / name).mkdir()
        os.chown(directory / name, uid, gid)
    repository = str(directory / "proj")
    lane = view.Lane(
        argv=("true",),
        uid=uid,
        gid=gid,
        repository=repository,
        mount=str(directory / "mnt"),
        home=str(directory / "home"),
        outputs=str(directory / "outputs"),
        tmp=str(directory / "tmp"),
    )
    return view.jail_of(lane, survey.survey(uid=uid, targets=(repository,), environment=os.environ))
