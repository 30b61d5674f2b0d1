"""The directories of a lane."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from supervisor.keeper.lane import LaneDir
from supervisor.model.phase import Access, Phase


@pytest.mark.skipif(os.geteuid() != 0, reason="gives directories to another user, which takes root")
def test_upper_is_there_with_its_owner_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is carried on as a layer, and the top of a tree has the owner that the layer's top has."""
    chown = os.chown

    class KilledError(Exception):
        pass

    def killed(path: str, *args: Any, **options: Any) -> None:
        if "upper" in os.path.basename(path):
            raise KilledError
        chown(path, *args, **options)

    phase = Phase(name="p", agents=("a",), access=Access.WRITE)
    monkeypatch.setattr(os, "chown", killed)
    with pytest.raises(KilledError):
        LaneDir(str(tmp_path / "one")).make(phase, uid=65520, gid=65520)
    monkeypatch.setattr(os, "chown", chown)
    LaneDir(str(tmp_path / "two")).make(phase, uid=65520, gid=65520)

    assert not os.path.exists(LaneDir(str(tmp_path / "one")).upper)
    assert os.stat(LaneDir(str(tmp_path / "two")).upper).st_uid == 65520
