"""The documentation names what exists, and only that."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sandbox.errors import SandboxError
from supervisor.cli import cli
from supervisor.errors import SupervisorError

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COMMANDS = DOCS / "commands"
PAGE_OF_CODES = COMMANDS / "exit-codes.md"
LINK = re.compile(r"\[[^]]+\]\(([^)#\s]+)(?:#[^)]*)?\)")


def error_classes(root: type) -> Iterator[type]:
    for error in root.__subclasses__():
        yield error
        yield from error_classes(error)


def options_of(command: click.Command) -> Iterator[str]:
    if isinstance(command, click.Group):
        for part in command.commands.values():
            yield from options_of(part)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield max(parameter.opts, key=len)


ERRORS = [*error_classes(SandboxError), *error_classes(SupervisorError)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_class_has_its_exit_code_in_the_docs(error: type) -> None:
    codes = re.findall(r"^\| (\d+) \|", PAGE_OF_CODES.read_text(), re.MULTILINE)

    assert str(error.exit_code) in codes


def test_no_two_kinds_of_error_share_an_exit_code() -> None:
    # A subclass may be more exact about the same thing, and then ends with the same code.
    roots = [error for error in ERRORS if error.__base__ in (SandboxError, SupervisorError)]
    codes = [error.exit_code for error in roots]

    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.name
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = [link for link in LINK.findall(page.read_text()) if "://" not in link]

    assert [link for link in targets if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_a_page_that_names_its_options(name: str) -> None:
    page = (COMMANDS / f"{name}.md").read_text()

    assert page.startswith(f"# nanosup {name}\n")
    assert [option for option in options_of(cli.commands[name]) if option not in page] == []


def test_every_page_is_about_a_command_and_is_listed() -> None:
    pages = {page.stem for page in COMMANDS.glob("*.md")} - {"README", "exit-codes"}
    listed = set(re.findall(r"\]\((\w+)\.md\)", (COMMANDS / "README.md").read_text()))

    assert pages == set(cli.commands)
    assert pages <= listed
