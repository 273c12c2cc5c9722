"""What a call to the service may raise, one class per situation that a caller handles differently.

Standard library only: whoever catches these need not load gRPC. How a gRPC status becomes one of them is
`hotlora.statuses`.

    HotloraError
    ├── InvalidArgument      a field or a line is wrong; `violations` names every one
    ├── NotFound             no such thing
    ├── AlreadyExists        the name is taken, or a request id was used with another body
    ├── FailedPrecondition   the thing is in the wrong state for this
    ├── ResourceExhausted    too large, too many, queue or disk full
    ├── Unavailable          nobody answers now; trying again later may help
    ├── Aborted              somebody else changed it at the same moment
    ├── DataLoss             stored bytes are not what they were
    ├── Internal             a fault of the service; `error_id` finds it in its log
    ├── Cancelled            the call was cancelled
    └── DeadlineExceeded     no answer within the call's limit
"""

# ruff: noqa: N818 -- the names are those of the gRPC codes, which is how their readers know them

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FieldViolation:
    """One thing that is wrong with a request."""

    field: str
    """Path of the field, or "line N" of an uploaded file."""
    description: str


class HotloraError(Exception):
    """A call failed. `message` is a sentence for people, `reason` an UPPER_SNAKE_CASE word for a program."""

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        violations: tuple[FieldViolation, ...] = (),
        retry_delay_seconds: float | None = None,
        error_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.violations = violations
        """What is wrong, field by field; only InvalidArgument has any."""
        self.retry_delay_seconds = retry_delay_seconds
        """How long the service asks to wait before another try; None when it did not say."""
        self.error_id = error_id
        """Finds the fault in the service's log; empty unless Internal."""


class InvalidArgument(HotloraError):
    """A field or a line is wrong; `violations` names every one."""


class NotFound(HotloraError):
    """There is no such thing."""


class AlreadyExists(HotloraError):
    """The name is or was taken, or the request id was used with another body."""


class FailedPrecondition(HotloraError):
    """The thing is in the wrong state for this."""


class ResourceExhausted(HotloraError):
    """Too large, too many, queue or disk full."""


class Unavailable(HotloraError):
    """Nobody answers now; trying again later may help."""


class Aborted(HotloraError):
    """Somebody else changed it at the same moment; look again, then decide."""


class DataLoss(HotloraError):
    """Stored bytes are not what they were when they were written."""


class Internal(HotloraError):
    """A fault of the service; `error_id` finds it in its log."""


class Cancelled(HotloraError):
    """The call was cancelled."""


class DeadlineExceeded(HotloraError):
    """There was no answer within the call's limit. The service may or may not have done it."""
