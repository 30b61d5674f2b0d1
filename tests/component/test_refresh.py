"""Tokens that an agent refreshed in its lane, and what else it may have put in their place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.keeper.refresh import Refresh

PATH = ".agent/auth.json"
OLD, NEW = '{"token": "old"}', '{"token": "new"}'


class Homes:
    """The user's HOME and a lane's, and what was told."""

    def __init__(self, path: Path) -> None:
        self.user, self.lane = path / "user", path / "lane"
        self.told: list[tuple[str, dict[str, Any]]] = []
        for home in (self.user, self.lane):
            (home / ".agent").mkdir(parents=True)
            (home / PATH).write_text(OLD)
        (self.user / PATH).chmod(0o640)
        self.refresh = Refresh.of([PATH], self.user)

    def tell(self, event: str, **fields: Any) -> None:
        self.told.append((event, fields))

    def take_back(self) -> str:
        """The user's own, afterwards."""
        self.refresh.take_back(self.user, self.lane, self.tell)
        assert os.listdir(self.user / ".agent") == ["auth.json"]
        return (self.user / PATH).read_text()


@pytest.fixture
def homes(tmp_path: Path) -> Homes:
    return Homes(tmp_path)


def test_a_refreshed_token_replaces_the_users_own(homes: Homes) -> None:
    (homes.lane / PATH).write_text(NEW)

    assert homes.take_back() == NEW
    assert homes.told == [("credential.written_back", {"path": PATH})]
    assert (homes.user / PATH).stat().st_mode & 0o777 == 0o640


def test_one_that_was_not_touched_is_left_alone(homes: Homes) -> None:
    before = (homes.user / PATH).stat().st_ino

    assert homes.take_back() == OLD
    assert (homes.user / PATH).stat().st_ino == before
    assert homes.told == []


def test_a_newer_one_of_the_users_is_not_overwritten(homes: Homes) -> None:
    """Another lane, or the user's own session, was quicker: that one is valid."""
    (homes.lane / PATH).write_text(NEW)
    (homes.user / PATH).write_text('{"token": "newer"}')

    assert homes.take_back() == '{"token": "newer"}'
    assert homes.told[0][0] == "credential.refused"


def removed(path: Path) -> None:
    path.unlink()


def linked(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def linked_directory(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()
    path.parent.symlink_to(path.parent.parent.parent / "user/.agent")


def hard_linked(path: Path) -> None:
    path.write_text(NEW)
    os.link(path, path.with_name("other"))


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def broken(path: Path) -> None:
    path.write_text('{"token": ')


def another_form(path: Path) -> None:
    path.write_text("[]")


def huge(path: Path) -> None:
    path.write_text('{"x": "' + "x" * (1 << 20) + '"}')


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


@pytest.mark.parametrize(
    "spoil",
    [removed, linked, linked_directory, hard_linked, piped, broken, another_form, huge, deep],
)
def test_what_is_no_such_token_is_not_taken(homes: Homes, spoil: Callable[[Path], None]) -> None:
    spoil(homes.lane / PATH)

    assert homes.take_back() == OLD
    assert all(event == "credential.refused" for event, _ in homes.told)


def test_what_the_user_did_not_have_is_not_made(tmp_path: Path) -> None:
    homes = Homes(tmp_path)
    (homes.user / PATH).unlink()
    refresh = Refresh.of([PATH], homes.user)
    (homes.lane / PATH).write_text(NEW)
    refresh.take_back(homes.user, homes.lane, homes.tell)

    assert not (homes.user / PATH).exists()
