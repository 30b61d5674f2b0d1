"""What can go wrong in the supervisor. Each class has one exit code (design, section 10)."""

from __future__ import annotations

from typing import ClassVar


class SupervisorError(Exception):
    """Root of all errors raised by `supervisor`."""

    exit_code: ClassVar[int] = 98

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(SupervisorError):
    """Raised when nanosup.toml, a preset or the phase graph is not valid. Nothing was started."""

    exit_code = 10


class NotFoundError(SupervisorError):
    """Raised when a sprint, phase, attempt or artifact that was named does not exist."""

    exit_code = 11


class HeldError(SupervisorError):
    """Raised when what was asked for is held by another living owner, who is named."""

    exit_code = 12


class TokenError(HeldError):
    """Raised when a token is not the one that was given out for the attempt it names."""


class BlockedError(SupervisorError):
    """Raised when a phase is claimed whose dependencies are not completed."""

    exit_code = 13


class CompletedError(SupervisorError):
    """Raised when a phase is claimed that is completed already."""

    exit_code = 14


class FencedError(SupervisorError):
    """Raised when the attempt that a token names has an outcome already: its holder was fenced."""

    exit_code = 15


class ArtifactError(SupervisorError):
    """Raised when an artifact is refused, or is not what its digest says."""

    exit_code = 16


class GateError(SupervisorError):
    """Raised when `ship` is asked for a tree that its gates did not pass."""

    exit_code = 17


class BusyError(SupervisorError):
    """Raised when another `nanosup up` runs this sprint."""

    exit_code = 19


class BoardError(SupervisorError):
    """Raised when the board is damaged, of a newer format, or cannot be written."""

    exit_code = 20


class NewerError(BoardError):
    """Raised when the board, or a sprint on it, is of a format newer than this program knows."""
