"""What a landlock domain does to a process, without any namespace around it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import syscalls
from sandbox.jail import domain
from sandbox.jail.landlock import ABI_MINIMUM, writes_only_below

ABI = syscalls.landlock_abi()
pytestmark = pytest.mark.skipif(ABI < ABI_MINIMUM, reason="landlock here is older than ABI 2")


def confined(writable: Path, act: Callable[[], object]) -> int:
    """The errno of `act` in a domain that writes below `writable`, 0 for none."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            domain.enter(writes_only_below(ABI, [str(writable)]))
            act()
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for place in (inside, outside):
        (place / "deep").mkdir(parents=True)
        (place / "file").write_text("here")
    return inside, outside


ATTEMPTS: dict[str, Callable[[Path], object]] = {
    "open": lambda at: os.open(at / "file", os.O_WRONLY),
    "truncate": lambda at: os.truncate(at / "file", 1),
    "create": lambda at: os.open(at / "new", os.O_WRONLY | os.O_CREAT),
    "unlink": lambda at: os.unlink(at / "file"),
    "mkdir": lambda at: os.mkdir(at / "new"),
    "rmdir": lambda at: os.rmdir(at / "deep"),
    "symlink": lambda at: os.symlink("x", at / "new"),
    "link": lambda at: os.link(at / "file", at / "deep" / "new"),
    "rename": lambda at: os.rename(at / "file", at / "deep" / "new"),
    "fifo": lambda at: os.mkfifo(at / "new"),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_changes_work_below_what_is_writable_and_fail_elsewhere(
    places: tuple[Path, Path], name: str
) -> None:
    inside, outside = places

    if name == "truncate" and ABI < 3:
        pytest.skip("landlock here is older than ABI 3")
    assert confined(inside, lambda: ATTEMPTS[name](outside)) in (errno.EACCES, errno.EXDEV)
    assert confined(inside, lambda: ATTEMPTS[name](inside)) == 0


def test_reading_is_as_before(places: tuple[Path, Path]) -> None:
    inside, outside = places

    assert confined(inside, lambda: (outside / "file").read_text()) == 0


def test_a_directory_that_is_not_there_is_an_error(places: tuple[Path, Path]) -> None:
    assert confined(places[0] / "nowhere", lambda: None) == errno.ENOENT
