"""The FUSE_INIT exchange, negotiated by hand (linux/fuse.h). Pure: bytes in, bytes out.

libfuse decides what it asks of the kernel with no way for pyfuse3 to have a say. So it is given
an edited request, and its answer is replaced by one that says what this server means:

- HANDLE_KILLPRIV_V2, without which the kernel asks for `security.capability` before each write;
- no AUTO_INVAL_DATA but EXPLICIT_INVAL_DATA: nobody else writes, so a changed modification time
  is no reason to drop what was just written from the page cache;
- CACHE_SYMLINKS.
"""

from __future__ import annotations

import struct

_IN_HEADER = struct.Struct("=IIQQIIIHH")
_OUT_HEADER = struct.Struct("=IiQ")
_IN = struct.Struct("=IIIIII")  # major minor max_readahead flags flags2 unused[0]
# major minor max_readahead flags max_background congestion_threshold max_write time_gran
# max_pages map_alignment flags2 max_stack_depth request_timeout
_OUT = struct.Struct("=IIIIHHIIHHIIH")

_OPCODE_INIT = 26
OUT_BYTES = 64
REQUEST_BYTES = 8192 + (1 << 20)

ASYNC_READ = 1 << 0
ATOMIC_O_TRUNC = 1 << 3
EXPORT_SUPPORT = 1 << 4
BIG_WRITES = 1 << 5
AUTO_INVAL_DATA = 1 << 12
DO_READDIRPLUS = 1 << 13
ASYNC_DIO = 1 << 15
WRITEBACK_CACHE = 1 << 16
NO_OPEN_SUPPORT = 1 << 17
PARALLEL_DIROPS = 1 << 18
MAX_PAGES = 1 << 22
CACHE_SYMLINKS = 1 << 23
NO_OPENDIR_SUPPORT = 1 << 24
EXPLICIT_INVAL_DATA = 1 << 25
HANDLE_KILLPRIV_V2 = 1 << 28
INIT_EXT = 1 << 30
PASSTHROUGH = 1 << 5  # of the second word: bit 37

_WANTED = (
    ASYNC_READ
    | ATOMIC_O_TRUNC
    | EXPORT_SUPPORT
    | BIG_WRITES
    | DO_READDIRPLUS
    | ASYNC_DIO
    | PARALLEL_DIROPS
    | MAX_PAGES
    | CACHE_SYMLINKS
    | EXPLICIT_INVAL_DATA
    | HANDLE_KILLPRIV_V2
)

_NO_OPENS = NO_OPEN_SUPPORT | NO_OPENDIR_SUPPORT

# Of the protocol's versions that libfuse 3 speaks, the last before splicing: it then receives
# each request by one read(2) rather than by three calls through a pipe. All else that depends
# on the version and that is used here came earlier.
_MINOR_WITHOUT_SPLICE = 13
_MINOR = 38
_MINOR_OF_LINUX_6_12 = 41

MAX_WRITE_BYTES = 1 << 20


def edited_request(request: bytes) -> bytes:
    """The INIT request as libfuse is to see it. Raises ValueError if it is none."""
    _size, opcode, *_rest = _IN_HEADER.unpack_from(request)
    if opcode != _OPCODE_INIT:
        raise ValueError(f"the kernel's first request has opcode {opcode}, not INIT")
    minor_at = _IN_HEADER.size + 4
    return request[:minor_at] + struct.pack("=I", _MINOR_WITHOUT_SPLICE) + request[minor_at + 4 :]


def opens_by_itself(request: bytes) -> bool:
    """Whether the kernel can do without OPEN and OPENDIR once they have been answered ENOSYS."""
    flags: int = _IN.unpack_from(request, _IN_HEADER.size)[3]
    return flags & _NO_OPENS == _NO_OPENS


def passes_through(request: bytes) -> bool:
    """Whether the kernel can read and write files by itself that the server names.

    Since Linux 6.9; before 6.12 a file that grew by it could be taken for shorter than it is.
    """
    _, minor, _, _, more, _ = _IN.unpack_from(request, _IN_HEADER.size)
    return bool(more & PASSTHROUGH) and minor >= _MINOR_OF_LINUX_6_12


def answer(
    request: bytes, *, page_bytes: int, is_stateless: bool, is_passing: bool = False
) -> bytes:
    """The reply to the kernel's INIT request.

    `is_stateless`: opening will be left to the kernel, which must then not take an open with
    O_TRUNC for the truncation itself. `is_passing`: files will be passed through, which are on
    no stacked file system themselves; one may still be stacked on this.
    """
    unique = _IN_HEADER.unpack_from(request)[2]
    major, minor, max_readahead, flags, _flags2, _ = _IN.unpack_from(request, _IN_HEADER.size)
    body = _OUT.pack(
        major,
        min(minor, _MINOR),
        max_readahead,
        flags & (_WANTED & ~ATOMIC_O_TRUNC if is_stateless else _WANTED | INIT_EXT),
        64,  # max_background
        48,  # congestion_threshold
        MAX_WRITE_BYTES,
        1,  # time granularity in nanoseconds
        MAX_WRITE_BYTES // page_bytes,
        0,
        PASSTHROUGH if is_passing else 0,
        1 if is_passing else 0,
        0,
    )
    body = body.ljust(OUT_BYTES, b"\0")
    return _OUT_HEADER.pack(_OUT_HEADER.size + len(body), 0, unique) + body
