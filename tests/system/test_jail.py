"""What holds in a real jail, where nanosup runs as root and where it runs as an ordinary user."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.errors import JailError
from sandbox.jail import encoding, step
from sandbox.jail.census import Process
from sandbox.jail.child import Child
from sandbox.jail.elf import Fork
from sandbox.jail.end import Cause, End, Exited, Signaled, Unstarted
from sandbox.jail.feature import Features
from sandbox.jail.jail import Bind
from sandbox.jail.seccomp import RULES, number_of
from tests.keep import Keeper, Who, become, dwelling, keep, keeper
from tests.system.jailing import features as features
from tests.system.jailing import who as who

LANE_OWN_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
DEADLINE_S = 10.0


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_the_agent_is_nobody_special_to_the_kernel(who: Who, features: Features) -> None:
    def act(kept: Keeper) -> tuple[dict[str, str], int]:
        out, ready = os.pipe()
        spec = kept.spec("sh", "-c", "echo ready; exec sleep 60")
        with kept.start(spec, stdout=ready) as jailed:
            os.read(out, 6)
            assert jailed.agent is not None
            return status_of(jailed.agent), kept.lane.uid

    status, uid = keep(who, features, act)

    assert uid != 0
    assert status["Uid"].split() == [str(uid)] * 4
    assert status["Gid"].split() == [str(uid if who.uid == 0 else who.gid)] * 4
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == ("2" if features.seccomp else "0")
    assert status["SigIgn"] == status["SigBlk"] == "0" * 16
    assert status["Umask"] == "0022"


def test_supplementary_groups_of_root_are_dropped(features: Features) -> None:
    if os.getuid() != 0:
        pytest.skip("not run as root")
    with dwelling("root", 0, 0) as root:
        _, out = keep(root, features, lambda kept: kept.run("id", "-G"))

    assert "0" not in out.split()


def test_every_namespace_is_the_lanes_own(who: Who, features: Features) -> None:
    script = f"for n in {' '.join(LANE_OWN_NAMESPACES)}; do readlink /proc/self/ns/$n; done"
    _, out = keep(who, features, lambda kept: kept.run("sh", "-c", script))

    ours = {os.readlink(f"/proc/self/ns/{name}") for name in LANE_OWN_NAMESPACES}
    theirs = set(out.split())
    assert len(theirs) == len(LANE_OWN_NAMESPACES)
    assert not ours & theirs


def test_files_of_root_cannot_be_read(who: Who, features: Features) -> None:
    end, out = keep(who, features, lambda kept: kept.run("cat", "/etc/shadow"))

    assert end == Exited(1)
    assert "Permission denied" in out


def test_only_the_lanes_own_mounts_are_writable(who: Who, features: Features) -> None:
    _, out = keep(who, features, lambda kept: kept.run("cat", "/proc/self/mountinfo"))

    fields = [line.split() for line in out.splitlines()]
    writable = {field[4] for field in fields if "rw" in field[5].split(",")}
    own = {"/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/dev/pts", "/proc"}
    own |= {str(who.home), "/run/nanosup/outputs"}
    assert {path for path in writable if not path.startswith("/dev/")} <= own
    assert own & writable >= {"/tmp", str(who.home), "/run/nanosup/outputs"}
    assert writable - own <= {f"/dev/{name}" for name in (
        "null", "zero", "full", "random", "urandom", "tty", "console")}  # fmt: skip


@pytest.mark.parametrize(
    "path", ["/usr/x", "/etc/x", "/home/x", "/run/x", "/dev/x", "/run/nanosup/x", "/x", "x"]
)
def test_nothing_else_can_be_written(who: Who, features: Features, path: str) -> None:
    end, out = keep(who, features, lambda kept: kept.run("touch", path))

    assert end == Exited(1)
    assert "Read-only file system" in out


def test_temporary_directories_and_run_of_the_host_are_not_seen(
    who: Who, features: Features
) -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp"):
        _, out = keep(
            who, features, lambda kept: kept.run("ls", "-A", "/tmp", "/run", "/dev/shm", "/home")
        )

    assert out.split() == ["/dev/shm:", "/home:", "/run:", "nanosup", "/tmp:"]


def test_of_home_only_the_list_is_seen(who: Who, features: Features) -> None:
    def act(kept: Keeper) -> str:
        for name in (".ssh", ".cargo/bin", ".config/gcloud", ".config/ok", "documents"):
            path = who.home / name
            path.mkdir(parents=True, exist_ok=True)
            (path / "file").write_text(f"content of {name}\n")
        script = f"cd {who.home}; find . -type f -exec cat {{}} + | sort; touch mine"
        return kept.run("sh", "-c", script, home_read=(".config",))[1]

    out = keep(who, features, act)

    assert out.splitlines() == ["content of .cargo/bin", "content of .config/ok"]
    assert not (who.home / "mine").exists()


def test_processes_of_the_host_are_not_seen(who: Who, features: Features) -> None:
    _, out = keep(who, features, lambda kept: kept.run("sh", "-c", "ls /proc | grep '^[0-9]'"))

    assert all(int(pid) < 10 for pid in out.split())
    assert os.getpid() > 10


def command_line(pid: int) -> bytes:
    """Empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_the_environment_is_the_lanes_own_and_leaks_nowhere(who: Who, features: Features) -> None:
    def act(kept: Keeper) -> tuple[str, bytes]:
        spec = kept.spec("sh", "-c", "cat /proc/*/environ /proc/*/cmdline", env={"KEY": "abc123"})
        with kept.start(spec) as jailed:
            seen = b"".join(
                command_line(pid)
                for pid in (jailed.pid, *(process.pid for process in jailed.processes()))
            )
            jailed.wait(DEADLINE_S)
        return os.pread(kept.log, 1 << 20, 0).decode(), seen

    out, seen = keep(who, features, act)

    assert "KEY=abc123" in out
    assert "hunter2" not in out
    assert b"abc123" not in seen


def test_no_descriptor_is_inherited(who: Who, features: Features) -> None:
    def act(kept: Keeper) -> str:
        os.set_inheritable(os.open("/", os.O_RDONLY), True)
        return kept.run("ls", "/proc/self/fd")[1]

    # 3 is the directory that ls reads.
    assert keep(who, features, act).split() == ["0", "1", "2", "3"]


def test_the_jails_init_holds_nothing_of_the_host(who: Who, features: Features) -> None:
    script = "for fd in /proc/1/fd/*; do readlink $fd; done"
    _, out = keep(who, features, lambda kept: kept.run("sh", "-c", script))

    # An event counter is how bubblewrap's two halves talk.
    assert {line for line in out.splitlines() if "/log" not in line} <= {
        "/dev/null",
        "anon_inode:[eventfd]",
    }


def test_a_network_of_its_own_has_only_loopback(who: Who, features: Features) -> None:
    _, out = keep(who, features, lambda kept: kept.run("cat", "/proc/net/dev"))

    assert re.findall(r"^\s*(\S+):", out, re.MULTILINE) == ["lo"]


def test_abstract_sockets_of_the_host_are_out_of_reach_with_its_network(
    who: Who, features: Features
) -> None:
    if not features.scoped:
        pytest.skip("landlock here is older than ABI 6")
    name = f"nanosup-test-{os.getpid()}"
    client = f"""
import socket
socket.socket(socket.AF_UNIX).connect("\\0{name}")
"""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + name)
        server.listen()
        end, out = keep(
            who,
            features,
            lambda kept: kept.run("/usr/bin/python3", "-c", client, host_network=True),
        )

    assert end == Exited(1)
    assert "Operation not permitted" in out


@pytest.mark.parametrize("filtered", [True, False])
def test_no_user_namespace_can_be_made(who: Who, features: Features, filtered: bool) -> None:
    found = replace(features, seccomp=features.seccomp and filtered)
    end, out = keep(who, found, lambda kept: kept.run("unshare", "--user", "true"))

    assert end == Exited(1)
    assert "unshare failed" in out


def test_a_terminal_cannot_be_typed_into(who: Who, features: Features) -> None:
    if not features.seccomp:
        pytest.skip("no seccomp here")
    script = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSTI, b'x')"

    def act(kept: Keeper) -> str:
        master, slave = os.openpty()
        spec = kept.spec("/usr/bin/python3", "-c", script, tty=True)
        with kept.start(spec, stdin=slave, stdout=slave, stderr=slave) as jailed:
            os.close(slave)
            jailed.wait(DEADLINE_S)
            return os.read(master, 65536).decode()

    assert "Operation not permitted" in keep(who, features, act)


def test_a_lane_with_a_terminal_has_it_as_its_controlling_one(who: Who, features: Features) -> None:
    def act(kept: Keeper) -> tuple[object, str]:
        master, slave = os.openpty()
        spec = kept.spec("sh", "-c", "echo yes > /dev/tty", tty=True)
        with kept.start(spec, stdin=slave, stdout=slave, stderr=slave) as jailed:
            os.close(slave)
            return jailed.wait(DEADLINE_S), os.read(master, 65536).decode()

    assert keep(who, features, act) == (Exited(0), "yes\r\n")


def test_every_denied_system_call_is_denied(who: Who, features: Features) -> None:
    if not features.seccomp:
        pytest.skip("no seccomp here")
    numbers = {
        rule.name: (number, rule.error)
        for rule in RULES
        if rule.match is None and (number := number_of(rule.name, features.machine)) is not None
    }
    # -1 is nowhere a pointer, a descriptor, or a pid: unfiltered, other errors would come.
    script = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for name, (number, error) in {numbers!r}.items():
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)
    if (result, ctypes.get_errno()) != (-1, error):
        print(name, result, ctypes.get_errno())
"""
    end, out = keep(who, features, lambda kept: kept.run("/usr/bin/python3", "-c", script))

    assert (end, out) == (Exited(0), "")


def test_what_was_denied_is_known_by_name(who: Who, features: Features) -> None:
    if not features.notifies:
        pytest.skip("a filter here can have no listener")

    def act(kept: Keeper) -> dict[str, int]:
        script = "unshare -U true; unshare -m true; chroot / true; mount -t tmpfs x /tmp; true"
        with kept.start(kept.spec("sh", "-c", script)) as jailed:
            jailed.wait(DEADLINE_S)
            return jailed.denied

    assert keep(who, features, act) == {"unshare": 2, "chroot": 1, "mount": 1}


def test_where_nobody_can_be_told_calls_are_denied_all_the_same(
    who: Who, features: Features
) -> None:
    untold = replace(features, notifies=False)
    _, out = keep(who, untold, lambda kept: kept.run("unshare", "-U", "true"))

    assert "Operation not permitted" in out


def test_a_call_of_another_architecture_is_the_end(who: Who, features: Features) -> None:
    if not features.seccomp or features.machine != "x86_64":
        pytest.skip("needs seccomp on x86_64")
    script = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, getpid; int 0x80; ret
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
"""
    end, _ = keep(who, features, lambda kept: kept.run("/usr/bin/python3", "-c", script))

    assert isinstance(end, Signaled)
    assert end.signal == signal.SIGSYS


def test_a_command_that_ends_at_once_is_told_from_what_it_leaves(
    who: Who, features: Features
) -> None:
    if not features.has_entry:
        pytest.skip("nothing says that the command has begun")
    machine = features.machine
    forks = Fork(step.number(machine, "clone"), signal.SIGCHLD, 1)
    waits = step.call(machine, "ppoll", 0, 0, 0, 0, 0)
    program = encoding.program(machine, [forks, waits], report_fd=2)

    def act(kept: Keeper) -> list[tuple[End | None, int]]:
        path = Path(kept.lane.mount) / "forks"
        path.write_bytes(program)
        path.chmod(0o755)
        found = []
        for _ in range(30):
            with kept.start(kept.spec("./forks")) as jailed:
                found.append((jailed.wait(10), len(jailed.left)))
        return found

    assert set(keep(who, features, act)) == {(Exited(0), 1)}


def test_a_command_that_ends_at_once_has_a_status_and_no_signal(
    who: Who, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not features.has_entry:
        pytest.skip("nothing says that the command is about to begin")
    find = Child._find_agent

    def late(child: Child, timeout_s: float) -> None:
        time.sleep(0.1)
        find(child, timeout_s)

    monkeypatch.setattr(Child, "_find_agent", late)

    end, _ = keep(who, features, lambda kept: kept.run("sh", "-c", "exit 137"))

    assert end == Exited(137)


def test_a_daemon_dies_with_the_command_that_left_it(who: Who, features: Features) -> None:
    def act(kept: Keeper) -> tuple[object, list[int]]:
        script = "(setsid setsid sleep 1000 > /dev/null 2>&1 &) ; read line"
        read, write = os.pipe()
        with kept.start(kept.spec("sh", "-c", script), stdin=read) as jailed:
            os.close(read)
            pids = wait_for(jailed, "sleep", among=2)
            os.write(write, b"\n")
            end = jailed.wait(DEADLINE_S)
            return end, [pid for pid in pids if not gone(pid)]

    assert keep(who, features, act) == (Exited(0), [])


def test_kill_leaves_nothing_of_the_jail(who: Who, features: Features) -> None:
    def act(kept: Keeper) -> tuple[object, list[int]]:
        script = "trap '' TERM INT HUP; (setsid setsid sleep 1000 &) ; while :; do read x; done"
        read, _write = os.pipe()
        with kept.start(kept.spec("sh", "-c", script), stdin=read) as jailed:
            pids = wait_for(jailed, "sleep", among=2)
            jailed.kill()
            end = jailed.wait(DEADLINE_S)
            return end, [pid for pid in pids if not gone(pid)]

    end, left = keep(who, features, act)

    assert end == Signaled(signal.SIGKILL)
    assert left == []


def wait_for(jailed: Child, name: str, among: int) -> list[int]:
    """Pids in the jail, as soon as there are that many and one is called `name`."""
    while jailed.poll() is None:
        processes = jailed.processes()
        # Whoever has started it may take a moment to be gone.
        if len(processes) == among and any(process.name == name for process in processes):
            return [process.pid for process in processes]
    raise AssertionError(f"the jail ended ({jailed.end}) without a process {name}")


def test_terminate_reaches_the_command_itself(who: Who, features: Features) -> None:
    def act(kept: Keeper) -> object:
        script = "trap 'exit 7' TERM; echo ready; while :; do read x; done"
        read, _write = os.pipe()
        out, ready = os.pipe()
        with kept.start(kept.spec("sh", "-c", script), stdin=read, stdout=ready) as jailed:
            os.read(out, 6)
            assert jailed.terminate()
            end = jailed.wait(DEADLINE_S)
            assert not jailed.terminate()
            return end

    assert keep(who, features, act) in (Exited(7), Exited(0))


def test_the_jail_dies_with_its_keeper(who: Who, features: Features) -> None:
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            become(who)
            kept = keeper(who, features)
            jailed = kept.start(kept.spec("sh", "-c", "(setsid sleep 1000 &); exec sleep 1000"))
            # The shell of the parentheses is there for a moment, too, and may be gone already.
            seen: tuple[Process, ...] = ()
            while [process.name for process in seen] != ["sleep", "sleep"]:
                seen = jailed.processes()
            pids = (jailed.pid, *(process.pid for process in seen))
            os.write(send, " ".join(map(str, pids)).encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(send)
    with open(receive, "rb") as answers:
        pids = [int(word) for word in os.read(answers.fileno(), 4096).split()]
        pidfds = [os.pidfd_open(jailed) for jailed in pids]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], 2.0)[0], "a process outlived its keeper"
        os.close(pidfd)
    assert len(pids) == 3


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 0", Exited(0)),
        ("exit 41", Exited(41)),
        ("kill -TERM $$", Signaled(signal.SIGTERM)),
        ("kill -KILL $$", Signaled(signal.SIGKILL)),
    ],
)
def test_the_end_is_the_commands_own(
    who: Who, features: Features, script: str, expected: object
) -> None:
    end, _ = keep(who, features, lambda kept: kept.run("sh", "-c", script))

    assert end == expected or (isinstance(end, Signaled) and end.signal == expected.signal)


def test_a_command_that_is_not_there_is_told_from_one_that_cannot_run(
    who: Who, features: Features
) -> None:
    def act(kept: Keeper) -> list[object]:
        return [kept.run("no-such-command")[0], kept.run("/etc/passwd")[0], kept.run("/usr")[0]]

    missing, *forbidden = keep(who, features, act)

    assert isinstance(missing, Unstarted)
    assert missing.cause is Cause.NOT_FOUND
    assert all(isinstance(end, Unstarted) for end in forbidden)
    assert [end.cause for end in forbidden] == [Cause.NOT_EXECUTABLE] * 2


def test_a_jail_that_cannot_be_built_is_an_error(who: Who, features: Features) -> None:
    def act(kept: Keeper) -> None:
        kept.run("true", mount=str(kept.directory / "nowhere"))

    with pytest.raises(JailError, match="nowhere"):
        keep(who, features, act)


@pytest.mark.parametrize("link", ["src", "/etc", "missing"])
def test_a_link_in_the_repository_cannot_move_what_is_mounted(
    who: Who, features: Features, link: str
) -> None:
    def act(kept: Keeper) -> None:
        (kept.directory / "mnt" / "src").mkdir()
        (kept.directory / "mnt" / "target").symlink_to(link)
        scratch = str(kept.make("scratch"))
        kept.run("true", scratch=((scratch, "target"),))

    with pytest.raises(JailError, match="target is a symbolic link"):
        keep(who, features, act)


def test_why_a_command_does_not_run_is_known_wherever_its_stderr_goes(
    who: Who, features: Features
) -> None:
    def act(kept: Keeper) -> list[object]:
        ends: list[object] = []
        for command in ("no-such-command", "/usr"):
            _read, write = os.pipe()
            with kept.start(kept.spec(command), stderr=write) as jailed:
                ends.append(jailed.wait(DEADLINE_S))
        return ends

    assert keep(who, features, act) == [
        Unstarted(Cause.NOT_FOUND, "no-such-command: No such file or directory"),
        Unstarted(Cause.NOT_EXECUTABLE, "/usr: Permission denied"),
    ]


def test_a_script_without_a_first_line_is_the_shells(who: Who, features: Features) -> None:
    def act(kept: Keeper) -> tuple[object, str]:
        script = kept.directory / "mnt" / "script"
        script.write_text("echo $0 $@")
        script.chmod(0o755)
        return kept.run("./script", "a", "b")

    assert keep(who, features, act) == (Exited(0), "./script a b\n")


def test_bubblewraps_words_are_read_from_a_log_that_is_open_for_writing_only(
    who: Who, features: Features
) -> None:
    def act(kept: Keeper) -> None:
        log = os.open(kept.directory / "other", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        kept.start(replace(kept.spec("true"), cwd="/usr/nowhere"), stderr=log)

    with pytest.raises(JailError, match="Can't chdir to /usr/nowhere"):
        keep(who, features, act)


def test_a_place_that_is_not_there_on_the_host_is_not_made(who: Who, features: Features) -> None:
    with pytest.raises(JailError, match="/usr/nowhere cannot be shown in the jail: Read-only"):
        keep(who, features, lambda kept: kept.run("true", repository="/usr/nowhere"))
    assert not os.path.lexists("/usr/nowhere")


def test_the_keepers_own_view_stays_what_it_was(who: Who, features: Features) -> None:
    def act(kept: Keeper) -> tuple[list[str], list[str]]:
        def seen() -> list[str]:
            mounts = Path("/proc/self/mountinfo").read_text().splitlines()
            fds = sorted(os.listdir("/proc/self/fd"))
            return [os.readlink("/proc/self/ns/mnt"), *mounts, *fds]

        before = seen()
        end, _ = kept.run("true")
        assert end == Exited(0)
        with pytest.raises(JailError):
            kept.run("true", repository="/usr/nowhere")
        return before, seen()

    before, after = keep(who, features, act)
    assert before == after


def test_a_bubblewrap_that_cannot_run_is_an_error(who: Who, features: Features) -> None:
    with pytest.raises(JailError, match="cannot be started"):
        keep(who, replace(features, bwrap="/no/bwrap"), lambda kept: kept.run("true"))


def test_cpu_time_of_the_jail_is_known(who: Who, features: Features) -> None:
    def act(kept: Keeper) -> float:
        with kept.start(kept.spec("sh", "-c", "while :; do :; done")) as jailed:
            while (used := jailed.cpu_s()) < 0.05:
                assert jailed.poll() is None
            return used

    assert keep(who, features, act) >= 0.05


@pytest.mark.parametrize("where", ["home", "tmp", "barred"])
def test_the_repository_can_be_anywhere(who: Who, features: Features, where: str) -> None:
    def act(kept: Keeper) -> str:
        place = {
            "home": who.home / "deep" / "proj",
            "tmp": Path(f"/tmp/nanosup-test-{os.getpid()}/proj"),
            "barred": who.directory / f"private{os.getpid()}" / "proj",
        }[where]
        place.mkdir(parents=True)
        try:
            place.parent.chmod(0o700)
            (kept.directory / "mnt" / "hello").write_text("from the mount")
            return kept.run("cat", str(place / "hello"), repository=str(place))[1]
        finally:
            shutil.rmtree(place.parent)

    assert keep(who, features, act) == "from the mount"


PROGRAMS = {
    "git": "git init -q . && git config user.email a@b && git config user.name c && echo x > f &&"
    " git add f && git commit -q -m m && git log --oneline | grep -q m",
    "gcc": "printf '#include <stdio.h>\\nint main(){puts(\"made\");}' > m.c && gcc m.c -o m &&"
    " ./m | grep -q made",
    "make": "printf 'all: a b\\na b:\\n\\ttouch $@\\n' > Makefile && make -s -j4 && test -f b",
    "node": 'node -e \'require("fs").writeFileSync("n", "1");'
    'new (require("worker_threads").Worker)("0", {eval: true});\' && test -f n',
    "npm": "npm init -y > /dev/null && npm pack --silent",
    "python3": "/usr/bin/python3 -m venv --without-pip v && v/bin/python -c '"
    "import concurrent.futures as f, multiprocessing as m, asyncio, sqlite3;"
    'print(m.Pool(2).map(abs, [-1])); asyncio.run(asyncio.create_subprocess_exec("true"))\'',
}


def test_pytest_runs_the_tests_of_a_lane(who: Who, features: Features) -> None:
    """That of this project's own environment, read-only, where the lane can read it."""
    python, site = Path(sys.executable).resolve(), Path(sysconfig.get_path("purelib"))
    if any(not at.stat().st_mode & 0o5 for at in (python, *python.parents, site, *site.parents)):
        pytest.skip(f"{python} or {site} cannot be read by everybody")

    def act(kept: Keeper) -> tuple[object, str]:
        (kept.directory / "mnt" / "test_it.py").write_text(
            "def test_it(tmp_path):\n    (tmp_path / 'f').write_text('x')\n"
        )
        return kept.run(
            *(str(python), "-m", "pytest", "-q", "test_it.py"),
            writable=True,
            # A clone below /tmp is not to be seen in a jail by itself.
            extra=(Bind(str(site), "/run/site"),),
            env={"PYTHONPATH": "/run/site"},
        )

    end, out = keep(who, features, act)

    assert end == Exited(0), out
    assert "1 passed" in out


@pytest.mark.parametrize("program", PROGRAMS)
def test_real_programs_work(who: Who, features: Features, program: str) -> None:
    if shutil.which(program, path="/usr/local/bin:/usr/bin:/bin") is None:
        pytest.skip(f"{program} is not installed")
    end, out = keep(
        who, features, lambda kept: kept.run("sh", "-e", "-c", PROGRAMS[program], writable=True)
    )

    assert end == Exited(0), out
