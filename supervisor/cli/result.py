"""Commands about what came out."""

from __future__ import annotations

import click

from supervisor.cli.option import json_flag, sprint_option
from supervisor.cli.root import cli


@cli.group()
def artifacts() -> None:
    """What phases handed on."""


@artifacts.command("list")
@sprint_option
@json_flag
@click.option("--all", "everything", is_flag=True, help="Of earlier rounds too.")
def artifacts_list(sprint_id: str | None, as_json: bool, everything: bool) -> int:
    """List them, with their digests."""
    from supervisor.commands import artifacts as command

    return command.list_(sprint_id=sprint_id, everything=everything, as_json=as_json)


@artifacts.command("show")
@click.argument("phase")
@click.argument("name", required=False)
@sprint_option
@click.option("--attempt", type=int, metavar="N", help="An attempt other than the last completed.")
def artifacts_show(phase: str, name: str | None, sprint_id: str | None, attempt: int | None) -> int:
    """Print one, verified."""
    from supervisor.commands import artifacts as command

    return command.show(phase=phase, name=name, attempt=attempt, sprint_id=sprint_id)


@artifacts.command("verify")
@sprint_option
@json_flag
def artifacts_verify(sprint_id: str | None, as_json: bool) -> int:
    """Check all of them against their digests."""
    from supervisor.commands import artifacts as command

    return command.verify(sprint_id=sprint_id, as_json=as_json)


@artifacts.command("export")
@click.argument("directory", type=click.Path(file_okay=False))
@sprint_option
def artifacts_export(directory: str, sprint_id: str | None) -> int:
    """Copy all of them, verified, to DIRECTORY/PHASE/NAME."""
    from supervisor.commands import artifacts as command

    return command.export(directory=directory, sprint_id=sprint_id)


@cli.command()
@click.argument("phase", required=False)
@sprint_option
@json_flag
@click.option("--stat", is_flag=True, help="Only the list of files.")
def diff(phase: str | None, sprint_id: str | None, as_json: bool, stat: bool) -> int:
    """Show what a write phase, or the whole sprint, changed."""
    from supervisor.commands import diff as command

    return command.run(phase=phase, sprint_id=sprint_id, as_json=as_json, stat=stat)


@cli.command()
@sprint_option
@json_flag
@click.option("--branch", metavar="B", help="The branch; nanosup/SPRINT without it.")
def ship(sprint_id: str | None, as_json: bool, branch: str | None) -> int:
    """Make or fast-forward a branch at what every gate has passed."""
    from supervisor.commands import ship as command

    return command.run(branch=branch, sprint_id=sprint_id, as_json=as_json)
