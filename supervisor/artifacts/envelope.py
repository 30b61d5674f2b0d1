"""DSSE, the envelope of a signed statement: JSON that holds a payload and signatures of it. No I/O.

https://github.com/secure-systems-lab/dsse, protocol 1.0. What is signed is the payload's bytes as
the envelope holds them, with their type, so that nothing depends on a canonical form of JSON.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

import msgspec

from supervisor.model import ijson

PAYLOAD_TYPE = "application/vnd.in-toto+json"


class Signature(msgspec.Struct, frozen=True):
    """A signature. `sig` is base64."""

    sig: str
    keyid: str = ""


class Envelope(msgspec.Struct, frozen=True, rename="camel"):
    """An envelope as it is on disk. `payload` is base64."""

    payload: str
    payload_type: str
    signatures: tuple[Signature, ...]


class EnvelopeError(ValueError):
    """Raised when an envelope is none, or not rightly signed; its text is the end of a sentence."""


def pae(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """The pre-authentication encoding: the bytes that a signature is of."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, keyid: str, sign: Callable[[bytes], bytes]) -> bytes:
    """An envelope around a payload, signed, as JSON."""
    envelope = Envelope(
        payload=base64.b64encode(payload).decode(),
        payload_type=PAYLOAD_TYPE,
        signatures=(Signature(base64.b64encode(sign(pae(payload))).decode(), keyid),),
    )
    return msgspec.json.encode(envelope) + b"\n"


def unseal(data: bytes, verify: Callable[[str, bytes, bytes], bool]) -> bytes:
    """The payload of an envelope with at least one signature that is right.

    Args:
        verify: told a key id, a signature and what it should be of, says whether it is.

    Raises:
        EnvelopeError: no envelope, another payload type, or no signature that is right.
    """
    try:
        ijson.loads(data)  # two readers must not see different payloads in one envelope
        envelope = msgspec.json.decode(data, type=Envelope)
    except (ijson.StrictError, msgspec.DecodeError) as error:
        raise EnvelopeError(f"is no DSSE envelope ({error})") from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise EnvelopeError(f"holds {envelope.payload_type!r}, not an in-toto statement")
    payload = _decode(envelope.payload)
    signed = pae(payload)
    if not any(verify(one.keyid, _decode(one.sig), signed) for one in envelope.signatures):
        raise EnvelopeError("is not signed by a key of this board")
    return payload


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EnvelopeError("holds something that is not base64") from error
