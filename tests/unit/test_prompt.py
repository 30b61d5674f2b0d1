"""What an agent is told."""

from __future__ import annotations

from supervisor.board.tail import sanitize
from supervisor.model.phase import Access, Phase
from supervisor.model.prompt import compose, fill
from supervisor.model.record import Input


def test_placeholders_are_filled_once_and_other_braces_left_alone() -> None:
    command = ("run", "{phase}", "--{prompt}", "{}", "${HOME}", "{a b}", '{"k": 1}', "{unknown}")

    assert fill(command, {"phase": "{prompt}", "prompt": "do {phase}"}) == (
        "run", "{prompt}", "--do {phase}", "{}", "${HOME}", "{a b}", '{"k": 1}', "{unknown}",
    )  # fmt: skip


def test_prompt_names_goal_inputs_outputs_and_what_is_forbidden() -> None:
    phase = Phase(name="review", agents=("a",), prompt="Review.", outputs=("review.json",))
    given = Input(phase="plan", attempt=1, name="plan.json", sha256="", size=0)

    text = compose(phase, goal="Add a thing", inputs=[given])

    assert text.startswith("Review.\n")
    assert "Add a thing" in text
    assert "$NANOSUP_INPUTS/plan/plan.json" in text
    assert "$NANOSUP_OUTPUTS/review.json" in text
    assert "read-only" in text


def test_writer_is_told_that_it_may_write() -> None:
    text = compose(Phase(name="b", agents=("a",), access=Access.WRITE), goal="", inputs=[])

    assert "You may change the repository" in text


def test_shown_text_moves_no_cursor_sets_no_title_and_hides_nothing() -> None:
    hostile = "\x1b[2J\x1b]0;pwned\x07\x1b]52;c;ZWNobw==\x1b\\a\rb\x9b31mc\u202ed\te\n"

    assert sanitize(hostile) == "ab31mcd\te\n"
