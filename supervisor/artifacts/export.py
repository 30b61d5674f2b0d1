"""Copying artifacts out of the store, to where a user asks for them.

The destination is the user's, and may hold anything: links planted by an agent that worked there
before. Every step is relative to a directory's descriptor and follows no link; a file appears
under its name whole and verified.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from supervisor.artifacts.artifact import mismatch
from supervisor.board import disk, owner
from supervisor.board.blob import BlobStore, MismatchError
from supervisor.errors import ArtifactError
from supervisor.model.name import file_fault, is_identifier, tmp_name
from supervisor.model.record import Output

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def export(
    blobs: BlobStore, outputs: Iterable[tuple[str, Output]], dest: str, *, replace: bool = False
) -> list[str]:
    """Writes each (phase, output) to `dest/<phase>/<name>`. Returns the paths.

    `dest` itself is followed where it is a link, since the user named it.

    Raises:
        ArtifactError: a file is there already and `replace` is false; a link or something else is
            in the way; or a blob is not what its digest says.
        BoardError: `dest` cannot be written.
    """
    written = []
    with disk.explained(dest):
        os.makedirs(dest, exist_ok=True)
        top = os.open(dest, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for phase, output in outputs:
            path = os.path.join(dest, phase, output.name)
            if not is_identifier(phase) or file_fault(os.fsencode(output.name)) is not None:
                raise ArtifactError(f"artifact {phase}/{output.name!r} has no name to export it by")
            directory = _enter(top, phase, dest)
            try:
                _export(blobs, phase, output, directory, path, replace=replace)
            finally:
                os.close(directory)
            written.append(path)
    finally:
        os.close(top)
    return written


def _enter(top: int, phase: str, dest: str) -> int:
    path = os.path.join(dest, phase)
    with disk.explained(path):
        try:
            os.mkdir(phase, 0o755, dir_fd=top)
        except FileExistsError:
            pass
        try:
            return os.open(phase, _OPEN_DIRECTORY, dir_fd=top)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise ArtifactError(
                    f"{path} is in the way: it is no directory, or a link",
                    hint="Move it away, or export to another directory.",
                ) from error
            raise


def _export(
    blobs: BlobStore, phase: str, output: Output, directory: int, path: str, *, replace: bool
) -> None:
    tmp = tmp_name(owner.maker(), os.urandom(6))
    with disk.explained(path):
        try:
            blobs.copy_to(output.sha256, tmp, dir_fd=directory)
        except MismatchError as error:
            raise mismatch(phase, output.name, error.expected, error.actual) from error
        try:
            os.chmod(tmp, 0o644, dir_fd=directory)  # the copy is the user's now
            if replace:
                # Onto a link, rename(2) replaces the link itself.
                os.rename(tmp, output.name, src_dir_fd=directory, dst_dir_fd=directory)
                return
            os.link(tmp, output.name, src_dir_fd=directory, dst_dir_fd=directory)
            os.unlink(tmp, dir_fd=directory)
        except OSError as error:
            os.unlink(tmp, dir_fd=directory)
            if error.errno in (errno.EEXIST, errno.EISDIR):
                raise ArtifactError(
                    f"{path} exists already", hint="Export to another directory, or replace it."
                ) from error
            raise
