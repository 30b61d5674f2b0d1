"""`nanosup redteam`: tries to break out of real lanes of this host, and reports."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from sandbox.errors import HostError
from sandbox.jail.feature import Features
from sandbox.probe import host
from sandbox.tiers import tier
from sandbox.tiers.tier import Tier
from supervisor.arena import Arena
from supervisor.board.tail import sanitize

_NET = "net"
_ACCESSES = ("read", "write", _NET)
# Attempts with the guard "seal" that do something by themselves where nothing protects.
_PLANTED = (
    "git hooks",
    "core.fsmonitor, core.hooksPath, diff.external",
    "a filter by .gitattributes",
    "crafted trees: .git, .., aliases, a symlinked .gitmodules",
)
_AT_ONCE = 4  # lanes mostly wait
_BY_WIDTH = 58

# What an attempt's guard is: with namespaces, and without.
GUARDS = {
    "view": ("the view is read-only", "landlock; the warden"),
    "mounts": ("no capabilities, seccomp", "no capabilities, seccomp"),
    "filter": ("seccomp", "seccomp"),
    "processes": ("PID namespace", "landlock's domain, the warden"),
    "sockets": ("private /tmp and /run, landlock", "seccomp: no unix sockets"),
    "network": ("network namespace", "seccomp: no sockets"),
    "proxy": ("the proxy's list, network namespace", ""),
    "secrets": ("HOME of its own", "landlock: not on its list"),
    "host files": ("read-only root", "landlock"),
    "board": ("masked", "landlock: not on its list"),
    "devices": ("private /dev", "landlock"),
    "kernel files": ("masked, or read-only", "landlock"),
    "privileges": ("no_new_privs, an empty uid", "no_new_privs, an empty uid"),
    "descriptors": ("closed before the command", "closed before the command"),
    "limits": ("control groups, limits of processes", "limits of processes"),
    "lifetime": ("PID namespace", "the warden"),
    "seal": ("objects are read, nothing is run", "objects are read, nothing is run"),
}


def run(*, as_json: bool, only: str | None, control: bool) -> int:
    """0 when everything was stopped, and, with `control`, everything else was not; else 1.

    Raises:
        HostError: the tier that was asked for is not to be had here, or none is.
    """
    features = host.probe()
    tiers = _tiers(features, only)
    rows: list[dict[str, str]] = []
    controls: list[dict[str, str]] = []
    for held, access, answers in _attacks([*tiers, *((None,) if control else ())]):
        for answer in answers:
            row = {"tier": held.value if held else "none", "access": access, **answer}
            if held is None:
                controls.append(row)
            else:
                rows.append({**row, "guarded_by": _guard(answer, held)})
    through = [row for row in rows if row["result"] != "stopped"]
    idle = [row for row in controls if row["result"] != "escaped"]
    ok = not through and not idle
    if as_json:
        document = {"ok": ok, "uid": os.getuid(), "attempts": rows, "control": controls}
        print(json.dumps(document, ensure_ascii=True))
    else:
        _print(rows, controls)
        _conclude(rows, controls, through, idle)
    return 0 if ok else 1


def _tiers(features: Features, only: str | None) -> tuple[Tier, ...]:
    if only is not None:
        return (tier.choose(features, only),)
    found = tier.available(features)
    if not found:
        tier.choose(features)
        raise HostError("no lane can be enforced on this host")
    return found


def _attacks(
    tiers: Iterable[Tier | None],
) -> Iterator[tuple[Tier | None, str, list[dict[str, str]]]]:
    """What came of the attempts in each tier (None: nothing protects) and access, in order."""
    lanes = [
        (held, access)
        for held in tiers
        for access in _ACCESSES
        if access != _NET or (held is not None and held.namespaced)
    ]

    def attack(lane: tuple[Tier | None, str]) -> list[dict[str, str]]:
        held, access = lane
        if held is not None:
            with Arena(held) as arena:
                return arena.attack(access)
        # What each of these leaves behind is judged together, so nothing else may be there.
        with Arena(None) as arena:
            answers = arena.attack(access, "not:seal")
        for name in _PLANTED if access == "write" else ():
            with Arena(None) as arena:
                answers += arena.attack(access, name)
        return answers

    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        for alone, group in groupby(lanes, key=lambda lane: _shares_its_user(lane[0])):
            members = list(group)
            answered = map(attack, members) if alone else pool.map(attack, members)
            for (held, access), answers in zip(members, answered, strict=True):
                yield held, access, answers


def _shares_its_user(held: Tier | None) -> bool:
    """Whether a lane's processes are counted together with those of others: then one that takes
    all that it may have leaves none to its neighbours."""
    return held is not None and not held.namespaced


def _guard(answer: dict[str, str], held: Tier) -> str:
    words = GUARDS.get(answer["guard"], ("", ""))
    return words[0] if held.namespaced else words[1]


def _print(rows: list[dict[str, str]], controls: list[dict[str, str]]) -> None:
    free = {(row["access"], row["attempt"]): row for row in controls}
    for row in rows:
        verdict = "stopped" if row["result"] == "stopped" else row["result"].upper()
        where = f"{row['tier']}/{row['access']}"
        by = sanitize(row["by"]).replace("\n", " ")[:_BY_WIDTH]
        without = free.get((row["access"], row["attempt"]))
        shown = f"  without protection: {without['result']}" if without else ""
        print(f"{verdict:<8} {where:<14} {row['attempt']:<52} {by}  ({row['guarded_by']}){shown}")


def _conclude(
    rows: list[dict[str, str]],
    controls: list[dict[str, str]],
    through: list[dict[str, str]],
    idle: list[dict[str, str]],
) -> None:
    lanes = dict.fromkeys(f"{row['tier']}/{row['access']}" for row in rows)
    print(f"{len(rows) - len(through)} of {len(rows)} attempts were stopped, in {', '.join(lanes)}")
    for row in through:
        print(
            f"NOT STOPPED: {row['tier']}/{row['access']}: {row['attempt']}: {sanitize(row['by'])}"
        )
    if controls:
        print(
            f"control: {len(controls) - len(idle)} of {len(controls)} of the harmless ones "
            "succeed where nothing protects"
        )
    for row in idle:
        print(f"does nothing anyway: {row['access']}: {row['attempt']}: {sanitize(row['by'])}")
