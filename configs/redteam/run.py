"""Runs all attempts that are for this lane, each in a process of its own, and prints the results.

`run.py FACTS read|write|net [control-any|control-root] [ONLY]`: JSON objects. FACTS is JSON;
ONLY is the name of an attempt, or `not:` and a guard whose attempts are left out.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys

import git
import host
import limit
import network
import process
import proxy
import view
from base import ANY, ATTEMPTS, ROOT, Attempt, Context, Stopped, context

LIMIT_S = 8.0
__all__ = ["git", "host", "limit", "network", "process", "proxy", "view"]


def judged(attempt: Attempt, given: Context) -> dict[str, str]:
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receive)
        os.setpgid(0, 0)
        _act(attempt, given, send)
    os.close(send)
    ready, _, _ = select.select([receive], [], [], LIMIT_S)
    said = os.read(receive, 65536).decode(errors="replace") if ready else ""
    os.close(receive)
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass
    _, status = os.waitpid(pid, 0)
    if not said:
        ended = os.waitstatus_to_exitcode(status)
        why = "no answer in time" if not ready else f"killed by signal {-ended}"
        return {"result": "stopped", "by": why}
    return dict(json.loads(said))


def _act(attempt: Attempt, given: Context, send: int) -> None:
    try:
        answer = {"result": "escaped", "by": attempt.act(given)}
    except Stopped as stopped:
        answer = {"result": "stopped", "by": str(stopped)}
    except OSError as error:
        import errno

        name = errno.errorcode.get(error.errno or 0, "")
        answer = {
            "result": "stopped",
            "by": f"{name} {os.strerror(error.errno)}" if name else str(error),
        }
    except Exception as error:
        answer = {"result": "broken", "by": f"{type(error).__name__}: {error}"}
    os.write(send, json.dumps(answer).encode())
    os._exit(0)


def left_open() -> list[str]:
    """What the descriptors are that this process was started with, beyond the first three."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2:
                found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:  # the listing's own
            continue
    return found


def main() -> int:
    facts, access, *rest = sys.argv[1:]
    control = rest[0] if rest and rest[0].startswith("control-") else ""
    given = context(facts, access, bool(control))
    given.facts["left_open"] = left_open()
    allowed = {"": None, "control-any": {ANY}, "control-root": {ANY, ROOT}}[control]
    only = rest[1] if len(rest) > 1 else ""
    chosen = []
    for attempt in ATTEMPTS:
        if only not in ("", attempt.name) and not only.startswith("not:"):
            continue
        if only == f"not:{attempt.guard}":
            continue
        if access in attempt.lanes and (allowed is None or attempt.control in allowed):
            chosen.append(attempt)
    # Those last that the lane may be ended for; and what is to come is said, so that it is missed.
    chosen.sort(key=lambda attempt: attempt.guard == "limits")
    print(json.dumps({"plan": [[attempt.name, attempt.guard] for attempt in chosen]}), flush=True)
    for attempt in chosen:
        found = judged(attempt, given)
        line = {"attempt": attempt.name, "guard": attempt.guard, **found}
        print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
