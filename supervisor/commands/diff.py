"""`nanosup diff`: what a write phase, or the whole sprint, changed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from supervisor.board import place
from supervisor.board.observe import observe
from supervisor.board.tail import sanitize
from supervisor.errors import NotFoundError
from supervisor.model import lineage


def run(*, phase: str | None, sprint_id: str | None, as_json: bool, stat: bool) -> int:
    from sandbox.repository import repository
    from sandbox.repository.diff import diff

    here = place.find()
    seen = observe(place.choose(here.board, sprint_id))
    before, after = seen.record.base, lineage.head(seen.record, seen.phases)
    if phase is not None:
        if phase not in seen.phases:
            raise NotFoundError(
                f"sprint {seen.record.id} has no phase {phase!r}",
                hint=f"it has {', '.join(seen.phases)}",
            )
        done = seen.phases[phase].completed
        if done is None or done.outcome is None or done.outcome.sealed is None:
            raise NotFoundError(
                f"phase {phase!r} has sealed no change", hint="only completed write phases do"
            )
        before, after = done.owner.snapshot or before, done.outcome.sealed
    objects = (Path(here.board.objects_path),)
    change = diff(repository.find(here.top), before.commit, after.commit, object_dirs=objects)
    if as_json:
        listed = [
            {
                "path": file.path,
                "old_path": file.old_path,
                "change": file.change.value,
                "added": file.added,
                "deleted": file.deleted,
                "binary": file.binary,
                "flag": file.flag,
            }
            for file in change.files
        ]
        document = {"base": before.commit, "commit": after.commit, "files": listed}
        print(json.dumps({**document, "patch": change.text}, ensure_ascii=False))
    elif stat:
        for file in change.files:
            print(sanitize(f"{file.change.value:<9} +{file.added} -{file.deleted}\t{file.path}"))
    elif sys.stdout.isatty():
        print(sanitize(change.text), end="")
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(change.patch)
    for file in change.flagged:
        print(f"nanosup: {sanitize(file.path)}: {file.flag}", file=sys.stderr)
    return 0
