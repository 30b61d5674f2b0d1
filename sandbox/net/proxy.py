"""The only way out of a lane that may reach some hosts: an HTTP proxy with a list (RFC 9110, 9.3).

It runs outside of the jail, on listeners inside of the lane's network namespace. It looks names up
itself, checks the addresses, and connects to the very address that it checked, so a name cannot
lead elsewhere the second time that it is asked for.
"""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401  loaded now: later there may be no file to load it from
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from sandbox.net import httphead
from sandbox.net.allowlist import Address, Allowlist, Refused
from sandbox.net.httphead import HeadError, Request

CONNECTIONS = 512
HEAD_S = 30.0
CONNECT_S = 20.0
_PIECE_BYTES = 64 << 10

Record = Callable[[Mapping[str, object]], None]
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]
Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


@dataclass(frozen=True, slots=True)
class Forward:
    """A listener whose connections all lead to one place, as if it were here.

    Attributes:
        host, port: of the destination.
    """

    listener: socket.socket
    host: str
    port: int


async def look_up(name: str, port: int) -> list[Address]:
    """The addresses of `name`, by the host's resolver (getaddrinfo(3))."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [ip_address(str(entry[4][0])) for entry in found]


class Proxy:
    """Serves until cancelled.

    Attributes:
        record: told of every connection: `event` is "allowed", "refused" or "closed".
    """

    def __init__(self, allowlist: Allowlist, record: Record, resolve: Resolve = look_up) -> None:
        self._allowlist = allowlist
        self._record = record
        self._resolve = resolve
        self._room = asyncio.Semaphore(CONNECTIONS)

    async def serve(self, listener: socket.socket, forwards: Sequence[Forward] = ()) -> None:
        """Answers on `listener` as a proxy, and carries on what comes in on `forwards`."""
        answers: list[tuple[Answer, socket.socket]] = [(self._answer, listener)]
        answers += [(self._forwarding(forward), forward.listener) for forward in forwards]
        servers = [await asyncio.start_server(answer, sock=sock) for answer, sock in answers]
        await asyncio.gather(*(server.serve_forever() for server in servers))

    def _forwarding(self, forward: Forward) -> Answer:
        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = Request(b"CONNECT", forward.host, forward.port)
            async with self._room:
                await self._guarded(reader, writer, request)

        return carry

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._room:
            try:
                head = await asyncio.wait_for(reader.readuntil(httphead.END), HEAD_S)
                request = httphead.parse(head)
            except HeadError as error:
                self._record({"event": "refused", "reason": str(error)})
                await _say(writer, 400, str(error))
            except asyncio.LimitOverrunError:
                await _say(writer, 431, "the request's head is too long")
            except (TimeoutError, asyncio.IncompleteReadError, OSError):
                writer.close()
            else:
                await self._guarded(reader, writer, request, speaks=True)

    async def _guarded(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        request: Request,
        *,
        speaks: bool = False,
    ) -> None:
        """Serves `request`, and closes. `speaks`: the client expects answers of HTTP."""
        asked = {"host": _short(request.host), "port": request.port, "by": _method(request)}
        try:
            found = await self._connect(request)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", "") or str(error) or type(error).__name__
            self._record({"event": "refused", **asked, "reason": f"unreachable: {why}"})
            await _say(writer, 502, f"{_short(request.host)}: {why}", silent=not speaks)
            return
        if isinstance(found, Refused):
            self._record({"event": "refused", **asked, "reason": found.reason})
            hint = "add it to `network` of the phase to let the lane reach it"
            await _say(writer, 403, f"{found.reason}; {hint}", silent=not speaks)
            return
        address, upstream_reader, upstream = found
        self._record({"event": "allowed", **asked, "address": str(address)})
        counts = [0, 0]
        try:
            if request.method == b"CONNECT":
                if speaks:
                    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                sending = _pour(reader, upstream, counts, 0)
            else:
                await _pass(upstream, request.onward, counts)
                sending = _pour_body(reader, upstream, request.body_bytes, counts)
            receiving = _pour(upstream_reader, writer, counts, 1)
            await _both(sending, receiving, until_received=request.method != b"CONNECT")
        except (OSError, ValueError):
            pass
        finally:
            for end in (writer, upstream):
                end.close()
            self._record({"event": "closed", **asked, "sent": counts[0], "received": counts[1]})

    async def _connect(
        self, request: Request
    ) -> Refused | tuple[Address, asyncio.StreamReader, asyncio.StreamWriter]:
        admitted = self._allowlist.admit(request.host, request.port)
        if isinstance(admitted, Refused):
            return admitted
        addresses: Sequence[Address] | Refused
        if isinstance(admitted, str):
            found = await asyncio.wait_for(self._resolve(admitted, request.port), CONNECT_S)
            addresses = self._allowlist.reachable(admitted, request.port, found)
            if isinstance(addresses, Refused):
                return addresses
        else:
            addresses = [admitted]
        refusal: OSError | None = None
        for address in addresses:
            try:
                opening = asyncio.open_connection(str(address), request.port)
                return address, *(await asyncio.wait_for(opening, CONNECT_S))
            except OSError as error:  # TimeoutError among them
                refusal = error
        raise refusal or OSError("no address")


async def _both(
    sending: Coroutine[None, None, None],
    receiving: Coroutine[None, None, None],
    *,
    until_received: bool,
) -> None:
    """Until both are done, or all is received; an error in one ends the other."""
    tasks = [asyncio.ensure_future(sending), asyncio.ensure_future(receiving)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if tasks[1] not in done or not until_received:
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _pour(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counts: list[int], at: int
) -> None:
    """Everything, and then the end of it, if there is a half-close (RFC 9293, 3.6)."""
    while piece := await reader.read(_PIECE_BYTES):
        counts[at] += len(piece)
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _pour_body(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int | None, counts: list[int]
) -> None:
    """The body of one request and no byte of the next, which may be for another host."""
    if size is not None:
        await _pour_exactly(reader, writer, size, counts)
        return
    while True:
        line = await _line(reader)
        length = int(line.split(b";")[0].strip() or b"x", 16)
        await _pass(writer, line, counts)
        if length == 0:
            break
        await _pour_exactly(reader, writer, length + 2, counts)
    while (line := await _line(reader)) not in (b"\r\n", b"\n"):
        await _pass(writer, line, counts)
    await _pass(writer, line, counts)


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ConnectionResetError("the request's body is not whole") from error


async def _pour_exactly(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int, counts: list[int]
) -> None:
    while size and (piece := await reader.read(min(size, _PIECE_BYTES))):
        size -= len(piece)
        await _pass(writer, piece, counts)
    if size:
        raise ConnectionResetError("the request's body is not whole")


async def _pass(writer: asyncio.StreamWriter, piece: bytes, counts: list[int]) -> None:
    counts[0] += len(piece)
    writer.write(piece)
    await writer.drain()


async def _say(
    writer: asyncio.StreamWriter, status: int, why: str, *, silent: bool = False
) -> None:
    reasons = {400: "Bad Request", 403: "Forbidden", 431: "Too Large", 502: "Bad Gateway"}
    try:
        if not silent:
            body = f"nanosup: {why}\n".encode()
            head = (
                f"HTTP/1.1 {status} {reasons[status]}\r\nContent-Type: text/plain\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()
    except OSError:
        pass


def _short(host: str) -> str:
    return host if len(host) <= 253 else host[:250] + "..."


def _method(request: Request) -> str:
    return request.method.decode("ascii")[:20]
