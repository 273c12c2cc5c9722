"""What the service counts and measures, in the form that Prometheus reads. The log has every answer too.

Names and labels are an interface: dashboards are drawn from them (`deploy/grafana.json`, which a test
compares). Models are labelled by their exact names, a base's or adapter@number. Knows nothing of where it is
shown.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service import traces
from service.errors import HotloraError

_log = structlog.get_logger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of `text`: https://prometheus.io/docs/instrumenting/exposition_formats/"""
_WAIT_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_JOB_SECONDS = (10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0)
_ENGINE = ("engine", "base_model")
"""Labels of what is told of an engine."""


@dataclass(kw_only=True)
class Tally:
    """What is known of an answer while it is being given."""

    model: str = ""
    """Exactly which one answers; empty until that is known."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token_seconds: float | None = None
    """Since the request's arrival; None before the first token."""
    elapsed_seconds: float = 0.0
    finished: bool = False


@dataclass(frozen=True, kw_only=True)
class EngineStanding:
    """How an engine stands."""

    name: str
    base_model: str
    is_ready: bool
    restarts: int
    adapters: Mapping[str, int]
    """By kind: `slots` for one batch, `cached` at most in memory, `proven` there. Without what is not known.
    """


class Metrics:
    """See the module."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._calls = Counter(
            "hotlora_calls",
            "Calls at the doors, grpc and http, by how they ended: the code of gRPC or the status of HTTP; "
            "cancelled where the caller went away. Calls of nothing that is there have no method.",
            ["door", "method", "status"],
            registry=registry,
        )
        self._requests = Counter(
            "hotlora_requests",
            "Answers asked for, by how they ended: ok, cancelled, or the reason of an error. What was not "
            "found has no model.",
            ["model", "outcome"],
            registry=registry,
        )
        self._tokens = Counter(
            "hotlora_tokens", "Tokens of prompts and of answers.", ["model", "kind"], registry=registry
        )
        self._first_token = Histogram(
            "hotlora_time_to_first_token_seconds",
            "From a request's arrival to its first token.",
            ["model"],
            buckets=_WAIT_SECONDS,
            registry=registry,
        )
        self._token = Histogram(
            "hotlora_time_per_token_seconds",
            "Of each answer, the mean time between two tokens.",
            ["model"],
            buckets=_TOKEN_SECONDS,
            registry=registry,
        )
        self._loads = Counter(
            "hotlora_loads",
            "Versions brought into an engine, by result: ok, or the reason of a failure.",
            ["engine", "model", "result"],
            registry=registry,
        )
        self._verifications = Counter(
            "hotlora_verifications",
            "Proofs that what is served is what was trained, by result: ok, or the reason of a failure.",
            ["engine", "model", "result"],
            registry=registry,
        )
        self._job_seconds = Histogram(
            "hotlora_job_duration_seconds",
            "From a job's first claim to its end.",
            ["technique", "state"],
            buckets=_JOB_SECONDS,
            registry=registry,
        )
        self._jobs = Gauge("hotlora_jobs", "Jobs that have not ended.", ["state"], registry=registry)
        self._answers = Gauge("hotlora_answers_in_flight", "Answers being given now.", registry=registry)
        self._ready = Gauge(
            "hotlora_engine_ready",
            "1 while an engine answers, else 0. One that a whole model has for itself is told of while it "
            "runs, under that model's name.",
            _ENGINE,
            registry=registry,
        )
        self._restarts = Gauge(
            "hotlora_engine_restarts",
            "Times that an engine was started again.",
            _ENGINE,
            registry=registry,
        )
        self._adapters = Gauge(
            "hotlora_engine_adapters",
            "Adapters of an engine: slots in one batch, cached in memory at most, and proven, which may be "
            "more.",
            [*_ENGINE, "kind"],
            registry=registry,
        )

    @contextmanager
    def answer(self) -> Iterator[Tally]:
        """Counts an answer, from its request's arrival to its end, however that comes."""
        tally, outcome = Tally(), "internal"
        self._answers.inc()
        try:
            yield tally
            outcome = "ok"
        except HotloraError as error:
            outcome = error.reason.lower()
            raise
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"
            raise
        finally:
            self._answers.dec()
            self._count(tally, "ok" if tally.finished else outcome)

    def called(self, door: str, method: str, status: str) -> None:
        """A call has ended, however that came."""
        self._calls.labels(door, method, status.lower()).inc()

    def loaded(self, engine: str, model: str, result: str = "ok") -> None:
        """A version is in an engine, or will not be."""
        self._loads.labels(engine, model, result.lower()).inc()

    def verified(self, engine: str, model: str, result: str = "ok") -> None:
        """A version was measured."""
        self._verifications.labels(engine, model, result.lower()).inc()

    def job_ended(self, technique: str, state: str, seconds: float) -> None:
        """A job has ended, so long after it was first claimed."""
        self._job_seconds.labels(technique.lower(), state.lower()).observe(seconds)

    def text(self, *, jobs: Mapping[str, int], engines: Collection[EngineStanding]) -> bytes:
        """Everything, with how things stand now: jobs that have not ended by state, and the engines."""
        for state, count in jobs.items():
            self._jobs.labels(state.lower()).set(count)
        for gauge in (self._ready, self._restarts, self._adapters):
            gauge.clear()  # engines behind a name come and go
        for engine in engines:
            labels = (engine.name, engine.base_model)
            for kind, count in engine.adapters.items():
                self._adapters.labels(*labels, kind).set(count)
            self._ready.labels(*labels).set(engine.is_ready)
            self._restarts.labels(*labels).set(engine.restarts)
        return generate_latest(self._registry)

    def _count(self, tally: Tally, outcome: str) -> None:
        self._requests.labels(tally.model, outcome).inc()
        _log.info(
            "answer",
            model=tally.model,
            outcome=outcome,
            prompt_tokens=tally.prompt_tokens,
            completion_tokens=tally.completion_tokens,
            first_token_seconds=tally.first_token_seconds,
            seconds=tally.elapsed_seconds,
        )
        traces.note({"hotlora.model": tally.model})
        traces.happened(
            "answer",
            {
                "hotlora.model": tally.model,
                "hotlora.outcome": outcome,
                "gen_ai.usage.input_tokens": tally.prompt_tokens,
                "gen_ai.usage.output_tokens": tally.completion_tokens,
                "gen_ai.server.time_to_first_token": tally.first_token_seconds or 0.0,
                "hotlora.seconds": tally.elapsed_seconds,
            },
        )
        if tally.prompt_tokens:
            self._tokens.labels(tally.model, "prompt").inc(tally.prompt_tokens)
        if tally.first_token_seconds is None:
            return
        self._tokens.labels(tally.model, "completion").inc(tally.completion_tokens)
        self._first_token.labels(tally.model).observe(tally.first_token_seconds)
        if tally.completion_tokens > 1:
            spent = tally.elapsed_seconds - tally.first_token_seconds
            self._token.labels(tally.model).observe(spent / (tally.completion_tokens - 1))
