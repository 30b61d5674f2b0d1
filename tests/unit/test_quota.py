"""Lanes that several sprints of one process share."""

from __future__ import annotations

from supervisor.model.quota import Quota


def test_lanes_of_the_others_count_and_those_given_up_wake_them() -> None:
    quota = Quota()
    woken: list[str] = []
    for sprint in ("a", "b", "c"):
        quota.join(sprint, lambda sprint=sprint: woken.append(sprint))

    quota.note("a", 3)
    quota.note("b", 1)
    assert (quota.others("a"), quota.others("b"), quota.others("c")) == (1, 3, 4)
    assert woken == []

    quota.note("a", 2)
    assert woken == ["b", "c"]
    quota.leave("a")
    assert woken == ["b", "c", "b", "c"]
    assert quota.others("b") == 0
