"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
sprint_option = click.option(
    "--sprint", "sprint_id", metavar="ID", help="A sprint other than the last."
)
wait_flag = click.option(
    "--wait", "waits", is_flag=True, help="Wait until it is to be had, in line for the turn."
)
goal_option = click.option(
    "--goal", metavar="TEXT", help="The sprint of this goal; begun if need be."
)
graph_option = click.option(
    "--graph", metavar="FILE|JSON", help="Phases from here instead of nanosup.toml."
)


def _agent_name(_context: click.Context, _option: click.Parameter, value: str) -> str:
    # It is shown in terminals, and names the author of commits.
    if not value.strip() or not value.isprintable() or len(value) > 100:
        raise click.BadParameter("expected a name of at most 100 printable characters")
    return value


def _lease(_context: click.Context, _option: click.Parameter, value: float) -> float:
    if not 1 <= value <= _YEAR_S:  # NaN is neither
        raise click.BadParameter(f"expected seconds, from 1 to {_YEAR_S}")
    return value


_YEAR_S = 366 * 86400


def agent_option(**settings: Any) -> Callable[[Any], Any]:
    return click.option("--agent", metavar="NAME", callback=_agent_name, **settings)


lease_option = click.option(
    "--lease",
    "lease_s",
    metavar="SECONDS",
    type=float,
    default=3600,
    callback=_lease,
    help="How long the claim lasts without a sign of life.",
)
token_option = click.option("--token", metavar="T", required=True, help="What `claim` printed.")


def give_json(command: click.Command) -> None:
    """Gives `--json` to a command, and those below it, that print no state and so have none: with
    it their errors are JSON, too."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            give_json(below)
    elif not any("--json" in parameter.opts for parameter in command.params):
        option = click.Option(["--json"], is_flag=True, expose_value=False, help="Errors as JSON.")
        command.params.append(option)
