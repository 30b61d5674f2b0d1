"""What holds for all tests: the --long option, what the host offers, and how many were skipped."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# A slow or busy host is no defect of what is tested, and examples that fail only by the clock are
# reported as flaky. What hangs is ended from outside.
settings.register_profile("nanosup", deadline=None)
settings.load_profile("nanosup")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run tests that take minutes")


_ROOMS = pytest.StashKey[str]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Lanes without namespaces are kept in a directory that every user can reach, and that goes.

    And SIGINT is not ignored, as it is where a shell has started us in the background: what is
    tested inherits that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "NANOSUP_ROOMS" not in os.environ:
        rooms = tempfile.mkdtemp(prefix="nanosup-test-rooms-", dir="/var/tmp")
        Path(rooms).chmod(0o1777)
        os.environ["NANOSUP_ROOMS"] = session.config.stash[_ROOMS] = rooms


def pytest_sessionfinish(session: pytest.Session) -> None:
    rooms = session.config.stash.get(_ROOMS, "")
    if rooms:
        del os.environ["NANOSUP_ROOMS"]
        shutil.rmtree(rooms, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    skip = pytest.mark.skip(reason="takes minutes; run with --long")
    for item in items:
        if "long" in item.keywords:
            item.add_marker(skip)


def pytest_report_header() -> list[str]:
    """What tests find here, so that a failure elsewhere can be told from a poorer host."""
    fuse = Path("/dev/fuse")
    access = "missing"
    if fuse.exists():
        access = "usable" if os.access(fuse, os.R_OK | os.W_OK) else "not usable"
    tools = [
        f"{tool}: {'yes' if shutil.which(tool) else 'no'}"
        for tool in ("bwrap", "fusermount3", "fuse-overlayfs", "strace", "npm")
    ]
    return [
        f"host: Linux {platform.release()}, uid {os.getuid()}, /dev/fuse {access}",
        f"tools: {', '.join(tools)}",
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = len(terminalreporter.stats.get("skipped", ()))
    terminalreporter.write_line(f"tests skipped: {skipped}{' (reasons below)' if skipped else ''}")
