"""What a lane sees: from what is known of the lane and the host to a `JailSpec`. Pure.

Everything of the host is visible read-only except what is masked (`exposure.py`); what a lane gets
back of that is bound explicitly.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from sandbox.errors import JailError
from sandbox.jail.exposure import ENVIRONMENT, PROXIES, SECRETS
from sandbox.jail.jail import Bind, File, JailSpec, Mask, Symlink, places_of, shown_by

RUNTIME = "/run/nanosup"  # where a lane finds what nanosup gives it
INPUTS = f"{RUNTIME}/inputs"
OUTPUTS = f"{RUNTIME}/outputs"
PROMPT = f"{RUNTIME}/prompt.md"

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What programs ask about the terminal that they show themselves on.
TERMINAL = ("COLORTERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION")
_LANE_USER = "lane"


@dataclass(frozen=True, slots=True)
class Secret:
    """A path of SECRETS that exists, and what it really is when links are followed."""

    path: str
    is_directory: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What of the lists above exists on this host, and what else the view depends on.

    Attributes:
        user_home: HOME of the user who runs nanosup.
        masks: those of MASKED that are directories.
        links: (what it points to, where it is) of those of KEPT_LINKS that exist.
        toolchains: (where it really is, where it is seen) of those that exist.
        home_paths: the same for what `home_read` asks for.
        secrets: those that exist.
        sockets: unix sockets that somebody listens on, by what they really are.
        barred: ancestors of the repository that the lane's uid cannot traverse.
        passwd, group: contents of the files in /etc.
        user: login name of the lane's uid; "" where it has none.
        resolv_conf: what /etc/resolv.conf really is.
        hosts: the same of /etc/hosts.
        environment: nanosup's own.
    """

    user_home: str
    masks: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    toolchains: tuple[tuple[str, str], ...] = ()
    home_paths: tuple[tuple[str, str], ...] = ()
    secrets: tuple[Secret, ...] = ()
    sockets: tuple[str, ...] = ()
    barred: tuple[str, ...] = ()
    passwd: str = ""
    group: str = ""
    user: str = ""
    resolv_conf: str | None = None
    hosts: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WayOut:
    """A network namespace that leads to some hosts (`egress.py`).

    Attributes:
        netns: its descriptor.
        port: of the proxy, on the loopback in there.
        through_proxy: what is on the loopback is asked of the proxy as well.
        hosts: (address of the lane's loopback, name that stands there), for /etc/hosts.
    """

    netns: int
    port: int
    through_proxy: bool
    hosts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What is particular to one lane. All paths absolute and canonical.

    Attributes:
        repository: where the working tree is on the host, and where the lane sees its mount.
        mount: where the overlay is mounted, outside.
        writable: False for a lane that reads: its mount is bound read-only too.
        git_dir: the lane's own git directory, seen as `.git`; None: there is none.
        git_writable: False for a lane that reads.
        objects: object stores that the lane's git borrows from, read-only.
        home: the lane's own HOME, seen at the user's.
        tmp: directory for /tmp and /var/tmp; None: in memory.
        inputs, outputs, prompt: seen below RUNTIME.
        scratch: (directory outside, path in the repository), private and writable.
        share: (directory outside, path in the repository), read-only.
        hidden: directories that must not be seen wherever they are: the board, git common dirs.
        extra: whatever else is to be shown, e.g. a writable directory of an agent.
        env: set last, so it wins.
        resources, groups: as in `JailSpec`.
        memory_bytes: how much what is kept in memory may take: /dev/shm, directories without one.
        way_out: the lane's own network namespace; None: the host's, or one without.
    """

    argv: tuple[str, ...]
    uid: int
    gid: int
    repository: str
    mount: str
    home: str
    writable: bool = False
    git_dir: str | None = None
    git_writable: bool = False
    objects: tuple[Bind, ...] = ()
    tmp: str | None = None
    inputs: str | None = None
    outputs: str | None = None
    prompt: str | None = None
    scratch: tuple[tuple[str, str], ...] = ()
    share: tuple[tuple[str, str], ...] = ()
    hidden: tuple[str, ...] = ()
    extra: tuple[Bind, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    host_network: bool = False
    way_out: WayOut | None = None
    resources: Mapping[int, int] = field(default_factory=dict)
    groups: tuple[int, ...] = ()
    memory_bytes: int | None = None
    hostname: str = "lane"
    tty: bool = False


def home_conflict(path: str) -> str | None:
    """The entry of SECRETS that a `home_read` path (relative to HOME) is, or is below of."""
    wanted = os.path.normpath(path)
    for secret in SECRETS:
        if wanted == secret or wanted.startswith(secret + "/"):
            return secret
    return None


def jail_of(lane: Lane, ground: Ground) -> JailSpec:
    """The jail of `lane` on `ground`. Raises JailError where it would show what it must not."""
    home = ground.user_home
    if _below(home, lane.repository):
        raise JailError(
            f"the repository {lane.repository} contains HOME ({home}), which a lane has its own of",
            hint="run nanosup with HOME set to a directory outside of the repository",
        )
    tmp: list[Mask | Bind] = [
        Bind(lane.tmp, "/tmp", writable=True)
        if lane.tmp
        else Mask("/tmp", True, 0o1777, lane.memory_bytes),
        Mask("/var/tmp", True, 0o1777, lane.memory_bytes),
    ]
    binds = [
        *(place for place in tmp if isinstance(place, Bind)),
        Bind(lane.home, home, writable=True),
        *_toolchains(ground),
        Bind(lane.mount, lane.repository, writable=lane.writable),
        *_given(lane),
    ]
    masks = [
        *(Mask(path) for path in ground.masks),
        *(Mask(path) for path in ground.barred if path not in ground.masks),
        *(place for place in tmp if isinstance(place, Mask)),
    ]
    if lane.host_network and ground.resolv_conf is not None:
        binds += _resolver(ground.resolv_conf, masks)
    spec = JailSpec(
        argv=lane.argv,
        cwd=lane.repository,
        uid=lane.uid,
        gid=lane.gid,
        hostname=lane.hostname,
        masks=tuple(masks),
        binds=tuple(dict.fromkeys(binds)),
        files=(*_accounts(lane, ground), *_names(lane, ground)),
        symlinks=tuple(Symlink(at, to) for to, at in ground.links),
        host_network=lane.host_network,
        resources=lane.resources,
        groups=lane.groups,
        shm_bytes=lane.memory_bytes,
        netns=lane.way_out.netns if lane.way_out else None,
        tty=lane.tty,
    )
    spec = _without(spec, ground.secrets, ground.sockets, lane.hidden)
    return replace(spec, env=_environment(lane, ground, spec))


def _given(lane: Lane) -> Iterable[Bind]:
    if lane.git_dir is not None:
        yield Bind(lane.git_dir, f"{lane.repository}/.git", writable=lane.git_writable)
    yield from lane.objects
    for directory, path in lane.scratch:
        yield Bind(directory, _inside(lane.repository, path), writable=True)
    for directory, path in lane.share:
        yield Bind(directory, _inside(lane.repository, path))
    if lane.inputs is not None:
        yield Bind(lane.inputs, INPUTS)
    if lane.outputs is not None:
        yield Bind(lane.outputs, OUTPUTS, writable=True)
    if lane.prompt is not None:
        yield Bind(lane.prompt, PROMPT)
    yield from lane.extra


def _toolchains(ground: Ground) -> Iterable[Bind]:
    for _, target in ground.home_paths:
        relative = os.path.relpath(target, ground.user_home)
        secret = home_conflict(relative)
        if relative == "." or relative.startswith(".."):
            raise JailError(
                f"home_read asks for {target}, which is not a path below HOME",
                hint="name the directories that the agent needs, relative to HOME",
            )
        if secret is not None:
            raise JailError(
                f"home_read asks for ~/{relative}, which no lane is given",
                hint=f"~/{secret} holds credentials: give the agent its own through `credentials`",
            )
    asked = {target for _, target in ground.home_paths}
    for source, target in (*ground.home_paths, *ground.toolchains):
        for secret_path in (secret.path for secret in ground.secrets):
            if _below(source, secret_path):
                raise JailError(
                    f"{target} leads to {secret_path}, which no lane is given",
                    hint="take it out of home_read, or do not link to it",
                )
    for source, target in ground.home_paths:
        yield Bind(source, target)
    for source, target in ground.toolchains:
        if not any(_below(target, above) for above in asked):
            yield Bind(source, target)


def _without(
    spec: JailSpec, secrets: Iterable[Secret], sockets: Iterable[str], hidden: Iterable[str]
) -> JailSpec:
    """`spec` with masks over every place where something secret or hidden would be seen.

    A socket can be connected to through a read-only mount (unix(7) asks for write permission of
    the file, not of the mount), so services that listen in odd places are hidden one by one.
    """
    unwanted = dict.fromkeys(sockets, False)
    unwanted |= dict.fromkeys(hidden, True)
    unwanted |= {secret.path: secret.is_directory for secret in secrets}
    masks, files = list(spec.masks), list(spec.files)
    for path, places in places_of(spec, unwanted).items():
        if unwanted[path]:
            masks += map(Mask, places)
        else:
            files += (File(place, b"") for place in places)
    return replace(spec, masks=tuple(masks), files=tuple(files))


def _resolver(resolv_conf: str, masks: Iterable[Mask]) -> list[Bind]:
    if any(_below(resolv_conf, mask.target) for mask in masks):
        return [Bind(resolv_conf, resolv_conf)]
    return []


def _accounts(lane: Lane, ground: Ground) -> Iterable[File]:
    """Tools ask who they are: a uid without an entry makes ssh, git, whoami and others fail."""
    shell = ground.environment.get("SHELL", "/bin/sh")
    uids = {fields[2] for fields in _records(ground.passwd)}
    gids = {fields[2] for fields in _records(ground.group)}
    name = ground.user or _LANE_USER
    if str(lane.uid) not in uids:
        entry = f"{name}:x:{lane.uid}:{lane.gid}::{ground.user_home}:{shell}\n"
        yield File("/etc/passwd", (_whole_lines(ground.passwd) + entry).encode())
    if str(lane.gid) not in gids:
        entry = f"{name}:x:{lane.gid}:\n"
        yield File("/etc/group", (_whole_lines(ground.group) + entry).encode())


def _names(lane: Lane, ground: Ground) -> Iterable[File]:
    """What a lane with a list of hosts looks names up in: it has no DNS."""
    if lane.way_out is not None and ground.hosts is not None:
        listed = (("127.0.0.1", "localhost"), ("::1", "localhost"), *lane.way_out.hosts)
        yield File(ground.hosts, "".join(f"{at} {name}\n" for at, name in listed).encode())


def _environment(lane: Lane, ground: Ground, spec: JailSpec) -> dict[str, str]:
    host = ground.environment
    name = ground.user or _LANE_USER
    allowed = (
        *ENVIRONMENT,
        *(TERMINAL if lane.tty else ()),
        *(PROXIES if lane.host_network else ()),
    )
    env = {
        "HOME": ground.user_home,
        "LOGNAME": name,
        "PATH": visible_path(spec, host.get("PATH", ""), lane.home),
        "SHELL": "/bin/sh",
        "TERM": host.get("TERM", "dumb") if lane.tty else "dumb",
        "TMPDIR": "/tmp",
        "USER": name,
    }
    env |= {key: host[key] for key in allowed if key in host}
    env |= {key: value for key, value in host.items() if key.startswith("LC_")}
    if lane.inputs is not None:
        env["NANOSUP_INPUTS"] = INPUTS
    if lane.outputs is not None:
        env["NANOSUP_OUTPUTS"] = OUTPUTS
    if lane.prompt is not None:
        env["NANOSUP_PROMPT_FILE"] = PROMPT
    if lane.way_out is not None:
        env |= _proxied(lane.way_out)
    return env | dict(lane.env)


def _proxied(way_out: WayOut) -> dict[str, str]:
    """What programs look at to find their proxy, in either case: each reads another one."""
    url = f"http://127.0.0.1:{way_out.port}"
    spared = "" if way_out.through_proxy else "localhost,127.0.0.1,::1"
    names = {"ALL_PROXY": url, "HTTPS_PROXY": url, "HTTP_PROXY": url, "NO_PROXY": spared}
    lower = {name.lower(): value for name, value in names.items()}
    return {**names, **lower, "NODE_USE_ENV_PROXY": "1"}


def visible_path(spec: JailSpec, path: str, lane_home: str) -> str:
    """The entries of PATH whose host content can be seen in the jail, and the usual ones."""
    shown_at = shown_by(spec)
    kept = [
        entry
        for entry in path.split(":")
        if entry.startswith("/")
        and (shown := shown_at(os.path.normpath(entry))) is not None
        and not _below(shown, lane_home)
    ]
    return ":".join(dict.fromkeys([*kept, *_DEFAULT_PATH.split(":")]))


def _inside(repository: str, path: str) -> str:
    target = os.path.normpath(os.path.join(repository, path))
    if target == repository or not _below(target, repository):
        raise JailError(
            f"{path!r} is not a path inside of the repository",
            hint="scratch and share take paths relative to the repository's root",
        )
    if _below(target, f"{repository}/.git"):
        raise JailError(
            f"{path!r} is in the lane's git directory", hint="take it out of scratch and share"
        )
    return target


def _below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _records(text: str) -> list[list[str]]:
    return [fields for line in text.splitlines() if len(fields := line.split(":")) > 2]


def _whole_lines(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"
