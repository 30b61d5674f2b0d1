from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.model import ijson

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-ijson.INTEGER_MAX, ijson.INTEGER_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(VALUES)
def test_what_is_strict_is_read_as_every_reader_does(value: Any) -> None:
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only).encode()
        assert ijson.loads(text) == json.loads(text)


@given(st.binary())
def test_no_bytes_make_the_reader_fail_otherwise(data: bytes) -> None:
    try:
        ijson.loads(data)
    except ijson.StrictError as fault:
        assert str(fault)


@given(VALUES, st.text())
def test_a_key_twice_is_found_at_any_depth(value: Any, key: str) -> None:
    quoted, inner = json.dumps(key), json.dumps(value)
    with pytest.raises(ijson.StrictError, match="twice"):
        ijson.loads(f'[0, {{"a": {{{quoted}: {inner}, {quoted}: 1}}}}]'.encode())


@given(st.integers(min_value=ijson.INTEGER_MAX + 1), st.sampled_from([1, -1]))
def test_integers_past_2_53_are_refused(n: int, sign: int) -> None:
    with pytest.raises(ijson.StrictError, match="integer"):
        ijson.loads(b'{"n": %d}' % (sign * n))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b"[1,]", "not JSON"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "Infinity"),
        (b"[1e400]", "too large"),
        (b"[" + b"9" * 10_000 + b"]", "10000 digits"),
        (b'{"a": 1, "\\u0061": 2}', "twice"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'["\xff"]', "UTF-8"),
        ("[1]".encode("utf-16"), "UTF-8"),
        (b"[" * 100_000, "deep"),
        (b'["a\nb"]', "not JSON"),
    ],
)
def test_what_readers_could_read_differently_is_refused(text: bytes, fault: str) -> None:
    with pytest.raises(ijson.StrictError, match=fault):
        ijson.loads(text)


def test_a_pair_of_escaped_surrogates_is_one_character() -> None:
    assert ijson.loads(b'["\\ud83d\\ude00"]') == ["\U0001f600"]


def test_the_largest_integer_and_small_floats_pass() -> None:
    assert ijson.loads(b"[9007199254740991, -9007199254740991, 1e-400]")[:2] == [
        2**53 - 1,
        1 - 2**53,
    ]
    assert math.isclose(ijson.loads(b"1.5e300"), 1.5e300)
