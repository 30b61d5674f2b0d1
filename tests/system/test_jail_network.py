"""The way out of a lane that may reach some hosts, seen from inside of a jail."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sandbox.jail.end import Exited
from sandbox.jail.feature import Features
from sandbox.net.allowlist import Allowlist
from sandbox.net.egress import Egress
from tests.keep import Keeper, Who, keep
from tests.system.jailing import features as features
from tests.system.jailing import who as who


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server of the host, on its loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def through(
    who: Who, features: Features, listed: tuple[str, ...], script: str
) -> tuple[object, str, list[dict[str, Any]]]:
    """How a Python script ended in a lane with this list, what it printed, what was recorded."""

    def act(kept: Keeper) -> tuple[object, str, list[dict[str, Any]]]:
        receive, send = os.pipe()

        def record(event: object) -> None:
            os.write(send, json.dumps(event).encode() + b"\n")

        with Egress(
            Allowlist.of(listed),
            record,
            uid=kept.lane.uid,
            gid=kept.lane.gid,
            features=features,
            keep=(send,),
        ) as egress:
            spec = kept.spec(
                *("/usr/bin/python3", "-c", script),
                way_out=egress.way_out,
            )
            with kept.start(spec) as jailed:
                end = jailed.wait(30)
        os.close(send)
        with open(receive, encoding="utf-8") as events:
            recorded = [json.loads(line) for line in events]
        return end, os.pread(kept.log, 65536, 0).decode(), recorded

    return keep(who, features, act)


FETCH = "import urllib.request as u; print(u.urlopen({url!r}, timeout=10).read().decode())"


def test_a_listed_server_is_reached_by_the_environment_alone(
    who: Who, features: Features, port: int
) -> None:
    url = f"http://127.0.0.1:{port}/"
    end, out, recorded = through(who, features, ("127.0.0.1",), FETCH.format(url=url))

    assert (end, out) == (Exited(0), "hello\n")
    assert recorded[0]["event"] == "allowed"


def test_a_listed_port_of_the_loopback_is_as_if_it_were_here(
    who: Who, features: Features, port: int
) -> None:
    script = "import os; [os.environ.pop(n) for n in list(os.environ) if 'PROXY' in n.upper()]\n"
    script += FETCH.format(url=f"http://127.0.0.1:{port}/")
    listed = (f"localhost:{port}", f"127.0.0.1:{port}", f"127.0.0.0/8:{port}")
    end, out, _ = through(who, features, listed, script)

    assert (end, out) == (Exited(0), "hello\n")


def test_what_is_not_listed_is_refused_in_words(who: Who, features: Features, port: int) -> None:
    script = f"""
import urllib.request, urllib.error
for url in ("http://127.0.0.1:{port}/", "http://169.254.169.254/", "http://localhost:{port}/"):
    try:
        urllib.request.urlopen(urllib.request.Request(url), timeout=10)
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode().strip())
"""
    script = "import os; os.environ.update(NO_PROXY='', no_proxy='')\n" + script
    _, out, recorded = through(who, features, ("example.org",), script)

    assert out.count("403 nanosup: ") == 3
    assert [event["event"] for event in recorded] == ["refused"] * 3


BESIDE = """
import socket
def attempt(what, act):
    try:
        print(what, "got", act())
    except OSError as error:
        print(what, "failed")
def udp(address):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(2)
    return s.sendto(b"x", address)
attempt("tcp", lambda: socket.create_connection(("127.0.0.1", {port}), 2))
attempt("metadata", lambda: socket.create_connection(("169.254.169.254", 80), 2))
attempt("public", lambda: socket.create_connection(("8.8.8.8", 53), 2))
attempt("udp", lambda: udp(("8.8.8.8", 53)))
attempt("dns", lambda: socket.getaddrinfo("example.org", 80))
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
"""


def test_there_is_no_way_beside_the_proxy(who: Who, features: Features, port: int) -> None:
    listed = ("*.example.org", "other.example")
    _, out, recorded = through(who, features, listed, BESIDE.format(port=port))

    assert out.split("\n")[:-1] == [
        f"{what} failed" for what in ("tcp", "metadata", "public", "udp", "dns", "raw", "packet")
    ]
    assert recorded == []


def test_a_listed_name_is_reached_by_programs_that_know_no_proxy(
    who: Who, features: Features
) -> None:
    """The name stands on the lane's loopback, and is looked up by the proxy when it is asked."""
    script = """
import socket
print(socket.gethostbyname("listed.invalid"))
for port in (443, 80):
    with socket.create_connection(("listed.invalid", port), 10) as client:
        print(client.recv(9))  # the proxy hangs up: there is no such host
"""
    end, out, recorded = through(who, features, ("listed.invalid", "*.invalid"), script)

    assert (end, out) == (Exited(0), "127.0.1.1\nb''\nb''\n")
    asked = [(event["event"], event["host"], event["port"]) for event in recorded]
    assert asked == [("refused", "listed.invalid", 443), ("refused", "listed.invalid", 80)]


def test_a_lane_without_network_has_not_even_the_proxy(who: Who, features: Features) -> None:
    _, out = keep(who, features, lambda kept: kept.run("env"))

    assert "proxy" not in out.lower()


def test_the_lanes_own_servers_are_reached_past_the_proxy(who: Who, features: Features) -> None:
    script = """
import http.server, threading
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
import urllib.request
print(urllib.request.urlopen(f"http://localhost:{server.server_address[1]}/").status)
"""
    end, out, recorded = through(who, features, ("example.org",), script)

    assert end == Exited(0)
    assert out.splitlines()[-1] == "200"
    assert recorded == []


def test_the_proxy_is_nobodys_and_writes_nothing(who: Who, features: Features) -> None:
    def act(kept: Keeper) -> tuple[str, list[str]]:
        with Egress(
            Allowlist.of(("example.org",)),
            lambda _: None,
            uid=kept.lane.uid,
            gid=kept.lane.gid,
            features=features,
        ) as egress:
            # It answers, so it has been confined.
            script = f"""
import socket
client = socket.create_connection(("127.0.0.1", {egress.way_out.port}))
client.send(b"x\\r\\n\\r\\n")
client.recv(9)
"""
            with kept.start(
                kept.spec("/usr/bin/python3", "-c", script, way_out=egress.way_out)
            ) as jailed:
                jailed.wait(30)
            with open(f"/proc/{egress.pid}/status", encoding="ascii") as status:
                return status.read(), sorted(os.listdir(f"/proc/{egress.pid}/fd"))

    status, fds = keep(who, features, act)

    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert "0" not in fields["Uid"].split()
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == ("2" if features.seccomp else "0")
    assert fields["CapEff"] == "0" * 16
    assert len(fds) <= 3 + 8


def test_the_proxy_dies_with_its_keeper(who: Who, features: Features) -> None:
    def act(kept: Keeper) -> int:
        egress = Egress(
            Allowlist.of(("example.org",)),
            lambda _: None,
            uid=kept.lane.uid,
            gid=kept.lane.gid,
            features=features,
        )
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(address)
            channel.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _pidfd(egress.pid))])
        return egress.pid

    address = f"\0nanosup-test-proxy-{os.getpid()}-{who.uid}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        keep(who, features, act)
        connection, _ = listener.accept()
        with connection:
            _, fds, _, _ = socket.recv_fds(connection, 1, 1)
    import select

    assert select.select(fds, [], [], 10)[0] == list(fds)
    os.close(fds[0])


def _pidfd(pid: int) -> bytes:
    import array

    return array.array("i", [os.pidfd_open(pid)]).tobytes()
