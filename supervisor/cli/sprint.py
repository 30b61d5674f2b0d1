"""Commands that run sprints and show them."""

from __future__ import annotations

import click

from supervisor.cli.option import graph_option, json_flag, sprint_option
from supervisor.cli.root import cli


@cli.command()
@click.option("--goal", "goals", multiple=True, metavar="TEXT", help="What the sprint is for.")
@click.option("--agent", metavar="NAME", help="One agent, or preset, for every phase.")
@graph_option
@click.option(
    "--stack/--no-stack",
    default=None,
    help="Base the sprint on what the one before it builds. Default: as nanosup.toml says.",
)
@click.option("--detach", is_flag=True, help="Run in the background.")
@click.option("--plain", is_flag=True, help="No live view: a line for each event.")
@json_flag
def up(
    goals: tuple[str, ...],
    agent: str | None,
    graph: str | None,
    stack: bool | None,
    detach: bool,
    plain: bool,
    as_json: bool,
) -> int:
    """Run the fleet: begin a sprint, or go on with one that was interrupted."""
    from supervisor.commands import up as command
    from supervisor.fleet.ask import Ask

    return command.run(
        Ask(
            goals=goals,
            agent=agent,
            graph=graph,
            stack=stack,
            detach=detach,
            plain=plain,
            as_json=as_json,
        )
    )


@cli.command()
@sprint_option
@json_flag
@click.option("--watch", is_flag=True, help="Go on showing until the sprint has ended.")
@click.option("--all", "everything", is_flag=True, help="Every sprint, not only the last.")
def status(sprint_id: str | None, as_json: bool, watch: bool, everything: bool) -> int:
    """Show how the phases stand."""
    from supervisor.commands import status as command

    return command.run(sprint_id=sprint_id, as_json=as_json, watch=watch, everything=everything)


@cli.command()
@click.argument("phase")
@sprint_option
@click.option("-f", "--follow", is_flag=True, help="Go on as the agent prints.")
@click.option("--attempt", type=int, metavar="N", help="An attempt other than the last.")
@click.option("--raw", is_flag=True, help="Byte for byte, terminal escapes included.")
@click.option("--stderr", "which", flag_value="stderr", help="Only what went to stderr.")
@click.option("--stdout", "which", flag_value="stdout", help="Only what went to stdout.")
def logs(
    phase: str,
    sprint_id: str | None,
    follow: bool,
    attempt: int | None,
    raw: bool,
    which: str | None,
) -> int:
    """Print what the agent of a phase printed."""
    from supervisor.commands import logs as command

    return command.run(
        phase=phase, sprint_id=sprint_id, follow=follow, attempt=attempt, raw=raw, which=which
    )


@cli.command()
@sprint_option
@json_flag
@click.option("-f", "--follow", is_flag=True, help="Go on until the sprint has ended.")
def events(sprint_id: str | None, as_json: bool, follow: bool) -> int:
    """Print what happened, in order."""
    from supervisor.commands import events as command

    return command.run(sprint_id=sprint_id, as_json=as_json, follow=follow)
