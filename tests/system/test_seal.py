"""Sealing: what an agent may leave in a layer, and what becomes of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from gitbox import fingerprint, git, git_bytes, make_repository, opaque, whiteout, write

from sandbox.errors import GitError
from sandbox.repository import repository
from sandbox.repository.repository import Repository
from sandbox.repository.seal import Sealed, publish, seal

AUTHOR = "Agent <agent@example.org>"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return make_repository(
        tmp_path / "host",
        {".gitignore": "*.o\nout/\n", "a": "a\n", "d/b": "b\n", "d/c": "c\n", "kept.o.txt": "k\n"},
    )


@pytest.fixture
def repo(host: Path) -> Repository:
    return repository.find(host)


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    path = tmp_path / "layer"
    path.mkdir()
    return path


def sealed(repo: Repository, *layers: Path, parent: str = "", **more: object) -> Sealed:
    return seal(
        repo,
        parent=parent or repo.commit,
        layers=layers,
        message="work",
        author=AUTHOR,
        when_s=1_700_000_100,
        **more,  # type: ignore[arg-type]
    )


def names(host: Path, tree: str) -> list[str]:
    return git(host, "ls-tree", "-r", "--name-only", tree).split("\n")


def test_an_empty_layer_seals_to_the_parent_itself(repo: Repository, layer: Path) -> None:
    assert sealed(repo, layer) == Sealed(repo.tree, repo.commit, (), 0)


def test_a_touched_but_unchanged_file_is_no_change(repo: Repository, layer: Path) -> None:
    write(layer / "d/b", "b\n")
    assert sealed(repo, layer).commit == repo.commit


def test_the_commit_has_the_parent_author_and_message(
    repo: Repository, host: Path, layer: Path
) -> None:
    write(layer / "new", "n\n")
    result = sealed(repo, layer)
    text = git(host, "show", "-s", "--format=%P|%an|%ae|%at|%cn|%s|%T", result.commit)
    assert text == f"{repo.commit}|Agent|agent@example.org|1700000100|Agent|work|{result.tree}"
    git(host, "fsck", "--strict")


def test_a_whiteout_deletes_and_an_opaque_directory_hides(
    repo: Repository, host: Path, layer: Path
) -> None:
    whiteout(layer / "a")
    opaque(layer / "d")
    write(layer / "d/new", "n\n")
    result = sealed(repo, layer)
    assert names(host, result.tree) == [".gitignore", "d/new", "kept.o.txt"]
    assert result.changed == 4


def test_layers_apply_in_order(repo: Repository, host: Path, tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    write(one / "x/y", "1\n")
    write(one / "z", "1\n")
    whiteout(two / "x")
    write(two / "z", "2\n")
    three.mkdir()
    write(three / "x/w", "3\n")
    result = sealed(repo, one, two, three)
    assert "x/y" not in names(host, result.tree)
    assert git(host, "cat-file", "blob", f"{result.tree}:z") == "2"
    assert git(host, "cat-file", "blob", f"{result.tree}:x/w") == "3"


def test_ignored_files_stay_out_and_tracked_ones_stay_in(
    repo: Repository, host: Path, layer: Path
) -> None:
    write(host / "forced.o", "f\n")
    git(host, "add", "-f", "forced.o")
    git(host, "commit", "-q", "-m", "forced")
    write(layer / "forced.o", "changed\n")
    write(layer / "new.o", "n\n")
    write(layer / "out/deep/file", "n\n")
    result = sealed(repository.find(host), layer)
    assert result.changed == 1
    assert git(host, "cat-file", "blob", f"{result.tree}:forced.o") == "changed"


def test_the_hosts_own_exclude_file_counts(repo: Repository, host: Path, layer: Path) -> None:
    write(host / ".git/info/exclude", "secret\n")
    write(layer / "secret", "s\n")
    assert sealed(repo, layer).changed == 0


def test_what_a_lower_layer_had_ignored_comes_in_when_the_rule_goes(
    repo: Repository, host: Path, tmp_path: Path
) -> None:
    below, layer = tmp_path / "below", tmp_path / "layer"
    write(below / "d/x.o", "x\n")
    write(below / "a", "changed below\n")
    first = sealed(repo, below)
    write(layer / ".gitignore", "out/\n")
    result = sealed(repo, layer, parent=first.commit, below=[below])
    assert names(host, result.tree) == [".gitignore", "a", "d/b", "d/c", "d/x.o", "kept.o.txt"]


def test_a_gitignore_of_a_lower_layer_holds(repo: Repository, host: Path, tmp_path: Path) -> None:
    below, layer = tmp_path / "below", tmp_path / "layer"
    write(below / "cache/.gitignore", "*\n")
    first = sealed(repo, below)
    assert first.changed == 0
    write(layer / "cache/data", "d\n")
    assert sealed(repo, layer, parent=first.commit, below=[below]).changed == 0


@pytest.mark.parametrize(
    "name",
    [".git", ".GIT", ".Git ", ".git...", "git~1", "GIT~1", ".g\u200cit", ".git::$INDEX_ALLOCATION"],
)
def test_names_that_git_forbids_are_left_out(
    repo: Repository, layer: Path, host: Path, name: str
) -> None:
    write(layer / "ok", "o\n")
    write(layer / "d" / name / "hooks/pre-commit", "#!/bin/sh\n", executable=True)
    result = sealed(repo, layer)
    assert result.changed == 1
    assert len(result.notes) == 1
    assert "left out" in result.notes[0]
    git(host, "fsck", "--strict")


def test_a_symbolic_link_called_gitmodules_is_left_out(repo: Repository, layer: Path) -> None:
    os.symlink("/etc/passwd", layer / ".gitmodules")
    result = sealed(repo, layer)
    assert result.changed == 0
    assert ".gitmodules" in result.notes[0]


def test_symbolic_links_are_stored_and_never_followed(
    repo: Repository, host: Path, layer: Path, tmp_path: Path
) -> None:
    write(tmp_path / "outside/secret", "secret\n")
    os.symlink(tmp_path / "outside", layer / "link")
    os.symlink("/etc/passwd", layer / "a")
    os.symlink(tmp_path / "outside/secret", layer / ".gitattributes")
    (layer / "d").mkdir()
    os.symlink(tmp_path / "outside/secret", layer / "d/.gitignore")
    result = sealed(repo, layer)
    listing = git(host, "ls-tree", "-r", result.tree)
    assert listing.count("120000") == 4
    assert git(host, "cat-file", "blob", f"{result.tree}:a") == "/etc/passwd"


def test_special_files_are_left_out_with_a_note(repo: Repository, layer: Path) -> None:
    os.mkfifo(layer / "pipe")
    os.mkfifo(layer / ".gitignore")
    write(layer / "ok", "o\n")
    result = sealed(repo, layer)
    assert [note.split(":")[0] for note in sorted(result.notes)] == [".gitignore", "pipe"]


def test_an_embedded_repository_is_left_out_with_a_note(
    repo: Repository, host: Path, layer: Path
) -> None:
    make_repository(layer / "vendor/lib")
    write(layer / "vendor/ok", "o\n")
    result = sealed(repo, layer)
    assert result.changed == 1
    assert "vendor/lib" in result.notes[0]


def test_git_init_in_a_tracked_directory_loses_nothing_tracked(
    repo: Repository, host: Path, layer: Path
) -> None:
    (layer / "d").mkdir()
    git(layer / "d", "init", "-q")
    write(layer / "d/b", "changed\n")
    result = sealed(repo, layer)
    assert git(host, "cat-file", "blob", f"{result.tree}:d/b") == "changed"
    assert names(host, result.tree) == names(host, repo.tree)


def test_submodules_stay_what_they_were(tmp_path: Path, layer: Path) -> None:
    host = make_repository(tmp_path / "super", {"a": "a\n"})
    other = "1234567890123456789012345678901234567890"
    git(host, "update-index", "--add", "--cacheinfo", f"160000,{other},sub")
    git(host, "commit", "-q", "-m", "sub")
    repo = repository.find(host)
    write(layer / "sub/file", "inside\n")
    write(layer / "new", "n\n")
    result = sealed(repo, layer)
    assert f"160000 commit {other}\tsub" in git(host, "ls-tree", result.tree)
    whiteout(layer / "gone")
    (layer / "sub/file").unlink()
    (layer / "sub").rmdir()
    whiteout(layer / "sub")
    assert "sub" not in names(host, sealed(repo, layer).tree)


def test_a_file_without_any_permission_is_sealed_and_keeps_its_mode(
    repo: Repository, host: Path, layer: Path
) -> None:
    write(layer / "locked/file", "precious\n")
    (layer / "locked/file").chmod(0)
    (layer / "locked").chmod(0)
    result = sealed(repo, layer)
    mode = stat.S_IMODE((layer / "locked").lstat().st_mode)
    (layer / "locked").chmod(0o700)
    assert mode == 0
    assert stat.S_IMODE((layer / "locked/file").lstat().st_mode) == 0
    assert git(host, "cat-file", "blob", f"{result.tree}:locked/file") == "precious"


def test_names_of_any_bytes_are_kept(repo: Repository, host: Path, layer: Path) -> None:
    for name in (b"\xff\xfe", b"new\nline", b"\x1b[31m", b'"quoted"', b"n" * 255):
        with open(os.path.join(os.fsencode(layer), name), "wb") as file:
            file.write(name)
    result = sealed(repo, layer)
    listing = git_bytes(host, "ls-tree", "-z", "--name-only", result.tree).split(b"\0")
    assert {b"\xff\xfe", b"new\nline", b"\x1b[31m", b'"quoted"', b"n" * 255} <= set(listing)


def test_notes_carry_no_control_characters(repo: Repository, layer: Path) -> None:
    os.mkfifo(layer / "\x1b]0;title\x07\n")
    assert "".join(sealed(repo, layer).notes).isprintable()


def test_large_files_are_streamed(
    repo: Repository, host: Path, layer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.repository.fold._WHOLE_LIMIT_BYTES", 1000)
    write(layer / "big", b"0123456789" * 500)
    write(layer / "same", b"0123456789" * 500)
    result = sealed(repo, layer)
    assert git_bytes(host, "cat-file", "blob", f"{result.tree}:big") == b"0123456789" * 500
    git(host, "fsck", "--strict")


def test_filters_are_not_run_and_that_is_said(
    repo: Repository, host: Path, layer: Path, tmp_path: Path
) -> None:
    git(host, "config", "filter.evil.clean", f"touch {tmp_path}/ran; cat")
    write(layer / ".gitattributes", "*.bin filter=evil\n")
    write(layer / "x.bin", "x\n")
    result = sealed(repo, layer)
    assert not (tmp_path / "ran").exists()
    assert "filter=evil" in result.notes[0]


def test_nothing_of_the_host_changes_but_objects_and_the_ref(
    repo: Repository, host: Path, layer: Path, tmp_path: Path
) -> None:
    for hook in ("reference-transaction", "post-commit", "pre-commit", "post-index-change"):
        write(
            host / ".git/hooks" / hook,
            f"#!/bin/sh\ntouch {tmp_path}/ran-{hook}\n",
            executable=True,
        )
    git(host, "config", "core.fsmonitor", f"touch {tmp_path}/ran-fsmonitor; false")
    before = fingerprint(host)
    write(layer / "new", "n\n")
    result = sealed(repo, layer)
    publish(repo, "refs/nanosup/s1/build", result.commit, None)
    after = fingerprint(host)
    new = set(after) - set(before)
    assert {name.split("-")[0] for name in new} == {
        ".git/objects/pack/pack",
        ".git/refs/nanosup/s1/build",
    }
    assert {name: after[name] for name in before} == before
    assert not list(tmp_path.glob("ran-*"))


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(
    repo: Repository, host: Path, layer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    write(layer / "new", "n\n")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GitError, match="No space left"):
        sealed(repo, layer)
    assert list((host / ".git/objects/pack").iterdir()) == []


def test_publishing_is_idempotent_and_refuses_surprises(
    repo: Repository, host: Path, layer: Path
) -> None:
    write(layer / "new", "n\n")
    one = sealed(repo, layer).commit
    write(layer / "new", "m\n")
    two = sealed(repo, layer).commit
    ref = "refs/nanosup/s/p"
    publish(repo, ref, one, None)
    publish(repo, ref, one, None)
    with pytest.raises(GitError, match="is at"):
        publish(repo, ref, two, None)
    publish(repo, ref, two, one)
    assert git(host, "rev-parse", ref) == two
    assert not (host / ".git/logs/refs/nanosup").exists()
    with pytest.raises(GitError, match="below refs/nanosup/"):
        publish(repo, "refs/heads/main", two, None)
    with pytest.raises(GitError, match="cannot be set"):
        publish(repo, "refs/nanosup/s/x", "0" * 39 + "1", None)


def test_a_seal_of_a_recorded_working_tree_is_whole_on_the_host(
    host: Path, layer: Path, tmp_path: Path
) -> None:
    from sandbox.repository.snapshot import snapshot

    write(host / "dirty/file", "d\n")
    repo = repository.find(host)
    objects = tmp_path / "objects"
    commit, _ = snapshot(repo, "worktree", objects)
    write(layer / "new", "n\n")
    result = sealed(repo, layer, parent=commit, object_dirs=[objects])
    publish(repo, "refs/nanosup/s/p", result.commit, None)
    assert git(host, "rev-list", "--count", "refs/nanosup/s/p") == "3"
    assert "dirty/file" in names(host, result.tree)
    git(host, "fsck", "--strict")


def test_as_root_a_users_repository_stays_the_users(
    repo: Repository, host: Path, layer: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    for parent, _, files in os.walk(host):
        for name in (parent, *(os.path.join(parent, file) for file in files)):
            os.chown(name, 12345, 12345, follow_symlinks=False)
    write(layer / "new", "n\n")
    theirs = repository.find(host)
    publish(theirs, "refs/nanosup/s/p", sealed(theirs, layer).commit, None)
    owners = {
        os.lstat(os.path.join(parent, name)).st_uid
        for parent, directories, files in os.walk(host)
        for name in (*directories, *files)
    }
    assert owners == {12345}


def test_a_layer_whose_own_top_cannot_be_entered_is_sealed(
    repo: Repository, host: Path, layer: Path
) -> None:
    write(layer / "d/new", "n\n")
    for mode in (0o000, 0o400, 0o100, 0o500):
        (layer / "d").chmod(mode)
        layer.chmod(mode)
        assert sealed(repo, layer).changed == 1
        assert stat.S_IMODE(layer.lstat().st_mode) == mode
        layer.chmod(0o700)
        assert stat.S_IMODE((layer / "d").lstat().st_mode) == mode
