"""The command line. Says what there is and hands over; the work is done in `commands/`.

Every command imports what it needs when it runs: an agent that asks `nanosup next` twice a minute
should not wait for a terminal library.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from sandbox.errors import SandboxError
from supervisor import __version__
from supervisor.errors import SupervisorError

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_sprint = click.option("--sprint", "sprint_id", metavar="ID", help="A sprint other than the last.")

_goal = click.option("--goal", metavar="TEXT", help="The sprint of this goal; begun if need be.")
_token = click.option("--token", metavar="T", required=True, help="What `claim` printed.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nanosup")
def cli() -> None:
    """Runs several AI coding agents on one repository: writers take exclusive turns, readers are
    physically unable to write."""


@cli.command()
@click.option("--agent", metavar="PRESET", help="Write it for this agent preset.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(agent: str | None, force: bool) -> int:
    """Write a commented nanosup.toml."""
    from supervisor.commands import init as command

    return command.run(agent=agent, force=force)


@cli.command()
@click.option("--goal", "goals", multiple=True, metavar="TEXT", help="What the sprint is for.")
@click.option("--agent", metavar="NAME", help="One agent, or preset, for every phase.")
@click.option("--graph", metavar="FILE|JSON", help="Phases from here instead of nanosup.toml.")
@click.option("--detach", is_flag=True, help="Run in the background.")
@click.option("--plain", is_flag=True, help="No live view: a line for each event.")
@_json
def up(
    goals: tuple[str, ...],
    agent: str | None,
    graph: str | None,
    detach: bool,
    plain: bool,
    as_json: bool,
) -> int:
    """Run the fleet: begin a sprint, or go on with one that was interrupted."""
    from supervisor.commands import up as command

    return command.run(
        goals=goals, agent=agent, graph=graph, detach=detach, plain=plain, as_json=as_json
    )


@cli.command()
@_sprint
@click.option("--now", is_flag=True, help="KILL at once instead of TERM and a grace.")
def down(sprint_id: str | None, now: bool) -> int:
    """End the running lanes, and the `nanosup up` that runs them."""
    from supervisor.commands import down as command

    return command.run(sprint_id=sprint_id, now=now)


@cli.command()
@_sprint
@_json
@click.option("--watch", is_flag=True, help="Go on showing until the sprint has ended.")
@click.option("--all", "everything", is_flag=True, help="Every sprint, not only the last.")
def status(sprint_id: str | None, as_json: bool, watch: bool, everything: bool) -> int:
    """Show how the phases stand."""
    from supervisor.commands import status as command

    return command.run(sprint_id=sprint_id, as_json=as_json, watch=watch, everything=everything)


@cli.command()
@click.argument("phase")
@_sprint
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
@_sprint
@_json
@click.option("-f", "--follow", is_flag=True, help="Go on until the sprint has ended.")
def events(sprint_id: str | None, as_json: bool, follow: bool) -> int:
    """Print what happened, in order."""
    from supervisor.commands import events as command

    return command.run(sprint_id=sprint_id, as_json=as_json, follow=follow)


@cli.command("next")
@_sprint
@_json
@click.option("--agent", metavar="NAME", help="Prefer phases that name this agent.")
def next_(sprint_id: str | None, as_json: bool, agent: str | None) -> int:
    """Print the phase to pick up next, or nothing."""
    from supervisor.commands import next as command

    return command.run(sprint_id=sprint_id, as_json=as_json, agent=agent)


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("phase")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_sprint
@click.option("--agent", metavar="NAME", default="run", help="Who it is done in the name of.")
@_goal
def run(
    phase: str, command: tuple[str, ...], sprint_id: str | None, agent: str, goal: str | None
) -> int:
    """Claim PHASE and run COMMAND in its lane, in the foreground: nanosup run PHASE -- COMMAND…"""
    from supervisor.commands import run as run_command

    return run_command.run(
        phase=phase, command=command, sprint_id=sprint_id, agent=agent, goal=goal
    )


@cli.command()
@click.argument("phase")
@click.option("--agent", metavar="NAME", required=True, help="Who claims it.")
@click.option("--lease", "lease_s", metavar="SECONDS", type=click.FloatRange(min=1), default=3600)
@_sprint
@_goal
@_json
def claim(
    phase: str,
    agent: str,
    lease_s: float,
    sprint_id: str | None,
    goal: str | None,
    as_json: bool,
) -> int:
    """Claim PHASE by hand, and print the token that ends the claim."""
    from supervisor.commands import claim as command

    return command.run(
        phase=phase,
        agent=agent,
        lease_s=lease_s,
        sprint_id=sprint_id,
        goal=goal,
        as_json=as_json,
    )


@cli.command()
@_token
def beat(token: str) -> int:
    """Renew the lease of a claim."""
    from supervisor.commands import claim as command

    return command.beat(token=token)


@cli.command()
@click.argument("phase")
@_token
@click.option("--artifact", "files", multiple=True, metavar="FILE", help="A file to hand on.")
def complete(phase: str, token: str, files: tuple[str, ...]) -> int:
    """End a claim of PHASE as completed."""
    from supervisor.commands import claim as command

    return command.complete(phase=phase, token=token, files=files)


@cli.command()
@click.argument("phase")
@_token
@click.option("--reason", metavar="TEXT", default="", help="Why.")
def abort(phase: str, token: str, reason: str) -> int:
    """Hand a claim of PHASE back."""
    from supervisor.commands import claim as command

    return command.abort(phase=phase, token=token, reason=reason)


@cli.command()
@click.argument("phase")
@_sprint
@click.option("--force", is_flag=True, help="Take it from a living holder too.")
def unstuck(phase: str, sprint_id: str | None, force: bool) -> int:
    """Free PHASE from a holder that is dead."""
    from supervisor.commands import unstuck as command

    return command.run(phase=phase, sprint_id=sprint_id, force=force)


@cli.command()
@click.option("--graph", metavar="FILE|JSON", help="Phases from here instead of nanosup.toml.")
def batch(graph: str | None) -> int:
    """Print what may run at once, in order: a JSON object a line."""
    from supervisor.commands import batch as command

    return command.run(graph=graph)


@cli.group()
def artifacts() -> None:
    """What phases handed on."""


@artifacts.command("list")
@_sprint
@_json
def artifacts_list(sprint_id: str | None, as_json: bool) -> int:
    """List them, with their digests."""
    from supervisor.commands import artifacts as command

    return command.list_(sprint_id=sprint_id, as_json=as_json)


@artifacts.command("show")
@click.argument("phase")
@click.argument("name", required=False)
@_sprint
def artifacts_show(phase: str, name: str | None, sprint_id: str | None) -> int:
    """Print one, verified."""
    from supervisor.commands import artifacts as command

    return command.show(phase=phase, name=name, sprint_id=sprint_id)


@artifacts.command("verify")
@_sprint
@_json
def artifacts_verify(sprint_id: str | None, as_json: bool) -> int:
    """Check all of them against their digests."""
    from supervisor.commands import artifacts as command

    return command.verify(sprint_id=sprint_id, as_json=as_json)


@artifacts.command("export")
@click.argument("directory", type=click.Path(file_okay=False))
@_sprint
def artifacts_export(directory: str, sprint_id: str | None) -> int:
    """Copy all of them, verified, to DIRECTORY/PHASE/NAME."""
    from supervisor.commands import artifacts as command

    return command.export(directory=directory, sprint_id=sprint_id)


@cli.command()
@click.argument("phase", required=False)
@_sprint
@_json
@click.option("--stat", is_flag=True, help="Only the list of files.")
def diff(phase: str | None, sprint_id: str | None, as_json: bool, stat: bool) -> int:
    """Show what a write phase, or the whole sprint, changed."""
    from supervisor.commands import diff as command

    return command.run(phase=phase, sprint_id=sprint_id, as_json=as_json, stat=stat)


@cli.command()
@_json
def doctor(as_json: bool) -> int:
    """Say what this host enforces, and what to do about the rest."""
    from supervisor.commands import doctor as command

    return command.run(as_json=as_json)


def main(argv: list[str] | None = None) -> None:
    """The entry point: runs a command and exits with its code. Errors are one line on stderr."""
    arguments = sys.argv[1:] if argv is None else argv
    code = _guarded(lambda: cli.main(args=arguments, standalone_mode=False), arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us has gone; what is left in the buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = code or 141
    sys.exit(code)


def _guarded(call: Callable[[], Any], arguments: list[str]) -> int:
    try:
        return int(call() or 0)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.UsageError as error:
        error.show()
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (SupervisorError, SandboxError) as error:
        _say(type(error).__name__, error.message, error.hint, error.exit_code, arguments)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message = f"{where}{error.strerror or error}"
        _say("OSError", message, "", 20, arguments)
        return 20
    except Exception as error:
        if os.environ.get("NANOSUP_DEBUG"):
            raise
        _say(
            "FaultError",
            f"a fault in nanosup itself: {type(error).__name__}: {error}",
            "NANOSUP_DEBUG=1 shows where; please report it",
            SupervisorError.exit_code,
            arguments,
        )
        return SupervisorError.exit_code


def _say(kind: str, message: str, hint: str, code: int, arguments: list[str]) -> None:
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--json" in own:
        document = {
            "error": kind.removesuffix("Error"), "message": message, "hint": hint, "exit": code
        }  # fmt: skip
        print(json.dumps(document, ensure_ascii=False), file=sys.stderr)
        return
    text = f"nanosup: {message}" + (f" → {hint}" if hint else "")
    print(" ".join(text.split()), file=sys.stderr)
