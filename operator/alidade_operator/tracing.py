"""Sends the spans of runs to a collector, by OpenTelemetry's SDK and OTLP over HTTP. No other module imports it."""

from datetime import datetime
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, set_span_in_context

from alidade_operator.config import Tracing
from alidade_operator.spans import Span

_PATH = "/v1/traces"
_NS = 1_000_000_000


class _KnownIds(IdGenerator):
    """Gives the span that is started next the identifiers that it is to have; the SDK would draw them at random."""

    next: Span

    def generate_trace_id(self) -> int:
        """The trace's; asked for roots only."""
        return self.next.trace

    def generate_span_id(self) -> int:
        """The span's."""
        return self.next.id


class Exporter:
    """Takes spans at once and sends them in the background; what a collector does not take in time is lost.

    Headers, certificates, compression and the size of batches are the SDK's own environment variables (OTEL_…).
    """

    def __init__(self, tracing: Tracing) -> None:
        resource = Resource.create({"service.name": tracing.service_name})
        self._ids = _KnownIds()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(traces_url(tracing.endpoint))))
        self._tracer = self._provider.get_tracer("alidade_operator")

    def take(self, span: Span) -> None:
        """Sends a span, some seconds later."""
        # Not whatever is under way in this process.
        context = Context()
        if span.parent:
            sampled = TraceFlags(TraceFlags.SAMPLED)
            parent = SpanContext(span.trace, span.parent, is_remote=True, trace_flags=sampled)
            context = set_span_in_context(NonRecordingSpan(parent), context)
        self._ids.next = span
        made = self._tracer.start_span(
            span.name, context=context, start_time=_ns(span.start), attributes=dict(span.attributes)
        )
        if span.error:
            made.set_status(Status(StatusCode.ERROR, span.error))
        made.end(_ns(span.end))

    def close(self) -> None:
        """Sends what is left; blocks for as long as that takes, some seconds where nobody answers."""
        self._provider.shutdown()


def traces_url(endpoint: str) -> str:
    """Where traces are posted to: an endpoint without a path is an OTLP receiver's."""
    return endpoint if urlsplit(endpoint).path not in ("", "/") else endpoint.rstrip("/") + _PATH


def _ns(time: datetime) -> int:
    return int(time.timestamp() * 1000) * (_NS // 1000)
