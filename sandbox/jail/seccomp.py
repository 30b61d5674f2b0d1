"""The filter of system calls in a lane, as a classic BPF program (seccomp(2), bpf(4)). Pure.

What is denied has no place in building, testing or editing software, and is where kernels break:
namespaces, mounts, other processes' memory, keyrings, io_uring, modules. The rest is allowed, but
nothing that is newer than this list: a system call that nobody here has heard of is answered with
ENOSYS, on which every libc falls back.

The order of rules costs nothing: since Linux 5.11 the kernel remembers which numbers a filter
always allows.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache

# linux/audit.h
_ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
MACHINES = frozenset(_ARCHITECTURES)

# file_setattr(2), Linux 6.17. The x32 calls (bit 30) are above as well.
_NEWEST = 469

# linux/seccomp.h
KILL_PROCESS = 0x8000_0000
ALLOW = 0x7FFF_0000
USER_NOTIF = 0x7FC0_0000
_ERRNO = 0x0005_0000

# offsets in struct seccomp_data
_NR, _ARCH, _ARGS = 0, 4, 16

# linux/bpf_common.h
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_GREATER = 0x25  # BPF_JMP | BPF_JGT | BPF_K
_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_INSTRUCTION = struct.Struct("=HBBI")

# linux/sched.h: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. NEWTIME shares its bit
# with clone's exit signal, and only unshare takes it.
_NEW_NAMESPACES = 0x7E02_0000
_NEW_TIME = 0x80

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_TIOCSTI, _TIOCLINUX, _TIOCSETD = 0x5412, 0x541C, 0x5423
_F_SETLEASE = 1024

# linux/personality.h: PER_LINUX and PER_LINUX32, each plain, with UNAME26, with ADDR_NO_RANDOMIZE.
_PERSONALITIES = (0x0, 0x2_0000, 0x4_0000, 0x8, 0x2_0008, 0x4_0008)
_QUERY = 0xFFFF_FFFF


class Match(Enum):
    """When a rule about an argument denies. Arguments are compared by their lower 32 bits: all that
    the kernel looks at for these, so that bits above cannot be used to slip through
    (CVE-2019-10063).
    """

    ANY_BIT = "has any bit of"
    ONE_OF = "is one of"
    NONE_OF = "is none of"


@dataclass(frozen=True, slots=True)
class Rule:
    """Denies `name`, always or by its argument `argument`."""

    name: str
    error: int = errno.EPERM
    argument: int = 0
    match: Match | None = None
    values: tuple[int, ...] = ()


# name → number on x86_64, on aarch64 (asm/unistd.h); None: not there.
NUMBERS: Mapping[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "create_module": (174, None),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "fcntl": (72, 25),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioctl": (16, 29),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "socket": (41, 198),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}

_BY_ARGUMENT = (
    Rule("clone", match=Match.ANY_BIT, values=(_NEW_NAMESPACES,)),
    Rule("unshare", match=Match.ANY_BIT, values=(_NEW_NAMESPACES | _NEW_TIME,)),
    # Its flags are behind a pointer, where no filter can look; libc then uses clone.
    Rule("clone3", error=errno.ENOSYS),
    Rule("ioctl", argument=1, match=Match.ONE_OF, values=(_TIOCSTI, _TIOCLINUX, _TIOCSETD)),
    # Whoever opens a leased file for writing waits for 45 s (fcntl(2)): of an ordinary user a lane
    # may lease what it only sees, a shared node_modules say, and hold up the host.
    Rule("fcntl", argument=1, match=Match.ONE_OF, values=(_F_SETLEASE,)),
    # setarch, and sanitizers that start again without address randomisation.
    Rule(
        "personality",
        match=Match.NONE_OF,
        values=(*_PERSONALITIES, _QUERY),
    ),
    # Others are rarely tested kernel code, and vsock reaches the hypervisor past any namespace.
    Rule(
        "socket",
        error=errno.EAFNOSUPPORT,
        match=Match.NONE_OF,
        values=(_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK),
    ),
)

RULES: tuple[Rule, ...] = (
    *_BY_ARGUMENT,
    *(Rule(name) for name in NUMBERS if name not in {rule.name for rule in _BY_ARGUMENT}),
)


def number_of(name: str, machine: str) -> int | None:
    """The number of a system call in NUMBERS on `machine`."""
    return NUMBERS[name][0 if machine == "x86_64" else 1]


ALLOW_ALL = _INSTRUCTION.pack(_RETURN, 0, 0, ALLOW)


@cache
def names(machine: str) -> Mapping[int, str]:
    """Number → name of all that there is a rule for."""
    numbers = ((number_of(name, machine), name) for name in NUMBERS)
    return {number: name for number, name in numbers if number is not None}


@cache
def assemble(machine: str, *, notify: bool = False) -> bytes:
    """The program for `machine` (a key of MACHINES), as an array of struct sock_filter.

    Attributes:
        notify: what is denied by EPERM is told to a listener, who has to answer that.
    """
    program = [
        _instruction(_LOAD, _ARCH),
        # 32-bit programs of x86_64 come with other numbers for everything.
        _instruction(_EQUAL, _ARCHITECTURES[machine], then=1),
        _instruction(_RETURN, KILL_PROCESS),
        _instruction(_LOAD, _NR),
        _instruction(_GREATER, _NEWEST, otherwise=1),
        _instruction(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    for rule in RULES:
        number = number_of(rule.name, machine)
        if number is not None:
            told = notify and rule.error == errno.EPERM
            block = _block(rule, USER_NOTIF if told else _ERRNO | rule.error)
            program += [_instruction(_EQUAL, number, otherwise=len(block)), *block]
    return b"".join([*program, _instruction(_RETURN, ALLOW)])


def _block(rule: Rule, denied: int) -> list[bytes]:
    """What is done once the number has matched. Always returns."""
    deny, allow = _instruction(_RETURN, denied), _instruction(_RETURN, ALLOW)
    if rule.match is None:
        return [deny]
    jump = _ANY_BIT if rule.match is Match.ANY_BIT else _EQUAL
    on_match, at_end = (allow, deny) if rule.match is Match.NONE_OF else (deny, allow)
    block = [_instruction(_LOAD, _ARGS + 8 * rule.argument)]
    for value in rule.values:
        block += [_instruction(jump, value, otherwise=1), on_match]
    return [*block, at_end]


def _instruction(code: int, k: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, then, otherwise, k)
