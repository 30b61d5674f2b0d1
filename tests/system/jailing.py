"""Fixtures for tests of the jail: what the host offers, and who nanosup runs as."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator

import pytest

from sandbox.errors import HostError
from sandbox.jail.feature import Features
from sandbox.probe import host
from tests.keep import Who, dwelling
from tests.ordinary import ordinary_user, why_not


@pytest.fixture(scope="module")
def features() -> Features:
    found = host.probe()
    try:
        host.require(found)
    except HostError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    return found


@pytest.fixture(scope="module", params=["root", "user"])
def who(request: pytest.FixtureRequest) -> Iterator[Who]:
    if request.param == "root":
        if os.getuid() != 0:
            pytest.skip("not run as root")
        with dwelling("root", 0, 0) as root:
            yield root
    elif os.getuid() != 0:
        with dwelling(pwd.getpwuid(os.getuid()).pw_name, os.getuid(), os.getgid()) as oneself:
            yield oneself
    elif reason := why_not():
        pytest.skip(reason)
    else:
        with ordinary_user() as user, dwelling(user.name, user.uid, user.uid) as ordinary:
            yield ordinary
