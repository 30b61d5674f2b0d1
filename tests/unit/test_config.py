"""`nanosup.toml`: what it means, and what is said when it is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from supervisor.config.config import load, load_graph
from supervisor.errors import ConfigError
from supervisor.model.phase import Access, OnFail

AGENT = '[agents.a]\ncommand = ["true"]\n'


def write(top: Path, text: str) -> Path:
    (top / "nanosup.toml").write_text(text)
    return top


def test_no_phases_give_the_default_graph_to_every_agent(tmp_path: Path) -> None:
    config = load(write(tmp_path, AGENT + '[agents.b]\ncommand = ["false"]\n'))

    assert [p.name for p in config.graph.order] == [
        "think", "plan", "build", "review", "security", "qa", "ship",
    ]  # fmt: skip
    assert all(p.agents == ("a", "b") for p in config.graph.order)
    assert config.graph["build"].access is Access.WRITE
    assert config.graph["ship"].access is Access.EXCLUSIVE
    assert config.graph["qa"].gate


def test_workspace_share_reaches_every_phase(tmp_path: Path) -> None:
    config = load(write(tmp_path, '[workspace]\nshare = ["node_modules"]\n' + AGENT))

    assert all(p.share == ("node_modules",) for p in config.graph.order)


def test_preset_is_the_base_and_the_table_changes_it(tmp_path: Path) -> None:
    config = load(
        write(tmp_path, '[agents.c]\npreset = "codex"\nargs = ["--x"]\nenv = { A = "1" }\n')
    )

    agent = config.agents["c"]
    assert agent.preset == "codex"
    assert agent.command[0] == "codex"
    assert agent.command[-1] == "--x"
    assert agent.env["A"] == "1"


def test_agent_named_as_a_preset_needs_no_table(tmp_path: Path) -> None:
    config = load(write(tmp_path, '[[phase]]\nname = "x"\nagents = ["claude"]\n'))

    assert config.agents["claude"].command[0] == "claude"


def test_agent_option_takes_every_phase_without_a_file(tmp_path: Path) -> None:
    config = load(tmp_path, agent="codex")

    assert {name for p in config.graph.order for name in p.agents} == {"codex"}


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("x = [", "not TOML", ""),
        ("[workspce]\n", "unknown key 'workspce'", "did you mean 'workspace'?"),
        ("[workspace]\nsnapshots = 1\n", "workspace: unknown key 'snapshots'", "'snapshot'"),
        ('[workspace]\nsnapshot = "tree"\n', "workspace.snapshot", ""),
        ("[workspace]\nmax_lanes = 0\n", "workspace.max_lanes", ""),
        ("agents = 3\n", "agents: expected tables", ""),
        ("", "the default graph needs an agent", "[agents."),
        ("[agents.a]\n", "neither preset nor command", "command"),
        ('[agents.a]\npreset = "claud"\n', "unknown preset 'claud'", "'claude'"),
        ('[agents.a]\ncommand = "x"\n', "agents.a.command: expected a list, got a string", ""),
        (AGENT + '[[phase]]\nname = "x"\nrestart = 1\n', "'x': unknown key 'restart'", "restarts"),
        (AGENT + '[[phase]]\nname = "x"\nrestarts = "2"\n', "'x'.restarts: expected", ""),
        (AGENT + '[[phase]]\nname = "x"\ntimeout_s = 0\n', "'x'.timeout_s", ""),
        (AGENT + '[[phase]]\nname = "x"\naccess = "rw"\n', "'x'.access", ""),
        (AGENT + '[[phase]]\nname = "x"\nsigns = ["io"]\n', "there is no 'io'", "output, cpu, fs"),
        (AGENT + "rate_limited = { code = [1] }\n", "unknown key code", "exit, output"),
        (AGENT + "[[phase]]\nrestarts = 1\n", "phase no. 1", ""),
        (AGENT + '[[phase]]\nname = "x"\noutputs = ["../y"]\n', "'../y' is not a plain file", ""),
        (AGENT + '[[phase]]\nname = "x"\noutputs = ["a/b"]\n', "'a/b' is not a plain file", ""),
        (AGENT + '[[phase]]\nname = "x"\noutputs = [".y"]\n', "starts with a dot", ""),
        (AGENT + '[[phase]]\nname = "x"\noutputs = ["a\\u0007"]\n', "control or invisible", ""),
        (AGENT + '[[phase]]\nname = "x"\nscratch = ["../y"]\n', "not a path inside", ""),
        (AGENT + '[[phase]]\nname = "x"\nscratch = ["/y"]\n', "not a path inside", ""),
        (AGENT + '[[phase]]\nname = "x"\nshare = [".git/x"]\n', "not a path inside", ""),
        (AGENT + '[[phase]]\nname = "x"\nnetwork = "api.x.com"\n', "network: expected", "["),
        (
            AGENT + '[[phase]]\nname = "x"\nnetwork = ["https://x.com/"]\n',
            "neither a host",
            "example.org",
        ),
        (AGENT + '[[phase]]\nname = "x"\nagents = ["cladue"]\n', "neither a table", "'claude'"),
        (AGENT + '[[phase]]\nname = "x"\nagents = []\n', "no agent", ""),
        (AGENT + '[[phase]]\nname = "x"\nprompt_file = "no.md"\n', "cannot be read: No such", ""),
        (AGENT + '[[phase]]\nname = "x"\ndepends_on = ["y"]\n', "which does not exist", ""),
    ],
)
def test_bad_file_is_refused_in_one_line(tmp_path: Path, text: str, said: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))

    assert said in caught.value.message
    assert caught.value.message.startswith("nanosup.toml: ")
    assert hint in caught.value.hint
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


def test_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)

    assert "no nanosup.toml" in caught.value.message
    assert "nanosup init" in caught.value.hint


def test_graph_option_takes_json_text(tmp_path: Path) -> None:
    top = write(tmp_path, AGENT)

    config = load(top, graph='{"phase": [{"name": "one"}, {"name": "two", "depends_on": ["one"]}]}')

    assert [p.name for p in config.graph.order] == ["one", "two"]


def test_graph_for_work_by_hand_may_name_whoever_works(tmp_path: Path) -> None:
    graph = '[{"name": "one", "agents": ["me", "codex"]}, {"name": "two"}]'

    config = load_graph(tmp_path, graph=graph)

    assert [p.agents for p in config.graph.order] == [("me", "codex"), ("anyone",)]
    assert config.agents["codex"].command[0] == "codex"
    # An `up` that goes on with such a sprint must fail rather than take it for done.
    assert config.agents["me"].command[-1].endswith("exit 1")


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ('[{"name": "a", "name": "b"}]', "key 'name' twice"),
        ('[{"name": "a", "depends_on": ["a"]}]', "cycle: a → a"),
        ('[{"name": "a", "depends_on": ["b"]}]', "'b', which does not exist"),
        ('[{"name": "a"}, {"name": "a"}]', "is there twice"),
        ('[{"name": "a", "access": "rw"}]', "'a'.access"),
        ('[{"name": "../a"}]', "cannot be the name of a phase"),
        ('{"phases": []}', "phase: empty"),
        ("{}", 'no "phase" in it'),
        ("[3]", "phase no. 1"),
        ('[{"name": "a", "agents": [3]}]', "'a'.agents"),
        ("[", "is not JSON"),
        ("no/such/file.json", "cannot be read"),
    ],
)
def test_bad_graph_is_refused_in_one_line(tmp_path: Path, graph: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_graph(tmp_path, graph=graph)

    assert said in caught.value.message
    assert "--graph" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("gate = true\n", 'needs access = "read" and a JSON file'),
        ('gate = true\noutputs = ["x.md"]\n', 'needs access = "read" and a JSON file'),
        ('gate = true\noutputs = ["x.json"]\naccess = "write"\n', 'needs access = "read"'),
        ('on_fail = "rework"\n', "are for gates"),
        ("max_rounds = 1\n", "are for gates"),
        ('gate = true\noutputs = ["x.json"]\non_fail = "rework"\n', "no phase before it writes"),
        ('gate = true\noutputs = ["x.json"]\non_fail = "retry"\n', "'x'.on_fail"),
        ('schemas = { "x.md" = "x" }\n', "not a .json file"),
        ('schemas = { "x.json" = "x" }\n', "'x' cannot be read"),
    ],
)
def test_gate_that_cannot_be_one_is_refused(tmp_path: Path, keys: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load(write(tmp_path, AGENT + '[[phase]]\nname = "x"\n' + keys))


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("[]", "an object was expected"),
        ('{"type": "strnig"}', "is no JSON Schema"),
        ('{"a": 1, "a": 2}', "key 'a' twice"),
        ('{"properties": {"x": {"$ref": "file:///etc/passwd"}}}', "only references within it"),
        ('{"properties": {"x": {"$ref": "#/$defs/no"}}}', "leads nowhere"),
    ],
)
def test_schema_that_is_none_is_refused(tmp_path: Path, schema: str, said: str) -> None:
    (tmp_path / "s.json").write_text(schema)
    table = '[[phase]]\nname = "x"\nschemas = { "x.json" = "s.json" }\n'

    with pytest.raises(ConfigError, match=re.escape(said)):
        load(write(tmp_path, AGENT + table))


def test_names_of_gates_make_gates_and_ship_their_schemas(tmp_path: Path) -> None:
    text = AGENT + '[workspace]\non_fail = "rework"\nmax_rounds = 5\n'
    default = load(write(tmp_path, text)).graph
    own = load(
        write(
            tmp_path,
            text
            + '[[phase]]\nname = "review"\noutputs = ["review.json"]\n'
            + '[[phase]]\nname = "qa"\noutputs = ["qa.txt"]\n'
            + '[[phase]]\nname = "security"\n'
            + '[[phase]]\nname = "build"\naccess = "write"\n'
            + '[[phase]]\nname = "look"\ndepends_on = ["build"]\noutputs = ["l.json"]\n'
            + 'gate = true\non_fail = "reject"\n',
        )
    ).graph

    assert [p.name for p in default.order if p.gate] == ["review", "security", "qa"]
    assert {(p.on_fail, p.max_rounds) for p in default.order if p.gate} == {(OnFail.REWORK, 5)}
    assert [p.name for p in default.order if p.schemas] == [
        "plan", "review", "security", "qa", "ship",
    ]  # fmt: skip
    assert [p.name for p in own.order if p.gate] == ["review", "look"]
    # Nothing before it writes, so there is nothing to open again.
    assert own["review"].on_fail is OnFail.REJECT
    assert own["look"].on_fail is OnFail.REJECT
