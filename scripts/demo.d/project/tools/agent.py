"""A stand-in for a coding agent: no model, but real work in a real lane.

Usage: agent.py PHASE. Reads what earlier phases handed on from $NANOSUP_INPUTS and writes its own
files to $NANOSUP_OUTPUTS, as any agent does. Progress goes to stdout, a line at a time.
"""

import ast
import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

INPUTS = Path(os.environ["NANOSUP_INPUTS"])
OUTPUTS = Path(os.environ["NANOSUP_OUTPUTS"])
CODE = Path("textkit/text.py")
EXPORTS = Path("textkit/__init__.py")
TESTS = Path("tests/test_text.py")

# How long the reviewer goes on looking at its tree, for somebody to try to move it meanwhile: on a
# slow machine that takes longer too, so at least for as many times as its first look took.
WATCH_S = 2.5
WATCH_LOOKS = 20

FUNCTION = '''

def truncate(text: str, limit: int) -> str:
    """`text` in at most `limit` characters: cut between words, and marked with an ellipsis."""
    if len(text) <= limit:
        return text
    kept = text[:limit].rsplit(" ", 1)[0].rstrip()
    return kept[: max(limit - 1, 0)] + "…"
'''


def main() -> None:
    phase = sys.argv[1]
    PHASES[phase]()


def think() -> None:
    goal = the_goal()
    say(f"goal: {goal}")
    modules = sorted(str(path) for path in Path("textkit").glob("*.py"))
    functions = [node.name for node in functions_of(CODE)]
    say(f"read {len(modules)} modules; there are {', '.join(functions)}")
    lines = [
        f"# {goal}",
        "",
        f"- The code for it belongs in `{CODE}`, beside {', '.join(functions)}.",
        f"- `{EXPORTS}` names what is public; tests are in `{TESTS}`.",
        "- Done when words stay whole, short text stays as it is, and tests show both.",
    ]
    hand_on("think.md", "\n".join(lines) + "\n")


def plan() -> None:
    brief = (INPUTS / "think" / "think.md").read_text()
    say(f"read think.md: {brief.splitlines()[0].lstrip('# ')}")
    hand_on_json(
        "plan.json",
        {
            "summary": "a function truncate(text, limit), exported and tested",
            "steps": [
                {"file": str(CODE), "change": "add truncate(text, limit)"},
                {"file": str(EXPORTS), "change": "export truncate"},
                {"file": str(TESTS), "change": "a test for each example"},
            ],
            "examples": [
                {
                    "says": "cuts_between_words",
                    "text": "to be or not to be",
                    "limit": 10,
                    "gives": "to be or…",
                },
                {"says": "leaves_short_text_alone", "text": "to be", "limit": 10, "gives": "to be"},
            ],
        },
    )


def build() -> None:
    the_plan = json.loads((INPUTS / "plan" / "plan.json").read_text())
    for step in the_plan["steps"]:
        say(f"{step['file']}: {step['change']}")
    CODE.write_text(CODE.read_text() + FUNCTION)
    EXPORTS.write_text(
        EXPORTS.read_text()
        .replace("initials, slugify\n", "initials, slugify, truncate\n")
        .replace('"slugify"]', '"slugify", "truncate"]')
    )
    cases = "".join(
        f"    def test_{example['says']}(self):\n"
        f"        shown = truncate({example['text']!r}, {example['limit']})\n"
        f"        self.assertEqual(shown, {example['gives']!r})\n\n"
        for example in the_plan["examples"]
    )
    tests = TESTS.read_text().replace("initials, slugify\n", "initials, slugify, truncate\n")
    end = '\nif __name__ == "__main__":'
    TESTS.write_text(tests.replace(end, f"\nclass Truncate(unittest.TestCase):\n{cases}{end}"))
    passed, total = run_tests()
    say(f"{total} tests, {'all passed' if passed else 'FAILED'}")
    changed = git("status", "--porcelain").splitlines()
    git("add", "--all")
    git(
        "-c",
        "user.name=Stand-in",
        "-c",
        "user.email=stand-in@example.org",
        "commit",
        "--quiet",
        "-m",
        "Add truncate(): shorten text between words",
    )
    say(f"committed in the lane: {git('log', '--oneline', '-1')}")
    hand_on_json(
        "build.json",
        {
            "summary": the_plan["summary"],
            "files": [line[3:] for line in changed],
            "deviations": [],
            "tests": {"command": "python3 -m unittest", "passed": passed},
        },
    )
    sys.exit(0 if passed else 1)


def review() -> None:
    built = json.loads((INPUTS / "build" / "build.json").read_text())
    head = git("rev-parse", "HEAD")
    say(f"reading {', '.join(built['files'])}")
    say(git("log", "--oneline", "-1", "--stat").splitlines()[-1].strip())
    seen, watched = watch_the_tree()
    say(f"looked at the tree {watched['looks']} times: {'it moved' if seen else 'nothing moved'}")
    findings = []
    from textkit import truncate

    broken = [limit for limit in range(12) if len(truncate("to be or not to be", limit)) > limit]
    if broken:
        findings.append(
            {
                "severity": "low",
                "file": str(CODE),
                "what": f"truncate() returns more than `limit` characters for limit = {broken[0]}",
                "why": "the ellipsis itself needs a character",
            }
        )
        say(f"finding: {findings[0]['what']}")
    fixed = CODE.read_text().replace(
        "    if len(text) <= limit:",
        '    if limit < 1:\n        return ""\n    if len(text) <= limit:',
    )
    attempts = [
        try_to("fix it", lambda: CODE.write_text(fixed)),
        try_to("fix it in a new file", lambda: Path("textkit/text_fixed.py").write_text(fixed)),
        try_to("delete a test", TESTS.unlink),
        try_to("make it writable", lambda: CODE.chmod(0o666)),
    ]
    hand_on_json(
        "review.json",
        {
            "verdict": "pass",
            "summary": "does what the plan says, and its tests would fail without it",
            "findings": findings,
            "head": head,
            "files": sorted(git("ls-files").splitlines()),
            "appeared": sorted(seen),
            "watched": watched,
            "attempted": attempts,
        },
    )


def security() -> None:
    risky = {"eval", "exec", "compile", "__import__", "system", "popen", "loads"}
    findings = []
    files = sorted(Path("textkit").glob("*.py"))
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in risky:
                    findings.append(
                        {
                            "severity": "high",
                            "file": str(path),
                            "line": node.lineno,
                            "what": f"calls {name}()",
                        }
                    )
        secrets = re.findall(r"(?i)(?:secret|password|api_key)\s*=\s*['\"]", path.read_text())
        findings += [{"severity": "high", "file": str(path), "what": found} for found in secrets]
    say(f"scanned {len(files)} modules: {len(findings)} findings")
    hand_on_json(
        "security.json",
        {
            "verdict": "fail" if findings else "pass",
            "summary": "no dynamic code, no processes, no secrets",
            "findings": findings,
        },
    )


def qa() -> None:
    passed, total = run_tests()
    say(f"{total} tests, {'all passed' if passed else 'FAILED'}")
    hand_on_json(
        "qa.json",
        {
            "verdict": "pass" if passed else "fail",
            "summary": f"{total} tests run on the tree that was built",
            "commands": [{"command": "python3 -m unittest", "exit": 0 if passed else 1}],
            "findings": [],
        },
    )


def ship() -> None:
    verdicts = {
        name: json.loads((INPUTS / name / f"{name}.json").read_text())["verdict"]
        for name in ("review", "security", "qa")
    }
    say("; ".join(f"{name}: {verdict}" for name, verdict in verdicts.items()))
    hand_on_json(
        "ship.json",
        {
            "ship": set(verdicts.values()) == {"pass"},
            "title": "Add truncate(): shorten text between words",
            "message": "Text that is too long for its place is cut at a word, with an ellipsis.",
            "notes": ["`textkit.truncate(text, limit)` is new"],
            "open": ["truncate() with limit = 0 returns the ellipsis"],
        },
    )


def watch_the_tree() -> tuple[set[str], dict[str, object]]:
    """Looks at all there is, again and again. Returns the paths that appeared."""
    before = time.monotonic()
    first = tree()
    watch_s = max(WATCH_S, WATCH_LOOKS * (time.monotonic() - before))
    began, looks = time.time(), 0
    say("watching the tree")
    appeared: set[str] = set()
    while time.time() < began + watch_s:
        appeared |= tree() - first
        looks += 1
        time.sleep(0.05)
    return appeared, {"from": began, "to": time.time(), "looks": looks}


def tree() -> set[str]:
    here = {str(path) for path in Path(".").rglob("*") if path.parts[0] != ".git"}
    return here | {f"commit {line}" for line in git("rev-list", "HEAD").splitlines()}


def try_to(what: str, act) -> dict[str, object]:
    try:
        act()
    except OSError as error:
        name = errno.errorcode.get(error.errno, "?")
        say(f"tried to {what}: {error.strerror} ({name})")
        return {"tried": what, "refused": True, "errno": name, "text": error.strerror}
    say(f"tried to {what}: it worked")
    return {"tried": what, "refused": False}


def run_tests() -> tuple[bool, int]:
    ran = subprocess.run([sys.executable, "-m", "unittest"], capture_output=True, text=True)
    found = re.search(r"Ran (\d+) test", ran.stderr)
    return ran.returncode == 0, int(found.group(1)) if found else 0


def the_goal() -> str:
    return os.environ.get("NANOSUP_GOAL") or "improve textkit"


def functions_of(path: Path) -> list[ast.FunctionDef]:
    return [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)]


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.rstrip("\n")


def hand_on(name: str, text: str) -> None:
    (OUTPUTS / name).write_text(text)
    say(f"wrote {name}")


def hand_on_json(name: str, value: object) -> None:
    hand_on(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def say(line: str) -> None:
    print(line, flush=True)
    time.sleep(0.15)  # the live view is for people


PHASES = {
    "think": think,
    "plan": plan,
    "build": build,
    "review": review,
    "security": security,
    "qa": qa,
    "ship": ship,
}

if __name__ == "__main__":
    sys.path.insert(0, ".")
    main()
