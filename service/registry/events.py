"""SQL for the events of jobs: rows are only ever added."""

import dataclasses
import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from service.registry.rows import EventBody, EventRow, StateChanged
from service.registry.states import JobState
from service.registry.tables import job_events
from trainer import events


async def append(connection: AsyncConnection, job_id: str, sequence: int, body: EventBody) -> EventRow:
    """Add the event. `sequence` was counted up in the job's row in the same transaction: no gaps."""
    await connection.execute(
        insert(job_events).values(
            job_id=job_id, sequence=sequence, time=body.time, kind=body.kind, body=_encode(body)
        )
    )
    return EventRow(job_id=job_id, sequence=sequence, time=body.time, kind=body.kind, body=body)


async def after(connection: AsyncConnection, job_id: str, sequence: int, limit: int) -> list[EventRow]:
    return await _rows(
        connection,
        select(job_events)
        .where(job_events.c.job_id == job_id, job_events.c.sequence > sequence)
        .order_by(job_events.c.sequence)
        .limit(limit),
    )


async def of_kinds(connection: AsyncConnection, job_id: str, kinds: Collection[str]) -> list[EventRow]:
    return await _rows(
        connection,
        select(job_events)
        .where(job_events.c.job_id == job_id, job_events.c.kind.in_(kinds))
        .order_by(job_events.c.sequence),
    )


async def _rows(connection: AsyncConnection, query: Select[Any]) -> list[EventRow]:
    return [
        EventRow(
            job_id=row.job_id,
            sequence=row.sequence,
            time=row.time,
            kind=row.kind,
            body=_decode(row.kind, row.body),
        )
        for row in await connection.execute(query)
    ]


def _encode(body: EventBody) -> str:
    if isinstance(body, StateChanged):
        return json.dumps(dataclasses.asdict(body))
    return events.encode(body).decode()


def _decode(kind: str, text: str) -> EventBody:
    if kind == StateChanged.kind:
        fields = json.loads(text)
        return StateChanged(**{**fields, "state": JobState(fields["state"])})
    body = events.decode(text.encode())
    assert not isinstance(body, events.Failed | events.Cancelled | events.Paused | events.Heartbeat), (
        "never recorded"
    )
    return body
