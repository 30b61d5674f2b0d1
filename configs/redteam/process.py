"""Other processes, and the kernel's less used doors."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

from base import ANY, NEVER, ROOT, Context, Stopped, attempt, check, libc, syscall

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000


@attempt("unshare a user namespace", "filter", control=NEVER)
def new_user(context: Context) -> str:
    check(libc.unshare(CLONE_NEWUSER))
    return "in a new user namespace"


@attempt("unshare a mount namespace", "filter", control=ROOT)
def new_mounts(context: Context) -> str:
    check(libc.unshare(CLONE_NEWNS))
    return "in a new mount namespace"


@attempt("clone3 with a user namespace", "filter", control=NEVER)
def clone3(context: Context) -> str:
    arguments = struct.pack("=11Q", CLONE_NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
    if syscall(435, 435, arguments, len(arguments)) == 0:
        os._exit(0)
    os.wait()
    return "cloned"


@attempt("setns to the namespace of pid 1", "filter", control=NEVER)
def setns(context: Context) -> str:
    fd = os.open("/proc/1/ns/uts", os.O_RDONLY)
    check(libc.setns(fd, 0))
    return "joined"


@attempt("ptrace another process", "processes")
def ptrace(context: Context) -> str:
    pid = context.canary_pid
    check(libc.ptrace(0x4206, pid, None, None))  # PTRACE_SEIZE
    check(libc.ptrace(0x4207, pid, None, None))  # PTRACE_INTERRUPT
    os.waitpid(pid, 0x40000000)  # __WALL
    check(libc.ptrace(17, pid, None, None))  # PTRACE_DETACH
    return "traced"


@attempt("process_vm_readv of another process", "processes")
def vm_readv(context: Context) -> str:
    buffer = ctypes.create_string_buffer(8)
    local = struct.pack("=QQ", ctypes.addressof(buffer), 8)
    remote = struct.pack("=QQ", context.canary_address, 8)
    syscall(310, 270, context.canary_pid, local, 1, remote, 1, 0)
    return f"read {buffer.raw!r}"


@attempt("/proc/PID/mem of another process", "processes")
def proc_mem(context: Context) -> str:
    with open(f"/proc/{context.canary_pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(context.canary_address)
        return f"read {memory.read(8)!r}"


@attempt("/proc/PID/environ of another process", "processes")
def proc_environ(context: Context) -> str:
    """That of the one that is known, and of all that can be seen."""
    failure: Exception = Stopped("no secret in any of them")
    names = [str(context.canary_pid), *(name for name in os.listdir("/proc") if name.isdigit())]
    for name in names:
        try:
            if context.secret.encode() in Path(f"/proc/{name}/environ").read_bytes():
                return f"the secret of {name}"
        except OSError as error:
            failure = error
    if context.secret in os.environ.values():
        return "the secret, in its own environment"
    raise failure


@attempt("/proc/PID/root of another process", "processes")
def proc_root(context: Context) -> str:
    failure: Exception = Stopped("no other root")
    for name in (str(context.canary_pid), "1"):
        try:
            return Path(f"/proc/{name}/root{context.home}/.ssh/id_ed25519").read_text().strip()
        except OSError as error:
            failure = error
    raise failure


@attempt("/proc/PID/cwd of another process", "processes")
def proc_cwd(context: Context) -> str:
    return str(os.listdir(f"/proc/{context.canary_pid}/cwd"))


@attempt("/proc/PID/fd of another process", "processes")
def proc_fd(context: Context) -> str:
    with open(f"/proc/{context.canary_pid}/fd/{context.canary_fd}", "r+") as prize:
        return prize.read().strip()


@attempt("pidfd_getfd of another process", "processes")
def pidfd_getfd(context: Context) -> str:
    pidfd = os.pidfd_open(context.canary_pid)
    fd = syscall(438, 438, pidfd, context.canary_fd, 0)
    return os.pread(fd, 20, 0).decode().strip()


@attempt("a signal to another process", "processes")
def kill(context: Context) -> str:
    os.kill(context.canary_pid, signal.SIGWINCH)
    return "sent"


@attempt("a signal by pidfd", "processes")
def pidfd_kill(context: Context) -> str:
    signal.pidfd_send_signal(os.pidfd_open(context.canary_pid), signal.SIGWINCH)
    return "sent"


@attempt("limits of another process", "processes")
def prlimit(context: Context) -> str:
    resource.prlimit(context.canary_pid, resource.RLIMIT_CORE, (0, 0))
    return "changed"


@attempt("priority of another process", "processes")
def setpriority(context: Context) -> str:
    os.setpriority(os.PRIO_PROCESS, context.canary_pid, 5)
    return "changed"


@attempt("affinity of another process", "processes")
def affinity(context: Context) -> str:
    os.sched_setaffinity(context.canary_pid, os.sched_getaffinity(0))
    return "changed"


@attempt("oom_score_adj of another process", "processes")
def oom_score(context: Context) -> str:
    Path(f"/proc/{context.canary_pid}/oom_score_adj").write_text("1000")
    return "changed"


@attempt("System V shared memory of another process", "processes")
def shared_memory(context: Context) -> str:
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(context.shm_id, None, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return f"read {ctypes.string_at(address, 6)!r}"


@attempt("open_by_handle_at", "filter", control=ROOT)
def by_handle(context: Context) -> str:
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0) + b"\0" * 128)
    mount_id = ctypes.c_int()
    check(libc.name_to_handle_at(-100, b"victim.txt", handle, ctypes.byref(mount_id), 0))
    os.close(check(libc.open_by_handle_at(os.open(".", os.O_RDONLY), handle, os.O_RDONLY)))
    return "opened"


@attempt("io_uring_setup", "filter", control=NEVER)
def io_uring(context: Context) -> str:
    os.close(syscall(425, 425, 4, ctypes.create_string_buffer(120)))
    return "set up"


@attempt("userfaultfd", "filter", control=NEVER)
def userfault(context: Context) -> str:
    os.close(syscall(323, 282, 1))
    return "opened"


@attempt("bpf", "filter", control=ROOT)
def bpf(context: Context) -> str:
    os.close(syscall(321, 280, 0, struct.pack("=IIIIQQQ", 2, 4, 4, 1, 0, 0, 0), 40))
    return "a map"


@attempt("perf_event_open", "filter", control=NEVER)
def perf(context: Context) -> str:
    attributes = struct.pack("=IIQ", 1, 112, 0).ljust(112, b"\0")
    os.close(syscall(298, 241, attributes, 0, -1, -1, 0))
    return "opened"


@attempt("keyrings", "filter", control=NEVER)
def keyctl(context: Context) -> str:
    return str(syscall(250, 219, 0, -3, 0))  # KEYCTL_GET_KEYRING_ID of the session


@attempt("personality, to read what may only be executed", "filter", control=ANY)
def personality(context: Context) -> str:
    check(libc.personality(ctypes.c_ulong(0x0400000)))  # READ_IMPLIES_EXEC
    return "changed"


@attempt("kexec_load, init_module", "filter", control=NEVER)
def modules(context: Context) -> str:
    failure: Exception = Stopped("no such calls")
    for numbers in ((246, 104), (175, 105)):
        try:
            syscall(*numbers, 0, 0, 0, 0)
            return "loaded"
        except OSError as error:
            failure = error
            if error.errno not in (1, 38):
                return f"reached the kernel: {error.strerror}"
    raise failure


@attempt("TIOCSTI", "filter", control=NEVER)
def tiocsti(context: Context) -> str:
    failure: Exception = Stopped("no terminal")
    for name in ("/dev/tty", 0, 1, 2):
        try:
            fd = os.open(name, os.O_RDWR) if isinstance(name, str) else name
            fcntl.ioctl(fd, 0x5412, b"x")
            return "typed into the terminal"
        except OSError as error:
            failure = error
    raise failure


@attempt("a set-user-ID program", "privileges")
def setuid(context: Context) -> str:
    """Whether one would gain anything: no_new_privs is what forbids it."""
    status = Path("/proc/self/status").read_text()
    if "NoNewPrivs:\t1" in status:
        raise Stopped("no_new_privs is set")
    return "it would run as root"


@attempt("capabilities", "privileges", control=ROOT)
def capabilities(context: Context) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    sets = {line.split(":")[0]: int(line.split()[1], 16) for line in lines if line[:3] == "Cap"}
    if any(sets[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")):
        return f"has {sets}"
    raise Stopped("all sets are empty")


@attempt("root, or a user whose files are on the host", "privileges", control=ROOT)
def identity(context: Context) -> str:
    """As an ordinary user one is that user; as root's agent, nobody."""
    if os.getuid() == 0 or (context.host_uid == 0 and os.getgid() == 0):
        return "it is root"
    raise Stopped(f"uid {os.getuid()}, which is not root")


@attempt("descriptors that were left open", "descriptors", control=NEVER)
def inherited(context: Context) -> str:
    """A directory of the host, or a file open for writing, would be a way out."""
    if context.left_open:
        return ", ".join(context.left_open)
    raise Stopped("none but 0, 1 and 2")


def _connected(address: str | bytes) -> str:
    """Asks the listener outside for the descriptor that it gives to whoever connects."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(3)
        channel.connect(address)
        _, fds, _, _ = socket.recv_fds(channel, 64, 1)
    if not fds:
        raise Stopped("it was given none")
    os.pwrite(fds[0], b"", 0)
    return "got a descriptor of the host, by SCM_RIGHTS"


@attempt("a descriptor by SCM_RIGHTS, by a socket's path", "sockets")
def by_path(context: Context) -> str:
    return _connected(context.socket_path)


@attempt("a descriptor by SCM_RIGHTS, by an abstract socket", "sockets")
def by_abstract(context: Context) -> str:
    return _connected(b"\0" + context.socket_name.encode())


@attempt("a datagram to a socket's path, from a socket pair", "sockets")
def by_datagram(context: Context) -> str:
    one, _other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.sendto(b"hello", context.datagram_path)
    return "sent"


@attempt("docker, podman, D-Bus, systemd, ssh-agent, X11, tmux", "sockets", control=NEVER)
def services(context: Context) -> str:
    uid = context.host_uid
    failure: Exception = Stopped("none of them is there")
    for path in (
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/run/podman/podman.sock",
        f"/run/user/{uid}/podman/podman.sock",
        "/run/dbus/system_bus_socket",
        f"/run/user/{uid}/bus",
        "/run/systemd/private",
        f"/run/user/{uid}/systemd/private",
        f"/run/user/{uid}/wayland-0",
        "/tmp/.X11-unix/X0",
        f"/tmp/tmux-{uid}/default",
        os.environ.get("SSH_AUTH_SOCK", "/nonexistent"),
    ):
        try:
            with socket.socket(socket.AF_UNIX) as channel:
                channel.connect(path)
            return path
        except OSError as error:
            failure = error
    raise failure


@attempt("a daemon that outlives the lane", "lifetime")
def daemon(context: Context) -> str:
    """Whether it does is looked up outside, when the lane has ended."""
    code = "import time; time.sleep(120)"
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 3)
            os.execv(sys.executable, [sys.executable, "-c", code, context.daemon_mark])
        os._exit(0)
    os.wait()
    return "judged outside"


@attempt("core dumps to a program of the host", "privileges", control=NEVER)
def core(context: Context) -> str:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
    except ValueError as error:
        raise Stopped(str(error)) from None
    return "could be piped to core_pattern"


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Stopped((done.stderr.strip().splitlines() or ["failed"])[-1])
    return done.stdout.strip()


@attempt("systemd-run", "sockets", control=NEVER)
def systemd_run(context: Context) -> str:
    try:
        return _run("systemd-run", "--user", "--wait", "true") or "ran"
    except FileNotFoundError:
        raise Stopped("it is not installed") from None
