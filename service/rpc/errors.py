"""The one table from our exceptions to gRPC: code, and `google.rpc` details that programs can read.

Knows nothing of servers or calls. Its other half, from status to exception, is `hotlora.statuses`.
Details travel in a trailer, and gRPC refuses trailers above 8 KiB: what a caller sent may be long, so
everything here is cut to fit, and says so.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from service import errors

DOMAIN = "hotlora"
"""ErrorInfo.domain of every error that this service makes."""

DETAILS_KEY = "grpc-status-details-bin"

INTERNAL_SENTENCE = "The service failed; this is a fault of ours. Its log has more under error id {error_id}."

_CODES: dict[type[errors.HotloraError], grpc.StatusCode] = {
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Conflict: grpc.StatusCode.ABORTED,
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DataLoss: grpc.StatusCode.DATA_LOSS,
}

_MAX_MESSAGE_BYTES = 600
"""As gRPC sends it, percent-encoded; a second copy goes into the details."""
_MAX_VIOLATIONS_BYTES = 3_600
"""With base64, and with both copies of the message, this keeps all trailers below 8 KiB."""
_MAX_DESCRIPTION_CHARACTERS = 300
_MIN_DESCRIPTION_CHARACTERS = 80
"""Descriptions are shortened down to this before violations are left out."""
_FIELD_OVERHEAD_BYTES = 50


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a call ends that did not end well."""

    code: grpc.StatusCode
    message: str
    """The same text as in `status`: gRPC requires it."""
    status: status_pb2.Status

    @property
    def trailers(self) -> tuple[tuple[str, bytes], ...]:
        """Trailing metadata that carries the details."""
        return ((DETAILS_KEY, self.status.SerializeToString()),)


def outcome_of(error: errors.HotloraError) -> Outcome:
    """The outcome of an error that we raised on purpose. Raises KeyError for a class that has no code."""
    code = next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)
    details: list[Message] = []
    metadata: dict[str, str] = {}
    match error:
        case errors.InvalidRequest():
            details.append(_bad_request(error.violations))
        case errors.WrongState():
            metadata = {"state": error.state, "allowed_states": ",".join(error.allowed)}
            details.append(
                error_details_pb2.PreconditionFailure(
                    violations=[
                        error_details_pb2.PreconditionFailure.Violation(
                            type=error.reason,
                            subject=error.state,
                            description=cut(error.message, _MAX_DESCRIPTION_CHARACTERS),
                        )
                    ]
                )
            )
        case (
            errors.Exhausted(retry_seconds=float() | int() as seconds)
            | errors.Unavailable(retry_seconds=seconds)
        ):
            details.append(error_details_pb2.RetryInfo(retry_delay=_duration(seconds)))
    return _outcome(code, error.message, error.reason, metadata, details)


def internal_outcome(error_id: str) -> Outcome:
    """The outcome of everything else: a fixed sentence and an id that finds the fault in the log."""
    message = INTERNAL_SENTENCE.format(error_id=error_id)
    return _outcome(grpc.StatusCode.INTERNAL, message, "INTERNAL", {"error_id": error_id}, [])


def unknown_method_outcome(method: str) -> Outcome:
    """The outcome of a call to a method that this service does not have."""
    message = f"There is no method {method}; reflection lists those that there are."
    return _outcome(grpc.StatusCode.UNIMPLEMENTED, message, "UNKNOWN_METHOD", {}, [])


def cut(text: str, most_characters: int) -> str:
    """`text` in at most so many characters, with an ellipsis where something is missing."""
    return text if len(text) <= most_characters else text[: most_characters - 3] + "..."


def _outcome(
    code: grpc.StatusCode, message: str, reason: str, metadata: dict[str, str], details: Sequence[Message]
) -> Outcome:
    message = _sendable(message)
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    status = status_pb2.Status(code=code.value[0], message=message, details=_packed([info, *details]))
    return Outcome(code=code, message=message, status=status)


def _sendable(message: str) -> str:
    """`message` cut to what a trailer may carry, and without what UTF-8 cannot."""
    message = message.encode("utf-8", "replace").decode()
    costs = accumulate(1 if " " <= letter <= "~" else 3 * len(letter.encode()) for letter in message)
    return cut(message, sum(cost <= _MAX_MESSAGE_BYTES for cost in costs))


def _packed(details: Iterable[Message]) -> list[any_pb2.Any]:
    packed = []
    for detail in details:
        envelope = any_pb2.Any()
        envelope.Pack(detail)
        packed.append(envelope)
    return packed


def _bad_request(violations: Sequence[errors.FieldViolation]) -> error_details_pb2.BadRequest:
    room = _MAX_VIOLATIONS_BYTES // max(1, len(violations)) - _FIELD_OVERHEAD_BYTES
    most_characters = min(max(room, _MIN_DESCRIPTION_CHARACTERS), _MAX_DESCRIPTION_CHARACTERS)
    bad_request = error_details_pb2.BadRequest()
    for index, violation in enumerate(violations):
        one = error_details_pb2.BadRequest.FieldViolation(
            field=violation.field, description=cut(violation.description, most_characters)
        )
        if bad_request.ByteSize() + one.ByteSize() > _MAX_VIOLATIONS_BYTES:
            bad_request.field_violations.add(
                field="request", description=f"{len(violations) - index} more problems are not shown"
            )
            break
        bad_request.field_violations.append(one)
    return bad_request


def _duration(seconds: float) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
