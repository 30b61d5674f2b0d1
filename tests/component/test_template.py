"""The process that keepers are forked from."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.fleet import template
from supervisor.fleet.template import Template, keeper_log
from supervisor.keeper.order import Order


def test_one_that_is_slow_to_get_ready_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overloaded machines would begin one after the other, and never see one ready."""
    monkeypatch.setattr(template, "_ANSWER_S", 0.05)  # less than any interpreter starts in
    state = str(tmp_path)
    order = Order(state=state, top=state, sprint="none", phase="p", n=1, agent="a")

    with Template(keeper_log(state), state) as begun:
        assert begun.spawn(order) > 0  # a keeper that ends at once: there is no such sprint
