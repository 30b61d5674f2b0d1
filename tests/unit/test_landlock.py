from __future__ import annotations

import struct

import pytest

from sandbox.jail.landlock import (
    FILE_RIGHTS,
    READS,
    Domain,
    Right,
    Scope,
    known,
    scopes,
    writes_only_below,
)


@pytest.mark.parametrize(("abi", "bits"), [(1, 0x1FFF), (2, 0x3FFF), (3, 0x7FFF), (5, 0xFFFF)])
def test_no_kernel_is_asked_for_more_than_its_abi_knows(abi: int, bits: int) -> None:
    assert known(abi) == bits
    assert writes_only_below(abi, ()).handled == bits & ~READS


def test_scopes_come_with_abi_6() -> None:
    assert scopes(5) == 0
    assert scopes(6) == scopes(7) == Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL


def test_what_is_read_and_executed_stays_as_it_is() -> None:
    assert not writes_only_below(7, ("/w",)).handled & READS


def test_no_device_node_can_be_made_anywhere() -> None:
    domain = writes_only_below(7, ("/w",))

    assert domain.handled & Right.MAKE_BLOCK
    assert domain.handled & Right.MAKE_CHAR
    assert not any(rule.rights & (Right.MAKE_BLOCK | Right.MAKE_CHAR) for rule in domain.rules)


def test_files_can_be_made_below_what_is_writable_and_nowhere_else() -> None:
    domain = writes_only_below(7, ("/w", "/x", "/w"))

    assert [rule.path for rule in domain.rules if rule.rights & Right.MAKE_REG] == ["/w", "/x"]


def test_a_rule_about_a_descriptor_gives_only_what_a_file_can_have() -> None:
    domain = writes_only_below(7, ())

    for rule in domain.rules:
        if isinstance(rule.path, int):
            assert rule.optional
            assert not rule.rights & ~FILE_RIGHTS


def test_attributes_are_no_longer_than_an_old_kernel_takes() -> None:
    assert Domain(Right.WRITE_FILE, Scope(0)).attributes == struct.pack("=Q", 2)
    assert Domain(Right(0), Scope.SIGNAL).attributes == struct.pack("=QQQ", 0, 0, 2)
