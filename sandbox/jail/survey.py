"""Looks at a host and finds out what of the exposure lists is really there."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable, Mapping

from sandbox.errors import JailError
from sandbox.jail.exposure import (
    KEPT_LINKS,
    MASKED,
    SECRETS,
    TOOLCHAINS,
    TOOLCHAINS_ELSEWHERE,
)
from sandbox.jail.view import Ground, Secret


def survey(
    *,
    uid: int,
    targets: Iterable[str],
    environment: Mapping[str, str],
    home_read: Iterable[str] = (),
    user_home: str | None = None,
) -> Ground:
    """The ground for lanes that run as `uid`.

    Attributes:
        targets: paths that a lane must be able to reach: the repository, object stores.
        environment: nanosup's own.
        home_read: paths below HOME that are shown in addition.
        user_home: None: $HOME, else what the password database says.

    Raises JailError where there is no HOME, or something in `home_read` does not exist.
    """
    home = os.path.realpath(user_home or environment.get("HOME") or _home_of(os.getuid()))
    if home == "/" or not os.path.isdir(home):
        raise JailError(
            f"HOME is {home}, which cannot be given to a lane",
            hint="set HOME to your home directory",
        )
    resolver, hosts = map(os.path.realpath, ("/etc/resolv.conf", "/etc/hosts"))
    return Ground(
        user_home=home,
        masks=tuple(path for path in MASKED if _is_plain_directory(path)),
        links=tuple((os.readlink(path), path) for path in KEPT_LINKS if os.path.islink(path)),
        toolchains=tuple(_toolchains(home)),
        home_paths=tuple(_home_paths(home, home_read)),
        secrets=tuple(_secrets(home)),
        sockets=tuple(_sockets()),
        barred=tuple(dict.fromkeys(_barred((home, *targets), uid))),
        passwd=_text("/etc/passwd"),
        group=_text("/etc/group"),
        user=_user(uid),
        resolv_conf=resolver if os.path.isfile(resolver) else None,
        hosts=hosts if os.path.isfile(hosts) else None,
        environment=dict(environment),
    )


def around(paths: Iterable[str], hidden: Iterable[str]) -> tuple[str, ...]:
    """`paths`, but where something hidden is below one, what is beside the way to it instead.

    For an allowlist, from which nothing can be taken back: a repository may be in /usr/src.
    """
    found: list[str] = []
    for path in paths:
        inner = [each for each in hidden if each == path or each.startswith(f"{path}/")]
        if not inner:
            found.append(path)
        elif path not in inner:
            try:
                names = sorted(os.listdir(path))
            except OSError:
                continue
            found += around([f"{path}/{name}" for name in names], inner)
    return tuple(found)


def _toolchains(home: str) -> Iterable[tuple[str, str]]:
    for path in (*(f"{home}/{name}" for name in TOOLCHAINS), *TOOLCHAINS_ELSEWHERE):
        real = os.path.realpath(path)
        if os.path.isdir(real):
            yield real, path


def _home_paths(home: str, home_read: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in home_read:
        path = os.path.normpath(os.path.join(home, name.removeprefix("~/")))
        real = os.path.realpath(path)
        if not os.path.exists(real):
            raise JailError(
                f"home_read names {path}, which does not exist",
                hint="take it out of the agent's home_read, or install what should be there",
            )
        yield real, path


def _secrets(home: str) -> Iterable[Secret]:
    for name in SECRETS:
        path = f"{home}/{name}"
        if os.path.lexists(path):
            # Both: a link may lead to a place that is visible, and its own place may be shown.
            real = os.path.realpath(path)
            if os.path.exists(real):
                yield Secret(real, os.path.isdir(real))


def _sockets() -> Iterable[str]:
    """Unix sockets of this network namespace that have a path which leads to them (proc(5))."""
    found = set()
    for line in _text("/proc/net/unix").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7].startswith("/"):
            found.add(os.path.realpath(fields[7]))
    for path in sorted(found):
        try:
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                yield path
        except OSError:  # removed, or of another mount namespace
            continue


def _barred(targets: Iterable[str], uid: int) -> Iterable[str]:
    """The topmost ancestor of each target that an uid which owns nothing cannot traverse."""
    if uid == os.getuid():
        return
    for target in targets:
        parts = target.split("/")[1:-1]
        for depth in range(len(parts)):
            ancestor = "/" + "/".join(parts[: depth + 1])
            try:
                mode = os.stat(ancestor).st_mode
            except OSError:
                break
            if not mode & stat.S_IXOTH:
                yield ancestor
                break


def _is_plain_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _home_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return "/"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""
