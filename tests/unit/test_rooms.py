"""Who may know what (docs/design.md, rooms), where import-linter cannot say it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted([*(ROOT / "sandbox").glob("**/*.py"), *(ROOT / "supervisor").glob("**/*.py")])
WORDS_NOT_FOR_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}

LONG_FOR_A_REASON: dict[str, int] = {}


def imports(path: Path) -> set[str]:
    """Every module that `path` imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def uses_of_os(path: Path) -> list[ast.Attribute]:
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    ]


def users_of(package: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in MODULES
        if any(name.split(".")[0] == package for name in imports(path))
    }


def strings(path: Path) -> set[str]:
    """Every string constant of `path` that is not a docstring."""
    tree = ast.parse(path.read_text())
    docs = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    }


def test_rich_is_known_to_at_most_two_modules() -> None:
    assert len(users_of("rich")) <= 2


def test_flags_of_bubblewrap_are_known_to_one_module() -> None:
    flags = {"--ro-bind", "--unshare-pid", "--die-with-parent", "--disable-userns", "--new-session"}

    knowing = {str(p.relative_to(ROOT)) for p in MODULES if strings(p) & flags}

    assert knowing <= {"sandbox/jail/jail.py"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_modules_have_names_that_say_something(path: Path) -> None:
    assert path.stem not in WORDS_NOT_FOR_NAMES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_modules_are_short_enough_to_be_read(path: Path) -> None:
    limit = LONG_FOR_A_REASON.get(str(path.relative_to(ROOT)), 420)

    assert len(path.read_text().splitlines()) <= limit


@pytest.mark.parametrize("name", ["tiers/confinement", "jail/entry", "jail/jail", "jail/view"])
def test_what_decides_about_the_jail_knows_paths_but_no_files(name: str) -> None:
    path = ROOT / "sandbox" / f"{name}.py"

    assert "os" not in imports(path)
    assert {node.attr for node in uses_of_os(path)} == {"path"}
