"""An agent that somebody starts in a terminal: it asks what there is to do, and does its part.

`by_hand.py PRODUCT PHASE…`: PRODUCT is whose name it goes by, and the phases are what it is for.
It knows nothing of other agents, and talks to them only by the files that phases hand on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

NANOSUP, PRODUCT, *MINE = sys.argv[1:]


def nanosup(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([NANOSUP, *arguments], capture_output=True, text=True)


def plan(work: Path) -> list[str]:
    path = work / "plan.json"
    path.write_text(json.dumps({"title": "greet", "steps": ["say hello"], "by": PRODUCT}))
    return [str(path)]


def build(_work: Path) -> list[str]:
    Path("hello.py").write_text('print("hello")\n')
    return []


def review(work: Path) -> list[str]:
    """Looks at what was built in a lane of its own: it cannot write there, and it is another's."""
    script = (
        "cat hello.py && ! touch hello.py 2>/dev/null && "
        "cp $NANOSUP_INPUTS/plan/plan.json $NANOSUP_OUTPUTS/seen.json && "
        """echo '{"verdict": "pass", "findings": []}' > $NANOSUP_OUTPUTS/review.json"""
    )
    done = nanosup("run", "review", "--agent", PRODUCT, "--", "sh", "-c", script)
    print(done.stdout + done.stderr, end="")
    return []


def main() -> int:
    work = Path.cwd().parent / f"{PRODUCT}.work"
    work.mkdir()
    todo = list(MINE)
    deadline = time.monotonic() + 60
    while todo and time.monotonic() < deadline:
        name = nanosup("next", "--agent", PRODUCT).stdout.strip()
        if name not in todo:
            time.sleep(0.1)  # somebody else's, or nothing: ask again, as agents do
            continue
        if name == "review":
            review(work)
        else:
            claimed = nanosup("claim", name, "--agent", PRODUCT)
            if claimed.returncode:
                continue
            files = {"plan": plan, "build": build}[name](work)
            artifacts = [part for path in files for part in ("--artifact", path)]
            token = claimed.stdout.strip()
            done = nanosup("complete", name, "--token", token, *artifacts)
            if done.returncode:
                print(done.stderr)
                return 1
        print(f"{PRODUCT} did {name}", flush=True)
        todo.remove(name)
    return 1 if todo else 0


if __name__ == "__main__":
    sys.exit(main())
