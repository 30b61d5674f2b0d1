"""scripts/setup says what is missing where it cannot install it, and changes nothing then."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.ordinary import ROOT, ordinary_user, why_not

SETUP = ROOT / "scripts" / "setup"


@pytest.mark.skipif(bool(why_not()), reason=why_not())
@pytest.mark.skipif(not shutil.which("apt-get"), reason="no Debian: nothing to be told apart")
def test_somebody_who_cannot_install_is_told_what_to_ask_for() -> None:
    with ordinary_user() as user:
        bare = user.directory / "bin"
        bare.mkdir()
        (bare / "dpkg-query").write_text("#!/bin/sh\nexit 1\n")
        (bare / "dpkg-query").chmod(0o755)
        environment = user.environment()
        environment["PATH"] = f"{bare}:{environment['PATH']}"

        done = subprocess.run(
            user.command(SETUP),
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "apt-get install bubblewrap" in done.stderr


def test_an_unknown_option_is_wrong_usage() -> None:
    done = subprocess.run([SETUP, "--nonsense"], capture_output=True, text=True)

    assert done.returncode == 2
    assert "usage:" in done.stderr
