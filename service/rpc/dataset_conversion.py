"""Datasets between the wire and the domain, as `conversion` is for everything else. Decides nothing."""

from collections.abc import Mapping

from hotlora.v1 import dataset_service_pb2 as pb
from hotlora.v1 import resources_pb2 as resources_pb
from service.datasets import PreviewRow
from service.registry import DatasetRow
from service.rpc import conversion
from trainer.config import Task
from trainer.records import Kind
from trainer.rendering import Segment

_TASKS: Mapping[int, Task | None] = {
    resources_pb.TASK_UNSPECIFIED: None,
    resources_pb.TASK_CLASSIFICATION: Task.CLASSIFICATION,
    resources_pb.TASK_ENTITIES: Task.ENTITIES,
    resources_pb.TASK_QUESTION_ANSWERING: Task.QUESTION_ANSWERING,
    resources_pb.TASK_GENERATION: Task.GENERATION,
    resources_pb.TASK_INSTRUCTION: Task.INSTRUCTION,
}
_TASKS_SENT = {
    None: resources_pb.TASK_UNSPECIFIED,
    Task.CLASSIFICATION: resources_pb.TASK_CLASSIFICATION,
    Task.ENTITIES: resources_pb.TASK_ENTITIES,
    Task.QUESTION_ANSWERING: resources_pb.TASK_QUESTION_ANSWERING,
    Task.GENERATION: resources_pb.TASK_GENERATION,
    Task.INSTRUCTION: resources_pb.TASK_INSTRUCTION,
}
_KINDS_SENT = {
    Kind.CONVERSATIONS: pb.Dataset.KIND_CONVERSATIONS,
    Kind.TEXT: pb.Dataset.KIND_TEXT,
    Kind.PREFERENCES: pb.Dataset.KIND_PREFERENCES,
}


def task_of(task: int) -> Task | None:
    """The task that a request names."""
    return _TASKS[task]


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
        kind=_KINDS_SENT[row.kind],
        task=_TASKS_SENT[row.task],
    )


def preview_row_message(row: PreviewRow) -> pb.PreviewRow:
    """A row as the base model will see it."""
    return pb.PreviewRow(
        line=row.line,
        messages=[resources_pb.Message(role=turn.role, content=turn.content) for turn in row.messages],
        segments=map(_segment_message, row.segments),
        rejected_segments=map(_segment_message, row.rejected_segments),
        tokens=row.tokens,
        trained_tokens=row.trained_tokens,
    )


def _segment_message(segment: Segment) -> pb.RenderedSegment:
    return pb.RenderedSegment(text=segment.text, trained=segment.trained)
