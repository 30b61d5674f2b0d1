"""The running lane, from the start of its command to its end, and the end of its mount."""

from __future__ import annotations

import os
from pathlib import Path

from sandbox.errors import MountError
from sandbox.jail.end import End
from sandbox.jail.held import Held
from supervisor.board import pulse
from supervisor.board.board import SprintDir
from supervisor.board.pause import paused_question
from supervisor.keeper.charge import Charge
from supervisor.keeper.lane import BEAT_FILE, LaneDir
from supervisor.keeper.log import NAMES, Log
from supervisor.keeper.mount import Mount
from supervisor.keeper.session import Finding, Session
from supervisor.keeper.vigil import Vigil
from supervisor.keeper.wakeup import Wakeup
from supervisor.model.record import AttemptState


def watch(
    charge: Charge, sprint: SprintDir, jailed: Held, server: Mount, wakeup: Wakeup
) -> Finding:
    """Returns what became of a lane once nothing of it is left.

    Raises:
        MountError: its file system did not end well, and the attempt would have been completed.
    """
    phase, path = charge.phase, charge.attempt.path
    lane = LaneDir(charge.attempt.lane_path)

    def tell(event: str, **fields: object) -> None:
        sprint.journal.note(event, phase=phase.name, attempt=charge.attempt.n, **fields)

    vigil = Vigil(
        phase,
        tell,
        wakeup,
        is_paused=paused_question(sprint, phase.name),
        foreground=charge.order.foreground,
    )
    logs = tuple(
        Log(os.path.join(path, name), fd, phase.log_limit)
        for name, fd in zip(NAMES, charge.logs, strict=False)
    )
    beat = os.path.join(lane.tmp, BEAT_FILE)
    lane_pulse = pulse.LanePulse(path, charge.pulse, server.counters)
    look = charge.bounds.looked_after(lane_pulse.refresh)
    end: End | None = None
    with Session(phase, charge.agent, path, logs, beat=beat, tell=tell) as session:
        ending = session.watch(vigil, jailed, server, look, always=charge.bounds.are_looked_after)
        if not ending.stuck:
            jailed.kill()
            end = jailed.wait()
            charge.refresh.take_back(Path.home(), Path(lane.home), tell)
        jailed.abandon()
        finding = session.find(jailed, end)
    if ending.served:
        try:
            server.stop()
        except MountError as error:
            # Whether all of it was written matters only to what is sealed.
            if finding.state is AttemptState.COMPLETED:
                raise
            tell("mount.failed", reason=error.message)
    lane_pulse.refresh()
    return finding
