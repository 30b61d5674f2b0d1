"""The token of a claim: which attempt, and the secret that proves who made it. No I/O.

Written `SPRINT.PHASE.N.SECRET`. N fences: once attempt N has an outcome its token changes nothing.
The secret keeps one agent from ending another's attempt; the board holds only its SHA-256, so that
who can read the board still cannot speak for anyone.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from supervisor.model.name import is_identifier

SECRET_BYTES = 20

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_SECRET = re.compile(r"[0-9a-f]{40}")


class Token(msgspec.Struct, frozen=True):
    """A parsed token."""

    sprint: str
    phase: str
    attempt: int
    secret: str

    def __str__(self) -> str:
        return f"{self.sprint}.{self.phase}.{self.attempt}.{self.secret}"

    def __repr__(self) -> str:
        # A token in a traceback or a log would be a leak.
        return f"Token({self.sprint}.{self.phase}.{self.attempt}.…)"

    @property
    def digest(self) -> str:
        """What the board holds as `token_sha256`."""
        return digest(self.secret)

    def opens(self, token_sha256: str | None) -> bool:
        """Whether this is the token whose digest an owner file holds. Takes constant time."""
        # hmac costs milliseconds to import, and only commands that carry a token need it.
        from hmac import compare_digest

        return token_sha256 is not None and compare_digest(
            self.digest.encode(), token_sha256.encode("utf-8", "surrogatepass")
        )


def digest(secret: str) -> str:
    """SHA-256 of a secret, as hexadecimal digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def mint(sprint: str, phase: str, attempt: int, noise: bytes) -> Token:
    """A new token, from `SECRET_BYTES` bytes of os.urandom."""
    if len(noise) != SECRET_BYTES:
        raise ValueError(f"a secret is made of {SECRET_BYTES} random bytes, not {len(noise)}")
    return Token(sprint, phase, attempt, noise.hex())


def parse(text: str) -> Token | None:
    """The token that `text` is, or None where it is none."""
    parts = text.strip().split(".")
    if len(parts) != 4:
        return None
    sprint, phase, number, secret = parts
    if not (is_identifier(sprint) and is_identifier(phase)):
        return None
    if _NUMBER.fullmatch(number) is None or _SECRET.fullmatch(secret) is None:
        return None
    return Token(sprint, phase, int(number), secret)
