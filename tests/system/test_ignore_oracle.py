"""Ignore and attribute rules decide as `git check-ignore` and `git check-attr` do."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from gitbox import ENV, git, git_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.git import gitattribute, ignore
from sandbox.git.gitattribute import Attributes
from sandbox.git.ignore import Scope
from sandbox.git.wildmatch import compile_glob

_ATOMS = st.sampled_from(
    [
        *[
            b"a",
            b"b",
            b"ab",
            b".",
            b"-",
            b"]",
            b"^",
            b"!",
            b" ",
            b"\\",
            b"/",
            b"//",
            b"\xc3\xa9",
            b"\t",
        ],
        *[b"*", b"**", b"***", b"**/", b"/**", b"?", b"[ab]", b"[!a]", b"[^b]", b"[a-c]", b"[]a]"],
        *[
            b"[[:alpha:]]",
            b"[[:nope:]]",
            b"[",
            b"[a",
            b"[\\]]",
            b"[!]]",
            b"[a-]",
            b"[--0]",
            b"[[:a]",
        ],
        *[b"\\*", b"\\ ", b"\\!", b"#"],
    ]
)
_PATTERN = st.lists(_ATOMS, min_size=1, max_size=6).map(b"".join)
_PART = st.lists(
    st.sampled_from(
        [b"a", b"b", b"c", b".", b"-", b"]", b"*", b"!", b" ", b"\xc3\xa9", b"[", b"1", b"\\"]
    ),
    min_size=1,
    max_size=4,
).map(b"".join)
_PATH = (
    st.lists(_PART, min_size=1, max_size=4)
    .filter(lambda parts: not set(parts) & {b".", b"..", b".git"})
    .map(b"/".join)
)
_SETTINGS = settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    return tmp_path


def _ignored(path: bytes, rules: bytes) -> bool:
    scope = Scope(b"", lambda: rules, ())
    parts = path.split(b"/")
    for count in range(1, len(parts)):
        parent = b"/".join(parts[:count])
        if scope.ignores(parent, directory=True):
            return True
        scope = Scope(parent + b"/", lambda: None, scope)
    return scope.ignores(path, directory=False)


@_SETTINGS
@given(
    lines=st.lists(
        st.tuples(
            st.sampled_from([b"", b"", b"!", b"/"]), _PATTERN, st.sampled_from([b"", b"", b"/"])
        ),
        min_size=1,
        max_size=4,
    ),
    paths=st.lists(_PATH, min_size=1, max_size=12, unique=True),
)
def test_ignore_rules_agree_with_git(
    repo: Path, lines: list[tuple[bytes, bytes, bytes]], paths: list[bytes]
) -> None:
    rules = b"".join(b"".join(line) + b"\n" for line in lines)
    (repo / ".gitignore").write_bytes(rules)
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "-z", "--stdin"],
        cwd=repo,
        env=ENV,
        input=b"".join(path + b"\0" for path in paths),
        capture_output=True,
    )
    assert done.returncode in {0, 1}, done.stderr
    theirs = {path for path in done.stdout.split(b"\0") if path}
    assert {path for path in paths if _ignored(path, rules)} == theirs


_STATES = st.sampled_from(
    [
        b"text",
        b"-text",
        b"!text",
        b"text=auto",
        b"eol=crlf",
        b"binary",
        b"-binary",
        b"m",
        b"ident",
        b"9 \xff=",
    ]
)
_NAMES = [b"text", b"eol", b"ident", b"binary", b"m"]


@_SETTINGS
@given(
    lines=st.lists(
        st.tuples(_PATTERN, st.lists(_STATES, max_size=3).map(b" ".join)), min_size=1, max_size=4
    ),
    macro=st.sampled_from([b"", b"[attr]m text eol=lf\n", b"[attr]m -text ident\n"]),
    paths=st.lists(_PATH, min_size=1, max_size=12, unique=True),
)
def test_attributes_agree_with_git(
    repo: Path, lines: list[tuple[bytes, bytes]], macro: bytes, paths: list[bytes]
) -> None:
    content = macro + b"".join(pattern + b" " + states + b"\n" for pattern, states in lines)
    (repo / ".gitattributes").write_bytes(content)
    out = git_bytes(
        repo,
        *["check-attr", "-z", "--stdin", *_NAMES],
        stdin=b"".join(path + b"\0" for path in paths),
    )
    fields = out.split(b"\0")[:-1]
    theirs = {(fields[i], fields[i + 1]): fields[i + 2] for i in range(0, len(fields), 3)}
    words = {True: b"set", False: b"unset", None: b"unspecified"}
    ours = {}
    for path in paths:
        scope = Attributes(b"", lambda: content, None)
        found = scope.resolve(path)
        for name in _NAMES:
            value = found.get(name)
            ours[path, name] = value if isinstance(value, bytes) else words[value]
    assert ours == theirs


@pytest.mark.parametrize("seed", range(4))
def test_wildcards_that_cross_directories_agree_with_git(repo: Path, seed: int) -> None:
    """`**/` with `*` behind it, in every order: which directory it leads to decides."""
    rng = random.Random(seed)
    tokens = [b"**/", b"**/", b"*", b"*", b"a", b"b", b"/", b"?", b"/**", b"ab", b"**"]
    made = {b"".join(rng.choices(tokens, k=rng.randint(2, 6))) for _ in range(200)}
    patterns = sorted(p for p in made if b"/" in p[1:-1] and b"/" not in (p[:1], p[-1:]))
    names = [b"a", b"b", b"ab", b"ba", b"aba"]
    paths = {b"/".join(rng.choices(names, k=rng.randint(1, 4))) for _ in range(60)}
    (repo / ".gitattributes").write_bytes(
        b"".join(b"%s x%d\n" % (pattern, n) for n, pattern in enumerate(patterns))
    )
    out = git_bytes(
        repo,
        *["check-attr", "-z", "--stdin", *(f"x{n}" for n in range(len(patterns)))],
        stdin=b"".join(path + b"\0" for path in paths),
    )
    fields = out.split(b"\0")[:-1]
    answers = list(zip(fields[::3], fields[1::3], fields[2::3], strict=True))
    assert len(answers) == len(patterns) * len(paths)
    wrong = [
        (pattern, path, said)
        for path, name, said in answers
        if (pattern := patterns[int(name[1:])])
        and bool(compile_glob(pattern, pathname=True).fullmatch(path)) != (said == b"set")
    ]
    assert wrong == []


def test_rules_are_read_as_lines_with_their_oddities() -> None:
    rules = ignore.parse(b"\xef\xbb\xbf# no\na\r\n\nb \\ \n!c/")
    assert [(rule.literal, rule.negative, rule.directory) for rule in rules] == [
        (b"c", True, True),
        (None, False, False),
        (b"a", False, False),
    ]


def test_a_macro_is_defined_at_the_top_alone() -> None:
    assert gitattribute.parse(b"[attr]m text\n", macros=False) == ()
    assert len(gitattribute.parse(b"[attr]m text\n", macros=True)) == 1
