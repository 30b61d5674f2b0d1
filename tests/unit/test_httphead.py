from __future__ import annotations

import pytest

from sandbox.net.httphead import HeadError, Request, parse


def test_a_tunnel_is_asked_for_by_host_and_port() -> None:
    assert parse(b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n") == Request(
        b"CONNECT", "example.org", 443
    )
    assert parse(b"CONNECT [::1]:80 HTTP/1.1\r\n\r\n") == Request(b"CONNECT", "[::1]", 80)


def test_a_request_is_passed_on_for_one_connection_with_the_host_that_was_checked() -> None:
    head = (
        b"GET http://example.org:81/a?b#c HTTP/1.1\r\nHost: evil.com\r\nAccept: x\r\n"
        b"Proxy-Authorization: secret\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\r\n"
    )

    assert parse(head) == Request(
        b"GET",
        "example.org",
        81,
        b"GET /a?b HTTP/1.1\r\nHost: example.org:81\r\naccept: x\r\nConnection: close\r\n\r\n",
    )


@pytest.mark.parametrize(
    ("target", "path"), [("http://h", "/"), ("http://h?q", "/?q"), ("HTTP://h/x", "/x")]
)
def test_a_path_is_never_empty(target: str, path: str) -> None:
    onward = parse(f"GET {target} HTTP/1.1\r\n\r\n".encode()).onward

    assert onward.startswith(f"GET {path} HTTP/1.1\r\nHost: h\r\n".encode())


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        (b"", 0),
        (b"Content-Length: 12\r\n", 12),
        (b"Content-Length: 12\r\nContent-Length: 12\r\n", 12),
        (b"Transfer-Encoding: chunked\r\n", None),
    ],
)
def test_how_much_follows_is_known(fields: bytes, size: int | None) -> None:
    assert parse(b"POST http://h/ HTTP/1.1\r\n" + fields + b"\r\n").body_bytes == size


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET https://h/ HTTP/1.1\r\n\r\n",
        b"GET http://h/ HTTP/2\r\n\r\n",
        b"GET  http://h/ HTTP/1.1\r\n\r\n",
        b"GET http://h/\0 HTTP/1.1\r\n\r\n",
        b"GET http://h\xc3\xa4/ HTTP/1.1\r\n\r\n",
        b"GET http:///x HTTP/1.1\r\n\r\n",
        b"GET http://user@h/ HTTP/1.1\r\n\r\n",
        b"GET http://good.org:80@evil.com/ HTTP/1.1\r\n\r\n",
        b"GET http://h:0/ HTTP/1.1\r\n\r\n",
        b"GET http://h:99999/ HTTP/1.1\r\n\r\n",
        b"CONNECT h HTTP/1.1\r\n\r\n",
        b"CONNECT :443 HTTP/1.1\r\n\r\n",
        b"CONNECT h:443/x HTTP/1.1\r\n\r\n",
        b"CONNECT h\0.evil:443 HTTP/1.1\r\n\r\n",
        b"GET http://h/ HTTP/1.1\r\nA: b\rc\r\n\r\n",
        b"GET http://h/ HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
        b"GET http://h/ HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET http://h/ HTTP/1.1\r\n folded\r\n\r\n",
        b"POST http://h/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST http://h/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST http://h/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST http://h/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST http://h/ HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
    ],
)
def test_what_could_be_understood_in_two_ways_is_refused(head: bytes) -> None:
    with pytest.raises(HeadError):
        parse(head)
