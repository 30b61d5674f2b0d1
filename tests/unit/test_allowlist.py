from __future__ import annotations

from ipaddress import ip_address

import pytest

from sandbox.net.allowlist import Allowlist, AllowlistError, Refused, normal, parse


def admits(listed: tuple[str, ...], host: str, port: int = 443) -> bool:
    return not isinstance(Allowlist.of(listed).admit(host, port), Refused)


def leads(listed: tuple[str, ...], name: str, *found: str, port: int = 443) -> list[str]:
    """The addresses that may be connected to, of those that `name` was found to have."""
    kept = Allowlist.of(listed).reachable(name, port, [ip_address(address) for address in found])
    return [] if isinstance(kept, Refused) else [str(address) for address in kept]


@pytest.mark.parametrize(
    ("entry", "host", "port", "expected"),
    [
        ("example.org", "example.org", 443, True),
        ("example.org", "EXAMPLE.org.", 8080, True),
        ("Example.ORG", "example.org", 443, True),
        ("example.org", "www.example.org", 443, False),
        ("example.org", "example.org.evil.com", 443, False),
        ("example.org", "notexample.org", 443, False),
        ("example.org:443", "example.org", 443, True),
        ("example.org:443", "example.org", 80, False),
        ("*.example.org", "www.example.org", 443, True),
        ("*.example.org", "a.b.example.org", 443, True),
        ("*.example.org", "example.org", 443, False),
        ("*.example.org", "notexample.org", 443, False),
        ("*.example.org", ".example.org", 443, False),
        ("*.example.org:80", "www.example.org", 443, False),
        ("127.0.0.1", "127.0.0.1", 1, True),
        ("127.0.0.1:8080", "127.0.0.1", 8081, False),
        ("10.1.0.0/16", "10.1.2.3", 443, True),
        ("10.1.0.0/16", "10.2.0.1", 443, False),
        ("[::1]:80", "[::1]", 80, True),
        ("::1", "[::1]", 80, True),
        ("10.0.0.1", "[::ffff:10.0.0.1]", 80, True),
        ("example.org", "93.184.216.34", 443, False),
        ("localhost", "127.0.0.1", 80, False),
    ],
)
def test_only_what_is_listed_is_admitted(entry: str, host: str, port: int, expected: bool) -> None:
    assert admits((entry,), host, port) is expected


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "example.org\0.evil.com",
        "example.org\r\nHost: evil",
        "exam ple.org",
        "exämple.org",
        "example..org",
        "-example.org",
        "example.org%00",
        "user@example.org",
        "a" * 64 + ".example.org",
        ".".join(["a" * 60] * 5),
        # What inet_aton(3) takes for 127.0.0.1:
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.01",
        "1.2.3.4.5",
        "[fe80::1%lo]",
        "[127.0.0.1]",
        "::1",
        "[::1",
    ],
)
def test_what_is_no_host_name_and_no_address_is_refused(host: str) -> None:
    assert normal(host) is None
    assert not admits(("*.org", "*.com", "0.0.0.0/0", "::/0"), host)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.100.100.200",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "::1",
        "::",
        "fe80::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ],
)
def test_a_listed_name_leads_to_nothing_that_is_not_public(address: str) -> None:
    assert leads(("example.org", "*.example.org"), "example.org", address) == []


def test_of_several_addresses_only_the_public_are_left() -> None:
    found = ("10.0.0.1", "93.184.216.34", "::1", "2606:2800:21f:cb07:6820:80da:af6b:8b2c")

    assert leads(("example.org",), "example.org", *found) == [found[1], found[3]]


def test_an_address_that_is_listed_itself_may_be_led_to() -> None:
    assert leads(("intra.corp", "10.1.0.0/16"), "intra.corp", "10.1.2.3") == ["10.1.2.3"]
    assert leads(("intra.corp", "10.1.2.3:80"), "intra.corp", "10.1.2.3", port=443) == []


def test_localhost_is_this_host_and_no_other_name_is() -> None:
    assert leads(("localhost",), "localhost", "127.0.0.1", "::1") == ["127.0.0.1", "::1"]
    assert leads(("localhost",), "localhost", "10.0.0.1") == []
    assert leads(("localhost", "example.org"), "example.org", "127.0.0.1") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://example.org",
        "example.org/path",
        "example.org:0",
        "example.org:65536",
        "example.org:http",
        "*",
        "*.",
        "*.*.org",
        "www.*.org",
        "10.1.2.3/16",
        "exam ple.org",
        "*.127.0.0.1",
        "127.1",
    ],
)
def test_what_is_no_entry_is_an_error_that_quotes_it(text: str) -> None:
    with pytest.raises(AllowlistError) as raised:
        parse(text)
    assert repr(text) in str(raised.value)
