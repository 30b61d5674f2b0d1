"""Repositories to measure on: the shape of git's and of Linux's sources, the same every time."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# Fixed, so that the same generator always yields the same commit.
WHEN = "1700000000 +0000"
VERSION = "1"


@dataclass(frozen=True, slots=True)
class Corpus:
    """Attributes:
    files: how many.
    directories: how many they are spread over, up to four deep.
    median_bytes: of a file; sizes are spread log-normally, as those of sources are.
    """

    name: str
    files: int
    directories: int
    median_bytes: int


SMALL = Corpus("small", files=4_850, directories=260, median_bytes=4_000)
LARGE = Corpus("large", files=73_750, directories=4_900, median_bytes=6_000)


def generated(corpus: Corpus, cache: Path) -> Path:
    """The repository for `corpus` below `cache`: bare of a checkout, made when it is not there."""
    repository = cache / f"{corpus.name}-{corpus.files}-v{VERSION}"
    if (repository / "done").exists():
        return repository
    shutil.rmtree(repository, ignore_errors=True)
    git = ["git", "-C", str(repository)]
    repository.mkdir(parents=True)
    subprocess.run([*git, "init", "--quiet", "--initial-branch=main"], check=True)
    # Speed matters for generating, not the size of the pack.
    importer = subprocess.Popen(
        [*git, "-c", "core.compression=1", "fast-import", "--quiet", "--depth=0"],
        stdin=subprocess.PIPE,
    )
    assert importer.stdin is not None
    with importer.stdin as stream:
        _commit(stream, corpus)
    if importer.wait() != 0:
        raise RuntimeError(f"git fast-import failed for {corpus.name}")
    (repository / "done").touch()
    return repository


def _commit(stream: IO[bytes], corpus: Corpus) -> None:
    stream.write(b"commit refs/heads/main\n")
    stream.write(f"committer Bench <bench@example.org> {WHEN}\n".encode())
    stream.write(b"data 5\nbench\n")
    for path, content in _files(corpus):
        stream.write(f"M 100644 inline {path}\ndata {len(content)}\n".encode())
        stream.write(content)
        stream.write(b"\n")


def _files(corpus: Corpus) -> Iterator[tuple[str, bytes]]:
    rng = random.Random(corpus.name)
    text = _text(rng)
    directories = _directories(rng, corpus.directories)
    for number in range(corpus.files):
        directory = directories[number % len(directories)]
        size = min(int(rng.lognormvariate(0, 1.1) * corpus.median_bytes), 1_000_000)
        start = rng.randrange(len(text) - size)
        # The first line makes every file another object.
        content = f"/* {number} */\n".encode() + text[start : start + size]
        yield f"{directory}/file{number}.c", content


def _directories(rng: random.Random, count: int) -> list[str]:
    made = ["src"]
    while len(made) < count:
        parent = rng.choice(made)
        if parent.count("/") < 4:
            made.append(f"{parent}/part{len(made)}")
    return made


def _text(rng: random.Random) -> bytes:
    """Four megabytes that compress about as well as sources do."""
    letters = "etaoinshrdlu_"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 10))) for _ in range(4_000)]
    lines: list[str] = []
    size = 0
    while size < 4_000_000:
        line = "    " * rng.randint(0, 3) + " ".join(rng.choices(words, k=rng.randint(1, 9)))
        lines.append(line)
        size += len(line) + 1
    return "\n".join(lines).encode()
