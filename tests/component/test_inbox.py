"""Receiving requests, from a socket that keeps messages apart as the device does."""

from __future__ import annotations

import errno
import mmap
import os
import socket
from collections.abc import Iterator

import pytest

from sandbox.mount import loop
from sandbox.mount.inbox import Inbox

_NOTHING = (0, -1)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def buffer() -> mmap.mmap:
    return mmap.mmap(-1, 1 << 16)


Ends = tuple[socket.socket, socket.socket]


def test_each_request_is_received_once_and_whole(ends: Ends, buffer: mmap.mmap) -> None:
    device, kernel = ends
    inbox = Inbox(device.fileno(), buffer)
    assert inbox.catch() in _NOTHING
    assert inbox.receive() == 0

    for message in (b"one", b"the second", b"x" * 60_000):
        kernel.send(message)
    for message in (b"one", b"the second"):
        assert inbox.catch() == len(message)
        assert buffer[: len(message)] == message
    assert inbox.receive() == 60_000
    assert buffer[:60_000] == b"x" * 60_000
    assert inbox.catch() in _NOTHING


def test_what_is_not_taken_before_its_turn_is_received_in_it(ends: Ends, buffer: mmap.mmap) -> None:
    device, kernel = ends
    inbox = Inbox(device.fileno(), buffer)
    for message in (b"now", b"forget 1", b"later", b"x" * 60_000, b"forget 2"):
        kernel.send(message)
    assert inbox.catch() == 3

    taken: list[bytes] = []

    def take(request: memoryview) -> bool:
        if request[:6] != b"forget":
            return False
        taken.append(bytes(request))
        return True

    inbox.look_further(take)
    assert taken == [b"forget 1", b"forget 2"]
    assert buffer[:3] == b"now"
    kernel.send(b"last")
    assert inbox.catch() == 5
    assert buffer[:5] == b"later"
    assert inbox.catch() == 60_000
    assert buffer[:60_000] == b"x" * 60_000
    assert inbox.catch() == 4
    assert inbox.catch() in _NOTHING


def test_no_more_is_set_aside_than_can_come_before_what_is_taken(
    ends: Ends, buffer: mmap.mmap
) -> None:
    device, kernel = ends
    inbox = Inbox(device.fileno(), buffer)
    for number in range(100):
        kernel.send(b"%d" % number)

    seen: list[memoryview] = []
    for _ in range(3):
        inbox.look_further(lambda request: seen.append(request) is not None)
    assert len(seen) == 9
    for number in range(100):
        length = inbox.catch()
        assert buffer[:length] == b"%d" % number


def test_who_sleeps_long_looks_less_until_somebody_is_quick_again(
    ends: Ends, buffer: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, kernel = ends
    now_ns = 0
    monkeypatch.setattr("sandbox.mount.inbox.monotonic_ns", lambda: now_ns)
    inbox = Inbox(device.fileno(), buffer)
    for _ in range(10):
        inbox.begin_waiting()
        now_ns += 1_000_000
        inbox.end_waiting()
    kernel.send(b"there")
    assert inbox.catch() == 0, "it does not look at all"
    inbox.begin_waiting()
    now_ns += 10_000
    inbox.end_waiting()
    assert inbox.catch() == 5


def test_the_end_of_the_mount_is_told(buffer: mmap.mmap, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    inbox = Inbox(read, buffer)

    def unmounted(*_: object) -> int:
        raise OSError(errno.ENODEV, "unmounted")

    monkeypatch.setattr(os, "readv", unmounted)
    with pytest.raises(loop.ClosedResourceError):
        inbox.receive()
    os.close(read)
    os.close(write)
