"""How the steps of a program are encoded for each machine (elf(5), the psABIs). Pure.

Each step has the same few instructions, so this is a table of encodings and no assembler.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence

from sandbox.jail.elf import (
    FAILED,
    PID,
    REPORT,
    SLOTS,
    Arguments,
    Call,
    Constant,
    Environment,
    Exec,
    Fork,
    Put,
    Slot,
    Step,
    Value,
)

_TOLD = SLOTS  # the slot after those that steps may use
_SCRATCH_BYTES = 8 * (SLOTS + 2)
_LOWEST_ERRNO = 4095
_ENOEXEC = 8
_SHELL = b"/bin/sh\0"

_BASE = 0x40_0000
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")


def program(machine: str, steps: Sequence[Step], *, report_fd: int) -> bytes:
    """An executable file for `machine`, one of MACHINES, that carries out `steps`.

    Errors are written to `report_fd`, each as a REPORT.
    """
    code = (_X86 if machine == "x86_64" else _Arm)()
    code.assemble(steps, report_fd)
    start = _HEADER.size + 2 * _SEGMENT.size
    text, data = code.code, bytearray()
    for content, places in code.constants.items():
        address = _BASE + start + len(text) + len(data)
        for place in places:
            code.patch(place, address)
        data += content + bytes(-len(content) % 8)
    size = start + len(text) + len(data)
    header = _HEADER.pack(
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0"),
        *(2, code.ELF_MACHINE, 1, _BASE + start, _HEADER.size, 0, 0),
        *(_HEADER.size, _SEGMENT.size, 2, 0, 0, 0),
    )
    load = _SEGMENT.pack(1, 5, 0, _BASE, _BASE, size, size, 0x1_0000)  # PT_LOAD, read and execute
    stack = _SEGMENT.pack(0x6474_E551, 6, 0, 0, 0, 0, 0, 16)  # PT_GNU_STACK, read and write
    return header + load + stack + bytes(text + data)


class _Code:
    """What both machines have in common.

    Attributes:
        constants: each with the offsets in `code` where its address has to be put.
        failures: the offsets of jumps to where an error ends the program.
    """

    ELF_MACHINE: int
    EXECVE: int
    WRITE: int
    EXIT_GROUP: int

    def __init__(self) -> None:
        self.code = bytearray()
        self.constants: dict[bytes, list[int]] = {}
        self.failures: list[int] = []

    def assemble(self, steps: Iterable[Step], report_fd: int) -> None:
        self.begin()
        for number, step in enumerate(steps, 1):
            match step:
                case Put(slot, value):
                    self.load(0, value)
                    self.store(slot, 0)
                case Call(call, arguments, into, may_fail, last):
                    self.call(call, *arguments)
                    if into is not None:
                        self.store(into, None)
                    if not may_fail:
                        self.end_if_failed(number)
                    if last is not None:
                        self.if_returned(last, lambda: self.call(self.EXIT_GROUP, FAILED))
                case Fork(call, flags, pid_fd):
                    self.call(call, flags, 0, 0, 0, 0)
                    self.end_if_failed(number)
                    self.if_not_returned(0, lambda: self.end_of_parent(pid_fd))
                case Exec(path):
                    self.execute(Constant(path + b"\0"))
                    self.note(number)
                    self.tell(report_fd)
        self.call(self.EXIT_GROUP, FAILED)
        for jump in self.failures:
            self.land(jump)
        self.tell(report_fd)
        self.call(self.EXIT_GROUP, FAILED)

    def end_if_failed(self, step: int) -> None:
        self.note(step)
        self.failures.append(self.jump_if_failed())

    def call(self, number: int, *arguments: Value) -> None:
        for place, value in enumerate(arguments):
            self.load(place, value)
        self.trap(number)

    def execute(self, path: Constant) -> None:
        self.call(self.EXECVE, path, Arguments(), Environment())
        self.if_returned(-_ENOEXEC, lambda: self.execute_by_shell(path))

    def tell(self, report_fd: int) -> None:
        self.keep_error()
        self.call(self.WRITE, report_fd, Slot(_TOLD, address=True), REPORT.size)

    def end_of_parent(self, pid_fd: int) -> None:
        self.store(_TOLD, None)
        self.call(self.WRITE, pid_fd, Slot(_TOLD, address=True), PID.size)
        self.call(self.EXIT_GROUP, 0)

    def number(self, value: int | Constant, at: int) -> int:
        """`value`, which the instructions at `at` load; addresses are put there later."""
        if isinstance(value, int):
            return value % (1 << 64)
        self.constants.setdefault(value.content, []).append(at)
        return 0

    # -- what differs

    def begin(self) -> None:
        """Keeps the vectors and makes room for the slots."""
        raise NotImplementedError

    def load(self, place: int, value: Value) -> None:
        """`value` as the argument at `place`."""
        raise NotImplementedError

    def store(self, slot: int, place: int | None) -> None:
        """The argument at `place`, or what was returned, into `slot`."""
        raise NotImplementedError

    def patch(self, at: int, address: int) -> None:
        """Puts `address` into the instructions at `at`, which load a number."""
        raise NotImplementedError

    def trap(self, number: int) -> None:
        raise NotImplementedError

    def note(self, step: int) -> None:
        """Keeps the number of the step in a register."""
        raise NotImplementedError

    def jump_if_failed(self) -> int:
        """A jump that is taken if a call has returned an error. Returns its offset, for `land`."""
        raise NotImplementedError

    def land(self, jump: int) -> None:
        """Has a jump lead to what comes next."""
        raise NotImplementedError

    def if_returned(self, number: int, write: Callable[[], None]) -> None:
        raise NotImplementedError

    def if_not_returned(self, number: int, write: Callable[[], None]) -> None:
        raise NotImplementedError

    def execute_by_shell(self, path: Constant) -> None:
        """As `execute`, with the shell before `path`: the first two arguments are overwritten."""
        raise NotImplementedError

    def keep_error(self) -> None:
        """A REPORT about the step noted and what was returned, into the slot _TOLD."""
        raise NotImplementedError


class _X86(_Code):
    """r12: argument count, then the vector; r13: environment; r14: the step."""

    ELF_MACHINE, EXECVE, WRITE, EXIT_GROUP = 62, 59, 1, 231

    # rdi rsi rdx r10 r8 r9
    _ARGUMENTS = (7, 6, 2, 10, 8, 9)
    _RAX = 0
    # mov register, number
    _NUMBERS = tuple(bytes((0x48 | each >> 3, 0xB8 | each & 7)) for each in _ARGUMENTS)

    def begin(self) -> None:
        self.code += bytes.fromhex("4989e4")  # mov r12, rsp
        self.code += bytes.fromhex("488b0424")  # mov rax, [rsp]
        self.code += bytes.fromhex("4d8d6cc410")  # lea r13, [r12 + 8 * rax + 16]
        self.code += bytes.fromhex("4881ec") + struct.pack("<i", _SCRATCH_BYTES)  # sub rsp, …

    def load(self, place: int, value: Value) -> None:
        if isinstance(value, int | Constant):
            number = self.number(value, len(self.code))
            self.code += self._NUMBERS[place] + struct.pack("<Q", number)
            return
        register = self._ARGUMENTS[place]
        extended, low = register >> 3, register & 7
        match value:
            case Slot(slot, address):
                self._at_stack(0x8D if address else 0x8B, register, slot)  # lea, or mov from
            case Arguments():
                # lea register, [r12 + 16]
                self.code += bytes((0x49 | extended << 2, 0x8D, 0x44 | low << 3, 0x24, 16))
            case Environment():
                self.code += bytes((0x4C | extended, 0x89, 0xE8 | low))  # mov register, r13

    def store(self, slot: int, place: int | None) -> None:
        self._at_stack(0x89, self._RAX if place is None else self._ARGUMENTS[place], slot)

    def _at_stack(self, opcode: int, register: int, slot: int) -> None:
        # opcode register, [rsp + 8 * slot]
        self.code += bytes((0x48 | register >> 3 << 2, opcode, 0x84 | (register & 7) << 3, 0x24))
        self.code += struct.pack("<i", 8 * slot)

    def patch(self, at: int, address: int) -> None:
        struct.pack_into("<Q", self.code, at + 2, address)

    def trap(self, number: int) -> None:
        self.code += b"\xb8" + struct.pack("<i", number) + b"\x0f\x05"  # mov eax, …; syscall

    def note(self, step: int) -> None:
        self.code += b"\x41\xbe" + struct.pack("<I", step)  # mov r14d, step

    def jump_if_failed(self) -> int:
        # cmp rax, -4095; jae …
        self.code += b"\x48\x3d" + struct.pack("<i", -_LOWEST_ERRNO) + b"\x0f\x83" + bytes(4)
        return len(self.code)

    def land(self, jump: int) -> None:
        struct.pack_into("<i", self.code, jump - 4, len(self.code) - jump)

    def if_returned(self, number: int, write: Callable[[], None]) -> None:
        self._if(number, b"\x0f\x85", write)  # jne

    def if_not_returned(self, number: int, write: Callable[[], None]) -> None:
        self._if(number, b"\x0f\x84", write)  # je

    def _if(self, number: int, jump: bytes, write: Callable[[], None]) -> None:
        self.code += b"\x48\x3d" + struct.pack("<i", number) + jump + bytes(4)  # cmp rax, number
        after = len(self.code)
        write()
        self.land(after)

    def execute_by_shell(self, path: Constant) -> None:
        self.load(0, path)
        self.code += bytes.fromhex("49897c2410")  # mov [r12 + 16], rdi
        self.load(0, Constant(_SHELL))
        self.code += bytes.fromhex("49897c2408")  # mov [r12 + 8], rdi
        self.code += bytes.fromhex("498d742408")  # lea rsi, [r12 + 8]
        self.load(2, Environment())
        self.trap(self.EXECVE)

    def keep_error(self) -> None:
        self.code += bytes.fromhex("f7d8")  # neg eax
        at = 8 * _TOLD
        # mov dword [rsp + at + 4], eax; mov dword [rsp + at], r14d
        self.code += bytes.fromhex("898424") + struct.pack("<i", at + 4)
        self.code += bytes.fromhex("4489b424") + struct.pack("<i", at)


class _Arm(_Code):
    """x19: argument count, then the vector; x20: environment; x21: the step."""

    ELF_MACHINE, EXECVE, WRITE, EXIT_GROUP = 183, 221, 64, 94

    _SP, _X8, _X19, _X20, _X21 = 31, 8, 19, 20, 21

    def begin(self) -> None:
        self._emit(0x9100_0000 | self._SP << 5 | self._X19)  # add x19, sp, 0
        self._emit(0xF940_0000 | self._X19 << 5 | 0)  # ldr x0, [x19]
        self._emit(0x8B00_0C00 | self._X19 << 5 | self._X20)  # add x20, x19, x0, lsl 3
        self._emit(0x9100_4000 | self._X20 << 5 | self._X20)  # add x20, x20, 16
        self._emit(0xD100_0000 | _SCRATCH_BYTES << 10 | self._SP << 5 | self._SP)  # sub sp, sp, …

    def load(self, place: int, value: Value) -> None:
        match value:
            case Slot(slot, True):
                self._emit(0x9100_0000 | 8 * slot << 10 | self._SP << 5 | place)  # add x, sp, …
            case Slot(slot, False):
                self._emit(0xF940_0000 | slot << 10 | self._SP << 5 | place)  # ldr x, [sp, …]
            case Arguments():
                self._emit(0x9100_4000 | self._X19 << 5 | place)  # add x, x19, 16
            case Environment():
                self._emit(0xAA00_03E0 | self._X20 << 16 | place)  # mov x, x20
            case int() | Constant():
                self._number(place, self.number(value, len(self.code)))

    def store(self, slot: int, place: int | None) -> None:
        self._emit(0xF900_0000 | slot << 10 | self._SP << 5 | (place or 0))  # str x, [sp, …]

    def patch(self, at: int, address: int) -> None:
        for half in range(4):
            (instruction,) = struct.unpack_from("<I", self.code, at + 4 * half)
            bits = address >> 16 * half & 0xFFFF
            struct.pack_into("<I", self.code, at + 4 * half, instruction | bits << 5)

    def trap(self, number: int) -> None:
        self._number(self._X8, number)
        self._emit(0xD400_0001)  # svc 0

    def note(self, step: int) -> None:
        self._number(self._X21, step)

    def jump_if_failed(self) -> int:
        self._emit(0xB100_001F | _LOWEST_ERRNO << 10)  # cmn x0, 4095
        self._emit(0x5400_0002)  # b.hs
        return len(self.code) - 4

    def land(self, jump: int) -> None:
        (instruction,) = struct.unpack_from("<I", self.code, jump)
        words = (len(self.code) - jump) // 4
        struct.pack_into("<I", self.code, jump, instruction | words << 5)

    def if_returned(self, number: int, write: Callable[[], None]) -> None:
        self._compare(number)
        self._unless(0x1, write)  # b.ne

    def if_not_returned(self, number: int, write: Callable[[], None]) -> None:
        self._compare(number)
        self._unless(0x0, write)  # b.eq

    def _compare(self, number: int) -> None:
        # cmp x0, number, or cmn x0, -number: neither takes a negative one
        opcode = 0xF100_001F if number >= 0 else 0xB100_001F
        self._emit(opcode | abs(number) << 10)

    def _unless(self, condition: int, write: Callable[[], None]) -> None:
        at = len(self.code)
        self._emit(0x5400_0000 | condition)
        write()
        self.land(at)

    def execute_by_shell(self, path: Constant) -> None:
        self.load(0, path)
        self._emit(0xF900_0800 | self._X19 << 5)  # str x0, [x19, 16]
        self.load(0, Constant(_SHELL))
        self._emit(0xF900_0400 | self._X19 << 5)  # str x0, [x19, 8]
        self._emit(0x9100_2000 | self._X19 << 5 | 1)  # add x1, x19, 8
        self.load(2, Environment())
        self.trap(self.EXECVE)

    def keep_error(self) -> None:
        self._emit(0x4B00_03E0)  # neg w0, w0
        at = 2 * _TOLD  # in words
        self._emit(0xB900_0000 | (at + 1) << 10 | self._SP << 5)  # str w0, [sp, …]
        self._emit(0xB900_0000 | at << 10 | self._SP << 5 | self._X21)  # str w21, [sp, …]

    def _number(self, register: int, number: int) -> None:
        for half in range(4):
            bits = number >> 16 * half & 0xFFFF
            opcode = 0xD280_0000 if half == 0 else 0xF280_0000  # movz, then movk
            self._emit(opcode | half << 21 | bits << 5 | register)

    def _emit(self, instruction: int) -> None:
        self.code += struct.pack("<I", instruction)
