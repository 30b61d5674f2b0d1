"""Using up what a lane is given, and then what the host has. Everything taken is given back."""

from __future__ import annotations

import os
import signal
import tempfile
import time

from base import NEVER, READ, Context, Stopped, attempt


@attempt("processes without end", "limits", control=NEVER)
def processes(context: Context) -> str:
    made: list[int] = []
    try:
        while len(made) < context.limit_processes * 2:
            pid = os.fork()
            if pid == 0:
                signal.pause()
            made.append(pid)
    except OSError as error:
        raise Stopped(f"{error.strerror}, after {len(made)}") from None
    finally:
        for pid in made:
            os.kill(pid, signal.SIGKILL)
        for pid in made:
            os.waitpid(pid, 0)
    return f"{len(made)} processes"


@attempt("descriptors without end", "limits", control=NEVER)
def descriptors(context: Context) -> str:
    opened: list[int] = []
    try:
        while len(opened) < context.limit_files * 2:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        raise Stopped(f"{error.strerror}, after {len(opened)}") from None
    finally:
        for fd in opened:
            os.close(fd)
    return f"{len(opened)} descriptors"


@attempt("memory without end", "limits", control=NEVER)
def memory(context: Context) -> str:
    taken = []
    try:
        while len(taken) < context.limit_memory_mib * 2 // 16:
            taken.append(bytearray(os.urandom(1 << 12)) * (1 << 12))
    except MemoryError:
        raise Stopped(f"no more, after {len(taken) * 16} MiB") from None
    return f"{len(taken) * 16} MiB"


@attempt("a file without end", "limits", lanes=(READ,), control=NEVER)
def disk(context: Context) -> str:
    """In its /tmp. Who counts all of a lane together looks every few seconds, and may end it."""
    block = bytes(1 << 20)
    with tempfile.NamedTemporaryFile() as file:
        try:
            for _ in range(context.limit_disk_mib * 2):
                file.write(block)
                file.flush()
        except OSError as error:
            size = os.fstat(file.fileno()).st_size >> 20
            raise Stopped(f"{error.strerror}, after {size} MiB") from None
        size = os.fstat(file.fileno()).st_size >> 20
    return f"{size} MiB"


@attempt("processor time of others, by a real-time priority", "limits", control=NEVER)
def realtime(context: Context) -> str:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    time.sleep(0)
    return "has it"
