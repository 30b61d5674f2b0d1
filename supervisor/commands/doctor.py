"""`nanosup doctor`: what this host enforces, a line each."""

from __future__ import annotations

import json

from sandbox import host


def run(*, as_json: bool) -> int:
    """0 when lanes can be enforced here, 18 when not."""
    features = host.probe()
    missing = [row for row in features.rows if row.needed and not row.ok]
    level = "none" if missing else "full"
    if as_json:
        document = {
            "enforcement": level,
            "features": {
                row.mechanism.value: {"ok": row.ok, "detail": row.detail, "fix": row.fix}
                for row in features.rows
            },
        }
        print(json.dumps(document, ensure_ascii=False))
    else:
        for row in features.rows:
            mark = "ok     " if row.ok else ("MISSING" if row.needed else "absent ")
            print(f"{mark} {row.mechanism.value:<18} {row.detail}")
            if not row.ok and row.fix:
                print(f"        {'':<18} → {row.fix}")
        print(f"enforcement: {level}")
    return 18 if missing else 0
