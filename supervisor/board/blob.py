"""The store of artifacts: files addressed by the SHA-256 of what is in them.

    blobs/sha256/ab/abcdef…      mode 0444, never changed

What goes in is copied first, and the digest is that of the copy: a source that changes meanwhile
cannot make the two differ. What comes out is hashed on its way.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from types import TracebackType

from sandbox.descriptor import write_whole
from supervisor.board import disk
from supervisor.errors import ArtifactError

_CHUNK_BYTES = 1 << 18
_SHA256 = re.compile(r"[0-9a-f]{64}")


class TooLargeError(ArtifactError):
    """Raised when a source has more bytes than may be copied."""


class Staged:
    """A copy that is not in the store yet. A context manager: unless committed, it is removed."""

    __slots__ = ("_store", "_tmp", "fd", "sha256", "size")

    def __init__(self, store: BlobStore, tmp: str, fd: int, sha256: str, size: int) -> None:
        self._store = store
        self._tmp: str | None = tmp
        self.fd = fd
        self.sha256 = sha256
        self.size = size

    def seal(self) -> None:
        """Writes the copy through and closes it, so that many may wait to be committed.

        Raises:
            BoardError: it cannot be written.
        """
        if self.fd >= 0:
            with disk.explained(self._store.path):
                os.fsync(self.fd)
            os.close(self.fd)
            self.fd = -1

    def commit(self) -> tuple[str, int]:
        """Puts the copy into its place, written through. Returns (sha256, size in bytes).

        Raises:
            BoardError: it cannot be written.
        """
        if self._tmp is None:
            return self.sha256, self.size
        path = self._store.path_of(self.sha256)
        self.seal()
        with disk.explained(path):
            disk.make_directories(os.path.dirname(path))
            # A rename over what may be there already: it has the same content, or is damaged.
            os.rename(self._tmp, path)
            self._tmp = None
            disk.sync_published(os.path.dirname(path))
        return self.sha256, self.size

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self._tmp is not None:
            disk.remove(self._tmp)
            self._tmp = None

    def __enter__(self) -> Staged:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class BlobStore:
    """The store in a directory, which need not exist yet."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def path_of(self, sha256: str) -> str:
        """Where a blob is, or would be.

        Raises:
            ValueError: not a SHA-256 in lower-case hexadecimal digits.
        """
        if _SHA256.fullmatch(sha256) is None:
            raise ValueError(f"{sha256!r} is not a SHA-256")
        return os.path.join(self.path, "sha256", sha256[:2], sha256)

    def stage(self, source: int, limit_bytes: int) -> Staged:
        """Copies an open file from its offset on, and hashes the copy.

        Raises:
            TooLargeError: the file has more than `limit_bytes`.
            OSError: the source cannot be read.
            BoardError: the copy cannot be written.
        """
        with disk.explained(self.path):
            disk.make_directories(self.path)
            tmp = disk.tmp_path(self.path)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            copy = os.open(tmp, flags, 0o444)
        try:
            digest = hashlib.sha256()
            size = 0
            buffer = memoryview(bytearray(_CHUNK_BYTES))
            while got := os.readv(source, [buffer]):
                size += got
                if size > limit_bytes:
                    raise TooLargeError(f"has more than {limit_bytes} bytes")
                digest.update(buffer[:got])
                with disk.explained(self.path):
                    write_whole(copy, buffer[:got])
            return Staged(self, tmp, copy, digest.hexdigest(), size)
        except BaseException:
            os.close(copy)
            disk.remove(tmp)
            raise

    def add(self, source: int | str, limit_bytes: int) -> tuple[str, int]:
        """Puts a file into the store: copied, then hashed. Returns (sha256, size in bytes).

        `source` is trusted: a path is followed. `artifact.collect` is for what is not.

        Raises:
            TooLargeError: the file has more than `limit_bytes`.
            OSError: the source cannot be read.
            BoardError: the copy cannot be written.
        """
        if isinstance(source, int):
            with self.stage(source, limit_bytes) as staged:
                return staged.commit()
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self.add(fd, limit_bytes)
        finally:
            os.close(fd)

    def open(self, sha256: str) -> int:
        """Opens a blob for reading. The caller closes the descriptor.

        Raises:
            FileNotFoundError: there is no such blob.
            OSError: it cannot be read, or is no regular file.
        """
        # O_NONBLOCK: to open a FIFO that somebody put here would wait for its writer for ever.
        fd = os.open(
            self.path_of(sha256), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", self.path_of(sha256))
        return fd

    def digest(self, sha256: str) -> str | None:
        """What the blob of this name really hashes to now; None where it cannot be read at all."""
        try:
            fd = self.open(sha256)
        except OSError:
            return None
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        try:
            while got := os.readv(fd, [buffer]):
                digest.update(buffer[:got])
        except OSError:
            return None
        finally:
            os.close(fd)
        return digest.hexdigest()

    def verify(self, sha256: str) -> bool:
        """Whether the blob of this name is there and is what its name says."""
        return self.digest(sha256) == sha256

    def copy_to(self, sha256: str, path: str, *, dir_fd: int | None = None) -> int:
        """Copies a blob to a new file (mode 0444), verified on the way. Returns its size in bytes.

        Raises:
            ArtifactError: the blob is missing, or not what its name says; no file is left.
            FileExistsError: there is something at `path`.
            OSError: the file cannot be written.
        """
        try:
            source = self.open(sha256)
        except OSError as error:
            raise MismatchError(sha256, None) from error
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            target = os.open(path, flags, 0o444, dir_fd=dir_fd)
            try:
                digest = hashlib.sha256()
                size = 0
                buffer = memoryview(bytearray(_CHUNK_BYTES))
                while got := os.readv(source, [buffer]):
                    size += got
                    digest.update(buffer[:got])
                    write_whole(target, buffer[:got])
                if digest.hexdigest() != sha256:
                    raise MismatchError(sha256, digest.hexdigest())
                os.fchmod(target, 0o444)  # whatever the umask
            except BaseException:
                os.unlink(path, dir_fd=dir_fd)
                raise
            finally:
                os.close(target)
        finally:
            os.close(source)
        return size


class MismatchError(ArtifactError):
    """Raised when a blob is missing (`actual` is None), or is not what its name says."""

    def __init__(self, expected: str, actual: str | None) -> None:
        found = "is missing" if actual is None else f"hashes to {actual}"
        super().__init__(f"the blob {expected} {found}")
        self.expected = expected
        self.actual = actual
