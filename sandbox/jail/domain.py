"""Enters a landlock domain (landlock(7))."""

from __future__ import annotations

import errno
import os
import stat

from sandbox import syscalls
from sandbox.jail.landlock import FILE_RIGHTS, Domain


def enter(domain: Domain) -> None:
    """Confines this thread, and what it starts, to `domain`. There is no way back.

    Needs no_new_privs or CAP_SYS_ADMIN. A process in a domain that handles any file right can mount
    nothing any more: it is the last step before execve(2).

    Raises OSError: a path of a rule that is not optional is not there, or this kernel's ABI knows
    less than `domain` handles (EINVAL, ENOPKG).
    """
    ruleset = syscalls.landlock_create_ruleset(domain.attributes)
    try:
        for rule in domain.rules:
            try:
                _add(ruleset, rule.path, int(rule.rights))
            except OSError as error:
                # EBADFD: a pipe or a socket, which no rule can be about, and none is needed for.
                # EACCES: what cannot be reached is of no use anyway.
                expected = (errno.ENOENT, errno.EBADFD, errno.EACCES)
                if not rule.optional or error.errno not in expected:
                    raise
        syscalls.landlock_restrict_self(ruleset)
    finally:
        os.close(ruleset)


def _add(ruleset: int, path: str | int, rights: int) -> None:
    if isinstance(path, int):
        syscalls.landlock_add_rule(ruleset, path, rights)
        return
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= int(FILE_RIGHTS)
        syscalls.landlock_add_rule(ruleset, fd, rights)
    finally:
        os.close(fd)
