"""A lane without namespaces: what it may read and write, as landlock's rules. Pure.

What a jail gets by mounts is here got by an allowlist: nothing of the host can be opened but what
is listed. Everything is at its own path, the lane's tree included.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sandbox.errors import JailError
from sandbox.jail.exposure import ENVIRONMENT, PROXIES
from sandbox.jail.landlock import FILE_RIGHTS, READS, Domain, Right, Rule, known, scopes
from sandbox.jail.view import Ground, Lane, home_conflict

# Read and executed by every lane: what a distribution installs, and its settings. Neither homes
# nor /var, /srv, /mnt or /run are among them.
SYSTEM = (
    "/bin",
    "/etc",
    "/gnu/store",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/opt",
    "/proc",
    "/run/current-system",
    "/run/opengl-driver",
    "/sbin",
    "/sys/devices/system",
    "/sys/kernel/mm/transparent_hugepage",
    "/usr",
    "/var/lib/ca-certificates",
)
DEVICES = ("/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero")

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NODES = Right.MAKE_CHAR | Right.MAKE_BLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """Everything about a lane that has no namespaces. Paths are absolute and canonical.

    Attributes:
        reads: directories and files that may be read and executed; those that are not there do not
            count.
        writes: directories below which all may be done.
        env: the whole environment.
        network: the host's network; else no sockets at all.
        tty: one of the descriptors 0 to 2 is a terminal, which is to be the controlling one.
    """

    argv: tuple[str, ...]
    cwd: str
    uid: int
    gid: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    network: bool = False
    tty: bool = False


def confine(lane: Lane, ground: Ground, system: Iterable[str] = SYSTEM) -> Confinement:
    """The confinement of `lane`, whose `mount` is a directory of its own and where it works.

    Args:
        system: what of the host every lane may read (`survey.around`).

    Raises JailError where it would show what it must not.
    """
    _check_home_read(ground)
    reads = [
        *system,
        *(place for pair in ground.toolchains for place in pair),
        *(place for pair in ground.home_paths for place in pair),
        lane.mount,
        *(bind.source for bind in lane.objects),
        *(source for source, _ in lane.share),
        *(path for path in (lane.git_dir, lane.inputs, lane.prompt) if path is not None),
    ]
    if lane.host_network and ground.resolv_conf is not None:
        reads.append(ground.resolv_conf)
    writes = [lane.home, *(path for path in (lane.tmp, lane.outputs) if path is not None)]
    writes += [os.path.normpath(f"{lane.mount}/{path}") for _, path in lane.scratch]
    if lane.writable:
        writes.append(lane.mount)
    if lane.git_writable and lane.git_dir is not None:
        writes.append(lane.git_dir)
    for path in reads:
        for hidden in (*lane.hidden, ground.user_home):
            if _below(hidden, path):
                raise JailError(
                    f"{hidden} is in {path}, which a lane that has no namespaces may read",
                    hint="move it to another place, or make a better tier possible: see "
                    "`nanosup doctor`",
                )
    return Confinement(
        argv=lane.argv,
        cwd=lane.mount,
        uid=lane.uid,
        gid=lane.gid,
        reads=tuple(dict.fromkeys(reads)),
        writes=tuple(dict.fromkeys(writes)),
        env=_environment(lane, ground, reads),
        network=lane.host_network,
        tty=lane.tty,
    )


def domain_of(confinement: Confinement, abi: int, log_fds: Iterable[int] = (1, 2)) -> Domain:
    """Landlock's rules for `confinement`."""
    handled = known(abi)
    reads = READS & handled
    files = handled & FILE_RIGHTS
    return Domain(
        handled,
        scopes(abi),
        (
            *(Rule(path, reads, optional=True) for path in confinement.reads),
            *(Rule(path, handled & ~_NODES) for path in confinement.writes),
            *(Rule(path, files & ~Right.EXECUTE, optional=True) for path in DEVICES),
            # Scripts open /dev/stderr anew.
            *(Rule(fd, files & ~Right.EXECUTE, optional=True) for fd in log_fds),
        ),
    )


def _check_home_read(ground: Ground) -> None:
    """What is allowed below a directory cannot be taken back below another."""
    for source, target in ground.home_paths:
        relative = os.path.relpath(target, ground.user_home)
        conflict = home_conflict(relative)
        inside = [s.path for s in ground.secrets if _below(s.path, source)]
        if relative == "." or relative.startswith("..") or conflict or inside:
            secret = inside[0] if inside else f"~/{conflict or relative}"
            raise JailError(
                f"home_read asks for {target}, and {secret} cannot be kept from a lane that has no "
                "namespaces",
                hint="name the directories below that the agent needs, in home_read",
            )


def _environment(lane: Lane, ground: Ground, reads: Iterable[str]) -> dict[str, str]:
    host = ground.environment
    name = ground.user or "lane"
    allowed = (*ENVIRONMENT, *(PROXIES if lane.host_network else ()))
    path = [
        entry
        for entry in host.get("PATH", "").split(":")
        if entry.startswith("/") and any(_below(os.path.normpath(entry), read) for read in reads)
    ]
    env = {
        "HOME": lane.home,
        "LOGNAME": name,
        "PATH": ":".join(dict.fromkeys([*path, *_DEFAULT_PATH.split(":")])),
        "SHELL": "/bin/sh",
        "TERM": "dumb",
        "TMPDIR": lane.tmp or lane.home,
        "USER": name,
    }
    env |= {key: host[key] for key in allowed if key in host}
    env |= {key: value for key, value in host.items() if key.startswith("LC_")}
    for key, value in (
        ("NANOSUP_INPUTS", lane.inputs),
        ("NANOSUP_OUTPUTS", lane.outputs),
        ("NANOSUP_PROMPT_FILE", lane.prompt),
    ):
        if value is not None:
            env[key] = value
    return env | dict(lane.env)


def _below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
