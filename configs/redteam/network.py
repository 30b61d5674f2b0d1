"""Ways out by the network, from a lane that has none."""

from __future__ import annotations

import socket
from pathlib import Path

from base import NEVER, ROOT, Context, Stopped, attempt, connected


@attempt("TCP to the host's loopback", "network")
def tcp(context: Context) -> str:
    return connected(("127.0.0.1", context.tcp_port), timeout_s=2)


@attempt("UDP to the host's loopback", "network")
def udp(context: Context) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.settimeout(0.5)
        channel.sendto(context.mark.encode(), ("127.0.0.1", context.udp_port))
        if channel.recv(16) != b"heard":
            raise Stopped("nobody has heard it")
        return "heard"


@attempt("the cloud's metadata address", "network", control=NEVER)
def metadata(context: Context) -> str:
    return connected(("169.254.169.254", 80), timeout_s=1)


@attempt("DNS to the host's resolver", "network", control=NEVER)
def dns(context: Context) -> str:
    lines = Path("/etc/resolv.conf").read_text().splitlines()
    servers = [line.split()[1] for line in lines if line.startswith("nameserver")]
    query = b"\x12\x34\x01\x00\x00\x01" + b"\0" * 6 + b"\x07example\x03org\0\0\x01\0\x01"
    failure: Exception = Stopped("there is no resolver")
    for server in servers or ["1.1.1.1"]:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
                channel.settimeout(0.5)
                channel.sendto(query, (server, 53))
                channel.recv(512)
                return f"{server} has answered"
        except OSError as error:
            failure = error
    raise failure


@attempt("raw packets", "network", control=ROOT)
def raw(context: Context) -> str:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3).close()
    return "opened"


@attempt("the hypervisor, by vsock", "network", control=NEVER)
def vsock(context: Context) -> str:
    socket.socket(40, socket.SOCK_STREAM).close()
    return "opened"
