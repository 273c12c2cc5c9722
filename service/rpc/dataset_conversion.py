"""Datasets between the wire and the domain, as `conversion` is for everything else. Decides nothing.

What a file's uploader wishes and what was found in it, `hotlora.inspection` converts, for the command too.
"""

from dataclasses import replace

from hotlora import inspection
from hotlora.v1 import dataset_service_pb2 as pb
from hotlora.v1 import resources_pb2 as resources_pb
from service.registry import DatasetRow
from service.rpc import conversion
from trainer.config import Task

_TASKS_SENT = {
    None: resources_pb.TASK_UNSPECIFIED,
    Task.CLASSIFICATION: resources_pb.TASK_CLASSIFICATION,
    Task.ENTITIES: resources_pb.TASK_ENTITIES,
    Task.QUESTION_ANSWERING: resources_pb.TASK_QUESTION_ANSWERING,
    Task.GENERATION: resources_pb.TASK_GENERATION,
    Task.INSTRUCTION: resources_pb.TASK_INSTRUCTION,
}


def summary_message(row: DatasetRow) -> pb.Dataset:
    """A dataset in a list: a thousand labels and some examples of each would not fit a page of them."""
    if row.report is None:
        return dataset_message(row)
    figures = replace(row.report, problems=(), reasons={}, duplicate_rows=(), leaked_rows=(), labels={})
    return dataset_message(replace(row, report=figures))


def dataset_message(row: DatasetRow) -> pb.Dataset:
    """A dataset."""
    return pb.Dataset(
        name=conversion.dataset_name(row.id),
        display_name=row.display_name,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        rows=row.rows,
        tokens=row.tokens,
        longest_row_tokens=row.longest_row_tokens,
        create_time=conversion.timestamp(row.create_time),
        kind=inspection.KINDS[row.kind],
        task=_TASKS_SENT[row.task],
        report=inspection.report_message(row.report) if row.report is not None else None,
        labels=sorted(row.report.labels) if row.report is not None else (),
        base_model=row.base_model,
    )
