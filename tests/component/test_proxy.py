"""The proxy on the loopback, with servers and a resolver of the tests' own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from sandbox.net.allowlist import Address, Allowlist
from sandbox.net.proxy import Forward, Proxy

TIMEOUT_S = 10.0
_BODY = re.compile(rb"x: body of ([0-9]+)")
HELLO = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"


class Server:
    """Answers each connection with HELLO, and remembers what it was sent."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                heard = connection.recv(65536)
                if heard == b"stop":
                    return
                size = int(match[1]) if (match := _BODY.search(heard)) else 0
                while match and len(heard.partition(b"\r\n\r\n")[2]) < size:
                    heard += connection.recv(65536)
                connection.sendall(HELLO)
                connection.shutdown(socket.SHUT_WR)
                while match and (more := connection.recv(65536)):  # there should be none
                    heard += more
                self.heard.append(heard)

    def close(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"stop")
        self._thread.join()
        self._listener.close()


class Seen:
    """A proxy in a process of its own, as its clients and its keeper see it."""

    def __init__(self, server: Server, address: tuple[str, int], forward: tuple[str, int]) -> None:
        self.server = server
        self._address = address
        self._forward = forward
        self.records: Iterator[str] = iter(())

    def say(self, text: bytes, *, forwarded: bool = False) -> bytes:
        """All that is answered to `text`."""
        place = self._forward if forwarded else self._address
        with socket.create_connection(place, TIMEOUT_S) as client:
            client.sendall(text)
            answer = b""
            while part := client.recv(65536):
                answer += part
            return answer

    def next(self) -> dict[str, Any]:
        """The next record."""
        record: dict[str, Any] = json.loads(next(self.records))
        return record


Names = Callable[[str], tuple[str, ...] | None]


@contextmanager
def proxied(names: Names = lambda _: None) -> Iterator[Seen]:
    """A proxy to a server of this test, and to what `names` says that `good.org` is."""
    listener, other = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    with listener, other:
        receive, send = os.pipe()
        server = Server()
        pid = os.fork()
        if pid == 0:
            try:
                _proxy(server.port, names, send, listener, other)
            finally:
                os._exit(1)
        os.close(send)
        seen = Seen(server, listener.getsockname(), other.getsockname())
    try:
        with open(receive, encoding="utf-8") as records:
            seen.records = records
            yield seen
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        server.close()


def _proxy(
    port: int, names: Names, send: int, listener: socket.socket, other: socket.socket
) -> None:
    async def resolve(name: str, _port: int) -> list[Address]:
        found = names(name)
        if found is None:
            raise socket.gaierror(-2, "Name or service not known")
        return [ip_address(address) for address in found]

    def record(event: Mapping[str, object]) -> None:
        os.write(send, json.dumps(event).encode() + b"\n")

    allowlist = Allowlist.of((f"127.0.0.1:{port}", "good.org"))
    forward = Forward(other, "127.0.0.1", port)
    asyncio.run(Proxy(allowlist, record, resolve).serve(listener, [forward]))


def test_a_listed_address_is_reached_through_a_tunnel() -> None:
    with proxied() as seen:
        to = f"127.0.0.1:{seen.server.port}"
        answer = seen.say(f"CONNECT {to} HTTP/1.1\r\n\r\nping".encode())
        allowed, closed = seen.next(), seen.next()

    assert answer == b"HTTP/1.1 200 Connection established\r\n\r\n" + HELLO
    assert seen.server.heard == [b"ping"]
    assert (allowed["event"], allowed["address"]) == ("allowed", "127.0.0.1")
    assert (closed["event"], closed["sent"], closed["received"]) == ("closed", 4, len(HELLO))


def test_a_name_is_connected_to_at_the_address_that_was_checked() -> None:
    """A name that leads elsewhere the next time gains nothing by it."""
    answers = iter([("127.0.0.1",), ("169.254.169.254",)])

    with proxied(lambda _: next(answers)) as seen:
        text = f"CONNECT good.org:{seen.server.port} HTTP/1.1\r\n\r\nping".encode()
        first, second = seen.say(text), seen.say(text)

    assert first.endswith(HELLO)
    assert b"403 Forbidden" in second


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        (b"CONNECT evil.com:443 HTTP/1.1\r\n\r\n", b"403", "not listed"),
        (b"GET http://evil.com/ HTTP/1.1\r\n\r\n", b"403", "not listed"),
        (b"CONNECT 169.254.169.254:80 HTTP/1.1\r\n\r\n", b"403", "not listed"),
        (b"CONNECT good.org:443 HTTP/1.1\r\n\r\n", b"403", "not public"),
        (b"CONNECT good.org\0.evil.com:443 HTTP/1.1\r\n\r\n", b"400", "odd bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400", "CONNECT"),
        (b"nonsense\r\n\r\n", b"400", "HTTP/1.1"),
    ],
)
def test_everything_else_is_refused_and_recorded(text: bytes, status: bytes, reason: str) -> None:
    with proxied(lambda _: ("10.0.0.1",)) as seen:
        answer = seen.say(text)
        record = seen.next()

    assert answer.split(b" ")[1] == status
    assert record["event"] == "refused"
    assert reason in record["reason"]
    assert seen.server.heard == []


def test_a_name_that_does_not_exist_is_a_bad_gateway() -> None:
    with proxied() as seen:
        answer = seen.say(b"CONNECT good.org:443 HTTP/1.1\r\n\r\n")
        record = seen.next()

    assert b"502 Bad Gateway" in answer
    assert "Name or service not known" in record["reason"]


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("Content-Length: 3", "abc"),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n"),
        ("A: b", ""),
    ],
)
def test_a_body_is_passed_on_and_no_second_request(field: str, body: str) -> None:
    """The second might be for a host that is not listed, and would reach the first one's server."""
    with proxied() as seen:
        at = f"127.0.0.1:{seen.server.port}"
        first = f"POST http://{at}/ HTTP/1.1\r\nX: body of {len(body)}\r\n{field}\r\n\r\n{body}"
        answer = seen.say(f"{first}GET http://evil.com/ HTTP/1.1\r\n\r\n".encode())
    (heard,) = seen.server.heard

    assert answer == HELLO
    assert heard.startswith(f"POST / HTTP/1.1\r\nHost: {at}\r\n".encode())
    assert heard.endswith(f"Connection: close\r\n\r\n{body}".encode())


def test_a_forward_leads_to_its_place_without_a_word_of_http() -> None:
    with proxied() as seen:
        answer = seen.say(b"ping", forwarded=True)
        record = seen.next()

    assert answer == HELLO
    assert record["event"] == "allowed"
