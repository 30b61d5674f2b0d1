"""`nanosup doctor`: what this host enforces, and whether it is enough for the fleet."""

from __future__ import annotations

import json
import os

from sandbox.errors import GitError, HostError
from sandbox.jail.feature import Features
from sandbox.probe import host
from sandbox.tiers import tier
from sandbox.tiers.tier import Tier
from supervisor.board import place
from supervisor.config import config
from supervisor.config.config import Config
from supervisor.errors import ConfigError
from supervisor.keeper.enforcement import enforced

# What `enforcement` says for each tier; "none" where there is none.
LEVELS = {Tier.FUSE: "full", Tier.KERNEL: "full", Tier.LANDLOCK: "reduced"}


def run(*, as_json: bool) -> int:
    """0 when lanes can be enforced here, and the fleet of this directory if there is one; else 18.

    Raises:
        ConfigError: there is a fleet, and its configuration is wrong.
    """
    try:
        here: place.Place | None = place.find()
    except GitError:
        here = None
    features = host.probe(str(here.state) if here else None)
    wanted = _fleet(here)
    held, refusal = _choose(features, wanted if isinstance(wanted, Config) else None)
    level = LEVELS[held] if held else "none"
    if as_json:
        print(json.dumps(_document(features, level), ensure_ascii=False))
    else:
        _print(features, level, held, refusal)
    if isinstance(wanted, ConfigError):
        raise wanted
    return 18 if refusal else 0


def _fleet(here: place.Place | None) -> Config | ConfigError | None:
    if here is None or not os.path.exists(here.top / config.FILE):
        return None
    try:
        return config.load(here.top)
    except ConfigError as error:
        return error  # said last: what the host can do is worth knowing all the same


def _choose(features: Features, wanted: Config | None) -> tuple[Tier | None, HostError | None]:
    """What lanes would be held by here, and why they cannot be."""
    try:
        if wanted is None:
            return tier.choose(features), None
        return enforced(features, wanted), None
    except HostError as error:
        return None, error


def _document(features: Features, level: str) -> dict[str, object]:
    found = {
        row.mechanism.value: {"ok": row.ok, "detail": row.detail, "fix": row.fix}
        for row in features.rows
    }
    return {"enforcement": level, "features": found | _tiers(features)}


def _tiers(features: Features) -> dict[str, dict[str, object]]:
    """Each tier as a feature of the host."""
    found: dict[str, dict[str, object]] = {}
    for each in Tier:
        missing = tier.lacking(features, each)
        found[f"tier_{each.value}"] = {
            "ok": not missing,
            "detail": f"lacks {', '.join(row.mechanism.value for row in missing)}"
            if missing
            else tier.describe(each),
            "fix": missing[0].fix if missing else "",
        }
    return found


def _print(features: Features, level: str, held: Tier | None, refusal: HostError | None) -> None:
    for row in features.rows:
        mark = "ok     " if row.ok else ("MISSING" if row.needed else "absent ")
        _line(mark, row.mechanism.value, row.detail, row.fix)
    for name, found in _tiers(features).items():
        chosen = held is not None and name == f"tier_{held.value}"
        mark = "in use " if chosen else ("ok     " if found["ok"] else "absent ")
        _line(mark, name, str(found["detail"]), str(found["fix"]))
    print(f"enforcement: {level}" + (f", by the {held.value} tier" if held else ""))
    if refusal is not None:
        print(f"not enough: {refusal.message}")
        if refusal.hint:
            print(f"  → {refusal.hint}")


def _line(mark: str, name: str, detail: str, fix: str) -> None:
    print(f"{mark} {name:<18} {detail}")
    if fix:
        print(f"        {'':<18} → {fix}")
