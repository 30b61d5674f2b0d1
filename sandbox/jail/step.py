"""System calls by name, as steps of the programs of `elf`. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from sandbox.jail.elf import Call, Constant, Put, Slot, Step, Value
from sandbox.jail.landlock import Domain

# name → number on x86_64, on aarch64 (asm/unistd.h)
_NUMBERS = {
    "capset": (126, 91),
    "chdir": (80, 49),
    "clone": (56, 220),
    "close_range": (436, 436),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "keyctl": (250, 219),
    "landlock_add_rule": (445, 445),
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
    "mount": (165, 40),
    "openat": (257, 56),
    "ppoll": (271, 73),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "read": (0, 63),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "seccomp": (317, 277),
    "sendmsg": (46, 211),
    "setgroups": (116, 159),
    "setns": (308, 268),
    "setpgid": (109, 154),
    "setresgid": (119, 149),
    "setresuid": (117, 147),
    "setsid": (112, 157),
    "umask": (95, 166),
    "write": (1, 64),
}

AT_FDCWD = -100
_O_PATH_CLOEXEC = 0x20_0000 | 0x8_0000
_F_SETFD, _FD_CLOEXEC = 2, 1
_LANDLOCK_RULE_PATH_BENEATH = 1


def number(machine: str, name: str) -> int:
    """Of a system call on a machine of elf.MACHINES."""
    return _NUMBERS[name][0 if machine == "x86_64" else 1]


def call(
    machine: str,
    name: str,
    *arguments: Value,
    into: int | None = None,
    may_fail: bool = False,
    last: int | None = None,
) -> Call:
    return Call(number(machine, name), arguments, into, may_fail, last)


def close_on_exec(machine: str, fd: int) -> tuple[str, Step]:
    """Has the program that comes next not get a descriptor; with the step's name."""
    return "close-on-exec", call(machine, "fcntl", fd, _F_SETFD, _FD_CLOEXEC)


def encoded(path: str) -> bytes:
    """As os.fsencode does where the file system's encoding is UTF-8."""
    return path.encode(errors="surrogateescape")


def text(path: str) -> Constant:
    """The address of a string that ends with a zero byte."""
    return Constant(encoded(path) + b"\0")


def landlock(domain: Domain, machine: str) -> Iterable[tuple[str, Step]]:
    """Enters a domain of landlock; each step with its name. Needs no_new_privs. Uses slots 0–2."""
    ruleset, rights, fd = 0, 1, 2  # the last two are a struct landlock_path_beneath_attr
    attributes = (Constant(domain.attributes), len(domain.attributes), 0)
    yield "landlock", call(machine, "landlock_create_ruleset", *attributes, into=ruleset)
    for rule in domain.rules:
        name, may_fail = f"landlock: {rule.path}", rule.optional
        if isinstance(rule.path, int):
            yield name, Put(fd, rule.path)
        else:
            place = (AT_FDCWD, text(rule.path), _O_PATH_CLOEXEC)
            yield name, call(machine, "openat", *place, into=fd, may_fail=may_fail)
        yield name, Put(rights, int(rule.rights))
        what = (Slot(ruleset), _LANDLOCK_RULE_PATH_BENEATH, Slot(rights, address=True), 0)
        yield name, call(machine, "landlock_add_rule", *what, may_fail=may_fail)
    yield "landlock", call(machine, "landlock_restrict_self", Slot(ruleset), 0)
