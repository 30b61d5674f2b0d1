from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.model import token

IDENTIFIERS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)
NOISE = st.binary(min_size=token.SECRET_BYTES, max_size=token.SECRET_BYTES)


@given(IDENTIFIERS, IDENTIFIERS, st.integers(1, 10**9 - 1), NOISE)
def test_a_token_survives_being_written(sprint: str, phase: str, n: int, noise: bytes) -> None:
    minted = token.mint(sprint, phase, n, noise)
    assert token.parse(f" {minted}\n") == minted
    assert minted.opens(minted.digest)


@given(st.text())
def test_no_text_makes_the_parser_fail(text: str) -> None:
    parsed = token.parse(text)
    assert parsed is None or str(parsed) == text.strip()


@given(NOISE, NOISE)
def test_another_secret_does_not_open(mine: bytes, other: bytes) -> None:
    opened = token.mint("s", "p", 1, mine).opens(token.mint("s", "p", 1, other).digest)
    assert opened == (mine == other)


def test_a_claim_without_a_token_is_opened_by_none() -> None:
    assert not token.mint("s", "p", 1, bytes(20)).opens(None)


@pytest.mark.parametrize(
    "bad",
    ["", "p.1", "s.p.0." + "a" * 40, "s.p.01." + "a" * 40, "s.p.1." + "A" * 40, "s.p.1." + "a" * 39,
     "s.p.-1." + "a" * 40, "s./.1." + "a" * 40, "s.p.¹." + "a" * 40],
)  # fmt: skip
def test_what_is_nearly_a_token_is_none(bad: str) -> None:
    assert token.parse(bad) is None


def test_a_token_does_not_show_its_secret_in_a_traceback() -> None:
    minted = token.mint("s", "p", 1, bytes(20))
    assert minted.secret not in repr(minted)
