"""What an agent is told: the command with its placeholders filled in, and the prompt. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from supervisor.model.phase import Phase
from supervisor.model.record import Input

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def fill(command: Sequence[str], values: Mapping[str, str]) -> tuple[str, ...]:
    """`command` with each {name} that `values` has replaced; all other braces stay as they are.

    One pass: what a value contains is never looked at again.
    """

    def value(match: re.Match[str]) -> str:
        return values.get(match.group(1), match.group(0))

    return tuple(_PLACEHOLDER.sub(value, word) for word in command)


def compose(
    phase: Phase,
    *,
    goal: str,
    inputs: Sequence[Input],
    judged_by: Sequence[str] = (),
    handoff: str = "",
) -> str:
    """The whole prompt for one attempt at `phase`.

    Args:
        judged_by: the gates whose "fail" has opened the phase again.
    """
    parts = [phase.prompt.strip() or f"Carry out the phase {phase.name!r} of this sprint."]
    if goal:
        parts.append(f"The goal of the sprint:\n\n{goal}")
    if inputs:
        files = "\n".join(f"- $NANOSUP_INPUTS/{item.phase}/{item.name}" for item in inputs)
        parts.append(f"Files that earlier phases hand to you (read-only):\n\n{files}")
    if judged_by:
        parts.append(
            f"This phase was done before, and the verdict of {', '.join(judged_by)} on what came "
            'of it is "fail". The tree has all that was done. Mend what they found wrong, and '
            "leave the rest as it is; the same gates look at it again."
        )
    if phase.outputs:
        files = "\n".join(f"- $NANOSUP_OUTPUTS/{name}" for name in phase.outputs)
        parts.append(f"You are done when these files exist:\n\n{files}")
    if phase.access.writes:
        parts.append("You may change the repository; it is yours alone for this phase.")
    else:
        parts.append(
            "The repository is read-only for you: every write to it fails with EROFS. Report "
            "what should be changed; do not try to change it."
        )
    if handoff:
        parts.append(handoff)
    return "\n\n".join(parts) + "\n"
