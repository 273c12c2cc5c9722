"""Traces in OpenTelemetry's terms: a span of every call that comes in, and of what engines are asked for it.

Where no collector is named nothing is recorded, and all of it costs microseconds. Spans carry names, counts
and outcomes, never what anybody wrote. What is current is found by context, so a span is made current only
around whole calls: generators are begun in one task and closed in another.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import structlog
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.errors import HotloraError

Attributes = Mapping[str, str | int | float | bool]

_SERVICE = "hotlora"
_EXPORT_SECONDS = 2.0
"""For one try; the end of the service waits for the last one."""

_tracer = trace.get_tracer(_SERVICE)
_propagator = TraceContextTextMapPropagator()


@contextmanager
def exported_to(endpoint: str | None) -> Iterator[None]:
    """Send spans to an OTLP/HTTP collector, such as http://127.0.0.1:4318/v1/traces, until the block ends;
    None: nowhere. Once in a process. OTEL_* variables say more, such as headers and how much is sampled.

    Raises HotloraError where the extra is not installed. May block for seconds at the end.
    """
    if endpoint is None:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise HotloraError(
            "TRACES_NOT_INSTALLED",
            f"HOTLORA_TRACES_ENDPOINT needs the extra `traces`: pip install 'hotlora[traces]' ({error})",
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": _SERVICE}))
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


@contextmanager
def incoming(name: str, carrier: Mapping[str, str], attributes: Attributes) -> Iterator[None]:
    """A call that came in, current within the block; the caller's own trace goes on where `carrier`, its
    headers or metadata by lower-case names, has one. What is logged meanwhile names the trace."""
    with _tracer.start_as_current_span(
        name,
        context=_propagator.extract(carrier),
        kind=SpanKind.SERVER,
        attributes=dict(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        if not span.is_recording():
            yield
            return
        trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        with structlog.contextvars.bound_contextvars(trace=trace_id):
            yield


def happened(name: str, attributes: Attributes) -> None:
    """Something within the call that is current, with its time."""
    trace.get_current_span().add_event(name, dict(attributes))


def note(attributes: Attributes) -> None:
    """Tell more of the call that is current."""
    trace.get_current_span().set_attributes(dict(attributes))


def failed(why: str, attributes: Attributes) -> None:
    """The call that is current failed; `why` is a reason, not a text of anybody's."""
    span = trace.get_current_span()
    span.set_status(StatusCode.ERROR, why)
    span.set_attributes(dict(attributes))


@contextmanager
def outgoing(name: str, attributes: Attributes) -> Iterator[tuple[Span, dict[str, str]]]:
    """What is asked of somebody else for the call that is current, and the headers by which they go on with
    its trace. What belongs to no call, such as probes, is not traced."""
    if not trace.get_current_span().is_recording():
        yield trace.INVALID_SPAN, {}
        return
    span = _tracer.start_span(name, kind=SpanKind.CLIENT, attributes=dict(attributes))
    headers: dict[str, str] = {}
    _propagator.inject(headers, context=trace.set_span_in_context(span))
    try:
        yield span, headers
    except Exception as error:
        span.set_status(StatusCode.ERROR, type(error).__name__)
        raise
    finally:
        span.end()
