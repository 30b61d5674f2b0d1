"""What holds in a lane without namespaces, for root's agents and for an ordinary user's own."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest

from sandbox.jail import namespace
from sandbox.jail.end import Cause, End, Exited, Signaled, Unstarted
from sandbox.jail.feature import Features
from sandbox.probe import host
from sandbox.tiers import ward
from sandbox.tiers.confinement import SYSTEM, Confinement
from sandbox.tiers.tier import Tier, lacking
from tests.keep import Who, become
from tests.system.jailing import who as who

T = TypeVar("T")


@pytest.fixture(scope="module")
def features() -> Features:
    found = host.probe()
    if missing := lacking(found, Tier.LANDLOCK):
        pytest.skip(missing[0].detail)
    return found


@dataclass(slots=True)
class Lane:
    """A lane that may read `reads` and write `writes`, both of which belong to its uid."""

    confinement: Confinement
    features: Features
    reads: Path
    writes: Path
    log: Path

    def run(self, script: str, *, network: bool = True) -> tuple[End, str]:
        with (
            open(self.log, "w+b") as log,
            ward.start(
                replace(self.confinement, argv=("bash", "-c", script), network=network),
                self.features,
                stdout=log.fileno(),
                stderr=log.fileno(),
                lock=log.fileno(),
            ) as held,
        ):
            end = held.wait(60)
            assert end is not None and held.is_clean
            log.seek(0)
            return end, log.read().decode(errors="replace")


def as_keeper(who: Who, features: Features, act: Callable[[Lane], None]) -> None:
    """Runs `act` in a process of its own, as `who`."""
    directory = Path(tempfile.mkdtemp(prefix="ward-", dir=who.directory))
    os.chown(directory, who.uid, who.gid)
    directory.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            become(who)
            uid, gid = namespace.lane_ids()
            reads, writes = directory / "r", directory / "w"
            for path in (reads, writes):
                path.mkdir()
                (path / "file").write_text("content\n")
                (path / "link").symlink_to("../r/file")
                for each in (path, path / "file", path / "link"):
                    os.chown(each, uid, gid, follow_symlinks=False)
            confinement = Confinement(
                argv=(),
                cwd=str(reads),
                uid=uid,
                gid=gid,
                reads=(*SYSTEM, str(reads)),
                writes=(str(writes),),
                env={"PATH": "/usr/bin:/bin", "W": str(writes)},
                network=True,
            )
            act(Lane(confinement, features, reads, writes, directory / "log"))
            status = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    shutil.rmtree(directory)
    assert status == 0, "see the traceback above"


REFUSED = (
    "echo x > file",
    "echo x > new",
    "truncate -s 0 file",
    "rm -f file",
    "mv file other",
    "mv file $W/taken",
    "ln file $W/hard",
    "ln file hard",
    "mkdir d",
    "mknod p p",
    "chmod 600 file",
    "chmod 700 .",
    "chmod 600 $W/../r/file",
    "chmod 600 $W/link",
    "touch -c file",
    "touch -h link",
    "chown $(id -u) file",
    "setfattr -n user.x -v y file",
    "python3 -c \"import os; os.fchmod(os.open('file', os.O_RDONLY), 0)\"",
    "python3 -c \"import os; os.utime(os.open('file', os.O_RDONLY))\"",
    "python3 -c \"import os; os.chmod('/proc/self/fd/%d' % os.open('file', 0), 0)\"",
    "python3 -c \"import os; os.setxattr(os.open('file', 0), 'user.x', b'y')\"",
    "chattr +A file",
    # EXT4_IOC_SETVERSION, BTRFS_IOC_SUBVOL_CREATE
    "python3 -c \"import fcntl, os; fcntl.ioctl(os.open('file', 0), 0x40086604, b'12345678')\"",
    "python3 -c \"import fcntl, os; fcntl.ioctl(os.open('.', 0), 0x5000940E, bytes(8) + b'd')\"",
    "python3 -c \"import fcntl, os; fcntl.fcntl(os.open('file', 0), fcntl.F_SETLEASE, 0)\"",
    "setfattr -n user.overlay.opaque -v y $W",
    "cat /etc/shadow",
    "ls /var/tmp",
    "ls $W/..",
    "kill -0 $PPID",
    "renice 19 $PPID",
    'python3 -c "import os; os.setpriority(os.PRIO_USER, 0, os.nice(0))"',
    'python3 -c "import os; os.setpriority(os.PRIO_USER, os.getuid(), os.nice(0))"',
    "ionice -c 3 -u $(id -u)",
    "prlimit --pid $PPID --nofile=3",
    "unshare -U true",
    "cat /proc/$PPID/environ",
    'python3 -c "import socket; socket.socket(socket.AF_UNIX)"',
    'python3 -c "import socket; socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)"',
    "ipcmk -M 100",
)


def test_what_a_reader_must_not_do_is_refused(who: Who, features: Features) -> None:
    def act(lane: Lane) -> None:
        before = os.lstat(lane.reads / "file")
        script = "\n".join(
            f"if ( {try_} ) >/dev/null 2>&1; then echo '{i}'; fi" for i, try_ in enumerate(REFUSED)
        )
        end, said = lane.run(script)
        assert end == Exited(0) and said == "", [REFUSED[int(i)] for i in said.split()]
        after = os.lstat(lane.reads / "file")
        assert before[:6] == after[:6] and before.st_mtime_ns == after.st_mtime_ns
        assert before.st_ctime_ns == after.st_ctime_ns
        assert sorted(os.listdir(lane.reads)) == ["file", "link"]

    as_keeper(who, features, act)


def test_metadata_of_the_lanes_own_files_can_be_changed(who: Who, features: Features) -> None:
    script = """
    set -e
    cd $W
    chmod 640 file; test $(stat -c %a file) = 640
    python3 -c "import os; os.fchmod(os.open('file', 0), 0o600)"; test $(stat -c %a file) = 600
    python3 -c "import os; os.chmod('/proc/self/fd/%d' % os.open('file', 0), 0o644)"
    test $(stat -c %a file) = 644
    touch -d @1000000000 file; test $(stat -c %Y file) = 1000000000
    touch -a file; test $(stat -c %Y file) = 1000000000
    touch file; test $(stat -c %Y file) -gt 1000000000
    touch -h -d @5 link; test $(stat -c %Y link) = 5
    chown $(id -u):$(id -g) file
    setfattr -n user.x -v y file; test "$(getfattr --only-values -n user.x file)" = y
    setfattr -x user.x file
    mkdir deep; cp -p file deep/copy; install -m 750 file deep/tool; test -x deep/tool
    mv deep/copy .; ln copy hard; rm -r deep
    nice true; renice -n 1 $$ >/dev/null; prlimit --pid $$ --nofile=100 >/dev/null
    git init -q . ; git add -A; git -c user.name=a -c user.email=b commit -qm x
    tar cf /dev/null . 2>/dev/null; tar c . | tar x -C $(mktemp -d -p $W)
    """

    def act(lane: Lane) -> None:
        end, said = lane.run(script)
        assert end == Exited(0), said

    as_keeper(who, features, act)


def test_nothing_is_left_of_a_lane(who: Who, features: Features) -> None:
    """Neither daemons that forked twice nor a chain of processes that each fork and exit."""
    script = """
    (setsid sh -c 'exec sleep 600' &)
    python3 -c "
import os
if os.fork() == 0:
    os.setsid()
    while True:
        if os.fork():
            os._exit(0)
"
    exit 5
    """

    def act(lane: Lane) -> None:
        end, said = lane.run(script)
        assert end == Exited(5), said
        mine = str(lane.confinement.uid)
        for name in os.listdir("/proc"):
            try:
                status = Path(f"/proc/{name}/status").read_text() if name.isdigit() else ""
                parent = f"PPid:\t{os.getpid()}\n"
                assert not (parent in status and f"Uid:\t{mine}" in status), status
            except OSError:
                continue

    as_keeper(who, features, act)


def test_how_it_ended_is_told(who: Who, features: Features) -> None:
    def act(lane: Lane) -> None:
        assert lane.run("exit 7")[0] == Exited(7)
        assert lane.run("kill -9 $$")[0] == Signaled(9)
        for command, cause in (("/nonexistent", Cause.NOT_FOUND), ("/etc", Cause.NOT_EXECUTABLE)):
            lane.confinement = replace(lane.confinement, argv=(command,))
            with (
                open(os.devnull, "r+b") as null,
                ward.start(
                    lane.confinement,
                    features,
                    stdout=null.fileno(),
                    stderr=null.fileno(),
                    lock=null.fileno(),
                ) as held,
            ):
                end = held.wait(60)
            assert isinstance(end, Unstarted) and end.cause is cause, end

    as_keeper(who, features, act)


def test_without_network_there_are_no_sockets(who: Who, features: Features) -> None:
    script = 'python3 -c "import socket; socket.socket()" 2>&1 | tail -1'

    def act(lane: Lane) -> None:
        assert "not supported" in lane.run(script, network=False)[1]
        assert lane.run(script, network=True)[1] == ""

    as_keeper(who, features, act)
