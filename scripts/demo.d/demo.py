"""The demo: makes a repository, runs a sprint on it, meddles with it, and checks what is claimed.

Every line of the summary is a fact that was looked up after the run, in what git, the kernel
and nanosup's own commands say; one that is not so makes the exit status 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from sandbox import syscalls

HERE = Path(__file__).resolve().parent
NANOSUP = Path(sys.executable).with_name("nanosup")
GOAL = "Add truncate(): shorten text between words"
PHASES = ["think", "plan", "build", "review", "security", "qa", "ship"]
INTRUDER = "urgent-fix.txt"

Fingerprint = dict[str, tuple[int, int, str]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("--remove", action="store_true", help="remove the repository at the end")
    options = parser.parse_args()
    top = Path(tempfile.mkdtemp(prefix="nanosup-demo-"))
    repository = top / "textkit"
    try:
        return run(repository)
    finally:
        if options.remove:
            shutil.rmtree(top)
        else:
            print(f"\nThe repository is still there: {repository}")
            print(f"Look around: cd {repository} && {NANOSUP} status")


def run(repository: Path) -> int:
    prepare(repository)
    print(f"$ cd {repository}\n$ nanosup up --goal {GOAL!r}\n", flush=True)
    # Whatever outlives `nanosup up` becomes a child of this process, however it daemonised.
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    mounts = Path("/proc/self/mountinfo").read_text()
    first = fingerprint(repository)
    with meddling(repository) as meddler:
        began = time.monotonic()
        status = subprocess.run([NANOSUP, "up", "--goal", GOAL], cwd=repository).returncode
        took_s = time.monotonic() - began
    last = fingerprint(repository)

    print("\n$ nanosup logs review\n", flush=True)
    subprocess.run([NANOSUP, "logs", "review"], cwd=repository)
    print("\nWhat was looked up afterwards:\n")
    report = Report()
    sprint = check_sprint(report, repository, status, took_s)
    if sprint is not None:
        check_review(report, exported(repository), meddler)
        check_build(report, repository, sprint)
        verified = ask(repository, "artifacts", "verify")
        report.check(
            verified["ok"] and verified["checked"] >= len(PHASES),
            f"nanosup artifacts verify: {verified['checked']} are what their digests say",
            json.dumps(verified["bad"]),
        )
    moved = differing(first, meddler.before or last) | differing(meddler.after or last, last)
    report.check(
        not moved,
        "the host's working tree, index, config, hooks and refs are byte for byte what they were",
        ", ".join(sorted(moved)),
    )
    check_nothing_left(report, repository, mounts)
    return report.end()


# --- the repository, and what happens to it meanwhile ------------------------------------------


def prepare(repository: Path) -> None:
    shutil.copytree(HERE / "project", repository, ignore=shutil.ignore_patterns("__pycache__"))
    git(repository, "init", "--quiet", "--initial-branch=main")
    git(repository, "config", "user.name", "Demo")
    git(repository, "config", "user.email", "demo@example.org")
    hook = repository / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 0\n")
    hook.chmod(0o755)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "textkit: slugify and initials")


@dataclass
class Meddler:
    """Somebody who commits to the host's repository while the review runs."""

    repository: Path
    before: Fingerprint = field(default_factory=dict)
    after: Fingerprint = field(default_factory=dict)
    committed_at: float | None = None
    given_up: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        if not self._review_watches():
            return
        # Only what nanosup does is to be compared, not this commit.
        self.before = fingerprint(self.repository)
        (self.repository / INTRUDER).write_text("committed on the host, during review\n")
        git(self.repository, "add", INTRUDER)
        git(self.repository, "commit", "--quiet", "--message", "Meanwhile, on the host")
        self.committed_at = time.time()
        self.after = fingerprint(self.repository)

    def _review_watches(self) -> bool:
        logs = self.repository / ".git" / "nanosup" / "sprints"
        while not self.given_up.wait(0.02):
            for log in logs.glob("*/phases/review/attempts/*/stdout.log"):
                if "watching the tree" in log.read_text():
                    return True
        return False


@contextmanager
def meddling(repository: Path) -> Iterator[Meddler]:
    meddler = Meddler(repository)
    thread = threading.Thread(target=meddler.run)
    thread.start()
    try:
        yield meddler
    finally:
        meddler.given_up.set()
        thread.join()


def fingerprint(repository: Path) -> Fingerprint:
    """All files that are not nanosup's own, git's among them: mode, modification time, digest.

    git's object store is left out: objects are only ever added to it, under names that are
    their digests. So is what nanosup may add: its directory, and refs below refs/nanosup.
    """
    found: Fingerprint = {}
    ours = (".git/nanosup/", ".git/objects/", ".git/refs/nanosup/", ".git/logs/refs/nanosup/")
    for directory, _, names in os.walk(repository):
        for name in names:
            path = Path(directory, name)
            relative = str(path.relative_to(repository))
            if not relative.startswith(ours):
                info = path.lstat()
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[relative] = (info.st_mode, info.st_mtime_ns, digest)
    return found


def differing(one: Fingerprint, other: Fingerprint) -> set[str]:
    return {path for path in one.keys() | other.keys() if one.get(path) != other.get(path)}


# --- the checks --------------------------------------------------------------------------------


@dataclass
class Report:
    facts: int = 0
    failed: int = 0

    def check(self, holds: object, fact: str, otherwise: str = "") -> None:
        self.facts += 1
        if holds:
            print(f"  ok    {fact}")
        else:
            self.failed += 1
            print(f"  FAIL  {fact}" + (f"\n        {otherwise}" if otherwise else ""))

    def end(self) -> int:
        if self.failed:
            print(f"\n{self.failed} of {self.facts} facts do not hold.")
            return 1
        print(f"\nAll {self.facts} facts hold.")
        return 0


def check_sprint(report: Report, repository: Path, status: int, took_s: float) -> str | None:
    """The id of the sprint, if it completed."""
    sprints = ask(repository, "status")["sprints"]
    phases = sprints[0]["phases"] if sprints else []
    done = [phase["name"] for phase in phases if phase["state"] == "completed"]
    completed = status == 0 and sorted(done) == sorted(PHASES)
    report.check(
        completed,
        f"the sprint completed: {len(done)} phases, {took_s:.1f} s",
        f"nanosup up ended with {status}; completed: {', '.join(done) or 'no phase'}",
    )
    return sprints[0]["id"] if completed else None


def check_review(report: Report, review: dict[str, Any], meddler: Meddler) -> None:
    attempts = review["attempted"]
    refused = [attempt for attempt in attempts if attempt.get("errno") == "EROFS"]
    report.check(
        refused and len(refused) == len(attempts),
        f"the reviewer tried {len(attempts)} times to change what it reviews; the kernel said: "
        f"{refused[0]['text'] if refused else '?'}",
        json.dumps(attempts),
    )
    watched = review["watched"]
    report.check(
        meddler.committed_at is not None and watched["from"] < meddler.committed_at < watched["to"],
        "a file was committed on the host while the reviewer was looking at its tree",
        f"committed at {meddler.committed_at}, looking from {watched['from']} to {watched['to']}",
    )
    report.check(
        not review["appeared"] and INTRUDER not in review["files"],
        f"it did not appear in the reviewer's lane ({watched['looks']} looks)",
        json.dumps(review["appeared"]),
    )


def check_build(report: Report, repository: Path, sprint: str) -> None:
    ref = f"refs/nanosup/{sprint}/build"
    changed = git(repository, "diff", "--name-only", f"{ref}~1", ref).split()
    there = "def truncate" in git(repository, "show", f"{ref}:textkit/text.py")
    report.check(there, f"the change is on {ref} ({len(changed)} files)")
    with tempfile.TemporaryDirectory() as checkout:
        archive = subprocess.run(
            ["git", "archive", ref], cwd=repository, stdout=subprocess.PIPE, check=True
        ).stdout
        subprocess.run(["tar", "-x"], cwd=checkout, input=archive, check=True)
        tests = subprocess.run(
            [sys.executable, "-m", "unittest"], cwd=checkout, capture_output=True, text=True
        )
    ran = next((line for line in tests.stderr.splitlines() if line.startswith("Ran ")), "")
    report.check(
        tests.returncode == 0, f"checked out here, it passes its tests ({ran})", tests.stderr
    )
    fsck = subprocess.run(
        ["git", "fsck", "--connectivity-only"], cwd=repository, capture_output=True, text=True
    )
    report.check(fsck.returncode == 0, "git fsck: the repository is whole", fsck.stderr.strip())


def check_nothing_left(report: Report, repository: Path, mounts: str) -> None:
    # A keeper that has written its outcome needs a moment to put its lane away.
    deadline = time.monotonic() + 2.0
    while descendants() and time.monotonic() < deadline:
        time.sleep(0.02)
    left = [f"{child.pid} {child.name()}" for child in descendants()]
    report.check(not left, "no process is left", ", ".join(left))
    path = str(repository)
    mounted = [
        f"pid {process.name}"
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and path in read(process / "mountinfo")
    ]
    # What others mount on this host meanwhile is their own affair.
    known = set(mounts.splitlines())
    mounted += [
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line not in known and "nanosup" in line
    ]
    report.check(not mounted, "no mount is left", ", ".join(mounted))


def descendants() -> list[psutil.Process]:
    """Living processes below this one. Adopted ones that have ended are reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass
    return psutil.Process().children(recursive=True)


# --- asking ------------------------------------------------------------------------------------


def ask(repository: Path, *command: str) -> Any:
    done = subprocess.run(
        [NANOSUP, *command, "--json"], cwd=repository, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def exported(repository: Path) -> Any:
    with tempfile.TemporaryDirectory() as out:
        subprocess.run(
            [NANOSUP, "artifacts", "export", out], cwd=repository, check=True, capture_output=True
        )
        return json.loads((Path(out) / "review" / "review.json").read_text())


def git(repository: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=repository, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # it ended, or is another user's


if __name__ == "__main__":
    sys.exit(main())
