"""All that is wrong with one request, gathered field by field before any of it is told.

Where a single resource that the request names is missing or in the wrong state, and nothing else is wrong,
that keeps its own error; together with anything else it is one violation among them.
"""

from collections.abc import Awaitable, Iterable, Set
from typing import TypeVar

from service.errors import AlreadyExists, FieldViolation, HotloraError, InvalidRequest, NotFound, WrongState

Found = TypeVar("Found")

_OF_A_NAME = (NotFound, WrongState, AlreadyExists)


class Findings:
    """See the module. Made for one request."""

    def __init__(self, broken: Set[str] = frozenset()) -> None:
        """`broken` are the fields that break a rule of the proto, and that are not set in what is examined:
        those are told already, and what follows from their values cannot be."""
        self._broken = broken
        self._found: list[tuple[FieldViolation, HotloraError | None]] = []

    def knows(self, *fields: str) -> bool:
        """Whether the request says of each of these fields, and of what is in them, what it means, if only by
        leaving it out."""
        return not any(
            broken == field or broken.startswith((f"{field}.", f"{field}["))
            for broken in self._broken
            for field in fields
        )

    def add(self, violations: Iterable[FieldViolation]) -> None:
        """Fields whose values are wrong."""
        self._found.extend((violation, None) for violation in violations)

    async def look_up(self, field: str, answer: Awaitable[Found]) -> Found | None:
        """What the field names; None where that cannot be had, which is then one of the findings."""
        try:
            return await answer
        except _OF_A_NAME as error:
            self._found.append((FieldViolation(field=field, description=error.message), error))
        except InvalidRequest as error:
            self.add(error.violations)
        return None

    @property
    def violations(self) -> list[FieldViolation]:
        """All of them, in the order in which they were found."""
        return [violation for violation, _ in self._found]

    def raise_any(self) -> None:
        """Raise InvalidRequest with all of them, or the error of the only one; nothing where all is well."""
        match self._found:
            case []:
                return
            case [(_, HotloraError() as error)]:
                raise error
            case _:
                raise InvalidRequest(self.violations)
