"""Measures, prints tables, and with --write puts them into docs/performance.md.

A topic is a module beside this one with `tables(options) -> str`: Markdown, with a heading.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from sample import ROOT, Options, say

PAGE = ROOT / "docs" / "performance.md"
TOPICS = ("lane", "mount", "board", "supervise", "jail")


def main() -> int:
    present = [name for name in TOPICS if Path(__file__).with_name(f"{name}.py").exists()]
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=f"of: {', '.join(present)}")
    parser.add_argument("--quick", action="store_true", help="small repository, fewer rounds")
    parser.add_argument("--write", action="store_true", help="put the tables into the docs")
    arguments = parser.parse_args()
    for name in arguments.topics:
        if name not in present:
            parser.error(f"no topic {name!r}; there are {', '.join(present)}")
    options = Options.of(arguments)
    for name in arguments.topics or present:
        say(name)
        text = f"{importlib.import_module(name).tables(options).rstrip()}\n"
        print(text, flush=True)
        if arguments.write:
            _write(name, f"{text}\n{_where()}\n")
    return 0


def _write(topic: str, text: str) -> None:
    """Replaces the section of a topic, or adds it."""
    begin, end = f"<!-- begin {topic} -->\n", f"<!-- end {topic} -->\n"
    page = PAGE.read_text()
    section = f"{begin}{text}{end}"
    found = re.search(f"{re.escape(begin)}.*?{re.escape(end)}", page, re.DOTALL)
    if found:
        page = page[: found.start()] + section + page[found.end() :]
    else:
        page = f"{page.rstrip()}\n\n{section}"
    PAGE.write_text(page)


def _where() -> str:
    git, bwrap = (
        subprocess.run([tool, "--version"], capture_output=True, text=True).stdout.strip()
        for tool in ("git", "bwrap")
    )
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: Linux {platform.release()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {git}, {bwrap}."
    )


if __name__ == "__main__":
    sys.exit(main())
