"""An OpenTelemetry collector: takes spans as OTLP over HTTP and keeps them."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

LIMIT_SECONDS = 30.0


@dataclass(kw_only=True)
class Collector:
    """What came."""

    url: str
    spans: list[Span] = field(default_factory=list)
    received: bytes = b""
    """All of it, as it came."""
    came: threading.Condition = field(default_factory=threading.Condition)

    def take(self, body: bytes) -> None:
        """One export."""
        with self.came:
            self.received += body
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
            self.came.notify_all()

    def of_trace(self, trace_id: str, count: int) -> list[Span]:
        """The spans of a trace, once there are so many; callers before called ones."""

        def found() -> list[Span]:
            return [span for span in self.spans if span.trace_id.hex() == trace_id]

        with self.came:
            assert self.came.wait_for(lambda: len(found()) >= count, LIMIT_SECONDS), found()
            return sorted(found(), key=lambda span: span.start_time_unix_nano)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens on loopback until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(url=f"http://127.0.0.1:{server.server_port}/v1/traces")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def attributes(span: Span) -> dict[str, object]:
    """Those of a span by their names."""
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}
