"""SIGKILL of the server at any moment: nothing torn, nothing resurrected, fsync keeps its word."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from pathlib import Path

import pytest
from mounting import enter_private_namespace, kernel_overlay, served, serving, staged, stop
from view import assert_same, tree

_FILES = 60


def _base(root: Path) -> None:
    for number in range(_FILES):
        directory = root / f"d{number % 6}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}").write_bytes(b"%d\n" % number * 2000)


def _load(root: Path, seed: int, done: list[tuple[str, str]], synced: dict[str, bytes]) -> None:
    """Changes all sorts of things until the server is gone; notes what the kernel confirmed."""
    chosen = random.Random(seed)
    try:
        while True:
            name = f"d{chosen.randrange(6)}/f{chosen.randrange(_FILES)}"
            match chosen.randrange(6):
                case 0:
                    os.chmod(root / name, 0o600)
                case 1:
                    os.unlink(root / name)
                    done.append(("unlinked", name))
                case 2:
                    new = f"n{chosen.randrange(1_000_000)}"
                    content = os.urandom(5000)
                    fd = os.open(root / new, os.O_CREAT | os.O_WRONLY | os.O_EXCL)
                    os.write(fd, content)
                    os.fsync(fd)
                    synced[new] = content
                    os.close(fd)
                case 3:
                    os.rename(root / name, root / f"moved{len(done)}")
                    done.append(("renamed", name))
                case 4:
                    directory = f"d{chosen.randrange(6)}"
                    os.rename(root / directory, root / f"{directory}.away")
                    done.append(("renamed", directory))
                case 5:
                    fd = os.open(root / name, os.O_WRONLY | os.O_APPEND)
                    os.write(fd, b"appended\n")
                    os.close(fd)
    except FileNotFoundError:
        return _load(root, seed + 1000, done, synced)
    except OSError:
        return None


@pytest.mark.parametrize("seed", range(12))
def test_a_killed_server_leaves_a_consistent_layer(tmp_path: Path, seed: int) -> None:
    enter_private_namespace()
    _base(tmp_path / "base")
    stage = staged(tmp_path)
    spec = stage.writable()
    assert spec.upper is not None
    lane = serving(spec)
    done: list[tuple[str, str]] = []
    synced: dict[str, bytes] = {}
    writer = threading.Thread(target=_load, args=(lane.mountpoint, seed, done, synced))
    killer = threading.Timer(0.01 + 0.012 * seed, os.kill, (lane.pid, signal.SIGKILL))
    writer.start()
    killer.start()
    writer.join()
    killer.join()
    stop(lane)

    original = {n: b"%d\n" % n * 2000 for n in range(_FILES)}
    with served(spec) as again:
        root = again.mountpoint
        ours = tree(root)
        for new, content in synced.items():
            assert (root / new).read_bytes() == content
        for what, name in done:
            assert not os.path.lexists(root / name), f"{name} was {what} and is back"
        for path, directories, files in os.walk(root):
            assert all(not name.startswith("#") for name in [*directories, *files])
            for name in files:
                if name.startswith("f"):
                    content = Path(path, name).read_bytes()
                    whole = original[int(name[1:])]
                    assert content[: len(whole)] == whole, f"{name} is torn"
                    assert content[len(whole) :].replace(b"appended\n", b"") == b""
    with kernel_overlay(stage.directory("seen"), [stage.checkout, Path(spec.upper)]) as seen:
        assert_same(tree(seen), ours, "the kernel's view of what is left")
    assert spec.work is not None
    assert os.listdir(spec.work) == []
    shutil.rmtree(tmp_path, ignore_errors=True)
