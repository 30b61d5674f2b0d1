"""What a .gitmodules must not say."""

from __future__ import annotations

import pytest

from sandbox.git.submodule import fault


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[submodule "../../hooks"]\n\tpath = x\n', "leads out"),
        (b'[submodule "a/../../b"]\n', "leads out"),
        (b'[submodule "a\\\\..\\\\b"]\n', "leads out"),
        (b"[submodule.a/../b]\n", "leads out"),
        (b'[submodule ""]\n', "leads out"),
        (b'[submodule "a"]\n\turl = -u./payload\n', "url that is taken for an option"),
        (b'[submodule "a"]\n\tpath = "-x"\n', "path that is taken for an option"),
        (b'[submodule "a"] url = --upload-pack=x\n', "url that is taken for an option"),
        (b'[submodule "a"]\n\tupdate = !touch /tmp/x\n', "runs a command"),
        (b'[submodule "a"]\n\tUPDATE = "!sh"\n', "runs a command"),
        (b'[submodule "a"]\n\tupdate = \\\n!sh\n', "runs a command"),
        (b'[submodule "a"]\n\turl = ext::sh -c x\n', "runs a command"),
        (b'[submodule "a"]\n\turl = https://x/%0ahost=y\n', "line break"),
        (b'[submodule "a"]\n\turl = "https://x/\\nhost=y"\n', "line break"),
    ],
)
def test_what_would_act_on_the_host_is_refused(content: bytes, said: str) -> None:
    assert said in fault(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'[submodule "lib/x"]\n\tpath = lib/x\n\turl = https://example.org/x.git\n',
        b'[submodule "x"]\n\tpath = x\n\turl = ../x.git\n\tupdate = rebase\n\tbranch = .\n',
        b'[submodule "a..b"]\n\tpath = a..b\n\turl = git@example.org:x.git\n',
    ],
)
def test_what_submodules_usually_say_is_fine(content: bytes) -> None:
    assert fault(content) == ""
