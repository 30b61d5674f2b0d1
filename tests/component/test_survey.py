"""What is found of a host that a temporary directory stands for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from sandbox.errors import JailError
from sandbox.jail.survey import survey
from sandbox.jail.view import Ground, Secret


def look(home: Path, *home_read: str, target: Path | None = None, uid: int = 65520) -> Ground:
    return survey(
        uid=uid,
        targets=() if target is None else (str(target),),
        environment={"HOME": str(home)},
        home_read=home_read,
    )


def test_toolchains_are_found_where_they_really_are(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".cargo/bin").mkdir(parents=True)
    (tmp_path / "big" / "nvm").mkdir(parents=True)
    (home / ".nvm").symlink_to(tmp_path / "big" / "nvm")
    (home / ".volta").touch()

    assert (str(home / ".cargo/bin"),) * 2 in look(home).toolchains
    assert (str(tmp_path / "big/nvm"), str(home / ".nvm")) in look(home).toolchains
    assert not any(".volta" in target for _, target in look(home).toolchains)


def test_secrets_are_found_where_they_really_are(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".netrc").touch()
    (tmp_path / "keys").mkdir()
    (home / ".gnupg").symlink_to(tmp_path / "keys")
    (home / ".aws").symlink_to(tmp_path / "gone")

    assert set(look(home).secrets) == {
        Secret(str(home / ".ssh"), True),
        Secret(str(home / ".netrc"), False),
        Secret(str(tmp_path / "keys"), True),
    }


def test_what_home_read_names_has_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()

    assert look(tmp_path, "tools").home_paths == ((str(tmp_path / "tools"),) * 2,)
    assert look(tmp_path, "~/tools").home_paths == look(tmp_path, "tools").home_paths
    with pytest.raises(JailError, match="does not exist"):
        look(tmp_path, "gone")


def test_the_topmost_ancestor_that_nobody_may_traverse_is_barred(tmp_path: Path) -> None:
    # pytest's own directories are barred themselves.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as public:
        Path(public).chmod(0o755)
        project = Path(public, "private", "deeper", "proj")
        project.mkdir(parents=True)
        project.parent.chmod(0o700)
        project.parent.parent.chmod(0o750)

        assert f"{public}/private" in look(tmp_path, target=project).barred
        assert f"{public}/private/deeper" not in look(tmp_path, target=project).barred


def test_for_oneself_nothing_is_barred(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir(mode=0o700)

    assert look(tmp_path, target=tmp_path / "private/proj", uid=os.getuid()).barred == ()


@pytest.mark.parametrize("home", ["/", "/no/such/home"])
def test_a_home_that_cannot_be_given_is_an_error(home: str) -> None:
    with pytest.raises(JailError, match="HOME"):
        look(Path(home))
