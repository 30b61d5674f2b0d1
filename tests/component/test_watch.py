"""Waiting for a change where the kernel gives no watches, or nothing is there to be watched."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import anyio
import pytest

from sandbox import syscalls
from supervisor.board.watch import Watch
from supervisor.keeper.log import Log, Logs, open_log


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    def refused(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(syscalls, call, refused)


@pytest.mark.parametrize(
    ("call", "code"),
    [("inotify_init1", errno.EMFILE), ("inotify_add_watch", errno.ENOSPC)],
)
def test_without_watches_it_looks_every_second(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str, code: int
) -> None:
    refuse(monkeypatch, call, code)
    watch = Watch()
    watch.directory(str(tmp_path))
    began = time.monotonic()

    anyio.run(watch.changed, 30.0)

    assert time.monotonic() - began < 5
    watch.close()


def test_file_that_is_removed_and_made_again_is_seen(tmp_path: Path) -> None:
    watch = Watch()
    watch.file(str(tmp_path / "journal"))
    began = time.monotonic()
    anyio.run(watch.changed, 30.0)
    assert time.monotonic() - began < 5
    (tmp_path / "journal").touch()

    watch.file(str(tmp_path / "journal"))
    (tmp_path / "journal").write_text("x")
    began = time.monotonic()
    anyio.run(watch.changed, 30.0)

    assert time.monotonic() - began < 0.5
    watch.close()


@pytest.mark.parametrize(
    ("call", "code"),
    [("inotify_init1", errno.EMFILE), ("inotify_add_watch", errno.ENOSPC)],
)
def test_log_is_tended_where_nobody_tells_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str, code: int
) -> None:
    refuse(monkeypatch, call, code)
    path = str(tmp_path / "stdout.log")
    log = Log(path, open_log(path), 1 << 16)
    logs = Logs([log])
    os.write(log.fd, b"x" * (1 << 18))

    assert not logs.tend(0.0)

    assert log.dropped_bytes
    os.close(log.fd)
