"""What every topic measures with: a sample of durations, a command's wall time, a table."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "bench"
NANOSUP = Path(sys.executable).with_name("nanosup")


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured.

    Attributes:
        quick: the small repository only, fewer rounds.
    """

    quick: bool

    @staticmethod
    def of(arguments: argparse.Namespace) -> Options:
        return Options(quick=arguments.quick)

    @property
    def rounds(self) -> int:
        return 3 if self.quick else 7


@dataclass(frozen=True, slots=True)
class Sample:
    """Durations of one thing, measured several times."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.seconds)

    def __str__(self) -> str:
        low, high = min(self.seconds), max(self.seconds)
        return f"{duration(self.median)} ({duration(low)}–{duration(high)})"


def timed(command: Sequence[str], cwd: Path | None = None, expected: int = 0) -> float:
    """Wall seconds of a command; one that does not end as expected ends the measuring."""
    began = perf_counter()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace")
    taken_s = perf_counter() - began
    if done.returncode != expected:
        sys.exit(f"bench: {' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return taken_s


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 0.01:
        return f"{seconds * 1000:.2f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def say(line: str) -> None:
    """Tells who waits what is being measured."""
    print(f"bench: {line}", file=sys.stderr, flush=True)
