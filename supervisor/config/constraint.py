"""What `nanosup.toml` says of the network and the limits of a lane, checked. Pure."""

from __future__ import annotations

from sandbox.jail.limit import NAMES, Limits, bytes_of
from sandbox.net.allowlist import Allowlist, AllowlistError
from supervisor.config.schema import LimitsTable, Words
from supervisor.errors import ConfigError
from supervisor.model.graph import nearest


def check_network(network: str | Words, where: str) -> None:
    """Raises ConfigError unless `network` is "none", "host" or a list of hosts."""
    if isinstance(network, str):
        if network not in ("none", "host"):
            raise ConfigError(
                f'{where}: network: expected "none", "host" or a list of host names, '
                f"got {network!r}",
                hint=f'for one host: network = ["{network}"]',
            )
        return
    try:
        Allowlist.of(network)
    except AllowlistError as error:
        raise ConfigError(
            f"{where}: network: {error}",
            hint='expected such as "example.org", "*.example.org:443", "127.0.0.1:8080", '
            '"10.1.0.0/16"',
        ) from None


def check_home_paths(paths: Words, where: str) -> None:
    """Raises ConfigError unless all are relative paths that stay below HOME."""
    for path in paths:
        parts = path.removesuffix("/").split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in path or parts[0] == "~":
            raise ConfigError(
                f"{where}: {path!r} is not a path below HOME",
                hint='write it relative to HOME, such as ".codex/auth.json"',
            )


def resolve(table: LimitsTable, where: str) -> Limits:
    """`limits` of a phase or an agent.

    Raises:
        ConfigError: a size that is none, or `required` names what is not set.
    """
    limits = Limits(
        memory=_size(table.memory, f"{where}.memory"),
        pids=table.pids,
        cpu=table.cpu,
        disk=_size(table.disk, f"{where}.disk"),
        open_files=table.open_files,
        processes=table.processes,
    )
    if isinstance(table.required, bool):
        required = limits.asked if table.required else ()
    else:
        required = table.required
    for name in required:
        if name not in NAMES:
            raise ConfigError(
                f"{where}.required: unknown limit {name!r}",
                hint=nearest(name, NAMES) or f"known: {', '.join(NAMES)}",
            )
    return Limits(**{name: getattr(limits, name) for name in NAMES}, required=required)


def _size(value: int | str | None, where: str) -> int | None:
    if not isinstance(value, str):
        return value
    size = bytes_of(value)
    if size is None:
        raise ConfigError(
            f"{where}: expected a size, got {value!r}", hint='write such as "512M", "4G", or bytes'
        )
    return size
