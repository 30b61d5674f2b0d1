"""The group that every command belongs to."""

from __future__ import annotations

import click

from supervisor import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nanosup")
def cli() -> None:
    """Runs several AI coding agents on one repository: writers take exclusive turns, readers are
    physically unable to write."""
