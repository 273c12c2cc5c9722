"""Turns the status of a failed gRPC call into one of `hotlora.errors`: the service's table read backwards.

A status that our service made carries a `google.rpc.Status`. One without it was made by the transport (nobody
listens, the connection broke), and its text is written for the developers of gRPC: it is replaced.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2, status_pb2

from hotlora import errors

_DETAILS_KEY = "grpc-status-details-bin"

UNREACHABLE = "UNREACHABLE"
"""Reason of the Unavailable that the transport made: nobody listens there, or the connection broke."""

_BY_CODE: dict[grpc.StatusCode, type[errors.HotloraError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidArgument,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.ABORTED: errors.Aborted,
    grpc.StatusCode.DATA_LOSS: errors.DataLoss,
    grpc.StatusCode.CANCELLED: errors.Cancelled,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
}
"""Every other code is a fault of the service: Internal."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """What a failed call of either gRPC flavour ended with."""

    code: grpc.StatusCode
    message: str
    details: bytes | None
    """Serialized google.rpc.Status; None when there was none."""


def status_of(
    code: grpc.StatusCode, message: str | None, trailers: Iterable[tuple[str, str | bytes]] | None
) -> Status:
    """The status out of what `grpc.RpcError` and `grpc.aio.AioRpcError` both offer."""
    details = next((value for key, value in trailers or () if key == _DETAILS_KEY), None)
    return Status(code=code, message=message or "", details=details if isinstance(details, bytes) else None)


def error_of(status: Status, *, address: str, method: str, broken_off: bool = False) -> errors.HotloraError:
    """The error to raise. `broken_off` says that a stream had already begun."""
    if status.details is None:
        return _transport_error(status, address=address, method=method, broken_off=broken_off)
    envelope = status_pb2.Status.FromString(status.details)
    reason, error_id = "", ""
    violations: tuple[errors.FieldViolation, ...] = ()
    retry_delay_seconds: float | None = None
    for detail in envelope.details:
        info, bad, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        if detail.Unpack(info):
            reason, error_id = info.reason, info.metadata.get("error_id", error_id)
        elif detail.Unpack(bad):
            violations = tuple(
                errors.FieldViolation(field=one.field, description=one.description)
                for one in bad.field_violations
            )
        elif detail.Unpack(retry):
            retry_delay_seconds = retry.retry_delay.ToTimedelta().total_seconds()
    return _BY_CODE.get(status.code, errors.Internal)(
        envelope.message or status.message,
        reason=reason,
        violations=violations,
        retry_delay_seconds=retry_delay_seconds,
        error_id=error_id,
    )


def _transport_error(status: Status, *, address: str, method: str, broken_off: bool) -> errors.HotloraError:
    """The error for a status that our service did not make."""
    match status.code:
        case grpc.StatusCode.UNAVAILABLE if not broken_off:
            return errors.Unavailable(
                f"No service answers at {address}. Start one with `hotlora up`, or name another by --address"
                " or HOTLORA_ADDRESS.",
                reason=UNREACHABLE,
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return errors.DeadlineExceeded(
                f"The service at {address} did not answer {method} in time.", reason="DEADLINE_EXCEEDED"
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return errors.Internal(
                f"The service at {address} does not know {method}; is it a hotlora service of this version?",
                reason="UNIMPLEMENTED",
            )
        case code if broken_off or code is grpc.StatusCode.UNAVAILABLE:
            # A server that stops or dies mid-stream is seen as UNAVAILABLE, CANCELLED, INTERNAL or UNKNOWN,
            # depending on which frame was the last; for a caller these are one situation.
            return errors.Unavailable(
                f"The connection to the service at {address} broke while {method} was running.",
                reason=UNREACHABLE,
            )
        case code:
            return _BY_CODE.get(code, errors.Internal)(
                f"{method} failed at {address}: {status.message or code.name}", reason=code.name
            )
