"""Commands that steer a sprint while it runs."""

from __future__ import annotations

import click

from supervisor.cli.option import json_flag, sprint_option
from supervisor.cli.root import cli


@cli.command()
@sprint_option
@click.option("--now", is_flag=True, help="KILL at once instead of TERM and a grace.")
def down(sprint_id: str | None, now: bool) -> int:
    """End the running lanes, and the `nanosup up` that runs them."""
    from supervisor.commands import down as command

    return command.run(sprint_id=sprint_id, now=now)


@cli.command()
@click.argument("phase")
@click.option("--agent", metavar="NAME", help="Who takes the next attempt.")
@sprint_option
@json_flag
def restart(phase: str, agent: str | None, sprint_id: str | None, as_json: bool) -> int:
    """End what runs of PHASE, if anything does, and let it begin anew."""
    from supervisor.commands import restart as command

    return command.run(phase=phase, agent=agent, sprint_id=sprint_id, as_json=as_json)


@cli.command()
@click.argument("phase", required=False)
@click.option("--all", "everything", is_flag=True, help="Every phase (as without PHASE).")
@sprint_option
@json_flag
def pause(phase: str | None, everything: bool, sprint_id: str | None, as_json: bool) -> int:
    """Let a phase, or the whole sprint, stand still."""
    return _pause(phase, everything, sprint_id, as_json, paused=True)


@cli.command()
@click.argument("phase", required=False)
@click.option("--all", "everything", is_flag=True, help="Every phase (as without PHASE).")
@sprint_option
@json_flag
def resume(phase: str | None, everything: bool, sprint_id: str | None, as_json: bool) -> int:
    """Let what was paused go on."""
    return _pause(phase, everything, sprint_id, as_json, paused=False)


@cli.command()
@click.option("--restart", is_flag=True, help="Phases that run and were changed begin anew.")
@click.option("--check", is_flag=True, help="Only say what would change.")
@click.option("--agent", metavar="NAME", help="As for `up`: one agent, or preset, for every phase.")
@click.option("--graph", metavar="FILE|JSON", help="As for `up`: phases from here.")
@sprint_option
@json_flag
def reload(
    restart: bool,
    check: bool,
    agent: str | None,
    graph: str | None,
    sprint_id: str | None,
    as_json: bool,
) -> int:
    """Let an edited nanosup.toml take hold in the sprint that runs."""
    from supervisor.commands import reload as command

    return command.run(
        sprint_id=sprint_id,
        agent=agent,
        graph=graph,
        restart=restart,
        check=check,
        as_json=as_json,
    )


def _pause(
    phase: str | None, everything: bool, sprint_id: str | None, as_json: bool, *, paused: bool
) -> int:
    if phase is not None and everything:
        raise click.UsageError("Name a PHASE, or give --all, not both.")
    from supervisor.commands import pause as command

    return command.run(phase=phase, sprint_id=sprint_id, as_json=as_json, paused=paused)
