"""What the host's own git configuration says about ignoring and converting files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pygit2

from sandbox.git import gitattribute, ignore
from sandbox.repository.repository import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Values only; nothing that names a program.

    Attributes:
        ignored: info/exclude, then core.excludesFile, the stronger first.
        top, bottom: info/attributes, and core.attributesFile.
        autocrlf: CRLF becomes LF when files are added.
        file_mode, symlinks: the working tree's file system has executable bits, symbolic links.
    """

    ignored: tuple[ignore.Rule, ...] = ()
    top: tuple[gitattribute.Line, ...] = ()
    bottom: tuple[gitattribute.Line, ...] = ()
    autocrlf: bool = False
    file_mode: bool = True
    symlinks: bool = True


def _text(config: pygit2.Config, key: str) -> str | None:
    try:
        return str(config[key])
    except (KeyError, UnicodeDecodeError, pygit2.GitError):
        return None


def _flag(config: pygit2.Config, key: str, default: bool) -> bool:
    try:
        return bool(config.get_bool(key))
    except (KeyError, ValueError, pygit2.GitError):
        return default


def _named_file(config: pygit2.Config, key: str, default: str) -> bytes:
    name = _text(config, key)
    if name is None:
        base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        name = os.path.join(base, "git", default)
    return _content(Path(os.path.expanduser(name)))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:
        return b""


def read_setting(repo: Repository) -> Setting:
    """Reads the configuration of the repository, the user and the system."""
    config = repo.open().config
    info = repo.common_dir / "info"
    autocrlf = _text(config, "core.autocrlf") or ""
    return Setting(
        ignored=(
            *ignore.parse(_content(info / "exclude")),
            *ignore.parse(_named_file(config, "core.excludesFile", "ignore")),
        ),
        top=gitattribute.parse(_content(info / "attributes"), macros=True),
        bottom=gitattribute.parse(
            _named_file(config, "core.attributesFile", "attributes"), macros=True
        ),
        autocrlf=autocrlf.lower() == "input" or _flag(config, "core.autocrlf", False),
        file_mode=_flag(config, "core.fileMode", True),
        symlinks=_flag(config, "core.symlinks", True),
    )
