"""Traces by OpenTelemetry: a save followed from its request, through the doorbell, to the commit that stored it.

    web     POST …/messages          the request; its context goes into the doorbell's message, and beside the row
    events  GET …/events            a reader's request; a stream's span ends with the stream
    worker  blotter.flush            child of the request that rang
    worker  blotter.commit           one transaction; linked to every save that its rows hold (models/pipeline/spans.py)

Off unless OTEL_TRACES_EXPORTER names an exporter; all else (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER,
OTEL_SERVICE_NAME …) is read by the SDK itself. Laws: off, nothing of OpenTelemetry is imported, and a span costs a look at
one variable; a span holds ids, counts and names, never chat text: of an exception its class alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, Final, Literal

from models.errors import SettingsError
from models.settings import Settings

_GROUP: Final = "opentelemetry_traces_exporter"
_OFF: Final[AbstractContextManager[Any]] = nullcontext()

_provider: Any = None
_tracer: Any = None


def on() -> bool:
    """Whether this process traces."""
    return _tracer is not None


def check(settings: Settings) -> None:
    """Raises SettingsError where traces are wanted and cannot be had."""
    name = settings.otel_traces_exporter
    if name == "none":
        return
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        raise SettingsError(f"OTEL_TRACES_EXPORTER: {name} needs OpenTelemetry: pip install 'blotter[otel]'")
    if _exporter(name) is None:
        raise SettingsError(f"OTEL_TRACES_EXPORTER: no exporter {name} is installed")


def start(settings: Settings, service: str, exporter: Any = None) -> None:
    """Trace from now on, where the settings say so; ``exporter`` instead of theirs, each span at once, for tests.

    Once a process, after it was forked: a thread sends what was traced. Raises SettingsError as `check`.
    """
    global _provider, _tracer  # noqa: PLW0603 (as the libraries have it: one tracer a process)
    if _provider is not None or (exporter is None and settings.otel_traces_exporter == "none"):
        return
    check(settings)
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    ours = Resource.create({"service.name": f"blotter-{service}"})
    _provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()))
    if exporter is None:
        found = _exporter(settings.otel_traces_exporter)
        assert found is not None, "checked"
        _provider.add_span_processor(BatchSpanProcessor(found.load()()))
    else:
        _provider.add_span_processor(SimpleSpanProcessor(exporter))
    _tracer = _provider.get_tracer("blotter")


def stop() -> None:
    """Send what is left, and trace no more."""
    global _provider, _tracer
    provider, _provider, _tracer = _provider, None, None
    if provider is not None:
        provider.shutdown()


def span(
    name: str,
    *,
    kind: Literal["internal", "server", "client", "consumer"] = "internal",
    carrier: Mapping[str, Any] | None = None,
    links: Sequence[str] = (),
    **attributes: str | int,
) -> AbstractContextManager[Any]:
    """A span around a block, as which it gives itself; None where nothing is traced.

    ``carrier``: what `carried` gave elsewhere, its parent (default: the span around it). ``links``: the `traceparent` of
    spans that this one goes back to. Attributes' names get the prefix `blotter.`.
    """
    if _tracer is None:
        return _OFF
    return _span(name, kind, carrier, links, attributes)


@contextmanager
def _span(
    name: str,
    kind: str,
    carrier: Mapping[str, Any] | None,
    links: Sequence[str],
    attributes: Mapping[str, str | int],
) -> Iterator[Any]:
    from opentelemetry import trace

    parents = [trace.get_current_span(_context({"traceparent": link})).get_span_context() for link in links]
    with _tracer.start_as_current_span(
        name,
        context=None if carrier is None else _context(carrier),
        kind=trace.SpanKind[kind.upper()],
        links=[trace.Link(parent) for parent in parents if parent.is_valid],
        attributes={f"blotter.{key}": value for key, value in attributes.items()},
        record_exception=False,
        set_status_on_exception=False,
    ) as made:
        try:
            yield made
        except BaseException as error:
            made.set_status(trace.StatusCode.ERROR, type(error).__name__)
            raise


def carried() -> dict[str, str]:
    """The span around us, to be carried elsewhere (W3C Trace Context); empty where none is, or it is not sampled."""
    if _tracer is None:
        return {}
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    if trace.get_current_span().get_span_context().trace_flags.sampled:
        TraceContextTextMapPropagator().inject(carrier)
    return carrier


def trace_id() -> str:
    """The trace we are in, as logs name it; empty where there is none."""
    if _tracer is None:
        return ""
    return carried().get("traceparent", "--").split("-")[1]


def _context(carrier: Mapping[str, Any]) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    given = {key: carrier[key] for key in ("traceparent", "tracestate") if isinstance(carrier.get(key), str)}
    # Out of a context of its own: what surrounds us is not the parent.
    return TraceContextTextMapPropagator().extract(given, context=Context())


def _exporter(name: str) -> EntryPoint | None:
    """By the SDK's own table of names; `otlp` is OTLP over HTTP unless the package of another is all there is."""
    names = ("otlp_proto_http", "otlp_proto_grpc") if name == "otlp" else (name,)
    found = {point.name: point for point in entry_points(group=_GROUP)}
    return next((found[one] for one in names if one in found), None)
