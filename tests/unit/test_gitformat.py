"""Git's formats and rules, as far as they are pure: names, globs, conversions, objects, indexes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.git.conversion import EncodingFailure, LineEnd, Plan, plan, to_git
from sandbox.git.gitattribute import Attributes
from sandbox.git.gitname import Refusal, refusal
from sandbox.git.gitobject import (
    FormatError,
    Kind,
    Tree,
    build_commit,
    build_tree,
    check_commit,
    check_tree,
    name_object,
    parse_tree,
)
from sandbox.git.indexfile import Builder, CachedTree, parse
from sandbox.git.wildmatch import compile_glob
from sandbox.repository.autoload import autoload_reason
from sandbox.repository.note import Notes, shown


@pytest.mark.parametrize(
    "name",
    [
        *[".git", ".GiT", ".git.", ".git ", ".git . .", ".git:x", ".git::$INDEX_ALLOCATION"],
        *["git~1", "GIT~1", "git~1.", "git~1:x", "a\\.git", "a\\git~1\\b"],
        *[".\u200cgit", ".g\ufeffit", "\u202e.git", ".GI\u206aT"],
    ],
)
def test_every_alias_of_git_is_refused(name: str) -> None:
    assert refusal(name.encode()) is Refusal.DOT_GIT


@pytest.mark.parametrize(
    "name",
    [
        "git",
        ".gitx",
        ".gitignore",
        "x.git",
        ".git x",
        "git~2",
        "git~10",
        "..git",
        ".\u00e9git",
        "g",
    ],
)
def test_names_that_only_resemble_it_are_not(name: str) -> None:
    assert refusal(name.encode()) is Refusal.NONE


def test_modules_file_may_be_a_file_but_no_symbolic_link() -> None:
    for name in (b".gitmodules", b".GitModules", b"gitmod~1", b"gi7eba~1", b".gitmodules ."):
        assert refusal(name) is Refusal.NONE
        assert refusal(name, symlink=True) is Refusal.SYMLINKED_MODULES


@pytest.mark.parametrize("name", [b"", b"a/b", b"a\0b"])
def test_what_is_no_component_is_refused(name: bytes) -> None:
    assert refusal(name) is Refusal.EMPTY


def test_a_pattern_made_to_hang_does_not() -> None:
    started = time.monotonic()
    for pattern, text in (
        (b"*a" * 60 + b"b", b"a" * 255),
        (b"**/a*" * 30 + b"/b", b"a/" * 1500 + b"c"),
        (b"*[ab]?*" * 30 + b"c", b"ab" * 1000),
        (b"a" + b"/**" * 50 + b"/b", b"a/" * 1500 + b"c"),
    ):
        for pathname in (False, True):
            assert not compile_glob(pattern, pathname=pathname).fullmatch(text)
    assert time.monotonic() - started < 5


def test_a_pattern_of_wide_classes_is_as_quick_as_one_of_letters() -> None:
    started = time.monotonic()
    pattern = compile_glob(b"[!a]" * 4000, pathname=True)
    assert time.monotonic() - started < 5
    assert pattern.fullmatch(b"b" * 4000) and not pattern.fullmatch(b"b" * 3999 + b"a")


def test_macros_may_name_each_other_without_end() -> None:
    chain = b"".join(b"[attr]m%d m%d\n" % (i, i + 1) for i in range(5000))
    attributes = Attributes(b"", lambda: chain + b"[attr]m5000 m0 eol=lf\n* m0\n", None)
    found = attributes.resolve(b"file")
    assert found[b"eol"] == b"lf" and found[b"m4999"] is True


def test_line_ends_become_what_git_add_makes_of_them() -> None:
    convert, guess = Plan(LineEnd.CONVERT), Plan(LineEnd.GUESS)
    nothing = lambda: None  # noqa: E731 (there is no blob)
    assert to_git(b"a\r\nb\rc\r\n", convert, nothing) == b"a\nb\rc\n"
    assert to_git(b"a\r\nb\r\n", guess, nothing) == b"a\nb\n"
    assert to_git(b"a\r\nb\rc\r\n", guess, nothing) == b"a\r\nb\rc\r\n"
    assert to_git(b"a\0\r\n", guess, nothing) == b"a\0\r\n"
    assert to_git(b"a\r\n", guess, lambda: b"old\r\n") == b"a\r\n"
    assert to_git(b"a\r\n", guess, lambda: b"old\n") == b"a\n"
    assert to_git(b"$Id: 1 $ $Id$ $Id: \n$", Plan(ident=True), nothing) == b"$Id$ $Id$ $Id: \n$"


def test_encodings_become_utf8_or_fail_for_that_file_alone() -> None:
    todo = plan({b"working-tree-encoding": b"UTF-16"}, autocrlf=False)
    assert to_git("ü".encode("utf-16"), todo, lambda: None) == "ü".encode()
    # A codec of Python's whose time grows with the square of the size is no encoding of a file.
    slow = b"a" * 200_000 + b"-" + b"zzzz" * 200_000
    for encoding, data in (("UTF-16", b"abc"), ("no such", b"abc"), ("punycode", slow)):
        with pytest.raises(EncodingFailure):
            to_git(data, Plan(encoding=encoding), lambda: None)


_OIDS = st.binary(min_size=20, max_size=20).filter(any)
_TREES = st.dictionaries(
    st.text("abc.-~ é", min_size=1, max_size=4)
    .map(str.encode)
    .filter(lambda name: refusal(name) is Refusal.NONE),
    st.tuples(st.sampled_from([0o100644, 0o100755, 0o120000, 0o040000, 0o160000]), _OIDS),
    max_size=8,
)


@given(tree=_TREES)
def test_trees_survive_writing_and_reading(tree: Tree) -> None:
    data = build_tree(tree)
    assert parse_tree(data) == check_tree(data) == tree


@given(data=st.binary(max_size=80))
def test_noise_is_no_tree_and_crashes_nothing(data: bytes) -> None:
    try:
        check_tree(data)
    except FormatError:
        pass


def test_a_commit_is_well_formed_whatever_its_author_is_called() -> None:
    data = build_commit(
        tree=b"\1" * 20,
        parents=(b"\2" * 20, b"\3" * 20),
        author="A <b>\ncommitter evil <x> <a@b>\0",
        when_s=1,
        message="m\0\n\n\n",
    )
    commit = check_commit(data)
    assert (commit.tree, commit.parents) == (b"\1" * 20, (b"\2" * 20, b"\3" * 20))
    assert data.count(b"\ncommitter ") == 1
    assert check_commit(build_commit(tree=b"\1" * 20, parents=(), author="", when_s=0, message=""))


def test_objects_have_the_names_that_git_gives_them() -> None:
    assert name_object(Kind.BLOB, b"").hex() == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert name_object(Kind.TREE, b"").hex() == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def test_an_index_survives_writing_and_reading() -> None:
    builder = Builder(uid=1, gid=2, epoch_ns=5_000_000_007)
    root = CachedTree(b"", b"\7" * 20, count=3)
    builder.add(b"a", 0o100644, b"\1" * 20, 12)
    builder.add(b"b" * 5000, 0o100755, b"\2" * 20, 5 << 30)
    builder.add(b"c", 0o120000, b"\3" * 20, 1, (9_000_000_001, 10_000_000_002))
    index = parse(builder.build(root))
    assert index.tree == b"\7" * 20
    assert [(e.path, e.mode, e.size, e.mtime_s, e.mtime_ns) for e in index.entries] == [
        (b"a", 0o100644, 12, 5, 7),
        (b"b" * 5000, 0o100755, (5 << 30) & 0xFFFFFFFF, 5, 7),
        (b"c", 0o120000, 1, 9, 1),
    ]


@given(cut=st.integers(0, 400), noise=st.binary(max_size=30))
def test_a_damaged_index_is_an_error_and_nothing_else(cut: int, noise: bytes) -> None:
    builder = Builder(uid=1, gid=2, epoch_ns=0)
    for name in (b"a", b"b", b"c"):
        builder.add(name, 0o100644, b"\1" * 20, 12)
    data = builder.build(CachedTree(b"", b"\7" * 20, count=3))
    try:
        parse(data[:cut] + noise)
    except FormatError:
        pass


def test_notes_are_bounded_and_move_no_cursor() -> None:
    notes = Notes()
    for number in range(200):
        notes.add(b"%d" % number, "left out")
    assert len(notes.lines()) == 51
    assert notes.lines()[-1] == "and 150 more"
    assert shown(b"\x1b[31m\n\xff\xe2\x80\xae") == "\\x1b[31m\\n\\xff\\u202e"


@pytest.mark.parametrize(
    "path",
    [
        *[".claude/settings.json", "sub/.claude/hooks/x", ".mcp.json", ".cursor/mcp.json"],
        *[".vscode/tasks.json", ".envrc", "a/.envrc", ".husky/pre-commit", ".githooks/x"],
        *[".GitHub/workflows/x.yml", ".gitmodules", ".gitattributes", "nanosup.toml"],
        *["tests/conftest.py", ".VSCODE/settings.json", "AGENTS.md", ".devcontainer.json"],
    ],
)
def test_files_that_tools_load_by_themselves_are_flagged(path: str) -> None:
    assert autoload_reason(path)


@pytest.mark.parametrize(
    "path", ["src/main.py", "claude/x", "envrc", "docs/vscode.md", "a.pth.txt"]
)
def test_ordinary_files_are_not(path: str) -> None:
    assert autoload_reason(path) is None
