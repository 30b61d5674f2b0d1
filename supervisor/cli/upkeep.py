"""Commands that keep the board small."""

from __future__ import annotations

import click

from supervisor.cli.option import json_flag, sprint_option
from supervisor.cli.root import cli


@cli.command()
@click.argument("phase", required=False)
@click.option("--all", "everything", is_flag=True, help="Every sprint that nobody works on.")
@sprint_option
@json_flag
def ack(phase: str | None, everything: bool, sprint_id: str | None, as_json: bool) -> int:
    """Say that what a sprint, or PHASE of it, left is no longer needed."""
    if everything and (phase is not None or sprint_id is not None):
        raise click.UsageError("--all goes with neither PHASE nor --sprint")
    from supervisor.commands import ack as command

    return command.run(phase=phase, everything=everything, sprint_id=sprint_id, as_json=as_json)


@cli.command()
@click.option(
    "--older-than",
    "older_than_days",
    metavar="DAYS",
    type=click.FloatRange(min=0),
    default=7,
    help="Only what was acknowledged at least so long ago; 7.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option("--quarantine", is_flag=True, help="Put sprints that are damaged aside, whole.")
@json_flag
def clean(older_than_days: float, dry_run: bool, quarantine: bool, as_json: bool) -> int:
    """Remove what is acknowledged, old, and needed by nothing else."""
    from supervisor.commands import clean as command

    return command.run(
        older_than_days=older_than_days, dry_run=dry_run, quarantine=quarantine, as_json=as_json
    )
