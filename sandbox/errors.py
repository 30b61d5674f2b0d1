"""What can go wrong in a mount or a jail.

Every class carries the exit code that the command line ends with (docs/commands/exit-codes.md)
and every instance says in one sentence what happened and, in `hint`, what to do about it.
"""

from __future__ import annotations

from typing import ClassVar


class SandboxError(Exception):
    """Root of all errors raised by `sandbox`."""

    exit_code: ClassVar[int] = 99

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class HostError(SandboxError):
    """Raised when this host cannot enforce what was asked (no /dev/fuse, no user namespaces…)."""

    exit_code = 18


class GitError(SandboxError):
    """Raised when the repository, or git in a lane, is not in a state that can be worked with."""

    exit_code = 21


class MountError(SandboxError):
    """Raised when a lane's file system cannot be mounted, or was torn away."""

    exit_code = 22


class JailError(SandboxError):
    """Raised when the jail around a child cannot be built."""

    exit_code = 23
