"""What a jail costs: a command in a lane's jail, against the same in a bare bubblewrap."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from sample import Options, Sample, table, timed

from sandbox import host, launch, namespace, survey, view
from sandbox.feature import Features
from sandbox.jail import JailSpec

ROUNDS = 40
BARE = ("bwrap", "--ro-bind", "/", "/", "true")
NAMESPACES = ("--unshare-all", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp")


def tables(options: Options) -> str:
    """`true`, from being asked for to its end known: plain, in bubblewrap, in a jail."""
    features = host.probe()
    host.require(features)
    jailed, prepared = _jailed(features, ROUNDS // 2 if options.quick else ROUNDS)
    bare, spaces = Sample(prepared["bare"]), Sample(prepared["spaces"])
    rows = [
        ["`bwrap --ro-bind / / true`", str(bare), ""],
        [f"`bwrap {' '.join(NAMESPACES)} … true`", str(spaces), _over(spaces, bare)],
        ["a lane's jail", str(jailed), _over(jailed, bare)],
    ]
    head = ["`true` in", "takes", "over bare bubblewrap"]
    about = (
        "From being asked for to its end known, network and all namespaces the lane's own, with\n"
        "landlock, the filter of system calls and the masks of this host. Interleaved; medians\n"
        f"(least–most) of {len(jailed.seconds)} rounds.\n"
    )
    return f"## Jail\n\n{about}\n{table(head, rows)}\n"


def _over(sample: Sample, bare: Sample) -> str:
    return f"{(sample.median - bare.median) * 1000:+.1f} ms"


def _jailed(features: Features, rounds: int) -> tuple[Sample, dict[str, tuple[float, ...]]]:
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
    ours, others = pickle.loads(answer)
    return Sample(ours), others


def _measure(
    features: Features, rounds: int
) -> tuple[tuple[float, ...], dict[str, tuple[float, ...]]]:
    with tempfile.TemporaryDirectory(prefix="nanosup-bench-", dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        stage = namespace.enter()
        spec = _spec(Path(directory))
        log = os.open(f"{directory}/log", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        ours, bare, spaces = [], [], []
        for _ in range(rounds):
            bare.append(timed(BARE))
            spaces.append(timed((*BARE[:-1], *NAMESPACES, "true")))
            began = perf_counter()
            with launch.start(spec, features, stage, stdout=log, stderr=log) as jailed:
                jailed.wait()
            ours.append(perf_counter() - began)
        os.close(log)
    return tuple(ours), {"bare": tuple(bare), "spaces": tuple(spaces)}


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
