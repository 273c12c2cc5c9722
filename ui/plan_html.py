"""A plan as HTML: one small table, its advice, and behind each technique how its figures come about."""

from collections.abc import Iterable
from html import escape

from hotlora.v1.planning_service_pb2 import (
    MemoryLine,
    MemoryPart,
    PlanResponse,
    SettingReason,
    TechniquePlan,
    TextbookLine,
)
from hotlora.v1.tuning_service_pb2 import Technique
from ui.cards import TECHNIQUES

_TITLES = {technique: title for title, technique in TECHNIQUES.items()}
_GIB = 1 << 30


def plan_html(response: PlanResponse) -> str:
    """The plan as one small table and its advice; every foreign word is escaped."""
    recommended = response.recommendation
    rows = "".join(
        f"<tr{_marked(one.technique == recommended.technique)}><td>{_title(one.technique)}</td>"
        f"<td>{one.total_bytes / _GIB:.1f} GiB</td><td>{_place(one)}</td>"
        f"<td>{_duration(one.seconds) if one.HasField('seconds') else 'not known'}</td></tr>"
        for one in response.techniques
    )
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in recommended.reasons)
    verdict = "" if recommended.fits or not recommended.technique else " (does not fit)"
    device = response.device
    return (
        '<div class="report plan">'
        f'<p class="muted">{response.data.rows:,} rows, {response.data.tokens:,} tokens; '
        f"{device.available_bytes / _GIB:.1f} of {device.memory_bytes / _GIB:.1f} GiB are free</p>"
        "<table><tr><th>technique</th><th>memory</th><th>fits</th><th>time</th></tr>"
        f'{rows}</table><p class="summary">Recommended: {_title(recommended.technique)}{verdict}</p>'
        f'<ul class="muted">{reasons}</ul>{"".join(map(_details, response.techniques))}</div>'
    )


def _place(planned: TechniquePlan) -> str:
    """Whether there is room for it, and an engine."""
    if planned.unservable:
        return f'<span title="{escape(planned.unservable)}">cannot be served</span>'
    return "yes" if planned.fits else "no"


def _marked(chosen: bool) -> str:
    return ' class="right"' if chosen else ""


def _title(technique: Technique) -> str:
    return escape(_TITLES.get(technique, Technique.Name(technique)))


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"


def _details(plan: TechniquePlan) -> str:
    """Where memory goes, which settings a job would get, and the primer's figures; folded."""
    if not plan.memory:
        return ""
    return (
        f"<details><summary>{_title(plan.technique)}: {plan.steps:,} steps, {plan.tokens:,} tokens</summary>"
        f"{_memory(plan.memory)}{_settings(plan.reasons)}{_textbook(plan.textbook)}</details>"
    )


def _memory(lines: Iterable[MemoryLine]) -> str:
    rows = "".join(
        f"<tr><td>{_part(line.part)}</td><td>{_size(line.bytes)}</td><td>{escape(line.explanation)}</td></tr>"
        for line in lines
    )
    return f"<table><tr><th>memory</th><th></th><th>how it comes about</th></tr>{rows}</table>"


def _settings(reasons: Iterable[SettingReason]) -> str:
    rows = "".join(
        f"<tr><td>{escape(each.field.replace('_', ' '))}</td><td>{each.value:g}</td>"
        f"<td>{escape(each.reason)}</td></tr>"
        for each in reasons
    )
    return f"<table><tr><th>default</th><th></th><th>why</th></tr>{rows}</table>" if rows else ""


def _textbook(lines: Iterable[TextbookLine]) -> str:
    rows = "".join(
        f"<tr><td>{_part(line.part)}</td><td>{_size(line.bytes)}</td>"
        f"<td>{_size(line.printed_bytes) if line.HasField('printed_bytes') else ''}</td>"
        f"<td>{_size(line.real_bytes)}</td><td>{escape(line.reality or line.rule)}</td></tr>"
        for line in lines
    )
    heads = "<tr><th>primer</th><th>its rule</th><th>it prints</th><th>really</th><th></th></tr>"
    return f"<table>{heads}{rows}</table>" if rows else ""


def _part(part: MemoryPart) -> str:
    return escape(MemoryPart.Name(part).removeprefix("MEMORY_PART_").lower())


def _size(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.2f} GiB"
