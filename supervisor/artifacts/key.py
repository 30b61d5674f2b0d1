"""The board's signing key: ed25519 (RFC 8032), made on first use.

    key/ed25519.pem     PKCS #8 (RFC 8410), mode 0600: as openssl and others read it
    key/<keyid>.pub     the public half, SubjectPublicKeyInfo in PEM; keyid = its SHA-256

The state directory is masked in every lane, so no agent that nanosup started can read or replace
these. A statement is accepted by any public half that is here: to change the key, move ed25519.pem
away and leave the rest.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from typing import TYPE_CHECKING

from supervisor.board import disk, document
from supervisor.errors import BoardError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PRIVATE = "ed25519.pem"

# RFC 8410: around an ed25519 key both forms are constant. `cryptography` would load PEM too, but
# the import of its serialization costs as much as all else that `complete` does.
_PKCS8 = bytes.fromhex("302e020100300506032b657004220420")
_SPKI = bytes.fromhex("302a300506032b6570032100")
_KEY_BYTES = 32


class Signer:
    """The private key, and its id."""

    __slots__ = ("_key", "keyid")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.keyid = hashlib.sha256(_SPKI + key.public_key().public_bytes_raw()).hexdigest()

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    @property
    def public_pem(self) -> bytes:
        return _pem("PUBLIC KEY", _SPKI + self._key.public_key().public_bytes_raw())


class Keyring:
    """The keys of a board. `path` is `Board.key_path`."""

    __slots__ = ("_known", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._known: dict[str, bytes | None] = {}

    def signer(self) -> Signer:
        """The key to sign with; made where there is none. Of several makers one wins.

        Raises:
            BoardError: it is damaged, can be read by others, or cannot be made.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        path = os.path.join(self.path, PRIVATE)
        seed = self._read_private(path)
        if seed is None:
            self._publish(path, _pem("PRIVATE KEY", _PKCS8 + os.urandom(_KEY_BYTES)), 0o600)
            seed = self._read_private(path)
            if seed is None:
                raise document.damaged(path, "vanished as it was made")
        signer = Signer(Ed25519PrivateKey.from_private_bytes(seed))
        public = os.path.join(self.path, f"{signer.keyid}.pub")
        if not os.path.lexists(public):
            self._publish(public, signer.public_pem, 0o644)
        return signer

    def verify(self, keyid: str, signature: bytes, data: bytes) -> bool:
        """Whether this is a signature of `data` by the key of this id, and it is one of ours."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        if keyid not in self._known:
            self._known[keyid] = self._read_public(keyid)
        public = self._known[keyid]
        if public is None:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def _read_private(self, path: str) -> bytes | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BoardError(f"the signing key {path} cannot be read: {error.strerror}") from error
        try:
            if os.fstat(fd).st_mode & 0o077:
                raise BoardError(
                    f"the signing key {path} can be read by others",
                    hint="Move it away, and a new one is made; chmod it if you know who read it.",
                )
            data = os.read(fd, 4096)
        finally:
            os.close(fd)
        key = _unpem("PRIVATE KEY", data, _PKCS8)
        if key is None:
            raise document.damaged(path, "is no ed25519 key in PEM")
        return key

    def _read_public(self, keyid: str) -> bytes | None:
        if len(keyid) != 64 or not keyid.isalnum():
            return None
        path = os.path.join(self.path, f"{keyid}.pub")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            key = _unpem("PUBLIC KEY", os.read(fd, 4096), _SPKI)
        except OSError:
            return None
        finally:
            os.close(fd)
        if key is None or hashlib.sha256(_SPKI + key).hexdigest() != keyid:
            return None
        return key

    def _publish(self, path: str, data: bytes, mode: int) -> None:
        with disk.explained(path):
            disk.make_directories(self.path)
            tmp = disk.tmp_path(self.path)
            try:
                disk.write_file(tmp, data, mode=mode)
                disk.publish_file(tmp, path)
            except FileExistsError:
                pass  # another process was quicker, and its key is the key
            finally:
                disk.remove(tmp)
            disk.sync_published(self.path)


def _pem(label: str, der: bytes) -> bytes:
    text = base64.b64encode(der).decode()
    return f"-----BEGIN {label}-----\n{text}\n-----END {label}-----\n".encode()


def _unpem(label: str, data: bytes, prefix: bytes) -> bytes | None:
    lines = data.decode("ascii", "replace").split("\n")
    if lines[0] != f"-----BEGIN {label}-----" or lines[-2:] != [f"-----END {label}-----", ""]:
        return None
    try:
        der = base64.b64decode("".join(lines[1:-2]), validate=True)
    except (binascii.Error, ValueError):
        return None
    if not der.startswith(prefix) or len(der) != len(prefix) + _KEY_BYTES:
        return None
    return der[len(prefix) :]
