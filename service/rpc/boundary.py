"""What every call passes on its way in and out: a place among all calls, decoding, validation, draining,
and the table of errors.

Servicers behind it raise `service.errors`, and need to think of nothing else. Whatever leaves has a code on
purpose: never UNKNOWN, never the text of an exception that we did not raise for callers. No method is known
by name; health and reflection pass here too.
"""

import asyncio
import inspect
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence, Set
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from service import logs, traces
from service.errors import Exhausted, FieldViolation, HotloraError, InvalidRequest, Unavailable
from service.metrics import Metrics
from service.rpc import validation
from service.rpc.errors import Outcome, internal_outcome, outcome_of, unknown_method_outcome

Context = grpc.aio.ServicerContext[Any, Any]
FurtherCheck = Callable[[Any, Set[str]], Awaitable[Sequence[FieldViolation]]]
"""What else is wrong with a request that breaks rules of its proto. Gets the request without the fields that
do, and their names."""
if TYPE_CHECKING:  # generic in its stubs alone
    _Handler = grpc.RpcMethodHandler[Any, Any]

DRAIN_RETRY_SECONDS = 5.0
"""What a caller that is refused while the service drains is told to wait: about a restart."""

BUSY_RETRY_SECONDS = 1.0
"""What a caller is told to wait that finds no place among the calls."""

_LINGER_SECONDS = 0.3
_QUIET_SECONDS = 0.05

_OUR_CODE = Path(__file__).parents[1]

_log = structlog.get_logger(__name__)


class Drain:
    """Whether the server is ending, and whether calls still run."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._calls = 0

    def begin(self) -> None:
        """Refuse new calls and end the ones that only watch."""
        self._begun.set()

    def refuse_if_begun(self) -> None:
        """Raise Unavailable once the server is ending."""
        if self._begun.is_set():
            raise Unavailable(
                "DRAINING", "The service is ending; try again.", retry_seconds=DRAIN_RETRY_SECONDS
            )

    async def begun(self) -> None:
        """Return when the server begins to end."""
        await self._begun.wait()

    async def idle(self) -> None:
        """Return when no call runs."""
        await self._idle.wait()

    def enter(self) -> int:
        """Count a call that begins; gives how many run now."""
        self._calls += 1
        self._idle.clear()
        return self._calls

    def leave(self) -> None:
        """Count a call that ended."""
        self._calls -= 1
        if not self._calls:
            self._idle.set()


@dataclass(frozen=True)
class _Unreadable:
    """Stands for a message that could not be decoded: gRPC itself would answer UNKNOWN."""


class Boundary(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server."""

    def __init__(
        self,
        *,
        drain: Drain,
        new_id: Callable[[], str],
        most_calls: int,
        metrics: Metrics,
        further_checks: Mapping[str, FurtherCheck] | None = None,
    ) -> None:
        """`most_calls` may run at the same time; those to health and reflection do not count.
        `further_checks` are the servicers' own, by method, so that all bad fields are told at once."""
        self._drain = drain
        self._new_id = new_id
        self._most_calls = most_calls
        self._metrics = metrics
        self._further_checks = further_checks or {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        """Wrap the method's handler; a method that nobody has gets one that says so."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return _unknown(handler_call_details.method)
        behaviour, make = _parts(handler)
        method = handler_call_details.method
        wrapped = (
            self._stream(method, behaviour)
            if handler.response_streaming
            else self._single(method, behaviour, lingers=handler.request_streaming)
        )
        guarded: _Handler = make(
            wrapped,
            request_deserializer=_tolerant(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )
        return guarded

    def _single(self, method: str, behaviour: Callable[..., Any], *, lingers: bool) -> Callable[..., Any]:
        async def call(request: Any, context: Context) -> Any:
            async with _named(method, context), self._call(method, context):
                begun = time.monotonic()
                try:
                    return await behaviour(await self._checked(method, request), context)
                except asyncio.CancelledError as end:
                    seconds = round(time.monotonic() - begun, 3)
                    _log.warning("a caller gave up", method=method, seconds=seconds, waiting_at=_places(end))
                    raise
                except HotloraError:
                    if lingers:
                        await _linger(context)
                    raise

        return call

    def _stream(self, method: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        # Messages are written here instead of letting gRPC drive the generator: it would leave the generator
        # of a cancelled call suspended until it is garbage, and the engine would be held till then.
        async def call(request: Any, context: Context) -> None:
            async with _named(method, context), self._call(method, context):
                answer = behaviour(_checked(request), context)
                if inspect.isawaitable(answer):  # Health.Watch writes by itself
                    await answer
                    return
                async with aclosing(answer) as messages:
                    async for message in messages:
                        await context.write(message)

        return call

    async def _checked(self, method: str, request: Any) -> Any:
        try:
            return _checked(request)
        except InvalidRequest as error:
            further = self._further_checks.get(method)
            if further is None or isinstance(request, _Unreadable):
                raise
            broken = {violation.field for violation in error.violations}
            more = await further(validation.without(request, broken), broken)
            raise InvalidRequest([*error.violations, *more]) from error

    @asynccontextmanager
    async def _call(self, method: str, context: Context) -> AsyncIterator[None]:
        is_ours = not method.startswith("/grpc.")
        running = self._drain.enter() if is_ours else 0
        code = grpc.StatusCode.CANCELLED
        try:
            if is_ours:
                self._drain.refuse_if_begun()
            if running > self._most_calls:
                raise Exhausted(
                    "TOO_MANY_CALLS",
                    f"{self._most_calls} calls run already, which is the limit, watches included; try again",
                    retry_seconds=BUSY_RETRY_SECONDS,
                )
            yield
            code = grpc.StatusCode.OK
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            if context.done():  # the caller is gone, and nobody is left to tell
                raise asyncio.CancelledError from error
            outcome = self._outcome(method, error)
            code = outcome.code
            traces.failed(outcome.code.name, {"rpc.grpc.status_code": outcome.code.value[0]})
            await _abort(context, outcome)
        finally:
            if is_ours:
                self._drain.leave()
                self._metrics.called("grpc", method.strip("/"), code.name)

    def _outcome(self, method: str, error: Exception) -> Outcome:
        if isinstance(error, HotloraError):
            return outcome_of(error)
        error_id = self._new_id()
        _log.error("call failed", method=method, error_id=error_id, exc_info=error)
        return internal_outcome(error_id)


@asynccontextmanager
async def _named(method: str, context: Context) -> AsyncIterator[None]:
    """Each call has an id, the caller's own where it gave one: in the log, and in the initial metadata. It is
    a span of the caller's trace where it sent one."""
    sent = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
    request_id = logs.request_id(sent.get(logs.REQUEST_ID))
    service, _, name = method.strip("/").partition("/")
    about = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name, logs.REQUEST_ID: request_id}
    with logs.of_request(request_id), traces.incoming(method.strip("/"), sent, about):
        await context.send_initial_metadata(((logs.REQUEST_ID, request_id),))
        yield


def _places(end: asyncio.CancelledError) -> list[str]:
    """The innermost places of our own that a call waited at."""
    frames = traceback.extract_tb(end.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_OUR_CODE)]
    return [f"{Path(frame.filename).stem}.{frame.name}:{frame.lineno}" for frame in ours[-3:]]


async def _linger(context: Context) -> None:
    """Throw away what the caller of a refused call still sends, for a moment.

    A caller on grpc.aio whose message is under way when the status comes is told INTERNAL instead of the
    status (seen with grpcio 1.85). Most callers are done sending, or pause, before this ends.
    """
    with suppress(TimeoutError, grpc.aio.BaseError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while True:
                async with asyncio.timeout(_QUIET_SECONDS):
                    if await context.read() is grpc.aio.EOF:
                        return


def _unknown(method: str) -> "_Handler":
    async def refuse(_: Any, context: Context) -> None:
        await _abort(context, unknown_method_outcome(method))

    # On the wire, streams both ways are every kind of call.
    return grpc.stream_stream_rpc_method_handler(refuse)


async def _abort(context: Context, outcome: Outcome) -> None:
    said = tuple(context.trailing_metadata() or ())  # which abort would leave out
    await context.abort(outcome.code, outcome.message, (*said, *outcome.trailers))


def _parts(handler: "_Handler") -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The function that answers, and what makes a handler of its kind."""
    match handler.request_streaming, handler.response_streaming:
        case False, False:
            behaviour, make = handler.unary_unary, grpc.unary_unary_rpc_method_handler
        case False, True:
            behaviour, make = handler.unary_stream, grpc.unary_stream_rpc_method_handler
        case True, False:
            behaviour, make = handler.stream_unary, grpc.stream_unary_rpc_method_handler
        case _:
            behaviour, make = handler.stream_stream, grpc.stream_stream_rpc_method_handler
    assert behaviour is not None
    return behaviour, make


def _tolerant(decode: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    assert decode is not None

    def tolerant(encoded: bytes) -> Any:
        try:
            return decode(encoded)
        except DecodeError:
            return _Unreadable()

    return tolerant


def _checked(request: Any) -> Any:
    if isinstance(request, _Unreadable):
        raise InvalidRequest(
            [FieldViolation(field="request", description="the bytes are not a message of this method")],
            reason="UNREADABLE_MESSAGE",
        )
    if isinstance(request, Message):
        validation.check(request)
        return request
    return _checked_stream(request)


async def _checked_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)
