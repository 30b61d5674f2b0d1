"""Where an agent finds things: the same in all lanes that have mounts, elsewhere in one without.

A lane without namespaces is in a room: a directory that its agent can reach at its own path,
outside of the repository and of the board.
"""

from __future__ import annotations

import hashlib
import os
import stat

from sandbox.errors import HostError
from supervisor.keeper.lane import BEAT_FILE, LaneDir, Places

_ABOVE = "/var/tmp"


def seen_in(lane: LaneDir, top: str) -> Places:
    """The places of a lane of the repository `top`."""
    if not lane.is_confined:
        return Places(top=top)
    return Places(
        top=lane.tree,
        inputs=lane.inputs,
        outputs=lane.outputs,
        prompt=lane.prompt,
        beat=os.path.join(lane.tmp, BEAT_FILE),
    )


def rooms(state: str, *, public: bool) -> str:
    """The directory for the rooms of the board `state`; made if it is not there.

    Args:
        public: another user must be able to traverse it.

    Raises:
        HostError: it cannot be made, or is not ours.
    """
    path = rooms_path(state)
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        # Everybody may write to /var/tmp: it may have been somebody else who made it.
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise HostError(
                f"{path} is not a directory of yours",
                hint="remove it, or set NANOSUP_ROOMS to a directory of your own",
            )
        os.chmod(path, 0o711 if public else 0o700)
    except OSError as error:
        raise HostError(
            f"lanes without namespaces need {path}: {error.strerror}",
            hint="set NANOSUP_ROOMS to a directory that the agents can reach",
        ) from error
    return os.path.realpath(path)


def rooms_path(state: str) -> str:
    """Where `rooms` makes its directory."""
    above = os.environ.get("NANOSUP_ROOMS") or _ABOVE
    digest = hashlib.sha256(os.fsencode(os.path.abspath(state))).hexdigest()[:16]
    return os.path.join(above, f"nanosup-{os.getuid()}-{digest}")
