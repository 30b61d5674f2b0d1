from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor.board.journal import RECORD_LIMIT_BYTES, Journal
from supervisor.errors import BoardError, NotFoundError


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "journal.jsonl"))


def test_events_are_read_in_the_order_they_happened(journal: Journal) -> None:
    assert list(journal.read()) == []
    for n in range(3):
        journal.append("attempt.claimed", phase="build", n=n)
    events = list(journal.read())
    assert [(event.event, event.fields) for event in events] == [
        ("attempt.claimed", {"phase": "build", "n": n}) for n in range(3)
    ]
    assert all(event.at.endswith("Z") for event in events)


def test_what_is_not_utf_8_is_escaped(journal: Journal) -> None:
    journal.append("output", line="a\udcffb", more=["\ud800"])
    (event,) = journal.read()
    assert event.fields == {"line": "a\\udcffb", "more": ["\\ud800"]}


def test_a_reader_goes_on_where_it_was(journal: Journal) -> None:
    journal.append("a")
    (first,) = journal.read()
    journal.append("b")
    journal.append("c")
    assert [event.event for event in journal.read(first.end)] == ["b", "c"]
    *_, last = journal.read()
    assert list(journal.read(last.end)) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), text=st.text(max_size=40))
def test_a_torn_line_swallows_nothing(tmp_path: Path, cut: int, text: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    journal = Journal(str(path))
    for n in range(3):
        journal.append("before", n=n, text=text)
    ends = [0] + [event.end for event in journal.read()]
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    journal.append("after", text=text)
    events = list(journal.read())
    # A newline more or less is no loss: the record is whole before it.
    whole = sum(end - 1 <= len(data) for end in ends[1:])
    assert [event.event for event in events] == ["before"] * whole + ["after"]
    assert events[-1].fields["text"] == text


def test_a_line_without_its_end_is_left_for_the_next_look(journal: Journal) -> None:
    journal.append("a")
    (a,) = journal.read()
    with Path(journal.path).open("ab") as file:
        file.write(b'\n{"at": "", "event": "b"}')
        file.flush()
        assert list(journal.read(a.end)) == []
        file.write(b"\n")
    assert [event.event for event in journal.read(a.end)] == ["b"]


@pytest.mark.parametrize("junk", [b"[]", b"{}", b'{"at": 1, "event": "x"}', b"\xff", b"[" * 9999])
def test_lines_that_are_no_events_are_skipped(journal: Journal, junk: bytes) -> None:
    journal.append("a")
    with Path(journal.path).open("ab") as file:
        file.write(junk + b"\n")
    journal.append("b")
    assert [event.event for event in journal.read()] == ["a", "b"]


def test_a_long_line_needs_no_memory(journal: Journal) -> None:
    with Path(journal.path).open("wb") as file:
        file.writelines(b"x" * (1 << 17) for _ in range(256))
    journal.append("after")
    tracemalloc.start()
    try:
        assert [event.event for event in journal.read()] == ["after"]
        assert tracemalloc.get_traced_memory()[1] < 8 * RECORD_LIMIT_BYTES
    finally:
        tracemalloc.stop()


def test_a_record_that_is_too_long_is_refused(journal: Journal) -> None:
    with pytest.raises(ValueError):
        journal.append("x", text="y" * RECORD_LIMIT_BYTES)
    assert not Path(journal.path).exists()


def test_a_journal_is_not_written_through_a_link(tmp_path: Path, journal: Journal) -> None:
    Path(journal.path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BoardError):
        journal.append("a")
    assert not (tmp_path / "elsewhere").exists()


def test_the_journal_of_a_sprint_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        Journal(str(tmp_path / "gone" / "journal.jsonl")).append("a")
