"""The command line. Says what there is and hands over; the work is done in `commands/`.

Every command imports what it needs when it runs: an agent that asks `nanosup next` twice a minute
should not wait for a terminal library.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from sandbox.errors import SandboxError
from supervisor.cli import control, hand, host, result, sprint, upkeep
from supervisor.cli.option import give_json
from supervisor.cli.root import cli
from supervisor.errors import SupervisorError

__all__ = ["cli", "control", "hand", "host", "main", "result", "sprint", "upkeep"]


give_json(cli)
# Modules make many objects, and they all stay: the collector need not look at them in between.
gc.set_threshold(50_000)


# click 8.2 and later; before, it shows the help itself.
_NO_ARGUMENTS: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


def main(argv: list[str] | None = None) -> None:
    """The entry point: runs a command and exits with its code. Errors are one line on stderr."""
    arguments = sys.argv[1:] if argv is None else argv
    _open_standard()
    code = _guarded(lambda: cli.main(args=arguments, standalone_mode=False), arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us has gone; what is left in the buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = code or 141
    sys.exit(code)


def _open_standard() -> None:
    """Gives this process what its caller has closed (`>&-`): else the next file that it opens is
    what is printed to."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _guarded(call: Callable[[], Any], arguments: list[str]) -> int:
    try:
        return int(call() or 0)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except _NO_ARGUMENTS as error:
        error.show()
        return 2
    except click.ClickException as error:
        command = (
            error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
        )
        hint = f"see `{command} --help`" if command else ""
        kind = "Usage" if isinstance(error, click.UsageError) else type(error).__name__
        _say(kind, error.format_message().rstrip("."), hint, error.exit_code, arguments)
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
