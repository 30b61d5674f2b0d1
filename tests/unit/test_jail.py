from __future__ import annotations

from dataclasses import replace

import pytest

from sandbox.errors import JailError
from sandbox.jail.feature import Features
from sandbox.jail.jail import (
    Bind,
    File,
    JailSpec,
    Mask,
    Symlink,
    bwrap_argv,
    bwrap_options,
    operations,
    places_of,
    shown_at,
)

HOST = Features(bwrap="/usr/bin/bwrap", seccomp=True, landlock_abi=7)
PLAIN = JailSpec(argv=("true",), cwd="/", uid=1000, gid=1000)


def has(options: list[str], *wanted: str) -> bool:
    """Whether `wanted` stands in `options`, in one piece."""
    return any(tuple(options[at : at + len(wanted)]) == wanted for at in range(len(options)))


@pytest.mark.parametrize(
    "wanted",
    [
        ("--unshare-user",),
        ("--unshare-pid",),
        ("--unshare-ipc",),
        ("--unshare-uts",),
        ("--unshare-cgroup",),
        ("--unshare-net",),
        ("--uid", "1000", "--gid", "1000"),
        ("--disable-userns",),
        ("--cap-drop", "ALL"),
        ("--new-session",),
        ("--die-with-parent",),
        ("--dev-bind", "/", "/"),
        ("--proc", "/proc"),
        ("--mqueue", "/dev/mqueue"),
        ("--clearenv",),
        ("--chdir", "/"),
    ],
)
def test_every_jail_has(wanted: tuple[str, ...]) -> None:
    assert has(bwrap_options(PLAIN), *wanted)


def test_the_hosts_network_is_kept_only_when_asked_for() -> None:
    assert "--unshare-net" not in bwrap_options(replace(PLAIN, host_network=True))


def test_a_lanes_own_terminal_stays_its_controlling_one() -> None:
    assert "--new-session" not in bwrap_options(replace(PLAIN, tty=True))


def test_the_environment_does_not_stand_on_the_command_line() -> None:
    spec = replace(PLAIN, env={"API_KEY": "hunter2"})

    assert has(bwrap_options(spec), "--setenv", "API_KEY", "hunter2")
    assert bwrap_argv(spec, HOST) == [
        "/usr/bin/bwrap",
        "--args",
        "3",
        "--",
        "/proc/self/fd/6",
        "true",
    ]


def test_parents_come_before_children_whatever_the_order_of_the_spec() -> None:
    spec = replace(
        PLAIN,
        binds=(Bind("/x", "/home/u/p/.git"), Bind("/y", "/home/u/p"), Bind("/z", "/home/u")),
        masks=(Mask("/home"), Mask("/home/u/p/secret")),
        files=(File("/home/u/file", b""),),
    )
    targets = [operation.target for operation in operations(spec)]

    for index, target in enumerate(targets):
        assert not any(target.startswith(later + "/") for later in targets[index:])


def test_a_bind_takes_the_place_of_a_mask_on_the_same_target() -> None:
    spec = replace(PLAIN, masks=(Mask("/root"),), binds=(Bind("/lane/home", "/root"),))

    assert operations(spec) == (Bind("/lane/home", "/root"),)


def test_two_things_at_one_target_are_an_error() -> None:
    spec = replace(PLAIN, binds=(Bind("/a", "/t"), Bind("/b", "/t")))

    with pytest.raises(JailError, match="two things would be mounted at /t"):
        operations(spec)


@pytest.mark.parametrize("path", ["relative", "/a/../b", "/a/", "/a//b", "/nul\0", ""])
def test_paths_that_are_not_canonical_are_an_error(path: str) -> None:
    with pytest.raises(JailError, match="canonical"):
        operations(replace(PLAIN, binds=(Bind("/a", path),)))
    with pytest.raises(JailError, match="canonical"):
        operations(replace(PLAIN, binds=(Bind(path, "/a"),)))


@pytest.mark.parametrize("name", ["", "A=B", "A\0"])
def test_names_that_cannot_be_variables_are_an_error(name: str) -> None:
    with pytest.raises(JailError, match="environment"):
        bwrap_options(replace(PLAIN, env={name: "x"}))


def test_a_command_is_needed() -> None:
    with pytest.raises(JailError, match="no command"):
        bwrap_argv(replace(PLAIN, argv=()), HOST)
    with pytest.raises(JailError, match="NUL"):
        bwrap_argv(replace(PLAIN, argv=("a\0b",)), HOST)


def test_what_is_shown_where() -> None:
    spec = replace(
        PLAIN,
        masks=(Mask("/home"),),
        binds=(Bind("/lane/home", "/home/u"), Bind("/home/u/.nvm", "/home/u/.nvm")),
        files=(File("/etc/passwd", b""),),
    )

    assert shown_at(spec, "/usr/bin") == "/usr/bin"
    assert shown_at(spec, "/home/other") is None
    assert shown_at(spec, "/home/u/x") == "/lane/home/x"
    assert shown_at(spec, "/home/u/.nvm/v20") == "/home/u/.nvm/v20"
    assert shown_at(spec, "/etc/passwd") is None
    assert shown_at(spec, "/proc/1") is None
    assert shown_at(spec, "/homely") == "/homely"


def test_a_host_path_is_found_wherever_it_can_be_seen() -> None:
    spec = replace(PLAIN, binds=(Bind("/data", "/mnt/data"), Bind("/elsewhere", "/data")))

    assert places_of(spec, ["/data/key", "/etc/key", "/proc/key"]) == {
        "/data/key": ("/mnt/data/key",),
        "/etc/key": ("/etc/key",),
        "/proc/key": (),
    }


def test_links_that_lead_back_to_themselves_show_nothing() -> None:
    spec = replace(PLAIN, symlinks=(Symlink("/a", "/b"), Symlink("/c", "c/d")))

    assert shown_at(spec, "/a/x") == "/b/x"
    assert shown_at(spec, "/c/x") is None


def test_relative_links_are_followed_from_where_they_are() -> None:
    spec = replace(PLAIN, symlinks=(Symlink("/run/link", "../usr/lib"),))

    assert shown_at(spec, "/run/link/x") == "/usr/lib/x"
