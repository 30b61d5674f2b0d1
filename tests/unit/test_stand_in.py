from __future__ import annotations

from sandbox.net.allowlist import Allowlist
from sandbox.net.egress import stand_ins


def test_a_name_stands_on_the_lanes_loopback_with_the_ports_it_is_listed_with() -> None:
    listed, hosts = stand_ins(Allowlist.of(("a.org", "b.org:8443", "b.org:22", "*.c.org")))

    assert hosts == (("127.0.1.1", "a.org"), ("127.0.1.2", "b.org"))
    assert listed == (
        ("127.0.1.1", 443, "a.org"),
        ("127.0.1.1", 80, "a.org"),
        ("127.0.1.2", 8443, "b.org"),
        ("127.0.1.2", 22, "b.org"),
    )


def test_a_port_of_this_hosts_loopback_stands_at_its_own_place_once() -> None:
    listed, hosts = stand_ins(
        Allowlist.of(("localhost:80", "127.0.0.1:80", "127.0.0.0/8:80", "[::1]:81", "127.0.0.1"))
    )

    assert hosts == ()
    assert [place[:2] for place in listed] == [("127.0.0.1", 80), ("::1", 81)]


def test_there_are_no_more_listeners_than_fit_into_a_message() -> None:
    listed, _ = stand_ins(Allowlist.of(f"host{number}.org" for number in range(1000)))

    assert len(listed) <= 201
