"""Commands about this host and this repository: `init`, `doctor`, `redteam`."""

from __future__ import annotations

import click

from supervisor.cli.option import json_flag
from supervisor.cli.root import cli


@cli.command()
@click.option("--agent", metavar="PRESET", help="Write it for this agent preset.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(agent: str | None, force: bool) -> int:
    """Write a commented nanosup.toml."""
    from supervisor.commands import init as command

    return command.run(agent=agent, force=force)


@cli.command()
@json_flag
def doctor(as_json: bool) -> int:
    """Say what this host enforces, and what to do about the rest."""
    from supervisor.commands import doctor as command

    return command.run(as_json=as_json)


@cli.command()
@json_flag
@click.option("--tier", type=click.Choice(["fuse", "kernel", "landlock"]), help="Only this one.")
@click.option("--control", is_flag=True, help="Also run the harmless ones with no protection.")
def redteam(as_json: bool, tier: str | None, control: bool) -> int:
    """Try to break out of lanes on this host, and report what stopped each attempt."""
    from supervisor.commands import redteam as command

    return command.run(as_json=as_json, only=tier, control=control)
