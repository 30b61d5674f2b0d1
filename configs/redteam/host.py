"""Files and devices of the host, other lanes, and the board."""

from __future__ import annotations

import ctypes
import glob
import os
from pathlib import Path

from base import ANY, NEVER, ROOT, Context, Stopped, attempt, check, libc


def _read(path: str) -> str:
    return Path(path).read_text(errors="replace").strip()[:60]


for _name in (
    ".ssh/id_ed25519",
    ".aws/credentials",
    ".netrc",
    ".gnupg/private-keys",
    ".docker/config.json",
):

    def _secret(context: Context, name: str = _name) -> str:
        text = _read(f"{context.home}/{name}")
        if context.secret not in text:
            raise Stopped("it is empty")
        return text

    attempt(f"read ~/{_name}", "secrets")(_secret)


@attempt("read /etc/shadow", "secrets", control=ROOT)
def shadow(context: Context) -> str:
    return _read("/etc/shadow")


@attempt("write to HOME of the user", "secrets")
def home(context: Context) -> str:
    """A HOME of its own is at the same path in lanes: outside it is looked up whether it was it."""
    path = Path(context.home, ".profile")
    with open(path, "a") as file:
        file.write(f"# {context.mark}\n")
    return "judged outside"


@attempt("write to the host's working tree", "host files")
def worktree(context: Context) -> str:
    """In lanes with mounts that path is the lane's own view: looked up outside."""
    with open(Path(context.host_repository, "host.txt"), "a") as file:
        file.write(context.mark)
    return "judged outside"


@attempt("write to the host's .git/config", "host files")
def host_config(context: Context) -> str:
    with open(Path(context.host_repository, ".git/config"), "a") as file:
        file.write(f"# {context.mark}\n")
    return "judged outside"


@attempt("list the board", "board")
def board(context: Context) -> str:
    found = os.listdir(context.board)
    if not found:
        raise Stopped("there is nothing in it")
    return str(found[:3])


@attempt("read the signing key", "board")
def key(context: Context) -> str:
    return _read(f"{context.board}/key/ed25519.pem").splitlines()[0]


@attempt("forge an outcome", "board")
def outcome(context: Context) -> str:
    with open(Path(context.own_attempt, "outcome.json"), "x") as file:
        file.write('{"state": "completed"}')
    return "written"


@attempt("find a token", "board", control=ANY)
def token(context: Context) -> str:
    for path in (context.other_attempt, f"{context.board}/sprints"):
        for parent, _, files in os.walk(path):
            for name in files:
                if name == "owner.json":
                    return _read(os.path.join(parent, name))
    raise Stopped("no document of the board can be found")


@attempt("read another lane's directory", "board")
def other_lane(context: Context) -> str:
    found = os.listdir(context.other_lane)
    if not found:
        raise Stopped("there is nothing in it")
    return str(found[:3])


@attempt("watch another lane by inotify", "board")
def inotify(context: Context) -> str:
    fd = check(libc.inotify_init1(0))
    check(libc.inotify_add_watch(fd, context.other_lane.encode(), 0x100))
    return "watching"


@attempt("another lane's upper directory, by its mount", "board", control=NEVER)
def mountinfo(context: Context) -> str:
    """Paths of the lane's own layers are in its mounts' options; they must lead nowhere."""
    text = Path("/proc/self/mountinfo").read_text()
    for option in text.replace("\n", ",").split(","):
        for part in option.split():
            key_, _, value = part.partition("=")
            if key_ in ("lowerdir", "upperdir", "workdir"):
                for path in value.split(":"):
                    reached = path.startswith("/") and not path.startswith("/proc/self/fd")
                    if reached and os.path.isdir(path) and os.listdir(path):
                        return path
    raise Stopped("none can be reached")


def _opens(*patterns: str, flags: int = os.O_WRONLY) -> str:
    failure: Exception = Stopped("there is none")
    for pattern in patterns:
        for path in glob.glob(pattern) or [pattern]:
            try:
                os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
                return path
            except OSError as error:
                failure = error
    raise failure


@attempt("/dev/fuse", "devices", control=NEVER)
def fuse(context: Context) -> str:
    return _opens("/dev/fuse", flags=os.O_RDWR)


@attempt("disks, memory and consoles in /dev", "devices", control=ROOT)
def disks(context: Context) -> str:
    return _opens("/dev/vd*", "/dev/sd*", "/dev/nvme*", "/dev/mem", "/dev/kmsg", "/dev/tty0")


@attempt("terminals of others", "devices", control=NEVER)
def terminals(context: Context) -> str:
    for path in glob.glob("/dev/pts/[0-9]*"):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK))
            return path
        except OSError:
            continue
    raise Stopped("there is none")


@attempt("abort the FUSE connection in /sys", "kernel files", control=NEVER)
def abort(context: Context) -> str:
    return _opens("/sys/fs/fuse/connections/*/abort")


@attempt("core_pattern", "kernel files", control=ROOT)
def core_pattern(context: Context) -> str:
    return _opens("/proc/sys/kernel/core_pattern")


@attempt("binfmt_misc", "kernel files", control=NEVER)
def binfmt(context: Context) -> str:
    return _opens("/proc/sys/fs/binfmt_misc/register")


@attempt("sysrq, sysctl", "kernel files", control=ROOT)
def sysrq(context: Context) -> str:
    return _opens("/proc/sysrq-trigger", "/proc/sys/kernel/hostname")


@attempt("cgroups", "kernel files", control=NEVER)
def cgroups(context: Context) -> str:
    for parent, _, files in os.walk("/sys/fs/cgroup"):
        if "cgroup.procs" in files:
            return _opens(os.path.join(parent, "cgroup.procs"))
    raise Stopped("there are none")


@attempt("a planted package for the host's Python", "host files", control=ROOT)
def site_packages(context: Context) -> str:
    import sysconfig

    # Of its own name: for control, two of these run at once.
    path = Path(sysconfig.get_paths()["purelib"], f"nanosup_redteam_{os.getpid()}.pth")
    path.touch()
    path.unlink()
    return str(path)


@attempt("/etc, /usr", "host files", control=ROOT)
def system(context: Context) -> str:
    return _opens("/etc/passwd", "/etc/hosts", "/usr/bin/env", flags=os.O_WRONLY)


@attempt("an object of the host's repository", "host files", control=ANY)
def objects(context: Context) -> str:
    """The store that git in the lane borrows from."""
    alternates = Path(".git")
    if alternates.is_file():
        alternates = Path(alternates.read_text().split(":", 1)[1].strip())
    listed = alternates / "objects/info/alternates"
    stores = listed.read_text().splitlines() if listed.exists() else [str(alternates / "objects")]
    made = Path(stores[0], "planted")
    made.touch()
    made.unlink()
    return stores[0]


@attempt(
    "what the interpreter is asked to forget: ctypes and mprotect", "host files", control=NEVER
)
def own_memory(context: Context) -> str:
    """Nothing that it may do to itself changes what the kernel enforces: the filter stays."""
    libc.prctl(22, ctypes.c_ulong(0), 0, 0, 0)  # PR_SET_SECCOMP to nothing
    status = Path("/proc/self/status").read_text()
    if "Seccomp:\t0" in status:
        return "there is no filter"
    raise Stopped("the filter cannot be taken off")
