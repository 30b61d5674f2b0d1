"""What a lane can see of its host, and how it fares when it looks for more."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.jail.end import Exited
from sandbox.jail.exposure import SECRETS
from sandbox.jail.feature import Features
from tests.keep import Keeper, Who, keep
from tests.system.jailing import features as features
from tests.system.jailing import who as who

PYTHON = "/usr/bin/python3"


@contextlib.contextmanager
def listening(path: Path, uid: int) -> Iterator[None]:
    """Somebody of the host who would do things for whoever asks."""
    for directory in (*reversed(path.parent.parents), path.parent):
        if not directory.exists():
            directory.mkdir()
            os.chown(directory, uid, uid)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0o777)
        os.chown(path, uid, uid)
        try:
            yield
        finally:
            path.unlink()


CONNECT = """
import socket, sys
for path in sys.argv[1:]:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print("connected", path)
    except OSError as error:
        print("refused", error.strerror)
"""


@pytest.mark.parametrize(
    "place",
    [
        "/run/nanosup-test-{pid}/docker.sock",
        "/tmp/nanosup-test-{pid}/tmux",
        "/tmp/.X11-unix/X{pid}",
        "/var/tmp/nanosup-test-{pid}/agent.sock",
        "{home}/.gnupg/S.gpg-agent",
        "{home}/.config/somewhere/socket",
        "{repo}/leaked.sock",
        "/usr/local/lib/nanosup-test-{pid}.sock",
    ],
)
def test_no_service_of_the_host_can_be_connected_to(
    who: Who, features: Features, place: str
) -> None:
    path = place.format(pid=os.getpid(), home=who.home, repo=who.repository)
    if not path.startswith(str(who.directory)) and os.getuid() != 0:
        pytest.skip("only root can listen there")
    asked = (".config",) if "/.config/" in path else ()
    with listening(Path(path), who.uid):
        _, out = keep(
            who, features, lambda kept: kept.run(PYTHON, "-c", CONNECT, path, home_read=asked)
        )

    assert out.startswith("refused")


def test_the_variables_that_lead_to_services_are_not_handed_on(
    who: Who, features: Features
) -> None:
    named = (
        *("DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "DOCKER_HOST", "SSH_AUTH_SOCK", "TMUX"),
        *("WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "CONTAINER_HOST", "GPG_AGENT_INFO"),
        *("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "LD_PRELOAD", "PYTHONPATH", "NODE_OPTIONS"),
    )

    def act(kept: Keeper) -> str:
        kept.environment = {**kept.environment, **dict.fromkeys(named, "leak")}
        return kept.run("env")[1]

    assert "leak" not in keep(who, features, act)


def test_secrets_are_never_shown_even_if_a_parent_is_asked_for(
    who: Who, features: Features
) -> None:
    nested = [secret for secret in SECRETS if "/" in secret]
    files = {secret for secret in nested if "." in Path(secret).name or "cred" in secret}

    def act(kept: Keeper) -> str:
        for secret in nested:
            path = who.home / secret
            (path.parent if secret in files else path).mkdir(parents=True, exist_ok=True)
            (path if secret in files else path / "key").write_text("hunter2")
            (path.parent / "beside").write_text("shown")
        parents = tuple(sorted({str(Path(secret).parent) for secret in nested}))
        asked = tuple(  # the topmost, which show the others
            parent for parent in parents if not any(parent.startswith(f"{o}/") for o in parents)
        )
        script = "find . -type f -size +0 -exec cat {} +; ls -A .config"
        return kept.run("sh", "-c", f"cd; {script}", home_read=asked)[1]

    out = keep(who, features, act)

    assert "hunter2" not in out
    assert "shown" in out
    assert "google-chrome" in out  # that it is there is no secret


def test_of_dev_only_the_basics_are_there(who: Who, features: Features) -> None:
    _, out = keep(who, features, lambda kept: kept.run("ls", "/dev"))

    assert set(out.split()) <= {
        *("console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm"),
        *("stderr", "stdin", "stdout", "tty", "urandom", "zero"),
    }


@pytest.mark.parametrize(
    "path",
    [
        *("/dev/fuse", "/dev/kvm", "/dev/mem", "/dev/sda", "/dev/net/tun", "/dev/input/event0"),
        *("/sys/fs/fuse/connections", "/sys/fs/cgroup/cgroup.procs", "/sys/kernel/debug/tracing"),
        *("/proc/kcore", "/proc/kmsg", "/proc/sysrq-trigger", "/proc/1/root/etc/shadow"),
        *("/proc/1/mem", "/proc/1/environ", "/root/.bashrc", "/run/docker.sock", "/dev/log"),
    ],
)
def test_what_reaches_into_the_host_cannot_be_opened(
    who: Who, features: Features, path: str
) -> None:
    script = f"""
import os
for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
    try:
        fd = os.open({path!r}, flags)
        os.read(fd, 1)
        print("opened", flags)
    except OSError:
        pass
"""
    end, out = keep(who, features, lambda kept: kept.run(PYTHON, "-c", script))

    assert (end, out) == (Exited(0), "")


def test_sys_and_the_kernels_settings_cannot_be_written(who: Who, features: Features) -> None:
    script = """
import os
for top in ("/sys", "/proc/sys"):
    for directory, _, names in os.walk(top):
        for name in names:
            try:
                os.close(os.open(f"{directory}/{name}", os.O_WRONLY))
                print(f"{directory}/{name}")
            except OSError:
                pass
"""
    end, out = keep(who, features, lambda kept: kept.run(PYTHON, "-c", script))

    # These are settings of the lane's own IPC and PID namespaces, and of no other.
    names = r"auto_msgmni|msg\w+|ns_last_pid|pid_max|sem|shm_rmid_forced|shm(all|max|mni)"
    own = re.compile(rf"/proc/sys/(fs/mqueue/\w+|kernel/({names}))")
    assert end == Exited(0)
    assert [path for path in out.splitlines() if not own.fullmatch(path)] == []


LADDERS = """
import os
for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
    for what in ("root", "cwd", "exe", "fd/1", "ns/mnt", "map_files", "mem"):
        try:
            path = f"/proc/{pid}/{what}"
            target = os.readlink(path) if what != "mem" else ""
            for deeper in ("etc/shadow", "../../../etc/shadow", "root/.bashrc"):
                if what in ("root", "cwd"):
                    with open(f"{path}/{deeper}") as file:
                        print("read", path, deeper, len(file.read()))
        except OSError:
            pass
"""


def test_proc_is_no_ladder_out(who: Who, features: Features) -> None:
    end, out = keep(who, features, lambda kept: kept.run(PYTHON, "-c", LADDERS))

    assert (end, out) == (Exited(0), "")


def test_a_lane_does_not_see_another(who: Who, features: Features) -> None:
    def act(kept: Keeper) -> str:
        for name in ("mnt", "home", "outputs"):
            (kept.directory / name / "mark").write_text("another's")
        with kept.start(kept.spec("sleep", "60")) as other:
            pid = other.agent
            beside = kept.make("beside")
            for name in ("mnt", "home", "outputs"):
                os.mkdir(beside / name)
                os.chown(beside / name, kept.lane.uid, kept.lane.gid)
            script = (
                f"ls {kept.directory} 2>&1; cat {kept.directory}/*/mark 2>&1; ls -d /proc/{pid};"
                f"kill -0 {pid}; true"
            )
            return kept.run(
                *("sh", "-c", script),
                hidden=(str(kept.directory),),
                mount=str(beside / "mnt"),
                home=str(beside / "home"),
                outputs=str(beside / "outputs"),
            )[1]

    out = keep(who, features, act)

    assert "another's" not in out
    assert "mnt" not in out.replace("/mnt", "")
    assert "/proc/" not in out.replace("/proc/' ", "").split("ls: ")[0]


def test_a_descriptor_that_was_sent_to_a_lane_gives_no_more_than_it_did(
    who: Who, features: Features
) -> None:
    """From a builder that has a reviewer's file open: there is no channel between lanes, but even
    a descriptor that is handed in for reading cannot be opened anew for writing."""

    def act(kept: Keeper) -> tuple[str, str]:
        path = kept.directory / "mnt" / "reviewed"
        path.write_text("as reviewed")
        os.chown(path, kept.lane.uid, kept.lane.gid)
        ours, theirs = socket.socketpair()
        script = """
import os, socket
channel = socket.socket(fileno=0)
_, (fd,), _, _ = socket.recv_fds(channel, 1, 1)
for flags in (os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
    try:
        os.write(os.open(f"/proc/self/fd/{fd}", flags), b"changed")
        print("changed")
    except OSError as error:
        print(error.strerror)
"""
        with open(path, "rb") as file:
            socket.send_fds(ours, [b"x"], [file.fileno()])
            with kept.start(kept.spec(PYTHON, "-c", script), stdin=theirs.fileno()) as jailed:
                jailed.wait(30)
        return os.pread(kept.log, 4096, 0).decode(), path.read_text()

    out, content = keep(who, features, act)

    assert "changed" not in out.splitlines()
    assert content == "as reviewed"


def test_temporary_files_of_the_host_are_not_there(who: Who, features: Features) -> None:
    with (
        tempfile.NamedTemporaryFile(dir="/tmp", prefix="nanosup-secret-"),
        tempfile.NamedTemporaryFile(dir="/var/tmp", prefix="nanosup-secret-"),
    ):
        _, out = keep(
            who, features, lambda kept: kept.run("sh", "-c", "ls -A /tmp /var/tmp /dev/shm")
        )

    assert "secret" not in out
