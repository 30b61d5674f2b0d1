"""The tables of `nanosup.toml`, and how a table that is wrong is talked about.

`configs/nanosup.schema.json` says the same for editors.
"""

from __future__ import annotations

import inspect
import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from supervisor.errors import ConfigError
from supervisor.model.graph import nearest
from supervisor.model.phase import LOG_LIMIT, Access, Carry, OnFail, Sign, Symptom

Seconds = Annotated[float, Meta(gt=0, le=366 * 86400)]
LogLimit = Annotated[int, Meta(ge=1 << 16, le=1 << 50)]
Rounds = Annotated[int, Meta(ge=0, le=1000)]
Words = tuple[str, ...]


class Workspace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[workspace]`: what holds for every lane.

    Attributes:
        snapshot: what a sprint starts from: the commit, or the working tree as it is.
        share: directories of the host's working tree bound read-only into every lane.
        home_read: further paths under HOME that lanes may read.
        max_lanes: lanes at once, over all sprints that one `nanosup up` runs.
        stack: base a sprint on what the one before it has sealed.
        log_limit: bytes that each log of a lane may take.
        on_fail, max_rounds: for every gate with a write phase before it that does not say itself.
        mount: what lanes are held by: a tier, or the best that the host has.
        require: tiers and mechanisms (as `doctor` names them) without which nothing is started.
    """

    snapshot: Literal["commit", "worktree"] = "commit"
    share: Words = ()
    home_read: Words = ()
    max_lanes: Annotated[int, Meta(ge=1, le=1000)] = 4
    stack: bool = False
    log_limit: LogLimit = LOG_LIMIT
    on_fail: OnFail = OnFail.REJECT
    max_rounds: Rounds = 2
    mount: Literal["auto", "fuse", "kernel", "landlock"] = "auto"
    require: Words = ()


Size = Annotated[int, Meta(ge=1, le=1 << 60)] | Annotated[str, Meta(max_length=32)]
Count = Annotated[int, Meta(ge=1, le=1 << 22)]


class LimitsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`limits`: how much of the host a lane may use.

    Attributes:
        memory: bytes, or such as "4G"; page cache and what is kept in /dev/shm included.
        pids: processes and threads.
        cpu: processors, e.g. 1.5.
        disk: bytes that the lane may have on disk.
        open_files: of each process.
        processes: as pids, without a control group.
        required: true, or names: without these nothing is started.
    """

    memory: Size | None = None
    pids: Count | None = None
    cpu: Annotated[float, Meta(ge=0.01, le=4096)] | None = None
    disk: Size | None = None
    open_files: Count | None = None
    processes: Count | None = None
    required: bool | Words = False


class AgentTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[agents.NAME]`: a preset and changes to it, or a command."""

    preset: str | None = None
    command: Words | None = None
    args: Words = ()
    env: dict[str, str] = {}
    pass_env: Words = ()
    credentials: Words = ()
    write_back: Words = ()
    home_read: Words = ()
    end_events: Words = ()
    fail_events: Words = ()
    end_grace_s: Annotated[float, Meta(ge=0, le=3600)] | None = None
    rate_limited: Symptom | None = None
    not_logged_in: Symptom | None = None
    limits: LimitsTable = LimitsTable()


class PhaseTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[phase]]`."""

    name: str
    depends_on: Words = ()
    access: Access = Access.READ
    agents: Words | None = None
    prompt: str | None = None
    prompt_file: str | None = None
    outputs: Words = ()
    scratch: Words = ()
    share: Words = ()
    env: dict[str, str] = {}
    network: str | Words = "host"
    timeout_s: Seconds = 3600.0
    stall_s: Seconds | None = None
    signs: tuple[Sign, ...] = (Sign.OUTPUT, Sign.CPU, Sign.FS)
    grace_s: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    restarts: Annotated[int, Meta(ge=0, le=100_000)] = 1
    window_s: Seconds | None = None
    backoff_s: Annotated[float, Meta(ge=0, le=3600)] = 0.5
    carry: Carry = Carry.RESUME
    gate: bool | None = None
    log_limit: LogLimit | None = None
    on_fail: OnFail | None = None
    max_rounds: Rounds | None = None
    schemas: dict[str, str] = {}
    limits: LimitsTable = LimitsTable()


class Hooks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[hooks]`: a command of yours that is told what happens, outside of all lanes.

    Attributes:
        on_event: the command; it gets the event as JSON on stdin.
        events: the names of those that it is told of; all, if there are none.
        timeout_s: seconds after which it is killed.
    """

    on_event: Words = ()
    events: Words = ()
    timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 10.0


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of `nanosup.toml`."""

    workspace: Workspace = msgspec.field(default_factory=Workspace)
    agents: dict[str, AgentTable] = {}
    phase: tuple[PhaseTable, ...] | None = None
    hooks: Hooks = msgspec.field(default_factory=Hooks)


_Table = TypeVar("_Table", bound=msgspec.Struct)


def convert(table: Any, kind: type[_Table], where: str) -> _Table:
    """msgspec.convert, with its error in our words.

    Raises:
        ConfigError: with the key's path, what was expected, and the nearest known key.
    """
    if isinstance(table, dict):
        for key in table:
            if key not in kind.__struct_fields__:
                raise ConfigError(
                    f"{where}: unknown key {key!r}",
                    hint=nearest(key, kind.__struct_fields__)
                    or f"known: {', '.join(kind.__struct_fields__)}",
                )
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        said = str(error)
        raise ConfigError(f"{where}{_in_our_words(said)}", hint=_hint(said)) from None


_TYPE_HINT = "see `nanosup init` for every key with its type"
_CHOICES = {"signs": tuple(Sign), "access": tuple(Access), "carry": tuple(Carry)}
_INSIDE = dict.fromkeys(("rate_limited", "not_logged_in"), Symptom.__struct_fields__)
_AT = re.compile(r" - at `\$(.*)`$")
_TYPES = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}


def _hint(text: str) -> str:
    """What to write instead, for a word that is none of those that are allowed."""
    at = _AT.search(text)
    key = re.sub(r"\[.*?\]", "", at.group(1)).rpartition(".")[2] if at else ""
    if "enum value" in text and key in _CHOICES:
        return "one of: " + ", ".join(_CHOICES[key])
    if "unknown field" in text and key in _INSIDE:
        return "known: " + ", ".join(_INSIDE[key])
    return _TYPE_HINT


def _in_our_words(text: str) -> str:
    """'Expected `int`, got `str` - at `$.restarts`' → '.restarts: expected a whole number, …'."""
    at = _AT.search(text)
    where = at.group(1) if at else ""
    words = _AT.sub("", text)
    words = words.replace("Object contains unknown field", "unknown key")
    words = words.replace("Invalid enum value", "there is no")
    words = re.sub(
        r"`([a-z |]+)`",
        lambda match: " or ".join(
            _TYPES.get(t, t) for t in match.group(1).split(" | ") if t != "null"
        ),
        words,
    )
    return f"{where}: {words[:1].lower()}{words[1:]}"


def json_schema() -> bytes:
    """The JSON Schema (2020-12) of the file: what is shipped as `configs/nanosup.schema.json`."""
    document: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "nanosup.toml",
        **msgspec.json.schema(File),
    }
    # They are docstrings, which Python 3.13 keeps without their indentation.
    for table in document["$defs"].values():
        if "description" in table:
            table["description"] = inspect.cleandoc(table["description"])
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
