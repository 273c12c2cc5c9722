"""Room for answers: how many may be given at the same time.

What belongs to one request has room together or not at all: a later answer must not be refused when the first
ones have begun. Engines queue what their batches do not take; this bounds what waits there.
"""

from typing import Self

from service.errors import Exhausted


class Room:
    """All there is. Belongs to one event loop."""

    def __init__(self, answers: int) -> None:
        self._answers = answers
        self._taken = 0

    def hold(self, answers: int) -> "Hold":
        """Room for so many, to be taken and given back."""
        return Hold(self, answers)

    def take(self, answers: int) -> None:
        """Raises Exhausted where they have no room together."""
        if self._taken + answers > self._answers:
            asked = "" if answers == 1 else f", and {answers} more were asked for"
            raise Exhausted(
                "TOO_MANY_ANSWERS",
                f"{self._taken} answers of up to {self._answers} are being given already{asked}",
                retry_seconds=1.0,
            )
        self._taken += answers

    def give_back(self, answers: int) -> None:
        """They ended."""
        self._taken -= answers


class Hold:
    """Room for the answers to one request. Given back when it is left; a context manager."""

    def __init__(self, room: Room, answers: int) -> None:
        self._room = room
        self._answers = answers
        self._is_taken = False

    def take(self) -> None:
        """For all answers, once: whichever is about to begin first calls it, after all else was checked.
        Raises Exhausted."""
        if not self._is_taken:
            self._room.take(self._answers)
            self._is_taken = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_taken:
            self._room.give_back(self._answers)
            self._is_taken = False
