"""What Prometheus reads at /metrics, and that the dashboard asks for nothing else."""

import asyncio
import json
import re
from contextlib import aclosing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.errors import HotloraError, InvalidRequest, NotFound
from service.metrics import EngineStanding, Metrics
from service.registry import JobState
from service.serving import ChatMessage, ChatTurn
from tests.service.runner_stage import staged
from tests.service.serving_stage import MODEL, Stage, stage

HELLO = (ChatMessage(role="user", content="hello world"),)
DASHBOARD = Path(__file__).resolve().parents[2] / "deploy" / "grafana.json"
Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(metrics: Metrics) -> Figures:
    """Samples by name and labels."""
    engines = [
        EngineStanding(
            name="one",
            base_model="small",
            is_ready=True,
            restarts=2,
            adapters={"slots": 4, "cached": 64, "proven": 200},
        ),
        EngineStanding(name="two", base_model="large", is_ready=False, restarts=0, adapters={}),
    ]
    text = metrics.text(jobs={JobState.QUEUED: 3}, engines=engines).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(figures: Figures, name: str, **labels: str) -> float:
    return figures.get((name, frozenset(labels.items())), 0.0)


async def ask(on: Stage, model: str, content: str = "hello world") -> None:
    messages = (ChatMessage(role="user", content=content),)
    async with aclosing(on.chat.stream(ChatTurn(model=model, messages=messages))) as deltas:
        async for _ in deltas:
            pass


async def test_answers_are_counted_and_timed_by_the_version_that_gave_them(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        await on.outcome(await on.publish("support", b"one"))
        for model in ("support", "support@1", ""):
            await ask(on, model)
        figures = read(on.metrics)
    for model, answers in (("support@1", 2), (MODEL.name, 1)):
        assert value(figures, "hotlora_requests_total", model=model, outcome="ok") == answers
        assert value(figures, "hotlora_tokens_total", model=model, kind="completion") == 5 * answers
        assert value(figures, "hotlora_tokens_total", model=model, kind="prompt") > 0
        assert value(figures, "hotlora_time_to_first_token_seconds_count", model=model) == answers
        assert value(figures, "hotlora_time_per_token_seconds_count", model=model) == answers
    assert value(figures, "hotlora_answers_in_flight") == 0


async def test_what_is_refused_broken_off_or_given_up_is_counted_by_its_reason(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        with pytest.raises(NotFound):
            await ask(on, "nobody")
        with pytest.raises(InvalidRequest):
            await ask(on, "", 100_000 * "word ")
        on.double.faults.error_event_at = 2
        with pytest.raises(HotloraError):
            await ask(on, "")
        on.double.faults.error_event_at = None
        on.double.hold = held = asyncio.Event()
        async with aclosing(on.chat.stream(ChatTurn(messages=HELLO))) as deltas:
            await anext(deltas)
            during = read(on.metrics)
        held.set()
        figures = read(on.metrics)
    assert value(during, "hotlora_answers_in_flight") == 1
    ended = {
        (dict(labels)["model"], dict(labels)["outcome"]): count
        for (name, labels), count in figures.items()
        if name == "hotlora_requests_total"
    }
    assert ended == {
        ("", "model_not_found"): 1,
        (MODEL.name, "invalid_request"): 1,
        (MODEL.name, "engine_unavailable"): 1,
        (MODEL.name, "cancelled"): 1,
    }


async def test_loads_and_proofs_are_counted_by_their_result(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.double.faults.as_base = {"silent@1"}
        on.double.faults.refused_loads = {"refused@1"}
        on.double.faults.broken_weights = {"broken@1"}
        for name in ("good", "silent", "refused", "broken"):
            await on.outcome(await on.publish(name, name.encode()))
        figures, engine = read(on.metrics), on.engine.name

    def count(of: str, model: str, result: str) -> float:
        return value(figures, f"hotlora_{of}_total", engine=engine, model=model, result=result)

    assert count("loads", "good@1", "ok") == 1
    assert count("verifications", "good@1", "ok") >= 1
    assert count("verifications", "silent@1", "no_effect") == 1
    assert count("loads", "refused@1", "load_refused") == 1
    assert count("verifications", "refused@1", "ok") == 0
    assert count("verifications", "broken@1", "wrong_weights") == 1
    assert count("loads", "broken@1", "wrong_weights") == 0


async def test_jobs_are_timed_by_how_they_end_and_counted_while_they_have_not(tmp_path: Path) -> None:
    async with staged(tmp_path) as on:
        await on.submit()
        assert (await on.registry.unfinished_job_counts())[JobState.QUEUED] == 1
        on.plan("unlucky", fail_at_step=1)
        failing = await on.submit("unlucky")
        async with on.running():
            assert (await on.ended(failing)).state == JobState.FAILED
        assert not any((await on.registry.unfinished_job_counts()).values())
        figures = read(on.metrics)
    for state in ("succeeded", "failed"):
        labels = {"technique": "lora", "state": state}
        assert value(figures, "hotlora_job_duration_seconds_count", **labels) == 1


def test_the_present_is_told_as_it_is_at_the_time_of_asking() -> None:
    figures = read(Metrics())
    assert value(figures, "hotlora_jobs", state="queued") == 3
    for name, base, ready, restarts in (("one", "small", 1, 2), ("two", "large", 0, 0)):
        of_engine = frozenset({("engine", name), ("base_model", base)})
        assert figures["hotlora_engine_ready", of_engine] == ready
        assert figures["hotlora_engine_restarts", of_engine] == restarts
    for kind, count in (("slots", 4), ("cached", 64), ("proven", 200)):
        assert value(figures, "hotlora_engine_adapters", engine="one", base_model="small", kind=kind) == count


def test_an_engine_that_is_gone_is_told_of_no_more() -> None:
    metrics = Metrics()
    read(metrics)

    assert b'engine="one"' not in metrics.text(jobs={}, engines=[])


def test_every_metric_of_the_dashboard_is_one_of_ours_with_its_labels() -> None:
    metrics = Metrics()
    with metrics.answer() as tally:
        tally.model, tally.prompt_tokens, tally.completion_tokens = "support@1", 3, 4
        tally.first_token_seconds = 0.1
    metrics.loaded("one", "support@1")
    metrics.verified("one", "support@1")
    metrics.called("http", "GET /healthz", "200")
    metrics.job_ended("lora", "succeeded", 5.0)
    ours: dict[str, set[str]] = {}
    for name, labels in read(metrics):
        ours.setdefault(name, set()).update(label for label, _ in labels)
    asked = [
        target["expr"]
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", ())
    ]
    used = {name for query in asked for name in re.findall(r"hotlora_\w+", query)}
    assert used <= ours.keys()
    for query in asked:
        labels = {label.strip() for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(",")}
        (name,) = set(re.findall(r"hotlora_\w+", query))
        assert labels <= ours[name], query
    families = {re.sub(r"_(total|count|sum|bucket|created)$", "", name) for name in ours}
    shown = {re.sub(r"_(total|count|sum|bucket|created)$", "", name) for name in used}
    assert shown == families, "each metric has a panel"
