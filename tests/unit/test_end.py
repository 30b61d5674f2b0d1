from __future__ import annotations

import pytest

from sandbox.jail.end import Cause, End, Exited, Signaled, Unstarted, exit_code_of, read_end

EXIT_3 = 3 << 8
EXIT_143 = 143 << 8
TERM, KILL = 15, 9


def read(
    *,
    launcher: int = 0,
    agent: int | None = None,
    reported: int | None = None,
    built: bool = True,
    message: str = "",
) -> End:
    return read_end(launcher=launcher, agent=agent, reported=reported, built=built, message=message)


def test_the_kernels_account_tells_a_signal_from_an_exit_code() -> None:
    assert read(agent=TERM, reported=143) == Signaled(TERM)
    assert read(agent=EXIT_143, reported=143) == Exited(143)


def test_without_it_128_and_a_signal_is_read_as_a_signal_and_says_so() -> None:
    assert read(reported=143) == Signaled(TERM, certain=False)
    assert read(reported=128) == Exited(128)
    assert read(reported=255) == Exited(255)
    assert read(reported=3) == Exited(3)


def test_a_jail_that_was_killed_as_a_whole_was_signaled() -> None:
    assert read(launcher=KILL) == Signaled(KILL)
    assert read(launcher=KILL, agent=KILL) == Signaled(KILL)


def test_an_agent_that_had_ended_before_the_jail_was_killed_keeps_its_end() -> None:
    assert read(launcher=KILL, agent=EXIT_3) == Exited(3)


@pytest.mark.parametrize(
    ("message", "cause", "code"),
    [
        ("execvp nope: No such file or directory", Cause.NOT_FOUND, 127),
        ("execvp /etc/passwd: Permission denied", Cause.NOT_EXECUTABLE, 126),
        ("execvp ./text: Exec format error", Cause.NOT_EXECUTABLE, 126),
        ("", Cause.NOT_FOUND, 127),
        ("Can't chdir to /gone: No such file or directory", Cause.JAIL, 125),
    ],
)
def test_a_command_that_never_ran_says_why(message: str, cause: Cause, code: int) -> None:
    end = read(launcher=1 << 8, agent=1 << 8, message=message)

    assert end == Unstarted(cause, message)
    assert isinstance(end, Unstarted)
    assert end.code == code


def test_a_jail_that_was_not_built_is_not_the_commands_fault() -> None:
    end = read(launcher=1 << 8, built=False, message="")

    assert end == Unstarted(Cause.JAIL, "")


def test_the_exit_code_is_found_among_bubblewraps_documents() -> None:
    assert exit_code_of(b'{ "child-pid": 7, "net-namespace": 1 }\n{ "exit-code": 3 }\n') == 3
    assert exit_code_of(b'{ "child-pid": 7 }\n{ "exit-co') is None
    assert exit_code_of(b"") is None


def test_signals_have_names() -> None:
    assert Signaled(9).name == "SIGKILL"
    assert Signaled(40).name == "SIG40"
