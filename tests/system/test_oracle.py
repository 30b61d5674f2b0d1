"""The overlay against the kernel's own, and against a plain directory: same calls, same results."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from mounting import Stage, enter_private_namespace, fuse_overlayfs, kernel_overlay, served, staged
from operation import Tree, apply
from view import assert_same, tree

_NAMES = ["a", "b", "c", "d"]
_PATHS = [
    *_NAMES,
    *(f"{d}/{n}" for d in _NAMES for n in _NAMES),
    *(f"{d}/{e}/{n}" for d in "ab" for e in "ab" for n in "ac"),
]
paths = st.sampled_from(_PATHS)
# (bytes, how often): short to print
contents = st.sampled_from(
    [(b"", 0), (b"x", 1), (b"hello", 1), (b"0123456789", 500), (b"\0", 9000)]
)
offsets = st.sampled_from([0, 1, 5, 4096, 10_000])
modes = st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o2755, 0o1777, 0o2777])
owners = st.sampled_from([0, 1000, 65534])
slots = st.integers(0, 1)
attributes = st.sampled_from(["user.a", "user.b", "trusted.t"])


def base(root: Path) -> None:
    """What the git tree holds."""
    (root / "a/a").mkdir(parents=True)
    (root / "a/a/a").write_text("deep")
    (root / "a/b").write_text("file in a")
    (root / "a/c").symlink_to("b")
    (root / "b/b").mkdir(parents=True)
    (root / "b/b/c").write_bytes(b"binary\0" * 3000)
    (root / "b/d").write_text("")
    (root / "c").write_text("top file")
    (root / "c").chmod(0o755)


def layer(root: Path) -> None:
    """A sealed layer above it: a whiteout, an opaque directory, a changed and a new file."""
    (root / "a").mkdir(parents=True)
    os.mknod(root / "a/b", stat.S_IFCHR, 0)
    (root / "b").mkdir()
    (root / "b/b").mkdir()
    os.setxattr(root / "b/b", "user.overlay.opaque", b"y")
    (root / "b/b/a").write_text("only this")
    (root / "c").write_text("replaced")
    os.setxattr(root / "c", "user.a", b"from the layer")
    (root / "d").mkdir()
    (root / "d/a").write_text("new")
    os.chmod(root / "d", 0o2775)
    for directory, names, files in os.walk(root, topdown=False):
        for name in [*names, *files]:
            path = os.path.join(directory, name)
            os.utime(path, (1_500_000_000, 1_500_000_000), follow_symlinks=False)


def link(root: Path) -> None:
    """Further names, in two directories, of files of the layer."""
    for source, name in (("d/a", "d/b"), ("d/a", "a/d"), ("b/b/a", "d/c")):
        directory = (root / name).parent
        times = os.stat(directory)
        os.link(root / source, root / name)
        os.utime(directory, ns=(times.st_atime_ns, times.st_mtime_ns))


class Comparison(RuleBasedStateMachine):
    """Applies each operation to the overlay and to the oracle."""

    with_layer = True
    with_links = False  # the kernel parts them on copy-up (index=off)
    refuses_whiteouts = True

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.path = Path(tempfile.mkdtemp(prefix="nanosup-oracle-"))
        self.stack.callback(shutil.rmtree, self.path, ignore_errors=True)
        base(self.path / "base")
        self.stage = staged(self.path)
        self.lowers = [self.stage.checkout]
        self.layers: tuple[str, ...] = ()
        if self.with_layer:
            layer(self.path / "layer")
            if self.with_links:
                link(self.path / "layer")
            self.layers = (str(self.path / "layer"),)
            self.lowers.append(self.path / "layer")
        self.spec = self.stage.writable()
        self.spec = type(self.spec)(
            **{
                name: getattr(self.spec, name)
                for name in self.spec.__dataclass_fields__
                if name != "layers"
            },
            layers=self.layers,
        )
        self.mounts = ExitStack()
        self.stack.push(self.mounts)
        self.mounts.enter_context(served(self.spec))
        self.ours = Tree(self.spec.mountpoint)
        self.theirs = Tree(str(self.open_oracle(self.stage)))
        self.log: list[Any] = []
        # An oracle that starts from something else proves nothing.
        assert_same(self.view(self.ours.root), self.view(self.theirs.root), "at the start")

    def open_oracle(self, stage: Stage) -> Path:
        raise NotImplementedError

    def admits(self, theirs: Any, operation: str) -> bool:
        """Whether the oracle's result is one to follow."""
        raise NotImplementedError

    def both(self, operation: str, *arguments: Any) -> None:
        if operation == "whiteout" and not self.refuses_whiteouts:
            return
        self.log.append((operation, *arguments))
        theirs = apply(self.theirs, operation, *arguments)
        if not self.admits(theirs, operation):
            return
        ours = apply(self.ours, operation, *arguments)
        assert ours == theirs, f"{operation}{arguments}: ours {ours}, theirs {theirs}"

    @rule(path=paths, content=contents, mode=modes)
    def create(self, path: str, content: tuple[bytes, int], mode: int) -> None:
        self.both("create", path, content, mode)

    @rule(path=paths, offset=offsets, content=contents)
    def overwrite(self, path: str, offset: int, content: tuple[bytes, int]) -> None:
        self.both("overwrite", path, offset, content)

    @rule(path=paths, content=contents, operation=st.sampled_from(["append", "rewrite"]))
    def write(self, path: str, content: tuple[bytes, int], operation: str) -> None:
        self.both(operation, path, content)

    @rule(path=paths, size=offsets)
    def truncate(self, path: str, size: int) -> None:
        self.both("truncate", path, size)

    @rule(
        path=paths,
        operation=st.sampled_from(
            ["unlink", "rmdir", "mkfifo", "whiteout", "readlink", "stat", "list", "read", "xattrs"]
        ),
    )
    def one_path(self, path: str, operation: str) -> None:
        if operation == "read" and self._is_fifo(path):
            return
        self.both(operation, path)

    def _is_fifo(self, path: str) -> bool:
        try:
            return stat.S_ISFIFO(os.lstat(self.theirs.path(path)).st_mode)
        except OSError:
            return False

    @rule(path=paths)
    def remove(self, path: str) -> None:
        self.both("rmdir", path)
        self.both("unlink", path)

    @rule(path=paths, mode=modes)
    def mkdir(self, path: str, mode: int) -> None:
        self.both("mkdir", path, mode)

    @rule(path=paths, pointee=st.sampled_from(["a", "../c", "missing", "/proc"]))
    def symlink(self, path: str, pointee: str) -> None:
        self.both("symlink", path, pointee)

    @rule(
        old=paths,
        new=paths,
        operation=st.sampled_from(["rename", "rename", "rename_noreplace", "exchange", "link"]),
    )
    def two_paths(self, old: str, new: str, operation: str) -> None:
        self.both(operation, old, new)

    @rule(path=paths, mode=modes)
    def chmod(self, path: str, mode: int) -> None:
        self.both("chmod", path, mode)

    @rule(path=paths, uid=owners, gid=owners)
    def chown(self, path: str, uid: int, gid: int) -> None:
        self.both("chown", path, uid, gid)

    @rule(path=paths)
    def utime(self, path: str) -> None:
        self.both("utime", path)

    @rule(path=paths, name=attributes, value=st.sampled_from([b"", b"v", b"w" * 200]))
    def setxattr(self, path: str, name: str, value: bytes) -> None:
        self.both("setxattr", path, name, value)

    @rule(path=paths, name=attributes)
    def removexattr(self, path: str, name: str) -> None:
        self.both("removexattr", path, name)

    @invariant()
    def roots_list_the_same(self) -> None:
        assert sorted(os.listdir(self.ours.root)) == sorted(os.listdir(self.theirs.root))

    def view(self, root: str) -> dict[bytes, object]:
        return tree(root)

    def teardown(self) -> None:
        try:
            self.ours.close()
            self.theirs.close()
            ours = self.view(self.ours.root)
            theirs = self.view(self.theirs.root)
            assert_same(ours, theirs, "merged view")
            self.mounts.close()
            self.compare_layers(ours)
        except AssertionError:
            print("operations:", *self.log, sep="\n  ")
            raise
        finally:
            self.stack.close()

    def compare_layers(self, ours: dict[bytes, object]) -> None:
        """What we wrote means the same to everyone, and what others wrote means it to us."""
        assert self.spec.upper is not None
        seen = self.stage.directory("seen")
        upper = Path(self.spec.upper)
        with kernel_overlay(seen, [*self.lowers, upper]):
            assert_same(self.view(str(seen)), ours, "our layer, the kernel's mount")
        spec = self.stage.read_only("again", layers=(*self.layers, self.spec.upper))
        with served(spec) as again:
            assert_same(self.view(str(again.mountpoint)), ours, "our layer, our mount")


class AgainstKernel(Comparison):
    """The oracle is the kernel's overlayfs, except where it cannot rename directories."""

    def open_oracle(self, stage: Stage) -> Path:
        mountpoint = stage.directory("kernel/mnt")
        self.kernel_upper = stage.directory("kernel/upper")
        # A fresh upper directory of ours takes the attributes of the root below it.
        lower = os.stat(self.lowers[-1])
        os.utime(self.kernel_upper, ns=(lower.st_atime_ns, lower.st_mtime_ns))
        work = stage.directory("kernel/work")
        self.mounts.enter_context(kernel_overlay(mountpoint, self.lowers, self.kernel_upper, work))
        return mountpoint

    def admits(self, theirs: Any, operation: str) -> bool:
        return theirs != ("error", errno.EXDEV)

    def compare_layers(self, ours: dict[bytes, object]) -> None:
        super().compare_layers(ours)
        spec = self.stage.read_only("theirs", layers=(*self.layers, str(self.kernel_upper)))
        with served(spec) as theirs:
            view = self.view(str(theirs.mountpoint))
            assert_same(view, ours, "the kernel's layer, our mount")


class AgainstPlainDirectory(Comparison):
    """The oracle is a directory, with the base copied into it: renames work, links hold."""

    refuses_whiteouts = False
    with_links = True

    def open_oracle(self, stage: Stage) -> Path:
        plain = stage.directory("plain")
        seen = stage.directory("source")
        with kernel_overlay(seen, [*self.lowers, stage.directory("nothing")]):
            subprocess.run(["cp", "-a", f"{seen}/.", f"{plain}/"], check=True)
        lower = os.stat(self.lowers[-1])
        os.utime(plain, ns=(lower.st_atime_ns, lower.st_mtime_ns))
        return plain

    def admits(self, theirs: Any, operation: str) -> bool:
        return True

    @rule(old=paths, new=paths)
    def is_same_file(self, old: str, new: str) -> None:
        self.both("is_same_file", old, new)

    @rule(slot=slots, path=paths, flags=st.sampled_from([os.O_RDONLY, os.O_RDWR, os.O_WRONLY]))
    def hold(self, slot: int, path: str, flags: int) -> None:
        if not self._is_fifo(path):
            self.both("hold", slot, path, flags)

    @rule(slot=slots)
    def held_read(self, slot: int) -> None:
        self.both("held_read", slot)

    @rule(slot=slots, offset=offsets, content=contents)
    def held_write(self, slot: int, offset: int, content: tuple[bytes, int]) -> None:
        self.both("held_write", slot, offset, content)

    @rule(slot=slots, mode=modes)
    def held_chmod(self, slot: int, mode: int) -> None:
        self.both("held_chmod", slot, mode)

    @rule(slot=slots, size=offsets)
    def held_truncate(self, slot: int, size: int) -> None:
        self.both("held_truncate", slot, size)


def _settings(request: pytest.FixtureRequest) -> settings:
    is_long = request.config.getoption("--long")
    return settings(
        max_examples=1500 if is_long else 12,
        stateful_step_count=80 if is_long else 60,
        derandomize=not is_long,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        # Each example costs mounts; shrinking by hundreds of them takes longer than reading.
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )


def _run(machine: type[Comparison], chosen: settings) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    enter_private_namespace()
    run_state_machine_as_test(machine, settings=chosen)


@pytest.mark.timeout(7200)
def test_overlay_answers_as_the_kernels_overlayfs_does(request: pytest.FixtureRequest) -> None:
    _run(AgainstKernel, _settings(request))


@pytest.mark.timeout(7200)
def test_overlay_behaves_as_a_plain_directory_does(request: pytest.FixtureRequest) -> None:
    _run(AgainstPlainDirectory, _settings(request))


def test_fuse_overlayfs_reads_our_layers_as_we_do(tmp_path: Path) -> None:
    enter_private_namespace()
    base(tmp_path / "base")
    stage = staged(tmp_path)
    spec = stage.writable()
    with served(spec) as lane:
        root = lane.mountpoint
        (root / "a/b").unlink()
        (root / "a").rename(root / "moved")
        (root / "a").mkdir()
        (root / "a/new").write_text("new")
        (root / "c").write_text("changed")
        shutil.rmtree(root / "b")
        ours = tree(root)
    assert spec.upper is not None
    with fuse_overlayfs(stage.directory("seen"), [stage.checkout, Path(spec.upper)]) as seen:
        assert_same(tree(seen), ours, "fuse-overlayfs")
