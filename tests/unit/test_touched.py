"""Which paths have changed since when."""

from __future__ import annotations

import sys

from sandbox.git.touched import EVERYTHING, FIRST_TOKEN, Touched


def ask(touched: Touched, token: bytes) -> tuple[bytes, list[bytes]]:
    token, *paths = touched.answer(token).split(b"\0")[:-1]
    return token, paths


def test_each_change_is_told_to_who_has_not_heard_of_it() -> None:
    touched = Touched(b"id", tuple)
    touched.note(b"a")
    first, paths = ask(touched, FIRST_TOKEN)
    assert paths == [b"a"]
    touched.note(b"b")
    second, paths = ask(touched, first)
    assert paths == [b"b"]
    assert ask(touched, second)[1] == []
    assert sorted(ask(touched, FIRST_TOKEN)[1]) == [b"a", b"b"]
    assert ask(touched, b"nanosup.other.1")[1] == [EVERYTHING]


def test_changes_without_end_take_no_memory_without_end_and_none_is_missed() -> None:
    touched = Touched(b"id", tuple)
    early, _ = ask(touched, FIRST_TOKEN)
    most = 0
    for number in range(30_000):
        touched.note(b"%04000d" % number)
        if number % 1000 == 0:
            most = max(most, sum(map(sys.getsizeof, touched._changed)))
    assert most < 64 << 20
    late, paths = ask(touched, early)
    assert paths == [EVERYTHING]
    assert ask(touched, FIRST_TOKEN)[1] == [EVERYTHING]
    touched.note(b"new")
    assert ask(touched, late)[1] == [b"new"]
