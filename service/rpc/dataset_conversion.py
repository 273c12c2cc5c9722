"""Datasets between the wire and the domain, as `conversion` is for everything else. Decides nothing."""

from collections.abc import Mapping, Sequence

from hotlora.v1 import dataset_service_pb2 as pb
from hotlora.v1 import resources_pb2 as resources_pb
from service.registry import DatasetRow
from service.rpc import conversion
from trainer.config import Task
from trainer.inspection import BadRows, PreviewRow, Repeat, Report, Wish
from trainer.records import Format, Kind, Reading
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
_FORMATS: Mapping[int, Format | None] = {
    pb.FORMAT_UNSPECIFIED: None,
    pb.FORMAT_CHAT: Format.CHAT,
    pb.FORMAT_PROMPT_COMPLETION: Format.PROMPT_COMPLETION,
    pb.FORMAT_ALPACA: Format.ALPACA,
    pb.FORMAT_SHAREGPT: Format.SHAREGPT,
    pb.FORMAT_TEXT: Format.TEXT,
    pb.FORMAT_PREFERENCES: Format.PREFERENCES,
}
_BAD_ROWS: Mapping[int, BadRows] = {
    pb.BAD_ROWS_UNSPECIFIED: BadRows.REFUSE,
    pb.BAD_ROWS_REFUSE: BadRows.REFUSE,
    pb.BAD_ROWS_DROP: BadRows.DROP,
}
_KINDS_SENT = {
    Kind.CONVERSATIONS: pb.Dataset.KIND_CONVERSATIONS,
    Kind.TEXT: pb.Dataset.KIND_TEXT,
    Kind.PREFERENCES: pb.Dataset.KIND_PREFERENCES,
}


def wish_of(header: pb.UploadHeader) -> Wish:
    """What an uploader asks of a file."""
    return Wish(
        reading=Reading(format=_FORMATS[header.format], mapping=dict(header.mapping)),
        bad_rows=_BAD_ROWS[header.bad_rows],
        task=_TASKS[header.task],
    )


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
        report=report_message(row.report) if row.report is not None else None,
        labels=sorted(row.report.labels) if row.report is not None else (),
    )


def looked_at_message(
    header: pb.UploadHeader, report: Report, kind: Kind | None, preview: Sequence[PreviewRow]
) -> pb.Dataset:
    """A file that was only looked at."""
    message = report_message(report)
    message.preview.extend(map(preview_row_message, preview))
    return pb.Dataset(
        display_name=header.display_name,
        rows=report.rows_kept,
        tokens=report.tokens,
        longest_row_tokens=report.longest_row_tokens,
        kind=_KINDS_SENT[kind] if kind is not None else pb.Dataset.KIND_UNSPECIFIED,
        task=header.task,
        report=message,
        labels=sorted(report.labels),
    )


def report_message(report: Report) -> pb.DatasetReport:
    """What was found in a file."""
    return pb.DatasetReport(
        rows_kept=report.rows_kept,
        rows_dropped=report.rows_dropped,
        rows_cut=report.rows_cut,
        problems=[
            pb.RowProblem(place=problem.place, reason=problem.reason, advice=problem.advice)
            for problem in report.problems
        ],
        reasons=[pb.ReasonCount(reason=reason, rows=rows) for reason, rows in report.reasons.items()],
        duplicates=report.duplicates,
        duplicate_rows=map(_repeat_message, report.duplicate_rows),
        leaks=report.leaks,
        leaked_rows=map(_repeat_message, report.leaked_rows),
        tokens=report.tokens,
        trained_tokens=report.trained_tokens,
        token_percentiles=[
            pb.TokenPercentile(percent=percent, tokens=tokens)
            for percent, tokens in report.token_percentiles.items()
        ],
        longest_row_tokens=report.longest_row_tokens,
        longest_row_line=report.longest_row_line,
        labels=[pb.LabelCount(label=label, rows=rows) for label, rows in report.labels.items()],
    )


def _repeat_message(repeat: Repeat) -> pb.RepeatedRow:
    return pb.RepeatedRow(line=repeat.line, first_line=repeat.first_line)


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
