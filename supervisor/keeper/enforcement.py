"""Whether this host can enforce what a configuration asks for: asked before anything starts.

Imports nothing that serves a mount: `nanosup up` holds no lane, and need not wait for pyfuse3.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from sandbox.errors import HostError
from sandbox.jail.feature import Features
from sandbox.tiers.tier import Tier, choose
from supervisor.config.config import Config
from supervisor.keeper.bounds import check_limits
from supervisor.model.phase import Agent, Phase


def check_network(tier: Tier, phase: Phase) -> None:
    """Raises HostError where `tier` cannot keep the phase to its list of hosts."""
    if tier is Tier.LANDLOCK and not isinstance(phase.network, str):
        raise HostError(
            f"phase {phase.name!r}: network = a list of hosts needs a network namespace, which "
            "the landlock tier has not",
            hint='use "none" or "host", or make a better tier possible: see `nanosup doctor`',
        )


def enforced(features: Features, wanted: Config) -> Tier:
    """What the lanes of a fleet are held by here.

    Raises:
        HostError: this host cannot enforce what the configuration asks for.
    """
    tier = choose(features, wanted.workspace.mount, wanted.workspace.require)
    for phase in wanted.graph.order:
        check_phase(tier, phase, wanted.agents)
    return tier


def check_phase(tier: Tier, phase: Phase, agents: Mapping[str, Agent]) -> None:
    """Says on stderr what of a phase is not enforced in full.

    Raises:
        HostError: it cannot be, and has to be.
    """
    check_network(tier, phase)
    for name, why in check_limits(phase, agents, tier).items():
        print(f"nanosup: phase {phase.name!r}: limits.{name}: {why}", file=sys.stderr)
