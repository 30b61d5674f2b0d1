"""What the server says to the kernel's INIT (linux/fuse.h)."""

from __future__ import annotations

import struct

import pytest

from sandbox.mount import handshake

_IN = struct.Struct("=IIQQIIIHHIIIII44x")
_OUT = struct.Struct("=IiQIIIIHHIIHHIIH22x")


def request(minor: int, more: int, flags: int = 0xFFFF_FFFF) -> bytes:
    return _IN.pack(_IN.size, 26, 7, 0, 0, 0, 0, 0, 0, 7, minor, 131072, flags, more)


@pytest.mark.parametrize(
    ("minor", "more", "passes"),
    [
        (38, handshake.PASSTHROUGH, False),
        (40, handshake.PASSTHROUGH, False),  # Linux 6.9 to 6.11
        (41, handshake.PASSTHROUGH, True),
        (45, 0xFFFF_FFFF, True),
        (45, 0xFFFF_FFFF & ~handshake.PASSTHROUGH, False),
    ],
)
def test_files_are_passed_through_by_kernels_that_do_it_well(
    minor: int, more: int, passes: bool
) -> None:
    assert handshake.passes_through(request(minor, more)) is passes


@pytest.mark.parametrize("is_passing", [True, False])
def test_passing_through_is_asked_for_with_a_depth_and_without_writing_back(
    is_passing: bool,
) -> None:
    reply = handshake.answer(
        request(45, 0xFFFF_FFFF), page_bytes=4096, is_stateless=False, is_passing=is_passing
    )
    size, error, unique, major, minor, _, flags, *_, pages, _, more, depth, _ = _OUT.unpack(reply)
    assert (size, error, unique, major) == (len(reply), 0, 7, 7)
    assert minor <= 45
    assert pages * 4096 == handshake.MAX_WRITE_BYTES
    assert (more, depth) == ((handshake.PASSTHROUGH, 1) if is_passing else (0, 0))
    assert flags & handshake.INIT_EXT
    assert not flags & handshake.WRITEBACK_CACHE
    assert not flags & handshake.AUTO_INVAL_DATA


def test_a_reader_is_told_of_no_truncation_on_opening() -> None:
    reply = handshake.answer(request(45, 0), page_bytes=4096, is_stateless=True)
    flags = _OUT.unpack(reply)[6]
    assert not flags & handshake.ATOMIC_O_TRUNC


def test_nothing_is_asked_for_that_was_not_offered() -> None:
    reply = handshake.answer(request(31, 0, flags=0), page_bytes=4096, is_stateless=False)
    assert _OUT.unpack(reply)[6] == 0
    assert not handshake.opens_by_itself(request(31, 0, flags=0))


def test_what_is_no_init_is_refused() -> None:
    other = struct.pack("=IIQQIIIHH", 40, 3, 1, 1, 0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="opcode 3"):
        handshake.edited_request(other)
