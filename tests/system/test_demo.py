"""The demo's claims hold: a whole sprint with stand-in agents, as root and as an ordinary user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ordinary import ROOT, ordinary_user, why_not

DEMO = [sys.executable, ROOT / "scripts" / "demo.d" / "demo.py", "--remove"]


def test_every_fact_of_the_demo_holds(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}

    done = run(DEMO, environment)

    assert done.returncode == 0, done.stdout
    assert "facts hold" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_every_fact_of_the_demo_holds_for_an_ordinary_user() -> None:
    with ordinary_user() as user:
        done = run(user.command(*DEMO), user.environment())

    assert done.returncode == 0, done.stdout
    assert "facts hold" in done.stdout


def run(
    command: list[str | Path] | list[str], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
