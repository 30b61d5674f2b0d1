from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from board_stage import ended, leftovers, me, new_sprint, tree
from msgspec.structs import replace

from supervisor.artifacts import artifact, audit, export
from supervisor.artifacts.artifact import Limit, collect, provide
from supervisor.board.blob import BlobStore
from supervisor.errors import ArtifactError
from supervisor.model.record import Input, Output


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    path = tmp_path / "outputs"
    path.mkdir()
    return path


def test_files_are_taken_over_by_name(blobs: BlobStore, outputs: Path) -> None:
    (outputs / "plan.md").write_text("# Plan\n")
    (outputs / "a b.json").write_text('{"a": 1}')
    (outputs / "data").write_bytes(b"\0")
    taken = collect(blobs, str(outputs), ["plan.md"])
    assert [(one.name, one.size, one.media_type) for one in taken] == [
        ("a b.json", 8, "application/json"),
        ("data", 1, "application/octet-stream"),
        ("plan.md", 7, "text/markdown"),
    ]
    assert all(blobs.verify(one.sha256) for one in taken)


def test_an_empty_directory_is_no_outputs(blobs: BlobStore, outputs: Path) -> None:
    assert collect(blobs, str(outputs), []) == ()


def test_what_is_required_and_missing_is_named(blobs: BlobStore, outputs: Path) -> None:
    (outputs / "Plan.md").touch()
    with pytest.raises(ArtifactError) as caught:
        collect(blobs, str(outputs), ["review.json", "plan.md"])
    assert caught.value.message == (
        "the output 'plan.md' is missing; the output 'review.json' is missing"
    )
    assert caught.value.exit_code == 16


def symlink(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def hard_link(path: Path) -> None:
    path.write_text("{}")
    os.link(path, path.parent.parent / "second-name")


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def unreadable_json(path: Path) -> None:
    path.write_text('{"verdict": "fail", "verdict": "pass"}')


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (symlink, "is a symbolic link, not a file"),
        (dangling, "is a symbolic link, not a file"),
        (hard_link, r"is a hard link \(2 names\)"),
        (os.mkfifo, "is a FIFO, not a file"),
        (unix_socket, "is a socket, not a file"),
        (Path.mkdir, "is a directory, not a file"),
        (unreadable_json, "has the key 'verdict' twice in one object"),
        (lambda path: path.write_text("[NaN]"), "has NaN"),
        (lambda path: path.write_text("[9007199254740993]"), "has the integer 9007199254740993"),
        (lambda path: path.write_bytes(b"x" * 2000), "has 2000 bytes, and 1000 is the most"),
    ],
)
def test_what_is_not_a_plain_file_is_refused_with_a_sentence(
    blobs: BlobStore, outputs: Path, make: Callable[[Path], object], fault: str
) -> None:
    (outputs / "good.md").write_text("x")
    make(outputs / "bad.json")
    with pytest.raises(ArtifactError, match=rf"^the output 'bad\.json' {fault}") as caught:
        collect(blobs, str(outputs), [], Limit(file_bytes=1000))
    assert caught.value.message.count("output") == 1
    assert not any(path.is_file() for path in Path(blobs.path).rglob("*"))  # all of them, or none


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make devices")
def test_a_device_is_refused(blobs: BlobStore, outputs: Path) -> None:
    os.mknod(outputs / "zero", 0o20666, os.makedev(1, 5))
    with pytest.raises(ArtifactError, match="is a device, not a file"):
        collect(blobs, str(outputs), [])


@pytest.mark.parametrize("name", [b"a\nb", b".envrc", b"-rf", b"\xff.md", "a\u202eb".encode()])
def test_a_name_that_could_lie_is_refused_and_shown_harmlessly(
    blobs: BlobStore, outputs: Path, name: bytes
) -> None:
    with open(os.path.join(os.fsencode(outputs), name), "w"):
        pass
    with pytest.raises(ArtifactError, match="has a name") as caught:
        collect(blobs, str(outputs), [])
    assert caught.value.message.isprintable()


def test_every_refused_file_has_its_sentence(blobs: BlobStore, outputs: Path) -> None:
    os.mkfifo(outputs / "a")
    (outputs / "b").mkdir()
    with pytest.raises(ArtifactError) as caught:
        collect(blobs, str(outputs), ["c"])
    assert [part.split("'")[1] for part in caught.value.message.split("; ")] == ["a", "b", "c"]


def test_a_file_that_changes_while_it_is_read_is_refused(
    blobs: BlobStore, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = outputs / "log.txt"
    file.write_text("x" * 100)
    real = BlobStore.stage

    def grow(self: BlobStore, source: int, limit_bytes: int) -> object:
        staged = real(self, source, limit_bytes)
        with file.open("a") as more:
            more.write("y")
        return staged

    monkeypatch.setattr(BlobStore, "stage", grow)
    with pytest.raises(ArtifactError, match=r"'log\.txt' changed while it was read"):
        collect(blobs, str(outputs), [])
    assert leftovers(blobs.path) == []


def test_a_file_swapped_for_a_link_after_the_look_is_not_followed(
    blobs: BlobStore, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (outputs / "a").write_text("x")
    real = os.stat

    def swap(path: object, **options: object) -> os.stat_result:
        found = real(path, **options)  # type: ignore[call-overload]
        if options.get("dir_fd") is not None:
            (outputs / "a").unlink()
            (outputs / "a").symlink_to("/etc/passwd")
        return found  # type: ignore[no-any-return]

    monkeypatch.setattr(artifact.os, "stat", swap)
    with pytest.raises(ArtifactError, match="'a' cannot be read: Too many levels"):
        collect(blobs, str(outputs), [])


def test_too_many_and_too_much_are_refused(blobs: BlobStore, outputs: Path) -> None:
    for n in range(4):
        (outputs / f"f{n}").write_bytes(b"x" * 100)
    with pytest.raises(ArtifactError, match="there are 4 outputs, and 3 is the most"):
        collect(blobs, str(outputs), [], Limit(files=3))
    with pytest.raises(ArtifactError, match="'f2' has 100 bytes, and 50 is the most"):
        collect(blobs, str(outputs), [], Limit(total_bytes=250))


def test_an_outputs_directory_that_is_a_link_is_refused(
    blobs: BlobStore, outputs: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(outputs)
    with pytest.raises(ArtifactError, match="the outputs cannot be read"):
        collect(blobs, str(tmp_path / "link"), [])


def given_as(output: Output, phase: str = "plan") -> Input:
    return Input(phase=phase, attempt=1, name=output.name, sha256=output.sha256, size=output.size)


def test_inputs_are_given_as_read_only_copies(
    blobs: BlobStore, outputs: Path, tmp_path: Path
) -> None:
    (outputs / "plan.md").write_text("# Plan\n")
    (one,) = collect(blobs, str(outputs), [])
    provide(blobs, [given_as(one), given_as(one, "think")], str(tmp_path / "inputs"))
    for phase in ("plan", "think"):
        copy = tmp_path / "inputs" / phase / "plan.md"
        assert copy.read_text() == "# Plan\n"
        assert copy.stat().st_mode & 0o777 == 0o444
        assert copy.stat().st_nlink == 1


@pytest.mark.parametrize(
    ("phase", "name"), [("plan", "../x"), ("..", "x"), ("plan", ".x"), ("plan", "a/b"), ("", "x")]
)
def test_an_input_cannot_be_given_outside_of_its_directory(
    blobs: BlobStore, tmp_path: Path, phase: str, name: str
) -> None:
    """As a forged document could ask for."""
    (tmp_path / "source").write_text("x")
    sha256, size = blobs.add(str(tmp_path / "source"), 100)
    forged = Input(phase=phase, attempt=1, name=name, sha256=sha256, size=size)
    before = tree(tmp_path)
    with pytest.raises(ArtifactError, match="cannot be given"):
        provide(blobs, [forged], str(tmp_path / "inputs"))
    assert tree(tmp_path) == before


def test_an_input_that_was_edited_or_deleted_is_named_with_both_digests(
    blobs: BlobStore, outputs: Path, tmp_path: Path
) -> None:
    (outputs / "plan.md").write_text("# Plan\n")
    (one,) = collect(blobs, str(outputs), [])
    path = Path(blobs.path_of(one.sha256))
    path.chmod(0o644)
    path.write_text("# Other\n")
    (row,) = audit.check_inputs(blobs, [given_as(one)])
    with pytest.raises(ArtifactError) as caught:
        provide(blobs, [given_as(one)], str(tmp_path / "inputs"))
    assert f"artifact plan/plan.md should be sha256 {one.sha256}" in caught.value.message
    assert f"but it is sha256 {row.actual}" in caught.value.message
    assert row.reason == caught.value.message
    path.unlink()
    with pytest.raises(ArtifactError, match="missing from the store"):
        audit.raise_for(audit.check_inputs(blobs, [given_as(one)]))


def test_verify_names_each_artifact_that_is_not_what_it_was(outputs: Path, tmp_path: Path) -> None:
    sprint = new_sprint(tmp_path / "state", "plan", "build")
    blobs = BlobStore(str(tmp_path / "state" / "blobs"))
    made: dict[str, Output] = {}
    for phase in ("plan", "build"):
        (outputs / "out.md").write_text(phase)
        slot = sprint.slot(phase)
        (made[phase],) = collect(blobs, str(outputs), [])
        slot.finish(slot.claim(1, me()), replace(ended(), outputs=(made[phase],)))
    assert audit.verify_contents(blobs, sprint) == audit.Report(ok=True, checked=2, bad=())
    path = Path(blobs.path_of(made["plan"].sha256))
    path.unlink()
    path.symlink_to(blobs.path_of(made["build"].sha256))
    report = audit.verify_contents(blobs, sprint)
    assert (report.ok, report.checked) == (False, 2)
    assert [(row.phase, row.name, row.actual) for row in report.bad] == [("plan", "out.md", None)]


def test_export_writes_files_and_refuses_to_overwrite(
    blobs: BlobStore, outputs: Path, tmp_path: Path
) -> None:
    (outputs / "plan.md").write_text("# Plan\n")
    (one,) = collect(blobs, str(outputs), [])
    dest = tmp_path / "dest"
    assert export.export(blobs, [("plan", one)], str(dest)) == [str(dest / "plan" / "plan.md")]
    file = dest / "plan" / "plan.md"
    assert file.read_text() == "# Plan\n"
    file.write_text("mine")
    with pytest.raises(ArtifactError, match="exists already"):
        export.export(blobs, [("plan", one)], str(dest))
    assert file.read_text() == "mine"
    export.export(blobs, [("plan", one)], str(dest), replace=True)
    assert file.read_text() == "# Plan\n"
    assert leftovers(dest) == []


def test_export_does_not_write_through_links(
    blobs: BlobStore, outputs: Path, tmp_path: Path
) -> None:
    (outputs / "plan.md").write_text("# Plan\n")
    (one,) = collect(blobs, str(outputs), [])
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "plan.md").write_text("precious")
    dest = tmp_path / "dest"
    dest.mkdir()
    (dest / "plan").symlink_to(victim)
    before = tree(victim)
    with pytest.raises(ArtifactError, match="is in the way"):
        export.export(blobs, [("plan", one)], str(dest), replace=True)
    (dest / "plan").unlink()
    (dest / "plan").mkdir()
    (dest / "plan" / "plan.md").symlink_to(victim / "plan.md")
    with pytest.raises(ArtifactError, match="exists already"):
        export.export(blobs, [("plan", one)], str(dest))
    export.export(blobs, [("plan", one)], str(dest), replace=True)
    assert (dest / "plan" / "plan.md").read_text() == "# Plan\n"
    assert tree(victim) == before


def test_export_refuses_a_damaged_blob_and_leaves_nothing(
    blobs: BlobStore, outputs: Path, tmp_path: Path
) -> None:
    (outputs / "plan.md").write_text("# Plan\n")
    (one,) = collect(blobs, str(outputs), [])
    Path(blobs.path_of(one.sha256)).unlink()
    with pytest.raises(ArtifactError, match=r"plan/plan\.md"):
        export.export(blobs, [("plan", one)], str(tmp_path / "dest"))
    assert list((tmp_path / "dest" / "plan").iterdir()) == []
