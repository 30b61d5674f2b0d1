"""Artifacts: taking over what a lane made, and giving it to the next.

`collect` reads a directory that an agent, not trusted, has filled. So every file is opened relative
to the directory's descriptor, no link is followed, nothing is opened that could block or act
(FIFOs, devices), and what is said about a file is what is true of the descriptor.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

import msgspec

from supervisor.board.blob import BlobStore, MismatchError, Staged, TooLargeError
from supervisor.errors import ArtifactError
from supervisor.model import ijson
from supervisor.model.contract import Inspector
from supervisor.model.name import file_fault, is_identifier
from supervisor.model.record import Input, Output

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# A table of our own: the one of `mimetypes` depends on files of the host.
MEDIA_TYPES = {
    ".csv": "text/csv",
    ".diff": "text/x-diff",
    ".gz": "application/gzip",
    ".html": "text/html",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".log": "text/plain",
    ".md": "text/markdown",
    ".patch": "text/x-diff",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".tar": "application/x-tar",
    ".toml": "application/toml",
    ".txt": "text/plain",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zip": "application/zip",
    ".zst": "application/zstd",
}


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """How much an attempt may hand on."""

    file_bytes: int = 1 << 30
    total_bytes: int = 4 << 30
    files: int = 1000


def media_type(name: str) -> str:
    """The media type (RFC 6838) that a file's suffix stands for."""
    return MEDIA_TYPES.get(os.path.splitext(name)[1].lower(), "application/octet-stream")


def collect(
    blobs: BlobStore,
    outputs_path: str,
    required: Iterable[str],
    limit: Limit | None = None,
    inspector: Inspector | None = None,
) -> tuple[Output, ...]:
    """Takes over the files in an outputs directory, sorted by name. All of them, or none.

    Args:
        inspector: looks at what is in each `*.json`.

    Raises:
        ArtifactError: a required file is missing, or a file is refused; a sentence for each.
        BoardError: the store cannot be written.
    """
    try:
        directory = os.open(outputs_path, _OPEN_DIRECTORY)
    except OSError as error:
        raise ArtifactError(f"the outputs cannot be read: {error.strerror}") from error
    try:
        names = sorted(os.fsencode(name) for name in os.listdir(directory))
        found = [(directory, name) for name in names]
        return _collect(blobs, found, required, limit or Limit(), inspector)
    finally:
        os.close(directory)


def collect_files(
    blobs: BlobStore,
    paths: Iterable[str],
    required: Iterable[str],
    limit: Limit | None = None,
    inspector: Inspector | None = None,
) -> tuple[Output, ...]:
    """Takes over files that were named one by one; each keeps its last component as its name.

    Arguments and errors as those of `collect`.
    """
    named = {os.path.basename(os.path.abspath(path)): os.path.abspath(path) for path in paths}
    with ExitStack() as stack:
        found = []
        for name, path in sorted(named.items()):
            try:
                directory = os.open(os.path.dirname(path), _OPEN_DIRECTORY)
            except OSError as error:
                raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
            stack.callback(os.close, directory)
            found.append((directory, os.fsencode(name)))
        return _collect(blobs, found, required, limit or Limit(), inspector)


def _collect(
    blobs: BlobStore,
    found: Sequence[tuple[int, bytes]],
    required: Iterable[str],
    limit: Limit,
    inspector: Inspector | None,
) -> tuple[Output, ...]:
    """Takes over files, each given by its directory's descriptor and its name."""
    if len(found) > limit.files:
        raise ArtifactError(f"there are {len(found)} outputs, and {limit.files} is the most")
    faults: list[str] = []
    taken: list[tuple[str, Staged]] = []
    with ExitStack() as stack:
        left = limit.total_bytes
        for directory, name in found:
            try:
                staged = _take(blobs, directory, name, min(limit.file_bytes, left), inspector)
            except ArtifactError as fault:
                faults.append(f"the output {_shown(name)} {fault.message}")
                continue
            taken.append((name.decode(), stack.enter_context(staged)))
            left -= staged.size
        present = {os.fsdecode(name) for _, name in found}
        missing = sorted(set(required) - present)
        faults.extend(f"the output {wanted!r} is missing" for wanted in missing)
        if faults:
            raise ArtifactError(
                "; ".join(faults), hint="Hand on plain files, at the top of $NANOSUP_OUTPUTS."
            )
        outputs = []
        for text, staged in taken:
            sha256, size = staged.commit()
            outputs.append(Output(name=text, sha256=sha256, size=size, media_type=media_type(text)))
        return tuple(outputs)


def provide(blobs: BlobStore, inputs: Sequence[Input], dest: str) -> None:
    """Copies inputs to `dest/<phase>/<name>` (directories 0755, files 0444), verified on the way.

    Raises:
        ArtifactError: one is missing or not what its digest says; names it and both digests.
        OSError: `dest` cannot be written.
    """
    for given in inputs:
        # Both become parts of a path, and a document may be forged.
        if not is_identifier(given.phase) or file_fault(os.fsencode(given.name)) is not None:
            raise ArtifactError(
                f"artifact {given.phase!r}/{given.name!r} cannot be given to a lane"
            )
        directory = os.path.join(dest, given.phase)
        os.makedirs(directory, mode=0o755, exist_ok=True)
        os.chmod(directory, 0o755)  # whatever the umask: the lane's uid is another
        try:
            blobs.copy_to(given.sha256, os.path.join(directory, given.name))
        except MismatchError as error:
            raise mismatch(given.phase, given.name, error.expected, error.actual) from error


def mismatch(phase: str, name: str, expected: str, actual: str | None) -> ArtifactError:
    """The error for an artifact that is not what it was."""
    found = "it is missing from the store" if actual is None else f"it is sha256 {actual}"
    return ArtifactError(
        f"artifact {phase}/{name} should be sha256 {expected}, but {found}",
        hint=f"Nothing that depends on {phase} can start; run {phase} again.",
    )


def _take(
    blobs: BlobStore, directory: int, name: bytes, limit_bytes: int, inspector: Inspector | None
) -> Staged:
    """Copies one file. Raises ArtifactError with the end of a sentence."""
    fault = file_fault(name)
    if fault is not None:
        raise ArtifactError(fault)
    try:
        # Looked at before it is opened, since opening some devices acts; the descriptor is then
        # looked at again, since the name may have come to mean something else.
        _check_kind(os.stat(name, dir_fd=directory, follow_symlinks=False), limit_bytes)
        fd = os.open(name, _OPEN, dir_fd=directory)
    except OSError as error:
        raise ArtifactError(f"cannot be read: {error.strerror}") from error
    try:
        before = os.fstat(fd)
        _check_kind(before, limit_bytes)
        try:
            staged = blobs.stage(fd, limit_bytes)
        except TooLargeError:
            raise ArtifactError("grew past its limit while it was read") from None
        except OSError as error:
            raise ArtifactError(f"cannot be read: {error.strerror}") from error
        try:
            if _stamp(before) != _stamp(os.fstat(fd)) or staged.size != before.st_size:
                raise ArtifactError("changed while it was read")
            if name.endswith(b".json"):
                _check_json(staged, name.decode(), inspector)
            staged.seal()
        except BaseException:
            staged.close()
            raise
        return staged
    finally:
        os.close(fd)


def _check_kind(found: os.stat_result, limit_bytes: int) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        raise ArtifactError(f"is {_KINDS.get(kind, 'no regular file')}, not a file")
    if found.st_nlink != 1:
        raise ArtifactError(f"is a hard link ({found.st_nlink} names)")
    if found.st_size > limit_bytes:
        raise ArtifactError(f"has {found.st_size} bytes, and {limit_bytes} is the most")


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return (
        found.st_dev,
        found.st_ino,
        found.st_nlink,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def _check_json(staged: Staged, name: str, inspector: Inspector | None) -> None:
    if staged.size > ijson.LIMIT_BYTES:
        raise ArtifactError(f"has {staged.size} bytes of JSON, and {ijson.LIMIT_BYTES} is the most")
    try:
        value = ijson.loads(os.pread(staged.fd, staged.size + 1, 0))
    except ijson.StrictError as fault:
        raise ArtifactError(str(fault)) from fault
    if inspector is not None and (wrong := inspector.fault(name, value)) is not None:
        raise ArtifactError(wrong)


def _shown(name: bytes) -> str:
    """A name for a message: what is not printable is escaped, so that it cannot lie."""
    return repr(name.decode("utf-8", "backslashreplace"))
