"""`nanosup clean`: removes what is acknowledged, old, and needed by nothing else."""

from __future__ import annotations

import json
import sys

from supervisor.board import place
from supervisor.errors import BoardError
from supervisor.upkeep import quarantine as aside
from supervisor.upkeep.upkeep import Report, Upkeep

_DAY_S = 86400.0


def run(*, older_than_days: float, dry_run: bool, quarantine: bool, as_json: bool) -> int:
    """0, or 20 where something on the board is damaged and was not put aside."""
    here = place.find()
    board = here.board

    def prune(sprint: str) -> tuple[list[str], list[str]]:
        from sandbox.repository import reference, repository

        return reference.prune(repository.find(here.top), f"{reference.PREFIX}{sprint}/")

    moved: list[str] = []
    if quarantine:
        hurt = aside.damaged(board)
        moved = hurt if dry_run else aside.put_aside(board, hurt)
    report = Upkeep(board, older_than_s=older_than_days * _DAY_S, dry=dry_run, prune=prune).run()
    if as_json:
        print(json.dumps(_document(report, moved, dry_run), ensure_ascii=False))
    else:
        _show(report, moved, dry_run)
    for error in report.damaged:
        print(f"nanosup: {error.message}", file=sys.stderr)
    return BoardError.exit_code if report.damaged and not (dry_run and moved) else 0


def _document(report: Report, moved: list[str], dry_run: bool) -> object:
    return {
        "dry_run": dry_run,
        "removed": [
            {"kind": one.kind.value, "name": one.name, "bytes": one.freed} for one in report.removed
        ],
        "kept": [{"name": one.name, "why": one.why} for one in report.kept],
        "bytes": report.freed,
        "damaged": [error.message for error in report.damaged],
        "quarantined": moved,
    }


def _show(report: Report, moved: list[str], dry_run: bool) -> None:
    verb = "would remove" if dry_run else "removed"
    for one in report.removed:
        print(f"{verb} {one.kind} {one.name} ({_size(one.freed)})")
    for kept in report.kept:
        print(f"kept {kept.name}: {kept.why}")
    for path in moved:
        print(f"{'would put' if dry_run else 'put'} aside {path}")
    if not report.removed and not moved:
        print("nothing to remove: `nanosup ack` says what is no longer needed")
    elif report.removed:
        print(f"{_size(report.freed)} {'would be ' if dry_run else ''}freed")


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
