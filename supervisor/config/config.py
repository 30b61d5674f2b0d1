"""`nanosup.toml`: read, checked whole, and turned into phases and agents.

Everything that can be wrong with the file is found here, before anything starts, and said in one
line: the file, the key, what was expected.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sandbox.tiers.tier import requirement_names
from supervisor.config.constraint import check_home_paths, check_network, resolve
from supervisor.config.gate import gated, shipped, with_default
from supervisor.config.resource import presets, prompts
from supervisor.config.schema import AgentTable, File, Hooks, PhaseTable, Words, Workspace, convert
from supervisor.errors import ConfigError
from supervisor.model import ijson
from supervisor.model.graph import Graph, check_name, default_phases, nearest
from supervisor.model.name import file_fault
from supervisor.model.phase import Agent, Phase

FILE = "nanosup.toml"
_ANYONE = "anyone"
_BY_HAND = (
    "sh", "-c", "echo 'this sprint was begun by hand: no agent is configured for it' >&2; exit 1",
)  # fmt: skip


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What the file means.

    Attributes:
        agents: every agent that a phase names, by name.
    """

    workspace: Workspace
    graph: Graph
    agents: dict[str, Agent]
    hooks: Hooks = Hooks()


def load(top: Path, *, agent: str | None = None, graph: str | None = None) -> Config:
    """Reads `top/nanosup.toml`.

    Args:
        agent: takes every phase, whatever the file says; may be the name of a preset.
        graph: phases from elsewhere: a file (TOML or JSON), or JSON text.

    Raises:
        ConfigError: see the module's description.
    """
    path = top / FILE
    tables = _parse(path) if path.exists() else {}
    if not tables and agent is None and not path.exists():
        raise ConfigError(
            f"no {FILE} in {top}: the default graph needs an agent",
            hint=f"run `nanosup init`, or name one: `nanosup up --agent {_some_preset()}`",
        )
    if graph is None:
        return build(tables, path, agent=agent)
    tables["phase"] = _graph_tables(graph)
    return build(tables, path, agent=agent, name=f"{path.name} with --graph")


def load_graph(top: Path, *, graph: str | None = None) -> Config:
    """As `load`, for who needs no agent to be configured: work by hand.

    Raises:
        ConfigError: see the module's description.
    """
    if (top / FILE).exists():
        return load(top, graph=graph)
    tables: dict[str, Any] = {"agents": {}}
    if graph is not None:
        tables["phase"] = _graph_tables(graph)
    # Names of whoever people start. An `up` that goes on with such a sprint must not take them
    # for agents that it can run, and still less for work that is done.
    for name in (_ANYONE, *_named(tables.get("phase"))):
        tables["agents"][name] = {"command": list(_BY_HAND)}
    return build(tables, top / FILE, name="--graph" if graph is not None else FILE)


def _named(phases: Any) -> list[str]:
    """The agents that phases name and no preset is for, as far as they can be read."""
    tables = [one for one in phases if isinstance(one, dict)] if isinstance(phases, list) else []
    named = [one.setdefault("agents", [_ANYONE]) for one in tables]
    words = [name for names in named if isinstance(names, list) for name in names]
    return [name for name in words if isinstance(name, str) and name not in presets()]


def build(
    tables: Mapping[str, Any], path: Path, *, agent: str | None = None, name: str = ""
) -> Config:
    """Checks `tables`, as parsed from `path`, and says what they mean.

    Args:
        name: what errors call the source; the file's own name without it.
    """
    try:
        return _build(tables, path.parent, agent)
    except ConfigError as error:
        raise ConfigError(f"{name or path.name}: {error.message}", hint=error.hint) from None


def _build(tables: Mapping[str, Any], top: Path, override: str | None) -> Config:
    for key in tables:
        if key not in File.__struct_fields__:
            raise ConfigError(
                f"unknown key {key!r}",
                hint=nearest(key, File.__struct_fields__)
                or f"known: {', '.join(File.__struct_fields__)}",
            )
    workspace = convert(tables.get("workspace", {}), Workspace, "workspace")
    _check_paths(workspace.share, "workspace.share")
    _check_required(workspace.require)
    listed = tables.get("agents", {})
    if not isinstance(listed, dict):
        raise ConfigError("agents: expected tables [agents.NAME]", hint="see `nanosup init`")
    agents = {
        name: _agent(name, convert(table, AgentTable, f"agents.{name}"), workspace)
        for name, table in listed.items()
    }
    everyone = (override,) if override else tuple(agents)
    if "phase" in tables:
        phases = tuple(_phases(tables["phase"], top, everyone, workspace, bool(override)))
    else:
        if not everyone:
            raise ConfigError(
                "the default graph needs an agent",
                hint=f'add one: [agents.{_some_preset()}] with preset = "{_some_preset()}"',
            )
        phases = tuple(
            msgspec.structs.replace(
                phase,
                share=workspace.share,
                log_limit=workspace.log_limit,
                schemas=shipped(phase),
                max_rounds=workspace.max_rounds,
            )
            for phase in default_phases(everyone, prompts())
        )
        phases = tuple(with_default(phases, workspace))
    graph = Graph(phases)
    used = {name: None for phase in graph.order for name in phase.agents}
    return Config(
        workspace=workspace,
        graph=graph,
        agents={name: agents.get(name) or _known(name, agents, workspace) for name in used},
        hooks=convert(tables.get("hooks", {}), Hooks, "hooks"),
    )


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name}: not TOML: {error}", hint="mend that line") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path.name}: not UTF-8", hint="save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}", hint="check its permissions"
        ) from None


def _graph_tables(source: str) -> Any:
    text = source
    if not source.lstrip().startswith(("{", "[")):
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise ConfigError(
                f"--graph {source}: cannot be read", hint="give a TOML or JSON file, or JSON"
            ) from None
    try:
        if source.endswith(".toml"):
            document: Any = tomllib.loads(text)
        else:
            document = ijson.loads(text.encode())
    except (tomllib.TOMLDecodeError, ijson.StrictError) as error:
        raise ConfigError(f"--graph: {error}", hint="mend it") from None
    if isinstance(document, dict):
        known = document.get("phase", document.get("phases"))
        if known is None:
            raise ConfigError('--graph: no "phase" in it', hint='expected {"phase": [{"name": …}]}')
        return known
    return document


def _phases(
    tables: Any, top: Path, everyone: Words, workspace: Workspace, override: bool
) -> list[Phase]:
    if not isinstance(tables, list):
        raise ConfigError("phase: expected tables [[phase]]", hint="two brackets on either side")
    if not tables:
        raise ConfigError("phase: empty", hint="add a [[phase]], or leave the key out")
    known = prompts()
    phases = []
    for number, table in enumerate(tables, 1):
        name = table.get("name") if isinstance(table, dict) else None
        where = f"phase {name!r}" if isinstance(name, str) else f"phase no. {number}"
        phases.append(
            _phase(
                convert(table, PhaseTable, where), where, top, everyone, workspace, known, override
            )
        )
    said = [table["name"] for table in tables if "on_fail" in table]
    return with_default(phases, workspace, said)


def _phase(
    table: PhaseTable,
    where: str,
    top: Path,
    everyone: Words,
    workspace: Workspace,
    known: Mapping[str, str],
    override: bool,
) -> Phase:
    check_name(table.name, "phase")
    for output in table.outputs:
        check_output(output, where)
    _check_paths(table.scratch, f"{where}: scratch")
    _check_paths(table.share, f"{where}: share")
    agents = everyone if override or table.agents is None else table.agents
    if not agents:
        raise ConfigError(
            f"{where}: no agent", hint='add agents = ["NAME"], with a table [agents.NAME]'
        )
    if len(set(agents)) != len(agents):
        raise ConfigError(f"{where}: an agent is named twice in agents", hint="name it once")
    check_network(table.network, where)
    phase = Phase(
        max_rounds=workspace.max_rounds,
        name=table.name,
        depends_on=table.depends_on,
        access=table.access,
        agents=agents,
        prompt=_prompt(table, where, top, known),
        outputs=table.outputs,
        scratch=table.scratch,
        share=tuple(dict.fromkeys((*workspace.share, *table.share))),
        env=table.env,
        network=table.network,
        timeout_s=table.timeout_s,
        stall_s=table.stall_s,
        signs=table.signs,
        grace_s=table.grace_s,
        restarts=table.restarts,
        window_s=table.window_s,
        backoff_s=table.backoff_s,
        carry=table.carry,
        log_limit=workspace.log_limit if table.log_limit is None else table.log_limit,
        limits=resolve(table.limits, f"{where}: limits"),
    )
    return gated(phase, table, where, top)


def _prompt(table: PhaseTable, where: str, top: Path, known: Mapping[str, str]) -> str:
    if table.prompt is not None and table.prompt_file is not None:
        raise ConfigError(f"{where}: both prompt and prompt_file", hint="keep one of them")
    if table.prompt_file is None:
        return table.prompt if table.prompt is not None else known.get(table.name, "")
    path = top / table.prompt_file
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(
            f"{where}: prompt_file {table.prompt_file!r} cannot be read: {why}",
            hint=f"it is looked for in {top}",
        ) from None


def _agent(name: str, table: AgentTable, workspace: Workspace) -> Agent:
    check_name(name, "agent")
    if table.preset is None:
        if not table.command:
            raise ConfigError(
                f"agents.{name}: neither preset nor command",
                hint=f'add command = ["…"], or preset = one of: {", ".join(presets())}',
            )
        base = Agent(name=name, command=table.command)
    else:
        base = preset(table.preset, f"agents.{name}.preset")
    command = table.command or base.command
    write_back = _joined(base.write_back, table.write_back)
    check_home_paths(write_back, f"agents.{name}.write_back")
    check_home_paths(table.credentials, f"agents.{name}.credentials")
    return msgspec.structs.replace(
        base,
        name=name,
        preset=table.preset,
        command=(*command, *table.args),
        env={**base.env, **table.env},
        pass_env=_joined(base.pass_env, table.pass_env),
        credentials=_joined(base.credentials, table.credentials, write_back),
        write_back=write_back,
        home_read=_joined(base.home_read, table.home_read, workspace.home_read),
        end_events=_joined(base.end_events, table.end_events, table.fail_events),
        fail_events=_joined(base.fail_events, table.fail_events),
        end_grace_s=base.end_grace_s if table.end_grace_s is None else table.end_grace_s,
        rate_limited=table.rate_limited or base.rate_limited,
        not_logged_in=table.not_logged_in or base.not_logged_in,
        limits=resolve(table.limits, f"agents.{name}.limits").over(base.limits),
    )


def _known(name: str, agents: Mapping[str, Agent], workspace: Workspace) -> Agent:
    """An agent without a table of its own may be a preset by its name."""
    if name in presets():
        return _agent(name, AgentTable(preset=name), workspace)
    raise ConfigError(
        f"agent {name!r} is neither a table [agents.{name}] nor a preset",
        hint=nearest(name, [*agents, *presets()])
        or f"presets: {', '.join(presets())}; or add [agents.{name}]",
    )


def preset(name: str, where: str = "preset") -> Agent:
    """The preset `name` of configs/agents.

    Raises:
        ConfigError: no such preset.
    """
    known = presets()
    if name not in known:
        raise ConfigError(
            f"{where}: unknown preset {name!r}",
            hint=nearest(name, known) or f"presets: {', '.join(known)}",
        )
    return msgspec.convert({"name": name, **_parse(known[name])}, Agent)


def _check_required(names: Words) -> None:
    known = requirement_names()
    for name in names:
        if name not in known:
            raise ConfigError(
                f"workspace.require: unknown {name!r}",
                hint=nearest(name, known) or f"known: {', '.join(known)}",
            )


def _joined(*parts: Words) -> Words:
    return tuple(dict.fromkeys(word for part in parts for word in part))


def check_output(name: str, where: str) -> None:
    """Raises ConfigError unless `name` is a plain file name, and one that can be handed on."""
    if name in ("", ".", "..") or (fault := file_fault(os.fsencode(name))) is not None:
        said = "is not a plain file name" if "/" in name or name in ("", ".", "..") else fault
        raise ConfigError(
            f"{where}: outputs: {name!r} {said}",
            hint="outputs are files directly in $NANOSUP_OUTPUTS, such as 'review.json'",
        )


def _check_paths(paths: Words, where: str) -> None:
    for path in paths:
        parts = path.rstrip("/").split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in path or parts[0] == ".git":
            raise ConfigError(
                f"{where}: {path!r} is not a path inside the repository",
                hint="write it relative to the top, without '.' and '..', and outside .git",
            )


def _some_preset() -> str:
    return next(iter(presets()), "claude")
