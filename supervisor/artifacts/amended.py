"""The signature of a revision of a sprint's graph: that `nanosup reload` of this board made it.

`sprint.json` is named, by its digest, in the statement of every attempt. A revision is named by
those alone that go by it, and says what later ones have to do: which of them are gates, above all.
So it is signed itself. What is signed is the document as it is on disk, with an empty signature.
"""

from __future__ import annotations

import base64
import binascii
import json
import os

import msgspec

from supervisor.artifacts import envelope
from supervisor.artifacts.key import Keyring
from supervisor.board import document
from supervisor.board.board import Board, SprintDir
from supervisor.model.record import Revision

_TYPE = "application/vnd.nanosup.revision+json"
_LIMIT_BYTES = 64 << 20


def signed(board: Board, sprint: SprintDir, revision: Revision) -> Revision:
    """A revision with the board's signature.

    Raises:
        BoardError: the key cannot be read or made.
    """
    blank = document.encode(msgspec.structs.replace(revision, signature=""))
    signer = Keyring(board.key_path).signer()
    value = base64.b64encode(signer.sign(_message(sprint, blank))).decode()
    return msgspec.structs.replace(revision, signature=f"{signer.keyid}:{value}")


def fault(keyring: Keyring, sprint: SprintDir, number: int) -> str:
    """What is wrong with the signature of a revision, as the end of a sentence; or nothing.

    Raises:
        BoardError: the revision is damaged.
    """
    signature = sprint.revisions.entry(number).signature
    keyid, _, value = signature.partition(":")
    data = _read(sprint.revisions.file(number))
    quoted = json.dumps(signature).encode()
    if data.count(quoted) != 1 or not signature:
        return "is not signed"
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return "has a signature that is none"
    blank = data.replace(quoted, b'""')
    if not keyring.verify(keyid, raw, _message(sprint, blank)):
        return "is not signed by a key of this board"
    return ""


def _message(sprint: SprintDir, blank: bytes) -> bytes:
    return envelope.pae(sprint.id.encode() + b"\n" + blank, _TYPE)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        return file.read(_LIMIT_BYTES)
