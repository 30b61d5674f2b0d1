"""The bytes of the FUSE protocol."""

from __future__ import annotations

import os

import pytest

from sandbox.mount import wire


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (wire.IN_HEADER, 40),
        (wire.OUT_HEADER, 16),
        (wire.READ_IN, 40),
        (wire.ATTR_OUT, 16 + 104),
        (wire.ENTRY_OUT, 16 + 128),
        (wire.CREATE_OUT, 16 + 128 + 16),
        (wire.OPEN_OUT, 16 + 16),
        (wire.DIRENT, 24),
        (wire.DIRENT_PLUS, 128 + 24),
        (wire.SETATTR_IN, 88),
    ],
)
def test_sizes_are_those_of_the_kernels_header(message: wire.struct.Struct, size: int) -> None:
    assert message.size == size


@pytest.mark.parametrize(("major", "minor"), [(1, 3), (8, 255), (8, 256), (259, 70_000), (0, 0)])
def test_device_numbers_are_the_kernels_32_bits(major: int, minor: int) -> None:
    encoded = wire.device_number(os.makedev(major, minor))

    # include/linux/kdev_t.h, new_decode_dev
    assert (encoded & 0xFFF00) >> 8 == major
    assert (encoded & 0xFF) | ((encoded >> 12) & 0xFFF00) == minor
