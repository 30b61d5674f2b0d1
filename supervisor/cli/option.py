"""Options that several commands have."""

from __future__ import annotations

import click

json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
sprint_option = click.option(
    "--sprint", "sprint_id", metavar="ID", help="A sprint other than the last."
)
goal_option = click.option(
    "--goal", metavar="TEXT", help="The sprint of this goal; begun if need be."
)
graph_option = click.option(
    "--graph", metavar="FILE|JSON", help="Phases from here instead of nanosup.toml."
)
token_option = click.option("--token", metavar="T", required=True, help="What `claim` printed.")
