"""SIGKILL of the server at any moment: nothing torn, nothing resurrected, fsync keeps its word."""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import stat
import threading
from pathlib import Path

import pytest
from mounting import enter_private_namespace, kernel_overlay, served, serving, staged, stop
from view import assert_same, tree

from sandbox.jail.census import children, look_at
from sandbox.syscalls import RENAME_EXCHANGE, renameat2

_FILES = 60

# Path to (content, mode) of a file: content None where nobody asked for it to be on the disk.
Model = dict[str, tuple[bytes | None, int]]


def _base(root: Path) -> Model:
    model: Model = {}
    for number in range(_FILES):
        name = f"d{number % 6}/f{number}"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        content = b"%d\n" % number * 2000
        (root / name).write_bytes(content)
        model[name] = (content, 0o644)
    return model


class Load:
    """Changes all sorts of things, one after the other, until the server is gone.

    Attributes:
        before: what was there when the last call began.
        after: what is there if that call was carried out.
    """

    def __init__(self, root: Path, model: Model, seed: int) -> None:
        self.root = root
        self.before = model
        self.after = model
        self.steps = 0
        self._chosen = random.Random(seed)

    def run(self) -> None:
        try:
            while True:
                self._step()
                self.before = self.after
                self.steps += 1
        except OSError as error:
            # Everything that was asked of the server was possible.
            if isinstance(error, (FileNotFoundError, FileExistsError, IsADirectoryError)):
                raise

    def _step(self) -> None:
        chosen, root = self._chosen, self.root
        after = self.after = dict(self.before)
        name = chosen.choice(sorted(after))
        fresh = f"n{self.steps}"
        content, mode = after[name]
        match chosen.randrange(9):
            case 0:
                after[name] = (content, chosen.choice((0o600, 0o644, 0o755)))
                os.chmod(root / name, after[name][1])
            case 1 if len(after) > 20:
                del after[name]
                os.unlink(root / name)
            case 2:
                data = chosen.randbytes(chosen.randrange(1, 20_000))
                # Until fsync has answered, the file is there with any part of its content.
                after[fresh] = (None, 0o640)
                fd = os.open(root / fresh, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o640)
                self.before = self.after
                self._write(fd, data)
                self.after = {**after, fresh: (data, 0o640)}
            case 3:
                after[fresh] = after.pop(name)
                os.rename(root / name, root / fresh)
            case 4:
                directory = os.path.dirname(name)
                if directory:
                    self.after = {
                        (
                            fresh + path[len(directory) :]
                            if path.startswith(directory + "/")
                            else path
                        ): x
                        for path, x in after.items()
                    }
                    os.rename(root / directory, root / fresh)
            case 5 if content is not None:
                data = chosen.randbytes(100)
                after[name] = (None, mode)
                self.before = after
                self._write(os.open(root / name, os.O_WRONLY | os.O_APPEND), data)
                self.after = {**after, name: (content + data, mode)}
            case 6:
                other = chosen.choice(sorted(after))
                after[name], after[other] = after[other], after[name]
                renameat2(str(root / name), str(root / other), RENAME_EXCHANGE)
            case 7:
                other = chosen.choice(sorted(after))
                if other != name:
                    after[other] = after.pop(name)
                    os.rename(root / name, root / other)
            case 8:
                size = chosen.randrange(3000)
                if content is not None:
                    # The size is on the upper file system as soon as the call returns.
                    after[name] = (content[:size].ljust(size, b"\0"), mode)
                    os.truncate(root / name, size)

    @staticmethod
    def _write(fd: int, data: bytes) -> None:
        try:
            os.write(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)


def _found(root: Path) -> Model:
    return {
        str(path.relative_to(root)): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in root.rglob("*")
        if path.is_file()
    }


def _is(found: Model, expected: Model) -> bool:
    return found.keys() == expected.keys() and all(
        found[path][1] == mode and content in (None, found[path][0])
        for path, (content, mode) in expected.items()
    )


@pytest.mark.parametrize("seed", range(8))
def test_a_killed_server_leaves_a_consistent_layer(tmp_path: Path, seed: int) -> None:
    enter_private_namespace()
    model = _base(tmp_path / "base")
    stage = staged(tmp_path)
    spec = stage.writable()
    assert spec.upper is not None
    lane = serving(spec)
    load = Load(lane.mountpoint, model, seed)
    writer = threading.Thread(target=load.run)
    killer = threading.Timer(0.01 + 0.04 * seed, os.kill, (lane.pid, signal.SIGKILL))
    writer.start()
    killer.start()
    writer.join()
    killer.join()
    stop(lane)

    with served(spec) as again:
        ours = tree(again.mountpoint)
        found = _found(again.mountpoint)
        assert _is(found, load.before) or _is(found, load.after), (
            f"after {load.steps} steps: "
            f"{sorted(found.keys() ^ load.after.keys())}, "
            f"{[p for p in found if found[p] != load.after.get(p)]}"
        )
    with kernel_overlay(stage.directory("seen"), [stage.checkout, Path(spec.upper)]) as seen:
        assert_same(tree(seen), ours, "the kernel's view of what is left")
    assert spec.work is not None
    assert os.listdir(spec.work) == []
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_what_unmounts_does_not_outlive_a_server_that_is_killed(tmp_path: Path) -> None:
    enter_private_namespace()
    for _ in range(10):
        stage = tmp_path / "again"
        _base(stage / "base")
        lane = serving(staged(stage).writable())
        os.kill(lane.pid, signal.SIGTERM)
        while not (unmounters := children(lane.pid)) and not is_gone(lane.pid):
            pass
        lane.kill()  # it answers nothing any more, and nobody else may hold its device
        for pid in unmounters:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            assert select.select([pidfd], [], [], 10.0)[0], "it waits for a server that is dead"
            os.close(pidfd)
        stop(lane)
        shutil.rmtree(stage)


def is_gone(pid: int) -> bool:
    found = look_at(pid)
    return found is None or found.state == "Z"
