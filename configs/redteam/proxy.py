"""Past a lane's list of hosts: by the proxy, which is its only way out, and around it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from base import NET, NEVER, Context, Stopped, attempt, connected

_LANES = (NET,)


def listed(name: str) -> Callable[[Callable[[Context], str]], Callable[[Context], str]]:
    return attempt(name, "proxy", lanes=_LANES, control=NEVER)


def _asked(request: bytes) -> str:
    """What the proxy answers to a request; raises unless it lets it through."""
    where = urlsplit(os.environ["HTTP_PROXY"])
    with socket.create_connection((where.hostname, where.port), timeout=5) as channel:
        channel.sendall(request)
        channel.settimeout(5)
        answer = b""
        while part := channel.recv(4096):
            answer += part
            if b"200" in answer.split(b"\r\n")[0]:
                return answer[:40].decode(errors="replace")
            if b"\r\n" in answer:
                break
    raise Stopped(answer.split(b"\r\n")[0].decode(errors="replace") or "closed without an answer")


def _connect(host: bytes) -> bytes:
    return b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (host, host)


def _any_of(*requests: bytes) -> str:
    failure: Exception = Stopped("nothing was tried")
    for request in requests:
        try:
            return f"{request[:40]!r}: {_asked(request)}"
        except (OSError, Stopped) as error:
            failure = error
    raise failure


@listed("the host's loopback, by the proxy")
def loopback(context: Context) -> str:
    port = context.tcp_port
    names = (b"127.0.0.1", b"localhost", b"LOCALHOST", b"localhost.", b"[::1]", b"0.0.0.0")
    return _any_of(*(_connect(b"%s:%d" % (name, port)) for name in names))


@listed("the same in other spellings of an address")
def spellings(context: Context) -> str:
    port = context.tcp_port
    names = (
        b"127.1",
        b"2130706433",
        b"0x7f000001",
        b"0177.0.0.1",
        b"127.0.0.1.",
        b"[::ffff:127.0.0.1]",
        b"[::ffff:7f00:1]",
        b"\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.0.0.1",
    )
    return _any_of(*(_connect(b"%s:%d" % (name, port)) for name in names))


@listed("the cloud's metadata address, by the proxy")
def metadata(context: Context) -> str:
    return _any_of(
        _connect(b"169.254.169.254:80"),
        b"GET http://169.254.169.254/latest/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
    )


@listed("NUL, line breaks, blanks and users in the name")
def odd_names(context: Context) -> str:
    port = context.tcp_port
    return _any_of(
        *(
            _connect(name % port)
            for name in (
                b"127.0.0.1\0.allowed.invalid:%d",
                b"127.0.0.1%%00.allowed.invalid:%d",
                b"allowed.invalid\r\nHost: 127.0.0.1:%d",
                b"allowed.invalid@127.0.0.1:%d",
                b"127.0.0.1#.allowed.invalid:%d",
                b"127.0.0.1/allowed.invalid:%d",
                b" 127.0.0.1:%d",
            )
        )
    )


@listed("plain HTTP whose target and Host disagree")
def two_hosts(context: Context) -> str:
    port = context.tcp_port
    return _any_of(
        b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: allowed.invalid\r\n\r\n" % port,
        b"GET http://allowed.invalid@127.0.0.1:%d/ HTTP/1.1\r\n\r\n" % port,
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port,
        b"GET //127.0.0.1:%d/ HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (port, port),
    )


@listed("a second request behind the first")
def pipelined(context: Context) -> str:
    port = context.tcp_port
    first = b"GET http://allowed.invalid/ HTTP/1.1\r\nHost: allowed.invalid\r\n"
    second = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (port, port)
    return _any_of(
        first + b"\r\n" + second,
        first + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second,
    )


@listed("a name that is not listed")
def unlisted(context: Context) -> str:
    names = (
        b"example.org",
        b"allowed.invalid.example.org",
        b"xallowed.invalid",
        b"x.allowed.invalid",
    )
    return _any_of(*(_connect(b"%s:80" % name) for name in names))


@listed("another port of a name that is listed")
def other_port(context: Context) -> str:
    return _any_of(_connect(b"allowed.invalid:22"), _connect(b"allowed.invalid"))


@listed("around the proxy: TCP, UDP, DNS")
def around(context: Context) -> str:
    failure: Exception = Stopped("nothing was tried")
    for address in (("127.0.0.1", context.tcp_port), ("1.1.1.1", 53), ("169.254.169.254", 80)):
        try:
            return connected(address, timeout_s=1)
        except (OSError, Stopped) as error:
            failure = error
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.settimeout(0.5)
        try:
            channel.sendto(b"x", ("127.0.0.1", context.udp_port))
            channel.recv(16)
            return "UDP was heard"
        except OSError as error:
            failure = error
    raise failure
