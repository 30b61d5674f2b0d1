"""`nanosup run` at a terminal: the command has one of its own, and the person notices nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleetbox import NANOSUP, Fleet, agent, phase
from tests.ordinary import ordinary_user, why_not
from tests.terminalbox import Terminal


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(
        tmp_path / "repo",
        agent("a", "true") + phase("look", agents=["a"], grace_s=2) + phase("ship", agents=["a"]),
    )
    made.env["TERM"] = "xterm-256color"
    yield made
    made.close()


def at_terminal(fleet: Fleet, *command: str, rows: int = 31, columns: int = 97) -> Terminal:
    argv = [NANOSUP, "run", "look", "--", *command]
    return Terminal(argv, fleet.top, fleet.env, rows=rows, columns=columns)


def shell(script: str) -> tuple[str, ...]:
    return "sh", "-c", script


def test_command_has_a_terminal_of_the_same_size_and_kind(fleet: Fleet) -> None:
    script = "test -t 0 -a -t 1 -a -t 2 && echo all; stty size; echo $TERM; echo end >/dev/tty"
    with at_terminal(fleet, *shell(script)) as terminal:
        terminal.expect("all\r\n31 97\r\nxterm-256color\r\nend\r\n")
        assert terminal.status() == "ended 0"
        assert terminal.is_restored
    assert fleet.states("look") == ["completed"]


def test_what_is_typed_arrives_and_is_shown_once(fleet: Fleet) -> None:
    with at_terminal(fleet, *shell('echo ready; read line; echo "got $line"')) as terminal:
        terminal.expect("ready")
        terminal.type("grüße\r".encode())
        terminal.expect("grüße\r\ngot grüße\r\n")
        assert terminal.status() == "ended 0"


def test_new_size_of_the_window_arrives(fleet: Fleet) -> None:
    script = 'trap "stty size; exit 3" WINCH; echo ready; while :; do sleep 0.05; done'
    with at_terminal(fleet, *shell(script)) as terminal:
        terminal.expect("ready")
        terminal.resize(50, 132)
        terminal.expect("50 132")
        assert terminal.status() == "ended 3"


def test_ctrl_c_goes_to_the_command_which_may_go_on(fleet: Fleet) -> None:
    script = (
        'trap "echo caught; caught=1" INT; echo ready; until [ $caught ]; do sleep 0.02; done\n'
        "trap - INT; echo after; while :; do sleep 0.02; done"
    )
    with at_terminal(fleet, *shell(script)) as terminal:
        terminal.expect("ready")
        terminal.type(b"\3")
        terminal.expect("caught")
        terminal.expect("after")
        terminal.type(b"\3")
        assert terminal.status() == "ended 130"
        assert terminal.is_restored
    assert fleet.attempts("look")[0]["exit"] == {"signal": signal.SIGINT}


# Answers each line that is typed, so that one sees whether it runs. Ctrl-C ends it by the signal's
# default: Python's own handler only sets a flag, and goes unnoticed where it comes between the last
# look at that flag and the read(2) of input(). At a bare pty that was one of six.
ECHO = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    "print('ready', flush=True)\nwhile True: print('got', input(), flush=True)"
)


def stop_and_go_on(terminal: Terminal) -> None:
    terminal.expect("ready")
    for word in ("one", "two"):
        terminal.type(b"\x1a")
        assert terminal.status() == "stopped"
        assert terminal.is_restored
        terminal.continue_job()
        terminal.type(f"{word}\r".encode())
        terminal.expect(f"got {word}")
    terminal.type(b"\3")
    assert terminal.status() == "ended 130"
    assert terminal.is_restored


def test_ctrl_z_stops_the_job_and_fg_goes_on_with_it(fleet: Fleet) -> None:
    with at_terminal(fleet, "/usr/bin/python3", "-c", ECHO) as terminal:
        stop_and_go_on(terminal)


def test_ctrl_z_stops_an_agent_that_reads_keys_raw_and_stops_itself(fleet: Fleet) -> None:
    script = (
        "import os, signal, sys, tty; tty.setraw(0); print('ready', flush=True)\n"
        "while (key := os.read(0, 1)) != b'q':\n"
        "    if key == b'\\x1a': os.kill(os.getpid(), signal.SIGSTOP); print('back', flush=True)\n"
        "    else: print('key', key[0], flush=True)\n"
    )
    with at_terminal(fleet, "/usr/bin/python3", "-c", script) as terminal:
        terminal.expect("ready")
        terminal.type(b"\3")
        terminal.expect("key 3")
        terminal.type(b"\x1a")
        assert terminal.status() == "stopped"
        terminal.continue_job()
        terminal.expect("back")
        terminal.type(b"q")
        assert terminal.status() == "ended 0"
        assert terminal.is_restored


def test_ctrl_z_without_a_shell_above_does_no_harm(fleet: Fleet) -> None:
    # The command is the terminal's session leader, as in `ssh -t HOST nanosup run …`.
    wrapped = [sys.executable, "-c", "import os, pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"]
    argv = [*wrapped, NANOSUP, "run", "look", "--", *shell("echo ready; read line; echo got $line")]
    with Terminal(argv, fleet.top, fleet.env, rows=24, columns=80) as terminal:
        terminal.expect("ready")
        terminal.type(b"\x1a")
        terminal.type(b"on\r")
        terminal.expect("got on")
        assert terminal.status() == "ended 0"


def test_status_of_the_command_and_errors_of_nanosup_are_told(fleet: Fleet) -> None:
    for command, code, said in [
        (shell("exit 7"), 7, ""),
        (shell("kill -TERM $$"), 143, ""),
        (("nowhere-to-be-found",), 127, "No such file"),
        (("/etc/passwd",), 126, "Permission denied"),
    ]:
        with at_terminal(fleet, *command) as terminal:
            assert terminal.status() == f"ended {code}"
            terminal.expect(said)
            assert terminal.is_restored
    argv = [NANOSUP, "run", "ship", "--json", "--", "true"]
    fleet.run("claim", "ship", "--agent", "me")
    with Terminal(argv, fleet.top, fleet.env, rows=24, columns=80) as terminal:
        assert terminal.status() == "ended 12"
        terminal.expect(r'\{"error": "Held".*"exit": 12\}\r\n')


def test_closed_window_ends_the_lane(fleet: Fleet) -> None:
    with at_terminal(fleet, *shell("echo ready; sleep 100")) as terminal:
        terminal.expect("ready")
        with fleet.events() as wait:
            terminal.hang_up()
            wait("attempt.ended")
    assert fleet.states("look")[0] in ("revoked", "failed")


def test_terminal_is_restored_when_the_keeper_is_killed(fleet: Fleet) -> None:
    with at_terminal(fleet, *shell("echo ready; sleep 100")) as terminal:
        terminal.expect("ready")
        os.kill(fleet.attempts("look")[0]["pid"], signal.SIGKILL)
        assert terminal.status() == "ended 125"
        assert terminal.is_restored
        terminal.expect("its keeper was killed by SIGKILL")
    assert fleet.states("look") == ["lost"]


def test_much_output_is_shown_whole(fleet: Fleet) -> None:
    with at_terminal(fleet, *shell("seq 100000; echo the-end")) as terminal:
        terminal.expect(r"99999\r\n100000\r\nthe-end\r\n")
        assert terminal.status() == "ended 0"


def test_pipes_beside_a_terminal_are_passed_through(fleet: Fleet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    inner = "stty size; read x; echo $x >&2; cat"
    script = f"{NANOSUP} run look -- sh -c '{inner}' < /dev/tty | cat > {out}"
    with Terminal(["sh", "-c", script], fleet.top, fleet.env, rows=24, columns=80) as terminal:
        terminal.type(b"hello\r")
        terminal.expect("hello\r\n.*hello\r\n")
        terminal.type(b"text\r\4")
        assert terminal.status() == "ended 0"
    assert out.read_text() == "24 80\ntext\n"


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_an_ordinary_user_has_a_terminal_too() -> None:
    with ordinary_user() as user:
        repo = user.directory / "repo"
        fleet = Fleet(repo, agent("a", "true") + phase("look", agents=["a"]))
        subprocess.run(["chown", "-R", f"{user.uid}:{user.uid}", str(repo)], check=True)
        argv = user.command(NANOSUP, "run", "look", "--", "/usr/bin/python3", "-c", ECHO)
        with Terminal(argv, fleet.top, user.environment(), rows=41, columns=90) as terminal:
            stop_and_go_on(terminal)


def test_terminal_without_namespaces_is_the_same(fleet: Fleet) -> None:
    fleet.configure(
        '[workspace]\nmount = "landlock"\n' + agent("a", "true") + phase("look", agents=["a"])
    )
    with at_terminal(fleet, "/usr/bin/python3", "-c", ECHO) as terminal:
        stop_and_go_on(terminal)


def test_what_an_agent_hands_on_is_shown_without_control_characters(fleet: Fleet) -> None:
    script = r"printf '\033]0;title\007\302\233text\n' > $NANOSUP_OUTPUTS/said.txt"
    with at_terminal(fleet, *shell(script)) as terminal:
        assert terminal.status() == "ended 0"
    show = [NANOSUP, "artifacts", "show", "look"]
    with Terminal(show, fleet.top, fleet.env, rows=31, columns=97) as terminal:
        shown = terminal.expect("(.*)text").group(1)
        assert terminal.status() == "ended 0"
    assert "\033]0" not in shown and "\x9b" not in shown
    assert "\033]0;title" in fleet.run("artifacts", "show", "look").stdout
