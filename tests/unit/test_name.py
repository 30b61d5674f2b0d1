from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.model import name
from supervisor.model.name import Maker


def test_sprint_ids_sort_in_the_order_of_their_times() -> None:
    first = name.sprint_id("2026-11-23T23:46:19.123Z", b"\xff\xff")
    later = name.sprint_id("2026-11-23T23:46:19.124Z", b"\x00\x00")
    assert first == "20261123-234619-123ffff"
    assert first < later
    assert name.is_identifier(first)


@pytest.mark.parametrize(
    "bad", ["", "a.b", "../x", "a/b", ".x", "tmp.1", "-x", "ä", "x" * 65, "a\n"]
)
def test_what_could_leave_its_directory_is_no_identifier(bad: str) -> None:
    assert not name.is_identifier(bad)


@given(st.integers(1, 10**9 - 1))
def test_attempt_numbers_survive_being_a_name(n: int) -> None:
    assert name.attempt_number(name.attempt_name(n)) == n


@pytest.mark.parametrize("bad", ["1", "00001", "0000", "012345", "²"])
def test_a_second_spelling_of_a_number_is_an_error(bad: str) -> None:
    with pytest.raises(ValueError):
        name.attempt_number(bad)


@pytest.mark.parametrize("other", ["tmp.x", "README", "0001~", "lost+found", ""])
def test_other_names_are_no_attempts(other: str) -> None:
    assert name.attempt_number(other) is None


@given(st.integers(0, 2**32), st.integers(1, 2**22), st.integers(0, 2**60), st.binary(min_size=1))
def test_a_temporary_name_tells_its_maker(ns: int, pid: int, ticks: int, noise: bytes) -> None:
    maker = Maker("0123abcd", ns, pid, ticks)
    tmp = name.tmp_name(maker, noise)
    assert name.is_tmp(tmp)
    assert name.tmp_maker(tmp) == maker


@pytest.mark.parametrize("good", ["plan.md", "Übersicht.txt", "a b.json", "x" * 255, "日本.md"])
def test_ordinary_file_names_are_accepted(good: str) -> None:
    assert name.file_fault(good.encode()) is None


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (b"", "impossible"),
        (b"a/b", "impossible"),
        (b"..", "dot"),
        (b".envrc", "dot"),
        (b"-rf", "dash"),
        (b"a\nb", "control"),
        (b"\x1b[2Jx", "control"),
        ("a\u202eb".encode(), "control"),
        ("a\u200bb".encode(), "control"),
        (b"\xff", "UTF-8"),
        (b"x" * 256, "256 bytes"),
        (b"x ", "space"),
    ],
)
def test_names_that_could_lie_or_act_are_refused(bad: bytes, fault: str) -> None:
    assert fault in (name.file_fault(bad) or "")


@given(st.binary(max_size=300))
def test_an_accepted_name_is_one_printable_path_component(raw: bytes) -> None:
    if name.file_fault(raw) is None:
        text = raw.decode()
        assert text.isprintable()
        assert "/" not in text
        assert text not in (".", "..")
        assert len(raw) <= 255
