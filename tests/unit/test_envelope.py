from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.artifacts import envelope
from supervisor.artifacts.envelope import EnvelopeError


def sign(data: bytes) -> bytes:
    return b"signed:" + data


def verify(keyid: str, signature: bytes, data: bytes) -> bool:
    return keyid == "k" and signature == sign(data)


def test_what_is_signed_is_as_the_specification_says() -> None:
    # The example of DSSE's protocol.md.
    assert (
        envelope.pae(b"hello world", "http://example.com/HelloWorld")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(st.binary())
def test_a_payload_comes_out_as_it_went_in(payload: bytes) -> None:
    assert envelope.unseal(envelope.seal(payload, "k", sign), verify) == payload


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"payload": base64.b64encode(b"other").decode()}, "not signed"),
        ({"payload": "*"}, "not base64"),
        ({"payload": "cGF5\nbG9hZA=="}, "not base64"),
        ({"payloadType": "text/plain"}, "'text/plain', not an in-toto statement"),
        ({"signatures": []}, "not signed"),
        ({"signatures": [{"keyid": "other", "sig": "AA=="}]}, "not signed"),
        ({"signatures": [{"keyid": "k", "sig": "AA=="}]}, "not signed"),
        ({"signatures": "k"}, "no DSSE envelope"),
    ],
)
def test_an_envelope_that_was_changed_is_refused(change: dict[str, object], fault: str) -> None:
    changed = json.loads(envelope.seal(b"payload", "k", sign)) | change
    with pytest.raises(EnvelopeError, match=fault):
        envelope.unseal(json.dumps(changed).encode(), verify)


def test_one_right_signature_of_several_is_enough() -> None:
    sealed = json.loads(envelope.seal(b"payload", "k", sign))
    sealed["signatures"].insert(0, {"keyid": "other", "sig": "AA=="})
    assert envelope.unseal(json.dumps(sealed).encode(), verify) == b"payload"


def test_an_envelope_with_two_payloads_is_refused() -> None:
    sealed = envelope.seal(b"payload", "k", sign)
    twice = sealed.replace(b"{", b'{"payload":"AA==",', 1)
    with pytest.raises(EnvelopeError, match="twice"):
        envelope.unseal(twice, verify)


@given(st.binary())
def test_no_bytes_pass_for_an_envelope(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        envelope.unseal(data, verify)
