"""A keeper for tests of the jail: a forked process in a mount namespace of its own.

The jail is built by the same calls as a real keeper makes, as root or as an ordinary user.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sandbox import syscalls
from sandbox.jail import launch, namespace, survey, view
from sandbox.jail.child import Child
from sandbox.jail.end import End
from sandbox.jail.feature import Features
from sandbox.jail.jail import JailSpec

T = TypeVar("T")
PR_SET_DUMPABLE = 4


@dataclass(frozen=True, slots=True)
class Who:
    """Who nanosup runs as, and directories that belong to him."""

    name: str
    uid: int
    gid: int
    directory: Path

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def repository(self) -> Path:
        return self.directory / "proj"


@contextmanager
def dwelling(name: str, uid: int, gid: int) -> Iterator[Who]:
    """A HOME and a repository below a directory of his own."""
    directory = Path(tempfile.mkdtemp(prefix="nanosup-keep-", dir="/var/tmp"))
    who = Who(name, uid, gid, directory)
    directory.chmod(0o755)
    for path in (who.home, who.repository):
        path.mkdir()
    for path in (directory, who.home, who.repository):
        os.chown(path, uid, gid)
    try:
        yield who
    finally:
        shutil.rmtree(directory)


@dataclass(slots=True)
class Keeper:
    """Inside of the forked process.

    Attributes:
        lane: what tests change with `dataclasses.replace`.
        log: what jailed commands print, both streams.
    """

    who: Who
    features: Features
    lane: view.Lane
    directory: Path
    log: int
    environment: Mapping[str, str]

    def spec(self, *argv: str, home_read: tuple[str, ...] = (), **changes: Any) -> JailSpec:
        lane = replace(self.lane, argv=argv, **changes)
        ground = survey.survey(
            uid=lane.uid,
            targets=(lane.repository,),
            environment=self.environment,
            home_read=home_read,
        )
        return view.jail_of(lane, ground)

    def start(self, spec: JailSpec, **options: Any) -> Child:
        given: dict[str, Any] = {"stdout": self.log, "stderr": self.log, **options}
        return launch.start(spec, self.features, starter=launch.begin, **given)

    def run(self, *argv: str, **changes: Any) -> tuple[End, str]:
        """How `argv` ended in a jail, and what it printed."""
        before = os.fstat(self.log).st_size
        with self.start(self.spec(*argv, **changes)) as jailed:
            end = jailed.wait(60)
        assert end is not None, f"{argv} still runs"
        return end, os.pread(self.log, 1 << 20, before).decode(errors="replace")

    def make(self, name: str) -> Path:
        """A new directory that belongs to the lane."""
        path = self.directory / name
        path.mkdir(parents=True)
        os.chown(path, self.lane.uid, self.lane.gid)
        return path


def keep(who: Who, features: Features, act: Callable[[Keeper], T]) -> T:
    """What `act` returns in a keeper that runs as `who`; what it raises is raised here."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receive)
        _keep(who, features, act, send)
    os.close(send)
    with open(receive, "rb") as answers:
        answer = answers.read()
    _, status = os.waitpid(pid, 0)
    assert answer, f"the keeper died: {status}"
    result, error, trace = pickle.loads(answer)
    if error is not None:
        error.add_note(trace)
        raise error
    return result


def _keep(who: Who, features: Features, act: Callable[[Keeper], T], send: int) -> NoReturn:
    answer: tuple[object, BaseException | None, str]
    try:
        signal.set_wakeup_fd(-1)
        become(who)
        answer = (act(keeper(who, features)), None, "")
    except BaseException as error:
        answer = (None, error, traceback.format_exc())
    try:
        message = pickle.dumps(answer)
    except Exception:
        message = pickle.dumps((None, AssertionError(answer[2]), answer[2]))
    with open(send, "wb") as file:
        file.write(message)
    os._exit(0)


def become(who: Who) -> None:
    if os.getuid() != who.uid:
        os.setgroups([])
        os.setresgid(who.gid, who.gid, who.gid)
        os.setresuid(who.uid, who.uid, who.uid)
        # A process that changed its uid may not write its own maps, unlike one started that way.
        syscalls.prctl(PR_SET_DUMPABLE, 1)


def keeper(who: Who, features: Features) -> Keeper:
    """Makes this process one."""
    namespace.enter()
    uid, gid = namespace.lane_ids()
    directory = Path(tempfile.mkdtemp(prefix="lane-", dir=who.directory))
    log = os.open(directory / "log", os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    environment = {
        "HOME": str(who.home),
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "NANOSUP_TEST_SECRET": "hunter2",
    }
    kept = Keeper(
        who,
        features,
        view.Lane(
            argv=(),
            uid=uid,
            gid=gid,
            repository=str(who.repository),
            mount=str(directory / "mnt"),
            home=str(directory / "home"),
            outputs=str(directory / "outputs"),
        ),
        directory,
        log,
        environment,
    )
    for name in ("mnt", "home", "outputs"):
        kept.make(name)
    return kept
