"""The claim: at most one holder for each attempt, whatever races or dies.

    attempts/0001/owner.json      who; there from the moment that the directory is
    attempts/0001/outcome.json    how it ended; the first to link it wins

One mechanism, for the phases of a sprint and for the writer's turn. `attempt` has the rules.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from supervisor.board import beat, disk, document, owner, vital
from supervisor.board.attempt import (
    Attempt,
    describe_holder,
    describe_outcome,
    next_number,
)
from supervisor.errors import FencedError, HeldError, NotFoundError
from supervisor.model.liveness import can_see
from supervisor.model.name import attempt_name, attempt_number
from supervisor.model.record import AttemptState, Outcome, Owner

Struct = TypeVar("Struct", bound=msgspec.Struct)

OWNER = "owner.json"
OUTCOME = "outcome.json"


class Slot:
    """A row of attempts in a directory, which need not exist yet.

    Args:
        ended: keeps attempts that ended without being completed, which never change, for the next
            reader: a phase may have thousands. Completed ones are read anew each time, since
            what depends on them is checked against them.
    """

    __slots__ = ("_attempts", "_ended", "label", "path")

    def __init__(self, path: str, label: str, ended: dict[int, Attempt] | None = None) -> None:
        self.path = path
        self.label = label
        self._ended = ended
        self._attempts = os.path.join(path, "attempts")

    def attempts(self) -> list[Attempt]:
        """All attempts, the first first.

        Raises:
            BoardError: one is damaged, or a number is missing.
        """
        # Only the highest number is taken from the listing: readdir(3) may show an entry that
        # was made while it ran and miss one made before that.
        listed = set(self._numbers())
        if self._ended is not None:
            for gone in self._ended.keys() - listed:  # or missed: then it is read again
                del self._ended[gone]
        return [self._read(n) for n in range(1, max(listed, default=0) + 1)]

    def latest(self) -> Attempt | None:
        """The attempt with the highest number.

        Raises:
            BoardError: it is damaged.
        """
        highest = self._highest()
        return self._read(highest) if highest else None

    def attempt(self, n: int) -> Attempt:
        """One attempt.

        Raises:
            NotFoundError: it was never claimed.
            BoardError: it is damaged.
        """
        if not os.path.lexists(self._path(n)):
            raise NotFoundError(f"{self.label} has no attempt {n}")
        return self._read(n)

    def claim(self, n: int, by: Owner, *, is_settled: bool = True) -> Attempt:
        """Claims attempt n. Of all who try, one wins.

        Args:
            is_settled: False: until `settle`, a power cut may undo it. To everybody else it is
                there at once in either case.

        Raises:
            HeldError: another has it, or the attempt before it has not ended; says who.
            NotFoundError: there is no attempt before it, or the sprint was removed.
            BoardError: the claim cannot be written. The board is unchanged.
        """
        if by.lease_s is None and (by.pid is None or by.start_ticks is None or not by.boot_id):
            raise ValueError("an owner is a process (pid, start_ticks, boot_id) or has a lease_s")
        if n < 1:
            raise ValueError(f"attempts count from 1, not {n}")
        if n > 1:
            self._require_ended(n - 1)
        path = self._path(n)
        # Who comes late is told without a write; who is not late may still lose below.
        if os.path.lexists(path):
            raise self._held(n)
        with disk.explained(path), self._written(by) as (tmp, by, lock):
            try:
                disk.publish_directory(tmp, path)
            except FileExistsError:
                raise self._held(n) from None
            vital.keep(path, lock)
        made = Attempt(self.label, n, path, by)
        if is_settled:
            self.settle(made)
        return made

    def claim_next(self, by: Owner, *, is_settled: bool = True) -> Attempt:
        """Claims the attempt after the latest. As `claim`."""
        return self.claim(next_number(self.latest()), by, is_settled=is_settled)

    def settle(self, attempt: Attempt) -> None:
        """Makes a claim, or the outcome of an attempt that has one, outlast a power cut."""
        disk.sync_published(attempt.path if attempt.has_ended else self._attempts)

    def finish(self, attempt: Attempt, outcome: Outcome, *, is_settled: bool = True) -> Attempt:
        """Ends an attempt. The first outcome is the outcome.

        Args:
            is_settled: as for `claim`.

        Raises:
            FencedError: it has one already, and that stands; says which.
            NotFoundError: the attempt is gone.
            BoardError: the outcome cannot be written. The board is unchanged.
        """
        if outcome.state is AttemptState.RUNNING:
            raise ValueError("running is not how an attempt ends")
        path = os.path.join(attempt.path, OUTCOME)
        if os.path.lexists(path):
            raise self._fenced(attempt.n)
        tmp = disk.tmp_path(attempt.path)
        with disk.explained(path):
            try:
                disk.write_file(tmp, document.encode(outcome))
                disk.publish_file(tmp, path)
            except FileExistsError:
                raise self._fenced(attempt.n) from None
            finally:
                disk.remove(tmp)
        vital.release(attempt.path)
        ended = Attempt(self.label, attempt.n, attempt.path, attempt.owner, outcome)
        if is_settled:
            self.settle(ended)
        return ended

    def _path(self, n: int) -> str:
        return os.path.join(self._attempts, attempt_name(n))

    def _make_tmp(self) -> str:
        tmp = disk.tmp_path(self._attempts)
        try:
            os.mkdir(tmp, 0o700)
        except FileNotFoundError:
            # A phase has its directory from the start; the writer's turn gets it here. What is
            # missing further up was removed, and must not come back half.
            os.stat(os.path.dirname(self.path))
            disk.make_directories(self._attempts)
            os.mkdir(tmp, 0o700)
        return tmp

    @contextmanager
    def _written(self, by: Owner) -> Iterator[tuple[str, Owner, int | None]]:
        """A directory with its owner inside, still to be published; removed if that fails.

        Gives its path, the owner as written, and the lock on it, if the owner is this process.
        """
        tmp = self._make_tmp()
        lock: int | None = None
        try:
            me = owner.this_process()
            if by.pid == me.pid and can_see(by, me):
                lock = vital.lock(tmp)
                by = msgspec.structs.replace(by, locks=lock is not None)
            disk.write_file(os.path.join(tmp, OWNER), document.encode(by))
            if by.lease_s is not None and by.giver is None:
                beat.renew(tmp, beat.now(me.boot_id))
            yield tmp, by, lock
        except BaseException:
            if lock is not None:
                os.close(lock)
            disk.remove(tmp)
            raise

    def _numbers(self) -> list[int]:
        """All numbers, the lowest first."""
        try:
            names = os.listdir(self._attempts)
            return sorted(n for n in map(attempt_number, names) if n is not None)
        except FileNotFoundError:
            return []
        except ValueError as error:
            raise document.damaged(
                self._attempts, f"holds a name that is wrong: {error}"
            ) from error
        except OSError as error:
            raise document.damaged(self._attempts, f"cannot be read: {error.strerror}") from error

    def _highest(self) -> int:
        return max(self._numbers(), default=0)

    def _read(self, n: int) -> Attempt:
        if self._ended is not None and n in self._ended:
            return self._ended[n]
        path = self._path(n)
        by = document.read(os.path.join(path, OWNER), Owner)
        if by is None:
            what = "holds no owner.json; expected an owner document"
            if not os.path.lexists(path):
                what = f"is missing; attempts count up from 1 to {self._highest()} without a gap"
            raise document.damaged(path, what)
        outcome_path = os.path.join(path, OUTCOME)
        outcome = document.read(outcome_path, Outcome)
        if outcome is not None and outcome.state is AttemptState.RUNNING:
            raise document.damaged(outcome_path, 'says "running"; expected how the attempt ended')
        attempt = Attempt(self.label, n, path, by, outcome)
        ended = outcome is not None and outcome.state is not AttemptState.COMPLETED
        if ended and self._ended is not None:
            self._ended[n] = attempt = _sharing(attempt, self._ended.get(n - 1))
        return attempt

    def _require_ended(self, n: int) -> None:
        before = self.attempt(n)
        if not before.has_ended:
            raise HeldError(
                f"{self.label} is held by {describe_holder(before)}",
                hint="Wait for it to end, or free it with `nanosup unstuck` if it is dead.",
            )

    def _held(self, n: int) -> HeldError:
        winner = self._read(n)
        if winner.has_ended:
            return HeldError(
                f"attempt {n} of {self.label} was {winner.owner.agent}'s, "
                f"and ended {describe_outcome(winner)}",
                hint="Look again, and claim the next.",
            )
        return HeldError(
            f"{self.label} is held by {describe_holder(winner)}",
            hint="Wait for it to end, or free it with `nanosup unstuck` if it is dead.",
        )

    def _fenced(self, n: int) -> FencedError:
        return FencedError(
            f"attempt {n} of {self.label} has ended already: {describe_outcome(self._read(n))}",
            hint="Nothing was changed. Claim the phase again to go on.",
        )


def _sharing(attempt: Attempt, before: Attempt | None) -> Attempt:
    """The same attempt, with what it has in common with another kept once."""
    if before is None or attempt.outcome is None or before.outcome is None:
        return attempt
    owner = _alike(attempt.owner, before.owner)
    return msgspec.structs.replace(
        attempt, owner=owner, outcome=_alike(attempt.outcome, before.outcome)
    )


def _alike(one: Struct, other: Struct) -> Struct:
    same = {
        name: value
        for name in one.__struct_fields__
        if (value := getattr(other, name)) == getattr(one, name)
    }
    return msgspec.structs.replace(one, **same)
