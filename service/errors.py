# ruff: noqa: N818 - the names say what happened; the suffix Error would add nothing
"""What can go wrong inside the service, as types that a caller may branch on.

One table maps these to gRPC codes (`service.rpc.errors`) and one to HTTP (`service.gateway`); this module
knows neither. Every message may reach a caller: it says what was wrong, where, and what would be accepted,
and carries nothing private.

HotloraError
 ├─ NotFound          the thing does not exist, or no longer
 ├─ AlreadyExists     a name or request_id is taken
 ├─ WrongState        the thing exists, but not in a state that allows this
 ├─ Conflict          somebody else was faster; look again
 ├─ InvalidRequest    fields that are wrong, all of them at once
 ├─ Exhausted         a quota, the queue or the disk is full
 ├─ Unavailable       not now; try again
 └─ DataLoss          something durable is damaged
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FieldViolation:
    """One wrong field of a request."""

    field: str
    """Path in the request, for example `hyperparameters.rank`, or `line 7` of an uploaded file."""
    description: str
    """The rule, the offending value, and what would be accepted."""


class HotloraError(Exception):
    """Base of all: a stable word for programs and a sentence for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """UPPER_SNAKE_CASE, stable."""
        self.message = message


class NotFound(HotloraError):
    """There is no such thing."""


class AlreadyExists(HotloraError):
    """A name or request_id is or was taken by something else."""


class WrongState(HotloraError):
    """The thing is in a state that does not allow what was asked."""

    def __init__(
        self, message: str, *, state: str, allowed: Iterable[str] = (), reason: str = "WRONG_STATE"
    ) -> None:
        super().__init__(reason, message)
        self.state = state
        """The state it is in."""
        self.allowed = tuple(allowed)
        """States in which the call would have been accepted; may be empty."""


class Conflict(HotloraError):
    """Another writer moved first: what the caller knew is outdated. Read again and decide anew."""


class InvalidRequest(HotloraError):
    """Fields that are wrong."""

    def __init__(self, violations: Sequence[FieldViolation], *, reason: str = "INVALID_REQUEST") -> None:
        super().__init__(reason, "; ".join(f"{each.field}: {each.description}" for each in violations))
        self.violations = tuple(violations)


class Exhausted(HotloraError):
    """A limit is reached: full queue, disk nearly full, too large."""

    def __init__(self, reason: str, message: str, *, retry_seconds: float | None = None) -> None:
        super().__init__(reason, message)
        self.retry_seconds = retry_seconds
        """When another try may succeed; None where waiting does not help."""


class Unavailable(HotloraError):
    """Not now. Another try after `retry_seconds` may succeed."""

    def __init__(self, reason: str, message: str, *, retry_seconds: float) -> None:
        super().__init__(reason, message)
        self.retry_seconds = retry_seconds


class DataLoss(HotloraError):
    """A checksum, a manifest or the database is damaged."""
