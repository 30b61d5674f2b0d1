"""Commands for agents that people start themselves; no daemon."""

from __future__ import annotations

import click

from supervisor.cli.option import (
    agent_option,
    goal_option,
    graph_option,
    json_flag,
    lease_option,
    sprint_option,
    token_option,
    wait_flag,
)
from supervisor.cli.root import cli


@cli.command("next")
@sprint_option
@json_flag
@click.option("--agent", metavar="NAME", help="Prefer phases that name this agent.")
@click.option("--wait", "waits", is_flag=True, help="Wait until there is one, or none to come.")
@graph_option
def next_(
    sprint_id: str | None, as_json: bool, agent: str | None, waits: bool, graph: str | None
) -> int:
    """Print the phase to pick up next, or nothing."""
    from supervisor.commands import next as command

    return command.run(sprint_id=sprint_id, as_json=as_json, agent=agent, waits=waits, graph=graph)


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("phase")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@sprint_option
@agent_option(default="run", help="Who it is done in the name of.")
@wait_flag
@goal_option
@graph_option
def run(
    phase: str,
    command: tuple[str, ...],
    sprint_id: str | None,
    agent: str,
    waits: bool,
    goal: str | None,
    graph: str | None,
) -> int:
    """Claim PHASE and run COMMAND in its lane, in the foreground: nanosup run PHASE -- COMMAND…"""
    from supervisor.commands import run as run_command

    return run_command.run(
        phase=phase,
        command=command,
        sprint_id=sprint_id,
        agent=agent,
        waits=waits,
        goal=goal,
        graph=graph,
    )


@cli.command()
@click.argument("phase")
@agent_option(required=True, help="Who claims it.")
@lease_option
@wait_flag
@sprint_option
@goal_option
@graph_option
@json_flag
def claim(
    phase: str,
    agent: str,
    lease_s: float,
    waits: bool,
    sprint_id: str | None,
    goal: str | None,
    graph: str | None,
    as_json: bool,
) -> int:
    """Claim PHASE by hand, and print the token that ends the claim."""
    from supervisor.commands import claim as command

    return command.run(
        phase=phase,
        agent=agent,
        lease_s=lease_s,
        waits=waits,
        sprint_id=sprint_id,
        goal=goal,
        graph=graph,
        as_json=as_json,
    )


@cli.command()
@token_option
@json_flag
def beat(token: str, as_json: bool) -> int:
    """Renew the lease of a claim."""
    from supervisor.commands import claim as command

    return command.beat(token=token, as_json=as_json)


@cli.command()
@click.argument("phase")
@token_option
@click.option("--artifact", "files", multiple=True, metavar="FILE", help="A file to hand on.")
@json_flag
def complete(phase: str, token: str, files: tuple[str, ...], as_json: bool) -> int:
    """End a claim of PHASE as completed."""
    from supervisor.commands import claim as command

    return command.complete(phase=phase, token=token, files=files, as_json=as_json)


@cli.command()
@click.argument("phase")
@token_option
@click.option("--reason", metavar="TEXT", default="", help="Why.")
@json_flag
def abort(phase: str, token: str, reason: str, as_json: bool) -> int:
    """Hand a claim of PHASE back."""
    from supervisor.commands import claim as command

    return command.abort(phase=phase, token=token, reason=reason, as_json=as_json)


@cli.command()
@click.argument("phase")
@sprint_option
@click.option("--force", is_flag=True, help="Take it from a living holder too.")
@json_flag
def unstuck(phase: str, sprint_id: str | None, force: bool, as_json: bool) -> int:
    """Free PHASE from a holder that is dead."""
    from supervisor.commands import unstuck as command

    return command.run(phase=phase, sprint_id=sprint_id, force=force, as_json=as_json)


@cli.command()
@graph_option
def batch(graph: str | None) -> int:
    """Print what may run at once, in order: a JSON object a line."""
    from supervisor.commands import batch as command

    return command.run(graph=graph)
