"""The head of a request to a proxy (RFC 9110, RFC 9112): what is asked, and what to pass on. Pure.

Strict: what could be understood in two ways is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LIMIT_BYTES = 64 << 10
END = b"\r\n\r\n"

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_TARGET = re.compile(rb"[\x21-\x7e]+\Z")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:@/?#\[\]]*)(?::([0-9]{1,5}))?\Z")
# Of one connection only (RFC 9110, 7.6.1), or for the proxy.
_OURS = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"upgrade")
)


class HeadError(Exception):
    """Raised for what is no request that a proxy can serve; says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was understood.

    Attributes:
        method: b"CONNECT" asks for a tunnel.
        host: as it was written.
        onward: the head for the server; empty for a tunnel.
        body_bytes: how much follows; None: in chunks (RFC 9112, 7.1).
    """

    method: bytes
    host: str
    port: int
    onward: bytes = b""
    body_bytes: int | None = 0


def parse(head: bytes) -> Request:
    """What `head`, up to and with the empty line, asks for. Raises HeadError."""
    first, *lines = head.removesuffix(END).split(b"\r\n")
    parts = first.split(b" ")
    if len(parts) != 3 or not _TOKEN.match(parts[0]) or parts[2] not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise HeadError("not a request of HTTP/1.1")
    method, target, _ = parts
    if not _TARGET.match(target):
        raise HeadError("the target of the request has odd bytes in it")
    fields = [_field(line) for line in lines]
    if method == b"CONNECT":
        host, port = _authority(target.decode("ascii"), None)
        return Request(method, host, port)
    scheme, separator, rest = target.decode("ascii").partition("://")
    if not separator or scheme.lower() != "http":
        raise HeadError("expected CONNECT, or a target that begins with http://")
    end = min((rest.index(mark) for mark in "/?#" if mark in rest), default=len(rest))
    host, port = _authority(rest[:end], 80)
    path = rest[end:].partition("#")[0]
    if not path.startswith("/"):
        path = "/" + path
    nominated = {
        word.strip().lower()
        for name, value in fields
        if name == b"connection"
        for word in value.split(b",")
    }
    dropped = (_OURS | nominated | {b"host"}) - {b"content-length", b"transfer-encoding"}
    kept = [(name, value) for name, value in fields if name not in dropped]
    onward = [
        method + b" " + path.encode() + b" HTTP/1.1",
        b"Host: " + rest[:end].encode(),
        *(name + b": " + value for name, value in kept),
        b"Connection: close",
    ]
    return Request(method, host, port, b"\r\n".join(onward) + END, _body_bytes(kept))


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.match(name) or any(byte in value for byte in b"\0\r\n"):
        raise HeadError("a header field has odd bytes in it")
    return name.lower(), value.strip(b" \t")


def _authority(text: str, default: int | None) -> tuple[str, int]:
    match = _AUTHORITY.match(text)
    if match is None or not match[1]:
        raise HeadError("the target's host cannot be understood")
    if match[2] is None and default is None:
        raise HeadError("CONNECT needs a port")
    port = int(match[2]) if match[2] is not None else default or 0
    if not 0 < port < 65536:
        raise HeadError("the target's port is none")
    return match[1], port


def _body_bytes(fields: list[tuple[bytes, bytes]]) -> int | None:
    lengths = {value for name, value in fields if name == b"content-length"}
    codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    if codings:
        if codings != [b"chunked"] or lengths:
            raise HeadError("the length of the body can be understood in two ways")
        return None
    if not lengths:
        return 0
    (length,) = lengths if len(lengths) == 1 else (b"",)
    if not (length.isdigit() and len(length) < 19):
        raise HeadError("the length of the body can be understood in two ways")
    return int(length)
