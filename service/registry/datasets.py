"""SQL for datasets."""

from sqlalchemy import insert as insert_into
from sqlalchemy import or_, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from service.errors import AlreadyExists, NotFound, WrongState
from service.registry import cursors
from service.registry.rows import DatasetRow, Page
from service.registry.states import JOB_ENDED
from service.registry.tables import datasets, jobs
from trainer.config import Task
from trainer.inspection import Report
from trainer.records import Kind

_FIELDS = tuple(DatasetRow.__dataclass_fields__)
_COLUMNS = [datasets.c[name] for name in _FIELDS]


def _row(row: Row[tuple[object, ...]]) -> DatasetRow:
    fields = {name: row._mapping[name] for name in _FIELDS}
    task = Task(fields["task"]) if fields["task"] is not None else None
    report = Report.from_json(fields["report"]) if fields["report"] is not None else None
    return DatasetRow(**{**fields, "kind": Kind(fields["kind"]), "task": task, "report": report})


async def insert(connection: AsyncConnection, row: DatasetRow) -> None:
    if await id_taken(connection, row.id):
        raise AlreadyExists(
            "DATASET_ID_USED", f"dataset id {row.id!r} is or was taken; ids are never reused, choose another"
        )
    values = {name: getattr(row, name) for name in _FIELDS}
    values["report"] = row.report.to_json() if row.report is not None else None
    await connection.execute(insert_into(datasets).values(values))


async def id_taken(connection: AsyncConnection, dataset_id: str) -> bool:
    found = await connection.execute(select(datasets.c.id).where(datasets.c.id == dataset_id))
    return found.one_or_none() is not None


async def get(connection: AsyncConnection, dataset_id: str) -> DatasetRow:
    found = await connection.execute(
        select(*_COLUMNS).where(datasets.c.id == dataset_id, datasets.c.delete_time.is_(None))
    )
    row = found.one_or_none()
    if row is None:
        raise NotFound("DATASET_NOT_FOUND", f"there is no dataset {dataset_id!r}")
    return _row(row)


async def listing(connection: AsyncConnection, limit: int, cursor: str) -> Page[DatasetRow]:
    query = select(datasets.c.ordinal, *_COLUMNS).where(datasets.c.delete_time.is_(None))
    before = cursors.decode_number("datasets", cursor)
    if before is not None:
        query = query.where(datasets.c.ordinal < before)
    found = (await connection.execute(query.order_by(datasets.c.ordinal.desc()).limit(limit + 1))).all()
    shown = found[:limit]
    return Page(
        rows=tuple(_row(row) for row in shown),
        next_cursor=cursors.encode("datasets", shown[-1].ordinal) if len(found) > limit else "",
    )


async def delete(connection: AsyncConnection, dataset_id: str, now: float) -> None:
    await get(connection, dataset_id)
    user = await connection.execute(
        select(jobs.c.id, jobs.c.state)
        .where(
            or_(jobs.c.dataset_id == dataset_id, jobs.c.evaluation_dataset_id == dataset_id),
            jobs.c.state.not_in(JOB_ENDED),
        )
        .limit(1)
    )
    job = user.one_or_none()
    if job is not None:
        raise WrongState(
            f"dataset {dataset_id!r} is needed by job {job.id!r}, which is {job.state}; "
            f"it can be deleted once that job is {', '.join(sorted(JOB_ENDED))}",
            state=job.state,
            allowed=sorted(JOB_ENDED),
            reason="DATASET_IN_USE",
        )
    await connection.execute(
        update(datasets).where(datasets.c.id == dataset_id).values(delete_time=now, display_name="")
    )
