"""Which hosts a lane may reach: entries, names and addresses, and the decision. Pure.

A name is let through because it is listed. Where it leads is decided by whoever runs its DNS, so
addresses are checked as well, and the one that was checked is the one that is connected to: what is
not public (a private network, this host, a cloud's metadata service) has to be listed itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_HEXADECIMAL = re.compile(r"0x[0-9a-f]*\Z")
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
# Public by the registries, and yet nobody's host: IPv4 behind 6to4, NAT64 and Teredo.
_TRANSLATED = (ip_network("64:ff9b::/96"), ip_network("2002::/16"), ip_network("2001::/32"))


class AllowlistError(ValueError):
    """Raised for an entry that is neither a host nor a network; says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a list.

    Attributes:
        name: lower case; "" where it is about addresses.
        below: any name below `name`, and not `name` itself.
        network: addresses; None where it is about a name.
        port: None: any.
    """

    name: str = ""
    below: bool = False
    network: Network | None = None
    port: int | None = None

    @property
    def is_here(self) -> bool:
        """Whether it names this host's loopback."""
        if self.network is not None:
            return _within(self.network, _LOOPBACK)
        return self.name == "localhost"


@dataclass(frozen=True, slots=True)
class Refused:
    """A destination that is not let through.

    Attributes:
        reason: for the log, and for who asked.
    """

    reason: str


def parse(text: str) -> Entry:
    """An entry as it is written: `example.org`, `*.example.org:443`, `10.1.0.0/16`, `[::1]:80`.

    Raises AllowlistError where it is none; says what is wrong.
    """
    if "://" in text:
        raise AllowlistError(f"{text!r} is neither a host nor a network: leave out the scheme")
    host, port = _split(text)
    if host.startswith("*."):
        name = normal(host[2:])
        if isinstance(name, str):
            return Entry(name=name, below=True, port=port)
        raise AllowlistError(f"{text!r}: what follows *. is not a host name")
    try:
        network = ip_network(host.strip("[]") if host.startswith("[") else host)
    except ValueError:
        pass
    else:
        return Entry(network=network, port=port)
    if "/" in host:
        raise AllowlistError(f"{text!r} is neither a host nor a network such as 10.1.0.0/16")
    name = normal(host)
    if not isinstance(name, str):
        raise AllowlistError(f"{text!r} is not a host name, an address or a network")
    return Entry(name=name, port=port)


def _split(text: str) -> tuple[str, int | None]:
    if text.count(":") > 1 and not text.startswith("["):
        return text, None  # a bare IPv6 address or network
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        return text, None
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise AllowlistError(f"{text!r}: {port!r} is not a port")
    return host, int(port)


def normal(host: str) -> str | Address | None:
    """A host as a client writes it, as a name in lower case or an address; None: neither.

    What inet_aton(3) would take for an address (`127.1`, `0x7f000001`, `2130706433`) is neither.
    """
    host = host.lower()
    if host.startswith("[") and host.endswith("]"):
        return _address(host[1:-1], 6)
    host = host.removesuffix(".")
    if (address := _address(host, 4)) is not None:
        return address
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.match(label) for label in labels):
        return None
    if labels[-1].isdigit() or _HEXADECIMAL.match(labels[-1]):
        return None
    return host


def _address(text: str, version: int) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if address.version != version or getattr(address, "scope_id", None) is not None:
        return None
    return plain(address)


def plain(address: Address) -> Address:
    """IPv4 that is written as IPv6 (::ffff:10.0.0.1) as IPv4."""
    return getattr(address, "ipv4_mapped", None) or address


@dataclass(frozen=True, slots=True)
class Allowlist:
    """What may be reached."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Allowlist:
        """Raises AllowlistError for the first that is no entry."""
        return cls(tuple(map(parse, texts)))

    def admit(self, host: str, port: int) -> str | Address | Refused:
        """What to look up or to connect to, where `host` may be asked for at all."""
        wanted = normal(host)
        if wanted is None:
            return Refused(f"{_shown(host)} is not a host name")
        if isinstance(wanted, str):
            if any(_names(entry, wanted, port) for entry in self.entries):
                return wanted
            return Refused(f"{wanted}:{port} is not listed")
        if self._lists(wanted, port):
            return wanted
        return Refused(f"the address {wanted}, port {port}, is not listed")

    def reachable(self, name: str, port: int, found: Sequence[Address]) -> list[Address] | Refused:
        """Which of the addresses `found` for `name`, which was admitted, may be connected to."""
        here = name == "localhost"
        kept = [
            address
            for address in map(plain, found)
            if is_public(address)
            or self._lists(address, port)
            or (here and _within(ip_network(address), _LOOPBACK))
        ]
        if kept:
            return kept
        if not found:
            return Refused(f"{name} has no address")
        return Refused(f"{name} leads to {found[0]}, which is not public and not listed itself")

    def _lists(self, address: Address, port: int) -> bool:
        return any(
            entry.network is not None
            and entry.port in (None, port)
            and entry.network.version == address.version
            and address in entry.network
            for entry in self.entries
        )


def is_public(address: Address) -> bool:
    """Whether `address` is somebody's on the internet, and nobody's here."""
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address.version == net.version and address in net for net in _TRANSLATED)
    )


def _names(entry: Entry, name: str, port: int) -> bool:
    if not entry.name or entry.port not in (None, port):
        return False
    return name.endswith("." + entry.name) if entry.below else name == entry.name


def _within(network: Network, others: Iterable[Network]) -> bool:
    return any(
        network.subnet_of(other)  # type: ignore[arg-type]
        for other in others
        if network.version == other.version
    )


def _shown(host: str) -> str:
    return ascii(host if len(host) <= 80 else host[:77] + "...")
